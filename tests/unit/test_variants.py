"""The page docs/variants.md is up to date, has everything there is, and cannot say what does not hold."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ioaware import masks, variants
from ioaware.algorithms import ALGORITHMS, find
from ioaware.errors import VerificationError
from ioaware.kv_cache import BITS
from ioaware.masks.parse import NUMBERS
from ioaware.parallel import SCHEMES
from ioaware.precision.formats import FORMATS
from ioaware.problem import AttentionProblem
from ioaware.traffic import Traffic
from ioaware_proofs import theory

PAGE = Path(__file__).parents[2] / "docs" / "variants.md"
PLAIN = AttentionProblem(**variants.SMALL)
flash2 = find("flash2")


@cache
def rows():
    """{name: variant}"""
    return {v.name: v for members in variants.GROUPS.values() for v in members()}


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == variants.page(), "run: python -m ioaware.variants > docs/variants.md"


# ------------------------------------------------------------------------------------------------ everything there is
def test_every_program_scheme_and_format_has_a_row():
    text = PAGE.read_text(encoding="utf-8")
    asked = [f"--alg {a.name}" for a in ALGORITHMS] + [f"--scheme {s.name}" for s in SCHEMES]
    asked += [f"--kv-dtype {name}" for name in BITS] + [f"dtype {name}" for name in FORMATS]
    assert [how for how in asked if f"{how}`" not in text] == []


def test_every_kind_of_mask_has_a_row():
    kinds = {type(v.small.band).__name__.lower() for v in rows().values()}
    assert {*NUMBERS, "band", "documents", "blocks", "custom"} <= kinds


def test_a_small_mask_is_of_the_kind_that_is_asked_for():
    for v in rows().values():
        assert type(v.small.band) is type(v.large.band)
        assert (v.small.band == masks.FULL) == (v.large.band == masks.FULL)


# In every row: passes are a column, score_dtype and accum_dtype say how the others are rounded.
OTHERS = {"q_len", "direction", "score_dtype", "accum_dtype", "dtype", "itemsizes"}


@pytest.mark.parametrize("field", [f.name for f in fields(AttentionProblem) if f.name not in OTHERS])
def test_every_field_of_a_problem_has_a_row(field):
    usual = getattr(AttentionProblem(q_len=8192), field)
    assert any(getattr(v.large, field) != usual for v in rows().values())


def test_features_of_the_small_problem_are_those_that_are_asked_for():
    for v in rows().values():
        assert v.small.features == v.large.features, v.name


def test_theorems_are_proved():
    proved = {theorem.name for one in theory.load(theory.root() / "theories") for theorem in one.theorems}
    named = set(re.findall(r"`(\w+_lower_bound)`", PAGE.read_text(encoding="utf-8")))
    assert named
    assert named <= proved


# ------------------------------------------------------------------------------------------------ nothing but the truth
@pytest.fixture(autouse=True)
def _nothing_is_remembered():
    yield
    variants.refusal.cache_clear()


def shifted(program, problem, tiles, inputs):
    run = RIGHT_EXECUTE(program, problem, tiles, inputs)
    return replace(run, tensors={name: x + 1e-6 for name, x in run.tensors.items()})


def not_a_number(program, problem, tiles, inputs):
    run = RIGHT_EXECUTE(program, problem, tiles, inputs)
    return replace(run, tensors={name: x * np.nan for name, x in run.tensors.items()})


def high(*arguments, **rest):
    return RIGHT_BOUND(*arguments, **rest)._replace(issued_bytes=10**18)


def as_wrong_as_zero(methods, x):
    return [(method, errors._replace(frobenius=1.0)) for method, errors in RIGHT_MEASURED(methods, x)]


RIGHT_EXECUTE, RIGHT_BOUND, RIGHT_MEASURED = variants.execute, variants.lower_bound, variants.measured


@pytest.mark.parametrize(
    ("name", "mutant", "check", "said"),
    [
        ("execute", shifted, lambda: variants.forward(flash2, PLAIN), "values of O"),
        ("execute", shifted, lambda: variants.backward(flash2, PLAIN), "values of dQ"),
        ("execute", not_a_number, lambda: variants.forward(flash2, PLAIN), "values of O"),
        ("count", lambda *_: Traffic(), lambda: variants.forward(flash2, PLAIN), "counts"),
        ("has_closed_form", lambda _: False, lambda: variants.forward(flash2, PLAIN), "formula"),
        ("lower_bound", high, lambda: variants.theorem(replace(PLAIN, q_len=64, kv_len=64), flash2), "bound"),
        ("measured", as_wrong_as_zero, lambda: variants.format_row("fp16", variants.Notes()), "computes attention"),
        ("count", lambda *_: Traffic(), lambda: variants.format_row("fp16", variants.Notes()), "counts in fp16"),
    ],
)
def test_a_claim_that_does_not_hold_is_not_written(name, mutant, check, said, monkeypatch):
    check()
    variants.refusal.cache_clear()
    monkeypatch.setattr(variants, name, mutant)
    with pytest.raises(VerificationError, match=said):
        check()


def test_a_cell_is_never_empty():
    assert variants.table(("", "a"), [["b", "c"]]) == "|  | a |\n| --- | --- |\n| b | c |"
    for row in (["b", ""], ["b"]):
        with pytest.raises(VerificationError, match="a cell is empty"):
            variants.table(("", "a"), [row])


def test_reasons_are_numbered_as_they_are_met():
    notes = variants.Notes()
    assert [notes([reason]) for reason in ("late", "", "slow", "late")] == ["[1]", "", "[2]", "[1]"]
