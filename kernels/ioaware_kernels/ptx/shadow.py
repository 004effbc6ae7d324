"""Shadow memory: for every granule of memory, who touched it last, so that every access can be judged.

Two accesses conflict if one of them writes and nothing orders them: threads of a thread block are ordered by
__syncthreads, lanes of a warp also by __syncwarp, thread blocks of one launch by nothing. Atomics do not conflict with
atomics. A launch is ordered before the next.

A copy by cp.async writes from when it is issued until it has been waited for: meanwhile nobody may touch the place.

Per granule three things are kept: the last write, and of the reads and of the atomics since then the last one, or that
there were several (lanes of a warp, warps, thread blocks) which nothing orders. Judgements are exact up to the first
conflict of a granule. A granule is as small as the smallest access of the kernel, at most four bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, Any]

READ, WRITE, ATOMIC = range(3)
# what a judgement finds
FINE, UNINITIALISED, GUARD, RAW, WAW, WAR = 0, 1, 2, 3, 6, 9  # the last three + LANES, WARPS or BLOCKS
LANES, WARPS, BLOCKS = range(3)
IN_FLIGHT = 12
VERDICTS = 13
# who is in a record
NOBODY, ONE, SEVERAL_LANES, SEVERAL_WARPS, SEVERAL_BLOCKS = range(5)
# what memory holds
EMPTY, FULL, OUTSIDE, FLYING = range(4)  # FLYING: a cp.async is writing it

RECORD = np.dtype([("block", "i4"), ("interval", "i4"), ("thread", "i4"), ("warp_interval", "i4"), ("who", "i1")])


class Shadow(NamedTuple):
    """The records of a memory: one of each per granule."""

    writes: Array
    reads: Array
    atomics: Array


def fresh(granules: int) -> Shadow:
    """Records of memory that nobody touched in this launch."""
    return Shadow(*(np.zeros(granules, RECORD) for _ in Shadow._fields))


@njit(cache=True)
def _apart(record: Any, block: int, interval: int, thread: int, warp_interval: int) -> int:
    """What separates a thread from those in a record that nothing orders before it; -1 if all are, or are itself."""
    if record.who == NOBODY:
        return -1
    if record.who == SEVERAL_BLOCKS or record.block != block:
        return BLOCKS
    if record.interval != interval:
        return -1
    if record.who == SEVERAL_WARPS or record.thread // 32 != thread // 32:
        return WARPS
    if record.warp_interval != warp_interval or (record.who == ONE and record.thread == thread):
        return -1
    return LANES


@njit(cache=True)
def _join(record: Any, block: int, interval: int, thread: int, warp_interval: int) -> None:
    """Add a thread to a record; those that a barrier orders before it are forgotten."""
    if record.who == SEVERAL_BLOCKS:
        return
    if record.who != NOBODY and record.block != block:
        record.who = SEVERAL_BLOCKS
        return
    if record.who != NOBODY and record.interval == interval:
        if record.who == SEVERAL_WARPS or record.thread // 32 != thread // 32:
            record.who = SEVERAL_WARPS
            return
        if record.warp_interval == warp_interval and (record.who == SEVERAL_LANES or record.thread != thread):
            record.who = SEVERAL_LANES
            return
    record.who = ONE
    record.block, record.interval, record.thread, record.warp_interval = block, interval, thread, warp_interval


@njit(cache=True)
def _judge(
    write: Any, reads: Any, atomics: Any, holds: int, kind: int,
    block: int, interval: int, thread: int, warp_interval: int,
) -> int:  # fmt: skip
    """The verdict on one access, before it is noted."""
    if holds == OUTSIDE:
        return GUARD
    if holds == FLYING:
        return IN_FLIGHT
    apart = _apart(write, block, interval, thread, warp_interval)
    if apart < 0 and kind != ATOMIC:
        apart = _apart(atomics, block, interval, thread, warp_interval)
    if apart >= 0:
        return (RAW if kind == READ else WAW) + apart
    if kind != READ:
        apart = _apart(reads, block, interval, thread, warp_interval)
        if apart >= 0:
            return WAR + apart
    return UNINITIALISED if holds == EMPTY and kind != WRITE else FINE


@njit(cache=True)
def _note(
    write: Any, reads: Any, atomics: Any, kind: int, block: int, interval: int, thread: int, warp_interval: int
) -> None:
    """Remember one access. A write is all that is left of what came before it."""
    if kind == READ:
        _join(reads, block, interval, thread, warp_interval)
    elif kind == ATOMIC:
        _join(atomics, block, interval, thread, warp_interval)
    else:
        reads.who = atomics.who = write.who = NOBODY
        _join(write, block, interval, thread, warp_interval)


@njit(cache=True)
def observe(
    writes: Array, reads: Array, atomics: Array, holds: Array, index: Array, active: Array, kind: int,
    numbers: Array, intervals: Array, warp_intervals: Array, times: Array, examples: Array,
) -> None:  # fmt: skip
    """Judge and note an access of every active lane, in the order of the threads.

    index           (granules of a lane, threads, blocks)
    active          (threads, blocks): whether a lane takes part
    numbers         (blocks,) which thread block a column is
    intervals       (blocks,) barriers passed; warp_intervals (warps, blocks) warp barriers passed
    times, examples per verdict: how many lanes, and (thread, block, granule) of the first
    """
    for b in range(index.shape[2]):
        for t in range(index.shape[1]):
            if not active[t, b]:
                continue
            worst = FINE
            for part in range(index.shape[0]):
                i = index[part, t, b]
                w, r, a = writes[i], reads[i], atomics[i]
                at = numbers[b], intervals[b], t, warp_intervals[t // 32, b]
                verdict = _judge(w, r, a, holds[i], kind, *at)
                if worst == FINE and verdict != FINE:
                    worst = verdict
                    if times[verdict] == 0:
                        examples[verdict, 0], examples[verdict, 1], examples[verdict, 2] = t, numbers[b], i
                    times[verdict] += 1
                _note(w, r, a, kind, *at)
                if kind != READ and holds[i] == EMPTY:
                    holds[i] = FULL
