"""Bands: full, causal and sliding-window masks, with exact closed forms for every size.

The visible key tiles of a query tile are those from a first one up to an end, and both are staircases in the query
tile: sums of floors, by Euclid's algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import refuse
from .base import Mask, Statistics, Turns

if TYPE_CHECKING:
    from .base import Positions, Sees


@dataclass(frozen=True)
class Band(Mask):
    """Query q sees key k iff `-left <= k - (q + kv_len - q_len) <= right`; None is unbounded.

    The band is aligned bottom-right, as FlashAttention-2 aligns it: the last query's own key is the last key.
    With `top_left` query 0's own key is key 0, as PyTorch's `is_causal` has it: `-left <= k - q <= right`.
    """

    left: int | None = None
    right: int | None = None
    top_left: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, side in (("left", self.left), ("right", self.right)):
            if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 0):
                raise refuse(f"Band {name}", side, "a number of keys beside the query's own, or None for all", 0)
        if self.left is None and self.right is None:
            object.__setattr__(self, "top_left", False)  # whatever is aligned: everything is visible

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """The element mask of queries `q` and keys `k` (broadcast against each other): bool."""
        import numpy as np

        gap = k - q if self.top_left else k - (q + (kv_len - q_len))
        ok = np.ones(gap.shape, bool)
        if self.left is not None:
            ok &= gap >= -self.left
        if self.right is not None:
            ok &= gap <= self.right
        return ok

    def causal(self) -> Band:
        """The same band up to the query's own key."""
        return Band(self.left, 0, self.top_left, pack=self.pack)

    def statistics(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
        """The five sums, exact for every size, in O(log(q_len)) integer steps."""
        left, right = self._sides(q_len, kv_len)
        found = _band(left, right, q_len, self.pack * kv_len, tile_q, self.pack * tile_kv)
        if self.pack == 1:
            return found
        return found._replace(cols=found.cols // self.pack, cells=found.cells // self.pack)

    def full_tiles(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> int:
        """Tiles in which every pair is visible, exact for every size, in O(log(q_len)) integer steps."""
        left, right = self._sides(q_len, kv_len, self.pack - 1)
        return _full(left, right, q_len, self.pack * kv_len, tile_q, self.pack * tile_kv)

    def turns(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
        """What is on chip already at the turns, exact for every size, in O(log(q_len)) integer steps."""
        left, right = self._sides(q_len, kv_len)
        if left is not None and left < 0:  # the last rows are behind all keys and see none: not walked
            q_len, left, right = q_len + left, 0, None if right is None else right + left
        tiles, rows = _turns(left, right, q_len, self.pack * kv_len, tile_q, self.pack * tile_kv)
        return Turns(tiles, rows // self.pack)

    def _sides(self, q_len: int, kv_len: int, spare: int = 0) -> tuple[int | None, int | None]:
        """The sides of the same band, bottom-right aligned, where each key is `pack` keys long and each row a query.

        A long key is visible to a row if one of its parts is; with `spare` = pack - 1, if all of them are.
        """
        shift = 0 if self.top_left else kv_len - q_len // self.pack
        moved = self.pack * (kv_len - shift) - q_len
        left = None if self.left is None else self.pack * self.left + spare + moved
        return left, None if self.right is None else self.pack * self.right + spare - moved

    def packed(self, rows: int) -> Band:
        """The same band with `rows` rows per query; where every key is visible, packing changes nothing."""
        return self if self.left is None and self.right is None else replace(self, pack=self.pack * rows)

    def name(self) -> str:
        """Full, causal, or a window with -1 for an unbounded side."""
        left, right = (-1 if side is None else side for side in (self.left, self.right))
        kind = {(-1, -1): "full", (-1, 0): "causal"}.get((left, right), "window")
        return kind + "-top-left" * self.top_left + f":{left},{right}" * (kind == "window")


FULL = Band()
CAUSAL = Band(right=0)


def window(left: int, right: int = 0) -> Band:
    """The sliding window of flash-attention's `window_size=(left, right)`: so many keys beside the own; -1 is all.

    `sliding_window=w` of transformers counts the own key too, w keys in all: it is `window(w - 1)`.
    """
    for name, side in (("left", left), ("right", right)):
        if isinstance(side, bool) or not isinstance(side, int) or side < -1:
            raise refuse(f"window {name}", side, "a number of keys beside the query's own, or -1 for all", -1)
    return Band(None if left == -1 else left, None if right == -1 else right)


@lru_cache(4096)
def _band(left: int | None, right: int | None, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
    """The visible key tiles of query tile i are [begin_i, end_i): two staircases in i, summed without enumerating.

    `short` is what the last key tile lacks.
    """
    query_tiles, key_tiles = -(-q_len // tile_q), -(-kv_len // tile_kv)
    if left is None and right is None:
        return Statistics(query_tiles * key_tiles, q_len * key_tiles, query_tiles * kv_len, q_len * kv_len, query_tiles)
    shift = kv_len - q_len
    short = key_tiles * tile_kv - kv_len
    tiles = rows = cols = cells = last = 0
    for first, count, height in _strips(q_len, tile_q):
        ends = (count * key_tiles, count)
        if right is not None:  # tile i ends with the tile of its last row's last key
            start = first + height - 1 + shift + right + tile_kv
            ends = _staircase(count, tile_q, start, tile_kv, key_tiles * tile_kv, key_tiles)
        begins = (0, 0)
        if left is not None:  # and begins with the tile of its first row's first key
            begins = _staircase(count, tile_q, first + shift - left, tile_kv, kv_len, key_tiles)
        visible, at_last = ends[0] - begins[0], ends[1] - begins[1]
        keys = visible * tile_kv - at_last * short
        tiles += visible
        rows += height * visible
        cols += keys
        cells += height * keys
        last += at_last
    return Statistics(tiles, rows, cols, cells, last)


def _strips(q_len: int, tile_q: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The query tiles of full height, and the last one, which may be ragged: (first row, how many tiles, height)."""
    last = (q_len - 1) // tile_q * tile_q
    return (0, last // tile_q, tile_q), (last, 1, q_len - last)


@lru_cache(4096)
def _full(left: int | None, right: int | None, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> int:
    """Tiles that no edge of the band cuts.

    Tile i has its first hidden key on the right behind `ends` whole key tiles, on the left inside of `begins`: two
    staircases of the same slope, so that either none of the one is below the other or none above. A ragged last key
    tile counts by itself: where it is not reached from the right any more and not yet from the left.
    """
    shift, whole = kv_len - q_len, kv_len // tile_kv
    edge, total = whole * tile_kv, 0
    for first, count, height in _strips(q_len, tile_q):
        ends, begins, reached, lost = count * whole, 0, 0, count
        if right is not None:
            hidden = first + shift + right + 1
            ends, _ = _staircase(count, tile_q, hidden, tile_kv, edge, whole)
            reached = _below(count, tile_q, hidden, kv_len)
        if left is not None:
            hidden = first + height - 1 + shift - left
            begins, _ = _staircase(count, tile_q, hidden + tile_kv - 1, tile_kv, edge, whole)
            lost = _below(count, tile_q, hidden, edge + 1)
        total += max(ends - begins, 0) + (max(lost - reached, 0) if kv_len > edge else 0)
    return total


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
