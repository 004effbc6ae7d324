"""16-bit floating-point arithmetic, one number or two in a register, each result rounded once (PTX ISA 8.2, 9.7.4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arithmetic import Array, Function, from_bf16, largest, least, to_bf16


def _multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a b + c in float64, rounded to odd: what is lost still shows in the last bit, so that rounding on is exact.

    Boldo, Melquiond 2008, "Emulation of FMA and correctly rounded sums". The product of 16-bit numbers is exact.
    """
    product = a * b
    total = product + c
    back = total - product
    lost = (product - (total - back)) + (c - back)
    is_even = total.view(np.int64) & 1 == 0
    towards = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & np.isfinite(lost) & is_even, towards, total)


ARITHMETIC: dict[str, tuple[int, Function]] = {
    "add": (2, np.add), "sub": (2, np.subtract), "mul": (2, np.multiply), "fma": (3, _multiply_add),
    "neg": (1, np.negative), "abs": (1, np.abs), "min": (2, least), "max": (2, largest),
}  # fmt: skip
TYPES = ("f16", "f16x2", "bf16", "bf16x2")


def arithmetic(base: str, type_: str) -> tuple[int, Function]:
    """(number of operands, function of registers) of an opcode of ARITHMETIC."""
    count, function = ARITHMETIC[base]
    decode, encode = _CODES[type_.removesuffix("x2")]

    def of_registers(*registers: Array) -> Array:
        given = [decode(np.ascontiguousarray(x).view(np.uint16)) for x in registers]
        shape = np.broadcast_shapes(*(x.shape for x in registers))
        parts = [g.reshape(*np.shape(x), -1) for g, x in zip(given, registers, strict=True)]
        bits = np.ascontiguousarray(encode(function(*parts)))
        return bits.view(registers[0].dtype).reshape(shape)

    return count, of_registers


def _to_f32_odd(x: Array) -> Array:
    """float64 to fp32, rounded to odd."""
    near = x.astype(np.float32)
    off = near.astype(np.float64)
    inside = np.where(np.abs(off) > np.abs(x), np.nextafter(near, np.float32(0)), near)
    odd = (inside.view(np.int32) | 1).view(np.float32)
    return np.where((off == x) | np.isnan(x), near, odd)


_CODES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "f16": (lambda bits: bits.view(np.float16).astype(np.float64), lambda x: x.astype(np.float16).view(np.uint16)),
    "bf16": (lambda bits: from_bf16(bits).astype(np.float64), lambda x: to_bf16(_to_f32_odd(x))),
}
