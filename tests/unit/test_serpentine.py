"""Keys walked back and forth: what is on chip at a turn is not read again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.serpentine import flash2_serpentine
from ioaware.errors import ProgramError
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.program.loops import Kept
from ioaware.readers import algebra, formula
from ioaware.readers.count import count, has_closed_form, tensor_quantities
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.onchip import on_chip
from ioaware.readers.walk import walked
from tests.strategies import problems, tiles

PROBLEM = AttentionProblem(q_len=12, kv_len=10, head_dim=3, value_dim=2, dtype="fp16")


def key_rows_read(q_len, kv_len, tile_q, tile_kv, band):
    """Key rows read, from the definition: visit the visible tiles, forget all but the last one."""
    keys = [range(k, min(k + tile_kv, kv_len)) for k in range(0, kv_len, tile_kv)]
    queries = [range(q, min(q + tile_q, q_len)) for q in range(0, q_len, tile_q)]
    rows, here = 0, None
    for n, query_tile in enumerate(queries):
        seen = [t for t in keys if any(sees(band, q, k, kv_len - q_len) for q in query_tile for k in t)]
        for tile in seen[::-1] if n % 2 else seen:
            rows += len(tile) if tile is not here else 0
            here = tile
    return rows


def sees(band, q, k, shift):
    gap = k - (q + shift)
    return (band.left is None or gap >= -band.left) and (band.right is None or gap <= band.right)


@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 12),
    st.sampled_from([Band(), Band(right=0), Band(left=3, right=0), Band(left=4, right=2)]),
)  # fmt: skip
def test_keys_and_values_are_read_as_the_walk_says(q_len, kv_len, tile_q, tile_kv, band):
    problem = replace(PROBLEM, q_len=q_len, kv_len=kv_len, mask=band)
    traffic = count(record(flash2_serpentine, problem.features), problem, TileSizes(tile_q, tile_kv))
    rows = key_rows_read(q_len, kv_len, tile_q, tile_kv, band)
    assert traffic["K"].read_bytes == rows * 3 * 2
    assert traffic["V"].read_bytes == rows * 2 * 2


def test_one_key_tile_is_saved_at_each_turn():
    """Three query tiles, key tiles of 4, 4 and 2 rows: the last one is saved at the first turn, then the first one."""
    sizes = TileSizes(4, 4)
    straight, winding = (count(record(text), PROBLEM, sizes)["K"].read_bytes for text in (flash2, flash2_serpentine))
    assert straight - winding == (2 + 4) * 3 * 2


@given(problems(mask=Band()), tiles)
def test_everything_else_is_flash2(problem, sizes):
    straight, winding = (count(record(t, problem.features), problem, sizes) for t in (flash2, flash2_serpentine))
    saved = straight - winding
    assert set(saved.tensors) <= {"K", "V", "padding"}
    assert all(moved.read >= 0 for moved in saved.tensors.values())


def test_the_turns_have_a_closed_form():
    masked = record(flash2_serpentine, replace(PROBLEM, mask="causal").features)
    assert has_closed_form(record(flash2_serpentine))
    assert has_closed_form(masked)
    assert formula.per_tensor(masked, replace(PROBLEM, mask="causal"))["K", "read"] == "d cols - d kept_rows"
    assert formula.per_tensor(record(flash2_serpentine), AttentionProblem(q_len=64))["K", "read"].startswith(
        "N d ⌈N/B_r⌉"
    )


def test_the_kept_tile_has_room_for_as_long_as_the_loop_that_turns():
    """K and V tiles stay when S is made; flash2 has dropped K by the time it needs room for the products with V."""
    sizes = TileSizes(4, 4)
    straight, winding = (on_chip(record(text), PROBLEM, sizes) for text in (flash2, flash2_serpentine))
    assert winding.loaded == straight.loaded
    assert straight.total <= winding.total <= straight.total + 4 * (3 + 2) * 2


# A text that cannot keep a tile is refused


def each_tile_a_block(p, Q, K, V, O):
    for b, h, g, i in p.kernel("one", p.batch, p.kv_heads, p.group, p.q_tiles):
        for j in p.serpentine(p.kv_tiles, i):
            p.load(K[h, j])


def a_loop_between(p, Q, K, V, O):
    for b, h in p.kernel("one", p.batch, p.kv_heads):
        for i in p.loop(p.q_tiles):
            for g in p.loop(p.group):
                for j in p.serpentine(p.kv_tiles, i):
                    p.load(K[h, j])


@pytest.mark.parametrize("text", [each_tile_a_block, a_loop_between])
def test_the_turning_loop_must_be_just_around(text):
    with pytest.raises(ProgramError, match=r"make i the p\.loop just around it"):
        record(text)


def reads_the_query_inside(p, Q, K, V, O):
    for b, h, g in p.kernel("one", p.batch, p.kv_heads, p.group):
        for i in p.loop(p.q_tiles):
            for j in p.serpentine(p.kv_tiles, i):
                p.load(Q[h, g, i])
                p.load(K[h, j])
                p.store(O[h, g, i], p.zeros(i, p.value_dim))


def test_what_depends_on_the_turning_tile_is_read_each_time():
    traffic = count(record(reads_the_query_inside), PROBLEM, TileSizes(4, 4))
    assert traffic["Q"].read_bytes == 3 * 12 * 3 * 2
    assert traffic["K"].read_bytes == (3 * 10 - 2 - 4) * 3 * 2


# The walk refutes a wrong closed form


@pytest.mark.parametrize("wrong", ["the last tile always", "one turn more"])
def test_the_walk_refutes_a_wrong_sum_over_turns(wrong, monkeypatch):
    def mutant(kept: Kept, turning):
        whole, n = turning.axis.length, kept.index.over.count
        last = whole - (n - 1) * kept.index.over.step
        return (turning.count - 1) * last if wrong == "the last tile always" else turning.count * last

    program = record(flash2_serpentine)
    walk = walked(program, tensor_quantities(program), PROBLEM, TileSizes(4, 4))["K", "read"]
    reads = next(a for a in algebra.accesses(program) if a.tensor.name == "K")
    names = {"batch": 1, "kv_heads": 1, "group": 1, "q_len": 12, "kv_len": 10, "head_dim": 3, "tile_q": 4, "tile_kv": 4}
    from ioaware.readers.evaluate import interpreted

    assert interpreted(reads.total, names) * 2 == walk
    monkeypatch.setattr(algebra, "_kept", mutant)
    assert interpreted(reads.total, names) * 2 != walk
