"""The model of a run's time: written out by hand for problems small enough, and what a cache keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ioaware.algorithms import find
from ioaware.bounds import compulsory
from ioaware.device import Device
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.bench.ceilings import Ceilings
from ioaware_kernels.bench.floor import MARGIN, doubts, floor, refused
from ioaware_kernels.bench.model import cpu, gpu, missed
from tests.unit.fake_machine import COPY, DEVICE, EXPS, FLOPS, KB, LAUNCHES, MB

CEILINGS = Ceilings({s: [r] for s, r in COPY.items()}, {"fake": [FLOPS]}, [EXPS], [LAUNCHES])
N, D, TQ = 128, 16, 32
TILES = TileSizes(TQ, 32)
PROBLEM = AttentionProblem(q_len=N, head_dim=D, dtype="fp32")
WORD = 4


def program(name, problem=PROBLEM):
    return record(find(name).forward, problem.features)


def with_caches(own, shared):
    return replace(DEVICE, sram_bytes=own, l2_bytes=shared)


def predicted(name, device, *, warm, problem=PROBLEM):
    model = cpu(device)
    return model.predict(model.work(program(name, problem), problem, TILES, device, warm), model.rates(CEILINGS))


MATMUL = 4 * N * N * D / FLOPS
FLASH2_ISSUED = WORD * (2 * N * D + N + 2 * N * D * (N // TQ))  # Q, O, L once; K, V once per query tile


def test_flash2_on_a_cpu_nothing_overlaps():
    """Bytes, products and exponentials add up; alpha of each tile is an exponential, too."""
    exps = (N * N + N * (N // 32)) / EXPS
    found = predicted("flash2", DEVICE, warm=True)
    assert found.time_s == pytest.approx(FLASH2_ISSUED / COPY[64 * KB] + MATMUL + exps + 1 / LAUNCHES)
    assert (found.bound_by, found.launch_s) == ("matmul" if exps < MATMUL else "exp", 1 / LAUNCHES)


def work_of(name, device, *, warm):
    return cpu(device).work(program(name), PROBLEM, TILES, device, warm)


def test_flash2_warm_in_caches_that_hold_everything():
    (work,) = work_of("flash2", DEVICE, warm=True)
    assert (work["private cache"], work["shared cache"], work["memory"]) == (FLASH2_ISSUED, 0, 0)


def test_flash2_cold_fetches_everything_once():
    once = WORD * (4 * N * D + N)
    (work,) = work_of("flash2", DEVICE, warm=False)
    assert (work["private cache"], work["shared cache"], work["memory"]) == (FLASH2_ISSUED - once, 0, once)


def test_flash2_whose_keys_fit_no_private_cache():
    """They come from the shared one as often as they are asked for."""
    (work,) = work_of("flash2", with_caches(KB, MB), warm=True)
    assert (work["private cache"], work["shared cache"], work["memory"]) == (0, FLASH2_ISSUED, 0)


def test_flash2_whose_keys_fit_no_cache():
    (work,) = work_of("flash2", with_caches(KB, KB), warm=True)
    assert (work["private cache"], work["shared cache"], work["memory"]) == (0, 0, FLASH2_ISSUED)


def test_naive_writes_and_reads_its_scores_in_memory_if_no_cache_keeps_them():
    """S and P once each way, and the operands of whichever launch."""
    device = with_caches(32 * KB, 128 * KB)  # S and P have 64 KB each, everything together 161 KB
    memory = [work["memory"] for work in work_of("naive", device, warm=True)]
    square, operand = WORD * N * N, WORD * N * D
    assert memory == [square + 2 * operand, 2 * square, square + 2 * operand]


def test_naive_keeps_its_scores_in_a_cache_that_holds_all():
    assert [work["memory"] for work in work_of("naive", DEVICE, warm=True)] == [0, 0, 0]
    cold = [work["memory"] for work in work_of("naive", DEVICE, warm=False)]
    square, operand = WORD * N * N, WORD * N * D
    assert cold == [
        square + 2 * operand,
        square,
        2 * operand,
    ]  # P first appears in the second launch, V, O in the third


def test_missed_never_exceeds_what_is_issued():
    for name in ("naive", "flash1", "flash2"):
        issued = [sum(work[e] for e in ("private cache", "shared cache", "memory")) for work in work_of(
            name, with_caches(8 * KB, 64 * KB), warm=False)]  # fmt: skip
        for size in (KB, 16 * KB, 256 * KB):
            cache = with_caches(KB, size)
            for a, b in zip(missed(program(name), PROBLEM, TILES, cache, warm=False), issued, strict=True):
                assert 0 <= a <= b


def test_memory_that_is_slow_bounds():
    slow = Ceilings({s: [r / 1000] for s, r in COPY.items()}, CEILINGS.matmul, CEILINGS.exp, CEILINGS.launch)
    model = cpu(with_caches(KB, KB))
    work = work_of("flash2", model.device, warm=True)
    fast, found = (model.predict(work, model.rates(c)) for c in (CEILINGS, slow))
    assert (fast.bound_by, found.bound_by) == ("matmul", "memory")
    assert found.time_s - fast.time_s == pytest.approx(999 * FLASH2_ISSUED / COPY[4 * MB])


# ------------------------------------------------------------------------------------------------ GPU
GPU = Device(name="g", sm_count=4, sram_bytes=64 * KB, l2_bytes=MB, hbm_bytes=1024 * MB)


def test_on_a_gpu_the_slowest_engine_counts():
    model = gpu(GPU)
    (work,) = model.work(program("flash2"), PROBLEM, TILES, GPU, False)
    assert work["l2"] == FLASH2_ISSUED
    assert work["dram"] == WORD * (4 * N * D + N)
    assert work["matmul"] == 4 * N * N * D
    rates = {"dram": 1e9, "l2": 1e9, "matmul": 1e6, "exp": 1e9, "launch": 1e3}
    found = model.predict([work, work], rates)
    assert found.time_s == pytest.approx(2 * (4 * N * N * D / 1e6 + 1e-3))
    assert found.bound_by == "matmul"


# ------------------------------------------------------------------------------------------------ floor
def test_the_floor_is_the_greater_of_bytes_and_flops():
    causal = replace(PROBLEM, mask="causal")
    assert floor(PROBLEM, CEILINGS).time_s == pytest.approx(MATMUL)
    assert floor(causal, CEILINGS).time_s == pytest.approx(MATMUL * (N + 1) / (2 * N))  # hidden pairs need no work
    few = replace(CEILINGS, matmul={"fake": [1e15]})
    least = compulsory(PROBLEM, "fwd").total_bytes
    assert least == WORD * 4 * N * D
    assert floor(PROBLEM, few).time_s == pytest.approx(least / max(COPY.values()))


def test_the_fastest_sample_sets_the_floor():
    assert floor(PROBLEM, replace(CEILINGS, matmul={"a": [FLOPS], "b": [1.0, 2 * FLOPS]})).time_s == pytest.approx(
        MATMUL / 2
    )


def test_what_is_below_the_floor_is_refused_in_one_sentence():
    at_least = floor(PROBLEM, CEILINGS)
    assert refused(at_least.time_s, at_least) == refused(MARGIN * at_least.time_s, at_least) == []
    (sentence,) = refused(0.99 * MARGIN * at_least.time_s, at_least)
    assert sentence.startswith("faster than physics: ")


def test_a_busy_machine_accuses_nobody():
    assert doubts(CEILINGS) == []
    for matmul in ({"fake": [1e9, 1e9, 2e9]}, {"steady": [1e9] * 3, "mostly slow": [5e8, 5e8, 2e9]}):
        (sentence,) = doubts(replace(CEILINGS, matmul=matmul))
        assert "busy" in sentence
