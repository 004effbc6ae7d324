"""flash2: FlashAttention-2, forward (Dao 2023, arXiv 2307.08691, Algorithm 1): the simulator's program on a CPU.

A thread keeps one query tile, its output and statistics in scratch of its own, which its caches hold, and walks the
keys; O and L are written once. Key tiles past the diagonal are skipped.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numba import njit, prange

from ioaware.readers.evaluate import TileSizes

from ..tensors import Array
from .exp import exp
from .matmul import STRIP, VECTORS, add_product
from .strip import (
    aligned,
    exponentials,
    load_queries,
    maximum,
    normalize,
    rescale,
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


def scratch(threads: int, head_dim: int, tiles: TileSizes) -> tuple[Array, Array]:
    """Per thread: Q^T, O^T, m and l of every strip of a query tile; the scores of one strip and key tile."""
    kept = aligned(threads, strips(tiles.q), whole_pages(2 * head_dim + 2))
    return kept, aligned(threads, whole_pages(tiles.kv))


@njit(parallel=True, cache=True)
def flash2(
    work: Array, q: Array, k: Array, v: Array, o: Array, lse: Array,
    tile_kv: int, horizon: int, scale: np.float32, kept: Array, s: Array,
) -> None:  # fmt: skip
    """O and L from Q, K and V: (heads or kv_heads, batch, rows, columns), contiguous. work: what each thread does.

    horizon: how many keys query 0 sees; query i sees i more. kept, s: `scratch`.
    """
    for thread in prange(len(work)):
        for turn in range(work.shape[1]):
            tile = work[thread, turn]
            head, kv_head, sequence = tile.head, tile.head * len(k) // len(q), tile.sequence
            _query_tile(
                q[head, sequence, tile.first : tile.last], k[kv_head, sequence], v[kv_head, sequence],
                o[head, sequence, tile.first : tile.last], lse[head, sequence, tile.first : tile.last],
                tile_kv, tile.first + horizon, scale, kept[thread], s[thread],
            )  # fmt: skip


@njit(cache=True)
def _query_tile(
    q: Array, k: Array, v: Array, o: Array, lse: Array,
    tile_kv: int, horizon: int, scale: np.float32, kept: Array, s: Array,
) -> None:  # fmt: skip
    """One query tile, whose first query sees the keys below the horizon; all tensors are (rows, columns)."""
    d, starts = q.shape[1], range(0, len(q), STRIP)
    for start in starts:
        strip = kept[start // STRIP]
        load_queries(q[start:], scale, strip[:d])
        strip[d:] = ZERO
        strip[2 * d] = MINUS_INFINITY
    for first in range(0, seen(0, len(k), horizon, len(q)), tile_kv):
        last = min(first + tile_kv, len(k))
        for start in starts:
            keys = seen(first, last, horizon, min(start + STRIP, len(q)))
            if keys:
                strip, tile = kept[start // STRIP], s[:keys]
                scores(strip[:d], k[first : first + keys], horizon + start - first, tile)
                _online_softmax(strip[d : 2 * d], strip[2 * d :], tile)
                add_product(strip[d : 2 * d], v[first : first + keys].T, tile)
    for start in starts:
        strip = kept[start // STRIP]
        normalize(strip[d : 2 * d], strip[2 * d + 1 :])
        store_output(strip[d : 2 * d], o[start:])
        store_logarithms(strip[2 * d], strip[2 * d + 1], lse[start:])


@njit(cache=True)
def _online_softmax(acc: Array, statistics: Array, s: Array) -> None:
    """Lines 8 to 10 of Algorithm 1: new maximum m and sum l, s becomes exp(s - m), what was summed up is rescaled."""
    for n in range(VECTORS):
        m = load(statistics, 0, n)
        new = maximum(m, s, n)
        shift = to_subtract(new)
        alpha = exp(m - shift)
        store(statistics, 0, n, new)
        store(statistics, 1, n, exponentials(s, shift, alpha * load(statistics, 1, n), n, s))
        rescale(acc, alpha, n)
