"""Kernels whose tensors are fp16 or bf16: how these lie in memory, what is watched, expected, allowed and tried."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms import find
from ioaware.errors import InputError
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware_kernels.cases import EXTREME, denormal, huge_equal, matrix, normal, one
from ioaware_kernels.implementation import load
from ioaware_kernels.launch import GridEngine, Module, launch, plan
from ioaware_kernels.ptx import findings
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.shadow import EMPTY, FULL, OUTSIDE
from ioaware_kernels.tensors import Tensor, far_apart, interleaved, packed, padded, padded_by_eight, unpacked
from ioaware_kernels.tolerance import compare, expected
from tests.unit import ptx_kernels
from tests.unit.narrow_definitions import LAYOUTS, converted_bits, nearest_bits, value
from tests.unit.test_implementation_file import LEAST

NAMES = {"fp16": "f16", "bf16": "bf16"}  # as PTX calls them
UNIT = {"fp16": 2.0**-11, "bf16": 2.0**-8}  # half of the distance from 1 to the next number
SMALLEST = {"fp16": 2.0**-24, "bf16": 2.0**-133}
PLACEMENTS = {f.__name__: f for f in (packed, interleaved, padded, padded_by_eight, far_apart)}
SHAPES = [(1, 1, 1, 1), (2, 3, 4, 5), (3, 1, 7, 3), (2, 2, 5, 8)]
each_dtype = pytest.mark.parametrize("dtype", NAMES)
each_layout = pytest.mark.parametrize("layout", PLACEMENTS.values(), ids=PLACEMENTS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


# ------------------------------------------------------------------------------------------------ in memory
def places(tensor):
    """The byte offset of every element from the buffer's address, as a kernel computes it."""
    at = tensor.at
    return {
        (b, h, r, c): 2 * (at.first + b * at.batch + h * at.head + r * at.row + c)
        for b, h, r, c in product(*map(range, tensor.shape))
    }


def bytes_at(tensor, offset):
    position, inside = tensor.buffer.locate(np.int64(offset), 2)
    assert inside
    return tensor.buffer.words.tobytes()[int(position) : int(position) + 2]


