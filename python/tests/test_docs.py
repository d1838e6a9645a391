"""The snippets of the book, and those of the package's own texts: each is run as it stands."""

from __future__ import annotations

import asyncio
import doctest
import re
from pathlib import Path

import pytest

import walsh

ROOT = Path(__file__).parents[2]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, int, str]]:
    found = []
    # What the chapter on serving has is for a server's clients, and runs against one with the command's tests.
    chapters = [path for path in (ROOT / "docs/book/src").glob("*.md") if path.name != "serve.md"]
    names = sorted(str(path.relative_to(ROOT)) for path in chapters)
    for name in (*names, "python/README.md", "README.md"):
        text = (ROOT / name).read_text("utf-8")
        for match in BLOCK.finditer(text):
            found.append((name, text[: match.start()].count("\n") + 2, match[1]))
    return found


@pytest.mark.parametrize(("name", "line", "code"), snippets())
def test_snippets_run(
    name: str,
    line: int,
    code: str,
    model: walsh.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("article.txt").write_text((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    # Line breaks in front, so that an error names the line of the document.
    source = compile("\n" * (line - 1) + code, str(ROOT / name), "exec")
    exec(source, {"model": model, "walsh": walsh, "asyncio": asyncio})


def test_there_are_snippets() -> None:
    assert len(snippets()) > 10


def test_the_package_says_what_is_so() -> None:
    failed, tried = doctest.testmod(walsh)
    assert tried == 3 and failed == 0
