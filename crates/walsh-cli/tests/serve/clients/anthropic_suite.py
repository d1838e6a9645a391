"""The suite of PyPI `anthropic`: `anthropic_suite.py URL [--keyed URL KEY]`."""

import asyncio
import functools
import json
from typing import Literal

import anthropic
import jsonschema
from pydantic import BaseModel, ConfigDict, Field

from suite import TIMEOUT, TOPIC, Cases, check, main, refused, same

cases = Cases()


@functools.cache
def client(server, **options):
    """A client that asks once, so that an error is not hidden behind a second try."""
    settings = {"base_url": server.url, "api_key": "none", "max_retries": 0, "timeout": TIMEOUT}
    return anthropic.Anthropic(**{**settings, **options})


def user(text):
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def settings(server, messages=None, **options):
    """An answer by the likeliest tokens, unless the options say otherwise."""
    # The package has left these to `extra_body`.
    extra = {"temperature": 0, "seed": 1}
    extra |= {name: options.pop(name) for name in ("temperature", "top_p", "top_k", "seed") if name in options}
    common = {"model": server.model, "messages": messages or user(TOPIC), "max_tokens": 24}
    return {**common, **options, "extra_body": extra}


def ask(server, messages=None, **options):
    """A message."""
    return client(server).messages.create(**settings(server, messages, **options))


def text_of(message):
    """The text of a message, which has to consist of text."""
    same({block.type for block in message.content}, {"text"}, "blocks")
    return "".join(block.text for block in message.content)


