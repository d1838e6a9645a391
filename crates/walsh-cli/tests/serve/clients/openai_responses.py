"""Responses: `/v1/responses`."""

import json
import math

import jsonschema
import openai

from openai_chat import Lighthouse, form
from openai_common import client
from openai_tools import SCHEMAS
from suite import TOPIC, Cases, check, refused, same

cases = Cases()

FORMAT = {"format": {"type": "json_schema", "name": "form", "strict": True,
                     "schema": {"type": "object", "properties": {"lit": {"enum": ["yes", "no", "n\u00e3o"]}},
                                "required": ["lit"], "additionalProperties": False}}}
TOOLS = [{"type": "function", "name": name, "parameters": schema, "strict": True} for name, schema in SCHEMAS.items()]


def ask(server, given=TOPIC, **options):
    """A response by the likeliest tokens, unless the options say otherwise."""
    settings = {"temperature": 0, "max_output_tokens": 24, **options}
    extra = {"seed": settings.pop("seed", 1)}
    return client(server).responses.create(model=server.model, input=given, extra_body=extra, **settings)


@cases
def a_response_has_all_of_its_parts(server):
    response = ask(server)
    same((response.object, response.model), ("response", server.model), "object, model")
    same([item.type for item in response.output], ["message"], "items")
    message = response.output[0]
    same((message.role, message.content[0].type), ("assistant", "output_text"), "role, type")
    check(response.output_text.strip(), "it says nothing")
    usage = response.usage
    same(usage.total_tokens, usage.input_tokens + usage.output_tokens, "total tokens")
    check(usage.input_tokens > 10 and usage.output_tokens == 24, "usage", usage)
    check(response.error is None and response.id and message.id, "error, ids", response)


@cases
def an_end_by_length_is_incomplete(server):
    short = ask(server, max_output_tokens=4)
    same(short.status, "incomplete", "status")
    same(short.incomplete_details.reason, "max_output_tokens", "reason")
    whole = ask(server, text=FORMAT, max_output_tokens=60)
    same((whole.status, whole.incomplete_details), ("completed", None), "status, incomplete_details")


@cases
def a_response_says_what_a_chat_does(server):
    chat = client(server).chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": TOPIC}], temperature=0, max_tokens=24
    )
    same(ask(server).output_text, chat.choices[0].message.content, "text")


BEGIN = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
END = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


@cases
def events_come_in_order(server):
    whole = ask(server)
    events = list(ask(server, stream=True))
    kinds = [event.type for event in events]
    deltas = len(events) - len(BEGIN) - len(END) - 1
    same(kinds, BEGIN + ["response.output_text.delta"] * deltas + END + ["response.incomplete"], "events")
    check(deltas > 10, "it comes in few pieces", deltas)
    same([event.sequence_number for event in events], list(range(len(events))), "sequence_number")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    done = [event for event in events if event.type.endswith(".done")]
    same((text, done[0].text, done[1].part.text), (whole.output_text,) * 3, "texts")
    final = events[-1].response
    same((final.output_text, final.usage), (whole.output_text, whole.usage), "the response at the end")
    same({event.item_id for event in events if hasattr(event, "item_id")}, {final.output[0].id}, "item_id")
    same({e.response.id for e in events if hasattr(e, "response")}, {final.id}, "ids")
    same((events[0].response.status, events[0].response.output), ("in_progress", []), "the response at the beginning")


@cases
def the_streaming_helper_puts_a_response_together(server):
    options = {"model": server.model, "input": "Describe a lighthouse.", "temperature": 0, "max_output_tokens": 300}
    with client(server).responses.stream(text_format=Lighthouse, **options) as events:
        kinds = {event.type for event in events}
        final = events.get_final_response()
    check(isinstance(final.output_parsed, Lighthouse), "it was not parsed", final.output_text)
    check({"response.output_text.delta", "response.completed"} <= kinds, "events", kinds)


@cases
def a_response_goes_on_from_an_earlier_one(server):
    first = ask(server, "My name is Ada.")
    second = ask(server, "What is my name?", previous_response_id=first.id)
    same(second.previous_response_id, first.id, "previous_response_id")
    items = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]},
    ]
    whole = ask(server, items)
    same((second.output_text, second.usage.input_tokens), (whole.output_text, whole.usage.input_tokens), "the same by hand")
    third = ask(server, "And mine?", previous_response_id=second.id)
    check(third.usage.input_tokens > second.usage.input_tokens + 20, "tokens of the third", third.usage)
    output = [item.to_dict() for item in first.output]
    again = ask(server, [items[0], *output, items[2]])
    same(again.output_text, whole.output_text, "with the items of the output")


@cases
def instructions_are_those_of_one_response(server):
    plain, told = ask(server), ask(server, instructions="You speak of nothing but the sea.")
    check(told.usage.input_tokens != plain.usage.input_tokens, "they are not in the prompt", told.usage)
    next_one = ask(server, "Go on.", previous_response_id=told.id)
    other = ask(server, [{"role": "user", "content": TOPIC}, *(i.to_dict() for i in told.output),
                         {"role": "user", "content": "Go on."}])
    same(next_one.usage.input_tokens, other.usage.input_tokens, "tokens of the next one")


