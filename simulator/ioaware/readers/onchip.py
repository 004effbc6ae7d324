"""The on-chip ledger: what a thread block holds, line by line, and the high-water mark.

The static ledger assumes full tiles (never longer than their axis), as a kernel that allocates once must; a run may
hold less where a mask skips tiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..problem import AttentionProblem
from ..program.lifetimes import kept
from ..program.loops import Extent, Index, Seen, Tiles, rows
from ..program.nodes import Load, Loop, Node, Op, Shape, Value
from ..program.recorder import Program
from ..sizes import Atom, Ceil, Size, Whole, ceil, least, size
from .algebra import nodes
from .evaluate import Evaluator, TileSizes, bytes_of


@dataclass(frozen=True)
class Moment:
    """The values that take room in a thread block when the value of one line is made."""

    kernel: str
    line: int
    values: tuple[Value, ...]


class OnChip(NamedTuple):
    """High-water marks of one thread block, bytes."""

    total: int  # everything: the papers' one-level M
    loaded: int  # tiles loaded from HBM: shared memory on a GPU
    computed: int  # everything else: registers on a GPU


def moments(program: Program) -> Iterator[Moment]:
    """Every moment at which a value is made, with all values that take room then."""

    def walk(body: list[Node], live: tuple[Value, ...], kernel: str) -> Iterator[Moment]:
        for n in body:
            if isinstance(n, Loop):
                yield from walk(n.body, () if n.kernel else (*live, *kept(n)), n.kernel or kernel)
            elif isinstance(n, Load) and n.kept_by is not None:  # has its room already
                yield Moment(kernel, n.line, live)
            elif isinstance(n, Load) or (isinstance(n, Op) and n.kind != "update" and not n.fused):
                live = (*live, n.out)
                reused = n.reuses if isinstance(n, Op) else None
                yield Moment(kernel, n.line, tuple(v for v in live if v is not reused))
            live = tuple(v for v in live if v not in n.dies)

    return walk(program.body, (), "")


@lru_cache(maxsize=4096)
def room(shape: Shape, role: str) -> Whole:
    """The bytes a shape may take: every tile is full, but never longer than its axis."""

    def longest(a: Atom) -> Size:
        if isinstance(a, Extent):
            over = a.index.over
            assert isinstance(over, Tiles)
            limit = rows(over.span).map(longest) if isinstance(over.span, Index) else over.span.length
            return least(over.step, limit)
        if isinstance(a, Ceil):
            return ceil(a.over.map(longest), a.by)
        return a.index.axis.length if isinstance(a, Seen) else size(a)

    return Whole(bytes_of(tuple(s.map(longest) for s in shape), role))


def _sum(values: Iterable[Value]) -> Size:
    terms = Counter((room(v.shape, v.dtype),) for v in values)
    return Size(dict(terms))  # type: ignore[arg-type]


@lru_cache(1024)
def total_bytes(program: Program) -> Evaluator:
    """The bytes held at each moment: their greatest is the high-water mark."""
    return Evaluator(list(dict.fromkeys(_sum(moment.values) for moment in moments(program))))


@lru_cache(1024)
def _parts(program: Program) -> tuple[Evaluator, int]:
    """The same for loaded tiles, then for computed values; and where the second begin."""
    loaded = dict.fromkeys(_sum(v for v in m.values if v.source is not None) for m in moments(program))
    computed = dict.fromkeys(_sum(v for v in m.values if v.source is None) for m in moments(program))
    return Evaluator([*loaded, *computed]), len(loaded)


def on_chip(program: Program, problem: AttentionProblem, tiles: TileSizes) -> OnChip:
    """High-water marks of a thread block of the program with these tiles: exact bytes."""
    parts, split = _parts(program)
    out = OnChip(0, 0, 0)
    for length, _ in problem.lengths():
        total, each = total_bytes(program)(problem, length, 1, tiles), parts(problem, length, 1, tiles)
        marks = (max(m, default=0) for m in (total, each[:split], each[split:]))
        out = OnChip(*(max(a, b) for a, b in zip(out, marks, strict=True)))
    return out


class Entry(NamedTuple):
    """One line of the itemised ledger."""

    what: str
    line: int
    shape: str
    bytes: int
    loaded: bool


def ledger(program: Program, problem: AttentionProblem, tiles: TileSizes) -> tuple[str, int, list[Entry]]:
    """(kernel, line, values) of the moment at which a block of the program holds most, largest value first."""
    everything = list(moments(program))
    evaluate = Evaluator([_sum(m.values) for m in everything])
    length, _ = max(problem.lengths(), key=lambda item: max(evaluate(problem, item[0], 1, tiles)))
    totals = evaluate(problem, length, 1, tiles)
    top = everything[totals.index(max(totals))]
    sizes = Evaluator([_sum([v]) for v in top.values])(problem, length, 1, tiles)
    name = _namer(program)
    entries = [
        Entry(name(v), v.line, "x".join(map(str, v.shape)), n, v.source is not None)
        for v, n in zip(top.values, sizes, strict=True)
    ]
    return top.kernel, top.line, sorted(entries, key=lambda e: -e.bytes)


def _namer(program: Program) -> Callable[[Value], str]:
    """What to call a value: its tensor's tile, or the Python variable that its line assigns."""
    made: dict[tuple[str, int], list[Value]] = {}
    for node, _ in nodes(program.body):
        if isinstance(node, Op) and node.kind != "update":
            made.setdefault((node.out.file, node.out.line), []).append(node.out)
    targets = {file: _targets(file) for file, _ in made}

    def name(value: Value) -> str:
        if value.source is not None:
            return f"{value.source.name} tile"
        names, here = targets[value.file].get(value.line, []), made[value.file, value.line]
        if len(names) == len(here):
            return names[here.index(value)]
        if not names:
            return "intermediate"
        return names[0] if value is here[-1] and len(names) == 1 else f"part of {names[0]}"

    return name


def _targets(file: str) -> dict[int, list[str]]:
    """The Python variables assigned on each line of a file."""
    import ast
    import linecache

    out: dict[int, list[str]] = {}
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, ast.Assign):
            names = [n for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            out[node.lineno] = [n.id for n in sorted(names, key=lambda n: n.col_offset)]
    return out
