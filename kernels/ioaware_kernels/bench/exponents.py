"""Exponents and crossovers, each with a 95 % interval: how time grows, and where one algorithm overtakes another.

An exponent is the slope of the least-squares line through (log x, log median). Two things make it uncertain, and its
interval is the wider of both:

noise     samples of each point are drawn again with replacement, seeded, and the slopes of all draws are sorted (the
          bootstrap); for a predicted time the samples are those of the ceilings that it was computed from
misfit    the points are not on a line, for times are sums of terms that grow differently: the regression's own interval
          (Student's t with two degrees of freedom less than points)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from ..tensors import Array

DRAWS = 1000
# Student's t, 97.5 %, by degrees of freedom from 1 on (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2).
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


def medians(samples: Sequence[float], seed: int, draws: int = DRAWS) -> Array:
    """The medians of `draws` resamplings, the first entry being the median of the samples themselves."""
    values = np.asarray(samples, np.float64)
    chosen = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    return np.concatenate([[np.median(values)], np.median(values[chosen], axis=1)])


def slopes(x: Sequence[float], y: Array) -> Array:
    """Slopes of the lines through (log x, log y): y has one row per x, and one slope per column is returned."""
    centred = np.log(x) - np.mean(np.log(x))
    of_columns: Array = centred @ np.log(y) / (centred @ centred)
    return of_columns


def estimate(first_and_draws: Array) -> Estimate:
    """The value, and the interval of its draws."""
    low, high = np.percentile(first_and_draws[1:], INTERVAL, method="nearest")  # a draw, for it may be infinite
    return Estimate(float(first_and_draws[0]), float(low), float(high))


def exponent(x: Sequence[float], y: Array) -> Estimate:
    """The exponent of y over x, three points or more: one row per x, whose first entry counts; the others are draws."""
    noise, misfit = estimate(slopes(x, y)), _misfit(x, y[:, 0])
    return Estimate(noise.value, min(noise.low, noise.value - misfit), max(noise.high, noise.value + misfit))


def _misfit(x: Sequence[float], y: Array) -> float:
    """Half of the regression's 95 % interval."""
    of_x, of_y, freedom = np.log(x) - np.mean(np.log(x)), np.log(y) - np.mean(np.log(y)), len(x) - 2
    off = of_y - of_x * (of_x @ of_y) / (of_x @ of_x)
    return STUDENT[min(freedom, len(STUDENT)) - 1] * float(np.sqrt(off @ off / freedom / (of_x @ of_x)))


def crossing(x: Sequence[float], slow: Array, fast: Array) -> Array:
    """Per column, from which x on `fast` stays below `slow`, interpolated between logarithms.

    slow, fast: one row per x. 0 where it is below from the first x on; infinite where it is not at the last one.
    """
    ahead = np.log(slow) - np.log(fast)
    return np.array([_crossing([log(v) for v in x], column) for column in ahead.T])


def _crossing(x: Sequence[float], ahead: Array) -> float:
    behind = np.flatnonzero(ahead <= 0)
    if not len(behind):
        return 0.0
    last = int(behind[-1])
    if last == len(x) - 1:
        return float("inf")
    share = ahead[last] / (ahead[last] - ahead[last + 1])
    return exp(x[last] + share * (x[last + 1] - x[last]))
