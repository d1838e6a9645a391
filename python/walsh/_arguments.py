"""Arguments of calls: their types, and what is made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ._errors import ChatError, OptionError

if TYPE_CHECKING:
    from typing_extensions import Required

#: Is told how far a call is: what is done, and what there is to do.
Progress = Callable[[int, int], object]


#: A LoRA adapter: its path, or that and a scale.
Adapter = str | os.PathLike[str] | tuple[str | os.PathLike[str], float]


class Message(TypedDict, total=False):
    """A message of a conversation, as OpenAI has it."""

    #: ``system``, ``user``, ``assistant`` or ``tool``.
    role: Required[str]
    #: What was said.
    content: str | None
    #: What was called: of each, ``function.name`` and ``function.arguments``.
    tool_calls: list[dict[str, Any]] | None
    #: Which call a tool's message answers.
    tool_call_id: str
    #: Who says it.
    name: str
    #: What the model thought before.
    reasoning_content: str


def _dumps(name: str, value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatError(f"{name} must be JSON, but {error}") from None


def _ids(tokens: object) -> list[int]:
    """Ids of tokens from any sequence of whole numbers, an array among them."""
    if isinstance(tokens, np.ndarray):
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise OptionError(f"tokens must be whole numbers in a row, but are {tokens.dtype}")
        tokens = tokens.tolist()
    ids: list[int] = []
    if not isinstance(tokens, Sequence) or isinstance(tokens, (str, bytes)):
        raise OptionError(f"tokens must be a sequence of ids, but are a {type(tokens).__name__}")
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
            raise OptionError(f"tokens must be whole numbers, but {token!r} is among them")
        number = int(token)
        if not -(2**31) <= number < 2**31:
            raise OptionError(f"{number} is the id of no token")
        ids.append(number)
    return ids


def _adapter(given: object) -> tuple[str, float]:
    """The path of an adapter, and its scale."""
    path, scale = given if isinstance(given, tuple) and len(given) == 2 else (given, 1.0)
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not isinstance(path, (str, os.PathLike)) or not is_number:
        raise OptionError(f"lora must have paths, or pairs of a path and a scale, but {given!r} is among them")
    return os.fspath(path), float(scale)


def _size(name: str, given: int | None) -> int:
    """A number of tokens, 0 for the usual one."""
    if given is None:
        return 0
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**63:
        raise OptionError(f"{name} must be a whole number from 0, but is {given!r}")
    return given
