"""The human output of `verify`: one line per kernel or case, every tensor where there is one problem, every failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .show import console

if TYPE_CHECKING:
    from ioaware_kernels.ptx.count import Requests
    from ioaware_kernels.verify import Report

HELP = {
    "error": "largest distance from float64 softmax, as a share of what rounding explains",
    "tensors": "bytes read, written and added per tensor and launch against the simulator's count",
    "shared": "the same per region of shared memory",
    "findings": "races, uninitialised reads, accesses outside a tensor, divergent barriers",
    "memory": "every output written, inputs unchanged, nothing around the tensors touched",
    "bits": "outputs with thread blocks in the opposite order: the same bits, or not",
}
SHOWN = 3  # sentences per check and case


def show(reports: list[Report], *, every: bool) -> None:
    """Print the reports."""
    out = console()
    by_kernel: dict[str, list[Report]] = {}
    for report in reports:
        by_kernel.setdefault(report.kernel, []).append(report)
    table = Table(box=None, pad_edge=False)
    for name in ("kernel", "case" if every else "cases", *HELP, "time"):
        table.add_column(name, justify="left" if name in ("kernel", "case") else "right", overflow="fold")
    for kernel, of_kernel in by_kernel.items():
        rows = [[r] for r in of_kernel] if every else [of_kernel]
        for row in rows:
            table.add_row(kernel, str(row[0].case) if every else str(len(row)), *_cells(row))
    out.print(table)
    for name, text in HELP.items():
        out.print(Text(f"  {name:<10}{text}", style="dim"))
    if any(r.engine == "jit" for r in reports):
        out.print(Text(f"  {'0*':<10}compiled (jit): accesses are bounded, races are not judged", style="dim"))
    for kernel, of_kernel in by_kernel.items():
        if len({replace(r.case.problem, dtype="fp32") for r in of_kernel}) == 1 and of_kernel[0].launches:
            _memories(out, kernel, of_kernel[0])
    _failures(out, reports)


def _cells(reports: list[Report]) -> Iterable[Text | str]:
    shares = [d.error / d.tolerance if d.tolerance else d.error for r in reports for d in r.differences.values()]
    yield _mark(reports, "values", f"{max(shares):.2f}")
    found = "0*" if any(r.engine == "jit" for r in reports) else "0"
    for check, fine in (("tensors", "equal"), ("shared", "equal"), ("findings", found), ("memory", "clean")):
        made = any(check in r.problems for r in reports)
        yield _mark(reports, check, fine) if made else "-"
    yield _mark(reports, "determinism", "same" if all(r.reproducible for r in reports) else "by order")
    yield f"{sum(r.seconds for r in reports):.1f} s"


def _mark(reports: list[Report], check: str, fine: str) -> Text:
    wrong = sum(len(r.problems.get(check, ())) for r in reports)
    return Text(f"{wrong} WRONG", style="bold red") if wrong else Text(fine, style="green")


def _memories(out: Console, kernel: str, report: Report) -> None:
    """Every tensor and region of every launch: counted beside predicted."""
    table = Table(box=None, pad_edge=False)
    columns = (
        f"{kernel}: launch",
        "memory",
        "counted read",
        "predicted",
        "counted written",
        "predicted",
        "",
        "per request",
    )
    for name in columns:
        table.add_column(name, justify="left" if "launch" in name or name == "memory" else "right")
    for launched, predicted in report.launches:
        for counts, wanted in ((launched.tensors, predicted.tensors), (launched.shared, predicted.shared)):
            for name in dict.fromkeys([*wanted.tensors, *counts.tensors]):
                have, want = counts[name], wanted[name]
                numbers = (have.read_bytes, want.read_bytes, have.write_bytes, want.write_bytes)
                same = "=" if have == want else "DIFFERS"
                asked = _per_request(launched.counts.requests_of(name))
                table.add_row(launched.kernel, name, *(f"{n:,}" for n in numbers), same, asked)
    out.print()
    out.print(table)
    out.print(
        Text("  per request of a warp: 32-byte sectors of a tensor, passes over the banks of a region", style="dim")
    )


def _per_request(asked: Requests) -> str:
    if not asked.requests:
        return ""
    kind, found = ("sectors", asked.sectors) if asked.sectors else ("passes", asked.passes)
    return f"{found / asked.requests:.2f} {kind}"


def _failures(out: Console, reports: list[Report]) -> None:
    for report in reports:
        for check, sentences in report.problems.items():
            for sentence in sentences[:SHOWN]:
                out.print(Text(f"{report.kernel} ({report.case}): {check}: {sentence}", style="red"))
            if len(sentences) > SHOWN:
                out.print(Text(f"  and {len(sentences) - SHOWN:,} more; --json has them all", style="red"))
