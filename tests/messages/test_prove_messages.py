"""What `ioaware prove` says: theorems as they are shown, refusals, and proofs that do not hold, one sentence each."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.coq import needs_coq
from tests.messages.command import call, spawn
from tests.messages.test_refusals import lines, refused
from tests.messages.theories import CHOICES, SUMS, edited, installed

NAMES = lines("""
    prove something_abov
    prove Sum
    prove Choices.something_below
    prove Sums.vo
    prove internal
    prove ''
    prove --list above
    prove --list --json zero
    prove --coqchk SUMS
""")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The small library in the place of the project's."""
    return installed(monkeypatch, tmp_path)


@pytest.mark.parametrize("command", NAMES)
def test_a_name(command, small, snapshot):
    assert refused(small, command) == snapshot


TRACES = lines("""
    prove --trace
    prove --N 6
    prove tiles_cover --trace --N 6
    prove --coqchk --trace --N 6
    prove --trace --N 100000
    prove --trace --N 6 --direction bwd
    prove --trace --N 6 --mask padding
    prove --trace --N 6 --tiles 3
    prove --trace --N 6 --alg flash9
""")


@pytest.mark.parametrize("command", TRACES)
def test_a_trace(command, tmp_path, snapshot):
    assert refused(tmp_path, command) == snapshot


CLICK = [("prove --lst", "--list"), ("prove --list=yes", "--list"), ("prove a b", "b"), ("prove --json 1 2", "2")]


@pytest.mark.parametrize(("command", "named"), CLICK, ids=[command for command, _ in CLICK])
def test_what_click_refuses(command, named, small):
    assert named in refused(small, command)


@pytest.mark.parametrize("command", ["prove", "prove --json", "prove --coqchk --json", "prove --json Sums"])
def test_without_coq_it_is_skipped_not_passed(command, small, snapshot):
    assert refused(small, command, code=77, env={"PATH": ""}) == snapshot


def test_a_refusal_is_the_same_in_a_process_of_its_own(tmp_path):
    assert spawn(tmp_path, "prove", "flash2") == call(tmp_path, "prove", "flash2")


# ------------------------------------------------------------------------------------------------ a small library
@pytest.mark.parametrize("command", ["--list", "--list Sums", "--list Choices.v", "--list something_below"])
def test_what_is_shown(command, small, snapshot):
    result = call(small, "prove", *shlex.split(command), env={"COLUMNS": "80"})
    assert (result.code, result.err) == (0, "")
    assert result.out == snapshot


BROKEN = {
    "Admitted": edited(CHOICES, "Qed", "Admitted"),
    "Axiom": edited(CHOICES, "(** Every", "Axiom choice : 0 = 1.\n\n(** Every"),
    "no English": edited(CHOICES, "(** Every statement holds or its negation does. *)\n", ""),
    "no summary": edited(CHOICES, "(** Choices. What is true or false. *)\n", ""),
    "a use": edited(CHOICES, "does. *)", "does. Used by: simulator. *)"),
    "Remark": edited(CHOICES, "Theorem", "Remark"),
    "Local": edited(CHOICES, "Theorem", "Local Theorem"),
    "a name": edited(CHOICES, "true_or_false", "zero_adds_nothing"),
    "no line": edited(CHOICES, "true_or_false", "true_or_not"),
    "no theory": edited(CHOICES, "Import Sums", "Import Products"),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_theory_that_breaks_a_convention(text, monkeypatch, tmp_path, snapshot):
    installed(monkeypatch, tmp_path, Choices=text)
    assert refused(tmp_path, "prove --list", code=1) == snapshot


CLASSICAL = edited(SUMS, "Open Scope", "From Coq Require Import Classical.\nOpen Scope")
WRONG = {
    "a proof": {"Sums": edited(SUMS, "exact positive", "reflexivity")},
    "a statement": {"Sums": edited(SUMS, "n + 0 = n.\n  Proof", "n + 1 = n.\n  Proof")},
    "an unfinished proof": {"Choices": edited(CHOICES, "Proof. apply classic.", "Proof.")},
    "a library": {"Choices": edited(CHOICES, "From Coq Require", "From Absent Require")},
    "a name": {"Choices": edited(CHOICES, "apply classic", "apply classical")},
    "an axiom of Coq's": {"Sums": edited(CLASSICAL, "Proof. symmetry.", "Proof. symmetry. pose (classic (n = 0)).")},
    "an assumption": {"Sums": edited(edited(SUMS, "Section Sums.", ""), "End Sums.", "")},
}


@needs_coq
@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_proof_that_does_not_hold(changes, monkeypatch, tmp_path, snapshot):
    """What Coq itself says depends on its version."""
    result = call(installed(monkeypatch, tmp_path, **changes), "prove")
    assert result.code == (77 if "From Absent" in changes.get("Choices", "") else 1)
    assert str(tmp_path) not in result.err
    said = re.sub(r"(?<=Coq says: ).+|\d+\.\d(?= s\n)", "...", result.out + result.err)
    assert said.splitlines() == snapshot
