"""Every check catches its mutant: a check that cannot fail checks nothing.

Each row is a check that other tests run, cases on which it passes, and a defect under which it must not.
"""

import types
from math import inf

import pytest

from ioaware import bounds, schedule
from ioaware.algorithms.eager import eager
from ioaware.algorithms.flash1 import flash1
from ioaware.algorithms.flash2 import flash2, flash2_backward
from ioaware.errors import ProgramError
from ioaware.masks import CAUSAL, FULL, Band
from ioaware.problem import AttentionProblem
from ioaware.program import exp, log, maximum, record, rowmax, rowsum
from ioaware.program.lifetimes import NEEDS_OWN_ROOM
from ioaware.program.loops import Extent, Seen, Tiles
from ioaware.program.nodes import Load
from ioaware.program.recorder import Recorder
from ioaware.readers import algebra, execute, formula
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.walk import Walk
from ioaware.sizes import size
from tests.property.test_direct_machine import check_machines
from tests.property.test_readers_agree import test_values_counts_and_ledger_agree
from tests.strategies import EXACT
from tests.unit.test_bounds import check_bound, packed
from tests.unit.test_execute import test_dropout_does_not_depend_on_tiles
from tests.unit.test_formula import check_printed
from tests.unit.test_onchip import BY_HAND, check_lifetimes
from tests.unit.test_program_language import (
    blocks_overwrite_each_other,
    not_stored,
    reads_what_another_block_writes,
    refused_when_run,
)
from tests.unit.test_schedule import check_best

# The property tests' own bodies, to be given their examples by hand. `test_...` names would be collected again here.
check_agreement = test_values_counts_and_ledger_agree.hypothesis.inner_test
check_dropout = test_dropout_does_not_depend_on_tiles.hypothesis.inner_test
del test_values_counts_and_ledger_agree, test_dropout_does_not_depend_on_tiles

CASES = [  # ragged, masked, several tiles on either side
    (AttentionProblem(**{"q_len": 23, "kv_len": 23, "head_dim": 3, "value_dim": 4, **EXACT, **more}), TileSizes(q, kv))
    for more in ({}, {"mask": "causal"}, {"mask": Band(9, 2)}, {"q_len": 9, "kv_len": 31, "heads": 2, "kv_heads": 1})
    for q, kv in ((4, 6), (7, 3), (1, 2))
]


def fresh(text):
    """The same text as another function: nothing that was recorded or compiled before is used again."""
    return types.FunctionType(text.__code__, text.__globals__, text.__name__, text.__defaults__, text.__closure__)


def catches(check, cases):
    """Whether a check fails on one of the cases."""
    for case in cases:
        try:
            check(*case)
        except (AssertionError, ProgramError):
            return True
    return False


# Texts that are wrong: the values refute them


def flash2_with(rescale="right", visible=True, masked=True, divided=True):
    """FlashAttention-2, whole or with one line changed."""

    def flash2(p, Q, K, V, O, L):
        for b, h, g, i in p.kernel("flash2", p.batch, p.kv_heads, p.group, p.q_tiles):
            q = p.load(Q[h, g, i])
            m, l, acc = p.full((i, 1), -30.0), p.zeros(i, 1), p.zeros(i, p.value_dim)  # not -inf: its inverse
            for j in p.visible(p.kv_tiles, i) if visible else p.loop(p.kv_tiles):
                k, v = p.load(K[h, j], V[h, j])
                s = p.scale * (q @ k.T)
                s = p.mask(s, i, j) if masked else s
                m_new = maximum(m, rowmax(s))
                e = exp(s - m_new)
                factor = exp(m - m_new)
                l[:] = factor * l + rowsum(e)
                acc *= {"right": factor, "as printed": exp(m_new - m), "forgotten": factor * 0.0 + 1.0}[rescale]
                acc += e @ v
                m[:] = m_new
            p.store(O[h, g, i], acc / l if divided else acc)
            p.store(L[h, g, i], m + log(l))

    return flash2


def agrees(text):
    return lambda problem, sizes: check_agreement(text, problem, sizes, 0)


