"""What is no chat: `/v1/models`, `/v1/completions` and `/v1/embeddings`."""

import base64
import math
import struct

import openai

from openai_common import adds_up, client
from suite import Cases, check, refused, same

cases = Cases()

PROMPT = "The lighthouse stood on"


def go_on(server, prompt=PROMPT, **options):
    """What follows a text by the likeliest tokens, unless the options say otherwise."""
    settings = {"temperature": 0, "seed": 1, "max_tokens": 12, **options}
    return client(server).completions.create(model=server.model, prompt=prompt, **settings)


def tokens_of(server, prompt):
    """The tokens of a text, as `/tokenize` has them."""
    body = {"content": prompt, "add_special": True, "model": server.model}
    return client(server).post(f"{server.url}/tokenize", cast_to=object, body=body)["tokens"]


@cases
def models_are_listed_and_found(server):
    models = client(server).models.list().data
    check(server.model in [model.id for model in models], "ids", models)
    same(client(server).models.retrieve(server.model).id, server.model, "id")
    same({model.object for model in models}, {"model"}, "objects")


@cases
def a_model_that_is_not_there_is_not_found(server):
    error = refused(openai.NotFoundError, lambda: client(server).models.retrieve("no/such-model"))
    same(error.code, "model_not_found", "code")


@cases
def a_text_goes_on(server):
    answer = go_on(server)
    same((answer.object, answer.model), ("text_completion", server.model), "object, model")
    choice = answer.choices[0]
    check(choice.text.strip() and choice.logprobs is None, "choice", choice)
    same(choice.finish_reason, "length", "finish_reason")
    same(adds_up(answer.usage)[1], 12, "generated tokens")


@cases
def a_streamed_text_is_the_same(server):
    whole = go_on(server)
    chunks = list(go_on(server, stream=True, stream_options={"include_usage": True}))
    same("".join(c.text for chunk in chunks for c in chunk.choices), whole.choices[0].text, "text")
    reasons = [c.finish_reason for chunk in chunks for c in chunk.choices]
    same((set(reasons[:-1]), reasons[-1]), ({None}, "length"), "finish_reasons")
    same(adds_up(chunks[-1].usage), adds_up(whole.usage), "usage")


@cases
def a_text_goes_on_for_sixteen_tokens_by_itself(server):
    same(go_on(server, max_tokens=openai.omit).usage.completion_tokens, 16, "tokens")


@cases
def an_echo_is_the_prompt_and_what_follows(server):
    plain = go_on(server).choices[0].text
    same(go_on(server, echo=True).choices[0].text, PROMPT + plain, "text")
    chunks = list(go_on(server, echo=True, stream=True))
    same("".join(c.text for chunk in chunks for c in chunk.choices), PROMPT + plain, "streamed text")


def columns(logprobs):
    """Log-probabilities as columns, which have to be of one length and offsets in order."""
    lengths = {len(logprobs.tokens), len(logprobs.token_logprobs), len(logprobs.top_logprobs), len(logprobs.text_offset)}
    same(len(lengths), 1, "lengths of the columns")
    same(logprobs.text_offset, sorted(logprobs.text_offset), "offsets")
    return logprobs


@cases
def logprobs_are_columns(server):
    answer = go_on(server, logprobs=4)
    logprobs = columns(answer.choices[0].logprobs)
    same("".join(logprobs.tokens), answer.choices[0].text, "tokens")
    same(len(logprobs.tokens), answer.usage.completion_tokens, "number of tokens")
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        check(sum(map(math.exp, top.values())) <= 1 + 1e-4, "probabilities add up to more than 1", top)
        same(logprob, max(top.values()), f"the likeliest token is {token!r}")
        check(token in top, "the token is none of the likeliest", (token, top))
    for offset, token in zip(logprobs.text_offset, logprobs.tokens):
        start = offset - logprobs.text_offset[0]
        same(answer.choices[0].text[start : start + len(token)], token, "the text at an offset")


@cases
def an_echo_has_logprobs_of_the_prompt(server):
    answer = go_on(server, echo=True, logprobs=2, max_tokens=3)
    logprobs = columns(answer.choices[0].logprobs)
    same(len(logprobs.tokens), answer.usage.total_tokens, "tokens")
    same((logprobs.token_logprobs[0], logprobs.top_logprobs[0]), (None, None), "what is known of the first token")
    check(all(logprob <= 0 for logprob in logprobs.token_logprobs[1:]), "a probability above 1", logprobs)
    same("".join(logprobs.tokens), answer.choices[0].text, "text")
    # What a text is worth, without a token more.
    scored = go_on(server, echo=True, logprobs=2, max_tokens=0)
    same((scored.usage.completion_tokens, scored.choices[0].text), (0, PROMPT), "what is generated")
    for one, other in zip(scored.choices[0].logprobs.token_logprobs[1:], logprobs.token_logprobs[1:]):
        check(abs(one - other) < 1e-3, "logprobs of the prompt alone", (one, other))


@cases
def a_streamed_echo_has_the_same_logprobs(server):
    options = {"echo": True, "logprobs": 2, "max_tokens": 3}
    whole = columns(go_on(server, **options).choices[0].logprobs)
    parts = [c.logprobs for chunk in go_on(server, stream=True, **options) for c in chunk.choices if c.logprobs]
    same([token for part in parts for token in part.tokens], whole.tokens, "tokens")
    same([offset for part in parts for offset in part.text_offset], whole.text_offset, "offsets")


