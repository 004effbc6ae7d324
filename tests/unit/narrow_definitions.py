"""The formats of the tensor cores: what their bits mean, and which of them is nearest, number by number.

f16, bf16 and tf32 as PTX ISA 8.2, 5.2.3 has them (IEEE 754 with fewer bits); the 8-bit ones from the OCP specification
"8-bit Floating Point", table 1. Python's integers and fractions only.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import NamedTuple

NAN, INF = math.nan, math.inf


class Layout(NamedTuple):
    """Bits of a number, behind its sign; `width` of its place in a register, where the lowest bits may mean nothing."""

    exponent: int
    fraction: int
    width: int

    @property
    def bias(self):
        return (1 << self.exponent - 1) - 1

    @property
    def unused(self):
        return self.width - 1 - self.exponent - self.fraction


LAYOUTS = {"f32": Layout(8, 23, 32), "f16": Layout(5, 10, 16), "bf16": Layout(8, 7, 16), "tf32": Layout(8, 10, 32),
           "e5m2": Layout(5, 2, 8), "e4m3": Layout(4, 3, 8)}  # fmt: skip


@cache
def value(bits, name):
    """The number that bits mean."""
    x = LAYOUTS[name]
    bits >>= x.unused
    fraction, exponent = bits & (1 << x.fraction) - 1, bits >> x.fraction & (1 << x.exponent) - 1
    sign, is_top = -1.0 if bits >> x.exponent + x.fraction else 1.0, exponent == (1 << x.exponent) - 1
    if name == "e4m3" and is_top and fraction == 7:  # all other codes of the top exponent are numbers
        return NAN
    if name != "e4m3" and is_top:
        return NAN if fraction else sign * INF
    if exponent == 0:
        return sign * math.ldexp(fraction, 1 - x.bias - x.fraction)
    return sign * math.ldexp(fraction + (1 << x.fraction), exponent - x.bias - x.fraction)


def nearest_bits(exact, name, *, ties_away=False, negative_zero=False):
    """The bits of the number nearest to a fraction; of two equally near the even one, or the larger in size."""
    x = LAYOUTS[name]
    sign = exact < 0 or (exact == 0 and negative_zero)
    size, lowest = abs(exact), 1 - x.bias
    power = size.numerator.bit_length() - size.denominator.bit_length()
    power -= size < Fraction(2) ** power  # of two, at most the size
    power = max(power, lowest) if size else lowest
    steps = size / Fraction(2) ** (power - x.fraction)
    whole = math.floor(steps + Fraction(1, 2)) if ties_away else round(steps)
    code = whole + (power - lowest << x.fraction)  # a carry moves into the exponent; a normal number has one bit more
    code = min(code, (1 << x.exponent) - 1 << x.fraction)  # beyond the largest is infinity
    return (int(sign) << x.exponent + x.fraction | code) << x.unused


def converted_bits(number, name, **more):
    """The bits of a number, also where it is infinite; None for a NaN, of which only that it is one is promised."""
    x = LAYOUTS[name]
    if math.isnan(number):
        return None
    if math.isinf(number):
        return (int(number < 0) << x.exponent + x.fraction | (1 << x.exponent) - 1 << x.fraction) << x.unused
    return nearest_bits(Fraction(number), name, **more, negative_zero=math.copysign(1, number) < 0)
