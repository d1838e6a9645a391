#!/usr/bin/env python3
"""Token ids by the peer of every text in tests/data/hard_strings.json; prints JSON.

Each text is tokenised twice, with its special tokens parsed and as text, without BOS and EOS. Also says
what a prompt begins with and at which tokens generation ends.

usage: peer_tokens.py MODEL [--strings tests/data/hard_strings.json]
"""

import argparse
import json
import pathlib

from peer import Peer

STRINGS = pathlib.Path(__file__).parent.parent / "tests/data/hard_strings.json"


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--strings", default=STRINGS)
    args = parser.parse_args()
    strings = [bytes.fromhex(text) for text in json.loads(pathlib.Path(args.strings).read_text())]
    peer = Peer(args.model, vocab_only=True)
    report = {
        "model": pathlib.Path(args.model).name,
        "add_bos": peer.add_bos,
        "bos": peer.bos,
        "ends": [id for id in range(peer.n_vocab) if peer.is_end(id)],
        "parsed": [peer.tokenize(text, False, True) for text in strings],
        "text": [peer.tokenize(text, False, False) for text in strings],
    }
    print(json.dumps(report, separators=(",", ":")).replace('],"', '],\n"').replace("],[", "],\n["))


if __name__ == "__main__":
    main()
