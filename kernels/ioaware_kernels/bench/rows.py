"""One kernel on one problem: what was measured beside what the simulator and the ceilings predict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from statistics import median
from typing import Any

from ioaware.bounds import compulsory
from ioaware.hierarchy import launches
from ioaware.readers.onchip import on_chip
from ioaware.report import problem_dict
from ioaware.traffic import Traffic

from .ceilings import Ceilings
from .exponents import medians
from .floor import Floor, doubts, floor, refused
from .measuring import Measured
from .model import Model, Prediction, Work
from .record import MODES, Row

DRAWS = 200  # of the ceilings


@dataclass(frozen=True)
class Predicted:
    """A row, and its predicted times under resampled ceilings, by mode."""

    row: Row
    spread_s: dict[str, list[float]]


class Predictor:
    """Predictions with the ceilings of a run."""

    def __init__(self, model: Model, ceilings: Ceilings, seed: int) -> None:
        self.model, self.ceilings, self.rates = model, ceilings, model.rates(ceilings)
        self.doubts = doubts(ceilings)
        samples = model.samples(ceilings, model.device)
        drawn = {engine: medians(found, seed + n, DRAWS)[1:] for n, (engine, found) in enumerate(samples.items())}
        self.drawn = [{engine: float(rates[n]) for engine, rates in drawn.items()} for n in range(DRAWS)]

    def __call__(self, m: Measured) -> Predicted:
        """The row of a kernel."""
        work = {mode: self._work(m, warm=mode == "warm") for mode in MODES} if m.subject.program else {}
        at_least = floor(m.problem, self.ceilings)
        row = Row(
            algorithm=m.subject.name,
            program=m.subject.program.name if m.subject.program else None,
            problem=problem_dict(m.problem),
            asked_tiles=str(m.point.tiles) if m.point and m.point.tiles else None,
            tiles=str(m.subject.tiles) if m.subject.tiles else None,
            samples_s=m.samples,
            predicted={mode: asdict(self._time(w)) for mode, w in work.items()},
            floor=at_least._asdict(),
            compulsory_bytes=compulsory(m.problem, "fwd").total_bytes,
            counted=_counted(m, self.model) if work else {},
            errors={name: {"error": d.error, "tolerance": d.tolerance} for name, d in m.differences.items()},
            problems=[*m.problems, *(() if self.doubts else _impossible(m, at_least))],
        )
        return Predicted(row, {mode: [self.model.predict(w, r).time_s for r in self.drawn] for mode, w in work.items()})

    def _work(self, m: Measured, *, warm: bool) -> list[Work]:
        assert m.subject.program
        assert m.subject.tiles
        return self.model.work(m.subject.program, m.problem, m.subject.tiles, self.model.device, warm)

    def _time(self, work: list[Work]) -> Prediction:
        return self.model.predict(work, self.rates)


def _counted(m: Measured, model: Model) -> dict[str, Any]:
    """What the simulator counts: exact."""
    program, tiles = m.subject.program, m.subject.tiles
    assert program
    assert tiles
    of_launches = launches(program, m.problem, tiles, model.device)
    issued = reduce(Traffic.__add__, (launch.issued for launch in of_launches))
    return {
        "issued_bytes": issued.total_bytes,
        "flops": sum(launch.work.flops for launch in of_launches),
        "exps": sum(launch.work.exps for launch in of_launches),
        "sram_bytes": on_chip(program, m.problem, tiles).total,
        "launches": len(of_launches),
    }


def _impossible(m: Measured, at_least: Floor) -> list[str]:
    """A time that nothing can reach, warm or cold."""
    times = {mode: median(samples) for mode, samples in m.samples.items() if samples}
    return [f"{mode}, {sentence}" for mode, time_s in times.items() for sentence in refused(time_s, at_least)]
