"""Every forward program's trace is a legal run: a machine in Python, the extracted checker and Coq's kernel agree."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from ioaware.readers.trace import counted, trace
from ioaware_proofs.certificate import bounds
from tests.checkers import compiled
from tests.coq import needs_coq
from tests.machine import complete, play
from tests.strategies import EXACT, GENERAL, bands

TEXTS = {a.forward.__name__: a.forward for a in GENERAL}
WIDTH = 8  # bytes of an fp64 number
SAMPLES = {
    "full": {"q_len": 4, "head_dim": 2},
    "causal, ragged, grouped": {"q_len": 3, "kv_len": 4, "heads": 2, "kv_heads": 1, "mask": "causal", "value_dim": 1},
    "band": {"q_len": 5, "head_dim": 1, "mask": Band(1, 1)},
}


@st.composite
def small_problems(draw):
    """As `tests.strategies.problems`, but every word is an operation."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sequences = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=2))
    q_len, kv_len = zip(*sequences, strict=True)
    return AttentionProblem(
        q_len=q_len, kv_len=kv_len, batch=len(sequences), heads=kv_heads * group, kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 3)), value_dim=draw(st.integers(1, 3)), mask=draw(bands),
        dropout=draw(st.sampled_from([0.0, 0.3])), **EXACT,
    )  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@settings(max_examples=20)
@given(problem=small_problems(), tiles=st.builds(TileSizes, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)))
def test_a_trace_is_a_legal_run_of_what_was_counted(text, problem, tiles):
    program = record(text, problem.features)
    made = trace(program, problem, tiles)
    most, loads, stores, slow = play(made)
    assert (loads, stores) == (made.loads, made.stores) == counted(program, problem, tiles)
    assert most == made.memory
    assert complete(made, slow)
    assert loads >= bounds(made).loads
    assert loads + stores >= bounds(made).traffic
    run = execute(program, problem, tiles, reference.random_inputs(problem))
    assert most * WIDTH <= run.on_chip.total  # a word that two values share takes room once


@needs_coq
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_extracted_checker_accepts(text):
    for shape in SAMPLES.values():
        made = sample(text, shape)
        assert compiled().extracted(made) == (made.loads, made.stores)


@needs_coq
@pytest.mark.parametrize("name", SAMPLES)
def test_the_kernel_accepts(name):
    made = sample(TEXTS["flash2"], SAMPLES[name])
    assert compiled().in_coq(made) == (made.loads, made.stores)


def sample(text, shape):
    problem = AttentionProblem(**{"head_dim": 2, "dtype": "fp32", **shape})
    return trace(record(text, problem.features), problem, TileSizes(2, 3))
