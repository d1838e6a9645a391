#!/usr/bin/env python3
"""How the pre-tokenizers' regular expressions cut the readable texts of hard_strings.py; prints JSON.

For each pre-tokenizer a list with, for each text, the lengths of its pieces in bytes. The expressions are
run by the `regex` package, which knows Unicode classes and look-ahead.

usage: pieces.py > tests/golden/pieces.json
"""

import json

import regex

from hard_strings import READABLE

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [MODERN % 3],
    "qwen2": [MODERN % 1],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
}


def cut(expression, pieces):
    """Cuts each piece into the matches and what lies between them."""
    compiled = regex.compile(expression)
    for piece in pieces:
        at = 0
        for match in compiled.finditer(piece):
            if match.start() > at:
                yield piece[at : match.start()]
            if match.group():
                yield match.group()
            at = match.end()
        if at < len(piece):
            yield piece[at:]


def lengths(expressions, text):
    """The lengths in bytes of a text's pieces."""
    pieces = [text]
    for expression in expressions:
        pieces = list(cut(expression, pieces))
    return [len(piece.encode()) for piece in pieces if piece]


def main():
    """Prints the file."""
    report = {name: [lengths(list_, text) for text in READABLE] for name, list_ in EXPRESSIONS.items()}
    print(json.dumps(report, separators=(",", ":")).replace("]],", "]],\n"))


if __name__ == "__main__":
    main()
