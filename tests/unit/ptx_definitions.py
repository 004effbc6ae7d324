"""What opcodes of PTX mean: scalar definitions that follow the PTX ISA's words.

They use Python's integers, fractions and struct only.
"""

from __future__ import annotations

import math
import operator
import struct
from fractions import Fraction

from hypothesis import strategies as st

from tests.unit.ptx_kernels import WIDTH

NAN, INF = math.nan, math.inf
FLOATS = {"f16": (11, -14, 15, "e"), "f32": (24, -126, 127, "f"), "f64": (53, -1022, 1023, "d")}


# Values as bits


def decode(bits, t):
    """What bits mean: a float, a bool, or an integer with the type's sign."""
    width = WIDTH[t]
    bits &= (1 << width) - 1
    if t in FLOATS:
        return struct.unpack(FLOATS[t][3], bits.to_bytes(width // 8, "little"))[0]
    if t == "pred":
        return bool(bits)
    return bits - (1 << width) if t[0] == "s" and bits >> (width - 1) else bits


def encode(value, t):
    if t in FLOATS:
        return int.from_bytes(struct.pack(FLOATS[t][3], value), "little")
    return int(value) & ((1 << WIDTH[t]) - 1)


def special(t):
    width = WIDTH[t]
    if t == "pred":
        return [0, 1]
    if t in FLOATS:
        digits, low, high, _ = FLOATS[t]
        largest, tiny, normal = (2 - 2.0 ** (1 - digits)) * 2.0**high, 2.0 ** (low - digits + 1), 2.0**low
        values = [0.0, 1.0, 1.5, 2.5, 255.5, tiny, normal - tiny, normal, largest, INF]
        return [encode(s * x, t) for x in values for s in (1, -1)] + [encode(NAN, t)]
    ones = (1 << width) - 1
    return [0, 1, 2, 7, 31, 32, 33, ones >> 1, (ones >> 1) + 1, ones - 1, ones, 0x0123456789ABCDEF & ones]


def bits_of(t):
    whole = st.integers(0, (1 << WIDTH[t]) - 1)
    if t == "pred":
        return st.integers(0, 1)
    if t in FLOATS:
        usual = st.floats(-8, 8, width=WIDTH[t]).map(lambda x: encode(x, t))
        return st.sampled_from(special(t)) | usual | whole
    return st.sampled_from(special(t)) | st.integers(0, 70).map(lambda n: n & ((1 << WIDTH[t]) - 1)) | whole


# Rounding


def nearest(exact, t, sign=1.0):
    """The nearest number of a format, ties to even; `sign` is that of an exact zero."""
    digits, low, high, _ = FLOATS[t]
    if exact == 0:
        return math.copysign(0.0, sign)
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, low) - digits + 1)
    rounded = round(exact / quantum) * quantum
    if abs(rounded) >= Fraction(2) ** (high + 1):
        return INF if exact > 0 else -INF
    return math.copysign(float(rounded), 1 if exact > 0 else -1)


def flush(x, t="f32"):
    return math.copysign(0.0, x) if abs(x) < 2.0 ** FLOATS[t][1] else x


def saturate(x):
    return 0.0 if math.isnan(x) else min(max(x, 0.0), 1.0)


def fma(a, b, c, t):
    sign = math.copysign(1, a) * math.copysign(1, b)
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    product = Fraction(a) * Fraction(b)
    if product == 0 and c == 0:
        return math.copysign(0.0, sign) + c
    return nearest(product + Fraction(c), t)


def divided(a, b, t):
    sign = math.copysign(1, a) * math.copysign(1, b)
    if math.isnan(a) or math.isnan(b) or (a == 0 and b == 0) or (math.isinf(a) and math.isinf(b)):
        return NAN
    if math.isinf(a) or b == 0:
        return sign * INF
    return math.copysign(0.0, sign) if math.isinf(b) else nearest(Fraction(a) / Fraction(b), t, sign)


def root(x):
    return NAN if x < 0 else math.sqrt(x)  # rounding the 53-bit root again is harmless for f32 and f16


def lesser(a, b):
    """min of floats: a number rather than NaN, and -0 is less than +0."""
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min(a, b) if a != b else (a if math.copysign(1, a) < 0 else b)


def total(function, x):
    """A function of math where it raises: at poles and beyond."""
    if math.isnan(x):
        return NAN
    try:
        return function(x)
    except (ValueError, OverflowError, ZeroDivisionError):
        return {"log2": -INF if x == 0 else NAN, "exp2": INF}.get(function.__name__, NAN)


def exp2(x):
    return 2.0**x if x > -1080 else 0.0


def rsqrt(x):
    return math.copysign(INF, x) if x == 0 else (NAN if x < 0 else 1 / math.sqrt(x))


# Integers; results wrap when they are encoded


def quotient(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def extract(a, start, length, width, *, signed):
    start, length, top = start & 255, length & 255, width - 1
    sign = a >> min(start + length - 1, top) & 1 if signed and length else 0
    chosen = (a >> (start + n) & 1 if n < length and start + n <= top else sign for n in range(width))
    return sum(bit << n for n, bit in enumerate(chosen))


def insert(a, b, start, length, width):
    start, length = start & 255, length & 255
    for n in range(max(0, min(length, width - start))):
        b = b & ~(1 << (start + n)) | (a >> n & 1) << (start + n)
    return b


def reverse(a, width):
    return int(f"{a:0{width}b}"[::-1], 2)


def permute(a, b, selector):
    source = [*a.to_bytes(4, "little"), *b.to_bytes(4, "little")]
    chosen = [(source[s & 7], s & 8) for s in (selector >> 4 * n & 15 for n in range(4))]
    return int.from_bytes(bytes((255 if byte & 128 else 0) if sign else byte for byte, sign in chosen), "little")


def logic3(a, b, c, table):
    return sum((table >> (4 * (a >> n & 1) + 2 * (b >> n & 1) + (c >> n & 1)) & 1) << n for n in range(32))


def funnel(a, b, c, *, left, wrap):
    by, both = (c & 31 if wrap else min(c, 32)), b << 32 | a
    return (both << by) >> 32 if left else both >> by


ORDERED = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
           "ge": operator.ge}  # fmt: skip
UNSIGNED = {"lo": operator.lt, "ls": operator.le, "hi": operator.gt, "hs": operator.ge}
JOIN = {"and": lambda a, b: a and b, "or": lambda a, b: a or b, "xor": operator.ne}


def compare(name, a, b):
    unordered = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    if name in UNSIGNED:
        return UNSIGNED[name](a, b)
    return ORDERED[name](a, b) and not unordered if name in ORDERED else unordered or ORDERED[name[:-1]](a, b)


MODES = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def integer_of(x, mode, to, source):
    """cvt to an integer: out of range to the nearest; NaN to 0, of and to 64 bits to the highest bit alone."""
    width = WIDTH[to]
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if to[0] == "s" else (0, (1 << width) - 1)
    if math.isnan(x):
        return 1 << (width - 1) if source == "f64" or width == 64 else 0
    if math.isinf(x):
        return high if x > 0 else low
    return min(max(MODES[mode](x), low), high)


def whole_of(x, mode):
    return x if not math.isfinite(x) else math.copysign(float(integer_of(Fraction(x), mode, "s4096", "")), x)


WIDTH["s4096"] = 4096  # wide enough for every f64


def converted(value, to, source):
    if to not in FLOATS:
        return value
    return nearest(Fraction(value), to, math.copysign(1, value)) if math.isfinite(value) else value
