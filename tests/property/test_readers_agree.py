"""Three readers, one program: values equal float64 softmax, counts equal what ran, the ledger bounds what was held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.masks import FULL
from ioaware.program import record
from ioaware.readers.count import count, traffic_quantities
from ioaware.readers.execute import execute
from ioaware.readers.onchip import on_chip
from ioaware.readers.walk import walked
from ioaware.traffic import Moved, Traffic
from tests.strategies import EXACT, GENERAL, problems, tiles

TEXTS = {f.__name__: f for a in GENERAL for f in (a.forward, a.backward) if f}


def expected_and_inputs(problem, seed):
    inputs = reference.random_inputs(problem, seed)
    expected = reference.attention(problem, inputs)
    return expected, {**expected, **inputs}


# Saved for the backward pass; tiles that the mask hides are never stored. O is made from the others.
SAVED = ("P", "P_dropped", "keep")


def check_values(name, got, expected):
    """Equal to float64 softmax; l, m and L of rows that see no key are a convention, not a value."""
    rows = np.isfinite(expected["L"]) if name in ("L", "l", "m") else np.ones(got.shape, bool)
    np.testing.assert_allclose(got[rows], expected[name][rows], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@settings(max_examples=30)
@given(problem=problems(**EXACT), sizes=tiles, seed=st.integers(0, 99))
def test_values_counts_and_ledger_agree(text, problem, sizes, seed):
    program = record(text, problem.features)
    expected, inputs = expected_and_inputs(problem, seed)
    run = execute(program, problem, sizes, inputs)
    for tensor in program.tensors.values():
        if tensor.role == "output" and tensor.name not in SAVED:
            check_values(tensor.name, run.tensors[tensor.name], expected)
    assert count(program, problem, sizes) == run.traffic
    held = on_chip(program, problem, sizes)
    assert run.on_chip.total <= held.total
    assert run.on_chip.loaded <= held.loaded
    assert run.on_chip.computed <= held.computed
    if problem.band == FULL and len(set(problem.sequences)) == 1:
        assert run.on_chip == held


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@settings(max_examples=60)
@given(problem=problems(), sizes=tiles)
def test_closed_form_equals_walk(text, problem, sizes):
    program = record(text, problem.features)
    got = Traffic()
    for (_, tensor, kind), n in walked(program, traffic_quantities(program), problem, sizes).items():
        got = got + Traffic({tensor: Moved(**{kind: n})})
    assert count(program, problem, sizes) == got


# ------------------------------------------------------------------------------------------- number formats
ROUNDOFF = {"fp64": 2.0**-53, "fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
SMALLEST = {"fp64": 2.0**-1074, "fp32": 2.0**-149, "fp16": 2.0**-24, "bf16": 2.0**-133}  # subnormal spacing
formats = st.sampled_from([*ROUNDOFF, "fp8_e4m3", "fp8_e5m2"])


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@settings(max_examples=15)
@given(problem=problems(longest=30), dtype=formats, score_dtype=formats, sizes=tiles)
def test_counts_agree_in_every_number_format(text, problem, dtype, score_dtype, sizes):
    problem = replace(problem, dtype=dtype, score_dtype=score_dtype)
    program = record(text, problem.features)
    _, inputs = expected_and_inputs(problem, seed=0)
    assert execute(program, problem, sizes, inputs).traffic == count(program, problem, sizes)


def forward_bound(problem, expected, inputs, sizes):
    """An a-priori bound on |O - float64| when everything is rounded as declared.

    O is a convex combination of V's rows. Rounding a score of size s changes its weight by 2 u s relative; rounding a
    weight by u; storing O once per key tile (FlashAttention) adds u each time, and later steps only shrink it; fp32
    sums over d and over the keys add their length in u_32. Subnormal weights add their spacing, once per key.
    """
    scores = np.abs(expected["s_max"])
    u, us, u32 = ROUNDOFF[problem.dtype], ROUNDOFF[problem.score_dtype], ROUNDOFF["fp32"]
    keys = max(kv for _, kv in problem.sequences)
    stores = -(-keys // sizes.kv) + 1
    relative = 2 * us * scores + us + stores * u + 4 * (keys + problem.head_dim * scores + 20) * u32
    return (relative + keys * SMALLEST[problem.score_dtype]) * np.abs(inputs["V"].astype(float)).max()


@pytest.mark.parametrize("text", [a.forward for a in GENERAL], ids=[a.name for a in GENERAL])
@settings(max_examples=30)
@given(
    problem=problems(dropout=0.0, longest=40),
    dtype=st.sampled_from(["fp32", "fp16", "bf16"]),
    score_dtype=st.sampled_from(["fp32", "fp16", "bf16"]),
    sizes=tiles,
)
def test_rounding_stays_within_its_bound(text, problem, dtype, score_dtype, sizes):
    problem = replace(problem, dtype=dtype, score_dtype=score_dtype)
    expected, inputs = expected_and_inputs(problem, seed=1)
    largest = np.abs(inputs["Q"].astype(float)).max() * np.abs(inputs["K"].astype(float)).max()
    expected["s_max"] = largest * np.sqrt(problem.head_dim)  # |q.k| / sqrt(d) is at most this
    run = execute(record(text, problem.features), problem, sizes, inputs)
    error = np.abs(run.tensors["O"].astype(float) - expected["O"]).max()
    assert error <= forward_bound(problem, expected, inputs, sizes)
