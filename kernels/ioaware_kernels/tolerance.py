"""How far an output may be from exact softmax: computed for every problem and output, never chosen.

    tolerance = 2 x error of the textbook formulas in the kernel's precision, on the same inputs
              + rounding noise

The factor 2 is the rule of flash-attention's own tests (tests/test_flash_attn.py). Noise: a sum of n rounded terms is
off by about sqrt(n) u |partial sums| (Higham, Mary 2019, "A new approach to probabilistic rounding error analysis"; u
the unit roundoff), where the partial sums get about as large as

    size of a sum = sqrt(sum of its terms' squares) + |sum|

A 16-bit kernel computes in fp32, too; the textbook formulas then round P and O to 16 bits as it does, and the noise of
these two roundings is added, with the larger u of the format and what it loses below its smallest normal number.

Without noise an input on which the textbook formulas happen to be exact, or gradients that cancel, would allow no
rounding at all. The errors of scores reach the weights exp(s - m), and from there the sums over them.
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

from .formats import FORMATS
from .tensors import Array, unpacked

PRECISION = np.dtype(np.float32)
SUBNORMAL = 2.0**-125  # in units of u, what rounding below the smallest normal number costs


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
    plain = reference.evaluate(problem, given, PRECISION, FORMATS[problem.dtype].rounded)
    reads_logarithm = any(a.kind == "read" and a.tensor.name.startswith("L") for a in accesses(program))
    allowed = noise(problem, given, exact, reads_logarithm=reads_logarithm)
    out = {}
    for name, values in exact.items():
        matters = ~np.isnan(exact["l"]) if name == "m" else np.ones(values.shape, bool)
        tolerance = 2 * _error(values, plain[name]) + allowed.get(name, 0.0)
        out[name] = Expected(unpacked(problem, values), tolerance, unpacked(problem, matters))
    return out


def _error(exact: Array, plain: Array) -> float:
    finite = np.isfinite(exact) & np.isfinite(plain)
    return float(np.abs(exact[finite] - plain[finite]).max(initial=0.0))


# ------------------------------------------------------------------------------------------------ noise
def noise(
    problem: AttentionProblem, inputs: Mapping[str, Array], exact: Mapping[str, Array], *, reads_logarithm: bool
) -> dict[str, float]:
    """Per output, how far rounding may take its worst element.

    reads_logarithm: the algorithm computes weights as exp(s - L) from L = log(sum) as it is rounded in memory.
    """
    known = {n: np.where(np.isfinite(a), a, 0.0).astype(np.float64) for n, a in {**exact, **inputs}.items()}
    largest: dict[str, float] = {}
    q0 = kv0 = 0
    for q_len, kv_len in problem.sequences:
        rows, keys = slice(q0, q0 + q_len), slice(kv0, kv0 + kv_len)
        for h in range(problem.kv_heads or 1):
            of_keys: dict[str, Array] = {}
            for g in range(problem.group):
                head = {n: a[h, g, rows] for n, a in known.items() if n in _OF_QUERIES}
                head |= {n: known[n][h, keys] for n in ("K", "V")} | {"P": head["P"][:, :kv_len]}
                for name, sizes in _head(problem, head, reads_logarithm=reads_logarithm).items():
                    total = of_keys[name] = of_keys.get(name, 0) + sizes if name in ("dK", "dV") else sizes
                    largest[name] = max(largest.get(name, 0.0), float(np.max(total, initial=0.0)))
        q0, kv0 = rows.stop, keys.stop
    info = np.finfo(PRECISION)  # the unit roundoff is half of eps
    of_storage = largest.pop(_STORED, 0.0)
    out = {n: max(float(info.eps) / 2 * size, 2 * float(info.smallest_subnormal)) for n, size in largest.items()}
    return out | {"O": out["O"] + of_storage}


_STORED = "O as stored"  # in units of 1: the noise of the roundings of P and O to 16 bits
_OF_QUERIES = ("Q", "O", "dO", "P", "L", "l", "m", "dQ")


def _head(problem: AttentionProblem, x: Mapping[str, Array], *, reads_logarithm: bool) -> dict[str, Array]:
    """Of one head, in units of u, the noise of every element; of dK and dV this head's share."""
    (rows, d), kv, scale = x["Q"].shape, len(x["K"]), 1 / sqrt(problem.head_dim)
    counts = x["P"] > 2.0**-24  # a key without weight spoils nothing, however large its score
    score = np.where(counts, _size(x["Q"], x["K"].T), 0.0).max(axis=1, keepdims=True)  # sqrt(d) terms times scale: 1
    weight = 2 * score + sqrt(kv) + (np.abs(x["L"]) if reads_logarithm else 0.0)  # relative, of exp(s - m)
    log_l = np.log(np.maximum(x["l"], 1.0))
    out = {
        "O": (weight + sqrt(kv)) * _size(x["P"], x["V"]), "P": weight * x["P"], "m": score, "l": weight * x["l"],
        "L": score + weight + np.abs(x["m"]) + log_l,
    }  # fmt: skip
    if problem.dtype != "fp32":
        stored = FORMATS[problem.dtype]
        lost = _size(np.broadcast_to(1 / np.maximum(x["l"], 1.0), x["P"].shape), x["V"]) + 1  # of P, and of O
        of_weights = 2 * np.sqrt(x["P"] ** 2 @ x["V"] ** 2)  # rounded one by one, and only once
        out[_STORED] = stored.unit * (of_weights + np.abs(x["O"])) + stored.smallest * lost
    if "dO" in x:
        dp = _size(x["dO"], x["V"].T) + _size(x["dO"][:, None], x["O"][:, :, None])[:, 0]  # of dP - D
        ds, of_group = x["P"] * dp, sqrt(rows * problem.group)
        off = (weight + sqrt(d)) * ds + (1 + sqrt(d)) * SUBNORMAL  # also what underflows
        out["dV"] = _size(((weight + of_group) * x["P"]).T, x["dO"])
        out["dQ"] = scale * _size(off + sqrt(kv) * ds, x["K"])
        out["dK"] = scale * _size((off + of_group * ds).T, x["Q"])
    return out


def _size(a: Array, b: Array) -> Array:
    """How large the partial sums of a @ b get."""
    size: Array = np.sqrt(a**2 @ b**2) + np.abs(a @ b)
    return size


# ------------------------------------------------------------------------------------------------ comparing
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
