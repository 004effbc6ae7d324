"""Closed forms as people read them: the papers' own, and evaluated from the printed text they are what is counted."""

import dataclasses
import re
from fractions import Fraction
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.algorithms import find
from ioaware.algorithms.eager import eager, eager_backward
from ioaware.algorithms.flash1 import flash1, flash1_backward
from ioaware.algorithms.flash2 import flash2, flash2_backward
from ioaware.algorithms.fused_softmax import online_softmax, safe_softmax
from ioaware.algorithms.naive import naive, naive_backward
from ioaware.errors import InputError
from ioaware.masks import FULL, Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers import formula
from ioaware.readers.count import closed_forms, count, tensor_quantities
from ioaware.readers.evaluate import Evaluator, TileSizes
from ioaware.readers.onchip import total_bytes
from tests.strategies import GENERAL, bands, problems, tiles

sympy = pytest.importorskip("sympy")
# flash2_serpentine's forms mention more than the four statistics: see test_serpentine.py
NESTED = (
    "flash2_serpentine",
    "flash_decoding",
)  # ceilings in ceilings and minima: not for this reader of printed forms
TEXTS = {f.__name__: f for a in GENERAL for f in (a.forward, a.backward) if f and a.name not in NESTED}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
SELF = AttentionProblem(q_len=1024)  # one head, one sequence, N keys, d_v = d


def words(program, problem, sizes):
    """{(tensor, kind): words}, from the bytes that are counted."""
    traffic = count(program, problem, sizes)
    kinds = ("read", "write", "add")
    return {
        (name, kind): n // problem.itemsize(program.tensors[name].dtype)
        for name, moved in traffic.tensors.items()
        for kind, n in zip(kinds, moved, strict=True)
        if n
    }


def moved_words(counted):
    """All of it: an atomic add is a read and a write."""
    return sum(n * (2 if kind == "add" else 1) for (_, kind), n in counted.items())


def numbers(problem, sizes):
    """What the letters stand for."""
    ((q_len, kv_len), batch), *others = problem.lengths()
    assert not others
    return {
        "N": q_len, "N_q": q_len, "N_k": kv_len, "d": problem.head_dim, "d_v": problem.value_dim, "b": batch,
        "h": problem.kv_heads, "g": problem.group, "B_r": sizes.q, "B_c": sizes.kv,
        "n_s": sizes.splits,
    }  # fmt: skip


TOKEN = re.compile(r"⌈([^⌉/]+)/([^⌉]+)⌉|[A-Za-z_]+|[0-9]+|[()+²³-]")


def worth(text, values):
    """The number that a printed closed form stands for; a space multiplies."""
    parts, before = [], None
    for match in TOKEN.finditer(text):
        token = match[0]
        if token in "²³":
            parts.append(f"**{'²³'.index(token) + 2}")
            continue
        if before is not None and token not in "+-)" and before not in "+-(":
            parts.append("*")
        parts.append(f"-(-({match[1]})//({match[2]}))".replace("·", "*") if token[0] == "⌈" else token)
        before = token
    return eval("".join(parts), {}, dict(values))


@pytest.mark.parametrize(
    ("text", "number"),
    [("2 N + 3 N d", 2 * 7 + 3 * 21), ("4 N² d", 4 * 49 * 3), ("N d ⌈N/B_c⌉ + ⌈N/B_c⌉ (4 N + d)", 21 * 4 + 4 * 31)],
)
def test_the_reader_of_printed_forms(text, number):
    assert worth(text, {"N": 7, "d": 3, "B_c": 2}) == number


# The papers' forms


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (naive, "4 N² + 4 N d"),
        (naive_backward, "7 N² + 8 N d"),
        (eager, "4 N² + 4 N d"),
        (eager_backward, "7 N² + 8 N d"),
        (safe_softmax, "6 N² + 4 N d"),  # three loads and a store of S, P stored and loaded once more
        (online_softmax, "5 N² + 4 N d"),  # one load of S less
    ],
)
def test_library_kernels_read_each_input_once(text, form):
    assert formula.total(record(text), SELF, whole=True) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (flash1, "2 N + 3 N d + ⌈N/B_c⌉ (4 N + 3 N d)"),
        (flash1_backward, "7 N d + ⌈N/B_c⌉ (2 N + 5 N d)"),
        (flash2, "N + 2 N d + 2 N d ⌈N/B_r⌉"),
        # D and the fp32 dQ are made (2 N d reads, N d + N writes) and dQ converted (2 N d); K, V, dK, dV are 4 N d.
        (flash2_backward, "N + 9 N d + ⌈N/B_c⌉ (2 N + 4 N d)"),
    ],
)
def test_flash_attention(text, form):
    assert formula.total(record(text), SELF) == form


def test_closed_forms_per_tensor():
    assert formula.per_tensor(record(flash2), SELF) == {
        ("Q", "read"): "N d",
        ("K", "read"): "N d ⌈N/B_r⌉",
        ("V", "read"): "N d ⌈N/B_r⌉",
        ("O", "write"): "N d",
        ("L", "write"): "N",
    }


