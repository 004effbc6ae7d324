"""Every opcode of the table on the engine `jit`, against the grid: the same bits, where a definition gives bits.

The forms and their interesting operands are those of `test_ptx_ops`; all with the same operands share one kernel.
"""

import itertools
import math

import numpy as np
import pytest

from tests.unit.jit_launches import cache_in, on_both
from tests.unit.ptx_definitions import FLOATS, decode, special
from tests.unit.ptx_kernels import WIDTH, array, kernel_text, register_type
from tests.unit.test_ptx_ops import FORMS

MOST = 384  # operands of a form
# Two functions within 2 ulp of the exact result are within 4 of each other.
APART = 4
SIGNATURES = sorted({f.sources for f in FORMS})


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with cache_in(tmp_path_factory.mktemp("jit")):
        yield


def operands_of(signature):
    crossed = list(itertools.product(*map(special, signature)))
    chosen = crossed[:: -(-len(crossed) // MOST)]
    return chosen + chosen[:1] * (-len(chosen) % 32)


def at(bytes_each, first, total, base):
    """Where this thread's element of column `first` is."""
    return [f"add.s32 %o, %i, {first * total};", f"mul.wide.u32 %at, %o, {bytes_each};", f"add.s64 %at, {base}, %at;"]


def text_of(signature, forms, total):
    """Operands in the columns of array 0, results in those of array 1, 8 bytes each."""
    registers, lines = [("%o", "b32"), ("%w", "b64"), ("%out", "b16"), ("%l", "b16")], []
    for n, t in enumerate(signature):
        size, name = max(2, WIDTH[t] // 8), f"%{'abcd'[n]}"
        registers.append((name, register_type(t)))
        lines += [*at(8, n, total, "%p0"), f"ld.global.b{8 * size} {'%l' if t == 'pred' else name}, [%at];"]
        lines += [f"setp.ne.b16 {name}, %l, 0;"] if t == "pred" else []
    for n, f in enumerate(forms):
        named = f.operands or ", ".join(f"%{'abcd'[k]}" for k in range(len(signature)))
        registers.append((f"%d{n}", register_type(f.result)))
        lines += [f"{f.opcode} %d{n}, {named};", *at(8, n, total, "%p1")]
        size = max(2, WIDTH[f.result] // 8)
        lines += [f"selp.b16 %out, 1, 0, %d{n};"] if f.result == "pred" else []
        lines += [f"st.global.b{8 * size} [%at], {'%out' if f.result == 'pred' else f'%d{n}'};"]
    return kernel_text(registers, 2, lines)


def columns(operands):
    """8 bytes per operand, column by column."""
    return b"".join(b.to_bytes(8, "little") for column in zip(*operands, strict=True) for b in column)


def same(f, a, b):
    """NaN has many bit patterns, of which any may come."""
    if f.result not in FLOATS:
        return a == b
    x, y = (decode(bits, f.result) for bits in (a, b))
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    if f.base in ("ex2", "lg2", "sin", "cos", "tanh"):
        along = [n if n < 1 << 31 else (1 << 31) - n for n in (a, b)]
        return abs(along[0] - along[1]) <= APART
    return a == b or ("sat" in f.opcode and x == y == 0)  # the zero has no given sign


@pytest.mark.parametrize("signature", SIGNATURES, ids=" ".join)
def test_an_opcode_gives_what_it_gives_on_the_grid(signature):
    forms, operands = [f for f in FORMS if f.sources == signature], operands_of(signature)
    total = len(operands)
    arrays = [array(columns(operands)), array(bytes(8 * total * len(forms)))]
    by_grid, by_jit, _ = on_both(text_of(signature, forms, total), total // 32, 32, arrays)
    wanted, got = (np.frombuffer(d.memory[1], np.uint64).reshape(len(forms), total).tolist() for d in (by_grid, by_jit))
    for f, w, g in zip(forms, wanted, got, strict=True):
        for bits, a, b in zip(operands, w, g, strict=True):
            assert same(f, a, b), f"{f.opcode} of {bits}: {b:#x}, on the grid {a:#x}"


def test_a_difference_in_the_last_bit_is_seen():
    form = next(f for f in FORMS if f.opcode == "add.f32")
    assert same(form, 0x3F800000, 0x3F800000)
    assert not same(form, 0x3F800000, 0x3F800001)
    root = next(f for f in FORMS if f.opcode == "ex2.approx.f32")
    assert same(root, 0x3F800000, 0x3F800004)
    assert not same(root, 0x3F800000, 0x3F800005)
