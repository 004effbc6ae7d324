"""The loops whose rates are a CPU's ceilings: copies, exponentials, matrix products, one share per thread."""

from __future__ import annotations

from numba import njit, prange

from ..cpu.exp import exp
from ..cpu.matmul import add_product
from ..cpu.vector import load, store
from ..tensors import Array


@njit(parallel=True, cache=True)
def copy(source: Array, target: Array, times: int) -> None:
    """Each thread copies its row, several times."""
    for thread in prange(len(source)):
        a, b = source[thread], target[thread]
        for _ in range(times):
            for n in range(len(a)):
                b[n] = a[n]


@njit(parallel=True, cache=True)
def exponentials(x: Array, y: Array, times: int) -> None:
    """Each thread takes the exponentials of its rows, several times; x, y (threads, rows, LANES)."""
    for thread in prange(len(x)):
        a, b = x[thread], y[thread]
        for _ in range(times):
            for row in range(len(a)):
                store(b, row, 0, exp(load(a, row, 0)))


@njit(parallel=True, cache=True)
def products(c: Array, a: Array, b: Array, times: int) -> None:
    """Each thread multiplies its matrices, several times; c (threads, rows, STRIP), a (threads, rows, depth)."""
    for thread in prange(len(c)):
        for _ in range(times):
            add_product(c[thread], a[thread], b[thread])


@njit(parallel=True, cache=True)
def nothing(rows: Array) -> None:
    """A parallel region that does next to nothing."""
    for thread in prange(len(rows)):
        rows[thread] = 0
