"""How time grows over N, d and M, measured and predicted over the same points, beside the growth of issued bytes.

A fit takes the rows that differ in one quantity only. Asymptotics hold in their regime, so of these rows it takes those
that the *prediction* puts into one regime: bound by the same engine as the largest N, the largest d or the smallest M,
launches costing less than a tenth. Which were taken is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ioaware.schedule import parse_tiles

from .exponents import Estimate, crossing, estimate, exponent, medians, slopes
from .record import MODES, Crossover, Fit
from .rows import Predicted

FEWEST = 3  # points of a line
LAUNCHES = 0.1  # of the time, at most


class Variable(NamedTuple):
    """What a fit is over.

    of       its value in a row
    same     what the rows of one fit have in common; None: the row has no place in such a fit
    theory   exponents of issued bytes, by program: FlashAttention (arXiv 2205.14135), theorem 2
    largest  whether the regime is that of the largest value
    """

    name: str
    of: Callable[[Predicted], int]
    same: Callable[[Predicted], Hashable]
    theory: Mapping[str, str]
    largest: bool = True


def _shape(p: Predicted) -> tuple[Hashable, ...]:
    about = p.row.problem
    return p.row.algorithm, *(about[name] for name in ("heads", "batch", "mask", "dtype"))


def _lengths(p: Predicted) -> tuple[int, int]:
    return p.row.problem["q_len"], p.row.problem["kv_len"]


def _head_dim(p: Predicted) -> int:
    return int(p.row.problem["head_dim"])


def _query_tile(p: Predicted) -> Hashable:
    """Words of a query tile, and keys of a key tile: about the same M."""
    if p.row.asked_tiles is None:
        return None
    tiles = parse_tiles(p.row.asked_tiles)
    return *_shape(p), _lengths(p), tiles.q * _head_dim(p), tiles.kv


def _same_keys(p: Predicted) -> Hashable:
    """All but the query tile."""
    if p.row.asked_tiles is None:
        return None
    return *_shape(p), _lengths(p), _head_dim(p), parse_tiles(p.row.asked_tiles).kv


VARIABLES = (
    Variable(
        "N", lambda p: _lengths(p)[1], lambda p: (*_shape(p), _head_dim(p), p.row.asked_tiles),
        {"naive": "2", "flash1": "2", "flash2": "2"},
    ),
    Variable("d", _head_dim, lambda p: (*_shape(p), _lengths(p), p.row.asked_tiles), {"naive": "0, d << N"}),
    Variable("d, same M", _head_dim, _query_tile, {"flash1": "2", "flash2": "2"}),
    Variable("M", lambda p: p.row.counted["sram_bytes"], _same_keys, {"flash1": "-1", "flash2": "-1"}, largest=False),
)  # fmt: skip


def fits(rows: list[Predicted], seed: int) -> Iterator[Fit]:
    """Every exponent that the rows allow."""
    right = [p for p in rows if p.spread_s and not p.row.problems]
    for variable in VARIABLES:
        for group in _groups(right, variable.same):
            for mode in MODES:
                yield from _fit(variable, group, mode, seed)


def _groups(rows: list[Predicted], same: Callable[[Predicted], Hashable]) -> list[list[Predicted]]:
    out: dict[Hashable, list[Predicted]] = {}
    for p in rows:
        if (key := same(p)) is not None:
            out.setdefault(key, []).append(p)
    return list(out.values())


def _fit(variable: Variable, group: list[Predicted], mode: str, seed: int) -> Iterator[Fit]:
    ordered = sorted({variable.of(p): p for p in group if p.row.samples_s[mode]}.items())
    if len(ordered) < FEWEST:
        return
    anchor = ordered[-1 if variable.largest else 0][1].row.predicted[mode]["bound_by"]
    taken = [(x, p) for x, p in ordered if _in_regime(p, mode, anchor)]
    if len(taken) < FEWEST:
        return
    xs, chosen = [x for x, _ in taken], [p for _, p in taken]
    measured = exponent(xs, np.stack([medians(p.row.samples_s[mode], seed + n) for n, p in enumerate(chosen)]))
    predicted = exponent(xs, np.array([[p.row.predicted[mode]["time_s"], *p.spread_s[mode]] for p in chosen]))
    issued = float(slopes(xs, np.array([[float(p.row.counted["issued_bytes"])] for p in chosen]))[0])
    yield Fit(
        algorithm=chosen[0].row.algorithm,
        over=variable.name,
        mode=mode,
        where=_where(variable, chosen[0]),
        bound_by=anchor,
        points=xs,
        left_out=[x for x, _ in ordered if x not in xs],
        measured=_list(measured),
        predicted=_list(predicted),
        issued=issued,
        theory=variable.theory.get(str(chosen[0].row.program), ""),
        agrees=measured.overlaps(predicted),
    )


def _in_regime(p: Predicted, mode: str, anchor: str) -> bool:
    found = p.row.predicted[mode]
    return bool(found["bound_by"] == anchor and found["launch_s"] < LAUNCHES * found["time_s"])


def _list(e: Estimate) -> list[float]:
    return [e.value, e.low, e.high]


def _where(variable: Variable, p: Predicted) -> str:
    """What is the same at all points of a fit."""
    q_len, kv_len = _lengths(p)
    parts = {"N": f"N={kv_len}" if q_len == kv_len else f"N_q={q_len} N_k={kv_len}", "d": f"d={_head_dim(p)}"}
    return " ".join(text for name, text in parts.items() if name != variable.name[0])


# ------------------------------------------------------------------------------------------------ crossovers
def crossovers(rows: list[Predicted], seed: int) -> Iterator[Crossover]:
    """From which N on every flash2 is faster than naive, for each head_dim and mode."""
    right = [p for p in rows if p.spread_s and not p.row.problems and p.row.asked_tiles is None]
    square = [p for p in right if len(set(_lengths(p))) == 1]
    for group in _groups(square, lambda p: (*_shape(p)[1:], _head_dim(p))):
        for name in dict.fromkeys(p.row.algorithm for p in group if p.row.program == "flash2"):
            for mode in MODES:
                slow, fast = _by_length(group, "naive", mode), _by_length(group, name, mode)
                if len(lengths := sorted(slow.keys() & fast.keys())) > 1:
                    yield _crossover([slow[n] for n in lengths], [fast[n] for n in lengths], lengths, mode, seed)


def _by_length(group: list[Predicted], name: str, mode: str) -> dict[int, Predicted]:
    """The measured rows of an algorithm, by N."""
    return {_lengths(p)[1]: p for p in group if p.row.algorithm == name and p.row.samples_s[mode]}


def _crossover(slow: list[Predicted], fast: list[Predicted], lengths: list[int], mode: str, seed: int) -> Crossover:
    times = [np.stack([medians(p.row.samples_s[mode], seed + n) for n, p in enumerate(ps)]) for ps in (slow, fast)]
    models = [np.array([[p.row.predicted[mode]["time_s"], *p.spread_s[mode]] for p in ps]) for ps in (slow, fast)]
    measured, predicted = (_finite(estimate(crossing(lengths, *pair))) for pair in (times, models))
    where = f"d={_head_dim(fast[0])}"
    return Crossover(fast[0].row.algorithm, mode, where, lengths, measured, predicted)


def _finite(e: Estimate) -> list[float | None]:
    return [x if np.isfinite(x) else None for x in _list(e)]
