"""exp in fp32, branch-free, so that LLVM turns a loop over it into vector instructions; libm is called one by one.

exp(x) = 2^n exp(r) with n = round(x / log 2) and |r| <= log(2) / 2: 2^n is put together from bits, exp(r) is Taylor's
polynomial of degree 7, whose remainder is about r^8 / 8! = 5.2e-9. With the rounding of its evaluation the error is
below 2^-23 of the value: tests/unit/test_cpu_kernels.py compares it with float64.
"""

from __future__ import annotations

from math import factorial, log
from typing import Any

import numpy as np
from numba import njit

from .vector import choose_below, power_of_two

# Adding 1.5 x 2^23 leaves no fraction bits: the sum is rounded to an integer, found in the lowest bits of its mantissa.
ROUND = np.float32(1.5 * 2**23)
PER_LOG_2 = np.float32(1 / log(2))
# log 2 in two parts: multiples of the first, which has few bits, are exact (Cody, Waite 1980).
LOG_2_HIGH = np.float32(355 / 512)
LOG_2_LOW = np.float32(log(2) - 355 / 512)
LOWEST = np.float32(-126 * log(2))  # the exponential of what is below is no normal number
C2, C3, C4, C5, C6, C7 = (np.float32(1 / factorial(n)) for n in range(2, 8))
ZERO, ONE = np.float32(0), np.float32(1)


@njit(cache=True)
def exp(x: Any) -> Any:
    """e^x of a vector, x <= 88, within 2^-23 of it; 0 where that is below the smallest normal number; NaN for NaN."""
    rounded = x * PER_LOG_2 + ROUND
    n = rounded - ROUND
    r = x - n * LOG_2_HIGH - n * LOG_2_LOW
    series = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))))
    return choose_below(x, LOWEST, ZERO, series * power_of_two(rounded))
