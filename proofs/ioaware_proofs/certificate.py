"""Certificates: a trace of a schedule, played by the checker of Checker.v, inside Coq or extracted to OCaml.

What an accepted trace is worth is the theorem `check_sound`. In Coq the kernel itself runs the checker and then applies
the theorems to the trace; that takes a few thousand operations. The same checker, extracted and compiled, plays
large traces; there one trusts the extraction, the OCaml compiler and checker/main.ml, which reads the text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ioaware.bounds import io_bound_words
from ioaware.errors import InputError, Skipped, VerificationError
from ioaware.readers.trace import Operation, Trace
from ioaware.readers.words import Entry, Other, Output, Score

from . import coq
from .theory import closure, load, root
from .trace_text import coq_text, ocaml_text

MOST_IN_COQ = 4_000  # operations: two seconds, most of them for reading the file
SAYS = re.compile(r"=\s*(\w+)\s*([\w\s]*?):\s*verdict")
REASONS = {
    "NeverStored": "that word is no input and was never stored",
    "NotInFast": "that word is not in fast memory",
    "NoOperand": "an operand is not in fast memory",
}


class Accepted(NamedTuple):
    """What the checker counted, words."""

    loads: int
    stores: int


class Bounds(NamedTuple):
    """What every schedule with the same fast memory moves at least, words; not positive where that says nothing."""

    loads: int  # checked_trace_bound
    traffic: int  # loads and stores together: checked_trace_traffic


def bounds(trace: Trace) -> Bounds:
    """The bounds at the trace's M and visible pairs."""
    d, dv, pairs = trace.head_dim, trace.value_dim, sum(len(keys) for _, keys in trace.rows)
    return Bounds(*(io_bound_words(pairs, work, trace.memory) for work in (d * (d + dv), 4 * d * dv)))


class Checkers:
    """The compiled theories in a folder of their own, and what uses them. Made by `checkers`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def in_coq(self, trace: Trace) -> Accepted:
        """Coq's kernel plays the trace and applies the theorems. Raises VerificationError: the trace is rejected."""
        if len(trace.operations) > MOST_IN_COQ:
            raise InputError(
                f"operations={len(trace.operations):,}: Coq reads at most {MOST_IN_COQ:,}; "
                "the extracted checker takes more"
            )
        trace_in_coq = "\n".join(coq_text(trace))
        try:
            self._coqc(trace_in_coq + theorems(trace))
        except VerificationError:
            found = SAYS.search(self._coqc(f"{trace_in_coq}Eval vm_compute in {_check(trace)}.\n"))
            if found is not None:
                judged(trace, found[1], found[2].split())
            raise
        return Accepted(trace.loads, trace.stores)

    def extracted(self, trace: Trace) -> Accepted:
        """The extracted checker plays the trace. Raises Skipped: no OCaml; VerificationError: rejected."""
        program = self._program()
        done = subprocess.run(
            [program], input="\n".join(ocaml_text(trace)), capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode:
            raise VerificationError(f"the extracted checker ends with code {done.returncode}: {done.stderr.strip()}")
        verdict, *said = done.stdout.split()
        return judged(trace, verdict, said)

    def _coqc(self, file: str) -> str:
        (self.folder / "Certificate.v").write_text(file, encoding="utf-8")
        return coq.run([*coq.COQC, "Certificate.v"], self.folder)

    def _program(self) -> Path:
        program = self.folder / "check"
        if not program.exists():
            if shutil.which("ocamlopt") is None:
                raise Skipped(
                    "ocamlopt is not on PATH: it compiles the extracted checker; on Debian: apt install ocaml"
                )
            for name in ("Extraction.v", "main.ml"):
                shutil.copyfile(Path(__file__).parent / "checker" / name, self.folder / name)
            coq.run([*coq.COQC, "Extraction.v"], self.folder)
            coq.run(["ocamlopt", "-w", "-a", "checker.mli", "checker.ml", "main.ml", "-o", program.name], self.folder)
        return program


@contextmanager
def checkers() -> Iterator[Checkers]:
    """Compile the checker and what its proof needs, from nothing, for as long as the context lasts.

    Raises Skipped: no Coq; VerificationError: Coq refuses a theory.
    """
    coq.require("coqc")
    theories = {theory.name: theory for theory in load(root() / "theories")}
    needed = closure(theories, ["Checker"])
    with tempfile.TemporaryDirectory(prefix="ioaware-") as made:
        folder = Path(made)
        for theory in needed:
            shutil.copyfile(root() / "theories" / f"{theory.name}.v", folder / f"{theory.name}.v")
        for _ in coq.compile_all({theory.name: theory.needs for theory in needed}, folder):
            pass
        yield Checkers(folder)


def judged(trace: Trace, verdict: str, said: list[str]) -> Accepted:
    """What a verdict says about a trace. Raises VerificationError, with the operation, counted from 0."""
    if verdict == "Accepted":
        accepted = Accepted(int(said[0]), int(said[1]))
        if accepted != (trace.loads, trace.stores):
            raise VerificationError(
                f"the checker counts {accepted.loads:,} loads and {accepted.stores:,} stores, the trace claims "
                f"{trace.loads:,} and {trace.stores:,}"
            )
        return accepted
    if verdict == "Rejected":
        number = int(said[0])
        reason = REASONS.get(said[1], f"fast memory would hold more than {trace.memory:,} words")
        raise VerificationError(f"operation {number:,}, {_told(trace.operations[number])}: {reason}")
    if verdict == "Unfinished":
        raise VerificationError(
            f"the output of query {said[0]}, column {said[1]}, is not in slow memory in the end, as the sum over "
            "exactly the keys that the query sees"
        )
    raise VerificationError("query rows or visible keys are not in increasing order")


def _told(operation: Operation) -> str:
    match operation.word:
        case Entry(tensor, row, column):
            return f"{operation.verb} {tensor}[{row}, {column}]"
        case Score(query, key):
            return f"{operation.verb} the score of query {query} and key {key}"
        case Output(query, column, keys):
            return f"{operation.verb} O[{query}, {column}], a sum over {len(keys)} keys"
        case Other(number):
            return f"{operation.verb} number {number}"


def theorems(trace: Trace) -> str:
    """What Coq is to accept about the trace: that the checker accepts it with its counts, and what follows."""
    machine, rest = f"{trace.memory} {trace.head_dim}", f"{trace.value_dim} E T {trace.loads} {trace.stores}"
    accepted = f"Accepted {trace.loads} {trace.stores}"
    return (
        f"Lemma accepted : {_check(trace)} = {accepted}.\nProof. vm_cast_no_check (eq_refl ({accepted})). Qed.\n"
        f"Definition legal := check_sound {machine} {rest} accepted.\n"
        f"Definition bounded := checked_trace_bound {machine} {rest} (Nat.lt_0_succ _) (Nat.lt_0_succ _) accepted.\n"
    )


def _check(trace: Trace) -> str:
    return f"check {trace.memory} {trace.head_dim} {trace.value_dim} E T"
