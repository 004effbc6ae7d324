"""The result of a run: rows, ceilings, fits, the machine; and its file, JSON of schema 1, written and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Any

from ioaware.errors import InputError

from .ceilings import Ceilings, ceilings_of

SCHEMA = 1
MODES = ("warm", "cold")


@dataclass(frozen=True)
class Row:
    """One algorithm on one problem: measured, predicted, the floor, and what is wrong. Holds only what JSON holds."""

    algorithm: str  # or the kernel's name
    program: str | None  # of the simulator; None for other people's kernels
    problem: dict[str, Any]  # as report.problem_dict
    asked_tiles: str | None  # in the plan
    tiles: str | None  # that the kernel used
    samples_s: dict[str, list[float]]  # by mode: warm, cold
    predicted: dict[str, dict[str, Any]]  # by mode: time_s, bound_by, launch_s; nothing for other people's kernels
    floor: dict[str, Any]  # time_s, by
    compulsory_bytes: int
    counted: dict[str, int]  # by the simulator: issued_bytes, flops, exps, sram_bytes of a thread block, launches
    errors: dict[str, dict[str, float]]  # per output: error, tolerance
    problems: list[str]

    def median_s(self, mode: str) -> float | None:
        """The median time; None where nothing was measured."""
        found = self.quartiles_s(mode)
        return found[1] if found else None

    def quartiles_s(self, mode: str) -> tuple[float, float, float] | None:
        """First quartile, median, third quartile."""
        samples = self.samples_s.get(mode, [])
        if len(samples) < 2:
            return (samples[0],) * 3 if samples else None
        first, median, third = quantiles(samples, method="inclusive")
        return first, median, third

    def ratio(self, mode: str) -> float | None:
        """Predicted over measured."""
        median = self.median_s(mode)
        return self.predicted[mode]["time_s"] / median if median and mode in self.predicted else None


@dataclass(frozen=True)
class Fit:
    """An exponent, measured and predicted over the same points. Estimates are [value, low, high]."""

    algorithm: str
    over: str  # N, d, M
    mode: str
    where: str  # what is the same at all points
    bound_by: str  # the engine that bounds all points, as predicted
    points: list[int]  # the values of N, d or M
    left_out: list[int]
    measured: list[float]
    predicted: list[float]
    issued: float  # of issued bytes
    theory: str  # of issued bytes, as the papers have it
    agrees: bool


@dataclass(frozen=True)
class Crossover:
    """From which N on `algorithm` is faster than naive; 0: from the shortest on, None: not at the longest."""

    algorithm: str
    mode: str
    where: str
    lengths: list[int]
    measured: list[float | None]
    predicted: list[float | None]


@dataclass(frozen=True)
class Bench:
    """One run of `ioaware bench`."""

    device: dict[str, Any]
    versions: dict[str, str]
    date: str  # UTC
    command: str
    seed: int
    repeats: int
    complete: bool
    doubts: list[str]  # about the run as a whole
    absent: dict[str, str]  # other people's kernels that are not here, and why
    ceilings: Ceilings
    rates: dict[str, list[float]]  # per engine of the model: first quartile, median, third quartile
    rows: list[Row] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    crossovers: list[Crossover] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, one sentence each."""
        return [f"{label(row)}: {sentence}" for row in self.rows for sentence in row.problems]

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract."""
        plain = {k: v for k, v in asdict(self).items() if k != "ceilings"}
        return {"schema": SCHEMA, **plain, "ceilings": self.ceilings.as_dict()}


def label(row: Row) -> str:
    """A row in a few words."""
    p = row.problem
    length = f"N={p['q_len']}" if p["q_len"] == p["kv_len"] else f"N_q={p['q_len']} N_k={p['kv_len']}"
    return f"{row.algorithm} {length} d={p['head_dim']}" + (f" tiles {row.tiles}" if row.tiles else "")


# ------------------------------------------------------------------------------------------------ files
def write(bench: Bench, path: str) -> None:
    """Write the result file."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        json.dump(bench.as_dict(), file, allow_nan=False)
        file.write("\n")


def read(path: str) -> Bench:
    """A result file. Raises InputError: no such file, no JSON, no result of this schema."""
    try:
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
    except OSError as e:
        raise InputError(f"result file {path!r}: {(e.strerror or 'cannot be read').lower()}") from None
    except (ValueError, RecursionError):
        raise InputError(f"result file {path!r} is not JSON; give a file that --out has written") from None
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        raise InputError(f"result file {path!r} has not schema {SCHEMA}; give a file that --out has written")
    from .tables import tables

    try:
        bench = _bench(table)
        tables(bench)  # what cannot be shown is damaged, too
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
        raise InputError(f"result file {path!r} is damaged ({type(e).__name__}: {e}); measure again") from None
    return bench


def _bench(table: Mapping[str, Any]) -> Bench:
    rest = {k: v for k, v in table.items() if k != "schema"}
    kinds = {"rows": Row, "fits": Fit, "crossovers": Crossover}
    rest |= {name: [kind(**entry) for entry in table[name]] for name, kind in kinds.items()}
    str(rest["device"]["name"])
    return Bench(**{**rest, "ceilings": ceilings_of(table["ceilings"])})
