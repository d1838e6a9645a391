#!/usr/bin/env python3
"""Writes tq.safetensors: vectors and what the codebook codecs of every width make of them, in double precision.

    python3 -m venv V && V/bin/pip install numpy==2.4.6 safetensors==0.8.0
    V/bin/python make_tq.py [--seed N] [OUTPUT]

Everything is computed as it is defined, with whole matrices and no code of Walsh's: the codebook as the root of its
optimality conditions, the rotation as a Hadamard matrix times signs, codes as counts of boundaries. A vector of which some
decision hangs on the last bits of single precision, in which encoders may compute, is drawn anew.

For each head size D: `dD.source [3, D]`; for each width B and each convention of scales S (`fitted` in half precision,
`norm` in single): `dD.tqB.S.codes [3, bytes]`, `dD.tqB.S.scales [3, groups]` and `dD.tqB.S.decoded [D]` of the first row.
"""

import argparse
import math
import pathlib

import numpy as np
from safetensors.numpy import save_file

# A power of two, 12, 20 and 28 times one, and two groups of both kinds.
HEAD_SIZES = [64, 96, 80, 112, 256, 320, 512]
PLANES = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 8: [8]}
CANDIDATES = [1.0, 0.95, 1.05, 0.9, 1.1, 0.85, 1.15]
SIGNS = bytes.fromhex(
    "a73b91f46dc2580eb37f24d68945ea1c63afd852970be13d76c419fe4a852cdb"
    "d34ea8179c5be63172b90df5438a6ec7582f94e1b63d0a7cc561d84fa3971e85"
)
# Mean squared errors of the optimal quantisers of N(0,1).
ERRORS = {2: 0.117482, 3: 0.0345477, 4: 0.00950101, 5: 0.00250467, 6: 0.000644240, 8: 0.0000411851}
# How far, relative to itself, every decision is from going the other way.
MARGIN = 2e-6


def density(x):
    return np.where(np.isinf(x), 0.0, np.exp(-0.5 * np.minimum(np.abs(x), 50.0) ** 2) / math.sqrt(2 * math.pi))


def cells(c):
    """The borders, probabilities and means of the cells of centroids."""
    borders = np.concatenate([[-np.inf], 0.5 * (c[1:] + c[:-1]), [np.inf]])
    low, high = borders[:-1], borders[1:]
    # Tails are subtracted on the side where they are small.
    tail = np.vectorize(lambda x: 0.5 * math.erfc(x / math.sqrt(2)))
    mass = np.where(low >= 0, tail(low) - tail(high), tail(-high) - tail(-low))
    mass = np.where((low < 0) & (high > 0), 1.0 - tail(high) - tail(-low), mass)
    return low, high, mass, (density(low) - density(high)) / mass


def codebook(bits):
    """The centroids that are the means of their cells, by Newton's method on all of them."""
    n = 1 << bits
    # Quantiles of N(0, 3) by the error function's inverse, bisected.
    ranks = (np.arange(n) + 0.5) / n
    a, b = np.full(n, -12.0), np.full(n, 12.0)
    for _ in range(80):
        middle = 0.5 * (a + b)
        below = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(6)))(middle) < ranks
        a, b = np.where(below, middle, a), np.where(below, b, middle)
    c = 0.5 * (a + b)
    residual = lambda c: c - cells(c)[3]
    for _ in range(200):
        low, high, mass, mean = cells(c)
        by_low = np.where(np.isinf(low), 0.0, density(low) * (mean - np.maximum(low, -50)) / mass)
        by_high = np.where(np.isinf(high), 0.0, density(high) * (np.minimum(high, 50) - mean) / mass)
        jacobian = np.eye(n) - np.diag(0.5 * (by_low + by_high))
        jacobian -= np.diag(0.5 * by_high[:-1], 1) + np.diag(0.5 * by_low[1:], -1)
        step = np.linalg.solve(jacobian, residual(c))
        damping = 1.0
        while not np.all(np.diff(c - damping * step) > 0):
            damping *= 0.5
        c = c - damping * step
        c = 0.5 * (c - c[::-1])
        if np.abs(step).max() < 1e-14:
            break
    assert np.abs(residual(c)).max() < 1e-12, (bits, np.abs(residual(c)).max())
    _, _, mass, _ = cells(c)
    # E (x - c)^2 = 1 - E c^2 where centroids are means.
    assert abs((1 - (mass * c * c).sum()) / ERRORS[bits] - 1) < 1e-5
    return c


def paley(order):
    """A Hadamard matrix of order 1, 12, 20 or 28."""
    if order == 1:
        return np.ones((1, 1))
    q = 13 if order == 28 else order - 1
    squares = {x * x % q for x in range(1, q)}
    symbol = lambda x: 0 if x % q == 0 else (1 if x % q in squares else -1)
    core = np.array([[symbol(j - i) for j in range(q)] for i in range(q)])
    bordered = np.zeros((q + 1, q + 1))
    bordered[0, 1:], bordered[1:, 0], bordered[1:, 1:] = 1, (1 if order == 28 else -1), core
    if order == 28:
        unit = np.eye(q + 1)
        matrix = np.kron(bordered, [[1, 1], [1, -1]]) + np.kron(unit, [[1, -1], [-1, -1]])
    else:
        matrix = bordered + np.eye(q + 1)
    assert (matrix @ matrix.T == order * np.eye(order)).all()
    return matrix


