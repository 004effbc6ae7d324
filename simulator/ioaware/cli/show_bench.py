"""The human output of `bench`: ceilings, times, exponents, crossovers, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table as RichTable
from rich.text import Text

from .show import console

if TYPE_CHECKING:
    from ioaware_kernels.bench import Bench
    from ioaware_kernels.bench.tables import Table

HELP = {
    "warm, cold": "caches as the last run left them, or evicted before each run",
    "predicted": "the simulator's bytes, flops and exponentials over the ceilings; by: what bounds it",
    "ratio": "predicted over measured: 1 is exact, below 1 the kernel wastes time that the model does not see",
    "floor": "below it a time would be impossible: compulsory bytes or flops at the fastest rate of this run",
    "agree": "whether the intervals of both exponents have a point in common",
}


def show(bench: Bench) -> None:
    """Print a run."""
    from ioaware_kernels.bench.tables import notes, tables

    out, d = console(), bench.device
    out.print(Text("device   ").append(str(d["name"]), style="bold"))
    out.print(f"         {', '.join(f'{k} {v}' for k, v in d.items() if k not in ('name', 'kind'))}", style="dim")
    for table in tables(bench):
        if table.rows:
            out.print()
            out.print(_rich(table))
    out.print()
    for name, text in HELP.items():
        out.print(Text(f"  {name:<11}{text}", style="dim"))
    for note in notes(bench):
        out.print(note)
    for sentence in bench.problems:
        out.print(Text(sentence, style="red"))


def _rich(table: Table) -> RichTable:
    out = RichTable(box=None, pad_edge=False, padding=(0, 1), title=table.title, header_style="bold")
    out.title_justify = "left"
    for n, name in enumerate(table.columns):
        out.add_column(name, justify="left" if n < table.left else "right", overflow="fold")
    for row in table.rows:
        out.add_row(*row)
    return out
