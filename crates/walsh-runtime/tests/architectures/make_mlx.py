#!/usr/bin/env python3
"""Writes mlx/: tiny random models as `mlx_lm.convert` quantises them, and the logits that mlx-lm computes with each.

    python3 -m venv V && V/bin/pip install 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 transformers==5.24.0
    V/bin/python make_mlx.py [NAME...]

Tokenizers are those of walsh-convert's folders. Beside the folders lies NAME.json: tokens and logits, computed in single
precision.
"""

import importlib
import json
import pathlib
import shutil
import sys
import tempfile

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.convert import convert
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import load_model

HERE = pathlib.Path(__file__).resolve().parent / "mlx"
TOKENIZERS = pathlib.Path(__file__).resolve().parents[3] / "walsh-convert" / "tests" / "folders"
TOKENS = [5, 17, 300, 2, 41, 133]

COMMON = dict(
    vocab_size=360, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-6, rope_theta=10000.0,
    bos_token_id=0, eos_token_id=1, hidden_act="silu", torch_dtype="bfloat16",
)
MODELS = {
    "llama": dict(COMMON, architectures=["LlamaForCausalLM"], model_type="llama", tie_word_embeddings=False),
    "qwen3moe": dict(COMMON, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", tie_word_embeddings=True,
                     num_experts=3, num_experts_per_tok=2, moe_intermediate_size=64, decoder_sparse_step=1,
                     mlp_only_layers=[], norm_topk_prob=True),
}
MODELS["global"] = dict(MODELS["qwen3moe"], num_hidden_layers=1)
AFFINE = {
    "layers.0.self_attn.v_proj": (8, 64), "layers.1.self_attn.v_proj": (5, 32), "layers.0.self_attn.o_proj": (4, 32),
    "layers.0.mlp.down_proj": (6, 128), "layers.1.mlp.down_proj": (3, 64), "layers.1.mlp.gate_proj": (2, 64),
    "layers.1.mlp.up_proj": (5, 64), "lm_head": (6, 64), "layers.0.self_attn.q_proj": (2, 32),
    "layers.0.self_attn.k_proj": (3, 32), "layers.1.self_attn.q_proj": (6, 32), "layers.1.self_attn.k_proj": (8, 32),
}


def llama(path, _):
    if path.endswith("layers.1.self_attn.o_proj"):
        return False
    for name, (bits, group) in AFFINE.items():
        if path.endswith(name):
            return dict(bits=bits, group_size=group)
    return True


def qwen3moe(path, _):
    if path.endswith("mlp.gate"):
        return dict(bits=8, group_size=64)
    if path.endswith(("v_proj", "down_proj")):
        return dict(bits=4, group_size=16, mode="nvfp4")
    if path.endswith("o_proj"):
        return dict(bits=8, group_size=32, mode="mxfp8")
    return True


def whole(path, _):
    if path.endswith("mlp.gate"):
        return False
    if "switch_mlp" in path:
        return dict(bits=4, group_size=16, mode="nvfp4", global_scale=True)
    return True


HOW = {"llama": dict(quant_predicate=llama), "qwen3moe": dict(quant_predicate=qwen3moe, q_mode="mxfp4"),
       "global": dict(quant_predicate=whole, q_mode="nvfp4")}


def random_model(config, folder):
    module = importlib.import_module("mlx_lm.models." + config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))

    def fill(path, parameter):
        noise = mx.random.normal(parameter.shape)
        return 1 + 0.1 * noise if "norm" in path else noise / parameter.shape[-1] ** 0.5
    model.update(tree_map_with_path(fill, model.parameters()))
    weights = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(TOKENIZERS / ("llama" if config["model_type"] == "llama" else "qwen3moe") / name, folder / name)


def expand(model):
    """Puts plain layers in the place of those with scales of whole matrices, which MLX multiplies by on GPUs alone."""
    for name, layer in model.named_modules():
        if not isinstance(layer, QuantizedSwitchLinear) or layer.global_scale is None:
            continue
        experts = [mx.dequantize(layer.weight[e], layer.scales[e], group_size=16, bits=4, mode="nvfp4",
                                 global_scale=layer.global_scale[e], dtype=mx.float32) for e in range(layer.num_experts)]
        plain = SwitchLinear(layer.input_dims, layer.output_dims, layer.num_experts, bias=False)
        plain.weight = mx.stack(experts)
        *path, last = name.split(".")
        place = model
        for part in path:
            place = place[int(part)] if part.isdigit() else getattr(place, part)
        yield place, last, plain


def main():
    mx.random.seed(7)
    for name in sys.argv[1:] or MODELS:
        target = HERE / name
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory() as whole:
            random_model(MODELS[name], pathlib.Path(whole))
            convert(whole, str(target), quantize=True, **HOW[name])
        (target / "README.md").unlink(missing_ok=True)
        model, _ = load_model(target)
        model.set_dtype(mx.float32)
        for place, last, layer in list(expand(model)):
            setattr(place, last, layer)
        logits = model(mx.array([TOKENS]))[0]
        rows = [[round(x, 7) for x in row] for row in logits.tolist()]
        (HERE / f"{name}.json").write_text(json.dumps({"tokens": TOKENS, "logits": rows}) + "\n")


if __name__ == "__main__":
    main()
