"""A launch of a compiled kernel: its state in memory, thread block after thread block; what it counted and found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import findings
from ..context import Options
from ..count import Counts
from ..findings import Findings, Where
from ..global_memory import SHIFT, Buffer, owner
from ..grid import Result
from ..parse import Instruction, Kernel
from ..shared_memory import Region
from . import layout, runtime
from .compile import Code
from .emit import LANES
from .sites import sites_of

Array = np.ndarray[Any, Any]


class Window(NamedTuple):
    """Memory with a name: addresses as kernels see them, where it is, the number of its buffer (-1: shared)."""

    name: str
    start: int
    stop: int
    place: int
    buffer: int


class Launch:
    """The memory that a launch needs besides the tensors."""

    def __init__(
        self, kernel: Kernel, code: Code, extents: Sequence[tuple[int, int, int]], params: Mapping[str, bytes],
        buffers: Sequence[Buffer], shared_bytes: int, regions: Sequence[Region], budget: int,
    ) -> None:  # fmt: skip
        self.kernel, self.code, self.buffers, self.params = kernel, code, buffers, params
        (self.grid, self.block), self.budget = extents, budget
        self.threads = int(np.prod(self.block))
        self.warps = -(-self.threads // LANES)
        self.sites, self.events = sites_of(kernel).accesses, sites_of(kernel).events
        self.shared = _aligned(shared_bytes + 8, np.uint8)  # a wide access may look behind the end
        self.windows = [*_of_shared(regions, shared_bytes, self.shared.ctypes.data), *_of_buffers(buffers)]
        self.frames = self._frames()
        self.state = self._state(shared_bytes)

    # ---------------------------------------------------------------------------------------- before
    def _frames(self) -> Array:
        """A frame per warp; (warps, bytes)."""
        size = self.code.frame_bytes
        frames = _aligned(self.warps * size, np.uint8).reshape(self.warps, size)
        threads = np.arange(self.warps * LANES).reshape(self.warps, LANES)
        below = 1
        for axis, extent in enumerate(self.block):
            at = layout.TID + 4 * LANES * axis
            frames[:, at : at + 4 * LANES].view(np.int32)[...] = threads // below % extent
            below *= extent
        exists = np.packbits(threads < self.threads, axis=1, bitorder="little").view(np.uint32)
        _field(frames, layout.WARP, np.int64)[...] = np.arange(self.warps)
        _field(frames, layout.EXISTING, np.uint32)[...] = exists[:, 0]
        _field(frames, layout.LAST_LANE, np.int32)[...] = np.minimum(self.threads - threads[:, 0], LANES) - 1
        return frames

    def _state(self, shared_bytes: int) -> Array:
        first = layout.sites_slot(self.kernel)
        of_sites = len(self.sites) * (runtime.ODD_GLOBAL + len(self.buffers)) * runtime.A_FINDING
        sizes = {
            runtime.SITES_AT: runtime.SITE * len(self.sites), runtime.WINDOWS_AT: runtime.A_WINDOW * len(self.windows),
            runtime.COUNTS_AT: len(self.sites) * len(self.windows), runtime.FINDINGS_AT: of_sites,
            runtime.EVENTS_AT: runtime.A_FINDING * len(self.events),
            runtime.COPIES_AT: self.warps * self._copies_each(),
        }  # fmt: skip
        state = _aligned(first + sum(sizes.values()), np.int64)
        for slot, size in sizes.items():
            state[slot], first = first, first + size
        state[runtime.SHARED], state[runtime.SHARED_BYTES] = self.shared.ctypes.data, shared_bytes
        state[runtime.BUDGET], state[runtime.BUFFERS] = self.budget, len(self.buffers)
        state[runtime.WINDOWS], state[runtime.COPIES_EACH] = len(self.windows), self._copies_each()
        state[runtime.SHARED_WINDOWS] = sum(w.buffer < 0 for w in self.windows)
        state[runtime.NTID : runtime.NTID + 3], state[runtime.NCTAID : runtime.NCTAID + 3] = self.block, self.grid
        functions = [f.address for f in runtime.compiled()]
        state[runtime.FUNCTIONS_AT : runtime.FUNCTIONS_AT + len(functions)] = functions
        self._fill(state)
        return state

    def _copies_each(self) -> int:
        copies = any(i.base == "cp" for i in self.kernel.instructions())
        return runtime.FIRST_COPY + runtime.A_COPY * runtime.MOST_COPIES if copies else 0

    def _fill(self, state: Array) -> None:
        """Parameters, sites, windows."""
        as_bytes = state.view(np.uint8)
        for name, offset in layout.parameter_offsets(self.kernel.params).items():
            at = 8 * runtime.PARAMETERS + offset
            as_bytes[at : at + len(self.params[name])] = np.frombuffer(self.params[name], np.uint8)
        origins = sites_of(self.kernel).origins
        rows = _rows(state, runtime.SITES_AT, len(self.sites), runtime.SITE)
        rows[:, runtime.NEXT] = -1
        for row, site in zip(rows, self.sites, strict=True):
            of = owner(origins[site.instruction], self.params, len(self.buffers))
            row[[runtime.BYTES, runtime.SPACE, runtime.OFFSET]] = site.bytes, site.space, site.offset
            if site.members:
                row[runtime.BEFORE], row[runtime.BEHIND] = site.reach
            for member, following in pairwise(site.members):
                rows[member.number, runtime.NEXT] = following.number
            row[runtime.OWNER] = 0 if of is None else (of + 1) << SHIFT
        rows = _rows(state, runtime.WINDOWS_AT, len(self.windows), runtime.A_WINDOW)
        for row, window in zip(rows, self.windows, strict=True):
            row[...] = window[1:]

    # ---------------------------------------------------------------------------------------- the run
    def run(self, *, reverse: bool) -> Result:
        """All thread blocks, one after another."""
        result = Result(Counts(), Findings(self.kernel.name))
        last = int(np.prod(self.grid))
        for first, end in [(n, n + 1) for n in reversed(range(last))] if reverse else [(0, last)]:
            self._run_blocks(result.findings, first, end)
        result.counts.instructions = int(self.state[runtime.INSTRUCTIONS])
        self._read_counts(result.counts)
        self._read_findings(result.findings)
        return result

    def _run_blocks(self, found: Findings, block: int, end: int) -> None:
        """Thread blocks from one to before another, also if some do not come to their end."""
        while block < end:
            block = self.code.run(self.state.ctypes.data, self.frames.ctypes.data, block, end, self.warps)
            if block < end:
                self._report_end(found, block)
                block += 1

    def _report_end(self, found: Findings, block: int) -> None:
        """Why a thread block did not come to its end: the budget, or threads at different barriers."""
        blocks = self.kernel.blocks
        stopped = _field(self.frames, layout.STOPPED, np.uint32)
        if stopped.any():
            for warp in map(int, np.flatnonzero(stopped)):
                code = blocks[int(_field(self.frames, layout.STOPPED_AT, np.int32)[warp])]
                _report(found, findings.BUDGET, code.instructions[-1], block, warp, int(stopped[warp]))
            stopped[...] = 0
            return
        at = layout.PARKED + 4 * len(blocks)
        waiting = self.frames[:, at : at + 4 * len(blocks)].view(np.uint32)
        for warp, n in np.argwhere(waiting).tolist():
            lanes = int(waiting[warp, n])
            _report(found, findings.DIVERGENT_BARRIER, blocks[n].instructions[0], block, warp, lanes)

    # ---------------------------------------------------------------------------------------- after
    def _read_counts(self, counts: Counts) -> None:
        table = _rows(self.state, runtime.COUNTS_AT, len(self.sites), len(self.windows))
        remembered = _rows(self.state, runtime.SITES_AT, len(self.sites), runtime.SITE)
        for row, site in zip(remembered, self.sites, strict=True):
            if row[runtime.WINDOW]:
                window = (row[runtime.WINDOW] - self.state[runtime.WINDOWS_AT]) // runtime.A_WINDOW
                for member in site.members:
                    table[member.number, window] += row[runtime.LANES_COUNTED] * member.bytes
        for n, window in np.argwhere(table).tolist():
            site = self.sites[n]
            counts.add(site.instruction, self.windows[window].name, site.kind, int(table[n, window]))

    def _read_findings(self, found: Findings) -> None:
        each = runtime.ODD_GLOBAL + len(self.buffers)
        of_sites = _rows(self.state, runtime.FINDINGS_AT, len(self.sites) * each, runtime.A_FINDING)
        for n in np.flatnonzero(of_sites[:, runtime.TIMES]).tolist():
            site, (what, memory) = self.sites[n // each], self._meaning(n // each, n % each)
            _add(found, what, site.instruction, memory, of_sites[n])
        of_events = _rows(self.state, runtime.EVENTS_AT, len(self.events), runtime.A_FINDING)
        for n in np.flatnonzero(of_events[:, runtime.TIMES]).tolist():
            what = findings.TOO_MANY if self.events[n].base == "cp" else findings.INACTIVE_LANE
            _add(found, what, self.events[n], "", of_events[n])

    def _meaning(self, site: int, which: int) -> tuple[str, str]:
        """(what was found, in which memory)."""
        if which == runtime.STRAYS_GLOBAL:
            rows = _rows(self.state, runtime.SITES_AT, len(self.sites), runtime.SITE)
            owner = int(rows[site, runtime.OWNER]) >> SHIFT
            return findings.OUT_OF_BOUNDS, self.buffers[owner - 1].name if owner else ""
        if which in (runtime.STRAYS_SHARED, runtime.ODD_SHARED):
            return findings.OUT_OF_BOUNDS if which == runtime.STRAYS_SHARED else findings.MISALIGNED, "shared memory"
        return findings.MISALIGNED, self.buffers[which - runtime.ODD_GLOBAL].name


def launch(
    kernel: Kernel,
    code: Code,
    grid: Sequence[int],
    block: Sequence[int],
    params: Mapping[str, bytes],
    buffers: Sequence[Buffer],
    dynamic_shared_bytes: int = 0,
    regions: Sequence[Region] = (),
    budget: int = Options.budget,
    *,
    reverse: bool = False,
) -> Result:
    """Run a compiled kernel; parameters as those of `grid.launch`, and `budget` is of a warp in a thread block.

    reverse: thread blocks in the opposite order.
    """
    (gx, gy, gz), (bx, by, bz) = ((*e, 1, 1)[:3] for e in (grid, block))
    shared = kernel.static_shared_bytes + dynamic_shared_bytes
    return Launch(kernel, code, [(gx, gy, gz), (bx, by, bz)], params, buffers, shared, regions, budget).run(
        reverse=reverse
    )


# ------------------------------------------------------------------------------------------------ helpers
def _aligned(count: int, dtype: Any) -> Array:
    """Zeros that begin at a multiple of 64 bytes."""
    size = count * np.dtype(dtype).itemsize
    memory: Array = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    aligned: Array = memory[start : start + size].view(dtype)
    return aligned


def _field(frames: Array, offset: int, dtype: Any) -> Array:
    """A field of all frames."""
    field: Array = frames[:, offset : offset + np.dtype(dtype).itemsize].view(dtype)[:, 0]
    return field


def _rows(state: Array, slot: int, count: int, width: int) -> Array:
    """A table in the state."""
    first = int(state[slot])
    table: Array = state[first : first + count * width].reshape(count, width)
    return table


def _of_shared(regions: Sequence[Region], size: int, place: int) -> list[Window]:
    """The regions, and what lies between them."""
    named = sorted((r.start, min(r.stop, size), r.name) for r in regions if r.start < min(r.stop, size))
    out, at = [], 0
    for start, stop, name in [*named, (size, size, "")]:
        if at < start:
            out.append(Window("shared", at, start, place + at, -1))
        if start < stop:
            out.append(Window(name, start, stop, place + start, -1))
        at = max(at, stop)
    return out


def _of_buffers(buffers: Sequence[Buffer]) -> list[Window]:
    """The pieces of all buffers."""
    out = []
    for n, buffer in enumerate(buffers):
        base = (n + 1) << SHIFT
        for start, size, place in zip(buffer.starts, buffer.sizes, buffer.places, strict=True):
            first = base + int(start)
            out.append(Window(buffer.name, first, first + int(size), buffer.words.ctypes.data + int(place), n))
    return out


def _report(found: Findings, what: str, i: Instruction, block: int, warp: int, lanes: int) -> None:
    first = (lanes & -lanes).bit_length() - 1
    found.add(what, i, "", Where(block, LANES * warp + first, 0), lanes.bit_count())


def _add(found: Findings, what: str, i: Instruction, memory: str, row: Array) -> None:
    times, *first = map(int, row)
    found.add(what, i, memory, Where(*first), times)
