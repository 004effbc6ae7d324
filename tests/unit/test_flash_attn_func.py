"""flash-attn's functions on NumPy arrays: what its documentation says, pair by pair; bytes; refusals."""

from __future__ import annotations

import inspect
import re
import sys
import tracemalloc
from math import log, tanh
from pathlib import Path
from textwrap import dedent

import ml_dtypes
import numpy as np
import pytest

import ioaware as io
from ioaware.errors import InputError
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from tests.functional import assert_close, assert_right, dense, normal, qkv, visible
from tests.unit.fake_cupy_arrays import fake


def seen(q_len, kv_len, **options):
    """Which keys take part, as the function shows it: equal scores, and values that are unit vectors."""
    q, k, v = np.zeros((1, q_len, 1, 4)), np.ones((1, kv_len, 1, 4)), np.eye(kv_len)[None, :, None]
    return (io.flash_attn_func(q, k, v, **options)[0, :, 0] > 0).astype(int).tolist()


# ------------------------------------------------------------------------------------------------ what it means
def test_causal_is_the_documented_pattern():
    """The two matrices in the docstring of flash_attn_func, flash-attn 2.1 and later."""
    assert seen(2, 5, causal=True) == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert seen(5, 2, causal=True) == [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize("window", [(-1, -1), (0, 0), (1, 0), (2, 1), (-1, 2), (3, -1), (0, 9), (50, 50)])
@pytest.mark.parametrize("lengths", [(4, 4), (2, 6), (6, 2), (1, 5)])
def test_windows_are_inclusive_and_aligned_bottom_right(window, lengths):
    assert seen(*lengths, window_size=window) == visible(*lengths, window=window).astype(int).tolist()
    assert seen(*lengths, window_size=window, causal=True) == visible(*lengths, True, window).astype(int).tolist()


def test_a_row_that_sees_nothing_is_zero_and_its_logarithm_minus_infinity():
    q, k, v = qkv(q_len=5, kv_len=2)
    out, lse, _ = io.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert not out[:, :3].any()
    assert (lse[..., :3] == -np.inf).all()
    assert np.isfinite(lse[..., 3:]).all()
    np.testing.assert_allclose(out[:, 3], v[:, 0], rtol=1e-6)  # it sees the first key alone


def test_the_logarithm_is_natural_and_each_query_heads_own():
    """All scores of head h are h, so that its logarithm is h + ln(seqlen_k)."""
    q = np.broadcast_to(np.arange(6.0)[:, None], (2, 3, 6, 1))
    _, lse, _ = io.flash_attn_func(q, np.ones((2, 37, 2, 1)), np.ones((2, 37, 2, 1)), return_attn_probs=True)
    assert lse.shape == (2, 6, 3)
    np.testing.assert_allclose(lse, np.broadcast_to(np.arange(6.0)[:, None] + log(37), (2, 6, 3)), rtol=1e-14)


def test_softcap_comes_before_alibi_and_the_mask():
    """One query at key 1 of 2: scores 6 and 10, capped at 4; key 0 is at distance 1."""
    q, k, v = np.full((1, 1, 1, 1), 2.0), np.array([3.0, 5.0]).reshape(1, 2, 1, 1), np.eye(2).reshape(1, 2, 1, 2)
    out = io.flash_attn_func(q, k, v, softmax_scale=1.0, softcap=4.0, alibi_slopes=np.array([0.5]))
    odds = np.exp(4 * tanh(6 / 4) - 0.5 - 4 * tanh(10 / 4))
    np.testing.assert_allclose(out[0, 0, 0], np.array([odds, 1]) / (1 + odds), rtol=1e-14)


def test_alibi_counts_from_the_last_key_and_has_a_slope_per_head_or_sequence():
    zeros, v = np.zeros((2, 2, 3, 4)), np.broadcast_to(np.eye(5)[None, :, None], (2, 5, 3, 5))
    slopes = np.array([[0.5, 0.25, 0.0], [1.0, 2.0, 4.0]])
    out = io.flash_attn_func(zeros, np.zeros((2, 5, 3, 4)), v, alibi_slopes=slopes)
    for b, i, h in np.ndindex(2, 2, 3):
        weights = np.exp([-slopes[b, h] * abs(i + 5 - 2 - j) for j in range(5)])
        np.testing.assert_allclose(out[b, i, h], weights / weights.sum(), rtol=1e-14)
    for b in range(2):
        one = io.flash_attn_func(zeros[:1], np.zeros((1, 5, 3, 4)), v[:1], alibi_slopes=slopes[b])
        np.testing.assert_array_equal(one, out[b : b + 1])


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_query_heads_share_key_heads_in_groups_of_neighbours(kv_heads):
    q, k, v = qkv(2, heads=6, kv_heads=kv_heads, value_dim=5)
    shared = (np.repeat(x, 6 // kv_heads, axis=2) for x in (k, v))
    np.testing.assert_array_equal(io.flash_attn_func(q, k, v), io.flash_attn_func(q, *shared))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_inputs_are_computed_in_fp32_and_rounded_once(dtype):
    q, k, v = qkv(2, 70, 600, dtype=dtype)
    out, lse, _ = io.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    wide = io.flash_attn_func(*(x.astype(np.float32) for x in (q, k, v)), causal=True, return_attn_probs=True)
    assert (out.dtype, lse.dtype) == (dtype, np.float32)
    np.testing.assert_array_equal(out, wide[0].astype(dtype))
    np.testing.assert_array_equal(lse, wide[1])
    found = io.flash_attn_backward(q, q, k, v, out, lse, causal=True)
    wider = io.flash_attn_backward(*(x.astype(np.float32) for x in (q, q, k, v, out)), lse, causal=True)
    for gradient, wide_gradient in zip(found, wider, strict=True):
        np.testing.assert_array_equal(gradient, wide_gradient.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_inputs_are_as_exact_as_their_format(dtype):
    assert_right(io, *qkv(2, 70, 600, 4, 2, value_dim=5, dtype=dtype), causal=True)


@pytest.mark.parametrize("kv_len", [511, 512, 513, 1024, 1025])
def test_every_tile_of_keys_counts_once(kv_len):
    assert_right(io, *qkv(1, 3, kv_len))
    assert_right(io, *qkv(1, 40, kv_len), causal=True, window_size=(600, 0))


def test_memory_grows_with_the_lengths_and_not_with_their_product():
    q, k, v = qkv(1, 4096, 4096, 1, head_dim=4)
    tracemalloc.start()
    io.flash_attn_func(q, k, v, causal=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096 * 4096  # bytes: a quarter of one fp32 matrix of scores


# ------------------------------------------------------------------------------------------------ dropout
def test_without_dropout_no_matrix_is_made():
    assert io.flash_attn_func(*qkv(), return_attn_probs=True)[2].shape == (0,)


def test_s_dmask_has_the_weights_and_a_sign_where_they_are_dropped():
    q, k, v = qkv(2, 60, 128, 4, 2, dtype=np.float64)
    out, lse, weights = io.flash_attn_func(q, k, v, 0.25, causal=True, return_attn_probs=True)
    hidden, factors = ~visible(60, 128, causal=True), ~np.signbit(weights) / 0.75
    assert weights.shape == (2, 4, 60, 128)
    assert not weights[:, :, hidden].any()
    exact, plain = (dense(q, k, v, causal=True, kept=factors, dtype=t) for t in (np.longdouble, np.float64))
    assert_close(out, exact[0], plain[0])
    assert_close(lse, exact[1], plain[1])  # of the weights before dropout
    s = [(np.where(hidden, -np.inf, scores(q, k, t)), t) for t in (np.longdouble, np.float64)]
    exact, plain = (np.exp(x - dense(q, k, v, causal=True, dtype=t)[1][..., None]) for x, t in s)
    assert_close(np.abs(weights), exact, plain)
    dropped = np.signbit(weights[:, :, ~hidden])
    # a binomial share of n decisions is within five standard deviations but for one run in two million
    assert abs(dropped.mean() - 0.25) <= 5 * (0.25 * 0.75 / dropped.size) ** 0.5
    heads = dropped.reshape(8, -1)
    assert (np.corrcoef(heads) - np.eye(8)).max() <= 5 / heads.shape[1] ** 0.5  # sequences and heads are independent
    np.testing.assert_array_equal(io.flash_attn_func(q, k, v, 0.25, causal=True), out)  # no hidden state


def scores(q, k, dtype):
    q, k = q.astype(dtype), np.repeat(k, q.shape[2] // k.shape[2], axis=2).astype(dtype)
    return np.einsum("bnhd,bmhd->bhnm", q, k) * dtype(q.shape[3]) ** dtype(-0.5)


# ------------------------------------------------------------------------------------------------ packed, ragged
def test_packed_arrays_are_the_same_call():
    q, k, v = qkv(2, 9, 9)
    want = io.flash_attn_func(q, k, v, causal=True, softcap=1.0)
    kv, all_three = np.stack([k, v], axis=2), np.stack([q, k, v], axis=2)
    np.testing.assert_array_equal(io.flash_attn_kvpacked_func(q, kv, causal=True, softcap=1.0), want)
    np.testing.assert_array_equal(io.flash_attn_qkvpacked_func(all_three, 0.0, None, True, (-1, -1), 1.0), want)
    ends, flat = [0, 9, 18], [x.reshape(18, *x.shape[2:]) for x in (q, kv, all_three)]
    varlen = io.flash_attn_varlen_kvpacked_func(flat[0], flat[1], ends, ends, 9, 9, causal=True, softcap=1.0)
    np.testing.assert_array_equal(varlen.reshape(want.shape), want)
    varlen = io.flash_attn_varlen_qkvpacked_func(flat[2], np.array(ends, np.int32), 9, causal=True, softcap=1.0)
    np.testing.assert_array_equal(varlen.reshape(want.shape), want)


def test_ragged_sequences_are_calls_of_their_own():
    lengths = [(3, 5), (0, 4), (7, 1), (2, 0), (1, 600)]
    ends_q, ends_k = (np.cumsum([0, *column]) for column in zip(*lengths, strict=True))
    q, k, v = normal(13, 4, 8, seed=1), normal(610, 2, 8, seed=2), normal(610, 2, 6, seed=3)
    slopes = normal(5, 4) ** 2
    out, lse, _ = io.flash_attn_varlen_func(
        q, k, v, ends_q, ends_k, 7, 600, causal=True, window_size=(70, 0), alibi_slopes=slopes, return_attn_probs=True
    )
    assert (out.shape, lse.shape) == ((13, 4, 6), (4, 13))
    for b, (n, m) in enumerate(lengths):
        rows, keys = slice(ends_q[b], ends_q[b + 1]), slice(ends_k[b], ends_k[b + 1])
        if n and m:
            one = io.flash_attn_func(q[None, rows], k[None, keys], v[None, keys], causal=True, window_size=(70, 0),
                                     alibi_slopes=slopes[b], return_attn_probs=True)  # fmt: skip
            np.testing.assert_array_equal(out[rows], one[0][0])
            np.testing.assert_array_equal(lse[:, rows], one[1][0])
    assert not out[10:12].any()  # two queries without keys
    assert (lse[:, 10:12] == -np.inf).all()
    *_, weights = io.flash_attn_varlen_func(q, k, v, ends_q, ends_k, 8, 600, 0.5, return_attn_probs=True)
    assert weights.shape == (5, 4, 8, 600)
    assert not weights[0, :, 3:].any()
    assert not weights[0, :, :, 5:].any()


# ------------------------------------------------------------------------------------------------ caches
def test_new_keys_go_into_the_cache_and_take_part():
    q, new_k, new_v = qkv(2, 3, 3, 4, 2)
    k_cache, v_cache = normal(4, 20, 2, 8, seed=4), normal(4, 20, 2, 8, seed=5)
    before, lengths, which = k_cache.copy(), [5, 17], [3, 1]
    out, lse = io.flash_attn_with_kvcache(
        q, k_cache, v_cache, new_k, new_v, cache_seqlens=np.array(lengths, np.int32), cache_batch_idx=np.array(which),
        cache_leftpad=[1, 0], causal=True, return_softmax_lse=True,
    )  # fmt: skip
    for b, (stop, sequence, start) in enumerate(zip(lengths, which, [1, 0], strict=True)):
        k, v = (np.concatenate([c[sequence, start:stop], n[b]])[None] for c, n in ((before, new_k), (v_cache, new_v)))
        want = io.flash_attn_func(q[b : b + 1], k, v, causal=True, return_attn_probs=True)
        np.testing.assert_array_equal(out[b], want[0][0])
        np.testing.assert_array_equal(lse[b], want[1][0])
        np.testing.assert_array_equal(k_cache[sequence, stop : stop + 3], new_k[b])
        before[sequence, stop : stop + 3] = new_k[b]
    np.testing.assert_array_equal(k_cache, before)  # and nothing else was touched


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_pages_in_any_order_are_a_cache(page_size):
    q, k, v = qkv(2, 2, 48, 4, 2)
    pages = -(-48 // page_size)
    table = np.random.default_rng(0).permutation(3 * pages)[: 2 * pages].reshape(2, pages)
    paged = [np.full((3 * pages, page_size, *x.shape[2:]), np.nan, np.float32) for x in (k, v)]
    for into, x in zip(paged, (k, v), strict=True):
        into[table.reshape(-1)] = x.reshape(2 * pages, page_size, *x.shape[2:])
    for lengths in (40, [48, 17]):
        call = {"cache_seqlens": lengths, "causal": True, "return_softmax_lse": True}
        want = io.flash_attn_with_kvcache(q, k, v, **call)
        got = io.flash_attn_with_kvcache(q, *paged, block_table=table, **call)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    ends = [0, 48, 65]
    packed = [np.concatenate([x[0], x[1, :17]]) for x in (k, v)]
    want = io.flash_attn_varlen_func(q.reshape(4, 4, 8), *packed, [0, 2, 4], ends, 2, 48)
    got = io.flash_attn_varlen_func(q.reshape(4, 4, 8), *paged, [0, 2, 4], ends, 2, 48, block_table=table)
    np.testing.assert_array_equal(got, want)
    new = normal(2, 3, 2, 8, seed=9)
    lengths = {"cache_seqlens": [40, 45]}
    want = io.flash_attn_with_kvcache(q, k, v, new, new, **lengths)
    np.testing.assert_array_equal(io.flash_attn_with_kvcache(q, *paged, new, new, block_table=table, **lengths), want)
    np.testing.assert_array_equal(paged[1][table[1]].reshape(-1, 2, 8)[:48], v[1])


@pytest.mark.parametrize("num_splits", [0, 1, 2, 7, 40, 1000])
def test_splits_change_rounding_only(num_splits):
    q, k, v = qkv(2, 2, 700, 4, 2)
    exact, plain = dense(q, k, v, causal=True), dense(q, k, v, causal=True, dtype=np.float32)
    got = io.flash_attn_with_kvcache(q, k, v, causal=True, num_splits=num_splits, return_softmax_lse=True)
    for of_got, of_exact, of_plain in zip(got, exact, plain, strict=True):
        assert_close(of_got, of_exact, of_plain)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_rotary_embedding_turns_pairs_by_their_position(interleaved, causal):
    """Against complex numbers; without a mask all queries stand at the first new position, as in flash-attn."""
    q, k, v = qkv(2, 3, 3, 2, head_dim=6, dtype=np.float64)
    angles = np.outer(np.arange(20), [1.0, 0.3])
    caches = normal(2, 20, 2, 6, dtype=np.float64, seed=4), normal(2, 20, 2, 6, dtype=np.float64, seed=5)
    lengths = [4, 9]

    def turned(x, b, i):
        pairs = (slice(0, 4, 2), slice(1, 4, 2)) if interleaved else (slice(0, 2), slice(2, 4))
        out = x.copy()
        z = (x[..., pairs[0]] + 1j * x[..., pairs[1]]) * np.exp(1j * angles[lengths[b] + i])
        out[..., pairs[0]], out[..., pairs[1]] = z.real, z.imag
        return out

    turned_q = np.array([[turned(q[b, i], b, i * causal) for i in range(3)] for b in range(2)])
    turned_k = np.array([[turned(k[b, i], b, i) for i in range(3)] for b in range(2)])
    options = {"cache_seqlens": lengths, "causal": causal}
    want = io.flash_attn_with_kvcache(turned_q, *(c.copy() for c in caches), turned_k, v, **options)
    got = io.flash_attn_with_kvcache(q, *caches, k, v, np.cos(angles), np.sin(angles), **options,
                                     rotary_interleaved=interleaved)  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(caches[0][1, 9:12], turned_k[1], rtol=1e-12)


# ------------------------------------------------------------------------------------------------ gradients
DENSE = {"softmax_scale": "scale", "window_size": "window", "alibi_slopes": "slopes"}


@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"window_size": (2, 1), "softcap": 1.5}, {"softcap": 0.7, "softmax_scale": -0.4},
     {"dropout_p": 0.3, "causal": True}, {"alibi_slopes": np.array([0.5, 0.1, 1.0, 0.0]), "causal": True}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("lengths", [(6, 9), (40, 5)])
def test_gradients_are_the_slopes_of_the_output(options, lengths):
    """In a random direction, against the slope of the formula, which a complex step gives without a difference."""
    inputs = qkv(2, *lengths, 4, 2, value_dim=5, dtype=np.float64)
    out, lse, weights = io.flash_attn_func(*inputs, **options, return_attn_probs=True)
    dout = normal(*out.shape, dtype=np.float64, seed=7)
    found = io.flash_attn_backward(dout, *inputs, out, lse, **options)
    formula = {DENSE.get(name, name): value for name, value in options.items() if name != "dropout_p"}
    if dropout := options.get("dropout_p"):
        formula["kept"] = ~np.signbit(weights) / (1 - dropout)
    for n, gradient in enumerate(found):
        direction = normal(*inputs[n].shape, dtype=np.float64, seed=8)
        moved = [x + 1e-30j * direction if i == n else x for i, x in enumerate(inputs)]
        slope = (dense(*moved, **formula, dtype=np.complex128)[0].imag * dout).sum() / 1e-30
        roundings = sum(lengths) + inputs[n].size  # along the longest chain of operations
        allowed = roundings * np.finfo(np.float64).eps * np.abs(gradient * direction).sum()
        assert abs((gradient * direction).sum() - slope) <= allowed
        assert gradient.shape == inputs[n].shape
    if lengths[0] > lengths[1] and options.get("causal"):
        assert not found[0][:, : lengths[0] - lengths[1]].any()


# ------------------------------------------------------------------------------------------------ the ledger
def test_a_ledger_has_the_bytes_of_every_call():
    ledger = io.Ledger(device="h100-sxm", algorithm="flash2")
    q, k, v = qkv(2, 64, 128, 4, 2, dtype=np.float16)
    plain = io.flash_attn_func(q, k, v, causal=True, window_size=(50, 7), softcap=2.0)
    np.testing.assert_array_equal(
        io.flash_attn_func(q, k, v, causal=True, window_size=(50, 7), softcap=2.0, ledger=ledger), plain
    )
    problem = AttentionProblem(q_len=64, kv_len=128, batch=2, heads=4, kv_heads=2, head_dim=8, dtype="fp16",
                               mask=Band(50, 0), softcap=2.0)  # fmt: skip
    assert ledger.report.problem == problem
    report = io.simulate(problem, "h100-sxm", ["flash2"])
    assert ledger.report == report
    issued = report.algorithms["flash2"].totals.levels["issued"]
    assert (ledger.traffic, ledger.total_bytes) == (issued, issued.total_bytes)
    out, lse, _ = io.flash_attn_func(q, k, v, return_attn_probs=True)
    io.flash_attn_backward(out, q, k, v, out, lse, ledger=ledger)
    assert [entry.function for entry in ledger.entries] == ["flash_attn_func", "flash_attn_backward"]
    assert ledger.report.problem.direction == "bwd"
    backward = ledger.report.algorithms["flash2"].totals
    assert ledger.total_bytes == issued.total_bytes + backward.levels["issued"].total_bytes
    assert ledger.totals.flops == report.algorithms["flash2"].totals.flops + backward.flops


def test_a_ledger_knows_ragged_and_paged_calls():
    ledger = io.Ledger(algorithm="flash2")
    q, k = normal(6, 4, 8, dtype=np.float64), normal(5, 16, 2, 8, dtype=np.float64)
    table = np.array([[3, 4], [1, -1], [0, 0]])
    io.flash_attn_varlen_func(q, k, k, [0, 2, 6, 6], [0, 20, 21, 22], 4, 20, block_table=table, alibi_slopes=np.ones(4),
                              dropout_p=0.5, ledger=ledger)  # fmt: skip
    problem = ledger.report.problem
    assert (problem.q_len, problem.kv_len, problem.page_size) == ((2, 4), (20, 1), 16)  # none without queries
    assert (problem.alibi, problem.dropout, problem.dtype, problem.accum_dtype) == (True, 0.5, "fp64", "fp64")


def test_an_empty_ledger_says_so_and_a_wrong_one_is_refused_at_once():
    with pytest.raises(InputError, match="the ledger is empty"):
        io.Ledger().total_bytes  # noqa: B018
    with pytest.raises(InputError, match="h100-sxm"):
        io.Ledger(device="h100-smx")
    with pytest.raises(InputError, match="flash2"):
        io.Ledger(algorithm="flash22")
    with pytest.raises(InputError, match="best"):
        io.Ledger(tiles="bets")


def test_the_example_in_the_docs_prints_what_it_says(capsys):
    """docs/functional.md."""
    text = (Path(__file__).parents[2] / "docs" / "functional.md").read_text(encoding="utf-8")
    program, shown = re.search(r"```python\n(.*?)```\n\n((?:    [^\n]*\n)+)", text, re.DOTALL).groups()
    exec(program, {})
    assert capsys.readouterr().out == dedent(shown)


# ------------------------------------------------------------------------------------------------ the array module
def test_cupy_arrays_stay_on_the_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake)
    q, k, v = qkv(2, 70, 90, 4, 2, dtype=np.float64)
    given = [fake.asarray(x) for x in (q, k, v)]
    slopes = np.array([0.5, 0.1, 1.0, 0.0])
    options = {"causal": True, "softcap": 2.0, "dropout_p": 0.2, "return_attn_probs": True}
    want = io.flash_attn_func(q, k, v, alibi_slopes=slopes, **options)
    got = io.flash_attn_func(*given, alibi_slopes=fake.asarray(slopes), **options)
    assert {type(x) for x in got} == {fake.ndarray}
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.view(np.ndarray), b)
    options.pop("return_attn_probs")
    grads = io.flash_attn_backward(got[0], *given, *got[:2], alibi_slopes=fake.asarray(slopes), **options)
    assert {type(x) for x in grads} == {fake.ndarray}
    mask = fake.asarray(visible(70, 90, causal=True))
    heads_first = [x.swapaxes(1, 2) for x in given]
    assert type(io.scaled_dot_product_attention(*heads_first, mask, enable_gqa=True)) is fake.ndarray
    table = fake.asarray(np.arange(12).reshape(2, 6))
    paged = [x.reshape(12, 15, 2, 8) for x in given[1:]]
    new = fake.asarray(normal(2, 1, 2, 8, dtype=np.float64))
    tables = [fake.asarray(f(np.outer(np.arange(90), [1.0, 2.0]))) for f in (np.cos, np.sin)]
    cached = io.flash_attn_with_kvcache(given[0], *paged, new, new, *tables, cache_seqlens=80, block_table=table,
                                        num_splits=3)  # fmt: skip
    assert type(cached) is fake.ndarray
    with pytest.raises(InputError, match="q is an array of cupy, k is not"):
        io.flash_attn_func(given[0], k, v)


# ------------------------------------------------------------------------------------------------ signatures, refusals
OPTIONS = ["dropout_p", "softmax_scale", "causal", "window_size", "softcap", "alibi_slopes", "deterministic",
           "return_attn_probs"]  # fmt: skip
SIGNATURES = {
    "flash_attn_func": ["q", "k", "v", *OPTIONS, "ledger"],
    "flash_attn_varlen_func": ["q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", *OPTIONS,
                               "block_table", "ledger"],
    "flash_attn_with_kvcache": ["q", "k_cache", "v_cache", "k", "v", "rotary_cos", "rotary_sin", "cache_seqlens",
                                "cache_batch_idx", "cache_leftpad", "block_table", "softmax_scale", "causal",
                                "window_size", "softcap", "rotary_interleaved", "alibi_slopes", "num_splits",
                                "return_softmax_lse", "ledger"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES.items(), ids=SIGNATURES)
def test_parameters_are_those_of_flash_attn_in_its_order(name, parameters):
    """flash_attn/flash_attn_interface.py, version 2.7 and later."""
    assert list(inspect.signature(getattr(io, name)).parameters) == parameters


Q, K, V = qkv(2, 4, 6, 6, 2)
FLAT = Q.reshape(8, 6, 8), K.reshape(12, 2, 8), V.reshape(12, 2, 8)
ENDS = [0, 4, 8], [0, 6, 12], 4, 6
TABLE = np.array([[0], [1]])
REFUSED = {
    "q is a list": lambda: io.flash_attn_func([1.0], K, V),
    r"q.shape=\(4, 6, 8\): must be \(batch, seqlen, heads, head_dim\)": lambda: io.flash_attn_func(Q[0], K, V),
    "k.dtype=float16: must be that of q; the nearest legal value is float32":
        lambda: io.flash_attn_func(Q, K.astype(np.float16), V),
    "q.dtype=int64: must be one of float16": lambda: io.flash_attn_func(*(x.astype(int) for x in (Q, K, V))),
    "k's batch=1: must be that of q; the nearest legal value is 2": lambda: io.flash_attn_func(Q, K[:1], V[:1]),
    r"v.shape=\(2, 5, 2\): must fit k but for its last axis": lambda: io.flash_attn_func(Q, K, V[:, :5]),
    "k's head_dim=7: must be that of q; the nearest legal value is 8":
        lambda: io.flash_attn_func(Q, K[..., :7], V),
    "k's heads=2: must divide the 5 heads of q; the nearest legal value is 1":
        lambda: io.flash_attn_func(Q[:, :, :5], K, V),
    "batch=0: must be at least 1": lambda: io.flash_attn_func(Q[:0], K[:0], V[:0]),
    "dropout=1.0: a probability": lambda: io.flash_attn_func(Q, K, V, 1.0),
    "dropout=-0.1: a probability": lambda: io.flash_attn_func(Q, K, V, -0.1),
    "softmax_scale=nan: must be a finite number": lambda: io.flash_attn_func(Q, K, V, softmax_scale=np.nan),
    "softcap=-1.0: 0 for none": lambda: io.flash_attn_func(Q, K, V, softcap=-1.0),
    r"window_size=\(-2, 0\): two numbers of keys": lambda: io.flash_attn_func(Q, K, V, window_size=(-2, 0)),
    r"window_size=\(1,\): two numbers": lambda: io.flash_attn_func(Q, K, V, window_size=(1,)),
    "window_size must be a row of integers": lambda: io.flash_attn_func(Q, K, V, window_size=(1.5, 0)),
    r"alibi_slopes.shape=\(5,\): must be \(6,\) or \(2, 6\)":
        lambda: io.flash_attn_func(Q, K, V, alibi_slopes=np.ones(5)),
    "alibi_slopes.dtype=int64": lambda: io.flash_attn_func(Q, K, V, alibi_slopes=np.ones(6, int)),
    r"out.shape=\(2, 4, 6, 7\): must fit q and v": lambda: io.flash_attn_backward(Q, Q, K, V, Q[..., :7], Q[..., 0]),
    r"kv.shape=\(2, 6, 2, 8\): must be \(batch, seqlen, 2, heads, head_dim\)":
        lambda: io.flash_attn_kvpacked_func(Q, K),
    r"qkv.shape=\(8, 6, 8\): must be \(total, 3, heads, head_dim\)":
        lambda: io.flash_attn_varlen_qkvpacked_func(FLAT[0], ENDS[0], 4),
    "cu_seqlens_q must start with 0 and never decrease":
        lambda: io.flash_attn_varlen_func(*FLAT, [0, 9, 8], *ENDS[1:]),
    "cu_seqlens_k must start with 0": lambda: io.flash_attn_varlen_func(*FLAT, ENDS[0], [1, 6, 12], 4, 6),
    "cu_seqlens_q's last entry=7: must be the number of rows":
        lambda: io.flash_attn_varlen_func(*FLAT, [0, 4, 7], *ENDS[1:]),
    "max_seqlen_k=5: a sequence is longer; the nearest legal value is 6":
        lambda: io.flash_attn_varlen_func(*FLAT, *ENDS[:3], 5),
    "cu_seqlens_k's sequences=1: as many as in cu_seqlens_q":
        lambda: io.flash_attn_varlen_func(*FLAT, ENDS[0], [0, 12], 4, 12),
    "cu_seqlens_q must be a row of integers":
        lambda: io.flash_attn_varlen_func(*FLAT, np.array([0.0, 4, 8]), *ENDS[1:]),
    "keys of a sequence=7: the cache has room for fewer; the nearest legal value is 6":
        lambda: io.flash_attn_with_kvcache(Q, K, V, cache_seqlens=7),
    "new keys need k, v and cache_seqlens": lambda: io.flash_attn_with_kvcache(Q, K, V, K[:, :1], V[:, :1]),
    r"k.shape=\(2, 1, 1, 8\): must fit q and k_cache":
        lambda: io.flash_attn_with_kvcache(Q, K, V, K[:, :1, :1], V[:, :1, :1], cache_seqlens=1),
    "rotary embeddings need": lambda: io.flash_attn_with_kvcache(Q, K, V, rotary_cos=Q, rotary_sin=Q),
    "rotary_cos's rows=3: one for every position": lambda: io.flash_attn_with_kvcache(
        Q, K, V, K[:, :1], V[:, :1], np.ones((3, 2)), np.ones((3, 2)), cache_seqlens=4),
    "rotary_cos's columns=5: pairs of the 8 columns": lambda: io.flash_attn_with_kvcache(
        Q, K, V, K[:, :1], V[:, :1], np.ones((9, 5)), np.ones((9, 5)), cache_seqlens=4),
    "cache_seqlens has 3 entries": lambda: io.flash_attn_with_kvcache(Q, K, V, cache_seqlens=[1, 2, 3]),
    "cache_leftpad=-1: must be at least 0": lambda: io.flash_attn_with_kvcache(Q, K, V, cache_leftpad=-1),
    "sequence of the cache=2: there are 2": lambda: io.flash_attn_with_kvcache(Q, K, V, cache_batch_idx=[0, 2]),
    "num_splits=-1: a number of parts": lambda: io.flash_attn_with_kvcache(Q, K, V, num_splits=-1),
    "cache_batch_idx and block_table": lambda: io.flash_attn_with_kvcache(
        Q, K, V, cache_batch_idx=[0, 1], block_table=TABLE),
    "block_table's page=2: there are 2 pages; the nearest legal value is 1":
        lambda: io.flash_attn_with_kvcache(Q, K, V, block_table=TABLE + 1),
    r"block_table.shape=\(2, 1\), float64: must be \(batch, pages\), integers":
        lambda: io.flash_attn_with_kvcache(Q, K, V, block_table=TABLE.astype(float)),
    "sequence of the cache=1: there are 1": lambda: io.flash_attn_with_kvcache(Q, K, V, block_table=TABLE[:1]),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_input_is_one_sentence(message):
    caches = K.copy(), V.copy()
    with pytest.raises(InputError, match=f"^{message}") as refusal:
        REFUSED[message]()
    assert "\n" not in str(refusal.value)
    for cache, before in zip((K, V), caches, strict=True):  # refused before anything is written
        np.testing.assert_array_equal(cache, before)
