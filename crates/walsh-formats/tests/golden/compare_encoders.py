#!/usr/bin/env python3
"""Compares Walsh's encoders with ggml's: squared errors, plain, weighed with the importance, and with ggml's own weights.

    cargo build --release -p walsh-formats --example encode
    V/bin/python compare_encoders.py ENCODE [--ggml LIBGGML_BASE] [--type NAME]... MODEL.gguf...

V is as for make_ggml.py. Values are those of the models' Q8_0, Q6_K and Q5_0 tensors, decoded, and random ones with
outliers. Each figure is Walsh's error over ggml's: below 1 Walsh's is the smaller. Times are those of one thread.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFReader
from gguf.quants import dequantize

from make_ggml import IMPORTANCE_ALONE, ggml_encoded, ggml_library

NAMES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]
ROWS = 192


def sources(paths):
    rng = np.random.default_rng(7)
    for path in paths:
        seen = {}
        for tensor in GGUFReader(path).tensors:
            kind = (tensor.tensor_type.name, tensor.name.split(".")[-2])
            seen[kind] = seen.get(kind, 0) + 1
            if kind[0] not in ("Q8_0", "Q6_K", "Q5_0", "F16", "BF16") or seen[kind] != 2:
                if not (seen[kind] == 1 and kind[1] == "token_embd" and kind[0] == "Q8_0"):
                    continue
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            columns = values.shape[-1] // 256 * 256
            yield f"{path.stem}:{tensor.name}:{kind[0]}", np.ascontiguousarray(values[:ROWS, :columns])
    normal = rng.standard_normal((ROWS, 2048)).astype(np.float32)
    yield "normal", 0.02 * normal
    heavy = np.where(rng.uniform(size=normal.shape) < 0.01, 6 * normal, normal)
    yield "outliers", 0.02 * heavy.astype(np.float32)


def by_walsh(encode, name, values, importance):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        values.tofile(folder / "values")
        command = [encode, name, str(values.shape[1]), folder / "values", folder / "out"]
        if importance is not None:
            importance.tofile(folder / "importance")
            command.append(folder / "importance")
        took = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return np.fromfile(folder / "out", np.uint8).reshape(len(values), -1), took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encode", type=pathlib.Path)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--ggml", type=pathlib.Path)
    parser.add_argument("--type", action="append")
    parser.add_argument("-v", action="store_true", help="each source")
    options = parser.parse_args()
    ggml = ggml_library(options.ggml)
    rng = np.random.default_rng(1)
    everything = list(sources(options.models))
    print("type     importance  plain: mean  worst  weighed: mean  worst  ggml's: mean  worst  Mvalues/s  ggml's")
    for name in options.type or NAMES:
        for has_importance in (False, True)[name in IMPORTANCE_ALONE:]:
            ratios, took, theirs_took, count = [], 0.0, 0.0, 0
            for source, values in everything:
                importance = np.exp(1.5 * rng.standard_normal(values.shape[1])).astype(np.float32)
                given = importance if has_importance else None
                mine, mine_s = by_walsh(options.encode.resolve(), name, values, given)
                started = time.perf_counter()
                theirs = ggml_encoded(ggml, name, values, given)
                theirs_s = time.perf_counter() - started
                took, theirs_took, count = took + mine_s, theirs_took + theirs_s, count + values.size
                weight = importance if has_importance else np.ones_like(importance)
                groups = values.reshape(len(values), -1, 256)
                mean = np.sqrt((groups**2).mean(axis=-1, keepdims=True))
                own = weight * (np.sqrt(mean**2 + groups**2)).reshape(values.shape)
                if not has_importance and name in ("Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"):
                    own = values**2
                errors = []
                for stored in (mine, theirs):
                    apart = (dequantize(stored, Type[name]).astype(np.float64) - values) ** 2
                    errors.append([apart.sum(), (weight * apart).sum(), (own * apart).sum()])
                # A source that either holds exactly says nothing.
                if min(map(min, errors)) == 0:
                    continue
                ratios.append(np.array(errors[0]) / errors[1])
                if options.v:
                    print("   ", source, np.round(ratios[-1], 4))
            if not ratios:
                continue
            ratios = np.array(ratios)
            mean, worst = np.exp(np.log(ratios).mean(axis=0)), ratios.max(axis=0)
            print(f"{name:8} {'yes' if has_importance else 'no':10}  "
                  + "  ".join(f"{a:11.4f} {b:6.4f}" for a, b in zip(mean, worst))
                  + f"  {count / took / 1e6:9.1f} {count / theirs_took / 1e6:7.1f}")


if __name__ == "__main__":
    main()
