#!/usr/bin/env python3
"""Walsh against llama.cpp on one model: speed, perplexity and greedy continuations.

The two take turns, several rounds, so that what else the machine does falls on both alike; the figure of
a round is a ratio, and the median of the rounds is printed. Run with the Python that has
llama-cpp-python (see tools/peer.py).

usage: compare.py MODEL [--walsh target/release/walsh] [--rounds 3] [--only speed,perplexity,greedy]
       [--text tests/data/persuasion.txt] [--chunks 4] [--prompts 10] [--threads 2]
       [--depth 0,4096] [--kv f16] [--peer-kv f16]

`--peer-kv` lets the peer's cache differ from ours in speed tests.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

TOOLS = pathlib.Path(__file__).parent
GREEDY_TOKENS = 24
ENDS = ("<|im_end|>", "<|endoftext|>", "<eos>", "<end_of_turn>")


def run(command):
    """The command's standard output."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "replace")


def peer(script, *arguments):
    """The report of one of the peer's scripts."""
    return json.loads(run([sys.executable, TOOLS / script, *arguments]))


def speed(args):
    """Prints, for each test, Walsh's tokens per second over the peer's."""
    shared = ["--threads", args.threads, "--depth", args.depth]
    ratios, last = {}, {}
    for _ in range(args.rounds):
        ours = json.loads(run([args.walsh, "bench", "--model", args.model, "--json", "--kv", args.kv, *shared]))
        theirs = peer("peer_bench.py", args.model, "--kv", args.peer_kv or args.kv, *shared)
        by_test = {(row["test"], row["depth"]): row for row in theirs["results"]}
        for row in ours["results"]:
            key = row["test"], row["depth"]
            other = by_test[key]["tokens_per_second"]
            ratios.setdefault(key, []).append(row["tokens_per_second"] / other)
            last[key] = row["tokens_per_second"], other
    print(f"{'test':8} {'depth':>6} {'walsh t/s':>10} {'peer t/s':>10} {'ratio':>7}   rounds")
    for (test, depth), values in ratios.items():
        ours, theirs = last[test, depth]
        rounds = " ".join(f"{value:.2f}" for value in values)
        print(f"{test:8} {depth:6} {ours:10.1f} {theirs:10.1f} {statistics.median(values):7.2f}   {rounds}")


def perplexity(args):
    """Prints both perplexities and by how much they differ."""
    shared = ["--context", 1024, "--chunks", args.chunks, "--threads", args.threads, "--kv", args.kv]
    ours = json.loads(
        run([args.walsh, "perplexity", "--model", args.model, "--file", args.text, "--json", *shared])
    )
    theirs = peer("peer_perplexity.py", args.model, args.text, *shared)
    if ours["chunks"] != theirs["chunks"]:
        sys.exit(f"walsh scored {ours['chunks']} chunks, the peer {theirs['chunks']}")
    mine, other = ours["results"][0]["ppl"], theirs["results"][0]["ppl"]
    print(f"perplexity: walsh {mine:.4f}, peer {other:.4f}, {100 * (mine / other - 1):+.3f}%")


def agreement(row, text):
    """How many of the peer's tokens lie in the text that Walsh wrote, up to the first difference."""
    tokens, length = 0, 0
    for piece in row["pieces"]:
        if piece in ENDS:
            # Walsh stops here; the peer was made to go on.
            return len(row["ids"]) if length == len(text) else tokens
        if text[length : length + len(piece)] != piece:
            return tokens
        length += len(piece)
        tokens += 1
    return tokens


def greedy(args):
    """Prints for how many tokens each prompt continues as the peer's does."""
    limits = ["--tokens", GREEDY_TOKENS, "--first", args.prompts]
    theirs = peer("peer_greedy.py", args.model, *limits, "--threads", args.threads)
    common = ["--temperature", 0, "--max-tokens", GREEDY_TOKENS, "--threads", args.threads, "--kv", args.kv]
    enough = 0
    for row in theirs["results"]:
        text = run([args.walsh, "generate", "--model", args.model, *common, row["prompt"]])
        # The command ends its output with a line end of its own.
        same = max(agreement(row, text), agreement(row, text.removesuffix("\n")))
        enough += same >= 16
        lead = f", where the peer's choice leads by {row['margins'][same]}" if same < len(row["ids"]) else ""
        print(f"{same:3} of {len(row['ids'])}  {row['prompt']!r}{lead}")
    print(f"greedy: {enough} of {len(theirs['results'])} prompts agree for at least 16 tokens")


def main():
    """Reads the arguments and runs the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--walsh", default="target/release/walsh")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="speed,perplexity,greedy")
    parser.add_argument("--text", default=TOOLS.parent / "tests/data/persuasion.txt")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", default="0,4096")
    parser.add_argument("--kv", default="f16")
    parser.add_argument("--peer-kv")
    args = parser.parse_args()
    parts = {"speed": speed, "perplexity": perplexity, "greedy": greedy}
    for name in args.only.split(","):
        if name not in parts:
            sys.exit(f"{name}: choose from {', '.join(parts)}")
        parts[name](args)


if __name__ == "__main__":
    main()
