"""Speed of the PTX executor and of `verify` (benchmarks/README.md has the budgets)."""

from __future__ import annotations

import pytest

from ioaware.problem import AttentionProblem
from ioaware.reference import random_inputs
from ioaware_kernels.cases import Case, matrix
from ioaware_kernels.implementation import load, names
from ioaware_kernels.launch import GridEngine
from ioaware_kernels.ptx import grid
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.count import Counts
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.run import run
from ioaware_kernels.verify import module_of, verify

FLASH2 = load("flash2")


def once(length, options, kernel=FLASH2):
    """A function that runs a kernel on one head of N = length, d = 64."""
    problem = AttentionProblem(q_len=length, head_dim=64, dtype=kernel.dtypes[0])
    inputs, module = random_inputs(problem), module_of(kernel, Case(problem))
    return lambda: run(kernel, module, problem, inputs, engine=GridEngine(options))


@pytest.mark.parametrize("counting", [True, False], ids=["counting", "not counting"])
@pytest.mark.benchmark(group="flash2, N = 1024, one head")
def test_flash2(benchmark, counting, monkeypatch):
    if not counting:
        monkeypatch.setattr(Counts, "add", lambda *_: None)
    benchmark.pedantic(once(1024, Options()), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="flash2 on tensor cores, N = 1024, one head")
def test_tensor_cores(benchmark):
    benchmark.pedantic(once(1024, Options(), load("flash2_mma")), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(
    "options", [Options(), Options(races=True), Options(requests=True)], ids=["plain", "races", "requests"]
)
@pytest.mark.benchmark(group="flash2, N = 256, what is watched")
def test_watching(benchmark, options):
    benchmark.pedantic(once(256, options), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="reading PTX")
def test_parse_and_compile(benchmark):
    text = module_of(FLASH2, Case(AttentionProblem(q_len=8, dtype="fp32"))).ptx
    benchmark(lambda: grid.compile_kernel.__wrapped__(parse(text)["flash2"]))


@pytest.mark.benchmark(group="ioaware verify")
def test_the_default_matrix(benchmark):
    kernels = [load(name) for name in names()]
    benchmark.pedantic(lambda: [verify(k, case) for k in kernels for case in matrix(k)], rounds=1)
