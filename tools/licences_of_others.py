#!/usr/bin/env python3
"""Prints the licences of all libraries that are compiled into packages of this workspace, with their texts.

usage: licences_of_others.py TARGET PACKAGE…

The texts are those that the libraries come with; libraries that have the same ones share them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NAMES = ("license", "licence", "copying", "notice", "unlicense")


def cargo(*arguments: str) -> str:
    made = subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout


def texts(folder: Path) -> str:
    """The licence texts beside a library's Cargo.toml."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(NAMES))
    return "\n".join(path.read_text("utf-8", "replace").strip() + "\n" for path in paths)


def main(target: str, packages: list[str]) -> None:
    chosen = [word for package in packages for word in ("-p", package)]
    tree = cargo("tree", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}", *chosen)
    used = {tuple(line.split(" ")[:2]) for line in tree.splitlines() if line}
    described = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    found: dict[str, list[str]] = {}
    for package in described["packages"]:
        # What has no source is of this workspace.
        if package["source"] is None or (package["name"], f"v{package['version']}") not in used:
            continue
        text = texts(Path(package["manifest_path"]).parent)
        line = f"{package['name']} {package['version']}: {package['license'] or 'see below'}"
        found.setdefault(text, []).append(line)
    for text, lines in sorted(found.items(), key=lambda item: sorted(item[1])):
        print("=" * 80, *sorted(lines), "", text or "(It comes without the text of its licence.)\n", sep="\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: licences_of_others.py TARGET PACKAGE…")
    main(sys.argv[1], sys.argv[2:])
