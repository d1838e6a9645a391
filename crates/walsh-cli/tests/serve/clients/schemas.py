"""Random JSON schemas, and whether answers keep to them: `schemas.py URL [--model M] [--count N] [--seed S]`.

Every string and array is bounded, so that an answer of a model that says nothing sensible ends, too. An answer must
parse, hold no name twice and no half of a character, and validate. One that was cut short by its number of tokens
counts as failed, unless it is a beginning of JSON: those are told apart, and fail the run where they are many.
"""

import argparse
import json
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pydantic_core

# An object that may have any names has many of them before a small model ends it: no name comes twice.
MOST_TOKENS = 1500
AT_ONCE = 8
WORDS = [
    "name", "size", "id", "colour", "first name", "a.b", "x-y", "$value", "r\u00e9sum\u00e9", "gr\u00f6\u00dfe",
    "\u540d\u524d", "\u0438\u043c\u044f", "\u03bb", "\U0001f980", "e\u0301", "it's", "say \"hi\"", "back\\slash",
    "tab\there", "line\nbreak", "\u0645\u0631\u062d\u0628\u0627", "na\u00efve", "", " ", "caf\u00e9 \u2603", "null",
]
# Patterns that hold from end to end, most of them, and what Python's `re` understands alike.
PATTERNS = [
    "^[a-z]{2,6}$", "^[A-Z]{3}-[0-9]{2,4}$", "^(red|green|blau|\u8d64)$", "^[0-9]{4}-(0[1-9]|1[0-2])$",
    "^#[0-9a-fA-F]{6}$", "^[\u00e4\u00f6\u00fc]{1,4}$", "^[\u0430-\u044f]{3,5}!?$", "^(ab|cd){1,3}$",
    "^[^\"\\\\\\u0000-\\u001f]{1,5}$", "^\\+?[1-9][0-9]{6,9}$", "^[\\w.]{1,8}@[a-z]{2,5}\\.(com|org)$", "^v\\d\\.\\d{1,2}$",
]


def word(draw):
    """A word of the list."""
    return draw.choice(WORDS)


def text(draw):
    """A schema of texts, bounded one way or another."""
    match draw.randrange(5):
        case 0:
            return {"type": "string", "pattern": draw.choice(PATTERNS)}
        case 1:
            return {"type": "string", "enum": draw.sample(WORDS, draw.randint(1, 5))}
        case 2:
            return {"type": "string", "format": draw.choice(["uuid", "ipv4"])}
        case _:
            least = draw.choice([0, 0, 1, 5])
            return {"type": "string", "minLength": least, "maxLength": least + draw.randint(0, 8)}


def number(draw):
    """A schema of numbers, bounded at both ends."""
    if draw.random() < 0.6:
        least = draw.choice([0, 1, -5, -1000, 17, 10**6])
        schema = {"type": "integer", "minimum": least, "maximum": least + draw.choice([0, 1, 9, 255, 10**4])}
        if draw.random() < 0.2:
            schema = {"type": "integer", "exclusiveMinimum": least - 1, "exclusiveMaximum": least + 11}
        return schema
    least = draw.choice([0, -1, 0.5, -273.15, 99.9])
    schema = {"minimum": least, "maximum": least + draw.choice([0.25, 1, 100])}
    if draw.random() < 0.3:
        schema = {"exclusiveMinimum": least, "exclusiveMaximum": least + draw.choice([1, 7.5])}
    return {"type": "number", **schema}


def constant(draw):
    """A value or a few, of any type."""
    values = [0, -7, 1.5, True, False, None, [], {}, [1, "a"], {"a": None}, word(draw), word(draw)]
    if draw.random() < 0.4:
        return {"const": draw.choice(values)}
    chosen = draw.sample(range(len(values)), draw.randint(1, 5))
    # JSON schema has 0 and false apart, but equal values only once.
    return {"enum": unlike([values[place] for place in sorted(chosen)])}


def unlike(values):
    """The values without those that come twice."""
    return list({json.dumps(value): value for value in values}.values())


def leaf(draw):
    """A schema of what has no parts."""
    return draw.choice([text, text, number, number, constant, lambda _: {"type": "boolean"}])(draw)


def record(draw, depth):
    """A schema of objects, of which any property may be missing unless it is required."""
    names = draw.sample(WORDS, draw.randint(1, 4))
    schema = {"type": "object", "properties": {name: any_of(draw, depth - 1) for name in names}}
    required = [name for name in names if draw.random() < 0.7]
    if required or draw.random() < 0.5:
        schema["required"] = required
    schema["additionalProperties"] = False
    return schema


