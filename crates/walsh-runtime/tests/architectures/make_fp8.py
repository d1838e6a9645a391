#!/usr/bin/env python3
"""Writes fp8/: tiny random models with weights in 8-bit floats, and the logits that transformers computes with each.

    python3 -m venv V && V/bin/pip install torch==2.15.0 transformers==5.24.0 compressed-tensors==0.20.1 accelerate
    V/bin/python make_fp8.py [NAME...]

Codes and scales are made here with torch's own casts; what they mean is for transformers to say, which dequantises the
folders on loading (and for compressed-tensors, which it does so with). Tokenizers are those of walsh-convert's folders.
Beside the folders lies NAME.json: tokens and logits, computed in single precision with weights that were dequantised to
bfloat16 ("logits") and to single precision ("exact").
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent / "fp8"
TOKENIZERS = pathlib.Path(__file__).resolve().parents[3] / "walsh-convert" / "tests" / "folders"
TOKENS = [5, 17, 300, 2, 41, 133]
LARGEST = 448.0

COMMON = dict(
    vocab_size=360, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-6, bos_token_id=0, eos_token_id=1,
    pad_token_id=None, tie_word_embeddings=True,
)


def fine(scale_fmt="float", **more):
    return dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[32, 32],
                scale_fmt=scale_fmt, modules_to_not_convert=["lm_head"], **more)


def compressed(strategy, dynamic, **more):
    floats = dict(num_bits=8, type="float", symmetric=True, group_size=None, block_structure=None, actorder=None)
    group = dict(targets=["Linear"], output_activations=None,
                 weights=dict(floats, strategy=strategy, dynamic=False, observer="minmax", observer_kwargs={}, **more),
                 input_activations=dict(floats, strategy="token" if dynamic else "tensor", dynamic=dynamic))
    return dict(quant_method="compressed-tensors", format="float-quantized", config_groups={"group_0": group},
                ignore=["lm_head"], kv_cache_scheme=None, quantization_status="compressed", sparsity_config={})


# Of each: the configuration, what it says of its weights, and how many rows and columns share a scale (0: all of them).
MODELS = {
    "qwen3": (transformers.Qwen3Config(**COMMON), fine(), (32, 32)),
    "qwen3moe": (transformers.Qwen3MoeConfig(**COMMON, num_experts=3, num_experts_per_tok=2,
                                             moe_intermediate_size=32, norm_topk_prob=True), fine("ue8m0"), (32, 32)),
    "llama": (transformers.LlamaConfig(**{**COMMON, "num_hidden_layers": 1}), compressed("channel", True), (1, 0)),
    "static": (transformers.LlamaConfig(**{**COMMON, "num_hidden_layers": 1}), compressed("tensor", False), (0, 0)),
}


def quantised(weight, block, power):
    """Codes, and a scale for each rectangle."""
    high, wide = (length or whole for length, whole in zip(block, weight.shape))
    rows, columns = weight.shape
    parts = weight.reshape(rows // high, high, columns // wide, wide)
    scale = parts.abs().amax((1, 3)) / LARGEST
    if power:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    codes = (parts / scale[:, None, :, None]).to(torch.float8_e4m3fn).reshape(rows, columns)
    return codes, scale


def stored(model, how, block):
    """A folder's tensors: those of the model, with the products of layers but for routers as codes and scales."""
    plain = how["quant_method"] == "fp8"
    tensors = {}
    for name, weight in model.items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight.to(torch.bfloat16)
            continue
        codes, scale = quantised(weight.float(), block, how.get("scale_fmt") == "ue8m0")
        module = name.removesuffix(".weight")
        tensors[name] = codes
        if how.get("scale_fmt") == "ue8m0":
            scale = scale.to(torch.float8_e8m0fnu)
        elif plain:
            scale = scale.to(torch.bfloat16)
        if block == (0, 0):
            scale = scale.reshape(1)
        tensors[module + (".weight_scale_inv" if plain else ".weight_scale")] = scale
        if not plain and not how["config_groups"]["group_0"]["input_activations"]["dynamic"]:
            tensors[module + ".input_scale"] = torch.tensor([0.02], dtype=torch.bfloat16)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def logits(folder, how, dtype):
    if how["quant_method"] == "fp8":
        config = transformers.FineGrainedFP8Config(
            weight_block_size=how["weight_block_size"], scale_fmt=how["scale_fmt"], dequantize=True,
            modules_to_not_convert=how["modules_to_not_convert"])
    else:
        config = transformers.CompressedTensorsConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=dtype, attn_implementation="eager").float().eval()
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert weight.dtype == torch.float32 and weight.unique().numel() > 100, weight
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0]


def main():
    for name in sys.argv[1:] or MODELS:
        config, how, block = MODELS[name]
        torch.manual_seed(11)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter, values in model.named_parameters():
            torch.nn.init.normal_(values, mean=float("norm" in parameter), std=0.1 if "norm" in parameter else 0.15)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        tensors = stored(load_file(folder / "model.safetensors"), how, block)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        settings = json.loads((folder / "config.json").read_text())
        settings |= {"quantization_config": how, "dtype": "bfloat16"}
        (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
        tokenizer = "llama" if config.model_type == "llama" else config.model_type.replace("_", "")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZERS / tokenizer / file, folder / file)
        found = {key: [[float(f"{x:.7g}") for x in row] for row in logits(folder, how, dtype).tolist()]
                 for key, dtype in (("logits", torch.bfloat16), ("exact", torch.float32))}
        (HERE / f"{name}.json").write_text(json.dumps({"tokens": TOKENS, **found}, separators=(",", ":")) + "\n")
        print(name, sum(file.stat().st_size for file in folder.iterdir()))


if __name__ == "__main__":
    main()
