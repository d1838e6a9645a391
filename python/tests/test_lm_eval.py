"""The adapter for ``lm-eval``, where that is installed: ``.ci/python --with lm-eval`` does so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import walsh


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args)


@pytest.fixture(scope="module")
def lm() -> Iterator[Any]:
    from walsh.lm_eval import WalshLM

    yield WalshLM("smollm2-135m", context=256, kv="f16")


def test_continuations(lm: Any, model: walsh.Model) -> None:
    right, wrong, split = lm.loglikelihood(
        [
            asked("The capital of France is", " Paris"),
            asked("The capital of France is", " Rome"),
            asked("The capital of France is ", "Paris"),
        ]
    )
    assert right == split and right[1] and not wrong[1]
    assert 0 > right[0] > wrong[0]
    with model.session(kv="f16") as session:
        found, _ = session.log_likelihoods("The capital of France is Paris", first=5)
    assert abs(found.sum() - right[0]) < 1e-6


def test_whole_texts(lm: Any, text: str) -> None:
    short, long = lm.loglikelihood_rolling([asked("The sky is blue."), asked(text[:4000])])
    assert long < short < 0
    count = len(lm._encode(text[:4000]))
    assert count > 256 and 1 < np.exp(-long / count) < 200


def test_texts_up_to(lm: Any) -> None:
    first, second = lm.generate_until(
        [
            asked("The capital of France is", {"until": ["."], "max_gen_toks": 8}),
            asked("The capital of France is", {"until": [], "max_gen_toks": 2}),
        ]
    )
    assert (first, second) == (" Paris", " Paris.")


def test_the_harness_knows_it() -> None:
    import walsh.lm_eval

    registry = importlib.import_module("lm_eval.api.registry")
    assert registry.get_model("walsh") is walsh.lm_eval.WalshLM
