#!/usr/bin/env python3
"""Makes the pictures of the book, docs/book/src/pictures/*.svg: the same bytes on every machine.

usage: book_pictures.py [--check]

With --check nothing is written: it fails where a picture is not what this makes. The figures of loss.svg are those of the
first table of budgets in docs/book/src/kv.md.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

BOOK = Path(__file__).resolve().parents[1] / "docs/book/src"

INK, MUTED, LINE, TINT = "#1F2933", "#5B6770", "#C9D1D9", "#EEF4FB"
KEY, VALUE, OTHER = "#0B6BCB", "#2E8B57", "#D9822B"
WIDTH = 720


class Picture:
    """An SVG of 720 units' width: shapes are added, and `text` gives the file."""

    def __init__(self, height: int, title: str) -> None:
        self.height = height
        self.title = title
        self.parts: list[str] = []

    def rect(self, box: tuple[float, float, float, float], fill: str, stroke: str = "none") -> None:
        x, y, w, h = box
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="2" fill="{fill}" stroke="{stroke}"/>'
        )

    def line(self, start: tuple[float, float], end: tuple[float, float], stroke: str = LINE, more: str = "") -> None:
        (x, y), (to_x, to_y) = start, end
        self.parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{stroke}"{more}/>'
        )

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.line(start, end, INK, ' stroke-width="1.5" marker-end="url(#tip)"')

    def dot(self, x: float, y: float, fill: str) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}"/>')

    def path(self, points: list[tuple[float, float]], stroke: str) -> None:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{way}" fill="none" stroke="{stroke}" stroke-width="2"/>')

    def words(self, x: float, y: float, words: str, anchor: str = "start", fill: str = INK) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
        )

    def text(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img"'
                ' font-family="system-ui, sans-serif" font-size="13">',
                f"<title>{escape(self.title)}</title>",
                '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
                f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
                f'<rect width="{WIDTH}" height="{self.height}" rx="8" fill="#FFFFFF"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def cache() -> Picture:
    """What is kept of each token, and what the next one reads."""
    picture = Picture(250, "A key and a value of each token in each layer, all of which the next token reads")
    tokens = ["The", "capital", "of", "France", "is"]
    left, top, step, height = 110, 50, 100, 44
    for row, layer in enumerate(["layer 1", "layer 2", "last layer"]):
        y = top + row * (height + 12)
        picture.words(left - 16, y + 26, layer, "end", MUTED)
        for column in range(len(tokens)):
            x = left + column * step
            picture.rect((x, y, 38, height), KEY)
            picture.rect((x + 42, y, 38, height), VALUE)
            picture.words(x + 19, y + 27, "K", "middle", "#FFFFFF")
            picture.words(x + 61, y + 27, "V", "middle", "#FFFFFF")
        picture.rect((left + 5 * step + 8, y, 60, height), TINT, KEY)
        picture.words(left + 5 * step + 38, y + 27, "query", "middle")
        picture.arrow((left + 5 * step + 6, y + height + 5), (left - 6, y + height + 5))
    for column, token in enumerate(tokens):
        picture.words(left + column * step + 40, 34, token, "middle")
    picture.words(left + 5 * step + 38, 34, "Paris?", "middle", OTHER)
    picture.words(left, 238, "For each token that is made, every key and every value is read once.", "start", MUTED)
    return picture


def row_of_numbers() -> list[float]:
    """32 numbers as rows of keys have them: most are small, and two channels are large."""
    state, row = 1, []
    for _ in range(32):
        total = 0.0
        for _ in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            total += state / 2**31
        row.append((total - 6) * 0.45)
    row[9], row[22] = 4.2, -3.1
    return row


def rotated(row: list[float]) -> list[float]:
    """The row times signs, and then times an orthonormal Hadamard matrix."""
    out = [-x if (i * i + i // 3) % 2 else x for i, x in enumerate(row)]
    width = 1
    while width < len(out):
        for start in range(0, len(out), 2 * width):
            for i in range(start, start + width):
                a, b = out[i], out[i + width]
                out[i], out[i + width] = a + b, a - b
        width *= 2
    return [x / math.sqrt(len(out)) for x in out]


def turned_back(row: list[float]) -> list[float]:
    """What `rotated` turns into the row: the matrix is its own inverse."""
    size = len(row)
    out = [sum((-1) ** (i & j).bit_count() * row[j] for j in range(size)) / math.sqrt(size) for i in range(size)]
    return [-x if (i * i + i // 3) % 2 else x for i, x in enumerate(out)]


def codebook(bits: int) -> list[float]:
    """Lloyd and Max's levels for normal numbers: each is the mean of those that are nearest to it."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def below(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    count = 2**bits
    levels = [3 * (2 * i + 1 - count) / count for i in range(count)]
    for _ in range(500):
        edges = [-9.0, *((a + b) / 2 for a, b in zip(levels, levels[1:])), 9.0]
        levels = [(density(a) - density(b)) / (below(b) - below(a)) for a, b in zip(edges, edges[1:])]
    return levels


def rotate() -> Picture:
    """A row as the model has it, rotated, as codes, and turned back."""
    picture = Picture(560, "A row of a key: as it is, rotated, as codes of three bits, and turned back")
    row = row_of_numbers()
    turned = rotated(row)
    scale = math.sqrt(sum(x * x for x in turned) / len(turned))
    levels = [scale * level for level in codebook(3)]
    coded = [min(levels, key=lambda level: abs(level - x)) for x in turned]
    back = turned_back(coded)
    left, step, unit = 40, 20, 11

    def bars(middle: float, numbers: list[float], fill: str) -> None:
        picture.line((left, middle), (left + 32 * step, middle))
        for i, x in enumerate(numbers):
            height = max(abs(x) * unit, 0.5)
            picture.rect((left + i * step + 4, middle - height if x > 0 else middle, 12, height), fill)

    picture.words(left, 24, "1. A row as the model has it: two numbers are large, and a grid for them wastes the others' bits")
    bars(80, row, KEY)
    picture.words(left, 148, "2. Rotated: all numbers are of one kind, whatever the row was")
    bars(195, turned, KEY)
    picture.words(left, 262, "3. Each number (orange) becomes the nearest of eight levels (blue): three bits, and a scale for all")
    for level in levels:
        picture.line((left, 320 - level * 2 * unit), (left + 32 * step, 320 - level * 2 * unit), LINE, ' stroke-dasharray="4 4"')
    for i, (x, code) in enumerate(zip(turned, coded)):
        at = left + i * step + 10
        picture.dot(at, 320 - code * 2 * unit, KEY)
        picture.line((at - 7, 320 - x * 2 * unit), (at + 7, 320 - x * 2 * unit), OTHER, ' stroke-width="2"')
    picture.words(left, 410, "4. Turned back (blue), beside the row (grey): the error is spread over all numbers alike")
    middle = 470
    picture.line((left, middle), (left + 32 * step, middle))
    for i, (was, x) in enumerate(zip(row, back)):
        for shift, number, fill in ((2, was, LINE), (10, x, KEY)):
            height = max(abs(number) * unit, 0.5)
            picture.rect((left + i * step + shift, middle - height if number > 0 else middle, 8, height), fill)
    lost = sum((a - b) ** 2 for a, b in zip(row, back)) / sum(a * a for a in row)
    picture.words(left, 544, f"Squared error: {100 * lost:.1f}% of the row's own square. In use no row is turned back: the query is turned instead.", "start", MUTED)
    return picture


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of kv.md, without its head."""
    text = (BOOK / "kv.md").read_text("utf-8").split(f"\n### {heading}\n")[1]
    rows = re.findall(r"^\|(.*)\|$", text.split("\n##")[0], re.MULTILINE)
    head = next(i for i, row in enumerate(rows) if set(row) <= set("-|"))
    found = []
    for row in rows[head + 1 :]:
        cells = [cell.strip() for cell in row.split("|")]
        if not cells[0].startswith("`"):
            break
        found.append(cells)
    return found


def loss() -> Picture:
    """Bits against loss of smollm2-135m."""
    picture = Picture(420, "Bits per value against the loss of predictions, smollm2-135m")
    number = re.compile(r"[\d.]+")

    def point(cells: list[str], column: int) -> tuple[str, float, float]:
        bits, lost = number.match(cells[1]), number.match(cells[column])
        if bits is None or lost is None:
            raise SystemExit(f"kv.md: no figures in {cells}")
        return cells[0].strip("`"), float(bits[0]), float(lost[0])

    budgets = [point(cells, 2) for cells in table("Budgets") if "rot" not in cells[0]]
    blocks = [p for p in budgets if p[0].startswith("q")]
    # Eight bits are never fitted.
    alike = [p for p in budgets if p[0].startswith("tq") or p[0] == "8bit"]
    fitted = [p for p in budgets if p not in blocks + alike]
    left, right, top, bottom = 80, 690, 30, 350

    def place(bits: float, lost: float) -> tuple[float, float]:
        across = left + (bits - 2) / 7 * (right - left)
        return across, bottom - (math.log10(lost) + 4) / 3.4 * (bottom - top)

    for lost in (0.0001, 0.001, 0.01, 0.1):
        _, y = place(2, lost)
        picture.line((left, y), (right, y))
        picture.words(left - 8, y + 4, f"{lost:g}", "end", MUTED)
    for bits in range(2, 10):
        x, _ = place(bits, 1)
        picture.line((x, bottom), (x, bottom + 5))
        picture.words(x, bottom + 20, str(bits), "middle", MUTED)
    picture.words((left + right) / 2, bottom + 40, "bits per value", "middle")
    picture.words(left, 20, "KL divergence to the f16 cache, nats (less is better)")
    names = {"ggml's blocks": (blocks, OTHER), "codebooks, all layers alike": (alike, VALUE), "budgets fitted to the model": (fitted, KEY)}
    for i, (name, (points, colour)) in enumerate(names.items()):
        points.sort(key=lambda p: p[1])
        picture.path([place(bits, lost) for _, bits, lost in points], colour)
        for label, bits, lost in points:
            x, y = place(bits, lost)
            picture.dot(x, y, colour)
            if colour != VALUE:
                above = colour == OTHER
                picture.words(x + (7 if above else -7), y + (-5 if above else 14), label, "start" if above else "end", colour)
        picture.dot(480, 50 + 22 * i, colour)
        picture.words(492, 54 + 22 * i, name)
    return picture


def pages() -> Picture:
    """Two texts that begin alike, and the pages that they have."""
    picture = Picture(300, "Two texts that begin alike have the same pages up to where they part")
    width, left = 78, 130
    rows = {"text A": ([3, 7, 1, 4], 40), "text B": ([3, 7, 6], 90)}
    picture.words(left, 24, "what each text has read, 64 tokens to a page", "start", MUTED)
    for name, (numbers, y) in rows.items():
        picture.words(left - 16, y + 22, name, "end")
        for i, page in enumerate(numbers):
            shared = i < 2
            picture.rect((left + i * width, y, width - 6, 34), TINT if shared else "#FFFFFF", KEY if shared else OTHER)
            picture.words(left + i * width + 36, y + 22, f"page {page}", "middle")
    picture.words(left + 4 * width + 12, 62, "asks one thing", "start", MUTED)
    picture.words(left + 3 * width + 12, 112, "asks another", "start", MUTED)
    picture.words(left, 160, "the pages of the cache: the system prompt lies there once", "start", MUTED)
    users = {3: "A, B", 7: "A, B", 1: "A", 4: "A", 6: "B"}
    for page in range(1, 9):
        x = 30 + (page - 1) * 83
        shared = users.get(page) == "A, B"
        fill = TINT if shared else "#FFFFFF"
        picture.rect((x, 176, 76, 50), fill, KEY if shared else OTHER if page in users else LINE)
        picture.words(x + 38, 198, f"page {page}", "middle", INK if page in users else MUTED)
        picture.words(x + 38, 216, users.get(page, "free"), "middle", MUTED)
    picture.words(30, 258, "A page that two texts have is never written: the one who goes on differently takes a free one.", "start", MUTED)
    picture.words(30, 278, "When A and B have ended, pages 3 and 7 stay for whoever begins alike, until the memory is needed.", "start", MUTED)
    return picture


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"usage: {Path(sys.argv[0]).name} [--check]", file=sys.stderr)
        return 2
    folder = BOOK / "pictures"
    made = {f"{draw.__name__}.svg": draw().text() for draw in (cache, rotate, loss, pages)}
    if arguments:
        there = {path.name: path.read_text("utf-8") for path in folder.glob("*")}
        for name in sorted(made.keys() | there.keys()):
            if made.get(name) != there.get(name):
                print(f"{folder / name} is not what tools/book_pictures.py makes: run it", file=sys.stderr)
        return int(made != there)
    folder.mkdir(exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
