"""The human output of `claims`: a table of verdicts, or one claim with all that decides it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..claims.record import Judged, Verdict
from .show import console


def show(judged: Sequence[Judged]) -> None:
    """Print every claim: its verdict, its condition, the number to quote."""
    out = console()
    table = _table()
    for name in ("", "claim", "verdict", "number"):
        table.add_column(name, justify="right" if name in ("", "number") else "left", overflow="fold")
    for n, one in enumerate(judged, 1):
        said = Text(one.claim.sentence)
        if one.verdict is Verdict.HOLDS_IF:
            said.append(f"\nif {one.claim.condition}", style="dim")
        label, number = next(iter(one.numbers.items()))
        table.add_row(str(n), said, one.verdict.value, Text(str(number)).append(f"\n{label}", style="dim"))
    out.print(table)
    out.print("\nby numbers computed now; all of one claim, why, and the commands that show them: ioaware claims 1")


def show_one(judged: Judged) -> None:
    """Print one claim: verdict, cases, numbers, reason and commands."""
    out, claim = console(), judged.claim
    out.print(Text(claim.sentence, style="bold"))
    condition = f" {claim.condition}" if judged.verdict is Verdict.HOLDS_IF else ""
    _rows(
        out,
        ("name", claim.name), ("said", claim.said), ("verdict", f"{judged.verdict.value}{condition}"),
        *(("case" if not n else "", f"{what}: {'true' if true else 'false'}")
          for n, (what, true) in enumerate(judged.cases.items())),
        ("because", claim.because),
    )  # fmt: skip
    out.print()
    table = _table()
    table.add_column("number", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    for name, number in judged.numbers.items():
        table.add_row(name, str(number), number.origin.value)
    out.print(table)
    out.print()
    for command in claim.commands:
        out.print(command, soft_wrap=True)


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def _rows(out: Console, *rows: tuple[str, str]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    out.print(table)
