"""KV codecs on numpy arrays: what a key or a value becomes in the cache.

``encode`` and ``decode`` are those of the cache, to the bit. A vector is the last axis of an array of
float32; arrays have to be contiguous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _walsh
from ._arguments import _size
from ._errors import ArrayError

if TYPE_CHECKING:
    from ._model import Model

__all__ = [
    "Cache",
    "Codebook",
    "Encoded",
    "KeyMoments",
    "attention",
    "bits_per_value",
    "calibrate",
    "codebook",
    "codecs",
    "decode",
    "encode",
    "rotate",
    "signs",
]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Encoded:
    """Encoded vectors."""

    #: The codec's name.
    codec: str
    #: Numbers of a vector.
    head_dim: int
    #: Bytes, ``[..., code_bytes]``.
    codes: NDArray[np.uint8]
    #: Scales, ``[..., groups]`` of float16 or float32; None of codecs that have them in their blocks.
    scales: NDArray[Any] | None

    @property
    def nbytes(self) -> int:
        """The bytes of codes and scales."""
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @property
    def bits_per_value(self) -> float:
        """The bits that are spent on a number, scales included."""
        return bits_per_value(self.codec, self.head_dim)

    def decode(self, *, rotated: bool = False) -> NDArray[np.float32]:
        """The vectors, ``[..., head_dim]``; with ``rotated`` as they lie, in rotated space."""
        return decode(self, rotated=rotated)


@dataclass(frozen=True)
class Codebook:
    """The Lloyd-Max quantiser of the normal distribution with 2**bits codes."""

    #: What codes stand for, ascending, ``[2**bits]``.
    centroids: NDArray[np.float64]
    #: A number's code is how many of these lie strictly below it, ``[2**bits - 1]``.
    boundaries: NDArray[np.float32]


@dataclass(frozen=True)
class KeyMoments:
    """What calibration finds about a layer's keys and queries after RoPE, ``[kv_heads, head_dim]``."""

    #: The mean of the keys.
    key_mean: NDArray[np.float32]
    #: The mean square of the keys.
    key_square: NDArray[np.float32]
    #: The mean square of the queries that meet the head.
    query_square: NDArray[np.float32]


