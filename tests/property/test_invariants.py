"""What must hold of any answer, whatever the problem: floors, monotonicity, scaling."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import ioaware as io
from ioaware.bounds import compulsory, lower_bound
from ioaware.masks import CAUSAL, FULL
from ioaware.program import record
from ioaware.readers.count import count
from ioaware.schedule import best_tiles
from tests.strategies import GENERAL, problems, tiles

TEXTS = {
    f"{a.name}-{direction}": (text, direction)
    for a in GENERAL
    for text, direction in ((a.forward, "fwd"), (a.backward, "bwd"))
    if text
}
TILED = [a for a in GENERAL if not a.library_kernels]
each_text = pytest.mark.parametrize(("text", "direction"), TEXTS.values(), ids=TEXTS)
sram = st.integers(8 * 1024, 1024 * 1024)


@each_text
@given(problem=problems(), sizes=tiles)
def test_issued_is_at_least_compulsory(text, direction, problem, sizes):
    """Per tensor, too: every needed element is read, every output element written. A saved P stands in for Q and K."""
    issued = count(record(text, problem.features), problem, sizes)
    for name, floor in compulsory(problem, direction).tensors.items():
        if name == "padding" and direction == "bwd":
            continue  # a backward pass that saved P has the padding in it
        assert issued[name].read_bytes >= floor.read_bytes, name
        assert issued[name].write_bytes >= floor.write_bytes, name


@pytest.mark.parametrize("algorithm", TILED, ids=lambda a: a.name)
@given(problem=problems(dropout=0.0), sram_bytes=sram)
def test_issued_is_at_least_the_lower_bound(algorithm, problem, sram_bytes):
    program = record(algorithm.forward, problem.features)
    chosen = best_tiles(program, problem, sram_bytes).tiles
    assert count(program, problem, chosen).read_bytes >= lower_bound(problem, "fwd", sram_bytes).issued_read_bytes


@pytest.mark.parametrize("n", [64, 300, 1024, 8192, 2**20])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("sram_kb", [48, 100, 192, 1024])
@pytest.mark.parametrize("mask", ["full", "causal"])
def test_real_sizes_stay_above_the_proved_bound(n, head_dim, sram_kb, mask):
    """Where the bound has teeth: long sequences. Library kernels too: they move more than any schedule that fits."""
    problem = io.AttentionProblem(q_len=n, head_dim=head_dim, mask=mask)
    report = io.simulate(problem, algorithms=[a.name for a in GENERAL], sram=f"{sram_kb}KB")
    for a in report.algorithms.values():
        assert a.totals.ratio >= 1, a.name


@pytest.mark.parametrize("algorithm", TILED, ids=lambda a: a.name)
@given(problem=problems(longest=400), sram_bytes=sram, more=st.integers(0, 1024 * 1024), backward=st.booleans())
def test_more_sram_never_costs_bytes(algorithm, problem, sram_bytes, more, backward):
    text = algorithm.backward if backward and algorithm.backward else algorithm.forward
    program = record(text, problem.features)
    less, greater = (best_tiles(program, problem, size).tiles for size in (sram_bytes, sram_bytes + more))
    assert count(program, problem, greater).total_bytes <= count(program, problem, less).total_bytes


@each_text
@given(problem=problems(mask=FULL), sizes=tiles)
def test_causal_moves_no_more_than_full(text, direction, problem, sizes):
    del direction
    causal = replace(problem, mask=CAUSAL)
    full_bytes = count(record(text, problem.features), problem, sizes).total_bytes
    causal_bytes = count(record(text, causal.features), causal, sizes).total_bytes
    passes = 2 * sum(q * kv for q, kv in problem.sequences) * problem.heads * problem.itemsize("score")
    extra = passes if text.__name__ == "eager" and not problem.padding else 0  # eager PyTorch adds a mask kernel
    assert causal_bytes <= full_bytes + extra


@each_text
@given(problem=problems(), sizes=tiles)
def test_doubling_the_batch_doubles_the_bytes(text, direction, problem, sizes):
    del direction
    assume(isinstance(problem.q_len, int))
    program = record(text, problem.features)
    once, twice = (count(program, p, sizes) for p in (problem, replace(problem, batch=2 * problem.batch)))
    assert twice == 2 * once


@each_text
@given(problem=problems(), sizes=tiles)
def test_a_batch_is_its_sequences(text, direction, problem, sizes):
    """Variable lengths: the traffic of a batch is the sum over its sequences."""
    del direction
    program = record(text, problem.features)
    total = io.Traffic()
    for q_len, kv_len in problem.sequences:
        total = total + count(program, replace(problem, q_len=q_len, kv_len=kv_len, batch=1), sizes)
    assert count(program, problem, sizes) == total


@each_text
@given(problem=problems(), sizes=tiles)
def test_wider_numbers_scale_their_tensors(text, direction, problem, sizes):
    """fp64 tensors move four times the bytes of fp16 ones; statistics stay fp32."""
    del direction
    program = record(text, problem.features)
    narrow, wide = (count(program, replace(problem, dtype=t, score_dtype=t), sizes) for t in ("fp16", "fp64"))
    for name, tensor in program.tensors.items():
        factor = 4 if tensor.dtype in ("io", "score") else 1
        assert wide[name].read_bytes == factor * narrow[name].read_bytes, name
