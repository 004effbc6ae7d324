"""Kernels on random problems: right in every way that `verify` knows, and with each other.

Relations between problems say more than one problem does: keys in another order, repeated keys, a sequence alone.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.problem import AttentionProblem
from ioaware_kernels.cases import Case, denormal, huge_equal, normal
from ioaware_kernels.formats import FORMATS
from ioaware_kernels.implementation import load, names
from ioaware_kernels.run import program_of, run
from ioaware_kernels.tensors import far_apart, interleaved, packed
from ioaware_kernels.tolerance import compare, expected
from ioaware_kernels.verify import CHECKS, module_of, verify
from tests.fitting import with_gaps

KERNELS = [(kernel, mask) for kernel in names() for mask in load(kernel).masks]
IN_FP32 = {kernel for kernel in names() if "fp32" in load(kernel).dtypes}
FORWARD = [(kernel, mask) for kernel, mask in KERNELS if load(kernel).direction == "fwd"]
MOST_WORK = 30_000  # query heads x q_len x kv_len, of which a backward pass takes four times as long

few, fewer = settings(max_examples=6), settings(max_examples=3)
seeds = st.integers(0, 2**16)


def layouts(kernel):
    return packed, interleaved, with_gaps(load(kernel)), far_apart


@st.composite
def problems(draw, kernel, mask, longest=80, widest=64):
    """A problem that the kernel solves."""
    implementation = load(kernel)
    kv_heads, group, batch = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    heads = kv_heads * group
    most = 16 // group if implementation.packs_group else longest
    q_len = draw(st.integers(1, most))
    several = 600 if implementation.packs_group else 260 if implementation.aligned > 1 else longest  # splits, buffers
    kv_len = draw(st.integers(1, several if draw(st.booleans()) else longest))
    work = heads * batch * q_len * kv_len
    if work > (MOST_WORK if implementation.direction == "fwd" else MOST_WORK // 4):
        heads = kv_heads = batch = 1
    head_dim = implementation.aligned * draw(st.integers(1, widest // implementation.aligned))
    return AttentionProblem(
        q_len=q_len, kv_len=kv_len, mask=mask, dtype=draw(st.sampled_from(implementation.dtypes)), heads=heads,
        kv_heads=kv_heads, batch=batch, head_dim=head_dim, direction=implementation.direction,
    )  # fmt: skip


def drawn(problem, seed):
    """N(0, 1), as far as the problem's dtype has it."""
    return Case(problem).values(seed)


def each(kernels=KERNELS):
    return pytest.mark.parametrize(("kernel", "mask"), kernels)


def outputs(kernel, problem, inputs, layout=packed):
    """The outputs of a kernel, (batch, heads, rows, columns)."""
    implementation = load(kernel)
    given = {**reference.attention(problem, inputs), **inputs}
    return run(implementation, module_of(implementation, Case(problem)), problem, given, layout).outputs


def wanted(kernel, problem, inputs):
    return expected(program_of(load(kernel), problem), problem, inputs)


def close(kernel, problem, inputs, got, want):
    """Both are as far from exact softmax as rounding explains, and no farther."""
    for name, e in wanted(kernel, problem, inputs).items():
        if name in got and name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=2 * e.tolerance, err_msg=name)


# ------------------------------------------------------------------------------------------------ with exact softmax
@each()
@few
@given(data=st.data(), inputs=st.sampled_from([normal, normal, normal, huge_equal, denormal]), seed=seeds)
def test_all_checks_hold(kernel, mask, data, inputs, seed):
    problem, layout = data.draw(problems(kernel, mask)), data.draw(st.sampled_from(layouts(kernel)))
    report = verify(load(kernel), Case(problem, inputs, layout), seed=seed)
    assert report.problems == {name: [] for name in CHECKS}
    assert report.differences.keys() == {
        n for n, t in program_of(load(kernel), problem).tensors.items() if t.role == "output"
    }
    assert len(report.launches) == len(load(kernel).launches)
    for launched, predicted in report.launches:
        assert launched.tensors == predicted.tensors
        assert launched.shared == predicted.shared


