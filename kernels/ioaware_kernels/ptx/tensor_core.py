"""mma.sync: D = A B + C of a warp's 16 x k and k x 8 fragments, in the formats of the tensor cores.

Every product is exact; sums are in float64, in ascending k from C on, and rounded once at the end. Hardware rounds
otherwise (it aligns and cuts off what it adds), so that results agree within the tolerance, never bit for bit.

Fragments (PTX ISA 8.2, 9.7.13.4): with g = lane / 4, t = lane % 4 and p elements in a 32-bit register, register r of
    A  holds row g + 8 (r % 2),  columns t p + 4 p (r / 2) and following
    B  holds column g,           rows t p + 4 p r and following
    C  holds row g + 8 (r / 2),  column 2 t + r % 2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, Any]


# ------------------------------------------------------------------------------------------------ formats
class Format(NamedTuple):
    """A number format of A and B: elements in a register, the depths k that there are, bits to fp32."""

    packed: int
    depths: tuple[int, ...]
    decode: Callable[[Array], Array]


def _halves(bits: Array) -> Array:
    return bits.view(np.float16).astype(np.float32)


def _brain(bits: Array) -> Array:
    return (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _tensor_float(bits: Array) -> Array:
    """The hardware does not look at the last 13 bits."""
    return (bits & np.int32(~0x1FFF)).view(np.float32)


def _e5m2(bits: Array) -> Array:
    return (bits.view(np.uint8).astype(np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)


def _e4m3(bits: Array) -> Array:
    return _E4M3.take(bits.view(np.uint8))


def _e4m3_values() -> Array:
    """All 256: no infinity, and one NaN of each sign (Micikevicius et al. 2022, arXiv 2209.05433, table 1)."""
    code = np.arange(256)
    exponent, fraction = (code >> 3) & 15, code & 7
    size = np.where(exponent > 0, (1 + fraction / 8) * 2.0 ** (exponent - 7), fraction / 8 * 2.0**-6)
    size = np.where((code & 127) == 127, np.nan, size)
    return np.where(code < 128, size, -size).astype(np.float32)


_E4M3 = _e4m3_values()
FORMATS = {
    "f16": Format(2, (8, 16), _halves),
    "bf16": Format(2, (8, 16), _brain),
    "tf32": Format(1, (4, 8), _tensor_float),
    "e4m3": Format(4, (32,), _e4m3),
    "e5m2": Format(4, (32,), _e5m2),
}


def decoded(registers: Array, format_: Format) -> Array:
    """(registers, threads, blocks) int32 as fp32 values: (registers, threads, blocks, elements of a register)."""
    return format_.decode(registers).reshape(*registers.shape, format_.packed)


# ------------------------------------------------------------------------------------------------ the product
@njit(cache=True)
def multiply_add(a: Array, b: Array, c: Array) -> Array:
    """D, unrounded, of C (4, threads, blocks) fp32; a, b: (registers, threads, blocks, elements) fp32; whole warps."""
    registers, threads, blocks, packed = a.shape
    depth = registers // 2 * 4 * packed
    out = np.empty(c.shape)
    left, right, sums = np.empty((16, depth)), np.empty((depth, 8)), np.empty((16, 8))
    for block in range(blocks):
        for warp in range(0, threads, 32):
            for lane in range(32):
                g, t, thread = lane // 4, lane % 4, warp + lane
                for e in range(packed):
                    for r in range(registers):
                        left[g + 8 * (r % 2), t * packed + 4 * packed * (r // 2) + e] = a[r, thread, block, e]
                    for r in range(registers // 2):
                        right[t * packed + 4 * packed * r + e, g] = b[r, thread, block, e]
                for r in range(4):
                    sums[g + 8 * (r // 2), 2 * t + r % 2] = c[r, thread, block]
            for k in range(depth):
                for row in range(16):
                    x = left[row, k]
                    for column in range(8):
                        sums[row, column] += x * right[k, column]
            for lane in range(32):
                g, t = lane // 4, lane % 4
                for r in range(4):
                    out[r, warp + lane, block] = sums[g + 8 * (r // 2), 2 * t + r % 2]
    return out
