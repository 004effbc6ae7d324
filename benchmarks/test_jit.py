"""Speed of the engine `jit` (benchmarks/README.md has the budgets)."""

from __future__ import annotations

import pytest

from ioaware.problem import AttentionProblem
from ioaware.reference import random_inputs
from ioaware_kernels.cases import Case
from ioaware_kernels.implementation import load
from ioaware_kernels.jit_engine import JitEngine, code_of
from ioaware_kernels.launch import GridEngine
from ioaware_kernels.ptx.jit.compile import _machine_code, text_of
from ioaware_kernels.run import run
from ioaware_kernels.verify import module_of

FLASH2 = load("flash2")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IOAWARE_CACHE_DIR", str(tmp_path_factory.mktemp("jit")))
        yield


def problem_of(length):
    return AttentionProblem(q_len=length, head_dim=64, dtype="fp32")


@pytest.mark.parametrize("engine", [JitEngine(), GridEngine()], ids=["jit", "grid"])
@pytest.mark.parametrize("length", [256, 1024])
@pytest.mark.benchmark(group="flash2, one head, by engine")
def test_flash2(benchmark, length, engine):
    problem = problem_of(length)
    inputs, module = random_inputs(problem), module_of(FLASH2, Case(problem))
    benchmark.pedantic(lambda: run(FLASH2, module, problem, inputs, engine=engine), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="machine code of flash2")
def test_machine_code_from_the_disk(benchmark):
    module = module_of(FLASH2, Case(problem_of(64)))
    code_of(module, "flash2")
    benchmark(lambda: code_of.__wrapped__(module, "flash2").run)


@pytest.mark.parametrize("kernel", ["flash2", "naive", "flash2_backward"])
@pytest.mark.benchmark(group="machine code, made by LLVM")
def test_machine_code_that_is_new(benchmark, kernel):
    implementation = load(kernel)
    problem = AttentionProblem(q_len=64, head_dim=64, dtype="fp32", direction=implementation.direction)
    module = module_of(implementation, Case(problem))
    kernels = [module.kernel(launch.entry) for launch in implementation.launches]
    benchmark.pedantic(lambda: [_machine_code(text_of(k)) for k in kernels], rounds=3, warmup_rounds=1)
