"""Bugs that other attention kernels had, as they were reported: the project's kernels do not have them.

A test names the reports that it stands for by their numbers in REPORTS; those of NOT_HERE are about what the kernels do
not have. Each of MUTANTS brings a bug back by a change of the source, and is noticed; so is what test_kernel_mutants.py
plants, which has the other bugs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pytest

from ioaware import reference
from ioaware.errors import InputError
from ioaware.problem import AttentionProblem
from ioaware_kernels.cases import Case, normal
from ioaware_kernels.implementation import load, names
from ioaware_kernels.launch import GridEngine
from ioaware_kernels.ptx.analyse import defined, used
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.parse import Address, Symbol
from ioaware_kernels.run import plans, program_of, run, tensors
from ioaware_kernels.tensors import Placement, far_apart, interleaved, packed, padded
from ioaware_kernels.tolerance import compare, expected
from ioaware_kernels.verify import module_of, verify
from tests.compiler import MISSING
from tests.fitting import with_gaps

LARGEST = {"fp32": (2 - 2.0**-23) * 2.0**127, "fp16": 65504.0, "bf16": (2 - 2.0**-7) * 2.0**127}
REPORTS = {
    1: "Dao-AILab/flash-attention#1778, #2053: causal is bottom-right; more queries than keys leave empty rows",
    2: "Dao-AILab/flash-attention#648, PR#978: LSE of empty rows +inf; LSE layout wrong if heads != kv_heads",
    3: "flashinfer-ai/flashinfer#4452: LSE of empty rows is -49993.98",
    4: "Dao-AILab/flash-attention#1745, #2374: NaN in unused KV cache slots leaks, 0 * NaN",
    5: "Dao-AILab/flash-attention#1395: the tail of V is cleared, that of K is garbage",
    6: "thu-ml/SageAttention PR#376, #377: stale shared memory where kv_len is no multiple of the tile",
    9: "tile-ai/tilelang PR#2461: backward reads LSE and Delta of rows that are not there",
    10: "Dao-AILab/flash-attention PR#1500, PR#2260, #1311, #2214, #47: 32-bit offsets overflow",
    11: "Dao-AILab/flash-attention#2611: 32-bit stride times index overflows for a strided dO",
    12: "Dao-AILab/flash-attention#359: backward is wrong with one optimisation level, a hidden race",
    13: "ggml-org/llama.cpp#13430, PR#13438: two missing __syncthreads",
    15: "Dao-AILab/flash-attention#414, #429, #988, #1245: dQ differs from run to run",
    20: "pytorch/pytorch#121558, deepseek-ai/FlashMLA PR#68: a fused multiply-add in exp, the maximum is not exactly 0",
    21: "pytorch/pytorch#109517, #41508, #163997, #178251: NaN for scores of -inf and finfo.min",
    22: "pytorch/torchtitan#3235: NaN with some numbers of splits",
    23: "Dao-AILab/flash-attention#2842, vllm-project/flash-attention PR#87: an empty split writes the wrong LSE slot",
    24: "flagos-ai/FlagGems#5235: combine takes head_dim for the row stride and writes out of bounds",
    25: "pytorch/pytorch#181645, vllm-project/vllm PR#28840: LSE in base 2",
    28: "Dao-AILab/flash-attention PR#2528, PR#2553: packed GQA, causal limit and head map wrong; Dv != D",
    31: "66RING/tiny-flash-attention#12: wrong unless lengths and head_dim are powers of two",
    32: "Dao-AILab/flash-attention AI/VARLEN_PREPROCESS_TILE_BUG.md: two kernels disagree on padded offsets",
    33: "Dao-AILab/flash-attention#2372: loss of precision from one version to the next",
}
NOT_HERE = {
    "windows": (7, 16, 17, 18, 19),  # vllm PR#53628, flash-attention#1133, #895, #2199, transformers#39408, zml PR#763
    "pages": (8, 29, 30),  # flashinfer PR#945, #4347, flash-attention#2709, PR#2711
    "softcap": (26,),  # sglang#33915
    "biases": (27,),  # flash-attention#907, vllm PR#945, keras-hub PR#2862, attention-gym PR#86
    "overlapping launches": (14,),  # flash-attention PR#2481
    "wgmma": (34,),  # cutlass#1840, #2452; what the assembler says is read by .ci/machine_code.py
}
TESTED: set[int] = set()


def reports(*numbers):
    """Says which reports a test stands for."""

    def noted(test):
        TESTED.update(numbers)
        return test

    return noted


def test_every_report_is_tested_or_excused():
    assert sorted([*REPORTS, *(number for some in NOT_HERE.values() for number in some)]) == [*range(1, 35)]
    assert {*REPORTS} == TESTED
    assert {number for mutant in MUTANTS.values() for number in mutant.reports} <= TESTED


# ------------------------------------------------------------------------------------------------ what is run
KERNELS = names()
ALIGNED = [kernel for kernel in KERNELS if load(kernel).aligned > 1]
FORWARD, BACKWARD = ([kernel for kernel in KERNELS if load(kernel).direction == way] for way in ("fwd", "bwd"))
WITH_L = [kernel for kernel in FORWARD if any("L" in launch.parameters for launch in load(kernel).launches)]


def case_of(kernel, q_len, kv_len, mask="full", inputs=normal, layout=packed, **shape):
    implementation = load(kernel)
    shape = {"head_dim": 8, "direction": implementation.direction, "dtype": implementation.dtypes[0], **shape}
    layout = with_gaps(implementation) if layout is padded else layout
    return Case(AttentionProblem(q_len=q_len, kv_len=kv_len, mask=mask, **shape), inputs, layout)


def cases(*lengths, only=KERNELS, masks=("full", "causal"), **what):
    """Kernels and cases: every kernel with every dtype, mask and (q_len, kv_len), as far as it solves the problem."""
    every = [
        (kernel, case_of(kernel, *length, mask, dtype=dtype, **what))
        for kernel in only for dtype in load(kernel).dtypes for mask in masks for length in lengths
    ]  # fmt: skip
    return [(kernel, case) for kernel, case in every if load(kernel).solves(case.problem)]


def each(*lengths, **what):
    return pytest.mark.parametrize(("kernel", "case"), cases(*lengths, **what), ids=str)


def fine(kernel, case):
    report = verify(load(kernel), case)
    assert report.is_fine, report.problems


def launched(implementation, problem, inputs=None, layout=packed, options=None):
    inputs = inputs or Case(problem).values(0)
    given = {**reference.attention(problem, inputs), **inputs}
    module = module_of(implementation, Case(problem))
    return run(implementation, module, problem, given, layout, GridEngine(options or Options()))


def outputs(kernel, *what, **more):
    """The outputs of a kernel, (batch, heads, rows, columns)."""
    return launched(load(kernel), *what, **more).outputs


@reports(1, 3)
@each((7, 3), (16, 1), (5, 4), (2, 40), masks=["causal"], only=WITH_L)
def test_causal_is_bottom_right_and_empty_rows_are_zero(kernel, case):
    fine(kernel, case)
    problem, inputs = case.problem, case.values(0)
    got, empty = outputs(kernel, problem, inputs), max(problem.q_len - problem.kv_len, 0)
    assert not got["O"][:, :, :empty].any()
    assert (got["L"][:, :, :empty] == -np.inf).all()
    if empty:
        np.testing.assert_allclose(got["O"][0, 0, empty], inputs["V"][0, 0], rtol=1e-6)  # it sees the first key alone


@reports(1, 3, 21)
@each((40, 5), masks=["causal"], only=BACKWARD)
def test_empty_rows_have_no_gradient_and_give_none(kernel, case):
    inputs = normal(case.problem, 0)
    got = outputs(kernel, case.problem, inputs)
    assert not got["dQ"][:, :, :35].any()
    inputs["Q"][:, :, :35] = inputs["dO"][:, :, :35] = 1e6
    again = outputs(kernel, case.problem, inputs)
    assert again["dK"].tobytes() == got["dK"].tobytes()
    assert again["dV"].tobytes() == got["dV"].tobytes()


@reports(2, 25)
@each((2, 37), only=WITH_L, masks=["full"], batch=2, heads=6, kv_heads=2, head_dim=16)  # its root is in every dtype
def test_l_is_the_natural_logarithm_of_each_query_heads_own_sum(kernel, case):
    """All scores of query head h are h, so its L is h + ln(kv_len)."""
    inputs = normal(case.problem, 0)
    inputs["Q"][..., 1:], inputs["Q"][..., 0] = 0.0, np.arange(6.0).reshape(2, 3, 1)
    inputs["K"][..., 0] = sqrt(case.problem.head_dim)
    for layout in (packed, interleaved):
        got = outputs(kernel, case.problem, inputs, layout)["L"]
        np.testing.assert_allclose(got, np.tile(np.arange(6.0).reshape(1, 6, 1, 1) + log(37), (2, 1, 2, 1)), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ ends of matrices
def cache(shape, number=0):
    """A view of a larger buffer full of NaN: each head has room for 40 more rows."""
    b, h, r, c = shape
    return Placement(0, h * (r + 40) * c, (r + 40) * c, c, b * h * (r + 40) * c)


@reports(4, 5, 9, 32)
@each((5, 33), (1, 13), layout=cache, batch=2, heads=2)
def test_nan_in_unused_slots_of_a_cache_never_leaks(kernel, case):
    fine(kernel, case)
    want = outputs(kernel, case.problem)
    for name, got in outputs(kernel, case.problem, layout=cache).items():
        assert got.tobytes() == want[name].tobytes()


# ------------------------------------------------------------------------------------------------ 32-bit offsets
def with_far_rows(implementation, problem):
    """(findings, whether the values are right) with rows about 2^29 elements apart: columns alone fit into 32 bits.

    No two tensors have the same strides, as they have in the layouts of `verify`.
    """
    inputs = Case(problem).values(0)
    given = {**reference.attention(problem, inputs), **inputs}
    placed = tensors(implementation, problem, given)
    for n, tensor in enumerate(placed.values()):
        (b, h, r, c), memory, row = tensor.shape, tensor.buffer, (1 << 29) + 8 * n
        tensor.at, size = Placement(0, h * r * row, r * row, row, c), tensor.itemsize
        starts = [size * row * i for i in range(b * h * r)]
        tensor.buffer = Buffer(tensor.name, memory.words, memory.holds, starts, [size * c] * len(starts))
    found = []
    for ready in plans(implementation, module_of(implementation, Case(problem)), problem, placed):
        found += GridEngine(Options(races=True))(ready).findings
    want = expected(program_of(implementation, problem), problem, inputs)
    return found, all(compare(placed[n].values, want[n]).is_fine for n in placed.keys() & want.keys())


def narrowed(kernel):
    """Instructions of a kernel that make fewer than 64 bits of a stride, or of what is computed from one."""
    views = {p.name for p in kernel.params if p.size == 32}
    wide, before = set(), None
    while wide != before:
        before = set(wide)
        for i in kernel.instructions():
            sources = [o.base.name for o in i.operands[1:] if isinstance(o, Address) and isinstance(o.base, Symbol)]
            if views & {*sources} if i.base == "ld" else wide & {*used(i)}:
                wide |= {*defined(i)}
    return [i for i in kernel.instructions() if any(n in wide and kernel.type_of(n)[1:] != "64" for n in defined(i))]


FAR = {"batch": 2, "heads": 2}


@reports(10, 11)
@pytest.mark.parametrize(
    ("kernel", "case"),
    cases((9, 11), head_dim=5, **FAR) + cases((9, 11), head_dim=8, only=ALIGNED, **FAR),
    ids=str,
)
def test_offsets_do_not_overflow_32_bits(kernel, case):
    assert with_far_rows(load(kernel), case.problem) == ([], True)


@reports(10, 11)
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_stride_is_ever_less_than_64_bits(kernel):
    implementation = load(kernel)
    for build, dtype in product(implementation.builds, implementation.dtypes):
        case = case_of(kernel, 1, 1, implementation.masks[0], head_dim=build["HEAD_DIM"], dtype=dtype)
        module = module_of(implementation, case)
        assert [i.text for k in module.kernels.values() for i in narrowed(k)] == []


@reports(12, 13, 15)
@each((70, 70), (3, 300), heads=2, kv_heads=1)
def test_no_race_and_the_same_bits_in_another_order(kernel, case):
    first = launched(load(kernel), case.problem, options=Options(races=True))
    assert first.findings == []
    second = outputs(kernel, case.problem, options=Options(reverse=True))
    changed = {n for n in second if second[n].tobytes() != first.outputs[n].tobytes()}
    assert changed <= ({"dQ"} if kernel == "flash2_backward" else set())


# ------------------------------------------------------------------------------------------------ extreme scores
def equal_and_huge(problem, seed):
    """All scores 133120^2 sqrt(d): scale times them is inexact, and a fused multiply-add would keep the rest."""
    x = normal(problem, seed)
    x["Q"][...] = x["K"][...] = min(133_120.0, LARGEST[problem.dtype])
    return x


def lowest(every):
    """Some keys have the lowest finite score, as an additive mask makes it; the first of them always."""

    def inputs(problem, seed):
        x = normal(problem, seed)
        x["Q"][..., 0], x["K"][..., 0] = 1.0, 0.0
        x["K"][:, ::every, 0] = -LARGEST[problem.dtype]
        return x

    inputs.__name__ = f"one in {every} at the lowest"
    return inputs


@reports(22, 23)
@each((3, 257), (3, 258), (16, 8), only=["split_kv"], masks=["causal"])
def test_a_split_of_which_a_row_sees_nothing(kernel, case):
    fine(kernel, case)
    q_len, kv_len = case.problem.q_len, case.problem.kv_len
    placed = launched(load(kernel), case.problem).tensors
    split, query = np.divmod(np.arange(q_len * -(-kv_len // 256)), q_len)
    sees = query + kv_len - q_len >= 256 * split
    np.testing.assert_array_equal(placed["L_part"].values[0, 0, :, 0] != -np.inf, sees)
    np.testing.assert_array_equal(placed["O_part"].values[0, 0].any(axis=1), sees)


def between_guards(shape, number=0):
    """Contiguous as batch, rows, heads, columns, with a guard zone of one vector around each sequence."""
    b, h, r, c = shape
    return Placement(8, r * h * c + 8, c, h * c, 8 + b * (r * h * c + 8))


@reports(28)
@pytest.mark.parametrize("kernel", KERNELS)
def test_values_of_another_width_are_refused(kernel):
    with pytest.raises(InputError, match="value_dim"):
        load(kernel).build_for(case_of(kernel, 2, 2, load(kernel).masks[0], value_dim=4).problem)


RIGHT = {
    "ragged ends": ((5, 6, 9, 31), cases((5, 9), (33, 12), (12, 31), (5, 503), head_dim=7, layout=padded)),
    "ragged ends of vectors": ((5, 6, 31), cases((5, 9), (65, 12), (12, 63), (5, 503), head_dim=24, layout=padded,
                                                 only=ALIGNED)),
    "flash-attention's lengths": ((31,), cases((1, 239), (239, 3), (3, 799), (113, 128))),
    **{f"head_dim {d}": ((31,), cases((3, 19), head_dim=d, layout=padded))
       for d in (1, 32, 40, 59, 64, 80, 96, 111, 128, 160, 192, 224, 256)},
    "equal and huge scores": ((20,), cases((5, 70), inputs=equal_and_huge, head_dim=20, only=FORWARD)
                              + cases((5, 140), inputs=equal_and_huge, head_dim=24, only=ALIGNED)),
    "the lowest number": ((20, 21), cases((5, 70), inputs=lowest(3)) + cases((5, 70), inputs=lowest(1), only=FORWARD)),
    "precision": ((33,), cases((16, 64), head_dim=64)),
    "splits": ((22,), cases(*((2, n) for n in (1, 255, 256, 257, 511, 512, 513, 8193)), only=["split_kv"])),
    "heads between rows": ((24,), cases((5, 33), batch=2, heads=3, layout=between_guards)),
    "splits between rows": ((24,), cases((4, 300), batch=2, heads=3, layout=between_guards, only=["split_kv"])),
    **{f"group of {g}": ((2, 28), cases((2, 33), heads=2 * g, kv_heads=2, batch=2)) for g in (1, 2, 3, 8)},
}  # fmt: skip


@reports(*(number for numbers, _ in RIGHT.values() for number in numbers))
@pytest.mark.parametrize(
    ("kernel", "case"),
    [pytest.param(*c, id=f"{name}-{c[0]}-{c[1]}") for name, (_, some) in RIGHT.items() for c in some],
)
def test_the_kernel_is_right_where_others_were_not(kernel, case):
    fine(kernel, case)


# ------------------------------------------------------------------------------------------------ the bugs, put back
class Mutant(NamedTuple):
    """A kernel with a bug: the text that changes, a case, and the checks of `verify` that must notice."""

    reports: tuple[int, ...]
    kernel: str
    changes: dict[str, str]
    case: dict[str, object]
    noticed: set[str]


COPY = 'asm volatile("cp.async.cg'
K_WITHOUT_ZEROS = """\
for (int n = 0; n < TILE_KV; n += THREADS / (HEAD_DIM / 8)) {
            const int i = n + threadIdx.x / (HEAD_DIM / 8), c = threadIdx.x % (HEAD_DIM / 8);
            if (first_kv + i < kv_len)
                cp_async(sK + stage + swizzled(i, c), k_rows + (first_kv + i) * K.row + 8 * c, 8 * c < head_dim);
        }"""
LOAD = "first + i < length && c < columns ? rows[(first + i) * stride + c] : 0.0f"
SHIFT, INFINITE = {"m_new == MINUS_INFINITY ? 0.0f : m_new": "m_new"}, "__int_as_float(0xff800000)"
EMPTY_ROWS = {"q_len": 9, "kv_len": 5, "mask": "causal"}
EMPTY_SPLIT = {"q_len": 3, "kv_len": 257, "mask": "causal"}

MUTANTS = {
    "finite -inf": Mutant((3,), "flash2_causal", {INFINITE: "-49993.98f", **SHIFT}, EMPTY_ROWS, {"values"}),
    "tail left over": Mutant((6,), "flash2", {"tile[i * LD + c] =": "if (first + i < length) tile[i * LD + c] ="},
        {"q_len": 5, "kv_len": 70}, {"findings", "shared"}),
    "copies without zeros": Mutant((6,), "flash2_mma", {COPY: f"if (there) {COPY}"},
        {"q_len": 5, "kv_len": 70}, {"findings", "shared"}),
    "the tile before left over": Mutant((6,), "flash2_mma", {COPY: f"if (there) {COPY}"},
        {"q_len": 5, "kv_len": 135, "head_dim": 64}, {"shared"}),
    "only V's tail is zeros": Mutant((5,), "flash2_mma",
        {"load_tile<TILE_KV>(sK + stage, k_rows, K.row, first_kv, kv_len, head_dim);": K_WITHOUT_ZEROS},
        {"q_len": 5, "kv_len": 70}, {"findings", "shared"}),
    "a barrier missing after copies": Mutant((12, 13), "flash2_mma", {"__syncthreads();  // the tile": "// the tile"},
        {"q_len": 70, "kv_len": 140}, {"findings"}),
    "copies not waited for": Mutant((13,), "flash2_mma", {"        wait_group<0>();\n": ""},
        {"q_len": 5, "kv_len": 140}, {"values", "findings"}),
    "early exit": Mutant((22, 23), "split_kv", {"if (r >= rows)": "if (r >= rows || l == 0.0f)"},
        EMPTY_SPLIT, {"values", "findings"}),
    "wrong slot": Mutant((23,), "split_kv", {"[row * L_part.row] =": "[(l == 0.0f ? query : row) * L_part.row] ="},
        EMPTY_SPLIT, {"values", "findings"}),
    "head_dim for a stride": Mutant((24,), "split_kv", {"query * O.row": "query * head_dim"},
        {"q_len": 4, "kv_len": 9, "heads": 3, "layout": between_guards}, {"values", "memory"}),
    "base 2": Mutant((25,), "flash2", {"m + __logf(l)": "m + __log2f(l)"},
        {"q_len": 5, "kv_len": 33}, {"values"}),
    "padded offsets": Mutant((32,), "split_kv", {"blockIdx.x * q_len +": "blockIdx.x * TILE_Q +"},
        {"q_len": 3, "kv_len": 600}, {"values", "findings"}),
}  # fmt: skip


@pytest.fixture
def changed(tmp_path):
    """Writes a kernel with a changed text; skips where NVRTC is not installed."""
    if MISSING:
        pytest.skip(MISSING)

    def write(kernel, changes):
        source = load(kernel).source
        for old, new in changes.items():
            assert old in source, old
            source = source.replace(old, new)
        (tmp_path / f"{kernel}.cu").write_text(source)
        return load(str(tmp_path / f"{kernel}.cu"))

    return write


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_bug_put_back_is_noticed(mutant, changed):
    case = case_of(mutant.kernel, **mutant.case)
    fine(mutant.kernel, case)
    problems = verify(changed(mutant.kernel, mutant.changes), case).problems
    assert mutant.noticed <= {check for check, found in problems.items() if found}, problems


O_ROW = "i * O.row + column"
NARROW = {
    "flash2": (LOAD, LOAD.replace("(first + i) * stride", "(int)((first + i) * stride)")),
    "flash2_backward": (LOAD, LOAD.replace("(first + i) * stride", "(int)((first + i) * stride)")),
    "flash2_mma": ("rows + (first + i) * stride", "rows + (int)((first + i) * stride)"),
    "flash2_mma, O": (O_ROW, O_ROW.replace("i * O.row", "(int)(i * O.row)")),
}


@pytest.mark.parametrize(("kernel", "edit"), NARROW.items(), ids=NARROW)
def test_a_32_bit_row_offset_is_noticed(kernel, edit, changed):
    kernel, _, _ = kernel.partition(",")
    narrow = changed(kernel, dict([edit]))
    case = case_of(kernel, 9, 11, batch=2, layout=far_apart)
    assert verify(narrow, case).is_fine  # neither packed rows nor batches far apart show it
    assert any(narrowed(k) for k in module_of(narrow, case).kernels.values())
    found, right = with_far_rows(narrow, case.problem)
    assert found
    assert not right


@pytest.mark.parametrize("edit", [("v_rows, V.row", "v_rows, K.row"), ("O.row", "Q.row")], ids="VO")
@pytest.mark.parametrize("kernel", ["flash2", "flash2_mma"])
def test_another_tensors_stride_is_noticed(kernel, edit, changed):
    mixed = changed(kernel, dict([edit]))
    found, right = with_far_rows(mixed, case_of(kernel, 9, 11).problem)
    assert found
    assert not right


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_an_order_that_is_not_declared_is_noticed(mask):
    forgotten = replace(load("flash2_backward"), order_dependent=())
    report = verify(forgotten, case_of("flash2_backward", 70, 70, mask))
    assert [check for check, found in report.problems.items() if found] == ["determinism"]
