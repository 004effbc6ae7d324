"""Is it still attention? Outputs of what is timed, against float64 softmax on a sample of rows: cheap at any length.

Blocks of rows at the start, at the end and at a random place, of a few sequences and heads. Rows a .. z of a problem
are a problem of their own: the same keys, or under a causal mask the first of them, up to row z's diagonal.
Everything else must at least be a number: outputs are filled with NaN before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ioaware.masks import CAUSAL
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program

from ..tensors import Array
from ..tolerance import Difference, compare, expected
from ..verify import wrong_values

ROWS = 16  # of a block
HEADS = 4  # sequences and heads that are looked at


class Block(NamedTuple):
    """Rows first .. last - 1 of one head of one sequence."""

    batch: int
    head: int
    first: int
    last: int


def blocks(problem: AttentionProblem, seed: int) -> Iterator[Block]:
    """What is looked at."""
    rng = np.random.default_rng(seed)
    (q_len, _), *_ = problem.sequences
    rows, pairs = min(ROWS, q_len), problem.batch * problem.heads
    for chosen in rng.choice(pairs, min(HEADS, pairs), replace=False):
        for first in dict.fromkeys((0, int(rng.integers(q_len - rows + 1)), q_len - rows)):
            block = Block(int(chosen) // problem.heads, int(chosen) % problem.heads, first, first + rows)
            if keys(problem, block) > 0:
                yield block


def keys(problem: AttentionProblem, block: Block) -> int:
    """How many keys the last row of a block sees: under a causal mask, bottom-right aligned, the first ones."""
    (q_len, kv_len), *_ = problem.sequences
    return block.last + kv_len - q_len if problem.band == CAUSAL else kv_len


def check(
    program: Program, problem: AttentionProblem, inputs: Mapping[str, Array], outputs: Mapping[str, Array], seed: int
) -> tuple[dict[str, Difference], list[str]]:
    """The largest difference of each output, and one sentence for everything that is wrong.

    inputs: packed, as `ioaware.reference` has them; outputs: (batch, heads, rows, columns), some of the program's.
    """
    wrong = [f"{name} is not written everywhere" for name, a in outputs.items() if np.isnan(a).any()]
    worst: dict[str, Difference] = {}
    for block in blocks(problem, seed) if not wrong else ():
        exact = expected(program, *_part(problem, inputs, block))
        for name, values in outputs.items():
            part = values[block.batch, block.head, block.first : block.last]
            found = compare(part[None, None], exact[name])
            worst[name] = max(worst.get(name, found), found, key=lambda d: (d.misplaced, d.error / d.tolerance))
    return worst, [*wrong, *wrong_values(worst)]


def _part(
    problem: AttentionProblem, inputs: Mapping[str, Array], block: Block
) -> tuple[AttentionProblem, dict[str, Array]]:
    """A block of rows as a problem of its own."""
    (q_len, kv_len), *_ = problem.sequences
    q0, kv0, seen = block.batch * q_len, block.batch * kv_len, keys(problem, block)
    part = replace(problem, q_len=block.last - block.first, kv_len=seen, batch=1, heads=1, kv_heads=1)
    rows, columns = slice(q0 + block.first, q0 + block.last), slice(kv0, kv0 + seen)
    h, group = divmod(block.head, problem.group)
    return part, {
        "Q": inputs["Q"][h : h + 1, group : group + 1, rows],
        **{name: inputs[name][h : h + 1, columns] for name in ("K", "V")},
    }
