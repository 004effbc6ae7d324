"""The human output of `parallel`: schemes side by side, and in a sentence each what is hidden behind computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..device import Device
from ..parallel.compare import Compared, Comparison
from ..parallel.links import Topology
from ..problem import AttentionProblem
from ..units import show_bytes, show_scaled, show_time
from .show import console, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTES = (
    ("sent", "bytes that the busiest device sends; link: that the busiest directed link carries"),
    ("steps", "transfers that follow one another"),
    ("memory", "the most that a device holds of this problem's tensors, each until its last use"),
    ("imbalance", "work of the slowest device over that of the mean one, step by step"),
    ("time", "first order, peak rates: the slower of products and memory; links without latency"),
    ("exposed", "what communication adds to the time of computation"),
)


def show(
    compared: Mapping[int, Compared],
    problem: AttentionProblem,
    device: Device,
    links: Topology,
    verified: Sequence[str],
) -> None:
    """Print a comparison for one number of devices, or how schemes scale over several."""
    out = console()
    out.print(Text("problem  ").append(describe(problem), style="bold"))
    out.print(f"device   {device.name}")
    _paragraph(out, f"links    {_links(links, max(compared))}")
    out.print()
    if len(compared) == 1:
        ((devices, one),) = compared.items()
        out.print(_table(one))
        _notes(out)
        for comparison in one.able.values():
            _paragraph(out, _overlap(comparison, devices))
    else:
        out.print(_scaling(compared))
        _notes(out)
    for name, reason in max(compared.items())[1].unable.items():
        _paragraph(out, f"{name}: left out: {reason}")
    if verified:
        _paragraph(out, f"executed on logical devices, exact and as counted: {', '.join(verified)}")


def _links(links: Topology, devices: int) -> str:
    inside = f"{links.inside.name}, {show_scaled(links.inside.bytes_per_s, 'B/s')} per device and direction"
    if devices <= links.node:
        return inside
    between = f"{links.between.name}, {show_scaled(links.between.bytes_per_s, 'B/s')}"
    return f"{inside}, in nodes of {links.node}; between nodes {between}"


def _table(one: Compared) -> Table:
    table = _columns("scheme", "sent", "link", "steps", "memory", "imbalance", "compute", "transfer", "exposed", "time")
    for name, row in one.able.items():
        counts = row.counts
        table.add_row(
            name, show_bytes(max(counts.sent)), show_bytes(max(counts.links.values(), default=0)), str(counts.steps),
            show_bytes(max(counts.memory)), f"{counts.imbalance:.3f}", *_times(row),
        )  # fmt: skip
    return table


def _columns(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _times(row: Comparison) -> tuple[str, str, str, str]:
    if row.time is None:
        return "unknown", "unknown", "unknown", "unknown"
    exposed = "hidden" if _hidden(row) else show_time(row.time.exposed_s)
    times = (row.time.compute_s, row.time.transfer_s, row.time.total_s)
    compute, transfer, total = (show_time(t) if t else "-" for t in times)
    return compute, transfer, exposed if row.time.transfer_s else "-", total


def _hidden(row: Comparison) -> bool:
    """Nothing is exposed, but for rounding."""
    return row.time is not None and row.time.exposed_s <= 1e-12 * row.time.total_s


def _scaling(compared: Mapping[int, Compared]) -> Table:
    """Rows by scheme, then by devices; the efficiency is against the fewest devices that the scheme is counted for."""
    table = _columns("scheme", "devices", "sent", "memory", "imbalance", "exposed", "time", "efficiency")
    names = dict.fromkeys(name for one in compared.values() for name in one.able)
    for name in names:
        rows = {devices: one.able[name] for devices, one in compared.items() if name in one.able}
        for i, (devices, row) in enumerate(rows.items()):
            counts, (_, _, exposed, total) = row.counts, _times(row)
            table.add_row(
                "" if i else name, str(devices), show_bytes(max(counts.sent)), show_bytes(max(counts.memory)),
                f"{counts.imbalance:.3f}", exposed, total, _efficiency(rows, devices),
            )  # fmt: skip
    return table


def _efficiency(rows: Mapping[int, Comparison], devices: int) -> str:
    (fewest, first), *_ = rows.items()
    if first.time is None or rows[devices].time is None:
        return "unknown"
    return f"{fewest * first.time.total_s / (devices * rows[devices].time.total_s):.1%}"  # type: ignore[union-attr]


def _notes(out: Console) -> None:
    out.print()
    for name, text in NOTES:
        out.print(f"  {name:<10} {text}", style="dim")
    out.print()


def _overlap(row: Comparison, devices: int) -> str:
    scheme = row.scheme
    return f"{scheme.name} ({scheme.paper}): {scheme.title}; {'; '.join(_sentences(row, devices))}"


def _sentences(row: Comparison, devices: int) -> Iterator[str]:
    time, counts = row.time, row.counts
    if not counts.links:
        yield "nothing is sent"
    elif time is None:
        yield "the device gives no matrix rate: what is hidden is unknown"
    elif time.cover is None:
        yield f"nothing is computed while it communicates, {time.exposed_s / time.total_s:.1%} of the time"
    else:
        hidden = f": hidden from N = {row.hidden_from * devices:,} on" if row.hidden_from else ""
        yield f"matrix products take {time.cover:.3g} times as long as the transfers beside them, or more{hidden}"
    carried = row.topology.by_link(counts.links)
    if len(carried) > 1:
        yield ", ".join(f"{show_bytes(size)} over {name}" for name, size in carried.items())


def _paragraph(out: Console, text: str) -> None:
    out.print(Text("\n".join(wrap(text, out.width, subsequent_indent="         ", break_on_hyphens=False))))
