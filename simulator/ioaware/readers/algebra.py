"""The one algebra behind `count` and `formula`: sum a quantity over the loops around it, without enumerating them.

A loop that the quantity does not mention multiplies it by the trip count; a loop that it mentions replaces the tile's
extent by the whole length, ragged or not, because extents telescope. That is all of IO-awareness: K pays
ceil(N_q/B_r) times because its index has no i. Three cases are more than that:
  * a tile cut into tiles again: full tiles, and the last one by itself;
  * tiles visible through a mask: statistics of the mask (see masks/), also where they are walked in splits;
  * tiles walked back and forth: what is on chip already at a turn is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ..errors import NoClosedForm
from ..program.loops import (
    Axis,
    Extent,
    Fetched,
    Index,
    Kept,
    Number,
    Pages,
    SameRows,
    Seen,
    SeesLast,
    Tiles,
    Visible,
    rows,
)
from ..program.nodes import Load, Loop, Node, Op, Shape, Store, Tensor, Value
from ..program.recorder import Program
from ..sizes import ONE, Atom, Ceil, Monomial, Size, Whole, ceil, least, product, size

Loops = tuple[Loop, ...]


@dataclass(frozen=True)
class Statistic(Atom):
    """A sum over all visited pairs of a query tile and a key tile, supplied by the mask."""

    what: str  # tiles | rows | cols | cells | last
    tile_q: Size
    tile_kv: Size

    def __str__(self) -> str:
        return self.what

    def python(self) -> str:
        return f"statistics({self.tile_q.python()}, {self.tile_kv.python()}).{self.what}"


@dataclass(frozen=True)
class Turned(Atom):
    """What walks back and forth over the visible tiles find on chip, supplied by the mask."""

    what: str  # tiles | rows
    tile_q: Size
    tile_kv: Size

    def __str__(self) -> str:
        return f"kept_{self.what}"

    def python(self) -> str:
        return f"turns({self.tile_q.python()}, {self.tile_kv.python()}).{self.what}"


# ------------------------------------------------------------------------------------------------ what is summed
@dataclass(frozen=True)
class Access:
    """A load or store with the loops around it."""

    node: Load | Store
    loops: Loops

    @property
    def tensor(self) -> Tensor:
        """The tensor it touches."""
        return self.node.piece.tensor

    @property
    def kernel(self) -> str:
        """The kernel launch it belongs to."""
        return self.loops[0].kernel or "" if self.loops else ""

    @property
    def kind(self) -> str:
        """read, write or add."""
        return "read" if isinstance(self.node, Load) else "add" if self.node.adds else "write"

    @property
    def shape(self) -> Shape:
        """The extents of the piece, axis by axis."""
        where = zip(self.tensor.axes, self.node.piece.where, strict=True)
        return tuple(_words(axis, w) for axis, w in where)

    @property
    def words(self) -> Size:
        """Elements moved by one execution."""
        return product(self.shape) * self.fetched

    @property
    def fetched(self) -> Size:
        """1, or whether the piece has to be loaded: at a turn it is on chip already."""
        turning = self.node.kept_by if isinstance(self.node, Load) else None
        return ONE if turning is None else size(Fetched(turning))

    @property
    def total(self) -> Size:
        """Elements moved by the whole program: the closed form."""
        return total(self.words, self.loops)


def _words(axis: Axis, where: object) -> Size:
    if isinstance(where, (Index, Visible, Pages, SameRows)):
        return where.rows
    return ONE if isinstance(where, Number) else axis.length


def nodes(body: list[Node], loops: Loops = ()) -> Iterator[tuple[Load | Store | Op, Loops]]:
    """Every node that is not a loop, with the loops around it."""
    for node in body:
        if isinstance(node, Loop):
            yield from nodes(node.body, (*loops, node))
        else:
            yield node, loops


@lru_cache(1024)
def accesses(program: Program) -> tuple[Access, ...]:
    """Every load and store of a program, in the order of its text."""
    return tuple(Access(n, loops) for n, loops in nodes(program.body) if isinstance(n, (Load, Store)))


# ------------------------------------------------------------------------------------------------ the sums
def total(e: Size, loops: Loops) -> Size:
    """The sum of `e` over all iterations of `loops`. Raises NoClosedForm."""
    for loop in reversed(loops):
        e = over_loop(e, loop.index)
    return e


def over_loop(e: Size, index: Index) -> Size:
    """The sum of `e` over the iterations of one loop."""
    over = index.over
    if isinstance(over, Axis):
        return e * over.length
    out = size(0)
    for monomial, c in e.terms.items():
        rest, power = _without(monomial, Extent(index))
        if Fetched(index) in rest:
            out = out + Size({_without(rest, Fetched(index))[0]: c}) * _fetched(index, over, rows=power == 1)
        elif over.seen_by is not None:
            out = out + _visible(Size({monomial: c}), rest, c, power, index, over.seen_by)
        else:
            out = out + _over_tiles(monomial, c, rest, power, index, over)
    return out


def _visible(term: Size, rest: Monomial, c: int, power: int, index: Index, by: Index) -> Size:
    """The sum of a term over visible tiles, with atoms that the loop over `by` turns into statistics.

    Anything but |index| itself is summed over the full tiles, and the last one by itself.
    """
    if any(isinstance(a, (Seen, SeesLast)) for a in rest):
        raise NoClosedForm(f"a sum over the tiles {index} visible to {by} is not one of the mask's statistics")
    if power == 1 and not _in_ceilings(rest, index):
        return Size({rest: c}) * size(Seen(index, by, rows=True))
    tiles, last = size(Seen(index, by, rows=False)), size(SeesLast(index, by))
    if power == 0 and not _in_ceilings(rest, index):
        return Size({rest: c}) * tiles
    whole = index.over
    assert isinstance(whole, Tiles)
    length, count = whole.axis.length, ceil(whole.axis.length, whole.step)
    full, ragged = (_put(term, Extent(index), n) for n in (whole.step, length - (count - 1) * whole.step))
    return (tiles - last) * full + last * ragged


def _in_ceilings(rest: Monomial, index: Index) -> bool:
    return any(isinstance(a, Ceil) and Extent(index) in a.over.atoms() for a in rest)


def _fetched(index: Index, over: Tiles, *, rows: bool) -> Size:
    """One walk back or forth over the tiles, less the one that is on chip already."""
    if over.seen_by is not None:
        return size(Seen(index, over.seen_by, rows)) - size(Kept(index, rows))
    return (over.axis.length if rows else over.count) - size(Kept(index, rows))


def _kept(kept: Kept, turning: Tiles) -> Size:
    """All that is kept at the turns. Without a mask the last tile at every second one, the first tile at the others."""
    over, turns = kept.index.over, turning.count - 1
    assert isinstance(over, Tiles)
    if over.seen_by is not None:
        return size(Turned("rows" if kept.rows else "tiles", turning.step, over.step))
    if not kept.rows:
        return turns
    whole, back = over.axis.length, ceil(turns, 2)
    last, first = Whole(whole - (over.count - 1) * over.step), least(over.step, whole)
    return back * size(last) + (turns - back) * first


def _over_tiles(monomial: Monomial, c: int, rest: Monomial, power: int, index: Index, over: Tiles) -> Size:
    """The sum of one term over all tiles of a span."""
    here = Extent(index)
    inside = next((a for a in rest if isinstance(a, (Seen, SeesLast)) and _within(a.index, index)), None)
    if inside is not None and not power:  # the visible tiles of all parts together are those of the axis
        part = inside.index.over
        assert isinstance(part, Tiles)
        whole = Index(inside.index.name, Tiles(part.axis, part.step, part.seen_by))
        return Size({_without(rest, inside)[0]: c}) * size(_of(inside, whole))
    kept = next((a for a in rest if isinstance(a, Kept)), None)
    if kept is not None and not power:
        return Size({_without(rest, kept)[0]: c}) * _kept(kept, over)
    seen = next((a for a in rest if isinstance(a, (Seen, SeesLast)) and a.other == index), None)
    ceilings = _in_ceilings(rest, index)
    if seen is not None:
        others, more = _without(rest, seen)
        if more > 1 or power > 1 or ceilings:
            raise NoClosedForm(f"{Size({monomial: c})} over {over} is not one of the mask's statistics")
        return Size({others: c}) * _statistic(seen, other_rows=power == 1)
    if power <= 1 and not ceilings:
        return Size({rest: c}) * (rows(over.span) if power else over.count)
    term, full = Size({monomial: c}), over.step
    last = rows(over.span) - (over.count - 1) * full
    return (over.count - 1) * _put(term, here, full) + _put(term, here, last)


def _within(index: Index, part: Index) -> bool:
    """Whether the tiles of `index` are cut from the tile of `part`, which is a whole number of them."""
    over, whole = index.over, part.over
    if not isinstance(over, Tiles) or over.span != part or not isinstance(whole, Tiles) or whole.seen_by is not None:
        return False
    if not isinstance(whole.span, Axis) or len(over.step.terms) != 1:
        return False
    ((monomial, times),) = over.step.terms.items()
    return all(set(monomial) <= set(m) and c % times == 0 for m, c in whole.step.terms.items())


def _of(atom: Seen | SeesLast, index: Index) -> Seen | SeesLast:
    return replace(atom, index=index)


def _put(e: Size, here: Extent, value: Size) -> Size:
    """`e` with the extent `here` replaced, inside ceilings too."""

    def replaced(a: Atom) -> Size:
        if isinstance(a, Ceil):
            return size(Ceil(_put(a.over, here, value), a.by))
        return value if a == here else size(a)

    return e.map(replaced)


def _without(monomial: Monomial, atom: Atom) -> tuple[Monomial, int]:
    return tuple(a for a in monomial if a != atom), sum(a == atom for a in monomial)


_WHAT = {(False, False): "tiles", (True, False): "rows", (False, True): "cols", (True, True): "cells"}


def _statistic(seen: Seen | SeesLast, *, other_rows: bool) -> Size:
    """The mask statistic for tiles `seen` from tiles of another loop, over both loop orders."""
    last = isinstance(seen, SeesLast)
    if last and (other_rows or seen.index.axis.name == "q_len"):
        raise NoClosedForm(f"{seen} is one of the mask's statistics only for key tiles, without their queries' rows")
    sides = {
        seen.index.axis.name: (seen.index, isinstance(seen, Seen) and seen.rows),
        seen.other.axis.name: (seen.other, other_rows),
    }
    (q, q_rows), (kv, kv_rows) = sides["q_len"], sides["kv_len"]
    if not all(isinstance(x.over, Tiles) and isinstance(x.over.span, Axis) for x in (q, kv)):
        raise NoClosedForm(f"tiles {seen.index} visible to {seen.other} are cut from another tile")
    assert isinstance(q.over, Tiles)
    assert isinstance(kv.over, Tiles)
    return size(Statistic("last" if last else _WHAT[q_rows, kv_rows], q.over.step, kv.over.step))


# ------------------------------------------------------------------------------------------------ work on chip
def flops(op: Op) -> Size:
    """Floating-point operations of a matrix product (2 per multiply-add); 0 for other operations."""
    a = op.args[0] if op.kind == "dot" else None
    return 2 * op.out.words * a.shape[-1] if isinstance(a, Value) else size(0)


def exponentials(op: Op) -> Size:
    """Exponentials of an operation."""
    return op.out.words if op.kind == "exp" else size(0)


def operand_reads(op: Op) -> Iterator[tuple[Tensor, Size, Size]]:
    """What an operation reads from shared memory: (tensor, words read once, words x accumulator rows).

    Loaded tiles live in shared memory, computed values in registers. A matrix product reads its left operand once
    and its right operand once per accumulator rows that one owner (warp, warpgroup) holds: the caller divides.
    """
    for position, a in enumerate(op.args):
        if isinstance(a, Value) and a.base.source is not None:
            again = op.kind == "dot" and position == 1
            per_row = a.words * product(op.out.shape[:-1]) if again else size(0)
            yield a.base.source, size(0) if again else a.words, per_row