def read(usage):
    """All tokens of a prompt, those among them that were kept from an earlier one."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


@cases
def a_message_has_all_of_its_parts(server):
    message = ask(server)
    same((message.type, message.role, message.model), ("message", "assistant", server.model), "type, role, model")
    check(text_of(message).strip() and message.id, "text, id", message)
    same((message.stop_reason, message.stop_sequence), ("max_tokens", None), "stop_reason, stop_sequence")
    same(message.usage.output_tokens, 24, "generated tokens")
    check(message._request_id, "request_id", message._request_id)


@cases
def a_message_is_what_a_chat_says(server):
    import openai

    asks = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    chat = asks.chat.completions.create(model=server.model, messages=user(TOPIC), temperature=0, max_tokens=24)
    same(text_of(ask(server)), chat.choices[0].message.content, "text")


@cases
def events_come_in_order(server):
    whole = ask(server)
    events = [event for event in ask(server, stream=True) if event.type != "ping"]
    kinds = [event.type for event in events]
    begin, end = ["message_start", "content_block_start"], ["content_block_stop", "message_delta", "message_stop"]
    deltas = len(kinds) - len(begin) - len(end)
    same(kinds, begin + ["content_block_delta"] * deltas + end, "events")
    check(deltas > 10, "it comes in few pieces", deltas)
    same({event.index for event in events[1:-2]}, {0}, "index")
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    same(text, text_of(whole), "text")
    start, last = events[0].message, events[-2]
    same((start.content, start.stop_reason, start.role), ([], None, "assistant"), "the beginning")
    same(last.delta.stop_reason, whole.stop_reason, "stop_reason")
    same(last.usage.output_tokens, whole.usage.output_tokens, "generated tokens")
    same(read(start.usage), read(whole.usage), "tokens of the prompt")


@cases
def the_streaming_helper_puts_a_message_together(server):
    whole = ask(server)
    with client(server).messages.stream(**settings(server)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    same((text, text_of(final)), (text_of(whole),) * 2, "texts")
    same(final.stop_reason, whole.stop_reason, "stop_reason")
    same((read(final.usage), final.usage.output_tokens), (read(whole.usage), whole.usage.output_tokens), "usage")


@cases
def asynchronous_clients_are_served_side_by_side(server):
    async def several():
        options = {"base_url": server.url, "api_key": "none", "max_retries": 0, "timeout": TIMEOUT}
        async with anthropic.AsyncAnthropic(**options) as asks:

            async def one(number):
                async with asks.messages.stream(**settings(server, user(f"Say {number}."), max_tokens=8)) as stream:
                    return await stream.get_final_text()

            return await asyncio.gather(*(one(number) for number in range(6)))

    texts = asyncio.run(several())
    check(len(texts) == 6 and all(texts), "texts", texts)


@cases
def a_stream_can_be_left(server):
    with client(server).messages.stream(**settings(server, max_tokens=2000, temperature=1)) as stream:
        for _ in zip(range(3), stream.text_stream):
            pass
    check(text_of(ask(server)).strip(), "it says nothing afterwards")


@cases
def a_seed_decides(server):
    texts = [text_of(ask(server, temperature=1.0, top_k=50, top_p=0.95, seed=seed)) for seed in (5, 5, 6, 7)]
    same(texts[1], texts[0], "the same seed again")
    check(len(set(texts)) > 1, "seeds change nothing", texts)


@cases
def system_texts_and_parts_are_read_alike(server):
    system = "You speak of nothing but the sea."
    told = ask(server, system=system)
    parts = ask(server, user([{"type": "text", "text": TOPIC}]), system=[{"type": "text", "text": system}])
    same(text_of(parts), text_of(told), "text")
    same(read(parts.usage), read(told.usage), "tokens of the prompt")
    check(text_of(told) != text_of(ask(server)), "it changes nothing")
    cached = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    same(text_of(ask(server, system=cached)), text_of(told), "text with cache_control")


@cases
def a_text_to_stop_at_is_named(server):
    whole = text_of(ask(server))
    stop = whole.split()[5]
    expected = whole[: whole.index(stop)]
    message = ask(server, stop_sequences=["\u2603 never", stop])
    same(text_of(message), expected, "text")
    same((message.stop_reason, message.stop_sequence), ("stop_sequence", stop), "stop_reason, stop_sequence")
    with client(server).messages.stream(**settings(server, stop_sequences=[stop])) as stream:
        final = stream.get_final_message()
    same(text_of(final), expected, "streamed text")
    same((final.stop_reason, final.stop_sequence), ("stop_sequence", stop), "streamed stop_reason, stop_sequence")


@cases
def an_end_of_its_own_is_one(server):
    for seed in range(8):
        message = ask(server, user("Say hello."), max_tokens=200, seed=seed, temperature=0.5)
        if message.stop_reason != "max_tokens":
            break
    same((message.stop_reason, message.stop_sequence), ("end_turn", None), "stop_reason, stop_sequence")
    check(message.usage.output_tokens < 200, "generated tokens", message.usage)


@cases
def tokens_are_counted_as_they_are_used(server):
    conversation = [*user("My name is Ada."), {"role": "assistant", "content": "Hello Ada."}, *user("Say my name.")]
    for options in (
        {"messages": user(TOPIC)},
        {"messages": conversation, "system": "Be brief."},
        {"messages": user(TOPIC), "tools": TOOLS, "tool_choice": {"type": "auto"}},
        {"messages": [*user("Count."), {"role": "assistant", "content": "One, two,"}]},
    ):
        counted = client(server).messages.count_tokens(model=server.model, **options).input_tokens
        same(read(ask(server, max_tokens=1, **options).usage), counted, f"tokens of {options}")


@cases
def a_begun_answer_is_gone_on_from(server):
    whole = text_of(ask(server, max_tokens=40))
    cut = whole.index(" ", len(whole) // 2)
    begun = [*user(TOPIC), {"role": "assistant", "content": whole[:cut]}]
    rest = text_of(ask(server, begun, max_tokens=12))
    # The same tokens may be read otherwise than they were written, but the next word is not in doubt.
    same(rest.split()[0], whole[cut:].split()[0], "the next word")
    check(not rest.startswith(whole[:8]), "it begins anew", rest)
    plain = client(server).messages.count_tokens(model=server.model, messages=user(TOPIC)).input_tokens
    counted = client(server).messages.count_tokens(model=server.model, messages=begun).input_tokens
    check(counted > plain, "it is not in the prompt", (counted, plain))


WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 24},
        "unit": {"enum": ["celsius", "fahrenheit", "\u5ea6"]},
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
TOOLS = [{"name": name, "description": f"{name} of a place", "input_schema": SCHEMAS[name]} for name in SCHEMAS]
QUESTION = user("What is the weather in Paris?")
ANY = {"type": "any", "disable_parallel_tool_use": True}
CALL = {"tools": TOOLS, "tool_choice": ANY, "max_tokens": 200}


def calls_of(message):
    """The calls of a message, which have to be valid."""
    calls = [block for block in message.content if block.type == "tool_use"]
    check(calls, "there is no call", message.content)
    for call in calls:
        jsonschema.validate(call.input, SCHEMAS[call.name])
    ids = {call.id for call in calls}
    check(len(ids) == len(calls) and all(ids), "ids", ids)
    return calls


@cases
def a_call_that_must_be_is_made_and_valid(server):
    for seed in range(3):
        message = ask(server, QUESTION, **CALL, temperature=1.0, seed=seed)
        same(message.stop_reason, "tool_use", "stop_reason")
        same((len(calls_of(message)), len(message.content)), (1, 1), "calls, blocks")


@cases
def a_named_tool_is_the_one_that_is_called(server):
    for name in SCHEMAS:
        choice = {"type": "tool", "name": name}
        message = ask(server, QUESTION, **{**CALL, "tool_choice": choice}, temperature=1.0)
        same({call.name for call in calls_of(message)}, {name}, "tools")
        same(message.stop_reason, "tool_use", "stop_reason")


@cases
def several_tools_may_be_called(server):
    for seed in range(12):
        message = ask(server, QUESTION, **{**CALL, "tool_choice": {"type": "any"}}, temperature=1.0, seed=seed)
        # What a small model calls may have no end.
        if message.stop_reason != "max_tokens":
            same(message.stop_reason, "tool_use", "stop_reason")
            if len(calls_of(message)) > 1:
                return
    check(False, "none of 12 answers has several calls and ends")


@cases
def none_is_called_where_none_may_be(server):
    message = ask(server, QUESTION, tools=TOOLS, tool_choice={"type": "none"}, temperature=1.0)
    check(text_of(message).strip(), "it says nothing", message)


@cases
def a_second_turn_has_the_result(server):
    first = ask(server, QUESTION, **CALL)

    def result(content, **options):
        block = {"type": "tool_result", "tool_use_id": calls_of(first)[0].id, "content": content, **options}
        return [*QUESTION, {"role": "assistant", "content": first.content}, *user([block])]

    options = {"tools": TOOLS, "tool_choice": {"type": "none"}}
    long = ask(server, result("Thunder over the harbour"), **options)
    parts = ask(server, result([{"type": "text", "text": "Thunder over the harbour"}], is_error=False), **options)
    check(text_of(long).strip(), "it says nothing of the result")
    same((text_of(parts), read(parts.usage)), (text_of(long), read(long.usage)), "the result as parts")
    short = ask(server, result("Sun"), **options)
    check(read(short.usage) < read(long.usage), "the result is not in the prompt", short.usage)
    calls_of(ask(server, result("Sun"), **{**CALL, "tool_choice": {"type": "tool", "name": "get_time"}}))


@cases
def streamed_calls_add_up(server):
    whole = ask(server, QUESTION, **CALL)
    call = calls_of(whole)[0]
    events = [event for event in ask(server, QUESTION, **CALL, stream=True) if event.type != "ping"]
    starts = [event.content_block for event in events if event.type == "content_block_start"]
    same([(block.type, block.name, block.input) for block in starts], [("tool_use", call.name, {})], "blocks")
    parts = [event.delta.partial_json for event in events if event.type == "content_block_delta"]
    check(len(parts) > 4, "it comes in few pieces", parts)
    same(json.loads("".join(parts)), call.input, "input")
    with client(server).messages.stream(**settings(server, QUESTION, **CALL)) as stream:
        final = stream.get_final_message()
    same([(c.name, c.input) for c in calls_of(final)], [(call.name, call.input)], "calls")
    same((final.stop_reason, final.usage.output_tokens), ("tool_use", whole.usage.output_tokens), "end, usage")


def run_tools(server, **options):
    """What the package's own loop makes of a tool: its messages, and what the tool was called with."""
    heard = []

    @anthropic.beta_tool
    def ring_bell(times: int) -> str:
        """Rings the bell.

        Args:
            times: How often.
        """
        heard.append(times)
        return "It rang."

    runner = client(server).beta.messages.tool_runner(
        model=server.model, max_tokens=60, messages=user("Ring the bell twice."), tools=[ring_bell],
        tool_choice={"type": "tool", "name": "ring_bell"}, max_iterations=2, extra_body={"temperature": 0}, **options,
    )
    messages = list(runner)
    same(len(messages), 2, "messages")
    check(heard and all(isinstance(times, int) for times in heard), "what the tool was called with", heard)
    check(read(messages[1].usage) > read(messages[0].usage) + 10, "the second turn has lost the first", messages[1].usage)


