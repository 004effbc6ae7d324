"""16-bit arithmetic, one number or two in a register, against exact rational arithmetic rounded once."""

from __future__ import annotations

from fractions import Fraction
from math import floor, inf, isfinite, isnan, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware_kernels.ptx.packed import ARITHMETIC, arithmetic

PRECISION = {"f16": (11, -14, 15), "bf16": (8, -126, 127)}  # bits of the significand; exponents of normal numbers
EXACT = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "fma": lambda a, b, c: a * b + c,
    "neg": lambda a: -a, "abs": abs, "min": min, "max": max,
}  # fmt: skip


def value(bits, format_):
    """The number that 16 bits are."""
    precision, lowest, highest = PRECISION[format_]
    fraction_bits = precision - 1
    sign, rest = (-1.0 if bits >> 15 else 1.0), bits & 0x7FFF
    exponent, fraction = rest >> fraction_bits, rest & ((1 << fraction_bits) - 1)
    if exponent == highest - lowest + 2:
        return sign * inf if fraction == 0 else float("nan")
    significand = fraction + ((1 << fraction_bits) if exponent else 0)
    return sign * significand * 2.0 ** (max(exponent, 1) + lowest - 1 - fraction_bits)


def rounded(x, format_):
    """The nearest number of the format, ties to even."""
    precision, lowest, highest = PRECISION[format_]
    if x == 0:
        return 0.0
    guess = floor(log2(abs(x.numerator)) - log2(x.denominator))
    exponent = next(e for e in (guess - 1, guess, guess + 1) if Fraction(2) ** e <= abs(x) < Fraction(2) ** (e + 1))
    unit = Fraction(2) ** (max(exponent, lowest) - precision + 1)
    nearest = round(x / unit) * unit  # Python rounds halves to even
    if abs(nearest) >= Fraction(2) ** (highest + 1):
        return inf if x > 0 else -inf
    return float(nearest)


def computed(base, type_, *registers):
    """The halves of a result, lowest first."""
    count, function = arithmetic(base, type_)
    assert count == len(registers)
    width = np.int32 if type_.endswith("x2") else np.uint16
    out = function(*(np.array(r, np.uint32 if type_.endswith("x2") else np.uint16).view(width) for r in registers))
    return [value(int(bits), type_.removesuffix("x2")) for bits in np.atleast_1d(out).view(np.uint16)]


@pytest.mark.parametrize("format_", PRECISION)
@pytest.mark.parametrize("base", ARITHMETIC)
@given(data=st.data())
def test_rounded_once(format_, base, data):
    halves = [data.draw(st.integers(0, 0xFFFF)) for _ in range(2 * ARITHMETIC[base][0])]
    numbers = [value(bits, format_) for bits in halves]
    if not all(map(isfinite, numbers)):
        return
    low, high = halves[::2], halves[1::2]
    expected = [
        rounded(EXACT[base](*(Fraction(value(bits, format_)) for bits in part)), format_) for part in (low, high)
    ]
    pairs = [a | b << 16 for a, b in zip(low, high, strict=True)]
    with np.errstate(all="ignore"):
        assert computed(base, format_ + "x2", *pairs) == expected
        assert computed(base, format_, *low) == expected[:1]


@pytest.mark.parametrize(("sign", "odd"), [(1, 3), (-1, 1)])
def test_what_a_double_cannot_hold_still_decides_a_tie(sign, odd):
    """Rounded to a double first, the third operand would be lost, and the tie go to the even number, the wrong one.

    Only bf16 reaches so far: a tie of fp16 and what decides it are never more than 53 bits apart.
    """
    a, b, c = 1 + odd * 2.0**-7, 1.5, sign * 2.0**-100
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert rounded(exact, "bf16") != rounded(Fraction(a * b + c), "bf16")
    assert computed("fma", "bf16", *(bits_of(x, "bf16") for x in (a, b, c))) == [rounded(exact, "bf16")]


def bits_of(x, format_):
    """The 16 bits of a number that the format has."""
    return next(bits for bits in range(1 << 16) if value(bits, format_) == x)


@pytest.mark.parametrize("format_", PRECISION)
def test_special_numbers(format_):
    infinity, nan, one = (bits for bits in (bits_of(inf, format_), 0x7FFF, bits_of(1.0, format_)))
    with np.errstate(all="ignore"):
        assert computed("fma", format_, infinity, one, one) == [inf]
        assert isnan(computed("fma", format_, infinity, one, infinity | 0x8000)[0])
        assert isnan(computed("add", format_, nan, one)[0])
        assert computed("max", format_, nan, one) == [1.0]


def test_a_register_for_all_lanes():
    """A uniform register meets one that differs from lane to lane."""
    _, add = arithmetic("add", "f16x2")
    ones = np.array([0x3C003C00] * 6, np.int32).reshape(2, 3)
    assert add(np.int32(0x3C004000), ones).tolist() == [[0x40004200] * 3] * 2
