"""Figures that papers on many devices print: Ring, Striped and Tree Attention, DeepSpeed-Ulysses."""

from __future__ import annotations

import pytest

from ioaware.parallel import find
from ioaware.parallel.compare import Comparison
from ioaware.parallel.count import count
from ioaware.parallel.links import LinkRate, Topology
from ioaware.parallel.timeline import Rates, timeline
from ioaware.problem import AttentionProblem

WORDS = {"dtype": "fp32", "accum_dtype": "fp32"}  # every tensor in the same words, as the papers count
WORD = 4


def words(scheme, devices, **problem):
    """(words sent by each device, counts)"""
    counts = count(find(scheme), AttentionProblem(**{**WORDS, **problem}), devices)
    return [size / WORD for size in counts.sent], counts


# ------------------------------------------------------------------------------------------------ Ring Attention
TABLE_2 = {  # FLOP/s, interconnect bytes per second; c and s in thousands of tokens
    "A100 NVLink": (312e12, 300e9, 1.0, 6.2),
    "TPU v3": (123e12, 112e9, 1.1, 6.6),
    "TPU v4": (275e12, 268e9, 1.0, 6.2),
    "TPU v5e": (196e12, 186e9, 1.1, 6.3),
}


def least_block(flop_per_s, bytes_per_s, **problem):
    """c: tokens per device from which on a hop is hidden, for bf16 and a model of one head."""
    link = LinkRate("link", bytes_per_s, "table 2")
    shape = {"q_len": 4 * 10**6, "head_dim": 128, "dtype": "bf16", **problem}
    ring, links = find("ring"), Topology(4, link, link)
    counts = count(ring, AttentionProblem(**shape), 4)
    return Comparison(ring, counts, links, timeline(counts, links, Rates(flop_per_s))).hidden_from


@pytest.mark.parametrize(("flop_per_s", "bytes_per_s", "c", "s"), TABLE_2.values(), ids=TABLE_2)
def test_table_2_the_least_block_is_flops_over_bandwidth(flop_per_s, bytes_per_s, c, s):
    """Section 3.2: 4 d c^2 / F >= 4 c d / B, so c >= F / B; s = 6 c tokens per device, see the memory below."""
    found = least_block(flop_per_s, bytes_per_s)
    assert round(found / 1e3, 1) == c
    assert round(6 * found / 1e3, 1) == s


def test_table_2_infiniband_is_not_quite_what_the_paper_prints():
    """It prints c = 24.5 and s = 149.5 thousand, which are not 1 to 6; its own rates give 25.0 and 149.8."""
    found = least_block(312e12, 12.5e9)
    assert found == 312e12 / 12.5e9
    assert (round(found / 24_500, 3), round(6 * found / 149_500, 3)) == (1.019, 1.002)


def test_grouped_heads_shorten_the_least_block_and_a_causal_mask_doubles_it():
    """Eight query heads per key head do eight times the work per byte; below the diagonal there is half the work."""
    assert least_block(312e12, 300e9, heads=8, kv_heads=1) == 1040 / 8
    assert least_block(312e12, 300e9, mask="causal") == pytest.approx(2 * 1040, abs=1)


def test_section_3_2_memory_is_6bch():
    """Six blocks of c tokens: queries, keys and values at hand, keys and values arriving, outputs; and m and l."""
    b, c, h, heads, devices = 3, 64, 32, 4, 8
    _, counts = words("ring", devices, q_len=c * devices, batch=b, heads=heads, head_dim=h // heads)
    assert [size / WORD for size in counts.memory] == [6 * b * c * h + 2 * b * c * heads] * devices


@pytest.mark.parametrize(("direction", "blocks"), [("fwd", 7), ("bwd", 7 + 8)])
def test_keys_and_values_travel_to_all_other_devices_and_their_gradients_home(direction, blocks):
    """Forward 2 (P - 1) N/P h_kv d words per device; backward as many, and 2 P N/P h_kv d of dK and dV."""
    n, kv_heads, d, devices = 800, 2, 16, 8
    sent, _ = words("ring", devices, q_len=n, heads=6, kv_heads=kv_heads, head_dim=d, direction=direction)
    assert sent == [2 * blocks * n / devices * kv_heads * d] * devices


# ------------------------------------------------------------------------------------------------ Striped Attention
def slowest(scheme, devices, c):
    """(query, key) pairs of the slowest device, summed over the steps of a causal ring of blocks of c tokens."""
    counts = count(find(scheme), AttentionProblem(q_len=c * devices, mask="causal"), devices)
    return sum(max(event.pairs) for event in counts.events if event.pairs)


@pytest.mark.parametrize(("devices", "c"), [(4, 16), (8, 100), (16, 65536)])
def test_striped_attention_halves_the_work_that_a_causal_ring_waits_for(devices, c):
    """Section 3: after the first step, some device of a ring has a full block; a stripe's block is half empty."""
    assert slowest("ring", devices, c) == c * (c + 1) // 2 + (devices - 1) * c**2
    assert slowest("striped", devices, c) == devices * c * (c + 1) // 2


def test_striped_attention_sends_what_the_ring_sends():
    problem = AttentionProblem(q_len=4096, heads=4, mask="causal", direction="fwd+bwd")
    assert count(find("striped"), problem, 8).links == count(find("ring"), problem, 8).links


# ------------------------------------------------------------------------------------------------ DeepSpeed-Ulysses
def test_ulysses_sends_4nh_over_p():
    """All-to-alls of Q, K, V and of O, N h words each: 4 N h / P per link of a device, of which it keeps 1/P."""
    n, h, devices = 1024, 256, 8
    sent, counts = words("ulysses", devices, q_len=n, heads=16, head_dim=h // 16)
    assert sent == [4 * n * h / devices * (1 - 1 / devices)] * devices
    assert set(counts.links.values()) == {4 * n * h // devices**2 * WORD}


# ------------------------------------------------------------------------------------------------ Tree Attention
@pytest.mark.parametrize("devices", [2, 3, 8, 100])
def test_tree_attention_volume_and_memory(devices):
    """Volume 2 (p - 1)/p (b d + 2 b n_h) per device; memory 2 b t d + 2 b d + 2 b n_h; 2 log2 p steps per reduction."""
    b, t, heads, d = 2, 50, 4, 64
    decoding = {"q_len": 1, "kv_len": t * devices, "batch": b, "heads": heads, "head_dim": d // heads}
    sent, counts = words("tree", devices, **decoding)
    assert sum(sent) == 2 * (devices - 1) * (b * d + 2 * b * heads)
    assert max(counts.memory) / WORD == 2 * b * t * d + 2 * b * d + 2 * b * heads
    assert counts.steps == 2 * 2 * (devices - 1).bit_length()


def test_tree_attention_sends_no_more_for_a_longer_cache():
    short, long = (words("tree", 8, q_len=1, kv_len=n, heads=8)[0] for n in (8, 8 * 10**12))
    assert short == long
