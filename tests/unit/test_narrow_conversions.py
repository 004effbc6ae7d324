"""cvt between fp32 and the formats of the tensor cores, against the nearest number found with fractions.

PTX ISA 8.2, 9.7.8.21: of two inputs the first goes into the upper half; `.rn` is to nearest, ties to even, `.rna` to
nearest, ties away from zero. A NaN stays one.
"""

import math
import re
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_kernels.ptx import grid
from ioaware_kernels.ptx.parse import parse
from tests.unit.narrow_definitions import INF, LAYOUTS, converted_bits, nearest_bits, value
from tests.unit.ptx_kernels import array, kernel_text, move, results

NARROW = ("f16", "bf16", "tf32")
PAIRS = ("f16", "bf16")


def bits_of(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def between_two(t, below, part):
    """A number of fp32 that lies between the neighbours `below` and the next of a format: 0 at the lower, 1 at the
    upper one."""
    low, high = (Fraction(value(bits << LAYOUTS[t].unused, t)) for bits in (below, below + 1))
    return float(low + part * (high - low))


def special(t):
    """What rounding goes wrong at: ties and their neighbours, the largest, the smallest, zeros, infinities, NaN."""
    x = LAYOUTS[t]
    normal, top = 1 << x.fraction, ((1 << x.exponent) - 1 << x.fraction) - 1
    numbers = [0.0, 1.0, INF, 3.4e38, 1e-45, 2.0**-126, 2.0**-127]
    for below in (0, 1, 2, normal - 1, normal, normal + 1, 3 * normal + 4, 3 * normal + 5, top - 1):
        numbers += [between_two(t, below, Fraction(n, 16)) for n in (0, 7, 8, 9, 15)]
    largest = Fraction(value(top << x.unused, t))
    step = largest - Fraction(value(top - 1 << x.unused, t))
    numbers += [float(largest + part * step) for part in (0, Fraction(7, 16), Fraction(1, 2), Fraction(9, 16))
                if largest + part * step < 2**128]  # fmt: skip
    ties = [bits_of(n) + off for n in numbers if n not in (0.0, INF) for off in (-1, 0, 1)]
    return [sign << 31 | bits for bits in {*map(bits_of, numbers), *ties} for sign in (0, 1)] + [0x7FC00000, 0xFF800001]


FLOATS = st.integers(0, (1 << 32) - 1) | st.floats(-8, 8, width=32).map(bits_of)


def right(bits, t):
    """The bits of the nearest number; None for any NaN."""
    return converted_bits(value(bits, "f32"), t, ties_away=t == "tf32")


def is_right(got, bits, t):
    expected = right(bits, t)
    return math.isnan(value(got, t)) if expected is None else got == expected


def executed(opcode, columns, result="b32", source="f32"):
    """What the opcode gives for operands given as bits, a thread for each row."""
    registers = [*((f"%{'ab'[n]}", source) for n in range(len(columns))), ("%d", result)]
    each, size = int(source[1:]) // 8, int(result[1:]) // 8
    lines = [line for n in range(len(columns)) for line in move("ld", source, n, f"%{'ab'[n]}", each)]
    lines += [f"{opcode} %d, {', '.join(['%a', '%b'][: len(columns)])};", *move("st", result, len(columns), "%d", size)]
    count = -(-len(columns[0]) // 32) * 32
    arrays = [array(np.array([*c, *[0] * (count - len(c))], f"<u{each}").tobytes()) for c in columns]
    out = results(kernel_text(registers, len(columns) + 1, lines), count, [*arrays, array(bytes(size * count))])
    return np.frombuffer(out, f"<u{size}").tolist()[: len(columns[0])]


OPCODES = {"f16": ("cvt.rn.f16.f32", "b16"), "bf16": ("cvt.rn.bf16.f32", "b16"), "tf32": ("cvt.rna.tf32.f32", "b32")}


def check(t, bits):
    opcode, result = OPCODES[t]
    for given_, got in zip(bits, executed(opcode, [bits], result), strict=True):
        assert is_right(got, given_, t), f"{opcode} of {value(given_, 'f32')!r}: {got:#x}, not {right(given_, t):#x}"


@pytest.mark.parametrize("t", NARROW)
def test_one_number(t):
    check(t, special(t))


@pytest.mark.parametrize("t", NARROW)
@settings(max_examples=10)
@given(st.lists(FLOATS, min_size=1, max_size=64))
def test_any_one_number(t, bits):
    check(t, bits)


def check_pairs(t, upper, lower):
    for high, low, got in zip(upper, lower, executed(f"cvt.rn.{t}x2.f32", [upper, lower]), strict=True):
        assert is_right(got >> 16, high, t)
        assert is_right(got & 0xFFFF, low, t)


@pytest.mark.parametrize("t", PAIRS)
def test_two_numbers_the_first_above_the_second(t):
    numbers = special(t)
    check_pairs(t, numbers, numbers[7:] + numbers[:7])


@pytest.mark.parametrize("t", PAIRS)
@settings(max_examples=10)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=64))
def test_any_two_numbers(t, pairs):
    check_pairs(t, *map(list, zip(*pairs, strict=True)))


