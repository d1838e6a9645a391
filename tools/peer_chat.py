#!/usr/bin/env python3
"""Conversations as the peer's Jinja renders them by a model's own chat template; prints JSON.

usage: peer_chat.py MODEL > tests/golden/chat-NAME.json
"""

import argparse
import json

from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from peer import Peer

TALKS = [
    [("user", "Hi")],
    [("system", "Answer in French."), ("user", "  What is <b>2 + 2</b>?\n")],
    [("user", "One"), ("assistant", "Two"), ("user", "Three & \"four\" {{ x }}")],
    [("user", ""), ("assistant", "<|im_end|>"), ("user", "émoji 😀")],
]


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    peer = Peer(parser.parse_args().model, vocab_only=True)
    report = []
    for prompt in (True, False):
        formatter = Jinja2ChatFormatter(
            template=peer.chat_template(),
            eos_token="<|im_end|>",
            bos_token=peer.piece(peer.bos).decode(),
            add_generation_prompt=prompt,
        )
        for talk in TALKS:
            messages = [{"role": role, "content": content} for role, content in talk]
            text = formatter(messages=messages).prompt
            report.append({"messages": messages, "add_generation_prompt": prompt, "text": text})
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