@each()
@fewer
@given(data=st.data(), seed=seeds)
def test_a_layout_changes_no_bit(kernel, mask, data, seed):
    """An address is in no sum."""
    problem = data.draw(problems(kernel, mask, longest=40))
    inputs = drawn(problem, seed)
    want = outputs(kernel, problem, inputs)
    for layout in layouts(kernel)[1:]:
        for name, values in outputs(kernel, problem, inputs, layout).items():
            assert values.tobytes() == want[name].tobytes(), (layout.__name__, name)


# ------------------------------------------------------------------------------------------------ with each other
@pytest.mark.parametrize("mask", ["full", "causal"])
@few
@given(data=st.data(), seed=seeds)
def test_all_kernels_give_the_same_output(mask, data, seed):
    """Also split-KV and one pass over the keys."""
    problem = data.draw(problems("split_kv", mask, widest=32))
    inputs = normal(problem, seed)
    found = {kernel: outputs(kernel, problem, inputs) for kernel, has in FORWARD if has == mask and kernel in IN_FP32}
    assert len(found) >= 2
    for kernel, got in found.items():
        close(kernel, problem, inputs, got, found["split_kv"])


@pytest.mark.parametrize(("kernel", "mask"), [(kernel, mask) for kernel, mask in FORWARD if kernel not in IN_FP32])
@few
@given(data=st.data(), seed=seeds)
def test_a_16_bit_kernel_gives_the_same_output_as_one_in_fp32(kernel, mask, data, seed):
    """On the same inputs, which its format has; also past the number of rows that a decoding kernel takes."""
    problem = data.draw(problems(kernel, mask))
    inputs, of_fp32 = drawn(problem, seed), "flash2_causal" if mask == "causal" else "flash2"
    want = outputs(of_fp32, replace(problem, dtype="fp32"), inputs)
    close(kernel, problem, inputs, outputs(kernel, problem, inputs), want)


@few
@given(data=st.data(), seed=seeds, mask=st.sampled_from(["full", "causal"]))
def test_both_backward_passes_give_the_same_gradients(data, seed, mask):
    problem = data.draw(problems("flash2_backward", mask, widest=32))
    inputs = normal(problem, seed)
    atomic, not_atomic = (outputs(kernel, problem, inputs) for kernel in ("flash2_backward", "flash2_no_atomics"))
    assert all(atomic[name].tobytes() == not_atomic[name].tobytes() for name in ("dK", "dV"))
    close("flash2_backward", problem, inputs, atomic, not_atomic)


@pytest.mark.parametrize("kernel", [kernel for kernel, mask in KERNELS if mask == "full"])
@fewer
@given(data=st.data(), seed=seeds)
def test_the_order_of_keys_does_not_matter(kernel, data, seed):
    problem = data.draw(problems(kernel, "full", longest=50, widest=32))
    problem = replace(problem, batch=1)
    inputs, order = drawn(problem, seed), np.random.default_rng(seed).permutation(problem.kv_len)
    want = {n: a for n, a in outputs(kernel, problem, inputs).items() if n not in ("S", "P")}
    moved = {n: a[:, :, order] if n in ("dK", "dV") else a for n, a in want.items()}
    got = outputs(kernel, problem, inputs | {n: inputs[n][:, order] for n in ("K", "V")})
    close(kernel, problem, inputs, got, moved)


@each(FORWARD)
@fewer
@given(data=st.data(), seed=seeds, constant=st.sampled_from([-8.0, 8.0, 30.0]))
def test_a_constant_added_to_all_scores_changes_l_and_m_alone(kernel, mask, data, seed, constant):
    """The constant is a column: 1 in every query, constant sqrt(d) in every key, as far as the dtype has it."""
    problem = data.draw(problems(kernel, mask, longest=50, widest=32))
    column = float(FORMATS[problem.dtype].rounded(np.array(constant * sqrt(problem.head_dim))))
    constant = column / sqrt(problem.head_dim)
    plain = drawn(problem, seed)
    plain["Q"][..., -1] = 0.0
    shifted = {n: a.copy() for n, a in plain.items()}
    shifted["Q"][..., -1], shifted["K"][..., -1] = 1.0, column
    want = {
        n: a + constant * (n in ("L", "m")) for n, a in outputs(kernel, problem, plain).items() if n not in ("S", "P")
    }
    close(kernel, problem, shifted, outputs(kernel, problem, shifted), want)


