"""Single instructions of PTX: literals, special registers, predicates and guards, moves, and what is not run."""

import re
import struct

import numpy as np
import pytest

from ioaware.errors import InputError
from ioaware_kernels.ptx import grid
from ioaware_kernels.ptx.parse import parse
from tests.unit.ptx_kernels import WIDTH, array, kernel_text, move, register_type, results

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
    data = [array(bytes(32 * size)), array(bytes(32 * size))]
    results(kernel_text([("%d", register_type(t))], 2, lines + stored), 32, data)
    for out in data:
        assert out.words.tobytes() == bits.to_bytes(size, "little") * 32


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
    out = array(bytes(4 * threads * blocks))
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
    out = np.frombuffer(results(text, 32, [array(bytes(128))]), np.int32).tolist()
    assert out == [(1 if i < 16 else 2) + 4 * (i < 16 and i > 9) + 8 * (i >= 16 and i > 9) for i in range(32)]


@pytest.mark.parametrize(("guard", "takes"), [("@%q", lambda i: i % 3 == 0), ("@!%q", lambda i: i % 3 != 0)])
def test_a_guarded_instruction_leaves_the_other_threads_as_they_are(guard, takes):
    text = kernel_text([("%a", "b32"), ("%d", "b32"), ("%q", "pred")], 2, [
        "rem.u32 %a, %i, 3;", "setp.eq.s32 %q, %a, 0;", "mov.u32 %d, %i;", *move("ld", "u32", 0, "%a", 4),
        f"{guard} add.s32 %d, %d, %a;", f"{guard} ld.global.u32 %a, [%at];", f"{guard} mul.lo.s32 %d, %d, %a;",
        *move("st", "u32", 1, "%d", 4)[:2], "st.global.u32 [%at], %i;", f"{guard} st.global.u32 [%at], %d;",
    ])  # fmt: skip
    given_ = [5 * i + 1 for i in range(64)]
    out = results(text, 64, [array(struct.pack("<64i", *given_)), array(bytes(256))])
    expected = [(i + g) * g if takes(i) else i for i, g in enumerate(given_)]
    assert np.frombuffer(out, np.int32).tolist() == expected


@pytest.mark.parametrize("guard", ["@%q", "@!%q"])
def test_a_guard_that_is_the_same_for_all_threads(guard):
    text = kernel_text([("%d", "b32"), ("%q", "pred")], 1, [
        "mov.u32 %d, 1;", "setp.eq.s32 %q, 4, 4;", f"{guard} mov.u32 %d, 2;", *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = np.frombuffer(results(text, 32, [array(bytes(128))]), np.int32).tolist()
    assert out == [2 if guard == "@%q" else 1] * 32


def test_moves_cut_and_join_registers():
    registers = [("%lo", "b32"), ("%hi", "b32"), ("%w", "b64"), ("%d", "b32"), ("%h1", "b16"), ("%h2", "b16")]
    text = kernel_text(registers, 1, [
        "mov.b32 %lo, 0x89abcdef;", "mov.b32 %hi, 0x01234567;", "mov.b64 %w, {%hi, %lo};", "mov.b64 {%d, %hi}, %w;",
        "mov.b32 {%h1, %h2}, %hi;", "mov.b32 %d, {%h2, %h1};", *move("st", "u32", 0, "%d", 4),
    ])  # fmt: skip
    out = np.frombuffer(results(text, 32, [array(bytes(128))]), np.uint32).tolist()
    assert out == [0xCDEF89AB] * 32


# What is not run


REFUSED = {
    "an unknown opcode": "frob.u32 %d, %i, %i;",
    "an unknown modifier": "add.rz.f32 %d, %d, %d;",
    "an unknown type": "add.tf32 %d, %i, %i;",
    "too few operands": "add.s32 %d, %i;",
    "a fused product of halves cut at 0": "fma.rn.relu.f16 %d, %d, %d, %d;",
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
