"""Where the engine is: the thread blocks in flight, what is watched, and what has been counted and found so far.

Registers are arrays over (threads, blocks); a mask of the same shape says which lanes take part, None for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import findings, shadow
from .count import Counts, Requests
from .findings import RACES, Findings, Where
from .parse import Instruction
from .shadow import Shadow

if TYPE_CHECKING:
    from .global_memory import Buffer

Array: TypeAlias = np.ndarray[Any, Any]
Mask: TypeAlias = "Array | None"
POISON = -1  # of every word that nobody wrote: a NaN in fp32 and fp64

_APART = ("lanes", "warps", "blocks")
_TEXTS = {
    shadow.UNINITIALISED: findings.UNINITIALISED,
    shadow.GUARD: findings.GUARD,
    shadow.IN_FLIGHT: findings.IN_FLIGHT,
    **{shadow.RAW + n: RACES["read", apart] for n, apart in enumerate(_APART)},
    **{shadow.WAW + n: RACES["write", apart] for n, apart in enumerate(_APART)},
    **{shadow.WAR + n: RACES["write after read", apart] for n, apart in enumerate(_APART)},
}


@dataclass
class Options:
    """What a launch watches besides counting: `races` judges every access, `requests` counts sectors and banks."""

    races: bool = False
    requests: bool = False
    reverse: bool = False  # thread blocks, and the lanes of an atomic, in the opposite order
    budget: int = 100_000_000  # instructions, each executed by any number of lanes


@dataclass
class Context:
    """Where the engine is: the blocks in flight, how many barriers they have passed, what was found so far."""

    first_block: int
    threads: int
    blocks: int
    counts: Counts
    findings: Findings
    options: Options
    origin: Callable[[Instruction], Buffer | None]  # the tensor whose pointer an access's address is computed from
    granule: int = 4  # bytes that the shadow tells apart
    numbers: Array = field(init=False)  # of the blocks: which one a column is
    intervals: Array = field(init=False)
    warp_intervals: Array = field(init=False)

    def __post_init__(self) -> None:
        numbers = np.arange(self.first_block, self.first_block + self.blocks)
        self.numbers = numbers[::-1].copy() if self.options.reverse else numbers
        self.intervals = np.zeros(self.blocks, np.int64)
        self.warp_intervals = np.zeros((-(-self.threads // 32), self.blocks), np.int64)

    @property
    def shape(self) -> tuple[int, int]:
        """(threads, blocks)."""
        return self.threads, self.blocks

    def full(self, a: Any) -> Array:
        """An array broadcast over all lanes."""
        return np.broadcast_to(a, self.shape)

    def lanes(self, mask: Mask) -> int:
        """How many lanes take part."""
        return self.threads * self.blocks if mask is None else int(np.count_nonzero(mask))

    def active(self, mask: Mask) -> Array:
        """The mask as an array."""
        return np.ones(self.shape, bool) if mask is None else self.full(mask)

    def report(self, what: str, instruction: Instruction, memory: str, bad: Array, offset: Any) -> None:
        """Record the lanes in which something is wrong."""
        if bad.any():
            thread, block = (int(x[0]) for x in np.nonzero(bad))
            first = Where(int(self.numbers[block]), thread, int(self.full(offset)[thread, block]))
            self.findings.add(what, instruction, memory, first, int(np.count_nonzero(bad)))

    def request(self, i: Instruction, memory: str, found: tuple[int, int], what: str) -> None:
        """Count what warps asked of the memory system: (requests, sectors or passes)."""
        record = self.counts.requests.setdefault((i, memory), Requests())
        record.requests += found[0]
        setattr(record, what, getattr(record, what) + found[1])

    def judge(
        self, instruction: Instruction, kind: int, granules: Array, mask: Mask, watched: Shadow, holds: Array, name: Any
    ) -> None:
        """Judge an access by the shadow.

        granules  (granules of a lane, threads, blocks); name(granule) is what lies there: (memory, byte offset in it)
        """
        times = np.zeros(shadow.VERDICTS, np.int64)
        examples = np.zeros((shadow.VERDICTS, 3), np.int64)
        shadow.observe(
            *watched, holds, granules, self.active(mask), kind,
            self.numbers, self.intervals, self.warp_intervals, times, examples,
        )  # fmt: skip
        for verdict in map(int, np.flatnonzero(times)):
            thread, block, granule = (int(x) for x in examples[verdict])
            memory, offset = name(granule)
            self.findings.add(_TEXTS[verdict], instruction, memory, Where(block, thread, offset), int(times[verdict]))


def perform(
    operation: Any, memory: Array, index: Array, context: Context, operands: list[Array], mask: Mask, old: Array
) -> None:
    """An atomic operation of every active lane, block after block, in the order that the options ask for."""
    lanes = np.flatnonzero(context.active(mask).T.reshape(-1))
    if context.options.reverse:
        lanes = lanes[::-1]
    threads = context.threads
    rows, columns = lanes % threads, lanes // threads
    given = [np.ascontiguousarray(context.full(x)[rows, columns]) for x in operands]
    old[rows, columns] = operation(memory, index[rows, columns], *given)
