"""Calls of tools by chats."""

import json
from typing import Literal

import jsonschema
import openai
from pydantic import BaseModel, ConfigDict, Field

from openai_common import client, user
from suite import Cases, Wrong, check, refused, same

cases = Cases()

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 24},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit", "\u5ea6"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TIME = {
    "type": "object",
    "properties": {"zone": {"type": "string", "pattern": "^[A-Z][a-z]{2,8}/[A-Z][a-z]{2,8}$"}},
    "required": ["zone"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME}


def tool(name, description):
    """A tool as requests have it."""
    function = {"name": name, "description": description, "parameters": SCHEMAS[name], "strict": True}
    return {"type": "function", "function": function}


TOOLS = [tool("get_weather", "The weather of a city"), tool("get_time", "The time in a zone such as Europe/Paris")]

QUESTION = user("What is the weather in Paris?")


def ask(server, messages=QUESTION, **options):
    """An answer by the likeliest tokens, unless the options say otherwise."""
    settings = {"temperature": 0, "seed": 1, "max_tokens": 300, "tools": TOOLS, **options}
    return client(server).chat.completions.create(model=server.model, messages=messages, **settings)


def valid(calls):
    """Checks calls: their names, their arguments, and that their ids differ."""
    check(calls, "there is no call", calls)
    for call in calls:
        same(call.type, "function", "type")
        check(call.function.name in SCHEMAS, "the name of a tool", call.function.name)
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    ids = {call.id for call in calls}
    check(len(ids) == len(calls) and all(ids), "ids", [call.id for call in calls])
    return [(call.function.name, call.function.arguments) for call in calls]


def named(name):
    """A `tool_choice` of one tool."""
    return {"type": "function", "function": {"name": name}}


@cases
def a_required_call_is_made_and_valid(server):
    for seed in range(3):
        options = {"tool_choice": "required", "parallel_tool_calls": False, "temperature": 1.0, "seed": seed}
        choice = ask(server, **options).choices[0]
        same(choice.finish_reason, "tool_calls", "finish_reason")
        valid(choice.message.tool_calls)
        check(not choice.message.content, "a text besides", choice.message.content)


@cases
def a_named_tool_is_the_one_that_is_called(server):
    for name in SCHEMAS:
        choice = ask(server, tool_choice=named(name), temperature=1.0).choices[0]
        same({called for called, _ in valid(choice.message.tool_calls)}, {name}, "tools")
        # OpenAI ends such an answer with "stop", others with "tool_calls"; clients take both.
        check(choice.finish_reason in ("tool_calls", "stop"), "finish_reason", choice.finish_reason)


@cases
def without_parallel_calls_there_is_one(server):
    for seed in range(4):
        options = {"tool_choice": "required", "parallel_tool_calls": False, "temperature": 1.2, "seed": seed}
        same(len(valid(ask(server, **options).choices[0].message.tool_calls)), 1, "calls")


@cases
def a_second_turn_has_the_result(server):
    message = ask(server, tool_choice=named("get_weather")).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "thunder over the harbour"}'}
        for call in message.tool_calls
    ]
    second = ask(server, [*QUESTION, message, *results], tool_choice="none", max_tokens=24)
    choice = second.choices[0]
    check(choice.message.content.strip() and not choice.message.tool_calls, "an answer in words", choice)
    other = [{**result, "content": '{"sky": "clear"}'} for result in results]
    shorter = ask(server, [*QUESTION, message, *other], tool_choice="none", max_tokens=24)
    check(shorter.usage.prompt_tokens < second.usage.prompt_tokens, "the result is not in the prompt", shorter.usage)
    again = ask(server, [*QUESTION, message, *results], tool_choice=named("get_time"))
    valid(again.choices[0].message.tool_calls)


@cases
def tools_are_in_the_prompt_unless_none_is_to_be_called(server):
    tokens = {choice: ask(server, tool_choice=choice, max_tokens=1).usage.prompt_tokens for choice in ("auto", "none")}
    plain = ask(server, tools=openai.omit, max_tokens=1).usage.prompt_tokens
    check(tokens["auto"] > plain + 50, "tools are not in the prompt", (tokens, plain))


@cases
def what_a_model_decides_is_told_apart(server):
    for seed in range(4):
        choice = ask(server, temperature=1.0, seed=seed, max_tokens=60).choices[0]
        if choice.message.tool_calls and choice.finish_reason != "length":
            same(choice.finish_reason, "tool_calls", "finish_reason")
            valid(choice.message.tool_calls)
        elif not choice.message.tool_calls:
            check(choice.finish_reason in ("stop", "length"), "finish_reason", choice.finish_reason)
            check(choice.message.content, "neither a text nor a call", choice)


@cases
def none_is_called_where_none_may_be(server):
    for seed in range(2):
        message = ask(server, tool_choice="none", temperature=1.0, seed=seed, max_tokens=24).choices[0].message
        check(not message.tool_calls and message.content, "a call", message)


