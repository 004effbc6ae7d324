"""The number formats that kernels keep tensors in: fp32 values to bits and back, without any library for bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .ptx.arithmetic import from_bf16, to_bf16

Array: TypeAlias = np.ndarray[Any, Any]


class Format(NamedTuple):
    """A format of `itemsize` bytes: from and to fp32 values, rounded to nearest; what rounding to it costs."""

    itemsize: int
    encode: Callable[[Array], Array]  # to bits: integers of that size
    decode: Callable[[Array], Array]
    unit: float  # the unit roundoff
    smallest: float  # above 0
    smallest_normal: float

    def rounded(self, values: Array) -> Array:
        """fp32 values that the format has."""
        return self.decode(self.encode(values))


def _fp16_bits(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).view(np.int16)


def _fp16_values(bits: Array) -> Array:
    return bits.view(np.float16).astype(np.float32)


def _bf16_bits(values: Array) -> Array:
    return np.asarray(to_bf16(values.astype(np.float32))).view(np.int16)


def _bf16_values(bits: Array) -> Array:
    return np.asarray(from_bf16(bits.view(np.uint16)))


FORMATS = {
    "fp32": Format(
        4, lambda x: x.astype(np.float32).view(np.int32), lambda x: x.view(np.float32).copy(),
        2.0**-24, 2.0**-149, 2.0**-126,
    ),
    "fp16": Format(2, _fp16_bits, _fp16_values, 2.0**-11, 2.0**-24, 2.0**-14),
    "bf16": Format(2, _bf16_bits, _bf16_values, 2.0**-8, 2.0**-133, 2.0**-126),
}  # fmt: skip
