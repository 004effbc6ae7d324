"""Traces: operations worked out by hand, what a number stands for, and what is refused."""

from math import inf

import pytest

from ioaware.algorithms import find
from ioaware.errors import InputError, ProgramError
from ioaware.problem import AttentionProblem
from ioaware.program import exp, maximum, record, rowmax, rowsum
from ioaware.readers import trace as reader
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.trace import counted, trace
from ioaware.readers.words import Cell, Entry, Other, Output, Row, Score, Values, Weights, combined, product, vector
from tests.machine import complete, play


def of(text, tiles=(2, 2), **shape):
    problem = AttentionProblem(**{"q_len": 4, "head_dim": 2, "dtype": "fp32", **shape})
    program = record(text, problem.features)
    return trace(program, problem, TileSizes(*tiles))


def single(p, Q, K, V, O):
    """No maximum is subtracted: the shortest exact attention."""
    for b, h, g, i in p.kernel("single", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        l, acc = p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            e = exp(p.mask(p.scale * (q @ k.T), i, j))
            l += rowsum(e)
            acc += e @ v
        p.store(O[h, g, i], acc / l)


def test_one_query_and_one_key_by_hand():
    q, k, v, s = Entry("Q", 0, 0), Entry("K", 0, 0), Entry("V", 0, 0), Score(0, 0)
    l, acc, row_sum = Other(0), Other(1), Other(2)
    none, all_keys = Output(0, 0, ()), Output(0, 0, (0,))
    made = of(single, q_len=1, head_dim=1, tiles=(1, 1))
    assert [(verb, word, set(dropped)) for verb, word, dropped in made.operations] == [
        ("load", q, set()),
        ("compute", l, set()),  # both sums are zero, and take room
        ("compute", acc, set()),
        ("load", k, set()),
        ("load", v, set()),
        ("compute", s, {k}),
        ("compute", row_sum, {l}),  # 0 + x is x itself
        ("compute", none, {acc}),
        ("compute", all_keys, {none, s, v, q, row_sum}),
        ("store", all_keys, {all_keys}),
    ]
    assert (made.memory, made.loads, made.stores, made.rows) == (5, 3, 1, [(0, (0,))])


def test_a_query_tile_loads_its_keys_once_and_keeps_what_it_must():
    made = of(single, tiles=(2, 1))
    tiles, n, d = 2, 4, 2
    assert (made.loads, made.stores) == (n * d + tiles * 2 * n * d, n * d)
    assert made.memory == 2 * d + 2 * d + 2 + 2 * d + 2  # q; k and v; l; acc; scores


def test_hidden_keys_are_in_no_output():
    made = of(single, mask="causal")
    assert {w.keys for _, w, _ in made.operations if isinstance(w, Output) and w.query == 2} <= {(), (0, 1), (0, 1, 2)}
    assert made.rows[2] == (2, (0, 1, 2))
    assert complete(made, play(made)[3])


def test_heads_and_sequences_have_rows_of_their_own():
    made = of(single, q_len=(2, 1), kv_len=(1, 2), heads=4, kv_heads=2)
    assert made.rows[:4] == [(0, (0,)), (1, (0,)), (2, (1, 2)), (3, (0,))]  # the second head shares the keys
    assert made.rows[6:9] == [(6, (3,)), (7, (3,)), (8, (4, 5))]  # the third has keys of its own


def test_tiles_that_the_mask_hides_emit_nothing():
    assert of(single, mask="causal").loads == 4 * 2 + (2 + 4) * 2 * 2


# ------------------------------------------------------------------------------------------------ not attention
def linear(p, Q, K, V, O):
    """Linear attention: an approximation, with fewer products."""
    for b, h, g, i in p.kernel("linear", p.batch, p.kv_heads, p.group, p.q_tiles):
        state = p.zeros(p.head_dim, p.value_dim)
        for j in p.loop(p.kv_tiles):
            k, v = p.load(K[h, j], V[h, j])
            state += k.T @ v
        p.store(O[h, g, i], p.load(Q[h, g, i]) @ state)


def counts_twice(p, Q, K, V, O):
    """Every product is formed, and added twice."""
    for b, h, g, i in p.kernel("twice", p.batch, p.kv_heads, p.group, p.q_tiles):
        q, acc = p.load(Q[h, g, i]), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            acc += exp(q @ k.T) @ v
            acc += exp(q @ k.T) @ v
        p.store(O[h, g, i], acc)


def ignores_the_mask(p, Q, K, V, O):
    for b, h, g, i in p.kernel("unmasked", p.batch, p.kv_heads, p.group, p.q_tiles):
        q, acc = p.load(Q[h, g, i]), p.zeros(i, p.value_dim)
        for j in p.loop(p.kv_tiles):
            k, v = p.load(K[h, j], V[h, j])
            acc += exp(q @ k.T) @ v
        p.store(O[h, g, i], acc)


def forgets_the_last_tile(p, Q, K, V, O):
    for b, h, g, i in p.kernel("forgets", p.batch, p.kv_heads, p.group, p.q_tiles):
        q, acc, old = p.load(Q[h, g, i]), p.zeros(i, p.value_dim), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            old[:] = acc
            acc += exp(q @ k.T) @ v
        p.store(O[h, g, i], old)


@pytest.mark.parametrize(
    "text", [linear, counts_twice, ignores_the_mask, forgets_the_last_tile], ids=lambda f: f.__name__
)
def test_what_is_not_attention_leaves_outputs_incomplete(text):
    made = of(text, mask="causal")
    assert not complete(made, play(made)[3])


# ------------------------------------------------------------------------------------------------ words
Q0, S0, S1, X, ZERO = Entry("Q", 0, 0), Score(0, 0), Score(0, 1), Other(5), Cell(Other(6), void=True)
A, B = Output(0, 0, (0, 2)), Output(0, 0, (1,))


@pytest.mark.parametrize(
    ("kind", "operands", "made"),
    [
        ("mul", (Cell(Q0), 0.5), Cell(Q0)),  # a constant multiple
        ("mul", (Cell(Q0), Cell(X)), None),  # a rotation, say
        ("exp", (Cell(S0),), Cell(S0)),
        ("sub", (Cell(S0), Cell(X)), Cell(S0)),
        ("mul", (Cell(S0, void=True), Cell(S0)), Cell(S0, void=True)),
        ("add", (Cell(S0), Cell(S1)), None),
        ("mul", (Cell(A), Cell(X)), Cell(A)),
        ("div", (Cell(A), Cell(X)), Cell(A)),
        ("div", (Cell(X), Cell(A)), None),
        ("add", (Cell(A), Cell(B)), Cell(Output(0, 0, (0, 1, 2)))),
        ("add", (Cell(A), Cell(A)), None),  # each key would count twice
        ("add", (Cell(A), Cell(Output(1, 0, (1,)))), None),
        ("add", (Cell(A), Cell(X)), None),
        ("add", (ZERO, Cell(A)), Cell(A)),
        ("mul", (ZERO, Cell(X)), ZERO),
        ("maximum", (ZERO, Cell(X)), None),
    ],
)
def test_elementwise_operations(kind, operands, made):
    assert combined(kind, operands) == made


def test_vectors_and_their_products():
    row = vector([Cell(Entry("Q", 3, a)) for a in range(2)], 2)
    key = vector([Cell(Entry("K", 1, a)) for a in range(2)], 2)
    weights = vector([Cell(Score(3, 0)), Cell(Score(3, 1), void=True)], 2)
    values = vector([Cell(Entry("V", j, 4)) for j in range(2)], 2)
    assert (row, key) == (Row("Q", 3), Row("K", 1))
    assert (weights, values) == (Weights(3, (0, 1), (0,)), Values(4, (0, 1)))
    assert product(row, key) == product(key, row) == Score(3, 1)
    assert product(weights, values) == product(values, weights) == Output(3, 4, (0,))
    assert product(row, values) is None
    assert vector([Cell(Entry("Q", 3, 0))], 2) is None  # half a row
    assert product(weights, Values(4, (1, 0))) is None  # the keys do not match


# ------------------------------------------------------------------------------------------------ refusals
def test_refusals():
    with pytest.raises(InputError, match=r"backward pass: traces are of forward passes; use --direction fwd"):
        of(find("flash2").backward)
    with pytest.raises(InputError, match="mask=padding"):
        of(find("flash2").forward, mask="padding")
    with pytest.raises(InputError, match=r"more than 1,000,000 operations; choose a shorter sequence"):
        of(find("naive").forward, q_len=100_000)


def test_arithmetic_counts_as_operations_too(monkeypatch):
    words = counted(record(single), AttentionProblem(q_len=4, head_dim=2, dtype="fp32"), TileSizes(2, 2))
    monkeypatch.setattr(reader, "MOST_OPERATIONS", sum(words) + 1)
    with pytest.raises(InputError, match="more than"):
        of(single)


def test_atomic_adds_are_no_operation_of_the_machine():
    def adds(p, Q, K, V, O):
        for b, h, g, i in p.kernel("zero", p.batch, p.kv_heads, p.group, p.q_tiles):
            p.store(O[h, g, i], p.zeros(i, p.value_dim))
        for b, h, g, i in p.kernel("add", p.batch, p.kv_heads, p.group, p.q_tiles):
            p.add(O[h, g, i], p.zeros(i, p.value_dim))

    with pytest.raises(ProgramError, match="an atomic add is no operation of the machine"):
        of(adds)


def test_running_maximum_takes_room_and_moves_nothing():
    def with_maximum(p, Q, K, V, O):
        for b, h, g, i in p.kernel("single", p.batch, p.kv_heads, p.group, p.q_tiles):
            q, m, l, acc = p.load(Q[h, g, i]), p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
            for j in p.visible(p.kv_tiles, i):
                k, v = p.load(K[h, j], V[h, j])
                s = q @ k.T
                m_new = maximum(m, rowmax(s))
                e = exp(s - m_new)
                l[:] = exp(m - m_new) * l + rowsum(e)
                acc *= exp(m - m_new)
                acc += e @ v
                m[:] = m_new
            p.store(O[h, g, i], acc / l)

    plain, safe = of(single), of(with_maximum)
    assert (safe.loads, safe.stores) == (plain.loads, plain.stores)
    assert safe.memory > plain.memory