@cases
def the_tool_runner_sends_all_of_a_conversation(server):
    run_tools(server, thread=False)


@cases
def the_tool_runner_finds_a_way_without_options(server):
    # By default it would have the server hold the conversation. A server that does not has to say so in the words that
    # the package knows ("thread_unsupported_request"), or else the second turn is all that it is sent.
    run_tools(server)


class Lighthouse(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern="^[A-Z][a-z]{1,9}$")
    # No list: the package leaves out how long that may be, and a small model goes on with it for ever.
    colour: Literal["red", "white", "\u767d"]
    lit: bool


FORM = {
    "type": "object",
    "properties": {"lit": {"type": "boolean"}, "colour": {"enum": ["red", "white", "\u767d"]}},
    "required": ["lit", "colour"],
    "additionalProperties": False,
}


@cases
def a_form_of_the_answer_is_kept(server):
    for seed in range(3):
        form = {"format": {"type": "json_schema", "schema": FORM}}
        message = ask(server, output_config=form, temperature=1.0, seed=seed, max_tokens=100)
        jsonschema.validate(json.loads(text_of(message)), FORM)
        same(message.stop_reason, "end_turn", "stop_reason")


@cases
def a_form_is_parsed_into_the_clients_own_type(server):
    message = client(server).messages.parse(
        model=server.model, max_tokens=300, messages=user("Describe a lighthouse."), output_format=Lighthouse,
        extra_body={"temperature": 0},
    )
    check(isinstance(message.parsed_output, Lighthouse), "it was not parsed", message.content)


