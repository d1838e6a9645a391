#!/usr/bin/env python3
"""Times single ops of the peer: products of one row and of many, and decode attention over a KV cache; prints JSON.

Each op runs over as many inputs as no cache holds, one after the other in one graph of ggml. Products are tried with
weights as they are stored and in the peer's repacked form where it has one; the faster counts.

usage: peer_ops.py [--threads 2] [--types q4_0,...] [--rows 1,64] [--n 14336] [--k 4096] [--set 192]
       [--kv f16,q4_0] [--heads 32/8/128,4/1/256] [--context 8192] [--seconds 0.5] [--only products,attention]
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import time

import llama_cpp
import numpy as np

LIBRARIES = pathlib.Path(llama_cpp.__file__).parent / "lib"
BASE = ctypes.CDLL(str(LIBRARIES / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
CPU = ctypes.CDLL(str(LIBRARIES / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)

TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12,
    "q5_K": 13, "q6_K": 14, "iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19, "iq4_nl": 20, "iq3_s": 21,
    "iq2_s": 22, "iq4_xs": 23, "iq1_m": 29, "bf16": 30, "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40, "q1_0": 41,
    "q2_0": 42,
}  # fmt: skip
NEED_IMPORTANCE = {"iq2_xxs", "iq2_xs", "iq1_s"}
REPACK = "_Z35ggml_backend_cpu_repack_buffer_typev"


EXTRA = 320  # where `struct ggml_tensor` says how it is repacked


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def function(library, name, result, *arguments):
    """A function of one of the peer's libraries."""
    found = getattr(library, name)
    found.restype = result
    found.argtypes = arguments
    return found


P, I64, SIZE, FLOAT, INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_float, ctypes.c_int
init = function(BASE, "ggml_init", P, InitParams)
free = function(BASE, "ggml_free", None, P)
new_tensor = function(BASE, "ggml_new_tensor_4d", P, P, INT, I64, I64, I64, I64)
nbytes = function(BASE, "ggml_nbytes", SIZE, P)
mul_mat = function(BASE, "ggml_mul_mat", P, P, P, P)
flash_attention = function(BASE, "ggml_flash_attn_ext", P, P, P, P, P, P, FLOAT, FLOAT, FLOAT)
new_graph = function(BASE, "ggml_new_graph_custom", P, P, SIZE, ctypes.c_bool)
expand = function(BASE, "ggml_build_forward_expand", None, P, P)
quantize = function(BASE, "ggml_quantize_chunk", SIZE, INT, P, P, I64, I64, I64, P)
set_tensor = function(BASE, "ggml_backend_tensor_set", None, P, P, SIZE, SIZE)
allocate = function(BASE, "ggml_backend_alloc_ctx_tensors_from_buft", P, P, P)
free_buffer = function(BASE, "ggml_backend_buffer_free", None, P)
compute_graph = function(BASE, "ggml_backend_graph_compute", INT, P, P)
cpu_buffers = function(BASE, "ggml_backend_cpu_buffer_type", P)
new_backend = function(CPU, "ggml_backend_cpu_init", P)
set_threads = function(CPU, "ggml_backend_cpu_set_n_threads", None, P, INT)
repacked_buffers = function(CPU, REPACK, P)


def context(nodes):
    """A context for descriptions of tensors alone."""
    return init(InitParams(4096 * nodes + (1 << 20), None, True))


