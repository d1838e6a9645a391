"""Codecs, caches and files on arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import walsh
from walsh import gguf, kv

RANDOM = np.random.default_rng(5)


def vectors(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def hadamard(size: int) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_the_rotation_is_signs_and_hadamard(head_dim: int) -> None:
    x = vectors(3, 2, head_dim)
    expected = (x * kv.signs(head_dim)) @ hadamard(head_dim).T / np.sqrt(head_dim)
    turned = kv.rotate(x)
    assert turned.shape == x.shape and np.allclose(turned, expected, atol=1e-5)
    assert np.allclose(kv.rotate(turned, inverse=True), x, atol=1e-5)


def test_codebooks_are_lloyd_max() -> None:
    for bits, error in ((2, 0.117482), (3, 0.0345477), (4, 0.00950101), (8, 0.0000411851)):
        book = kv.codebook(bits)
        assert len(book.centroids) == 2**bits and len(book.boundaries) == 2**bits - 1
        assert np.allclose(book.centroids, -book.centroids[::-1])
        middles = (book.centroids[1:] + book.centroids[:-1]) / 2
        assert np.allclose(middles, book.boundaries, atol=1e-6)
        normal = RANDOM.standard_normal(400_000)
        codes = np.searchsorted(book.boundaries, normal, side="left")
        found = np.mean((normal - book.centroids[codes]) ** 2)
        assert abs(found / error - 1) < 0.03


def test_tq4_codes_mean_what_the_format_says() -> None:
    x = vectors(50, 128)
    encoded = kv.encode(x, "tq4")
    assert encoded.scales is not None and encoded.scales.dtype == np.float16
    low, high = encoded.codes & 15, encoded.codes >> 4
    codes = np.stack([low, high], -1).reshape(50, 128)
    centroids = kv.codebook(4).centroids
    rotated = centroids[codes] * encoded.scales.astype(np.float64)
    assert np.allclose(encoded.decode(rotated=True), rotated, atol=1e-5)
    back = (rotated @ hadamard(128)) / np.sqrt(128) * kv.signs(128)
    assert np.allclose(encoded.decode(), back, atol=1e-5)


@pytest.mark.parametrize("codec", kv.codecs())
def test_every_codec_loses_what_its_bits_say(codec: str) -> None:
    x = vectors(4, 7, 64)
    encoded = kv.encode(x, codec)
    back = encoded.decode()
    assert back.shape == x.shape and back.dtype == np.float32
    bits = kv.bits_per_value(codec, 64)
    assert encoded.nbytes == int(bits * x.size / 8) and encoded.bits_per_value == bits
    error = np.mean((back - x) ** 2)
    # Floats spend bits on exponents.
    assert error < max(4 * 2.0 ** (-2 * (bits - 0.5)), 1e-5 if codec == "bf16" else 1e-7)
    # Large arrays are worked on in parts, and by several threads: rows do not depend on that.
    many = np.tile(x.reshape(-1, 64), (2000, 1))
    again = kv.encode(many, codec)
    assert np.array_equal(again.codes[-28:], encoded.codes.reshape(28, -1))
    assert np.array_equal(again.decode()[-28:], back.reshape(28, 64))


@pytest.mark.parametrize("codec", ["tq2", "tq3", "tq5+norot", "tq6+norm", "q4_0+rot", "bf16"])
@pytest.mark.parametrize("head_dim", [64, 80, 96, 112, 256, 512])
def test_every_head_size(codec: str, head_dim: int) -> None:
    x = vectors(5, head_dim)
    if codec == "q4_0+rot" and head_dim % 32:
        with pytest.raises(walsh.FormatError, match="q4_0"):
            kv.encode(x, codec)
        return
    back = kv.encode(x, codec).decode()
    assert np.mean((back - x) ** 2) < 0.2


def test_rows_that_cannot_be_encoded_are_named() -> None:
    x = np.zeros((40_000, 64), np.float32)
    x[33_333, 5] = np.inf
    with pytest.raises(walsh.FormatError, match="row 33333"):
        kv.encode(x, "tq4")
    assert not kv.encode(x[:33_333], "tq4").decode().any()


def test_nothing_is_an_array_too() -> None:
    x = np.zeros((0, 64), np.float32)
    assert kv.encode(x, "tq4").decode().shape == (0, 64)
    assert not kv.encode(np.zeros((2, 64), np.float32), "tq4").decode().any()


def reference(
    query: NDArray[np.float32], keys: NDArray[np.float32], values: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Attention of the latest tokens' queries, in double precision."""
    count, heads, head_dim = query.shape
    group = heads // keys.shape[1]
    out = np.zeros(query.shape)
    for row in range(count):
        seen = len(keys) - count + row + 1
        for head in range(heads):
            k = keys[:seen, head // group].astype(np.float64)
            scores = k @ query[row, head].astype(np.float64) / np.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            out[row, head] = weights @ values[:seen, head // group] / weights.sum()
    return out


@pytest.mark.parametrize("codec", ["f32", "q8_0", "tq4+plain", "k=tq8,v=q5_0+rot"])
def test_attention_over_codes_is_attention_over_what_they_mean(codec: str) -> None:
    cache = kv.Cache(codec, kv_heads=2, head_dim=64, capacity=700, device="cpu:activations=f32")
    keys, values = vectors(600, 2, 64), vectors(600, 2, 64)
    cache.store(keys[:300], values[:300])
    cache.store(keys[300:], values[300:])
    assert len(cache) == 600 and cache.nbytes > 0
    query = vectors(3, 6, 64)
    out = cache.attend(query)
    expected = reference(query, cache.keys(), cache.values())
    assert np.allclose(out, expected, atol=2e-3)
    assert np.allclose(cache.keys(), keys, atol=2)
    key_codec = codec.split(",")[0].removeprefix("k=").removesuffix("+plain")
    stored = kv.encode(keys, key_codec).decode()
    assert np.array_equal(cache.keys(), stored)
    at_once = kv.attention(query, keys, values, codec, device="cpu:activations=f32")
    assert np.allclose(at_once, out, atol=1e-5)
    near = cache.attend(query[-1:], window=1)
    assert np.allclose(near, np.repeat(cache.values()[-1:], 3, axis=1), atol=2e-3)


def test_calibration(model: walsh.Model) -> None:
    moments = kv.calibrate(model, 29)
    assert moments.key_mean.shape == moments.query_square.shape == (3, 64)
    assert (moments.key_square >= moments.key_mean**2 - 1e-3).all()
    with pytest.raises(walsh.OptionError, match="30 layers"):
        kv.calibrate(model, 30)


def test_blocks_of_q8_0_mean_what_ggml_says() -> None:
    x = vectors(6, 64)
    blocks = gguf.encode(x, "q8_0")
    assert blocks.shape == (6, 68)
    scales = blocks.reshape(-1, 34)[:, :2].copy().view(np.float16).astype(np.float32)
    codes = blocks.reshape(-1, 34)[:, 2:].view(np.int8)
    assert np.array_equal(gguf.decode(blocks.reshape(-1), "q8_0"), (codes * scales).reshape(-1))
    assert np.allclose(gguf.decode(blocks.reshape(-1), "Q8_0").reshape(6, 64), x, atol=0.02)


def test_every_type_decodes() -> None:
    types = gguf.types()
    assert types["q4_K"].values == 256 and types["f16"].nbytes == 2
    for name, kind in types.items():
        blocks = np.zeros(3 * kind.nbytes, np.uint8)
        if name in ("i32", "u8"):
            with pytest.raises(walsh.FormatError):
                gguf.decode(blocks, name)
            continue
        # A zero block of NVFP4 and the like may mean what is no number; a float's zero is zero.
        assert gguf.decode(blocks, name).shape == (3 * kind.values,)
        if kind.encodes:
            x = vectors(2 * kind.values)
            back = gguf.decode(gguf.encode(x, name), name)
            assert np.mean((x - back) ** 2) < 0.5
    assert gguf.decode(b"\0\0\x80\x3f", "f32").tolist() == [1.0]


def test_a_file_has_metadata_and_tensors(model: walsh.Model) -> None:
    with gguf.File(model.path) as file:
        assert file.version in (2, 3)
        assert file.metadata["general.architecture"] == "llama"
        assert len(file.metadata["tokenizer.ggml.tokens"]) == model.vocabulary
        tensor = file.tensors["blk.0.attn_norm.weight"]
        assert tensor.shape == (576,) and tensor.type == "f32"
        raw = Path(model.path).read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
        assert file.data(tensor.name).tobytes() == raw
        assert np.array_equal(file.tensor(tensor.name), np.frombuffer(raw, np.float32))
        table = file.tensor("token_embd.weight")
        assert table.shape == (model.vocabulary, model.width) and np.isfinite(table).all()
    with pytest.raises(walsh.ClosedError):
        file.data("token_embd.weight")
