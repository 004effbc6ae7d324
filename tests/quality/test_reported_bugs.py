"""What people reported of attention functions, each report a test of ours; and the bug, put back, is noticed by it.

A test's docstring names its reports. MUTANTS change a line of the package `ioaware.functional`: the changed copy fails
the test. Reports about what only kernels have are in test_known_bugs.py.
"""

from __future__ import annotations

import importlib.util
import sys
from math import log
from pathlib import Path

import numpy as np
import pytest

import ioaware.functional as ours
from ioaware.errors import InputError
from tests.functional import assert_close, assert_right, dense, normal, qkv, visible


@pytest.fixture
def api():
    """The functions under test; MUTANTS hand over changed ones."""
    return ours


def with_lse(api, *arrays, **options):
    return api.flash_attn_func(*arrays, **options, return_attn_probs=True)[:2]


def same_bits(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)  # NaN at the same places, if anywhere


def refused(call):
    try:
        call()
    except InputError:
        return True
    return False


# ------------------------------------------------------------------------------------------------ rows that see nothing
def test_causal_is_bottom_right_and_rows_above_the_first_key_are_zero(api):
    """Dao-AILab/flash-attention#1778, #2053: aligned top-left, and what of more queries than keys?"""
    for lengths in ((5, 2), (2, 5), (7, 3), (70, 1)):
        q, k, v = qkv(1, *lengths)
        out, lse = with_lse(api, q, k, v, causal=True)
        empty = max(lengths[0] - lengths[1], 0)
        assert not out[:, :empty].any()
        assert (lse[..., :empty] == -np.inf).all()
        assert_right(api, q, k, v, causal=True)


