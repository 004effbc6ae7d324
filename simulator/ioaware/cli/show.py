"""The human output of `simulate`: tables by rich, widths from the terminal, numbers that mean one thing each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..cost import missing_rates
from ..model_memory import memory, summary
from ..problem import AttentionProblem
from ..report import LEVELS, AlgorithmReport, PassReport, Report, WorkloadReport
from ..units import show_bytes, show_capacity, show_scaled, show_time

LEVEL_HELP = {
    "compulsory": "each input read once, each output written once",
    "issued": "what thread blocks ask for, L2 to SM: the papers' HBM accesses",
    "dram": "behind the L2, first order",
    "sram": "shared memory inside the SMs, first order",
}


class Output(Console):
    """A console that lets a broken pipe through: the command line exits on it, quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """A console on stdout: 100 columns where there is no terminal to ask, no escape codes under NO_COLOR."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 100
    plain = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    return Output(width=width, highlight=False, emoji=False, markup=False, **plain)  # type: ignore[arg-type]


def show(report: Report | WorkloadReport, *, explain: bool) -> None:
    """Print a report."""
    out = console()
    if isinstance(report, WorkloadReport):
        _workload(out, report)
        if explain:
            for phase, one in zip(report.workload.phases, report.phases, strict=True):
                out.print(Text(f"\nphase {phase.name}: {phase.repeats} x", style="bold"))
                _report(out, one, explain=True)
        return
    _report(out, report, explain=explain)


def _report(out: Console, report: Report, *, explain: bool) -> None:
    _header(out, report)
    out.print(_summary(report.algorithms.values()))
    _notes(out, report)
    out.print(_tensors(report))
    if explain:
        from .explain import explain as explained

        explained(out, report)
    else:
        out.print("closed forms, ledgers and time budget: --explain; exact bytes of every level and tensor: --json")


def _header(out: Console, report: Report) -> None:
    device = report.device
    out.print(Text("problem  ").append(describe(report.problem), style="bold"))
    rate = f", HBM {show_scaled(device.hbm_bytes_per_s, 'B/s')}" if device.hbm_bytes_per_s else ""
    l2 = f", L2 {show_capacity(device.l2_bytes)}" if device.l2_bytes else ""
    out.print(f"device   {device.name}: SRAM {show_capacity(device.sram_bytes)} per SM{l2}{rate}\n")


def describe(p: AttentionProblem) -> str:
    """A problem in one line."""
    same = isinstance(p.q_len, int) and p.q_len == p.kv_len and p.pack == 1
    lengths = f"N={p.q_len:,}" if same else f"N_q={_length(p.q_len)} N_k={_length(p.kv_len)}"
    dims = f"d={p.head_dim}" if p.head_dim == p.value_dim else f"d={p.head_dim} d_v={p.value_dim}"
    heads = f"{p.heads} heads" + (f" ({p.kv_heads} kv)" if p.heads != p.kv_heads else "") if p.heads > 1 else "1 head"
    mask = f"{p.band.name()} mask" + (" + key padding" if p.padding else "")
    more = "".join(f", {what}" for what in _extras(p))
    return f"{lengths} {dims}, {heads}, batch {p.batch:,}, {p.dtype}, {mask}{more}, {p.direction}"


def _length(n: object) -> str:
    return f"{n:,}" if isinstance(n, int) else str(n)


def _extras(p: AttentionProblem) -> Iterator[str]:
    """What a problem has besides the usual."""
    if p.pack > 1:
        yield f"rows of Q are {p.pack} heads per query"
    if p.dropout:
        yield f"dropout {p.dropout:g}"
    if p.softcap:
        yield f"soft cap {p.softcap:g}"
    yield from (name for name, given in (("ALiBi", p.alibi), ("bias", p.bias), ("learned sinks", p.sink)) if given)
    if p.kv_dtype:
        yield f"KV cache in {p.kv_dtype}, scales per {p.kv_scales}"
    if p.page_size:
        yield f"pages of {p.page_size:,} keys"
    if p.shared_kv:
        yield "V in the columns of K"


def _summary(algorithms: object) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("algorithm", overflow="fold")
    for name in ("tiles", *LEVELS, "time", "by", "x optimum"):
        table.add_column(name, justify="right", overflow="fold")
    for a in algorithms:  # type: ignore[attr-defined]
        table.add_row(a.name, _tiles(a), *_traffic(a), *_cost(a), f"{a.totals.ratio:.4g}")
    return table


def _tiles(a: AlgorithmReport) -> str:
    if all(p.schedule.origin == "whole" for p in a.passes):
        return "library"
    return str(a.tiles) if a.tiles else "several"


def _traffic(a: AlgorithmReport) -> list[str]:
    return [show_bytes(a.totals.levels[level].total_bytes) for level in LEVELS]


def _cost(a: AlgorithmReport) -> tuple[str, str]:
    cost = a.totals.cost
    return ("unknown", "") if cost.time_s is None else (show_time(cost.time_s), str(cost.bound_by))


def _notes(out: Console, report: Report) -> None:
    out.print()
    for level in LEVELS:
        out.print(f"  {level:<10} {LEVEL_HELP[level]}", style="dim")
    for p in next(iter(report.algorithms.values())).passes:
        for head, line in zip(("optimum", ""), _bound(p, report.problem), strict=True):
            out.print(f"  {head:<10} {line}", style="dim")
    out.print("             of exact attention as sums of products, with M words of fast memory per SM", style="dim")
    out.print("  time       each launch takes as long as its slowest engine (by), first order", style="dim")
    missing = missing_rates(report.problem, report.device)
    if missing:
        known = " and no ".join(missing)
        out.print(f"  time is unknown: the device gives no {known}; give it, like --set {missing[0]}=...")
    out.print()
    for a in report.algorithms.values():
        for p in a.passes:
            label = a.name if len(a.passes) == 1 else f"{a.name} {p.direction}"
            out.print(f"{label}: {_schedule(p, report.device.sram_bytes)}")
            if p.kinds.partial or p.kinds.skipped:
                out.print(f"  mask: {p.kinds.full:,} tiles full, {p.kinds.partial:,} cut, {p.kinds.skipped:,} skipped")
            if not p.lower_bound.theorem:
                out.print("  not softmax attention: x optimum is of its own inputs and outputs")
    out.print()


FORMULAS = {  # what the theorems prove; |E| visible pairs
    "parallel_narrow_traffic_lower_bound": "(d + d_v)² |E|/M - M",
    "parallel_total_traffic_lower_bound": "4 d d_v |E|/M - M",
    "small_memory_lower_bound": "2 d |E|/√M - |E| - 2M",
    "parallel_combined_lower_bound": "d (d + d_v) |E|/M - M read, O written once",
    "parallel_backward_lower_bound": "(d + d_v)² |E|/M - M read, gradients written once",
}


def _bound(p: PassReport, problem: AttentionProblem) -> Iterator[str]:
    """The least that must be moved, and why: a proof's name, or why no proved bound is higher."""
    bound, d = p.lower_bound, problem.head_dim
    least, memory = f"{p.direction} moves >= {bound.issued_bytes:,} B", f"M = {bound.memory_words:,} words"
    if bound.binds == "compulsory":
        small = bound.memory_words < 2 * d * (d + (problem.value_dim or 1))
        yield f"{least}: each needed input read once, each output written once"
        yield f"the I/O bounds are lower, as {memory} {'is small against d²' if small else 'holds much of the problem'}"
    else:
        yield f"{least}: {FORMULAS[bound.theorem]}, {memory}"
        yield f"proved: ioaware prove {bound.theorem}"


