#!/usr/bin/env python3
"""Writes ../folders: tiny random models as transformers saves them, and what llama.cpp's converter makes of each.

    V/bin/python make_folders.py CONVERTER [NAME...]

CONVERTER is a checkout of llama.cpp. V has torch, transformers 5.24, sentencepiece and tokenizers. Beside the folders lies
NAME.json: the metadata of the converter's file, and of each tensor the type, the lengths and the SHA-256 of the data.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent.parent / "folders"
VOCABULARY = 360

COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=None,
    tie_word_embeddings=True,
)
PLAIN = {**COMMON, "num_attention_heads": 2, "num_key_value_heads": 1}
PLAIN.pop("head_dim")
UNTIED = {"tie_word_embeddings": False}

CUTS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "dbrx": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# Of each: the model, the type of its weights, its tokenizer, and in how many bytes its shards are cut.
MODELS = {
    "llama": (lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **COMMON, rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                                       high_freq_factor=4.0, original_max_position_embeddings=64))),
        torch.bfloat16, "llama-bpe", None),
    "mistral": (lambda: transformers.MistralForCausalLM(transformers.MistralConfig(
        **{**PLAIN, **UNTIED}, sliding_window=None)), torch.float16, "sentencepiece", "24KB"),
    "qwen2": (lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**PLAIN, rope_theta=1000000.0)),
              torch.bfloat16, "qwen2", None),
    "qwen3": (lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**COMMON)), torch.float32, "qwen2", None),
    "qwen3moe": (lambda: transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
        **COMMON, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True)),
        torch.bfloat16, "qwen2", None),
    "gemma3": (lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**COMMON, sliding_window=32)),
               torch.bfloat16, "sentencepiece", None),
    "phi3": (lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(
        **{**PLAIN, **UNTIED}, sliding_window=64, original_max_position_embeddings=256)), torch.bfloat16,
        "sentencepiece", None),
    "smollm3": (lambda: transformers.SmolLM3ForCausalLM(transformers.SmolLM3Config(
        **{**PLAIN, "num_hidden_layers": 4, "intermediate_size": 24}, rope_theta=10000.0)), torch.bfloat16, "dbrx", None),
    "olmo2": (lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**{**PLAIN, **UNTIED})), torch.float16,
              "gpt-2", None),
}

TEXT = ["What is a lighthouse for? It warns ships of rocks, 24 hours a day, 365 days a year.",
        "    def main():\n        print('Hello, world!')\n\n# a comment\n", "Grüße aus Köln, naïve façade; 1234567 – «quotes»"]
TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"


def byte_pairs(folder, kind):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    if kind == "gpt-2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        cut = CUTS["qwen2" if kind == "qwen2" else "dbrx"]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # The last is what transformers adds where it is not.
    special = ["<|begin|>", "<|end|>", "<|endoftext|>"]
    # Fewer than the model has embeddings for.
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 6, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    if kind == "llama-bpe":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B",
                                          special_tokens=[("<|begin|>", 0)])])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
    if kind == "gpt-2":
        config |= {"chat_template": TEMPLATE, "add_bos_token": False}
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def sentence_piece(folder):
    import sentencepiece

    with tempfile.TemporaryDirectory() as work:
        prefix = pathlib.Path(work) / "spm"
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter([line for text in TEXT * 20 for line in text.splitlines()]), model_prefix=str(prefix),
            vocab_size=VOCABULARY - 4, model_type="bpe", byte_fallback=True, character_coverage=1.0, minloglevel=2,
            hard_vocab_limit=False, normalization_rule_name="identity", user_defined_symbols=["[OWN]"])
        (folder / "tokenizer.model").write_bytes(prefix.with_suffix(".model").read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "add_bos_token": True, "add_eos_token": False, "chat_template": TEMPLATE,
              "added_tokens_decoder": {str(index): {"content": content, "special": special} for index, content, special in
                                       [(0, "<unk>", True), (1, "<s>", True), (2, "</s>", True),
                                        (VOCABULARY - 2, "<start_of_turn>", False), (VOCABULARY - 1, "<|endoftext|>", False)]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def converted(folder, architecture, cut, weights):
    import conversion
    import gguf

    found = conversion.get_model_class(architecture)
    # The converter knows tokenizers by what they make of a text, and these are new.
    tiny = type("Tiny", (found,), {"get_vocab_base_pre": lambda self, tokenizer: cut, "model_arch": found.model_arch})
    file_type = {torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16, torch.float16: gguf.LlamaFileType.MOSTLY_F16,
                 torch.float32: gguf.LlamaFileType.ALL_F32}[weights]
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        path = pathlib.Path(work) / "model.gguf"
        tiny(folder, file_type, path, use_temp_file=False, eager=True, model_name=folder.name).write()
        reader = gguf.GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        tensors = {tensor.name: [tensor.tensor_type.name.lower(), [int(n) for n in reversed(tensor.shape)],
                                 hashlib.sha256(tensor.data.tobytes()).hexdigest()] for tensor in reader.tensors}
    return {"metadata": metadata, "tensors": tensors}


def main():
    converter, *names = sys.argv[1:]
    sys.path.insert(0, converter)
    sys.path.insert(0, str(pathlib.Path(converter) / "gguf-py"))
    for name in names or MODELS:
        make, weights, kind, shards = MODELS[name]
        torch.manual_seed(3)
        model = make().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model = model.to(weights)
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        model.generation_config.do_sample, model.generation_config.temperature, model.generation_config.top_k = True, 0.6, 20
        if kind == "sentencepiece":
            for config in (model.config, model.generation_config):
                config.bos_token_id, config.eos_token_id = 1, 2
        model.save_pretrained(folder, **({"max_shard_size": shards} if shards else {}))
        if kind == "sentencepiece":
            sentence_piece(folder)
        else:
            byte_pairs(folder, kind)
        made = converted(folder, model.config.architectures[0], kind, weights)
        (HERE / f"{name}.json").write_text(json.dumps(made, separators=(",", ":"), ensure_ascii=True) + "\n")
        print(name, sum(file.stat().st_size for file in folder.iterdir()))


main()
