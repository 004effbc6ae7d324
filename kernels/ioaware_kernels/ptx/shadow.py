"""Shadow memory: for every 4-byte word, who touched it last, so that every access can be judged.

Two accesses of one word conflict if one of them writes and nothing orders them: threads of a thread block are ordered
by __syncthreads, lanes of a warp also by __syncwarp, thread blocks of one launch by nothing. Atomics do not conflict
with atomics. A launch is ordered before the next.

Per word the last write is kept, and of the reads since then one, or that there were several (lanes, warps, blocks).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, Any]

READ, WRITE, ATOMIC = range(3)
# what a judgement finds; the order of VERDICTS below
FINE, UNINITIALISED, GUARD, RAW, WAW, WAR = 0, 1, 2, 3, 6, 9  # + LANES, WARPS or BLOCKS
LANES, WARPS, BLOCKS = range(3)
VERDICTS = 12
# how many threads read a word since the last write
NONE, ONE, SEVERAL_LANES, SEVERAL_WARPS, SEVERAL_BLOCKS = range(5)
SEVERAL = -2  # instead of a thread or block number: of an atomic, several
# what a word holds
EMPTY, FULL, OUTSIDE = range(3)

WORD = np.dtype(
    [
        ("w_block", "i4"), ("w_interval", "i4"), ("w_thread", "i4"), ("w_warp_interval", "i4"), ("writes", "i1"),
        ("r_block", "i4"), ("r_interval", "i4"), ("r_thread", "i4"), ("r_warp_interval", "i4"), ("reads", "i1"),
    ]
)  # fmt: skip
PLAIN, BY_ATOMIC = 1, 2  # values of `writes`


def words(count: int) -> Array:
    """Fresh shadow words: nobody touched them."""
    return np.zeros(count, WORD)


@njit(cache=True)
def _unordered(
    block: int, interval: int, thread: int, warp_interval: int,
    block2: int, interval2: int, thread2: int, warp_interval2: int,
) -> int:  # fmt: skip
    """-1 if two accesses are ordered or of one thread, else what separates the threads."""
    if block != block2:
        return BLOCKS
    if thread == thread2 or interval != interval2:
        return -1
    if thread < 0 or thread // 32 != thread2 // 32:
        return WARPS
    return LANES if warp_interval == warp_interval2 else -1


@njit(cache=True)
def _unordered_reads(word: Any, block: int, interval: int, thread: int, warp_interval: int) -> int:
    """The same, of the reads since the last write against a write."""
    if word.reads == NONE:
        return -1
    if word.reads == SEVERAL_BLOCKS or word.r_block != block:
        return BLOCKS
    if word.reads == SEVERAL_WARPS:
        return WARPS if word.r_interval == interval else -1
    reader = word.r_thread if word.reads == ONE or word.r_thread != thread else word.r_thread ^ 1  # any other lane
    return _unordered(
        word.r_block, word.r_interval, reader, word.r_warp_interval, block, interval, thread, warp_interval
    )


@njit(cache=True)
def _note_read(word: Any, block: int, interval: int, thread: int, warp_interval: int) -> None:
    if word.reads == SEVERAL_BLOCKS:
        return
    if word.reads != NONE and word.r_block != block:
        word.reads = SEVERAL_BLOCKS
        return
    if word.reads != NONE and word.r_interval == interval:
        if word.reads == SEVERAL_WARPS or word.r_thread // 32 != thread // 32:
            word.reads = SEVERAL_WARPS
            return
        if word.r_warp_interval == warp_interval and (word.reads == SEVERAL_LANES or word.r_thread != thread):
            word.reads = SEVERAL_LANES
            return
    word.reads = ONE
    word.r_block, word.r_interval, word.r_thread, word.r_warp_interval = block, interval, thread, warp_interval


@njit(cache=True)
def _note_write(word: Any, kind: int, block: int, interval: int, thread: int, warp_interval: int) -> None:
    again = kind == ATOMIC and word.writes == BY_ATOMIC
    if again and word.w_block != block:
        block = SEVERAL
    elif again and word.w_interval == interval and word.w_thread != thread:
        thread = SEVERAL
    word.w_block, word.w_interval, word.w_thread, word.w_warp_interval = block, interval, thread, warp_interval
    word.writes = BY_ATOMIC if kind == ATOMIC else PLAIN
    word.reads = NONE


@njit(cache=True)
def _judge(word: Any, holds: int, kind: int, block: int, interval: int, thread: int, warp_interval: int) -> int:
    """The verdict on one access, before it is noted."""
    if holds == OUTSIDE:
        return GUARD
    if word.writes != 0 and not (kind == ATOMIC and word.writes == BY_ATOMIC):
        apart = _unordered(
            word.w_block, word.w_interval, word.w_thread, word.w_warp_interval, block, interval, thread, warp_interval
        )
        if apart >= 0:
            return (RAW if kind == READ else WAW) + apart
    if kind != READ:
        apart = _unordered_reads(word, block, interval, thread, warp_interval)
        if apart >= 0:
            return WAR + apart
    return UNINITIALISED if holds == EMPTY and kind != WRITE else FINE


@njit(cache=True)
def observe(
    shadow: Array, holds: Array, index: Array, words_each: int, active: Array, kind: int,
    first_block: int, intervals: Array, warp_intervals: Array, times: Array, examples: Array,
) -> None:  # fmt: skip
    """Judge and note an access of every active lane, in the order of the threads.

    index, active   (threads, blocks): the first word of each lane; whether it takes part
    intervals       (blocks,) barriers passed; warp_intervals (warps, blocks) warp barriers passed
    times, examples per verdict: how often, and (thread, block, word) of the first
    """
    for b in range(index.shape[1]):
        for t in range(index.shape[0]):
            if not active[t, b]:
                continue
            for i in range(index[t, b], index[t, b] + words_each):
                at = first_block + b, intervals[b], t, warp_intervals[t // 32, b]
                verdict = _judge(shadow[i], holds[i], kind, *at)
                if verdict != FINE:
                    if times[verdict] == 0:
                        examples[verdict, 0], examples[verdict, 1], examples[verdict, 2] = t, first_block + b, i
                    times[verdict] += 1
                if kind == READ:
                    _note_read(shadow[i], *at)
                else:
                    _note_write(shadow[i], kind, *at)
                    if holds[i] == EMPTY:
                        holds[i] = FULL
