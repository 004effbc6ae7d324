"""Tensors in a kernel's memory: placed with gaps and guard zones, so that a stray access is seen, and read back.

A kernel sees (batch, heads, rows, columns) with strides in elements; the simulator's packed arrays become that here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ioaware.problem import AttentionProblem

from .ptx.context import POISON
from .ptx.global_memory import Buffer
from .ptx.shadow import EMPTY, FULL, OUTSIDE

Array: TypeAlias = np.ndarray[Any, Any]
Shape: TypeAlias = tuple[int, int, int, int]  # batch, heads, rows, columns


class Placement(NamedTuple):
    """Where a tensor lies in its buffer, in elements; columns are contiguous."""

    first: int
    batch: int
    head: int
    row: int
    size: int  # of the buffer


Layout: TypeAlias = Callable[[Shape], Placement]


def packed(shape: Shape) -> Placement:
    """Contiguous: batch, heads, rows, columns."""
    b, h, r, c = shape
    return Placement(0, h * r * c, r * c, c, b * h * r * c)


def interleaved(shape: Shape) -> Placement:
    """Contiguous as batch, rows, heads, columns: what a projection writes."""
    b, h, r, c = shape
    return Placement(0, r * h * c, c, h * c, b * h * r * c)


def padded(shape: Shape) -> Placement:
    """A view of something larger: guard zones before, between and behind rows, heads and sequences."""
    b, h, r, c = shape
    row, head, batch = c + 3, r * (c + 3) + 11, h * (r * (c + 3) + 11) + 13
    return Placement(17, batch, head, row, 17 + b * batch + 19)


def far_apart(shape: Shape) -> Placement:
    """Sequences more than 2^31 elements apart: offsets overflow 32 bits. The gaps take no memory."""
    _, h, r, c = shape
    return Placement(0, (1 << 31) + 64, r * c, c, h * r * c)


class Tensor:
    """A tensor of 4-byte elements in a buffer of its own."""

    def __init__(self, name: str, shape: Shape, layout: Layout = packed) -> None:
        self.name, self.shape, self.at = name, shape, layout(shape)
        apart = self.at.batch > self.at.size
        pieces = shape[0] if apart else 1
        words = np.full(pieces * self.at.size, POISON, np.int32)
        holds = np.full(words.shape, OUTSIDE, np.uint8)
        step = self.at.size if apart else self.at.batch
        self._index = (
            self.at.first
            + step * np.arange(shape[0]).reshape(-1, 1, 1, 1)
            + self.at.head * np.arange(shape[1]).reshape(-1, 1, 1)
            + self.at.row * np.arange(shape[2]).reshape(-1, 1)
            + np.arange(shape[3])
        )
        holds[self._index] = EMPTY
        starts = [4 * self.at.batch * n for n in range(pieces)]
        self.buffer = Buffer(name, words, holds, starts, [4 * self.at.size] * pieces)

    @property
    def values(self) -> Array:
        """The tensor: (batch, heads, rows, columns) fp32, a copy."""
        values: Array = self.buffer.words.view(np.float32)[self._index]
        return values

    def fill(self, values: Array) -> Tensor:
        """Put values into the tensor, as an input of the kernel."""
        self.buffer.words.view(np.float32)[self._index] = values
        self.buffer.holds[self._index] = FULL
        return self

    @property
    def is_written(self) -> bool:
        """Whether every element has a value."""
        return bool((self.buffer.holds[self._index] == FULL).all())

    def note_written(self) -> None:
        """Mark what has lost its poison as written: on a GPU nobody watches the stores."""
        holds, words = self.buffer.holds, self.buffer.words
        holds[(holds == EMPTY) & (words != POISON)] = FULL

    def stray_words(self) -> int:
        """How many words outside the tensor have lost their poison: what a stray write leaves, also on a GPU."""
        outside = self.buffer.holds == OUTSIDE
        return int(np.count_nonzero(self.buffer.words[outside] != POISON))


# ------------------------------------------------------------------------------------------------ from the simulator
def unpacked(problem: AttentionProblem, array: Array) -> Array:
    """A packed array of the simulator, (kv_heads, [group,] all rows, columns), as (batch, heads, rows, columns)."""
    heads = int(np.prod(array.shape[:-2]))
    by_head = array.reshape(heads, problem.batch, -1, array.shape[-1])
    return by_head.swapaxes(0, 1)


def repacked(values: Array) -> Array:
    """The way back, in fp32: (batch, heads, rows, columns) as (heads, all rows, columns)."""
    batch, heads, rows, columns = values.shape
    return values.swapaxes(0, 1).reshape(heads, batch * rows, columns).astype(np.float32)