@cases
def offsets_are_those_in_the_text_that_is_returned(server):
    logprobs = columns(go_on(server, logprobs=0, max_tokens=4).choices[0].logprobs)
    parts = [c.logprobs for chunk in go_on(server, logprobs=0, max_tokens=4, stream=True) for c in chunk.choices]
    same([offset for part in parts if part for offset in part.text_offset], logprobs.text_offset, "streamed offsets")


@cases
def tokens_are_a_prompt_too(server):
    whole = go_on(server)
    for prompt in (tokens_of(server, PROMPT), [tokens_of(server, PROMPT)]):
        answer = go_on(server, prompt)
        same(answer.choices[0].text, whole.choices[0].text, "text")
        same(adds_up(answer.usage), adds_up(whole.usage), "usage")


@cases
def several_prompts_have_their_answers_in_order(server):
    prompts = [PROMPT, "One, two, three,"]
    alone = [go_on(server, prompt) for prompt in prompts]
    both = go_on(server, prompts)
    same([choice.index for choice in both.choices], [0, 1], "indices")
    same([choice.text for choice in both.choices], [answer.choices[0].text for answer in alone], "texts")
    same(both.usage.prompt_tokens, sum(answer.usage.prompt_tokens for answer in alone), "tokens of the prompts")
    adds_up(both.usage)


@cases
def n_answers_go_to_each_prompt(server):
    prompts = [PROMPT, "One, two, three,"]
    answer = go_on(server, prompts, n=2, echo=True, temperature=1.0)
    same([choice.index for choice in answer.choices], [0, 1, 2, 3], "indices")
    for choice in answer.choices:
        check(choice.text.startswith(prompts[choice.index // 2]), "whose answer it is", choice)
    same(adds_up(answer.usage)[1], 4 * 12, "generated tokens")
    chunks = list(go_on(server, prompts, n=2, temperature=1.0, stream=True))
    same({c.index for chunk in chunks for c in chunk.choices}, {0, 1, 2, 3}, "streamed indices")


@cases
def a_text_stops_before_a_stop(server):
    whole = go_on(server).choices[0].text
    stop = whole.split()[3]
    choice = go_on(server, stop=stop).choices[0]
    same((choice.text, choice.finish_reason), (whole[: whole.index(stop)], "stop"), "text, finish_reason")


@cases
def a_seed_decides_how_a_text_goes_on(server):
    texts = [go_on(server, temperature=1.0, seed=seed).choices[0].text for seed in (5, 5, 6, 7)]
    same(texts[1], texts[0], "the same seed again")
    check(len(set(texts)) > 1, "seeds change nothing", texts)


@cases
def what_texts_cannot_have_is_refused(server):
    for options, param in (
        ({"suffix": "into the sea."}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 99}, "logprobs"),
        ({"n": 0}, "n"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[999_999_999]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
    ):
        error = refused(openai.BadRequestError, lambda: go_on(server, **options))
        same(error.param, param, f"param of {options}")


TEXTS = ["The lighthouse keeper slept.", "Grüße aus \u6771\u4eac \U0001f5fc", "x"]


def embedded(server, texts, **options):
    """Vectors of texts. The package asks for base64 by itself."""
    return client(server).embeddings.create(model=server.model, input=texts, **options)


def near(one, other, what):
    """Checks that two vectors are about the same."""
    same(len(one), len(other), f"{what}: width")
    furthest = max(abs(a - b) for a, b in zip(one, other))
    check(furthest < 1e-3, f"{what}: they differ by", furthest)


@cases
def embeddings_are_of_length_one(server):
    answer = embedded(server, TEXTS)
    same([item.index for item in answer.data], [0, 1, 2], "indices")
    for item in answer.data:
        length = math.sqrt(sum(x * x for x in item.embedding))
        check(abs(length - 1) < 1e-5, "length", length)
    same(len({tuple(item.embedding) for item in answer.data}), 3, "different vectors")
    check(answer.usage.prompt_tokens == answer.usage.total_tokens > 3, "usage", answer.usage)


@cases
def embeddings_are_the_same_as_numbers_and_as_base64(server):
    numbers = embedded(server, TEXTS, encoding_format="float").data
    coded = embedded(server, TEXTS, encoding_format="base64").data
    for one, other in zip(numbers, coded):
        check(isinstance(other.embedding, str), "base64 is a text", type(other.embedding))
        raw = base64.b64decode(other.embedding)
        floats = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        rounded = list(struct.unpack(f"<{len(floats)}f", struct.pack(f"<{len(floats)}f", *one.embedding)))
        same(floats, rounded, "numbers")


@cases
def embeddings_do_not_depend_on_company(server):
    together = embedded(server, TEXTS)
    for text, item in zip(TEXTS, together.data):
        near(embedded(server, text).data[0].embedding, item.embedding, text)
    alone = [embedded(server, text).usage.prompt_tokens for text in TEXTS]
    same(together.usage.prompt_tokens, sum(alone), "tokens")


@cases
def tokens_are_embedded_as_their_text_is(server):
    tokens = tokens_of(server, TEXTS[0])
    near(embedded(server, tokens).data[0].embedding, embedded(server, TEXTS[0]).data[0].embedding, "tokens")


@cases
def what_cannot_be_embedded_is_refused(server):
    for options, param in (
        ({"texts": []}, "input"),
        ({"texts": ""}, "input"),
        ({"texts": "a", "dimensions": 3}, "dimensions"),
        ({"texts": [[999_999_999]]}, "input"),
    ):
        error = refused(openai.BadRequestError, lambda: embedded(server, **options))
        same(error.param, param, f"param of {options}")
