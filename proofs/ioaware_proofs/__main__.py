"""Write what is made of the theories: axioms.expected, after a recheck, and the page README.md.

    python -m ioaware_proofs

Without Coq only the page is written, and only if axioms.expected knows every theorem.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ioaware.errors import InputError, IoawareError, Skipped, VerificationError

from . import audit
from .check import Recheck
from .page import page
from .theory import Theory, load, root

COMMAND = "python -m ioaware_proofs"


def main(arguments: Sequence[str]) -> int:
    """The command line: an exit code."""
    if arguments:
        print(f"usage: {COMMAND}", file=sys.stderr)
        return InputError.exit_code
    try:
        write()
    except IoawareError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


def write() -> None:
    """Write both files. Raises InputError: no checkout; VerificationError: a proof fails; Skipped: no Coq."""
    folder = root()
    if folder == Path(__file__).parent:
        raise InputError(f"{COMMAND} writes into a checkout of the repository; pip install -e . in one")
    theories = load(folder / "theories")
    try:
        axioms = _found(theories)
    except Skipped:
        _save(folder / "README.md", page(theories, audit.expected(theories)))
        raise
    _save(folder / audit.EXPECTED, audit.text(axioms))
    _save(folder / "README.md", page(theories, axioms))


def _found(theories: Sequence[Theory]) -> dict[str, tuple[str, ...]]:
    """The axioms of all theorems, after a recheck; ours are refused."""
    recheck = Recheck(theories, [t for theory in theories for t in theory.theorems], audit.read())
    for step in recheck:
        print(f"{step.name:<20} {step.seconds:6.1f} s", flush=True)
    ours = {theory.name for theory in theories}
    for name, axioms in recheck.axioms.items():
        for axiom in axioms:
            if axiom.partition(".")[0] in ours:
                raise VerificationError(f"{name} rests on {axiom}, an axiom of our own; prove it")
    return recheck.axioms


def _save(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"written: {path.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
