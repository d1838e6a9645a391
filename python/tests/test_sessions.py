"""Sessions: what they hold, give out and take back."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import walsh

PROMPT = "The capital of France is"


def test_logits_are_those_of_the_next_token(model: walsh.Model) -> None:
    with model.session() as session:
        assert not session.logits.any()
        session.read(PROMPT)
        logits = session.logits
        assert logits.shape == (model.vocabulary,) and logits.dtype == np.float32
        best = int(logits.argmax())
        assert model.detokenize([best]) == " Paris"
        behind = session.decode(best)
        assert np.array_equal(behind, session.logits) and not np.array_equal(behind, logits)
        # The array is the caller's own.
        behind[:] = 0
        assert session.logits.any()
        assert session.decode_likeliest(int(session.logits.argmax())) >= 0


def test_scores_are_what_decoding_gives(model: walsh.Model) -> None:
    # In 8 bits, products of one row and of several differ by rounding.
    model = walsh.Model(model.path, device="cpu:activations=f32")
    tokens = model.tokenize(PROMPT + " Paris.")
    with model.session() as scored, model.session() as decoded:
        scores = scored.score(tokens, first=2)
        one_by_one = [decoded.decode(token) for token in tokens][2:]
        assert scores.shape == (len(tokens) - 2, model.vocabulary)
        assert np.allclose(scores, one_by_one, atol=0.01)
        assert (scores.argmax(-1) == np.array(one_by_one).argmax(-1)).all()
    with model.session() as session:
        found, best = session.log_likelihoods(tokens, first=3)
        assert session.position == len(tokens) - 1
    wide = scores[:-1].astype(np.float64)
    logs = wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logs -= wide.max(-1, keepdims=True)
    expected = logs[np.arange(len(logs)), tokens[3:]]
    assert np.allclose(found, expected, atol=1e-4)
    assert best == [bool(row.argmax() == token) for row, token in zip(wide, tokens[3:], strict=True)]


def test_hidden_states_are_what_embeddings_are_made_of(
    model: walsh.Model, engine: walsh.Engine
) -> None:
    with model.session() as session:
        states = session.hidden_states(PROMPT)
        assert states.shape == (len(model.tokenize(PROMPT)), model.width)
        # The text goes on from there.
        assert session.generate(max_tokens=1, temperature=0) == " Paris"
    mean = engine.embed(PROMPT, normalise=False)
    assert np.allclose(states.mean(0), mean, atol=0.05 * np.abs(mean).max())
    last = engine.embed(PROMPT, pooling="last", normalise=False)
    assert np.allclose(states[-1], last, atol=0.05 * np.abs(last).max())
    assert abs(np.linalg.norm(engine.embed(PROMPT)) - 1) < 1e-5


def test_models_that_make_vectors_pool_as_they_were_trained_to(model: walsh.Model) -> None:
    assert model.pooling is None
    folder = Path(__file__).parents[2] / "crates/walsh-runtime/tests/architectures/embeddings"
    golden = json.loads((folder / "qwen3.json").read_text("utf-8"))
    with walsh.Model(folder / "qwen3.gguf") as tiny:
        assert tiny.pooling == "last"
        with walsh.Engine(tiny, context=64, kv="f32") as engine:
            ways: list[Literal["last", "mean"] | None] = [None, "last", "mean"]
            for pooling in ways:
                found = engine.embed(golden["tokens"], pooling=pooling)
                assert np.allclose(found, golden[pooling or "last"], atol=1e-4)
            with pytest.raises(walsh.ModelError, match="one vector of a text"):
                engine.generate("a", max_tokens=1)
        with tiny.session() as session, pytest.raises(walsh.ModelError, match="no texts"):
            session.generate("a", max_tokens=1)


@pytest.mark.parametrize("kv", ["f16", "4bit"])
def test_sessions_are_saved_forked_and_cut(model: walsh.Model, tmp_path: Path, kv: str) -> None:
    with model.session(kv=kv, context=512) as session:
        session.read(PROMPT)
        position = session.position
        fork = session.fork()
        session.save(tmp_path / "session")
        first = session.generate(max_tokens=6, temperature=0)
        assert session.text == PROMPT + first
        assert fork.generate(max_tokens=6, temperature=0) == first
        restored = model.load(tmp_path / "session", kv=kv)
        assert restored.tokens == model.tokenize(PROMPT) and restored.kv == session.kv
        assert restored.generate(max_tokens=6, temperature=0) == first
        session.truncate(position)
        assert len(session) == position
        assert session.generate(max_tokens=6, temperature=0) == first
        session.reset()
        assert session.position == 0 and session.tokens == []
        fork.close()
        restored.close()


def test_a_session_is_used_by_one_at_a_time(model: walsh.Model) -> None:
    with model.session() as session:
        stream = session.generate(PROMPT, max_tokens=5, temperature=0, stream=True)
        next(stream)
        for use in (
            lambda: session.position,
            lambda: session.logits,
            lambda: session.read("x"),
            lambda: session.fork(),
            lambda: session.generate("x"),
            lambda: session.truncate(0),
        ):
            with pytest.raises(walsh.BusyError, match="in use"):
                use()
        stream.close()
        assert session.position >= len(model.tokenize(PROMPT))
        session.read(" x")


def test_a_second_reader_of_a_text_leaves_it_to_the_first(model: walsh.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=40, temperature=0)
    stream = model.generate(PROMPT, max_tokens=40, temperature=0, stream=True)
    busy: list[str] = []

    def read() -> None:
        while True:
            try:
                next(stream)
            except walsh.BusyError as error:
                busy.append(str(error))
                # The other may read meanwhile.
                time.sleep(0.001)
            except StopIteration:
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert busy and "let one of them read it" in busy[0]
    assert (stream.finish, stream.tokens) == (whole.finish, whole.tokens)


def test_a_text_that_does_not_fit_leaves_the_session_as_it_was(model: walsh.Model) -> None:
    with model.session(context=8) as session:
        session.read(PROMPT)
        with pytest.raises(walsh.ContextError, match="do not fit"):
            session.read("one two three four five")
        with pytest.raises(walsh.ContextError):
            session.generate("one two three four five")
        assert session.text == PROMPT
        answer = session.generate(max_tokens=None, temperature=0)
        assert answer.finish == "context_full"


def test_saved_files_that_cannot_be_used_are_errors(model: walsh.Model, tmp_path: Path) -> None:
    path = tmp_path / "session"
    with pytest.raises(walsh.FileError, match="no such file"):
        model.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(walsh.SavedError):
        model.load(path)
    with model.session() as session:
        session.read(PROMPT)
        with pytest.raises(walsh.SavedError, match="no folder"):
            session.save(tmp_path / "no" / "such" / "folder")
        session.save(path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(walsh.SavedError):
        model.load(path)
