"""The exceptions of Walsh: every one that it raises itself is an :class:`Error`."""

from __future__ import annotations

__all__ = [
    "ArrayError",
    "BusyError",
    "CancelledError",
    "ChatError",
    "ClosedError",
    "ConstraintError",
    "ContextError",
    "DeviceError",
    "EngineError",
    "Error",
    "FileError",
    "ForkError",
    "FormatError",
    "InternalError",
    "MeasureError",
    "ModelError",
    "OptionError",
    "OutOfMemoryError",
    "SavedError",
    "StoreError",
    "TokenizerError",
]


class Error(Exception):
    """Whatever goes wrong in Walsh. Its text is one line that says what to do."""


class ModelError(Error):
    """A model's file cannot be read, is damaged, or holds what cannot be run."""


class StoreError(Error):
    """A model cannot be found, fetched or kept."""


class FileError(Error, OSError):
    """A file cannot be read or written."""


class SavedError(Error):
    """A saved session is damaged, another model's or of another version."""


class TokenizerError(Error, ValueError):
    """A vocabulary cannot be used, or a text cannot be put into its tokens."""


class ChatError(Error, ValueError):
    """A conversation is malformed, or the model's chat template cannot be used."""


class OptionError(Error, ValueError):
    """An argument has a value that cannot be used."""


class ContextError(Error, ValueError):
    """A text does not fit into the context."""


class ConstraintError(Error, ValueError):
    """A JSON schema, a regular expression or a grammar cannot be followed."""


class FormatError(Error, ValueError):
    """Stored data is malformed, or numbers cannot be stored as asked."""


class MeasureError(Error, ValueError):
    """A model cannot be measured as asked."""


class ArrayError(Error, TypeError, ValueError):
    """An array has the wrong type, shape or layout."""


class DeviceError(Error):
    """A device failed, cannot be opened, or cannot do what is asked."""


class OutOfMemoryError(Error, MemoryError):
    """There is not enough memory."""


class EngineError(Error):
    """An engine cannot go on."""


class CancelledError(Error):
    """A call was ended before it had anything to show."""


class ClosedError(Error):
    """What was closed is used."""


class BusyError(Error):
    """A session is used by two at once, or before its generation has ended."""


class ForkError(Error):
    """An object is used in a process that was forked after it was made.

    Threads and devices do not survive ``os.fork``: open the model in the new process, or
    start that with ``multiprocessing.get_context("spawn")``.
    """


class InternalError(Error):
    """A fault of Walsh itself."""
