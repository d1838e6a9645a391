"""GGUF files and the blocks that they store numbers in."""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _walsh
from ._closing import Closing
from ._errors import ArrayError, ClosedError, FileError, ModelError, OptionError

__all__ = ["BlockType", "File", "Tensor", "decode", "encode", "types"]


@dataclass(frozen=True)
class BlockType:
    """How numbers are stored."""

    #: GGML's name of it.
    name: str
    #: Its number in files; None of plain bytes.
    id: int | None
    #: Values of a block.
    values: int
    #: Bytes of a block.
    nbytes: int
    #: Whether :func:`encode` writes it.
    encodes: bool


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file."""

    #: Its name.
    name: str
    #: The name of its type.
    type: str
    #: Its shape, outermost first: a matrix is ``(rows, columns)``, and a row is contiguous.
    shape: tuple[int, ...]
    #: Where its data begins in the file, in bytes.
    offset: int
    #: The size of its data in bytes.
    nbytes: int


def types() -> dict[str, BlockType]:
    """Every type that numbers are stored in, by its name."""
    return {line[0]: BlockType(*line) for line in _walsh.block_types()}


def decode(blocks: NDArray[np.uint8] | bytes, type: str) -> NDArray[np.float32]:
    """The numbers in blocks of a type, bytes one after the other: float32 ``[n]``."""
    if isinstance(blocks, (bytes, bytearray, memoryview)):
        blocks = np.frombuffer(blocks, np.uint8)
    return _walsh.block_decode(type, blocks)


def encode(x: NDArray[np.float32], type: str) -> NDArray[np.uint8]:
    """Numbers, float32, as bytes of blocks of a type: for ``[..., n]`` it is ``[..., bytes]``."""
    if not isinstance(x, np.ndarray):
        raise ArrayError(f"x must be an array of numpy, but is a {x.__class__.__name__}")
    if x.ndim <= 1:
        return _walsh.block_encode(type, x)
    kind = types().get(type.lower())
    if kind is not None and x.shape[-1] % kind.values:
        raise ArrayError(
            f"rows of {type} have whole blocks of {kind.values} values, but x has rows of {x.shape[-1]}"
        )
    if not x.flags.c_contiguous:
        raise ArrayError("x must be contiguous: make it so by numpy.ascontiguousarray(x)")
    encoded = _walsh.block_encode(type, x.reshape(-1))
    return encoded.reshape(*x.shape[:-1], encoded.size // max(math.prod(x.shape[:-1]), 1))


class File(Closing):
    """A GGUF file, mapped: its metadata, and its tensors, which are read when they are asked for.

    The file must not be made shorter while it is open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            with open(path, "rb") as file:
                self._map: mmap.mmap | None = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ModelError(f"{os.fspath(path)}: the file is empty: give a GGUF file") from None
        except OSError as error:
            raise FileError(f"{os.fspath(path)}: {error.strerror or error}") from None
        version, metadata, tensors = _walsh.gguf_parse(np.frombuffer(self._map, np.uint8))
        #: The version of the format.
        self.version = version
        #: The metadata, by its keys.
        self.metadata: dict[str, Any] = metadata
        #: The tensors, by their names.
        self.tensors = {
            name: Tensor(name, kind, tuple(shape), offset, size)
            for name, kind, shape, offset, size in tensors
        }

    def __repr__(self) -> str:
        return f"<walsh.gguf.File of {len(self.tensors)} tensors>"

    def data(self, name: str) -> NDArray[np.uint8]:
        """A copy of a tensor's bytes."""
        if self._map is None:
            raise ClosedError("the file was closed: open it again")
        tensor = self.tensors.get(name)
        if tensor is None:
            raise OptionError(f"the file has no tensor {name!r}")
        data = self._map[tensor.offset : tensor.offset + tensor.nbytes]
        return np.frombuffer(data, np.uint8)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's numbers, float32 of its shape."""
        data = self.data(name)
        tensor = self.tensors[name]
        return decode(data, tensor.type).reshape(tensor.shape)

    def close(self) -> None:
        """Lets the file go."""
        if self._map is not None:
            self._map.close()
            self._map = None
