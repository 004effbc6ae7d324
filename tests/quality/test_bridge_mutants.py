"""Coq refuses a program or a closed form that is wrong in one place.

A changed text is printed beside the theorem of the right one, and a broken algebra's theorem beside the right text.
"""

import shutil

import pytest

from ioaware.errors import VerificationError
from ioaware.program import exp, record, rowsum
from ioaware.program.loops import Seen
from ioaware.readers import algebra, count
from ioaware.readers.coq import definition, theorem
from ioaware.sizes import Size, Whole, least, name, size
from ioaware_proofs import bridge
from ioaware_proofs.coq import COQC, run
from tests.coq import needs_coq
from tests.property.test_coq_counts import LANGUAGE, PROGRAMS, disagreements

pytestmark = needs_coq


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the language and the tactic, compiled."""
    folder = tmp_path_factory.mktemp("theories")
    for theory in ("IOCounts.v", "ClosedForms.v"):
        shutil.copy(bridge.PROGRAMS.parent / theory, folder)
        run([*COQC, theory], folder)
    return folder


def attention(step="tile_kv", hidden_too=False, keys_whole=False, q_inside=False, wrong_tensor=False):
    """A program, recorded afresh: as it should be, or with one line changed."""

    def text(p, Q, K, V, O, l, m):
        for b, h, g, i in p.kernel("attention", p.batch, p.kv_heads, p.group, p.q_tiles):
            acc, tiles = p.zeros(i, p.value_dim), p.tiles(p.kv, name(step))
            if keys_whole:
                weights = exp(p.load(Q[h, g, i]) @ p.load(K[h, :]).T)
                acc += weights @ p.load(V[h, :])
            else:
                if not q_inside:
                    q = p.load(Q[h, g, i])
                for j in p.loop(tiles) if hidden_too else p.visible(tiles, i):
                    weights = exp((p.load(Q[h, g, i]) if q_inside else q) @ p.load(K[h, j]).T)
                    acc += weights @ p.load(V[h, j])
            p.store(O[h, g, i], acc)
            p.store((m if wrong_tensor else l)[h, g, i], rowsum(acc))

    return record(text)


def printed(program):
    return definition(program, "attention"), theorem(program, "attention", "Attention")


def refusal(folder, nest, statement):
    """What Coq says against a nest with a theorem about it; nothing if it accepts both."""
    (folder / "attention.v").write_text(f"From IOAware Require Import ClosedForms.\n\n{nest}\n{statement}")
    try:
        run([*COQC, "attention.v"], folder)
    except VerificationError as refused:
        return str(refused)
    return ""


REFUSAL = "not a valid ring equation"  # what the nest costs is not what the theorem says


def test_the_program_that_is_varied_is_accepted(folder):
    assert refusal(folder, *printed(attention())) == ""


@pytest.mark.parametrize(
    "defect",
    [{"step": "tile_q"}, {"hidden_too": True}, {"keys_whole": True}, {"q_inside": True}, {"wrong_tensor": True}],
    ids=str,
)
def test_coq_refuses_a_changed_text(folder, defect):
    _, right = printed(attention())
    assert REFUSAL in refusal(folder, definition(attention(**defect), "attention"), right)


over_tiles = algebra._over_tiles


def over_whole_tiles(monomial, c, rest, power, index, over):
    """The sum of a term over tiles, were the last one never ragged."""
    if power == 0 or any(isinstance(a, Seen) for a in rest):
        return over_tiles(monomial, c, rest, power, index, over)
    return Size({rest: c}) * over.count * over.step


@pytest.mark.parametrize(
    ("module", "part", "broken"),
    [
        (algebra, "_over_tiles", over_whole_tiles),
        (algebra, "_WHAT", {(True, False): "cols", (False, True): "rows", (True, True): "cells"}),
        (count, "total", lambda e, loops: algebra.total(e, loops[1:])),
    ],
    ids=["ragged tiles forgotten", "rows for columns", "a loop forgotten"],
)
def test_coq_refuses_a_wrong_closed_form(folder, monkeypatch, module, part, broken):
    program = attention()
    monkeypatch.setattr(module, part, broken)
    assert REFUSAL in refusal(folder, *printed(program))


def winding():
    """Keys walked back and forth, recorded afresh."""

    def text(p, Q, K):
        for b, h, g in p.kernel("winding", p.batch, p.kv_heads, p.group):
            for i in p.loop(p.q_tiles):
                for j in p.serpentine(p.kv_tiles, i):
                    p.load(K[h, j])

    return record(text)


kept_at_turns = algebra._kept


def at_the_wrong_end(kept, turning):
    """What is kept, were it the tile that a walk begins with."""
    right = kept_at_turns(kept, turning)
    whole, step = kept.index.axis.length, kept.index.over.step
    last, first = size(Whole(whole - (kept.index.over.count - 1) * step)), least(step, whole)
    return (turning.count - 1) * (last + first) - right


def in_every_walk(kept, turning):
    """What is kept, did the first walk find a tile too."""
    return kept_at_turns(kept, turning) + least(kept.index.over.step, kept.index.axis.length)


def test_the_walk_that_is_varied_is_accepted(folder):
    assert refusal(folder, *printed(winding())) == ""


@pytest.mark.parametrize("broken", [at_the_wrong_end, in_every_walk], ids=lambda broken: broken.__name__)
def test_coq_refuses_a_wrong_sum_over_turns(folder, monkeypatch, broken):
    program = winding()
    monkeypatch.setattr(algebra, "_kept", broken)
    assert REFUSAL in refusal(folder, *printed(program))


def test_coq_refuses_a_walk_that_never_turns(folder):
    nest, statement = printed(winding())
    assert nest.count("back_and_forth (cdiv kv_len tile_kv) i t") == 1
    assert refusal(folder, nest.replace("back_and_forth (cdiv kv_len tile_kv) i t", "t"), statement)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if sees j then f j else 0", "f j"),
        ("Nat.min step (length - i * step)", "step"),
        ("(length + step - 1) / step", "length / step"),
        ("| Seq ps => fold_right", "| Seq ps => fold_right (fun p _ => count w p) 0 ps + 0 * fold_right"),
        ("if Nat.odd i then tiles - 1 - t else t", "t"),
        ("| None, S walk => on_chip sees tiles walk tiles", "| None, S walk => on_chip sees tiles walk 0"),
        ("| None, 0 => None", "| None, 0 => Some 0"),
    ],
    ids=[
        "the mask ignored",
        "tiles never ragged",
        "the last tile left out",
        "only the first of a sequence",
        "never back",
        "nothing left by the walk before",
        "a tile on chip at the start",
    ],
)
def test_numbers_refute_wrong_semantics(tmp_path, right, wrong):
    """Theorems hold of whatever the language is said to mean; that it means the simulator's loops, the walk says."""
    assert LANGUAGE.count(right) == 1
    programs = [p for p in PROGRAMS if p[0] in ("flash1", "naive_backward", "flash2_serpentine_masked")]
    assert disagreements(tmp_path, programs, LANGUAGE.replace(right, wrong))
