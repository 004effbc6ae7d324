"""Two independent machines run every text: what was recorded does what the function says, element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms.flash1 import flash1
from ioaware.algorithms.flash2 import flash2, flash2_backward
from ioaware.algorithms.flash_decoding import flash_decoding
from ioaware.masks import FULL
from ioaware.problem import AttentionProblem, Bias
from ioaware.program import record
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from tests.property import direct_machine
from tests.strategies import EXACT, GENERAL, problems, tiles

TEXTS = {f.__name__: f for a in GENERAL for f in (a.forward, a.backward) if f}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def moved_bytes(traffic):
    """A traffic record, as the direct machine keeps it."""
    kinds = ("read", "write", "add")
    return {(name, kind): n for name, m in traffic.tensors.items() for kind, n in zip(kinds, m, strict=True) if n}


MAY_BE_PARTIAL = ("P", "P_dropped", "keep")  # tiles that the mask hides are not stored


def pairs_of_parts(problem, name, packed, arrays):
    """The rows of a packed tensor and of the direct machine's, sequence by sequence, where something was stored."""
    q = kv = 0
    for (q_len, kv_len), direct in zip(problem.sequences, arrays, strict=True):
        rows, start = (q_len, q) if packed.ndim == 4 else (kv_len, kv)
        part = packed[..., start : start + rows, : direct.shape[-1]]
        stored = ~np.isnan(direct)
        assert name in MAY_BE_PARTIAL or stored.all()
        yield part[stored], direct[stored]
        q, kv = q + q_len, kv + kv_len


READ_ONCE = ("padding", "slopes", "sink")


def check_moved(problem, recorded, moved):
    """Equal; but the direct machine reads on demand what is read once, so not where a tile sees nothing."""
    if problem.band != FULL:
        for key in (key for key in recorded if key[0] in READ_ONCE):
            assert moved.pop(key, 0) <= recorded[key]
        recorded = {key: n for key, n in recorded.items() if key[0] not in READ_ONCE}
    assert recorded == moved


def check_machines(text, problem, sizes, seed=0):
    """What was recorded stores the same elements, and moves the same bytes, as the function that was recorded."""
    inputs = reference.random_inputs(problem, seed)
    inputs = {**reference.attention(problem, inputs), **inputs}
    run = execute(record(text, problem.features), problem, sizes, inputs)
    outputs, moved = direct_machine.run(text, problem, sizes, inputs)
    check_moved(problem, moved_bytes(run.traffic), moved)
    for name, arrays in outputs.items():
        for got, want in pairs_of_parts(problem, name, run.tensors[name], arrays):
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12, err_msg=name)


@each_text
@settings(max_examples=15)
@given(problem=problems(longest=30, **EXACT), sizes=tiles, seed=st.integers(0, 99))
def test_both_machines_agree(text, problem, sizes, seed):
    check_machines(text, problem, sizes, seed)


SCORES = {"softcap": 2.0, "alibi": True, "bias": Bias(), "sink": True}


@pytest.mark.parametrize("text", [flash1, flash2, flash2_backward, flash_decoding], ids=lambda f: f.__name__)
@settings(max_examples=15)
@given(problem=problems(longest=20, padding=True, **SCORES, **EXACT), sizes=tiles)
def test_both_machines_agree_on_what_is_done_to_scores(text, problem, sizes):
    check_machines(text, problem, sizes)


@each_text
@settings(max_examples=10)
@given(problem=problems(dtype="fp8", score_dtype="bf16"), sizes=tiles)
def test_counts_agree_where_every_role_has_its_own_width(text, problem, sizes):
    """Bytes per element: io 1, score 2, accum and stat 4, byte 1. The values do not matter here."""
    inputs = {name: np.ones(shape) for name, shape in reference.shapes(problem).items()}
    _, moved = direct_machine.run(text, problem, sizes, inputs)
    check_moved(problem, moved_bytes(count(record(text, problem.features), problem, sizes)), moved)


def test_the_direct_machine_computes_attention():
    """The witness itself, on one query and two keys: softmax by hand."""
    problem = AttentionProblem(q_len=1, kv_len=2, head_dim=1, **EXACT)
    inputs = {"Q": np.full((1, 1, 1, 1), 2.0), "K": np.array([[[0.5], [0.0]]]), "V": np.array([[[1.0], [5.0]]])}
    outputs, moved = direct_machine.run(TEXTS["flash2"], problem, TileSizes(1, 1), inputs)
    weight = np.e / (np.e + 1)  # the scores are 1 and 0
    np.testing.assert_allclose(outputs["O"][0], weight * 1 + (1 - weight) * 5)
    np.testing.assert_allclose(outputs["L"][0], np.log(np.e + 1))
    assert moved == {("Q", "read"): 8, ("K", "read"): 16, ("V", "read"): 16, ("O", "write"): 8, ("L", "write"): 8}
