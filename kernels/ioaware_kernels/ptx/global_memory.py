"""Global memory: one buffer per tensor, at addresses so far apart that a stray one is in none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import findings, shadow
from .context import POISON, Array, Context, Mask, perform
from .count import sectors
from .parse import Instruction

SHIFT = 40  # buffer n lies at (n + 1) << SHIFT


class Buffer:
    """A tensor's memory: 4-byte words, possibly in pieces far apart, so that huge strides need no huge memory.

    starts  byte offset of each piece from the buffer's address, ascending, the first 0
    words   int32, all pieces one after another
    holds   per word: EMPTY (nobody wrote it), FULL, or OUTSIDE the tensor (between its rows)
    """

    def __init__(self, name: str, words: Array, holds: Array, starts: Sequence[int] = (0,), sizes: Any = None) -> None:
        self.starts = np.array(starts, np.int64)
        self.sizes = np.array([4 * len(words)] if sizes is None else sizes, np.int64)
        self.places = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])  # where each piece begins in `words`
        self.name, self.holds = name, holds
        self._whole = np.append(words, np.int32(POISON)) if len(words) % 2 else words  # whole 8-byte elements
        self.words = self._whole[: len(words)]

    def elements(self, dtype: np.dtype[Any]) -> Array:
        """The memory as elements of a type."""
        return self._whole.view(dtype)

    def watch(self, granule: int) -> None:
        """Begin a launch: nobody touched anything yet."""
        self.granule = granule
        self.shadow = shadow.fresh(4 * len(self.words) // granule)
        self.granules = np.repeat(self.holds, 4 // granule)

    def unwatch(self) -> None:
        """End a launch: a word is full where all of it is."""
        parts = self.granules.reshape(len(self.holds), -1)
        self.holds = np.where((parts == shadow.EMPTY).any(axis=1), shadow.EMPTY, parts.max(axis=1)).astype(np.uint8)

    def locate(self, offset: Array, size: int) -> tuple[Array, Array]:
        """(byte position in `words`, whether the access lies inside a piece) of byte offsets."""
        if len(self.starts) == 1:
            return offset, (offset >= 0) & (offset + size <= self.sizes[0])
        piece = np.maximum(np.searchsorted(self.starts, offset, side="right") - 1, 0)
        within = offset - self.starts[piece]
        return within + self.places[piece], (within >= 0) & (within + size <= self.sizes[piece])

    def name_of(self, granule: int) -> tuple[str, int]:
        """What lies at a granule, for findings."""
        position = granule * self.granule
        piece = int(np.searchsorted(self.places, position, side="right")) - 1
        return self.name, int(self.starts[piece] + position - self.places[piece])


class Part(NamedTuple):
    """The lanes of an access that touch one buffer: positions in its words, and which lanes."""

    buffer: Buffer
    position: Array  # bytes
    mask: Mask


class GlobalMemory:
    """All buffers of a launch."""

    def __init__(self, buffers: Sequence[Buffer], context: Context) -> None:
        self.buffers, self.context = buffers, context

    def load(self, i: Instruction, address: Any, dtype: np.dtype[Any], count: int, mask: Mask) -> list[Array]:
        """`count` neighbouring elements per lane; a lane that strays gets poison."""
        parts = self._parts(i, address, shadow.READ, mask)
        if len(parts) == 1 and parts[0].mask is mask:
            return self._elements(parts[0], dtype, count)
        outs = [np.full(self.context.shape, POISON, f"i{dtype.itemsize}").view(dtype)] * count
        for part in parts:
            assert part.mask is not None
            found = self._elements(part, dtype, count)
            outs = [np.where(part.mask, new, old) for new, old in zip(found, outs, strict=True)]
        return outs

    def _elements(self, part: Part, dtype: np.dtype[Any], count: int) -> list[Array]:
        memory, index = part.buffer.elements(dtype), part.position // dtype.itemsize
        if part.mask is not None:
            index = np.where(part.mask, index, 0)
        return [memory.take(index + n if n else index) for n in range(count)]

    def store(self, i: Instruction, address: Any, values: list[Array], mask: Mask) -> None:
        """Neighbouring elements per lane."""
        for part in self._parts(i, address, shadow.WRITE, mask):
            dtype = values[0].dtype
            memory = part.buffer.elements(dtype)
            index = self.context.full(part.position // dtype.itemsize)
            chosen = ... if part.mask is None else part.mask
            for n, value in enumerate(values):
                memory[index[chosen] + n] = self.context.full(value)[chosen]

    def atomic(self, i: Instruction, address: Any, operation: Any, operands: list[Array], mask: Mask) -> Array:
        """Read-modify-write, lane after lane; the old values."""
        old = np.zeros(self.context.shape, operands[0].dtype)
        for part in self._parts(i, address, shadow.ATOMIC, mask):
            memory = part.buffer.elements(operands[0].dtype)
            index = self.context.full(part.position // memory.itemsize)
            perform(operation, memory, index, self.context, operands, part.mask, old)
        return old

    def _parts(self, i: Instruction, address: Any, kind: int, mask: Mask) -> list[Part]:
        """Bound, count and check an access, buffer by buffer."""
        size, context = i.lane_bytes, self.context
        address = np.asarray(address)
        number = (address >> SHIFT) - 1
        if mask is None:
            low, high = int(number.min()), int(number.max())
        else:
            of_active = context.full(number)[mask]
            low, high = (int(of_active.min()), int(of_active.max())) if of_active.size else (0, -1)
        parts = []
        for n in range(max(low, 0), min(high, len(self.buffers) - 1) + 1):
            here = mask if low == high else (number == n if mask is None else (number == n) & mask)
            part = self._part(i, self.buffers[n], address, size, kind, here)
            if part is not None:
                parts.append(part)
        if low < 0 or high >= len(self.buffers):
            outside = ((number < 0) | (number >= len(self.buffers))) & context.active(mask)
            self._report_stray(i, outside, address)
        return parts

    def _part(self, i: Instruction, buffer: Buffer, address: Array, size: int, kind: int, mask: Mask) -> Part | None:
        context, offset = self.context, address - self.address_of(buffer)
        position, inside = buffer.locate(offset, size)
        fine = inside & (offset % size == 0)
        if not (fine.all() if mask is None else (fine | ~mask).all()):
            active = context.active(mask)
            self._report_stray(i, active & ~inside, address)
            context.report(findings.MISALIGNED, i, buffer.name, active & (offset % size != 0), offset)
            mask = active & fine
        lanes = context.lanes(mask)
        if not lanes:
            return None
        context.counts.add(i, buffer.name, lanes)
        if context.options.requests:
            found = sectors(context.full(offset), context.active(mask), size)
            context.request(i, buffer.name, found, "sectors")
        if context.options.races:
            first = np.where(context.active(mask), position // context.granule, 0)
            granules = first + np.arange(size // context.granule).reshape(-1, 1, 1)
            context.judge(i, kind, granules, mask, buffer.shadow, buffer.granules, buffer.name_of)
        return Part(buffer, position, mask)

    def address_of(self, buffer: Buffer) -> int:
        """Where a buffer lies."""
        return (self.buffers.index(buffer) + 1) << SHIFT

    def _report_stray(self, i: Instruction, strays: Array, address: Array) -> None:
        """Of the tensor whose pointer the address is computed from, not of the one it happens to hit."""
        buffer = self.context.origin(i)
        name, base = (buffer.name, self.address_of(buffer)) if buffer else ("", 0)
        self.context.report(findings.OUT_OF_BOUNDS, i, name, strays, address - base)
