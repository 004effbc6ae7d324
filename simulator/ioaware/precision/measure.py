"""Errors of methods on the same inputs, against attention in float64 of the inputs before any rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .attention import exact
from .formats import Array

if TYPE_CHECKING:
    from ..masks import Mask
    from .method import Method

Inputs = tuple[Array, Array, Array]
ALIKE = 64  # rows over which peaked keys forget


class Errors(NamedTuple):
    """Distances of an output from the exact one.

    rmse       root of the mean squared difference of an entry
    max_abs    largest difference
    frobenius  root of the summed squared differences, relative to that of the exact entries
    """

    rmse: float
    max_abs: float
    frobenius: float


def inputs(
    heads: int, rows: int, head_dim: int, seed: int = 0, *, outliers: bool = False, peaked: bool = False
) -> Inputs:
    """Q, K, V of (heads, rows, head_dim) in float32: N(0, 1), and with outliers + N(0, 100) Bernoulli(0.001).

    The outliers are those of FlashAttention-3, 4.3: one entry in a thousand gets another 10 N(0, 1). Peaked: a query
    is its own key, and from row to row keys change little. Rows n apart have the correlation e^(-n / 64), and each is
    still N(0, 1): scores of a query are about sqrt(head_dim) e^(-n / 64).
    """
    rng = np.random.default_rng(seed)

    def one(*, walks: bool = False) -> Array:
        x = rng.standard_normal((heads, rows, head_dim), np.float32)
        if walks:
            walk(x)
        if outliers:
            where = np.flatnonzero(rng.random(x.shape, np.float32) < 0.001)
            x.reshape(-1)[where] += 10 * rng.standard_normal(len(where), np.float32)
        return x

    q, k, v = one(), one(walks=peaked), one()
    return (k.copy() if peaked else q), k, v


def walk(x: Array) -> None:
    """Makes rows of N(0, 1) a stationary walk, in place."""
    stays = np.float32(np.exp(-1 / ALIKE))
    moves = np.sqrt(1 - stays**2)
    for row in range(1, x.shape[1]):
        x[:, row] = stays * x[:, row - 1] + moves * x[:, row]


def reference(q: Array, k: Array, v: Array, scale: float, mask: Mask | None = None) -> Array:
    """Exact attention of (heads, rows, columns), in float64."""
    return np.stack([exact(*head, scale, mask) for head in zip(q, k, v, strict=True)])


def errors(out: Array, wanted: Array) -> Errors:
    """How far an output is from the exact one."""
    difference = np.abs(out.astype(np.float64) - wanted)
    squares = float((difference**2).sum())
    size = float((wanted**2).sum())
    return Errors(
        rmse=(squares / wanted.size) ** 0.5,
        max_abs=float(difference.max()),
        frobenius=(squares / size) ** 0.5 if size else squares**0.5,
    )


def measured(methods: Iterable[Method], x: Inputs, mask: Mask | None = None) -> Iterator[tuple[Method, Errors]]:
    """The errors of each method, one after another. Raises InputError: a method does not take this head dimension."""
    scale = x[0].shape[2] ** -0.5
    wanted = reference(*x, scale, mask)
    for method in methods:
        yield method, errors(method(*x, scale, mask), wanted)
