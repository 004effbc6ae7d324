"""Masks that are disjoint rectangles, each cut by a band: a few of them or very many."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from ..errors import refuse
from .band import FULL, Band
from .base import Mask, Positions, Statistics, Turns
from .sweep import Axis, Pieces, full_tiles, statistics, turns

LONGEST = 2**30  # rows of a side: sums over pairs then fit 64 bits
Bound: TypeAlias = "int | Positions"
Range: TypeAlias = tuple[Bound, Bound]  # from one up to another


@dataclass(frozen=True)
class Rectangles(Mask):
    """The base of all masks that have pieces; `pattern` says the same element by element, with other code."""

    @abstractmethod
    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The rectangles, for `q_len` queries; sides may stick out of the mask."""

    def check(self, q_len: int, kv_len: int) -> None:
        """Refuses lengths whose sums do not fit 64 bits."""
        super().check(q_len, kv_len)
        for name, length in (("q_len", q_len), ("kv_len", kv_len)):
            if length > LONGEST:
                raise refuse(name, length, "only bands are counted beyond 2^30 rows", LONGEST)

    def statistics(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
        """The five sums, exact, in one sweep over the tiles of a side."""
        return _statistics(self, q_len, kv_len, tile_q, tile_kv)

    def full_tiles(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> int:
        """Tiles, ragged ones too, in which every pair is visible: one sweep."""
        return _full(self, q_len, kv_len, tile_q, tile_kv)

    def turns(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
        """What is on chip already where a walk over the visible key tiles turns: one sweep over query tiles."""
        return turns(_inside(self, q_len, kv_len), Axis(q_len, tile_q, self.pack), Axis(kv_len, tile_kv))

    def pairs(self, q_len: int, kv_len: int) -> int:
        """|E|: how many (row, key) pairs are visible; a sum of trapezia."""
        p = _inside(self, q_len, kv_len)
        return self.pack * int((_below(p, p.above) - _below(p, -p.below - 1)).sum())


@lru_cache(4096)
def _statistics(mask: Rectangles, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
    return statistics(_inside(mask, q_len, kv_len), Axis(q_len, tile_q, mask.pack), Axis(kv_len, tile_kv))


@lru_cache(4096)
def _full(mask: Rectangles, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> int:
    return full_tiles(_inside(mask, q_len, kv_len), Axis(q_len, tile_q, mask.pack), Axis(kv_len, tile_kv))


@lru_cache(16)
def _inside(mask: Rectangles, q_len: int, kv_len: int) -> Pieces:
    """The pieces, as far as they are inside of the mask; `q_len` counts rows."""
    mask.check(q_len, kv_len)
    queries = q_len // mask.pack
    p = mask.pieces(queries, kv_len)
    p = p._replace(q0=np.maximum(p.q0, 0), q1=np.minimum(p.q1, queries))
    p = p._replace(k0=np.maximum(p.k0, 0), k1=np.minimum(p.k1, kv_len))
    return p.where((p.q0 < p.q1) & (p.k0 < p.k1))


def _below(p: Pieces, gap: Positions) -> Positions:
    """Pairs of each piece with k - q <= gap: query q has q - s of them, at least none and at most all keys."""
    s, keys = p.k0 - np.clip(gap, p.k0 - p.q1, p.k1 - p.q0) - 1, p.k1 - p.k0
    return _ramp(p.q1 - 1 - s) - _ramp(p.q1 - 1 - s - keys) - _ramp(p.q0 - 1 - s) + _ramp(p.q0 - 1 - s - keys)


def _ramp(n: Positions) -> Positions:
    """1 + 2 + ... + n, and nothing for n < 0."""
    n = np.maximum(n, 0)
    return n * (n + 1) // 2


def aligned(q_len: int, kv_len: int, rows: Range, keys: Range, band: Band = FULL) -> Pieces:
    """Rectangles of positions p = q + kv_len - q_len and keys, all cut by one band: -left <= k - p <= right."""
    shift, wide = kv_len - q_len, q_len + kv_len
    sides = np.broadcast_arrays(*(np.asarray(side, np.int64).reshape(-1) for side in (*rows, *keys)))
    left, right = (wide if side is None else min(side, wide) for side in (band.left, band.right))
    below, above = np.full_like(sides[0], left - shift), np.full_like(sides[0], right + shift)
    return Pieces(sides[0] - shift, sides[1] - shift, sides[2], sides[3], below, above)


def joined(*pieces: Pieces) -> Pieces:
    """All of them."""
    return Pieces(*(np.concatenate(sides) for sides in zip(*pieces, strict=True)))


def inner_band(band: Band) -> None:
    """Refuses a band that a pattern cannot be cut by: the pattern has the alignment and the packing."""
    if band.top_left or band.pack != 1:
        raise refuse("band", band, "a pattern is cut by a bottom-right band of queries", Band(band.left, band.right))
