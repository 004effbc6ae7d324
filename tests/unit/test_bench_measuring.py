"""A run of `ioaware bench` on a machine whose clock the test moves: samples, order, checks, interruption, rows."""

from __future__ import annotations

from itertools import groupby, pairwise
from statistics import median
from weakref import WeakSet

import numpy as np
import pytest

from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.bench import Measuring, Plan, grid, measure, result
from ioaware_kernels.bench.measuring import CEILINGS, ROUNDS, SAMPLE_S
from tests.unit.fake_machine import FLOPS, FakeMachine, copy_all

PROBLEM = AttentionProblem(q_len=1, dtype="fp32", score_dtype="fp32")
LENGTHS = (32, 64, 128)


def plan(names=("naive", "flash2"), lengths=LENGTHS, repeats=6, **how):
    return Plan(grid(names, PROBLEM, lengths, [16]), repeats, **how)


def rows_of(machine, **how):
    return {(r.algorithm, r.problem["q_len"]): r for r in measure(plan(**how), machine).rows}


# ------------------------------------------------------------------------------------------------ samples
def test_every_point_has_its_samples_warm_and_cold():
    found = rows_of(FakeMachine())
    assert set(found) == {(name, n) for name in ("naive", "flash2") for n in LENGTHS}
    for (_, n), row in found.items():
        assert {mode: len(samples) for mode, samples in row.samples_s.items()} == {"warm": 6, "cold": 6}
        assert [row.median_s(mode) for mode in row.samples_s] == pytest.approx([1e-9 * 4 * n * n * 16] * 2)
        assert row.problems == []


def test_a_warm_sample_lasts_a_millisecond():
    machine = FakeMachine(lambda *_: SAMPLE_S / 9.5)
    rows = rows_of(machine, names=("flash2",), lengths=(64,), repeats=3)
    assert rows["flash2", 64].median_s("warm") == pytest.approx(SAMPLE_S / 9.5)
    per_round = 1 + 3 + (1 + 10) + 1  # verified, calibrated, warmed and sampled, cold
    assert machine.log.count("flash2") == ROUNDS * per_round


def test_the_caches_are_evicted_before_every_cold_sample_and_no_other():
    machine = FakeMachine(lambda *_: SAMPLE_S)
    rows_of(machine, names=("flash2",), lengths=(8,), repeats=3)
    runs = [entry for entry in machine.log if entry in ("evict", "flash2")]
    after = [b for a, b in pairwise(runs) if a == "evict"]
    assert after == ["flash2"] * 3
    assert runs.count("evict") == 3


def test_algorithms_take_turns():
    """Between two samples of one lies one of each other."""
    machine = FakeMachine(lambda *_: SAMPLE_S, peers=("theirs",))
    rows_of(machine, lengths=(8,), repeats=6)
    last = machine.log[-1 - machine.log[::-1].index("evict") - 5 :]
    names = [entry for entry in last if entry in ("naive", "flash2", "theirs")]
    assert names == ["naive", "flash2", "theirs"]


def test_threads_of_others_sleep_before_the_next_sample():
    """After the check, and after each sample of someone else's kernel."""
    machine = FakeMachine(lambda *_: SAMPLE_S, peers=("theirs",))
    rows_of(machine, lengths=(8,), repeats=3)
    following = [b for a, b in pairwise(machine.log) if a == "theirs"]
    assert set(following) <= {"rest", "theirs", "naive"}
    assert following.count("rest") >= 2 * ROUNDS
    assert machine.log.count("rest") == ROUNDS * (1 + 2)


def test_each_round_visits_every_problem_with_other_inputs(monkeypatch):
    from ioaware_kernels.bench import measuring

    seeds = []
    real = measuring.random_inputs
    monkeypatch.setattr(measuring, "random_inputs", lambda p, seed: (seeds.append((p.q_len, seed)), real(p, seed))[1])
    measure(plan(lengths=(8, 16), seed=40), FakeMachine())
    assert seeds == [(n, 40 + turn) for turn in range(ROUNDS) for n in (8, 16)]


def test_a_problem_that_is_done_holds_no_memory():
    machine, held = FakeMachine(peers=("theirs",)), WeakSet()
    real = machine._subject

    def watched(*how):
        subject = real(*how)
        held.add(subject.run)
        return subject

    machine._subject = watched
    turns = iter(Measuring(plan(lengths=(8, 16)), machine))
    next(turns)
    next(turns)
    assert list(held) == []


def test_ceilings_are_taken_all_through_the_run():
    """Before every problem of every round, so that what disturbs the one disturbs the other."""
    machine = FakeMachine()
    bench = measure(plan(lengths=(8, 16)), machine)
    assert machine.log.count("ceilings") == 2 * ROUNDS
    assert len(bench.ceilings.exp) == 2 * ROUNDS * CEILINGS
    between = [list(g) for is_ceiling, g in groupby(machine.log, "ceilings".__eq__) if not is_ceiling]
    assert all("naive" in found and "evict" in found for found in between)
    assert len(between) == 2 * ROUNDS


def test_every_point_is_checked_before_anything_runs():
    machine = FakeMachine()
    Measuring(plan(), machine)
    assert len(machine.checked) == 6
    assert machine.log == []


