"""The search for the least loads: against brute force that knows no symmetry and no bound, and its broken variants."""

from collections import deque
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_proofs import pebble
from ioaware_proofs.pebble import Position, attention_loads, fewest_moves, read, renamed, text

FULL3 = tuple(product(range(3), range(3)))
CAUSAL3 = tuple((i, j) for i, j in FULL3 if j <= i)


@lru_cache
def brute_force(pairs, slots, matrices="QK"):
    """The least loads, by trying every load in place of every row: breadth first over (rows in slots, pairs done).

    A pair is done once its rows of all `matrices` are in slots. A row of O of which no pair is done begins at no cost.
    """
    needs = [[(m, pair[0] if m in "QO" else pair[1]) for m in matrices] for pair in pairs]
    rows = sorted({row for need in needs for row in need})
    masks = [sum(1 << rows.index(row) for row in need) for need in needs]
    begun = [sum(1 << p for p, need in enumerate(needs) if m == "O" and (m, i) in need) for m, i in rows]
    is_sum = [m == "O" for m, _ in rows]
    loads, ahead = {(0, 0): 0}, deque([(0, 0, 0)])
    while True:
        so_far, held, done = ahead.popleft()
        if loads[held, done] < so_far:
            continue
        if done == (1 << len(pairs)) - 1:
            return so_far
        places = [0] if held.bit_count() < slots else [1 << r for r in range(len(rows)) if held >> r & 1]
        for row, place in product(range(len(rows)), places):
            if held >> row & 1:
                continue
            now = held & ~place | 1 << row
            then = done | sum(1 << p for p, mask in enumerate(masks) if mask & now == mask)
            cost = so_far + (not is_sum[row] or done & begun[row] != 0)
            if cost < loads.get((now, then), cost + 1):
                loads[now, then] = cost
                (ahead.append if cost > so_far else ahead.appendleft)((cost, now, then))


# The search


@pytest.mark.parametrize("slots", [2, 3, 4, 5])
@pytest.mark.parametrize("pairs", [FULL3, CAUSAL3], ids=["full", "causal"])
def test_three_rows_by_brute_force(pairs, slots):
    assert len(fewest_moves(pairs, slots)) == brute_force(pairs, slots)


@given(st.frozensets(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6), st.integers(2, 4))
def test_any_visible_pairs_by_brute_force(pairs, slots):
    assert len(fewest_moves(pairs, slots)) == brute_force(pairs, slots)


def test_nothing_to_do_takes_no_loads():
    assert fewest_moves([], 2) == []


def test_one_slot_is_refused():
    with pytest.raises(InputError, match="slots=1"):
        fewest_moves(FULL3, 1)


def test_the_table_up_to_five_rows_is_what_the_search_finds():
    assert list(pebble.optima(5)) == [row for row in read() if row.n <= 5]


def test_the_file_is_the_table_as_text():
    assert pebble.TABLE.read_text(encoding="utf-8") == text(read())


@given(st.frozensets(st.sampled_from(FULL3)), st.integers(0, 2**6 - 1))
def test_a_renamed_position_is_the_same_under_other_names(pairs, held):
    at = Position(pebble.opening({*pairs, (2, 2)}).wants, held)
    new, order = renamed(at)
    assert sorted(order) == list(range(6))
    assert {row < 3 for row in order[:3]} != {True, False}  # queries stay together, and keys
    for a, b in product(range(6), range(6)):
        assert new.wants[a] >> b & 1 == at.wants[order[a]] >> order[b] & 1
    assert [new.held >> a & 1 for a in range(6)] == [at.held >> old & 1 for old in order]


# Attention

TWO_BY_TWO = tuple(product(range(2), range(2)))
TWO_BY_THREE = tuple(product(range(2), range(3)))


@pytest.mark.parametrize("pairs", [TWO_BY_TWO, TWO_BY_THREE, TWO_BY_THREE[:2] + TWO_BY_THREE[3:]])
@pytest.mark.parametrize("slots", [2, 3, 4])
def test_attention_takes_twice_the_slots_and_twice_the_loads_less_one_for_each_query(pairs, slots):
    """Though its rows of Q, K, V and O are loaded one by one."""
    assert brute_force(pairs, 2 * slots, "QKVO") == attention_loads(brute_force(pairs, slots), 2)


def test_with_an_odd_slot_attention_is_halfway_between():
    few, odd, many = (brute_force(TWO_BY_TWO, slots, "QKVO") for slots in (4, 5, 6))
    assert few > odd > many
    assert 2 * odd == few + many


@pytest.mark.parametrize("pairs", [TWO_BY_TWO, TWO_BY_THREE, FULL3, CAUSAL3])
@pytest.mark.parametrize("slots", [2, 3, 4])
def test_weights_times_values_cost_what_scores_cost_less_one_for_each_query(pairs, slots):
    queries = len({i for i, _ in pairs})
    assert brute_force(pairs, slots, "OV") == brute_force(pairs, slots) - queries


# Broken searches are caught

CASES = [(pairs, slots) for pairs in (FULL3, CAUSAL3) for slots in (2, 3, 4)]


MOVES = pebble.moves


def exact():
    return all(len(fewest_moves(pairs, slots)) == brute_force(pairs, slots) for pairs, slots in CASES)


def holds_anything(at):
    """A wrong symmetry: which rows are in slots is forgotten, only their number is kept."""
    new, order = renamed(at)
    return Position(new.wants, (1 << new.held.bit_count()) - 1), order


def exchanges_sides(at):
    """A wrong symmetry: Q and K change places, but not among the rows in slots."""
    half = len(at.wants) // 2
    order = (*range(half, 2 * half), *range(half))
    new, _ = renamed(Position(at.wants, 0))
    return Position(new.wants, at.held), order


def a_load_for_each_pair(at, slots):
    """An inadmissible bound."""
    return sum(wanted.bit_count() for wanted in at.wants) // 2


def one_slot_more(at, slots):
    """A broken rule: one more row fits."""
    return MOVES(at, slots + 1)


def most_at_once(at, slots):
    """A broken rule: only the loads that do the most pairs at once."""
    done = {
        move: sum(at.wants[move.row] >> row & 1 for row in pebble.members(at.held) if row != move.replaced)
        for move in MOVES(at, slots)
    }
    return (move for move in done if done[move] == max(done.values()))


def test_the_search_is_exact_before_it_is_broken():
    assert exact()


@pytest.mark.parametrize(
    ("part", "mutant"),
    [("renamed", holds_anything), ("renamed", exchanges_sides), ("to_come", a_load_for_each_pair),
     ("moves", one_slot_more), ("moves", most_at_once)],
)  # fmt: skip
def test_brute_force_catches_a_broken_search(part, mutant, monkeypatch):
    monkeypatch.setattr(pebble, part, mutant)
    assert not exact()
