"""The records that `simulate` returns: plain, frozen, additive; `as_dict()` is the JSON contract (schema 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from .bounds import LowerBound, Published
from .cost import Cost
from .device import NUMBERS, Device
from .masks import Kinds
from .model_memory import memory
from .problem import AttentionProblem
from .program.recorder import Program
from .readers.evaluate import TileSizes
from .readers.onchip import OnChip
from .schedule import Schedule
from .traffic import Traffic

if TYPE_CHECKING:
    from .workload import Phase, Workload

SCHEMA = 1
LEVELS = ("compulsory", "issued", "dram", "sram")


@dataclass(frozen=True)
class Totals:
    """What adds up over passes, phases and repeats."""

    flops: int
    exps: int
    levels: Mapping[str, Traffic]  # compulsory | issued | dram | sram
    least_read_bytes: int  # issued reads that no algorithm can avoid
    least_bytes: int  # issued reads and writes that no algorithm can avoid
    cost: Cost

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.flops + other.flops,
            self.exps + other.exps,
            {level: self.levels[level] + other.levels[level] for level in LEVELS},
            self.least_read_bytes + other.least_read_bytes,
            self.least_bytes + other.least_bytes,
            self.cost + other.cost,
        )

    def __mul__(self, times: int) -> Totals:
        return Totals(
            times * self.flops,
            times * self.exps,
            {level: traffic * times for level, traffic in self.levels.items()},
            times * self.least_read_bytes,
            times * self.least_bytes,
            self.cost * times,
        )

    @property
    def ratio(self) -> float:
        """Issued bytes over the lower bound: the distance from the optimum."""
        return self.levels["issued"].total_bytes / self.least_bytes

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "flops": self.flops,
            "exps": self.exps,
            "levels": {level: self.levels[level].as_dict() for level in LEVELS},
            "lower_bound": {
                "issued_read_bytes": self.least_read_bytes,
                "issued_bytes": self.least_bytes,
                "ratio": self.ratio,
            },
            "time_s": self.cost.time_s,
            "bound_by": self.cost.bound_by,
        }


@dataclass(frozen=True)
class PassReport:
    """One pass, forward or backward, of one algorithm on one problem."""

    direction: str
    program: Program
    schedule: Schedule
    on_chip: OnChip
    fits: bool  # everything that a thread block holds fits into the SRAM
    fits_device: bool | None  # loaded tiles fit into shared memory and the rest into registers; None: sizes unknown
    counted_by: str  # closed form | walked
    kinds: Kinds  # of the mask's tiles, over all sequences and heads
    lower_bound: LowerBound
    totals: Totals

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "program": self.program.name,
            "tile_q": self.schedule.tiles.q,
            "tile_kv": self.schedule.tiles.kv,
            "splits": self.schedule.tiles.splits,
            "tiles_from": self.schedule.origin,
            "binds": self.schedule.binds,
            "fits": self.fits,
            "fits_device": self.fits_device,
            "sram_peak_bytes": self.on_chip.total,
            "shared_peak_bytes": self.on_chip.loaded,
            "register_peak_bytes": self.on_chip.computed,
            "counted_by": self.counted_by,
            "mask_tiles": self.kinds._asdict(),
            **self.totals.as_dict(),
            "lower_bound": {**self.lower_bound._asdict(), "ratio": self.totals.ratio},
        }


@dataclass(frozen=True)
class AlgorithmReport:
    """One algorithm on one problem, all its passes; or on a workload, all its phases."""

    name: str
    title: str
    passes: tuple[PassReport, ...]
    totals: Totals

    @property
    def tiles(self) -> TileSizes | None:
        """The forward pass's tiles (or the only pass's); None where phases differ."""
        first = {p.schedule.tiles for p in self.passes if p.direction == self.passes[0].direction}
        return first.pop() if len(first) == 1 else None

    @property
    def fits(self) -> bool:
        """Whether every pass fits into the SRAM."""
        return all(p.fits for p in self.passes)

    @property
    def sram_peak_bytes(self) -> int:
        """The most that a thread block holds in any pass."""
        return max(p.on_chip.total for p in self.passes)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        tiles = self.tiles
        return {
            "tile_q": tiles.q if tiles else None,
            "tile_kv": tiles.kv if tiles else None,
            "fits": self.fits,
            "sram_peak_bytes": self.sram_peak_bytes,
            **self.totals.as_dict(),
        }


@dataclass(frozen=True)
class Report:
    """What `simulate` returns."""

    problem: AttentionProblem
    device: Device
    algorithms: Mapping[str, AlgorithmReport]
    published: tuple[Published, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract, schema 1."""
        algorithms = {}
        for name, a in self.algorithms.items():
            algorithms[name] = {**a.as_dict(), "passes": {p.direction: p.as_dict() for p in a.passes}}
        return {
            **header(self.device),
            "problem": problem_dict(self.problem),
            "algorithms": algorithms,
            "published_bounds": [p._asdict() for p in self.published],
        }


