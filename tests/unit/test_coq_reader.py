"""The Coq reader: what is committed is what it prints, and what it prints is the recorded nest."""

import itertools
from pathlib import Path

import pytest

from ioaware.algorithms import find
from ioaware.errors import NoClosedForm
from ioaware.problem import Features
from ioaware.program import exp, record, rowsum
from ioaware.readers import coq
from ioaware_proofs import bridge
from tests.strategies import GENERAL


@pytest.fixture(scope="module")
def nests():
    """{Coq name: the printed nest, under one name for all}."""
    return {name: coq.definition(program, "x") for name, _, program in bridge.programs()}


def test_committed_programs_are_what_the_bridge_prints():
    assert bridge.PROGRAMS.read_text(encoding="utf-8") == bridge.text(), "run python -m ioaware_proofs.bridge"


def test_the_docs_show_what_is_printed():
    program = record(find("flash2").forward)
    shown = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
    assert coq.definition(program, "flash2") in shown
    assert coq.theorem(program, "flash2", "").partition("*)\n")[2] in shown


@pytest.mark.parametrize("algorithm", [a for a in GENERAL if not a.unsplit], ids=lambda a: a.name)
def test_every_text_of_every_algorithm_stands_there_once(algorithm, nests):
    printed = list(nests.values())
    for function in filter(None, (algorithm.forward, algorithm.backward)):
        for padding, dropout, masked in itertools.product((False, True), repeat=3):
            features = Features(padding=padding, dropout=dropout, masked=masked or padding)
            assert printed.count(coq.definition(record(function, features), "x")) == 1


def keys_outside(p, Q, K):
    sums = p.scratch('row "sums"', p.kv_heads, p.group, p.q, p.one_per(p.kv_tiles), p.one)
    for b, h, j in p.kernel("sums", p.batch, p.kv_heads, p.kv_tiles):
        k = p.load(K[h, j])
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                for r in p.loop(p.tiles(i, 1)):
                    p.add(sums[h, g, r, j.number], rowsum(exp(p.load(Q[h, g, r]) @ k.T)))


def test_a_nest_is_printed_as_it_was_recorded():
    """Written by hand from the text above: tiles cut again, tiles seen from keys, names that Coq must quote."""
    assert coq.definition(record(keys_outside), "keys_outside") == (
        "Definition keys_outside\n"
        "    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat)"
        " (sees : nat -> nat -> bool) : prog :=\n"
        '  (* kernel "sums" *)\n'
        "  For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>\n"
        "    let cols_j := tile kv_len tile_kv j in\n"
        "    Seq [\n"
        '      Load "K" (cols_j * head_dim);\n'
        "      For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>\n"
        "        let rows_i := tile q_len tile_q i in\n"
        "        For (cdiv rows_i 1) (fun i' =>\n"
        "          let rows_i' := tile rows_i 1 i' in\n"
        "          Seq [\n"
        '            Load "Q" (rows_i\' * head_dim);\n'
        "            Flops (2 * rows_i' * cols_j * head_dim);\n"
        "            Exps (rows_i' * cols_j);\n"
        '            AtomicAdd "row ""sums""" rows_i\'\n'
        "          ])))\n"
        "    ]))).\n"
    )


def test_a_theorem_states_the_closed_forms_that_count_evaluates():
    statement = coq.theorem(record(keys_outside), "keys_outside", "A test").split("sees) =\n")[1]
    assert statement == (
        '    w (Read "K") * (batch * kv_heads * kv_len * head_dim)\n'
        '  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)\n'
        '  + w (Add "row ""sums""") * (batch * kv_heads * group * rows)\n'
        "  + w Flop * (2 * batch * kv_heads * group * head_dim * cells)\n"
        "  + w Exp * (batch * kv_heads * group * cells).\n"
        "Proof. unfold keys_outside. closed_form. Qed.\n"
    )


def ragged_again(p, Q):
    for b, h, g, i in p.kernel("again", p.batch, p.kv_heads, p.group, p.q_tiles):
        for r in p.loop(p.tiles(i, 3)):
            p.load(Q[h, g, i])


def test_a_tile_of_a_ragged_tile_has_no_theorem():
    with pytest.raises(NoClosedForm, match="no expression in Coq"):
        coq.theorem(record(ragged_again), "ragged_again", "A test")


def keys_back_and_forth(p, Q, K):
    for b, h, g in p.kernel("winding", p.batch, p.kv_heads, p.group):
        for i in p.loop(p.q_tiles):
            for j in p.serpentine(p.kv_tiles, i):
                p.load(Q[h, g, i], K[h, j], K[h, j])


@pytest.mark.parametrize(
    ("masked", "loop", "known"),
    [
        (False, "For (cdiv kv_len tile_kv) (fun t =>", "full"),
        (
            True,
            "ForSeen (cdiv kv_len tile_kv) (fun t => sees i (back_and_forth (cdiv kv_len tile_kv) i t)) (fun t =>",
            "sees",
        ),
    ],
)
def test_the_order_of_a_walk_back_and_forth_is_printed(masked, loop, known):
    nest = coq.definition(record(keys_back_and_forth, Features(masked=masked)), "x")
    assert (
        f"    {loop}\n"
        "      let j := back_and_forth (cdiv kv_len tile_kv) i t in\n"
        f"      let kept_j := kept {known} (cdiv kv_len tile_kv) i t in\n"
        "      let cols_j := tile kv_len tile_kv j in\n"
        "      Seq [\n"
        '        Load "Q" (rows_i * head_dim);\n'
        '        Unless kept_j (Load "K" (cols_j * head_dim));\n'
    ) in nest


def queries_back_and_forth(p, Q):
    for b, h, g in p.kernel("winding", p.batch, p.kv_heads, p.group):
        for j in p.loop(p.kv_tiles):
            for i in p.serpentine(p.q_tiles, j):
                p.load(Q[h, g, i])


def test_the_mask_takes_the_query_tile_first_also_where_keys_turn():
    nest = coq.definition(record(queries_back_and_forth, Features(masked=True)), "x")
    assert "(fun t => sees (back_and_forth (cdiv q_len tile_q) j t) j)" in nest
    assert "kept (fun j i => sees i j) (cdiv q_len tile_q) j t" in nest


def test_what_a_form_subtracts_stands_on_the_left():
    """Coq's numbers are natural: of two query tiles' keys, one tile is kept."""
    statement = coq.theorem(record(keys_back_and_forth), "x", "A test")
    assert "0 < q_len -> 0 < kv_len ->" in statement
    left, right = statement.partition("sees)\n")[2].split(" =\n")
    assert left.startswith('  + w (Read "K") * (2 * batch')
    assert "last" in left
    assert " - " not in left + right


def test_a_program_without_closed_form_is_printed_without_theorem():
    text = bridge.text()
    assert "Definition flash2_serpentine_masked" not in text.partition("Theorem flash2_serpentine_counts")[0]
    assert "Theorem flash2_serpentine_masked" not in text
    assert "No theorem stands below flash2_serpentine_masked" in text
