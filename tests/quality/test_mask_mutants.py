"""Brute force catches wrong closed forms of bands, wrong rectangles of every other kind, and wrong sweeps."""

import numpy as np
import pytest

from ioaware.masks import (
    CAUSAL,
    FULL,
    Band,
    BigBird,
    Blocks,
    Chunks,
    Custom,
    Documents,
    Fixed,
    Longformer,
    Prefix,
    Sinks,
    Strided,
    band,
    enumeration,
    rectangles,
    sweep,
)
from tests.property.test_mask_kinds import check_mask, forget
from tests.property.test_masks import check_statistics
from tests.quality.test_mutants import catches
from tests.strategies_masks import diagonals


@pytest.fixture(autouse=True)
def _cold():
    """Sums are cached: a mutant must neither read nor leave any."""

    def clear():
        for cached in (band._band, band._full, band._turns):
            cached.cache_clear()
        forget()

    clear()
    yield
    clear()


# Bands: closed forms

RIGHT = {"_staircase": band._staircase, "_floor_sum": band._floor_sum, "_below": band._below, "_sides": Band._sides}


def one_early(n, a, b, m, full, top):
    return RIGHT["_staircase"](n, a, b - 1, m, full, top)


def one_late(n, a, b, m, full, top):
    return RIGHT["_staircase"](n, a, b + 1, m, full, top)


def never_full(n, a, b, m, full, top):
    return RIGHT["_staircase"](n, a, b, m, full + m, top)


def forgets_the_ragged_end(n, a, b, m, full, top):
    return RIGHT["_staircase"](n, a, b, m, full, top)[0], 0


