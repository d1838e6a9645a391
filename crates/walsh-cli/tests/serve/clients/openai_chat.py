"""Chats: `/v1/chat/completions`, but tools and errors."""

import asyncio
import enum
import json
import math
from typing import Literal, Optional

import openai
from pydantic import BaseModel, ConfigDict, Field

from openai_common import adds_up, client, user
from suite import TIMEOUT, TOPIC, Cases, check, refused, same

cases = Cases()


def ask(server, messages=None, **options):
    """An answer by the likeliest tokens, unless the options say otherwise."""
    settings = {"temperature": 0, "seed": 1, "max_tokens": 24, **options}
    return client(server).chat.completions.create(model=server.model, messages=messages or user(TOPIC), **settings)


def streamed(server, messages=None, **options):
    """The same as chunks."""
    return list(ask(server, messages, stream=True, **options))


def text_of(chunks, index=0):
    """What the chunks say of one choice."""
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


@cases
def an_answer_has_all_of_its_parts(server):
    answer = ask(server)
    same(answer.object, "chat.completion", "object")
    same(answer.model, server.model, "model")
    same([choice.index for choice in answer.choices], [0], "indices")
    message = answer.choices[0].message
    same(message.role, "assistant", "role")
    check(message.content.strip(), "it says nothing")
    check(message.tool_calls is None and message.refusal is None, "it calls or refuses", message)
    prompt, generated = adds_up(answer.usage)
    check(prompt > 10 and 0 < generated <= 24, "tokens", answer.usage)
    check(answer.id and answer.created > 1_600_000_000, "id, created", (answer.id, answer.created))


@cases
def two_answers_have_ids_of_their_own(server):
    first, second = ask(server, max_tokens=1), ask(server, max_tokens=1)
    check(first.id != second.id, "one id for two answers", first.id)
    check(first._request_id and first._request_id != second._request_id, "request ids", first._request_id)


@cases
def a_stream_says_what_the_whole_answer_does(server):
    whole = ask(server)
    chunks = streamed(server, stream_options={"include_usage": True})
    same(text_of(chunks), whole.choices[0].message.content, "text")
    check(len(chunks) > 10, "it comes in few pieces", len(chunks))
    same({chunk.id for chunk in chunks}, {chunks[0].id}, "ids")
    same({chunk.object for chunk in chunks}, {"chat.completion.chunk"}, "objects")
    same(chunks[0].choices[0].delta.role, "assistant", "the first role")
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    same(reasons[-1], whole.choices[0].finish_reason, "the last finish_reason")
    same(set(reasons[:-1]), {None}, "other finish_reasons")
    same(chunks[-1].choices, [], "choices of the chunk with the usage")
    same(adds_up(chunks[-1].usage), adds_up(whole.usage), "usage")
    same({chunk.usage for chunk in chunks[:-1]}, {None}, "usage before the end")


@cases
def a_stream_has_usage_only_if_asked(server):
    chunks = streamed(server)
    same({chunk.usage for chunk in chunks}, {None}, "usage")
    check(all(chunk.choices for chunk in chunks), "a chunk without choices")


@cases
def the_streaming_helper_puts_the_answer_together(server):
    whole = ask(server)
    stop = whole.choices[0].message.content.split()[8]
    # The helper takes an end by length for an error.
    stream = client(server).chat.completions.stream(
        model=server.model, messages=user(TOPIC), temperature=0, seed=1, max_tokens=24, stop=stop
    )
    with stream as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    text = whole.choices[0].message.content
    same(final.choices[0].message.content, text[: text.index(stop)], "text")
    same(final.choices[0].finish_reason, "stop", "finish_reason")
    check("content.delta" in kinds and "content.done" in kinds, "events", set(kinds))


@cases
def a_stream_can_be_left(server):
    stream = ask(server, stream=True, max_tokens=2000, temperature=1)
    for _ in zip(range(3), stream):
        pass
    stream.close()
    check(ask(server).choices[0].message.content.strip(), "it says nothing afterwards")


@cases
def asynchronous_clients_are_served_side_by_side(server):
    async def several():
        settings = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, "timeout": TIMEOUT}
        async with openai.AsyncOpenAI(**settings) as asks:

            async def one(number):
                stream = await asks.chat.completions.create(
                    model=server.model, messages=user(f"Say {number}."), temperature=0, max_tokens=8, stream=True
                )
                return text_of([chunk async for chunk in stream])

            return await asyncio.gather(*(one(number) for number in range(6)))

    texts = asyncio.run(several())
    check(len(texts) == 6 and all(texts), "texts", texts)


@cases
def a_seed_decides(server):
    def texts(*seeds):
        return [ask(server, temperature=1.0, seed=seed).choices[0].message.content for seed in seeds]

    first, second = texts(7, 7)
    same(second, first, "the same seed again")
    check(len(set(texts(1, 2, 3, 4))) > 1, "four seeds give one text", first)


