"""FlashAttention-4's exponentials: a polynomial on the ordinary units for some, the special function unit for the rest.

2^x = 2^floor(x) p(x - floor(x)). The coefficients are those of FlashAttention-4 (arXiv 2603.05451;
flash_attn/cute/utils.py, POLY_EX2), the instructions those that `ioaware prove exp2_program_error` bounds.
"""

from __future__ import annotations

import numpy as np

from .formats import Array, rounded

COEFFICIENTS = {  # degree: of f^0, f^1, ...
    3: (1.0, 0.695146143436431884765625, 0.227564394474029541015625, 0.077119089663028717041015625),
    4: (1.0, 0.693042695522308349609375, 0.2412912547588348388671875, 5.2225358784198760986328125e-2,
        1.3434938155114650726318359375e-2),
    5: (1.0, 0.693151414394378662109375, 0.24016360938549041748046875, 5.5802188813686370849609375e-2,
        9.01452265679836273193359375e-3, 1.86810153536498546600341796875e-3),
}  # fmt: skip
F32 = np.float32


def hardware_exp2(x: Array) -> Array:
    """2^x of float32: NumPy's stands for ex2.approx; both are off by about the last bit."""
    out: Array = np.exp2(x)
    return out


def software_exp2(x: Array, degree: int = 3) -> Array:
    """2^x of float32 x <= 127 by the polynomial; below -126 the result lies between 0 and 2^-126, and -inf gives 0."""
    x = np.fmax(x, F32(-127))
    whole = np.floor(x)
    fraction = x - whole
    *rest, highest = COEFFICIENTS[degree]
    p = np.full(x.shape, highest, F32)
    for c in reversed(rest):  # fused: the product of two float32 is exact in float64
        p = (p.astype(np.float64) * fraction + c).astype(F32)
    out: Array = ((whole.astype(np.int32) << np.int32(23)) + p.view(np.int32)).view(F32)
    return out


def emulated(columns: int, period: int = 10) -> Array:
    """Which columns of a tile take the polynomial, bool: by 32, but for the first and last 32, 4 of every `period`.

    FlashAttention-4 has period 10 for d = 128 and two thread blocks that work together, 16 if causal with one.
    """
    column = np.arange(columns)
    pair = column % 32 // 2 * 2
    inside: Array = (column >= 32) & (column < (columns - 1) // 32 * 32)
    return inside & (pair % period >= period - 4)


def mixed_exp2(x: Array) -> Array:
    """2^x of a float32 tile, whose columns are keys, as FlashAttention-4 computes it."""
    out = hardware_exp2(x)
    columns = emulated(x.shape[-1])
    out[..., columns] = software_exp2(x[..., columns])
    return out


def greatest_error(degree: int, name: str = "fp32") -> float:
    """Largest relative error over 2^20 numbers in [-1, 0), the result rounded to a format. Degree 0: the hardware's."""
    x = np.arange(-(1 << 20), 0).astype(F32) / F32(1 << 20)
    y = software_exp2(x, degree) if degree else hardware_exp2(x)
    return float(np.abs(rounded(y, name) / np.exp2(x.astype(np.float64)) - 1).max())
