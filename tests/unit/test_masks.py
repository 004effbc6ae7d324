"""Masks: every small case by enumeration, and closed forms written by hand where nothing can be enumerated."""

import itertools

import numpy as np
import pytest

from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Band
from tests.property.test_masks import element_mask, enumerated

HUGE = 10**9
CEIL = lambda a, b: -(-a // b)  # noqa: E731


# Every small case


@pytest.mark.parametrize("right", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("left", [None, 0, 1, 2, 4])
def test_every_small_case(left, right):
    band = Band(left, right)
    for q_len, kv_len in itertools.product(range(1, 6), repeat=2):
        mask = element_mask(band, q_len, kv_len)
        for tile_q, tile_kv in itertools.product((1, 2, 3, 4, 7), repeat=2):
            got, want = band.statistics(q_len, kv_len, tile_q, tile_kv), enumerated(mask, tile_q, tile_kv)
            assert got == want, (q_len, kv_len, tile_q, tile_kv)


@pytest.mark.parametrize(("left", "right"), [(None, -1), (-1, None), (-1, 1), (0, -1), (1.0, 0), (None, True)])
def test_a_side_is_a_number_of_keys(left, right):
    """A negative side could hide every key of every query; none of the closed forms is about that."""
    with pytest.raises(InputError, match="the nearest legal value is 0"):
        Band(left, right)


# Closed forms of the full mask, ragged


@pytest.mark.parametrize("q_len", [1, 17, HUGE, HUGE + 7, 10**15])
@pytest.mark.parametrize("kv_len", [1, HUGE - 1, 10**15])
@pytest.mark.parametrize("tiles", [(1, 1), (128, 64), (1000, 7), (10**15, 10**15)])
def test_full(q_len, kv_len, tiles):
    query_tiles, key_tiles = CEIL(q_len, tiles[0]), CEIL(kv_len, tiles[1])
    expected = (query_tiles * key_tiles, q_len * key_tiles, query_tiles * kv_len, q_len * kv_len, query_tiles)
    assert FULL.statistics(q_len, kv_len, *tiles) == expected
    assert FULL.pairs(q_len, kv_len) == q_len * kv_len
    assert FULL.seen_rows(q_len, kv_len) == (q_len, kv_len)


@pytest.mark.parametrize("wide", [Band(10**16, 10**16), Band(10**16), Band(right=10**16)])
@pytest.mark.parametrize("tiles", [(1, 1), (128, 64), (1000, 7)])
def test_a_band_wider_than_the_sequence_is_full(wide, tiles):
    assert wide.statistics(HUGE + 3, HUGE - 5, *tiles) == FULL.statistics(HUGE + 3, HUGE - 5, *tiles)


# Closed forms of the causal mask


@pytest.mark.parametrize("n", [1, 2, 10**3, HUGE, 10**15])
def test_causal_pairs_of_a_square(n):
    """Query q sees q + 1 keys: 1 + 2 + ... + N. Only the last one sees the last key."""
    assert CAUSAL.pairs(n, n) == n * (n + 1) // 2
    assert CAUSAL.statistics(n, n, 1, 1) == (*(n * (n + 1) // 2,) * 4, 1)
    assert CAUSAL.seen_rows(n, n) == (n, n)


@pytest.mark.parametrize(("q_len", "kv_len"), [(1, HUGE), (HUGE, HUGE + 5), (10**6, 10**15)])
def test_causal_pairs_with_a_past(q_len, kv_len):
    """Bottom-right aligned: every query sees the kv_len - q_len keys of the past, and then 1, 2, ..., q_len more."""
    assert CAUSAL.pairs(q_len, kv_len) == q_len * (kv_len - q_len) + q_len * (q_len + 1) // 2
    assert CAUSAL.seen_rows(q_len, kv_len) == (q_len, kv_len)


@pytest.mark.parametrize(("q_len", "kv_len"), [(HUGE, 1), (HUGE + 5, HUGE), (10**15, 10**6)])
def test_causal_pairs_of_more_queries_than_keys(q_len, kv_len):
    """The first q_len - kv_len queries are before every key."""
    assert CAUSAL.pairs(q_len, kv_len) == kv_len * (kv_len + 1) // 2
    assert CAUSAL.seen_rows(q_len, kv_len) == (kv_len, kv_len)


@pytest.mark.parametrize("tile_q", [1, 16, 128, 4096])
@pytest.mark.parametrize("tile_kv", [1, 64, 128, 1024])
@pytest.mark.parametrize("n", [2**13, 2**30, 2**49])
def test_causal_tiles_where_everything_divides(n, tile_q, tile_kv):
    """Along the diagonal a step is the larger tile: N (N + max(B_r, B_c)) / (2 B_r B_c) tiles, all of them whole.

    What is below the steps is full: N (N - max) / (2 B_r B_c) tiles, and of a step the one of a single row or key that
    ends at the diagonal.
    """
    larger = max(tile_q, tile_kv)
    tiles, full = (n * (n + sign * larger) // (2 * tile_q * tile_kv) for sign in (1, -1))
    expected = (tiles, tile_q * tiles, tile_kv * tiles, tile_q * tile_kv * tiles, larger // tile_q)
    assert CAUSAL.statistics(n, n, tile_q, tile_kv) == expected
    assert CAUSAL.full_tiles(n, n, tile_q, tile_kv) == full + (n // larger) * (min(tile_q, tile_kv) == 1)


# Closed forms of windows


@pytest.mark.parametrize("n", [10, HUGE, 10**15])
@pytest.mark.parametrize("window", [0, 1, 9])
def test_a_causal_window(n, window):
    """w + 1 keys per query, but the first queries lack w, w - 1, ..., 1 of them."""
    assert Band(window, 0).pairs(n, n) == n * (window + 1) - window * (window + 1) // 2


@pytest.mark.parametrize("n", [10, HUGE, 10**15])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 2), (9, 9), (4, 0)])
def test_a_symmetric_window_lacks_a_triangle_at_each_end(n, left, right):
    lacking = left * (left + 1) // 2 + right * (right + 1) // 2
    assert Band(left, right).pairs(n, n) == n * (left + right + 1) - lacking


@pytest.mark.parametrize("tile", [1, 64, 1000])
def test_a_diagonal_of_square_tiles(tile):
    """left = right = 0 with square tiles: one tile per query tile, the last one ragged."""
    n = HUGE + 1
    last = n - (CEIL(n, tile) - 1) * tile
    cells = (CEIL(n, tile) - 1) * tile**2 + last**2
    assert Band(0, 0).statistics(n, n, tile, tile) == (CEIL(n, tile), n, n, cells, 1)


def test_a_window_of_whole_tiles():
    """left = 4 B, right = 0, square tiles B: five tiles per query tile, fewer for the first four; three are full."""
    b, n = 128, 128 * 10**9
    tiles = 5 * (n // b) - (4 + 3 + 2 + 1)
    assert Band(4 * b, 0).statistics(n, n, b, b) == (tiles, b * tiles, b * tiles, b * b * tiles, 1)
    assert Band(4 * b, 0).full_tiles(n, n, b, b) == 3 * (n // b) - (3 + 2 + 1)


# Identities where nothing can be enumerated


BANDS = [FULL, CAUSAL, Band(5, 0), Band(10**6, 10**3), Band(left=7), Band(right=10**8)]


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize(("q_len", "kv_len"), [(HUGE, HUGE), (HUGE + 13, HUGE // 2), (10**15, 10**15 - 1)])
def test_single_elements_are_pairs(band, q_len, kv_len):
    assert band.statistics(q_len, kv_len, 1, 1)[:4] == (band.pairs(q_len, kv_len),) * 4
    assert band.full_tiles(q_len, kv_len, 1, 1) == band.pairs(q_len, kv_len)


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize("tile", [2, 64, 999])
def test_tiles_of_one_row(band, tile):
    """Tiles that are one query high: rows = tiles, cells = cols; and one key wide: cols = tiles, cells = rows."""
    high = band.statistics(HUGE + 1, HUGE - 1, 1, tile)
    wide = band.statistics(HUGE + 1, HUGE - 1, tile, 1)
    assert (high.rows, high.cells) == (high.tiles, high.cols)
    assert (wide.cols, wide.cells) == (wide.tiles, wide.rows)


@pytest.mark.parametrize("band", BANDS, ids=str)
def test_one_tile_holds_everything(band):
    assert band.statistics(HUGE, HUGE, HUGE, HUGE) == (1, HUGE, HUGE, HUGE**2, 1)
    assert band.statistics(HUGE, HUGE, 10 * HUGE, 10 * HUGE) == (1, HUGE, HUGE, HUGE**2, 1)
    assert band.full_tiles(HUGE, HUGE, HUGE, HUGE) == (band == FULL)


def test_results_are_exact_integers_of_any_size():
    """Causal, tiles of 3 x 2, N = 6 k + 1: query tiles 2 m and 2 m + 1 see 3 m + 2 and 3 m + 3 key tiles."""
    k = (10**15 - 1) // 6
    n = 6 * k + 1
    got = CAUSAL.statistics(n, n, 3, 2)
    full = (2 + 3) * k + (3 + 3) * (k * (k - 1) // 2)  # tiles of three rows; their key tiles are full too
    last = 3 * k + 1  # one row, which sees every key
    assert got == (full + last, 3 * full + last, 2 * full + n, 6 * full + n, 1)
    assert all(type(x) is int for x in got)
    assert got.cells > 2**63


# Names


@pytest.mark.parametrize(
    ("band", "text"), [(FULL, "full"), (CAUSAL, "causal"), (Band(4, 0), "window:4,0"), (Band(left=4), "window:4,-1")]
)
def test_names(band, text):
    assert str(band) == text


def test_masks_are_values():
    assert Band(3, 0) == Band(left=3, right=0)
    assert len({Band(3, 0), Band(left=3, right=0), CAUSAL, Band(right=0)}) == 2


def test_the_element_mask_broadcasts():
    q, k = np.arange(3)[:, None], np.arange(5)[None]
    assert CAUSAL.sees(q, k, 3, 5).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert Band(1, 0).sees(q, k, 3, 5).tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert FULL.sees(q, k, 3, 5).all()
