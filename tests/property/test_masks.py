"""Bands against the element mask, written out: the closed forms share no code with what checks them."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ioaware.masks import Band, Statistics

edges = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 70))
bands = st.builds(Band, left=edges, right=edges)
any_bands = st.builds(Band, left=edges, right=edges, top_left=st.booleans(), pack=st.integers(1, 4))
lengths = st.integers(1, 60)
tiles = st.one_of(st.integers(1, 5), st.integers(1, 70))  # longer than the sequence too


def element_mask(band, q_len, kv_len):
    """Row r of query q = r // pack sees key k iff -left <= k - p <= right, element by element.

    Aligned bottom-right, p = q + kv_len - queries, so that the last query's own key is the last one; top-left, p = q.
    """
    mask = np.zeros((q_len, kv_len), bool)
    for row in range(q_len):
        for k in range(kv_len):
            gap = k - row // band.pack - (0 if band.top_left else kv_len - q_len // band.pack)
            mask[row, k] = (band.left is None or gap >= -band.left) and (band.right is None or gap <= band.right)
    return mask


def enumerated(mask, tile_q, tile_kv):
    """The five sums over tiles that hold at least one visible pair."""
    last = (mask.shape[1] - 1) // tile_kv * tile_kv
    shapes = [
        (*mask[i : i + tile_q, j : j + tile_kv].shape, j == last)
        for i in range(0, mask.shape[0], tile_q)
        for j in range(0, mask.shape[1], tile_kv)
        if mask[i : i + tile_q, j : j + tile_kv].any()
    ]
    rows, cols, cells = (sum(f(a, b) for a, b, _ in shapes) for f in (lambda a, b: a, lambda a, b: b, int.__mul__))
    return Statistics(len(shapes), rows, cols, cells, sum(at_last for *_, at_last in shapes))


def enumerated_full(mask, tile_q, tile_kv):
    """How many tiles hold visible pairs only."""
    corners = ((i, j) for i in range(0, mask.shape[0], tile_q) for j in range(0, mask.shape[1], tile_kv))
    return sum(mask[i : i + tile_q, j : j + tile_kv].all() for i, j in corners)


def enumerated_turns(mask, tile_q, tile_kv):
    """Key tiles, and their rows, that the walk before has ended with: visit them all, remember the last one."""
    tiles = rows = 0
    here = None
    for n, i in enumerate(range(0, mask.shape[0], tile_q)):
        seen = [j for j in range(0, mask.shape[1], tile_kv) if mask[i : i + tile_q, j : j + tile_kv].any()]
        for j in seen[::-1] if n % 2 else seen:
            tiles += j == here
            rows += (j == here) * min(tile_kv, mask.shape[1] - j)
            here = j
    return tiles, rows


def check_tiles(mask, elements, tile_q, tile_kv):
    """What a mask says about tiles is what enumeration of its elements finds."""
    sizes = (*elements.shape, tile_q, tile_kv)
    assert mask.statistics(*sizes) == enumerated(elements, tile_q, tile_kv)
    assert mask.full_tiles(*sizes) == enumerated_full(elements, tile_q, tile_kv)
    assert mask.turns(*sizes) == enumerated_turns(elements, tile_q, tile_kv)


def check_statistics(band, q_len, kv_len, tile_q, tile_kv):
    """What the closed forms say is what enumeration finds."""
    check_tiles(band, element_mask(band, q_len, kv_len), tile_q, tile_kv)


@given(bands, lengths, lengths, tiles, tiles)
@example(Band(right=0), 60, 60, 2, 3)
@example(Band(right=0), 60, 7, 1, 3)  # the first queries see nothing
@example(Band(left=0, right=0), 7, 60, 5, 1)
@example(Band(left=2), 60, 60, 1, 7)
@example(Band(left=3, right=0), 59, 31, 4, 6)
def test_statistics_are_what_enumeration_finds(band, q_len, kv_len, tile_q, tile_kv):
    check_statistics(band, q_len, kv_len, tile_q, tile_kv)


@given(any_bands, st.integers(1, 20), lengths, tiles, tiles)
@example(Band(left=2, right=1, top_left=True), 20, 3, 2, 2)  # the last queries see nothing
@example(Band(left=1, right=0, pack=3), 20, 17, 4, 5)  # tiles cut the rows of a query
def test_packed_rows_and_either_alignment(band, queries, kv_len, tile_q, tile_kv):
    check_statistics(band, queries * band.pack, kv_len, tile_q, tile_kv)


@given(any_bands, lengths, lengths)
def test_pairs_and_seen_rows_are_what_enumeration_finds(band, q_len, kv_len):
    mask = element_mask(band, q_len, kv_len)
    assert band.pairs(q_len, kv_len) == mask.sum()
    assert band.seen_rows(q_len, kv_len) == (mask.any(axis=1).sum(), mask.any(axis=0).sum())


@given(any_bands, lengths, lengths)
def test_the_element_mask_is_its_definition(band, q_len, kv_len):
    q, k = np.arange(q_len), np.arange(kv_len)
    expected = element_mask(band, q_len, kv_len)
    np.testing.assert_array_equal(band.sees(q[:, None], k[None], q_len, kv_len), expected)
    np.testing.assert_array_equal(band.sees(q[None], k[:, None], q_len, kv_len), expected.T)


@given(bands, lengths, lengths, tiles, tiles)
def test_a_transposed_mask_has_transposed_statistics(band, q_len, kv_len, tile_q, tile_kv):
    """k - q - s becomes q - k + s: the edges change places, and rows and columns with them."""
    tiles_, rows, cols, cells, _ = band.statistics(q_len, kv_len, tile_q, tile_kv)
    turned = Band(left=band.right, right=band.left)
    assert turned.statistics(kv_len, q_len, tile_kv, tile_q)[:4] == (tiles_, cols, rows, cells)
    assert turned.full_tiles(kv_len, q_len, tile_kv, tile_q) == band.full_tiles(q_len, kv_len, tile_q, tile_kv)


huge = st.integers(1, 10**15)


@given(any_bands, huge, huge, st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 9))
def test_finer_tiles_refine_at_any_size(band, q_len, kv_len, tile_q, tile_kv, finer):
    """A tile is visible iff one of its parts is: cutting tiles never shows more cells, nor hides a visible pair.

    It is full iff all of its parts are: cutting tiles never makes a full one partial.
    """
    q_len *= band.pack
    whole = band.statistics(q_len, kv_len, tile_q * finer, tile_kv)
    parts = band.statistics(q_len, kv_len, tile_q, tile_kv)
    assert band.pairs(q_len, kv_len) <= parts.cells <= whole.cells
    assert whole.tiles <= parts.tiles <= finer * whole.tiles
    assert parts.rows <= whole.rows
    assert parts.cols <= finer * whole.cols
    full, full_parts = (band.full_tiles(q_len, kv_len, height, tile_kv) for height in (tile_q * finer, tile_q))
    assert full <= full_parts <= parts.tiles
    assert full_parts == parts.tiles or parts.cells > band.pairs(q_len, kv_len)


@given(bands, huge, huge, st.integers(1, 10**6), st.integers(1, 10**6))
def test_rows_and_columns_bound_each_other_at_any_size(band, q_len, kv_len, tile_q, tile_kv):
    tiles_, rows, cols, cells, last = band.statistics(q_len, kv_len, tile_q, tile_kv)
    assert last <= tiles_ <= rows <= tile_q * tiles_
    assert tiles_ <= cols <= tile_kv * tiles_
    assert max(rows, cols) <= cells <= min(rows * tile_kv, cols * tile_q)
