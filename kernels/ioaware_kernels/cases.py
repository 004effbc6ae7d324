"""The matrix of `verify`: problems, layouts and inputs that kernels get wrong.

Ragged and full tiles, odd head_dims and every build, GQA, one query, more queries than keys, views with gaps, offsets
beyond 32 bits; scores that are huge and equal, far apart, infinite, NaN; denormal values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ioaware.problem import AttentionProblem
from ioaware.reference import random_inputs

from .formats import FORMATS
from .implementation import Implementation
from .tensors import Array, Layout, far_apart, interleaved, packed, padded, padded_by_eight

Inputs: TypeAlias = Callable[[AttentionProblem, int], dict[str, Array]]


# ------------------------------------------------------------------------------------------------ inputs
def normal(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """N(0, 1)."""
    return random_inputs(replace(problem, dtype="fp32"), seed)


def huge_equal(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Equal scores so large that half a unit in their last place is more than exp takes: it must see exactly 0.

    Their sums are exact, for equal terms are all rounded the same way; rounded is what the scale makes of them.
    """
    x = normal(problem, seed)
    large = 2.0**15 if problem.dtype == "fp16" else 2.0**17
    x["Q"][...], x["K"][...] = 1.125 * large, large
    return x


def negative(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Scores so far below 0 that exp(0 - L) is infinite."""
    x = normal(problem, seed)
    x["Q"][...], x["K"][...] = 130.0, -128.0
    return x


def spread(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Scores so far apart that only the row's maximum may be subtracted: exp overflows after any other."""
    x = normal(problem, seed)
    x["Q"], x["K"] = np.float32(30) * x["Q"], np.float32(30) * x["K"]
    return x


def rising(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Scores that rise slowly from key to key: what is read last weighs most."""
    x = normal(problem, seed)
    x["Q"][..., 0] = np.sqrt(problem.head_dim)
    x["K"][..., 0] = 0.01 * np.arange(x["K"].shape[-2])
    return x


def minus_infinity(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Every third key has the score -inf."""
    x = normal(problem, seed)
    x["Q"][...] = np.abs(x["Q"]) + 0.5
    x["K"][:, ::3, 0] = -np.inf
    return x


def only_minus_infinity(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """No key has a score above -inf: no row has a maximum to subtract."""
    x = normal(problem, seed)
    x["Q"][...] = np.abs(x["Q"]) + 0.5
    x["K"][..., 0] = -np.inf
    return x


def plus_infinity(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """One key of every sequence has the score +inf: softmax is not a number there."""
    x = minus_infinity(problem, seed)
    x["K"][..., 0] = 1.0
    x["K"][:, -1, 0] = np.inf
    return x


def not_a_number(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """A NaN in one query and one key: it must reach every row that sees it, and no other."""
    x = normal(problem, seed)
    x["Q"][:, :, 0, -1] = np.nan
    x["K"][0, -1, 0] = np.nan
    return x


def denormal(problem: AttentionProblem, seed: int) -> dict[str, Array]:
    """Values and gradients below the smallest normal number."""
    x = normal(problem, seed)
    x["V"] *= np.float32(FORMATS[problem.dtype].smallest_normal / 10)
    x["dO"] *= np.float32(1e-3)
    return x


EXTREME = (huge_equal, negative, spread, minus_infinity, only_minus_infinity, plus_infinity, not_a_number, denormal)
EXTREME_BACKWARD = (huge_equal, negative, spread, only_minus_infinity, denormal)  # gradients of others are no numbers


# ------------------------------------------------------------------------------------------------ cases
class Case(NamedTuple):
    """One line of the matrix."""

    problem: AttentionProblem
    inputs: Inputs = normal
    layout: Layout = packed

    def values(self, seed: int) -> dict[str, Array]:
        """The inputs, rounded to the problem's dtype."""
        stored = FORMATS[self.problem.dtype]
        return {n: stored.rounded(a) for n, a in self.inputs(self.problem, seed).items()}

    def __str__(self) -> str:
        p = self.problem
        parts = [f"{p.q_len}x{p.kv_len}", f"d={p.head_dim}"]
        parts += [f"{p.heads}/{p.kv_heads} heads"] * (p.heads > 1) + [f"batch {p.batch}"] * (p.batch > 1)
        parts += [str(p.band)] * (str(p.band) != "full") + [p.dtype] * (p.dtype != "fp32")
        parts += [f.__name__.replace("_", " ") for f in (self.inputs, self.layout) if f not in (normal, packed)]
        return ", ".join(parts)


def matrix(implementation: Implementation) -> Iterator[Case]:
    """The cases of an implementation: those of its masks and formats, or of decoding where it packs a group's heads."""
    cases = _decoding if implementation.packs_group else _general if implementation.aligned == 1 else _aligned
    for dtype in implementation.dtypes:
        for mask in implementation.masks:
            for case in cases(dtype, implementation.direction, mask):
                if implementation.solves(case.problem):
                    yield case if implementation.strided else case._replace(layout=packed)


def one(implementation: Implementation, problem: AttentionProblem) -> Iterator[Case]:
    """A single problem, in memory as a kernel usually finds it and with gaps."""
    yield Case(problem)
    if implementation.strided:
        yield Case(problem, normal, padded if implementation.aligned == 1 else padded_by_eight)


def _case(
    dtype: str,
    direction: str,
    mask: str,
    q_len: int,
    kv_len: int,
    inputs: Inputs = normal,
    layout: Layout = packed,
    **shape: Any,
) -> Case:
    problem = AttentionProblem(q_len=q_len, kv_len=kv_len, mask=mask, dtype=dtype, direction=direction, **shape)
    return Case(problem, inputs, layout)


def _general(dtype: str, direction: str, mask: str) -> Iterator[Case]:
    case = partial(_case, dtype, direction, mask)
    yield case(64, 64, head_dim=64)
    yield case(37, 41, head_dim=20, batch=2, heads=4, kv_heads=2)
    yield case(1, 1, head_dim=1)
    yield case(1, 65, head_dim=40, heads=3, kv_heads=1, layout=padded)
    yield case(70, 33, head_dim=111, heads=2, layout=interleaved)
    yield case(33, 50, head_dim=129, heads=2, kv_heads=1, layout=padded)
    yield case(9, 31, head_dim=64, batch=2, layout=far_apart)
    yield case(3, 150, head_dim=8)  # rows longer than a thread block
    for inputs in EXTREME if direction == "fwd" else EXTREME_BACKWARD:
        yield case(34, 70, inputs, head_dim=32)


def _aligned(dtype: str, direction: str, mask: str) -> Iterator[Case]:
    """Vectors of eight elements, tiles of 64 rows."""
    case = partial(_case, dtype, direction, mask)
    yield case(128, 128, head_dim=64)
    yield case(65, 135, head_dim=24, batch=2, heads=4, kv_heads=2)
    yield case(1, 1, head_dim=8)
    yield case(1, 129, head_dim=40, heads=3, kv_heads=1, layout=padded_by_eight)
    yield case(130, 63, head_dim=112, heads=2, layout=interleaved)
    yield case(64, 200, head_dim=128, heads=2, kv_heads=1, layout=padded_by_eight)
    yield case(9, 66, head_dim=64, batch=2, layout=far_apart)
    yield case(3, 300, head_dim=72)  # more tiles than buffers
    for inputs in EXTREME:
        yield case(34, 140, inputs, head_dim=32)


def _decoding(dtype: str, direction: str, mask: str) -> Iterator[Case]:
    case = partial(_case, dtype, direction, mask)
    yield case(1, 512, head_dim=64)
    yield case(1, 257, head_dim=128, batch=2, heads=8, kv_heads=2)
    yield case(2, 300, head_dim=20, heads=4, kv_heads=1, layout=padded)
    yield case(4, 1, head_dim=33, heads=3, layout=interleaved)
    yield case(1, 90, head_dim=200, heads=2, kv_heads=1, layout=padded)
    yield case(1, 40, head_dim=64, batch=2, layout=far_apart)
    yield case(2, 288, head_dim=8)  # the last split is not full, and ends with an inner tile
    yield case(16, 40, head_dim=8)  # more rows of a head than a thread block has warps
    yield case(1, 8300, rising, head_dim=4)  # more splits than a warp has lanes
    for inputs in EXTREME:
        yield case(2, 280, inputs, head_dim=32)
