"""Language models with a quantised KV cache.

>>> import walsh
>>> model = walsh.Model("smollm2-135m")
>>> model.generate("The capital of France is", max_tokens=2, temperature=0)
' Paris.'
"""

from __future__ import annotations

import os

from . import _errors, _walsh, gguf, kv
from ._arguments import Message
from ._engine import ChatAnswer, ChatReply, Engine, ToolCall
from ._errors import (
    ArrayError,
    BusyError,
    CancelledError,
    ChatError,
    ClosedError,
    ConstraintError,
    ContextError,
    DeviceError,
    EngineError,
    Error,
    FileError,
    ForkError,
    FormatError,
    InternalError,
    MeasureError,
    ModelError,
    OptionError,
    OutOfMemoryError,
    SavedError,
    StoreError,
    TokenizerError,
)
from ._model import ChatPrompt, Model, Session
from ._options import Options, RequestOptions
from ._perplexity import Perplexity, PerplexityReport, perplexity
from ._text import Answer, Figures, Logprobs, Piece, Reply, Text
from .llama import Llama

__all__ = [
    "Answer",
    "ArrayError",
    "BusyError",
    "CancelledError",
    "ChatAnswer",
    "ChatError",
    "ChatPrompt",
    "ChatReply",
    "ClosedError",
    "ConstraintError",
    "ContextError",
    "DeviceError",
    "Engine",
    "EngineError",
    "Error",
    "Figures",
    "FileError",
    "ForkError",
    "FormatError",
    "InternalError",
    "Llama",
    "Logprobs",
    "MeasureError",
    "Message",
    "Model",
    "ModelError",
    "OptionError",
    "Options",
    "OutOfMemoryError",
    "Perplexity",
    "PerplexityReport",
    "Piece",
    "Reply",
    "RequestOptions",
    "SavedError",
    "Session",
    "StoreError",
    "Text",
    "TokenizerError",
    "ToolCall",
    "gguf",
    "kv",
    "models",
    "perplexity",
]

# They are the package's, wherever they are written.
for _name in _errors.__all__:
    getattr(_errors, _name).__module__ = "walsh"
del _name


def models(cache_dir: str | os.PathLike[str] | None = None) -> dict[str, bool]:
    """The models that are known by name, and whether each is here already."""
    return {name: is_here for name, _, is_here in _walsh.models(cache_dir)}
