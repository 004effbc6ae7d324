"""Sampled rows: a block of rows is a problem of its own with the values of the whole; a wrong element there is seen."""

from __future__ import annotations

import numpy as np
import pytest

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.reference import attention, random_inputs
from ioaware_kernels.bench.values import HEADS, ROWS, blocks, check
from ioaware_kernels.tensors import unpacked

SHAPES = {
    "plain": {"q_len": 70},
    "causal": {"q_len": 70, "mask": "causal"},
    "more queries than keys": {"q_len": 90, "kv_len": 40, "mask": "causal"},
    "more keys than queries": {"q_len": 40, "kv_len": 90, "mask": "causal"},
    "batch and heads": {"q_len": 33, "batch": 3, "heads": 4, "kv_heads": 2, "mask": "causal"},
    "fewer rows than a block": {"q_len": 3, "kv_len": 50},
}


def solved(seed=1, **shape):
    problem = AttentionProblem(dtype="fp32", head_dim=8, **shape)
    inputs = {n: a for n, a in random_inputs(problem, seed).items() if n != "dO"}
    exact = attention(problem, inputs)
    return problem, inputs, {n: unpacked(problem, exact[n]).astype(np.float32) for n in ("O", "L")}


def checked(problem, inputs, outputs, seed=0):
    return check(record(find("flash2").forward, problem.features), problem, inputs, outputs, seed)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.filterwarnings("error")
def test_exact_outputs_are_fine(shape):
    found, wrong = checked(*solved(**shape))
    assert wrong == []
    assert set(found) == {"O", "L"}
    assert all(0 < d.tolerance < 1e-3 for d in found.values())


@pytest.mark.parametrize("name", ["O", "L"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_wrong_row_of_a_block_is_seen(shape, name):
    problem, inputs, outputs = solved(**shape)
    block = list(blocks(problem, 0))[-1]
    rows = outputs[name][block.batch, block.head]
    row = block.last - 1  # one that sees keys
    rows[row] += 0.01
    _, wrong = checked(problem, inputs, outputs)
    assert wrong[0].startswith(f"{name} differs from exact softmax by 0.01")


@pytest.mark.parametrize("name", ["O", "L"])
def test_an_unwritten_element_anywhere_is_seen(name):
    problem, inputs, outputs = solved(q_len=300)
    outputs[name][0, 0, 100, 0] = np.nan
    assert checked(problem, inputs, outputs) == ({}, [f"{name} is not written everywhere"])


def test_blocks_are_at_both_ends_and_somewhere_between():
    problem = AttentionProblem(q_len=1000, heads=8, batch=2)
    found = list(blocks(problem, 0))
    assert len({(b.batch, b.head) for b in found}) == HEADS
    assert {b.first for b in found} >= {0, 1000 - ROWS}
    assert {b.last - b.first for b in found} == {ROWS}
    assert found == list(blocks(problem, 0)) != list(blocks(problem, 1))
    assert all(b.first >= 0 and b.last <= 1000 for seed in range(50) for b in blocks(problem, seed))