@cases
def n_answers_are_told_apart(server):
    answer = ask(server, n=3, temperature=1.0, max_tokens=12)
    same(sorted(choice.index for choice in answer.choices), [0, 1, 2], "indices")
    check(len({choice.message.content for choice in answer.choices}) > 1, "all say the same")
    _, generated = adds_up(answer.usage)
    check(3 <= generated <= 36, "generated tokens", generated)
    chunks = streamed(server, n=3, temperature=1.0, max_tokens=12, stream_options={"include_usage": True})
    ends = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    same(sorted(ends), [0, 1, 2], "ends of the streamed ones")
    for choice in answer.choices:
        same(text_of(chunks, choice.index), choice.message.content, f"streamed answer {choice.index}")
    same(adds_up(chunks[-1].usage), adds_up(answer.usage), "usage")


@cases
def a_text_to_stop_at_is_not_in_the_answer(server):
    whole = ask(server).choices[0].message.content
    stop = whole.split()[5]
    expected = whole[: whole.index(stop)]
    for given in (stop, [stop], ["\u2603 never", stop]):
        choice = ask(server, stop=given).choices[0]
        same(choice.finish_reason, "stop", "finish_reason")
        same(choice.message.content, expected, "text")
    chunks = streamed(server, stop=stop)
    same(text_of(chunks), expected, "streamed text")
    same(chunks[-1].choices[0].finish_reason, "stop", "streamed finish_reason")


@cases
def the_first_of_several_stops_counts(server):
    whole = ask(server).choices[0].message.content
    words = whole.split()
    stops = [words[8], words[4]]
    end = min(whole.index(stop) for stop in stops)
    same(ask(server, stop=stops).choices[0].message.content, whole[:end], "text")


