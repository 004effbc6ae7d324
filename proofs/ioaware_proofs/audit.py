"""What every theorem assumes: Coq's `Print Assumptions`, held against the committed file axioms.expected.

The file has a line for each theorem, `THEORY.THEOREM: closed` or the axioms' names. All are axioms of Coq's own
libraries; one of ours, or a theorem that lost its proof, would be a name that the file does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ioaware.errors import VerificationError

from . import coq
from .theory import Theorem, Theory, root

Axioms = Mapping[str, Sequence[str]]  # of each theorem, by its full name

EXPECTED = "axioms.expected"
AGAIN = f"python -m ioaware_proofs writes {EXPECTED} anew"
CLOSED = "closed"
ANSWER = re.compile(r"^(?:Closed under the global context|Axioms:)\n((?:(?!Closed under|Axioms:).*\n)*)", re.M)
KINDS = {  # in people's words, by Coq's module
    "ClassicalDedekindReals": "reals",
    "FunctionalExtensionality": "extensionality",
    "Classical_Prop": "classical",
}
WORDS = {
    "none": "Coq's logic alone",
    "reals": "the two axioms behind Coq's real numbers, sig_forall_dec and sig_not_dec",
    "extensionality": "functions with the same values are the same",
    "classical": "every statement is true or false",
}


def assumptions(theorems: Sequence[Theorem], expected: Axioms, folder: Path) -> dict[str, tuple[str, ...]]:
    """The axioms of each theorem, by its full name; its theory is compiled in the folder. Raises as `coq.run`.

    Coq walks through all that a proof uses, 6 s where the tactic `interval` is. So theorems with the same expected
    axioms are looked at together, and one by one only where that shows something else, or nothing is expected.
    """
    groups: dict[tuple[str, ...] | None, list[Theorem]] = {}
    for theorem in theorems:
        known = expected.get(theorem.full_name)
        groups.setdefault(None if known is None else tuple(known), []).append(theorem)
    alone, found = groups.pop(None, []), dict[str, tuple[str, ...]]()
    for (wanted, members), axioms in zip(groups.items(), _printed(list(groups.values()), folder), strict=True):
        if axioms == wanted:
            found |= dict.fromkeys((theorem.full_name for theorem in members), axioms)
        else:
            alone += members
    one_by_one = _printed([[theorem] for theorem in alone], folder)
    found |= {theorem.full_name: axioms for theorem, axioms in zip(alone, one_by_one, strict=True)}
    return {theorem.full_name: found[theorem.full_name] for theorem in theorems}


def _printed(groups: Sequence[Sequence[Theorem]], folder: Path) -> list[tuple[str, ...]]:
    """The axioms that each group of theorems rests on together, sorted."""
    if not groups:
        return []
    theories = dict.fromkeys(theorem.theory for group in groups for theorem in group)
    lines = [f"From IOAware Require {' '.join(theories)}."]
    for number, group in enumerate(groups):
        proofs = ", ".join(f"@{theorem.full_name}" for theorem in group)
        lines += [f"Definition group_{number} := ({proofs}).", f"Print Assumptions group_{number}."]
    (folder / "print_assumptions.v").write_text("\n".join(lines) + "\n", encoding="utf-8")
    answers = ANSWER.findall(coq.run([*coq.COQC, "print_assumptions.v"], folder))
    return [tuple(sorted(re.findall(r"^\S+", answer, re.M))) for answer in answers]


def read() -> dict[str, tuple[str, ...]]:
    """The file axioms.expected; nothing where there is none yet."""
    path = root() / EXPECTED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [(name, axioms.split()) for name, _, axioms in (line.partition(": ") for line in lines)]
    return {name: () if axioms == [CLOSED] else tuple(axioms) for name, axioms in rows}


def expected(theories: Sequence[Theory]) -> dict[str, tuple[str, ...]]:
    """The file axioms.expected. Raises VerificationError where it is not about these theories' theorems."""
    found = read()
    names = [theorem.full_name for theory in theories for theorem in theory.theorems]
    if odd := sorted(found.keys() ^ set(names)):
        fault = "names it, but there is no such theorem" if odd[0] in found else "does not have this theorem"
        raise VerificationError(f"{odd[0]}: {EXPECTED} {fault}; {AGAIN}")
    return found


def text(axioms: Axioms) -> str:
    """The file axioms.expected."""
    return "".join(f"{name}: {' '.join(found) or CLOSED}\n" for name, found in axioms.items())


def compare(found: Axioms, expected: Axioms) -> None:
    """Raises VerificationError, naming theorem and axioms, where a theorem does not rest on what is expected."""
    for name, axioms in found.items():
        if more := sorted({*axioms} - {*expected[name]}):
            raise VerificationError(f"{name} rests on {', '.join(more)}, which {EXPECTED} does not grant it")
        if less := sorted({*expected[name]} - {*axioms}):
            raise VerificationError(f"{name} does not rest on {', '.join(less)} any more; {AGAIN}")


def kinds(axioms: Sequence[str]) -> list[str]:
    """Axioms in a few words: `none`, or the kinds of WORDS; an axiom of another module is named."""
    return list(dict.fromkeys(KINDS.get(axiom.partition(".")[0], axiom) for axiom in axioms)) or ["none"]
