#!/usr/bin/env python3
"""What the peer's quantised KV caches change about its own predictions; prints JSON for `walsh perplexity --compare`.

The protocol is that of `walsh perplexity`: the file is tokenised once and cut into chunks of N tokens, the first
token of each becomes BOS when the metadata says add_bos, and positions N/2 to N-2 are scored. The KL divergence of
each cache is taken from the peer's own f16 cache, all with flash attention. The caches walk through a chunk side by
side, so that only PIECE positions' logits are held for two of them.

usage: peer_kld.py MODEL TEXT [--context 1024] [--chunks N] [--threads 2] > docs/book/src/kv/peer-NAME.json
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np

from peer import Peer

CACHES = {"f16": 16.0, "q8_0": 8.5, "q5_0": 5.5, "q4_0": 4.5}  # bits per value; the reference first
PIECE = 256  # positions at once: 0.25 GB of logits for a vocabulary of 262,144
ROWS = 16  # rows at once in numpy, so that temporaries stay in the processor's cache
VERSION = "llama-cpp-python 0.3.36"


class Scores:
    """One cache's scored positions."""

    def __init__(self):
        self.losses, self.divergences, self.same = [], [], []

    def add(self, reference, logits, targets):
        """Scores positions by their logits and those of the reference, which may be the same array."""
        for start in range(0, len(targets), ROWS):
            x, y = reference[start : start + ROWS], logits[start : start + ROWS]
            aim = targets[start : start + ROWS]
            x_top, y_top = x.max(axis=1, keepdims=True), y.max(axis=1, keepdims=True)
            p = np.exp(x - x_top)
            x_sum = p.sum(axis=1, dtype=np.float64)
            y_sum = np.exp(y - y_top).sum(axis=1, dtype=np.float64)
            x_log = np.log(x_sum) + x_top[:, 0]
            y_log = np.log(y_sum) + y_top[:, 0]
            # Both logits are large beside their difference, which is exact in single precision.
            weighted = np.multiply(p, x - y).sum(axis=1, dtype=np.float64) / x_sum
            self.divergences.append(np.maximum(weighted + y_log - x_log, 0.0))
            self.losses.append(y_log - y[np.arange(len(aim)), aim])
            self.same.append(x.argmax(axis=1) == y.argmax(axis=1))

    def entry(self, kv):
        """The figures, as `--compare` reads them."""
        losses, divergences = np.concatenate(self.losses), np.concatenate(self.divergences)
        return {
            "name": f"llama.cpp {kv}",
            "bits_per_value": CACHES[kv],
            "kld_mean": float(divergences.mean()),
            "kld_p99": float(np.percentile(divergences, 99)),
            "same_top": float(np.concatenate(self.same).mean()),
            "ppl": math.exp(losses.mean()),
            "source": f"{VERSION}, CPU, flash attention, against its own f16 cache",
        }


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    peer = Peer(args.model)
    ids = peer.tokenize(pathlib.Path(args.text).read_bytes(), add_special=True, parse_special=False)
    chunks = min(len(ids) // args.context, args.chunks or len(ids))
    if chunks == 0:
        sys.exit(f"{args.text}: {len(ids)} tokens are fewer than one context of {args.context}")
    options = {"size": args.context, "batch": PIECE, "threads": args.threads, "flash": "on"}
    contexts = {kv: peer.context(kv=kv, **options) for kv in CACHES}
    scores = {kv: Scores() for kv in CACHES}
    first = args.context // 2
    for index in range(chunks):
        chunk = ids[index * args.context : (index + 1) * args.context]
        if peer.add_bos:
            chunk[0] = peer.bos
        for context in contexts.values():
            context.clear()
            context.feed(chunk[:first], logits_from=first)
        for start in range(first, args.context - 1, PIECE):
            end = min(start + PIECE, args.context - 1)
            targets = np.array(chunk[start + 1 : end + 1])
            reference = None
            for kv, context in contexts.items():
                logits = context.feed(chunk[start:end], logits_from=0)
                reference = logits if reference is None else reference
                scores[kv].add(reference, logits, targets)
        print(f"[{index + 1}/{chunks}]", file=sys.stderr)
    report = {
        "model": pathlib.Path(args.model).name,
        "text": pathlib.Path(args.text).name,
        "context": args.context,
        "chunks": chunks,
        "entries": [scores[kv].entry(kv) for kv in CACHES],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
