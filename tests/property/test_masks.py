"""Mask statistics against the element mask, written out: the closed forms share no code with what checks them."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ioaware.masks import Band, Statistics

edges = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 70))
bands = st.builds(Band, left=edges, right=edges)
lengths = st.integers(1, 60)
tiles = st.one_of(st.integers(1, 5), st.integers(1, 70))  # longer than the sequence too


def element_mask(band, q_len, kv_len):
    """Query q sees key k iff -left <= k - (q + kv_len - q_len) <= right, element by element."""
    mask = np.zeros((q_len, kv_len), bool)
    for q in range(q_len):
        for k in range(kv_len):
            gap = k - (q + kv_len - q_len)
            mask[q, k] = (band.left is None or gap >= -band.left) and (band.right is None or gap <= band.right)
    return mask


def enumerated(mask, tile_q, tile_kv):
    """The four sums over tiles that hold at least one visible pair."""
    shapes = [
        mask[i : i + tile_q, j : j + tile_kv].shape
        for i in range(0, mask.shape[0], tile_q)
        for j in range(0, mask.shape[1], tile_kv)
        if mask[i : i + tile_q, j : j + tile_kv].any()
    ]
    return Statistics(len(shapes), sum(a for a, _ in shapes), sum(b for _, b in shapes), sum(a * b for a, b in shapes))


def check_statistics(band, q_len, kv_len, tile_q, tile_kv):
    """What the closed forms say is what enumeration finds."""
    assert band.statistics(q_len, kv_len, tile_q, tile_kv) == enumerated(
        element_mask(band, q_len, kv_len), tile_q, tile_kv
    )


@given(bands, lengths, lengths, tiles, tiles)
@example(Band(right=0), 60, 60, 2, 3)
@example(Band(right=0), 60, 7, 1, 3)  # the first queries see nothing
@example(Band(left=0, right=0), 7, 60, 5, 1)
@example(Band(left=2), 60, 60, 1, 7)
@example(Band(left=3, right=0), 59, 31, 4, 6)
def test_statistics_are_what_enumeration_finds(band, q_len, kv_len, tile_q, tile_kv):
    check_statistics(band, q_len, kv_len, tile_q, tile_kv)


@given(bands, lengths, lengths)
def test_pairs_and_seen_rows_are_what_enumeration_finds(band, q_len, kv_len):
    mask = element_mask(band, q_len, kv_len)
    assert band.pairs(q_len, kv_len) == mask.sum()
    assert band.seen_rows(q_len, kv_len) == (mask.any(axis=1).sum(), mask.any(axis=0).sum())


@given(bands, lengths, lengths)
def test_the_element_mask_is_its_definition(band, q_len, kv_len):
    q, k = np.arange(q_len), np.arange(kv_len)
    expected = element_mask(band, q_len, kv_len)
    np.testing.assert_array_equal(band.sees(q[:, None], k[None], q_len, kv_len), expected)
    np.testing.assert_array_equal(band.sees(q[None], k[:, None], q_len, kv_len), expected.T)


@given(bands, lengths, lengths, tiles, tiles)
def test_a_transposed_mask_has_transposed_statistics(band, q_len, kv_len, tile_q, tile_kv):
    """k - q - s becomes q - k + s: the edges change places, and rows and columns with them."""
    tiles_, rows, cols, cells = band.statistics(q_len, kv_len, tile_q, tile_kv)
    turned = Band(left=band.right, right=band.left)
    assert turned.statistics(kv_len, q_len, tile_kv, tile_q) == (tiles_, cols, rows, cells)


huge = st.integers(1, 10**15)


@given(bands, huge, huge, st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 9))
def test_finer_tiles_refine_at_any_size(band, q_len, kv_len, tile_q, tile_kv, finer):
    """A tile is visible iff one of its parts is: cutting tiles never shows more cells, nor hides a visible pair."""
    whole = band.statistics(q_len, kv_len, tile_q * finer, tile_kv)
    parts = band.statistics(q_len, kv_len, tile_q, tile_kv)
    assert band.pairs(q_len, kv_len) <= parts.cells <= whole.cells
    assert whole.tiles <= parts.tiles <= finer * whole.tiles
    assert parts.rows <= whole.rows
    assert parts.cols <= finer * whole.cols


@given(bands, huge, huge, st.integers(1, 10**6), st.integers(1, 10**6))
def test_rows_and_columns_bound_each_other_at_any_size(band, q_len, kv_len, tile_q, tile_kv):
    tiles_, rows, cols, cells = band.statistics(q_len, kv_len, tile_q, tile_kv)
    assert tiles_ <= rows <= tile_q * tiles_
    assert tiles_ <= cols <= tile_kv * tiles_
    assert max(rows, cols) <= cells <= min(rows * tile_kv, cols * tile_q)
