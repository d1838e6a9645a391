#!/usr/bin/env python3
"""Tokens per second by the peer, in the form of `walsh bench --json`; prints JSON.

Flash attention is set to whichever of on and off is faster for each test; a quantised cache needs it on.

usage: peer_bench.py MODEL [--prompt 512] [--generate 128] [--depth 0,4096] [--threads 2] [--kv f16]
       [--repetitions 3] [--flash on|off|best]
"""

import argparse
import json
import pathlib
import statistics
import time

from peer import KV_TYPES, Peer

ANY_TOKENS = 1000  # which tokens are evaluated does not change the time


def measure(context, test, tokens, depth, repetitions):
    """Tokens per second of each repetition, after one that warms up."""
    speeds = []
    context.clear()
    for start in range(0, depth, context.batch_size):
        context.evaluate([5 + i % ANY_TOKENS for i in range(start, min(depth, start + context.batch_size))])
    for repetition in range(repetitions + 1):
        if not context.truncate(depth):
            context.clear()
            for start in range(0, depth, context.batch_size):
                end = min(depth, start + context.batch_size)
                context.evaluate([5 + i % ANY_TOKENS for i in range(start, end)])
        steps = [tokens] if test == "prefill" else [1] * tokens
        begin = time.perf_counter()
        for step in steps:
            context.evaluate([7 + i % ANY_TOKENS for i in range(step)])
        if repetition:
            speeds.append(tokens / (time.perf_counter() - begin))
    return speeds


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depth", default="0,4096")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv", choices=sorted(KV_TYPES), default="f16")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--flash", choices=["on", "off", "best"], default="best")
    args = parser.parse_args()
    peer = Peer(args.model)
    modes = [args.flash]
    if args.flash == "best":
        modes = ["on", "off"] if args.kv in ("f16", "f32") else ["on"]
    results = []
    for depth in [int(text) for text in args.depth.split(",")]:
        for test, tokens in (("prefill", args.prompt), ("decode", args.generate)):
            if not tokens:
                continue
            best = None
            for flash in modes:
                size = depth + tokens + 8
                with peer.context(size=size, batch=512, threads=args.threads, kv=args.kv, flash=flash) as context:
                    speeds = measure(context, test, tokens, depth, args.repetitions)
                median = statistics.median(speeds)
                if best is None or median > best["tokens_per_second"]:
                    best = {
                        "test": test,
                        "tokens": tokens,
                        "depth": depth,
                        "kv": args.kv,
                        "tokens_per_second": median,
                        "min": min(speeds),
                        "max": max(speeds),
                        "flash": flash,
                    }
            results.append(best)
    name = pathlib.Path(args.model).name
    print(json.dumps({"model": name, "device": "peer", "threads": args.threads, "results": results}, indent=1))


if __name__ == "__main__":
    main()
