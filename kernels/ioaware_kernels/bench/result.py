"""From a run, complete or not, to its result: rows, fits and crossovers for what has been measured so far."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import median, quantiles

import ioaware

from .fits import crossovers, fits
from .measuring import Measuring
from .record import Bench
from .rows import Predicted, Predictor

PACKAGES = ("numpy", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton")


def result(run: Measuring, command: str = "") -> Bench:
    """What is known by now. Raises ValueError where not even the ceilings are."""
    if run.ceilings is None:
        raise ValueError("nothing is measured yet")
    model, seed = run.backend.model, run.plan.seed
    predictor = Predictor(model, run.ceilings, seed)
    found: list[Predicted] = [predictor(m) for m in run.found.values() if any(m.samples.values()) or m.problems]
    rates = {engine: three(samples) for engine, samples in model.samples(run.ceilings, model.device).items()}
    return Bench(
        device=run.backend.describe(),
        versions=versions(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        seed=seed,
        repeats=run.plan.repeats,
        complete=run.complete,
        doubts=predictor.doubts,
        absent=run.absent,
        ceilings=run.ceilings,
        rates=rates,
        rows=[p.row for p in found],
        fits=list(fits(found, seed)),
        crossovers=list(crossovers(found, seed)),
    )


def three(samples: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return quantiles(samples, method="inclusive") if len(samples) > 1 else [median(samples)] * 3


def versions() -> dict[str, str]:
    """Of Python, of this project, and of every package that matters and is installed."""
    out = {"ioaware": ioaware.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
