"""Ceilings: the rates that the machine itself reached in this run, each with all of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any, TypeAlias

Rates: TypeAlias = Mapping[str, float]  # work per second of every engine


@dataclass(frozen=True)
class Ceilings:
    """Samples per second of everything that was measured.

    copy     bytes read and written, by working set (source and destination, bytes, over all cores)
    matmul   flops of matrix products in the dtype of the problem, by what was multiplied and by whom
    exp      exponentials of fp32 numbers
    launch   empty kernel launches, or parallel regions
    """

    copy: dict[int, list[float]]
    matmul: dict[str, list[float]]
    exp: list[float]
    launch: list[float]

    def copy_at(self, size: int) -> list[float]:
        """The samples of the working set nearest to `size`, by ratio."""
        return self.copy[min(self.copy, key=lambda s: abs(log(s / size)))]

    @property
    def matmul_best(self) -> list[float]:
        """The samples of the matrix product with the highest median."""
        return max(self.matmul.values(), key=median)

    def joined(self, other: Ceilings) -> Ceilings:
        """The samples of both: taken all through a run, they show how the machine drifts."""
        return Ceilings(
            {size: [*samples, *other.copy[size]] for size, samples in self.copy.items()},
            {what: [*samples, *other.matmul[what]] for what, samples in self.matmul.items()},
            [*self.exp, *other.exp],
            [*self.launch, *other.launch],
        )

    def as_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "copy_bytes_per_s": {str(size): samples for size, samples in self.copy.items()},
            "matmul_flop_per_s": self.matmul,
            "exps_per_s": self.exp,
            "launches_per_s": self.launch,
        }


def ceilings_of(table: Mapping[str, Any]) -> Ceilings:
    """The way back from JSON. Raises KeyError, TypeError, ValueError: the table is something else."""

    def numbers(found: Any) -> list[float]:
        return [float(x) for x in found]

    return Ceilings(
        {int(size): numbers(samples) for size, samples in table["copy_bytes_per_s"].items()},
        {str(what): numbers(samples) for what, samples in table["matmul_flop_per_s"].items()},
        numbers(table["exps_per_s"]),
        numbers(table["launches_per_s"]),
    )


def rates_per_s(work: float, seconds: Callable[[], float], repeats: int) -> list[float]:
    """Samples of a rate: `work` is done in what `seconds()` returns; the first call only warms up."""
    seconds()
    return [work / seconds() for _ in range(repeats)]
