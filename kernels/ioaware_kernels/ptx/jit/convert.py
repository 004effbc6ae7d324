"""`cvt` as LLVM IR: between integers, floating point, and the formats of the tensor cores."""

from __future__ import annotations

import numpy as np

from ..ops import DTYPES, NARROWING
from .emit import FLOATS, Emitter, Vector, integer_type, width
from .registers import element, is_signed

_ROUNDING = {"rni": "roundeven", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def convert(e: Emitter, to: str, source: str, modifiers: set[str], *given: Vector) -> Vector:
    """A value of type `source` as `to`. `.ftz`, and `.sat` of floats, are the caller's."""
    if to in NARROWING:
        return _narrowed(e, to, given)
    (x,) = given
    if source == "bf16":
        wide = e.op("shl", e.cast("zext", x, "i32"), e.constant("i32", 16))
        return e.cast("bitcast", wide, "float")
    rounding = next((_ROUNDING[m] for m in sorted(modifiers & _ROUNDING.keys())), None)
    if x.type not in FLOATS:
        return _of_integer(e, to, x, signed=is_signed(source), saturating="sat" in modifiers)
    rounded = e.intrinsic(rounding, x) if rounding else x
    if element(to) in FLOATS:
        return of_float(e, rounded, element(to))
    return _to_integer(e, rounded, to, nan_is_zero=source != "f64" and width(element(to)) < 64)


# ------------------------------------------------------------------------------------------------ from integers
def _of_integer(e: Emitter, to: str, x: Vector, *, signed: bool, saturating: bool) -> Vector:
    wanted = element(to)
    if wanted in FLOATS:
        return e.cast("sitofp" if signed else "uitofp", x, wanted)
    if saturating:
        x = _clipped(e, x, to, signed=signed)
    if width(wanted) == x.bits:
        return x
    return e.cast("trunc" if width(wanted) < x.bits else "sext" if signed else "zext", x, wanted)


def _clipped(e: Emitter, x: Vector, to: str, *, signed: bool) -> Vector:
    """As the nearest number that the other type has."""
    here = np.iinfo(f"{'i' if signed else 'u'}{x.bits // 8}")
    there = np.iinfo(str(DTYPES[to]))
    sign = "s" if signed else "u"
    above = e.intrinsic(f"{sign}max", x, e.constant(x.type, max(int(here.min), int(there.min))))
    return e.intrinsic(f"{sign}min", above, e.constant(x.type, min(int(here.max), int(there.max))))


# ------------------------------------------------------------------------------------------------ from floats
def of_float(e: Emitter, x: Vector, to: str) -> Vector:
    """Between floating-point types, to nearest."""
    if x.bits < width(to):
        return e.cast("fpext", x, to)
    if (x.type, to) == ("double", "half"):
        x = _to_odd(e, x)
    return e.cast("fptrunc", x, to) if x.type != to else x


def _to_odd(e: Emitter, x: Vector) -> Vector:
    """fp64 to fp32 towards zero, the last bit 1 if anything was cut off: rounding that again is as rounding once."""
    near = e.cast("fptrunc", x, "float")
    back, one = e.cast("fpext", near, "double"), e.constant("i32", 1)
    too_far = e.compare("fcmp ogt", e.intrinsic("fabs", back), e.intrinsic("fabs", x))
    bits = e.cast("bitcast", near, "i32")
    cut = e.choose(too_far, e.op("sub", bits, one), bits)
    inexact = e.compare("fcmp one", back, x)
    return e.cast("bitcast", e.choose(inexact, e.op("or", cut, one), cut), "float")


def _to_integer(e: Emitter, x: Vector, to: str, *, nan_is_zero: bool) -> Vector:
    """An integral number; out of range as the nearest one there is."""
    x = e.cast("fpext", x, "float") if x.type == "half" else x
    wanted, limits = element(to), np.iinfo(str(DTYPES[to]))
    low, high = (_float(e, x.type, float(n)) for n in (limits.min, int(limits.max) + 1))
    inside = e.op("and", e.compare("fcmp oge", x, low), e.compare("fcmp olt", x, high))
    safe = e.choose(inside, x, _float(e, x.type, 0.0))
    whole = e.cast("fptosi" if limits.min else "fptoui", safe, wanted)
    positive = e.compare("fcmp ogt", x, _float(e, x.type, 0.0))
    beyond = e.choose(positive, e.constant(wanted, int(limits.max)), e.constant(wanted, int(limits.min)))
    of_nan = e.constant(wanted, 0 if nan_is_zero else 1 << (width(wanted) - 1))
    is_nan = e.compare("fcmp uno", x, x)
    return e.choose(is_nan, of_nan, e.choose(inside, whole, beyond))


def _float(e: Emitter, type_: str, value: float) -> Vector:
    bits = np.asarray(value, {"float": "f4", "double": "f8"}[type_])
    return e.constant(type_, int(bits.view(f"u{bits.itemsize}")))


# ------------------------------------------------------------------------------------------------ tensor cores
def _narrowed(e: Emitter, to: str, given: tuple[Vector, ...]) -> Vector:
    """fp32 to the formats of the tensor cores; two at once: the first is the upper half."""
    narrow = {"f16x2": _half, "bf16x2": _brain, "bf16": _brain, "tf32": _tensor_float}[to]
    parts = [narrow(e, x) for x in given]
    if len(parts) == 1:
        return parts[0]
    high, low = (e.cast("zext", p, "i32") for p in parts)
    return e.op("or", e.op("shl", high, e.constant("i32", 16)), low)


def _half(e: Emitter, x: Vector) -> Vector:
    return e.cast("bitcast", e.cast("fptrunc", x, "half"), "i16")


def _brain(e: Emitter, x: Vector) -> Vector:
    """Ties to even; NaN is 0x7fff."""
    bits = e.cast("bitcast", x, "i32")
    odd = e.op("and", e.op("lshr", bits, e.constant("i32", 16)), e.constant("i32", 1))
    rounded = e.op("add", e.op("add", bits, e.constant("i32", 0x7FFF)), odd)
    upper = e.cast("trunc", e.op("lshr", rounded, e.constant("i32", 16)), "i16")
    return e.choose(e.compare("fcmp uno", x, x), e.constant("i16", 0x7FFF), upper)


def _tensor_float(e: Emitter, x: Vector) -> Vector:
    """10 bits of fraction, ties away from zero; NaN is 0x7fffffff."""
    bits = e.cast("bitcast", x, integer_type(x.type))
    rounded = e.op("and", e.op("add", bits, e.constant("i32", 0x1000)), e.constant("i32", 0xFFFFE000))
    size = e.op("and", bits, e.constant("i32", 0x7FFFFFFF))
    kept = e.choose(e.compare("icmp eq", size, e.constant("i32", 0x7F800000)), bits, rounded)
    return e.choose(e.compare("icmp ugt", size, e.constant("i32", 0x7F800000)), e.constant("i32", 0x7FFFFFFF), kept)
