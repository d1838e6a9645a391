"""LoRA adapters of models."""

from __future__ import annotations

from pathlib import Path

import pytest

import walsh

FILES = Path(__file__).parents[2] / "crates/walsh-runtime/tests/adapters"
TOKENS = [5, 43, 95, 161]


def logits(**options: object) -> list[float]:
    with walsh.Model(FILES / "llama.gguf", **options) as model, model.session(kv="f32") as session:  # type: ignore[arg-type]
        session.read(TOKENS)
        return [float(number) for number in session.logits]


def test_adapters_are_added_to_a_model() -> None:
    plain = logits()
    folder = logits(lora=[FILES / "llama-all"])
    assert folder != plain
    assert logits(lora=[str(FILES / "llama-all.gguf")]) == folder
    assert logits(lora=[(FILES / "llama-all", 0)]) == plain
    both = logits(lora=[(FILES / "llama-all", 0.5), FILES / "llama-some"])
    assert both not in (plain, folder)


def test_what_is_none_is_refused() -> None:
    with pytest.raises(walsh.ModelError, match="no LoRA adapter"):
        logits(lora=[FILES / "llama.gguf"])
    with pytest.raises(walsh.ModelError, match="same adapter"):
        logits(lora=[FILES / "llama-all", FILES / "llama-all.gguf"])
    with pytest.raises(walsh.OptionError, match="finite"):
        logits(lora=[(FILES / "llama-all", float("nan"))])
    with pytest.raises(walsh.OptionError, match="pairs of a path and a scale"):
        logits(lora=[3])
    with pytest.raises(walsh.OptionError, match="pairs of a path and a scale"):
        logits(lora=["", None])
