"""Programs of a file: which functions are programs, and what pairs a forward with a backward pass."""

from __future__ import annotations

import pytest

from ioaware.errors import ProgramError, VerificationError
from ioaware.problem import AttentionProblem
from ioaware.program_file import check, load_programs

FILE = """
from ioaware.algorithms.flash2 import flash2, flash2_backward

def mine(p, Q, K, V, O, L):
    _attend(p, Q, K, V, O, L)

def mine_backward(p, Q, K, V, O, dO, L, dQ, dK, dV):
    flash2_backward(p, Q, K, V, O, dO, L, dQ, dK, dV)

def without_output(p, Q):
    for b, h, g, i in p.kernel("read", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.load(Q[h, g, i])

def zeros(p, Q, O):
    for b, h, g, i in p.kernel("zero", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(O[h, g, i], p.zeros(i, p.value_dim))

def _attend(p, Q, K, V, O, L):
    flash2(p, Q, K, V, O, L)

def other(x):
    return x
"""
BOTH = AttentionProblem(q_len=64, heads=2, mask="causal", direction="fwd+bwd")


@pytest.fixture
def programs(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return {a.name: a for a in load_programs(str(path))}


def test_functions_of_p_are_programs_and_helpers_are_not(programs):
    assert list(programs) == ["mine", "without_output", "zeros"]
    assert programs["mine"].backward.__name__ == "mine_backward"
    assert programs["zeros"].backward is None


def test_a_right_program_passes(programs):
    check(programs["mine"], BOTH)


def test_a_program_without_its_output_is_refused(programs):
    with pytest.raises(ProgramError, match="has no parameter O"):
        check(programs["without_output"], AttentionProblem(q_len=64))


def test_wrong_values_are_refuted(programs):
    with pytest.raises(VerificationError, match="zeros: O differs from exact softmax attention by"):
        check(programs["zeros"], AttentionProblem(q_len=64))
