"""mma.sync against its definition: fragments scattered as the PTX ISA says, products and sums number by number.

PTX ISA 8.2, 9.7.13.4: `place_of_a`, `place_of_b` and `place_of_c` have the formulas of the sections "Matrix Fragments
for mma.m16n8k4", "k8", "k16" and "k32", with groupID and threadID_in_group as there.

A sum in fp64 is off by at most its terms' sizes times the unit roundoff, once for every addition: mostly too little to
matter, so that there is exactly one right result.
"""

import math
import operator
import random
import re
import struct
from typing import NamedTuple

import numpy as np
import pytest

from ioaware.errors import InputError
from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.parse import parse
from tests.unit.narrow_definitions import INF, LAYOUTS, converted_bits, value
from tests.unit.ptx_kernels import found, kernel_text, launch, load, numbers, run, store, text_of

# The definition


class Form(NamedTuple):
    """One mma: the formats of A and B, the depth, and the format of C and D."""

    a: str
    b: str
    depth: int
    c: str = "f32"

    @property
    def opcode(self):
        return f"mma.sync.aligned.m16n8k{self.depth}.row.col.{self.c}.{self.a}.{self.b}.{self.c}"

    def __str__(self):
        return f"{self.a} x {self.b} k{self.depth} {self.c}"