def _rows(name: str, x: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """An array's vectors as rows of a matrix, which shares its memory."""
    if not isinstance(x, np.ndarray):
        raise ArrayError(f"{name} must be an array of numpy, but is a {type(x).__name__}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ArrayError(f"{name} must have vectors as its last axis, but its shape is {x.shape}")
    if not x.flags.c_contiguous:
        raise ArrayError(f"{name} must be contiguous: make it so by numpy.ascontiguousarray(x)")
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def codecs() -> list[str]:
    """The names of all codecs. Behind them can stand ``+rot``, ``+norot`` and ``+norm``."""
    return _walsh.kv_codecs()


def bits_per_value(codec: str, head_dim: int) -> float:
    """The bits that a codec spends on a number of a vector, scales included."""
    _, codes, scales, _, _ = _walsh.kv_layout(codec, _size("head_dim", head_dim))
    return 8 * (codes + scales) / head_dim


def encode(x: NDArray[np.float32], codec: str) -> Encoded:
    """Encodes vectors, float32 ``[..., head_dim]``."""
    rows = _rows("x", x)
    codes, scales = _walsh.kv_encode(codec, rows)
    name, _, _, dtype, _ = _walsh.kv_layout(codec, x.shape[-1])
    shape = x.shape[:-1]
    typed = None
    if dtype is not None:
        typed = scales.view(np.float16 if dtype == "f16" else np.float32)
        typed = typed.reshape(*shape, typed.shape[-1])
    return Encoded(name, x.shape[-1], codes.reshape(*shape, codes.shape[-1]), typed)


def decode(encoded: Encoded, *, rotated: bool = False) -> NDArray[np.float32]:
    """The vectors, ``[..., head_dim]``; with ``rotated`` as they lie, in rotated space."""
    codes = _rows("codes", encoded.codes)
    _, _, _, dtype, _ = _walsh.kv_layout(encoded.codec, encoded.head_dim)
    scales: NDArray[np.uint8]
    if dtype is None:
        scales = np.zeros((codes.shape[0], 0), np.uint8)
    else:
        expected = np.dtype(np.float16 if dtype == "f16" else np.float32)
        if not isinstance(encoded.scales, np.ndarray) or encoded.scales.dtype != expected:
            raise ArrayError(f"scales of {encoded.codec} must be an array of {expected}")
        scales = _rows("scales", encoded.scales).view(np.uint8)
    reading = {"codec": encoded.codec, "head_dim": encoded.head_dim, "rotated": rotated}
    rows = _walsh.kv_decode(reading, codes, scales)
    return rows.reshape(*encoded.codes.shape[:-1], encoded.head_dim)


def rotate(x: NDArray[np.float32], *, inverse: bool = False) -> NDArray[np.float32]:
    """Rotates vectors, float32 ``[..., head_dim]``, as codecs do, or turns them back."""
    return _walsh.rotate(_rows("x", x), inverse).reshape(x.shape)


def signs(head_dim: int) -> NDArray[np.float32]:
    """The signs of the rotation, ``[head_dim]``, each +1 or -1."""
    return _walsh.rotation_signs(_size("head_dim", head_dim))


def codebook(bits: int) -> Codebook:
    """The codebook of so many bits: 2, 3, 4, 5, 6 or 8."""
    return Codebook(*_walsh.codebook(_size("bits", bits)))


def calibrate(model: Model, layer: int) -> KeyMoments:
    """What is known of a layer's keys: measured on a built-in text once for a model, and kept."""
    kv_heads, found = model._native.calibration(_size("layer", layer))
    mean, key, query = (np.asarray(m, dtype=np.float32).reshape(kv_heads, -1) for m in found)
    return KeyMoments(mean, key, query)


class Cache:
    """Keys and values of one layer and one sequence on a device, kept as codes.

    ``kv`` says how, as for models; policies that prepare keys need a model and are refused.
    """

    def __init__(
        self, kv: str, *, kv_heads: int, head_dim: int, capacity: int, device: str = "cpu"
    ) -> None:
        self._native = _walsh.Cache(
            {
                "kv": kv,
                "kv_heads": _size("kv_heads", kv_heads),
                "head_dim": _size("head_dim", head_dim),
                "capacity": _size("capacity", capacity),
                "device": device,
            }
        )

    def __len__(self) -> int:
        return self._native.stored

    @property
    def nbytes(self) -> int:
        """The bytes of the whole cache."""
        return self._native.bytes

    def store(self, keys: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        """Stores tokens behind those that are there: keys and values, float32
        ``[n, kv_heads, head_dim]``."""
        self._native.store(keys, values)

    def attend(
        self,
        query: NDArray[np.float32],
        *,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
    ) -> NDArray[np.float32]:
        """Attention of the latest n tokens, whose keys and values are stored, over the codes.

        ``query`` is float32 ``[n, heads, head_dim]``, and so is the result. Each token sees itself and
        those before it. ``scale`` is 1/sqrt(head_dim) if left out.
        """
        sight = {"scale": scale, "window": window, "softcap": softcap}
        return self._native.attend(query, sight)

    def keys(self, *, rotated: bool = False) -> NDArray[np.float32]:
        """The stored keys, ``[stored, kv_heads, head_dim]``, decoded."""
        return self._native.decode(False, rotated)

    def values(self, *, rotated: bool = False) -> NDArray[np.float32]:
        """The stored values, ``[stored, kv_heads, head_dim]``, decoded."""
        return self._native.decode(True, rotated)


def attention(
    query: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    kv: str,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Attention over keys and values as a cache of this kind keeps them.

    ``keys`` and ``values`` are float32 ``[tokens, kv_heads, head_dim]``, ``query`` is that of the
    latest n tokens, ``[n, heads, head_dim]``, and so is the result.
    """
    if not isinstance(keys, np.ndarray) or keys.ndim != 3:
        raise ArrayError("keys must be an array of shape [tokens, kv_heads, head_dim]")
    tokens, kv_heads, head_dim = keys.shape
    cache = Cache(
        kv, kv_heads=kv_heads, head_dim=head_dim, capacity=max(tokens, 1), device=device
    )
    cache.store(keys, values)
    return cache.attend(query, scale=scale, window=window, softcap=softcap)
