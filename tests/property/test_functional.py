"""flash-attn's and PyTorch's functions on random calls: the specification of the problem that the ledger says they
computed, and calls that must be the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ioaware as io
from ioaware.functional import online, scores
from ioaware_kernels.tolerance import noise
from tests.functional import grouped, normal, specified

DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32, "fp64": np.float64}
windows = st.one_of(st.just((-1, -1)), st.tuples(st.integers(-1, 40), st.integers(-1, 40)))


@pytest.fixture(scope="module", autouse=True)
def small_tiles():
    """So that short sequences have many tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "TILE_KV", 7)
        patch.setattr(online, "TILE_SCORES", 1)
        yield


@st.composite
def arrays(draw, sequences=3, dtypes=tuple(DTYPES)):
    """(lengths, q, k, v): packed sequences, (rows, heads, columns)."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=sequences))
    q_rows, k_rows = (sum(column) for column in zip(*lengths, strict=True))
    head_dim, value_dim = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    dtype, seed = DTYPES[draw(st.sampled_from(dtypes))], draw(st.integers(0, 99))
    shapes = (q_rows, kv_heads * group, head_dim), (k_rows, kv_heads, head_dim), (k_rows, kv_heads, value_dim)
    return lengths, *(normal(*shape, dtype=dtype, seed=seed + n) for n, shape in enumerate(shapes))


@st.composite
def options(draw, heads):
    """Of flash_attn_func and flash_attn_backward."""
    return {
        "causal": draw(st.booleans()), "window_size": draw(windows), "softcap": draw(st.sampled_from([0.0, 0.8])),
        "dropout_p": draw(st.sampled_from([0.0, 0.3])), "softmax_scale": draw(st.sampled_from([None, 0.3, -0.2])),
        "alibi_slopes": draw(st.sampled_from([None, normal(heads) ** 2])),
    }  # fmt: skip


def assert_specified(problem, inputs, got):
    """No further from the specification, in a wider format, than twice the textbook formulas in the call's, and noise
    (the rule by which kernels are verified); `got` by the names and in the shapes of the specification."""
    exact = specified(problem, inputs, np.longdouble)
    arithmetic = np.float64 if problem.dtype == "fp64" else np.float32
    plain = specified(problem, inputs, arithmetic, DTYPES[problem.dtype])
    like_fp32 = replace(problem, dtype="fp32", accum_dtype="fp32") if problem.dtype == "fp64" else problem
    in_fp32 = noise(like_fp32, inputs, exact, reads_logarithm=True)
    for name, values in got.items():
        finite = np.isfinite(exact[name])
        np.testing.assert_array_equal(values[~finite], exact[name][~finite])
        right = exact[name][finite]
        error, theirs = (np.abs(x[finite] - right).max(initial=0.0) for x in (values, plain[name]))
        largest = np.abs(right).max(initial=0.0)
        rounded = float(ml_dtypes.finfo(values.dtype).eps) / 2 * largest  # when it is stored
        of_sums = in_fp32[name] * (np.finfo(arithmetic).eps / np.finfo(np.float32).eps)
        assert error <= 2 * theirs + rounded + of_sums, name


@given(arrays(), st.data())
def test_ragged_sequences_are_as_specified(given_arrays, data):
    lengths, q, k, v = given_arrays
    chosen, ledger = data.draw(options(q.shape[1])), io.Ledger()
    starts = [np.cumsum([0, *column]) for column in zip(*lengths, strict=True)]
    ends = (*starts, *(max(column) for column in zip(*lengths, strict=True)))
    out, lse, _ = io.flash_attn_varlen_func(q, k, v, *ends, **chosen, return_attn_probs=True, ledger=ledger)
    problem = ledger.report.problem
    inputs = {"Q": grouped(problem, q), "K": k.swapaxes(0, 1), "V": v.swapaxes(0, 1)}
    if problem.alibi:
        inputs["slopes"] = chosen["alibi_slopes"].reshape(problem.kv_heads, problem.group, 1, 1)
    found = {"O": grouped(problem, out), "L": lse.reshape(problem.kv_heads, problem.group, -1, 1)}
    assert_specified(problem, inputs, found)


@given(arrays(1, ("fp32", "fp64")), st.data())
def test_gradients_are_as_specified(given_arrays, data):
    _, q, k, v = given_arrays
    chosen, ledger = data.draw(options(q.shape[1])), io.Ledger()
    out, lse, _ = io.flash_attn_func(q[None], k[None], v[None], **chosen, return_attn_probs=True)
    dout = normal(*out.shape, dtype=out.dtype, seed=9)
    dq, dk, dv = io.flash_attn_backward(dout, q[None], k[None], v[None], out, lse, **chosen, ledger=ledger)
    problem = ledger.report.problem
    inputs = {"Q": grouped(problem, q), "K": k.swapaxes(0, 1), "V": v.swapaxes(0, 1), "dO": grouped(problem, dout[0])}
    if problem.alibi:
        inputs["slopes"] = chosen["alibi_slopes"].reshape(problem.kv_heads, problem.group, 1, 1)
    found = {"dQ": grouped(problem, dq[0]), "dK": dk[0].swapaxes(0, 1), "dV": dv[0].swapaxes(0, 1)}
    assert_specified(problem, inputs, found)


@given(arrays(1), st.data())
def test_scaled_dot_product_attention_is_as_specified(given_arrays, data):
    """With a mask that has some of its axes, additive; half of its entries hide."""
    ((length, keys),), q, k, v = given_arrays
    axes = [data.draw(st.sampled_from([1, size])) for size in (q.shape[1], length)]
    rng, ledger = np.random.default_rng(length), io.Ledger()
    mask = rng.standard_normal((*axes, keys)).astype(q.dtype)
    mask[rng.random(mask.shape) < 0.5] = -np.inf
    out = io.scaled_dot_product_attention(*(x.swapaxes(0, 1) for x in (q, k, v)), mask, enable_gqa=True, ledger=ledger)
    problem = ledger.report.problem
    inputs = {"Q": grouped(problem, q), "K": k.swapaxes(0, 1), "V": v.swapaxes(0, 1)}
    if problem.padding:
        inputs["padding"] = mask.reshape(keys, 1)
    elif problem.bias.heads:
        inputs["bias"] = np.broadcast_to(mask, (q.shape[1], length, keys)).reshape(
            problem.kv_heads, problem.group, length, keys
        )
    else:
        inputs["bias"] = np.broadcast_to(mask[0], (length, keys))
    assert_specified(problem, inputs, {"O": grouped(problem, out.swapaxes(0, 1))})


@given(arrays(), st.data())
def test_sequences_and_groups_do_not_know_of_each_other(given_arrays, data):
    """Bit for bit: a sequence alone, all keys copied to a head for each query head, keys in pages in any order."""
    lengths, q, k, v = given_arrays
    chosen = data.draw(options(q.shape[1])) | {"dropout_p": 0.0}
    starts = [np.cumsum([0, *column]) for column in zip(*lengths, strict=True)]
    ends = (*starts, *(max(column) for column in zip(*lengths, strict=True)))
    want = io.flash_attn_varlen_func(q, k, v, *ends, **chosen, return_attn_probs=True)
    for (a, b), (c, d) in zip(*(list(pairwise(ends_of)) for ends_of in starts), strict=True):
        alone = io.flash_attn_func(q[None, a:b], k[None, c:d], v[None, c:d], **chosen, return_attn_probs=True)
        np.testing.assert_array_equal(alone[0][0], want[0][a:b])
        np.testing.assert_array_equal(alone[1][0], want[1][:, a:b])
    copied = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    np.testing.assert_array_equal(io.flash_attn_varlen_func(q, *copied, *ends, **chosen), want[0])
    page_size, pages = data.draw(st.integers(1, 80)), 0
    for _, length in lengths:
        pages += -(-length // page_size)
    order, table, taken = np.random.default_rng(pages).permutation(pages), [], 0
    paged = [np.full((pages, page_size, *x.shape[1:]), np.nan, x.dtype) for x in (k, v)]
    for c, d in pairwise(starts[1]):
        count = -(-(d - c) // page_size)
        table.append(order[taken : taken + count])
        for into, x in zip(paged, (k, v), strict=True):
            for n, page in enumerate(table[-1]):
                part = x[c + n * page_size : min(c + (n + 1) * page_size, d)]
                into[page, : len(part)] = part
        taken += count
    rows = np.full((len(table), max(map(len, table))), -1)
    for row, entries in zip(rows, table, strict=True):
        row[: len(entries)] = entries
    np.testing.assert_array_equal(io.flash_attn_varlen_func(q, *paged, *ends, **chosen, block_table=rows), want[0])
