"""`bench`: run the kernels, verify them, time them, and put the simulator's prediction beside every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .options import DEBUG, decorated, parse_seed

if TYPE_CHECKING:
    from ioaware_kernels.bench import Backend, Bench, Measuring, Plan, Point
    from ioaware_kernels.bench.plan import Sweeps

    from ..problem import AttentionProblem
    from ..readers.evaluate import TileSizes

DEVICES = ("cpu", "cuda")
WHAT = (  # no IOAWARE_* variables: `simulate` has options of these names that mean something else
    click.option("--device", metavar="NAME", default="cpu", show_default=True, help="cpu or cuda (CuPy)."),
    click.option("--alg", "algorithms", multiple=True, metavar="NAME", help="Repeatable; default naive, flash2."),
    click.option("--N", "n", metavar="LIST", help="Lengths: 512,1024 or 256..4096, which doubles."),
    click.option("--d", metavar="LIST", help="Head dimensions, written the same way."),
    click.option("--tiles", metavar="LIST", help="Tiles like 64x64,128x64; default: the kernel's own."),
    click.option("--heads", metavar="H", help="Heads; default 1, on a GPU 16."),
    click.option("--batch", metavar="B", default="1", show_default=True, help="Sequences."),
    click.option("--causal", is_flag=True, help="Causal mask."),
    click.option("--dtype", metavar="NAME", default="fp32", show_default=True, help="Number format of Q, K, V, O."),
    click.option("--repeats", metavar="N", default="30", show_default=True, help="Samples, warm and cold each."),
    click.option("--seed", metavar="N", default="0", show_default=True, help="Of the random inputs."),
    click.option("--no-peers", is_flag=True, help="Leave other people's kernels out, like torch sdpa."),
)
RESULT = (
    click.option("--out", metavar="FILE.json", help="Write everything that was measured."),
    click.option("--plot", metavar="FILE", help="Draw: .png, .svg, or an offline .html page."),
    click.option("--from", "source", metavar="FILE.json", help="Show or draw a result file instead of measuring."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)
MEASURING = ("device", "algorithms", "n", "d", "tiles", "heads", "batch", "causal", "dtype", "repeats", "seed",
             "no_peers", "out")  # fmt: skip
LARGEST_REPEATS = 10_000


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@decorated(*WHAT, *RESULT)
@DEBUG
@click.pass_context
def bench_command(ctx: click.Context, /, **values: Any) -> None:
    """Predicted beside measured: time, its growth over N, d and SRAM, and where flash2 overtakes naive.

    Without --N, --d and --tiles: a sweep over each, about a minute. Example: ioaware bench --N 256..4096 --plot b.html
    """
    _refuse_files(ctx, values)
    if values["source"] is not None:
        from ioaware_kernels.bench import read

        _deliver(read(values["source"]), values)
        return
    from ..errors import VerificationError

    device, plan = _plan(values)
    bench = _measured(plan, device, values)
    if bench.problems:
        raise VerificationError(f"{len(bench.problems)} times or outputs are wrong, the first: {bench.problems[0]}")


# ------------------------------------------------------------------------------------------------ what is asked
def _refuse_files(ctx: click.Context, values: dict[str, Any]) -> None:
    """Before anything is measured: files that could not be written, and options that --from leaves without a use."""
    import os

    from ..errors import InputError

    given = [p for p in ctx.command.params if ctx.get_parameter_source(p.name or "") == ParameterSource.COMMANDLINE]
    idle = [p.opts[-1] for p in given if p.name in MEASURING]
    if values["source"] is not None and idle:
        raise InputError(f"{idle[0]}: --from measures nothing; leave {idle[0]} or --from out")
    if values["plot"] is not None:
        from ioaware_kernels.bench.plot import require

        require(values["plot"])
    for flag in ("out", "plot"):
        folder = os.path.dirname(values[flag] or "") or "."
        is_file = os.path.basename(values[flag] or "") and os.path.isdir(folder) and not os.path.isdir(values[flag])
        if values[flag] is not None and not is_file:
            raise InputError(f"--{flag}={values[flag]:.60}: a file in a folder that exists is needed")


def _plan(values: dict[str, Any]) -> tuple[str, Plan]:
    """The device and the sweep. Raises InputError."""
    from ioaware_kernels.bench import Plan

    from ..errors import refuse, unknown
    from ..units import parse_count

    if values["device"] not in DEVICES:
        raise unknown("--device", values["device"], DEVICES, f"known: {', '.join(DEVICES)}")
    repeats = parse_count(values["repeats"], "--repeats")
    if repeats > LARGEST_REPEATS:
        raise refuse("--repeats", values["repeats"], "at most 10,000", LARGEST_REPEATS)
    return values["device"], Plan(_points(values), repeats, parse_seed(values["seed"]), not values["no_peers"])


def _points(values: dict[str, Any]) -> tuple[Point, ...]:
    """The standard sweeps, or the grid of what is given."""
    from ioaware_kernels.bench import grid, standard
    from ioaware_kernels.bench.plan import STANDARD, algorithms_for

    sweeps = STANDARD[values["device"]]
    problem = _problem(values, sweeps)
    names = values["algorithms"] or algorithms_for(values["device"], problem)
    if all(values[name] is None for name in ("n", "d", "tiles")):
        return standard(values["device"], problem, names)
    lengths, head_dims = _counts(values["n"], "--N"), _counts(values["d"], "--d")
    return grid(names, problem, lengths or (sweeps.length,), head_dims or (sweeps.head_dim,), _tiles(values["tiles"]))


def _problem(values: dict[str, Any], sweeps: Sweeps) -> AttentionProblem:
    """Everything but lengths and head_dim."""
    from ..problem import AttentionProblem
    from ..units import parse_count

    return AttentionProblem(
        q_len=sweeps.length,
        heads=parse_count(values["heads"], "--heads") if values["heads"] is not None else sweeps.heads,
        batch=parse_count(values["batch"], "--batch"),
        mask="causal" if values["causal"] else "full",
        dtype=values["dtype"],
        score_dtype=values["dtype"],
    )


def _tiles(text: str | None) -> tuple[TileSizes | None, ...]:
    """`64x64,128x64`; without, the kernel's own."""
    from ..schedule import parse_tiles

    return (None,) if text is None else tuple(parse_tiles(part, "--tiles") for part in text.split(","))