@cases
def responses_are_kept_until_deleted(server):
    response, responses = ask(server), client(server).responses
    same(responses.retrieve(response.id).output_text, response.output_text, "text")
    responses.delete(response.id)
    refused(openai.NotFoundError, lambda: responses.retrieve(response.id))
    refused(openai.NotFoundError, lambda: responses.delete(response.id))
    unkept = ask(server, store=False)
    refused(openai.NotFoundError, lambda: responses.retrieve(unkept.id))


@cases
def a_streamed_response_is_kept_too(server):
    final = list(ask(server, stream=True))[-1].response
    same(client(server).responses.retrieve(final.id).output_text, final.output_text, "text")


@cases
def a_format_is_kept(server):
    for seed in range(3):
        response = ask(server, text=FORMAT, temperature=1.0, seed=seed, max_output_tokens=60)
        jsonschema.validate(json.loads(response.output_text), FORMAT["format"]["schema"])
    parsed = client(server).responses.parse(
        model=server.model, input="Describe a lighthouse.", text_format=Lighthouse, max_output_tokens=300,
        temperature=0,
    )
    check(isinstance(parsed.output_parsed, Lighthouse), "it was not parsed", parsed.output_text)


def calls_of(response):
    """The calls of a response, which have to be valid."""
    calls = [item for item in response.output if item.type == "function_call"]
    check(calls, "there is no call", response.output)
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
        check(call.id and call.call_id and call.status == "completed", "a call", call)
    return calls


CALL = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}


@cases
def a_tool_is_called_and_its_result_read(server):
    first = ask(server, "What is the weather in Paris?", **CALL)
    calls = calls_of(first)
    same((len(calls), len(first.output), first.status), (1, 1, "completed"), "calls, items, status")
    result = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "Thunder over the harbour"}
    kept = ask(server, [result], previous_response_id=first.id)
    whole = ask(server, [{"role": "user", "content": "What is the weather in Paris?"},
                         *(item.to_dict() for item in first.output), result])
    check(kept.output_text.strip(), "it says nothing of the result")
    same((kept.output_text, kept.usage.input_tokens), (whole.output_text, whole.usage.input_tokens), "the same by hand")
    other = ask(server, [{**result, "output": "Sun"}], previous_response_id=first.id)
    check(other.usage.input_tokens < kept.usage.input_tokens, "the result is not in the prompt", other.usage)


@cases
def a_named_tool_is_called_by_a_response(server):
    for name in SCHEMAS:
        choice = {"type": "function", "name": name}
        calls = calls_of(ask(server, **{**CALL, "tool_choice": choice}))
        same({call.name for call in calls}, {name}, "tools")


@cases
def streamed_calls_of_a_response_add_up(server):
    whole = calls_of(ask(server, "What is the weather in Paris?", **CALL))[0]
    events = list(ask(server, "What is the weather in Paris?", stream=True, **CALL))
    part = "response.function_call_arguments."
    deltas = [event for event in events if event.type == f"{part}delta"]
    done = [event for event in events if event.type == f"{part}done"]
    same("".join(event.delta for event in deltas), whole.arguments, "arguments")
    same([event.arguments for event in done], [whole.arguments], "arguments at the end")
    check(len(deltas) > 4, "arguments come in few pieces", len(deltas))
    final = calls_of(events[-1].response)[0]
    same((final.name, final.arguments), (whole.name, whole.arguments), "the call at the end")
    same({event.item_id for event in deltas + done}, {final.id}, "item_id")
    items = [event.item for event in events if event.type == "response.output_item.added"]
    same([(item.type, item.id, item.call_id) for item in items], [("function_call", final.id, final.call_id)], "items")
    same([event.sequence_number for event in events], list(range(len(events))), "sequence_number")


@cases
def logprobs_of_a_response_are_there_if_asked_for(server):
    response = ask(server, include=["message.output_text.logprobs"], top_logprobs=3)
    entries = response.output[0].content[0].logprobs
    same(len(entries or []), response.usage.output_tokens, "tokens")
    same("".join(entry.token for entry in entries), response.output_text, "text")
    for entry in entries:
        same(len(entry.top_logprobs), 3, "likeliest tokens")
        check(sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-4, "they add up to more than 1")


@cases
def what_responses_cannot_be_is_refused(server):
    error = refused(openai.NotFoundError, lambda: ask(server, previous_response_id="resp_none"))
    same(error.param, "previous_response_id", "param")
    for options, param in (
        ({"background": True}, "background"),
        ({"max_output_tokens": -5}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"text": {"format": {"type": "poem"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"given": [{"type": "item_of_no_kind"}]}, "input[0]"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "no_such_tool"}}, "tool_choice"),
    ):
        error = refused(openai.BadRequestError, lambda: ask(server, **options))
        same(error.param, param, f"param of {options}")


@cases
def a_schema_of_chats_is_one_of_responses(server):
    schema = FORMAT["format"]["schema"]
    chat = client(server).chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": TOPIC}], temperature=0, max_tokens=60,
        response_format=form(schema),
    )
    same(ask(server, text=FORMAT, max_output_tokens=60).output_text, chat.choices[0].message.content, "text")
