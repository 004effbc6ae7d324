"""The physical floor: a time below it means that the work was not done, whatever the outputs look like.

    floor = max(compulsory bytes / fastest copy, flops / fastest matrix product)

both over the fastest sample seen in the run. Exponentials are no bound: a kernel may compute them in a cheaper way than
our loop. `MARGIN` is for what a ceiling itself may fall short of: a kernel is refused only clearly below the floor. On
a machine so busy that a ceiling's samples are far apart, none may have been undisturbed: then nobody is accused.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from ioaware.bounds import compulsory
from ioaware.problem import AttentionProblem
from ioaware.units import show_time

from .ceilings import Ceilings

MARGIN = 0.8  # of the floor


UNSTEADY = 1.5  # the fastest matrix product over the median one


class Floor(NamedTuple):
    """Seconds that no run can beat, and why."""

    time_s: float
    by: str


def floor(problem: AttentionProblem, ceilings: Ceilings) -> Floor:
    """The floor of one forward pass."""
    fastest_copy = max(max(samples) for samples in ceilings.copy.values())
    fastest_matmul = max(max(samples) for samples in ceilings.matmul.values())
    flops = 2 * problem.pairs() * (problem.head_dim + (problem.value_dim or 1))
    moving = Floor(compulsory(problem, "fwd").total_bytes / fastest_copy, "compulsory bytes at the fastest copy")
    return max(moving, Floor(flops / fastest_matmul, f"{flops:.3g} flops at the fastest matrix product"))


def doubts(ceilings: Ceilings) -> list[str]:
    """One sentence if the machine is too busy to judge anybody."""
    ratio = max(map(max, ceilings.matmul.values())) / median(ceilings.matmul_best)
    if ratio <= UNSTEADY:
        return []
    return [
        f"the machine is busy: its fastest matrix product is {ratio:.2g} times the median one, so no time is held "
        "against the physical floor; stop other programs and measure again"
    ]


def refused(time_s: float, at_least: Floor) -> list[str]:
    """One sentence if a time is impossible."""
    if time_s >= MARGIN * at_least.time_s:
        return []
    return [
        f"faster than physics: {show_time(time_s)}, but {at_least.by} take {show_time(at_least.time_s)} "
        f"({MARGIN:.0%} of it would be believed)"
    ]
