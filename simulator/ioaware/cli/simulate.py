"""`simulate`: bytes per tensor and level, time, bound, and the distance from the optimum."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from .conventions import option
from .options import DEBUG, DEVICE, LENGTHS, PROBLEM, decorated, hardware, problem, rest

RUN = (
    option("--alg", "algorithms", multiple=True, metavar="NAME", help="Repeatable; default naive, flash1, flash2."),
    option("--tiles", default="best", show_default=True, metavar="RULE|QxKV", help="best, paper, shipped, or 128x64."),
    option("--gemm-tiles", metavar="QxKV", help="Count the re-reads of library GEMMs with these tiles."),
    option("--workload", metavar="NAME|FILE", help="The attention of a model, like pi0, instead of one problem."),
    option("--program", metavar="FILE", help="Simulate the program of this Python file, which is run."),
    option("--explain", is_flag=True, help="Closed forms beside the program's lines, ledgers, time budget, bounds."),
    option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)


@click.command("simulate", context_settings={"help_option_names": ["-h", "--help"]})
@decorated(*PROBLEM, *DEVICE, *RUN)
@DEBUG
@click.version_option(__version__, "--version", "-V", prog_name="ioaware")
def simulate(**values: Any) -> None:
    """Count the bytes that attention moves, exactly.

    Four levels side by side: compulsory (each input once), issued (what thread blocks ask for: the papers' "HBM
    accesses"), DRAM (behind the L2), SRAM (inside the SM). Example: simulate --sram 192KB --N 8192
    """
    report = _report(values)
    if values["as_json"]:
        import json

        click.echo(json.dumps(report.as_dict()))
        return
    from .show import show

    show(report, explain=values["explain"])


def _report(values: dict[str, Any]) -> Any:
    from ..algorithms import DEFAULT
    from ..simulator import simulate as run
    from ..simulator import simulate_workload

    device = hardware(values)
    algorithms: list[Any] = list(values["algorithms"])
    if values["program"]:
        algorithms += _programs(values)
    choices = {"tiles": values["tiles"], "gemm_tiles": values["gemm_tiles"]}
    if not values["workload"]:
        return run(problem(values), device, algorithms or DEFAULT, **choices)
    _refuse_shape(values)
    from ..workload import load

    return simulate_workload(load(values["workload"], **rest(values)), device, algorithms or DEFAULT, **choices)


def _programs(values: dict[str, Any]) -> list[Any]:
    """The programs of a file, each checked by value against float64 softmax before it is counted."""
    from ..program_file import check, load_programs

    found = load_programs(values["program"])
    for algorithm in found:
        check(algorithm, problem(values))
    return found


def _refuse_shape(values: dict[str, Any]) -> None:
    """A workload says its own lengths, heads and masks."""
    from ..errors import InputError

    for name in LENGTHS:
        if values[name]:
            flag = "--N" if name == "n" else f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} and --workload: the workload says it; leave out {flag}, or give a workload .toml")
