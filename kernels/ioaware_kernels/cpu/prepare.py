"""A CPU kernel and a problem: checked, tiled, with all its memory, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod, sqrt
from typing import NamedTuple

import numpy as np
from numba import get_num_threads

from ioaware.cpu import this_cpu
from ioaware.errors import InputError, refuse, unknown
from ioaware.masks import CAUSAL, FULL
from ioaware.problem import AttentionProblem, check_count
from ioaware.readers.evaluate import TileSizes
from ioaware.reference import shapes

from ..tensors import Array
from . import flash2, naive
from .matmul import STRIP
from .strip import aligned, strips
from .tiles import default_tiles
from .vector import FLOAT_BYTES
from .work import shared_out

NAMES = ("naive", "flash2")


class Prepared(NamedTuple):
    """A kernel with its memory.

    run              one whole attention, repeatable; outputs are overwritten
    outputs          O (batch, heads, q_len, head_dim) and L = log(sum(exp(scores))) (batch, heads, q_len, 1), fp32
    tiles            what its loops use
    workspace_bytes  what it holds besides inputs and outputs: scratch of the threads, S and P of naive
    """

    run: Callable[[], None]
    outputs: dict[str, Array]
    tiles: TileSizes
    workspace_bytes: int


class _Tensors(NamedTuple):
    """(heads or kv_heads, batch, rows, columns), contiguous."""

    q: Array
    k: Array
    v: Array
    o: Array
    lse: Array


def prepare(
    name: str, problem: AttentionProblem, inputs: Mapping[str, Array], tiles: TileSizes | None = None
) -> Prepared:
    """A kernel of NAMES on packed arrays, as `ioaware.reference.random_inputs` gives them, for as many threads as now.

    tiles: by default what this machine's caches hold. Raises InputError: the kernels are fp32, forward, full or causal,
    without padding and dropout, with one length for all sequences.
    """
    if name not in NAMES:
        raise unknown("CPU kernel", name, NAMES, f"known: {', '.join(NAMES)}")
    _check(problem, inputs)
    q_len, kv_len = problem.sequences[0]
    asked = tiles or default_tiles(problem)
    for side, size in zip(("tile_q", "tile_kv"), asked[:2], strict=True):
        check_count(side, size)
    used = TileSizes(min(asked.q, q_len), min(asked.kv, kv_len))
    work = shared_out(problem, q_len, used.q, get_num_threads())
    horizon = kv_len if problem.band == FULL else kv_len - q_len + 1
    q, k, v = (_by_head(problem, inputs[n]) for n in ("Q", "K", "V"))
    x = _Tensors(q, k, v, np.empty_like(q), np.empty((*q.shape[:3], 1), np.float32))
    run, workspace = (_flash2 if name == "flash2" else _naive)(x, work, used, horizon)
    outputs = {"O": x.o.swapaxes(0, 1), "L": x.lse.swapaxes(0, 1)}
    return Prepared(run, outputs, used, sum(array.nbytes for array in workspace))


def _by_head(problem: AttentionProblem, packed: Array) -> Array:
    """(heads, batch, rows, columns): no copy of what is contiguous."""
    return np.ascontiguousarray(packed).reshape(prod(packed.shape[:-2]), problem.batch, -1, packed.shape[-1])


def _flash2(x: _Tensors, work: Array, tiles: TileSizes, horizon: int) -> tuple[Callable[[], None], tuple[Array, ...]]:
    scale, scratch = np.float32(1 / sqrt(x.q.shape[-1])), flash2.scratch(len(work), x.q.shape[-1], tiles)
    return lambda: flash2.flash2(work, *x, tiles.kv, horizon, scale, *scratch), scratch


def _naive(x: _Tensors, work: Array, tiles: TileSizes, horizon: int) -> tuple[Callable[[], None], tuple[Array, ...]]:
    scale, scratch = np.float32(1 / sqrt(x.q.shape[-1])), naive.scratch(len(work), x.q.shape[-1], tiles)
    shape = (*x.q.shape[:2], -(-x.q.shape[2] // tiles.q) * strips(tiles.q), x.k.shape[2])
    needed, memory = 2 * prod(shape) * STRIP * FLOAT_BYTES, this_cpu().hbm_bytes
    if needed > memory:
        raise InputError(f"naive: S and P take {needed:,} B, this machine has {memory:,} B of memory; take fewer rows")
    s, p = aligned(*shape), aligned(*shape)

    def run() -> None:
        naive.scores_pass(work, x.q, x.k, s, tiles.kv, horizon, scale, scratch)
        naive.softmax_pass(work, s, p, x.lse, horizon, scratch)
        naive.values_pass(work, p, x.v, x.o, tiles.kv, horizon, scratch)

    return run, (s, p, scratch)


def _check(problem: AttentionProblem, inputs: Mapping[str, Array]) -> None:
    """Raises InputError for what the kernels do not compute, and for inputs that are not the problem's."""
    legal = {
        "dtype": "fp32", "score_dtype": "fp32", "accum_dtype": "fp32", "value_dim": problem.head_dim,
        "direction": "fwd", "dropout": 0.0, "padding": False, "q_len": problem.longest()[0], "plain": True,
    }  # fmt: skip
    for name, value in legal.items():
        if getattr(problem, name) != value:
            raise refuse(name, getattr(problem, name), "not what the CPU kernels compute", value)
    if problem.band not in (FULL, CAUSAL):
        raise refuse("mask", problem.band, "the CPU kernels compute full and causal attention", CAUSAL)
    for name in ("Q", "K", "V"):
        is_there, wanted = inputs[name], f"float32 {shapes(problem)[name]}"
        if f"{is_there.dtype} {is_there.shape}" != wanted:
            raise refuse(name, f"{is_there.dtype} {is_there.shape}", "not what the problem says", wanted)
