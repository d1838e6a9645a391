"""Perplexity of a text, and what KV codecs change about predictions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import _walsh
from ._arguments import Progress, _size
from ._model import Model


@dataclass(frozen=True)
class Perplexity:
    """One codec's figures."""

    #: The codec as it was given.
    kv: str
    #: exp of the mean negative log-likelihood.
    ppl: float
    #: Its standard error.
    ppl_stderr: float
    #: Mean KL divergence from the first codec's predictions, in nats.
    kld_mean: float
    #: Its standard error.
    kld_stderr: float
    #: The divergence that 99 of 100 positions stay below, in nats.
    kld_p99: float
    #: The fraction of positions whose likeliest token is the first codec's.
    same_top: float
    #: What the cache holds for a token, over all layers, in bytes.
    kv_bytes_per_token: int
    #: Bits for a number of a key or a value, scales included.
    bits_per_value: float
    #: What it was fitted to the model as, of a budget where there is a fit.
    policy: str | None = None


class PerplexityReport:
    """What was measured."""

    def __init__(self, native: _walsh.Report) -> None:
        self._native = native
        figures: dict[str, Any] = json.loads(native.json())
        #: The model's name.
        self.model: str = figures["model"]
        #: The device, and what its kernels were chosen for.
        self.device: str = figures["device"]
        #: Tokens in a chunk.
        self.context: int = figures["context"]
        #: Chunks that were scored.
        self.chunks: int = figures["chunks"]
        #: Tokens of the text.
        self.tokens: int = figures["tokens"]
        #: What to know before the figures are believed.
        self.warnings: list[str] = figures["warnings"]
        #: The figures of each codec, in the order given.
        self.results: list[Perplexity] = [Perplexity(**result) for result in figures["results"]]

    def __repr__(self) -> str:
        figures = ", ".join(f"{result.kv}: {result.ppl:.4f}" for result in self.results)
        return f"<walsh.PerplexityReport {figures}>"

    def json(self) -> str:
        """The figures as JSON."""
        return self._native.json()

    def html(self) -> str:
        """A page with tables and plots, which needs no other file."""
        return self._native.html()

    def _repr_html_(self) -> str:
        head = ["kv", "bits", "perplexity", "KL divergence", "same top"]
        rows = [
            [
                result.kv,
                f"{result.bits_per_value:.2f}",
                f"{result.ppl:.4f} ± {result.ppl_stderr:.4f}",
                f"{result.kld_mean:.5f} ± {result.kld_stderr:.5f}",
                f"{result.same_top:.2%}",
            ]
            for result in self.results
        ]
        lines = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
        )
        titles = "".join(f"<th>{title}</th>" for title in head)
        return f"<table><tr>{titles}</tr>{lines}</table>"


def perplexity(
    model: Model,
    text: str | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    kv: str | Sequence[str] = "f16",
    context: int = 512,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> PerplexityReport:
    """Measures the perplexity of a text, or of a file's, with one KV codec or several, of which the
    first is what the others are compared with. ``progress`` is told chunks done, and in all."""
    if (text is None) == (path is None):
        raise TypeError("perplexity() takes either text or path")
    measuring = {
        "text": text,
        "path": path,
        "context": _size("context", context),
        "chunks": None if chunks is None else _size("chunks", chunks),
        "kv": [kv] if isinstance(kv, str) else list(kv),
    }
    return PerplexityReport(_walsh.perplexity(model._native, measuring, progress))
