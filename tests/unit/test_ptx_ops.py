"""Every opcode of the table, run from PTX text, against `ptx_definitions`.

A form is one opcode with its types and modifiers: it becomes a kernel that loads operands, executes once and stores,
so that parser, type views and stores are tested too.
"""

import itertools
import math
import operator
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware_kernels.ptx import ops
from tests.unit.ptx_definitions import (
    FLOATS,
    JOIN,
    MODES,
    ORDERED,
    UNSIGNED,
    bits_of,
    compare,
    converted,
    decode,
    divided,
    encode,
    exp2,
    extract,
    flush,
    fma,
    funnel,
    insert,
    integer_of,
    lesser,
    logic3,
    nearest,
    permute,
    quotient,
    reverse,
    root,
    rsqrt,
    saturate,
    special,
    total,
    whole_of,
)
from tests.unit.ptx_kernels import WIDTH, array, kernel_text, move, register_type, results

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
        array(b"".join((b | 0x5A00 if WIDTH[t] == 8 and t != "pred" else b).to_bytes(s, "little") for b in column))
        for column, s, t in zip(columns, sizes, f.sources, strict=False)
    ]
    data = results(text_of(f), len(operands), [*buffers, array(bytes(sizes[-1] * len(operands)))])
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
