"""The golden table of least loads: proved bounds <= each row <= every schedule, and each row's schedule attains it."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.algorithms import find
from ioaware.bounds import compulsory, io_bound_words
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware_proofs.pebble import LONGEST, MASKS, Move, after, attention_loads, opening, read, to_come

TABLE = read()
BANDS = {str(band): band for band in MASKS}


def sees(mask, query, key):
    """The masks of the table, written out."""
    return {"full": True, "causal": key <= query, "window:2,0": query - 2 <= key <= query}[mask]


def pairs(row):
    return {(i, j) for i, j in product(range(row.n), range(row.n)) if sees(row.mask, i, j)}


def least(mask, n, slots):
    """The table, also where there are more slots than needed."""
    loads = {row.slots: row.loads for row in TABLE if (row.mask, row.n) == (mask, n)}
    return loads[min(slots, max(loads))]


# The table itself


def test_the_table_is_whole():
    """For each mask and length: from two slots up, and on until each row is loaded once."""
    assert len(TABLE) == len({row[:3] for row in TABLE})
    for mask, n in product(BANDS, range(2, LONGEST + 1)):
        rows = [row for row in TABLE if (row.mask, row.n) == (mask, n)]
        assert [row.slots for row in rows] == list(range(2, 2 + len(rows)))
        assert [row.loads == row.compulsory for row in rows] == [False] * (len(rows) - 1) + [True]
        assert all(more.loads <= fewer.loads for fewer, more in pairwise(rows))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.mask}-{row.n}-{row.slots}")
def test_its_schedule_is_legal_and_does_all_pairs(row):
    """A referee of its own: sets of rows, no search."""
    held, done = set(), set()
    for word in row.schedule.split():
        loaded, _, replaced = word.partition("/")
        assert loaded not in held
        assert not replaced or replaced in held
        held = held - {replaced} | {loaded}
        assert len(held) <= row.slots
        queries, keys = ({int(name[1:]) for name in held if name[0] == matrix} for matrix in "QK")
        done |= set(product(queries, keys))
    assert pairs(row) <= done
    assert len(row.schedule.split()) == row.loads


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.mask}-{row.n}-{row.slots}")
def test_the_search_never_expects_more_loads_than_are_to_come(row):
    """Along the shortest schedule the bound is admissible."""
    at = opening(pairs(row))
    names = [f"{matrix}{i}" for matrix in "QK" for i in range(row.n)]
    numbers = {"": None} | {name: number for number, name in enumerate(names)}
    for done, word in enumerate(row.schedule.split()):
        assert to_come(at, row.slots) <= row.loads - done
        loaded, _, replaced = word.partition("/")
        at = after(at, Move(numbers[loaded], numbers[replaced]))
    assert to_come(at, row.slots) == 0


# Lower bounds


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.mask}-{row.n}-{row.slots}")
def test_no_row_is_below_a_proved_bound(row):
    """A play is a run in M = slots d + 1 words; `score_lower_bound` and `attention_lower_bound` of LowerBound.v."""
    edges = len(pairs(row))
    for d in (1, 2, 3, 8, 64):
        memory = row.slots * d + 1
        assert d * d * edges <= (d * row.loads + memory) * max(memory, 2 * d * d)
        assert io_bound_words(edges, d, 2 * row.slots * d + 1) <= d * attention_loads(row.loads, row.n)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.mask}-{row.n}-{row.slots}")
def test_no_row_is_below_compulsory_reads(row):
    reads = compulsory(problem(row.mask, row.n), "fwd")
    assert 4 * row.compulsory == reads["Q"].read_bytes + reads["K"].read_bytes <= 4 * row.loads
    assert reads.read_bytes <= 4 * attention_loads(row.loads, row.n)


# Schedules


def problem(mask, n):
    """Rows of four bytes: one number of fp32, also where sums are stored."""
    return AttentionProblem(q_len=n, kv_len=n, head_dim=1, dtype="fp32", mask=BANDS[mask])


def rows_read(name, mask, n, tiles):
    """How often a program reads a row of each tensor."""
    at = problem(mask, n)
    traffic = count(record(find(name).forward, at.features), at, TileSizes(*tiles))
    return {tensor: moved.read_bytes // 4 for tensor, moved in traffic.tensors.items()}


lengths, tile_sizes = st.integers(2, LONGEST), st.tuples(st.integers(1, LONGEST), st.integers(1, LONGEST))


@pytest.mark.parametrize("name", ["flash1", "flash2", "flash2_serpentine", "split_kv"])
@given(st.sampled_from(sorted(BANDS)), lengths, tile_sizes)
def test_no_fused_program_reads_less(name, mask, n, tiles):
    """Its tiles of Q and K take a slot for each row; those of Q, K, V and O, or partial O, twice as many."""
    slots = min(tiles[0], n) + min(tiles[1], n)
    reads = rows_read(name, mask, n, tiles)
    assert reads["Q"] + reads["K"] >= least(mask, n, slots)
    rows = sum(reads.get(tensor, 0) for tensor in ("Q", "K", "V", "O", "O_part"))
    assert rows >= attention_loads(least(mask, n, slots), n)


@given(st.sampled_from(sorted(BANDS)), lengths, tile_sizes)
def test_standard_attention_reads_no_less(mask, n, tiles):
    """Its scores wait in HBM; its rows of Q and K, and those of V and O, take slots one after the other."""
    slots = min(tiles[0], n) + min(tiles[1], n)
    reads = rows_read("naive", mask, n, tiles)
    assert reads["Q"] + reads["K"] >= least(mask, n, slots)
    assert reads["V"] >= least(mask, n, slots) - n


@given(st.data(), st.sampled_from(TABLE), st.booleans())
def test_no_order_of_the_pairs_takes_fewer_loads(data, row, latest_first):
    """Any order; what makes room is the row that was used last, or longest ago."""
    held, loads = [], 0
    for pair in data.draw(st.permutations(sorted(pairs(row)))):
        for name in zip("QK", pair, strict=True):
            if name in held:
                held.remove(name)
            else:
                loads += 1
                if len(held) == row.slots:
                    held.pop(-2 if latest_first else 0)  # the last one is the other row of the pair
            held.append(name)
    assert loads >= row.loads


# What the table shows


def best(name, row):
    """Fewest row reads of Q and K over the tiles that fit."""
    fitting = [tiles for tiles in product(range(1, row.n + 1), repeat=2) if sum(tiles) <= row.slots]
    return min(reads["Q"] + reads["K"] for reads in (rows_read(name, row.mask, row.n, tiles) for tiles in fitting))


def test_without_a_mask_walking_back_and_forth_is_optimal_with_two_exceptions():
    """FlashAttention-2 is optimal only where its keys or queries all stay."""
    full = [row for row in TABLE if row.mask == "full"]
    assert {row[1:3] for row in full if best("flash2_serpentine", row) > row.loads} == {(5, 3), (5, 5)}
    assert all((best("flash2", row) == row.loads) == (row.loads == row.compulsory) for row in full)
