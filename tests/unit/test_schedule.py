"""Tile sizes: the search finds what brute force finds, the rules are the papers', shipped tiles the shipped code's."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import algorithms, device
from ioaware.device import Device
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.count import count, has_closed_form
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.onchip import on_chip
from ioaware.schedule import GRANULE, Choice, best_tiles, paper_tiles, parse_tiles, tile_sizes
from ioaware.shipped import shipped_tiles
from tests.strategies import GENERAL

A100, H100 = device.load("a100"), device.load("h100")
GEFORCE = device.load("rtx3090")  # compute capability 8.6, 99 KB per block


def sram(size):
    """A device with that much fast memory."""
    return Device(name="test", sm_count=1, sram_bytes=size, hbm_bytes=10**18)


# The legal sizes


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 4096, 4097, 5000, 65_536, 70_000, 10**6, 2**30, 10**15])
def test_legal_sizes_cover_the_axis(length):
    sizes = tile_sizes(length)
    assert sizes == tuple(sorted(set(sizes)))
    assert all(size % GRANULE == 0 for size in sizes)
    assert sizes[-1] - GRANULE < length <= sizes[-1]


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_legal_sizes_of_a_longer_axis_are_more(a, b):
    """Nested, but for the last one, which is as long as the axis."""
    shorter, longer = sorted((a, b))
    assert tile_sizes(longer)[: len(tile_sizes(shorter)) - 1] == tile_sizes(shorter)[:-1]


def test_legal_sizes_grow_coarser():
    """Multiples of 16 up to 4,096, of 256 up to 65,536, of 4,096 up to 2^20, ...: 256, 240, 240, ... sizes a decade."""
    sizes = tile_sizes(2**24)
    assert sizes[:256] == tuple(range(16, 4097, 16))
    assert sizes[256:496] == tuple(range(4096 + 256, 65_537, 256))
    assert sizes[496:736] == tuple(range(65_536 + 4096, 2**20 + 1, 4096))
    assert sizes[736:] == tuple(range(2**20 + 65_536, 2**24 + 1, 65_536))


# The search against all pairs of legal sizes


TILED = [a for a in GENERAL if not a.library_kernels]
TEXTS = {f.__name__: f for a in TILED for f in (a.forward, a.backward) if f}
BANDS = [FULL, CAUSAL, Band(20, 0), Band(3, 40), Band(left=17)]


def moved(program, problem, tiles):
    return count(program, problem, tiles).total_bytes


def brute_force(program, problem, sram_bytes):
    """(least bytes, largest area among them) over every pair of legal sizes that fits."""
    legal = itertools.product(*(tile_sizes(length) for length in problem.longest()))
    fitting = [t for t in itertools.starmap(TileSizes, legal) if on_chip(program, problem, t).total <= sram_bytes]
    least = min(moved(program, problem, t) for t in fitting)
    return least, max(t.q * t.kv for t in fitting if moved(program, problem, t) == least)


def check_best(program, problem, sram_bytes):
    """What the search returns is legal, fits, and is what brute force finds."""
    tiles = best_tiles(program, problem, sram_bytes).tiles
    assert all(t in tile_sizes(length) for t, length in zip(tiles[:2], problem.longest(), strict=True))
    assert on_chip(program, problem, tiles).total <= sram_bytes
    assert (moved(program, problem, tiles), tiles.q * tiles.kv) == brute_force(program, problem, sram_bytes)


small = st.builds(
    AttentionProblem,
    q_len=st.integers(1, 130),
    kv_len=st.integers(1, 130),
    heads=st.just(2),
    kv_heads=st.sampled_from([1, 2]),
    head_dim=st.integers(1, 40),
    value_dim=st.integers(1, 40),
    mask=st.sampled_from(BANDS),
    dropout=st.sampled_from([0.0, 0.1]),
    padding=st.booleans(),
)
varlen = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=2, max_size=3).map(
    lambda pairs: dict(zip(("q_len", "kv_len"), map(tuple, zip(*pairs, strict=True)), strict=True))
)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@settings(max_examples=60)
@given(problem=small, spare=st.floats(0, 1))
def test_the_search_finds_what_brute_force_finds(text, problem, spare):
    program = record(text, problem.features)
    least, most = (on_chip(program, problem, t).total for t in (TileSizes(16, 16), TileSizes(10**4, 10**4)))
    check_best(program, problem, int(least + spare * (most - least)))


@settings(max_examples=60)
@given(lengths=varlen, mask=st.sampled_from(BANDS), spare=st.floats(0, 1))
def test_the_search_serves_all_sequences_at_once(lengths, mask, spare):
    problem = AttentionProblem(**lengths, head_dim=8, mask=mask)
    program = record(TEXTS["flash2"], problem.features)
    least, most = (on_chip(program, problem, t).total for t in (TileSizes(16, 16), TileSizes(10**4, 10**4)))
    check_best(program, problem, int(least + spare * (most - least)))


@pytest.mark.parametrize("mask", BANDS, ids=str)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_more_sram_never_costs_bytes(text, mask):
    problem = AttentionProblem(q_len=700, kv_len=900, head_dim=32, mask=mask)
    program = record(text, problem.features)
    tilings = [best_tiles(program, problem, kib * 1024).tiles for kib in (32, 48, 64, 96, 192, 999)]
    costs = [moved(program, problem, tiles) for tiles in tilings]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_of_equal_tiles_the_largest_wins(mask):
    """One query tile holds 16 queries, so every key tile moves the same bytes: the largest is chosen."""
    problem = AttentionProblem(q_len=16, kv_len=320, head_dim=16, mask=mask)
    program = record(TEXTS["flash2"], problem.features)
    costs = {kv: moved(program, problem, TileSizes(16, kv)) for kv in tile_sizes(320)}
    assert len(set(costs.values())) == 1 if mask == "full" else min(costs.values()) == costs[320]
    assert best_tiles(program, problem, 10**9).tiles == TileSizes(16, 320)


# What binds


def test_the_constraint_that_binds_is_named():
    problem = AttentionProblem(q_len=2048, head_dim=64)
    program = record(TEXTS["flash2"], problem.features)
    schedule = best_tiles(program, problem, 100_000)
    larger = TileSizes(schedule.tiles.q + 16, schedule.tiles.kv)
    need = on_chip(program, problem, larger).total
    assert need > 100_000
    assert schedule.binds == f"SRAM: tile_q={larger.q} would hold {need:,} B of 100,000 B"
    assert best_tiles(program, problem, 10**12).binds == "the sequence: one tile holds it"


def test_nothing_fits():
    problem = AttentionProblem(q_len=2048, head_dim=4096)
    program = record(TEXTS["flash2"], problem.features)
    with pytest.raises(InputError) as error:
        best_tiles(program, problem, 200_000)
    message = str(error.value)
    sram_bytes, head_dim = map(int, re.search(r"sram=(\d+) or head_dim=(\d+)$", message).groups())
    assert sram_bytes == on_chip(program, problem, TileSizes(16, 16)).total
    assert message.startswith("sram=200,000 B and head_dim=4,096: ")
    assert f"{sram_bytes:,} B" in message
    assert best_tiles(program, problem, sram_bytes).tiles == TileSizes(16, 16)
    narrow, wide = (AttentionProblem(q_len=2048, head_dim=d) for d in (head_dim, head_dim + 1))
    assert best_tiles(program, narrow, 200_000).tiles == TileSizes(16, 16)
    assert on_chip(program, wide, TileSizes(16, 16)).total > 200_000


# A text whose traffic has no closed form


def strips(p, Q, K, O):
    """Keys visible to a query tile, in strips that are cut from splits."""
    for b, h, g, i in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles):
        for s in p.loop(p.kv_tiles):
            for j in p.visible(p.tiles(s, 4), i):
                p.load(K[h, j])
        p.store(O[h, g, i], p.zeros(i, p.value_dim))


def test_without_a_closed_form_the_largest_square_is_taken():
    problem = AttentionProblem(q_len=300, head_dim=8, mask="causal")
    program = record(strips, problem.features)
    assert not has_closed_form(program)
    for sram_bytes in (2000, 5000, 10**6):
        side = best_tiles(program, problem, sram_bytes).tiles.q
        assert on_chip(program, problem, TileSizes(side, side)).total <= sram_bytes
        assert side >= 300 or on_chip(program, problem, TileSizes(2 * side, 2 * side)).total > sram_bytes


# The paper's rule


@pytest.mark.parametrize(
    ("head_dim", "dtype", "sram_bytes", "tiles"),
    [
        (64, "fp16", 192 * 1024, (64, 384)),  # M = 98,304 words, M/4d = 384
        (128, "fp16", 192 * 1024, (128, 192)),  # 98,304 / 512
        (64, "fp32", 192 * 1024, (64, 192)),  # 49,152 / 256
        (64, "fp8", 192 * 1024, (64, 768)),
        (256, "fp16", 100_000, (49, 49)),  # 50,000 / 1,024 = 48.8: rounded up, and less than d
        (40, "fp16", 192 * 1024, (40, 615)),  # 98,304 / 160 = 614.4
    ],
)
def test_the_papers_rule(head_dim, dtype, sram_bytes, tiles):
    """Algorithm 1, line 1: B_c = ceil(M / 4d), B_r = min(ceil(M / 4d), d)."""
    problem = AttentionProblem(q_len=8192, head_dim=head_dim, dtype=dtype)
    schedule = paper_tiles(record(TEXTS["flash1"]), problem, sram(sram_bytes))
    assert schedule.tiles == TileSizes(*tiles)
    assert schedule.origin == "paper"


def test_the_papers_tiles_are_no_longer_than_the_sequence():
    problem = AttentionProblem(q_len=50, kv_len=90, head_dim=64)
    assert paper_tiles(record(TEXTS["flash1"]), problem, A100).tiles == TileSizes(50, 90)


def held_by_flash1(b_r, b_c, d, io):
    """Bytes that Algorithm 1's inner loop holds at its three fullest lines; what is computed is fp32, head_dim > 4."""
    keys, rows, scores = 2 * io * b_c * d, b_r * d, 4 * b_r * b_c
    return max(
        keys + 2 * io * rows + 4 * 2 * b_r + scores,  # Q, O, l, m are loaded, S is made
        keys + io * rows + 4 * rows + 4 * 3 * b_r + scores,  # m_new, l_new and the old factor; O is rescaled
        keys + 2 * 4 * rows + 4 * 2 * b_r + scores,  # the rescaled O and P V; the loaded O is gone
    )