def row(draw, depth):
    """A schema of arrays."""
    if draw.random() < 0.25:
        items = [any_of(draw, depth - 1) for _ in range(draw.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    least = draw.choice([0, 0, 1, 2])
    return {"type": "array", "items": any_of(draw, depth - 1), "minItems": least, "maxItems": least + draw.randint(0, 2)}


def any_of(draw, depth):
    """A schema of values that nest so deep."""
    if depth <= 0:
        return leaf(draw)
    match draw.randrange(8):
        case 0 | 1:
            return record(draw, depth)
        case 2:
            return row(draw, depth)
        case 3:
            return {"anyOf": [any_of(draw, depth - 1) for _ in range(draw.randint(2, 3))]}
        case 4:
            return nullable(draw)
        case 5:
            return {"$ref": f"#/$defs/{draw.choice(['one', 'other'])}"}
        case _:
            return leaf(draw)


def nullable(draw):
    """A schema of values that may be null."""
    schema = draw.choice([text, number])(draw)
    if "enum" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def schema_of(seed, index):
    """The schema of a number: the same one for the same seed."""
    draw = random.Random(f"{seed}/{index}")
    schema = record(draw, draw.choice([1, 2, 2, 3, 3, 4]))
    schema["$defs"] = {"one": leaf(draw), "other": record(draw, 1)}
    return schema


def once(pairs):
    """An object whose names differ."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a name comes twice: {names}")
    return dict(pairs)


def no_constant(name):
    """Refuses what JSON does not have."""
    raise ValueError(f"{name} is no JSON")


def wrong_with(text, schema):
    """What is wrong with an answer; nothing if nothing is."""
    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode()
        validator = jsonschema.Draft202012Validator
        jsonschema.validate(value, schema, validator, format_checker=validator.FORMAT_CHECKER)
    except jsonschema.ValidationError as error:
        return f"it does not validate: {error.message} at {list(error.absolute_path)}"
    except (ValueError, RecursionError) as error:
        return f"it does not parse: {error}"
    return None


def is_beginning(text):
    """Whether a text can go on to be JSON."""
    try:
        pydantic_core.from_json(re.sub(r"\\(u[0-9a-fA-F]{0,3})?$", "", text), allow_partial="trailing-strings")
    except ValueError:
        return False
    return True


class Tally:
    """What came of the schemas."""

    def __init__(self):
        self.valid, self.cut, self.failed, self.tokens = 0, [], [], 0


def ask(client, arguments, index):
    """What came of one schema: `valid`, `cut` or `failed`, why, and how many tokens that took."""
    schema = schema_of(arguments.seed, index)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        answer = client.chat.completions.create(
            model=arguments.model,
            messages=[{"role": "user", "content": f"Invent an example, number {index}. Answer with JSON."}],
            response_format={"type": "json_schema", "json_schema": {"name": "form", "schema": schema, "strict": True}},
            temperature=0.8,
            seed=index,
            max_tokens=MOST_TOKENS,
        )
    except openai.OpenAIError as error:
        return "failed", f"{type(error).__name__}: {error}", 0
    choice, tokens = answer.choices[0], answer.usage.completion_tokens
    text = choice.message.content or ""
    if choice.finish_reason == "length":
        return ("cut" if is_beginning(text) else "failed"), f"cut short: {text!r}", tokens
    why = wrong_with(text, schema)
    if choice.finish_reason != "stop":
        why = f"finish_reason is {choice.finish_reason}"
    return ("failed", f"{why}: {text!r}", tokens) if why else ("valid", None, tokens)


def main():
    """Asks for all schemas, and says how many answers were as asked for."""
    parser = argparse.ArgumentParser(description="random JSON schemas against a running server")
    parser.add_argument("url", help="where the server is, without /v1")
    parser.add_argument("--model", default="smollm2-135m", help="the name of its model (default: %(default)s)")
    parser.add_argument("--count", type=int, default=200, help="how many schemas (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what they are made from (default: %(default)s)")
    parser.add_argument("--show", type=int, metavar="N", help="print the schema of this number, and ask nothing")
    arguments = parser.parse_args()
    if arguments.show is not None:
        print(json.dumps(schema_of(arguments.seed, arguments.show), ensure_ascii=False, indent=1))
        return
    began = time.monotonic()
    client = openai.OpenAI(base_url=f"{arguments.url.rstrip('/')}/v1", api_key="none", max_retries=0, timeout=600)
    counts = {"valid": 0, "cut": 0, "failed": 0}
    tokens = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        results = threads.map(lambda index: ask(client, arguments, index), range(arguments.count))
        for index, (kind, why, took) in enumerate(results):
            counts[kind] += 1
            tokens += took
            if kind == "failed":
                print(f"FAILED schemas: number {index} of seed {arguments.seed}: {' '.join(why.split())[:1500]}", flush=True)
            elif kind == "cut":
                print(f"cut short: number {index} of seed {arguments.seed}: {why[:200]}", flush=True)
    seconds = time.monotonic() - began
    print(f"schemas of seed {arguments.seed}: {counts['valid']} of {arguments.count} answers parse and validate, "
          f"{counts['cut']} were cut short, {counts['failed']} are wrong ({tokens} tokens, {seconds:.1f} s)")
    if counts["cut"]:
        print(f"FAILED schemas: {counts['cut']} of {arguments.count} answers were cut short", flush=True)
        sys.exit(1)
    if counts["failed"] or not counts["valid"]:
        sys.exit(1)
    print(f"ok schemas: {arguments.count} of seed {arguments.seed}")


if __name__ == "__main__":
    main()
