"""Recheck theories from nothing: copies in a folder that did not exist before, compiled, their axioms listed.

Nothing is written beside the sources, and nothing that an earlier run left can help.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from time import perf_counter

from . import coq
from .audit import Axioms, assumptions
from .theory import Theorem, Theory, root

INTERVAL = re.compile(r"^From Interval Require", re.M)


class Recheck:
    """A recheck, step by step as it is iterated over: each theory, "axioms", "coqchk" if that is wanted too.

    `theories` come with all that they need (`theory.closure`). Afterwards `axioms` holds those of each theorem, by its
    full name; `expected` only makes it faster to find them. Raises Skipped: no Coq, or not all of its libraries;
    VerificationError: Coq refuses a file.
    """

    def __init__(
        self, theories: Sequence[Theory], theorems: Sequence[Theorem], expected: Axioms, *, coqchk: bool = False
    ) -> None:
        self.version = coq.version()
        if coqchk:
            coq.require("coqchk")
        self.theories, self.theorems, self.expected, self.coqchk = theories, theorems, expected, coqchk
        self.axioms: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self.theories) + 1 + self.coqchk

    def __iter__(self) -> Generator[coq.Step]:
        with tempfile.TemporaryDirectory(prefix="ioaware-") as made:
            folder = Path(made)
            for theory in self.theories:
                shutil.copyfile(_source(theory), folder / f"{theory.name}.v")
            yield from coq.compile_all({theory.name: theory.needs for theory in self.theories}, folder)
            since = perf_counter()
            self.axioms = assumptions(self.theorems, self.expected, folder)
            yield coq.Step("axioms", perf_counter() - since)
            if self.coqchk:
                since = perf_counter()
                modules = [f"IOAware.{theory.name}" for theory in self.theories if theory not in self.not_by_coqchk]
                ours = [word for module in modules for word in ("-norec", module)]  # Coq's own libraries are admitted
                coq.run(["coqchk", "-silent", *coq.FOLDER, *ours], folder)
                yield coq.Step("coqchk", perf_counter() - since)

    @property
    def not_by_coqchk(self) -> list[Theory]:
        """Theories that compute with intervals: coqchk, which computes more slowly than Coq, takes minutes for each."""
        return [theory for theory in self.theories if INTERVAL.search(_source(theory).read_text(encoding="utf-8"))]


def _source(theory: Theory) -> Path:
    return root() / "theories" / f"{theory.name}.v"
