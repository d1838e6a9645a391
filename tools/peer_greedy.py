#!/usr/bin/env python3
"""Greedy continuations by the peer: prints JSON with each prompt's ids and the ids that follow.

Both sides quantise activations to 8 bits, so a sum in another order changes a logit by about 0.1, and a near tie
falls either way: llama.cpp does not always continue as itself when its flash attention is switched or the prompt
is fed token by token. `--decided N` therefore keeps the first N prompts whose first 16 tokens each lead by at least
0.1 and are the same in all of the peer's ways.

usage: peer_greedy.py MODEL [--tokens 24] [--threads 2] [--prompts tools/prompts.json] [--first N]
       [--decided 10]
"""

import argparse
import json
import pathlib

from peer import Peer


# The noise of 8-bit activations on a logit, root mean square.
LEAD = 0.1


def continuation(context, prompt_ids, tokens):
    """The greedy ids and, for each, by how much its logit leads the runner-up."""
    context.clear()
    logits = context.feed(prompt_ids)[-1]
    ids, margins = [], []
    for _ in range(tokens):
        best = int(logits.argmax())
        ids.append(best)
        lead = float(logits[best])
        logits[best] = float("-inf")
        margins.append(round(lead - float(logits.max()), 4))
        logits = context.feed([best])[-1]
    return ids, margins


def is_stable(peer, prompt_ids, ids, threads):
    """Whether the peer's other ways of computing give the same first 16 tokens."""
    for flash, batch in (("on", 1), ("off", 2048), ("off", 1)):
        with peer.context(size=1024, threads=threads, flash=flash, batch=batch) as context:
            if continuation(context, prompt_ids, 16)[0] != ids[:16]:
                return False
    return True


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", default=pathlib.Path(__file__).with_name("prompts.json"))
    parser.add_argument("--first", type=int, help="look at no more than this many prompts")
    parser.add_argument("--decided", type=int, help="keep this many prompts whose continuation rounding does not decide")
    args = parser.parse_args()
    prompts = json.loads(pathlib.Path(args.prompts).read_text(encoding="utf-8"))[: args.first]
    peer = Peer(args.model)
    results, tried = [], 0
    with peer.context(size=1024, threads=args.threads) as context:
        for prompt in prompts:
            prompt_ids = peer.tokenize(prompt, add_special=True, parse_special=True)
            ids, margins = continuation(context, prompt_ids, args.tokens)
            if args.decided is not None:
                if len(results) == args.decided:
                    break
                tried += 1
                if min(margins[:16]) < LEAD or not is_stable(peer, prompt_ids, ids, args.threads):
                    continue
            pieces = [peer.piece(i).decode("utf-8", "replace") for i in ids]
            row = {"prompt": prompt, "prompt_ids": prompt_ids, "ids": ids, "margins": margins}
            results.append({**row, "pieces": pieces, "text": "".join(pieces)})
    print(json.dumps({"model": pathlib.Path(args.model).name, "kv": "f16", "tried": tried, "results": results}, indent=1))


if __name__ == "__main__":
    main()
