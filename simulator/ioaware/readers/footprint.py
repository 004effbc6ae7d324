"""footprint: how large a program's tensors are in HBM: what it keeps, not what it moves."""

from __future__ import annotations

from functools import lru_cache

from ..problem import AttentionProblem
from ..program.recorder import Program
from ..sizes import product
from .evaluate import Evaluator, TileSizes, size_of


@lru_cache
def _compiled(program: Program) -> Evaluator:
    tensors = program.tensors.values()
    return Evaluator([product(tuple(a.length for a in t.axes)) * size_of(t.dtype) for t in tensors])


def footprint(program: Program, problem: AttentionProblem, tiles: TileSizes) -> dict[str, int]:
    """Bytes of every tensor of the program: inputs, outputs and scratch, over all sequences and heads."""
    out = dict.fromkeys(program.tensors, 0)
    for length, sequences in problem.lengths():
        sizes = _compiled(program)(problem, length, 1, tiles)
        for name, size in zip(out, sizes, strict=True):
            out[name] += sequences * size
    return out