def rotation(size):
    """The matrix of the rotation of vectors of a size."""
    order = next(m for m in (1, 12, 20, 28) if size % m == 0 and (size // m).bit_count() == 1)
    power = np.ones((1, 1))
    while power.shape[0] < size // order:
        power = np.kron([[1, 1], [1, -1]], power)
    bits = np.unpackbits(np.frombuffer(SIGNS, np.uint8), bitorder="little")[:size]
    return np.kron(power, paley(order)) * (1.0 - 2.0 * bits) / math.sqrt(size)


def pack(codes, bits):
    """Codes of a row as bytes: plane after plane, the low bits first."""
    planes, shift = [], 0
    for width in PLANES[bits]:
        plane = codes >> shift & (1 << width) - 1
        ordered = np.array([[code >> bit & 1 for bit in range(width)] for code in plane]).reshape(-1)
        planes.append(np.packbits(ordered.astype(np.uint8), bitorder="little"))
        shift += width
    return np.concatenate(planes)


class Undecided(Exception):
    """A decision that single precision might take the other way."""


def decided(distance):
    if np.min(np.abs(distance)) < MARGIN:
        raise Undecided


def quantise(u, book):
    borders = 0.5 * (book[1:] + book[:-1])
    decided(u[:, None] - borders)
    return (borders < u[:, None]).sum(axis=1)


def fitted(r, book):
    """The codes of a group, its scale in half precision, and what it decodes to."""
    sigma = math.sqrt((r * r).mean())
    u, fits = r / sigma, []
    for candidate in CANDIDATES:
        borders = 0.5 * (book[1:] + book[:-1])
        codes = (borders < (u / candidate)[:, None]).sum(axis=1)
        c = book[codes]
        fits.append(((u @ c) ** 2 / (c @ c), codes, candidate))
    best, codes, candidate = max(fits, key=lambda fit: fit[0])
    # Candidates of the same codes are one.
    decided(np.array([1.0] + [fit / best - 1 for fit, other, _ in fits if (other != codes).any()]))
    assert (codes == quantise(u / candidate, book)).all()
    c = book[codes]
    exact = sigma * (u @ c) / (c @ c)
    scale = np.float16(exact)
    for neighbour in (np.nextafter(scale, np.float16(np.inf)), np.nextafter(scale, np.float16(0))):
        decided(exact / (0.5 * (float(scale) + float(neighbour))) - 1)
    return codes, scale, c * float(scale)


def normed(r, book, whole):
    """The same with the norm of a whole head, or the root mean square of a half."""
    norm = math.sqrt(r @ r)
    sigma = norm / math.sqrt(len(r))
    codes = quantise(r / sigma, book)
    return codes, np.float32(norm if whole else sigma), book[codes] * sigma


def encode(row, matrix, book, bits, convention):
    rotated = matrix @ row
    parts = np.split(rotated, 1 if len(row) <= 256 else 2)
    kind = fitted if convention == "fitted" else lambda r, book: normed(r, book, len(parts) == 1)
    groups = [kind(part, book) for part in parts]
    codes = pack(np.concatenate([group[0] for group in groups]), bits)
    decoded = matrix.T @ np.concatenate([group[2] for group in groups])
    return codes, np.array([group[1] for group in groups]), decoded


def rows(rng, size):
    """A row of normal numbers, one of heavy tails, and one of small numbers with channels that stand out."""
    normal = rng.standard_normal((3, size))
    normal[1] = np.sign(normal[1]) * np.abs(normal[1]) ** 3
    normal[2] *= np.where(np.arange(size) % 29 == 3, 0.05, 0.002)
    return normal.astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("output", nargs="?", default=pathlib.Path(__file__).with_name("tq.safetensors"))
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    books = {bits: codebook(bits) for bits in PLANES}
    tensors = {}
    for size in HEAD_SIZES:
        matrix = rotation(size)
        source, encoded = [], []
        while len(source) < 3:
            row = rows(rng, size)[len(source)]
            try:
                every = {
                    (bits, convention): encode(row.astype(np.float64), matrix, book, bits, convention)
                    for bits, book in reversed(books.items())
                    for convention in ("fitted", "norm")
                }
            except Undecided:
                continue
            source.append(row)
            encoded.append(every)
        tensors[f"d{size}.source"] = np.stack(source)
        for bits, convention in encoded[0]:
            name = f"d{size}.tq{bits}.{convention}"
            found = [every[bits, convention] for every in encoded]
            tensors[f"{name}.codes"] = np.stack([codes for codes, _, _ in found])
            tensors[f"{name}.scales"] = np.stack([scales for _, scales, _ in found])
            tensors[f"{name}.decoded"] = found[0][2].astype(np.float32)
    save_file(tensors, options.output)


if __name__ == "__main__":
    main()
