"""The on-chip ledger: what a thread block holds, line by line, and the high-water mark.

The static ledger assumes full tiles (never longer than their axis), as a kernel that allocates once must; a run may
hold less where a mask skips tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..problem import AttentionProblem
from ..program.loops import Extent, Seen, rows
from ..program.nodes import Load, Loop, Node, Op, Value
from ..program.recorder import Program
from ..sizes import Atom, Name, Size, least, size
from .evaluate import Evaluator, TileSizes, compile_sizes


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
                yield from walk(n.body, () if n.kernel else live, n.kernel or kernel)
            elif isinstance(n, Load) or (isinstance(n, Op) and n.kind != "update" and not n.fused):
                live = (*live, n.out)
                reused = n.reuses if isinstance(n, Op) else None
                yield Moment(kernel, n.line, tuple(v for v in live if v is not reused))
            live = tuple(v for v in live if v not in n.dies)

    return walk(program.body, (), "")


def room(value: Value) -> Size:
    """Bytes a value may take; the itemsize of its role is the parameter `bytes_ROLE`."""

    def longest(a: Atom) -> Size:
        if isinstance(a, Extent):
            over, span = a.index.over, a.index.over.span  # type: ignore[union-attr]
            limit = span.length if hasattr(span, "length") else rows(span).map(longest)
            return least(over.step, limit)  # type: ignore[union-attr]
        return a.index.axis.length if isinstance(a, Seen) else size(a)

    return value.words.map(longest) * size(Name(f"bytes_{value.dtype}"))


def _sum(values: tuple[Value, ...]) -> Size:
    total = size(0)
    for value in values:
        total = total + room(value)
    return total


def total_sums(program: Program) -> list[Size]:
    """The bytes held at each moment, each different sum once."""
    return list(dict.fromkeys(_sum(moment.values) for moment in moments(program)))


@lru_cache
def _compiled(program: Program) -> tuple[Evaluator, tuple[int, int]]:
    """One function for all moments, and where the sums of total, loaded and computed begin."""
    unique: list[dict[Size, None]] = [{}, {}, {}]
    for moment in moments(program):
        loaded = tuple(v for v in moment.values if v.source is not None)
        computed = tuple(v for v in moment.values if v.source is None)
        for kind, values in zip(unique, (moment.values, loaded, computed), strict=True):
            kind[_sum(values)] = None
    sums = [s for kind in unique for s in kind]
    return compile_sizes(sums), (len(unique[0]), len(unique[0]) + len(unique[1]))


def on_chip(program: Program, problem: AttentionProblem, tiles: TileSizes) -> OnChip:
    """High-water marks of a thread block of the program with these tiles: exact bytes."""
    evaluate, (a, b) = _compiled(program)
    marks = [evaluate(problem, length, 1, tiles) for length, _ in problem.lengths()]
    return OnChip(*(max((max(m[part], default=0) for m in marks)) for part in (slice(a), slice(a, b), slice(b, None))))


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
    evaluate = compile_sizes([_sum(m.values) for m in everything])
    length, _ = max(problem.lengths(), key=lambda item: max(evaluate(problem, item[0], 1, tiles)))
    totals = evaluate(problem, length, 1, tiles)
    top = everything[totals.index(max(totals))]
    sizes = compile_sizes([room(v) for v in top.values])(problem, length, 1, tiles)
    names = _names(program)
    entries = [
        Entry(_describe(v, names), v.line, "x".join(map(str, v.shape)), n, v.source is not None)
        for v, n in zip(top.values, sizes, strict=True)
    ]
    return top.kernel, top.line, sorted(entries, key=lambda e: -e.bytes)


def _describe(value: Value, names: dict[int, list[str]]) -> str:
    if value.source is not None:
        return f"{value.source.name} tile"
    return " or ".join(names.get(value.line, [])) or "intermediate"


def _names(program: Program) -> dict[int, list[str]]:
    """The Python variables assigned on each line of the program's file."""
    import ast
    import linecache

    out: dict[int, list[str]] = {}
    for node in ast.walk(ast.parse("".join(linecache.getlines(program.file)))):
        if isinstance(node, ast.Assign):
            out[node.lineno] = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return out
