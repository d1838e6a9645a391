#!/usr/bin/env python3
"""What chat templates give under Python's Jinja2 with the settings of transformers; prints JSON.

Families of templates are rendered with every conversation, small ones with one context of values. A
rendering that raises is null, and so is what Walsh refuses though Python renders it.

Needs the packages jinja2 and transformers; made with 3.1 and 5.24 under Python 3.11.

usage: templates.py > tests/golden/templates.json
"""

import json
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

from template_constructs import EXPRESSIONS, REFUSED, STATEMENTS
from template_families import FAMILIES

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
BARE = {"tools": None, "documents": None, "add_generation_prompt": True, **TOKENS}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather at a place — now",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A \"city\" & country"},
                    "days": {"type": "integer", "default": 1},
                    "units": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "either": {"type": ["string", "null"]},
                },
                "required": ["place"],
            },
            "return": {"type": "string"},
        },
    },
    {"type": "function", "function": {"name": "f", "description": "", "parameters": {"properties": {}}}},
]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "abcdefghi",
            "type": "function",
            "function": {
                "name": "get_weather",
                "arguments": {"place": "Zürich", "days": 2, "ratio": 0.5, "big": 1e16, "flag": True, "no": None},
            },
        }
    ],
}
SYSTEM = {"role": "system", "content": "Be kind.\n"}
ASK = {"role": "user", "content": "  What is <b>1 + 1</b>? 日本 "}
ANSWER = {"role": "assistant", "content": "\nTwo.\n"}
MORE = {"role": "user", "content": "And \"2 + 2\"?"}
PARTS = {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}, {"type": "text", "text": "Tell."}],
}

CONTEXTS = {
    "empty": {"messages": [], **BARE},
    "ask": {"messages": [ASK], **BARE},
    "ask-without-prompt": {"messages": [ASK], **BARE, "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, ASK], **BARE},
    "talk": {"messages": [SYSTEM, ASK, ANSWER, MORE], **BARE},
    "talk-ends": {"messages": [ASK, ANSWER], **BARE, "add_generation_prompt": False},
    "two-users": {"messages": [ASK, MORE], **BARE},
    "thinking": {
        "messages": [
            ASK,
            {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nTwo."},
            MORE,
            {"role": "assistant", "content": "Four.", "reasoning_content": "\nEasy\n"},
            ASK,
        ],
        **BARE,
        "enable_thinking": False,
    },
    "tools": {"messages": [SYSTEM, ASK], **BARE, "tools": TOOLS},
    "tool-calls": {
        "messages": [
            ASK,
            CALL,
            {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": '{"t": 20}'},
        ],
        **BARE,
        "tools": TOOLS,
    },
    "documents": {
        "messages": [SYSTEM, ASK],
        **BARE,
        "documents": [{"title": "A", "text": "First."}, {"title": "B", "text": "Second."}],
    },
    "parts": {"messages": [PARTS, ANSWER, MORE], **BARE},
}
VALUES = {
    **CONTEXTS["talk"],
    "user": {"name": "ann", "age": 41, "tags": ["x", "y"], "ratio": 0.25, "none": None},
    "people": [
        {"name": "Cy", "age": 30, "team": "x", "admin": True, "tags": ["p"]},
        {"name": "Bo", "age": 35, "team": "y", "admin": False, "tags": []},
        {"name": "al", "age": 25, "team": "x", "admin": False, "tags": ["q", "r"]},
    ],
}


def render(source, context):
    try:
        return _compile_jinja_template(source).render(**context)
    except Exception:
        return None


def main():
    cases = []
    for name, source in FAMILIES.items():
        texts = {key: render(source, context) for key, context in CONTEXTS.items()}
        cases.append({"name": name, "template": source, "texts": texts})
    constructs = ["{{ " + line + " }}" for line in EXPRESSIONS] + STATEMENTS
    for index, source in enumerate(constructs):
        texts = {"values": render(source, VALUES)}
        cases.append({"name": f"construct {index}", "template": source, "texts": texts})
    for index, source in enumerate(REFUSED):
        if render(source, VALUES) is None:
            raise SystemExit(f"Python refuses it too: {source}")
        cases.append({"name": f"refused {index}", "template": source, "texts": {"values": None}})
    contexts = {**CONTEXTS, "values": VALUES}
    json.dump({"contexts": contexts, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
