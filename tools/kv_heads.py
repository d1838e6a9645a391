"""Whether each KV head should have bits of its own, in a simulation in single precision: `tools/kv_heads.py FOLDER FILE.gguf
TEXT...`, with PyPI's torch, transformers, gguf and numpy.

Caches are rotated, coded by Lloyd-Max codebooks and scaled as Walsh does, with equaliser, centre and an overlay of the first 4
and the latest 32 tokens. Sensitivities are measured as `walsh fit` measures them, of each layer's sides and of each head's, and
bits are given by its rule; then both are judged by the KL divergence on the texts, whose first 512 tokens do not count.
"""

import math
import pathlib
import statistics
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ERRORS = {2: 0.117482, 3: 0.0345477, 4: 0.00950101, 5: 0.00250467, 6: 0.000644240}
RAISED = {"keys": 0.5, "values": 0.9}
SOURCES = pathlib.Path(__file__).parent.parent / "crates/walsh-runtime/src"


def codebook(bits: int) -> torch.Tensor:
    x = np.linspace(-8, 8, 400_001)
    density = np.exp(-x * x / 2)
    mass, moment = np.cumsum(density), np.cumsum(density * x)
    count = 2**bits
    normal = statistics.NormalDist()
    points = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    for _ in range(4000):
        inner = np.searchsorted(x, (points[1:] + points[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(x) - 1]])
        points = (moment[ends[1:]] - moment[ends[:-1]]) / (mass[ends[1:]] - mass[ends[:-1]])
    return torch.tensor(points, dtype=torch.float32)