@cases
def a_stop_across_tokens_is_held_back(server):
    whole = ask(server).choices[0].message.content
    # Half of a word, a space, half of the next: no token is that.
    gap = whole.index(" ", len(whole) // 2)
    stop = whole[gap - 2 : gap + 3]
    expected = whole[: whole.index(stop)]
    same(text_of(streamed(server, stop=stop)), expected, "streamed text")


@cases
def most_tokens_are_heeded(server):
    for option in ("max_tokens", "max_completion_tokens"):
        answer = ask(server, **{"max_tokens": openai.omit, option: 5})
        same(answer.choices[0].finish_reason, "length", "finish_reason")
        same(answer.usage.completion_tokens, 5, option)


def likeliest(entry):
    """Checks what is said of one token, of which the likeliest was taken."""
    logprobs = [top.logprob for top in entry.top_logprobs]
    same(len(logprobs), 5, "likeliest tokens")
    same(logprobs, sorted(logprobs, reverse=True), "their order")
    check(sum(map(math.exp, logprobs)) <= 1 + 1e-4, "their probabilities add up to more than 1", logprobs)
    same((entry.token, entry.logprob), (entry.top_logprobs[0].token, logprobs[0]), "the token that was taken")
    same(len({bytes(top.bytes) for top in entry.top_logprobs}), 5, "different tokens")


@cases
def logprobs_are_those_of_the_text(server):
    answer = ask(server, logprobs=True, top_logprobs=5, max_tokens=12)
    choice, entries = answer.choices[0], answer.choices[0].logprobs.content
    same(len(entries), answer.usage.completion_tokens, "tokens")
    for entry in entries:
        likeliest(entry)
    said = b"".join(bytes(entry.bytes) for entry in entries)
    same(said.decode(), choice.message.content, "the bytes of the tokens")
    chunks = streamed(server, logprobs=True, top_logprobs=5, max_tokens=12)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    streams = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    same([entry.token for entry in streams], [entry.token for entry in entries], "streamed tokens")
    for came, entry in zip(streams, entries):
        check(abs(came.logprob - entry.logprob) < 1e-3, "streamed logprob", (came.logprob, entry.logprob))


@cases
def logprobs_without_the_likeliest_are_there(server):
    choice = ask(server, logprobs=True, temperature=1.0, max_tokens=8).choices[0]
    same({len(entry.top_logprobs) for entry in choice.logprobs.content}, {0}, "likeliest tokens")
    check(all(entry.logprob <= 0 for entry in choice.logprobs.content), "a probability above 1")
    check(ask(server, max_tokens=2).choices[0].logprobs is None, "logprobs that nobody asked for")


@cases
def a_bias_decides_between_tokens(server):
    asks = client(server)
    token = asks.completions.create(
        model=server.model, prompt=[[1000]], echo=True, max_tokens=1, logprobs=0
    ).choices[0].logprobs.tokens[0]
    forced = ask(server, logit_bias={"1000": 100}, max_tokens=3).choices[0].message.content
    same(forced, token * 3, "a token with a bias of 100")
    never = ask(server, logit_bias={"1000": -100}).choices[0].message.content
    same(never, ask(server).choices[0].message.content, "a bias against a token that does not come")


@cases
def penalties_keep_a_text_from_repeating_itself(server):
    messages = user("Repeat the word hello again and again: hello hello hello hello")

    def tokens(**options):
        entries = ask(server, messages, logprobs=True, max_tokens=40, **options).choices[0].logprobs.content
        return [entry.token for entry in entries]

    plain = tokens()
    for option in ("presence_penalty", "frequency_penalty"):
        other = tokens(**{option: 2.0})
        check(other != plain, f"{option} changes nothing")
        check(len(set(other)) / len(other) >= len(set(plain)) / len(plain), f"{option}: more is repeated", other)


@cases
def roles_and_parts_are_read_alike(server):
    def said(role, content):
        answer = ask(server, [{"role": role, "content": "You speak of the sea."}, {"role": "user", "content": content}])
        return answer.choices[0].message.content, answer.usage.prompt_tokens

    text = said("system", TOPIC)
    same(said("developer", TOPIC), text, "developer")
    same(said("system", [{"type": "text", "text": TOPIC}]), text, "parts")
    check(text[0] != ask(server).choices[0].message.content, "a system message changes nothing")


@cases
def a_conversation_goes_on(server):
    turns = [*user("My name is Ada."), {"role": "assistant", "content": "Hello Ada."}, *user("Say my name.")]
    answer, short = ask(server, turns), ask(server, user("Say my name."))
    check(answer.usage.prompt_tokens > short.usage.prompt_tokens + 8, "tokens of the prompt", answer.usage)
    again = ask(server, [*turns, answer.choices[0].message, *user("Thank you.")])
    check(again.usage.prompt_tokens > answer.usage.prompt_tokens + 4, "tokens of the next prompt", again.usage)


def form(schema, name="form"):
    """A response format."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


@cases
def text_outside_of_ascii_comes_through(server):
    text = "na\u00efve \U0001f980 \u65e5\u672c\u8a9e \u03b1\u0308 \"quoted\" \\ back"
    schema = {"const": text}
    options = {"response_format": form(schema), "max_tokens": 100}
    same(json.loads(ask(server, **options).choices[0].message.content), text, "text")
    chunks = streamed(server, **options)
    same(json.loads(text_of(chunks)), text, "streamed text")
    check(not any("\ufffd" in text_of([chunk]) for chunk in chunks), "a character is torn apart")


class Kind(str, enum.Enum):
    sea = "sea"
    river = "river"


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=20)
    height: int = Field(ge=1, le=200)


class Lighthouse(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Kind
    place: Place
    colours: list[Literal["red", "white", "black"]] = Field(min_length=1, max_length=3)
    keeper: Optional[str] = Field(max_length=16)
    lit: bool


@cases
def a_strict_schema_is_kept_and_parsed(server):
    asks = client(server).chat.completions
    for seed in range(3):
        answer = asks.parse(
            model=server.model, messages=user("Describe a lighthouse."), response_format=Lighthouse,
            temperature=1.0, seed=seed, max_tokens=300,
        )
        choice = answer.choices[0]
        same(choice.finish_reason, "stop", "finish_reason")
        check(isinstance(choice.message.parsed, Lighthouse), "it was not parsed", choice.message)
        same(json.loads(choice.message.content).keys(), Lighthouse.model_fields.keys(), "properties")


@cases
def a_strict_schema_is_kept_and_parsed_as_it_streams(server):
    stream = client(server).chat.completions.stream(
        model=server.model, messages=user("Describe a lighthouse."), response_format=Lighthouse,
        temperature=0, max_tokens=300,
    )
    with stream as events:
        parsed = [event.parsed for event in events if event.type == "content.delta"]
        final = events.get_final_completion()
    check(isinstance(final.choices[0].message.parsed, Lighthouse), "it was not parsed", final)
    check(any(parsed[:-1]), "nothing is parsed on the way")


@cases
def a_schema_cut_short_is_the_packages_own_error(server):
    refused(openai.LengthFinishReasonError, lambda: client(server).chat.completions.parse(
        model=server.model, messages=user("Describe a lighthouse."), response_format=Lighthouse, max_tokens=4,
    ))


@cases
def a_json_object_is_one(server):
    # Nothing bounds such an answer: this one the model ends.
    messages = user('Write JSON: {"name": "Ada", "age": 36}')
    choice = ask(server, messages, response_format={"type": "json_object"}, max_tokens=200).choices[0]
    same(choice.finish_reason, "stop", "finish_reason")
    check(isinstance(json.loads(choice.message.content), dict), "it is no object", choice.message.content)


@cases
def a_schema_holds_for_all_of_n(server):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["n"], "additionalProperties": False}
    answer = ask(server, n=4, temperature=1.0, max_tokens=60, response_format=form(schema))
    numbers = [json.loads(choice.message.content)["n"] for choice in answer.choices]
    check(all(number in range(1, 10) for number in numbers), "numbers", numbers)
