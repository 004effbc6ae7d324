"""What one number of a program stands for on the machine of proofs/theories/Machine.v, and what operations make of it.

A word is an entry of Q, K or V, a finished score (or any function of it and of statistics, such as exp(s - m)), an
unfinished output, or anything else: statistics, constants, and whatever this abstraction cannot name. What it cannot
name is of no use for an output, so a schedule that it does not understand is rejected by the checker. Whether the
functions are the right ones, so that O is softmax attention, is for `execute` to say, not for a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias


class Entry(NamedTuple):
    """An entry of Q, K or V, or a constant multiple of it. Rows are numbered over all heads and sequences."""

    tensor: str
    row: int
    column: int


class Score(NamedTuple):
    """The finished inner product of a query and a key, or a function of it."""

    query: int
    key: int


class Output(NamedTuple):
    """An unfinished entry of O, up to a factor: the products with the values of these keys are added up."""

    query: int
    column: int
    keys: tuple[int, ...]  # in increasing order


class Other(NamedTuple):
    """Anything else."""

    number: int


Word: TypeAlias = Entry | Score | Output | Other


@dataclass(frozen=True, slots=True)
class Cell:
    """One number on chip or in HBM. `void`: a score that the mask hides, or (as Other) the number zero."""

    word: Word
    void: bool = False

    @property
    def zero(self) -> bool:
        """Whether it is the number zero."""
        return self.void and isinstance(self.word, Other)


# ------------------------------------------------------------------------------------------------ elementwise
def combined(kind: str, operands: Sequence[Cell | float]) -> Cell | None:
    """What an elementwise operation makes of its operands; None if that is Other. The word may be a new one."""
    cells = [x for x in operands if isinstance(x, Cell)]
    if kind == "add" and len(cells) == 2 and any(c.zero for c in cells):
        return cells[cells[0].zero]
    if kind == "mul" and any(c.zero for c in cells):
        return next(c for c in cells if c.zero)
    named = [c for c in cells if not isinstance(c.word, Other)]
    if not named:
        return cells[0] if kind == "div" and operands[0] is cells[0] and cells[0].zero else None
    word = named[0].word
    if isinstance(word, Score):
        return Cell(word, any(c.void for c in named)) if all(c.word == word for c in named) else None
    if kind == "add" and len(named) == len(operands) == 2:
        return _sum(word, named[1].word)
    scaled = kind == "mul" or (kind == "div" and operands[0] is named[0])
    if scaled and len(named) == 1 and (isinstance(word, Output) or len(cells) == 1):
        return named[0]
    return None


def _sum(a: Word, b: Word) -> Cell | None:
    if not isinstance(a, Output) or not isinstance(b, Output) or a[:2] != b[:2]:
        return None
    keys = _together(a.keys, b.keys)
    return None if keys is None else Cell(Output(a.query, a.column, keys))


@lru_cache(maxsize=4096)
def _together(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """Both sets of keys; None if a key would count twice."""
    both = sorted({*a, *b})
    return tuple(both) if len(both) == len(a) + len(b) else None


# ------------------------------------------------------------------------------------------------ matrix products
class Row(NamedTuple):
    """A whole row of Q or K."""

    tensor: str
    row: int


class Values(NamedTuple):
    """A column of some rows of V."""

    column: int
    keys: tuple[int, ...]


class Weights(NamedTuple):
    """Scores of one query."""

    query: int
    keys: tuple[int, ...]
    seen: tuple[int, ...]  # those that the mask does not hide


Vector: TypeAlias = Row | Values | Weights | None


def vector(cells: Iterable[Cell], head_dim: int) -> Vector:
    """What the numbers of a row or column are together."""
    cells = list(cells)
    words = [c.word for c in cells]
    match words[0] if words else None:
        case Entry("V", _, column) if all(isinstance(w, Entry) and w[::2] == ("V", column) for w in words):
            return Values(column, tuple(w.row for w in words if isinstance(w, Entry)))
        case Entry(tensor, row, _) if words == [Entry(tensor, row, a) for a in range(head_dim)]:
            return Row(tensor, row)
        case Score(query, _) if all(isinstance(w, Score) and w.query == query for w in words):
            keys = tuple(w.key for w in words if isinstance(w, Score))
            return Weights(query, keys, tuple(k for k, c in zip(keys, cells, strict=True) if not c.void))
    return None


def product(a: Vector, b: Vector) -> Score | Output | None:
    """The inner product of two vectors: a score, a part of an output, or None: something else."""
    match (a, b) if isinstance(a, Weights) or a is None or a[0] == "Q" else (b, a):
        case Row("Q", query), Row("K", key):
            return Score(query, key)
        case Weights(query, keys, seen), Values(column, rows) if keys == rows:
            return Output(query, column, seen)
    return None
