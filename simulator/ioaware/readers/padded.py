"""padded: what a kernel moves through shared memory when ragged tiles are filled up with zeros to whole ones.

A CUDA kernel's inner loops have fixed lengths: the last tile of a sequence is as large as the others, and columns
beyond head_dim are zeros up to the width that the kernel was built for. Loads from HBM stay ragged (`count`); tiles in
shared memory, and the matrix products that read them, are whole. The closed forms are the same, for other sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..masks import Statistics
from ..problem import AttentionProblem
from ..program.nodes import Op, Value
from ..program.recorder import Program
from .algebra import accesses, nodes
from .count import Key, Quantity, closed_forms
from .evaluate import Evaluator, TileSizes


class Padding(NamedTuple):
    """What sizes are rounded up to."""

    q_len: int
    kv_len: int
    head_dim: int  # the width itself: at least the problem's


class Product(NamedTuple):
    """A matrix product, summed over all visits: elements of both operands, multiply-adds."""

    left: int
    right: int
    multiply_adds: int


class Padded(NamedTuple):
    """Whole tiles of one kernel launch."""

    loads: dict[str, int]  # elements per tensor
    dots: list[Product]  # in the order of the text


def padded(program: Program, problem: AttentionProblem, tiles: TileSizes, padding: Padding) -> dict[str, Padded]:
    """Whole tiles loaded and multiplied, per kernel launch. Raises NoClosedForm."""
    totals: Counter[Key] = Counter()
    keys, evaluate = _compiled(program)
    for (q_len, kv_len), sequences in problem.lengths():
        whole = -(-q_len // padding.q_len) * padding.q_len, -(-kv_len // padding.kv_len) * padding.kv_len
        wide = replace(problem, head_dim=padding.head_dim, value_dim=padding.head_dim)

        def statistics(_q: int, _kv: int, tile_q: int, tile_kv: int, q: int = q_len, kv: int = kv_len) -> Statistics:
            seen = problem.band.statistics(q, kv, tile_q, tile_kv).tiles
            return Statistics(seen, seen * tile_q, seen * tile_kv, seen * tile_q * tile_kv)

        totals.update(dict(zip(keys, evaluate(wide, whole, sequences, tiles, statistics), strict=True)))
    out = {kernel: Padded({}, []) for kernel, *_ in keys}
    for kernel, what, *field in keys:
        if not field:
            out[kernel].loads[what] = totals[kernel, what]
        elif field == ["left"]:
            out[kernel].dots.append(Product(*(totals[kernel, what, name] for name in Product._fields)))
    return out


@lru_cache
def _compiled(program: Program) -> tuple[tuple[Key, ...], Evaluator]:
    forms = closed_forms(program, quantities)
    return tuple(forms), Evaluator(list(forms.values()))


def quantities(program: Program) -> tuple[Quantity, ...]:
    """Elements per (kernel, tensor) loaded, and per (kernel, matrix product, field of Product)."""
    loads = [((a.kernel, a.tensor.name), a.words, a.loops) for a in accesses(program) if a.kind == "read"]
    return (*loads, *_dots(program))


def _dots(program: Program) -> Iterator[Quantity]:
    seen: Counter[str] = Counter()
    for op, loops in nodes(program.body):
        if isinstance(op, Op) and op.kind == "dot":
            kernel = (loops[0].kernel or "") if loops else ""
            seen[kernel] += 1
            left, right = op.args
            assert isinstance(left, Value)
            assert isinstance(right, Value)
            sizes = left.words, right.words, op.out.words * left.shape[-1]
            for name, elements in zip(Product._fields, sizes, strict=True):
                yield (kernel, f"dot {seen[kernel]}", name), elements, loops
