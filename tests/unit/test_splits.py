"""How many splits: the rules by brute force in exact fractions, and beside the floats that the C code compares."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

import ioaware as io
from ioaware.errors import InputError
from ioaware.shipped import flash2_splits, flash3_splits
from ioaware.splits import L2_BYTES, num_splits_flash2, num_splits_flash3, should_pack_gqa

F = np.float32


def eligible(kv_blocks, splits):
    """Not the same work as one split less: 64 blocks in 12 splits are 6 x 11 - 2, so 11 splits anyway."""
    return splits == 1 or ceil(kv_blocks / splits) != ceil(kv_blocks / (splits - 1))


def efficiencies(blocks, slots, kv_blocks, *, all_eligible):
    waves = {s: Fraction(blocks * s, slots) for s in range(1, min(128, slots, kv_blocks) + 1)}
    return {s: w / ceil(w) for s, w in waves.items() if all_eligible or eligible(kv_blocks, s)}


def by_definition(blocks, slots, kv_blocks, *, all_eligible=False):
    if blocks >= Fraction(4, 5) * slots or (all_eligible and kv_blocks <= 4):
        return 1
    found = efficiencies(blocks, slots, kv_blocks, all_eligible=all_eligible)
    return min(s for s, e in found.items() if e >= Fraction(85, 100) * max(found.values()))


def by_floats(blocks, slots, kv_blocks):
    """The C code's arithmetic: float waves and efficiencies, 0.8f as a float, 0.85 as a double."""
    if F(blocks) >= F(0.8) * F(slots):
        return 1
    found, best = {}, F(0)
    for s in range(1, min(128, slots, kv_blocks) + 1):
        if eligible(kv_blocks, s):
            waves = F(blocks * s) / F(slots)
            found[s] = waves / F(np.ceil(waves))
            best = max(best, found[s])
    return min(s for s, e in found.items() if float(e) >= 0.85 * float(best))


SLOTS = (1, 2, 3, 20, 100, 108, 132, 148, 216, 264, 340)
CASES = [(b, n, k) for n in SLOTS for b in (1, 2, 5, 7, 14, 48, 51, 86) for k in (1, 2, 4, 5, 6, 9, 37, 64, 100, 129)]


def test_flash2_takes_the_fewest_splits_that_are_nearly_the_best():
    assert all(num_splits_flash2(b, n, k) == by_definition(b, n, k) for b, n, k in CASES)


def test_flash3_has_the_same_rule_where_every_number_is_eligible():
    for blocks, sms, kv_blocks in CASES:
        expected = by_definition(blocks, sms, kv_blocks, all_eligible=True)
        assert num_splits_flash3(blocks, sms, kv_blocks, 1, 1, masked=False) == expected


def test_floats_differ_only_where_fractions_are_equal():
    differing = [case for case in CASES if by_floats(*case) != num_splits_flash2(*case)]
    assert (14, 340, 100) in differing  # an RTX 5090: 17 splits fill 70 %, 85 % of the 280 / 340 of 20 splits
    for blocks, slots, kv_blocks in differing:
        found = efficiencies(blocks, slots, kv_blocks, all_eligible=False)
        exact = num_splits_flash2(blocks, slots, kv_blocks)
        assert found[exact] == Fraction(85, 100) * max(found.values())


def test_the_example_of_the_source():
    """48 blocks on 108 SMs: 2 splits fill 0.89 of their wave, 3 splits 0.67 of two."""
    found = efficiencies(48, 108, 64, all_eligible=True)
    assert (round(float(found[2]), 2), round(float(found[3]), 2)) == (0.89, 0.67)
    assert num_splits_flash2(48, 108, 64) == num_splits_flash3(48, 108, 64, 1, 1, masked=False) == 2


def test_filled_sms_are_not_split():
    assert num_splits_flash2(172, 216, 64) > 1  # 79.6 %
    assert num_splits_flash2(173, 216, 64) == 1
    assert num_splits_flash3(128, 160, 64, 1, 1, masked=False) == 1  # 80 % exactly


def test_keys_beyond_the_l2_are_split_for_many_queries():
    """FlashAttention-3 only: more than 50 MB of K and V per head, two query tiles per SM, nothing masked."""
    full = {"blocks": 264, "sm_count": 132, "kv_blocks": 1000, "q_blocks": 264, "masked": False}
    assert num_splits_flash3(**full, kv_head_bytes=L2_BYTES) == 1
    assert num_splits_flash3(**full, kv_head_bytes=L2_BYTES + 1) == 2
    assert num_splits_flash3(**full, kv_head_bytes=1000 * L2_BYTES) == 128
    for less in ({"q_blocks": 263}, {"masked": True}):
        assert num_splits_flash3(**{**full, **less}, kv_head_bytes=3 * L2_BYTES) == 1


def test_four_key_tiles_are_not_split_by_flash3():
    assert num_splits_flash3(1, 132, 4, 1, 1, masked=False) == 1
    assert num_splits_flash2(1, 264, 4) == 4


@pytest.mark.parametrize("tile_q", [64, 128, 192])
def test_heads_are_packed_where_that_fills_tiles_better(tile_q):
    def filled(rows):
        return Fraction(rows, tile_q * ceil(rows / tile_q))

    for q_len in (1, 7, 63, 64, 65, 100, 115, 116, 127, 128, 129, 173, 191, 192, 1000, 8192):
        for group in (1, 2, 3, 4, 8, 16):
            expected = filled(q_len) < Fraction(9, 10) * filled(q_len * group)
            assert should_pack_gqa(q_len, group, tile_q) == expected
    assert should_pack_gqa(8192, 1, tile_q, varlen=True)


def test_counts_are_positive():
    with pytest.raises(InputError, match="slots=0: must be at least 1"):
        num_splits_flash2(1, 0, 1)
    with pytest.raises(InputError, match="q_blocks"):
        num_splits_flash3(1, 1, 1, -1, 1, masked=False)
    with pytest.raises(InputError, match="group"):
        should_pack_gqa(1, 0, 64)


@pytest.mark.parametrize(("name", "rule"), [("flash2", flash2_splits), ("flash3", flash3_splits)])
def test_a_simulation_may_ask_for_a_kernels_own_rule(name, rule):
    problem = io.AttentionProblem(q_len=1, kv_len=2**16, heads=32, kv_heads=8, head_dim=128)
    report = io.simulate(problem, "h100-sxm", ["flash_decoding"], splits=name)
    used = report.algorithms["flash_decoding"].passes[0].schedule.tiles.splits
    assert used == rule(problem, report.device) > 1


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="splits 'flash9' is unknown, the nearest is 'flash"):
        io.simulate(io.AttentionProblem(q_len=1), algorithms=["flash_decoding"], splits="flash9")
