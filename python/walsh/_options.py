"""What callers say about how a text is generated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from ._errors import OptionError

#: Tokens of a text where nothing is said, as of the command.
MAX_TOKENS = 256


class Options(TypedDict, total=False):
    """How a text is generated, whoever does it. What is left out is as the model's makers recommend."""

    #: The most tokens; -1 or None until the model ends its text or the context is full. 256 if left out.
    max_tokens: int | None
    #: What logits are divided by; 0 takes the likeliest token.
    temperature: float | None
    #: How many of the likeliest tokens stay; 0 keeps all.
    top_k: int | None
    #: The fewest likeliest tokens whose probabilities reach this sum stay; 1 keeps all.
    top_p: float | None
    #: Tokens at least this probable, relative to the likeliest, stay; 0 keeps all.
    min_p: float | None
    #: What makes tokens that came lately less likely; 1 changes nothing.
    repetition_penalty: float | None
    #: How many of the latest tokens that looks at.
    repetition_window: int | None
    #: What random numbers start from, from 0 to 2**64 - 1; drawn if left out.
    seed: int | None
    #: Texts that end the text where they begin.
    stop: str | Sequence[str] | None
    #: The text is JSON by this schema: a mapping, or its JSON.
    json_schema: str | Mapping[str, Any] | bool | None
    #: The text is what this regular expression matches as a whole.
    regex: str | None
    #: The text is what this grammar derives, in llguidance's kind of Lark.
    grammar: str | None


class RequestOptions(Options, total=False):
    """How an engine generates a text."""

    #: What is added to tokens' logits, by their ids.
    logit_bias: Mapping[int, float] | None
    #: What is taken from the logits of tokens that the answer has already: once each.
    presence_penalty: float | None
    #: The same for each time that the answer has them.
    frequency_penalty: float | None
    #: How many of the likeliest tokens come with each, with their log-probabilities.
    logprobs: int | None
    #: The same for the tokens of the prompt, the first excepted.
    prompt_logprobs: int | None
    #: Whether what the model makes of the prompt is wanted as a vector, and how.
    pooling: Literal["mean", "last"] | None
    #: Requests of a higher priority begin first.
    priority: int | None
    #: Who asks: of those that wait, whoever has had the fewest tokens is next.
    client: str | None
    #: Seconds after which the text ends wherever it is.
    timeout: float | None
    #: Beginnings of prompts are shared with requests of the same salt alone.
    salt: str | None
    #: Which of the engine's slots it is to have, for which it waits; any if left out.
    slot: int | None
    #: Whether tokens are looked up in the text so far.
    look_up: bool | None


_SESSION = frozenset(Options.__annotations__)
_ENGINE = _SESSION | frozenset(RequestOptions.__annotations__)


def _texts(name: str, given: object) -> list[str]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, Iterable):
        texts = list(given)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise OptionError(f"{name} must be a text or several, but is {given!r}")


def _schema(given: object) -> str:
    if isinstance(given, str):
        return given
    try:
        return json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"json_schema must be JSON, but {error}") from None


def slot_number(slot: object) -> int:
    """The number of a slot, as the native part takes it."""
    if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < 1 << 32:
        raise OptionError(f"slot must be the number of a slot, from 0 on, but is {slot!r}")
    return slot


def knobs(function: str, options: Mapping[str, Any], *, engine: bool = False) -> dict[str, Any]:
    """The options as the native part takes them."""
    known = _ENGINE if engine else _SESSION
    for name in options:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    given = {name: value for name, value in options.items() if value is not None}
    given["max_tokens"] = options.get("max_tokens", MAX_TOKENS)
    if "stop" in given:
        given["stop"] = _texts("stop", given["stop"])
    if "json_schema" in given:
        given["json_schema"] = _schema(given["json_schema"])
    if "logit_bias" in given:
        bias = given["logit_bias"]
        if not isinstance(bias, Mapping):
            raise OptionError(f"logit_bias must be a mapping of ids, but is {bias!r}")
        given["logit_bias"] = list(bias.items())
    if "slot" in given:
        given["slot"] = slot_number(given["slot"])
    if "logprobs" in given:
        given["top_logprobs"] = given.pop("logprobs")
    return given
