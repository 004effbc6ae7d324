"""The human output of `prove`: what is proved, in plain English, and how the recheck went."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent, wrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioaware_proofs.audit import WORDS, kinds
from ioaware_proofs.theory import Theorem, Theory, paragraphs

from .show import console

if TYPE_CHECKING:
    from ioaware_proofs.check import Recheck
    from ioaware_proofs.coq import Step

    from .prove import Asked

LIMITS = (
    "limits: exact attention by adding up products, no Strassen-like algebra; one private fast memory of M words, not "
    "the L2; bytes, not time; algorithms, not machine code"
)


def show(asked: Asked) -> None:
    """Print what is proved: everything, one theory or one theorem."""
    out = console()
    match asked.subject:
        case None:
            for theory in asked.theories:
                out.print(Text(f"{theory.name}  ", style="bold").append(theory.title, style="not bold"))
                _theorems(out, theory, asked)
            _notes(out, asked)
        case Theory() as theory:
            out.print(Text(theory.file, style="bold"))
            for paragraph in paragraphs(theory.summary):
                out.print()
                _fill(out, paragraph) if not paragraph.startswith(" ") else out.print(Text(paragraph))
            out.print()
            _theorems(out, theory, asked)
            _notes(out, asked)
        case Theorem() as theorem:
            _theorem(out, theorem, asked)


def _theorems(out: Console, theory: Theory, asked: Asked) -> None:
    for theorem in theory.theorems:
        axioms = ", ".join(kinds(asked.axioms[theorem.full_name]))
        head = Text("  ").append(theorem.name, style="bold").append(f"  {theorem.place}  axioms: {axioms}")
        out.print(head)
        _fill(out, theorem.english, margin="    ")
        if theorem.used_by:
            _fill(out, f"used by {_used(theorem)}", margin="    ", style="dim")
    out.print()


def _notes(out: Console, asked: Asked) -> None:
    used = {kind for theorem in asked.theorems for kind in kinds(asked.axioms[theorem.full_name])}
    for kind in [kind for kind in WORDS if kind in used]:
        out.print(Text(f"  {kind:<14} {WORDS[kind]}", style="dim"))
    _fill(out, LIMITS, style="dim")
    out.print(f"{_counted(asked)}; ioaware prove NAME shows and rechecks one")


def _theorem(out: Console, theorem: Theorem, asked: Asked) -> None:
    out.print(Text(theorem.name, style="bold").append(f"  {theorem.place}", style="not bold"))
    out.print()
    _fill(out, theorem.english)
    out.print(Text(f"\n{indent(theorem.statement, '  ')}\n"))
    axioms = asked.axioms[theorem.full_name]
    words = [f"{kind} ({WORDS[kind]})" if kind in WORDS else kind for kind in kinds(axioms)]
    needs = [theory.name for theory in asked.needed if theory.name != theorem.theory]
    rows = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    rows.add_row("axioms", Text("\n".join(words)))
    rows.add_row("used by", _used(theorem) or "no code")
    rows.add_row("rests on", ", ".join(needs) or "no other theory")
    out.print(rows)


def _used(theorem: Theorem) -> str:
    return ", ".join(f"{use.file} ({use.name})" for use in theorem.used_by)


def show_recheck(asked: Asked, recheck: Recheck, steps: Sequence[Step], seconds: float, *, ok: bool) -> None:
    """Print what was rechecked, as far as it went; the closing line says that all is well, and stands only then."""
    out = console()
    counts = {theory.name: len(theory.theorems) for theory in asked.needed}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("rechecked", "theorems", "time"):
        table.add_column(name, justify="left" if name == "rechecked" else "right")
    for step in steps:
        table.add_row(step.name, str(counts.get(step.name, "")), f"{step.seconds:.1f} s")
    out.print(table)
    if recheck.coqchk and recheck.not_by_coqchk:
        names = ", ".join(theory.name for theory in recheck.not_by_coqchk)
        _fill(out, f"coqchk leaves out {names}, whose interval arithmetic takes it minutes, and Coq's own libraries")
    if ok:
        what = f"{asked.subject.name}, with all that it rests on," if asked.subject else _counted(asked)
        out.print(f"{what} rechecked in {seconds:.1f} s by Coq {recheck.version}; axioms as expected", soft_wrap=True)


def _counted(asked: Asked) -> str:
    theorems, files = len(asked.theorems), len(asked.theories)
    return f"{theorems} theorem{'s' * (theorems != 1)} in {files} file{'s' * (files != 1)}"


def _fill(out: Console, paragraph: str, margin: str = "", style: str = "") -> None:
    """A paragraph as wide as the terminal."""
    width = max(out.width, 2 * len(margin) + 1)
    lines = wrap(paragraph, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
    out.print(Text("\n".join(lines), style=style))
