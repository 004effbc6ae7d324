"""Levels and time: what reaches DRAM and SRAM by hand, and launches that take as long as their slowest engine."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import device
from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.naive import naive
from ioaware.bounds import compulsory
from ioaware.cost import Cost, cost, engines, missing_rates, rates
from ioaware.device import Device
from ioaware.hierarchy import Launch, launches, levels
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.count import Work, count
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.footprint import footprint
from ioaware.traffic import Moved, Traffic
from tests.strategies import GENERAL, problems, tiles

TEXTS = {f.__name__: f for a in GENERAL for f in (a.forward, a.backward) if f}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def machine(**numbers):
    """A device of round numbers."""
    return Device(**{"name": "test", "sm_count": 4, "sram_bytes": 2**17, "hbm_bytes": 2**40, **numbers})


def at(level, text, problem, sizes, hardware):
    return levels(launches(record(text, problem.features), problem, sizes, hardware))[level]


# From issued to DRAM


sizes_of_l2 = st.one_of(st.none(), st.integers(1, 20_000), st.just(2**40))


@each_text
@settings(max_examples=40)
@given(problem=problems(), sizes=tiles, l2=sizes_of_l2, sms=st.sampled_from([1, 7, 1000]))
def test_dram_is_between_compulsory_and_issued(text, problem, sizes, l2, sms):
    program = record(text, problem.features)
    done = launches(program, problem, sizes, machine(l2_bytes=l2, sm_count=sms))
    for launch in done:
        for tensor, issued in launch.issued.tensors.items():
            for dram, moved in zip(launch.dram[tensor], issued, strict=True):
                assert 0 < dram <= moved or dram == moved == 0
    by_level = levels(done)
    floor = compulsory(problem, "bwd" if program.backward else "fwd")
    assert by_level["issued"] == count(program, problem, sizes)
    assert by_level["dram"].read_bytes >= floor.read_bytes
    assert by_level["dram"].write_bytes >= floor.write_bytes


@each_text
@settings(max_examples=40)
@given(problem=problems(), sizes=tiles)
def test_an_endless_l2_moves_each_tensor_once_per_launch(text, problem, sizes):
    program = record(text, problem.features)
    whole = footprint(program, problem, sizes)
    for launch in launches(program, problem, sizes, machine(l2_bytes=2**40)):
        for tensor, issued in launch.issued.tensors.items():
            assert launch.dram[tensor] == Moved(*(min(moved, whole[tensor]) for moved in issued))


@each_text
@settings(max_examples=40)
@given(problem=problems(), sizes=tiles)
def test_without_an_l2_dram_is_what_is_issued(text, problem, sizes):
    assert at("dram", text, problem, sizes, machine()) == at("issued", text, problem, sizes, machine())


@each_text
@settings(max_examples=40)
@given(problem=problems(), sizes=tiles, l2=st.tuples(st.integers(1, 30_000), st.integers(1, 30_000)))
def test_a_larger_l2_never_costs_dram_bytes(text, problem, sizes, l2):
    small, large = (at("dram", text, problem, sizes, machine(l2_bytes=n)).total_bytes for n in sorted(l2))
    assert large <= small


@pytest.mark.parametrize(
    ("sms", "in_flight"),
    [(4, 1), (8, 1), (9, 2), (16, 2), (40, 5), (108, 8)],  # 8 heads, 8 thread blocks each
)
def test_the_keys_and_values_of_the_heads_in_flight_must_fit(sms, in_flight):
    """One head's K and V: 2 x 1024 x 64 x 2 B = 256 KiB; every query tile of the head reads them again."""
    problem = AttentionProblem(q_len=1024, heads=8, head_dim=64)
    sizes, need = TileSizes(128, 64), in_flight * 256 * 1024
    enough = at("dram", flash2, problem, sizes, machine(sm_count=sms, l2_bytes=need))
    short = at("dram", flash2, problem, sizes, machine(sm_count=sms, l2_bytes=need - 1))
    assert enough["K"].read == enough["V"].read == 8 * 1024 * 64 * 2
    assert short["K"].read == short["V"].read == 8 * 8 * 1024 * 64 * 2
    assert enough["Q"] == short["Q"] == Moved(read=8 * 1024 * 64 * 2)


