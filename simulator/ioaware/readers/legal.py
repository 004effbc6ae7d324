"""What a program asks of its problem and tiles, where it is not for every one: refused before anything is counted."""

from __future__ import annotations

from ..errors import InputError, refuse
from ..masks import CAUSAL
from ..problem import AttentionProblem
from ..program.recorder import Program
from .evaluate import TileSizes


def check_legal(program: Program, problem: AttentionProblem, tiles: TileSizes) -> None:
    """Raises InputError where the program would compute or count something else."""
    if problem.page_size is not None and not whole_pages(tiles.kv, problem.page_size):
        near = (tiles.kv + sign * n for n in range(problem.page_size + 1) for sign in (-1, 1))
        nearest = next(kv for kv in near if kv > 0 and whole_pages(kv, problem.page_size))
        rule = f"a key tile is a whole number of pages of {problem.page_size} keys, or lies in one"
        raise refuse("tile_kv", tiles.kv, rule, nearest)
    if "columns" in program.calls and not problem.shared_kv:
        raise InputError(
            f"{program.name} takes values from columns of K: only a latent cache has them there (shared_kv, --latent); "
            "flash_decoding has a V"
        )
    if "same_rows" in program.calls:
        _check_linear(program, problem)


def whole_pages(tile_kv: int, page_size: int) -> bool:
    """Whether a key tile is a whole number of pages, or lies in one whatever its position."""
    return tile_kv % page_size == 0 or page_size % tile_kv == 0


def _check_linear(program: Program, problem: AttentionProblem) -> None:
    if any(q != kv for (q, kv), _ in problem.lengths()):
        raise InputError(f"{program.name} answers each key's own query: q_len and kv_len must be equal")
    if problem.band != CAUSAL:
        raise refuse("mask", problem.band, f"{program.name} sums the keys up to each query", CAUSAL)
    if problem.dropout or problem.pack > 1:
        raise InputError(f"{program.name} has no weights to drop and no packed heads; leave dropout and packing out")
