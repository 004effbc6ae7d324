"""Shared memory of all thread blocks in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ioaware.traffic import Moved

from . import findings, shadow
from .context import POISON, Array, Context, Mask, perform
from .count import bank_passes
from .parse import Instruction


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
    words: Array  # their numbers, in bounds also where a lane does not take part
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
            granules = 4 * self.words.size // context.granule
            self.shadow, self.holds = shadow.fresh(granules), np.full(granules, shadow.EMPTY, np.uint8)

    def load(
        self, i: Instruction, address: Any, offset: int, dtype: np.dtype[Any], count: int, mask: Mask
    ) -> list[Array]:
        """`count` neighbouring elements per lane; a lane that strays gets poison."""
        span, address, offset, fine = self._touch(i, address, offset, shadow.READ, mask)
        if fine is mask and not span.is_empty:
            return self._loaded(span, address, offset, dtype, count, mask)
        poison = np.full(self.context.shape, POISON, f"i{dtype.itemsize}").view(dtype)
        if span.is_empty:
            return [poison] * count
        loaded = self._loaded(span, address, offset, dtype, count, fine)
        return [np.where(self.context.active(fine), value, poison) for value in loaded]

    def _loaded(
        self, span: Span, address: Any, offset: int, dtype: np.dtype[Any], count: int, mask: Mask
    ) -> list[Array]:
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
            if offset < 0 or span.low < 0:  # legal only together
                return memory.take(span.rows + offset, axis=0)
            return memory[offset:].take(span.rows, axis=0)
        return memory.reshape(-1).take((span.words + offset) * self.context.blocks + self.lane_block)

    def _narrow(self, address: Array, dtype: np.dtype[Any]) -> Array:
        word = self.words.reshape(-1).take((address >> 2) * self.context.blocks + self.lane_block)
        return (word.view(np.uint32) >> ((address & 3) * 8).astype(np.uint32)).astype(f"u{dtype.itemsize}").view(dtype)

    def store(self, i: Instruction, address: Any, offset: int, values: list[Array], mask: Mask) -> None:
        """Neighbouring elements per lane."""
        span, address, offset, mask = self._touch(i, address, offset, shadow.WRITE, mask)
        itemsize = values[0].dtype.itemsize
        if itemsize < 4:
            for n, value in enumerate(values):
                self._store_narrow(np.asarray(address) + offset + n * itemsize, value, mask)
            return
        words = [w for value in values for w in _as_words(value)]
        self._put(span, offset, words, mask)

    def _put(self, span: Span, offset: int, words: Sequence[Array], mask: Mask) -> None:
        """Whole words."""
        if span.by_thread and mask is None:
            for n, word in enumerate(words):
                self.words[span.rows + (offset // 4 + n)] = word
            return
        flat, index = self.words.reshape(-1), self.context.full(span.words * self.context.blocks + self.lane_block)
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
        """Read-modify-write of 4- or 8-byte elements, lane after lane; the old values."""
        span, _, offset, mask = self._touch(i, address, offset, shadow.ATOMIC, mask)
        context, dtype = self.context, operands[0].dtype
        old = np.zeros(context.shape, dtype)
        index = context.full((span.words + offset // 4) * context.blocks + self.lane_block)
        if dtype.itemsize == 4:
            perform(operation, self.words.reshape(-1).view(dtype), index, context, operands, mask, old)
            return old
        low, high = self.words[:-1].view(np.uint32).astype(np.uint64), self.words[1:].view(np.uint32).astype(np.uint64)
        pairs = (low | high << np.uint64(32)).reshape(-1)  # every two neighbouring words
        perform(operation, pairs.view(dtype), index, context, operands, mask, old)
        touched, flat = index[context.active(mask)], self.words.reshape(-1)
        flat[touched], flat[touched + context.blocks] = _as_words(pairs[touched])
        return old

    # ---------------------------------------------------------------------------------------- matrices and copies
    def load_matrices(
        self, i: Instruction, address: Any, offset: int, count: int, mask: Mask, *, transposed: bool
    ) -> list[Array]:
        """ldmatrix: `count` 8 x 8 matrices of 2-byte elements; lanes 8 j to 8 j + 7 say where the rows of matrix j are.

        Each lane gets two neighbours of a row, or of a column if transposed: PTX ISA 8.2, 9.7.13.4.15.
        """
        thread = np.arange(self.context.threads).reshape(-1, 1)
        lane, warp = thread & 31, thread & ~31
        giving = mask if count == 4 else self.context.active(mask) & (lane < 8 * count)
        _, address, offset, fine = self._bounded(i, address, offset, shadow.READ, giving)
        where = np.asarray(address) + offset
        if self.context.options.requests:
            self._request(i, where, 16, fine)
        where = np.broadcast_to(where, (self.context.threads, where.shape[1] if where.ndim == 2 else 1))
        bad = None if mask is None and fine is giving else ~self.context.active(fine)  # who is away gives no row
        group, pair = lane >> 2, lane & 3
        out = []
        for first in range(0, 8 * count, 8):
            rows = [first + 2 * pair, first + 2 * pair + 1] if transposed else [first + group]
            source = [np.minimum((warp + row)[:, 0], self.context.threads - 1) for row in rows]
            places = [where[s] + (2 * group if transposed else 4 * pair) for s in source]
            strays = None if bad is None else np.logical_or.reduce([bad[s] for s in source])
            out.append(self._received(i, places, mask, strays))
        return out

    def _received(self, i: Instruction, places: list[Array], mask: Mask, strays: Mask) -> Array:
        """What each lane gets: the word at a place, or the halves at two; poison where a row's address strays."""
        if strays is not None:
            places = [np.where(strays, 0, p) for p in places]
        if self.context.options.races:
            seen = self.context.active(mask) if strays is None else self.context.active(mask) & ~strays
            self._judge(i, places, 4 // len(places), shadow.READ, seen)
        words = [self._word(p) for p in places]
        if len(words) == 2:
            low, high = (
                (w.view(np.uint32) >> ((p & 2) << 3).astype(np.uint32)) for w, p in zip(words, places, strict=True)
            )
            words = [((low & np.uint32(0xFFFF)) | (high << np.uint32(16))).view(np.int32)]
        return words[0] if strays is None else np.where(strays, np.int32(POISON), words[0])

    def _word(self, place: Array) -> Array:
        """The words in which bytes lie."""
        if place.shape[1] == 1:
            return self.words.take(place[:, 0] >> 2, axis=0)
        return self.words.reshape(-1).take((place >> 2) * self.context.blocks + self.lane_block)

    def begin_copy(self, i: Instruction, address: Any, offset: int, mask: Mask) -> tuple[Array, Mask]:
        """cp.async is issued: from now on nobody may touch the place. (Addresses, lanes whose address is right.)"""
        span, address, offset, mask = self._touch(i, address, offset, shadow.WRITE, mask)
        place = np.asarray(address) + offset
        if self.context.options.races and not span.is_empty:
            self._mark(place, i.lane_bytes, mask, shadow.FLYING)
        return place, mask

    def end_copy(self, i: Instruction, place: Array, words: Sequence[Array], mask: Mask) -> None:
        """cp.async is waited for: only now the data is there, for the thread that waited."""
        span = self._span(place, mask)
        if span.is_empty:
            return
        if self.context.options.races:
            self._mark(place, i.lane_bytes, mask, shadow.FULL)
            self._judge(i, [place], i.lane_bytes, shadow.WRITE, mask)
        self._put(span, 0, words, mask)

    # ---------------------------------------------------------------------------------------- bounds and counts
    def _touch(self, i: Instruction, address: Any, offset: int, kind: int, mask: Mask) -> tuple[Span, Any, int, Mask]:
        """Bound, count and check an access; what of it may go on, its address and offset possibly joined."""
        span, address, offset, mask = self._bounded(i, address, offset, kind, mask)
        if self.is_watched and not span.is_empty:
            place = np.asarray(address) + offset
            if self.context.options.requests:
                self._request(i, place, i.lane_bytes, mask)
            if self.context.options.races:
                self._judge(i, [place], i.lane_bytes, kind, mask)
        return span, address, offset, mask

    def _bounded(self, i: Instruction, address: Any, offset: int, kind: int, mask: Mask) -> tuple[Span, Any, int, Mask]:
        """Bound and count."""
        size, context = i.lane_bytes, self.context
        span = self.spans.get((id(address), id(mask))) or self._span(address, mask)
        low, high = span.low + offset, span.high + offset + size
        if low < 0 or high > self.size or (span.odd | offset) & (size - 1):
            address, offset = np.asarray(address) + offset, 0
            mask = self._fine(i, address, size, mask)
            span = self._span(address, mask)
            low, high = span.low, span.high + size
        if span.is_empty:
            return span, address, offset, mask
        region = self.last_region.get(i)
        if region is None or low < region.start or high > region.stop:
            region = next((r for r in self.regions if r.start <= low and high <= r.stop), None)
        if region is not None:
            self.last_region[i] = region
            context.counts.add(i, region.name, Moved._fields[kind], span.lanes * size)
        else:
            self._count_apart(i, np.asarray(address) + offset, kind, mask)
        return span, address, offset, mask

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

    def _fine(self, i: Instruction, address: Array, size: int, mask: Mask) -> Mask:
        """The lanes whose access is inside and aligned; the others are reported."""
        context, active = self.context, self.context.active(mask)
        a = context.full(address)
        outside, odd = (a < 0) | (a + size > self.size), a % size != 0
        context.report(findings.OUT_OF_BOUNDS, i, "shared memory", active & outside, a)
        context.report(findings.MISALIGNED, i, "shared memory", active & odd, a)
        wrong = active & (outside | odd)
        return active & ~wrong if wrong.any() else mask

    def _count_apart(self, i: Instruction, address: Array, kind: int, mask: Mask) -> None:
        """Lanes in several regions; what lies in none is counted as `shared`."""
        a, left, size, moved = self.context.full(address), self.context.active(mask), i.lane_bytes, Moved._fields[kind]
        for region in self.regions:
            here = left & (region.start <= a) & (a < region.stop)
            if here.any():
                self.context.counts.add(i, region.name, moved, size * int(np.count_nonzero(here)))
                left = left & ~here
        if left.any():
            self.context.counts.add(i, "shared", moved, size * int(np.count_nonzero(left)))

    def _request(self, i: Instruction, address: Array, size: int, mask: Mask) -> None:
        active = self.context.active(mask)
        a = np.where(active, self.context.full(address), 0).astype(np.int64)
        self.context.request(i, self._region_at(int(a.max())).name, bank_passes(a, active, size), "passes")

    def _judge(self, i: Instruction, places: list[Array], size: int, kind: int, mask: Mask) -> None:
        """By the shadow: each lane touches `size` bytes at each of the places."""
        granules = np.concatenate([self._granules(place, size, mask) for place in places])
        self.context.judge(i, kind, granules, mask, self.shadow, self.holds, self._name)

    def _granules(self, address: Array, size: int, mask: Mask) -> Array:
        """(granules of a lane, threads, blocks)"""
        context = self.context
        a = np.where(context.active(mask), context.full(address), 0).astype(np.int64)
        parts = np.arange(-(-size // context.granule)).reshape(-1, 1, 1)
        granules: Array = (a // context.granule + parts) * context.blocks + self.lane_block
        return granules

    def _mark(self, address: Array, size: int, mask: Mask, state: int) -> None:
        self.holds[self._granules(address, size, mask)[:, self.context.active(mask)]] = state

    def _name(self, granule: int) -> tuple[str, int]:
        offset = granule // self.context.blocks * self.context.granule
        region = self._region_at(offset)
        return region.name, offset - region.start

    def _region_at(self, offset: int) -> Region:
        whole = Region("shared", 0, self.size)
        return next((r for r in self.regions if r.start <= offset < r.stop), whole)


def _as_words(value: Array) -> list[Array]:
    """A register's 4-byte words, lowest first."""
    if value.dtype.itemsize == 4:
        return [value.view(np.int32)]
    wide = value.view(np.uint64)
    return [wide.astype(np.uint32).view(np.int32), (wide >> np.uint64(32)).astype(np.uint32).view(np.int32)]