def test_the_papers_rule_overflows_its_own_m():
    """Its 2 B_c d + 2 B_r d + B_r B_c words are M up to a constant: at M = 4 d^2 that is 1.25 M, besides l and m."""
    d = 128
    m = 4 * d * d  # words, so that B_c = B_r = d
    problem = AttentionProblem(q_len=8192, head_dim=d, dtype="fp32")
    schedule = paper_tiles(record(TEXTS["flash1"]), problem, sram(4 * m))
    held = held_by_flash1(d, d, d, io=4)
    assert 4 * (2 * d * d + 2 * d * d + d * d) == 1.25 * 4 * m < held < 1.26 * 4 * m
    assert schedule.tiles == TileSizes(d, d)
    assert schedule.binds.endswith(f"; overflows M: {held:,} B on chip, {held / (4 * m):.3f} M")


def test_the_papers_rule_overflows_at_head_dim_128():
    """192 KB and fp16: B_c = 192, B_r = 128; what is computed is twice as wide as the words of M."""
    problem = AttentionProblem(q_len=8192, head_dim=128)
    schedule = paper_tiles(record(TEXTS["flash1"]), problem, sram(192 * 1024))
    held = held_by_flash1(128, 192, 128, io=2)
    assert held == 2 * (2 * 192 * 128) + 4 * (2 * 128 * 128) + 4 * (2 * 128) + 4 * (128 * 192) == 328_704
    assert schedule.binds.endswith("; overflows M: 328,704 B on chip, 1.672 M")


