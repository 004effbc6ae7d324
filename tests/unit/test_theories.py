"""The theories as text: those of the project keep to the conventions, and what is read of a file is what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ioaware.errors import InputError, VerificationError
from ioaware_proofs import audit, page, theory
from ioaware_proofs.theory import Use
from tests.messages.theories import CHOICES, EXPECTED, SUMS, edited, installed

ROOT = Path(__file__).parents[2]
THEORIES = theory.load(theory.root() / "theories")
THEOREMS = {theorem.full_name: theorem for one in THEORIES for theorem in one.theorems}


# ------------------------------------------------------------------------------------------------ the project's
def test_every_theory_of_the_repository_is_read():
    """Reading refuses what breaks a convention, and names that are taken."""
    assert {one.name for one in THEORIES} == {path.stem for path in (ROOT / "proofs" / "theories").glob("*.v")}
    assert len(THEOREMS) > 50


@pytest.mark.parametrize("use", {use: None for theorem in THEOREMS.values() for use in theorem.used_by}, ids=str)
def test_what_uses_a_theorem_exists(use):
    """A function, a class or a constant of that file."""
    nodes = list(ast.walk(ast.parse((ROOT / use.file).read_text(encoding="utf-8"))))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert use.name.rpartition(".")[2] in defined | assigned


def test_axioms_are_expected_of_every_theorem_and_are_none_of_ours():
    expected = audit.expected(THEORIES)
    assert expected.keys() == THEOREMS.keys()
    for axioms in expected.values():
        assert set(audit.kinds(axioms)) <= audit.WORDS.keys()  # an axiom of a theory has no words


def test_the_page_is_what_the_theories_say():
    written = (ROOT / "proofs" / "README.md").read_text(encoding="utf-8")
    assert written == page.page(THEORIES, audit.expected(THEORIES)), "python -m ioaware_proofs writes it anew"


# ------------------------------------------------------------------------------------------------ what is read
def test_a_theory():
    sums = theory.read("Sums", SUMS)
    assert sums.file == "proofs/theories/Sums.v"
    assert sums.title == "Sums: the smallest theory with all that a theory can have."
    assert theory.paragraphs(sums.summary) == [
        sums.title,
        "A formula stands on lines of its own:",
        "  n + 0 = n.",
        "Not claimed: anything about [multiplication].",
    ]
    assert sums.needs == ()
    assert [theorem.full_name for theorem in sums.theorems] == ["Sums.zero_adds_nothing", "Sums.something_below"]


def test_a_theorem_with_what_uses_it():
    theorem = theory.read("Sums", SUMS).theorems[0]
    assert theorem.english == "Nothing changes where zero is added."
    assert theorem.used_by == (
        Use("simulator/ioaware/bounds.py", "compulsory"),
        Use("simulator/ioaware/bounds.py", "io_bound_words"),
        Use("simulator/ioaware/units.py", "parse_count"),
    )
    assert SUMS.splitlines()[theorem.line - 1].strip() == "Theorem zero_adds_nothing n : n + 0 = n."


def test_a_statement_holds_what_its_section_assumes():
    """Outside of the section it is a condition of the theorem."""
    assert theory.read("Sums", SUMS).theorems[1].statement.splitlines() == [
        "Variable bound : nat.",
        "Hypothesis positive : 0 < bound.",
        "Theorem something_below :",
        "  exists n, n < bound.",
    ]


def test_a_section_that_has_ended_declares_nothing():
    text = f"{SUMS}\n(** Later. *)\nTheorem later : 1 = 1.\nProof. reflexivity. Qed.\n"
    assert theory.read("Sums", text).theorems[2].statement == "Theorem later : 1 = 1."


def test_theories_stand_behind_what_they_need(monkeypatch, tmp_path):
    folder = installed(monkeypatch, tmp_path, Again="(** Again. *)\nFrom IOAware Require Import Choices\n  Sums.\n")
    found = theory.load(folder / "theories")
    assert [(one.name, one.needs) for one in found] == [
        ("Sums", ()),
        ("Choices", ("Sums",)),
        ("Again", ("Choices", "Sums")),
    ]
    by_name = {one.name: one for one in found}
    assert [one.name for one in theory.closure(by_name, ["Choices"])] == ["Sums", "Choices"]


@pytest.mark.parametrize("name", ["something_below", "Sums.something_below"])
def test_a_theorem_is_found_by_either_name(name):
    assert theory.find([theory.read("Sums", SUMS)], name).name == "something_below"


@pytest.mark.parametrize("name", ["Sums", "Sums.v"])
def test_a_theory_is_found_by_either_name(name):
    assert theory.find([theory.read("Sums", SUMS)], name).theorems


def test_a_name_that_is_unknown():
    with pytest.raises(InputError, match="theorem 'something_above' is unknown, the nearest is 'something_below'"):
        theory.find([theory.read("Sums", SUMS)], "something_above")


DOC = "(** Every statement holds or its negation does. *)\n"
BROKEN = {  # what is wrong with Choices.v: the line, and what is said of it
    "no opening comment": (edited(CHOICES, "(** Choices. What is true or false. *)", ""), 1, "a file opens with"),
    "an ordinary comment": (edited(CHOICES, "(** Choices", "(* Choices"), 1, "a file opens with"),
    "no English": (edited(CHOICES, DOC, ""), 5, "Theorem true_or_false needs a comment"),
    "English for others": (edited(CHOICES, DOC, DOC.replace("**", "*")), 6, "Theorem true_or_false needs a comment"),
    "English far above": (edited(CHOICES, DOC, f"{DOC}\n"), 7, "Theorem true_or_false needs a comment"),
    "English of something else": (edited(CHOICES, DOC, f"{DOC}Definition x := 1.\n"), 7, "needs a comment"),
    "empty English": (edited(CHOICES, DOC, "(** Used by: a.py (b). *)\n"), 5, "says in plain English"),
    "a use without a name": (edited(CHOICES, "does. *)", "does. Used by: a.py. *)"), 5, "write what uses a theorem as"),
    "no proof": (edited(CHOICES, "Qed", "Admitted"), 7, "Admitted leaves a statement without a proof"),
    "a gap": (edited(CHOICES, "apply classic", "admit"), 7, "admit leaves a statement without a proof"),
    "an axiom": (edited(CHOICES, DOC, f"Axiom x : 0 = 1.\n{DOC}"), 5, "Axiom assumes without a proof"),
    "a parameter": (edited(CHOICES, DOC, f"Parameters x y : nat.\n{DOC}"), 5, "Parameters assumes without a proof"),
    "a conjecture": (edited(CHOICES, DOC, f"Conjecture x : 0 = 1.\n{DOC}"), 5, "Conjecture assumes without a proof"),
    "another keyword": (edited(CHOICES, "Theorem true", "Corollary true"), 6, "Corollary is not used"),
    "an attribute": (edited(CHOICES, "Theorem true", "Local Theorem true"), 6, "Theorem stands at the start of its"),
    "on the comment's line": (edited(CHOICES, "does. *)\n", "does. *) "), 5, "needs a comment"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "rule"), BROKEN.values(), ids=BROKEN)
def test_a_broken_convention(text, line, rule):
    with pytest.raises(VerificationError) as refusal:
        theory.read("Choices", text)
    assert str(refusal.value).startswith(f"Choices.v:{line}: ")
    assert rule in str(refusal.value)


LIBRARIES = {
    "a name twice": ("Choices", CHOICES, "true_or_false", "something_below", "Sums.v:19: the name something_below is"),
    "a theory's name": ("Choices", CHOICES, "true_or_false", "Sums", "Sums.v: the name Sums is taken by Choices.v:6"),
    "no such theory": (
        "Choices",
        CHOICES,
        "Import Sums",
        "Import Sum",
        "Choices.v: requires Sum, which does not exist",
    ),
    "a circle": (
        "Sums",
        SUMS,
        "Open Scope",
        "From IOAware Require Choices.\nOpen Scope",
        "which needs this file itself",
    ),
}


@pytest.mark.parametrize(("name", "text", "old", "new", "said"), LIBRARIES.values(), ids=LIBRARIES)
def test_theories_that_do_not_go_together(name, text, old, new, said, monkeypatch, tmp_path):
    folder = installed(monkeypatch, tmp_path, **{name: edited(text, old, new)})
    with pytest.raises(VerificationError) as refusal:
        theory.load(folder / "theories")
    assert said in str(refusal.value)


# ------------------------------------------------------------------------------------------------ what is expected
def test_the_expected_axioms_are_read_and_written(monkeypatch, tmp_path):
    folder = installed(monkeypatch, tmp_path)
    found = audit.expected(theory.load(folder / "theories"))
    assert found == {
        "Sums.zero_adds_nothing": (), "Sums.something_below": (), "Choices.true_or_false": ("Classical_Prop.classic",),
    }  # fmt: skip
    assert audit.text(found) == EXPECTED


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Sums.something_below: closed\n", "", "Sums.something_below: axioms.expected does not have this theorem"),
        ("Choices", "Sums.gone: closed\nChoices", "Sums.gone: axioms.expected names it, but there is no such theorem"),
    ],
    ids=["a theorem without a line", "a line without a theorem"],
)
def test_expectations_of_other_theorems(old, new, said, monkeypatch, tmp_path):
    folder = installed(monkeypatch, tmp_path)
    (folder / "axioms.expected").write_text(edited(EXPECTED, old, new), encoding="utf-8")
    with pytest.raises(VerificationError, match=said):
        audit.expected(theory.load(folder / "theories"))


@pytest.mark.parametrize(
    ("axioms", "kinds"),
    [
        ((), ["none"]),
        (("ClassicalDedekindReals.sig_not_dec", "ClassicalDedekindReals.sig_forall_dec"), ["reals"]),
        (("Classical_Prop.classic", "ClassicalDedekindReals.sig_not_dec"), ["classical", "reals"]),
        (("Sums.magic",), ["Sums.magic"]),
    ],
    ids=str,
)
def test_axioms_in_a_few_words(axioms, kinds):
    assert audit.kinds(axioms) == kinds
