"""What both kernels do with a strip: STRIP queries side by side, one column each, so that no sum crosses a register.

A strip of queries is Q^T (head_dim, STRIP), its scores are S^T (keys, STRIP), its output is O^T (head_dim, STRIP):
K and V are read as they lie in memory, and softmax is arithmetic on whole rows.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numba import njit

from ..tensors import Array
from .exp import exp
from .matmul import STRIP, VECTORS, add_product
from .vector import FLOAT_BYTES, choose_below, load, store

MINUS_INFINITY, ZERO, ONE = np.float32(-inf), np.float32(0), np.float32(1)
SMALLEST = np.finfo(np.float32).min
PAGE_BYTES = 4096  # prefetchers stop at its end: they fetch nothing of another thread's scratch, which would be lost


def strips(queries: int) -> int:
    """How many strips hold so many queries."""
    return -(-queries // STRIP)


def aligned(*shape: int) -> Array:
    """Uninitialised fp32 (*shape, STRIP) that begins with a page."""
    size = int(np.prod(shape)) * STRIP
    memory = np.empty(size + PAGE_BYTES // FLOAT_BYTES, np.float32)
    start = -memory.ctypes.data % PAGE_BYTES // FLOAT_BYTES
    return memory[start : start + size].reshape(*shape, STRIP)


def whole_pages(rows: int) -> int:
    """At least so many rows of a strip."""
    of_page = PAGE_BYTES // (STRIP * FLOAT_BYTES)
    return -(-rows // of_page) * of_page


@njit(cache=True)
def seen(first: int, last: int, horizon: int, queries: int) -> int:
    """How many of the keys first, ..., last - 1 the last of so many queries sees: query i those below horizon + i."""
    return max(min(last, horizon + queries - 1) - first, 0)


# ------------------------------------------------------------------------------------------------ scores
@njit(cache=True)
def load_queries(q: Array, scale: np.float32, strip: Array) -> None:
    """scale Q^T of the first STRIP queries of (rows, head_dim), at most; zeros where there is none."""
    for column in range(q.shape[1]):
        for x in range(STRIP):
            strip[column, x] = scale * q[x, column] if x < len(q) else ZERO


@njit(cache=True)
def scores(strip: Array, k: Array, horizon: int, s: Array) -> None:
    """S^T = K Q^T; -inf where query x does not see a key: it sees those below horizon + x."""
    s[:] = ZERO
    add_product(s, k, strip)
    for key in range(max(horizon, 0), len(s)):
        for x in range(min(key - horizon + 1, STRIP)):
            s[key, x] = MINUS_INFINITY


# ------------------------------------------------------------------------------------------------ softmax, by vectors
@njit(cache=True)
def maximum(top: Any, s: Array, n: int) -> Any:
    """Vector n: the larger of `top` and the query's largest score; NaN is passed over, as by fmaxf."""
    for key in range(len(s)):
        score = load(s, key, n)
        top = choose_below(top, score, score, top)
    return top


@njit(cache=True)
def to_subtract(top: Any) -> Any:
    """The maximum, but 0 where no score is above -inf: -inf - -inf is not a number."""
    return choose_below(top, SMALLEST, ZERO, top)


@njit(cache=True)
def exponentials(s: Array, shift: Any, total: Any, n: int, e: Array) -> Any:
    """Vector n: e = exp(s - shift); returns `total` and their sum. e may be s."""
    for key in range(len(s)):
        weight = exp(load(s, key, n) - shift)
        store(e, key, n, weight)
        total = total + weight
    return total


@njit(cache=True)
def rescale(rows: Array, factor: Any, n: int) -> None:
    """Multiply vector n of every row."""
    for row in range(len(rows)):
        store(rows, row, n, load(rows, row, n) * factor)


@njit(cache=True)
def normalize(rows: Array, total: Array) -> None:
    """Divide every row by `total` (1, STRIP); 0 where that is 0: no key is seen, or all have the score -inf."""
    for n in range(VECTORS):
        x = load(total, 0, n)
        rescale(rows, choose_below(ZERO, x, ONE / x, x), n)


# ------------------------------------------------------------------------------------------------ outputs
@njit(cache=True)
def store_output(strip: Array, o: Array) -> None:
    """O^T (head_dim, STRIP) to the first STRIP rows of O (rows, head_dim), at most."""
    for x in range(min(len(o), STRIP)):
        for column in range(o.shape[1]):
            o[x, column] = strip[column, x]


@njit(cache=True)
def store_logarithms(top: Array, total: Array, lse: Array) -> None:
    """L = m + log l to the first STRIP rows of (rows, 1), at most; -inf where m is."""
    for x in range(min(len(lse), STRIP)):
        lse[x, 0] = top[x] + np.log(total[x])
