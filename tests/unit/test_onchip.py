"""The on-chip ledger: what small texts hold at their fullest line, by hand, and that its items add up to it."""

import dataclasses
import linecache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.algorithms.flash2 import flash2
from ioaware.problem import AttentionProblem
from ioaware.program import exp, record, rowsum
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.onchip import ledger, on_chip
from tests.strategies import GENERAL, problems, tiles

TEXTS = {f.__name__: f for a in GENERAL for f in (a.forward, a.backward) if f}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)

D, DV, BR, BC = 5, 7, 3, 4
PROBLEM = AttentionProblem(q_len=100, kv_len=200, head_dim=D, value_dim=DV)  # loaded 2 bytes an element, computed 4
TILES = TileSizes(BR, BC)
Q, K, V, S, ACC = BR * D, BC * D, BC * DV, BR * BC, BR * DV  # elements of the tiles that the texts below use


def held(text, problem=PROBLEM, sizes=TILES):
    return on_chip(record(text, problem.features), problem, sizes)


def grid(p):
    return p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles)


# Lifetimes, one rule at a time


def loads_one_after_the_other(p, Q, dQ):
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], p.load(Q[h, g, i]))
        p.store(dQ[h, g, i], p.load(Q[h, g, i]))


def loads_both_first(p, Q, dQ):
    for b, h, g, i in grid(p):
        one, two = p.load(Q[h, g, i], Q[h, g, i])
        p.store(dQ[h, g, i], one)
        p.store(dQ[h, g, i], two)


def product_of_loaded_tiles(p, Q, K):
    for b, h, g, i in grid(p):
        for j in p.loop(p.kv_tiles):
            p.load(Q[h, g, i]) @ p.load(K[h, j]).T


def elementwise_in_the_room_of_its_operand(p, Q, K):
    for b, h, g, i in grid(p):
        for j in p.loop(p.kv_tiles):
            s = p.load(Q[h, g, i]) @ p.load(K[h, j]).T
            s = exp(p.scale * s)
            rowsum(s)


def elementwise_beside_an_operand_that_lives_on(p, Q, K):
    for b, h, g, i in grid(p):
        for j in p.loop(p.kv_tiles):
            s = p.load(Q[h, g, i]) @ p.load(K[h, j]).T
            e = exp(s)
            rowsum(e)
            rowsum(s)


def elementwise_of_a_loaded_tile(p, Q, dQ):
    """fp32 does not fit where fp16 was."""
    for b, h, g, i in grid(p):
        p.store(dQ[h, g, i], exp(p.load(Q[h, g, i])))


def accumulates_in_place(p, Q, K, V, O):
    for b, h, g, i in grid(p):
        acc = p.zeros(i, p.value_dim)
        for j in p.loop(p.kv_tiles):
            s = p.load(Q[h, g, i]) @ p.load(K[h, j]).T
            acc += s @ p.load(V[h, j])
        p.store(O[h, g, i], acc)


def outlives_an_inner_loop(p, Q, K, dQ):
    """Q is used after the loop, so it takes room while keys are loaded."""
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
        for j in p.loop(p.kv_tiles):
            p.load(K[h, j])
        p.store(dQ[h, g, i], q)


def is_used_inside_a_loop(p, Q, K):
    """Q is used in every iteration, so it takes room in all of each."""
    for b, h, g, i in grid(p):
        q = p.load(Q[h, g, i])
        for j in p.loop(p.kv_tiles):
            k = p.load(K[h, j])
            rowsum(q)
            rowsum(k)


def has_two_kernels(p, Q, K):
    for b, h, g, i in grid(p):
        p.load(Q[h, g, i])
    for b, h, j in p.kernel("keys", p.batch, p.kv_heads, p.kv_tiles):
        p.load(K[h, j])


BY_HAND = [  # text, and bytes: loaded, computed, total
    (loads_one_after_the_other, 2 * Q, 0, 2 * Q),
    (loads_both_first, 2 * 2 * Q, 0, 2 * 2 * Q),
    (product_of_loaded_tiles, 2 * (Q + K), 4 * S, 2 * (Q + K) + 4 * S),
    (elementwise_in_the_room_of_its_operand, 2 * (Q + K), 4 * (S + BR), 2 * (Q + K) + 4 * S),
    (elementwise_beside_an_operand_that_lives_on, 2 * (Q + K), 4 * (2 * S + BR), 2 * (Q + K) + 4 * S),
    (elementwise_of_a_loaded_tile, 2 * Q, 4 * Q, (2 + 4) * Q),
    # V is loaded when Q and K are gone; the product S V takes no room of its own.
    (accumulates_in_place, 2 * (Q + K), 4 * (ACC + S), max(2 * (Q + K), 2 * V) + 4 * (ACC + S)),
    (outlives_an_inner_loop, 2 * (Q + K), 0, 2 * (Q + K)),
    (is_used_inside_a_loop, 2 * (Q + K), 4 * BC, 2 * (Q + K) + 4 * BC),
    (has_two_kernels, 2 * max(Q, K), 0, 2 * max(Q, K)),
]


def check_lifetimes(text, loaded, computed, total):
    """The three high-water marks are those by hand."""
    assert held(text) == (total, loaded, computed)


@pytest.mark.parametrize("by_hand", BY_HAND, ids=lambda row: row[0].__name__)
def test_lifetimes(by_hand):
    check_lifetimes(*by_hand)


