"""footprint: how large a program's tensors are in HBM: what it keeps, not what it moves."""

from __future__ import annotations

from functools import lru_cache

from ..problem import AttentionProblem
from ..program.recorder import Program
from ..sizes import name, size
from .evaluate import Evaluator, TileSizes, bytes_of


@lru_cache(1024)
def _compiled(program: Program) -> Evaluator:
    tensors = program.tensors.values()
    return Evaluator([bytes_of(tuple(a.length for a in t.axes), t.dtype) for t in tensors])


@lru_cache(1024)
def _per_sequence(program: Program) -> tuple[bool, ...]:
    """Whether each tensor has a part for every sequence."""
    lengths = {name("q_len"), name("kv_len")}
    names = [{size(a) for axis in t.axes for a in axis.length.all_atoms()} for t in program.tensors.values()]
    return tuple(bool(n & lengths) and not t.shared for n, t in zip(names, program.tensors.values(), strict=True))


def footprint(program: Program, problem: AttentionProblem, tiles: TileSizes) -> dict[str, int]:
    """Bytes of every tensor of the program: inputs, outputs and scratch, over all sequences and heads."""
    out = dict.fromkeys(program.tensors, 0)
    for length, sequences in problem.lengths():
        sizes = _compiled(program)(problem, length, 1, tiles)
        for tensor, one, each in zip(out, sizes, _per_sequence(program), strict=True):
            out[tensor] = out[tensor] + sequences * one if each else one
    return out