def fill(tensors, dtype, rows, width):
    """Writes normal numbers into tensors; rows repeat after 256, which no kernel notices."""
    few = min(rows, 256)
    values = np.random.default_rng(1).standard_normal((few, width), dtype=np.float32)
    data = values.tobytes()
    if dtype != "f32":
        packed = ctypes.create_string_buffer(values.nbytes)
        # What no type of so few bits is encoded without: that all numbers matter alike.
        importance = np.ones(width, np.float32)
        weights = importance.ctypes.data if dtype in NEED_IMPORTANCE else None
        data = packed.raw[: quantize(TYPES[dtype], values.ctypes.data, packed, 0, few, width, weights)]
    data *= -(-rows // few)
    for tensor in tensors:
        set_tensor(tensor, data, 0, nbytes(tensor))


def has_repacked_form(tensor):
    """Whether the buffer that a tensor lies in repacks its type."""
    return ctypes.cast(tensor + EXTRA, ctypes.POINTER(P)).contents.value is not None


class Timer:
    """Runs graphs on the peer's threads."""

    def __init__(self, args):
        self.backend = new_backend()
        self.seconds = args.seconds
        set_threads(self.backend, args.threads)

    def time(self, graph, count):
        """The median seconds of one of `count` ops."""
        compute_graph(self.backend, graph)
        times, begun = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begun < self.seconds:
            start = time.perf_counter()
            compute_graph(self.backend, graph)
            times.append(time.perf_counter() - start)
        return statistics.median(times) / count


def product(timer, args, dtype, rows, repack):
    """Seconds of one product, and the bytes of its weight; infinitely many where there is no such form."""
    bytes_of_one = args.n * args.k * {"f32": 32, "f16": 16, "bf16": 16}.get(dtype, 5) // 8
    count = max(2, args.set * (1 << 20) // bytes_of_one)
    weights_context, others, nodes = context(count), context(4), context(4 * count + 8)
    weights = [new_tensor(weights_context, TYPES[dtype], args.k, args.n, 1, 1) for _ in range(count)]
    source = new_tensor(others, TYPES["f32"], args.k, rows, 1, 1)
    buffers = [
        allocate(weights_context, repacked_buffers() if repack else cpu_buffers()),
        allocate(others, cpu_buffers()),
    ]
    if repack and not has_repacked_form(weights[0]):
        return float("inf"), 0
    fill(weights, dtype, args.n, args.k)
    fill([source], "f32", rows, args.k)
    graph = new_graph(nodes, 4 * count + 8, False)
    for weight in weights:
        expand(graph, mul_mat(nodes, weight, source))
    buffers.append(allocate(nodes, cpu_buffers()))
    seconds, size = timer.time(graph, count), nbytes(weights[0])
    for buffer in buffers:
        free_buffer(buffer)
    for each in (weights_context, others, nodes):
        free(each)
    return seconds, size


def attention(timer, args, codec, heads):
    """Seconds of the attention of one token, and the bytes of its cache."""
    query_heads, kv_heads, width = heads
    bytes_of_one = 2 * args.context * kv_heads * width * {"f32": 4, "f16": 2}.get(codec, 1)
    count = max(2, args.set * (1 << 20) // bytes_of_one)
    inputs, nodes = context(4 * count + 8), context(16 * count + 64)
    shape = (args.context, kv_heads)
    sides = [[new_tensor(inputs, TYPES[codec], width, *shape, 1) for _ in range(2)] for _ in range(count)]
    query = new_tensor(inputs, TYPES["f32"], width, 1, query_heads, 1)
    buffers = [allocate(inputs, cpu_buffers())]
    fill(sum(sides, []), codec, args.context * kv_heads, width)
    fill([query], "f32", query_heads, width)
    graph = new_graph(nodes, 4 * count + 8, False)
    for keys, values in sides:
        expand(graph, flash_attention(nodes, query, keys, values, None, width**-0.5, 0.0, 0.0))
    buffers.append(allocate(nodes, cpu_buffers()))
    seconds, size = timer.time(graph, count), 2 * nbytes(sides[0][0])
    for buffer in buffers:
        free_buffer(buffer)
    for each in (inputs, nodes):
        free(each)
    return seconds, size


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", default="q4_0,q4_1,q5_0,q8_0,q4_K,q5_K,q6_K")
    parser.add_argument("--rows", default="1,64")
    parser.add_argument("--n", type=int, default=14336)
    parser.add_argument("--k", type=int, default=4096)
    parser.add_argument("--set", type=int, default=192)
    parser.add_argument("--kv", default="f16,q4_0")
    parser.add_argument("--heads", default="32/8/128,4/1/256")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", default="products,attention")
    args = parser.parse_args()
    timer, results = Timer(args), []
    if "products" in args.only:
        for dtype in args.types.split(","):
            for rows in [int(text) for text in args.rows.split(",")]:
                found = [product(timer, args, dtype, rows, repack) for repack in (False, True)]
                seconds, size = min(found)
                results.append({
                    "op": "product", "type": dtype, "rows": rows, "microseconds": 1e6 * seconds, "bytes": size,
                    "gigabytes_per_second": size / seconds / 1e9,
                    "teraflops": 2 * rows * args.n * args.k / seconds / 1e12,
                    "repacked": found[1][0] < found[0][0],
                })  # fmt: skip
    if "attention" in args.only:
        for heads in args.heads.split(","):
            for codec in args.kv.split(","):
                sizes = [int(text) for text in heads.split("/")]
                seconds, size = attention(timer, args, codec, sizes)
                results.append({
                    "op": "attention", "type": codec, "heads": heads, "context": args.context,
                    "microseconds": 1e6 * seconds, "bytes": size, "gigabytes_per_second": size / seconds / 1e9,
                })  # fmt: skip
    print(json.dumps({"threads": args.threads, "results": results}, indent=1))


if __name__ == "__main__":
    main()
