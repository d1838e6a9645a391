#!/usr/bin/env python3
"""Quantises a GGUF file as llama.cpp does: `peer_quantize.py LIBLLAMA IN OUT TYPE [IMATRIX]`.

LIBLLAMA is llama.cpp's library, such as `lib/libllama.so` of PyPI's llama-cpp-python 0.3.36; IMATRIX is a GGUF file of
`walsh imatrix` or `llama-imatrix`. Needs PyPI `gguf`.
"""

import ctypes
import pathlib
import sys

import numpy as np
from gguf import GGUFReader

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "crates/walsh-convert/tests/golden"))
from make_mixes import MIXES, ImatrixData, library


def importance(path):
    """The matrix as the library takes it, and the arrays that it points to."""
    tensors = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in GGUFReader(path).tensors}
    entries, kept = [], []
    for name, sums in tensors.items():
        if not name.endswith(".in_sum2"):
            continue
        name = name.removesuffix(".in_sum2")
        counts = tensors[f"{name}.counts"].reshape(-1, 1)
        means = np.ascontiguousarray((sums.reshape(len(counts), -1) / counts).ravel(), np.float32)
        kept.append(means)
        entries.append(ImatrixData(name.encode(), means.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), means.size))
    entries.append(ImatrixData())
    return (ImatrixData * len(entries))(*entries), kept


def main():
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    llama = library(pathlib.Path(sys.argv[1]).resolve())
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype = 2, MIXES[sys.argv[4]]
    if len(sys.argv) == 6:
        matrix, kept = importance(sys.argv[5])
        params.imatrix = matrix
    if llama.llama_model_quantize(sys.argv[2].encode(), sys.argv[3].encode(), ctypes.byref(params)) != 0:
        raise SystemExit("llama.cpp does not quantise it")


if __name__ == "__main__":
    main()
