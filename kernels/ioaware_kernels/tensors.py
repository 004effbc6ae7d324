"""Tensors in a kernel's memory: placed with gaps and guard zones, so that a stray access is seen, and read back.

A kernel sees (batch, heads, rows, columns) with strides in elements; the simulator's packed arrays become that here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ioaware.problem import AttentionProblem

from .formats import FORMATS
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


Layout: TypeAlias = Callable[[Shape, int], Placement]  # of a tensor: its shape, and its number among a kernel's


def packed(shape: Shape, number: int = 0) -> Placement:
    """Contiguous: batch, heads, rows, columns."""
    b, h, r, c = shape
    return Placement(0, h * r * c, r * c, c, b * h * r * c)


def interleaved(shape: Shape, number: int = 0) -> Placement:
    """Contiguous as batch, rows, heads, columns: what a projection writes."""
    b, h, r, c = shape
    return Placement(0, r * h * c, c, h * c, b * h * r * c)


def padded(shape: Shape, number: int = 0) -> Placement:
    """A view of something larger: guard zones before, between and behind rows, heads and sequences.

    Every tensor has strides of its own, so that one that is taken for another's is seen.
    """
    return _with_gaps(shape, 1, number)


def padded_by_eight(shape: Shape, number: int = 0) -> Placement:
    """As padded, where everything begins at multiples of eight elements: 16 bytes of a 2-byte format."""
    return _with_gaps(shape, 8, number)


def _with_gaps(shape: Shape, unit: int, number: int) -> Placement:
    b, h, r, c = shape
    row = c + unit * (3 + number)
    head = r * row + unit * 11
    batch = h * head + unit * 13
    return Placement(unit * 17, batch, head, row, unit * 17 + b * batch + unit * 19)


def far_apart(shape: Shape, number: int = 0) -> Placement:
    """Sequences more than 2^31 elements apart: offsets overflow 32 bits. The gaps take no memory."""
    _, h, r, c = shape
    return Placement(0, (1 << 31) + 64, r * c, c, h * r * c)


class Tensor:
    """A tensor of 4- or 2-byte elements in a buffer of its own; `number`: which of a kernel's it is."""

    def __init__(self, name: str, shape: Shape, layout: Layout = packed, dtype: str = "fp32", number: int = 0) -> None:
        self.name, self.shape, self.at = name, shape, layout(shape, number)
        self.format = FORMATS[dtype]
        apart = self.at.batch > self.at.size
        pieces = shape[0] if apart else 1
        size = self.at.size + self.at.size * self.itemsize // 2 % 2  # in whole words
        words = np.full(pieces * size * self.itemsize // 4, POISON, np.int32)
        holds = np.full(pieces * size, OUTSIDE, np.uint8)
        step = size if apart else self.at.batch
        self._index = (
            self.at.first
            + step * np.arange(shape[0]).reshape(-1, 1, 1, 1)
            + self.at.head * np.arange(shape[1]).reshape(-1, 1, 1)
            + self.at.row * np.arange(shape[2]).reshape(-1, 1)
            + np.arange(shape[3])
        )
        holds[self._index] = EMPTY
        starts = [self.itemsize * self.at.batch * n for n in range(pieces)]
        self.buffer = Buffer(name, words, holds, starts, [self.itemsize * size] * pieces)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.format.itemsize

    @property
    def _bits(self) -> Array:
        return self.buffer.words.view(f"i{self.itemsize}")

    @property
    def values(self) -> Array:
        """The tensor: (batch, heads, rows, columns) fp32, a copy."""
        return self.format.decode(self._bits[self._index])

    def fill(self, values: Array) -> Tensor:
        """Put values into the tensor, as an input of the kernel."""
        self._bits[self._index] = self.format.encode(np.asarray(values))
        self.buffer.holds[self._index] = FULL
        return self

    @property
    def is_written(self) -> bool:
        """Whether every element has a value."""
        return bool((self.buffer.holds[self._index] == FULL).all())

    def note_written(self) -> None:
        """Mark what has lost its poison as written: on a GPU nobody watches the stores."""
        holds = self.buffer.holds
        holds[(holds == EMPTY) & self._touched] = FULL

    def stray_elements(self) -> int:
        """How many elements outside the tensor have lost their poison: what a stray write leaves, also on a GPU."""
        return int(np.count_nonzero(self._touched & (self.buffer.holds == OUTSIDE)))

    @property
    def _touched(self) -> Array:
        touched: Array = self._bits != POISON
        return touched


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