def test_the_papers_rule_fits_where_it_fits():
    """In a format as wide as what is computed, M = 16 d^2 words: B_c = 4 d, B_r = d, and 8 + 2 + 4 < 16 of d^2."""
    d = 32
    problem = AttentionProblem(q_len=8192, head_dim=d, dtype="fp32")
    schedule = paper_tiles(record(TEXTS["flash1"]), problem, sram(4 * 16 * d * d))
    assert schedule.tiles == TileSizes(d, 4 * d)
    assert held_by_flash1(d, 4 * d, d, io=4) < 4 * 16 * d * d
    assert "overflows" not in schedule.binds


# Given tiles and library kernels


def test_given_tiles_are_taken_as_they_are():
    problem, found = AttentionProblem(q_len=1000), algorithms.find("flash2")
    schedule = Choice(given=TileSizes(48, 80)).schedule(found, record(found.forward), problem, A100)
    assert (schedule.tiles, schedule.origin) == (TileSizes(48, 80), "given")


def test_given_tiles_that_do_not_fit_get_the_nearest_that_do():
    problem, found = AttentionProblem(q_len=8192, head_dim=128), algorithms.find("flash2")
    program = record(found.forward)
    with pytest.raises(InputError) as error:
        Choice(given=TileSizes(128, 256)).schedule(found, program, problem, A100)
    message = str(error.value)
    held = on_chip(program, problem, TileSizes(128, 256)).total
    assert message.startswith("tiles=128x256: ")
    assert f"{held:,} B" in message
    assert "196,608 B" in message
    kv = int(message.partition("the nearest legal value is 128x")[2])
    assert on_chip(program, problem, TileSizes(128, kv)).total <= A100.sram_bytes
    assert on_chip(program, problem, TileSizes(128, kv + 16)).total > A100.sram_bytes