FORMS = [
    Form("f16", "f16", 8), Form("f16", "f16", 16), Form("f16", "f16", 8, "f16"), Form("f16", "f16", 16, "f16"),
    Form("bf16", "bf16", 8), Form("bf16", "bf16", 16), Form("tf32", "tf32", 4), Form("tf32", "tf32", 8),
    *(Form(a, b, 32, c) for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2") for c in ("f32", "f16")),
]  # fmt: skip
each_form = pytest.mark.parametrize("form", FORMS, ids=str)


def place_of_a(width, depth, lane, i):
    """(row, column) of a_i, whose elements have `width` bits."""
    group, thread = lane >> 2, lane % 4
    match width, depth:
        case 32, 4:
            return (group if i == 0 else group + 8), thread
        case 32, 8:
            return (group if i in (0, 2) else group + 8), (thread if i in (0, 1) else thread + 4)
        case 16, 8:
            return (group if i in (0, 1) else group + 8), thread * 2 + (i & 1)
        case 16, 16:
            row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
            return row, (thread * 2 + (i & 1) if i < 4 else thread * 2 + (i & 1) + 8)
        case 8, 32:
            row = group if 0 <= i < 4 or 8 <= i < 12 else group + 8
            return row, (thread * 4 + (i & 3) if i < 8 else thread * 4 + (i & 3) + 16)
    raise AssertionError


def place_of_b(width, depth, lane, i):
    """(row, column) of b_i."""
    group, thread = lane >> 2, lane % 4
    match width, depth:
        case 32, 4:
            return thread, group
        case 32, 8:
            return (thread if i == 0 else thread + 4), group
        case 16, 8:
            return thread * 2 + i, group
        case 16, 16:
            return (thread * 2 + (i & 1) if i < 2 else thread * 2 + (i & 1) + 8), group
        case 8, 32:
            return (thread * 4 + (i & 3) if i < 4 else thread * 4 + (i & 3) + 16), group
    raise AssertionError


def place_of_c(lane, i):
    """(row, column) of c_i and d_i, in every shape."""
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


def rounded(x, t):
    """The nearest number of fp32 or fp16."""
    code = {"f32": "f", "f16": "e"}[t]
    try:
        return struct.unpack(code, struct.pack(code, x))[0]
    except OverflowError:
        return math.copysign(INF, x)


def between(terms, t):
    """The lowest and the highest number that a sum in fp64, rounded once, may be; both NaN where it is not a number."""
    if not all(map(math.isfinite, terms)):
        return (sum(terms),) * 2
    exact, size = math.fsum(terms), math.fsum(map(abs, terms))
    is_exact = size * max(x.as_integer_ratio()[1] for x in terms) < 2**53  # all are multiples of a number that large
    off = 0.0 if is_exact else size * len(terms) / 2**53
    return rounded(exact - off, t), rounded(exact + off, t)


def product(form, a, b, c):
    """Per (row, column) between which numbers D may be; a, b and c are matrices of bits."""
    x, y, z = (numbers_of(matrix, t) for matrix, t in ((a, form.a), (b, form.b), (c, form.c)))
    columns = list(zip(*y, strict=True))
    return {(m, n): between([z[m][n], *map(operator.mul, x[m], columns[n])], form.c)
            for m in range(16) for n in range(8)}  # fmt: skip


def numbers_of(matrix, t):
    return [[value(bits, t) for bits in row] for row in matrix]


# The same on the engine


def packed(elements, width):
    """Elements in 32-bit registers, the first in the lowest bits."""
    each = 32 // width
    return [sum(e << width * n for n, e in enumerate(elements[r : r + each])) for r in range(0, len(elements), each)]


def unpacked(registers, width):
    return [r >> width * n & (1 << width) - 1 for r in registers for n in range(32 // width)]


def fragments(form, a, b, c):
    """Of every lane: the registers of A, B and C."""
    wide, narrow, sums = (LAYOUTS[t].width for t in (form.a, form.b, form.c))
    out = []
    for lane in range(32):
        of_a = (place_of_a(wide, form.depth, lane, i) for i in range(form.depth // 2))
        of_b = (place_of_b(narrow, form.depth, lane, i) for i in range(form.depth // 4))
        of_c = (place_of_c(lane, i) for i in range(4))
        out.append((packed([a[m][k] for m, k in of_a], wide), packed([b[k][n] for k, n in of_b], narrow),
                    packed([c[m][n] for m, n in of_c], sums)))  # fmt: skip
    return out


def named(prefix, first, count):
    return "{" + ", ".join(f"{prefix}{first + n}" for n in range(count)) + "}"


def vector(count):
    return f"v{count}.b32" if count > 1 else "b32"


def counts(form):
    """Registers of A, B and C."""
    return (form.depth * LAYOUTS[form.a].width // 64, form.depth * LAYOUTS[form.b].width // 128,
            LAYOUTS[form.c].width // 8)  # fmt: skip


def mma_lines(form, d=None):
    """The instruction: A in %r0.., B in %r4.., C in %f0.. or %r8.., D where it is told."""
    of_a, of_b, of_c = counts(form)
    a, b, c = named("%r", 0, of_a), named("%r", 4, of_b), named("%f" if form.c == "f32" else "%r", 8, of_c)
    return f"{form.opcode} {d or named('%f' if form.c == 'f32' else '%r', 16, of_c)}, {a}, {b}, {c};"


def kernel(form, lines, d=None):
    """Loads the fragments, runs the lines, stores what is in D."""
    of_a, of_b, of_c = counts(form)
    prefix = "%f" if form.c == "f32" else "%r"
    return text_of([
        *load(0, named("%r", 0, of_a), vector(of_a), 4 * of_a), *load(1, named("%r", 4, of_b), vector(of_b), 4 * of_b),
        *load(2, named(prefix, 8, of_c), vector(of_c), 4 * of_c), *lines,
        *store(3, d or named(prefix, 16, of_c), vector(of_c), 4 * of_c),
    ], 4)  # fmt: skip


def multiplied(form, problems, threads=32, lines=None, d=None):
    """(result, per warp D as {(row, column): bits}); a problem is a warp's (A, B, C), as matrices of bits."""
    lanes = [lane for problem in problems for lane in fragments(form, *problem)]
    arrays = [numbers([word for lane in lanes for word in lane[n]]) for n in range(3)]
    arrays.append(numbers([0] * len(arrays[2].words)))
    text = kernel(form, lines or [mma_lines(form, d)], d)
    result = launch(text, 32 * len(problems) // threads, threads, arrays)
    words, each = arrays[3].words.view(np.uint32).tolist(), counts(form)[2]
    out = [dict[tuple[int, int], int]() for _ in problems]
    for n in range(len(lanes)):
        for i, bits in enumerate(unpacked(words[n * each : (n + 1) * each], LAYOUTS[form.c].width)):
            out[n // 32][place_of_c(n % 32, i)] = bits
    return result, out


def check(form, problems, **more):
    result, out = multiplied(form, problems, **more)
    assert [str(f) for f in result.findings] == []
    for problem, d in zip(problems, out, strict=True):
        for place, (low, high) in product(form, *problem).items():
            got = value(d[place], form.c)
            assert low <= got <= high or (math.isnan(low) and math.isnan(got)), f"{place}: {got}, not {low} to {high}"


def matrices(form, bits):
    """A, B and C; `bits(t, row, column)` is an element."""
    shapes = ((form.a, 16, form.depth), (form.b, form.depth, 8), (form.c, 16, 8))
    return [[[bits(t, m, n) for n in range(columns)] for m in range(rows)] for t, rows, columns in shapes]


def integers(rng, low=-8, high=8):
    """Elements that every format holds, and sums that every format of C holds, in any order."""
    return lambda t, m, n: converted_bits(float(rng.randint(low, high)), t)


def any_bits(rng):
    """Finite numbers, small and large, half of them from below the normal numbers."""

    def draw(t, m, n):
        x = LAYOUTS[t]
        below = (1 << x.fraction) - 1 << x.unused | 1 << x.width - 1
        while True:
            bits = rng.getrandbits(x.width) & (below if rng.random() < 0.5 else -1)
            if math.isfinite(value(bits, t)):
                return bits

    return draw


# Values


@each_form
def test_every_element_is_where_the_isa_puts_it(form):
    """Products and sums are integers below 2^11, which fp16 still holds: any rounding would be a mistake."""
    rng = random.Random(str(form))
    small = integers(rng, -3, 3) if form.depth == 32 else integers(rng, -6, 6)
    problems = [matrices(form, small) for _ in range(4)]
    assert all(low == high for low, high in product(form, *problems[0]).values())
    check(form, problems, threads=64)


@each_form
def test_any_finite_numbers(form):
    rng = random.Random(7)
    check(form, [matrices(form, any_bits(rng)) for _ in range(2)])


@each_form
def test_infinities_and_nan(form):
    """inf - inf, 0 inf and NaN are NaN, anything else with inf is inf; rows and columns without them stay numbers."""
    rng = random.Random(3)
    usual = integers(rng)
    special = {t: [bits for bits in (converted_bits(INF, t), converted_bits(-INF, t)) if not is_number(bits, t)]
               + [nan_of(t)] for t in {form.a, form.b, form.c}}  # fmt: skip
    problems = []
    for _ in range(4):
        problem = matrices(form, usual)
        for matrix, t in zip(problem, (form.a, form.b, form.c), strict=True):
            for bits in special[t]:
                matrix[rng.randrange(len(matrix))][rng.randrange(len(matrix[0]))] = bits
        problems.append(problem)
    check(form, problems)
    outcomes = [low for problem in problems for low, _ in product(form, *problem).values()]
    assert {(math.isnan(x), math.isinf(x)) for x in outcomes} == {(True, False), (False, True), (False, False)}


def is_number(bits, t):
    return math.isfinite(value(bits, t))


def nan_of(t):
    x = LAYOUTS[t]
    bits = (1 << x.width) - 1
    assert math.isnan(value(bits, t))
    return bits


@pytest.mark.parametrize("t", ["e4m3", "e5m2"])
@pytest.mark.parametrize("side", ["A", "B"])
def test_all_codes_of_eight_bits(t, side):
    """Each alone in its row (or column), times one."""
    form, one, problems = Form(t, t, 32), converted_bits(1.0, t), []
    rows = 16 if side == "A" else 8
    for first in range(0, 256, rows):
        k = first // rows % 32
        a, b, c = matrices(form, lambda *_: 0)
        for n in range(16):
            a[n][k] = first + n if side == "A" else one
        for n in range(8):
            b[k][n] = first + n if side == "B" else one
        problems.append((a, b, c))
    check(form, problems, threads=32 * 8)


def test_the_last_13_bits_of_tf32_are_not_looked_at():
    form, rng = Form("tf32", "tf32", 8), random.Random(5)
    clean = [matrices(form, integers(rng)) for _ in range(2)]
    noisy = [[*([[bits | rng.getrandbits(13) for bits in row] for row in matrix] for matrix in p[:2]), p[2]]
             for p in clean]  # fmt: skip
    assert noisy != clean
    assert multiplied(form, noisy)[1] == multiplied(form, clean)[1]


def single(form, terms, added=0.0):
    """D[0][0] of the products of pairs of numbers."""
    problem = matrices(form, lambda *_: 0)
    for k, (x, y) in enumerate(terms):
        problem[0][0][k], problem[1][k][0] = converted_bits(x, form.a), converted_bits(y, form.b)
    problem[2][0][0] = converted_bits(added, form.c)
    _, (d,) = multiplied(form, [problem])
    return value(d[0, 0], form.c)


@pytest.mark.parametrize("form", [Form("f16", "f16", 8, "f16"), Form("e5m2", "e5m2", 32, "f16")], ids=str)
def test_halves_are_rounded_once(form):
    """1 + 2^-11 is half way between two halves; anything more must go up, also what fp32 cannot hold beside it."""
    assert single(form, [(0.25, 2.0**-9)], 1.0) == 1.0
    assert single(form, [(0.25, 2.0**-9), (2.0**-15, 2.0**-15)], 1.0) == 1 + 2.0**-10


def test_sums_of_fp32_are_rounded_once():
    """Rounding after every product would lose each of them; four are half way, and one more makes it go up."""
    form = Form("f16", "f16", 16)
    assert single(form, [(2.0**-13, 2.0**-13)] * 4, 1.0) == 1.0
    assert single(form, [(2.0**-13, 2.0**-13)] * 5, 1.0) == 1 + 2.0**-23


def test_products_of_subnormal_halves_are_not_lost():
    form = Form("f16", "f16", 8)
    assert single(form, [(2.0**-24, 2.0**-24)]) == 2.0**-48
    assert single(form, [(2.0**-24, 2.0**-24)] * 8, -(2.0**-45)) == 0.0


@pytest.mark.parametrize("form", [Form("bf16", "bf16", 8), Form("f16", "f16", 8, "f16")], ids=str)
def test_what_is_too_large_is_infinite(form):
    largest = (2 - 2.0**-7) * 2.0**127 if form.a == "bf16" else 65504.0
    assert single(form, [(largest, 1.0)], 0.0) == largest
    assert single(form, [(largest, 2.0)], 0.0) == INF
    assert single(form, [(largest, 2.0), (-largest, 1.0)], 0.0) == largest
    assert single(form, [(-largest, largest)], 0.0) == -INF


# Registers


@pytest.mark.parametrize("form", [FORMS[1], FORMS[3], FORMS[7]], ids=str)
def test_d_may_be_the_registers_of_c(form):
    rng = random.Random(2)
    d = named("%f" if form.c == "f32" else "%r", 8, counts(form)[2])
    check(form, [matrices(form, integers(rng)) for _ in range(2)], d=d)


def test_d_may_be_registers_of_a_and_b():
    """Halves, as C's registers have to be of A's type; the second overwrites itself in another order."""
    form, rng = Form("f16", "f16", 16, "f16"), random.Random(2)
    for d in ("{%r0, %r1}", "{%r3, %r2}", "{%r5, %r4}", "{%r0, %r5}"):
        check(form, [matrices(form, integers(rng))], d=d)


def test_operands_that_are_the_same_in_all_threads():
    """A is all 2, B all 3, C a literal: every element of D is 16 x 6 + 1."""
    lines = ["mov.b32 %r0, 0x40004000;", "mov.b32 %r1, 0x42004200;", "mov.f32 %f0, 0f3F800000;",
             "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r0, %r0, %r0, %r0}, {%r1, %r1},"
             " {%f0, %f0, 0f3F800000, %f0};", *store(0, "%f3", "f32")]  # fmt: skip
    assert run(lines, 3, 64) == [converted_bits(97.0, "f32")] * 192


def test_one_operand_that_is_the_same_in_all_threads():
    """A differs between lanes and blocks, B is all ones, C zero: D is the sum of a row of A."""
    lines = ["cvt.rn.f32.u32 %f0, %i;", "mov.b32 %r0, %f0;", "mov.b32 %r1, 0x3F800000;", "mov.f32 %f9, 0f00000000;",
             "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r0, %r0}, {%r1},"
             " {%f9, %f9, %f9, %f9};", *store(0, "%f4", "f32")]  # fmt: skip
    rows = [sum(range(n // 4 * 4, n // 4 * 4 + 4)) for n in range(256)]
    assert run(lines, 4, 64) == [converted_bits(float(r), "f32") for r in rows]


def test_a_product_of_products():
    """D of one is C of the next, in a loop of two."""
    form, rng = Form("bf16", "bf16", 8), random.Random(4)
    problem = matrices(form, integers(rng, -4, 4))
    lines = ["mov.u32 %r20, 0;", "$AGAIN:", mma_lines(form, named("%f", 8, 4)), "add.u32 %r20, %r20, 1;",
             "setp.lt.u32 %q1, %r20, 2;", "@%q1 bra $AGAIN;"]  # fmt: skip
    _, (d,) = multiplied(form, [problem], lines=lines, d=named("%f", 8, 4))
    a, b, c = (numbers_of(matrix, t) for matrix, t in zip(problem, ("bf16", "bf16", "f32"), strict=True))
    for (m, n), bits in d.items():
        assert value(bits, "f32") == 2 * sum(a[m][k] * b[k][n] for k in range(8)) + c[m][n]


# Warps


def whole_warp_only(lines):
    """Warp 1 of each block runs the lines."""
    return ["setp.lt.u32 %q1, %t, 32;", "@%q1 bra $END;", *lines, "$END:"]


@pytest.mark.parametrize("guarded", [False, True], ids=["a branch", "a guard"])
def test_a_warp_may_stay_away(guarded):
    form, rng = Form("f16", "f16", 8), random.Random(6)
    problems = [matrices(form, integers(rng)) for _ in range(4)]
    instruction = mma_lines(form, named("%f", 8, 4))
    lines = ["setp.ge.u32 %q2, %t, 32;", f"@%q2 {instruction}"] if guarded else whole_warp_only([instruction])
    result, out = multiplied(form, problems, threads=64, lines=lines, d=named("%f", 8, 4))
    assert not found(result)
    for n, ((a, b, c), d) in enumerate(zip(problems, out, strict=True)):
        right = product(form, a, b, c)
        for m, k in d:
            assert value(d[m, k], "f32") == (right[m, k][0] if n % 2 else value(c[m][k], "f32"))


FORM = Form("f16", "f16", 8)
DIVERGENT = {
    "a guard": (["setp.lt.u32 %q1, %t, 20;", f"@%q1 {mma_lines(FORM)}"], 64, (20, 12)),
    "a branch": (["setp.ne.u32 %q1, %t, 37;", "@!%q1 bra $END;", mma_lines(FORM), "$END:"], 64, (37, 1)),
    "40 threads": ([mma_lines(FORM)], 40, (32, 8)),
    "1 thread": ([mma_lines(FORM)], 1, (0, 1)),
}


@pytest.mark.parametrize(("lines", "threads", "expected"), DIVERGENT.values(), ids=DIVERGENT)
def test_a_lane_that_is_missing(lines, threads, expected):
    """Of a divergent warp the lanes that are absent, of a warp that is not whole those that are there."""
    arrays = [numbers([0] * threads * n * 2) for n in (2, 1, 4, 4)]
    result = launch(kernel(FORM, lines), 2, threads, arrays)
    ((what, text, block, thread, times),) = found(result)
    assert (what, block, (thread, times // 2)) == (findings.INACTIVE_LANE, 0, expected)
    assert text.endswith(mma_lines(FORM)[:-1])


# What is not run


A, B, C, D = "{%r0, %r1, %r2, %r3}", "{%r4, %r5}", "{%f0, %f1, %f2, %f3}", "{%f4, %f5, %f6, %f7}"
USUAL = f"{D}, {A}, {B}, {C};"
PAIRS = "{%r6, %r7}"
MMA = "mma.sync.aligned."
REFUSED = {
    "eight rows": f"{MMA}m8n8k4.row.col.f32.f16.f16.f32 {USUAL}",
    "a depth that f16 has not": f"{MMA}m16n8k32.row.col.f32.f16.f16.f32 {USUAL}",
    "a depth that tf32 has not": f"{MMA}m16n8k16.row.col.f32.tf32.tf32.f32 {USUAL}",
    "a depth that is no number": f"{MMA}m16n8kx.row.col.f32.f16.f16.f32 {USUAL}",
    "no shape": f"mma.sync.aligned {USUAL}",
    "s8": f"{MMA}m16n8k32.row.col.s32.s8.s8.s32 {USUAL}",
    "u4": f"{MMA}m16n8k64.row.col.s32.u4.u4.s32 {USUAL}",
    "one bit": f"{MMA}m16n8k256.row.col.s32.b1.b1.s32.and.popc {USUAL}",
    "f64": f"{MMA}m16n8k8.row.col.f64.f64.f64.f64 {USUAL}",
    "saturation": f"{MMA}m16n8k32.row.col.satfinite.s32.s8.s8.s32 {USUAL}",
    "a sparse A": f"mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {USUAL[:-1]}, %r8, 0x0;",
    "B by rows": f"{MMA}m16n8k16.row.row.f32.f16.f16.f32 {USUAL}",
    "A by columns": f"{MMA}m16n8k16.col.col.f32.f16.f16.f32 {USUAL}",
    "another C than D": f"{MMA}m16n8k16.row.col.f32.f16.f16.f16 {D}, {A}, {B}, {PAIRS};",
    "f16 and bf16": f"{MMA}m16n8k16.row.col.f32.f16.bf16.f32 {USUAL}",
    "sums of bf16 in halves": f"{MMA}m16n8k16.row.col.f16.bf16.bf16.f16 {PAIRS}, {A}, {B}, {PAIRS};",
    "sums of tf32 in halves": f"{MMA}m16n8k8.row.col.f16.tf32.tf32.f16 {PAIRS}, {A}, {B}, {PAIRS};",
    "too few registers of A": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {D}, {{%r0, %r1}}, {B}, {C};",
    "too many registers of B": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {D}, {A}, {A}, {C};",
    "too few registers of C": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {D}, {A}, {B}, {{%f0, %f1}};",
    "pairs as D of fp32": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {PAIRS}, {A}, {B}, {C};",
    "a register that is no fragment": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {D}, {A}, %r4, {C};",
    "three operands": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {D}, {A}, {B};",
    "five operands": f"{MMA}m16n8k16.row.col.f32.f16.f16.f32 {USUAL[:-1]}, %r8;",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_line_of_the_ptx_and_quotes_it(line):
    registers = [*((f"%r{n}", "b32") for n in range(9)), *((f"%f{n}", "f32") for n in range(8))]
    text = kernel_text(registers, 1, [line])
    number = text.split("\n").index(line) + 1
    with pytest.raises(InputError, match=rf"^PTX line {number}: `{re.escape(line[:-1])}`: "):
        grid.compile_kernel(parse(text)["k"])


# These tests can fail


def reordered(which, order):
    """The engine with other places for the registers of A, B or C."""
    real = grid.multiply_add

    def mutant(*fragments):
        given = list(fragments)
        given[which] = given[which][order]
        return real(*given)

    return mutant


def turned(which):
    """The elements of a register in the opposite order."""
    real = grid.multiply_add

    def mutant(*fragments):
        given = list(fragments)
        given[which] = given[which][..., ::-1]
        return real(*given)

    return mutant


def by_thread(which):
    """Lane 4 g + t taken for lane 8 t + g."""
    real, lanes = grid.multiply_add, np.arange(32).reshape(8, 4).T.ravel()

    def mutant(*fragments):
        given = list(fragments)
        given[which] = given[which][:, lanes]
        return real(*given)

    return mutant


MUTANTS = {
    "rows 8 to 15 of A are the second half of its columns": lambda: reordered(0, [0, 2, 1, 3]),
    "rows of A": lambda: reordered(0, [1, 0, 3, 2]),
    "columns of A": lambda: reordered(0, [2, 3, 0, 1]),
    "rows of B": lambda: reordered(1, [1, 0]),
    "rows of C": lambda: reordered(2, [2, 3, 0, 1]),
    "columns of C": lambda: reordered(2, [1, 0, 3, 2]),
    "halves of A": lambda: turned(0),
    "halves of B": lambda: turned(1),
    "lanes of A": lambda: by_thread(0),
    "lanes of B": lambda: by_thread(1),
    "lanes of C": lambda: by_thread(2),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_another_place_of_a_fragment_is_noticed(mutant, monkeypatch):
    form, rng = Form("f16", "f16", 16), random.Random(0)
    problem = matrices(form, integers(rng, -6, 6))
    check(form, [problem])
    monkeypatch.setattr(grid, "multiply_add", mutant())
    with pytest.raises(AssertionError):
        check(form, [problem])
