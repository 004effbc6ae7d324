"""Every opcode of the table, run from PTX text, against scalar definitions that follow the PTX ISA's words.

The definitions use Python's integers, fractions and struct only. A form is one opcode with its types and modifiers:
it becomes a kernel that loads operands, executes once and stores, so that parser, type views and stores are tested too.
"""

import itertools
import math
import operator
import re
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_kernels.ptx import grid, ops
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.parse import parse

NAN, INF = math.nan, math.inf
WIDTH = {"pred": 8, "b8": 8, "u8": 8, "s8": 8, **{f"{kind}{bits}": bits for kind in "busf" for bits in (16, 32, 64)}}
REGISTER = {8: ("b16", "%rs"), 16: ("b16", "%rs"), 32: ("b32", "%r"), 64: ("b64", "%rd")}
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


# Every form


@dataclass(frozen=True)
class Form:
    opcode: str
    sources: tuple
    result: str
    definition: object
    operands: str = ""  # behind the registers, or in their place where it holds %a, %b, ...
    ulps: int = 0  # how far off an approximation may be
    legal: object = None

    @property
    def base(self):
        return self.opcode.partition(".")[0]


FORMS = []


def form(opcode, sources, result, definition, operands="", **more):
    FORMS.append(Form(opcode, tuple(sources.split()), result, definition, operands, **more))


def float_form(opcode, t, count, definition, **more):
    """With .ftz and .sat where the opcode names them."""
    mods = opcode.split(".")
    before = (lambda x: flush(x, t)) if "ftz" in mods else lambda x: x

    def whole(*values):
        result = before(definition(*map(before, values)))
        return saturate(result) if "sat" in mods else result

    form(f"{opcode}.{t}", f"{t} " * count, t, whole, **more)


def rounded(function, t):
    return lambda *values: converted(total(function, *values), t, t)


INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
for t in ("f32", "f64", "f16"):
    single = {"f32": [".ftz", ".sat", ".rn", ".rn.ftz.sat"], "f64": [".rn"], "f16": [".rn", ".sat"]}[t]
    for mods in ("", *single):
        float_form(f"add{mods}", t, 2, lambda a, b, t=t: fma(1.0, a, b, t))
        float_form(f"sub{mods}", t, 2, lambda a, b, t=t: fma(1.0, a, -b, t))
        float_form(f"mul{mods}", t, 2, lambda a, b, t=t: fma(a, b, math.copysign(0.0, math.copysign(1, a) * b), t))
        if "rn" in mods and t != "f16":
            float_form(f"fma{mods}", t, 3, lambda a, b, c, t=t: fma(a, b, c, t))
    for mods in ("", ".ftz") if t == "f32" else ("",):
        float_form(f"abs{mods}", t, 1, math.fabs)
        float_form(f"neg{mods}", t, 1, lambda x: -x)
        float_form(f"min{mods}", t, 2, lesser)
        float_form(f"max{mods}", t, 2, lambda a, b: -lesser(-a, -b))
    for name in (*ORDERED, "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"):
        form(f"setp.{name}.{t}", f"{t} {t}", "pred", lambda a, b, n=name: compare(n, a, b))
for t in ("f32", "f64"):
    for mods in (".rn", ".rn.ftz") if t == "f32" else (".rn",):
        float_form(f"div{mods}", t, 2, lambda a, b, t=t: divided(a, b, t))
        float_form(f"rcp{mods}", t, 1, lambda x, t=t: divided(1.0, x, t))
        float_form(f"sqrt{mods}", t, 1, rounded(root, t))
    form(f"copysign.{t}", f"{t} {t}", t, lambda a, b: math.copysign(b, a))
    for name, holds in {"finite": math.isfinite, "infinite": math.isinf, "number": lambda x: not math.isnan(x),
                        "notanumber": math.isnan}.items():  # fmt: skip
        form(f"testp.{name}.{t}", t, "pred", holds)
