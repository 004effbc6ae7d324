"""Global memory: one buffer per tensor, at addresses so far apart that a stray one is in none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ioaware.traffic import Moved

from . import findings, shadow
from .context import POISON, Array, Context, Mask, perform
from .count import sectors
from .parse import Instruction

SHIFT = 40  # buffer n lies at (n + 1) << SHIFT


class Buffer:
    """A tensor's memory: 4-byte words, possibly in pieces far apart, so that huge strides need no huge memory.

    starts  byte offset of each piece from the buffer's address, ascending, the first 0
    words   int32, all pieces one after another
    holds   per element, of 4 or 2 bytes: EMPTY (nobody wrote it), FULL, or OUTSIDE the tensor (between its rows)
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
        self.granules = _of_parts(np.repeat(self.holds, max(self.element // granule, 1)), len(self.shadow.writes))

    def unwatch(self) -> None:
        """End a launch: an element is full where all of it is."""
        after = _of_parts(np.repeat(self.granules, max(self.granule // self.element, 1)), len(self.holds))
        self.holds = np.where((self.holds == shadow.EMPTY) & (after == shadow.FULL), after, self.holds)

    @property
    def element(self) -> int:
        """Bytes of an element."""
        return 4 * len(self.words) // len(self.holds)

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


def _of_parts(holds: Array, wholes: int) -> Array:
    """What each of `wholes` holds, of its parts: outside if one is, empty if one is, else full."""
    parts = holds.reshape(wholes, -1)
    empty = (parts == shadow.EMPTY).any(axis=1) & (parts != shadow.OUTSIDE).all(axis=1)
    return np.where(empty, shadow.EMPTY, parts.max(axis=1)).astype(np.uint8)


def owner(pointers: Iterable[str], params: Mapping[str, bytes], buffers: int) -> int | None:
    """The number of the buffer that one of these parameters points to: whom a stray access computed from it belongs to.

    pointers: names of the parameters that its address is computed from; buffers: how many there are.
    """
    numbers = [(int.from_bytes(params[name][:8], "little") >> SHIFT) - 1 for name in sorted(pointers)]
    return next((n for n in numbers if 0 <= n < buffers), None)


class Part(NamedTuple):
    """The lanes of an access that touch one buffer: positions in its words, and which lanes."""

    buffer: Buffer
    position: Array  # bytes
    mask: Mask
    size: int  # bytes that each lane touches


class GlobalMemory:
    """All buffers of a launch."""

    def __init__(self, buffers: Sequence[Buffer], context: Context) -> None:
        self.buffers, self.context = buffers, context

    def load(self, i: Instruction, address: Any, dtype: np.dtype[Any], count: int, mask: Mask) -> list[Array]:
        """`count` neighbouring elements per lane; a lane that strays gets poison."""
        parts = self._parts(i, address, i.lane_bytes, shadow.READ, mask)
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
        for part in self._parts(i, address, i.lane_bytes, shadow.WRITE, mask):
            dtype = values[0].dtype
            memory = part.buffer.elements(dtype)
            index = self.context.full(part.position // dtype.itemsize)
            chosen = ... if part.mask is None else part.mask
            for n, value in enumerate(values):
                memory[index[chosen] + n] = self.context.full(value)[chosen]

    def atomic(self, i: Instruction, address: Any, operation: Any, operands: list[Array], mask: Mask) -> Array:
        """Read-modify-write, lane after lane; the old values."""
        old = np.zeros(self.context.shape, operands[0].dtype)
        for part in self._parts(i, address, i.lane_bytes, shadow.ATOMIC, mask):
            memory = part.buffer.elements(operands[0].dtype)
            index = self.context.full(part.position // memory.itemsize)
            perform(operation, memory, index, self.context, operands, part.mask, old)
        return old

    def begin_copy(self, i: Instruction, address: Any, given: Any, mask: Mask) -> list[Part]:
        """Bound, count and check what a cp.async reads: `given` bytes per lane, none where it only fills with zeros."""
        asked, active = self.context.full(given), self.context.active(mask)
        self.context.report(findings.TOO_MANY, i, "", active & ((asked < 0) | (asked > i.lane_bytes)), np.int64(0))
        given = np.clip(asked, 0, i.lane_bytes)
        sizes = given[active]
        parts = []
        for size in map(int, np.unique(sizes[sizes > 0])):
            lanes = mask if (sizes == size).all() else self.context.active(mask) & (given == size)
            parts += self._parts(i, address, size, shadow.READ, lanes)
        return parts

    def copied(self, i: Instruction, parts: Sequence[Part], given: Any) -> list[Array]:
        """The words that a cp.async moves, as memory is now: zeros behind what a lane reads, poison if it strays."""
        stray = self.context.full(np.where(np.asarray(given) > 0, np.int32(POISON), np.int32(0)))
        words = [stray] * (i.lane_bytes // 4)
        for part in parts:
            read = self._elements(part, np.dtype(np.int32), -(-part.size // 4))
            for n, found in enumerate(read + [np.zeros_like(read[0])] * (len(words) - len(read))):
                kept = found & np.int32((1 << 8 * max(part.size - 4 * n, 0)) - 1) if part.size < 4 * n + 4 else found
                words[n] = kept if part.mask is None else np.where(part.mask, kept, words[n])
        return words

    def _parts(self, i: Instruction, address: Any, size: int, kind: int, mask: Mask) -> list[Part]:
        """Bound, count and check an access, buffer by buffer."""
        context = self.context
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
        odd = offset % i.lane_bytes != 0
        fine = inside & ~odd
        if not (fine.all() if mask is None else (fine | ~mask).all()):
            active = context.active(mask)
            self._report_stray(i, active & ~inside, address)
            context.report(findings.MISALIGNED, i, buffer.name, active & odd, offset)
            mask = active & fine
        lanes = context.lanes(mask)
        if not lanes:
            return None
        context.counts.add(i, buffer.name, Moved._fields[kind], lanes * size)
        if context.options.requests:
            found = sectors(context.full(offset), context.active(mask), size)
            context.request(i, buffer.name, found, "sectors")
        if context.options.races:
            first = np.where(context.active(mask), position // context.granule, 0)
            granules = first + np.arange(-(-size // context.granule)).reshape(-1, 1, 1)
            context.judge(i, kind, granules, mask, buffer.shadow, buffer.granules, buffer.name_of)
        return Part(buffer, position, mask, size)

    def address_of(self, buffer: Buffer) -> int:
        """Where a buffer lies."""
        return (self.buffers.index(buffer) + 1) << SHIFT

    def _report_stray(self, i: Instruction, strays: Array, address: Array) -> None:
        """Of the tensor whose pointer the address is computed from, not of the one it happens to hit."""
        buffer = self.context.origin(i)
        name, base = (buffer.name, self.address_of(buffer)) if buffer else ("", 0)
        self.context.report(findings.OUT_OF_BOUNDS, i, name, strays, address - base)
