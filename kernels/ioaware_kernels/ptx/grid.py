"""The engine: a whole grid of thread blocks in lock step on NumPy, counted and checked at every access.

Blocks of code run in the order of the text: the threads that wait at the lowest one run next, which is where NVIDIA's
compiler lets diverged threads meet again. A barrier waits until all threads of a thread block that still run are there.
Races do not change values in lock step: they are found by the shadow, not by wrong results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from . import findings
from .analyse import MEMORY, defined, is_copy, live_after, provenance
from .async_copy import AsyncCopies
from .context import Array, Context, Mask, Options
from .count import Counts
from .findings import Findings
from .global_memory import SHIFT, Buffer, GlobalMemory, owner
from .ops import DTYPES
from .parse import SIZES, Block, Immediate, Instruction, Kernel
from .shared_memory import Region, SharedMemory
from .slots import Slots, integer
from .steps import Registers, Step, compile_step
from .tensor_core import Format, decoded, multiply_add

LANES_TOGETHER = 8192  # lanes in flight: enough to hide Python's cost per step, few enough to stay in the cache


class Code(NamedTuple):
    """A basic block, compiled: its steps, and the slots that a masked run must merge."""

    block: Block
    steps: tuple[Step, ...]
    merged: tuple[int, ...]


class Compiled(NamedTuple):
    """A kernel, compiled."""

    code: list[Code]
    slots: Slots
    granule: int  # bytes that a shadow must tell apart: the smallest that it touches, at most four
    has_atomics: bool  # then the order of thread blocks can change values


class Result(NamedTuple):
    """What a launch did besides writing its outputs."""

    counts: Counts
    findings: Findings


@lru_cache(256)
def compile_kernel(kernel: Kernel) -> Compiled:
    """Every block as a tuple of steps. Raises InputError for an opcode that is not run."""
    slots, code = Slots(kernel), []
    for block, live in zip(kernel.blocks, live_after(kernel), strict=True):
        steps = [compile_step(i, slots) for i in block.instructions]
        written = dict.fromkeys(name for i in block.instructions for name in defined(i) if name in live)
        code.append(Code(block, tuple(s for s in steps if s), tuple(slots.register(name) for name in written)))
    instructions = list(kernel.instructions())
    accessed = [SIZES[i.parts[-1]] for i in instructions if i.base in MEMORY and not i.has("param")]
    given = [o for i in instructions if is_copy(i) for o in i.operands[3:] if isinstance(o, Immediate)]
    granule = min([4, *accessed, *(gcd(4, integer(o.text)) for o in given)])
    return Compiled(code, slots, granule, any(i.base in ("atom", "red") for i in instructions))


def launch(
    kernel: Kernel,
    grid: Sequence[int],
    block: Sequence[int],
    params: Mapping[str, bytes],
    buffers: Sequence[Buffer],
    dynamic_shared_bytes: int = 0,
    regions: Sequence[Region] = (),
    options: Options | None = None,
) -> Result:
    """Run a kernel on the CPU. Buffers are changed in place; buffer n's address is `(n + 1) << 40`.

    grid, block  up to three extents each
    params       the bytes of every parameter, by its PTX name
    regions      names for parts of shared memory, by byte offset
    """
    options = options or Options()
    compiled, result = compile_kernel(kernel), Result(Counts(), Findings(kernel.name))
    extents = [(*e, 1, 1)[:3] for e in (grid, block)]
    total, threads = (int(np.prod(e)) for e in extents)
    in_order = (options.races or options.reverse) and compiled.has_atomics  # one after another, where it is watched
    together = 1 if in_order else max(1, LANES_TOGETHER // threads)
    starts = range(0, total, together)
    origin = partial(_origin, kernel, params, buffers)
    with _watched(buffers if options.races else (), compiled.granule), np.errstate(all="ignore"):
        for first in reversed(starts) if options.reverse else starts:
            blocks = min(together, total - first)
            context = Context(first, threads, blocks, result.counts, result.findings, options, origin, compiled.granule)
            shared = SharedMemory(regions, kernel.static_shared_bytes + dynamic_shared_bytes, context)
            machine = Machine(kernel, compiled, context, GlobalMemory(buffers, context), shared)
            machine.run(machine.registers(extents[0], extents[1], params))
    return result


@contextmanager
def _watched(buffers: Sequence[Buffer], granule: int) -> Iterator[None]:
    """Shadows for the buffers during a launch."""
    for buffer in buffers:
        buffer.watch(granule)
    yield
    for buffer in buffers:
        buffer.unwatch()


@lru_cache(256)
def _provenance(kernel: Kernel) -> dict[Instruction, frozenset[str]]:
    return provenance(kernel)


def _origin(kernel: Kernel, params: Mapping[str, bytes], buffers: Sequence[Buffer], i: Instruction) -> Buffer | None:
    """The tensor whose pointer an access's address is computed from: whom a stray access belongs to."""
    n = owner(_provenance(kernel)[i], params, len(buffers))
    return None if n is None else buffers[n]


