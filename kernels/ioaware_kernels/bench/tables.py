"""A run as tables of text, the same for the terminal and the page."""

from __future__ import annotations

from typing import NamedTuple

from ioaware.units import show_scaled, show_time

from .record import MODES, Bench, Crossover, Fit, Row

UNITS = {"matmul": "FLOP/s", "exp": "exp/s", "launch": "/s"}  # of ceilings; all others are bytes


class Table(NamedTuple):
    """Cells; `left`: how many of the first columns are text."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    left: int


def tables(bench: Bench) -> list[Table]:
    """Everything that was measured."""
    return [_ceilings(bench), *(_times(bench, mode) for mode in MODES), _exponents(bench), _crossovers(bench)]


def _ceilings(bench: Bench) -> Table:
    rows = [
        [engine, show_scaled(middle, UNITS.get(engine, "B/s")), f"{show_scaled(low, '')} .. {show_scaled(high, '')}"]
        for engine, (low, middle, high) in bench.rates.items()
    ]
    return Table("ceilings, measured in this run", ("engine", "median", "quartiles"), rows, 1)


# ------------------------------------------------------------------------------------------------ times
TIMES = ("algorithm", "N", "d", "tiles", "measured", "quartiles", "predicted", "ratio", "by", "floor")


def _times(bench: Bench, mode: str) -> Table:
    return Table(f"time, {mode}", TIMES, [_time_row(row, mode) for row in bench.rows], 1)


def _time_row(row: Row, mode: str) -> list[str]:
    p, quartiles, ratio = row.problem, row.quartiles_s(mode), row.ratio(mode)
    length = str(p["kv_len"]) if p["q_len"] == p["kv_len"] else f"{p['q_len']}/{p['kv_len']}"
    start = [row.algorithm, length, str(p["head_dim"]), row.tiles or ""]
    low, middle, high = quartiles or (0.0, 0.0, 0.0)
    measured = [show_time(middle), f"{low / middle - 1:+.0%} {high / middle - 1:+.0%}"] if quartiles else ["-", ""]
    predicted = row.predicted.get(mode)
    model = (
        [show_time(predicted["time_s"]), f"{ratio:.2f}" if ratio else "", predicted["bound_by"]]
        if predicted
        else [""] * 3
    )
    return [*start, *measured, *model, show_time(row.floor["time_s"])]


# ------------------------------------------------------------------------------------------------ growth
EXPONENTS = ("algorithm", "over", "caches", "points", "bound by", "measured", "predicted", "agree", "bytes", "theory")


def _exponents(bench: Bench) -> Table:
    return Table("exponents, with 95 % intervals", EXPONENTS, [_exponent(fit) for fit in bench.fits], 5)


def _exponent(fit: Fit) -> list[str]:
    of = f" of {len(fit.points) + len(fit.left_out)}" if fit.left_out else ""
    return [
        fit.algorithm, fit.over, fit.mode, f"{fit.points[0]}..{fit.points[-1]}: {len(fit.points)}{of}", fit.bound_by,
        _estimate(fit.measured), _estimate(fit.predicted), "yes" if fit.agrees else "no",
        f"{fit.issued:.2f}", fit.theory,
    ]  # fmt: skip


def _estimate(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.2f} {low:.2f}..{high:.2f}"


def _crossovers(bench: Bench) -> Table:
    rows = [
        [c.algorithm, c.mode, c.where, _crossing(c, c.measured), _crossing(c, c.predicted)] for c in bench.crossovers
    ]
    return Table("faster than naive from N = ...", ("algorithm", "caches", "at", "measured", "predicted"), rows, 5)


def _crossing(c: Crossover, values: list[float | None]) -> str:
    value, low, high = (_length(c, x) for x in values)
    return value if low == high == value else f"{value} [{low}, {high}]"


def _length(c: Crossover, x: float | None) -> str:
    if x is None:
        return f"above {c.lengths[-1]}"
    return f"{x:.0f}" if x else f"{c.lengths[0]} or less"


# ------------------------------------------------------------------------------------------------ sentences
def notes(bench: Bench) -> list[str]:
    """What must be known to read the tables."""
    out = [f"{name}: {reason}" for name, reason in bench.absent.items()]
    absent = [f"not here: {'; '.join(out)}"] if out else []
    partial = [] if bench.complete else ["interrupted: only a part of the plan is measured"]
    return [*partial, *bench.doubts, *absent]
