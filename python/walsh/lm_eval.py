"""An adapter for EleutherAI's ``lm-eval``, which ``pip install walsh[lm-eval]`` installs with it:
what a model is worth with a KV cache of any kind.

Likelihoods are those behind stored codes alone, as a text is written: that is what a codec changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from lm_eval.api.model import LM  # type: ignore[import-not-found, unused-ignore]
from lm_eval.api.registry import register_model  # type: ignore[import-not-found, unused-ignore]
from lm_eval.utils import (  # type: ignore[import-not-found, unused-ignore]
    get_rolling_token_windows,
    make_disjoint_window,
)

from ._engine import Engine
from ._errors import OptionError
from ._model import Model

__all__ = ["WalshLM"]


@register_model("walsh")  # type: ignore[untyped-decorator, unused-ignore]
class WalshLM(LM):  # type: ignore[misc, unused-ignore]
    """A model for ``lm_eval.simple_evaluate(model=WalshLM(...), tasks=[...])``."""

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        kv: str | None = None,
        context: int = 2048,
        device: str = "cpu",
        sequences: int = 8,
        max_gen_toks: int = 256,
    ) -> None:
        super().__init__()
        self._model = Model(model, device=device, kv=kv, context=context)
        self._context = context
        self._max_gen_toks = max_gen_toks
        self._session = self._model.session()
        self._engine = Engine(self._model, sequences=sequences, context=context)
        # What a text without a beginning is conditioned on.
        first = self._model.bos if self._model.bos is not None else self._model.eos
        if first is None:
            raise OptionError("the model has no token that a text can begin with: use another")
        self._first = first

    @property
    def tokenizer_name(self) -> str:
        """What tells its tokens from others'."""
        return self._model.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's name, where conversations are asked for."""
        return self._model.fingerprint if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation."""
        messages: Any = chat_history
        return self._model.chat_prompt(messages, continues=not add_generation_prompt).text

    def _encode(self, text: str) -> list[int]:
        return self._model.tokenize(text, whole=False, special=True)

    def _likelihood(self, context: list[int], text: list[int]) -> tuple[float, bool]:
        """The logarithm of a text's probability behind another, and whether it is the likeliest."""
        if not text:
            return 0.0, True
        tokens = (context or [self._first]) + text
        # What lies too far back is left out, as the harness has it.
        tokens = tokens[-(self._context + 1) :]
        self._session.reset()
        found, best = self._session.log_likelihoods(tokens, first=max(len(tokens) - len(text), 1))
        return float(found.sum()), all(best)

    def loglikelihood(self, requests: Iterable[Any]) -> list[tuple[float, bool]]:
        """Of continuations behind contexts."""
        answers = []
        for request in requests:
            context, text = request.args
            # Spaces at the end belong to the next word.
            bare = context.rstrip()
            text, context = context[len(bare) :] + text, bare
            head = self._encode(context)
            whole = self._encode(context + text)
            answers.append(self._likelihood(head, whole[len(head) :]))
        return answers

    def loglikelihood_rolling(self, requests: Iterable[Any]) -> list[float]:
        """Of whole texts, however long."""
        answers = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self._encode(request.args[0]),
                prefix_token=self._first,
                max_seq_len=self._context,
                context_len=1,
            )
            parts = (make_disjoint_window(window) for window in windows)
            answers.append(sum(self._likelihood(list(head), list(text))[0] for head, text in parts))
        return answers

    def generate_until(self, requests: Iterable[Any]) -> list[str]:
        """What follows contexts, many at once, up to one of some texts."""
        replies = []
        for request in requests:
            context, given = request.args
            until = given.get("until") or []
            most = int(given.get("max_gen_toks", self._max_gen_toks))
            samples = given.get("do_sample", False)
            tokens = self._encode(context) or [self._first]
            tokens = tokens[-max(self._context - most, 1) :]
            replies.append(
                self._engine.submit(
                    tokens,
                    max_tokens=most,
                    temperature=float(given.get("temperature", 1.0)) if samples else 0.0,
                    stop=[until] if isinstance(until, str) else [stop for stop in until if stop],
                )
            )
        return [str(reply.read()) for reply in replies]
