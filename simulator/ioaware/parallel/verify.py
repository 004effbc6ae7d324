"""Is a scheme exact attention, and does it move what is counted? Executed against float64 softmax, and `count`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import VerificationError
from ..problem import AttentionProblem
from ..reference import Arrays, attention, random_inputs
from . import Scheme
from .count import Counts, count
from .execute import Execution, execute

TOLERANCE = 1e-9  # of the largest entry: float64 sums in another order differ by some 1e-13


def verify(scheme: Scheme, problem: AttentionProblem, devices: int, seed: int = 0) -> Execution:
    """Execute on random inputs and compare everything. Raises VerificationError naming what differs."""
    inputs = random_inputs(problem, seed)
    done = execute(scheme, problem, devices, inputs)
    check_values(scheme, attention(problem, inputs), done)
    check_counts(scheme, count(scheme, problem, devices), done)
    return done


def check_values(scheme: Scheme, exact: Arrays, done: Execution) -> None:
    """Every output against exact attention; a NaN is never close."""
    for name, got in done.outputs.items():
        error, scale = np.abs(got - exact[name]).max(), np.abs(exact[name]).max()
        if not error <= TOLERANCE * max(scale, 1.0):
            raise VerificationError(f"{scheme.name}: {name} differs from exact attention by {error:.3g}")


def check_counts(scheme: Scheme, counted: Counts, done: Execution) -> None:
    """Bytes link by link, steps, and visible pairs device by device: all exact."""
    for name, want, got in (
        ("bytes on links", dict(counted.links), done.links),
        ("steps", counted.steps, done.steps),
        ("visible pairs", counted.pairs, done.pairs),
    ):
        if want != got:
            raise VerificationError(f"{scheme.name}: {name} are counted as {want} and executed as {got}")


def shortened(problem: AttentionProblem, devices: int) -> AttentionProblem:
    """The same problem with sequences that every device can hold: a few ragged tokens each."""
    lengths = (min(n, 4 * devices + 3) for n in problem.sequences[0])
    q_len, kv_len = lengths
    return replace(problem, q_len=q_len, kv_len=kv_len, batch=min(problem.batch, 2))
