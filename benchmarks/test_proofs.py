"""How fast a schedule is traced and checked: `pytest benchmarks/test_proofs.py --benchmark-enable`."""

import pytest

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.trace import trace
from tests.checkers import compiled
from tests.coq import needs_coq

PROBLEM, TILES = AttentionProblem(q_len=48, head_dim=8), TileSizes(16, 16)


@pytest.fixture(scope="module")
def program():
    return record(find("flash2").forward, PROBLEM.features)


def test_a_trace(benchmark, program):
    made = benchmark(trace, program, PROBLEM, TILES)
    benchmark.extra_info["operations"] = len(made.operations)


@needs_coq
def test_the_extracted_checker(benchmark, program):
    made = trace(program, PROBLEM, TILES)
    compiled().extracted(made)  # compiles it
    assert benchmark(compiled().extracted, made) == (made.loads, made.stores)
    benchmark.extra_info["operations"] = len(made.operations)


@needs_coq
def test_coqs_kernel(benchmark):
    problem = AttentionProblem(q_len=12, head_dim=4)
    made = trace(record(find("flash2").forward, problem.features), problem, TileSizes(4, 4))
    benchmark.extra_info["operations"] = len(made.operations)
    assert benchmark.pedantic(compiled().in_coq, (made,), rounds=2) == (made.loads, made.stores)