@each_dtype
@each_layout
@each_shape
def test_an_element_is_two_bytes_where_a_kernel_looks_for_it(dtype, layout, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tensor = Tensor("x", shape, layout, dtype).fill(values)
    assert tensor.itemsize == 2
    for index, offset in places(tensor).items():
        bits = converted_bits(float(values[index]), NAMES[dtype])
        assert bytes_at(tensor, offset) == bits.to_bytes(2, "little")
        assert tensor.values[index] == value(bits, NAMES[dtype])
    assert tensor.values.dtype == np.float32
    assert tensor.is_written
    assert tensor.stray_elements() == 0


@each_dtype
@each_layout
@each_shape
def test_an_empty_tensor_is_poison_to_its_last_byte(dtype, layout, shape):
    tensor = Tensor("x", shape, layout, dtype)
    assert set(tensor.buffer.words.tobytes()) == {0xFF}
    assert np.isnan(tensor.values).all()
    assert not tensor.is_written
    elements = math.prod(shape)
    holds = Counter(tensor.buffer.holds.tolist())
    assert holds[EMPTY] == elements
    assert holds[OUTSIDE] == 2 * len(tensor.buffer.words) - elements


@pytest.mark.parametrize("columns", range(1, 6))
def test_an_odd_number_of_elements_takes_whole_words(columns):
    """The half behind it is in the buffer, so that a word that overlaps it can be loaded, but not in the tensor."""
    tensor = Tensor("x", (1, 1, 1, columns), packed, "fp16")
    assert len(tensor.buffer.words) == -(-columns // 2)
    assert tensor.buffer.holds.tolist() == [EMPTY] * columns + [OUTSIDE] * (columns % 2)
    apart = Tensor("x", (2, 1, 1, columns), far_apart, "fp16")
    assert len(apart.buffer.words) == 2 * -(-columns // 2)
    assert apart.buffer.starts.tolist() == [0, 2 * apart.at.batch]
    assert apart.buffer.sizes.tolist() == [4 * -(-columns // 2)] * 2


@each_dtype
def test_special_values_make_the_round_trip(dtype):
    t = NAMES[dtype]
    every = [value(bits, t) for bits in range(0, 1 << 16, 7)]
    tensor = Tensor("x", (1, 1, 1, len(every)), packed, dtype).fill(np.array(every, np.float32))
    for before, after in zip(every, tensor.values.ravel().tolist(), strict=True):
        assert (math.isnan(before) and math.isnan(after)) or struct.pack("f", before) == struct.pack("f", after)


@each_dtype
@each_layout
def test_written_is_every_element_and_a_stray_one_is_seen(dtype, layout):
    tensor = Tensor("x", (2, 2, 3, 5), layout, dtype)
    halves = tensor.buffer.words.view(np.int16)
    at = [int(tensor.buffer.locate(np.int64(offset), 2)[0]) // 2 for offset in places(tensor).values()]
    halves[at[:-1]] = 0
    tensor.note_written()
    assert not tensor.is_written
    halves[at[-1]] = 0
    tensor.note_written()
    assert tensor.is_written
    for n, outside in enumerate(np.flatnonzero(tensor.buffer.holds == OUTSIDE), 1):
        halves[outside] = 1
        assert tensor.stray_elements() == n


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 3, 4, 24), (3, 2, 5, 64)], ids=str)
def test_padded_by_eight_is_padded_and_everything_begins_at_16_bytes(shape):
    tensor = Tensor("x", shape, padded_by_eight, "fp16")
    batch, heads, rows, columns = shape
    offsets, holds = places(tensor), tensor.buffer.holds
    assert all(offset % 16 == 0 for (_, _, _, c), offset in offsets.items() if c % 8 == 0)
    assert len(set(offsets.values())) == len(offsets)
    assert min(offsets.values()) > 0
    assert max(offsets.values()) // 2 + 1 < len(holds)
    for b, h, r in product(range(batch), range(heads), range(rows)):
        behind = offsets[b, h, r, columns - 1] // 2
        assert (holds[behind + 1 : behind + 9] == OUTSIDE).all()  # a vector too many
    at = tensor.at
    assert len({at.row, at.head, at.batch, columns, rows * columns, heads * rows * columns}) >= 4
    assert len({at.row, at.head, at.batch}) == 3


# ------------------------------------------------------------------------------------------------ arguments
KERNEL = Module(".visible .entry k(.param .u64 p, .param .align 8 .b8 v[32]) { ret; }")


@each_layout
def test_a_pointer_is_to_the_first_element(layout):
    """Two bytes an element; strides are counted in elements."""
    tensor, other = Tensor("x", (2, 3, 4, 8), layout, "bf16"), Tensor("y", (2, 3, 4, 8), layout)
    ready = plan(KERNEL, "k", (1,), (1,), [tensor, tensor])
    at, base = tensor.at, 1 << 40
    given_ = ready.parameters(lambda t: base)
    assert given_ == {"p": struct.pack("<Q", base + 2 * at.first),
                      "v": struct.pack("<Qqqq", base + 2 * at.first, at.batch, at.head, at.row)}  # fmt: skip
    wide = plan(KERNEL, "k", (1,), (1,), [other, other]).parameters(lambda t: base)
    assert wide["p"] == struct.pack("<Q", base + 4 * at.first)


# ------------------------------------------------------------------------------------------------ watched
STATES = st.lists(st.sampled_from([EMPTY, FULL, OUTSIDE]), min_size=2, max_size=12).filter(lambda x: len(x) % 2 == 0)


def buffer(holds):
    return Buffer("x", np.zeros(len(holds) // 2, np.int32), np.array(holds, np.uint8))


@pytest.mark.parametrize("granule", [1, 2, 4])
@given(holds=STATES)
def test_a_launch_that_touches_nothing_changes_nothing(granule, holds):
    x = buffer(holds)
    x.watch(granule)
    x.unwatch()
    assert x.holds.tolist() == holds


@pytest.mark.parametrize("granule", [1, 2, 4])
@given(holds=STATES, data=st.data())
def test_an_element_is_full_where_all_of_it_is(granule, holds, data):
    """Granules are written; only what was empty can become full."""
    x = buffer(holds)
    x.watch(granule)
    written = data.draw(st.lists(st.booleans(), min_size=len(x.granules), max_size=len(x.granules)))
    x.granules[np.array(written) & (x.granules == EMPTY)] = FULL
    x.unwatch()
    for n, (before, after) in enumerate(zip(holds, x.holds.tolist(), strict=True)):
        whole = all(written[2 * n // granule : -(-(2 * n + 2) // granule)])
        touchable = granule < 4 or OUTSIDE not in holds[n // 2 * 2 : n // 2 * 2 + 2]  # else only with a finding
        assert after == (FULL if before == EMPTY and whole and touchable else before)


@pytest.mark.parametrize(("granule", "shadows"), [(1, 16), (2, 8), (4, 4)])
def test_how_many_granules_there_are(granule, shadows):
    x = buffer([FULL, EMPTY, OUTSIDE, FULL] * 2)
    x.watch(granule)
    assert len(x.granules) == len(x.shadow.writes) == shadows
    assert x.name_of(1) == ("x", granule)


STORE = {  # a type, its register, and the bytes of an access: the kernel's granule
    1: ("u8", "%h1", 1), 2: ("b16", "%h1", 2), 4: ("u32", "%r1", 4), "a vector of 16 bytes": ("v4.u32", None, 16),
}  # fmt: skip


def text(*lines):
    """A kernel whose thread n has its n-th access at %d1 and one register of ones."""
    return Module(ptx_kernels.text_of(["mov.u16 %h1, 1;", "mov.u32 %r1, 1;", *lines], 1))


def through(tensor, *lines, threads=1):
    return launch(text(*lines), "k", (1,), (threads,), [tensor], engine=GridEngine(Options(races=True)))


@each_dtype
@pytest.mark.parametrize(("t", "register", "size"), STORE.values(), ids=[str(k) for k in STORE])
def test_every_store_is_noted_in_the_elements_it_fills(dtype, t, register, size):
    """Eight elements, of which threads of one launch write the first 16 bytes less 8, those of the next the rest."""
    tensor = Tensor("x", (1, 1, 1, 16), packed, dtype)
    value_ = register or "{%r1, %r1, %r1, %r1}"
    at = [f"mul.wide.u32 %d1, %t, {size};", "add.s64 %d1, %p0, %d1;"]
    assert not len(through(tensor, *at, f"st.global.{t} [%d1], {value_};", threads=16 // size).findings)
    assert tensor.buffer.holds.tolist() == [FULL] * 8 + [EMPTY] * 8
    assert not tensor.is_written
    assert not len(through(tensor, *at, f"st.global.{t} [%d1+16], {value_};", threads=16 // size).findings)
    assert tensor.is_written


def test_half_an_element_is_not_an_element():
    tensor = Tensor("x", (1, 1, 1, 4), packed, "fp16")
    assert not len(through(tensor, "st.global.u8 [%p0], %h1;", "st.global.u8 [%p0+3], %h1;").findings)
    assert tensor.buffer.holds.tolist() == [EMPTY] * 4
    assert not len(through(tensor, "st.global.u8 [%p0+1], %h1;").findings)
    # The byte of the first launch is forgotten: what is only half written is empty again.
    assert tensor.buffer.holds.tolist() == [EMPTY] * 4


def found(result):
    return [(f.what, f.first.offset, f.times) for f in result.findings]


@each_dtype
@pytest.mark.parametrize("columns", [3, 5])
def test_an_odd_row_read_by_words(dtype, columns):
    """All words but the last belong to it; the last holds a half that is outside."""
    tensor = Tensor("x", (1, 1, 1, columns), packed, dtype).fill(np.ones((1, 1, 1, columns)))
    at = ["mul.wide.u32 %d1, %t, 4;", "add.s64 %d1, %p0, %d1;"]
    whole = through(tensor, *at, "ld.global.u32 %r2, [%d1];", threads=columns // 2)
    assert found(whole) == []
    assert tensor.is_written
    assert tensor.stray_elements() == 0
    beyond = through(tensor, *at, "ld.global.u32 %r2, [%d1];", threads=columns // 2 + 1)
    assert found(beyond) == [(findings.GUARD, 2 * (columns - 1), 1)]


def test_a_half_that_nobody_wrote_read_with_one_that_is_full():
    tensor = Tensor("x", (1, 1, 1, 4), packed, "fp16")
    tensor.buffer.holds[:3] = FULL
    result = through(tensor, "ld.global.u32 %r2, [%p0];", "ld.global.u32 %r3, [%p0+4];")
    assert found(result) == [(findings.UNINITIALISED, 4, 1)]
    result = through(tensor, "ld.global.b16 %h2, [%p0+4];", "ld.global.b16 %h3, [%p0+6];")
    assert found(result) == [(findings.UNINITIALISED, 6, 1)]


def test_neighbouring_halves_of_two_threads_do_not_race():
    tensor = Tensor("x", (1, 1, 1, 64), packed, "bf16")
    at = ["mul.wide.u32 %d1, %t, 2;", "add.s64 %d1, %p0, %d1;"]
    assert found(through(tensor, *at, "st.global.b16 [%d1], %h1;", threads=64)) == []
    assert tensor.is_written


# ------------------------------------------------------------------------------------------------ expected
def problem_of(q_len, kv_len, head_dim, dtype, **shape):
    return AttentionProblem(q_len=q_len, kv_len=kv_len, head_dim=head_dim, dtype=dtype, **shape)


def rounded(x, dtype):
    """A number of float64 as the nearest of the format, as a float."""
    return value(nearest_bits(Fraction(float(x)), NAMES[dtype]), NAMES[dtype])


def inputs_of(problem, seed=0):
    """N(0, 1), rounded to the format."""
    given_ = reference.random_inputs(replace(problem, dtype="fp32"), seed)
    to_format = np.vectorize(lambda x: rounded(x, problem.dtype), otypes=[np.float32])
    return {name: to_format(given_[name]) for name in ("Q", "K", "V", "dO")}


def by_hand(problem, x):
    """Softmax attention of one head number by number: what is multiplied or stored is rounded."""
    (n, kv, d), scale = (problem.q_len, problem.kv_len, problem.head_dim), 1 / math.sqrt(problem.head_dim)

    def r(number):
        return rounded(number, problem.dtype)

    q, do = x["Q"][0, 0].astype(float), x["dO"][0, 0].astype(float)
    k, v = x["K"][0].astype(float), x["V"][0].astype(float)
    out = {name: np.zeros(shape) for name, shape in (("O", (n, d)), ("dQ", (n, d)), ("dK", (kv, d)), ("dV", (kv, d)),
                                                     ("L", (n, 1)), ("l", (n, 1)), ("m", (n, 1)), ("P", (n, kv)))
           }  # fmt: skip
    for i in range(n):
        keys = [j for j in range(kv) if str(problem.band) == "full" or j <= i + kv - n]
        if not keys:
            out["L"][i] = out["m"][i] = -math.inf
            continue
        s = {j: scale * sum(q[i] * k[j]) for j in keys}
        m = max(s.values())
        total = sum(math.exp(s[j] - m) for j in keys)
        p = {j: math.exp(s[j] - m) / total for j in keys}
        o = [sum(r(p[j]) * v[j, c] for j in keys) for c in range(d)]
        delta = sum(do[i, c] * o[c] for c in range(d))
        out["O"][i], out["m"][i], out["l"][i], out["L"][i] = [*map(r, o)], m, total, m + math.log(total)
        for j in keys:
            ds = r(p[j] * (sum(do[i] * v[j]) - delta))
            out["P"][i, j] = p[j]
            out["dV"][j] += r(p[j]) * do[i]
            out["dQ"][i] += scale * ds * k[j]
            out["dK"][j] += scale * ds * q[i]
    return out | {name: np.vectorize(r)(out[name]) for name in ("dQ", "dK", "dV")}


@each_dtype
@pytest.mark.parametrize("shape", [(3, 4, 2, "full"), (4, 6, 5, "causal"), (5, 3, 2, "causal"), (1, 1, 1, "full")],
                         ids=str)  # fmt: skip
def test_formulas_with_roundings_in_between(dtype, shape):
    """In float64, so that the order of sums does not matter but where a rounding is at a tie."""
    *sizes, mask = shape
    problem = problem_of(*sizes, dtype, mask=mask)
    inputs = inputs_of(problem)
    to_format = np.vectorize(lambda x: rounded(x, dtype), otypes=[np.float64])
    got = reference.evaluate(problem, inputs, np.dtype(np.float64), to_format)
    for name, right in by_hand(problem, inputs).items():
        np.testing.assert_allclose(got[name].reshape(right.shape), right, rtol=1e-12, atol=0, err_msg=name)


def test_without_a_format_nothing_is_rounded():
    problem = problem_of(3, 4, 2, "fp16")
    inputs = inputs_of(problem)
    exact = reference.attention(problem, inputs)
    plain = reference.evaluate(problem, inputs, np.dtype(np.float64))
    assert all((exact[name] == plain[name]).all() for name in exact)
    assert any(rounded(x, "fp16") != x for x in exact["O"].ravel())


# ------------------------------------------------------------------------------------------------ how far off
PROGRAM = record(find("flash2").text("fwd"), problem_of(1, 1, 1, "fp32").features)


def size(terms):
    """How large a sum's partial sums get."""
    return math.sqrt(sum(t * t for t in terms)) + abs(sum(terms))


def of_roundings(problem, inputs):
    """The noise of rounding P and O to 16 bits, number by number, of one head without a mask."""
    exact, (n, kv, d) = reference.attention(problem, inputs), (problem.q_len, problem.kv_len, problem.head_dim)
    p, o, l = (exact[name][0, 0] for name in ("P", "O", "l"))
    v, u, smallest = inputs["V"][0].astype(float), UNIT[problem.dtype], SMALLEST[problem.dtype]
    return max(
        u * (2 * math.sqrt(sum((p[i, j] * v[j, c]) ** 2 for j in range(kv))) + abs(o[i, c]))
        + smallest * (size([v[j, c] / max(l[i, 0], 1.0) for j in range(kv)]) + 1)
        for i in range(n) for c in range(d)
    )  # fmt: skip


@each_dtype
@pytest.mark.parametrize("factor", [2.0**-10, 1.0, 4.0])
def test_the_tolerance_of_o_is_its_formula(dtype, factor):
    """Twice the error of the formulas in fp32 with P and O rounded, the noise of fp32, and that of the roundings."""
    problem = problem_of(7, 9, 8, dtype)
    inputs = inputs_of(problem)
    inputs["V"] *= np.float32(factor)
    exact, fp32 = reference.attention(problem, inputs)["O"], np.dtype(np.float32)
    to_format = np.vectorize(lambda x: rounded(x, dtype), otypes=[np.float32])
    plain, of_fp32 = (reference.evaluate(problem, inputs, fp32, *f)["O"] for f in ([to_format], []))
    noise_of_fp32 = tolerance_of(replace(problem, dtype="fp32"), inputs) - 2 * np.abs(exact - of_fp32).max()
    assert tolerance_of(problem, inputs) == pytest.approx(
        2 * np.abs(exact - plain).max() + noise_of_fp32 + of_roundings(problem, inputs), rel=1e-9
    )


def tolerance_of(problem, inputs):
    return expected(PROGRAM, problem, inputs)["O"].tolerance


def test_it_grows_with_the_unit_roundoff():
    """By about the ratio of the units, where all inputs are numbers of all three formats."""
    problem = problem_of(20, 30, 16, "fp32")
    given_ = reference.random_inputs(problem)
    inputs = {n: np.round(a * 16).astype(np.float32) / 16 for n, a in given_.items()}
    fp32, fp16, bf16 = (tolerance_of(replace(problem, dtype=t), inputs) for t in ("fp32", "fp16", "bf16"))
    assert 50 * fp32 < fp16
    assert 4 * fp16 < bf16 < 12 * fp16


def stored(problem, inputs, of_p, of_o):
    """O of a kernel in fp32 that rounds its weights and its output so."""
    exact = reference.attention(problem, inputs)
    p = np.vectorize(of_p, otypes=[np.float32])(exact["P"][0, 0])
    o = np.vectorize(of_o, otypes=[np.float32])(p @ inputs["V"][0])
    return unpacked(problem, o[None, None])


def eight_bits(x):
    """The nearest number of fp8_e4m3."""
    return value(nearest_bits(Fraction(float(x)), "e4m3"), "e4m3")


@each_dtype
@pytest.mark.parametrize("kv_len", [16, 100])
def test_what_a_kernel_may_do(dtype, kv_len):
    """P and O as the format has them or as they are; not one of them in 8 bits, nor both with the digits of bf16."""
    problem = problem_of(24, kv_len, 16, dtype)
    inputs = inputs_of(problem)
    allowed = expected(PROGRAM, problem, inputs)["O"]

    def is_fine(of_p, of_o):
        return compare(stored(problem, inputs, of_p, of_o), allowed).is_fine

    def narrow(x):
        return rounded(x, dtype)

    def same(x):
        return x

    assert is_fine(narrow, narrow)
    assert is_fine(same, narrow)
    assert is_fine(narrow, same)
    assert is_fine(same, same)
    assert not is_fine(eight_bits, narrow)
    assert not is_fine(narrow, eight_bits)
    assert not is_fine(eight_bits, same)
    if dtype == "fp16":
        assert not is_fine(lambda x: rounded(x, "bf16"), lambda x: rounded(x, "bf16"))


@each_dtype
def test_weights_below_the_format_may_be_lost(dtype):
    """All but one are less than half of the smallest number, so that P is rounded to zero: that is within."""
    problem = problem_of(2, 40, 4, dtype)
    below = {"fp16": 17.5, "bf16": 93.5}[dtype]
    inputs = {n: np.zeros_like(a) for n, a in inputs_of(problem).items()}
    inputs["Q"][..., 0], inputs["K"][:, 1:, 0], inputs["V"][:, 1:] = 2.0, -below, 1.0  # the first key's value is zero
    allowed = expected(PROGRAM, problem, inputs)["O"]
    assert rounded(math.exp(-below), dtype) == 0 < allowed.exact.min()
    assert compare(np.zeros_like(allowed.exact, np.float32), allowed).is_fine


# ------------------------------------------------------------------------------------------------ what is tried
FLASH2 = load("flash2")
NARROW = replace(FLASH2, dtypes=("fp16", "bf16"), aligned=8, masks=("full", "causal"))
CASES = list(matrix(NARROW))


def test_every_format_and_mask_has_the_same_cases():
    fp16, bf16 = ([str(c) for c in CASES if c.problem.dtype == t] for t in ("fp16", "bf16"))
    assert bf16 == [name.replace("fp16", "bf16") for name in fp16]
    assert len(fp16) + len(bf16) == len(CASES)
    assert {str(c.problem.band) for c in CASES} == {"full", "causal"}
    assert len({str(case) for case in CASES}) == len(CASES)
    assert all(re.search(rf"\b{case.problem.dtype}\b", str(case)) for case in CASES)


def test_every_case_is_aligned_and_can_be_solved():
    for case in CASES:
        assert NARROW.solves(case.problem)
        p = case.problem
        for rows in (p.q_len, p.kv_len):
            at = case.layout((p.batch, p.heads, rows, p.head_dim))
            assert all(2 * n % 16 == 0 for n in (at.first, at.batch, at.head, at.row, 0))


def test_the_matrix_has_what_goes_wrong():
    layouts, inputs = ({getattr(c, what) for c in CASES} for what in ("layout", "inputs"))
    assert layouts == {packed, interleaved, padded_by_eight, far_apart}
    assert inputs == {normal, *EXTREME}
    problems = [c.problem for c in CASES]
    assert any(p.q_len == 1 for p in problems)
    assert any(p.kv_len == 1 for p in problems)
    assert any(p.q_len > p.kv_len for p in problems)
    assert any(p.group > 1 for p in problems)
    assert any(p.batch > 1 for p in problems)
    assert any(p.q_len % 64 and p.kv_len % 64 for p in problems)
    assert {b["HEAD_DIM"] for b in NARROW.builds if b["HEAD_DIM"] <= 128} <= {
        NARROW.build_for(p)["HEAD_DIM"] for p in problems
    }
    assert any(p.head_dim not in (32, 64, 128) for p in problems)


def test_an_implementation_without_strides_gets_packed_tensors_only():
    assert {c.layout for c in matrix(replace(NARROW, strided=False))} == {packed}


def test_one_problem_with_and_without_gaps():
    problem = problem_of(3, 5, 8, "bf16")
    assert [(c.layout, c.inputs) for c in one(NARROW, problem)] == [(packed, normal), (padded_by_eight, normal)]
    plain = replace(NARROW, aligned=1)
    assert [c.layout for c in one(plain, problem)] == [packed, padded]


@each_dtype
def test_inputs_are_numbers_of_the_format(dtype):
    """Rounded once: they come out of a tensor as they went in."""
    for case in CASES[:: len(CASES) // 20]:
        case = case._replace(problem=replace(case.problem, dtype=dtype))
        for name, values in case.values(0).items():
            assert values.dtype == np.float32
            flat = values.reshape(1, 1, 1, -1)
            again = Tensor(name, flat.shape, packed, dtype).fill(flat).values
            np.testing.assert_array_equal(again, flat)


@each_dtype
def test_extreme_inputs_are_extreme_in_the_format(dtype):
    problem = problem_of(4, 8, 8, dtype)
    x = LAYOUTS[NAMES[dtype]]
    normal_ = 2.0 ** (1 - x.bias)
    (case,) = (c for c in CASES[: len(CASES) // 4] if c.inputs is denormal)
    v = np.abs(case._replace(problem=problem).values(0)["V"])
    assert v.max() > 0
    assert (v < normal_).mean() > 0.9
    (case,) = (c for c in CASES[: len(CASES) // 4] if c.inputs is huge_equal)
    values = case._replace(problem=problem).values(0)
    assert np.isfinite(values["Q"]).all()
    assert np.isfinite(values["K"]).all()
    scores = values["Q"][0, 0].astype(float) @ values["K"][0].T.astype(float)
    assert len(np.unique(scores)) == 1
    assert scores.max() * 2.0**-24 > 89  # half a unit in the last place of fp32 is more than exp takes


# ------------------------------------------------------------------------------------------------ what it solves
def nearest(message):
    return int(re.search(r"the nearest legal value is ([\d,]+)", message)[1].replace(",", ""))


@pytest.mark.parametrize("head_dim", [1, 7, 9, 20, 63, 129, 250, 255, 257, 260, 300])
def test_a_refused_head_dim_names_one_that_is_solved(head_dim):
    with pytest.raises(InputError) as refusal:
        NARROW.build_for(problem_of(3, 5, head_dim, "fp16"))
    assert str(refusal.value).startswith(f"head_dim={head_dim}: flash2 ")
    assert NARROW.solves(problem_of(3, 5, nearest(str(refusal.value)), "fp16"))


@pytest.mark.parametrize("head_dim", [8, 24, 64, 128, 256])
def test_multiples_are_solved(head_dim):
    assert NARROW.build_for(problem_of(3, 5, head_dim, "bf16"))["HEAD_DIM"] >= head_dim


@pytest.mark.parametrize(("dtypes", "asked", "said"), [
    (("fp16", "bf16"), "fp32", "dtype=fp32: flash2 has only fp16 and bf16; the nearest legal value is fp16"),
    (("bf16",), "fp16", "dtype=fp16: flash2 has only bf16; the nearest legal value is bf16"),
])  # fmt: skip
def test_a_format_that_it_has_not(dtypes, asked, said):
    with pytest.raises(InputError) as refusal:
        replace(NARROW, dtypes=dtypes).build_for(problem_of(3, 5, 8, asked))
    assert str(refusal.value) == said


# ------------------------------------------------------------------------------------------------ the table
REGION = 'shared = [{{ name = "a", rows = 1, columns = 2{} }}]\n'


def read(folder, keys="", region=None):
    (folder / "mine.cu").touch()
    shared = "" if region is None else REGION.format(region)
    (folder / "mine.toml").write_text(f"{keys}\n{LEAST}{shared}", encoding="utf-8")
    return load(str(folder / "mine.cu"))


def test_what_a_table_may_say_of_formats(tmp_path):
    plain = read(tmp_path)
    assert (plain.dtypes, plain.aligned) == (("fp32",), 1)
    both = read(tmp_path, 'dtypes = ["bf16", "fp16"]\naligned = 8')
    assert (both.dtypes, both.aligned) == (("bf16", "fp16"), 8)
    for text_, reads in ((', holds = "Q"', None), (', holds = "Q", reads = 3', 3),
                         (', holds = "Q", reads = "TILE_Q"', "TILE_Q")):  # fmt: skip
        assert read(tmp_path, region=text_).launches[0].shared[0].reads == reads


FORMATS_REFUSED = {
    'dtypes = "fp16"': "mine.toml: dtypes='fp16' must be a list, in [ ]",
    "dtypes = []": "mine.toml: dtypes is empty; at least one is needed",
    "dtypes = [16]": "mine.toml: dtypes=16 must be a text, in quotes",
    'dtypes = ["fp17"]': "mine.toml: dtypes 'fp17' is unknown, the nearest is 'fp16'; known: fp32, fp16, bf16",
    'dtypes = ["fp64"]': "mine.toml: dtypes 'fp64' is unknown, the nearest is 'fp16'; known: fp32, fp16, bf16",
    'dtype = ["fp16"]': "mine.toml: key 'dtype' is unknown, the nearest is 'dtypes'; known: ",
    **{f"aligned = {shown}": f"mine.toml: aligned={said}: a number of elements; the nearest legal value is 1"
       for shown, said in (("0", "0"), ("-8", "-8"), ("true", "true"), ("8.0", "8.0"), ('"8"', "'8'"))},
}  # fmt: skip


@pytest.mark.parametrize(("keys", "said"), FORMATS_REFUSED.items(), ids=FORMATS_REFUSED)
def test_a_refusal_of_formats(keys, said, tmp_path):
    with pytest.raises(InputError) as refusal:
        read(tmp_path, keys)
    assert str(refusal.value).startswith(said)


READS_REFUSED = {
    ", reads = 1": "mine.toml: launch 1: shared: reads is of a loaded tensor; 'holds' must name it",
    ', holds = "Q", reads = 0': "mine.toml: launch 1: shared: reads=0: from 1 to 10^15; the nearest legal value is 1",
    ', holds = "Q", reads = true': "mine.toml: launch 1: shared: reads=true: must be a positive integer or the name",
    ', holds = "Q", reads = "TILE"': "mine.toml: launch 1: shared: reads 'TILE' is unknown, the nearest is ",
    ', holds = "Q", read = 1': "mine.toml: launch 1: shared: key 'read' is unknown, the nearest is 'reads'; known: ",
}  # fmt: skip


@pytest.mark.parametrize(("region", "said"), READS_REFUSED.items(), ids=READS_REFUSED)
def test_a_refusal_of_reads(region, said, tmp_path):
    with pytest.raises(InputError) as refusal:
        read(tmp_path, region=region)
    assert str(refusal.value).startswith(said)
