"""The least loads of small attention problems, by exhaustive search: the golden table proofs/optima.csv.

    python -m ioaware_proofs.pebble

The game. Fast memory has a number of slots, each for one row of Q or of K. A load puts a row into a slot, in place of
another row if none is free. A pair (query, key) is done as soon as both rows are in slots, and stays done; scores take
no slot. How many loads does it take, from empty slots, until all visible pairs are done? Every schedule that moves
whole rows, keeps at most R of them and computes each score from its two rows is a play with R slots.

With rows of d words a play is a run of the machine of Machine.v in M = R d + 1 words, the last one for the sum that
grows into a score. So the bounds of LowerBound.v for this M are at most d times the loads of any play.

The search is A* (Hart, Nilsson, Raphael 1968). Positions that differ by a renaming of rows, or by exchanging Q and K,
are one: what is to come depends only on which rows must still meet and which are in slots. Rows with no pair left
are dropped at once, and rows are dropped otherwise only for a load into full slots: both cost nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from io import StringIO
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ioaware.errors import refuse
from ioaware.masks import CAUSAL, FULL, Band

from .theory import root

COMMAND = "python -m ioaware_proofs.pebble"
TABLE = root() / "optima.csv"
MASKS = (FULL, CAUSAL, Band(left=2, right=0))
LONGEST = 6


# ------------------------------------------------------------------------------------------------ the game
class Position(NamedTuple):
    """Rows have numbers, those of Q first, then as many for K; a set of rows is a bit mask."""

    wants: tuple[int, ...]  # for each row, the rows that it has still to meet
    held: int  # the rows in slots


class Move(NamedTuple):
    """A load: the row, and the row whose slot it takes, if none was free."""

    row: int
    replaced: int | None


def opening(pairs: Iterable[tuple[int, int]]) -> Position:
    """No slot is taken and every (query, key) of `pairs` is to be done."""
    pairs = set(pairs)
    keys = 1 + max((max(pair) for pair in pairs), default=-1)  # the number of the first key
    wants = [0] * (2 * keys)
    for query, key in pairs:
        wants[query] |= 1 << keys + key
        wants[keys + key] |= 1 << query
    return Position(tuple(wants), 0)


def members(rows: int) -> list[int]:
    """The rows of a set."""
    return [row for row in range(rows.bit_length()) if rows >> row & 1]


def moves(at: Position, slots: int) -> Iterator[Move]:
    """All loads of rows that have still a row to meet."""
    places = members(at.held) if at.held.bit_count() == slots else [None]
    for row, wanted in enumerate(at.wants):
        if wanted and not at.held >> row & 1:
            yield from (Move(row, place) for place in places)


def after(at: Position, move: Move) -> Position:
    """The position after a load: what can be done is done, and rows with nothing left are dropped."""
    held = at.held if move.replaced is None else at.held & ~(1 << move.replaced)
    met, wants = at.wants[move.row] & held, list(at.wants)
    wants[move.row] &= ~met
    for row in members(met):
        wants[row] &= ~(1 << move.row)
    return Position(tuple(wants), sum(1 << row for row in members(held | 1 << move.row) if wants[row]))


# ------------------------------------------------------------------------------------------------ symmetry
def renamed(at: Position) -> tuple[Position, tuple[int, ...]]:
    """The position with its rows sorted by what surrounds them, and the old number of each row.

    Positions that differ only in names mostly become equal. Ties are left as they are: then the search may meet a
    position twice under two names, which costs time and nothing else.
    """
    look: list[Any] = [(at.held >> row & 1, wanted.bit_count()) for row, wanted in enumerate(at.wants)]
    for _ in range(2):
        look = [(look[row], sorted(look[other] for other in members(at.wants[row]))) for row in range(len(look))]
    keys = len(look) // 2
    sides = [sorted(side, key=look.__getitem__, reverse=True) for side in (range(keys), range(keys, 2 * keys))]
    sides.sort(key=lambda side: [look[row] for row in side], reverse=True)
    order = (*sides[0], *sides[1])
    new = {old: 1 << number for number, old in enumerate(order)}
    wants = tuple(sum(new[row] for row in members(at.wants[old])) for old in order)
    return Position(wants, sum(new[row] for row in members(at.held))), order


# ------------------------------------------------------------------------------------------------ what is left to load
class Side(NamedTuple):
    """The rows of Q, or of K, that have pairs left: how many are in slots and how many are not."""

    held: int
    away: int


@lru_cache(None)
def most_pairs(slots: int, queries: Side, keys: Side, query_loads: int, key_loads: int) -> int:
    """No play does more pairs with so many loads: each does at most one with every row of the other side in slots.

    Only the numbers of rows are looked at, as if any two rows in slots had their pair still to do.
    """
    most = 0
    for this, that, loads, others in ((queries, keys, query_loads, key_loads), (keys, queries, key_loads, query_loads)):
        for mine, yours in ((0, 0),) if this.held + that.held < slots else ((1, 0), (0, 1)):  # what is replaced
            if loads and this.away and mine <= this.held and yours <= that.held:
                here = Side(this.held - mine + 1, this.away + mine - 1)
                there = Side(that.held - yours, that.away + yours)
                most = max(most, there.held + most_pairs(slots, here, there, loads - 1, others))
    return most


@lru_cache(None)
def fewest_loads(slots: int, queries: Side, keys: Side, pairs: int) -> int:
    """The least number of loads with which so many pairs are possible and each row that is away comes once."""
    loads = queries.away + keys.away
    while all(
        most_pairs(slots, queries, keys, n, loads - n) < pairs for n in range(queries.away, loads - keys.away + 1)
    ):
        loads += 1
    return loads


def to_come(at: Position, slots: int) -> int:
    """A lower bound on the loads from here to the end."""
    half = len(at.wants) // 2
    left = [sum(1 << row for row in range(first, first + half) if at.wants[row]) for first in (0, half)]
    queries, keys = (Side((rows & at.held).bit_count(), (rows & ~at.held).bit_count()) for rows in left)
    return fewest_loads(slots, queries, keys, sum(wanted.bit_count() for wanted in at.wants[:half]))


# ------------------------------------------------------------------------------------------------ search
Play: TypeAlias = "tuple[Play, Move] | None"  # the last move, and all before it


def fewest_moves(pairs: Iterable[tuple[int, int]], slots: int) -> list[Move]:
    """A play with the fewest loads that does all `pairs` (query, key), of the rows as numbered by `opening`.

    When it ends, every position that could have led to fewer loads has been looked at.
    Raises InputError for fewer than two slots.
    """
    if slots < 2:
        raise refuse("slots", slots, "one for a row of Q and one for a row of K at least", 2)
    first, serial = opening(pairs), count()
    waiting: list[tuple[int, int, int, Position, Sequence[int], Play]] = []
    heappush(waiting, (to_come(first, slots), 0, next(serial), first, range(len(first.wants)), None))
    fewest: dict[Position, int] = {}  # loads up to a position
    while True:
        _, minus_loads, _, at, names, play = heappop(waiting)
        if not any(at.wants):
            return listed(play)
        loads = -minus_loads
        at, order = renamed(at)
        if fewest.get(at, loads + 1) <= loads:
            continue
        fewest[at] = loads
        names = [names[row] for row in order]
        for move in moves(at, slots):
            then = after(at, move)
            least = loads + 1 + to_come(then, slots)
            heappush(waiting, (least, -loads - 1, next(serial), then, names, (play, named(move, names))))


def named(move: Move, names: Sequence[int]) -> Move:
    """The move under other names."""
    return Move(names[move.row], None if move.replaced is None else names[move.replaced])


def listed(play: Play) -> list[Move]:
    """The moves from the first to the last."""
    out = []
    while play is not None:
        play, move = play
        out.append(move)
    return out[::-1]


# ------------------------------------------------------------------------------------------------ the table
class Optimum(NamedTuple):
    """One row of the table: n rows of Q and n rows of K under a mask."""

    mask: str
    n: int
    slots: int
    compulsory: int  # loads if each row is loaded once
    loads: int  # the least
    schedule: str  # that attains it: "Q0 K0 K1/Q0" loads Q0, K0, and K1 in place of Q0


def attention_loads(loads: int, queries: int) -> int:
    """The least row loads of attention in 2 R slots, from the least loads of scores in R slots; all queries see a key.

    Here a pair is done as soon as its rows of Q, K, V and O are in slots together, each of them loaded by itself. A row
    of O, the sum, begins in a slot at no cost, and costs a load when it comes back; stores are not counted.

    Fix the order of the pairs. Between two pairs of a query its rows of Q and O either stay, or cost a load each; so do
    the rows of K and V of a key. What stays is a set of intervals, at most 2 R - 4 of them over any other pair. The
    matrix of such a problem is totally unimodular: its best solution with every interval and every capacity doubled
    is the best one for R - 2, twice. So rows may as well stay, and be loaded, in twos, Q with O and K with V. That is a
    play for scores in R slots with all loads doubled, but for O when a query comes first.
    """
    return 2 * loads - queries


def visible(band: Band, n: int) -> list[tuple[int, int]]:
    """The visible pairs of n queries and n keys."""
    seen = band.sees(np.arange(n)[:, None], np.arange(n)[None], n, n)
    return [(i, j) for i in range(n) for j in range(n) if seen[i, j]]


def schedule(pairs: Iterable[tuple[int, int]], slots: int) -> str:
    """A shortest play, one word for each load. A row with no pair left stays until its slot is needed."""
    at, held, words = opening(pairs), list[int](), list[str]()
    names = [f"{matrix}{row}" for matrix in "QK" for row in range(len(at.wants) // 2)]
    for move in fewest_moves(pairs, slots):
        replaced = move.replaced
        if replaced is None and len(held) == slots:
            replaced = next(row for row in held if not at.wants[row])
        if replaced is not None:
            held.remove(replaced)
        held.append(move.row)
        words.append(names[move.row] if replaced is None else f"{names[move.row]}/{names[replaced]}")
        at = after(at, move)
    return " ".join(words)


def optima(longest: int = LONGEST) -> Iterator[Optimum]:
    """The rows for all masks and lengths from 2, from two slots to so many that each row is loaded once."""
    for band in MASKS:
        for n in range(2, longest + 1):
            for slots in count(2):
                words = schedule(visible(band, n), slots)
                loads = len(words.split())
                yield Optimum(str(band), n, slots, 2 * n, loads, words)
                if loads == 2 * n:
                    break


def text(rows: Iterable[Optimum]) -> str:
    """The table as a file."""
    out = StringIO()
    out.write(f"# {COMMAND}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Optimum._fields)
    writer.writerows(rows)
    return out.getvalue()


def read() -> list[Optimum]:
    """The table as it is in the repository."""
    rows = csv.reader(TABLE.read_text(encoding="utf-8").splitlines()[2:])
    return [
        Optimum(mask, int(n), int(slots), int(least), int(loads), words) for mask, n, slots, least, loads, words in rows
    ]


if __name__ == "__main__":
    TABLE.write_text(text(optima()), encoding="utf-8", newline="\n")
    print(f"written: {TABLE.name}")