def _schedule(p: PassReport, sram_bytes: int) -> str:
    if p.schedule.origin == "whole":
        less = ", so this is less than any schedule with this SRAM moves" if p.totals.ratio < 1 else ""
        return f"{p.schedule.binds}{less}; --gemm-tiles 128x128 shows their re-reads"
    fits = "" if p.fits else f", more than the SRAM's {sram_bytes:,} B"
    placed = "; shared memory and registers together hold it" if not p.fits and p.fits_device else ""
    walked = "; counted by walking every iteration" if p.counted_by == "walked" else ""
    held = f"{p.on_chip.total:,} B on chip{fits}{placed}"
    return f"tiles {p.schedule.tiles} ({p.schedule.origin}), {held}; {p.schedule.binds}{walked}"


def _tensors(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), title="issued bytes per tensor")
    table.title_justify = "left"
    for name in ("algorithm", "tensor"):
        table.add_column(name, overflow="fold")
    for name in ("read", "written", "of which atomic"):
        table.add_column(name, justify="right", overflow="fold")
    for a in report.algorithms.values():
        label = a.name
        for tensor, moved in a.totals.levels["issued"].tensors.items():
            atomic = f"{moved.add:,}" if moved.add else ""
            table.add_row(label, tensor, f"{moved.read_bytes:,}", f"{moved.write_bytes:,}", atomic)
            label = ""
        issued = a.totals.levels["issued"]
        table.add_row("", "total", f"{issued.read_bytes:,}", f"{issued.write_bytes:,}", "", style="bold")
    return table


def _and_all(a: AlgorithmReport, repeats: int) -> Iterator[AlgorithmReport]:
    """An algorithm in one layer, and in all layers and steps."""
    yield a
    if repeats > 1:
        yield replace(a, name=f"  x {repeats:,}", totals=a.totals * repeats)


def _workload(out: Console, report: WorkloadReport) -> None:
    device = report.device
    out.print(Text("workload ").append(report.workload.title, style="bold"))
    out.print(f"device   {device.name}: SRAM {show_capacity(device.sram_bytes)} per SM\n")
    stages = {stage.stage: stage for stage in memory(report)}
    for phase, one in zip(report.workload.phases, report.phases, strict=True):
        times = f"{phase.layers} layers" + (f" x {phase.steps} steps" if phase.steps > 1 else "")
        out.print(Text(f"{phase.name}: {times} of ").append(describe(one.problem), style="bold"))
        out.print(_summary(row for a in one.algorithms.values() for row in _and_all(a, phase.repeats)))
        if phase is report.workload.stages[phase.stage][-1]:
            for line in summary(stages[phase.stage]):
                out.print(f"  {line}")
        out.print(f"  source: {phase.source}\n", style="dim")
    out.print(Text("all layers and steps", style="bold"))
    out.print(_summary(report.algorithms.values()))
