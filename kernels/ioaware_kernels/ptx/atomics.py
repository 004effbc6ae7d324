"""Atomic operations, one lane after another in the order given: each returns what it found (PTX ISA 8.2, 9.7.12)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]


@njit(cache=True)
def add(memory: Array, index: Array, value: Array) -> Array:
    """memory[i] += value"""
    old = np.empty_like(value)
    for n in range(len(index)):
        old[n] = memory[index[n]]
        memory[index[n]] += value[n]
    return old


@njit(cache=True)
def minimum(memory: Array, index: Array, value: Array) -> Array:
    """memory[i] = min(memory[i], value)"""
    old = np.empty_like(value)
    for n in range(len(index)):
        old[n] = memory[index[n]]
        memory[index[n]] = min(old[n], value[n])
    return old


@njit(cache=True)
def maximum(memory: Array, index: Array, value: Array) -> Array:
    """memory[i] = max(memory[i], value)"""
    old = np.empty_like(value)
    for n in range(len(index)):
        old[n] = memory[index[n]]
        memory[index[n]] = max(old[n], value[n])
    return old


@njit(cache=True)
def exchange(memory: Array, index: Array, value: Array) -> Array:
    """memory[i] = value"""
    old = np.empty_like(value)
    for n in range(len(index)):
        old[n] = memory[index[n]]
        memory[index[n]] = value[n]
    return old


@njit(cache=True)
def compare_and_swap(memory: Array, index: Array, expected: Array, value: Array) -> Array:
    """memory[i] = value if memory[i] == expected"""
    old = np.empty_like(value)
    for n in range(len(index)):
        old[n] = memory[index[n]]
        if old[n] == expected[n]:
            memory[index[n]] = value[n]
    return old


OPERATIONS = {"add": add, "min": minimum, "max": maximum, "exch": exchange, "cas": compare_and_swap}