def test_library_kernels_read_their_inputs_once_unless_tiles_are_given():
    problem, found = AttentionProblem(q_len=(70, 90), kv_len=(80, 60)), algorithms.find("naive")
    program = record(found.forward)
    assert Choice().schedule(found, program, problem, A100).tiles == TileSizes(*problem.longest()) == TileSizes(90, 80)
    assert Choice(gemm=TileSizes(32, 16)).schedule(found, program, problem, A100).tiles == TileSizes(32, 16)


@pytest.mark.parametrize(("text", "tiles"), [("128x64", (128, 64)), ("1Kx16", (1024, 16)), (" 64 X 32 ", (64, 32))])
def test_tiles_are_typed(text, tiles):
    assert parse_tiles(text) == TileSizes(*tiles)
    assert str(TileSizes(*tiles)) == f"{tiles[0]}x{tiles[1]}"


@pytest.mark.parametrize("text", ["128", "128x", "x64", "1x2x3", "", "best", "128×64"])
def test_what_is_no_tile_is_refused(text):
    with pytest.raises(InputError) as error:
        parse_tiles(text, "gemm-tiles")
    assert str(error.value).startswith(f"gemm-tiles={text}: ")
    assert str(error.value).endswith("128x64")


@pytest.mark.parametrize(
    ("text", "near"), [("0x64", (1, 64)), ("-1x64", (1, 64)), ("7.2x64", (7, 64)), ("16x1e16", (16, 10**15))]
)
def test_a_tile_is_positive(text, near):
    with pytest.raises(InputError) as error:
        parse_tiles(text)
    assert str(error.value).startswith(f"tiles={text}: ")
    assert parse_tiles(str(error.value).partition("the nearest legal value is ")[2]) == TileSizes(*near)


# What flash-attention ships: csrc/flash_attn/src/flash_{fwd,bwd}_launch_template.h


def shipped(name, direction, head_dim, hardware, mask="full", dropout=0.0):
    found = algorithms.find(name)
    problem = AttentionProblem(q_len=8192, head_dim=head_dim, mask=mask, dropout=dropout)
    return shipped_tiles(found, record(found.text(direction), problem.features), problem, hardware)[0][:2]


@pytest.mark.parametrize(
    ("head_dim", "hardware", "mask", "dropout", "tiles"),
    [
        (32, A100, "full", 0, (128, 128)),
        (64, A100, "full", 0, (128, 128)),
        (64, H100, "causal", 0, (128, 128)),
        (64, GEFORCE, "causal", 0, (128, 128)),
        (64, A100, "full", 0.1, (128, 64)),
        (96, A100, "causal", 0, (128, 64)),
        (96, GEFORCE, "full", 0, (128, 64)),
        (96, GEFORCE, "causal", 0, (64, 64)),  # "64 x 64 is the fastest for causal (because it's square)"
        (128, A100, "full", 0, (128, 64)),
        (128, H100, "causal", 0, (128, 64)),
        (128, GEFORCE, "full", 0, (128, 32)),
        (128, GEFORCE, "causal", 0, (64, 64)),
        (128, device.load("rtx4090"), "full", 0, (128, 32)),
        (128, device.load("l40s"), "causal", 0, (64, 64)),
        (128, A100, "full", 0.1, (128, 32)),
        (128, GEFORCE, "causal", 0.1, (128, 32)),
        (192, A100, "full", 0, (128, 64)),
        (256, A100, "full", 0, (128, 64)),  # "For A100, we want to run with 128 x 64 (128KB smem)."
        (256, H100, "full", 0, (64, 64)),  # two thread blocks of 96 KB per SM
        (256, GEFORCE, "full", 0, (64, 64)),
        (40, A100, "full", 0, (128, 128)),  # padded to 64
        (80, A100, "full", 0, (128, 64)),  # padded to 96
        (129, A100, "full", 0, (128, 64)),  # padded to 192
    ],
)
def test_shipped_forward_tiles(head_dim, hardware, mask, dropout, tiles):
    assert shipped("flash2", "fwd", head_dim, hardware, mask, dropout) == tiles
    assert shipped("flash2_no_atomics", "fwd", head_dim, hardware, mask, dropout) == tiles