def several(server):
    """Options by which an answer has several calls, and ends with them."""
    for seed in range(12):
        options = {"tool_choice": "required", "temperature": 1.0, "seed": seed}
        choice = ask(server, **options).choices[0]
        if choice.finish_reason == "tool_calls" and len(valid(choice.message.tool_calls)) > 1:
            return options
    raise Wrong("none of 12 answers has several calls and ends")


def assembled(chunks):
    """The calls that chunks make up, as names and arguments, by their index."""
    calls = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for part in choice.delta.tool_calls or []:
                if part.index not in calls:
                    same(part.index, len(calls), "the index of a new call")
                    check(part.id and part.function.name and part.type == "function", "a call's first part", part)
                    calls[part.index] = [part.function.name, part.function.arguments or ""]
                    continue
                check(not part.function.name, "a name that comes twice", part)
                check(part.id is None, "an id that comes twice", part)
                calls[part.index][1] += part.function.arguments
    return [tuple(call) for call in calls.values()]


@cases
def streamed_calls_add_up_to_those_at_once(server):
    for options in (
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": named("get_time")},
        several(server),
    ):
        whole = ask(server, **options).choices[0]
        chunks = list(ask(server, stream=True, **options))
        calls = valid(whole.message.tool_calls)
        same(assembled(chunks), calls, "calls")
        parts = [c.delta.tool_calls for chunk in chunks for c in chunk.choices if c.delta.tool_calls]
        check(len(parts) > 4, "arguments come in few pieces", len(parts))
        same(chunks[-1].choices[0].finish_reason, whole.finish_reason, "finish_reason")
        check(not any(c.delta.content for chunk in chunks for c in chunk.choices), "a text besides")


@cases
def the_streaming_helper_puts_calls_together(server):
    stream = client(server).chat.completions.stream(
        model=server.model, messages=QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
        temperature=0, max_tokens=300,
    )
    with stream as events:
        done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        final = events.get_final_completion().choices[0].message.tool_calls
    same([(event.name, event.arguments) for event in done], valid(final), "calls")


class SetLamp(BaseModel):
    """Sets the lamp of a lighthouse."""

    model_config = ConfigDict(extra="forbid")
    colour: Literal["red", "white", "\u767d"]
    seconds: int = Field(ge=0, le=59)
    note: str = Field(max_length=12)


@cases
def calls_are_parsed_into_the_clients_own_types(server):
    answer = client(server).chat.completions.parse(
        model=server.model, messages=user("Make it red."), tools=[openai.pydantic_function_tool(SetLamp)],
        tool_choice="required", parallel_tool_calls=False, temperature=1.0, seed=3, max_tokens=300,
    )
    for call in answer.choices[0].message.tool_calls:
        check(isinstance(call.function.parsed_arguments, SetLamp), "arguments", call)


@cases
def a_tool_without_parameters_is_called(server):
    tools = [{"type": "function", "function": {"name": "ring_the_bell"}}]
    call = ask(server, tools=tools, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls[0]
    same(call.function.name, "ring_the_bell", "name")
    check(isinstance(json.loads(call.function.arguments), dict), "arguments", call.function.arguments)


@cases
def calls_of_n_answers_are_told_apart(server):
    answer = ask(server, tool_choice="required", parallel_tool_calls=False, n=2, temperature=1.0)
    same([choice.index for choice in answer.choices], [0, 1], "indices")
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls]
    same(len(set(ids)), len(ids), "ids")
    for choice in answer.choices:
        valid(choice.message.tool_calls)


@cases
def a_call_that_is_cut_short_says_so(server):
    for most in (2, 4, 6, 12, 30):
        choice = ask(server, tool_choice=named("get_weather"), max_tokens=most).choices[0]
        if most < 12:
            same(choice.finish_reason, "length", "finish_reason")
        check("tool_call" not in (choice.message.content or ""), "the form of a call is shown", choice)
        chunks = list(ask(server, tool_choice=named("get_weather"), max_tokens=most, stream=True))
        text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
        check("tool_call" not in text, "the form of a call is streamed", text)


@cases
def choices_that_cannot_be_are_refused(server):
    for options in (
        {"tool_choice": named("no_such_tool")},
        {"tool_choice": "sometimes"},
        {"tool_choice": "required", "tools": []},
        {"tools": [{"type": "function", "function": {"description": "no name"}}]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "nothing"}}}],
         "tool_choice": "required"},
        {"tools": TOOLS + TOOLS[:1]},
    ):
        error = refused(openai.BadRequestError, lambda: ask(server, **options))
        check(error.param and error.param.startswith("tool"), f"param of {options}", error.param)


@cases
def arguments_that_are_no_json_are_refused(server):
    call = {"id": "a", "type": "function", "function": {"name": "get_time", "arguments": "{"}}
    result = {"role": "tool", "tool_call_id": "a", "content": "noon"}
    messages = [*QUESTION, {"role": "assistant", "tool_calls": [call]}, result]
    error = refused(openai.BadRequestError, lambda: ask(server, messages, max_tokens=4))
    check("messages" in (error.param or ""), "param", error.param)
