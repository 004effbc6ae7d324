"""How far an output may be from exact softmax: computed for every problem and output, never chosen.

    tolerance = 2 x error of the textbook formulas in the kernel's precision, on the same inputs
              + 2 sqrt(n) u max|exact|      n terms summed, u the unit roundoff
              + 2 u max|L| max|exact|       where the algorithm reads L = log(sum) back from memory

The factor 2 is the rule of flash-attention's own tests (tests/test_flash_attn.py). The second term is what rounding
does to a sum of n terms with high probability (Higham, Mary 2019, "A new approach to probabilistic rounding error
analysis"): without it an input on which the formulas happen to be exact would allow no rounding at all. The third is
what a rounded logarithm does to exp(S - L): a weight is off by the factor 1 + u |L|.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import NamedTuple

import numpy as np

from ioaware import reference
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program
from ioaware.readers.algebra import accesses

from .tensors import Array, unpacked

PRECISION = np.dtype(np.float32)
WEIGHTED = ("O", "dQ", "dK", "dV")  # sums whose weights are exp(S - L)


class Expected(NamedTuple):
    """One output: its exact values, (batch, heads, rows, columns) float64, and how far a kernel may be from them.

    The maximum of a row whose softmax is not a number means nothing (fmaxf passes over NaN): there `matters` is False.
    """

    exact: Array
    tolerance: float
    matters: Array


class Difference(NamedTuple):
    """The largest distance from the exact values, and how many elements are NaN or infinite where they should not."""

    error: float
    tolerance: float
    misplaced: int

    @property
    def is_fine(self) -> bool:
        """Within the tolerance, and no special value misplaced."""
        return self.misplaced == 0 and self.error <= self.tolerance


def expected(program: Program, problem: AttentionProblem, inputs: Mapping[str, Array]) -> dict[str, Expected]:
    """Every output of both passes, as the simulator's packed tensors name them."""
    given = dict(inputs)
    exact = reference.attention(problem, given)
    plain = reference.evaluate(problem, given, PRECISION)
    logarithms = [a for a in accesses(program) if a.kind == "read" and a.tensor.name.startswith("L")]
    finite = np.abs(exact["L"][np.isfinite(exact["L"])])
    of_logarithm = float(finite.max()) if logarithms and finite.size else 0.0
    return {
        name: Expected(
            unpacked(problem, values),
            _tolerance(values, plain[name], sqrt(terms(problem, name)) + of_logarithm * (name in WEIGHTED)),
            unpacked(problem, ~np.isnan(exact["l"]) if name == "m" else np.ones(values.shape, bool)),
        )
        for name, values in exact.items()
    }


def _tolerance(exact: Array, plain: Array, roundings: float) -> float:
    finite = np.isfinite(exact) & np.isfinite(plain)
    if not finite.any():
        return 0.0
    info = np.finfo(PRECISION)
    largest = float(np.abs(exact[finite]).max())
    unit = max(largest * float(info.eps) / 2, float(info.smallest_subnormal))
    error = float(np.abs(exact[finite] - plain[finite]).max())
    return 2 * error + 2 * roundings * unit


def terms(problem: AttentionProblem, name: str) -> int:
    """How many products an element of an output sums up, over all matrix products on the way to it."""
    q_len, kv_len = problem.longest()
    scores = problem.head_dim
    lengths = {"O": kv_len, "dQ": kv_len, "l": kv_len, "L": kv_len, "dK": q_len * problem.group,
               "dV": q_len * problem.group}  # fmt: skip
    return scores + lengths.get(name, 0)


def compare(output: Array, expected: Expected) -> Difference:
    """An output against its exact values: special values must be at the same places, the others close."""
    exact, special = expected.exact, ~np.isfinite(expected.exact)
    misplaced = special != ~np.isfinite(output)
    both = special & ~misplaced
    same = (np.isnan(exact) & np.isnan(output)) | (exact == output)
    misplaced = (misplaced | (both & ~same)) & expected.matters
    close = ~special & np.isfinite(output)
    error = float(np.abs(output[close].astype(np.float64) - exact[close]).max()) if close.any() else 0.0
    return Difference(error, expected.tolerance, int(np.count_nonzero(misplaced)))
