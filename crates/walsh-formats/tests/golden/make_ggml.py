#!/usr/bin/env python3
"""Writes ggml.safetensors, what the tests in ../ggml.rs compare with.

    python3 -m venv V && V/bin/pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0 llama-cpp-python==0.3.36
    V/bin/python make_ggml.py [--seed N] [--scale N] [--ggml LIBGGML_BASE] [OUTPUT]

Decoding: random bytes of every type, and what `gguf.quants.dequantize` makes of them, or libggml where it has no such type.
Encoding: values of several distributions, and what `gguf.quants.quantize` makes of them, or libggml of MXFP4. For types
that are searched the oracle is the squared error of libggml's encoder, row by row, with an importance and without.
"""

import argparse
import ctypes
import pathlib
import warnings

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

DECODED = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
           "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0",
           "TQ2_0"]
# What the package does not decode (nor, in part, know), and libggml does: values and bytes of a block.
DECODED_BY_GGML = {"Q1_0": (128, 18), "Q2_0": (64, 18)}
ENCODED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
SEARCHED = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS"]
# Of those, what libggml makes with an importance alone: one that says nothing is in its place.
IMPORTANCE_ALONE = ["IQ2_XS", "IQ2_XXS"]
SEARCHED_WITH_IMPORTANCE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def inputs(rng, scale):
    """Rows of 32 finite values: what weights look like, and what encoders trip over."""
    count = 8 * scale
    normal = rng.standard_normal((count, 32))
    rows = [
        normal,
        normal * np.exp(rng.uniform(-12, 8, (count, 1))),
        np.sign(normal) * np.abs(normal) ** 5,
        rng.uniform(0, 1, (count, 32)),
        rng.uniform(-3, -2, (count, 32)),
        # Ties: every value is a multiple of half a step.
        rng.integers(-16, 17, (count, 32)) / 2,
        # Scales that are subnormal, or zero, in half precision.
        normal * np.exp(rng.uniform(-20, -12, (count, 1))),
        np.where(rng.uniform(0, 1, (count, 32)) < 0.9, 0, normal),
        np.zeros((1, 32)),
        np.full((1, 32), 1.5),
        np.full((1, 32), -2.25),
        np.where(np.arange(32) == 17, -1, 0)[None],
    ]
    rows = np.concatenate(rows).astype(np.float32)
    # One sign of zero: which of two zeros is a block's minimum is nobody's business.
    return np.where(rows == 0, np.float32(0), rows)


def ggml_library(path):
    if path is None:
        import llama_cpp

        path = pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    return ctypes.CDLL(str(path))


def ggml_decoded(ggml, name, stored, values):
    """What libggml makes of blocks."""
    decode = getattr(ggml, f"dequantize_row_{name.lower()}")
    decode.restype = None
    decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    out = np.zeros(values, np.float32)
    decode(stored.ctypes.data, out.ctypes.data, values)
    return out


def ggml_encoded(ggml, name, values, importance=None):
    """What libggml makes of rows of values."""
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [
        ctypes.c_void_p]
    rows, columns = values.shape
    block_len, block_bytes = GGML_QUANT_SIZES[Type[name]]
    out = np.zeros((rows, columns // block_len * block_bytes), np.uint8)
    source = np.ascontiguousarray(values)
    weights = None if importance is None else importance.ctypes.data
    ggml.ggml_quantize_chunk(Type[name].value, source.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    return out


def searched_inputs(rng, scale):
    """Rows of 512 values: what weights look like, and what searches trip over."""
    normal = rng.standard_normal((4 * scale, 512))
    outliers = np.where(rng.uniform(size=normal.shape) < 0.02, 8 * normal, normal)
    rows = [
        0.02 * normal,
        0.02 * outliers,
        normal * np.exp(rng.uniform(-3, 3, (4 * scale, 16))).repeat(32, axis=1),
        np.sign(normal) * np.abs(normal) ** 3,
        np.abs(normal[:2]),
        -np.abs(normal[:2]),
        np.where(rng.uniform(size=(2, 512)) < 0.95, 0, normal[:2]),
        np.where(np.arange(512) < 300, 0, normal[:1]),
    ]
    return np.concatenate(rows).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=int, default=1, help="how many times the committed file's size")
    parser.add_argument("--ggml", type=pathlib.Path, help="libggml-base.so, where llama-cpp-python is not installed")
    parser.add_argument("output", nargs="?", default=pathlib.Path(__file__).with_name("ggml.safetensors"))
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    warnings.simplefilter("ignore", RuntimeWarning)  # NaN scales are part of random bytes

    ggml = ggml_library(options.ggml)
    tensors = {}
    for name in DECODED:
        block_len, block_bytes = GGML_QUANT_SIZES[Type[name]]
        blocks = options.scale * (12 if block_len == 256 else 2048 // block_len)
        stored = rng.integers(0, 256, (blocks, block_bytes), np.uint8)
        tensors[f"decode.{name}.bytes"] = stored
        tensors[f"decode.{name}.values"] = dequantize(stored, Type[name]).astype(np.float32).reshape(-1)
    for name, (block_len, block_bytes) in DECODED_BY_GGML.items():
        stored = rng.integers(0, 256, (options.scale * 2048 // block_len, block_bytes), np.uint8)
        tensors[f"decode.{name}.bytes"] = stored
        tensors[f"decode.{name}.values"] = ggml_decoded(ggml, name, stored, options.scale * 2048)

    values = inputs(rng, options.scale)
    tensors["encode.values"] = values.reshape(-1)
    for name in ENCODED:
        tensors[f"encode.{name}.bytes"] = quantize(values, Type[name]).view(np.uint8).reshape(-1)
    tensors["encode.MXFP4.bytes"] = ggml_encoded(ggml, "MXFP4", values).reshape(-1)
    values = searched_inputs(rng, options.scale)
    importance = np.exp(1.5 * rng.standard_normal(values.shape[1])).astype(np.float32)
    tensors["search.values"] = values
    tensors["search.importance"] = importance
    for name in SEARCHED + SEARCHED_WITH_IMPORTANCE:
        for way, given in [("plain", None), ("weighed", importance)]:
            if given is None and name not in SEARCHED:
                continue
            shown = np.ones_like(importance) if given is None and name in IMPORTANCE_ALONE else given
            decoded = dequantize(ggml_encoded(ggml, name, values, shown), Type[name]).astype(np.float64)
            error = (decoded - values) ** 2 * (1 if given is None else given)
            tensors[f"search.{name}.{way}"] = error.sum(axis=-1)
    save_file(tensors, options.output)


if __name__ == "__main__":
    main()
