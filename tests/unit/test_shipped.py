"""What FlashAttention-3, -4 and Flash-Decoding ship: tile_size.h and its neighbours; flash2 is in test_schedule."""

import pytest

from ioaware import device
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, Band
from ioaware.problem import AttentionProblem
from ioaware.shipped import causal_or_local, flash2_splits, flash3_splits, shipped_sizes

A100, H100, B200 = (device.load(name) for name in ("a100", "h100", "b200"))
LOCAL = Band(512, 0)
FP8 = {"dtype": "fp8_e4m3"}


def sizes(name, head_dim, hardware=H100, *, backward=False, **given):
    problem = AttentionProblem(**{"q_len": 8192, "head_dim": head_dim, **given})
    found = shipped_sizes(name, problem, hardware, backward=backward)
    return found.q, found.kv


@pytest.mark.parametrize(
    ("head_dim", "given", "tiles"),
    [
        (64, {}, (192, 192)),
        (64, {"mask": CAUSAL}, (192, 128)),
        (64, {"mask": LOCAL}, (192, 128)),
        (64, {"page_size": 256}, (192, 128)),  # 256 is no multiple of 192: not by TMA
        (64, {"page_size": 384}, (192, 192)),
        (64, {"value_dim": 256}, (128, 96)),
        (64, {"value_dim": 512}, (64, 64)),
        (96, {}, (192, 144)),
        (96, {"mask": CAUSAL}, (192, 144)),
        (96, {"mask": LOCAL}, (192, 128)),
        (128, {}, (128, 176)),
        (128, {"mask": CAUSAL}, (128, 128)),
        (128, {"mask": LOCAL}, (128, 128)),
        (128, {"page_size": 176}, (128, 176)),
        (128, {"page_size": 176, "q_len": 1}, (128, 128)),  # one query fills no tile
        (192, {}, (128, 112)),
        (192, {"value_dim": 128}, (128, 128)),
        (192, {"mask": LOCAL}, (128, 96)),
        (256, {}, (128, 80)),
        (256, {"mask": LOCAL}, (128, 64)),
        (80, {}, (192, 144)),  # padded to 96
        (64, FP8, (192, 160)),
        (96, FP8, (192, 128)),
        (128, FP8, (128, 224)),
        (128, {**FP8, "mask": LOCAL, "softcap": 30.0}, (128, 192)),
        (192, FP8, (128, 160)),
        (256, FP8, (128, 128)),
        (256, {**FP8, "mask": LOCAL}, (128, 64)),
    ],
)
def test_flash3_forward(head_dim, given, tiles):
    assert sizes("flash3", head_dim, **given) == tiles


@pytest.mark.parametrize(
    ("head_dim", "given", "tiles"),
    [
        (64, {}, (128, 128)),
        (64, {"mask": CAUSAL, "softcap": 30.0}, (96, 128)),  # "register spill with 128 x 128"
        (96, {}, (64, 128)),
        (128, {}, (80, 128)),
        (128, {"mask": CAUSAL}, (64, 128)),
        (128, {"softcap": 30.0}, (64, 128)),
        (192, {}, (64, 96)),
        (256, {}, (64, 80)),
    ],
)
def test_flash3_backward(head_dim, given, tiles):
    assert sizes("flash3", head_dim, backward=True, **given) == tiles


def test_flash4_multiplies_128_by_128():
    assert sizes("flash4", 128, B200) == sizes("flash4", 64, B200, backward=True) == (128, 128)


@pytest.mark.parametrize(("backward", "widest"), [(False, 192), (True, 128)])
def test_flash4_refuses_wider_heads(backward, widest):
    assert sizes("flash4", widest, B200, backward=backward) == (128, 128)
    with pytest.raises(InputError, match=f"the nearest legal value is {widest}$"):
        sizes("flash4", widest + 1, B200, backward=backward)


@pytest.mark.parametrize("name", ["flash3", "flash4"])
@pytest.mark.parametrize("backward", [False, True])
def test_dropout_is_not_shipped(name, backward):
    with pytest.raises(InputError, match=r"dropout=0\.1: .* ships no dropout; the nearest legal value is 0\.0"):
        sizes(name, 128, backward=backward, dropout=0.1)


@pytest.mark.parametrize(("head_dim", "tiles"), [(32, (64, 256)), (64, (64, 256)), (128, (64, 128)), (192, (64, 64))])
def test_flash_decoding(head_dim, tiles):
    assert sizes("flash_decoding", head_dim, A100, q_len=1, kv_len=32768) == tiles


# ---------------------------------------------------------------------------------------------- splits of a problem
def decode(**given):
    return AttentionProblem(**{"q_len": 1, "kv_len": 8192, "heads": 32, "kv_heads": 8, "head_dim": 128, **given})


def test_flash2_packs_the_heads_of_a_group_into_one_tile():
    """8 blocks of 64 key tiles on 216 slots: 22 splits of 3 tiles fill 176; fewer fill 128, more waste waves."""
    assert flash2_splits(decode(), A100) == flash2_splits(decode(heads=8), A100) == 22
    assert flash2_splits(decode().packed(), A100) == 22


@pytest.mark.parametrize("given", [{"alibi": True}, {"mask": Band(4096, 0)}])
def test_flash2_does_not_pack_windows_and_alibi(given):
    assert flash2_splits(decode(**given), A100) == flash2_splits(decode(kv_heads=32, **given), A100) == 6


def test_flash2_does_not_split_dropout_or_full_gpus():
    assert flash2_splits(decode(dropout=0.1), A100) == 1
    assert flash2_splits(decode(q_len=8192, kv_heads=32), A100) == 1


def test_flash3_splits_packed_tiles():
    """8 blocks of 47 key tiles on 132 SMs: 33 splits fill two waves, 15 splits 91 % of one, 14 splits 84.8 %."""
    assert flash3_splits(decode(), H100) == 15
    assert flash3_splits(decode(mask="causal"), H100) == 15  # one query: nothing is masked
    assert flash3_splits(decode(q_len=8192, kv_heads=32), H100) == 1


def test_flash3_splits_only_the_keys_of_a_window():
    """At most left + right + 1 + 128 keys are loaded: 256 + 1 + 128 are four tiles of 128."""
    assert flash3_splits(decode(mask=Band(256, 0)), H100) == 1
    assert flash3_splits(decode(mask=Band(None, 8)), H100) == flash3_splits(decode(mask=CAUSAL), H100) == 15


def test_flash3_splits_what_an_l2_does_not_hold():
    """K and V of a head at d 128 in 16 bits are 512 B per key: 50 MB are 102,400 keys."""
    long = {"q_len": 128 * 264, "heads": 1, "kv_heads": 1}
    assert flash3_splits(decode(**long, kv_len=102_400), H100) == 1
    assert flash3_splits(decode(**long, kv_len=102_401), H100) == 2
    assert flash3_splits(decode(**long, kv_len=102_401, mask="causal"), H100) == 1


def test_masks_as_flash_attention_tells_them_apart():
    def kind(mask, q_len=2):
        return causal_or_local(AttentionProblem(q_len=q_len, kv_len=100, mask=mask))

    assert kind("full") == (False, False)
    assert kind("causal") == (True, False)
    assert kind("causal", q_len=1) == (False, False)
    assert kind(Band(5, 0)) == kind(Band(5, 5)) == (False, True)