def test_the_text_that_is_varied_is_right():
    assert not catches(agrees(flash2_with()), CASES)


@pytest.mark.parametrize(
    "defect",
    [
        {"rescale": "as printed"},  # FlashAttention-2, Algorithm 1, line 10: the inverse of the factor
        {"rescale": "forgotten"},
        {"masked": False},
        {"divided": False},
    ],
    ids=str,
)
def test_values_refute_a_wrong_text(defect):
    assert catches(agrees(flash2_with(**defect)), CASES)


def test_the_printed_line_is_refuted_by_a_second_key_tile_only():
    """With one key tile nothing is rescaled, so a check on short sequences would believe the printed line."""
    wrong = agrees(flash2_with(rescale="as printed"))
    problem = CASES[0][0]
    assert not catches(wrong, [(problem, TileSizes(4, 23))])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        wrong(problem, TileSizes(4, 12))


# Texts that compute the right values by other traffic: the papers' counts refute them


def loads_keys_twice(p, Q, K, V, O, L):
    for b, h, g, i in p.kernel("flash2", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            p.load(K[h, j])
            k, v = p.load(K[h, j], V[h, j])
            attend(p, i, j, q, k, v, m, l, acc)
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))


def walks_keys_in_query_tiles(p, Q, K, V, O, L):
    """For every key tile the queries are fetched anew: B_r and B_c have changed places."""
    for b, h, g, i in p.kernel("flash2", p.batch, p.kv_heads, p.group, p.tiles(p.q, p.kv_tiles.step)):
        q = p.load(Q[h, g, i])
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.tiles(p.kv, p.q_tiles.step), i):
            k, v = p.load(K[h, j], V[h, j])
            attend(p, i, j, q, k, v, m, l, acc)
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))