@each()
@fewer
@given(data=st.data(), seed=seeds)
def test_grouped_heads_are_repeated_keys(kernel, mask, data, seed):
    """Bit by bit, as a head's group only says where its keys lie; gradients of keys are sums over the group."""
    problem = data.draw(problems(kernel, mask, longest=40, widest=32))
    inputs, heads = drawn(problem, seed), problem.heads
    repeated = {n: inputs[n].reshape(heads, 1, *inputs[n].shape[2:]) for n in ("Q", "dO")}
    repeated |= {n: np.repeat(inputs[n], problem.group, axis=0) for n in ("K", "V")}
    got, want = outputs(kernel, problem, inputs), outputs(kernel, replace(problem, kv_heads=heads), inputs | repeated)
    for name in got.keys() - {"dK", "dV"}:
        assert got[name].tobytes() == want[name].tobytes(), name
    sums = {n: want[n].astype(float).reshape(problem.batch, -1, problem.group, *want[n].shape[2:]).sum(axis=2)
            for n in got.keys() & {"dK", "dV"}}  # fmt: skip
    close(kernel, problem, inputs, {n: got[n] for n in sums}, sums)


@each()
@fewer
@given(data=st.data(), seed=seeds)
def test_a_sequence_does_not_depend_on_the_others(kernel, mask, data, seed):
    """Bit by bit: thread blocks share nothing, and where sequences begin is no reason for other tiles."""
    problem = replace(data.draw(problems(kernel, mask, longest=40, widest=32)), batch=3)
    inputs = drawn(problem, seed)
    got = outputs(kernel, problem, inputs)
    for n in range(3):
        alone = {name: np.split(a, 3, axis=-2)[n] for name, a in inputs.items()}
        for name, values in outputs(kernel, replace(problem, batch=1), alone).items():
            assert values.tobytes() == got[name][n].tobytes(), name


@each([(kernel, mask) for kernel, mask in FORWARD if mask == "causal"])
@fewer
@given(data=st.data(), seed=seeds)
def test_keys_that_a_row_does_not_see_do_not_reach_it(kernel, mask, data, seed):
    """NaN in the key of the last position: of the queries only the last sees it. The others keep their bits, for -inf
    takes the place of the score before anything is computed from it; a product with the key has a sum of its own."""
    problem = replace(data.draw(problems(kernel, mask, longest=40, widest=32)), batch=1)
    inputs = drawn(problem, seed)
    want = outputs(kernel, problem, inputs)
    inputs["K"][:, -1] = np.nan
    got = outputs(kernel, problem, inputs)
    assert np.isnan(got["O"][:, :, -1]).all()
    for name in got:
        assert got[name][:, :, :-1].tobytes() == want[name][:, :, :-1].tobytes(), name


# ------------------------------------------------------------------------------------------------ the check can fail
@pytest.mark.parametrize(
    ("kernel", "dtype", "share"), [("flash2", "fp32", 5e-4), ("flash2_mma", "fp16", 0.02), ("flash2_mma", "bf16", 0.1)]
)
def test_what_agrees_is_not_only_near_zero(kernel, dtype, share):
    """The relations above compare with tolerances: a small share of one element is more than all of them."""
    problem = AttentionProblem(q_len=9, kv_len=31, head_dim=16, dtype=dtype)
    inputs = drawn(problem, 0)
    got = outputs(kernel, problem, inputs)
    assert all(compare(got[n], e).is_fine for n, e in wanted(kernel, problem, inputs).items() if n in got)
    for name in got:
        wrong = {n: a.copy() for n, a in got.items()}
        wrong[name][0, 0, 4, 0] *= 1 + share
        with pytest.raises(AssertionError, match=name):
            close(kernel, problem, inputs, wrong, got)