class Cache:
    """Attention over keys and values that are coded, for the heads that `bits` says."""

    def __init__(self, kv_heads: int, head_dim: int) -> None:
        hadamard = torch.ones(1, 1)
        while len(hadamard) < head_dim:
            halves = [torch.cat([hadamard, sign * hadamard], 1) for sign in (1, -1)]
            hadamard = torch.cat(halves, 0)
        signs = torch.where(torch.rand(head_dim) < 0.5, -1.0, 1.0)
        self.rotation = hadamard / math.sqrt(head_dim) * signs
        self.books = {bits: codebook(bits) for bits in ERRORS}
        self.kv_heads = kv_heads
        self.bits: list | None = None
        self.moments: dict | None = {}

    def coded(self, rows: torch.Tensor, bits: int, side: str) -> torch.Tensor:
        turned = rows @ self.rotation.T
        size = turned.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(1e-20)
        book = self.books[bits]
        best = None
        for scale in (1.0, 0.9, 1.1, 0.82, 1.2):
            codes = book[torch.bucketize(turned / (size * scale), (book[1:] + book[:-1]) / 2)]
            found = codes * ((turned * codes).sum(-1, keepdim=True) / codes.pow(2).sum(-1, keepdim=True))
            error = (turned - found).pow(2).sum(-1, keepdim=True)
            if best is not None:
                found = torch.where(error < best[0], found, best[1])
                error = torch.minimum(error, best[0])
            best = (error, found)
        return best[1] * (1 + RAISED[side] * ERRORS[bits]) @ self.rotation

    def look(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys = key[0, :, 4:]
        queries = query[0, :, 4:].unflatten(0, (self.kv_heads, -1))
        center = keys.mean(1)
        pair = lambda squares: squares + squares.roll(squares.shape[-1] // 2, -1)
        ratio = pair((keys - center[:, None]).pow(2).mean(1)) / pair(queries.pow(2).mean((1, 2)))
        logs = 0.25 * ratio.log()
        return center, (logs - logs.mean(-1, keepdim=True)).exp()

    def __call__(self, module, query, key, value, mask, scaling, **others):
        layer, tokens = module.layer_idx, key.shape[2]
        if self.bits is None and layer not in self.moments:
            self.moments[layer] = self.look(query, key)
        group = query.shape[1] // self.kv_heads
        scores = lambda keys: query @ keys.repeat_interleave(group, 1).transpose(2, 3) * scaling
        at = torch.arange(tokens)
        exact = (at[:, None] - at < 32) | (at < 4)
        kept = [key.clone(), value.clone()]
        center, equaliser = self.moments[layer]
        for head in range(self.kv_heads if self.bits else 0):
            keys, values = self.bits[layer][0][head], self.bits[layer][1][head]
            if keys:
                prepared = (key[0, head] - center[head]) / equaliser[head]
                kept[0][0, head] = self.coded(prepared, keys, "keys") * equaliser[head] + center[head]
            if values:
                kept[1][0, head] = self.coded(value[0, head], values, "values")
        all_scores = torch.where(exact, scores(key), scores(kept[0]))
        weights = all_scores.masked_fill(at[:, None] < at, -1e30).softmax(-1)
        wide = lambda rows: rows.repeat_interleave(group, 1)
        output = (weights * exact) @ wide(value) + (weights * ~exact) @ wide(kept[1])
        return output.transpose(1, 2).contiguous(), None


def allotted(sensitivities: np.ndarray, average: float) -> list[int]:
    widths = [2] * len(sensitivities)
    loss = lambda bits: ERRORS[bits] ** 1.6
    for _ in range(int((average - 2) * len(widths) + 1e-6)):
        gains = [(s * (loss(w) - loss(w + 1)), -i) for i, (s, w) in enumerate(zip(sensitivities, widths)) if w < 6]
        widths[-max(gains)[1]] += 1
    return widths


def main() -> None:
    folder, file, *texts = sys.argv[1:]
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    layers, heads = model.config.num_hidden_layers, model.config.num_key_value_heads
    cache = Cache(heads, model.config.hidden_size // model.config.num_attention_heads)
    ALL_ATTENTION_FUNCTIONS["walsh"] = cache
    model.config._attn_implementation = "walsh"
    read = lambda path, count: tokenizer(pathlib.Path(path).read_text(), return_tensors="pt").input_ids[:, :count]

    def predictions(tokens: torch.Tensor, bits: list | None) -> torch.Tensor:
        cache.bits = bits
        return model(tokens).logits[0].log_softmax(-1)

    def divergence(tokens: torch.Tensor, reference: torch.Tensor, bits: list, first: int) -> float:
        found, reference = predictions(tokens, bits)[first:], reference[first:]
        return float((reference.exp() * (reference - found)).sum(-1).mean())

    predictions(read(SOURCES / "calibration/text.txt", 1024), None)
    fit = read(SOURCES / "fit/text.txt", 256)
    reference = predictions(fit, None)
    of_sides, of_heads = np.zeros((layers, 2)), np.zeros((layers, 2, heads))
    for layer, side in np.ndindex(layers, 2):
        for chosen in [range(heads), *([head] for head in range(heads))]:
            bits = [[[0] * heads, [0] * heads] for _ in range(layers)]
            for head in chosen:
                bits[layer][side][head] = 2
            found = divergence(fit, reference, bits, 64)
            if len(chosen) == heads:
                of_sides[layer, side] = found
            if len(chosen) == 1:
                of_heads[layer, side, chosen[0]] = found
        print(layer, side, of_sides[layer, side], of_heads[layer, side], flush=True)
    tokens = [read(text, 1024) for text in texts]
    references = [predictions(text, None) for text in tokens]
    for average in (2.25, 3, 3.5, 4):
        sides = np.repeat(allotted(of_sides.ravel(), average), heads)
        single = np.array(allotted(of_heads.ravel(), average))
        losses = [
            [divergence(*pair, widths.reshape(layers, 2, heads).tolist(), 512) for pair in zip(tokens, references)]
            for widths in (sides, single)
        ]
        by_layer, by_head = map(np.mean, losses)
        print(f"{average} bits: layers {by_layer:.5f}, heads {by_head:.5f}, ratio {by_head / by_layer:.3f}", flush=True)


if __name__ == "__main__":
    main()