# ------------------------------------------------------------------------------------------------ peers
def test_other_peoples_kernels_are_rows_without_a_prediction():
    bench = measure(plan(lengths=(64,)), FakeMachine(peers=("theirs",)))
    (row,) = [r for r in bench.rows if r.algorithm == "theirs"]
    assert len(row.samples_s["cold"]) == 6
    assert (row.predicted, row.counted, row.ratio("warm")) == ({}, {}, None)
    assert set(row.errors) == {"O", "L"}
    assert bench.absent == {"other": "not installed"}
    assert measure(plan(lengths=(64,), peers=False), FakeMachine(peers=("theirs",))).absent == {}


# ------------------------------------------------------------------------------------------------ what must be caught
def half_of_the_keys(outputs, right, state):
    copy_all(outputs, right, state)
    outputs["O"] *= 0.5


def half_of_the_rows(outputs, right, state):
    for name, array in outputs.items():
        array[:, :, : array.shape[2] // 2] = right[name][:, :, : array.shape[2] // 2]


def only_the_first_time(outputs, right, state):
    """Remembers that it has done the work."""
    if not state:
        copy_all(outputs, right, state)
    state["done"] = True


WRONG = {"half of the keys": half_of_the_keys, "half of the rows": half_of_the_rows, "once": only_the_first_time}


@pytest.mark.parametrize("mutant", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["flash2", "theirs"])
def test_work_that_is_not_done_is_seen_in_the_values(mutant, name):
    machine = FakeMachine(peers=("theirs",))
    machine.broken[name] = mutant
    found = rows_of(machine, lengths=(64,))
    assert found[name, 64].problems
    assert not found["naive", 64].problems


def test_a_kernel_that_is_wrong_from_the_start_is_not_timed():
    machine = FakeMachine()
    machine.broken["flash2"] = half_of_the_keys
    row = rows_of(machine, lengths=(64,))["flash2", 64]
    assert row.samples_s == {"warm": [], "cold": []}
    assert row.problems == [p for p in row.problems if p.startswith("O differs from exact softmax by ")]


def remembered(outputs, right, state):
    """Right values, copied from the last time: only the clock can tell."""
    copy_all(outputs, right, state)


def test_a_result_that_is_remembered_is_faster_than_physics():
    machine = FakeMachine(lambda name, p: (1e-3 if name == "flash2" else 1) * 4 * p.pairs() * p.head_dim / FLOPS)
    machine.broken["flash2"] = remembered
    bench = measure(plan(lengths=(64,)), machine)
    found = {r.algorithm: r.problems for r in bench.rows}
    assert found["naive"] == []
    assert [s.partition(": ")[0] for s in found["flash2"]] == ["warm, faster than physics", "cold, faster than physics"]
    assert bench.problems == [f"flash2 N=64 d=16 tiles 32x32: {s}" for s in found["flash2"]]


def test_nobody_is_accused_before_the_ceilings_were_taken_again():
    """Until then the machine had not shown what it can do."""
    factors = [*[0.4] * (ROUNDS * CEILINGS), *[1.0] * 100]
    machine = FakeMachine(lambda name, p: 4 * p.pairs() * p.head_dim / FLOPS, factors)
    bench = measure(plan(names=("flash2",), lengths=(64,)), machine)
    assert bench.problems == []
    assert machine.log.count("ceilings") == ROUNDS + 1


def test_on_a_busy_machine_nobody_is_accused_and_it_is_said():
    machine = FakeMachine(lambda name, p: 1e-5, factors=(0.2, 0.2, 1.0))
    bench = measure(plan(lengths=(64,)), machine)
    assert bench.problems == []
    assert "busy" in bench.doubts[0]


# ------------------------------------------------------------------------------------------------ interruption
@pytest.mark.parametrize("steps", range(1, ROUNDS * len(LENGTHS) + 1))
def test_what_is_measured_survives_an_interruption(steps):
    machine = FakeMachine()
    run = Measuring(plan(), machine)
    turns = iter(run)
    for _ in range(steps + 1):
        next(turns, None)
    bench = result(run)
    assert sum(len(r.samples_s["cold"]) for r in bench.rows) == steps * 2 * (6 // ROUNDS)
    assert bench.complete == (steps == ROUNDS * len(LENGTHS))


def test_an_interruption_in_the_middle_of_a_round():
    machine = FakeMachine()

    def interrupted(outputs, right, state):
        copy_all(outputs, right, state)
        if machine.log.count("flash2") > 6:
            raise KeyboardInterrupt

    machine.broken["flash2"] = interrupted
    run = Measuring(plan(lengths=(64,)), machine)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    (row,) = result(run).rows  # naive had its turn
    assert (row.algorithm, len(row.samples_s["warm"]), row.samples_s["cold"]) == ("naive", 1, [])


def test_before_the_ceilings_there_is_nothing():
    with pytest.raises(ValueError, match="nothing is measured yet"):
        result(Measuring(plan(), FakeMachine()))


# ------------------------------------------------------------------------------------------------ fits
def growing(power):
    return lambda name, p: 1e-4 * p.q_len**power


@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
def test_exponents_are_those_of_the_clock(power):
    """The predicted one is 2: whether that agrees is said, and is not always so."""
    bench = measure(plan(names=("flash2",), lengths=LENGTHS), FakeMachine(growing(power)))
    assert {(f.over, f.mode) for f in bench.fits} == {("N", "warm"), ("N", "cold")}
    for fit in bench.fits:
        assert fit.points == list(LENGTHS)
        assert fit.measured[0] == pytest.approx(power)
        times = [row.predicted[fit.mode]["time_s"] for row in bench.rows]
        assert fit.predicted[0] == pytest.approx(np.polyfit(np.log(LENGTHS), np.log(times), 1)[0])
        assert 1.5 < fit.issued <= 2.0


def test_agreement_needs_a_common_point():
    steady = measure(plan(names=("flash2",), lengths=LENGTHS), FakeMachine(growing(2.5)))
    assert not any(f.agrees for f in steady.fits)
    same = FakeMachine()
    same.time_s = lambda name, p: next(
        r.predicted["warm"]["time_s"] for r in known.rows if r.problem["q_len"] == p.q_len
    )
    known = measure(plan(names=("flash2",), lengths=LENGTHS), FakeMachine())
    warm = [f for f in measure(plan(names=("flash2",), lengths=LENGTHS), same).fits if f.mode == "warm"]
    assert [f.agrees for f in warm] == [True]
    assert all(r.ratio("warm") == pytest.approx(1) for r in known.rows) is False


def test_points_of_another_regime_are_left_out():
    """At N = 8 the launch is more than a tenth of the time; three others are left."""
    bench = measure(plan(names=("flash2",), lengths=(8, *LENGTHS)), FakeMachine())
    for fit in bench.fits:
        assert (fit.left_out, fit.points) == ([8], list(LENGTHS))


def test_two_points_are_no_line():
    assert measure(plan(lengths=(128, 256)), FakeMachine()).fits == []


def fits_over(points):
    return {f.over: f for f in measure(Plan(points, 3), FakeMachine()).fits if f.mode == "warm"}


def test_over_d():
    fit = fits_over(grid(["naive"], PROBLEM, [128], [16, 32, 64]))["d"]
    assert (fit.points, fit.where, fit.theory) == ([16, 32, 64], "N=128", "0, d << N")
    assert fit.measured[0] == pytest.approx(1.0)


def test_over_d_with_the_same_tiles_and_with_the_same_sram():
    """At the same M the bytes grow by nearly another power: tile_q falls as d grows."""
    same_tiles = fits_over(grid(["flash2"], PROBLEM, [256], [16, 32, 64], [TileSizes(32, 32)]))
    assert set(same_tiles) == {"d"}
    points = [p for d in (16, 32, 64) for p in grid(["flash2"], PROBLEM, [256], [d], [TileSizes(2048 // d, 32)])]
    same_m = fits_over(tuple(points))
    assert set(same_m) == {"d, same M"}
    assert same_m["d, same M"].issued > same_tiles["d"].issued + 0.7 > 1.6


def test_over_the_sram():
    """Only the query tile grows; one with another key tile belongs to no line."""
    tiles = [TileSizes(q, 16) for q in (32, 64, 128)]
    found = fits_over(grid(["flash2"], PROBLEM, [256], [16], [*tiles, TileSizes(16, 32)]))
    assert set(found) == {"M"}
    assert len(found["M"].points) == 3
    assert found["M"].points == sorted(found["M"].points)
    assert -1.2 < found["M"].issued < -0.8
    assert found["M"].measured[0] == pytest.approx(0.0)


def test_the_crossover():
    """naive takes 2 x 64 / N of flash2's time: they meet at 128."""
    machine = FakeMachine(lambda name, p: p.q_len**2 * 1e-6 * (p.q_len / 128 if name == "naive" else 1))
    bench = measure(plan(lengths=(64, 256)), machine)
    warm, cold = bench.crossovers
    assert warm.measured == pytest.approx([128.0] * 3)
    assert (warm.mode, cold.mode, warm.lengths) == ("warm", "cold", [64, 256])


@pytest.mark.parametrize(("factor", "value"), [(2.0, 0.0), (0.5, None)], ids=["from the first on", "never"])
def test_no_crossover(factor, value):
    machine = FakeMachine(lambda name, p: p.q_len**2 * 1e-6 * (factor if name == "naive" else 1))
    assert measure(plan(lengths=(64, 256)), machine).crossovers[0].measured == [value] * 3


# ------------------------------------------------------------------------------------------------ rows
def test_quartiles_and_ratio():
    rng = np.random.default_rng(0)
    machine = FakeMachine(lambda *_: float(rng.uniform(1, 2)))
    row = rows_of(machine, names=("flash2",), lengths=(64,))["flash2", 64]
    low, middle, high = row.quartiles_s("cold")
    assert min(row.samples_s["cold"]) < low < middle < high < max(row.samples_s["cold"])
    assert middle == median(row.samples_s["cold"])
    assert row.ratio("cold") == row.predicted["cold"]["time_s"] / middle
