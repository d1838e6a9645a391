#!/usr/bin/env python3
"""Writes mlx.safetensors, what ../mlx.rs and conformance's products compare with.

    python3 -m venv V && V/bin/pip install 'mlx[cpu]==0.32.4' numpy==2.4.6
    V/bin/python make_mlx.py [OUTPUT]

Of each way that MLX quantises a matrix in: its codes, scales and biases, the values that `mlx.core.dequantize` makes of them
in single precision, and the product of `mlx.core.quantized_matmul` with `input`. nvfp4 is there with a scale of the whole
matrix, too, and without a product then.
"""

import pathlib
import sys

import mlx.core as mx
import numpy as np

ROWS, COLUMNS = 3, 128
AFFINE = [(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]


def weights(rng, number):
    values = (rng.standard_normal((ROWS, COLUMNS)) * 0.05).astype(np.float32)
    # A group of one value, and one of zeros, whose scales are tiny.
    values[1, :32] = 0.5
    values[1, 64:] = 0
    return mx.array(values).astype(number)


def main():
    rng = np.random.default_rng(7)
    given = mx.array(rng.standard_normal((2, COLUMNS)).astype(np.float32))
    tensors = {"input": given}
    recipes = [("affine", *recipe) for recipe in AFFINE] + [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
    for number, kind in ((mx.bfloat16, "bf16"), (mx.float16, "f16")):
        for mode, bits, group in recipes:
            # One of halves is enough.
            if kind == "f16" and (mode, bits, group) != ("affine", 4, 64):
                continue
            parts = mx.quantize(weights(rng, number), group, bits, mode)
            exact = [part.astype(mx.float32) if mode == "affine" and i else part for i, part in enumerate(parts)]
            how = dict(group_size=group, bits=bits, mode=mode)
            name = f"{mode}.{bits}.{group}.{kind}"
            tensors |= {f"{name}.{what}": part for what, part in zip(("codes", "scales", "biases"), parts)}
            tensors[f"{name}.values"] = mx.dequantize(*exact, **how, dtype=mx.float32)
            tensors[f"{name}.product"] = mx.quantized_matmul(given, *exact, transpose=True, **how)
    scale, how = mx.array(0.37), dict(group_size=16, bits=4, mode="nvfp4")
    parts = mx.quantize(weights(rng, mx.bfloat16), **how, global_scale=scale)
    tensors |= {f"nvfp4.4.16.global.{what}": part for what, part in zip(("codes", "scales"), parts)}
    tensors["nvfp4.4.16.global.global"] = scale
    tensors["nvfp4.4.16.global.values"] = mx.dequantize(*parts, **how, global_scale=scale, dtype=mx.float32)
    path = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent / "mlx.safetensors"
    mx.save_safetensors(str(path), tensors)


if __name__ == "__main__":
    main()
