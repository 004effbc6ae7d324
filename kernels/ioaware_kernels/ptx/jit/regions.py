"""Conditional code without jumps elsewhere: `if (...) {...} else {...}`, also nested, found in the control flow.

Its lanes need not be parked: they run the code under a mask, and what it wrote is chosen lane by lane behind it.
"""

from __future__ import annotations

from typing import NamedTuple

from ..parse import Kernel


class Conditional(NamedTuple):
    """Behind the branch of block n: lanes that do not jump run up to `otherwise`, those that do from there to `end`."""

    otherwise: int
    end: int


def conditionals(kernel: Kernel) -> dict[int, Conditional]:
    """By the block that branches."""
    return _Search(kernel).found


class _Search:
    def __init__(self, kernel: Kernel) -> None:
        self.blocks = kernel.blocks
        self.before: list[set[int]] = [set() for _ in self.blocks]
        for n, block in enumerate(self.blocks):
            for target in block.successors:
                self.before[target].add(n)
        self.found: dict[int, Conditional] = {}
        for n in reversed(range(len(self.blocks))):  # inner ones are found first
            conditional = self._conditional(n)
            if conditional is not None:
                self.found[n] = conditional

    def _conditional(self, n: int) -> Conditional | None:
        last = self.blocks[n].last
        if last is None or last.base != "bra" or not last.guard or len(self.blocks[n].successors) != 2:
            return None
        target, following = self.blocks[n].successors
        if following != n + 1 or target <= following:
            return None
        end = self._end(n, following, target)
        if end is None or end == target:
            return Conditional(target, target) if end else None
        return Conditional(target, end) if end > target and self._end(n, target, end) == end else None

    def _end(self, branch: int, first: int, stop: int) -> int | None:
        """Where the code from `first` up to `stop` goes on, if it is entered from the branch and left in one way."""
        if self.before[first] != {branch}:
            return None
        at = first
        while True:
            block, after = self.blocks[at], at + 1
            if block.is_barrier or not block.successors or (block.last and block.last.base in ("ret", "exit")):
                return None
            if at in self.found:
                after = self.found[at].end
            elif len(block.successors) > 1:
                return None
            elif block.successors[0] != after:
                return block.successors[0] if after == stop else None
            if after == stop:
                return stop
            if after > stop or not self.before[after] <= set(range(first, after)):
                return None
            at = after
