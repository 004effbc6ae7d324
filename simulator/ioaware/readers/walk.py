"""Walk a recorded program iteration by iteration with numbers for sizes: what `execute` and the fallback counter share.

Visible tiles are found here by asking the element mask, never by the statistics that closed forms use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..errors import ProgramError
from ..problem import ROLES, AttentionProblem
from ..program.loops import Axis, Extent, Fetched, Index, SameRows, Seen, Tiles, Visible
from ..program.nodes import Loop
from ..program.recorder import Program
from ..sizes import Atom, Ceil, Name, Size
from .evaluate import TileSizes

if TYPE_CHECKING:
    from .count import Key, Quantity


Array: TypeAlias = np.ndarray[Any, Any]


MOST_ITERATIONS = 1_000_000  # about twenty seconds


class Span(NamedTuple):
    """Where one iteration of a loop is: rows start .. stop of the packed axis, and its number among its siblings."""

    start: int
    stop: int
    number: int


class Sequence(NamedTuple):
    """One entry of the batch: where its queries and keys start in the packed tensors, and how many there are."""

    q_start: int
    kv_start: int
    q_len: int
    kv_len: int
    page_start: int = 0  # its first entry of the block table

    def side(self, axis: Axis) -> tuple[int, int]:
        """(start, length) of the query or key rows."""
        return (self.q_start, self.q_len) if axis.name == "q_len" else (self.kv_start, self.kv_len)


class Walk:
    """The state of a walk: the current sequence and the current iteration of every loop around."""

    def __init__(self, program: Program, problem: AttentionProblem, tiles: TileSizes) -> None:
        self.program, self.problem = program, problem
        self.at: dict[Index, Span] = {}
        self.fetched: dict[Index, bool] = {}  # of back-and-forth loops: whether the current tile has to be loaded
        self.left: dict[Index, Span] = {}  # and the tile that the last walk has left on chip
        self.sequence = Sequence(0, 0, *problem.sequences[0])
        widths = {f"bytes_{role}": problem.itemsize(role) for role in ROLES}
        self.sizes: dict[str, int] = {
            "batch": len(problem.sequences), "kv_heads": problem.kv_heads or 1, "group": problem.group,
            "head_dim": problem.head_dim, "value_dim": problem.value_dim or 1, "tile_q": tiles.q, "tile_kv": tiles.kv,
            "splits": tiles.splits, "pack": problem.pack, "page_size": problem.page_size or 1,
            "kv_bits": problem.kv_bits, **widths,
        }  # fmt: skip

    def number(self, e: Size, lengths: dict[str, int] | None = None) -> int:
        """The value of a size here."""
        lengths = lengths or {"q_len": self.sequence.q_len, "kv_len": self.sequence.kv_len}
        return sum(c * prod(self._atom(a, lengths) for a in monomial) for monomial, c in e.terms.items())

    def _atom(self, a: Atom, lengths: dict[str, int]) -> int:
        match a:
            case Name(name):
                return self.sizes[name] if name in self.sizes else lengths[name]
            case Ceil(over, by):
                return -(-self.number(over, lengths) // self.number(by, lengths))
            case Extent(index):
                return self.at[index].stop - self.at[index].start
            case Fetched(index):
                return self.fetched[index]
            case Seen(index, other, rows):
                assert isinstance(index.over, Tiles)
                spans = list(self.visible(index.over, other))
                return sum(s.stop - s.start for s in spans) if rows else len(spans)
        raise TypeError(f"{a!r} has no value in a walk")

    def iterations(self, index: Index) -> Iterator[Span]:
        """The iterations of a loop; sets the sequence when the loop is over the batch."""
        over = index.over
        if isinstance(over, Tiles):
            spans = self.tiles(over) if over.seen_by is None else self.visible(over, over.seen_by)
            yield from spans if over.turns_with is None else self.back_and_forth(index, self.at[over.turns_with], spans)
        elif over.name == "batch":
            q = kv = pages = 0
            for n, (q_len, kv_len) in enumerate(self.problem.sequences):
                self.sequence = Sequence(q, kv, q_len, kv_len, pages)
                yield Span(n, n + 1, n)
                q, kv, pages = q + q_len, kv + kv_len, pages + -(-kv_len // (self.problem.page_size or 1))
        else:
            yield from (Span(n, n + 1, n) for n in range(self.number(over.length)))

    def tiles(self, over: Tiles) -> Iterator[Span]:
        """All tiles of an axis of the current sequence, or of a tile again."""
        if isinstance(over.span, Index):
            start, stop, _ = self.at[over.span]
        else:
            start, length = self.sequence.side(over.axis)
            stop = start + length
        step = self.number(over.step)
        for number, first in enumerate(range(start, stop, step)):
            yield Span(first, min(first + step, stop), number)

    def back_and_forth(self, index: Index, turn: Span, spans: Iterable[Span]) -> Iterator[Span]:
        """The tiles in the order of their walk; the first one is fetched unless the last walk ended with it."""
        order = list(spans)[:: -1 if turn.number % 2 else 1]
        if turn.number == 0:
            self.left.pop(index, None)  # of other heads
        left = self.left.get(index)
        for n, span in enumerate(order):
            self.fetched[index] = n > 0 or span != left
            self.left[index] = span
            yield span

    def visible(self, over: Tiles, other: Index) -> Iterator[Span]:
        """The tiles in which some pair with a row of `other`'s tile is visible."""
        queries_walk = over.axis.name == "q_len"
        for span in self.tiles(over):
            q, kv = (span, self.at[other]) if queries_walk else (self.at[other], span)
            if self.sees(np.arange(q.start, q.stop), np.arange(kv.start, kv.stop)).any():
                yield span

    def sees(self, q: Array, kv: Array) -> Array:
        """The element mask (rows of q) x (rows of kv), packed positions."""
        s = self.sequence
        return self.problem.band.sees(q[:, None] - s.q_start, kv[None] - s.kv_start, s.q_len, s.kv_len)

    def columns(self, where: Index | Visible | SameRows) -> Array:
        """The packed positions of an iteration's rows, or of all visible tiles' rows."""
        if isinstance(where, SameRows):
            return self.columns(where.index) - self.sequence.kv_start + self.sequence.q_start
        if isinstance(where, Index):
            return np.arange(self.at[where].start, self.at[where].stop)
        spans = [np.arange(s.start, s.stop) for s in self.visible(where.tiles, where.to)]
        return np.concatenate(spans) if spans else np.arange(0)


