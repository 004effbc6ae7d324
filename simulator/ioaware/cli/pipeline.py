"""`pipeline`: what a FlashAttention kernel's schedule changes besides traffic, on a device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from .conventions import option
from .options import DEBUG, decorated, hardware

if TYPE_CHECKING:
    from ..device import Device
    from ..pipeline import Pipeline
    from ..problem import AttentionProblem

ENGINES = {
    "matmul": "matrix units",
    "exp": "exponential units",
    "fma": "fp32 units, emulating exponentials",
    "sram": "shared memory",
}


@click.command("pipeline", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("kernel", metavar="KERNEL")
@decorated(
    option("--d", metavar="D", help="Head dimension; default 64."),
    option("--d-v", metavar="D", help="Value head dimension; default: as --d."),
    option("--dtype", metavar="NAME", help="fp16, bf16, or fp8_e4m3 (flash3); default fp16."),
    option("--direction", metavar="NAME", help="fwd or bwd; default fwd."),
    option("--causal", is_flag=True, help="Causal mask."),
    option("--tiles", metavar="QxKV", help="Rows of queries x keys of a tile; default: as shipped."),
    option("--device", metavar="NAME|FILE", help="A device or its TOML; default: what the kernel was made for."),
    option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a device field; repeatable."),
)
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@DEBUG
def pipeline_command(kernel: str, **values: Any) -> None:
    """Say how a kernel (flash1, flash2, flash3, flash4) works: warps and roles, ledgers of shared memory, registers and
    tensor memory, the cycles of each engine for one tile, what overlaps, and what differs from FlashAttention-2.

    Example: ioaware pipeline flash3 --d 128
    """
    from ..pipeline import find, pipeline
    from ..schedule import parse_tiles

    device = hardware({**values, "sram": None, "device": values["device"] or find(kernel).device})
    wanted = _problem(values)
    tiles = parse_tiles(values["tiles"]) if values["tiles"] else None
    found = pipeline(kernel, wanted, device, tiles)
    if not values["as_json"]:
        _show(found, wanted, device)
        return
    import json

    from ..report import header, problem_dict

    problem = {name: value for name, value in problem_dict(wanted).items() if name not in ("q_len", "kv_len")}
    click.echo(json.dumps({**header(device), "problem": problem, **found.as_dict()}))


def _problem(values: dict[str, Any]) -> AttentionProblem:
    from ..problem import AttentionProblem
    from ..units import parse_count

    given: dict[str, Any] = {name: values[name] for name in ("dtype", "direction") if values[name] is not None}
    for field, name in (("head_dim", "d"), ("value_dim", "d_v")):
        if values[name] is not None:
            given[field] = parse_count(values[name], f"--{name.replace('_', '-')}")
    return AttentionProblem(q_len=8192, mask="causal" if values["causal"] else "full", **given)


def _show(p: Pipeline, problem: AttentionProblem, device: Device) -> None:
    from rich.text import Text

    from ..pipeline import find
    from .show import console

    out, design = console(), p.design
    dims = f"d={problem.head_dim}" + (f" d_v={problem.value_dim}" if problem.value_dim != problem.head_dim else "")
    what = f"{find(p.name).title} {p.direction}, {dims}, {problem.dtype}, {problem.mask} mask"
    out.print(Text(f"{what}, tiles {p.tiles}", style="bold"))
    out.print(f"device   {device.name}")
    out.print(f"         {_verdict(p)}")
    cluster = f", in clusters of {design.cluster}" if design.cluster > 1 else ""
    _heading(out, f"a thread block: {design.threads} threads, {design.block_registers:,} registers{cluster}")
    out.print(_columns((r.name, _counted(r.warps, "warp"), _registers(r.registers), r.work) for r in design.roles))
    for ledger in p.ledgers:
        _heading(out, f"{ledger.memory}, {ledger.unit}: {ledger.total:,} of {ledger.limit:,}")
        out.print(_columns((e.what, f"{e.size:,}") for e in ledger.entries))
    _heading(out, "bytes through shared memory for one tile, besides what arrives from global memory")
    operands = [(f"operands of {x.what}", f"{x.read_bytes:,}") for x in design.products]
    out.print(_columns([*operands, *((e.what, f"{e.size:,}") for e in design.staged)]))
    _heading(out, "cycles of an SM for one tile")
    out.print(_columns(_engine_rows(p)))
    _heading(out, f"at once: the matrix units are busy at most {p.matmul_share:.0%} of the time")
    out.print(_columns((o.name, o.how) for o in design.overlap))
    if design.atomic_bytes:
        out.print(f"\nadded to dQ in HBM for one tile: {design.atomic_bytes:,} B")
    if design.differs:
        _heading(out, "what differs from FlashAttention-2")
        for sentence in design.differs:
            out.print(f"- {sentence}")


def _verdict(p: Pipeline) -> str:
    fullest = f"the fullest: {p.binds.memory}, {float(p.binds.full):.0%}"
    if not p.fits:
        return f"does not fit; {fullest}"
    return f"fits, at most {_counted(p.blocks_per_sm, 'thread block')} per SM; {fullest}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _registers(count: int | None) -> str:
    return "the compiler's registers" if count is None else f"{count} registers"


def _engine_rows(p: Pipeline) -> Iterable[tuple[str, ...]]:
    for name, cycles in p.emulating.items():
        notes = ["the busiest"] if name == p.bound_by else []
        if name == "exp" and cycles != p.engines[name]:
            notes.append(f"{p.engines[name]:,.0f} without emulation")
        yield ENGINES[name], f"{cycles:,.0f}", ", ".join(notes)


def _heading(out: Any, text: str) -> None:
    from rich.text import Text

    out.print(Text(f"\n{text}", style="bold"))


def _columns(rows: Iterable[tuple[str, ...]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for row in rows:
        if not table.columns:
            for cell in row:
                numeric = cell.replace(",", "").isdigit()
                table.add_column(justify="right" if numeric else "left", overflow="fold")
        table.add_row(f"  {row[0]}", *row[1:])
    return table
