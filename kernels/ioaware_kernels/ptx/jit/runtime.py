"""The state of a launch, and what compiled kernels call where the usual case does not hold: numba functions of it.

`resolve` finds the memory of every lane; `report` notes lanes that are not there; `issue`, `commit` and `wait` are
cp.async, whose data arrives at the wait and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic

from ..context import POISON
from ..global_memory import SHIFT

# ------------------------------------------------------------------------------------------------ the state, in slots
# Here and not in a file of its own: numba's cache looks only at the file of a function.
SHARED, SHARED_BYTES, BUDGET, INSTRUCTIONS, BLOCK = range(5)  # memory of the thread block, and which one it is
CTAID, NTID, NCTAID = 5, 8, 11  # three each
FUNCTIONS_AT = 14  # their addresses, in the order of FUNCTIONS
SITES_AT, WINDOWS_AT, WINDOWS, SHARED_WINDOWS, COUNTS_AT, FINDINGS_AT, EVENTS_AT, BUFFERS, COPIES_AT, COPIES_EACH = (
    range(20, 30)
)
PARAMETERS = 32  # behind them the sites

# A site is an instruction's access: what it touched last is remembered, because it mostly goes on there.
# Byte address a is in the remembered window if (a - LOW) / BYTES < LIMIT; at DELTA + a it lies in this process.
# The first of several that are checked together reaches so many bytes BEFORE and BEHIND its address; NEXT is another
# one of them (-1: no more), at OFFSET from the first.
LOW, LIMIT, DELTA, LANES_COUNTED, WINDOW, BYTES, SPACE, OWNER, BEFORE, BEHIND, NEXT, OFFSET = range(12)
SITE = 12
IN_SHARED, IN_GLOBAL, GENERIC = range(3)  # SPACE

# A window is memory with one name: a region of shared memory, or a piece of a buffer.
START, STOP, PLACE, BUFFER = range(4)
A_WINDOW = 4

# A finding: how often, and the first: thread block, thread, byte offset.
TIMES, FIRST_BLOCK, FIRST_THREAD, FIRST_OFFSET = range(4)
A_FINDING = 4
STRAYS_SHARED, STRAYS_GLOBAL, ODD_SHARED, ODD_GLOBAL = range(4)  # of a site; from the last on, one per buffer

Slots: TypeAlias = Any  # int64, one after another
EVERYTHING = 1 << 40  # slots: the state knows where it ends

# The copies of a warp that are on their way
OF_BLOCK, COPIES, COMMITTED = 0, 1, 2  # the thread block, how many, groups per lane
FIRST_COPY = COMMITTED + 32
SOURCES, PLACES, SIZES, GROUPS = (1 + 32 * n for n in range(4))  # of a copy, behind its mask
A_COPY, MASK, TO_COPY = 130, 0, 129  # TO_COPY: bytes of the place
STRAYED = -1  # instead of a size
MOST_COPIES = 2048  # of a warp: more than fill shared memory


# ------------------------------------------------------------------------------------------------ findings
@njit(cache=True)
def _note(s: Slots, at: int, thread: int, offset: int) -> None:
    if not s[at + TIMES]:
        s[at + FIRST_BLOCK], s[at + FIRST_THREAD], s[at + FIRST_OFFSET] = s[BLOCK], thread, offset
    s[at + TIMES] += 1


@njit(cache=True)
def _finding(s: Slots, site: int, which: int) -> Any:
    return s[FINDINGS_AT] + A_FINDING * (site * (ODD_GLOBAL + s[BUFFERS]) + which)


# ------------------------------------------------------------------------------------------------ memory
@njit(cache=True)
def _window(s: Slots, site: int, address: int, size: int, thread: int) -> Any:
    """The slot of the window where an access may go; 0 if it may not, which is noted."""
    row = s[SITES_AT] + SITE * site
    alignment = s[row + BYTES]
    if s[row + SPACE] == IN_SHARED or (s[row + SPACE] == GENERIC and address < 1 << SHIFT):
        inside = address >= 0 and address + size <= s[SHARED_BYTES]
        if not inside:
            _note(s, _finding(s, site, STRAYS_SHARED), thread, address)
        if address % alignment:
            _note(s, _finding(s, site, ODD_SHARED), thread, address)
        return _find(s, 0, s[SHARED_WINDOWS], address, 0) if inside and address % alignment == 0 else 0
    found = _find(s, s[SHARED_WINDOWS], s[WINDOWS], address, size)
    number = (address >> SHIFT) - 1
    if not found:
        _note(s, _finding(s, site, STRAYS_GLOBAL), thread, address - s[row + OWNER])
    if 0 <= number < s[BUFFERS] and address % alignment:
        _note(s, _finding(s, site, ODD_GLOBAL + number), thread, address - ((number + 1) << SHIFT))
        return 0
    return found


@njit(cache=True)
def _find(s: Slots, first: int, last: int, address: int, size: int) -> Any:
    for n in range(first, last):
        at = s[WINDOWS_AT] + A_WINDOW * n
        if s[at + START] <= address < s[at + STOP] and address + size <= s[at + STOP]:
            return at
    return 0


@njit(cache=True)
def _count(s: Slots, site: int, window: int, moved: int) -> None:
    s[s[COUNTS_AT] + site * s[WINDOWS] + (window - s[WINDOWS_AT]) // A_WINDOW] += moved


@njit(cache=True)
def _remember(s: Slots, site: int, window: int) -> None:
    """From now on this window is the usual case of a site and those that are checked with it."""
    row, member = s[SITES_AT] + SITE * site, site
    while s[row + WINDOW] and member >= 0:
        at = s[SITES_AT] + SITE * member
        _count(s, member, s[row + WINDOW], s[row + LANES_COUNTED] * s[at + BYTES])
        member = s[at + NEXT]
    size, start, stop = s[row + BYTES], s[window + START], s[window + STOP]
    low = -(-(start + s[row + BEFORE]) // size) * size
    s[row + LOW], s[row + LIMIT] = low, max((stop - s[row + BEHIND] - low) // size, 0)
    s[row + WINDOW], s[row + LANES_COUNTED], s[row + DELTA] = window, 0, s[window + PLACE] - start


def resolve(state: Any, warp: int, site: int, mask: int, addresses: Any, right: Any) -> None:
    """Lane by lane: bound, count, translate the `addresses` of a site in place.

    right: for it and each that is checked with it, the lanes whose access is right
    """
    s, a, fine = carray(state, EVERYTHING), carray(addresses, 32), carray(right, EVERYTHING)
    row, member, n, delta, last = s[SITES_AT] + SITE * site, site, 0, np.zeros(32, np.int64), 0
    while member >= 0:
        at = s[SITES_AT] + SITE * member
        fine[n] = 0
        for lane in range(32):
            if mask >> lane & 1:
                window = _window(s, member, a[lane] + s[at + OFFSET], s[at + BYTES], 32 * warp + lane)
                if window:
                    _count(s, member, window, s[at + BYTES])
                    fine[n] |= 1 << lane
                    delta[lane], last = s[window + PLACE] - s[window + START], window
        member, n = s[at + NEXT], n + 1
    for lane in range(32):
        a[lane] += delta[lane]
    if last and last != s[row + WINDOW]:
        _remember(s, site, last)


def report(state: Any, warp: int, event: int, lanes: int) -> None:
    """Note lanes at an event."""
    s = carray(state, EVERYTHING)
    for lane in range(32):
        if lanes >> lane & 1:
            _note(s, s[EVENTS_AT] + A_FINDING * event, 32 * warp + lane, 0)


# ------------------------------------------------------------------------------------------------ cp.async
@intrinsic
def _move(context: Any, to: Any, source: Any, size: Any) -> Any:
    """Copy bytes from one address to another."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        to, source = (builder.inttoptr(a, pointer) for a in arguments[:2])
        cgutils.raw_memcpy(builder, to, source, arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _fill(context: Any, to: Any, size: Any, byte: Any) -> Any:
    """Set bytes."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        to = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        byte = builder.trunc(arguments[2], ir.IntType(8))
        cgutils.memset(builder, to, arguments[1], byte)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@njit(cache=True)
def _copies(s: Slots, warp: int) -> Any:
    """The slot of a warp's copies; a new thread block begins with none."""
    at = s[COPIES_AT] + s[COPIES_EACH] * warp
    if s[at + OF_BLOCK] != s[BLOCK] + 1:
        s[at + OF_BLOCK], s[at + COPIES] = s[BLOCK] + 1, 0
        s[at + COMMITTED : at + COMMITTED + 32] = 0
    return at


def issue(state: Any, warp: int, site: int, event: int, mask: int, sources: Any, places: Any, given: Any) -> None:
    """cp.async: count and check now, move later. A source that strays gives poison, a place that does is left."""
    s, source, place, sizes = (
        carray(state, EVERYTHING), carray(sources, 32), carray(places, 32), carray(given, 32),
    )  # fmt: skip
    at, bytes_ = _copies(s, warp), s[s[SITES_AT] + SITE * site + BYTES]
    if s[at + COPIES] == MOST_COPIES:
        _arrive(s, at, -1, -1)
    copy = at + FIRST_COPY + A_COPY * s[at + COPIES]
    s[at + COPIES] += 1
    s[copy + MASK], s[copy + TO_COPY] = 0, bytes_
    for lane in range(32):
        if mask >> lane & 1:
            size, thread = max(min(sizes[lane], bytes_), 0), 32 * warp + lane
            if size != sizes[lane]:
                _note(s, s[EVENTS_AT] + A_FINDING * event, thread, 0)
            window = _window(s, site, source[lane], size, thread) if size else 0
            if window:
                _count(s, site, window, size)
                s[copy + SOURCES + lane] = source[lane] + s[window + PLACE] - s[window + START]
            s[copy + SIZES + lane] = size if window or not size else STRAYED
            window = _window(s, site + 1, place[lane], bytes_, thread)
            if window:
                _count(s, site + 1, window, bytes_)
                s[copy + PLACES + lane], s[copy + GROUPS + lane] = s[SHARED] + place[lane], s[at + COMMITTED + lane]
                s[copy + MASK] |= 1 << lane


def commit(state: Any, warp: int, mask: int) -> None:
    """cp.async.commit_group."""
    s = carray(state, EVERYTHING)
    at = _copies(s, warp)
    for lane in range(32):
        s[at + COMMITTED + lane] += mask >> lane & 1


def wait(state: Any, warp: int, mask: int, newest: int) -> None:
    """cp.async.wait_group; wait_all if `newest` is negative."""
    s = carray(state, EVERYTHING)
    _arrive(s, _copies(s, warp), mask, newest)


@njit(cache=True)
def _arrive(s: Slots, at: int, mask: int, newest: int) -> None:
    """Move what is due, and keep the rest in order."""
    kept = 0
    for n in range(s[at + COPIES]):
        copy, to = at + FIRST_COPY + A_COPY * n, at + FIRST_COPY + A_COPY * kept
        for lane in range(32):
            due = newest < 0 or s[copy + GROUPS + lane] < s[at + COMMITTED + lane] - newest
            if due and mask & s[copy + MASK] & 1 << lane:
                place, size = s[copy + PLACES + lane], s[copy + SIZES + lane]
                if size == STRAYED:
                    _fill(place, s[copy + TO_COPY], POISON)  # type: ignore[call-arg]
                else:
                    _move(place, s[copy + SOURCES + lane], size)  # type: ignore[call-arg]
                    _fill(place + size, s[copy + TO_COPY] - size, 0)
                s[copy + MASK] &= ~(1 << lane)
        if s[copy + MASK]:
            if kept < n:
                s[to : to + A_COPY] = s[copy : copy + A_COPY]
            kept += 1
    s[at + COPIES] = kept


# ------------------------------------------------------------------------------------------------ for the compiler
_pointer: Any = types.CPointer
_STATE, _NUMBER, _LANES = _pointer(types.int64), types.int64, types.uint32
FUNCTIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "resolve": (resolve, types.void(_STATE, _NUMBER, _NUMBER, _LANES, _STATE, _pointer(types.uint32))),
    "report": (report, types.void(_STATE, _NUMBER, _NUMBER, _LANES)),
    "issue": (issue, types.void(_STATE, _NUMBER, _NUMBER, _NUMBER, _LANES, _STATE, _STATE, _STATE)),
    "commit": (commit, types.void(_STATE, _NUMBER, _LANES)),
    "wait": (wait, types.void(_STATE, _NUMBER, _LANES, _NUMBER)),
}


@lru_cache(1)
def compiled() -> tuple[Any, ...]:
    """The functions in machine code: each has an `address`, for as long as it lives."""
    make: Any = cfunc
    return tuple(make(signature, cache=True)(function) for function, signature in FUNCTIONS.values())