def _counts(text: str | None, flag: str) -> tuple[int, ...]:
    """`512,1024` as it is; `256..4096` doubles from the first to the last, both included. Nothing for None."""
    from ..errors import InputError
    from ..units import parse_count

    if text is None:
        return ()
    out: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not first or (dots and not last) or last.startswith("."):
            raise InputError(f"{flag}={text:.60}: not a list; write it like 512,1024 or 256..4096, which doubles")
        low = parse_count(first, flag)
        high = parse_count(last, flag) if dots else low
        if high < low:
            raise InputError(f"{flag}={part:.60}: runs backwards; write it {high}..{low}")
        while low < high:
            out.append(low)
            low *= 2
        out.append(high)
    return tuple(dict.fromkeys(out))


# ------------------------------------------------------------------------------------------------ measuring
def _measured(plan: Plan, device: str, values: dict[str, Any]) -> Bench:
    """Measure, and deliver what there is even if that is interrupted."""
    from ioaware_kernels.bench import Measuring, backend, result

    on: Backend = backend(device)
    run = Measuring(plan, on)
    try:
        _progress(run)
    finally:
        if run.ceilings is not None:
            bench = result(run, _command())
            _deliver(bench, values)
    return bench


def _progress(run: Measuring) -> None:
    """A bar on a terminal's stderr."""
    import sys

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("bench", total=len(run))
        for step in run:
            bar.update(task, description=step)
            bar.advance(task)


def _command() -> str:
    """What was typed."""
    import shlex
    import sys

    return shlex.join(["ioaware", *sys.argv[1:]])


def _deliver(bench: Bench, values: dict[str, Any]) -> None:
    """Print, then write the files."""
    if values["as_json"]:
        import json

        click.echo(json.dumps(bench.as_dict(), allow_nan=False))
    else:
        from .show_bench import show

        show(bench)
    if values["out"] is not None:
        from ioaware_kernels.bench import write

        write(bench, values["out"])
    if values["plot"] is not None:
        from ioaware_kernels.bench.plot import draw

        draw(bench, values["plot"])
