"""The backend `cpu` on this machine: its loops do what they are timed for, its kernels are right. No speed here."""

from __future__ import annotations

import numpy as np
import pytest

from ioaware.errors import InputError
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.bench import Plan, Point, backend, grid, loops, measure, on_cpu
from ioaware_kernels.cpu.matmul import STRIP
from ioaware_kernels.cpu.vector import LANES

PROBLEM = AttentionProblem(q_len=40, dtype="fp32", score_dtype="fp32", heads=2, batch=2)


@pytest.fixture
def cpu(monkeypatch):
    """This machine, with loops so short that they measure nothing."""
    monkeypatch.setattr(on_cpu, "TURNS", 2)
    monkeypatch.setattr(on_cpu, "MOVED", 1)
    monkeypatch.setattr(on_cpu, "REGIONS", 2)
    monkeypatch.setattr(on_cpu, "SIDES", (8, 16))
    return backend("cpu")


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_copy_copies():
    source, target = random(2, 1000), np.zeros((2, 1000), np.float32)
    loops.copy(source, target, 3)
    assert (target == source).all()


def test_exponentials():
    x, y = random(2, 5, LANES), np.zeros((2, 5, LANES), np.float32)
    loops.exponentials(x, y, 2)
    assert y == pytest.approx(np.exp(x.astype(np.float64)), rel=2**-22)


def test_products_add_up():
    c, a, b = np.zeros((2, 12, STRIP), np.float32), random(2, 12, 8), random(2, 8, STRIP)
    loops.products(c, a, b, 3)
    assert c == pytest.approx(3 * a.astype(np.float64) @ b, abs=1e-4)


def test_every_ceiling_is_taken(cpu):
    found = cpu.ceilings("fp32", 2)
    sizes = list(found.copy)
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 3 * cpu.device.l2_bytes  # no cache holds it
    assert set(found.matmul) == {"BLAS 8x8", "BLAS 16x16", "the kernels' own"}
    every = [*found.copy.values(), *found.matmul.values(), found.exp, found.launch]
    assert {len(samples) for samples in every} == {2}
    assert min(map(min, every)) > 0
    assert set(cpu.model.rates(found)) == {"private cache", "shared cache", "memory", "matmul", "exp", "launch"}


def test_the_kernels_are_timed_and_right(cpu):
    points = (*grid(["naive", "flash2"], PROBLEM, [40], [16]), Point("flash2", PROBLEM, TileSizes(32, 16)))
    rows = measure(Plan(points, 3, peers=False), cpu).rows
    assert [(r.algorithm, r.asked_tiles) for r in rows] == [("naive", None), ("flash2", None), ("flash2", "32x16")]
    for row in rows:
        assert set(row.errors) == {"O", "L"}
        assert all(e["error"] <= e["tolerance"] for e in row.errors.values())
        assert {len(samples) for samples in row.samples_s.values()} == {3}


def test_causal(cpu):
    problem = AttentionProblem(q_len=1, dtype="fp32", mask="causal")
    rows = measure(Plan(grid(["naive", "flash2"], problem, [70], [8]), 3, peers=False), cpu).rows
    assert all(e["error"] <= e["tolerance"] for row in rows for e in row.errors.values())


REFUSED = [("flash1", {}, "known on a CPU: naive, flash2"), ("flash2", {"dtype": "fp16"}, "compute in fp32")]


@pytest.mark.parametrize(("name", "how", "why"), REFUSED)
def test_refused(name, how, why, cpu):
    with pytest.raises(InputError, match=why):
        cpu.check(Point(name, AttentionProblem(**{"q_len": 8, "dtype": "fp32", **how})))


def test_it_describes_itself(cpu):
    found = cpu.describe()
    assert found["name"] == cpu.device.name
    assert found["threads"] >= 1
    assert found["blas"]