def does_not_store_statistics(p, Q, K, V, O):
    for b, h, g, i in p.kernel("flash2", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            attend(p, i, j, q, k, v, m, l, acc)
        p.store(O[h, g, i], acc / l)


def attend(p, i, j, q, k, v, m, l, acc):
    s = p.mask(p.scale * (q @ k.T), i, j)
    m_new = maximum(m, rowmax(s))
    e, alpha = exp(s - m_new), exp(m - m_new)
    l[:] = alpha * l + rowsum(e)
    acc *= alpha
    acc += e @ v
    m[:] = m_new


def check_paper(text):
    """Q, O, L: 2 N d + N words; K and V: 2 N d ceil(N / B_r), and causal 2 d N (N + max(B_r, B_c)) / 2 B_r."""
    n, d, b_r, b_c = 240, 8, 16, 48
    plain, causal = (AttentionProblem(q_len=n, head_dim=d, mask=mask, **EXACT) for mask in (FULL, CAUSAL))
    words = count(record(text, plain.features), plain, TileSizes(b_r, b_c)).total_bytes // 8
    assert words == 2 * n * d + n + 2 * n * d * (n // b_r)
    causal_words = count(record(text, causal.features), causal, TileSizes(b_r, b_c)).total_bytes // 8
    assert causal_words == 2 * n * d + n + 2 * d * n * (n + max(b_r, b_c)) // (2 * b_r)


def test_the_papers_count_is_that_of_the_text():
    check_paper(flash2)
    check_paper(flash2_with())


@pytest.mark.parametrize(
    "text",
    [loads_keys_twice, walks_keys_in_query_tiles, does_not_store_statistics, flash2_with(visible=False)],
    ids=["load twice", "tiles exchanged", "store dropped", "p.visible forgotten"],
)
def test_the_papers_count_refutes_other_traffic(text):
    assert not catches(agrees(text), CASES)  # its values are right, and its count is what it moves
    with pytest.raises(AssertionError):
        check_paper(text)


# Counting


def extents_as_full_tiles(e, index):
    """The sum over a loop as if its last tile were full."""
    if not plain(e, index):
        return RIGHT_SUM(e, index)
    return index.over.count * e.map(lambda a: index.over.step if a == Extent(index) else size(a))


def trips_rounded_down(e, index):
    """One trip less for a loop that the quantity does not mention."""
    return RIGHT_SUM(e, index) - e if plain(e, index) and Extent(index) not in e.atoms() else RIGHT_SUM(e, index)


def plain(e, index):
    """A loop over tiles that has nothing to do with a mask."""
    masked = any(isinstance(a, Seen) for a in e.atoms())
    return isinstance(index.over, Tiles) and index.over.seen_by is None and not masked


RIGHT_SUM = algebra.over_loop


@pytest.mark.parametrize(
    ("text", "mutant"),
    [(flash1, extents_as_full_tiles), (flash2_backward, extents_as_full_tiles), (eager, trips_rounded_down)],
    ids=lambda f: f.__name__,
)
def test_runs_refute_a_wrong_closed_form(text, mutant, monkeypatch):
    assert not catches(agrees(fresh(text)), CASES)
    monkeypatch.setattr(algebra, "over_loop", mutant)
    assert catches(agrees(fresh(text)), CASES)


def test_runs_agree_with_full_tiles_only_where_they_are_full(monkeypatch):
    """The forgotten ragged tile shows on ragged lengths, and on no others: both must be among the examples."""
    monkeypatch.setattr(algebra, "over_loop", extents_as_full_tiles)
    even = AttentionProblem(q_len=24, kv_len=24, head_dim=3, **EXACT)
    assert not catches(agrees(fresh(flash1)), [(even, TileSizes(4, 6))])
    assert catches(agrees(fresh(flash1)), [(even, TileSizes(5, 6))])


# Running


def visits_full_tiles_only(self, over):
    return (span for span in RIGHT_TILES(self, over) if span.stop - span.start == self.number(over.step))


def books_no_second_load(self, node, kind, x):
    if not (isinstance(node, Load) and self.moved[node.piece.tensor.name, "read"]):
        RIGHT_MOVE(self, node, kind, x)


def decides_by_position_in_the_tile(problem, head, q, kv):
    return RIGHT_KEEP(problem, head, q - q[:1], kv)


RIGHT_TILES, RIGHT_MOVE, RIGHT_KEEP = Walk.tiles, execute.Machine._move, execute.keep_mask


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [(Walk, "tiles", visits_full_tiles_only), (execute.Machine, "_move", books_no_second_load)],
    ids=["ragged tile forgotten", "load not booked"],
)
def test_counts_refute_a_wrong_run(owner, name, mutant, monkeypatch):
    assert not catches(agrees(fresh(flash2)), CASES)
    monkeypatch.setattr(owner, name, mutant)
    assert catches(agrees(fresh(flash2)), CASES)


def test_tilings_refute_dropout_by_tile(monkeypatch):
    case = (flash2, AttentionProblem(q_len=9, head_dim=2, dropout=0.4, **EXACT), TileSizes(2, 3), TileSizes(5, 3))
    assert not catches(check_dropout, [case])
    monkeypatch.setattr(execute, "keep_mask", decides_by_position_in_the_tile)
    assert catches(check_dropout, [case])


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "broken"),
    [
        (execute, "CONFLICTS", {"read": (), "write": ("write",), "add": ()}, reads_what_another_block_writes),
        (execute, "CONFLICTS", {"read": (), "write": (), "add": ()}, blocks_overwrite_each_other),
        (execute.Machine, "check_outputs", lambda self: None, not_stored),
    ],
    ids=["reads do not race", "stores do not race", "outputs are not looked at"],
)
def test_broken_programs_refute_a_run_that_looks_away(owner, name, mutant, broken, monkeypatch):
    refused_when_run(broken)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refused_when_run(broken)


# Recording: what all readers share, only the direct machine can refute


def every_tile_is_visible(self, tiles, other):
    return self.loop(tiles)


def loads_once_more(self, *pieces):
    RIGHT_LOAD(self, *pieces[:1])
    return RIGHT_LOAD(self, *pieces)


def sets_instead_of_adding(self, kind, target, value):
    return RIGHT_UPDATE(self, "set" if kind == "add" else kind, target, value)


RIGHT_LOAD, RIGHT_UPDATE = Recorder.load, Recorder.update


