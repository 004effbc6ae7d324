"""Every way in which a theorem may fail to be proved is caught: by a word in the file, by Coq, by what it assumes."""

from __future__ import annotations

import pytest

from ioaware.errors import VerificationError
from ioaware_proofs import __main__ as writing
from ioaware_proofs import audit, theory
from ioaware_proofs.check import Recheck
from tests.coq import needs_coq
from tests.messages.theories import CHOICES, EXPECTED, SUMS, edited, installed

pytestmark = needs_coq

BELOW = "Proof. exists 0. exact positive. Qed."


def cheated(declaration, proof="apply magic. Qed."):
    """Sums with a theorem that rests on a declaration above it."""
    return edited(edited(SUMS, "Section Sums.", f"{declaration}\nSection Sums."), BELOW, f"Proof. exists 0. {proof}")


WORDS = {  # the reader knows them
    "Admitted": cheated("", "Admitted."),
    "admit": cheated("", "admit. Admitted."),
    "an axiom": cheated("Axiom magic : forall P : Prop, P."),
}
NO_WORDS = {
    "a variable outside": cheated("Variable magic : forall P : Prop, P."),
    "obligations": cheated(
        "From Coq Require Import Program.\nProgram Definition magic : forall P : Prop, P := _.\nAdmit Obligations."
    ),
    "a loop": cheated(
        "Unset Guard Checking.\nFixpoint magic (n : nat) (P : Prop) {struct n} : P := magic n P.",
        "apply (magic 0). Qed.",
    ),
    "classical": cheated("From Coq Require Import Classical.", "destruct (classic (bound = 1)); exact positive. Qed."),
}


def rechecked(folder, name):
    """What the command does for one theory."""
    theories = theory.load(folder / "theories")
    expected = audit.expected(theories)
    needed = theory.closure({one.name: one for one in theories}, [name])
    recheck = Recheck(needed, needed[-1].theorems, expected)
    list(recheck)
    audit.compare(recheck.axioms, expected)


@pytest.mark.parametrize("text", WORDS.values(), ids=WORDS)
def test_a_word_is_caught(text, monkeypatch, tmp_path):
    with pytest.raises(VerificationError, match=r"^Sums.v:\d+: (Admitted|admit|Axiom) "):
        rechecked(installed(monkeypatch, tmp_path, Sums=text), "Sums")


@pytest.mark.parametrize("text", [*WORDS.values(), *NO_WORDS.values()], ids=[*WORDS, *NO_WORDS])
def test_an_assumption_is_caught_by_its_axioms_alone(text, monkeypatch, tmp_path):
    """The reader looks for no words."""
    folder = installed(monkeypatch, tmp_path, Sums=text)
    monkeypatch.setattr(theory, "BANNED", {"no such word": ""})
    with pytest.raises(VerificationError, match=r"^Sums.\w+ rests on .*, which axioms.expected does not"):
        rechecked(folder, "Sums")


def test_an_axiom_that_is_not_needed_any_more_is_told(monkeypatch, tmp_path):
    text = edited(edited(CHOICES, "P : P \\/ ~ P", ": True \\/ False"), "apply classic", "left; exact I")
    with pytest.raises(VerificationError, match=r"^Choices.true_or_false does not rest on Classical_Prop.classic any"):
        rechecked(installed(monkeypatch, tmp_path, Choices=text), "Choices")


@pytest.mark.parametrize(("mutant", "ours"), [("a variable outside", True), ("classical", False)])
def test_the_writer_accepts_no_axiom_of_ours(mutant, ours, monkeypatch, tmp_path, capsys):
    folder = installed(monkeypatch, tmp_path, Sums=NO_WORDS[mutant])
    assert writing.main([]) == (1 if ours else 0)
    assert ("Sums.something_below rests on Sums.magic, an axiom of our own" in capsys.readouterr().err) is ours
    assert ((folder / "axioms.expected").read_text(encoding="utf-8") == EXPECTED) is ours


def test_a_proof_that_is_wrong_is_caught_by_coq(monkeypatch, tmp_path):
    folder = installed(monkeypatch, tmp_path, Sums=edited(SUMS, "exact positive", "assumption"))
    rechecked(folder, "Sums")  # another proof of the same
    folder = installed(monkeypatch, tmp_path, Sums=edited(SUMS, "n + 0 = n.\n  Proof", "n + 0 = S n.\n  Proof"))
    with pytest.raises(VerificationError, match=r"^Sums.v:15: Coq says: "):
        rechecked(folder, "Sums")