@dataclass(frozen=True)
class WorkloadReport:
    """A workload: a report per phase, and the sums over all layers and steps."""

    workload: Workload
    phases: tuple[Report, ...]
    algorithms: Mapping[str, AlgorithmReport]

    @property
    def device(self) -> Device:
        """The device of every phase."""
        return self.phases[0].device

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract, schema 1; `problem` is null where phases differ: see `workload.phases`."""
        phases = []
        for phase, report in zip(self.workload.phases, self.phases, strict=True):
            found = report.as_dict()
            phases.append({**_phase_dict(phase), "problem": found["problem"], "algorithms": found["algorithms"]})
        return {
            **header(self.device),
            "problem": phases[0]["problem"] if len(phases) == 1 else None,
            "algorithms": {name: a.as_dict() for name, a in self.algorithms.items()},
            "workload": {
                "name": self.workload.name,
                "title": self.workload.title,
                "phases": phases,
                "memory": [stage.as_dict() for stage in memory(self)],
            },
        }


def workload_report(workload: Workload, phases: tuple[Report, ...]) -> WorkloadReport:
    """The sums over all phases, each times its repeats."""
    algorithms = {}
    for name, first in phases[0].algorithms.items():
        parts = [r.algorithms[name].totals * p.repeats for r, p in zip(phases, workload.phases, strict=True)]
        passes = tuple(p for report in phases for p in report.algorithms[name].passes)
        algorithms[name] = AlgorithmReport(name, first.title, passes, reduce(Totals.__add__, parts))
    return WorkloadReport(workload, phases, algorithms)


def problem_dict(problem: AttentionProblem) -> dict[str, Any]:
    """The JSON form of a problem."""
    names = (
        "batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim", "value_dim", "dtype", "score_dtype", "accum_dtype",
        "dropout", "direction", "softcap", "alibi", "sink", "page_size", "kv_dtype", "kv_scales", "shared_kv", "pack",
    )  # fmt: skip
    mask = "padding" if problem.padding and str(problem.band) == "full" else str(problem.band)
    bias = problem.bias._asdict() if problem.bias else None
    more = {"mask": mask, "padding": problem.padding, "softmax_scale": problem.scale, "bias": bias}
    return {**{n: getattr(problem, n) for n in names}, **more}


def _phase_dict(phase: Phase) -> dict[str, Any]:
    about = {"name": phase.name, "layers": phase.layers, "steps": phase.steps, "repeats": phase.repeats}
    return {**about, "source": phase.source}


def header(device: Device) -> dict[str, Any]:
    from . import __version__

    numbers = {n: getattr(device, n) for n in NUMBERS if getattr(device, n) is not None}
    return {"schema": SCHEMA, "version": __version__, "device": {"name": device.name, "kind": device.kind, **numbers}}
