#!/usr/bin/env python3
"""Walsh's single ops against the peer's: products of one row and of 64, and decode attention over 8,192 tokens.

The two take turns, several rounds; each round gives a ratio of times, and the median of the rounds is printed beside the
median figures. A cache of Walsh's is held against each of the peer's. Run with the Python that has llama-cpp-python (see
tools/peer.py).

usage: compare_ops.py [--walsh target/release/walsh] [--rounds 3] [--threads 2] [--only products,attention]
       [--types q4_0,q4_1,q5_0,q8_0,q4_K,q5_K,q6_K] [--kv tq4] [--peer-kv f16,q4_0]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

PEER = pathlib.Path(__file__).parent / "peer_ops.py"
WIDTH = 4096
# The rows of input, and the columns of the output, of the sizes of `walsh bench-ops`.
PRODUCTS = ((1, 14336), (64, 4096))
HEADS = ("32/8/128", "4/1/256")
CONTEXT = 8192


def report(command):
    """What a command prints, from JSON."""
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr.decode('utf-8', 'replace')}")
    return json.loads(done.stdout)


def ours(args, op, text):
    """Figures of the workloads of an op whose names hold a text, by name; and what memory gives."""
    command = [args.walsh, "bench-ops", "--op", op, "--json", "--threads", args.threads, text]
    found = report(command)
    figures = {row["name"]: row for row in found["results"]}
    return figures, found["ceilings"]["bytes_per_second"] / 1e9


def theirs(args, *options):
    """The peer's figures."""
    return report([sys.executable, PEER, "--threads", args.threads, *options])["results"]


def products(args, rows):
    """One round of products: (name, our figures, theirs, what memory gives)."""
    for inputs, columns in PRODUCTS:
        shape = f"[{inputs}, {WIDTH}] · [{columns}, {WIDTH}]"
        figures, memory = ours(args, "MatMul", shape)
        options = ["--only", "products", "--types", args.types, "--rows", inputs, "--n", columns, "--k", WIDTH]
        for peer in theirs(args, *options):
            name = f"{peer['type']} {shape}"
            rows.append((name, figures[name], peer, memory))


def attention(args, rows):
    """One round of attention."""
    figures, memory = ours(args, "Attention", f"over {CONTEXT}")
    options = ["--only", "attention", "--kv", args.peer_kv, "--heads", ",".join(HEADS), "--context", CONTEXT]
    for peer in theirs(args, *options):
        heads, kv_heads, width = peer["heads"].split("/")
        for codec in args.kv.split(","):
            name = f"{codec} [1, {heads}/{kv_heads}, {width}] over {CONTEXT}"
            rows.append((f"{name}, peer {peer['type']}", figures[name], peer, memory))


def main():
    """Reads the arguments, runs the rounds and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walsh", default="target/release/walsh")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="products,attention")
    parser.add_argument("--types", default="q4_0,q4_1,q5_0,q8_0,q4_K,q5_K,q6_K")
    parser.add_argument("--kv", default="tq4")
    parser.add_argument("--peer-kv", default="f16,q4_0")
    args = parser.parse_args()
    parts = {"products": products, "attention": attention}
    rounds = {}
    for _ in range(args.rounds):
        for part in args.only.split(","):
            if part not in parts:
                sys.exit(f"{part}: choose from {', '.join(parts)}")
            rows = []
            parts[part](args, rows)
            for name, mine, peer, memory in rows:
                rounds.setdefault(name, []).append((mine, peer, memory))
    print(f"{'op':52} {'walsh us':>9} {'GB/s':>6} {'of read':>7} {'TFLOP/s':>8} {'peer us':>9} {'ratio':>6}   rounds")
    for name, found in rounds.items():
        median = lambda values: statistics.median(list(values))
        ratios = [peer["microseconds"] / mine["microseconds"] for mine, peer, _ in found]
        share = median(mine["gigabytes_per_second"] / memory for mine, _, memory in found)
        print(
            f"{name:52} {median(mine['microseconds'] for mine, _, _ in found):9.0f}"
            f" {median(mine['gigabytes_per_second'] for mine, _, _ in found):6.1f} {100 * share:6.0f}%"
            f" {median(mine['teraflops'] for mine, _, _ in found):8.3f}"
            f" {median(peer['microseconds'] for _, peer, _ in found):9.0f} {median(ratios):6.2f}   "
            + " ".join(f"{ratio:.2f}" for ratio in ratios)
        )


if __name__ == "__main__":
    main()
