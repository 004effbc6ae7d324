"""Arithmetic that NumPy has not, or not as the hardware does it: element-wise functions on arrays and NumPy scalars."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # an array or a NumPy scalar
Function: TypeAlias = Callable[..., Array]


# ------------------------------------------------------------------------------------------------ floating point
@lru_cache(1)
def fused_multiply_add() -> Function:
    """a * b + c with one rounding, as the hardware does; a NumPy ufunc made by numba."""
    from llvmlite import ir
    from numba import vectorize
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Instruction:
            return builder.fma(*arguments)

        return (a(a, a, a), generate) if isinstance(a, types.Float) else None

    def of_elements(a: Any, b: Any, c: Any) -> Any:
        return fma(a, b, c)  # type: ignore[call-arg]

    make: Any = vectorize
    ufunc: Function = make(["f4(f4, f4, f4)", "f8(f8, f8, f8)"])(of_elements).ufunc
    return ufunc


def subnormal_to_zero(x: Array) -> Array:
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def largest(a: Array, b: Array) -> Array:
    """A NaN loses against a number, -0 against +0."""
    return np.where((a == 0) & (b == 0), a + b, np.fmax(a, b))


def least(a: Array, b: Array) -> Array:
    """A NaN loses against a number, +0 against -0."""
    return np.where((a == 0) & (b == 0), -(-a - b), np.fmin(a, b))


def to_f16(x: Array) -> Array:
    return x.astype(np.float16)


def to_bf16(x: Array) -> Array:
    """fp32 to bf16 bits, ties to even; NaN is 0x7fff, as the hardware gives it."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded.astype(np.uint16))


def from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_tf32(x: Array) -> Array:
    """cvt.rna: fp32 with 10 bits of fraction, ties away from zero; NaN is 0x7fffffff."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isnan(x), np.uint32(0x7FFFFFFF), rounded).view(np.int32)


def one(x: Array) -> Array:
    return x.dtype.type(1)


# ------------------------------------------------------------------------------------------------ integers
def quotient(a: Array, b: Array) -> Array:
    """Integer division towards zero; what a division by zero gives is not specified, here all ones."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    floor = a // safe
    exact = floor * safe == a
    towards_zero = floor + (~exact & ((a < 0) != (safe < 0))).astype(floor.dtype)
    return np.where(b == 0, np.array(-1).astype(a.dtype), towards_zero)


def remainder(a: Array, b: Array) -> Array:
    return a - quotient(a, b) * b


def shift_left(a: Array, by: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    moved = a << np.minimum(by, by.dtype.type(bits - 1)).astype(a.dtype)
    return moved if np.ndim(by) == 0 and by < bits else np.where(by < bits, moved, a.dtype.type(0))


def shift_right(a: Array, by: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    moved = a >> np.minimum(by, by.dtype.type(bits - 1)).astype(a.dtype)
    if a.dtype.kind == "i" or (np.ndim(by) == 0 and by < bits):
        return moved  # of a signed number the sign moves in
    return np.where(by < bits, moved, a.dtype.type(0))


def field_mask(start: Array, length: Array, dtype: np.dtype[Any]) -> Array:
    """`length` ones from bit `start` on."""
    ones = np.array(-1).astype(dtype)
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    return shift_left(~shift_left(ones, length), start)


def insert(field: Array, into: Array, start: Array, length: Array) -> Array:
    mask = field_mask(start, length, into.dtype)
    return (into & ~mask) | (shift_left(field, start & np.uint32(0xFF)) & mask)


def extract(a: Array, start: Array, length: Array) -> Array:
    """Bits start .. start + length - 1; of a signed number the field's highest bit is its sign."""
    bits = 8 * a.dtype.itemsize
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    field = shift_right(a, start) & field_mask(np.uint32(0), length, a.dtype)
    if a.dtype.kind == "u":
        return field
    sign_at = np.minimum(start + length - np.uint32(1), np.uint32(bits - 1))
    negative = (shift_right(a, sign_at) & a.dtype.type(1)) == 1
    above = ~field_mask(np.uint32(0), length, a.dtype)
    return np.where(length == 0, a.dtype.type(0), np.where(negative, field | above, field))


def count_ones(a: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    return sum(((a >> a.dtype.type(n)) & a.dtype.type(1)).astype(np.int32) for n in range(bits))


def leading_zeros(a: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    a = a.view(f"u{a.dtype.itemsize}")
    return sum(((a >> a.dtype.type(n)) == 0).astype(np.int32) for n in range(bits))


def reverse(a: Array) -> Array:
    out = np.zeros_like(a)
    for n in range(8 * a.dtype.itemsize):
        out = (out << a.dtype.type(1)) | ((a >> a.dtype.type(n)) & a.dtype.type(1))
    return out


def logic3(a: Array, b: Array, c: Array, table: Array) -> Array:
    """Any function of three bits: bit (a, b, c) of an 8-bit table."""
    out = np.zeros_like(a & b & c)
    for n in range(8):
        chosen = (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
        out = out | np.where((table >> table.dtype.type(n)) & table.dtype.type(1) == 1, chosen, a.dtype.type(0))
    return out


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """Four bytes chosen among the eight of b:a; bit 3 of a choice replicates that byte's sign."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    out = np.zeros_like(a & b)
    for n in range(4):
        choice = (selector >> np.uint32(4 * n)) & np.uint32(15)
        byte = (both >> ((choice & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(0xFF)
        sign = np.where(byte & np.uint32(0x80), np.uint32(0xFF), np.uint32(0))
        out = out | (np.where(choice & np.uint32(8), sign, byte) << np.uint32(8 * n))
    return out


def high_of_64(a: Array, b: Array) -> Array:
    """The high half of a 64-bit product, from four 32-bit ones."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x, y = a.view(np.uint64), b.view(np.uint64)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = x1 * y0 + ((x0 * y0) >> half)
    other = x0 * y1 + (middle & low)
    high = (x1 * y1 + (middle >> half) + (other >> half)).view(a.dtype)
    if a.dtype.kind == "u":
        return high
    zero = a.dtype.type(0)
    return high - np.where(a < 0, b, zero) - np.where(b < 0, a, zero)
