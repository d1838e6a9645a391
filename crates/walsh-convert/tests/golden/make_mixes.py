#!/usr/bin/env python3
"""Writes mixes.json: the types that llama.cpp's quantiser gives the tensors of small models of several shapes.

    V/bin/python make_mixes.py LIBLLAMA [OUTPUT]

V has gguf 0.19 and numpy; LIBLLAMA is libllama.so of llama-cpp-python 0.3.36. The weights are zeros.
"""

import ctypes
import json
import pathlib
import sys
import tempfile

import numpy as np
from gguf import GGUFReader, GGUFWriter

MIXES = {
    "f16": 1, "bf16": 32, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "q8_0": 7, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12,
    "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30,
    "mxfp4_moe": 38, "iq3_m": 27, "iq3_s": 26, "iq3_xs": 22, "iq3_xxs": 23, "q2_k_s": 21, "iq2_m": 29, "iq2_s": 28,
    "iq2_xs": 20, "iq2_xxs": 19,
}

LETTERS = {"F32": "f", "F16": "h", "BF16": "b", "Q4_0": "4", "Q4_1": "d", "Q5_0": "5", "Q5_1": "e", "Q8_0": "8",
           "Q2_K": "B", "Q3_K": "C", "Q4_K": "D", "Q5_K": "E", "Q6_K": "F", "IQ4_NL": "n", "IQ4_XS": "x", "MXFP4": "m",
           "IQ3_S": "s", "IQ3_XXS": "t", "IQ2_S": "u", "IQ2_XS": "v", "IQ2_XXS": "w"}


class ImatrixData(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t)]


class Params(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32)] + [
        (name, ctypes.c_int) for name in ("ftype", "output_tensor_type", "token_embedding_type")
    ] + [
        (name, ctypes.c_bool) for name in
        ("allow_requantize", "quantize_output_tensor", "only_copy", "pure", "keep_split", "dry_run")
    ] + [("imatrix", ctypes.POINTER(ImatrixData))] + [
        (name, ctypes.c_void_p) for name in ("kv_overrides", "tensor_type", "prune_layers")
    ] + [("max_buf_size", ctypes.c_size_t)]


def library(path):
    llama = ctypes.CDLL(str(path))
    llama.llama_model_quantize_default_params.restype = Params
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
    llama.llama_model_quantize.restype = ctypes.c_uint32
    return llama


def shape(architecture, layers, *, heads=8, kv_heads=8, width=256, down=512, experts=0, tied=False, fused=False,
          split_experts=False):
    """A model: its metadata's numbers, and the lengths of its tensors, outermost first."""
    head = width // heads
    numbers = {"block_count": layers, "context_length": 64, "embedding_length": width, "feed_forward_length": down,
               "attention.head_count": heads, "attention.head_count_kv": kv_heads, "rope.dimension_count": head}
    if experts:
        numbers |= {"expert_count": experts, "expert_used_count": 2}
    tensors = {"token_embd.weight": [32, width], "output_norm.weight": [width]}
    if not tied:
        tensors["output.weight"] = [32, width]
    for layer in range(layers):
        at = f"blk.{layer}."
        tensors[at + "attn_norm.weight"] = [width]
        if fused:
            tensors[at + "attn_qkv.weight"] = [width + 2 * kv_heads * head, width]
        else:
            tensors[at + "attn_q.weight"] = [width, width]
            tensors[at + "attn_k.weight"] = [kv_heads * head, width]
            tensors[at + "attn_v.weight"] = [kv_heads * head, width]
        tensors[at + "attn_output.weight"] = [width, width]
        tensors[at + "ffn_norm.weight"] = [width]
        stack = [experts] if experts else []
        kind = "_exps" if experts else ""
        if experts:
            tensors[at + "ffn_gate_inp.weight"] = [experts, width]
        for name, lengths in (("up", [down, width]), ("gate", [down, width]), ("down", [width, down])):
            tensors[f"{at}ffn_{name}{kind}.weight"] = stack + lengths
    return {"architecture": architecture, "numbers": numbers, "tensors": tensors}


MODELS = {
    "llama, much shared": shape("llama", 32, heads=8, kv_heads=2),
    "llama, little shared": shape("llama", 20),
    "llama of 80 layers": shape("llama", 80, heads=8, kv_heads=4),
    "llama of odd rows": shape("llama", 8, width=288, heads=9, kv_heads=3, down=160),
    "gemma3, tied": shape("gemma3", 18, heads=4, kv_heads=1, tied=True),
    "llama of 8 experts": shape("llama", 16, kv_heads=2, experts=8),
    "qwen3moe": shape("qwen3moe", 12, kv_heads=2, experts=4),
    "falcon": shape("falcon", 32, heads=8, kv_heads=1, fused=True),
    "phi3": shape("phi3", 16, fused=True),
}


def write(path, model):
    writer = GGUFWriter(path, model["architecture"])
    for key, value in model["numbers"].items():
        writer.add_uint32(f"{model['architecture']}.{key}", value)
    writer.add_float32(f"{model['architecture']}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{model['architecture']}.attention.layer_norm_epsilon", 1e-5)
    if model["architecture"] == "qwen3moe":
        writer.add_uint32("qwen3moe.expert_feed_forward_length", 512)
    if model["architecture"] == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window", 32)
        writer.add_uint32("gemma3.attention.key_length", 64)
        writer.add_uint32("gemma3.attention.value_length", 64)
    for name, lengths in model["tensors"].items():
        writer.add_tensor(name, np.zeros(lengths, np.float32 if len(lengths) == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types(llama, source, target, file_type, imatrix):
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype = 1, file_type
    if imatrix:
        params.imatrix = imatrix
    if llama.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)) != 0:
        # Mixes of few bits are not made without an importance.
        return None if imatrix is None else sys.exit("llama.cpp does not quantise it")
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(target).tensors}


def main():
    llama = library(pathlib.Path(sys.argv[1]).resolve())
    output = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).with_name("mixes.json")
    made = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "in.gguf", pathlib.Path(folder) / "out.gguf"
        for name, model in MODELS.items():
            write(source, model)
            ones = {}
            for tensor, lengths in model["tensors"].items():
                count = int(np.prod(lengths[:-2])) * lengths[-1]
                ones[tensor.encode()] = (ctypes.c_float * count)(*[1.0] * count)
            entries = [ImatrixData(tensor, numbers, len(numbers)) for tensor, numbers in ones.items()]
            imatrix = (ImatrixData * (len(entries) + 1))(*entries, ImatrixData())
            found = {}
            for mix, file_type in MIXES.items():
                plain = types(llama, source, target, file_type, None)
                weighed = types(llama, source, target, file_type, imatrix)
                # The tensors in the file's order, and their types.
                order = list(weighed)
                assert plain is None or order == list(plain)
                # A letter for each tensor.
                found[mix] = [way and "".join(LETTERS[kind] for kind in way.values()) for way in (plain, weighed)]
            tensors = [[tensor, model["tensors"][tensor]] for tensor in order]
            made.append({"name": name, **model, "tensors": tensors, "types": found})
    lines = ",\n".join(json.dumps(model, separators=(",", ":")) for model in made)
    letters = {letter: kind.lower() for kind, letter in LETTERS.items()}
    output.write_text(f'{{"letters":{json.dumps(letters)},"models":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
