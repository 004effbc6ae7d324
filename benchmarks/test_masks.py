"""Counting masks at N = 2^20, tiles of 128 x 64. Nothing is asserted: read the table."""

from __future__ import annotations

import numpy as np
import pytest

from ioaware.masks import (
    CAUSAL,
    Band,
    BigBird,
    Blocks,
    Chunks,
    Documents,
    Fixed,
    Longformer,
    Prefix,
    Sinks,
    Strided,
    band,
    rectangles,
    sparse,
)

N = 2**20
SIZES = (N, N, 128, 64)
BORDERS = np.sort(np.random.default_rng(0).choice(np.arange(1, N), 9_999, replace=False))
LENGTHS = tuple(np.diff(BORDERS, prepend=0, append=N).tolist())
MASKS = {
    "causal": CAUSAL, "window": Band(4095, 0), "sinks": Sinks(4, 4096), "prefix": Prefix(1000),
    "longformer": Longformer(256, 64), "chunks": Chunks(8192), "fixed": Fixed(128, 32),
    "10^4 documents": Documents(LENGTHS), "10^4 causal documents": Documents(LENGTHS, CAUSAL),
    "bigbird": BigBird(64), "causal bigbird": BigBird(64, band=CAUSAL), "strided": Strided(64, 128),
    "5 % of 2048^2 blocks": Blocks.of_matrix(np.random.default_rng(0).random((2048, 2048)) < 0.05, 512, 512),
}  # fmt: skip
FEW = {name: MASKS[name] for name in ("longformer", "10^4 documents", "bigbird", "strided")}


def forget():
    """Sums are cached; the pieces of a mask stay, as they do in a search for tiles."""
    for cached in (band._band, band._full, band._turns, rectangles._statistics, rectangles._full):
        cached.cache_clear()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("what", ["statistics", "full_tiles"])
@pytest.mark.benchmark(group="masks N=1M")
def test_tiles(benchmark, mask, what):
    getattr(mask, what)(*SIZES)
    benchmark.pedantic(getattr(mask, what), SIZES, setup=forget, rounds=5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.benchmark(group="masks N=1M: pairs and seen rows")
def test_pairs(benchmark, mask):
    benchmark.pedantic(lambda: (mask.pairs(N, N), mask.seen_rows(N, N)), setup=forget, rounds=5)


@pytest.mark.parametrize("mask", FEW.values(), ids=FEW)
@pytest.mark.benchmark(group="masks N=1M: a mask's rectangles")
def test_rectangles(benchmark, mask):
    """From nothing: random blocks are drawn again."""

    def forget_all():
        forget()
        rectangles._inside.cache_clear()
        sparse._layout.cache_clear()

    benchmark.pedantic(mask.statistics, SIZES, setup=forget_all, rounds=3)
