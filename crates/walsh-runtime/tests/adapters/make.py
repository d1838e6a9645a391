"""Makes LoRA adapters of tiny random models, and what PEFT computes with them.

    make.py CONVERTER [NAME...]

CONVERTER is a checkout of llama.cpp, whose convert_lora_to_gguf.py writes the GGUF files of adapters. It runs where torch,
transformers 5.24 and peft 0.21 are. The models are those of ../architectures, and two more, whose GGUF files lie here. Each
adapter is a folder, as PEFT saves it; NAME.json has tokens, and for each mixture of adapters with their scales the logits
behind some of the tokens.
"""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
ROWS = [0, 6, 13]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

found = importlib.util.spec_from_file_location("architectures", HERE.parent / "architectures" / "make.py")
architectures = importlib.util.module_from_spec(found)
found.loader.exec_module(architectures)

# Two heads that share keys and values, so that the order of rows shows.
HEADS = {**architectures.PLAIN_HEADS, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}

OWN = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**HEADS, rope_theta=10000.0)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**{**HEADS, "tie_word_embeddings": False}, rope_theta=10000.0)
    ),
}

# Of each model its adapters by name: how they are configured, and the type that they are saved in.
ADAPTERS = {
    "llama": {
        "llama-all": (dict(r=4, lora_alpha=8, target_modules=ALL), torch.float32),
        "llama-some": (
            dict(
                r=3,
                lora_alpha=5,
                use_rslora=True,
                rank_pattern={"layers.1.self_attn.q_proj": 6},
                alpha_pattern={"down_proj": 2},
                target_modules=["q_proj", "v_proj", "down_proj"],
            ),
            torch.float16,
        ),
    },
    "qwen2": {"qwen2-all": (dict(r=5, lora_alpha=10, target_modules="all-linear"), torch.bfloat16)},
    "phi3": {
        "phi3-fused": (
            dict(r=4, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
            torch.float32,
        )
    },
    "granite": {"granite-queries": (dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj"]), torch.float32)},
    "qwen3moe": {
        "qwen3moe-attention": (dict(r=2, lora_alpha=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]), torch.float32)
    },
}

# Further mixtures, besides each adapter alone.
MIXTURES = {"llama": [{"llama-all": 1.0, "llama-some": 0.5}, {"llama-all": -0.75}]}


def randomise(model, name, seed):
    """Factors that show when they are left out; they are those that the type holds."""
    generator = torch.Generator().manual_seed(seed)
    dtype = None
    for adapters in ADAPTERS.values():
        if name in adapters:
            dtype = adapters[name][1]
    for key, parameter in model.named_parameters():
        if f".lora_A.{name}." in key or f".lora_B.{name}." in key:
            value = 0.5 * torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            parameter.data.copy_(value.to(dtype).float())


def save(model, name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place, selected_adapters=[name])
        saved = pathlib.Path(place) / name
        folder.mkdir()
        tensors = load_file(saved / "adapter_model.safetensors")
        dtype = next(adapters[name][1] for adapters in ADAPTERS.values() if name in adapters)
        save_file({key: value.to(dtype).contiguous() for key, value in tensors.items()}, folder / "adapter_model.safetensors")
        config = json.loads((saved / "adapter_config.json").read_text())
        for key, value in config.items():
            if isinstance(value, list):
                config[key] = sorted(value)
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def logits(model, tokens, mixture):
    model.base_model.set_adapter(list(mixture))
    scaled = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    before = [dict(module.scaling) for module in scaled]
    for module in scaled:
        for name, scale in mixture.items():
            if name in module.scaling:
                module.scaling[name] *= scale
    with torch.inference_mode():
        rows = model(torch.tensor([tokens])).logits[0]
    for module, kept in zip(scaled, before):
        module.scaling.update(kept)
    return [[float(f"{number:.7g}") for number in rows[row].tolist()] for row in ROWS]


def main():
    converter, *names = sys.argv[1:]
    sys.path.insert(0, converter)
    sys.path.insert(0, str(pathlib.Path(converter) / "gguf-py"))
    for name in names or ADAPTERS:
        model = (OWN.get(name) or architectures.MODELS[name])().float().eval()
        architectures.randomise(model)
        tokens = [(7 * i * i + 31 * i + 5) % architectures.VOCABULARY for i in range(architectures.TOKENS)]
        adapted = None
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            if name in OWN:
                architectures.convert(pathlib.Path(folder), model.config.architectures[0], HERE / f"{name}.gguf")
            for seed, (adapter, (options, _)) in enumerate(ADAPTERS[name].items()):
                config = peft.LoraConfig(task_type="CAUSAL_LM", **options)
                if adapted is None:
                    adapted = peft.get_peft_model(model, config, adapter_name=adapter)
                else:
                    adapted.add_adapter(adapter, config)
                randomise(adapted, adapter, 40 + seed)
                save(adapted, adapter)
                # The converter knows nothing of rank-stabilised scales.
                if not options.get("use_rslora"):
                    script = pathlib.Path(converter) / "convert_lora_to_gguf.py"
                    out = HERE / f"{adapter}.gguf"
                    options = ["--base", folder, "--outtype", "f32", "--outfile", out, HERE / adapter]
                    subprocess.run([sys.executable, script, *options], check=True)
        adapted.eval()
        mixtures = [{adapter: 1.0} for adapter in ADAPTERS[name]] + MIXTURES.get(name, [])
        golden = [{"adapters": mixture, "logits": logits(adapted, tokens, mixture)} for mixture in mixtures]
        (HERE / f"{name}.json").write_text(json.dumps({"tokens": tokens, "rows": ROWS, "mixtures": golden}) + "\n")
        print(name, [adapter for adapter in ADAPTERS[name]])


main()
