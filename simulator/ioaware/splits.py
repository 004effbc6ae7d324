"""How many parts flash-attention cuts the keys into when queries alone do not fill a GPU, and when it packs heads.

Sources: Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp (num_splits_heuristic) at 0251105, and
hopper/heuristics.h (num_splits_heuristic, should_pack_gqa) at 13d0fd9. `shipped.py` says with which numbers they are
called.

Fractions are compared exactly, by cross-multiplication. The C code compares floats, which can differ only where two
fractions are equal: 14 blocks on 340 slots take 17 splits here and 20 there, for 17 fill exactly 85 % as much as 20.
"""

from __future__ import annotations

from collections.abc import Sequence

from .problem import check_count

MOST_SPLITS = 128
L2_BYTES = 50 * 1024 * 1024  # what FlashAttention-3 takes an L2 to hold


def num_splits_flash2(blocks: int, slots: int, kv_blocks: int) -> int:
    """FlashAttention-2's number of splits, at most 128.

    blocks     thread blocks without splitting: batch x heads x query tiles
    slots      thread blocks that run at once: it passes twice the number of SMs, for its blocks have 128 threads
    kv_blocks  key tiles; a number of splits with as many tiles per split as one split less is not eligible

    One if the blocks fill 80 % of the slots; else the fewest splits that fill their waves at least 85 % as well as the
    best number does. Raises InputError for counts below 1.
    """
    _check(blocks=blocks, slots=slots, kv_blocks=kv_blocks)
    if 5 * blocks >= 4 * slots:
        return 1
    numbers = range(2, min(MOST_SPLITS, slots, kv_blocks) + 1)
    return _fewest(blocks, slots, [1, *(s for s in numbers if -(-kv_blocks // s) != -(-kv_blocks // (s - 1)))])


def num_splits_flash3(
    blocks: int, sm_count: int, kv_blocks: int, q_blocks: int, kv_head_bytes: int, *, masked: bool
) -> int:
    """FlashAttention-3's number of splits; `blocks` and `q_blocks` (of one key/value head) count packed query tiles.

    As FlashAttention-2's, but every number is eligible, and four key tiles are never split. Where the SMs are filled, K
    and V of one head (`kv_head_bytes`) beyond 50 MB are cut into parts that an L2 holds, if there are two query tiles
    per SM to walk them and nothing is `masked` (causal or local). Raises InputError for counts below 1.
    """
    _check(blocks=blocks, sm_count=sm_count, kv_blocks=kv_blocks, q_blocks=q_blocks, kv_head_bytes=kv_head_bytes)
    if 5 * blocks >= 4 * sm_count:
        if kv_head_bytes > L2_BYTES and q_blocks >= 2 * sm_count and not masked:
            return min(-(-kv_head_bytes // L2_BYTES), MOST_SPLITS)
        return 1
    if kv_blocks <= 4:
        return 1
    return _fewest(blocks, sm_count, range(1, min(MOST_SPLITS, sm_count, kv_blocks) + 1))


def should_pack_gqa(q_len: int, group: int, tile_q: int, *, varlen: bool = False) -> bool:
    """Whether FlashAttention-3 puts the `group` query heads of a key/value head into the rows of one query tile.

    It does where tiles of one head are filled less than 90 % as well as packed ones; always for `varlen`, whose lengths
    the host does not know. Raises InputError for counts below 1.
    """
    _check(q_len=q_len, group=group, tile_q=tile_q)
    return varlen or 10 * -(-q_len * group // tile_q) < 9 * group * -(-q_len // tile_q)


def _fewest(blocks: int, slots: int, numbers: Sequence[int]) -> int:
    """The first number whose waves are filled at least 85 % as well as the best number's.

    `s` splits are `blocks * s` thread blocks in `waves[s]` waves of `slots`; blocks and slots are common to all.
    """
    waves = {s: -(-blocks * s // slots) for s in numbers}
    best = numbers[0]
    for s in numbers:
        if s * waves[best] > best * waves[s]:
            best = s
    return next(s for s in numbers if 20 * s * waves[best] >= 17 * best * waves[s])


def _check(**counts: int) -> None:
    for name, value in counts.items():
        check_count(name, value)
