"""`simulate --explain`: where every number comes from: program lines, closed forms, ledgers, engines, bounds."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..cost import engines, rates
from ..hierarchy import launches
from ..readers.formula import annotated, statistics_used, total
from ..readers.onchip import ledger
from ..report import PassReport, Report
from ..units import show_time


def explain(out: Console, report: Report) -> None:
    """Print the explanation of every pass."""
    for a in report.algorithms.values():
        for p in a.passes:
            out.print(Text(f"\n{a.name}, {p.direction}: {a.title}", style="bold underline"))
            _program(out, report, p)
            _ledger(out, report, p)
            _engines(out, report, p)
    _published(out, report)


def _program(out: Console, report: Report, p: PassReport) -> None:
    whole = p.schedule.origin == "whole"
    if p.counted_by == "walked":
        out.print("no closed form: counted by walking every iteration")
        return
    out.print(f"words moved = {total(p.program, report.problem, whole=whole)}")
    if not whole:
        for what, value in statistics_used(p.program, report.problem, p.schedule.tiles).items():
            if str(report.problem.band) != "full":
                out.print(f"  {what} = {value:,}: {STATISTICS[what]}", style="dim")
    last = 0
    for line in annotated(p.program, report.problem, whole=whole):
        if last and line.number != last + 1:
            out.print()
        last = line.number
        out.print(Text(f"{line.number:>4}  {line.text}"), soft_wrap=True)
        if line.forms:
            indent = " " * (6 + len(line.text) - len(line.text.lstrip()))
            out.print(Text(f"{indent}# {'; '.join(line.forms)}", style="cyan"), soft_wrap=True)


STATISTICS = {
    "tiles": "visited (query tile, key tile) pairs",
    "rows": "query rows summed over visited pairs",
    "cols": "key rows summed over visited pairs",
    "cells": "query rows x key rows summed over visited pairs",
    "last": "query tiles that see the last key tile",
}


def _ledger(out: Console, report: Report, p: PassReport) -> None:
    kernel, line, entries = ledger(p.program, report.problem, p.schedule.tiles)
    out.print(f"\non chip: {p.on_chip.total:,} B at most, in {kernel!r} at line {line}")
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for entry in entries:
        place = "loaded" if entry.loaded else "computed"
        table.add_row(f"  {entry.what}", entry.shape, f"line {entry.line}", place, f"{entry.bytes:,} B")
    out.print(table)


def _engines(out: Console, report: Report, p: PassReport) -> None:
    rate = rates(report.problem, report.device)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", title="time by engine")
    table.title_justify = "left"
    table.add_column("kernel launch", no_wrap=True)
    for name in (n for n, r in rate.items() if r):
        table.add_column(name, justify="right", no_wrap=True)
    for launch in launches(p.program, report.problem, p.schedule.tiles, report.device):
        table.add_row(launch.kernel, *(show_time(t) for t in engines(launch, rate).values()))
    out.print()
    out.print(table)


def _published(out: Console, report: Report) -> None:
    out.print(Text("\npublished bounds on the forward pass's loads (not machine-checked here)", style="bold"))
    for bound in report.published:
        out.print(f"  {bound.name}: {bound.words:,} words; {bound.source}")
