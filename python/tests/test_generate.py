"""Texts of models: whole, as streams, in event loops, in forms."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest

import walsh

PROMPT = "The capital of France is"


def test_the_first_three_lines(model: walsh.Model) -> None:
    answer = model.generate(PROMPT, max_tokens=2, temperature=0)
    assert answer == " Paris."
    assert (answer.finish, answer.tokens) == ("max_tokens", model.tokenize(" Paris."))
    assert answer.figures["prompt_tokens"] == len(model.tokenize(PROMPT))
    assert answer.figures["generated_tokens"] == 2


def test_a_stream_is_the_same_text(model: walsh.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=12, seed=3)
    stream = model.generate(PROMPT, max_tokens=12, seed=3, stream=True)
    assert stream.finish is None
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == whole
    assert (stream.finish, stream.tokens) == (whole.finish, whole.tokens)
    assert list(stream) == []


async def test_an_event_loop_gets_the_same_text(model: walsh.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=12, seed=3)
    stream = model.generate(PROMPT, max_tokens=12, seed=3, stream=True)
    assert [piece async for piece in stream] and stream.tokens == whole.tokens


def test_seeds_decide(model: walsh.Model) -> None:
    texts = {model.generate(PROMPT, max_tokens=16, seed=seed, temperature=1.5) for seed in range(4)}
    assert len(texts) > 1
    again = {model.generate(PROMPT, max_tokens=16, seed=seed, temperature=1.5) for seed in range(4)}
    assert texts == again


def test_tokens_are_a_prompt_too(model: walsh.Model) -> None:
    tokens = model.tokenize(PROMPT)
    whole = model.generate(PROMPT, max_tokens=4, temperature=0)
    assert model.generate(tokens, max_tokens=4, temperature=0) == whole
    array = np.asarray(tokens, dtype=np.int64)
    assert model.generate(array, max_tokens=4, temperature=0) == whole  # type: ignore[call-overload]


def test_stop_texts_end_it(model: walsh.Model) -> None:
    for stop in (".", ["zzz", "."]):
        answer = model.generate(PROMPT, max_tokens=20, temperature=0, stop=stop)
        assert (answer, answer.finish) == (" Paris", "stop")


def test_forms_are_kept(model: walsh.Model) -> None:
    answer = model.generate("Is the sky blue? ", regex="(yes|no)", max_tokens=5)
    assert answer in ("yes", "no")
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Paris", "Rome"]}, "size": {"type": "integer"}},
        "required": ["name", "size"],
        "additionalProperties": False,
    }
    for given in (schema, json.dumps(schema)):
        found = json.loads(model.generate("A city: ", json_schema=given, seed=1))
        assert found["name"] in ("Paris", "Rome") and isinstance(found["size"], int)
    grammar = 'start: "a" "a"? "b"'
    assert re.fullmatch("aa?b", model.generate("x", grammar=grammar, seed=2))


def test_a_conversation_is_answered(model: walsh.Model) -> None:
    asked: list[walsh.Message] = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Say hello."},
    ]
    answer = model.chat(asked, max_tokens=8, temperature=0)
    assert answer and answer.tokens
    streamed = model.chat(asked, max_tokens=8, temperature=0, stream=True)
    assert "".join(streamed) == answer
    prompt = model.chat_prompt(asked)
    assert "<|im_start|>system\nYou are brief." in prompt.text
    assert model.generate(prompt.tokens, max_tokens=8, temperature=0) == answer
    assert all(0 < point <= len(prompt.tokens) for point in prompt.checkpoints)


def test_names_of_control_tokens_in_messages_are_text(model: walsh.Model) -> None:
    end = model.tokenize("<|im_end|>", special=True)
    assert len(end) == 1
    prompt = model.chat_prompt("<|im_end|>")
    plain = model.chat_prompt("x")
    assert prompt.tokens.count(end[0]) == plain.tokens.count(end[0])


def test_tokens_and_back(model: walsh.Model) -> None:
    for text in ("Hello, world", "naïve 日本 🦜", "", " two  spaces\n\n"):
        assert model.detokenize(model.tokenize(text)) == text
        assert model.token_bytes(model.tokenize(text)) == text.encode()
    end = model.tokenize("<|im_end|>", special=True)
    assert end[0] in model.ends
    assert model.token_bytes(end, special=True) == b"<|im_end|>"
    assert model.token_bytes(end) == b""
    # Bytes that are no text become U+FFFD, and lone surrogates are no way out.
    assert model.detokenize(model.tokenize(b"a\xffb")) == "a\ufffdb"
    assert model.tokenize("\ud800")


def test_what_is_known_of_a_model(model: walsh.Model) -> None:
    assert (model.architecture, model.layers, model.width) == ("llama", 30, 576)
    assert (model.heads, model.kv_heads, model.head_dim) == (9, 3, 64)
    assert model.kv_bytes_per_token("f16") == 30 * 2 * 3 * 64 * 2
    assert model.kv_bits_per_value("tq4") == 4.25
    assert model.chats and "Model" in repr(model)
    assert walsh.models()["smollm2-135m"]
    assert model.sampling["top_k"] >= 0


def test_an_answer_is_a_text_that_can_be_pickled(model: walsh.Model) -> None:
    answer = model.generate(PROMPT, max_tokens=3, temperature=0)
    again = pickle.loads(pickle.dumps(answer))
    assert again == answer and again.tokens == answer.tokens


def test_a_stream_that_is_let_go_leaves_the_model_usable(model: walsh.Model) -> None:
    for _ in range(3):
        stream = model.generate(PROMPT, max_tokens=50, temperature=0, stream=True)
        next(stream)
        del stream
    with model.generate(PROMPT, max_tokens=50, temperature=0, stream=True) as stream:
        assert next(stream) == " Paris"
    assert list(stream) == []
    assert model.generate(PROMPT, max_tokens=2, temperature=0) == " Paris."


def test_a_session_that_was_lost_is_made_anew(own_model: walsh.Model) -> None:
    own_model.generate(PROMPT, max_tokens=1)
    # As a fault of Walsh leaves it.
    own_model._spare[0].close()
    assert own_model.generate(PROMPT, max_tokens=1, temperature=0) == " Paris"


def test_cancelling_ends_a_text(model: walsh.Model) -> None:
    stream = model.generate(PROMPT, max_tokens=50, temperature=0, stream=True)
    next(stream)
    stream.cancel()
    rest = list(stream)
    assert len(rest) <= 1 and stream.finish == "cancelled"


@pytest.mark.parametrize("kv", ["f32", "q8_0", "tq4", "4bit", "k=tq5,v=tq3", "tq8+norot"])
def test_every_kind_of_cache(model: walsh.Model, kv: str) -> None:
    answer = model.generate(PROMPT, max_tokens=2, temperature=0, kv=kv, context=256)
    assert answer.startswith(" Paris")
