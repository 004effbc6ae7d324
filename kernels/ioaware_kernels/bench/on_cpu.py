"""This machine's CPU: the project's compiled kernels, BLAS, loops that copy and exponentiate, on all of its cores.

The exponential is the kernels' own (cpu/exp.py): libm's would be called one by one, and be no ceiling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np

from ioaware import cpu
from ioaware.algorithms import find
from ioaware.errors import refuse, unknown
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record

from ..cpu import prepare as kernels
from ..cpu.matmul import STRIP
from ..cpu.vector import LANES
from ..tensors import Array
from . import loops, peers
from .backend import Inputs, Subject
from .ceilings import Ceilings, rates_per_s
from .model import cpu as model_of
from .plan import Point, fits_memory

SMALLEST = 32 * 1024  # working set of the first point of the copy curve
SIDES = (512, 1024)  # of the matrices
SIDE = 64  # of what the kernels' own matrix product multiplies
EXPS = 2048  # per thread: source and result lie in its first cache
REST_S = 0.05
# One sample takes about a millisecond or more: so many turns of a loop, bytes of small copies, parallel regions.
TURNS, MOVED, REGIONS = 1000, 1 << 28, 500


class Cpu:
    """The machine that runs this."""

    def __init__(self) -> None:
        self.threads = numba.get_num_threads()
        self.device = cpu.this_cpu()
        self.model = model_of(self.device)
        beyond = 4 * (self.device.l2_bytes or self.device.sram_bytes)
        source = np.ones((self.threads, beyond // 8 // self.threads), np.float32)
        self._far = source, np.ones_like(source)

    def describe(self) -> dict[str, Any]:
        """Name, cores, caches, threads."""
        d = self.device
        return {
            "kind": "cpu", "name": d.name, "cores": d.sm_count, "threads": self.threads, "memory_bytes": d.hbm_bytes,
            "private_cache_bytes": d.sram_bytes, "shared_cache_bytes": d.l2_bytes, "blas": _blas(),
        }  # fmt: skip

    # -------------------------------------------------------------------------------------------- kernels
    def check(self, point: Point) -> None:
        """One of `ioaware_kernels.cpu`, on a problem that it takes and this machine holds."""
        if point.algorithm not in kernels.NAMES:
            raise unknown("--alg", point.algorithm, kernels.NAMES, f"known on a CPU: {', '.join(kernels.NAMES)}")
        if point.problem.dtype != "fp32":
            raise refuse("--dtype", point.problem.dtype, "the CPU kernels compute in fp32", "fp32")
        fits_memory(point, find(point.algorithm), self.device)

    def prepare(self, point: Point, inputs: Inputs) -> Subject:
        """The kernel with its memory."""
        ready = kernels.prepare(point.algorithm, point.problem, inputs, point.tiles)
        program = record(find(point.algorithm).text("fwd"), point.problem.features)
        return Subject(
            point.algorithm, ready.run, lambda: ready.outputs, partial(_poison, ready.outputs), program, ready.tiles
        )

    def peers(self, problem: AttentionProblem, inputs: Inputs) -> tuple[list[Subject], dict[str, str]]:
        """PyTorch's."""
        return peers.on_cpu(problem, inputs)

    # -------------------------------------------------------------------------------------------- time
    def evict(self) -> None:
        """Copy more than all caches hold."""
        loops.copy(*self._far, 1)

    def rest(self) -> None:
        """OpenBLAS's threads spin for 2^26 cycles of the clock (its THREAD_TIMEOUT), libgomp's for less."""
        time.sleep(REST_S)

    def seconds(self, run: Callable[[], object], times: int) -> float:
        """By the clock on the wall: the kernels return when they are done."""
        start = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - start

    # -------------------------------------------------------------------------------------------- ceilings
    def ceilings(self, dtype: str, repeats: int) -> Ceilings:
        """In fp32, which is all that the kernels compute in."""
        del dtype
        rates = partial(self._rates, repeats)
        x = np.linspace(-8, 0, self.threads * EXPS, dtype=np.float32).reshape(self.threads, -1, LANES)
        exponentials = partial(loops.exponentials, x, np.empty_like(x), TURNS)
        regions = [partial(loops.nothing, np.zeros(self.threads, np.int64))] * REGIONS
        self.rest()
        found = Ceilings(
            copy={size: self._copy(size, repeats) for size in self._sizes()},
            matmul={"the kernels' own": rates(*self._own_matmul())},
            exp=rates(x.size * TURNS, exponentials),
            launch=rates(REGIONS, lambda: [region() for region in regions]),
        )
        found.matmul.update({f"BLAS {side}x{side}": rates(2 * side**3, self._blas(side)) for side in SIDES})
        return found

    def _rates(self, repeats: int, work: int, run: Callable[[], object]) -> list[float]:
        return rates_per_s(work, lambda: self.seconds(run, 1), repeats)

    def _sizes(self) -> list[int]:
        """Doubling up to what no cache holds."""
        largest = 2 * self._far[0].nbytes
        return [size for n in range(64) if (size := SMALLEST << n) < largest] + [largest]

    def _copy(self, size: int, repeats: int) -> list[float]:
        """Source and target are two halves of the working set."""
        source, target = (np.ascontiguousarray(far[:, : size // 8 // self.threads]) for far in self._far)
        times = max(1, MOVED // size)
        return self._rates(repeats, 2 * source.nbytes * times, partial(loops.copy, source, target, times))

    def _blas(self, side: int) -> Callable[[], object]:
        a, b = (np.full((side, side), x, np.float32) for x in (0.5, 2.0))
        return partial(np.matmul, a, b, out=np.empty_like(a))

    def _own_matmul(self) -> tuple[int, Callable[[], object]]:
        """What the kernels are made of, on operands that the caches nearest to the core hold: flops, and what runs."""
        c, a, b = (
            np.zeros((self.threads, *shape), np.float32) for shape in ((SIDE, STRIP), (SIDE, SIDE), (SIDE, STRIP))
        )
        return 2 * SIDE * c.size * TURNS, partial(loops.products, c, a, b, TURNS)


def _poison(outputs: dict[str, Array]) -> None:
    for array in outputs.values():
        array.fill(np.nan)


def _blas() -> str:
    """The library behind NumPy's matrix product."""
    found: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = found.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
