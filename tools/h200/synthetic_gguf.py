#!/usr/bin/env python3
"""Writes a GGUF file of a known shape with random weights, for engines that need a file.

    tools/h200/synthetic_gguf.py llama3-8b:q4_k_m out.gguf

It is what `walsh bench --synthetic` makes on the device: the same shapes, the same types for the same tensors,
random codes under scales as weights have them. The file has no vocabulary, only its size. Needs numpy alone.
"""

import argparse
import struct
import sys

import numpy as np

# layers, width, heads, KV heads, head size, feed-forward width, vocabulary, context, RoPE base
SHAPES = {
    "llama3-8b": (32, 4096, 32, 8, 128, 14336, 128256, 8192, 500000.0),
    "tiny": (2, 256, 4, 2, 64, 512, 1000, 512, 10000.0),
}

# GGML's number, values and bytes of a block, where its half floats lie, and what they are for a deviation of 0.02.
TYPES = {
    "f32": (0, 1, 4, []),
    "q4_0": (2, 32, 18, [(0, 0.02 / 4.6)]),
    "q8_0": (8, 32, 34, [(0, 0.02 / 74)]),
    "q4_K": (12, 256, 144, [(0, 0.02 / 257), (2, 7.5 * 0.02 / 257)]),
    "q6_K": (14, 256, 210, [(208, 0.02 / 1366)]),
}

MIXES = ("q4_k_m", "q4_0", "q8_0")
ALIGNMENT = 32
TILE_BYTES = 4 << 20


def favoured(layer, layers):
    """The first and last eighth of the layers, and every third between, get more bits in Q4_K_M."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensors(shape, mix):
    """Names, dimensions (outermost first) and types."""
    layers, width, heads, kv_heads, dim, inner, vocabulary, _, _ = shape
    base = {"q4_k_m": "q4_K"}.get(mix, mix)
    best = base if mix == "q8_0" else "q6_K"
    yield "token_embd.weight", (vocabulary, width), base
    yield "output_norm.weight", (width,), "f32"
    yield "output.weight", (vocabulary, width), best
    for layer in range(layers):
        more = best if mix == "q4_k_m" and favoured(layer, layers) else base
        for part, dims, kind in (
            ("attn_norm", (width,), "f32"),
            ("attn_q", (heads * dim, width), base),
            ("attn_k", (kv_heads * dim, width), base),
            ("attn_v", (kv_heads * dim, width), more),
            ("attn_output", (width, heads * dim), base),
            ("ffn_norm", (width,), "f32"),
            ("ffn_gate", (inner, width), base),
            ("ffn_up", (inner, width), base),
            ("ffn_down", (width, inner), more),
        ):
            yield f"blk.{layer}.{part}.weight", dims, kind


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(name, shape, mix):
    layers, width, heads, kv_heads, dim, inner, vocabulary, context, base = shape
    uint32, float32, string = 4, 6, 8
    file_type = {"q4_k_m": 15, "q4_0": 2, "q8_0": 7}[mix]
    entries = [
        ("general.architecture", string, "llama"),
        ("general.name", string, f"synthetic {name}"),
        ("general.file_type", uint32, file_type),
        ("general.quantization_version", uint32, 2),
        ("llama.block_count", uint32, layers),
        ("llama.embedding_length", uint32, width),
        ("llama.feed_forward_length", uint32, inner),
        ("llama.attention.head_count", uint32, heads),
        ("llama.attention.head_count_kv", uint32, kv_heads),
        ("llama.attention.key_length", uint32, dim),
        ("llama.attention.value_length", uint32, dim),
        ("llama.rope.dimension_count", uint32, dim),
        ("llama.context_length", uint32, context),
        ("llama.vocab_size", uint32, vocabulary),
        ("llama.rope.freq_base", float32, base),
        ("llama.attention.layer_norm_rms_epsilon", float32, 1e-5),
        ("tokenizer.ggml.model", string, "none"),
    ]
    out = b""
    for key, kind, value in entries:
        out += text(key) + struct.pack("<I", kind)
        out += text(value) if kind == string else struct.pack("<I" if kind == uint32 else "<f", value)
    return len(entries), out


def tile(kind, rng):
    """Random blocks of a type; ones for vectors."""
    _, _, size, halves = TYPES[kind]
    if kind == "f32":
        return np.ones(TILE_BYTES // 4, dtype="<f4").tobytes()
    blocks = rng.integers(0, 256, size=(TILE_BYTES // size, size), dtype=np.uint8)
    factors = rng.uniform(0.75, 1.25, size=len(blocks)) * rng.choice((-1.0, 1.0), size=len(blocks))
    for place, value in halves:
        half = (factors * value).astype("<f2").view(np.uint8).reshape(-1, 2)
        blocks[:, place : place + 2] = half
    return blocks.tobytes()


def size_of(dims, kind):
    _, values, size, _ = TYPES[kind]
    return int(np.prod(dims, dtype=np.int64)) // values * size


def padding(count):
    return -count % ALIGNMENT


def write(out, name, shape, mix):
    table = list(tensors(shape, mix))
    count, entries = metadata(name, shape, mix)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(table), count) + entries
    offset = 0
    for tensor, dims, kind in table:
        header += text(tensor) + struct.pack("<I", len(dims))
        header += b"".join(struct.pack("<Q", n) for n in reversed(dims))
        header += struct.pack("<IQ", TYPES[kind][0], offset)
        offset += size_of(dims, kind)
        offset += padding(offset)
    out.write(header + bytes(padding(len(header))))
    rng = np.random.default_rng(1)
    tiles = {kind: memoryview(tile(kind, rng)) for kind in {kind for _, _, kind in table}}
    for _, dims, kind in table:
        left = size_of(dims, kind)
        end = padding(left)
        while left:
            part = min(left, len(tiles[kind]))
            out.write(tiles[kind][:part])
            left -= part
        out.write(bytes(end))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help=f"SHAPE:TYPES, of {', '.join(SHAPES)} and {', '.join(MIXES)}")
    parser.add_argument("path")
    args = parser.parse_args()
    name, _, mix = args.model.partition(":")
    if name not in SHAPES or mix not in MIXES:
        sys.exit(f"synthetic_gguf.py: unknown model {args.model!r}: give one of {', '.join(SHAPES)}, a colon, and one of {', '.join(MIXES)}")
    with open(args.path, "wb") as out:
        write(out, args.model, SHAPES[name], mix)


if __name__ == "__main__":
    main()
