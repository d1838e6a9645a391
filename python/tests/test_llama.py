"""The class for programs written for llama-cpp-python. What is asked here holds of that package's too:
``pytest tests/test_llama.py --peer`` runs both."""

from __future__ import annotations

import json
from typing import Any

import pytest

import walsh

PROMPT = "The capital of France is"

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        kinds = ["walsh"] + (["peer"] if metafunc.config.getoption("--peer") else [])
        metafunc.parametrize("kind", kinds, scope="module")


@pytest.fixture(scope="module")
def make(kind: str, model: walsh.Model) -> Any:
    def opened(**options: Any) -> Any:
        if kind == "walsh":
            return walsh.Llama(model.path, **options)
        import llama_cpp  # type: ignore[import-not-found, unused-ignore]

        return llama_cpp.Llama(model.path, verbose=False, **options)

    return opened


@pytest.fixture(scope="module")
def llama(make: Any) -> Any:
    llama = make(n_ctx=256, seed=7)
    yield llama
    llama.close()


def test_a_completion(llama: Any, model: walsh.Model) -> None:
    answer = llama(PROMPT, max_tokens=3, temperature=0)
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    assert isinstance(answer["created"], int) and answer["model"] == model.path
    assert len(answer["choices"]) == 1
    choice = answer["choices"][0]
    assert choice["text"].startswith(" Paris.")
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    again = llama.create_completion(PROMPT, max_tokens=3, temperature=0)
    assert again["choices"] == answer["choices"]


def test_tokens_are_a_prompt(llama: Any) -> None:
    tokens = llama.tokenize(PROMPT.encode())
    answer = llama(tokens, max_tokens=1, temperature=0)
    assert answer["choices"][0]["text"] == " Paris"


def test_stop_texts(llama: Any) -> None:
    for stop in (".", ["zzz", "."]):
        choice = llama(PROMPT, max_tokens=10, temperature=0, stop=stop)["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (" Paris", "stop")


def test_echo(llama: Any) -> None:
    text = llama(PROMPT, max_tokens=1, temperature=0, echo=True)["choices"][0]["text"]
    assert text == PROMPT + " Paris"


def test_a_stream(llama: Any) -> None:
    whole = llama(PROMPT, max_tokens=6, temperature=0)["choices"][0]
    parts = list(llama(PROMPT, max_tokens=6, temperature=0, stream=True))
    assert len(parts) >= 6
    assert all(part["object"] == "text_completion" for part in parts)
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["text"]
    reasons = [part["choices"][0]["finish_reason"] for part in parts]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    # One that is let go leaves the model usable.
    next(iter(llama(PROMPT, max_tokens=50, stream=True)))
    assert llama(PROMPT, max_tokens=1, temperature=0)["choices"][0]["text"] == " Paris"


def test_seeds(llama: Any) -> None:
    def text(seed: int) -> str:
        answer = llama(PROMPT, max_tokens=12, temperature=2.0, top_p=1.0, min_p=0.0, seed=seed)
        found: str = answer["choices"][0]["text"]
        return found

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) > 1


def test_biases_and_penalties(llama: Any) -> None:
    paris = llama.tokenize(b" Paris", add_bos=False)[0]
    answer = llama(PROMPT, max_tokens=1, temperature=0, logit_bias={paris: -100.0})
    assert answer["choices"][0]["text"] != " Paris"
    for penalty in ("frequency_penalty", "presence_penalty"):
        plain = llama("a a a a a a a", max_tokens=6, temperature=0)["choices"][0]["text"]
        other = llama("a a a a a a a", max_tokens=6, temperature=0, **{penalty: 2.0})
        assert other["choices"][0]["text"] != plain
    other = llama("a a a a a a a", max_tokens=6, temperature=0, repeat_penalty=5.0)
    assert other["choices"][0]["text"] != plain


def test_a_conversation(llama: Any) -> None:
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And once more: what is the capital of France?"},
    ]
    answer = llama.create_chat_completion(messages, max_tokens=12, temperature=0)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    parts = list(llama.create_chat_completion(messages, max_tokens=12, temperature=0, stream=True))
    assert all(part["object"] == "chat.completion.chunk" for part in parts)
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant"}
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert text == choice["message"]["content"]
    assert parts[-1]["choices"][0] | {"logprobs": None} == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": choice["finish_reason"],
    }


