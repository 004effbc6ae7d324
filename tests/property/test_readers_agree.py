"""Three readers, one program: values equal float64 softmax, counts equal what ran, the ledger bounds what was held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms import ALGORITHMS
from ioaware.masks import FULL
from ioaware.program import record
from ioaware.readers.count import count, traffic_quantities
from ioaware.readers.execute import execute
from ioaware.readers.onchip import on_chip
from ioaware.readers.walk import walked
from ioaware.traffic import Moved, Traffic
from tests.strategies import EXACT, problems, tiles

TEXTS = {f.__name__: f for a in ALGORITHMS for f in (a.forward, a.backward)}


def expected_and_inputs(problem, seed):
    inputs = reference.random_inputs(problem, seed)
    expected = reference.attention(problem, inputs)
    return expected, {**expected, **inputs}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@given(problem=problems(**EXACT), sizes=tiles, seed=st.integers(0, 99))
def test_values_counts_and_ledger_agree(text, problem, sizes, seed):
    program = record(text, problem.features)
    expected, inputs = expected_and_inputs(problem, seed)
    run = execute(program, problem, sizes, inputs)
    seen = np.isfinite(expected["L"])  # rows that see no key: l and m are conventions there
    for tensor in program.tensors.values():
        if tensor.role == "output":
            got, want = run.tensors[tensor.name], expected[tensor.name]
            if tensor.name in ("P", "P_dropped", "keep"):
                continue  # tiles that the mask hides are never stored; O is made from the others
            where = seen if tensor.name in ("L", "l", "m") else True
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=tensor.name) if where is True else (
                np.testing.assert_allclose(got[where], want[where], rtol=1e-9, atol=1e-9, err_msg=tensor.name)
            )
    assert count(program, problem, sizes) == run.traffic
    held = on_chip(program, problem, sizes)
    assert run.on_chip.total <= held.total
    assert run.on_chip.loaded <= held.loaded
    assert run.on_chip.computed <= held.computed
    if problem.band == FULL and len(set(problem.sequences)) == 1:
        assert run.on_chip == held


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@given(problem=problems(), sizes=tiles)
def test_closed_form_equals_walk(text, problem, sizes):
    program = record(text, problem.features)
    got = Traffic()
    for (_, tensor, kind), n in walked(program, traffic_quantities(program), problem, sizes).items():
        got = got + Traffic({tensor: Moved(**{kind: n})})
    assert count(program, problem, sizes) == got
