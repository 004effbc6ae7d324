"""Global buffers and shared memory, as the engine's threads see them: every access is bounded, counted and checked.

Registers are arrays over (threads, blocks); a mask of the same shape says which lanes take part, None for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from . import findings, shadow
from .count import Counts, Requests, bank_passes, sectors
from .findings import RACES, Findings, Where
from .parse import Instruction

Array: TypeAlias = np.ndarray[Any, Any]
Mask: TypeAlias = "Array | None"
SHIFT = 40  # buffer n lies at (n + 1) << SHIFT: a stray address is in no buffer, however far it strays
POISON = -1  # of every word that nobody wrote: a NaN in fp32 and fp64


# ------------------------------------------------------------------------------------------------ what is checked
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
    intervals: Array = field(init=False)
    warp_intervals: Array = field(init=False)

    def __post_init__(self) -> None:
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
            first = Where(self.first_block + block, thread, int(self.full(offset)[thread, block]))
            self.findings.add(what, instruction, memory, first, int(np.count_nonzero(bad)))

    def judge(
        self, instruction: Instruction, kind: int, words: Array, each: int, mask: Mask, state: Array, holds: Array,
        name: Any,
    ) -> None:  # fmt: skip
        """Judge an access by the shadow; `name` tells what lies at a word: (memory, byte offset in it)."""
        times = np.zeros(shadow.VERDICTS, np.int64)
        examples = np.zeros((shadow.VERDICTS, 3), np.int64)
        shadow.observe(
            state, holds, words, each, self.active(mask), kind,
            self.first_block, self.intervals, self.warp_intervals, times, examples,
        )  # fmt: skip
        for verdict in np.flatnonzero(times):
            thread, block, word = (int(x) for x in examples[verdict])
            memory, offset = name(word)
            self.findings.add(_TEXTS[verdict], instruction, memory, Where(block, thread, offset), int(times[verdict]))


_APART = ("lanes", "warps", "blocks")
_TEXTS = {
    shadow.UNINITIALISED: findings.UNINITIALISED,
    shadow.GUARD: findings.GUARD,
    **{shadow.RAW + n: RACES["read", apart] for n, apart in enumerate(_APART)},
    **{shadow.WAW + n: RACES["write", apart] for n, apart in enumerate(_APART)},
    **{shadow.WAR + n: RACES["write after read", apart] for n, apart in enumerate(_APART)},
}


# ------------------------------------------------------------------------------------------------ global memory
class Buffer:
    """A tensor's memory: 4-byte words, possibly in pieces far apart, so that huge strides need no huge memory.

    starts  byte offset of each piece from the buffer's address, ascending, the first 0
    words   int32, all pieces one after another
    holds   per word: EMPTY (nobody wrote it), FULL, or OUTSIDE the tensor (between its rows)
    """

    def __init__(self, name: str, words: Array, holds: Array, starts: Sequence[int] = (0,), sizes: Any = None) -> None:
        self.name, self.words, self.holds = name, words, holds
        self.starts = np.array(starts, np.int64)
        self.sizes = np.array([4 * len(words)] if sizes is None else sizes, np.int64)
        self.places = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])  # where each piece begins in `words`
        self.state = shadow.words(0)

    def locate(self, offset: Array, size: int) -> tuple[Array, Array]:
        """(byte position in `words`, whether the access lies inside a piece) of byte offsets."""
        if len(self.starts) == 1:
            return offset, (offset >= 0) & (offset + size <= self.sizes[0])
        piece = np.maximum(np.searchsorted(self.starts, offset, side="right") - 1, 0)
        within = offset - self.starts[piece]
        return within + self.places[piece], (within >= 0) & (within + size <= self.sizes[piece])

    def name_of(self, word: int) -> tuple[str, int]:
        """What lies at a word, for findings."""
        piece = int(np.searchsorted(self.places, 4 * word, side="right")) - 1
        return self.name, int(self.starts[piece] + 4 * word - self.places[piece])


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
        outs: list[Array] = []
        for part in self._parts(i, address, shadow.READ, mask):
            memory, index = part.buffer.words.view(dtype), part.position // dtype.itemsize
            if part.mask is not None:
                index = np.where(part.mask, index, 0)
            found = [memory.take(index + n if n else index) for n in range(count)]
            outs = [_merge(part.mask, new, old) for new, old in zip(found, outs or found, strict=True)]
        return outs or [np.full(self.context.shape, POISON, f"i{dtype.itemsize}").view(dtype)] * count

    def store(self, i: Instruction, address: Any, values: list[Array], mask: Mask) -> None:
        """Neighbouring elements per lane."""
        for part in self._parts(i, address, shadow.WRITE, mask):
            dtype = values[0].dtype
            memory = part.buffer.words.view(dtype)
            index = self.context.full(part.position // dtype.itemsize)
            chosen = ... if part.mask is None else part.mask
            for n, value in enumerate(values):
                memory[index[chosen] + n] = self.context.full(value)[chosen]

    def atomic(self, i: Instruction, address: Any, operation: Any, operands: list[Array], mask: Mask) -> Array:
        """Read-modify-write, lane after lane; the old values."""
        old = np.zeros(self.context.shape, operands[0].dtype)
        for part in self._parts(i, address, shadow.ATOMIC, mask):
            memory = part.buffer.words.view(operands[0].dtype)
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
            part = self._part(i, self.buffers[n], address - ((n + 1) << SHIFT), size, kind, here)
            if part is not None:
                parts.append(part)
        if low < 0 or high >= len(self.buffers):
            outside = ((number < 0) | (number >= len(self.buffers))) & context.active(mask)
            context.report(findings.OUT_OF_BOUNDS, i, "", outside, address)
        return parts

    def _part(self, i: Instruction, buffer: Buffer, offset: Array, size: int, kind: int, mask: Mask) -> Part | None:
        context = self.context
        position, inside = buffer.locate(offset, size)
        fine = inside & (offset % size == 0)
        if not (fine.all() if mask is None else (fine | ~mask).all()):
            active = context.active(mask)
            context.report(findings.OUT_OF_BOUNDS, i, buffer.name, active & ~inside, offset)
            context.report(findings.MISALIGNED, i, buffer.name, active & (offset % size != 0), offset)
            mask = active & fine
        lanes = context.lanes(mask)
        if not lanes:
            return None
        context.counts.add(i, buffer.name, lanes)
        if context.options.requests:
            _note_requests(context, i, buffer.name, sectors(context.full(offset), context.active(mask), size), "sectors")
        if context.options.races:
            words = np.where(context.active(mask), position // 4, 0)
            context.judge(i, kind, words, -(-size // 4), mask, buffer.state, buffer.holds, buffer.name_of)
        return Part(buffer, position, mask)


# ------------------------------------------------------------------------------------------------ shared memory
class Region(NamedTuple):
    """A named part of shared memory."""

    name: str
    start: int
    stop: int


class Span(NamedTuple):
    """What is known of an address register: the lowest and highest address, the bits that any address has."""

    register: Any  # kept alive: the memo's key is its identity
    mask: Mask
    low: int
    high: int
    odd: int
    index: Array  # of words, in bounds also where a lane does not take part
    rows: Array  # its first column
    by_thread: bool  # the same in all blocks
    lanes: int  # that take part

    @property
    def is_empty(self) -> bool:
        """No lane takes part."""
        return self.high < self.low


class SharedMemory:
    """The shared memory of all blocks in flight: word-major, so that one address of all blocks is one row."""

    def __init__(self, regions: Sequence[Region], size: int, context: Context) -> None:
        self.regions, self.size, self.context = regions, size, context
        self.words = np.full((max(-(-size // 4), 1), context.blocks), POISON, np.int32)
        self.views = {t: self.words.view(t) for t in (np.dtype("i4"), np.dtype("u4"), np.dtype("f4"))}
        self.lane_block = np.arange(context.blocks)
        self.spans: dict[tuple[int, int], Span] = {}
        self.last_region: dict[Instruction, Region] = {}  # an instruction mostly stays in one
        self.is_watched = context.options.requests or context.options.races
        if context.options.races:
            self.state = shadow.words(self.words.size)
            self.holds = np.zeros(self.words.size, np.uint8)

    def load(
        self, i: Instruction, address: Any, offset: int, dtype: np.dtype[Any], count: int, mask: Mask
    ) -> list[Array]:
        """`count` neighbouring elements per lane."""
        span, mask = self._touch(i, address, offset, shadow.READ, mask)
        if span.is_empty:
            return [np.full(self.context.shape, POISON, f"i{dtype.itemsize}").view(dtype)] * count
        if dtype.itemsize == 4:
            return [self._words(span, offset // 4 + n, self.views[dtype]) for n in range(count)]
        if dtype.itemsize == 8:
            halves = [self._words(span, offset // 4 + n, self.views[np.dtype("u4")]) for n in range(2 * count)]
            wide = [h.astype(np.uint64) for h in halves]
            return [(lo | hi << np.uint64(32)).view(dtype) for lo, hi in zip(wide[::2], wide[1::2], strict=True)]
        where = np.asarray(address) + offset + dtype.itemsize * np.arange(count).reshape(-1, 1, 1)
        return [self._narrow(w if mask is None else np.where(mask, w, 0), dtype) for w in where]

    def _words(self, span: Span, offset: int, memory: Array) -> Array:
        if span.by_thread:  # one row of all blocks per thread
            return memory[offset:].take(span.rows, axis=0)
        return memory.reshape(-1).take((span.index + offset) * self.context.blocks + self.lane_block)

    def _narrow(self, address: Array, dtype: np.dtype[Any]) -> Array:
        word = self.words.reshape(-1).take((address >> 2) * self.context.blocks + self.lane_block)
        return (word.view(np.uint32) >> ((address & 3) * 8).astype(np.uint32)).astype(f"u{dtype.itemsize}").view(dtype)

    def store(self, i: Instruction, address: Any, offset: int, values: list[Array], mask: Mask) -> None:
        """Neighbouring elements per lane."""
        span, mask = self._touch(i, address, offset, shadow.WRITE, mask)
        itemsize = values[0].dtype.itemsize
        if itemsize < 4:
            for n, value in enumerate(values):
                self._store_narrow(np.asarray(address) + offset + n * itemsize, value, mask)
            return
        words = [w for value in values for w in _as_words(value)]
        memory = self.words
        if span.by_thread and mask is None:
            for n, word in enumerate(words):
                memory[span.rows + (offset // 4 + n)] = word
            return
        flat, index = memory.reshape(-1), self.context.full(span.index * self.context.blocks + self.lane_block)
        chosen = ... if mask is None else mask
        for n, word in enumerate(words):
            flat[index[chosen] + (offset // 4 + n) * self.context.blocks] = self.context.full(word)[chosen]

    def _store_narrow(self, address: Array, value: Array, mask: Mask) -> None:
        """Bytes or halves: the other bytes of the word stay, also where two lanes share a word."""
        context, bits = self.context, 8 * value.dtype.itemsize
        address, active = context.full(address), context.active(mask)
        field = context.full(value).view(f"u{value.dtype.itemsize}").astype(np.uint32)
        flat = self.words.reshape(-1).view(np.uint32)
        for byte in range(0, 4, value.dtype.itemsize):
            here = active & ((address & 3) == byte)
            index = ((address >> 2) * context.blocks + self.lane_block)[here]
            kept = np.uint32(~(((1 << bits) - 1) << (8 * byte)) & 0xFFFFFFFF)
            flat[index] = (flat[index] & kept) | (field[here] << np.uint32(8 * byte))

    def atomic(
        self, i: Instruction, address: Any, offset: int, operation: Any, operands: list[Array], mask: Mask
    ) -> Array:
        """Read-modify-write of 4-byte words, lane after lane; the old values."""
        span, mask = self._touch(i, address, offset, shadow.ATOMIC, mask)
        old = np.zeros(self.context.shape, operands[0].dtype)
        memory = self.words.reshape(-1).view(operands[0].dtype)
        index = self.context.full((span.index + offset // 4) * self.context.blocks + self.lane_block)
        perform(operation, memory, index, self.context, operands, mask, old)
        return old

    # ---------------------------------------------------------------------------------------- bounds and counts
    def _touch(self, i: Instruction, address: Any, offset: int, kind: int, mask: Mask) -> tuple[Span, Mask]:
        """Bound, count and check an access; the lanes that may go on."""
        size, context = i.lane_bytes, self.context
        span = self.spans.get((id(address), id(mask))) or self._span(address, mask)
        low, high = span.low + offset, span.high + offset + size
        if low < 0 or high > self.size or (span.odd | offset) & (min(size, 4) - 1):
            span, mask = self._refuse(i, address, offset, size, mask)
            low, high = span.low + offset, span.high + offset + size
        if span.is_empty:
            return span, mask
        region = self.last_region.get(i)
        if region is None or low < region.start or high > region.stop:
            region = next((r for r in self.regions if r.start <= low and high <= r.stop), None)
        if region is not None:
            self.last_region[i] = region
            context.counts.add(i, region.name, span.lanes)
        else:
            self._count_apart(i, np.asarray(address) + offset, mask)
        if self.is_watched:
            self._watch(i, np.asarray(address) + offset, size, kind, mask)
        return span, mask

    def _span(self, address: Any, mask: Mask) -> Span:
        key = id(address), id(mask)
        span = self.spans.get(key)
        if span is None:
            if len(self.spans) > 64:
                self.spans.clear()
            a = np.asarray(address)
            seen = a if mask is None else self.context.full(a)[mask]
            low, high, odd = (0, -1 << 30, 0) if not seen.size else (
                int(seen.min()), int(seen.max()), int(np.bitwise_or.reduce(seen, axis=None))
            )  # fmt: skip
            index = (a if mask is None else np.where(mask, a, low)) >> 2  # lanes that do not take part stay in bounds
            index = np.broadcast_to(index, (1, 1)) if index.ndim == 0 else index
            by_thread = index.shape[1] == 1
            if by_thread and index.shape[0] != self.context.threads:
                index = np.broadcast_to(index, (self.context.threads, 1))
            index = index.astype(np.intp)
            span = self.spans[key] = Span(
                address, mask, low, high, odd, index, index[:, 0], by_thread, self.context.lanes(mask)
            )
        return span

    def _refuse(self, i: Instruction, address: Any, offset: int, size: int, mask: Mask) -> tuple[Span, Mask]:
        context, active = self.context, self.context.active(mask)
        a = context.full(np.asarray(address) + offset)
        outside, odd = (a < 0) | (a + size > self.size), a % min(size, 4) != 0
        context.report(findings.OUT_OF_BOUNDS, i, "shared memory", active & outside, a)
        context.report(findings.MISALIGNED, i, "shared memory", active & odd, a)
        mask = active & ~outside & ~odd
        return self._span(address, mask), mask

    def _count_apart(self, i: Instruction, address: Array, mask: Mask) -> None:
        """Lanes in several regions; what lies in none is counted as `shared`."""
        a, left = self.context.full(address), self.context.active(mask)
        for region in self.regions:
            here = left & (region.start <= a) & (a < region.stop)
            if here.any():
                self.context.counts.add(i, region.name, int(np.count_nonzero(here)))
                left = left & ~here
        if left.any():
            self.context.counts.add(i, "shared", int(np.count_nonzero(left)))

    def _watch(self, i: Instruction, address: Array, size: int, kind: int, mask: Mask) -> None:
        context = self.context
        a = np.where(context.active(mask), context.full(address), 0).astype(np.int64)
        if context.options.requests:
            name = self._name(int(a.max()) // 4 * context.blocks)[0]
            _note_requests(context, i, name, bank_passes(a, context.active(mask), size), "passes")
        if context.options.races:
            for n in range(-(-size // 4)):
                words = (a // 4 + n) * context.blocks + self.lane_block
                context.judge(i, kind, words, 1, mask, self.state, self.holds, self._name)

    def _name(self, word: int) -> tuple[str, int]:
        offset = 4 * (word // self.context.blocks)
        region = next((r for r in self.regions if r.start <= offset < r.stop), Region("shared", 0, self.size))
        return region.name, offset - region.start


# ------------------------------------------------------------------------------------------------ helpers
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


def _merge(mask: Mask, new: Array, old: Array) -> Array:
    return new if mask is None or new is old else np.where(mask, new, old)


def _as_words(value: Array) -> list[Array]:
    """A register's 4-byte words, lowest first."""
    if value.dtype.itemsize == 4:
        return [value.view(np.int32)]
    wide = value.view(np.uint64)
    return [wide.astype(np.uint32).view(np.int32), (wide >> np.uint64(32)).astype(np.uint32).view(np.int32)]


def _note_requests(context: Context, i: Instruction, memory: str, found: tuple[int, int], what: str) -> None:
    record = context.counts.requests.setdefault((i, memory), Requests())
    record.requests += found[0]
    setattr(record, what, getattr(record, what) + found[1])
