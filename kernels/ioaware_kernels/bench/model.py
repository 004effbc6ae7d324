"""Predicted time: the simulator's bytes, flops and exponentials of each launch over rates measured in the same run.

CPU: nothing overlaps. A core that waits for a row of K or V, too short to be fetched ahead, computes nothing, and the
vector units do one thing at a time: moving, products and exponentials add up. Each byte moves at the bandwidth of the
cache or memory that holds it. GPU: a launch takes as long as its slowest engine (ioaware.cost), for other warps go on.
Launches follow one another and cost one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from ioaware.cost import engines
from ioaware.device import Device
from ioaware.hierarchy import Launch, launches
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.footprint import footprint

from .ceilings import Ceilings, Rates

LAUNCH = "launch"
Work = Mapping[str, float]  # per engine of one launch: bytes, flops, exponentials


@dataclass(frozen=True)
class Prediction:
    """Seconds of a run, and what bounds most of them."""

    time_s: float
    bound_by: str
    launch_s: float  # of it, what launches cost


@dataclass(frozen=True)
class Model:
    """How one kind of machine spends its time.

    device   what the simulator's hierarchy needs: cores and cache sizes
    sides    the longest side counts; the engines of a side add up
    work     of every launch, given a program, problem, tiles, device and whether the caches are warm
    samples  of every engine's rate, out of the ceilings
    """

    device: Device
    sides: tuple[tuple[str, ...], ...]
    work: Callable[[Program, AttentionProblem, TileSizes, Device, bool], list[Work]]
    samples: Callable[[Ceilings, Device], dict[str, list[float]]]

    def rates(self, ceilings: Ceilings) -> dict[str, float]:
        """The median rate of every engine."""
        return {engine: median(samples) for engine, samples in self.samples(ceilings, self.device).items()}

    def predict(self, work: list[Work], rates: Rates) -> Prediction:
        """The time of launches, one after another."""
        bound: dict[str, float] = {}
        for one in work:
            busy = {engine: amount / rates[engine] for engine, amount in one.items()}
            slowest = max(self.sides, key=lambda side: sum(busy.get(engine, 0.0) for engine in side))
            for engine in (*slowest, LAUNCH):
                bound[engine] = bound.get(engine, 0.0) + busy.get(engine, 0.0)
        return Prediction(sum(bound.values()), max(bound, key=lambda engine: bound[engine]), bound[LAUNCH])


# ------------------------------------------------------------------------------------------------ what a cache misses
def missed(
    program: Program, problem: AttentionProblem, tiles: TileSizes, cache: Device, *, warm: bool
) -> Iterator[int]:
    """Bytes that every launch moves beyond a cache: `cache.l2_bytes` for `cache.sm_count` cores.

    The simulator's rule (hierarchy.py), and one more: a cache that holds all tensors of a run keeps them from launch to
    launch and, if it is warm, from run to run.
    """
    whole = footprint(program, problem, tiles)
    keeps = sum(whole.values()) <= (cache.l2_bytes or 0)
    seen = set(whole) if warm and keeps else set()
    for launch in launches(program, problem, tiles, cache):
        yield sum(sum(moved) for name, moved in launch.dram.tensors.items() if name not in seen)
        if keeps:
            seen |= set(launch.dram.tensors)


# ------------------------------------------------------------------------------------------------ CPU
CPU_ENGINES = ("memory", "shared cache", "private cache", "matmul", "exp")


def cpu(device: Device) -> Model:
    """A CPU: private caches (`sram_bytes` each), a shared one (`l2_bytes`), memory."""
    return Model(device, (CPU_ENGINES,), _cpu_work, _cpu_samples)


def _cpu_work(
    program: Program,
    problem: AttentionProblem,
    tiles: TileSizes,
    device: Device,
    warm: bool,  # noqa: FBT001
) -> list[Work]:
    own = replace(device, l2_bytes=device.sram_bytes, sm_count=1)
    beyond_own, beyond_shared = (list(missed(program, problem, tiles, c, warm=warm)) for c in (own, device))
    out: list[Work] = []
    for launch, a, b in zip(launches(program, problem, tiles, device), beyond_own, beyond_shared, strict=True):
        moved = {"private cache": launch.issued.total_bytes - a, "shared cache": max(0, a - b), "memory": b}
        out.append({**moved, "matmul": launch.work.flops, "exp": launch.work.exps, LAUNCH: 1})
    return out


def _cpu_samples(ceilings: Ceilings, device: Device) -> dict[str, list[float]]:
    """A cache's bandwidth is that of a working set half its size; memory's, of the largest one."""
    return {
        "private cache": ceilings.copy_at(device.sm_count * device.sram_bytes // 2),
        "shared cache": ceilings.copy_at((device.l2_bytes or device.sram_bytes) // 2),
        "memory": ceilings.copy[max(ceilings.copy)],
        "matmul": ceilings.matmul_best,
        "exp": ceilings.exp,
        LAUNCH: ceilings.launch,
    }


# ------------------------------------------------------------------------------------------------ GPU
GPU_ENGINES = ("dram", "l2", "matmul", "exp")


def gpu(device: Device) -> Model:
    """A GPU, as `ioaware.cost` sees it, with measured rates; shared memory has none and is left out."""
    return Model(device, tuple((engine,) for engine in GPU_ENGINES), _gpu_work, _gpu_samples)


def _gpu_work(
    program: Program,
    problem: AttentionProblem,
    tiles: TileSizes,
    device: Device,
    warm: bool,  # noqa: FBT001
) -> list[Work]:
    def work(launch: Launch, dram: int) -> Work:
        return {**engines(launch, dict.fromkeys(GPU_ENGINES, 1.0)), "dram": dram, LAUNCH: 1}

    of_dram = missed(program, problem, tiles, device, warm=warm)
    return [work(*both) for both in zip(launches(program, problem, tiles, device), of_dram, strict=True)]


def _gpu_samples(ceilings: Ceilings, device: Device) -> dict[str, list[float]]:
    """A quarter of the L2: its halves hold copies of each other's lines."""
    return {
        "dram": ceilings.copy[max(ceilings.copy)],
        "l2": ceilings.copy_at((device.l2_bytes or max(ceilings.copy)) // 4),
        "matmul": ceilings.matmul_best,
        "exp": ceilings.exp,
        LAUNCH: ceilings.launch,
    }
