"""Tiles for this machine's caches."""

from __future__ import annotations

from ioaware.cpu import this_cpu
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes

from .matmul import STRIP
from .strip import strips
from .vector import FLOAT_BYTES


def default_tiles(problem: AttentionProblem) -> TileSizes:
    """FlashAttention's rule (arXiv 2205.14135, Algorithm 1, line 1): B_c = M/4d, B_r = min(M/4d, d), M in words.

    M is a core's own fast memory. Queries come in whole strips, so a smaller d counts as one. Raises InputError where
    the operating system does not tell cache sizes.
    """
    words = this_cpu().sram_bytes // FLOAT_BYTES
    keys = max(words // (4 * max(problem.head_dim, STRIP)), 1)
    return TileSizes(STRIP * strips(min(keys, problem.head_dim)), keys)
