"""First-order time: each kernel launch takes as long as its slowest engine; launches follow one another.

Engines: DRAM, L2, SRAM, the matrix units, the exponential units. An engine whose rate the device does not know is left
out; without DRAM or matrix rates there is no time at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .device import Device
from .hierarchy import Launch
from .problem import AttentionProblem


@dataclass(frozen=True)
class Cost:
    """Seconds that each engine is the slowest one; None where the device's rates are unknown."""

    bounds: Mapping[str, float] | None

    @property
    def time_s(self) -> float | None:
        """The time: launches follow one another."""
        return None if self.bounds is None else sum(self.bounds.values())

    @property
    def bound_by(self) -> str | None:
        """The engine that bounds most of the time."""
        bounds = self.bounds or {}
        return max(bounds, key=lambda name: bounds[name]) if bounds else None

    def __add__(self, other: Cost) -> Cost:
        if self.bounds is None or other.bounds is None:
            return Cost(None)
        names = dict.fromkeys([*self.bounds, *other.bounds])
        return Cost({n: self.bounds.get(n, 0.0) + other.bounds.get(n, 0.0) for n in names})

    def __mul__(self, times: int) -> Cost:
        return Cost(None if self.bounds is None else {n: times * t for n, t in self.bounds.items()})


NEEDED = ("dram", "matmul")


def rates(problem: AttentionProblem, device: Device) -> dict[str, float | None]:
    """Work per second of every engine of the device, in bytes, flops or exponentials."""
    return {
        "dram": device.hbm_bytes_per_s,
        "l2": device.l2_bytes_per_s,
        "sram": device.sram_bytes_per_s,
        "matmul": device.matmul_flop_per_s(problem.dtype),
        "exp": device.exps_per_s,
    }


def engines(launch: Launch, rate: dict[str, float | None]) -> dict[str, float]:
    """Seconds that each engine of known rate is busy with a launch."""
    work = {
        "dram": launch.dram.total_bytes,
        "l2": launch.issued.total_bytes,
        "sram": launch.sram.total_bytes,
        "matmul": launch.work.flops,
        "exp": launch.work.exps,
    }
    return {name: work[name] / r for name, r in rate.items() if r}


def cost(launches: list[Launch], problem: AttentionProblem, device: Device) -> Cost:
    """Time of several launches, one after another, and the engine that bounds most of it."""
    rate = rates(problem, device)
    if any(rate[name] is None for name in NEEDED):
        return Cost(None)
    bounds: dict[str, float] = {}
    for launch in launches:
        busy = engines(launch, rate)
        slowest = max(busy, key=lambda name: busy[name])
        bounds[slowest] = bounds.get(slowest, 0.0) + busy[slowest]
    return Cost(bounds)


def missing_rates(problem: AttentionProblem, device: Device) -> list[str]:
    """The device fields that a time would need."""
    matmul = "fp32_flop_per_s" if problem.dtype in ("fp32", "tf32") else "fp16_flop_per_s"
    fields = {"dram": "hbm_bytes_per_s", "matmul": matmul}
    return [fields[name] for name in NEEDED if rates(problem, device)[name] is None]
