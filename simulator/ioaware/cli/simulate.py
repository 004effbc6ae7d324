"""`simulate`: bytes per tensor and level, time, bound, and the distance from the optimum."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from .. import __version__
from ..errors import InputError
from ..units import parse_count
from .conventions import option
from .options import DEBUG, DEVICE, LENGTHS, PROBLEM, decorated, hardware, problem, rest

RUN = (
    option("--alg", "algorithms", multiple=True, metavar="NAME", help="Repeatable; default naive, flash1, flash2."),
    option("--tiles", default="best", show_default=True, metavar="RULE|QxKV", help="best, paper, shipped, or 128x64."),
    option("--gemm-tiles", metavar="QxKV", help="Count the re-reads of library GEMMs with these tiles."),
    option(
        "--splits",
        metavar="N|RULE",
        help="Parts of the keys of flash_decoding and mla, or flash2, flash3 for their rule.",
    ),
    option("--pack-gqa", is_flag=True, help="The query heads of a group share the rows of a tile."),
    option("--workload", metavar="NAME|FILE", help="The attention of a model, like pi0, instead of one problem."),
    option("--phase", metavar="NAME", help="One of its phases, like decode, or all; default: those of one run."),
    option("--program", metavar="FILE", help="Simulate the program of this Python file, which is run."),
    option("--explain", is_flag=True, help="Closed forms beside the program's lines, ledgers, time budget, bounds."),
    option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)


@click.command("simulate", context_settings={"help_option_names": ["-h", "--help"]})
@decorated(*PROBLEM, *DEVICE, *RUN)
@DEBUG
@click.version_option(__version__, "--version", "-V", prog_name="ioaware")
@click.pass_context
def simulate(ctx: click.Context, /, **values: Any) -> None:
    """Count the bytes that attention moves, exactly.

    Four levels side by side: compulsory (each input once), issued (what thread blocks ask for: the papers' "HBM
    accesses"), DRAM (behind the L2), SRAM (inside the SM). Example: simulate --sram 192KB --N 8192
    """
    report = _report(ctx, values)
    if values["as_json"]:
        import json

        click.echo(json.dumps(report.as_dict(), allow_nan=False))
        return
    from .show import show

    show(report, explain=values["explain"])


def _report(ctx: click.Context, values: dict[str, Any]) -> Any:
    """Everything is parsed and refused first; a program file runs last."""
    from ..algorithms import DEFAULT, find_all
    from ..simulator import choose, simulate_workload, usual
    from ..simulator import simulate as run

    device, algorithms = hardware(values), list(find_all(values["algorithms"]))
    choices = {name: values[name] for name in ("tiles", "gemm_tiles", "splits")}
    choose(**choices)
    choices["pack_gqa"] = values["pack_gqa"]
    workload = _workload(ctx, values) if values["workload"] else None
    if values["phase"] and not workload:
        raise InputError(f"--phase={values['phase']:.60}: phases are those of a --workload, like llama3-70b; give one")
    problems = [phase.problem for phase in workload.phases] if workload else [problem(values)]
    if values["program"]:
        algorithms += _programs(values["program"], problems)
    if workload:
        return simulate_workload(workload, device, algorithms or usual(workload), **choices)
    return run(problems[0], device, algorithms or DEFAULT, **choices)


def _programs(path: str, problems: list[Any]) -> list[Any]:
    """The programs of a file, each checked by value against float64 softmax before it is counted."""
    from ..program_file import check, load_programs

    found = load_programs(path)
    for algorithm in found:
        for one in problems:
            check(algorithm, one)
    return found


OF_A_PHASE = {"n": ("length", "--N"), "q_len": ("q_len", "--q-len"), "kv_len": ("kv_len", "--kv-len")}


def _workload(ctx: click.Context, values: dict[str, Any]) -> Any:
    """The workload, which says its own heads and masks: a flag that says them too is refused. A phase takes lengths."""
    from ..workload import load

    given = [name for name in LENGTHS if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    for name in given:
        if name not in OF_A_PHASE:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{flag}={values[name]}: the workload {values['workload']!r} fixes it; leave {flag} out, or give a "
                "workload .toml of your own"
            )
    lengths = {field: parse_count(values[n], flag) for n, (field, flag) in OF_A_PHASE.items() if n in given}
    return load(values["workload"], values["phase"], **rest(values), **lengths)