class Machine:
    """The thread blocks in flight."""

    def __init__(
        self, kernel: Kernel, compiled: Compiled, context: Context, memory: GlobalMemory, shared: SharedMemory
    ) -> None:
        self.kernel, self.compiled, self.context = kernel, compiled, context
        self.memory, self.shared = memory, shared
        self.copies = AsyncCopies(context, memory, shared)
        self.exited: Mask = None

    # ---------------------------------------------------------------------------------------- control flow
    def registers(self, grid: Sequence[int], block: Sequence[int], params: Mapping[str, bytes]) -> Registers:
        """The slots at the start: literals, special registers and parameters are filled in."""
        slots, r = self.compiled.slots, list(self.compiled.slots.initial)
        threads = np.arange(self.context.threads, dtype=np.int32).reshape(-1, 1)
        blocks = self.context.numbers.reshape(1, -1)
        for name, number, extents in (("tid", threads, block), ("ctaid", blocks, grid)):
            below = 1
            for axis, extent in zip("xyz", extents, strict=True):
                r[slots.index[f"%{name}.{axis}"]] = (number // below % extent).astype(np.int32)
                r[slots.index[f"%n{name}.{axis}"]] = np.int32(extent)
                below *= extent
        r[slots.index["%laneid"]], r[slots.index["%warpid"]] = threads & 31, threads >> 5
        for (name, offset, type_), slot in slots.params.items():
            r[slot] = np.frombuffer(params[name], DTYPES[type_], 1, offset)[0]
        return r

    def run(self, r: Registers) -> None:
        """All threads to their end, or to a finding that stops them."""
        waiting: dict[int, Mask] = {0: None}
        counts, budget = self.context.counts, self.context.counts.instructions + self.context.options.budget
        while waiting:
            n, mask = self._next(waiting)
            if n is None:
                return
            code = self.compiled.code[n]
            after = self._run_block(code, r, mask)
            counts.instructions += len(code.block.instructions)
            if counts.instructions > budget:
                self.context.report(
                    findings.BUDGET, code.block.instructions[-1], "", self.context.active(mask), np.int64(0)
                )
                return
            for target, lanes in self._targets(code.block, after, mask):
                waiting[target] = lanes if target not in waiting else self._joined(waiting[target], lanes)

    def _next(self, waiting: dict[int, Mask]) -> tuple[int | None, Mask]:
        """The lowest block of code that may run, and the lanes that run it; they wait no longer."""
        for n in sorted(waiting):
            mask = waiting[n]
            ready = self._gathered(mask) if self.compiled.code[n].block.is_barrier else mask
            if ready is None or ready.any():
                del waiting[n]
                if ready is not mask and mask is not None:
                    rest = mask & ~self.context.active(ready)
                    if rest.any():
                        waiting[n] = rest
                return n, ready
        self._report_divergence(waiting)
        return None, None

    def _gathered(self, mask: Mask) -> Mask:
        """Of the lanes at a barrier, those whose whole thread block is there."""
        if mask is None:
            return None
        there = mask if self.exited is None else mask | self.exited
        ready = mask & there.all(axis=0)
        return None if self.exited is None and ready.all() else ready

    def _report_divergence(self, waiting: dict[int, Mask]) -> None:
        for n, mask in waiting.items():
            barrier = self.compiled.code[n].block.instructions[0]
            self.context.report(findings.DIVERGENT_BARRIER, barrier, "", self.context.active(mask), np.int64(0))

    def _run_block(self, code: Code, r: Registers, mask: Mask) -> Registers:
        """Run the steps; the registers as the jump at the block's end sees them."""
        if mask is None:
            for step in code.steps:
                step(r, None, self)
            return r
        inner = r.copy()
        for step in code.steps:
            step(inner, mask, self)
        for slot in code.merged:
            r[slot] = np.where(mask, inner[slot], r[slot])
        return inner

    def _targets(self, block: Block, r: Registers, mask: Mask) -> list[tuple[int, Mask]]:
        """Where the lanes go: (block, lanes)."""
        last = block.last
        if last is None or last.base not in ("bra", "ret", "exit"):
            return [(block.successors[0], mask)] if block.successors else self._exit(mask)
        if last.guard is None:
            return [(block.successors[0], mask)] if last.base == "bra" else self._exit(mask)
        holds = r[self.compiled.slots.register(last.guard.name)]
        taken, stays = self._split(~holds if last.guard.negated else holds, mask)
        if last.base == "bra":
            both = zip(block.successors, (taken, stays), strict=True)
            return [(target, lanes) for target, lanes in both if lanes is not False]
        if taken is not False:
            self._exit(taken)
        return [(block.successors[0], stays)] if stays is not False else []

    def _split(self, holds: Any, mask: Mask) -> tuple[Any, Any]:
        """(lanes that jump, lanes that stay); False for none, so that a unanimous branch costs nothing."""
        if mask is None:
            if holds.all():
                return None, False
            if not holds.any():
                return False, None
            full = self.context.full(holds)
            return full, ~full
        jumps, stays = mask & holds, mask & ~holds
        if not jumps.any():
            return False, mask
        return (mask, False) if not stays.any() else (jumps, stays)

    def _exit(self, mask: Mask) -> list[tuple[int, Mask]]:
        gone = self.context.active(mask)
        self.exited = gone if self.exited is None else self.exited | gone
        return []

    def _joined(self, a: Mask, b: Mask) -> Mask:
        """Lanes that meet again; None if these are all."""
        together = self.context.active(a) | self.context.active(b)
        return None if together.all() else together

    # ---------------------------------------------------------------------------------------- memory
    def load(
        self, i: Instruction, space: str, base: Any, offset: int, dtype: Any, count: int, mask: Mask
    ) -> list[Array]:
        """`count` neighbouring elements per lane."""
        if self._is_shared(space, base, mask):
            return self.shared.load(i, base, offset, dtype, count, mask)
        return self.memory.load(i, base + np.int64(offset) if offset else base, dtype, count, mask)

    def store(self, i: Instruction, space: str, base: Any, offset: int, values: list[Array], mask: Mask) -> None:
        """Neighbouring elements per lane."""
        if self._is_shared(space, base, mask):
            self.shared.store(i, base, offset, values, mask)
        else:
            self.memory.store(i, base + np.int64(offset) if offset else base, values, mask)

    def atomic(
        self, i: Instruction, space: str, base: Any, offset: int, operation: Any, operands: list[Array], mask: Mask
    ) -> Array:
        """Read-modify-write; the old values."""
        if self._is_shared(space, base, mask):
            return self.shared.atomic(i, base, offset, operation, operands, mask)
        return self.memory.atomic(i, base + np.int64(offset), operation, operands, mask)

    def _is_shared(self, space: str, base: Any, mask: Mask) -> bool:
        """Whether an access is to shared memory; a generic address says so itself, the same for all lanes."""
        if space != "generic":
            return space == "shared"
        addresses = base if mask is None else self.context.full(base)[mask]
        return bool(np.max(addresses, initial=0) < 1 << SHIFT)

    # ---------------------------------------------------------------------------------------- tensor cores
    def load_matrices(
        self, i: Instruction, base: Any, offset: int, count: int, mask: Mask, *, transposed: bool
    ) -> list[Array]:
        """ldmatrix, of whole warps."""
        self._check_whole_warps(i, mask)
        return self.shared.load_matrices(i, base, offset, count, mask, transposed=transposed)

    def multiply_add(
        self, i: Instruction, formats: tuple[Format, Format], a: list[Any], b: list[Any], c: list[Any], mask: Mask
    ) -> Array:
        """mma.sync, of whole warps: registers in, registers out; halves of c are packed in pairs."""
        self._check_whole_warps(i, mask)
        left, right = (decoded(self._stacked(x, np.int32), f) for x, f in zip((a, b), formats, strict=True))
        if len(c) == 4:
            sums = multiply_add(left, right, self._stacked(c, np.float32))
            return sums.astype(np.float32)[:, : self.context.threads]
        pairs = self._stacked(c, np.int32).view(np.float16).reshape(2, -1, self.context.blocks, 2)
        sums = multiply_add(left, right, np.moveaxis(pairs, 3, 1).reshape(4, *pairs.shape[1:3]).astype(np.float32))
        halves = np.ascontiguousarray(np.moveaxis(sums.reshape(2, 2, *sums.shape[1:]), 1, 3), np.float16)
        return halves.view(np.int32)[:, : self.context.threads, :, 0]

    def _stacked(self, registers: list[Any], dtype: Any) -> Array:
        """Registers as one array (registers, threads of whole warps, blocks)."""
        out = np.zeros((len(registers), -(-self.context.threads // 32) * 32, self.context.blocks), dtype)
        for n, register in enumerate(registers):
            out[n, : self.context.threads] = register
        return out

    def _check_whole_warps(self, i: Instruction, mask: Mask) -> None:
        """`.aligned`: all 32 lanes of a warp are here."""
        self._check_members(i, np.int32(-1), mask)
        if self.context.threads % 32:
            last = np.arange(self.context.threads).reshape(-1, 1) >= self.context.threads // 32 * 32
            self.context.report(findings.INACTIVE_LANE, i, "", last & self.context.active(mask), np.int64(0))

    # ---------------------------------------------------------------------------------------- other threads
    def barrier(self, i: Instruction, mask: Mask) -> None:
        """All threads of the thread blocks in `mask` are here: the scheduler saw to it."""
        self.context.intervals += 1 if mask is None else mask.any(axis=0)
        self.context.warp_intervals += 1 if mask is None else mask.any(axis=0)

    def warp_barrier(self, i: Instruction, mask: Mask) -> None:
        """Orders the lanes of every warp that is here."""
        self._check_members(i, np.int32(-1), mask)
        self.context.warp_intervals += self._by_warp(np.logical_or, self.context.active(mask))

    def _by_warp(self, function: np.ufunc, lanes: Array) -> Array:
        """Lanes joined warp by warp: (warps, blocks)."""
        return np.asarray(function.reduceat(lanes, np.arange(0, len(lanes), 32), axis=0))

    def _to_lanes(self, warps: Array) -> Array:
        """What is true of a warp, for each of its lanes."""
        return np.repeat(warps, 32, axis=0)[: self.context.threads]

    def shuffle(
        self, i: Instruction, mode: str, a: Any, b: Any, c: Any, members: Any, mask: Mask
    ) -> tuple[Array, Array]:
        """(the value of another lane, whether that lane is in range): PTX ISA 9.7.8.6."""
        self._check_members(i, members, mask)
        thread = np.arange(self.context.threads).reshape(-1, 1)
        lane, segment = thread & 31, (c >> 8) & 31
        limit = (lane & segment) | (c & 31 & ~segment)
        source = {
            "up": lambda: lane - (b & 31), "down": lambda: lane + (b & 31), "bfly": lambda: lane ^ (b & 31),
            "idx": lambda: (lane & segment) | (b & 31 & ~segment),
        }[mode]()  # fmt: skip
        in_range = source >= limit if mode == "up" else source <= limit
        chosen = np.where(in_range, source, lane) + (thread & ~31)
        chosen = np.minimum(chosen, self.context.threads - 1)
        a = self.context.full(a)
        if mask is not None:
            absent = mask & ~np.take_along_axis(mask, self.context.full(chosen), axis=0)
            self.context.report(findings.INACTIVE_LANE, i, "", absent, np.int64(0))
        moved = a[chosen[:, 0]] if chosen.shape[1] == 1 else np.take_along_axis(a, chosen, axis=0)
        return moved, in_range

    def vote(self, i: Instruction, kind: str, predicate: Any, members: Any, mask: Mask) -> Array:
        """all, any, uni or ballot of a predicate over the warp's lanes that are here."""
        self._check_members(i, members, mask)
        here, p = self.context.active(mask), self.context.full(predicate)
        yes = self._by_warp(np.add, (p & here).astype(np.int32))
        total = self._by_warp(np.add, here.astype(np.int32))
        if kind == "ballot":
            bit = np.uint32(1) << (np.arange(len(here), dtype=np.uint32) & 31).reshape(-1, 1)
            bits = self._by_warp(np.add, np.where(p & here, bit, np.uint32(0)))
            return self._to_lanes(bits.astype(np.uint32).view(np.int32))
        return self._to_lanes({"all": yes == total, "any": yes > 0, "uni": (yes == 0) | (yes == total)}[kind])

    def _check_members(self, i: Instruction, members: Any, mask: Mask) -> None:
        """Lanes that the member mask names must be here, or have ended."""
        if mask is None:
            return
        lane = np.arange(self.context.threads, dtype=np.int32).reshape(-1, 1) & 31
        named = self.context.full((members >> lane) & 1 == 1)
        gone = np.zeros(self.context.shape, bool) if self.exited is None else self.exited
        warp_here = self._to_lanes(self._by_warp(np.logical_or, mask))
        absent = warp_here & named & ~mask & ~gone
        self.context.report(findings.INACTIVE_LANE, i, "", absent, np.int64(0))
