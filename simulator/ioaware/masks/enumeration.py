"""Statistics of any mask by asking for every element: slow, exact, and refused where it would take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from ..errors import refuse
from .base import Sees, Statistics, Turns
from .sweep import Axis, kept

if TYPE_CHECKING:
    from .base import Mask

MOST_PAIRS = 2**28  # some seconds
AT_ONCE = 2**21  # pairs in one array


def of_tiles(over: np.ufunc, mask: Mask, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Iterator[Sees]:
    """`over` (or, and) the pairs of each tile, query tile by query tile: (key tiles,). Raises InputError."""
    refuse_many(mask, "q_len x kv_len", q_len, kv_len)
    keys, starts = np.arange(kv_len)[None], np.arange(0, kv_len, tile_kv)
    few = max(AT_ONCE // kv_len, 1)
    for first in range(0, q_len, tile_q):
        end = min(first + tile_q, q_len)
        rows = (np.arange(low, min(low + few, end))[:, None] for low in range(first, end, few))
        parts = [over.reduceat(over.reduce(mask.sees(some, keys, q_len, kv_len)), starts) for some in rows]
        yield over.reduce(parts)


any_of_tiles = partial(of_tiles, np.logical_or)
all_of_tiles = partial(of_tiles, np.logical_and)


def refuse_many(mask: Mask, what: str, q: int, kv: int) -> None:
    """Refuses what would take minutes. Raises InputError."""
    if q * kv > MOST_PAIRS:
        rule = f"mask {mask} has no closed form, and at most {MOST_PAIRS:,} are looked at one by one"
        raise refuse(what, f"{q:,} x {kv:,}", rule, f"{isqrt(MOST_PAIRS):,} x {isqrt(MOST_PAIRS):,}")


def statistics(mask: Mask, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
    """The five sums over visible tiles."""
    keys = Axis(kv_len, tile_kv)
    tiles = rows = cols = cells = last = 0
    for number, visible in enumerate(mask.visible_tiles(q_len, kv_len, tile_q, tile_kv)):
        height, count = min(tile_q, q_len - number * tile_q), int(visible.sum())
        width = count * tile_kv - int(visible[-1]) * keys.short
        tiles += count
        rows += height * count
        cols += width
        cells += height * width
        last += int(visible[-1])
    return Statistics(tiles, rows, cols, cells, last)


def turns(mask: Mask, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
    """What a walk back and forth over the visible key tiles of each query tile finds on chip."""
    seen = (np.flatnonzero(visible) for visible in mask.visible_tiles(q_len, kv_len, tile_q, tile_kv))
    ends = np.array([(n, tiles[0], tiles[-1]) for n, tiles in enumerate(seen) if tiles.size], np.int64).reshape(-1, 3)
    return kept(ends[:, 0], ends[:, 1], ends[:, 2], Axis(kv_len, tile_kv))