def test_the_logarithm_of_an_empty_row_is_minus_infinity_and_lies_at_its_query_head(api):
    """Dao-AILab/flash-attention PR#978 (+inf), #648 (laid out by key heads)."""
    q, k, v = qkv(2, 9, 4, heads=6, kv_heads=2)
    _, lse = with_lse(api, q, k, v, causal=True)
    assert lse.shape == (2, 6, 9)
    assert (lse[..., :5] == -np.inf).all()
    for head in range(6):
        alone = with_lse(api, q[:, :, [head]], k[:, :, [head // 3]], v[:, :, [head // 3]], causal=True)[1]
        np.testing.assert_allclose(lse[:, head], alone[:, 0], rtol=1e-6)


def test_no_finite_number_stands_for_minus_infinity(api):
    """flashinfer-ai/flashinfer#4452 (an empty row's logarithm is -49993.98), #4267 (scores below -50000 are lost)."""
    q, k, v = qkv(1, 5, 3, 1)
    _, lse = with_lse(api, q, k, v, causal=True)
    assert np.isneginf(lse[0, 0, :2]).all()
    q[...], k[...] = 1.0, -1e5  # all scores are -2.8e5, so that all visible keys weigh the same
    out, lse = with_lse(api, q, k, v, causal=True)
    np.testing.assert_allclose(out[0, 4], v[0].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(lse[0, 0, 4], -1e5 * 8**0.5 + log(3), rtol=1e-6)


def test_the_running_maximum_of_hidden_keys_is_not_zero(api):
    """Dao-AILab/flash-attention#2082: tiles that a row sees nothing of left 0, and lower scores were lost after them.

    Split in two, row 0 sees nothing of the second half.
    """
    q, k, v = qkv(1, 600, 1200, 1)
    q[...], k[...] = 10.0, -10.0  # all scores are -283
    out = api.flash_attn_with_kvcache(q, k, v, causal=True, num_splits=2)
    np.testing.assert_allclose(out[0, 0], v[0, :601].mean(axis=0), rtol=1e-4, atol=1e-4)


def test_backward_of_rows_that_see_nothing_is_zero_whatever_their_gradient(api):
    """tile-ai/tilelang PR#2461: L and D of rows that are not there made dK NaN."""
    q, k, v = qkv(1, 40, 5)
    out, lse = with_lse(api, q, k, v, causal=True)
    dout = normal(*out.shape, seed=4)
    want = api.flash_attn_backward(dout, q, k, v, out, lse, causal=True)
    assert not want[0][:, :35].any()
    dout[:, :35] = np.nan
    got = api.flash_attn_backward(dout, q, k, v, out, lse, causal=True)
    same_bits(got[1:], want[1:])
    assert all(np.isfinite(gradient).all() for gradient in want)


# ------------------------------------------------------------------------------------------------ what is not there
def test_nan_in_unused_slots_of_a_cache_never_leaks(api):
    """Dao-AILab/flash-attention#1745, #2374: weights of 0 times NaN are NaN. Unused, or hidden in a tile in use."""
    q, k, v = qkv(2, 3, 40)
    options = {"cache_seqlens": [17, 30], "causal": True, "return_softmax_lse": True}
    want = api.flash_attn_with_kvcache(q, k, v, **options)
    for x in (k, v):
        x[0, 17:], x[1, 30:] = np.nan, np.nan
    same_bits(api.flash_attn_with_kvcache(q, k, v, **options), want)
    v[0, 16], v[1, 29] = np.nan, np.inf  # the last key, which the last query alone sees
    out, lse = api.flash_attn_with_kvcache(q, k, v, **options)
    same_bits((out[:, :2], lse), (want[0][:, :2], want[1]))
    assert not np.isfinite(out[:, 2]).any()


def test_garbage_in_hidden_keys_never_leaks(api):
    """Dao-AILab/flash-attention#1395: the tail of V was cleared, that of K was not."""
    for value in (np.nan, np.inf, -np.inf, 3e38):
        q, k, v = qkv(1, 6, 9)
        want = with_lse(api, q, k, v, window_size=(3, 0))
        k[:, 7:] = value
        got = with_lse(api, q, k, v, window_size=(3, 0))
        same_bits((got[0][:, :4], got[1][..., :4]), (want[0][:, :4], want[1][..., :4]))


def test_the_last_tile_of_keys_counts_as_many_as_there_are(api):
    """thu-ml/SageAttention PR#376, #377: stale numbers where the length is no multiple of the tile."""
    for kv_len in (9, 12, 503, 511, 513, 1030):
        assert_right(api, *qkv(1, 5, kv_len))


def test_pages_before_the_window_are_not_read(api):
    """vllm-project/vllm PR#53628: stale NaN in pages that the window has left."""
    q, k, v = qkv(1, 2, 64)
    pages = [x.reshape(8, 8, 2, 8).copy() for x in (k, v)]
    options = {"block_table": np.arange(8)[None], "cache_seqlens": 61, "window_size": (9, 0)}
    want = api.flash_attn_with_kvcache(q, *pages, **options)
    np.testing.assert_array_equal(want, with_lse(api, q, k[:, :61], v[:, :61], window_size=(9, 0))[0])
    for x in pages:
        x[:6], x[6, :2] = np.nan, np.nan  # query 59 sees keys from 50 on: page 6 holds 48 ...
    same_bits([api.flash_attn_with_kvcache(q, *pages, **options)], [want])
    pages[1][6, 2] = np.nan  # key 50 is in the window of the first query, and not in that of the second
    same_bits([api.flash_attn_with_kvcache(q, *pages, **options)[:, 1]], [want[:, 1]])


def test_lengths_just_past_a_page(api):
    """flashinfer-ai/flashinfer PR#945: NaN at 13 keys."""
    for page_size in (4, 12, 16):
        for length in {page_size - 1, page_size, page_size + 1, 13, 2 * page_size + 1}:
            q, k, v = qkv(1, 2, length)
            pages = [np.full((4 * page_size, *x.shape[2:]), np.nan, np.float32) for x in (k, v)]
            for page, x in zip(pages, (k, v), strict=True):
                page[:length] = x[0]
            pages = [x.reshape(4, page_size, *x.shape[1:]) for x in pages]
            got = api.flash_attn_with_kvcache(q, *pages, cache_seqlens=length, block_table=np.arange(4)[None])
            same_bits([got], [api.flash_attn_func(q, k, v)])


# ------------------------------------------------------------------------------------------------ windows
def test_a_window_of_all_keys_is_causal_bit_for_bit(api):
    """Dao-AILab/flash-attention#1133."""
    q, k, v = qkv(1, 300, 300)
    want = with_lse(api, q, k, v, causal=True)
    for window in ((299, 0), (300, 0), (-1, 0), (299, 7)):
        same_bits(with_lse(api, q, k, v, window_size=window, causal=window[1] > 0), want)


def test_a_window_wider_than_the_keys_hides_only_what_it_says(api):
    """Dao-AILab/flash-attention#895: clamped to seqlen_k, it dropped keys where there are more queries."""
    for lengths in ((12, 3), (3, 12), (40, 5)):
        for window in ((-1, lengths[1]), (-1, lengths[1] + 4), (lengths[0], lengths[1] - 1), (50, 50)):
            assert_right(api, *qkv(1, *lengths), window_size=window)


def test_a_window_of_one_sees_itself_alone(api):
    """huggingface/transformers#39408, zml/zml PR#763: `left` does not count the query's own key."""
    q, k, v = qkv(1, 8, 8)
    np.testing.assert_allclose(api.flash_attn_func(q, k, v, window_size=(0, 0)), v, rtol=1e-6)
    assert_right(api, q, k, v, window_size=(1, 0))


def test_exactly_the_rows_outside_the_band_are_zero(api):
    """Dao-AILab/flash-attention#2199: a window and unlike lengths gave rows of zeros."""
    for lengths in ((9, 4), (4, 9), (20, 6)):
        for window in ((2, 0), (0, 2), (1, 1), (-1, 2)):
            out = api.flash_attn_func(*qkv(1, *lengths), window_size=window)
            np.testing.assert_array_equal(out.any(axis=(0, 2, 3)), visible(*lengths, window=window).any(axis=1))


# ------------------------------------------------------------------------------------------------ extreme scores
def test_equal_and_huge_scores_are_a_mean(api):
    """pytorch/pytorch#121558, deepseek-ai/FlashMLA PR#68: a fused multiply-add left exp(not exactly 0)."""
    q, k, v = qkv(1, 3, 70, head_dim=20)
    q[...] = k[...] = 133_120.0
    out, lse = with_lse(api, q, k, v)
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(axis=1, dtype=np.float64)[:, None], out.shape), atol=1e-6)
    np.testing.assert_allclose(lse, 133_120.0**2 * 20**0.5, rtol=1e-6)


def test_additive_masks_of_the_lowest_number_and_of_minus_infinity(api):
    """pytorch/pytorch#109517, #41508, #163997, #178251: NaN."""
    q, k, v = (x.swapaxes(1, 2) for x in qkv(1, 4, 9))
    sdpa, lowest = api.scaled_dot_product_attention, np.finfo(np.float32).min
    for value in (lowest, -np.inf):
        mask = np.zeros((4, 9), np.float32)
        mask[0], mask[1, :5] = value, value
        out = sdpa(q, k, v, mask)
        want = v.mean(axis=2) if value == lowest else 0 * v.mean(axis=2)  # any score and `lowest` make `lowest`
        np.testing.assert_allclose(out[:, :, 0], want, atol=1e-6)
        same_bits([out[:, :, 1:]], [sdpa(q, k, v, mask == 0)[:, :, 1:]])


# ------------------------------------------------------------------------------------------------ splits, pages, ragged
def test_any_number_of_splits_of_any_pages(api):
    """pytorch/torchtitan#3235: NaN in one of a hundred decode steps, with some numbers of splits."""
    for length in (1, 2, 31, 65):
        q, k, v = qkv(1, 2, 66, 2, 1)
        exact, plain = (dense(q, k[:, :length], v[:, :length], causal=True, dtype=t) for t in (np.float64, np.float32))
        for page_size in (1, 2, 33, 66):
            paged = [x.reshape(66 // page_size, page_size, 1, 8) for x in (k, v)]
            for splits in (0, 1, 2, 3, 8, 33, 100):
                got = api.flash_attn_with_kvcache(
                    q, *paged, cache_seqlens=length, block_table=np.arange(66 // page_size)[None], causal=True,
                    num_splits=splits, return_softmax_lse=True,
                )  # fmt: skip
                for of_got, of_exact, of_plain in zip(got, exact, plain, strict=True):
                    assert_close(of_got, of_exact, of_plain)


def test_an_empty_sequence_has_its_own_slot(api):
    """Dao-AILab/flash-attention#2842, vllm-project/flash-attention PR#87: it wrote its -inf to another's."""
    q, k, v = normal(7, 2, 8), normal(6, 2, 8, seed=2), normal(6, 2, 8, seed=3)
    ends = [0, 2, 4, 7], [0, 3, 3, 6], 3, 3
    out, lse, _ = api.flash_attn_varlen_func(q, k, v, *ends, return_attn_probs=True)
    first = with_lse(api, q[None, :2], k[None, :3], v[None, :3])
    last = with_lse(api, q[None, 4:], k[None, 3:], v[None, 3:])
    assert not out[2:4].any()
    assert (lse[:, 2:4] == -np.inf).all()
    same_bits((out[:2], lse[:, :2], out[4:], lse[:, 4:]), (first[0][0], first[1][0], last[0][0], last[1][0]))
    caches = normal(3, 5, 2, 8), normal(3, 5, 2, 8, seed=2)
    out, lse = api.flash_attn_with_kvcache(
        normal(3, 1, 2, 8), *caches, cache_seqlens=[3, 0, 5], num_splits=3, return_softmax_lse=True
    )
    assert (lse[1] == -np.inf).all()
    assert not out[1].any()
    assert np.isfinite(lse[[0, 2]]).all()


def test_outputs_are_contiguous_and_inputs_may_be_views(api):
    """flagos-ai/FlagGems#5235: the row stride was taken for head_dim where heads lie between rows."""
    q, k, v = qkv(2, 5, 9, 4, 2)
    want = with_lse(api, q, k, v)
    assert_right(api, q, k, v)

    def spread(x):
        """The same numbers as every second row and column of an array of NaN, heads before rows."""
        room = np.full((x.shape[0], x.shape[2], 2 * x.shape[1], 2 * x.shape[3]), np.nan, x.dtype)
        view = room.swapaxes(1, 2)[:, ::2, :, 1::2]
        view[...] = x
        return view

    same_bits(with_lse(api, *(spread(x) for x in (q, k, v))), want)


# ------------------------------------------------------------------------------------------------ scores
def test_the_logarithm_is_natural(api):
    """pytorch/pytorch#181645, vllm-project/vllm PR#28840: in base 2."""
    q, k, v = np.zeros((1, 1, 1, 4)), np.zeros((1, 37, 1, 4)), np.zeros((1, 37, 1, 4))
    np.testing.assert_allclose(with_lse(api, q, k, v)[1], log(37), rtol=1e-14)


def test_softcap_is_applied_and_bites(api):
    """sgl-project/sglang#33915: ignored, and the test's scores were too small to show it."""
    q, k, v = qkv(1, 20, 30)
    for cap in (1.0, 15.0):
        bites = q * np.float32(4 * cap / 4)  # scores of a few times the cap
        assert_right(api, bites, k, v, softcap=cap)
        exact, plain = dense(bites, k, v, softcap=cap)[0], dense(bites, k, v)[0]
        assert np.abs(exact - plain).max() > 0.1 * np.abs(exact).max()


def test_alibi_is_a_distance_to_the_querys_own_key_and_a_penalty(api):
    """Dao-AILab/flash-attention#907, vllm PR#945, keras-hub PR#2862, attention-gym PR#86: shift, sign, off by one."""
    slopes = np.array([0.5, 0.125], np.float32)
    for lengths in ((1, 30), (5, 30), (30, 30), (30, 5)):
        for causal in (False, True):
            assert_right(api, *qkv(1, *lengths), alibi_slopes=slopes, causal=causal)


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_groups_of_any_size_and_values_of_another_width(api, group):
    """Dao-AILab/flash-attention PR#2528, PR#2553, native-sparse-attention-triton#27: heads interleaved, Dv != D."""
    assert_right(api, *qkv(2, 5, 9, 2 * group, 2, head_dim=6, value_dim=11), causal=True)


# ------------------------------------------------------------------------------------------------ sizes
def test_page_numbers_that_do_not_exist_are_refused(api):
    """Dao-AILab/flash-attention#2709, PR#2711: read whatever lay there."""
    q, k, v = qkv(1, 1, 32)
    pages = [x.reshape(4, 8, 2, 8) for x in (k, v)]
    for wrong in (-1, 4, 2**31 - 1):
        table = np.array([[0, wrong, 2, 3]], np.int32)
        assert refused(lambda table=table: api.flash_attn_with_kvcache(q, *pages, block_table=table))
        assert refused(
            lambda table=table: api.flash_attn_varlen_func(q[0], *pages, [0, 1], [0, 9], 1, 9, block_table=table)
        )
        api.flash_attn_with_kvcache(q, *pages, cache_seqlens=8, block_table=table)  # its first page alone is used


@pytest.mark.parametrize("page_size", [1, 2, 7, 128, 129, 256, 512])
def test_any_page_size(api, page_size):
    """flashinfer-ai/flashinfer#4347: wrong for more than 128 keys a page."""
    q, k, v = qkv(1, 2, 300)
    count = -(-300 // page_size)
    table = np.random.default_rng(0).permutation(count)[None]
    pages = [np.full((count, page_size, *x.shape[2:]), np.nan, np.float32) for x in (k, v)]
    for page, x in zip(pages, (k, v), strict=True):
        for key in range(300):
            page[table[0, key // page_size], key % page_size] = x[0, key]
    got = api.flash_attn_with_kvcache(q, *pages, cache_seqlens=300, block_table=table, causal=True)
    same_bits([got], [api.flash_attn_func(q, k, v, causal=True)])


@pytest.mark.parametrize("head_dim", [1, 3, 59, 111])
def test_lengths_and_head_dim_need_not_be_powers_of_two(api, head_dim):
    """66RING/tiny-flash-attention#12."""
    for lengths in ((1, 1), (3, 7), (33, 67), (7, 515)):
        assert_right(api, *qkv(1, *lengths, head_dim=head_dim), causal=lengths[0] > 1)


def test_the_same_call_gives_the_same_bits(api):
    """Dao-AILab/flash-attention#414, #429, #988, #1245: dQ was added up in any order; and alone or in a batch."""
    q, k, v = qkv(2, 70, 90, 4, 2)
    options = {"causal": True, "dropout_p": 0.2}
    out, lse = with_lse(api, q, k, v, **options)
    runs = [
        (*with_lse(api, q, k, v, **options), *api.flash_attn_backward(out, q, k, v, out, lse, **options))
        for _ in range(3)
    ]
    for run in runs[1:]:
        same_bits(run, runs[0])


# ------------------------------------------------------------------------------------------------ the bugs, put back
MUTANTS = {  # what is wrong: (test, file, line, what it becomes)
    "top left": (test_causal_is_bottom_right_and_rows_above_the_first_key_are_zero, "options",
        "Band(left, 0 if causal else right)", "Band(left, 0 if causal else right, top_left=True)"),
    "plus infinity": (test_the_logarithm_of_an_empty_row_is_minus_infinity_and_lies_at_its_query_head, "online",
        "m + xp.log(l)", "xp.where(l == 0, xp.inf, m + xp.log(l))"),
    "heads interleaved in L": (test_the_logarithm_of_an_empty_row_is_minus_infinity_and_lies_at_its_query_head, "call",
        "log[...] = found.reshape(log.shape)", "log[...] = found.swapaxes(0, 1).reshape(log.shape)"),
    "finite": (test_no_finite_number_stands_for_minus_infinity, "scores",
        "s.dtype.type(-np.inf)", "s.dtype.type(-5e4)"),
    "maximum of nothing is 0": (test_the_running_maximum_of_hidden_keys_is_not_zero, "online",
        "return Partial(m, l, weigh", "return Partial(finite(m), l, weigh"),
    "L of empty rows": (test_backward_of_rows_that_see_nothing_is_zero_whatever_their_gradient, "gradient",
        "finite(logs[..., rows, None])", "logs[..., rows, None]"),
    "0 * NaN": (test_nan_in_unused_slots_of_a_cache_never_leaks, "scores",
        "if seen is None or xp.isfinite(out).all():", "if True:"),
    "added, not set": (test_garbage_in_hidden_keys_never_leaks, "scores",
        "xp.copyto(s, s.dtype.type(-np.inf), where=~seen)", "s += xp.where(seen, 0, -np.inf).astype(s.dtype)"),
    "keys twice": (test_the_last_tile_of_keys_counts_as_many_as_there_are, "scores",
        "yield slice(first, min", "yield slice(max(min(first, stop - TILE_KV), 0), min"),
    "0 * stale NaN": (test_pages_before_the_window_are_not_read, "scores",
        "if seen is None or xp.isfinite(out).all():", "if True:"),
    "whole pages": (test_lengths_just_past_a_page, "pages",
        ".arange(start, stop)", ".arange(start, -(-stop // page_size) * page_size)"),
    "one key less": (test_a_window_of_all_keys_is_causal_bit_for_bit, "options",
        "else side for side in sides", "else max(side - 1, 0) for side in sides"),
    "clamped": (test_a_window_wider_than_the_keys_hides_only_what_it_says, "scores",
        "return self.problem.band",
        "b = self.problem.band; return Band(b.left, b.right if b.right is None else min(b.right, self.kv_len - 1))"),
    "one key more": (test_a_window_of_one_sees_itself_alone, "options",
        "else side for side in sides", "else side + 1 for side in sides"),
    "not shifted": (test_exactly_the_rows_outside_the_band_are_zero, "scores",
        "shift = 0 if self.band.top_left else self.kv_len - self.q_len", "shift = 0"),
    "the maximum rounded otherwise": (test_equal_and_huge_scores_are_a_mean, "online",
        "s -= finite(m)", "s -= finite(m) * m.dtype.type(1 + 2.0**-22)"),
    "infinity minus infinity": (test_additive_masks_of_the_lowest_number_and_of_minus_infinity, "online",
        "s -= finite(m)", "s -= m"),
    "an empty split": (test_any_number_of_splits_of_any_pages, "online",
        "base = finite(m)", "base = m"),
    "normalised twice": (test_any_number_of_splits_of_any_pages, "online",
        "parts.append(reduce(merge, tiles, _nothing(scaled, v)))",
        "one = reduce(merge, tiles, _nothing(scaled, v)); parts.append(one._replace(acc=one.acc / one.l))"),
    "0 for an empty sequence": (test_an_empty_sequence_has_its_own_slot, "online",
        "m + xp.log(l)", "xp.where(l == 0, 0, m + xp.log(l))"),
    "rows before heads": (test_outputs_are_contiguous_and_inputs_may_be_views, "call",
        "x.reshape(length, kv_heads, heads // kv_heads, columns).transpose(1, 2, 0, 3)",
        "x.reshape(kv_heads, heads // kv_heads, length, columns)"),
    "base 2": (test_the_logarithm_is_natural, "online", "xp.log(l)", "xp.log2(l)"),
    "softcap ignored": (test_softcap_is_applied_and_bites, "scores", "if cap := self.problem.softcap", "if cap := 0.0"),
    "softcap after the scale of 1": (test_softcap_is_applied_and_bites, "scores", "s *= cap", "s *= 1"),
    "a bonus": (test_alibi_is_a_distance_to_the_querys_own_key_and_a_penalty, "scores",
        "s -= self.slopes", "s += self.slopes"),
    "from the first key": (test_alibi_is_a_distance_to_the_querys_own_key_and_a_penalty, "scores",
        "[:, None] + self.kv_len - self.q_len", "[:, None]"),
    "heads interleaved": (test_groups_of_any_size_and_values_of_another_width, "call",
        "x.reshape(length, kv_heads, heads // kv_heads, columns).transpose(1, 2, 0, 3)",
        "x.reshape(length, heads // kv_heads, kv_heads, columns).transpose(2, 1, 0, 3)"),
    "pages not checked": (test_page_numbers_that_do_not_exist_are_refused, "pages", "if wrong:", "if False:"),
    "pages of 128": (test_any_page_size, "pages", "row[keys // page_size], keys % page_size",
        "row[keys // page_size], keys % min(page_size, 128)"),
    "even lengths": (test_lengths_and_head_dim_need_not_be_powers_of_two, "scores",
        "min(first + TILE_KV, stop))", "max(min(first + TILE_KV, stop) // 2 * 2, first + 1))"),
    "any decision": (test_the_same_call_gives_the_same_bits, "scores",
        "keep_mask(self.problem, head, q, k)", "np.random.random((len(q), len(k))).round()"),
}  # fmt: skip
ALSO = {"heads interleaved": {"group": 3}, "pages of 128": {"page_size": 256},
        "even lengths": {"head_dim": 3}}  # fmt: skip


def changed(folder, file, old, new):
    """The package `ioaware.functional` with one line changed."""
    source = Path(ours.__file__).parent
    for path in source.glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("from ..", "from ioaware.")
        if path.stem == file:
            assert text.count(old) == 1, (file, old, text.count(old))
            text = text.replace(old, new)
        (folder / path.name).write_text(text, encoding="utf-8")
    name = f"changed_{folder.name}"
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("what", MUTANTS)
def test_a_bug_put_back_is_noticed(what, tmp_path):
    test, file, old, new = MUTANTS[what]
    with pytest.raises(AssertionError):
        test(changed(tmp_path, file, old, new), **ALSO.get(what, {}))


def test_every_test_has_a_mutant():
    tests = {f for name, f in globals().items() if name.startswith("test_") and "api" in f.__code__.co_varnames}
    assert tests == {test for test, *_ in MUTANTS.values()}