@pytest.mark.parametrize(
    ("name", "mutant"),
    [("visible", every_tile_is_visible), ("load", loads_once_more), ("update", sets_instead_of_adding)],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_direct_machine_refutes_a_wrong_recorder(name, mutant, monkeypatch):
    assert not catches(lambda *case: check_machines(fresh(flash2), *case), CASES)
    monkeypatch.setattr(Recorder, name, mutant)
    assert catches(lambda *case: check_machines(fresh(flash2), *case), CASES)


@pytest.mark.parametrize(("name", "mutant"), [("visible", every_tile_is_visible), ("load", loads_once_more)])
def test_readers_of_one_record_agree_on_its_defects(name, mutant, monkeypatch):
    """Which is why the direct machine is there: values are right, and both counters read the same wrong record."""
    monkeypatch.setattr(Recorder, name, mutant)
    assert not catches(agrees(fresh(flash2)), CASES)


# On chip


@pytest.mark.parametrize("kind", ["dot", "full"])
def test_ledgers_by_hand_refute_a_wrong_lifetime(kind, monkeypatch):
    """A product or an accumulator that takes over an operand's room would be free."""
    rows = [(fresh(text), *marks) for text, *marks in BY_HAND]
    assert not catches(check_lifetimes, rows)
    from ioaware.program import lifetimes

    monkeypatch.setattr(lifetimes, "NEEDS_OWN_ROOM", tuple(k for k in NEEDS_OWN_ROOM if k != kind))
    monkeypatch.setattr(lifetimes, "_same_room", lambda a, b: True)
    assert catches(check_lifetimes, [(fresh(text), *marks) for text, *marks in BY_HAND])


# Searching


SEARCHES = [
    (record(flash2, problem.features), problem, sram_bytes)
    for mask in (FULL, CAUSAL, Band(20, 0))
    for problem in (AttentionProblem(q_len=q, kv_len=100, head_dim=12, mask=mask) for q in (40, 130))
    for sram_bytes in (6_000, 12_000, 20_000, 40_000)
]


def prunes_too_much(self, q, kv):
    return 2 * RIGHT_AT_LEAST(self, q, kv)


def takes_the_smallest(self, kv):
    return iter(self.kv_sizes[:1])


RIGHT_AT_LEAST = schedule._Cost.at_least


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (schedule._Cost, "at_least", prunes_too_much),
        (schedule._Need, "shorter", takes_the_smallest),
        (schedule._Need, "fits", lambda self, q, kv: self.bytes(q, kv) <= self.sram_bytes + 5000),
    ],
    ids=["prunes too much", "smallest key tile", "does not fit"],
)
def test_brute_force_refutes_a_wrong_search(owner, name, mutant, monkeypatch):
    assert not catches(check_best, SEARCHES)
    monkeypatch.setattr(owner, name, mutant)
    assert catches(check_best, SEARCHES)


# Bounds


def test_a_program_refutes_a_bound_that_is_too_high(monkeypatch):
    """Packed query tiles with one key at a time move little more than the bound on all traffic."""
    case = (packed, AttentionProblem(q_len=2**17, head_dim=64, dtype="fp32"), TileSizes(2048, 1), "fwd")
    assert not catches(check_bound, [case])
    right = bounds.io_bound_words
    monkeypatch.setattr(bounds, "io_bound_words", lambda *args: 9 * right(*args) // 8)
    assert catches(check_bound, [case])


# Printing


@pytest.mark.parametrize("name", ["_group", "_term"])
def test_counts_refute_a_wrong_printed_form(name, monkeypatch):
    problem, sizes = AttentionProblem(q_len=20, kv_len=30, heads=2, head_dim=3), TileSizes(4, 7)
    check_printed(flash1, problem, sizes, {})
    right = getattr(formula, name)
    if name == "_group":  # the last term of a bracket is lost
        monkeypatch.setattr(formula, name, lambda factor, terms: right(factor, terms[:-1] or terms))
    else:  # coefficients are lost
        monkeypatch.setattr(formula, name, lambda c, names: right(1, names))
    with pytest.raises(AssertionError):
        check_printed(flash1, problem, sizes, {})