def product_that_is_used_twice(p, Q, K, V, O, dQ):
    for b, h, g, i in grid(p):
        acc = p.zeros(i, p.value_dim)
        for j in p.loop(p.kv_tiles):
            x = p.load(Q[h, g, i]) @ p.load(K[h, j]).T @ p.load(V[h, j])
            acc += x
            rowsum(x)
        p.store(O[h, g, i], acc)


def test_a_product_that_is_used_again_takes_room():
    sizes = TileSizes(BR, 1)  # thin key tiles, so that the product is the largest value
    x = acc = BR * DV
    assert held(product_that_is_used_twice, sizes=sizes).total == 2 * DV + 4 * (acc + BR * 1 + x)


# Flash attention by hand


@pytest.mark.parametrize(("b_r", "b_c", "d", "dv"), [(128, 64, 64, 64), (64, 128, 128, 128), (16, 16, 80, 32)])
@pytest.mark.parametrize(("dtype", "io"), [("fp16", 2), ("fp8", 1), ("fp32", 4)])
def test_flash2_by_hand(b_r, b_c, d, dv, dtype, io):
    """Fullest when S is made: Q, K, V are loaded, the accumulator, l, m and S are fp32.

    What is computed is most when the row sums of P are made: l, m, the new m, its factor, the scaled l and the sums.
    """
    problem = AttentionProblem(q_len=4096, head_dim=d, value_dim=dv, dtype=dtype)
    loaded = io * (b_r * d + b_c * d + b_c * dv)
    when_s_is_made = 4 * (b_r * dv + 2 * b_r + b_r * b_c)
    when_sums_are_made = 4 * (b_r * dv + 6 * b_r + b_r * b_c)
    total = max(loaded + when_s_is_made, loaded - io * b_c * d + when_sums_are_made)
    assert held(flash2, problem, TileSizes(b_r, b_c)) == (total, loaded, when_sums_are_made)


def test_a_tile_is_never_longer_than_its_axis():
    problem = AttentionProblem(q_len=10, kv_len=20, head_dim=8)
    assert held(flash2, problem, TileSizes(999, 999)) == held(flash2, problem, TileSizes(10, 20))


def test_the_longest_sequence_counts():
    lengths = AttentionProblem(q_len=(10, 50), kv_len=(70, 20), head_dim=8)
    each = [AttentionProblem(q_len=q, kv_len=kv, head_dim=8) for q, kv in lengths.sequences]
    sizes = TileSizes(64, 64)
    assert held(flash2, lengths, sizes).total == max(held(flash2, problem, sizes).total for problem in each)


# Properties


@each_text
@settings(max_examples=10)  # a ledger reads the program's file for the names of its values
@given(problem=problems(), sizes=tiles)
def test_the_ledger_adds_up(text, problem, sizes):
    program = record(text, problem.features)
    kernel, line, entries = ledger(program, problem, sizes)
    marks = on_chip(program, problem, sizes)
    assert sum(e.bytes for e in entries) == marks.total
    assert sum(e.bytes for e in entries if e.loaded) <= marks.loaded
    assert sum(e.bytes for e in entries if not e.loaded) <= marks.computed
    assert max(marks.loaded, marks.computed) <= marks.total <= marks.loaded + marks.computed
    assert [e.bytes for e in entries] == sorted((e.bytes for e in entries), reverse=True)
    assert kernel in {node.kernel for node in program.body}
    assert line in {e.line for e in entries}


@each_text
@settings(max_examples=40)
@given(problem=problems(), sizes=tiles, more=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_larger_tiles_never_hold_less(text, problem, sizes, more):
    program = record(text, problem.features)
    small = on_chip(program, problem, sizes)
    large = on_chip(program, problem, TileSizes(sizes.q + more[0], sizes.kv + more[1]))
    assert all(a <= b for a, b in zip(small, large, strict=True))


@each_text
@settings(max_examples=40)
@given(problem=problems(dtype="fp32", dropout=0.0), sizes=tiles)
def test_twice_as_wide_is_twice_as_much(text, problem, sizes):
    """Every role doubles from fp32 to fp64, but the byte mask of dropout."""
    wide = dataclasses.replace(problem, dtype="fp64", score_dtype="fp64", accum_dtype="fp64")
    narrow, double = (on_chip(record(text, p.features), p, sizes) for p in (problem, wide))
    assert double == tuple(2 * n for n in narrow)


def test_the_ledger_speaks_the_programs_language():
    problem = AttentionProblem(q_len=4096, head_dim=64)
    kernel, line, entries = ledger(record(flash2), problem, TileSizes(128, 64))
    shown = {e.what: (e.shape, e.bytes, e.loaded) for e in entries}
    assert kernel == "flash2"
    assert shown["Q tile"] == ("|i|xd", 2 * 128 * 64, True)
    assert shown["K tile"] == ("|j|xd", 2 * 64 * 64, True)
    assert shown["V tile"] == ("|j|xd_v", 2 * 64 * 64, True)
    assert shown["acc"] == ("|i|xd_v", 4 * 128 * 64, False)
    assert (shown["m"], shown["l"]) == (("|i|x1", 4 * 128, False), ("|i|x1", 4 * 128, False))
    assert "q @ k.T" in linecache.getline(record(flash2).file, line)
