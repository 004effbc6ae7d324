"""A library of two small theories as an author would write them, put in the place of the project's."""

from __future__ import annotations

from ioaware_proofs import theory
from tests.messages.command import written

SUMS = """\
(** Sums: the smallest theory with all that a theory can have.

    A formula stands on lines of its own:
      n + 0 = n.
    Not claimed: anything about [multiplication]. *)
Open Scope nat_scope.

Section Sums.
  Variable bound : nat.
  Hypothesis positive : 0 < bound. (* a comment (* in a comment *) "with *) a string" and a Theorem. *)

  (** Nothing changes where zero is added.
      Used by: simulator/ioaware/bounds.py (compulsory, io_bound_words), simulator/ioaware/units.py (parse_count). *)
  Theorem zero_adds_nothing n : n + 0 = n.
  Proof. symmetry. apply plus_n_O. Qed.

  (** Some number is below the bound: zero, which is
      below 0.5 too. *)
  Theorem something_below :
    exists n, n < bound.
  Proof. exists 0. exact positive. Qed.
End Sums.

Lemma internal : 1 + 1 = 2.
Proof. reflexivity. Qed.
"""
CHOICES = """\
(** Choices. What is true or false. *)
From Coq Require Import Classical.
From IOAware Require Import Sums.

(** Every statement holds or its negation does. *)
Theorem true_or_false P : P \\/ ~ P.
Proof. apply classic. Qed.
"""
EXPECTED = """\
Sums.zero_adds_nothing: closed
Sums.something_below: closed
Choices.true_or_false: Classical_Prop.classic
"""
FILES = {"theories/Sums.v": SUMS, "theories/Choices.v": CHOICES, "axioms.expected": EXPECTED}


def installed(monkeypatch, folder, **changes):
    """The library in a folder, and the package's code beside it, as in a checkout; `changes`: texts by theory."""
    changed = {f"theories/{name}.v": text for name, text in changes.items()}
    monkeypatch.setattr(theory, "__file__", str(written(folder, {**FILES, **changed}) / "package" / "theory.py"))
    return folder


def edited(text, old, new):
    """A text with one change."""
    assert text.count(old) == 1, old
    return text.replace(old, new)
