"""The page proofs/README.md, made of the theories and of axioms.expected: no Coq is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import indent

from .audit import WORDS, Axioms, kinds
from .theory import Theorem, Theory, paragraphs

HEAD = """\
# Proofs

<!-- Written by `python -m ioaware_proofs` from theories/*.v and axioms.expected; change those. -->

{theorems} theorems in {files} files, checked by Coq. No Coq is needed to read them here or with `ioaware prove --list`;
with Coq 8.16 or later, `ioaware prove` rechecks all of them from nothing and compares the axioms that each rests on
with [axioms.expected](axioms.expected), `ioaware prove NAME` one theorem or file with all that it needs.

## What is trusted
- **Coq's kernel**, which checks every step; `ioaware prove --coqchk` has a second program check the compiled files.
- **The statements.** Coq checks that they follow from the definitions, not that these are what you mean: read them.
- **The printer** that writes the simulator's programs and closed forms as Coq's, where a theorem is about them, and
  Python, which evaluates the same closed forms.
- **For certificates of schedules** (`ioaware prove --trace`): the proved checker's extraction to OCaml, OCaml, and the
  reader of its input; small ones are checked by Coq's kernel as well. That a trace is what its program does is tested,
  not proved.
- **Axioms of Coq's own libraries**, by theorem in the tables below; none is ours:
{axioms}

## Limits
- The lower bounds hold for exact attention by adding up products: not for approximations, nor for Strassen-like
  algebra, which forms scores in other ways.
- They are about one private fast memory of M words: one SM, not the L2 that all SMs share.
- Bytes are counted, time is not: nothing here says that a kernel is fast.
- The theorems are about algorithms. That the CUDA kernels move the same bytes and compute the same values is tested
  (`ioaware verify`), not proved.
"""


def page(theories: Sequence[Theory], axioms: Axioms) -> str:
    """The page's text. `axioms`: those of each theorem, by its full name."""
    used = {kind for found in axioms.values() for kind in kinds(found)} - {"none"}
    legend = [f"  - `{kind}`: {text}" for kind, text in WORDS.items() if kind in used] or ["  - none is used"]
    theorems = sum(len(theory.theorems) for theory in theories)
    head = HEAD.format(theorems=theorems, files=len(theories), axioms="\n".join(legend))
    return "\n".join([head, *(line for theory in theories for line in _theory(theory, axioms))])


def _theory(theory: Theory, axioms: Axioms) -> Iterator[str]:
    yield f"## [{theory.name}](theories/{theory.name}.v)"
    yield f"{_summary(theory.summary)}\n"
    if theory.needs:
        yield f"Rests on {', '.join(f'[{need}](#{need.lower()})' for need in theory.needs)}.\n"
    if theory.theorems:
        yield "| theorem | in plain English | where | axioms | used by |"
        yield "|---|---|---|---|---|"
        yield from (_row(theorem, kinds(axioms[theorem.full_name])) for theorem in theory.theorems)
        yield ""


def _row(theorem: Theorem, axioms: Sequence[str]) -> str:
    where = f"[{theorem.place}](theories/{theorem.theory}.v#L{theorem.line})"
    used = [f"[{use.file}](../{use.file}) `{use.name}`" for use in theorem.used_by]
    cells = (f"`{theorem.name}`", _markdown(theorem.english), where, ", ".join(axioms), ", ".join(used))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _summary(text: str) -> str:
    """A summary as Markdown: what is indented is a block of its own."""
    blocks = [indent(p, "    ") if p.startswith(" ") else _markdown(p) for p in paragraphs(text)]
    return "\n\n".join(blocks)


def _markdown(text: str) -> str:
    """Coq's comments as Markdown: [name] is code, and < no tag."""
    return re.sub(r"\[([A-Za-z_]\w*)\]", r"`\1`", re.sub(r"<(?=[A-Za-z/!])", r"\<", text))
