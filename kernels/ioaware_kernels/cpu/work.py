"""Which thread does which query tiles: settled beforehand, so that the bits of a result do not depend on chance."""

from __future__ import annotations

import numpy as np

from ioaware.problem import AttentionProblem

from ..tensors import Array
from .strip import strips

# One query tile: rows `first` to `last` of a head and sequence, kept in strips from `strip` on; none if first = last.
TILE = np.dtype([("head", "i8"), ("sequence", "i8"), ("first", "i8"), ("last", "i8"), ("strip", "i8")])


def shared_out(problem: AttentionProblem, q_len: int, tile_q: int, threads: int) -> Array:
    """(threads, turns) query tiles. To and fro, so that causal tiles, which grow, are shared out evenly."""
    tiles = -(-q_len // tile_q)
    count = problem.heads * problem.batch * tiles
    turns = -(-count // threads)
    number = np.arange(turns * threads)
    work: Array = np.zeros(turns * threads, TILE)
    work["head"], rest = np.divmod(number, problem.batch * tiles)
    work["sequence"], tile = np.divmod(rest, tiles)
    work["first"], work["strip"] = tile * tile_q, tile * strips(tile_q)
    work["last"] = np.minimum(work["first"] + tile_q, q_len)
    work[count:] = 0
    work = work.reshape(turns, threads)
    work[1::2] = work[1::2, ::-1]
    return np.ascontiguousarray(work.T)
