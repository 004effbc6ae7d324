"""What a run finds wrong: one record per instruction, kind and memory, with its first instance and how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .parse import Instruction

RACES = {
    ("read", "warps"): "reads what another warp wrote, with no barrier between",
    ("write", "warps"): "writes what another warp wrote, with no barrier between",
    ("write after read", "warps"): "overwrites what another warp read, with no barrier between",
    ("read", "lanes"): "reads what another lane of the warp wrote, with no __syncwarp between",
    ("write", "lanes"): "writes what another lane of the warp wrote, with no __syncwarp between",
    ("write after read", "lanes"): "overwrites what another lane of the warp read, with no __syncwarp between",
    ("read", "blocks"): "reads what another thread block wrote in this launch",
    ("write", "blocks"): "writes what another thread block wrote in this launch",
    ("write after read", "blocks"): "overwrites what another thread block read in this launch",
}
UNINITIALISED = "reads what nobody wrote"
IN_FLIGHT = "touches what a cp.async is still copying, with no wait between"
TOO_MANY = "reads more bytes than it copies"
GUARD = "touches memory between or behind the rows of the tensor"
OUT_OF_BOUNDS = "touches memory outside every tensor"
MISALIGNED = "is not aligned to its size"
DIVERGENT_BARRIER = "is a barrier that a part of the thread block never reaches"
INACTIVE_LANE = "names a lane of the warp that does not take part"
BUDGET = "still runs after the instruction budget: an endless loop?"


class Where(NamedTuple):
    """An instance: thread of a thread block, both counted in one dimension, and a byte offset in the memory."""

    block: int
    thread: int
    offset: int


@dataclass
class Finding:
    """Something wrong with a kernel, at one instruction."""

    kernel: str
    what: str
    instruction: Instruction
    memory: str  # a tensor, or a region of shared memory
    first: Where
    times: int = 0

    def __str__(self) -> str:
        i, at = self.instruction, self.first
        source = f"{self.kernel}, "
        if i.source:
            called = f" (called in line {i.caller})" if i.caller != i.source else ""
            source = f"{self.kernel}, CUDA line {i.source}{called}, "
        place = f" {self.memory}+{at.offset}" if self.memory else ""
        return (
            f"{source}PTX line {i.line} `{i.text}`{place} {self.what} "
            f"(thread {at.thread} of block {at.block}; {self.times:,} times)"
        )


class Findings:
    """Everything found in one launch, each kind at each instruction once."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.found: dict[tuple[str, Instruction, str], Finding] = {}

    def add(self, what: str, instruction: Instruction, memory: str, first: Where, times: int) -> None:
        """Record `times` instances, of which `first` is one."""
        key = what, instruction, memory
        if key not in self.found:
            self.found[key] = Finding(self.kernel, what, instruction, memory, first)
        self.found[key].times += times

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found.values())

    def __len__(self) -> int:
        return len(self.found)