def test_answers_in_json(llama: Any) -> None:
    messages = [{"role": "user", "content": "Name a city in JSON."}]
    form = {"type": "json_object", "schema": CITY}
    answer = llama.create_chat_completion(
        messages, max_tokens=60, temperature=0, response_format=form
    )
    found = json.loads(answer["choices"][0]["message"]["content"])
    assert found["city"] in ("Paris", "Rome")


def test_tokens(llama: Any) -> None:
    for text in ("Hello, world", "naïve 日本 🦜", " two  spaces"):
        tokens = llama.tokenize(text.encode())
        assert all(isinstance(token, int) for token in tokens)
        assert llama.detokenize(tokens) == text.encode()
    named = llama.tokenize(b"<|im_end|>", special=True)
    assert len(named) == 1 and len(llama.tokenize(b"<|im_end|>")) > 1
    assert llama.detokenize(named) == b"" and llama.detokenize(named, special=True) == b"<|im_end|>"
    assert llama.detokenize(llama.tokenize(b"a\xffb")) in (b"a\xffb", "a\ufffdb".encode())


def test_sizes(llama: Any) -> None:
    assert (llama.n_ctx(), llama.n_vocab(), llama.n_embd()) == (256, 49152, 576)
    assert (llama.token_bos(), llama.token_eos()) == (1, 2)
    assert llama.metadata["general.architecture"] == "llama"


def test_a_prompt_that_does_not_fit(llama: Any) -> None:
    with pytest.raises(ValueError):
        llama("word " * 400, max_tokens=1)
    with pytest.raises((ValueError, RuntimeError)):
        llama.embed("x")


def test_log_probabilities(make: Any) -> None:
    llama = make(n_ctx=64, logits_all=True)
    answer = llama(PROMPT, max_tokens=2, temperature=0, logprobs=3)
    told = answer["choices"][0]["logprobs"]
    assert set(told) == {"tokens", "text_offset", "token_logprobs", "top_logprobs"}
    assert told["tokens"] == [" Paris", "."]
    for name, value, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        assert len(top) >= 3 and value < 0
        assert abs(top[name] - value) < 1e-6 and value >= max(top.values()) - 1e-6
    llama.close()


@pytest.mark.parametrize("pooling", [-1, 1, 3])
def test_embeddings(make: Any, model: walsh.Model, pooling: int) -> None:
    llama = make(n_ctx=64, embedding=True, pooling_type=pooling)
    found = llama.embed(PROMPT)
    many = llama.embed([PROMPT, "Rome"])
    assert len(many) == 2
    if pooling == -1:
        assert len(found) == 5 and len(found[0]) == model.width
        found = found[-1]
    assert len(found) == model.width and isinstance(found[0], float)
    with model.session(kv="f32") as session:
        states = session.hidden_states(PROMPT)
    expected = states.mean(0) if pooling == 1 else states[-1]
    size = abs(expected).max()
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.08 * size
    response = llama.create_embedding("Rome")
    assert response["object"] == "list" and len(response["data"]) == 1
    assert response["usage"]["prompt_tokens"] == len(model.tokenize("Rome"))
    llama.close()


def test_what_is_not_here_is_refused() -> None:
    with pytest.raises(walsh.OptionError, match="lora_path"):
        walsh.Llama("smollm2-135m", lora_path="x")
    with pytest.raises(walsh.OptionError, match="type_k"):
        walsh.Llama("smollm2-135m", type_k=99)
    with walsh.Llama("smollm2-135m", n_ctx=64, type_k=8, type_v=2, use_mmap=False) as llama:
        with pytest.raises(walsh.OptionError, match="mirostat"):
            llama("x", mirostat_mode=2)
        with pytest.raises(walsh.OptionError, match="grammar"):
            llama("x", grammar=object())
        assert llama(PROMPT, max_tokens=1, temperature=0)["choices"][0]["text"] == " Paris"
