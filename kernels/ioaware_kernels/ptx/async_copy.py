"""cp.async: copies from global to shared memory that arrive as late as the model allows.

A thread's copies since its last commit_group are its next group. wait_group n waits for all but its last n groups; only
there the data arrives, and only for the thread that waits: others also need a barrier (PTX ISA 8.2, 9.7.8.24.3). What
is not waited for never arrives, so that a kernel that reads too early reads what was there before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .context import Array, Context, Mask
from .global_memory import GlobalMemory, Part
from .parse import Instruction
from .shared_memory import SharedMemory


class Copy(NamedTuple):
    """One cp.async of many lanes, on its way."""

    instruction: Instruction
    source: list[Part]
    given: Any  # bytes that each lane reads
    place: Array  # bytes in shared memory
    mask: Mask
    group: Array  # of each lane


class AsyncCopies:
    """The copies of all blocks in flight."""

    def __init__(self, context: Context, memory: GlobalMemory, shared: SharedMemory) -> None:
        self.context, self.memory, self.shared = context, memory, shared
        self.committed = np.zeros((1, 1), np.int64)  # groups, per lane once lanes differ
        self.pending: list[Copy] = []

    def issue(
        self, i: Instruction, place: Any, place_offset: int, source: Any, source_offset: int, given: Any, mask: Mask
    ) -> None:
        """Start to copy: `given` bytes per lane from `source`, and zeros behind them."""
        parts = self.memory.begin_copy(i, np.asarray(source) + np.int64(source_offset), given, mask)
        at, fine = self.shared.begin_copy(i, place, place_offset, mask)
        self.pending.append(Copy(i, parts, given, at, fine, self.committed))

    def commit(self, mask: Mask) -> None:
        """End a group."""
        self.committed = self.committed + (1 if mask is None else mask)

    def wait(self, newest: int, mask: Mask) -> None:
        """Let all committed groups arrive but the `newest` last ones."""
        self._arrive(lambda copy: copy.group < self.committed - newest, mask)

    def wait_all(self, mask: Mask) -> None:
        """Let everything arrive, committed or not."""
        self._arrive(lambda copy: np.ones((1, 1), bool), mask)

    def _arrive(self, is_due: Any, mask: Mask) -> None:
        left = []
        for copy in self.pending:
            due = is_due(copy)
            lanes = _all_of(copy.mask, mask, None if due.all() else due)
            if lanes is None or lanes.any():
                words = self.memory.copied(copy.instruction, copy.source, copy.given)
                self.shared.end_copy(copy.instruction, copy.place, words, lanes)
            if lanes is not None:
                rest = self.context.active(copy.mask) & ~lanes
                if rest.any():
                    left.append(copy._replace(mask=rest))
        self.pending = left


def _all_of(*masks: Mask) -> Mask:
    """The lanes in all masks, where None is all lanes."""
    given = [m for m in masks if m is not None]
    return np.logical_and.reduce(np.broadcast_arrays(*given)) if given else None