def test_only_what_is_one_is_left_out():
    problem = AttentionProblem(q_len=8, kv_len=9, heads=6, kv_heads=2, batch=3, head_dim=4, value_dim=5)
    forms = formula.per_tensor(record(flash2), problem)
    assert forms["K", "read"] == "b h g N_k d ⌈N_q/B_r⌉"
    assert forms["O", "write"] == "b h g N_q d_v"
    one_group = dataclasses.replace(problem, heads=2, batch=1, value_dim=4)
    assert formula.per_tensor(record(flash2), one_group)["V", "read"] == "h N_k d ⌈N_q/B_r⌉"


def test_a_mask_enters_through_its_statistics():
    causal = dataclasses.replace(SELF, mask="causal")
    program = record(flash2, causal.features)
    assert formula.per_tensor(program, causal)["K", "read"] == "d cols"
    assert formula.total(program, causal) == "N + 2 N d + 2 d cols"
    assert formula.total(record(flash1, causal.features), causal) == "2 N + 3 N d + rows (4 + 3 d)"


# Interpreted once, compiled afterwards


@each_text
@settings(max_examples=20)
@given(problem=problems(), sizes=tiles)
def test_interpreting_is_compiling(text, problem, sizes):
    program = record(text, problem.features)
    forms = [*closed_forms(program, tensor_quantities).values(), *total_bytes(program).sizes]
    length, sequences = problem.lengths()[0]
    evaluate = Evaluator(forms)
    first, second = (evaluate(problem, length, sequences, sizes) for _ in range(2))
    assert evaluate.compiled is not None
    assert first == second


# Printed forms, evaluated


ANY = {"mask": bands, "batch": st.integers(1, 3), "padding": st.booleans(), "dropout": st.sampled_from([0.0, 0.3])}


