"""Makes a tiny random model of each architecture, and what transformers computes with it.

    make.py CONVERTER [NAME...]

CONVERTER is a checkout of llama.cpp, whose convert_hf_to_gguf.py writes the GGUF files, with f32 weights. It runs where
torch and transformers 5.24 are. Beside each NAME.gguf lies NAME.json: tokens, and the logits behind each of them. Those
below `embeddings` make one vector of a text, that of its last token: it is there instead, and the mean of all.
"""

import json
import pathlib
import sys
import tempfile

import torch
import transformers

VOCABULARY = 260
TOKENS = 14

COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
    tie_word_embeddings=True,
)

# With heads whose size is the width over their number.
PLAIN_HEADS = {**COMMON, "num_attention_heads": 2, "num_key_value_heads": 1}
PLAIN_HEADS.pop("head_dim")

MODELS = {
    "qwen3moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            **COMMON,
            num_experts=5,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            norm_topk_prob=True,
            rope_theta=10000.0,
        )
    ),
    # The fourth layer attends without RoPE.
    "smollm3": lambda: transformers.SmolLM3ForCausalLM(
        transformers.SmolLM3Config(
            **{**PLAIN_HEADS, "num_hidden_layers": 4, "intermediate_size": 24}, rope_theta=10000.0
        )
    ),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(
        transformers.Olmo2Config(**{**COMMON, "tie_word_embeddings": False}, rope_theta=10000.0)
    ),
    "phi3": lambda: transformers.Phi3ForCausalLM(
        transformers.Phi3Config(**{**PLAIN_HEADS, "tie_word_embeddings": False}, sliding_window=6)
    ),
    "granite": lambda: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(
            **PLAIN_HEADS,
            embedding_multiplier=2.0,
            logits_scaling=8.0,
            residual_multiplier=0.7,
            attention_multiplier=0.15,
        )
    ),
    "granitemoe": lambda: transformers.GraniteMoeForCausalLM(
        transformers.GraniteMoeConfig(
            **{**PLAIN_HEADS, "intermediate_size": 16},
            num_local_experts=5,
            num_experts_per_tok=2,
            embedding_multiplier=2.0,
            logits_scaling=8.0,
            residual_multiplier=0.7,
            attention_multiplier=0.15,
        )
    ),
    # The temperature shows from the ninth token on.
    "mistral3": lambda: transformers.Ministral3ForCausalLM(
        transformers.Ministral3Config(
            **COMMON,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=10000.0,
                factor=16.0,
                original_max_position_embeddings=8,
                max_position_embeddings=256,
                beta_fast=32.0,
                beta_slow=1.0,
                mscale_all_dim=1.0,
                mscale=1.0,
                llama_4_scaling_beta=0.5,
            ),
        )
    ),
    "gpt-oss": lambda: transformers.GptOssForCausalLM(
        transformers.GptOssConfig(
            **{**COMMON, "tie_word_embeddings": False, "intermediate_size": 16},
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=8,
        )
    ),
}

# Layers with a state around one that attends: heads whose keys are shared, and a rotation of half of their numbers.
HYBRID = dict(
    **{**COMMON, "num_hidden_layers": 3, "intermediate_size": 24},
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
    linear_conv_kernel_dim=4,
)
HYBRID_EXPERTS = dict(
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=8,
    shared_expert_intermediate_size=12,
)
ROTATION = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5, mrope_section=[2, 1, 1])

MODELS |= {
    "qwen3next": lambda: transformers.Qwen3NextForCausalLM(
        transformers.Qwen3NextConfig(
            **HYBRID, **HYBRID_EXPERTS, norm_topk_prob=True, rope_theta=10000.0, partial_rotary_factor=0.5
        )
    ),
    "qwen35": lambda: transformers.Qwen3_5ForCausalLM(
        transformers.Qwen3_5TextConfig(**HYBRID, rope_parameters=ROTATION)
    ),
    "qwen35moe": lambda: transformers.Qwen3_5MoeForCausalLM(
        transformers.Qwen3_5MoeTextConfig(**HYBRID, **HYBRID_EXPERTS, rope_parameters=ROTATION)
    ),
}

# Global layers have heads of another size and number, and their keys are their values.
GEMMA4 = dict(
    **{**COMMON, "num_hidden_layers": 4},
    global_head_dim=32,
    num_global_key_value_heads=1,
    attention_k_eq_v=True,
    hidden_size_per_layer_input=0,
    layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    sliding_window=6,
    final_logit_softcapping=30.0,
)

MODELS |= {
    "gemma4": lambda: transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**GEMMA4)),
    # Rows of a second table go to layers, and the last layers attend to what earlier ones have stored.
    "gemma4-shared": lambda: transformers.Gemma4ForCausalLM(
        transformers.Gemma4TextConfig(
            **{
                **GEMMA4,
                "num_hidden_layers": 6,
                "intermediate_size": 24,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "global_head_dim": 64,
                "attention_k_eq_v": False,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": VOCABULARY,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]
                + ["sliding_attention", "full_attention", "full_attention"],
                "num_kv_shared_layers": 3,
                "use_double_wide_mlp": True,
                "final_logit_softcapping": None,
            }
        )
    ),
    # Experts beside a dense feed-forward part.
    "gemma4-experts": lambda: transformers.Gemma4ForCausalLM(
        transformers.Gemma4TextConfig(
            **{**GEMMA4, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
            enable_moe_block=True,
            num_experts=5,
            top_k_experts=2,
            moe_intermediate_size=12,
        )
    ),
}