def test_nothing_survives_between_launches():
    """Naive attention moves S and P through DRAM even if the L2 could hold them: the paper's 4 N^2 + 4 N d words."""
    n, d = 512, 64
    problem = AttentionProblem(q_len=n, head_dim=d)
    moved = at("dram", naive, problem, TileSizes(64, 64), machine(l2_bytes=2**40))
    assert moved.total_bytes == 2 * (4 * n * n + 4 * n * d)


# SRAM


def test_shared_memory_reads_of_flash2_by_hand():
    """Loaded tiles are written once. Q K^T reads Q once per key tile, and K once per 16 query rows; P V reads V so."""
    n, d, dv, b_c = 64, 8, 24, 32
    problem = AttentionProblem(q_len=n, head_dim=d, value_dim=dv, dtype="fp16")
    sram = at("sram", flash2, problem, TileSizes(16, b_c), machine(mma_rows=16))
    issued = count(record(flash2), problem, TileSizes(16, b_c))
    assert sram["Q"] == Moved(read=2 * (n // b_c) * n * d, write=issued["Q"].read)
    assert sram["K"] == Moved(read=2 * n * n * d // 16, write=issued["K"].read)
    assert sram["V"] == Moved(read=2 * n * n * dv // 16, write=issued["V"].read)
    assert sram["O"] == Moved()


@pytest.mark.parametrize("rows", [1, 16, 64, 100])
def test_taller_accumulators_share_reads(rows):
    problem = AttentionProblem(q_len=64, head_dim=8)
    sram = at("sram", flash2, problem, TileSizes(16, 32), machine(mma_rows=rows))
    assert sram["K"].read == -(-2 * 64 * 64 * 8 // rows)


# Work


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_flops_and_exponentials_by_hand(mask):
    """Per visible tile 2 |i| |j| (d + d_v) flops and |i| |j| exponentials; per key tile of a row one more."""
    n, d, dv, b = 96, 8, 24, 16
    problem = AttentionProblem(q_len=n, head_dim=d, value_dim=dv, heads=3, batch=2, mask=mask)
    (launch,) = launches(record(flash2, problem.features), problem, TileSizes(b, b), machine())
    tile_pairs = {"full": 6 * 6, "causal": 6 * 7 // 2}[mask]
    assert launch.work.flops == 3 * 2 * tile_pairs * 2 * b * b * (d + dv)
    assert launch.work.exps == 3 * 2 * tile_pairs * (b * b + b)


# Time


RATES = {"hbm_bytes_per_s": 1e12, "fp16_flop_per_s": 1e14, "clock_hz": 1e9, "exps_per_clock": 16, "sm_count": 10}


def test_the_time_of_naive_attention_by_hand():
    """Three launches, each as long as its slowest engine: 1 TB/s, 100 TFLOP/s, 160 G exponentials/s."""
    n, d = 1024, 512
    problem = AttentionProblem(q_len=n, head_dim=d)
    hardware = machine(**RATES)
    done = launches(record(naive), problem, TileSizes(n, n), hardware)
    got = cost(done, problem, hardware)
    scores = {"dram": 2 * (2 * n * d + n * n) / 1e12, "matmul": 2 * n * n * d / 1e14, "exp": 0}
    softmax = {"dram": 2 * (2 * n * n) / 1e12, "matmul": 0, "exp": n * n / 1.6e11}
    output = {"dram": 2 * (n * n + 2 * n * d) / 1e12, "matmul": 2 * n * n * d / 1e14, "exp": 0}
    slowest = [max(engine, key=engine.get) for engine in (scores, softmax, output)]
    assert slowest == ["matmul", "exp", "matmul"]
    assert got.time_s == pytest.approx(sum(map(max, (e.values() for e in (scores, softmax, output)))))
    assert got.bounds == pytest.approx({"matmul": 2 * scores["matmul"], "exp": softmax["exp"]})
    assert got.bound_by == "matmul"


def launch(flops=0, exps=0, issued=0, dram=0, sram=0):
    traffic = [Traffic({"Q": Moved(read=n)}) for n in (issued, dram, sram)]
    return Launch("one", Work(flops, exps), *traffic)


# SRAM: 10 SMs x 100 B x 1 GHz = 1e12 B/s, as L2 and DRAM.
FAST = machine(l2_bytes=2**20, l2_bytes_per_s=1e12, sram_bytes_per_clock=100, **RATES)


@pytest.mark.parametrize(
    ("one", "engine", "seconds"),
    [
        (launch(dram=5, issued=4, sram=4), "dram", 5e-12),
        (launch(dram=4, issued=5, sram=4), "l2", 5e-12),
        (launch(dram=4, issued=4, sram=5), "sram", 5e-12),
        (launch(flops=1000, dram=4), "matmul", 1e-11),
        (launch(exps=16, dram=4), "exp", 1e-10),
    ],
)
def test_the_slowest_engine_bounds_a_launch(one, engine, seconds):
    got = cost([one, one], AttentionProblem(q_len=8), FAST)
    assert got.bound_by == engine
    assert got.bounds == pytest.approx({engine: 2 * seconds})
    assert got.time_s == pytest.approx(2 * seconds)


def test_an_engine_of_unknown_rate_is_left_out():
    problem = AttentionProblem(q_len=8)
    assert set(engines(launch(), rates(problem, machine(**RATES)))) == {"dram", "matmul", "exp"}
    slow_l2 = launch(dram=1, issued=10**6)
    assert cost([slow_l2], problem, machine(**RATES)).bound_by == "dram"


@pytest.mark.parametrize(
    ("unknown", "dtype", "missing"),
    [
        ({"hbm_bytes_per_s": None}, "fp16", ["hbm_bytes_per_s"]),
        ({"fp16_flop_per_s": None}, "fp16", ["fp16_flop_per_s"]),
        ({"fp16_flop_per_s": None, "hbm_bytes_per_s": None}, "bf16", ["hbm_bytes_per_s", "fp16_flop_per_s"]),
        ({}, "fp32", ["fp32_flop_per_s"]),
        ({}, "tf32", ["fp32_flop_per_s"]),
    ],
)
def test_without_a_needed_rate_there_is_no_time(unknown, dtype, missing):
    problem, hardware = AttentionProblem(q_len=64, dtype=dtype), machine(**{**RATES, **unknown})
    got = cost(launches(record(naive), problem, TileSizes(64, 64), hardware), problem, hardware)
    assert got == Cost(None)
    assert got.time_s is None
    assert got.bound_by is None
    assert missing_rates(problem, hardware) == missing


def test_known_rates_are_not_missing():
    assert missing_rates(AttentionProblem(q_len=64), device.load("a100")) == []


def test_rates_follow_the_number_format():
    hopper = device.load("h100")
    problem = AttentionProblem(q_len=8, dtype="fp8")
    assert rates(problem, hopper)["matmul"] == hopper.fp8_flop_per_s
    assert rates(dataclasses.replace(problem, dtype="bf16"), hopper)["matmul"] == hopper.fp16_flop_per_s


# Costs add and scale


def test_costs_add_by_engine():
    a, b = Cost({"dram": 1.0, "exp": 2.0}), Cost({"dram": 4.0, "matmul": 8.0})
    assert (a + b).bounds == {"dram": 5.0, "exp": 2.0, "matmul": 8.0}
    assert (a + b).time_s == 15.0
    assert (a + b).bound_by == "matmul"
    assert (a * 3).bounds == {"dram": 3.0, "exp": 6.0}


@pytest.mark.parametrize("c", [Cost(None) + Cost({"dram": 1.0}), Cost({"dram": 1.0}) + Cost(None), Cost(None) * 2])
def test_what_is_unknown_stays_unknown(c):
    assert c.bounds is None
    assert c.time_s is None


def test_nothing_takes_no_time():
    assert Cost({}).time_s == 0
    assert Cost({}).bound_by is None
    assert cost([], AttentionProblem(q_len=8), FAST).time_s == 0
