"""The bridge from the simulator's programs to Coq: `python -m ioaware_proofs.bridge` writes theories/Programs.v.

The file is committed, so that Coq checks what the simulator computes without running Python; a test compares it with
what this module prints, so that neither changes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from textwrap import fill

from ioaware.algorithms import ALGORITHMS
from ioaware.errors import InputError, NoClosedForm
from ioaware.problem import Features
from ioaware.program.recorder import Program, record
from ioaware.readers import coq

from .theory import root

PROGRAMS = root() / "theories" / "Programs.v"
HEADER = """\
(** Every algorithm of the simulator as a loop nest, and the closed forms of its traffic and arithmetic as its theorem.

    Printed by `python -m ioaware_proofs.bridge` from simulator/ioaware/algorithms: do not edit. A definition is the
    recorded loop nest; the theorem below it is what the simulator's own algebra says that the nest costs, all launches
    of kernels together. A program whose text depends on padding, dropout or a mask stands here once for each text.
    Programs that walk splits of the keys (flash_decoding, mla) and linear attention are not here: their counts are
    tested, not proved.
{without}
    Not claimed: that the values are right, or that a kernel moves these words; those are the simulator's `execute` and
    `ioaware verify`. The closed forms of thread blocks and of reads from shared memory are not here. *)
From IOAware Require Import ClosedForms.
"""
MARGIN = "    "  # of the lines of a comment
FEATURES = {  # padding is a mask too
    "": Features(),
    "masked": Features(masked=True),
    "padding": Features(masked=True, padding=True),
    "dropout": Features(dropout=True),
    "masked_dropout": Features(masked=True, dropout=True),
    "padding_dropout": Features(masked=True, padding=True, dropout=True),
}


def programs() -> Iterator[tuple[str, str, Program]]:
    """(Coq name, what it is, program) of every text that the algorithms have."""
    printed: set[str] = set()
    for algorithm in (a for a in ALGORITHMS if a.softmax):
        for function, direction in ((algorithm.forward, "forward"), (algorithm.backward, "backward")):
            for given, features in FEATURES.items() if function else ():
                try:
                    program = record(function, features)
                    nest = coq.definition(program, program.name)
                except (InputError, NoClosedForm):
                    continue  # a feature that the text refuses, or splits, which are no parameter of all definitions
                if nest not in printed:
                    printed.add(nest)
                    kind = ", ".join([direction, *given.split("_")] if given else [direction])
                    yield f"{program.name}_{given}".rstrip("_"), f"{algorithm.title} ({kind})", program


def text() -> str:
    """The whole of Programs.v."""
    parts: list[str] = []
    without: dict[str, list[str]] = {}
    for name, what, program in programs():
        parts.append(coq.definition(program, name))
        try:
            parts.append(coq.theorem(program, name, what))
        except NoClosedForm as reason:
            without.setdefault(str(reason), []).append(name)
    return "\n".join([HEADER.format(without="".join(starmap(_without, without.items()))), *parts])


def _without(reason: str, names: list[str]) -> str:
    """The paragraph of the header about programs that have no theorem."""
    paragraph = f"No theorem stands below {' and '.join(names)}: {reason}."
    return f"\n{fill(paragraph, coq.WIDTH, initial_indent=MARGIN, subsequent_indent=MARGIN)}\n"


if __name__ == "__main__":
    PROGRAMS.write_text(text(), encoding="utf-8")
    print(f"{PROGRAMS}: {sum(1 for _ in programs())} programs")
