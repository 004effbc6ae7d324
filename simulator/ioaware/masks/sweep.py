"""Counting visible and full tiles of disjoint rectangles that bands cut: the tiles of one side are swept.

A tile of the outer side meets some pieces; of each it sees one interval of the inner side, because the intervals of
neighbouring positions overlap or touch. Intervals of one tile are sorted and merged. Everything is an array over
(piece, outer tile) pairs; either side can be the outer one, and the one with fewer pairs is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np

from .base import Positions, Sees, Statistics, Turns

MOST_LINES = 2**20  # (piece, outer tile) pairs at a time: arrays that stay in a cache


class Pieces(NamedTuple):
    """Rectangles [q0, q1) x [k0, k1) that share no pair; in each, q sees k iff -below <= k - q <= above."""

    q0: Positions
    q1: Positions
    k0: Positions
    k1: Positions
    below: Positions
    above: Positions

    def turned(self) -> Self:
        """Keys as queries."""
        return type(self)(self.k0, self.k1, self.q0, self.q1, self.above, self.below)

    def seeing(self) -> Self:
        """The same without the queries of a piece that see none of its keys."""
        q0 = np.maximum(self.q0, self.k0 - self.above)
        q1 = np.minimum(self.q1, self.k1 + self.below)
        return self._replace(q0=q0, q1=q1).where(q0 < q1)

    def where(self, chosen: Positions | Sees) -> Self:
        """The chosen pieces: a mask, or indices."""
        return type(self)(*(side[chosen] for side in self))


class Axis(NamedTuple):
    """One side of the mask: rows cut into tiles, `pack` rows per position."""

    rows: int
    tile: int
    pack: int = 1

    @property
    def tiles(self) -> int:
        """How many tiles there are; the last one may be ragged."""
        return -(-self.rows // self.tile)

    @property
    def short(self) -> int:
        """How many rows the last tile lacks."""
        return self.tiles * self.tile - self.rows

    def heights(self, tile: Positions) -> Positions:
        """Rows of tiles."""
        return np.minimum(self.tile, self.rows - tile * self.tile)

    def positions(self, tile: Positions) -> tuple[Positions, Positions]:
        """The first and the last position that a tile has a row of."""
        first = tile * self.tile
        return first // self.pack, (np.minimum(first + self.tile, self.rows) - 1) // self.pack

    def touched(self, begin: Positions, end: Positions) -> tuple[Positions, Positions]:
        """The tiles that have a row of the positions [begin, end): from a first one up to an end."""
        return begin * self.pack // self.tile, (end * self.pack - 1) // self.tile + 1

    def inside(self, begin: Positions, end: Positions) -> tuple[Positions, Positions]:
        """The tiles that have no other row: from a first one up to an end, which may be before it."""
        stop = end * self.pack
        return -(-begin * self.pack // self.tile), np.where(stop >= self.rows, self.tiles, stop // self.tile)


class Lines(NamedTuple):
    """One per piece and outer tile that meet: the tile, the piece, and the positions a..b they have in common."""

    tile: Positions
    piece: Pieces
    a: Positions
    b: Positions


def meetings(pieces: Pieces, outer: Axis) -> int:
    """How many lines there are."""
    first, end = outer.touched(pieces.q0, pieces.q1)
    return int((end - first).sum())


def lines(pieces: Pieces, outer: Axis) -> Iterator[Lines]:
    """All of them, some at a time: every outer tile at once with all its pieces."""
    first, end = outer.touched(pieces.q0, pieces.q1)
    steps = -(-meetings(pieces, outer) // MOST_LINES)
    step = -(-outer.tiles // max(steps, 1))
    for low in range(0, outer.tiles, step):
        begin, stop = np.maximum(first, low), np.minimum(end, low + step)
        (met,) = np.nonzero(begin < stop)
        count = (stop - begin)[met]
        which = np.repeat(met, count)
        before = np.cumsum(count) - count
        tile = np.arange(which.size) + np.repeat(begin[met] - before, count)
        piece = pieces.where(which)
        a, b = outer.positions(tile)
        yield Lines(tile, piece, np.maximum(a, piece.q0), np.minimum(b, piece.q1 - 1))


def narrow(pieces: Pieces, queries: Axis, keys: Axis) -> tuple[Pieces, Axis, Axis]:
    """Pieces, outer and inner side: the way round that has fewer lines."""
    turned = pieces.turned()
    if meetings(pieces, queries) <= meetings(turned, keys):
        return pieces, queries, keys
    return turned, keys, queries


class Seen(NamedTuple):
    """Intervals [begin, end) of inner tiles that outer tiles see, sorted by both; they may overlap."""

    tile: Positions
    begin: Positions
    end: Positions


def seen(pieces: Pieces, outer: Axis, inner: Axis) -> Iterator[Seen]:
    """What each outer tile sees of each piece."""
    for tile, piece, a, b in lines(pieces.seeing(), outer):
        begin, end = inner.touched(np.maximum(piece.k0, a - piece.below), np.minimum(piece.k1, b + piece.above + 1))
        order = np.argsort(tile * (inner.tiles + 1) + begin, kind="stable")
        yield Seen(tile[order], begin[order], end[order])


def statistics(pieces: Pieces, queries: Axis, keys: Axis) -> Statistics:
    """The five sums over visible tiles."""
    pieces, outer, inner = narrow(pieces, queries, keys)
    tiles = outer_rows = inner_rows = cells = at_outer_end = at_inner_end = 0
    for tile, begin, end in seen(pieces, outer, inner):
        offset = tile * (inner.tiles + 1)  # so that a later tile is behind all of an earlier one
        covered = np.maximum.accumulate(end + offset)
        start = begin + offset
        start[1:] = np.maximum(start[1:], covered[:-1])
        fresh = np.maximum(end + offset - start, 0)  # tiles that no interval before has
        at_end = (fresh > 0) & (end == inner.tiles)
        heights, rows = outer.heights(tile), fresh * inner.tile - at_end * inner.short
        tiles += int(fresh.sum())
        outer_rows += int(heights @ fresh)
        inner_rows += int(rows.sum())
        cells += int(heights @ rows)
        at_outer_end += int(fresh[tile == outer.tiles - 1].sum())
        at_inner_end += int(at_end.sum())
    if outer is queries:
        return Statistics(tiles, outer_rows, inner_rows, cells, at_inner_end)
    return Statistics(tiles, inner_rows, outer_rows, cells, at_outer_end)


def full_tiles(pieces: Pieces, queries: Axis, keys: Axis) -> int:
    """Tiles in which every pair is visible.

    No pair is in two pieces, so an outer tile sees all of an inner position iff those of its positions that see it
    whole, piece by piece, are as many as it has: a sum over intervals, whose ends are the events of a sweep.
    """
    pieces, outer, inner = narrow(pieces, queries, keys)
    total, stride = 0, inner.rows // inner.pack + 1
    for tile, piece, a, b in lines(pieces, outer):
        begin, end = np.maximum(piece.k0, b - piece.below), np.minimum(piece.k1, a + piece.above + 1)
        (some,) = np.nonzero(begin < end)
        at, weight = tile[some] * stride, (b - a + 1)[some]
        event = np.concatenate([at + begin[some], at + end[some]])
        order = np.argsort(event, kind="stable")
        event, level = event[order], np.cumsum(np.concatenate([weight, -weight])[order])
        final = np.diff(event, append=-1) != 0
        event, level = event[final], level[final]  # the level from each event up to the next one
        first, last = outer.positions(event // stride)
        changes = event[np.diff(level == last - first + 1, prepend=False)]
        starts, stops = changes[::2], changes[1::2]
        low, high = inner.inside(starts % stride, stops % stride)
        total += int(np.maximum(high - low, 0).sum())
    return total


def turns(pieces: Pieces, queries: Axis, keys: Axis) -> Turns:
    """What a walk back and forth over the visible key tiles of each query tile finds on chip."""
    found = list(seen(pieces, queries, keys))
    tile, begin, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    if not starts.size:
        return Turns(0, 0)
    return kept(tile[starts], begin[starts], np.maximum.reduceat(end, starts) - 1, keys)


def kept(tile: Positions, first: Positions, last: Positions, keys: Axis) -> Turns:
    """Walks that see something: even ones go from their first key tile to the last, odd ones from the last back.

    A walk finds on chip what it begins with, if the walk before ended there.
    """
    even = tile % 2 == 0
    enters, leaves = np.where(even, first, last), np.where(even, last, first)
    again = enters[1:][enters[1:] == leaves[:-1]]
    at_last = int((again == keys.tiles - 1).sum())
    return Turns(again.size, again.size * keys.tile - at_last * keys.short)
