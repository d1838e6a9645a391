#!/usr/bin/env python3
"""How llama.cpp's pre-tokenizers cut every text of hard_strings.py; prints JSON.

Reads the names and expressions from llama.cpp's sources and compiles its two files that cut by them,
which takes a minute and needs a C++ compiler. For each name that `tokenizer.ggml.pre` may have: a hash
for each text, in hexadecimal, of the lengths of its pieces in bytes (FNV-1a of their decimals, each with a
space after it).

usage: peer_pieces.py LLAMA_CPP_SOURCES > tests/golden/pieces.json
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile

from hard_strings import BROKEN, READABLE

# Reads texts and lists of expressions, each text with its length in front; prints lengths of pieces.
DRIVER = r"""
#include "unicode.h"
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>
static std::string next() {
    size_t size = 0;
    std::cin >> size;
    std::cin.get();
    std::string text(size, ' ');
    std::cin.read(&text[0], size);
    return text;
}
int main() {
    std::vector<std::string> texts(std::stoul(next()));
    for (auto & text : texts) { text = next(); }
    size_t names = std::stoul(next());
    for (size_t at = 0; at < names; ++at) {
        std::vector<std::string> expressions(std::stoul(next()));
        for (auto & expression : expressions) { expression = next(); }
        for (const auto & text : texts) {
            // It is never asked for an empty one.
            if (text.empty()) { printf("\n"); continue; }
            for (const auto & piece : unicode_regex_split(text, expressions, false)) {
                if (!piece.empty()) { printf("%zu ", piece.size()); }
            }
            printf("\n");
        }
    }
}
"""


def expressions(source):
    """The expressions of each type of pre-tokenizer, and those of all others."""
    body = source[source.index("switch (vocab.get_pre_type())") : source.index("byte_encode = true;")]
    found = {}
    for case in re.finditer(r"((?:case \w+:\s*|default:\s*)+)(.*?)break;", body, re.DOTALL):
        text = re.sub(r"(^|,)\s*//.*$", r"\1", case.group(2), flags=re.MULTILINE)
        listed = re.search(r"regex_exprs = \{(.*?)\n\s*\};", text, re.DOTALL).group(1)
        literals = re.findall(r'"((?:[^"\\]|\\.)*)"', listed)
        plain = [unescape(literal) for literal in literals]
        for name in re.findall(r"case (\w+):|(default):", case.group(1)):
            found[name[0] or name[1]] = plain
    return found


def unescape(literal):
    """The text of a C++ string literal."""
    table = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda match: table.get(match.group(1), match.group(1)), literal)


def names(source):
    """The type of each name."""
    start = source.index("for now, only BPE models have pre-tokenizers")
    body = source[start : source.index("unknown pre-tokenizer type", start)]
    found = {"": "default"}
    for branch in re.split(r"\} else if|\bif \(", body):
        type_ = re.search(r"pre_type = (\w+);", branch)
        for name in re.findall(r'tokenizer_pre == "([^"]+)"', branch):
            found[name] = type_.group(1)
    return found


def fnv(text):
    """The 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in text:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def main():
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources")
    sources = pathlib.Path(parser.parse_args().sources) / "src"
    vocabulary = (sources / "llama-vocab.cpp").read_text(encoding="utf-8")
    lists, types = expressions(vocabulary), names(vocabulary)
    texts = [text.encode() for text in READABLE] + BROKEN
    request = []

    def put(text):
        request.append(b"%d %s" % (len(text), text))

    put(b"%d" % len(texts))
    for text in texts:
        put(text)
    put(b"%d" % len(types))
    for name, type_ in types.items():
        chosen = lists.get(type_, lists["default"])
        put(b"%d" % len(chosen))
        for expression in chosen:
            put(expression.encode())
    with tempfile.TemporaryDirectory() as folder:
        driver = pathlib.Path(folder) / "driver.cpp"
        driver.write_text(DRIVER)
        program = driver.with_suffix("")
        files = [str(driver), str(sources / "unicode.cpp"), str(sources / "unicode-data.cpp")]
        subprocess.run(["g++", "-std=c++17", "-O1", f"-I{sources}", *files, "-o", str(program)], check=True)
        answer = subprocess.run([str(program)], input=b"".join(request), stdout=subprocess.PIPE, check=True)
    lines = iter(answer.stdout.split(b"\n"))
    report = {name: "".join(f"{fnv(next(lines)):08x}" for _ in texts) for name in types}
    print(json.dumps(report, indent=0, sort_keys=True))


if __name__ == "__main__":
    main()