# PTX bounds most approximations at 2 ulp; NumPy's functions of fp32 promise no correct rounding either.
for name, function in {"ex2": exp2, "lg2": math.log2, "sin": math.sin, "cos": math.cos, "rsqrt": rsqrt,
                       "sqrt": root}.items():  # fmt: skip
    for mods in (".approx", ".approx.ftz"):
        float_form(f"{name}{mods}", "f32", 1, rounded(function, "f32"), ulps=2)
float_form("tanh.approx", "f32", 1, rounded(math.tanh, "f32"), ulps=2)
for mods in (".approx", ".approx.ftz"):
    float_form(f"rcp{mods}", "f32", 1, lambda x: divided(1.0, x, "f32"), ulps=2)
for mods in (".approx", ".approx.ftz", ".full", ".full.ftz"):  # beyond 2**126 PTX lets the divisor flush
    usual = lambda a, b: 2.0**-126 <= abs(b) <= 2.0**126 or b == 0  # noqa: E731
    float_form(f"div{mods}", "f32", 2, lambda a, b: divided(a, b, "f32"), ulps=2, legal=usual)
for t in INTEGERS:
    bits, wide = WIDTH[t], f"{t[0]}{2 * WIDTH[t]}"
    divides = lambda a, b: b != 0  # noqa: E731  what a division by zero gives is not specified
    form(f"add.{t}", f"{t} {t}", t, operator.add)
    form(f"sub.{t}", f"{t} {t}", t, operator.sub)
    form(f"mul.lo.{t}", f"{t} {t}", t, operator.mul)
    form(f"mul.hi.{t}", f"{t} {t}", t, lambda a, b, w=bits: a * b >> w)
    form(f"mad.lo.{t}", f"{t} {t} {t}", t, lambda a, b, c: a * b + c)
    form(f"mad.hi.{t}", f"{t} {t} {t}", t, lambda a, b, c, w=bits: (a * b >> w) + c)
    if bits < 64:
        form(f"mul.wide.{t}", f"{t} {t}", wide, operator.mul)
        form(f"mad.wide.{t}", f"{t} {t} {wide}", wide, lambda a, b, c: a * b + c)
    form(f"div.{t}", f"{t} {t}", t, quotient, legal=divides)
    form(f"rem.{t}", f"{t} {t}", t, lambda a, b: a - quotient(a, b) * b, legal=divides)
    form(f"min.{t}", f"{t} {t}", t, min)
    form(f"max.{t}", f"{t} {t}", t, max)
    form(f"shr.{t}", f"{t} u32", t, operator.rshift)
    for name in (*ORDERED, *(UNSIGNED if t[0] == "u" else ())):
        form(f"setp.{name}.{t}", f"{t} {t}", "pred", lambda a, b, n=name: compare(n, a, b))
    if t[0] == "s":
        form(f"abs.{t}", t, t, abs)
        form(f"neg.{t}", t, t, operator.neg)
    if bits > 16:
        form(f"bfe.{t}", f"{t} u32 u32", t, lambda a, s, n, w=bits, t=t: extract(a, s, n, w, signed=t[0] == "s"))
for name, function in {"add": operator.add, "sub": operator.sub}.items():
    form(f"{name}.sat.s32", "s32 s32", "s32", lambda a, b, f=function: min(max(f(a, b), -(2**31)), 2**31 - 1))
for t in ("pred", "b16", "b32", "b64"):
    form(f"and.{t}", f"{t} {t}", t, operator.and_)
    form(f"or.{t}", f"{t} {t}", t, operator.or_)
    form(f"xor.{t}", f"{t} {t}", t, operator.xor)
    form(f"not.{t}", t, t, operator.not_ if t == "pred" else operator.invert)
    if t != "pred":
        form(f"shl.{t}", f"{t} u32", t, lambda a, by, w=WIDTH[t]: a << by if by < w else 0)
        form(f"shr.{t}", f"{t} u32", t, operator.rshift)
        form(f"setp.eq.{t}", f"{t} {t}", "pred", operator.eq)
        form(f"setp.ne.{t}", f"{t} {t}", "pred", operator.ne)
