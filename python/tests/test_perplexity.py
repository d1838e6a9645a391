"""Perplexity, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import walsh


def test_perplexity_is_the_mean_of_likelihoods(model: walsh.Model, text: str) -> None:
    told: list[tuple[int, int]] = []
    report = walsh.perplexity(
        model,
        text,
        kv=["f16", "tq4", "tq2+plain"],
        context=128,
        chunks=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)] and (report.chunks, report.context) == (2, 128)
    tokens = model.tokenize(text, whole=False)
    logs = []
    for start in (0, 128):
        with model.session(kv="f16", context=128) as session:
            found, _ = session.log_likelihoods(tokens[start : start + 128], first=65)
            logs.append(found)
    expected = np.exp(-np.mean(np.concatenate(logs)))
    assert abs(report.results[0].ppl / expected - 1) < 0.01
    first, second, third = report.results
    assert first.kld_mean == 0 and 0 < second.kld_mean < third.kld_mean
    assert second.bits_per_value == 4.25


def test_a_report_is_a_page(model: walsh.Model, text: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(text)
    report = walsh.perplexity(model, path=path, kv=["f16", "q4_0"], context=64, chunks=1)
    assert json.loads(report.json())["results"][1]["kv"] == "q4_0"
    page = report.html()
    assert page.startswith("<!DOCTYPE html>") and "text.txt" in page
    assert "q4_0" in report._repr_html_() and "q4_0" in repr(report)


def test_what_cannot_be_measured_is_an_error(model: walsh.Model, tmp_path: Path) -> None:
    with pytest.raises(walsh.MeasureError, match="longer text"):
        walsh.perplexity(model, "short")
    with pytest.raises(walsh.FileError):
        walsh.perplexity(model, path=tmp_path / "none")
    with pytest.raises(walsh.FormatError):
        walsh.perplexity(model, "x" * 99, kv="tq9")
    with pytest.raises(TypeError):
        walsh.perplexity(model)