@pytest.mark.parametrize("t", PAIRS)
def test_numbers_that_are_the_same_in_all_threads(t):
    """Literals: 1.5 above -2."""
    lines = [f"cvt.rn.{t}x2.f32 %d, 0f3FC00000, 0fC0000000;", *move("st", "b32", 0, "%d", 4)]
    out = results(kernel_text([("%d", "b32")], 1, lines), 32, [array(bytes(128))])
    expected = nearest_bits(Fraction(3, 2), t) << 16 | nearest_bits(Fraction(-2), t)
    assert np.frombuffer(out, np.uint32).tolist() == [expected] * 32


def test_every_bf16_back_to_fp32():
    """All 65,536: the same bits above sixteen zeros."""
    every = list(range(1 << 16))
    for bits, got in zip(every, executed("cvt.f32.bf16", [every], "f32", "b16"), strict=True):
        number = value(bits, "bf16")
        assert math.isnan(value(got, "f32")) if math.isnan(number) else got == converted_bits(number, "f32")


@pytest.mark.parametrize("t", ["f16", "bf16"])
@settings(max_examples=10)
@given(st.data())
def test_there_and_back(t, data):
    """What a format holds comes back as it was."""
    codes = data.draw(st.lists(st.integers(0, (1 << 16) - 1), min_size=32, max_size=32))
    codes = [c for c in codes if not math.isnan(value(c, t))]
    wide = executed(f"cvt.f32.{t}", [codes], "f32", "b16")
    assert executed(OPCODES[t][0], [wide], "b16") == codes


FLUSHED = {0x00000001: 0, 0x007FFFFF: 0, 0x807FFFFF: 0x8000, 0x00800000: 0x0080, 0x3F800000: 0x3F80}


def test_ftz_makes_zeros_of_small_inputs():
    assert executed("cvt.rn.ftz.bf16.f32", [list(FLUSHED)], "b16") == list(FLUSHED.values())


# What is not run: the PTX of newer GPUs, whose arithmetic is another; the last ones are no PTX


REFUSED = [
    "cvt.rz.bf16.f32 %h, %a;", "cvt.rz.f16x2.f32 %d, %a, %a;", "cvt.rn.relu.bf16.f32 %h, %a;",
    "cvt.rn.relu.f16x2.f32 %d, %a, %a;", "cvt.rn.satfinite.tf32.f32 %d, %a;", "cvt.rn.tf32.f32 %d, %a;",
    "cvt.rz.tf32.f32 %d, %a;", "cvt.rni.bf16.bf16 %h, %h;", "cvt.rni.s32.bf16 %d, %h;",
    "cvt.rn.f16.bf16 %h, %h;", "cvt.rn.bf16.f16 %h, %h;", "cvt.rn.bf16.s32 %h, %d;", "cvt.rn.bf16.f64 %h, %e;",
    "cvt.rn.bf16x2.f32 %d, %a;", "cvt.rn.bf16.f32 %h, %a, %a;", "cvt.rn.satfinite.e4m3x2.f32 %h, %a, %a;",
    "cvt.rna.s32.f32 %d, %a;", "cvt.rna.bf16.f32 %h, %a;", "cvt.rn.sat.bf16x2.f32 %d, %a, %a;",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_a_refusal_names_the_line_of_the_ptx_and_quotes_it(line):
    text = kernel_text([("%a", "f32"), ("%d", "b32"), ("%h", "b16"), ("%e", "f64")], 1, [line])
    number = text.split("\n").index(line) + 1
    with pytest.raises(InputError, match=rf"^PTX line {number}: `{re.escape(line[:-1])}`: "):
        grid.compile_kernel(parse(text)["k"])
