#!/usr/bin/env python3
"""Writes two files with the Python package `gguf`. small.gguf: every type of metadata value, and four tensors.
types.gguf: a tensor of every type that the package knows, of the bytes that ggml.safetensors has.

    python3 -m venv V && V/bin/pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0
    V/bin/python make_gguf.py

The tests in ../gguf.rs read these files, and write one that must equal small.gguf byte for byte.
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent
ROWS, COLUMNS = 2, 256


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types():
    writer = GGUFWriter(HERE / "types.gguf", "llama")
    golden = load_file(HERE / "ggml.safetensors")
    for name, dtype in GGMLQuantizationType.__members__.items():
        stored = golden.get(f"decode.{name}.bytes")
        if stored is None:
            continue
        block_len, block_bytes = GGML_QUANT_SIZES[dtype]
        stored = stored.reshape(-1)[: ROWS * COLUMNS // block_len * block_bytes].reshape(ROWS, -1)
        # The package takes floats as what they are, and blocks as bytes.
        floats = {"F32": np.float32, "F16": np.float16}.get(name)
        writer.add_tensor(name, stored if floats is None else stored.view(floats), raw_dtype=dtype)
    write(writer)


def small():
    writer = GGUFWriter(HERE / "small.gguf", "llama")
    writer.add_custom_alignment(64)
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_float32("t.f32", 0.1)
    writer.add_bool("t.true", True)
    writer.add_bool("t.false", False)
    writer.add_string("t.string", "h\u00e9llo \u4e16\u754c")
    writer.add_uint64("t.u64", 2**64 - 1)
    writer.add_int64("t.i64", -(2**63))
    writer.add_float64("t.f64", 0.1)
    writer.add_array("t.strings", ["<s>", "", "\u0120a"])
    writer.add_array("t.floats", [0.5, -1.25])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.bools", [True, False, True])
    writer.add_key_value("t.bytes", bytes([1, 2, 255]), GGUFValueType.ARRAY)
    writer.add_array("t.nested", [[1, 2], [3]])

    writer.add_tensor("f32", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("f16", np.arange(5, dtype=np.float16))
    writer.add_tensor("q8_0", np.arange(4 * 34, dtype=np.uint8).reshape(2, 68), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.add_tensor("i32", np.arange(24, dtype=np.int32).reshape(1, 2, 3, 4))
    write(writer)


if __name__ == "__main__":
    small()
    types()
