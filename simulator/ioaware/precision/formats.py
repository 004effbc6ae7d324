"""Rounding to the number formats of GPUs, bit for bit, without leaving float32 or float64.

Every format is a set of float64 numbers: `mantissa` bits behind the leading one, down to 2^lowest, and below that
steps of 2^(lowest - mantissa). Integers are such a format too, one that has only the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import unknown

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Format:
    """A number format.

    bits       that storing a number takes
    mantissa   stored bits of the mantissa
    lowest     exponent of the least normal number
    greatest   finite number
    saturates  what is greater becomes `greatest`, as GPUs convert to 8 bits; elsewhere it becomes infinite
    ties_away  of two equally near numbers the larger in size, as cvt.rna.tf32 (PTX ISA 8.2, 9.7.9.21); else the even
    """

    name: str
    bits: int
    mantissa: int
    lowest: int
    greatest: float
    saturates: bool = False
    ties_away: bool = False


FORMATS = {
    form.name: form
    for form in (
        Format("fp64", 64, 52, -1022, 2.0**1023 * (2 - 2.0**-52)),
        Format("fp32", 32, 23, -126, 2.0**127 * (2 - 2.0**-23)),
        Format("tf32", 32, 10, -126, 2.0**127 * (2 - 2.0**-10), ties_away=True),
        Format("bf16", 16, 7, -126, 2.0**127 * (2 - 2.0**-7)),
        Format("fp16", 16, 10, -14, 65504.0),
        Format("fp8_e4m3", 8, 3, -6, 448.0, saturates=True),
        Format("fp8_e5m2", 8, 2, -14, 57344.0, saturates=True),
        Format("int8", 8, 7, 7, 127.0, saturates=True),
        Format("int4", 4, 3, 3, 7.0, saturates=True),
    )
}


def find(name: str) -> Format:
    """The format of that name. Raises InputError with the nearest name."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS, f"known: {', '.join(FORMATS)}")
    return FORMATS[name]


def rounded(x: Array, name: str) -> Array:
    """`x` to the nearest number of a format, as numbers of x's own type: float32, or float64 for all else.

    NaN stays NaN, zeros keep their sign, and integers are symmetric: -128 and -8 are not used.
    """
    form = find(name)
    x = x if x.dtype == np.float32 else np.asarray(x, np.float64)
    carrier, lowest = (23, -126) if x.dtype == np.float32 else (52, -1022)
    if form.mantissa >= carrier:
        return x
    size: Array = np.abs(x)
    out = _to_bits(size, carrier - form.mantissa, ties_away=form.ties_away)
    if form.lowest > lowest:
        normal, step = x.dtype.type(2.0**form.lowest), x.dtype.type(2.0 ** (form.lowest - form.mantissa))
        steps = np.minimum(size, normal) / step
        below_half = np.nextafter(x.dtype.type(0.5), x.dtype.type(0))  # 0.5 itself would carry the number before it
        steps = np.floor(steps + below_half) if form.ties_away else np.rint(steps, out=steps)
        np.copyto(out, steps * step, where=size < normal)
    if not size.max(initial=0) <= form.greatest:  # also NaN
        np.copyto(out, form.greatest if form.saturates else np.inf, where=out > form.greatest)
        np.copyto(out, np.nan, where=np.isnan(x))
    np.copysign(out, x, out=out)
    return out


def _to_bits(size: Array, dropped: int, *, ties_away: bool) -> Array:
    """Positive numbers without their last `dropped` bits, rounded: a carry moves into the exponent, as it should."""
    unsigned = np.uint32 if size.dtype == np.float32 else np.uint64
    bits: Array = size.view(unsigned)
    half = 1 << (dropped - 1)
    if ties_away:
        out: Array = bits + unsigned(half)
    else:
        out = (bits >> unsigned(dropped)) & unsigned(1)
        out += bits
        out += unsigned(half - 1)
    out >>= unsigned(dropped)
    out <<= unsigned(dropped)
    found: Array = out.view(size.dtype)
    return found