@st.composite
def single_lengths(draw, **fixed):
    """Problems of one length: what a closed form in N_q and N_k is about."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    q_len = draw(st.integers(1, 90))
    return AttentionProblem(
        q_len=q_len,
        kv_len=draw(st.one_of(st.just(q_len), st.integers(1, 90))),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 5)),
        value_dim=draw(st.integers(1, 5)),
        **{name: draw(strategy) for name, strategy in {**ANY, **fixed}.items()},
    )


def check_printed(text, problem, sizes, statistics):
    """Every printed form, read again, is the count; so is the printed total."""
    program = record(text, problem.features)
    values, counted = {**numbers(problem, sizes), **statistics}, words(program, problem, sizes)
    printed = formula.per_tensor(program, problem)
    assert {key: worth(form, values) for key, form in printed.items() if worth(form, values)} == counted
    assert worth(formula.total(program, problem), values) == moved_words(counted)


@each_text
@settings(max_examples=25)
@given(problem=single_lengths(mask=st.just(FULL)), sizes=tiles)
def test_printed_forms_are_the_counts(text, problem, sizes):
    check_printed(text, problem, sizes, {})


@each_text
@settings(max_examples=25)
@given(problem=single_lengths(batch=st.just(1)), sizes=tiles)
def test_printed_forms_of_masks_are_the_counts(text, problem, sizes):
    statistics = formula.statistics_used(record(text, problem.features), problem, sizes)
    check_printed(text, problem, sizes, statistics)


def test_statistics_are_those_of_one_sequence():
    problem, sizes = AttentionProblem(q_len=1024, batch=3, mask="causal"), TileSizes(64, 64)
    statistics = formula.statistics_used(record(flash2, problem.features), problem, sizes)
    assert statistics == {"cols": 64 * sum(range(1, 17))}
    check_printed(flash2, problem, sizes, statistics)


@each_text
@settings(max_examples=25)
@given(problem=single_lengths())
def test_one_tile_per_sequence(text, problem):
    """`whole`: every tile count is 1, as the papers count library kernels; under a mask too."""
    program = record(text, problem.features)
    whole = TileSizes(*problem.longest())
    printed = formula.total(program, problem, whole=True)
    assert worth(printed, numbers(problem, whole)) == moved_words(words(program, problem, whole))


def test_only_statistics_that_are_mentioned_are_told():
    problem = dataclasses.replace(SELF, mask="causal")
    tiles_, rows, cols, cells = 136, 64 * 136, 64 * 136, 64 * 64 * 136  # 1 + 2 + ... + 16 tiles of 64 x 64
    programs = [record(text, problem.features) for text in (flash1, flash2, naive)]
    used = [formula.statistics_used(program, problem, TileSizes(64, 64)) for program in programs]
    assert used == [{"rows": rows}, {"cols": cols}, {"rows": rows, "cols": cols, "cells": cells}]
    assert tiles_ not in used[2].values()


# Beside the program's own lines


CALLS = {"read": ("p.load(", "p.cached("), "write": ("p.store(",), "add to": ("p.add(",)}


@each_text
def test_every_form_stands_beside_the_line_that_moves_it(text):
    program = record(text)
    lines = formula.annotated(program, SELF)
    shown = [form for line in lines for form in line.forms]
    verbs = {"read": "read", "write": "write", "add": "add to"}
    for line in lines:
        for form in line.forms:
            verb = form.partition(f" {form.split(':')[0].split()[-1]}:")[0]
            assert any(call in line.text for call in CALLS[verb])
    for (tensor, kind), form in formula.per_tensor(program, SELF).items():
        together = sum(worth(f.partition(": ")[2], LETTERS) for f in shown if f.startswith(f"{verbs[kind]} {tensor}:"))
        assert together == worth(form, LETTERS)


LETTERS = {"N": 1000, "d": 64, "B_r": 48, "B_c": 80}


def test_the_text_is_the_programs_own():
    lines = formula.annotated(record(flash2), SELF)
    assert lines[0].text.startswith("def flash2(p: Recorder, Q: Any")
    assert lines[0].number == flash2.__code__.co_firstlineno
    assert lines[-1].text == "        p.store(L[h, g, i], m + log(l))"
    assert lines[-1].forms == ("write L: N",)
    assert [line.number for line in lines] == list(range(lines[0].number, lines[0].number + len(lines)))


# As expressions


@lru_cache
def functions(program, mask):
    """{(tensor, kind): (parameters, function)}; to substitute into Min and Max under a Sum takes sympy minutes."""
    found = {}
    for key, e in formula.expressions(program, mask).items():
        symbols = sorted(e.free_symbols, key=str)
        found[key] = [s.name for s in symbols], sympy.lambdify(symbols, e, "math")
    return found


def check_expressions(text, problem, sizes, mask, **more):
    """Every expression, evaluated in fractions, is the count."""
    program = record(text, problem.features)
    values = {**numbers(problem, sizes), **more}
    got = {key: f(*(Fraction(values[n]) for n in names)) for key, (names, f) in functions(program, mask).items()}
    assert {key: n for key, n in got.items() if n} == words(program, problem, sizes)


@each_text
@settings(max_examples=20)
@given(problem=single_lengths(mask=st.just(FULL)), sizes=tiles)
def test_full_expressions_hold_for_any_sizes(text, problem, sizes):
    check_expressions(text, problem, sizes, "full")


@settings(max_examples=20)
@given(problem=single_lengths(mask=st.just(FULL)), sizes=tiles)
def test_expressions_of_split_keys_hold_for_any_sizes(problem, sizes):
    check_expressions(find("flash_decoding").forward, problem, sizes, "full")


@each_text
@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.integers(1, 5))
def test_causal_expressions_hold_where_tiles_divide(text, small, times, many, wide, d):
    """The larger tile is a multiple of the smaller one, and divides the length."""
    large, pairs = small * times, 2 if text.__name__.startswith("flash4") else 1  # which walks pairs of tiles
    large *= pairs
    problem = AttentionProblem(q_len=large * many * pairs, head_dim=d, value_dim=d + 1, heads=2, mask="causal")
    check_expressions(text, problem, TileSizes(*((small, large) if wide else (large, small))), "causal")


BOTH_ORDERS = pytest.mark.parametrize("text", [naive, flash1, flash2, flash2_backward], ids=lambda f: f.__name__)


@BOTH_ORDERS
@settings(max_examples=30)
@given(problem=single_lengths(padding=st.just(False), dropout=st.just(0.0)), sizes=tiles)
def test_band_expressions_hold_for_any_sizes(text, problem, sizes):
    edges = {"w_left": problem.band.left, "w_right": problem.band.right}
    check_expressions(text, problem, sizes, "band", **{name: 10**6 if w is None else w for name, w in edges.items()})


@each_text
@settings(max_examples=20)
@given(problem=single_lengths(), sizes=tiles)
def test_expressions_in_statistics_hold_for_every_mask(text, problem, sizes):
    statistics = formula.statistics_used(record(text, problem.features), problem, sizes)
    check_expressions(text, problem, sizes, None, **statistics)


def test_expressions_are_factored_as_on_paper():
    n, k, d, b_r, h, g, b = sympy.symbols("N_q N_k d B_r h g b", integer=True, positive=True)
    assert formula.expressions(record(flash2))["K", "read"] == b * h * g * k * d * sympy.ceiling(n / b_r)
    causal = formula.expressions(record(flash2), "causal")["K", "read"]
    b_c = sympy.Symbol("B_c", integer=True, positive=True)
    assert sympy.simplify(causal - b * h * g * n * d * (n + sympy.Max(b_r, b_c)) / (2 * b_r)) == 0


def test_an_unknown_mask_is_refused():
    with pytest.raises(InputError, match=r"'casual' is unknown.*'causal'"):
        formula.expressions(record(flash2), "casual")


@pytest.mark.parametrize("band", [Band(3, 0), Band(left=2)])
def test_a_window_has_statistics_of_its_own(band):
    problem = dataclasses.replace(SELF, mask=band)
    sizes = TileSizes(64, 32)
    used = formula.statistics_used(record(flash2, problem.features), problem, sizes)
    assert used == {"cols": band.statistics(1024, 1024, 64, 32).cols}
