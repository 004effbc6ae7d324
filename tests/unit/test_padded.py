"""Whole tiles: what `padded` says in closed form, against a walk over every tile with the element mask.

What a kernel loads and multiplies is written out here once more, tile by tile, from the papers' algorithms.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from ioaware.algorithms import find
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.count import count_kernels
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.padded import Padded, Padding, Product, padded
from tests.property.test_masks import element_mask


class Head(NamedTuple):
    """The tiles of one head of one sequence: their whole sizes, and which pairs of tiles have a visible element."""

    q_tiles: range
    kv_tiles: range
    visible: set
    q: int  # rows of a whole query tile
    kv: int
    d: int  # the padded width
    group: int

    @property
    def pairs(self):
        """Visible pairs of a query tile and a key tile."""
        return sorted(self.visible)

    def keys_of(self, i):
        """Rows of the key tiles that query tile i sees."""
        return sum(self.kv for first, _ in self.visible if first == i)


def tiled(problem, q_len, kv_len, tiles, width):
    mask = element_mask(problem.band, q_len, kv_len)
    q_tiles, kv_tiles = range(-(-q_len // tiles.q)), range(-(-kv_len // tiles.kv))
    visible = {
        (i, j)
        for i in q_tiles
        for j in kv_tiles
        if mask[i * tiles.q : (i + 1) * tiles.q, j * tiles.kv : (j + 1) * tiles.kv].any()
    }
    return Head(q_tiles, kv_tiles, visible, tiles.q, tiles.kv, width, problem.group)


# ------------------------------------------------------------------------------------------------ algorithms
# A walk yields, for one key/value head, (kernel, tensor, elements) of a load, or (kernel, number of the product in the
# text, rows, inner, columns) of a matrix product.
def standard(softmax_reads):
    """Three kernels; the middle one reads every score of a visible tile so many times."""

    def walk(t):
        for _ in range(t.group):
            for i, _ in t.pairs:
                yield "S = QK^T", "Q", t.q * t.d
                yield "S = QK^T", "K", t.kv * t.d
                yield "S = QK^T", 0, t.q, t.d, t.kv
                yield "O = PV", "P", t.q * t.kv
                yield "O = PV", "V", t.kv * t.d
                yield "O = PV", 0, t.q, t.kv, t.d
            for i in t.q_tiles:
                for _ in range(t.q):
                    yield "P = softmax S", "S", softmax_reads * t.keys_of(i)

    return walk


def flash1(t):
    for _ in range(t.group):
        for j in t.kv_tiles:
            yield "flash1", "K", t.kv * t.d
            yield "flash1", "V", t.kv * t.d
        for _ in t.pairs:
            yield "flash1", "Q", t.q * t.d
            yield "flash1", "O", t.q * t.d
            yield "flash1", "l", t.q
            yield "flash1", "m", t.q
            yield "flash1", 0, t.q, t.d, t.kv
            yield "flash1", 1, t.q, t.kv, t.d


def flash2(t):
    for _ in range(t.group):
        for i in t.q_tiles:
            yield "flash2", "Q", t.q * t.d
        for _ in t.pairs:
            yield "flash2", "K", t.kv * t.d
            yield "flash2", "V", t.kv * t.d
            yield "flash2", 0, t.q, t.d, t.kv
            yield "flash2", 1, t.q, t.kv, t.d


def flash2_backward(t):
    yield from _preprocess(t)
    yield from _of_key_tiles(t, "main", dq=True)
    for _ in range(t.group):
        for i in t.q_tiles:
            yield "convert", "dQ_sum", t.q * t.d


def flash2_no_atomics(t):
    yield from _preprocess(t)
    yield from _of_key_tiles(t, "dK, dV", dq=False)
    for _ in range(t.group):
        for i in t.q_tiles:
            for tensor, columns in (("Q", t.d), ("dO", t.d), ("L", 1), ("D", 1)):
                yield "dQ", tensor, t.q * columns
        for _ in t.pairs:
            yield "dQ", "K", t.kv * t.d
            yield "dQ", "V", t.kv * t.d
            yield "dQ", 0, t.q, t.d, t.kv
            yield "dQ", 1, t.q, t.d, t.kv
            yield "dQ", 2, t.q, t.kv, t.d


def _preprocess(t):
    for _ in range(t.group):
        for i in t.q_tiles:
            yield "preprocess", "O", t.q * t.d
            yield "preprocess", "dO", t.q * t.d


def _of_key_tiles(t, kernel, dq):
    for j in t.kv_tiles:
        yield kernel, "K", t.kv * t.d
        yield kernel, "V", t.kv * t.d
    for _ in range(t.group):
        for _ in t.pairs:
            for tensor, columns in (("Q", t.d), ("dO", t.d), ("L", 1), ("D", 1)):
                yield kernel, tensor, t.q * columns
            # S = Q K^T, dV += P^T dO, dP = dO V^T, dQ += dS K where it is here, dK += dS^T Q
            products = [(t.q, t.d, t.kv), (t.kv, t.q, t.d), (t.q, t.d, t.kv), (t.q, t.kv, t.d), (t.kv, t.q, t.d)]
            for n, shape in enumerate(products if dq else products[:3] + products[4:]):
                yield kernel, n, *shape


def split_kv(t):
    for j in t.kv_tiles:
        yield "split", "K", t.kv * t.d
        yield "split", "V", t.kv * t.d
    for _ in range(t.group):
        for i in t.q_tiles:
            for j in t.kv_tiles:  # hidden or not: every row has an output of every split
                yield "split", "Q", t.q * t.d
                yield "split", 0, t.q, t.d, t.kv
                yield "split", 1, t.q, t.kv, t.d
                yield "combine", "O_part", t.q * t.d
                yield "combine", "L_part", t.q


WALKS = {
    ("naive", "fwd"): standard(1), ("safe_softmax", "fwd"): standard(3), ("online_softmax", "fwd"): standard(2),
    ("flash1", "fwd"): flash1, ("flash2", "fwd"): flash2, ("flash2", "bwd"): flash2_backward,
    ("flash2_no_atomics", "bwd"): flash2_no_atomics, ("split_kv", "fwd"): split_kv,
}  # fmt: skip


def enumerated(walk, problem, tiles, width):
    """Everything that a walk yields, over all sequences and key/value heads, as `padded` reports it."""
    loads, dots = {}, {}
    for q_len, kv_len in problem.sequences:
        for _ in range(problem.kv_heads):
            for kernel, what, *amount in walk(tiled(problem, q_len, kv_len, tiles, width)):
                if isinstance(what, str):
                    loads.setdefault(kernel, Counter())[what] += amount[0]
                else:
                    rows, inner, columns = amount
                    of_kernel = dots.setdefault(kernel, {})
                    before = of_kernel.get(what, Product(0, 0, 0))
                    this = rows * inner, inner * columns, rows * inner * columns
                    of_kernel[what] = Product(*(a + b for a, b in zip(before, this, strict=True)))
    return loads, {kernel: [found[n] for n in sorted(found)] for kernel, found in dots.items()}


# ------------------------------------------------------------------------------------------------ they agree
PROBLEMS = {
    "one element": {"q_len": 1, "kv_len": 1},
    "whole tiles": {"q_len": 12, "kv_len": 20},
    "ragged": {"q_len": 13, "kv_len": 22},
    "causal, square": {"q_len": 22, "kv_len": 22, "mask": "causal"},
    "causal, more keys": {"q_len": 7, "kv_len": 23, "mask": "causal"},
    "causal, empty rows": {"q_len": 23, "kv_len": 7, "mask": "causal"},
    "band": {"q_len": 21, "kv_len": 26, "mask": Band(5, 3)},
    "grouped heads": {"q_len": 9, "kv_len": 11, "heads": 6, "kv_heads": 2, "batch": 3, "mask": "causal"},
    "lengths": {"q_len": (3, 14, 3), "kv_len": (17, 5, 17), "heads": 2, "mask": "causal"},
}


def both(algorithm, direction, shape, tiles, width):
    problem = AttentionProblem(head_dim=6, direction=direction, dtype="fp32", **shape)
    program = record(find(algorithm).text(direction), problem.features)
    got = padded(program, problem, tiles, Padding(tiles.q, tiles.kv, width))
    return got, enumerated(WALKS[algorithm, direction], problem, tiles, width)


@pytest.mark.parametrize("tiles", [TileSizes(4, 5), TileSizes(5, 2), TileSizes(1, 1), TileSizes(32, 32)], ids=str)
@pytest.mark.parametrize("shape", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize(("algorithm", "direction"), WALKS)
def test_whole_tiles_are_those_of_a_walk(algorithm, direction, shape, tiles):
    got, (loads, dots) = both(algorithm, direction, shape, tiles, width=8)
    assert {kernel: found.loads for kernel, found in got.items() if any(found.loads.values())} == loads
    assert {kernel: found.dots for kernel, found in got.items() if found.dots and found.dots[0].left} == dots


@pytest.mark.parametrize(("algorithm", "direction"), WALKS)
def test_without_padding_loads_are_those_of_the_count(algorithm, direction):
    """Sizes that are whole already: nothing is filled up."""
    problem = AttentionProblem(q_len=12, kv_len=20, head_dim=6, heads=2, direction=direction, dtype="fp32")
    program = record(find(algorithm).text(direction), problem.features)
    tiles = TileSizes(4, 5)
    whole = padded(program, problem, tiles, Padding(4, 5, 6))
    for kernel, traffic in count_kernels(program, problem, tiles).items():
        read = {name: moved.read // 4 for name, moved in traffic.tensors.items() if moved.read}
        assert whole.get(kernel, Padded({}, [])).loads == read, kernel


def test_a_split_is_filled_up_to_its_inner_tiles_only():
    """42 keys in splits of 32, of which 8 are in shared memory at a time: 48 rows, not 64."""
    problem = AttentionProblem(q_len=3, kv_len=42, head_dim=6, dtype="fp32")
    program = record(find("split_kv").text("fwd"), problem.features)
    found = padded(program, problem, TileSizes(4, 32), Padding(4, 8, 8))["split"]
    assert found.loads == {"Q": 2 * 4 * 8, "K": 48 * 8, "V": 48 * 8}
    assert found.dots == [Product(2 * 4 * 8, 48 * 8, 4 * 48 * 8), Product(4 * 48, 48 * 8, 4 * 48 * 8)]


@pytest.mark.parametrize(
    "defect",
    [{"q": 1}, {"kv": 1}, {"d": 1}],
    ids=["query tiles ragged", "key tiles ragged", "columns ragged"],
)
def test_the_walk_tells_whole_from_ragged(defect, monkeypatch):
    """A walk with another size for one side does not agree: the comparison sees all three."""
    right = tiled
    monkeypatch.setitem(
        globals(), "tiled", lambda *a: (t := right(*a))._replace(**{n: getattr(t, n) - m for n, m in defect.items()})
    )
    got, (loads, dots) = both("flash2", "fwd", PROBLEMS["ragged"], TileSizes(4, 5), 8)
    assert got["flash2"].loads != loads["flash2"]
    assert got["flash2"].dots != dots["flash2"]