for t in ("b32", "b64"):
    bits = WIDTH[t]
    form(f"popc.{t}", t, "u32", int.bit_count)
    form(f"clz.{t}", t, "u32", lambda a, w=bits: w - a.bit_length())
    form(f"brev.{t}", t, t, lambda a, w=bits: reverse(a, w))
    form(f"bfi.{t}", f"{t} {t} u32 u32", t, lambda a, b, s, n, w=bits: insert(a, b, s, n, w))
for way, mode in itertools.product("lr", ("wrap", "clamp")):
    form(f"shf.{way}.{mode}.b32", "b32 b32 u32", "b32",
         lambda a, b, c, w=way, m=mode: funnel(a, b, c, left=w == "l", wrap=m == "wrap"))  # fmt: skip
form("prmt.b32", "b32 b32 b32", "b32", permute)
for table in (0, 0x96, 0xE8, 0xCA, 0x1B, 255):
    form("lop3.b32", "b32 b32 b32", "b32", lambda a, b, c, table=table: logic3(a, b, c, table), f"%a, %b, %c, {table}")
for name, t in itertools.product(JOIN, ("s32", "f32")):
    joined = lambda a, b, p, n=name: JOIN[n](compare("lt", a, b), p)  # noqa: E731
    negated = lambda a, b, p, n=name: JOIN[n](compare("lt", a, b), not p)  # noqa: E731
    form(f"setp.lt.{name}.{t}", f"{t} {t} pred", "pred", joined)
    form(f"setp.lt.{name}.{t}", f"{t} {t} pred", "pred", negated, "%a, %b, !%c")
form("setp.le.ftz.f32", "f32 f32", "pred", lambda a, b: compare("le", flush(a), flush(b)))
for t in ("b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"):
    form(f"selp.{t}", f"{t} {t} pred", t, lambda a, b, p: a if p else b)
    form(f"mov.{t}", t, t, lambda x: x)
form("mov.pred", "pred", "pred", bool)
for space in ("to.global", "global", "to.shared", "shared"):
    form(f"cvta.{space}.u64", "u64", "u64", lambda x: x)
ALL = ("u8", "s8", *INTEGERS)
for to, source in itertools.product(ALL, ALL):
    form(f"cvt.{to}.{source}", source, to, lambda x: x)
for source, to in itertools.product(FLOATS, ALL):
    for mode in MODES if source == "f32" or to == "s32" else ("rni",):
        form(f"cvt.{mode}.{to}.{source}", source, to, lambda x, m=mode, t=to, s=source: integer_of(x, m, t, s))
    form(f"cvt.rn.{source}.{to}", to, source, lambda x, t=source: nearest(Fraction(x), t))
for mode in MODES:
    form(f"cvt.{mode}.f32.f32", "f32", "f32", lambda x, m=mode: whole_of(x, m))
    form(f"cvt.{mode}.f64.f64", "f64", "f64", lambda x, m=mode: whole_of(x, m))
    form(f"cvt.{mode}.ftz.s32.f32", "f32", "s32", lambda x, m=mode: integer_of(flush(x), m, "s32", "f32"))
for to, source in (("f32", "f64"), ("f16", "f32"), ("f16", "f64")):
    form(f"cvt.rn.{to}.{source}", source, to, lambda x, t=to, s=source: converted(x, t, s))
    form(f"cvt.{source}.{to}", to, source, lambda x: x)
form("cvt.rn.ftz.f32.f64", "f64", "f32", lambda x: flush(converted(x, "f32", "f64")))
form("cvt.sat.f32.f32", "f32", "f32", saturate)
for to, source in (("u8", "s32"), ("s16", "s32"), ("u32", "s32"), ("s32", "u32"), ("s32", "s64")):
    form(f"cvt.sat.{to}.{source}", source, to, lambda x, t=to: integer_of(Fraction(x), "rzi", t, ""))


def test_every_opcode_of_the_table_is_here():
    assert {f.base for f in FORMS} == set(ops.TABLE)