@cases
def strict_tools_are_kept_to(server):
    tools = [{**tool, "strict": True} for tool in TOOLS]
    for seed in range(2):
        calls_of(ask(server, QUESTION, **{**CALL, "tools": tools}, temperature=1.2, seed=seed))


@cases
def models_are_listed(server):
    check(server.model in [model.id for model in client(server).models.list()], "models")


@cases
def an_unknown_model_is_not_found(server):
    for call in (
        lambda: ask(server, model="no-such-model"),
        lambda: ask(server, model="no-such-model", stream=True),
        lambda: client(server).messages.count_tokens(model="no-such-model", messages=user("a")),
    ):
        error = refused(anthropic.NotFoundError, call)
        same((error.body["type"], error.body["error"]["type"]), ("error", "not_found_error"), "body")


@cases
def what_cannot_be_is_refused(server):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    for options in (
        {"max_tokens": 0}, {"max_tokens": -1}, {"temperature": -1}, {"top_p": 2}, {"top_k": -5}, {"max_tokens": "many"},
        {"messages": [{"role": "captain", "content": "a"}]}, {"messages": [{"role": "user", "content": 5}]},
        {"messages": user([image])}, {"messages": user([{"type": "poem"}])}, {"stop_sequences": [5]},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "no_such_tool"}},
        {"tools": TOOLS, "tool_choice": {"type": "sometimes"}}, {"tool_choice": {"type": "any"}},
        {"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, {"system": 5},
    ):
        error = refused(anthropic.BadRequestError, lambda: ask(server, **options))
        same((error.status_code, error.body["error"]["type"]), (400, "invalid_request_error"), f"error of {options}")
        check(error.body["error"]["message"], "message", error.body)


@cases
def no_message_at_all_is_refused(server):
    refused(anthropic.BadRequestError, lambda: client(server).messages.create(
        model=server.model, max_tokens=4, messages=[]
    ))


@cases
def a_prompt_that_is_too_long_is_refused(server):
    for stream in (False, True):
        long = user("lighthouse " * 10_000)
        error = refused(anthropic.BadRequestError, lambda: ask(server, long, stream=stream))
        check("token" in error.body["error"]["message"], "message", error.body)


def keyed(server, **options):
    """A client of the server that needs a key."""
    return client(server, base_url=server.keyed.rstrip("/"), **options)


@cases.keyed
def a_wrong_key_is_refused(server):
    asks = keyed(server, api_key="a-key-of-nothing")
    common = {"model": server.model, "messages": user(TOPIC)}
    for call in (
        lambda: asks.messages.create(max_tokens=4, **common),
        lambda: asks.messages.create(max_tokens=4, stream=True, **common),
        lambda: asks.messages.count_tokens(**common),
    ):
        error = refused(anthropic.AuthenticationError, call)
        same((error.status_code, error.body["error"]["type"]), (401, "authentication_error"), "status, type")


@cases.keyed
def the_right_key_is_let_in(server):
    for asks in (keyed(server, api_key=server.key), keyed(server, api_key=None, auth_token=server.key)):
        message = asks.messages.create(model=server.model, messages=user(TOPIC), max_tokens=2)
        check(text_of(message), "it says nothing")


if __name__ == "__main__":
    main("anthropic", cases)
