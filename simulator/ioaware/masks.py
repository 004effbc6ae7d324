"""Masks: which keys a query sees. A program asks a mask only two things, and the two are independent code:

sees(q, k)   the element mask                        (execute, and the walk over visible tiles)
turns        what walks back and forth over visible tiles find on chip (flash2_serpentine only)
statistics   four sums over visible tiles (i, j), all that a closed form needs:
             tiles = #(i, j)   rows = sum |i|   cols = sum |j|   cells = sum |i||j|
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .errors import refuse

if TYPE_CHECKING:
    import numpy as np

    Positions: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Statistics(NamedTuple):
    """Sums over the visible pairs of a query tile i and a key tile j; |i| is the number of rows of tile i."""

    tiles: int
    rows: int
    cols: int
    cells: int


class Turns(NamedTuple):
    """Key tiles that need not be loaded when the visible ones are walked back and forth, and their rows."""

    tiles: int
    rows: int


@dataclass(frozen=True)
class Band:
    """Query q sees key k iff `-left <= k - (q + kv_len - q_len) <= right`; None is unbounded.

    The band is aligned bottom-right, as FlashAttention-2 aligns it: the last query's own key is the last key.
    """

    left: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        for name, side in (("left", self.left), ("right", self.right)):
            if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 0):
                raise refuse(f"Band {name}", side, "a number of keys beside the query's own, or None for all", 0)

    def sees(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The element mask of queries `q` and keys `k` (broadcast against each other): bool."""
        import numpy as np

        gap = k - (q + (kv_len - q_len))
        ok = np.ones(gap.shape, bool)
        if self.left is not None:
            ok &= gap >= -self.left
        if self.right is not None:
            ok &= gap <= self.right
        return ok

    def statistics(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
        """The four sums, exact for every size, in O(log(q_len)) integer steps."""
        return _band(self.left, self.right, q_len, kv_len, tile_q, tile_kv)

    def turns(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
        """What is on chip already at the turns, exact for every size, in O(log(q_len)) integer steps."""
        return _turns(self.left, self.right, q_len, kv_len, tile_q, tile_kv)

    def pairs(self, q_len: int, kv_len: int) -> int:
        """|E|: how many (query, key) pairs are visible."""
        return self.statistics(q_len, kv_len, 1, 1).tiles

    def seen_rows(self, q_len: int, kv_len: int) -> tuple[int, int]:
        """How many queries see a key, and how many keys are seen: what no algorithm can leave unread."""
        return self.statistics(q_len, kv_len, 1, kv_len).tiles, self.statistics(q_len, kv_len, q_len, 1).tiles

    def __str__(self) -> str:
        names: dict[object, str] = {(None, None): "full", (None, 0): "causal"}
        return names.get((self.left, self.right), f"band({self.left},{self.right})")


FULL = Band()
CAUSAL = Band(right=0)


@lru_cache(4096)
def _band(left: int | None, right: int | None, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
    """The visible key tiles of query tile i are [begin_i, end_i): two staircases in i, summed without enumerating.

    The last query tile may be ragged and is summed by itself; `short` is what the last key tile lacks.
    """
    query_tiles, key_tiles = -(-q_len // tile_q), -(-kv_len // tile_kv)
    if left is None and right is None:
        return Statistics(query_tiles * key_tiles, q_len * key_tiles, query_tiles * kv_len, q_len * kv_len)
    shift = kv_len - q_len
    short = key_tiles * tile_kv - kv_len
    tiles = rows = cols = cells = 0
    last = (query_tiles - 1) * tile_q
    for first, count, height in ((0, query_tiles - 1, tile_q), (last, 1, q_len - last)):
        ends = (count * key_tiles, count)
        if right is not None:  # tile i ends with the tile of its last row's last key
            start = first + height - 1 + shift + right + tile_kv
            ends = _staircase(count, tile_q, start, tile_kv, key_tiles * tile_kv, key_tiles)
        begins = (0, 0)
        if left is not None:  # and begins with the tile of its first row's first key
            begins = _staircase(count, tile_q, first + shift - left, tile_kv, kv_len, key_tiles)
        visible = ends[0] - begins[0]
        keys = visible * tile_kv - (ends[1] - begins[1]) * short
        tiles += visible
        rows += height * visible
        cols += keys
        cells += height * keys
    return Statistics(tiles, rows, cols, cells)


@lru_cache(4096)
def _turns(left: int | None, right: int | None, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
    """Walk i enters at one end of the visible key tiles [begin_i, end_i) and stops at the other, which stays on chip.

    So a tile is kept where an odd i has end_i = end_(i-1), and where an even i has begin_i = begin_(i-1); the last key
    tile, with fewer rows, counts by itself. Only the first tiles see nothing. Pairs of walks are two staircases.
    """
    shift, walks, key_tiles = kv_len - q_len, -(-q_len // tile_q), -(-kv_len // tile_kv)
    pairs, step, unseen = (walks - 1) // 2, 2 * tile_q, 0
    kept = at_last = walks // 2
    if right is not None:
        start = tile_q - 1 + shift + right + tile_kv  # end_i = (i tile_q + start) // tile_kv, but for a ragged tile
        unseen = _below(pairs, step, start + tile_q, tile_kv)
        before, at_last = _staircase(pairs, step, start, tile_kv, key_tiles * tile_kv, key_tiles)
        after, _ = _staircase(pairs, step, start + tile_q, tile_kv, key_tiles * tile_kv, key_tiles)
        kept = at_last if tile_q >= tile_kv else pairs - (after - before) - unseen
        if walks % 2 == 0:  # the last pair, whose second tile may be ragged
            rows = ((walks - 1) * tile_q - 1, q_len - 1)
            first, last = (min(max((row + shift + right) // tile_kv + 1, 0), key_tiles) for row in rows)
            kept, at_last = kept + (0 < first == last), at_last + (0 < first == last == key_tiles)
    if left is None or key_tiles == 1:
        again = pairs - unseen
        again_at_last = again if key_tiles == 1 else 0
    else:
        start, top = tile_q + shift - left, key_tiles - 1  # begin_i, of odd i first
        before, again_at_last = _staircase(pairs, step, start, tile_kv, top * tile_kv, top)
        after, _ = _staircase(pairs, step, start + tile_q, tile_kv, top * tile_kv, top)
        at_first = _below(pairs, step, start + tile_q, tile_kv)
        again = (again_at_last + at_first if tile_q >= tile_kv else pairs - (after - before)) - unseen
    tiles, short = kept + again, key_tiles * tile_kv - kv_len
    return Turns(tiles, tiles * tile_kv - (at_last + again_at_last) * short)


def _below(n: int, a: int, b: int, limit: int) -> int:
    """How many i < n have a i + b < limit."""
    return min(max(-(-(limit - b) // a), 0), n)


def _staircase(n: int, a: int, b: int, m: int, full: int, top: int) -> tuple[int, int]:
    """Sum over i < n of `top where a i + b >= full, else max(0, (a i + b) // m)`; and how many i reach the top."""
    below_top = _below(n, a, b, full)
    zero = _below(below_top, a, b, m)
    return _floor_sum(below_top - zero, m, a, a * zero + b) + (n - below_top) * top, n - below_top


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Sum over i < n of `(a i + b) // m` for a, b >= 0, by Euclid's algorithm."""
    total = 0
    while n and m:
        total += (n - 1) * n // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        n, b, m, a = (a * n + b) // m, (a * n + b) % m, a, m
    return total