def walked(
    program: Program, quantities: Iterable[Quantity], problem: AttentionProblem, tiles: TileSizes
) -> dict[Key, int]:
    """Every quantity summed by visiting every iteration: exact, needs no algebra, O(iterations).

    Raises ProgramError after MOST_ITERATIONS: a larger problem needs a closed form.
    """
    walk, out = Walk(program, problem, tiles), Counter["Key"]()
    here: dict[Loop | None, list[tuple[Key, Size]]] = {}  # what is summed directly inside each loop
    inside: dict[Loop | None, dict[Loop, None]] = {}  # the loops directly inside each loop, in order
    for key, per_iteration, loops in quantities:
        for outer, inner in zip((None, *loops), loops, strict=False):
            inside.setdefault(outer, {})[inner] = None
        here.setdefault(loops[-1] if loops else None, []).append((key, per_iteration))

    visited = 0

    def visit(loop: Loop | None) -> None:
        nonlocal visited
        visited += 1
        if visited > MOST_ITERATIONS:
            raise ProgramError(
                f"{program.name} has no closed form, and with tiles {tiles} more than {MOST_ITERATIONS:,} iterations; "
                "choose larger tiles or a shorter sequence"
            )
        for key, per_iteration in here.get(loop, ()):
            out[key] += walk.number(per_iteration)
        for inner in inside.get(loop, ()):
            for span in walk.iterations(inner.index):
                walk.at[inner.index] = span
                visit(inner)

    visit(None)
    return dict(out)
