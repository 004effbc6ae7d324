"""`fits`: which tiles fit where, with the SRAM ledger itemised."""

from __future__ import annotations

from typing import Any

import click

from .conventions import option
from .options import DEBUG, DEVICE, PROBLEM, decorated, hardware, problem

TILED = ("flash1", "flash2")


@click.command("fits", context_settings={"help_option_names": ["-h", "--help"]})
@decorated(*PROBLEM, *DEVICE)
@option("--alg", "algorithms", multiple=True, metavar="NAME", help="Tiled algorithm; default flash1, flash2.")
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@DEBUG
def fits_command(**values: Any) -> None:
    """Say which tiles fit a device, forward and backward (or --direction), and what a thread block holds.

    Example: ioaware fits --device rtx4090 --d 128
    """
    from ..algorithms import find_all
    from ..errors import InputError
    from ..fits import fits

    values["direction"] = values["direction"] or "fwd+bwd"
    device, wanted = hardware(values), problem(values)
    algorithms = find_all(values["algorithms"] or TILED)
    passes = fits(algorithms, wanted, device)
    if not passes:
        names = ", ".join(a.name for a in algorithms)
        raise InputError(f"--alg {names}: library kernels choose their own tiles; the nearest tiled one is 'flash2'")
    if not values["as_json"]:
        _show(passes, wanted, device)
        return
    import json

    from ..report import header, problem_dict

    rows: dict[str, Any] = {}
    for p in passes:
        rows.setdefault(p.algorithm, {})[p.direction] = p.as_dict()
    click.echo(json.dumps({**header(device), "problem": problem_dict(wanted), "algorithms": rows}))


def _show(passes: list[Any], wanted: Any, device: Any) -> None:
    from rich.text import Text

    from ..units import show_capacity
    from .show import console, describe

    out = console()
    out.print(Text("problem  ").append(describe(wanted), style="bold"))
    out.print(f"device   {device.name}: SRAM {show_capacity(device.sram_bytes)} per SM")
    for name, size in (("shared memory of one block", device.shared_bytes), ("registers", device.register_bytes)):
        out.print(f"         {name}: {show_capacity(size) if size else 'unknown'}")
    for p in passes:
        out.print(Text(f"\n{p.algorithm} {p.direction}", style="bold underline"))
        out.print(_grid(p))
        out.print(f"best {p.schedule.tiles}: {p.schedule.binds}")
        out.print(f"it holds, in {p.where[0]!r} at line {p.where[1]}:")
        out.print(_ledger(p))
    out.print("\nbytes on chip of a thread block; S: everything fits into the SRAM (the papers' M);")
    out.print("P: loaded tiles fit into shared memory and computed values into registers; -: neither")


def _grid(p: Any) -> Any:
    from rich.table import Table

    from ..fits import SIDES
    from ..readers.evaluate import TileSizes

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("tile_q \\ tile_kv", no_wrap=True)
    for kv in SIDES:
        table.add_column(str(kv), justify="right", no_wrap=True)
    by_tile = {f.tiles: f for f in p.fits}
    for q in SIDES:
        table.add_row(str(q), *(_cell(by_tile[TileSizes(q, kv)]) for kv in SIDES))
    return table


def _cell(fit: Any) -> str:
    marks = ("S" if fit.sram else "") + ("P" if fit.placed else "")
    return f"{fit.held.total:,} {marks or '-':<2}"


def _ledger(p: Any) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for e in p.ledger:
        place = "shared memory" if e.loaded else "registers"
        table.add_row(f"  {e.what}", e.shape, f"line {e.line}", place, f"{e.bytes:,} B")
    table.add_row("  total", "", "", "", f"{sum(e.bytes for e in p.ledger):,} B", style="bold")
    return table