# From a form to its results


def kernel_text(registers, params, lines):
    """A kernel whose 32-bit %i is the number of the thread in the grid and whose %p0, %p1, ... are its parameters."""
    loads = "".join(f"ld.param.u64 %p{n}, [p{n}];\n" for n in range(params))
    return (
        f".visible .entry k({', '.join(f'.param .u64 p{n}' for n in range(params))})\n{{\n.reg .b32 %i;\n"
        ".reg .b32 %block;\n.reg .b32 %threads;\n.reg .b64 %at;\n.reg .b64 %p<9>;\n" + "".join(
            f".reg .{t} {name};\n" for name, t in registers) + loads +
        "mov.u32 %block, %ctaid.x;\nmov.u32 %threads, %ntid.x;\nmov.u32 %i, %tid.x;\n"
        "mad.lo.s32 %i, %block, %threads, %i;\n" + "\n".join(lines) + "\nret;\n}\n"
    )  # fmt: skip


def move(opcode, t, param, register, bytes_each):
    return [f"mul.wide.u32 %at, %i, {bytes_each};", f"add.s64 %at, %p{param}, %at;",
            f"ld.global.{t} {register}, [%at];" if opcode == "ld" else f"st.global.{t} [%at], {register};"]  # fmt: skip


def buffer(data, name="x"):
    words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), np.int32).copy()
    return Buffer(name, words, np.ones(len(words), np.uint8))