@pytest.mark.parametrize(
    ("head_dim", "hardware", "tiles"),
    [
        (32, A100, (128, 128)),
        (64, A100, (128, 128)),
        (64, H100, (128, 128)),
        (64, GEFORCE, (64, 128)),  # less than 144 KB
        (96, A100, (64, 128)),
        (96, GEFORCE, (64, 128)),
        (128, A100, (64, 128)),
        (128, H100, (64, 128)),
        (128, GEFORCE, (64, 64)),
        (192, A100, (64, 64)),
        (256, A100, (64, 64)),
        (256, H100, (64, 64)),
        (256, GEFORCE, (64, 32)),  # "Only works without dropout."
    ],
)
def test_shipped_backward_tiles(head_dim, hardware, tiles):
    assert shipped("flash2", "bwd", head_dim, hardware) == tiles


@pytest.mark.parametrize(
    ("direction", "head_dim", "hardware", "mask", "dropout", "tiles"),
    [
        ("fwd", 192, A100, "full", 0.1, (64, 64)),  # hdim192 with dropout
        ("fwd", 128, device.load("rtx5090"), "full", 0, (128, 64)),  # is_sm8x: only 8.6 and 8.9, not 12.0
        ("fwd", 128, device.load("rtx5090"), "causal", 0, (128, 64)),
        ("fwd", 128, GEFORCE, Band(512, 0), 0, (128, 32)),  # a window is local, not causal
        ("fwd", 96, GEFORCE, Band(512, 0), 0, (128, 64)),
        ("bwd", 32, GEFORCE, "full", 0, (128, 128)),  # V stays in registers: 96 KB
        ("bwd", 192, GEFORCE, "full", 0, (64, 64)),  # no double buffering
    ],
)
def test_shipped_tiles_of_special_cases(direction, head_dim, hardware, mask, dropout, tiles):
    assert shipped("flash2", direction, head_dim, hardware, mask, dropout) == tiles


def test_shipped_tiles_reproduce_the_shared_memory_of_the_source():
    """Its comments say 48, 96 and 128 KB: (B_r + 2 B_c) d words of 16 bits."""
    for head_dim, hardware, kib in ((128, GEFORCE, 48), (256, H100, 96), (256, A100, 128)):
        q, kv = shipped("flash2", "fwd", head_dim, hardware)
        assert 2 * (q + 2 * kv) * head_dim == kib * 1024


@pytest.mark.parametrize(("head_dim", "tiles"), [(64, (16, 256)), (128, (16, 128)), (32, (16, 256))])
def test_shipped_tiles_of_the_first_flash_attention(head_dim, tiles):
    assert shipped("flash1", "fwd", head_dim, A100) == shipped("flash1", "bwd", head_dim, A100) == tiles


def test_nothing_is_shipped_beyond_head_dim_256():
    with pytest.raises(InputError) as error:
        shipped("flash2", "fwd", 257, A100)
    assert str(error.value).startswith("head_dim=257: ")
    assert str(error.value).endswith("the nearest legal value is 256")


def test_without_shipped_tiles_the_best_are_searched():
    found, problem = algorithms.find("memory_efficient"), AttentionProblem(q_len=512)
    schedule = Choice("shipped").schedule(found, record(found.forward), problem, A100)
    assert schedule == best_tiles(record(found.forward), problem, A100.sram_bytes)
    assert schedule.origin == "best"


def test_shipped_tiles_are_no_longer_than_the_sequence():
    found, problem = algorithms.find("flash2"), AttentionProblem(q_len=1, kv_len=100, head_dim=64)
    assert shipped_tiles(found, record(found.forward), problem, A100)[0][:2] == (1, 100)
