"""naive: standard attention, forward (arXiv 2205.14135, Algorithm 0): the simulator's program on a CPU.

Three passes, and S and P make a round trip through memory. Arithmetic, tiles and threads are those of flash2. S and P
lie strip by strip, (heads, batch, strips, kv_len, STRIP): every pass reads and writes them one line after another.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numba import njit, prange

from ioaware.readers.evaluate import TileSizes

from ..tensors import Array
from .matmul import STRIP, VECTORS, add_product
from .strip import (
    aligned,
    exponentials,
    load_queries,
    maximum,
    normalize,
    scores,
    seen,
    store_logarithms,
    store_output,
    strips,
    to_subtract,
    whole_pages,
)
from .vector import load, store

MINUS_INFINITY, ZERO = np.float32(-inf), np.float32(0)


def scratch(threads: int, head_dim: int, tiles: TileSizes) -> Array:
    """Per thread: Q^T or O^T, and m and l, of every strip of a query tile."""
    return aligned(threads, strips(tiles.q), whole_pages(head_dim + 2))


@njit(parallel=True, cache=True)
def scores_pass(
    work: Array, q: Array, k: Array, s: Array, tile_kv: int, horizon: int, scale: np.float32, kept: Array
) -> None:
    """S = scale Q K^T; Q and K are (heads or kv_heads, batch, rows, head_dim). work: what each thread does.

    horizon: how many keys query 0 sees; query i sees i more. kept: `scratch`.
    """
    for thread in prange(len(work)):
        for turn in range(work.shape[1]):
            tile = work[thread, turn]
            head, kv_head, sequence = tile.head, tile.head * len(k) // len(q), tile.sequence
            _scores(
                q[head, sequence, tile.first : tile.last], k[kv_head, sequence], s[head, sequence, tile.strip :],
                tile_kv, tile.first + horizon, scale, kept[thread],
            )  # fmt: skip


@njit(cache=True)
def _scores(
    q: Array, k: Array, s: Array, tile_kv: int, horizon: int, scale: np.float32, kept: Array
) -> None:  # fmt: skip
    d, starts = q.shape[1], range(0, len(q), STRIP)
    for start in starts:
        load_queries(q[start:], scale, kept[start // STRIP, :d])
    for first in range(0, seen(0, len(k), horizon, len(q)), tile_kv):
        last = min(first + tile_kv, len(k))
        for start in starts:
            n, keys = start // STRIP, seen(first, last, horizon, min(start + STRIP, len(q)))
            scores(kept[n, :d], k[first : first + keys], horizon + start - first, s[n, first : first + keys])


@njit(parallel=True, cache=True)
def softmax_pass(work: Array, s: Array, p: Array, lse: Array, horizon: int, kept: Array) -> None:
    """P = softmax(S), row by row, and L (heads, batch, q_len, 1)."""
    for thread in prange(len(work)):
        for turn in range(work.shape[1]):
            tile = work[thread, turn]
            head, sequence = tile.head, tile.sequence
            for start in range(tile.first, tile.last, STRIP):
                strip = tile.strip + (start - tile.first) // STRIP
                keys = seen(0, s.shape[3], horizon, min(start + STRIP, tile.last))
                rows = lse[head, sequence, start : tile.last]
                _softmax(s[head, sequence, strip, :keys], p[head, sequence, strip, :keys], rows, kept[thread, 0, -2:])


@njit(cache=True)
def _softmax(s: Array, p: Array, lse: Array, statistics: Array) -> None:
    statistics[0], statistics[1] = MINUS_INFINITY, ZERO
    for n in range(VECTORS):
        m = maximum(load(statistics, 0, n), s, n)
        store(statistics, 0, n, m)
        store(statistics, 1, n, exponentials(s, to_subtract(m), load(statistics, 1, n), n, p))
    normalize(p, statistics[1:])
    store_logarithms(statistics[0], statistics[1], lse)


@njit(parallel=True, cache=True)
def values_pass(work: Array, p: Array, v: Array, o: Array, tile_kv: int, horizon: int, kept: Array) -> None:
    """O = P V: V and O are (kv_heads or heads, batch, rows, head_dim)."""
    for thread in prange(len(work)):
        for turn in range(work.shape[1]):
            tile = work[thread, turn]
            head, kv_head, sequence = tile.head, tile.head * len(v) // len(o), tile.sequence
            _values(
                p[head, sequence, tile.strip :], v[kv_head, sequence], o[head, sequence, tile.first : tile.last],
                tile_kv, tile.first + horizon, kept[thread],
            )  # fmt: skip


@njit(cache=True)
def _values(p: Array, v: Array, o: Array, tile_kv: int, horizon: int, kept: Array) -> None:
    d, starts = o.shape[1], range(0, len(o), STRIP)
    kept[:] = ZERO
    for first in range(0, seen(0, len(v), horizon, len(o)), tile_kv):
        last = min(first + tile_kv, len(v))
        for start in starts:
            n, keys = start // STRIP, seen(first, last, horizon, min(start + STRIP, len(o)))
            add_product(kept[n, :d], v[first : first + keys].T, p[n, first : first + keys])
    for start in starts:
        store_output(kept[start // STRIP, :d], o[start:])