def below_zero(n, a, b, m, full, top):
    """Without the clamp: tiles before the first key are counted as negative."""
    at_top = min(max(-(-(full - b) // a), 0), n)
    return sum((a * i + b) // m for i in range(at_top)) + (n - at_top) * top, n - at_top


def wrong_in_long_runs(n, m, a, b):
    """Right for up to three tiles in a row, which is all that short sequences have."""
    return RIGHT["_floor_sum"](n, m, a, b) + (n > 3)


def drops_the_offset(n, m, a, b):
    return RIGHT["_floor_sum"](n, m, a, b % m if b >= 2 * m else b)


def one_more_below(n, a, b, limit):
    return RIGHT["_below"](n, a, b, limit + 1)


def always_bottom_right(self, q_len, kv_len, spare=0):
    return RIGHT["_sides"](Band(self.left, self.right, pack=self.pack), q_len, kv_len, spare)


def parts_of_keys_are_keys(self, q_len, kv_len, spare=0):
    """A tile counts as full only if every row of a packed query sees the same part of a key."""
    return RIGHT["_sides"](self, q_len, kv_len)


BANDS = [
    (mask, q_len * mask.pack, kv_len, tile_q, tile_kv)
    for mask in (CAUSAL, Band(5, 0), Band(2, 7), Band(left=3), Band(4, 1, top_left=True), Band(5, 0, pack=3))
    for q_len, kv_len in ((40, 40), (17, 40), (40, 17))
    for tile_q, tile_kv in ((1, 1), (3, 5), (8, 8), (7, 2), (50, 50))
]


def test_bands_are_right():
    assert not catches(check_statistics, BANDS)


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        *((band, "_staircase", f) for f in (one_early, one_late, never_full, forgets_the_ragged_end, below_zero)),
        *((band, "_floor_sum", f) for f in (wrong_in_long_runs, drops_the_offset)),
        (band, "_below", one_more_below),
        *((Band, "_sides", f) for f in (always_bottom_right, parts_of_keys_are_keys)),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_brute_force_refutes_a_wrong_band(owner, name, mutant, monkeypatch):
    monkeypatch.setattr(owner, name, mutant)
    assert catches(check_statistics, BANDS)


# Every other kind: rectangles

MATRIX = np.arange(36).reshape(6, 6) % 5 < 2  # blocks below the diagonal, on it, and above
KINDS = [
    Sinks(3, 6), Prefix(7), Longformer(4, 3), Chunks(7), Fixed(6, 2), Strided(3, 2), BigBird(4, random=1),
    BigBird(4, random=1, band=Band(9, 2)), Documents((5, 9, 1, 14, 11)), Documents((5, 9, 1, 14, 11), CAUSAL),
    Blocks.of_matrix(MATRIX, 7, 7), Blocks.of_matrix(MATRIX, 7, 7, CAUSAL),
]  # fmt: skip
TILES = [(3, 5), (8, 8), (7, 2), (1, 9), (9, 1), (50, 50)]


def cases(mask):
    return [(mask.packed(pack), 40 * pack, 40, *tiles) for pack in (1, 2) for tiles in TILES]


def one_key_less(p):
    return p._replace(k1=p.k1 - 1)


def one_query_late(p):
    return p._replace(q0=p.q0 + 1)


def the_first_one_is_lost(p):
    return p.where(np.arange(p.q0.size) > 0)


def not_to_the_own_key(p):
    return p._replace(above=p.above - 1)


@pytest.mark.parametrize("mutant", [one_key_less, one_query_late, the_first_one_is_lost, not_to_the_own_key])
@pytest.mark.parametrize("mask", KINDS, ids=str)
def test_brute_force_refutes_wrong_rectangles(mask, mutant, monkeypatch):
    right = type(mask).pieces
    assert not catches(check_mask, cases(mask))
    monkeypatch.setattr(type(mask), "pieces", lambda self, q, kv: mutant(right(self, q, kv)))
    forget()
    caught = catches(check_mask, cases(mask))
    assert caught or (mutant is not_to_the_own_key and sees_all_of_its_rectangles(mask))


def sees_all_of_its_rectangles(mask):
    """Nothing cuts them: bounds of a band are too wide to matter."""
    return getattr(mask, "band", None) == FULL


# Sweeps


def no_ragged_height(self, tile):
    return np.full_like(tile, self.tile)


def end_tile_forgotten(self, begin, end):
    return begin * self.pack // self.tile, end * self.pack // self.tile


def touched_is_enough(self, begin, end):
    return self.touched(begin, end)


def one_row_is_one_position(self, tile):
    first = tile * self.tile
    return first // self.pack, first // self.pack


def the_ragged_end_is_partial(self, begin, end):
    return -(-begin * self.pack // self.tile), end * self.pack // self.tile


def rows_before_a_piece_see_it(self):
    return self


def counted_twice(pieces, outer, inner):
    """Intervals that overlap are not merged."""
    for tile, begin, end in RIGHT_SEEN(pieces, outer, inner):
        for one in zip(tile, begin, end, strict=True):
            yield sweep.Seen(*(np.array([x]) for x in one))


def walks_forward(tile, first, last, keys):
    return RIGHT_KEPT(2 * tile, first, last, keys)


def also_below_zero(n):
    return n * (n + 1) // 2


RIGHT_SEEN, RIGHT_KEPT = sweep.seen, sweep.kept


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (sweep.Axis, "heights", no_ragged_height),
        (sweep.Axis, "short", 0),
        (sweep.Axis, "touched", end_tile_forgotten),
        (sweep.Axis, "inside", touched_is_enough),
        (sweep.Axis, "inside", the_ragged_end_is_partial),
        (sweep.Axis, "positions", one_row_is_one_position),
        (sweep.Pieces, "seeing", rows_before_a_piece_see_it),
        (sweep, "seen", counted_twice),
        (sweep, "kept", walks_forward),
        (rectangles, "_ramp", also_below_zero),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_brute_force_refutes_a_wrong_sweep(owner, name, mutant, monkeypatch):
    assert not catches(check_mask, SWEPT)
    monkeypatch.setattr(owner, name, mutant)
    forget()
    assert catches(check_mask, SWEPT)


SWEPT = [case for mask in (Longformer(4, 3), Documents((5, 9, 1, 14, 11), CAUSAL), KINDS[-1]) for case in cases(mask)]


def test_brute_force_refutes_a_wrong_enumeration(monkeypatch):
    assert not catches(check_mask, cases(Custom(diagonals)))
    monkeypatch.setattr(enumeration, "any_of_tiles", enumeration.all_of_tiles)
    assert catches(check_mask, cases(Custom(diagonals)))