# Short convolutions around a layer that attends; of experts, behind a layer without.
CONVOLUTIONS = dict(
    **{**PLAIN_HEADS, "num_hidden_layers": 3},
    layer_types=["conv", "full_attention", "conv"],
    conv_L_cache=3,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0),
)

MODELS |= {
    "lfm2": lambda: transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**CONVOLUTIONS, block_multiple_of=8)),
    "lfm2moe": lambda: transformers.Lfm2MoeForCausalLM(
        transformers.Lfm2MoeConfig(
            **CONVOLUTIONS,
            num_dense_layers=1,
            num_experts=5,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
        )
    ),
}

# What makes one vector of a text.
EMBEDDINGS = {
    "embeddings/qwen3": lambda: transformers.Qwen3Model(transformers.Qwen3Config(**COMMON, rope_theta=10000.0)),
}


def zero_centred(model, name):
    return model.config.model_type.startswith(("qwen3_next", "qwen3_5")) and "linear_attn" not in name


def randomise(model):
    """Weights of a magnitude that keeps the stream's, and norms and biases that show when they are left out."""
    generator = torch.Generator().manual_seed(20)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            # Some families store what is added to one.
            value = (0 if zero_centred(model, name) else 1) + 0.2 * noise
        elif name.endswith("scale"):
            value = 1 + 0.3 * noise
        elif "embed_tokens" in name:
            value = 0.5 * noise
        elif name.endswith("A_log"):
            value = 0.7 * noise
        elif parameter.dim() == 1 or name.endswith("bias"):
            value = 0.3 * noise
        elif "sinks" in name:
            value = noise
        else:
            fan_in = 32 if name.endswith(("gate_up_proj", "down_proj")) and parameter.dim() == 3 else parameter.shape[-1]
            value = noise / fan_in**0.5
            if "gate.weight" in name or "router" in name:
                value = 3 * value
        parameter.data.copy_(value)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.copy_(1 + 0.3 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("expert_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))


def vocabulary(self):
    """The 256 bytes, and names that stand for nothing."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [f"<unused{index}>" for index in range(VOCABULARY - 256)]
    writer = self.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([6] * 256 + [5] * (VOCABULARY - 256))
    writer.add_add_bos_token(False)


def convert(folder, architecture, file):
    import conversion
    import gguf

    found = conversion.get_model_class(architecture)
    # What this one writes it leaves to another.
    found = getattr(found, "Ministral3Model", found)
    tiny = type("Tiny", (found,), {"set_vocab": vocabulary, "model_arch": found.model_arch, "no_mtp": True})
    with torch.inference_mode():
        tiny(folder, gguf.LlamaFileType.ALL_F32, file, use_temp_file=False, eager=True, model_name="tiny").write()


def rounded(numbers):
    return [float(f"{number:.7g}") for number in numbers.tolist()]


def outputs(model, tokens):
    """The logits behind each token, or vectors of length 1 of all of them."""
    with torch.inference_mode():
        out = model(torch.tensor([tokens]))
    if hasattr(out, "logits"):
        return {"tokens": tokens, "logits": [rounded(row) for row in out.logits[0]]}
    states = out.last_hidden_state[0]
    vectors = {"last": states[-1], "mean": states.mean(0)}
    return {"tokens": tokens} | {name: rounded(vector / vector.norm()) for name, vector in vectors.items()}


def main():
    converter, *names = sys.argv[1:]
    sys.path.insert(0, converter)
    sys.path.insert(0, str(pathlib.Path(converter) / "gguf-py"))
    here = pathlib.Path(__file__).parent
    for name in names or [*MODELS, *EMBEDDINGS]:
        model = (MODELS | EMBEDDINGS)[name]().float().eval()
        randomise(model)
        tokens = [(7 * i * i + 31 * i + 5) % VOCABULARY for i in range(TOKENS)]
        (here / f"{name}.json").write_text(json.dumps(outputs(model, tokens)) + "\n")
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            # Gemma's converter cuts its tables to the size of a vocabulary that it reads here.
            entries = {"model": {"vocab": dict.fromkeys(map(str, range(VOCABULARY)))}, "added_tokens": []}
            pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(entries))
            if name in EMBEDDINGS:
                modules = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
                pathlib.Path(folder, "modules.json").write_text(json.dumps(modules))
                pathlib.Path(folder, "1_Pooling").mkdir()
                pathlib.Path(folder, "1_Pooling/config.json").write_text('{"pooling_mode_lasttoken": true}')
            convert(pathlib.Path(folder), model.config.architectures[0], here / f"{name}.gguf")
        print(name, (here / f"{name}.gguf").stat().st_size)


if __name__ == "__main__":
    main()
