#!/usr/bin/env python3
"""Perplexity by the peer, by the protocol of `walsh perplexity`; prints JSON.

The whole file is tokenised once (special tokens as text) and cut into chunks of N tokens; the first
token of each chunk is replaced by BOS when the metadata says add_bos; the predictions made at
positions N/2 to N-2 are scored.

usage: peer_perplexity.py MODEL TEXT [--context 1024] [--chunks N] [--kv f16] [--threads 2]
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np

from peer import KV_TYPES, Peer


def losses(logits, targets):
    """Negative log-likelihood of each target, in double precision."""
    values = np.empty(len(targets))
    for i, target in enumerate(targets):  # row by row: a whole chunk in doubles takes gigabytes
        row = logits[i].astype(np.float64)
        top = row.max()
        values[i] = math.log(np.exp(row - top).sum()) + top - row[target]
    return values


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--kv", choices=sorted(KV_TYPES), default="f16")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    peer = Peer(args.model)
    ids = peer.tokenize(pathlib.Path(args.text).read_bytes(), add_special=True, parse_special=False)
    chunks = len(ids) // args.context
    if chunks == 0:
        sys.exit(f"{args.text}: {len(ids)} tokens are fewer than one context of {args.context}")
    chunks = min(chunks, args.chunks or chunks)
    first = args.context // 2
    total = []
    with peer.context(size=args.context, batch=512, threads=args.threads, kv=args.kv) as context:
        for index in range(chunks):
            chunk = ids[index * args.context : (index + 1) * args.context]
            targets = chunk[first + 1 :]
            if peer.add_bos:
                chunk[0] = peer.bos
            context.clear()
            logits = context.feed(chunk, logits_from=first)
            total.append(losses(logits[:-1], targets))
            running = np.concatenate(total)
            print(f"[{index + 1}/{chunks}] {math.exp(running.mean()):.4f}", file=sys.stderr)
    all_losses = np.concatenate(total)
    mean = all_losses.mean()
    error = all_losses.std() / math.sqrt(len(all_losses) - 1)
    report = {
        "model": pathlib.Path(args.model).name,
        "context": args.context,
        "chunks": chunks,
        "tokens_in_file": len(ids),
        "results": [
            {
                "kv": args.kv,
                "ppl": math.exp(mean),
                "ppl_stderr": float(math.exp(mean) * error),
                "chunk_nll": [float(x.mean()) for x in total],
            }
        ],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