def run(text, count, buffers, **more):
    """All threads of the text's kernel, 32 per block; the bytes of the last buffer."""
    params = {f"p{n}": struct.pack("<Q", (n + 1) << 40) for n in range(len(buffers))}
    grid.launch(parse(text)["k"], (-(-count // 32),), (32,), params, buffers, **more)
    return buffers[-1].words.tobytes()


def register_type(t):
    return "pred" if t == "pred" else t if t in ("f32", "f64") else REGISTER[WIDTH[t]][0]


def text_of(f):
    registers, lines = [], []
    for n, t in enumerate(f.sources):
        name, kind = f"%{'abcd'[n]}", register_type(t)
        loaded = f"%l{n}" if t == "pred" else name
        registers += [(name, kind), *([(loaded, "b16")] if t == "pred" else [])]
        size = max(2, WIDTH[t] // 8)  # the high byte of an 8-bit operand is noise
        lines += move("ld", f"b{8 * size}", n, loaded, size)
        lines += [f"setp.ne.b16 {name}, {loaded}, 0;"] if t == "pred" else []
    named = f.operands or ", ".join(f"%{'abcd'[n]}" for n in range(len(f.sources)))
    registers += [("%d", register_type(f.result)), ("%out", "b16")]
    lines += [f"{f.opcode} %d, {named};"]
    lines += ["selp.b16 %out, 1, 0, %d;"] if f.result == "pred" else []
    size = max(2, WIDTH[f.result] // 8)
    lines += move("st", f"b{8 * size}", len(f.sources), "%out" if f.result == "pred" else "%d", size)
    return kernel_text(registers, len(f.sources) + 1, lines)


def executed(f, operands):
    """The bits that the engine gives for operands given as bits, extended to 16 as the register is."""
    operands = operands + operands[:1] * (-len(operands) % 32)
    sizes = [max(2, WIDTH[t] // 8) for t in (*f.sources, f.result)]
    columns = zip(*operands, strict=True)
    buffers = [
        buffer(b"".join((b | 0x5A00 if WIDTH[t] == 8 and t != "pred" else b).to_bytes(s, "little") for b in column))
        for column, s, t in zip(columns, sizes, f.sources, strict=False)
    ]
    data = run(text_of(f), len(operands), [*buffers, buffer(bytes(sizes[-1] * len(operands)))])
    return [int.from_bytes(data[n * sizes[-1] : (n + 1) * sizes[-1]], "little") for n in range(len(operands))]


def is_right(f, got, expected):
    t = f.result
    if t not in FLOATS:
        return got == int(expected) & (1 << max(16, WIDTH[t])) - 1
    value = decode(got, t)
    if math.isnan(expected) or math.isnan(value):
        return math.isnan(expected) and math.isnan(value)
    if f.ulps:
        along = [b if b < 1 << 31 else (1 << 31) - b for b in (got, encode(expected, t))]
        return abs(along[0] - along[1]) <= f.ulps
    return got == encode(expected, t) or ("sat" in f.opcode and value == expected == 0)  # the zero has no given sign


def check(f, drawn):
    operands = [o for o in drawn if not f.legal or f.legal(*(decode(b, t) for b, t in zip(o, f.sources, strict=True)))]
    for bits, got in zip(operands, executed(f, operands) if operands else [], strict=False):
        values = [decode(b, t) for b, t in zip(bits, f.sources, strict=True)]
        expected = f.definition(*values)
        if f.result not in FLOATS:  # a narrow result is extended by its own sign
            expected = decode(encode(expected, f.result), f.result)
        assert is_right(f, got, expected), f"{f.opcode} of {values}: {decode(got, f.result)} is not {expected}"


@pytest.mark.parametrize("f", FORMS, ids=[f"{f.opcode} {f.operands}".strip() for f in FORMS])
def test_an_opcode_means_what_the_isa_says(f):
    crossed = list(itertools.product(*map(special, f.sources)))
    check(f, crossed[:: -(-len(crossed) // 450)])

    @settings(max_examples=3)
    @given(st.lists(st.tuples(*map(bits_of, f.sources)), min_size=1, max_size=32))
    def drawn(operands):
        check(f, operands)

    drawn()


# Operands that are no registers


TYPED = ("b32", "f32", "b64", "f64")
LITERALS = {  # text, and the bits it has as each of these types, None where it may not stand
    "0": (0, None, 0, None),
    "7": (7, None, 7, None),
    "-1": (0xFFFFFFFF, None, 0xFFFFFFFFFFFFFFFF, None),
    "0x7F": (0x7F, None, 0x7F, None),
    "0XfFfFfFfF": (0xFFFFFFFF, None, 0xFFFFFFFF, None),
    "4294967295U": (0xFFFFFFFF, None, 0xFFFFFFFF, None),
    "-2147483648": (0x80000000, None, 0xFFFFFFFF80000000, None),
    "9223372036854775808": (None, None, 1 << 63, None),
    "010": (8, None, 8, None),
    "0b101": (5, None, 5, None),
    "0f3F800000": (0x3F800000, 0x3F800000, None, None),
    "0F80000000": (0x80000000, 0x80000000, None, None),
    "0fFF800000": (0xFF800000, 0xFF800000, None, None),
    "0d3FF8000000000000": (None, None, 0x3FF8000000000000, 0x3FF8000000000000),
    "0D8000000000000000": (None, None, 1 << 63, 1 << 63),
}
LITERAL_CASES = [(text, t, bits) for text, all_bits in LITERALS.items()
                 for t, bits in zip(TYPED, all_bits, strict=True) if bits is not None]  # fmt: skip


@pytest.mark.parametrize(("text", "t", "bits"), LITERAL_CASES, ids=[f"{c[0]} as {c[1]}" for c in LITERAL_CASES])
def test_literals_are_read_as_the_instructions_type(text, t, bits):
    size = WIDTH[t] // 8
    lines = [f"mov.{t} %d, {text};", *move("st", t, 0, "%d", size)]
    stored = move("st", t, 1, text, size)
    data = [buffer(bytes(32 * size)), buffer(bytes(32 * size))]
    run(kernel_text([("%d", register_type(t))], 2, lines + stored), 32, data)
    for out in data:
        assert out.words.tobytes() == bits.to_bytes(size, "little") * 32


@pytest.mark.parametrize("f", [f for f in FORMS if f.sources[-1] not in ("pred", "u8", "s8") and not f.operands],
                         ids=lambda f: f.opcode)  # fmt: skip
def test_a_literal_operand_is_as_good_as_a_register(f):
    """Also when every operand is one, so that the result is the same for all threads."""
    bits = [[b for b in special(t) if t not in FLOATS or math.isfinite(decode(b, t))][-5 - n] for n, t in
            enumerate(f.sources)]  # fmt: skip
    if "f16" in f.sources or (f.legal and not f.legal(*(decode(b, t) for b, t in zip(bits, f.sources, strict=True)))):
        return  # fp16 has no literals
    letters = {"f32": "0f{:08X}", "f64": "0d{:016X}"}
    texts = [letters.get(t, "{}").format(b if t != "pred" else 1) for b, t in zip(bits, f.sources, strict=True)]
    for literal_at in ({len(bits) - 1}, set(range(len(bits)))):
        named = [texts[n] if n in literal_at else f"%{'abcd'[n]}" for n in range(len(bits))]
        changed = Form(f.opcode, f.sources, f.result, f.definition, ", ".join(named), f.ulps)
        check(changed, [tuple(bits)])


SPECIAL = {
    "%tid.x": lambda t, b: t % 4, "%tid.y": lambda t, b: t // 4 % 3, "%tid.z": lambda t, b: t // 12,
    "%ctaid.x": lambda t, b: b % 2, "%ctaid.y": lambda t, b: b // 2 % 3, "%ctaid.z": lambda t, b: b // 6,
    "%ntid.x": lambda t, b: 4, "%ntid.y": lambda t, b: 3, "%ntid.z": lambda t, b: 5,
    "%nctaid.x": lambda t, b: 2, "%nctaid.y": lambda t, b: 3, "%nctaid.z": lambda t, b: 2,
    "%laneid": lambda t, b: t % 32, "%warpid": lambda t, b: t // 32,
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_special_registers(name):
    threads, blocks = 60, 12
    text = kernel_text([("%d", "b32"), ("%e", "b32"), ("%f", "b32")], 1, [
        "mov.u32 %d, %tid.z;", "mov.u32 %e, %tid.y;", "mad.lo.s32 %d, %d, 3, %e;", "mov.u32 %e, %tid.x;",
        "mad.lo.s32 %d, %d, 4, %e;",
        "mov.u32 %e, %ctaid.z;", "mov.u32 %f, %ctaid.y;", "mad.lo.s32 %e, %e, 3, %f;", "mov.u32 %f, %ctaid.x;",
        "mad.lo.s32 %e, %e, 2, %f;", f"mad.lo.s32 %i, %e, {threads}, %d;",
        f"mov.u32 %d, {name};", *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = buffer(bytes(4 * threads * blocks))
    grid.launch(parse(text)["k"], (2, 3, 2), (4, 3, 5), {"p0": struct.pack("<Q", 1 << 40)}, [out])
    assert out.words.tolist() == [SPECIAL[name](t, b) for b in range(blocks) for t in range(threads)]


# Predicates


def test_the_second_result_of_setp_is_the_opposite_comparison_joined_alike():
    text = kernel_text([("%a", "b32"), ("%d", "b32"), ("%e", "b32"), ("%q1", "pred"), ("%q2", "pred"),
                        ("%q3", "pred"), ("%q4", "pred"), ("%j", "pred")], 1, [
        "setp.gt.s32 %j, %i, 9;", "setp.lt.s32 %q1|%q2, %i, 16;", "setp.lt.and.s32 %q3|%q4, %i, 16, %j;",
        "selp.b32 %d, 1, 0, %q1;", "selp.b32 %e, 2, 0, %q2;", "add.s32 %d, %d, %e;",
        "selp.b32 %e, 4, 0, %q3;", "add.s32 %d, %d, %e;", "selp.b32 %e, 8, 0, %q4;", "add.s32 %d, %d, %e;",
        *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = np.frombuffer(run(text, 32, [buffer(bytes(128))]), np.int32).tolist()
    assert out == [(1 if i < 16 else 2) + 4 * (i < 16 and i > 9) + 8 * (i >= 16 and i > 9) for i in range(32)]


@pytest.mark.parametrize(("guard", "takes"), [("@%q", lambda i: i % 3 == 0), ("@!%q", lambda i: i % 3 != 0)])
def test_a_guarded_instruction_leaves_the_other_threads_as_they_are(guard, takes):
    text = kernel_text([("%a", "b32"), ("%d", "b32"), ("%q", "pred")], 2, [
        "rem.u32 %a, %i, 3;", "setp.eq.s32 %q, %a, 0;", "mov.u32 %d, %i;", *move("ld", "u32", 0, "%a", 4),
        f"{guard} add.s32 %d, %d, %a;", f"{guard} ld.global.u32 %a, [%at];", f"{guard} mul.lo.s32 %d, %d, %a;",
        *move("st", "u32", 1, "%d", 4)[:2], "st.global.u32 [%at], %i;", f"{guard} st.global.u32 [%at], %d;",
    ])  # fmt: skip
    given_ = [5 * i + 1 for i in range(64)]
    out = run(text, 64, [buffer(struct.pack("<64i", *given_)), buffer(bytes(256))])
    expected = [(i + g) * g if takes(i) else i for i, g in enumerate(given_)]
    assert np.frombuffer(out, np.int32).tolist() == expected


@pytest.mark.parametrize("guard", ["@%q", "@!%q"])
def test_a_guard_that_is_the_same_for_all_threads(guard):
    text = kernel_text([("%d", "b32"), ("%q", "pred")], 1, [
        "mov.u32 %d, 1;", "setp.eq.s32 %q, 4, 4;", f"{guard} mov.u32 %d, 2;", *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = np.frombuffer(run(text, 32, [buffer(bytes(128))]), np.int32).tolist()
    assert out == [2 if guard == "@%q" else 1] * 32


def test_moves_cut_and_join_registers():
    registers = [("%lo", "b32"), ("%hi", "b32"), ("%w", "b64"), ("%d", "b32"), ("%h1", "b16"), ("%h2", "b16")]
    text = kernel_text(registers, 1, [
        "mov.b32 %lo, 0x89abcdef;", "mov.b32 %hi, 0x01234567;", "mov.b64 %w, {%hi, %lo};", "mov.b64 {%d, %hi}, %w;",
        "mov.b32 {%h1, %h2}, %hi;", "mov.b32 %d, {%h2, %h1};", *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = np.frombuffer(run(text, 32, [buffer(bytes(128))]), np.uint32).tolist()
    assert out == [0xCDEF89AB] * 32


# What is not run


REFUSED = {
    "an unknown opcode": "frob.u32 %d, %i, %i;",
    "an unknown modifier": "add.rz.f32 %d, %d, %d;",
    "an unknown type": "add.bf16 %d, %i, %i;",
    "too few operands": "add.s32 %d, %i;",
    "a fused product of halves": "fma.rn.f16 %d, %d, %d, %d;",
    "a flush of small halves": "add.rn.ftz.f16 %d, %d, %d;",
    "an unknown load": "ld.global.L1::evict_last.u32 %d, [%at];",
    "an unknown atomic": "atom.global.inc.u32 %d, [%at], %i;",
    "local memory": "ld.local.u32 %d, [%at];",
    "constant memory": "ld.const.u32 %d, [%at];",
    "a named barrier": "bar.sync 1;",
    "a barrier of some threads": "bar.sync 0, 64;",
    "a barrier of some lanes": "bar.warp.sync 65535;",
    "a call": "call.uni foo, (%d);",
    "an unknown shuffle": "shfl.sync.left.b32 %d, %d, 1, 31, -1;",
    "an unknown vote": "vote.sync.most.pred %d, %d, -1;",
    "a parameter's address": "mov.b64 %at, p0;",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_line_of_the_ptx_and_quotes_it(line):
    text = kernel_text([("%d", "b32")], 1, [line])
    number = text.split("\n").index(line) + 1
    with pytest.raises(InputError, match=rf"^PTX line {number}: `{re.escape(line[:-1])}`: "):
        grid.compile_kernel(parse(text)["k"])
