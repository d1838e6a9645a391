#!/usr/bin/env python3
"""Writes src/ggml/grids.rs: the points of the grids of GGML's IQ types, from the Python package `gguf`.

    python3 -m venv V && V/bin/pip install gguf==0.19.0 numpy==2.4.6
    V/bin/python make_grids.py [OUTPUT]

The package holds a point as the digits of its values, of two bits or of four, in a word of 16 bits; so do we. The numbers
are part of the format.
"""

import pathlib
import sys

import numpy as np
from gguf import quants

GRIDS = [("IQ3_S", quants.IQ3_S), ("IQ3_XXS", quants.IQ3_XXS), ("IQ2_S", quants.IQ2_S), ("IQ2_XS", quants.IQ2_XS),
         ("IQ2_XXS", quants.IQ2_XXS), ("IQ1", quants.IQ1_S)]
A_LINE = 12


def main():
    text = "//! The points of grids, of PyPI `gguf`: tests/golden/make_grids.py writes this file.\n"
    for name, source in GRIDS:
        words = np.frombuffer(bytes.fromhex(source.grid_hex.decode()), np.dtype("<u2"))
        assert len(words) == source.grid_shape[0]
        text += f"\npub(super) static {name}: [u16; {len(words)}] = [\n"
        for at in range(0, len(words), A_LINE):
            text += "    " + " ".join(f"{word:#06x}," for word in words[at:at + A_LINE]) + "\n"
        text += "];\n"
    default = pathlib.Path(__file__).parents[2] / "src/ggml/grids.rs"
    pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default).write_text(text)


if __name__ == "__main__":
    main()
