"""Arrays as callers bring them: NumPy's, or CuPy's where the caller uses CuPy; and the refusals about them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ..errors import InputError, refuse

Array: TypeAlias = np.ndarray[Any, Any]
FORMATS = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}


def module_of(x: Any, name: str = "an input") -> ModuleType:
    """NumPy, or CuPy if the array is CuPy's; nothing is imported. Raises InputError for anything else."""
    if type(x).__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    if isinstance(x, np.ndarray):
        return np
    raise InputError(f"{name} is a {type(x).__name__}: it must be an array of NumPy or of CuPy")


def alike(**arrays: Array) -> ModuleType:
    """The module of arrays that share it and the number format, in which attention is computed. Raises InputError."""
    (first, x), *_ = arrays.items()
    for name, array in arrays.items():
        if module_of(array, name) is not module_of(x):
            raise InputError(f"{first} is an array of {module_of(x).__name__}, {name} is not: give all to one module")
        if array.dtype != x.dtype:
            raise refuse(f"{name}.dtype", array.dtype, f"must be that of {first}", x.dtype)
    if str(x.dtype) not in FORMATS:
        raise refuse(f"{first}.dtype", x.dtype, f"must be one of {', '.join(FORMATS)}", "float32")
    return module_of(x)


def have_axes(axes: str, **arrays: Array) -> None:
    """Raises InputError unless every array has these axes."""
    for name, array in arrays.items():
        if array.ndim != axes.count(",") + 1:
            raise InputError(f"{name}.shape={tuple(array.shape)}: must be ({axes})")


def same(name: str, got: tuple[int, ...], wanted: tuple[int, ...], of: str) -> None:
    """Raises InputError unless a shape is what other inputs say."""
    if tuple(got) != tuple(wanted):
        raise refuse(f"{name}.shape", tuple(got), f"must fit {of}", tuple(wanted))


def keys_fit(heads: int, head_dim: int, k: Array, v: Array, name: str = "k", values: str = "v") -> None:
    """Keys and values (..., kv_heads, head_dim) fit each other and the queries. Raises InputError."""
    same(values, v.shape[:-1], k.shape[:-1], f"{name} but for its last axis")
    if k.shape[-1] != head_dim:
        raise refuse(f"{name}'s head_dim", k.shape[-1], "must be that of q", head_dim)
    if not k.shape[-2] or heads % k.shape[-2]:
        nearest = min((n for n in range(1, heads + 1) if heads % n == 0), key=lambda n: abs(n - k.shape[-2]), default=1)
        raise refuse(f"{name}'s heads", k.shape[-2], f"must divide the {heads} heads of q", nearest)


def accumulator(x: Array) -> np.dtype[Any]:
    """What arithmetic accumulates in: fp32, for fp64 inputs fp64."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def integers(name: str, values: Any, count: int | None = None) -> list[int]:
    """An array or sequence of integers, as Python's. Raises InputError."""
    found = values.tolist() if hasattr(values, "tolist") else values
    found = [number(x) for x in found] if isinstance(found, Sequence) else [None]
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in found):
        raise InputError(f"{name} must be a row of integers")
    if count is not None and len(found) != count:
        raise InputError(f"{name} has {len(found)} entries: one for each of {count} sequences is needed")
    return found


def number(value: Any) -> Any:
    """A NumPy scalar as Python's number; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
