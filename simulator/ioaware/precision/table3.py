"""FlashAttention-3 (arXiv 2407.08608), Table 3: errors in fp16 and fp8 on inputs with outliers.

The paper does not say N, d or how many heads. Here they are those of its Table 2, the one before: N = 8448, d = 128.
A tensor is one head. docs/accuracy.md has what was tried, and how the numbers depend on it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .attention import exact
from .formats import Array
from .measure import inputs
from .methods import find_method

LENGTH, HEAD_DIM = 8448, 128
HEADS, QUERIES = 8, 384  # heads of a run, and queries of each that are computed
LARGE = 5.0  # no N(0, 1) reaches it: a larger entry is an outlier


class Row(NamedTuple):
    """A row of the table: the method, what the paper calls it, and its RMSE there."""

    method: str
    title: str
    paper: float


ROWS = (
    Row("standard_fp16", "FP16 baseline", 3.2e-4),
    Row("flash2", "FP16 FlashAttention-2", 1.9e-4),
    Row("flash3", "FP16 FlashAttention-3", 1.9e-4),
    Row("fp8_baseline", "FP8 baseline", 2.4e-2),
    Row("flash3_fp8", "FP8 FlashAttention-3", 9.1e-3),
    Row("flash3_fp8_tensor", "  without block quantization", 9.3e-3),
    Row("flash3_fp8_unrotated", "  without incoherent processing", 2.4e-2),
)


class Found(NamedTuple):
    """An RMSE, and how far that of other heads may lie from it: one standard error, unknown from a single head."""

    rmse: float
    standard_error: float | None


def summary(squares: list[list[float]]) -> dict[str, Found]:
    """Of mean squared errors, head by head and row by row, what each row comes to."""
    heads, root = len(squares), np.sqrt(np.mean(squares, axis=0))
    if heads == 1:
        return {row.method: Found(float(r), None) for row, r in zip(ROWS, root, strict=True)}
    error = np.std(squares, axis=0, ddof=1) / heads**0.5 / (2 * root)
    return {row.method: Found(float(r), float(e)) for row, r, e in zip(ROWS, root, error, strict=True)}


def one_head(seed: int, length: int = LENGTH, head_dim: int = HEAD_DIM) -> list[float]:
    """The mean squared error of each row of the table on one head.

    Not every query is computed: those with an outlier make most of the squared error, so that half of the sample is
    theirs, and each counts for as many as it stands for.
    """
    x = inputs(1, length, head_dim, seed, outliers=True)
    queries, weights = sample(x[0][0], np.random.default_rng(seed))
    scale = head_dim**-0.5
    wanted = exact(x[0][0, queries], x[1][0], x[2][0], scale, None)
    out = []
    for row in ROWS:
        method = find_method(row.method)
        q, k, v = (stored[0] for stored in method.store(*x))
        difference = method.attend(q[queries], k, v, scale, None) - wanted
        out.append(float(weights @ (difference**2).mean(axis=1)))
    return out


def sample(q: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Queries of (rows, columns), half of them with an outlier, and the share of all queries that each stands for."""
    has = np.abs(q).max(axis=1) > LARGE
    picked, weights = [], []
    for stratum in (np.flatnonzero(has), np.flatnonzero(~has)):
        some = rng.permutation(stratum)[: QUERIES // 2]
        picked.append(some)
        weights.append(np.full(len(some), len(stratum) / len(some) / len(q)) if len(some) else np.empty(0))
    return np.concatenate(picked), np.concatenate(weights)
