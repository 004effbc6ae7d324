"""`verify`: run the kernels, on the CPU or a GPU, and hold all they do against exact softmax and the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .conventions import option
from .options import DEBUG, PROBLEM, decorated, parse_seed, problem

if TYPE_CHECKING:
    from ioaware_kernels.cases import Case
    from ioaware_kernels.implementation import Implementation
    from ioaware_kernels.launch import Engine
    from ioaware_kernels.verify import Report

LENGTH = option("--N", "n", metavar="N", help="Sequence length of queries and keys; default 256.")
SHAPE = (LENGTH, *(PROBLEM[n] for n in (1, 2, 3, 5, 6, 7)))  # lengths, heads and batch: what a kernel leaves open
SHAPED = ("n", "q_len", "kv_len", "d", "heads", "kv_heads", "batch")
ENGINES = ("auto", "grid", "jit", "cpu", "cuda")
ENGINE = "grid, jit (compiled, judges no races), cuda (CuPy); auto: grid, jit if large; cpu: the CPU's own kernels."


class Job(NamedTuple):
    """One case of one kernel, and how it is checked."""

    kernel: str
    case: Case
    check: Callable[[], Report]


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]})
@option("--kernel", "kernels", multiple=True, metavar="NAME|FILE.cu", help="Repeatable; default: all of the project's.")
@decorated(*SHAPE)
@option("--dtype", metavar="NAME", help="fp32, fp16 or bf16; default: all that a kernel has.")
@option("--causal", is_flag=True, help="Causal mask, bottom-right aligned.")
@option("--engine", metavar="NAME", default="auto", show_default=True, help=ENGINE)
@option("--source", is_flag=True, help="With --engine cuda: let CuPy compile the .cu instead of loading the PTX.")
@option("--seed", metavar="N", default="0", show_default=True, help="Of the random inputs.")
@option("--all", "every", is_flag=True, help="Show every case, not one line per kernel.")
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@DEBUG
def verify_command(**values: Any) -> None:
    """Check the kernels: values, bytes per tensor and shared region, races, stray accesses, determinism.

    Without a problem, a matrix of ragged, strided, masked and extreme ones. Example: ioaware verify --kernel flash2
    --N 256 --d 64
    """
    from ioaware_kernels.verify import require

    seed = parse_seed(values["seed"])
    jobs = _jobs(values, seed)
    reports: list[Report] = []
    try:
        reports.extend(_progress(jobs))
    finally:  # interrupted or refused on the way: what is done is shown
        _print(reports, values, seed, complete=len(reports) == len(jobs))
    require(reports)


def _print(reports: list[Report], values: dict[str, Any], seed: int, *, complete: bool) -> None:
    if values["as_json"]:
        _print_json(reports, values["engine"], seed, complete=complete)
    elif reports:
        from .show_verify import show

        show(reports, every=values["every"])


def _jobs(values: dict[str, Any], seed: int) -> list[Job]:
    """What is to be run. Raises InputError; Skipped: there is no GPU."""
    from ..errors import InputError, unknown

    if values["engine"] not in ENGINES:
        raise unknown("--engine", values["engine"], ENGINES, f"known: {', '.join(ENGINES)}")
    if values["source"] and values["engine"] != "cuda":
        raise InputError("--source is for --engine cuda: the executor runs PTX; leave --source out")
    if values["engine"] == "cpu":
        from ioaware_kernels.cpu.verify import verify as verify_on_cpu

        return [Job(name, case, partial(verify_on_cpu, name, case, seed)) for name, case in _cpu_cases(values)]
    from ioaware_kernels.verify import verify

    engine, requests = _engine(values), _is_one_problem(values)
    return [
        Job(kernel.name, case, partial(verify, kernel, case, engine, seed, requests=requests))
        for kernel, case in _fit(list(_cases(values)), engine)
    ]


def _engine(values: dict[str, Any]) -> Engine | None:
    """The engine of that name; None: `verify` chooses. Raises Skipped: there is no GPU."""
    if values["engine"] == "cuda":
        from ioaware_kernels.cuda_engine import CudaEngine

        return CudaEngine(from_source=values["source"])
    if values["engine"] == "jit":
        from ioaware_kernels.jit_engine import JitEngine

        return JitEngine()
    if values["engine"] == "grid":
        from ioaware_kernels.launch import GridEngine
        from ioaware_kernels.ptx.context import Options

        return GridEngine(Options(races=True, requests=_is_one_problem(values)))
    return None


def _is_one_problem(values: dict[str, Any]) -> bool:
    return any(values[name] for name in (*SHAPED, "causal", "dtype"))


def _cases(values: dict[str, Any]) -> Iterator[tuple[Implementation, Case]]:
    """What is to be run: the matrix of each kernel, or the one problem that was given."""
    from ioaware_kernels.cases import matrix, one
    from ioaware_kernels.implementation import load, names

    from ..errors import InputError

    implementations = [load(name) for name in values["kernels"] or names()]
    if not _is_one_problem(values):
        for implementation in implementations:
            cases = list(matrix(implementation))
            if not cases:
                raise InputError(
                    f"{implementation.name} solves no problem of the matrix; give a smaller one with --N and --d"
                )
            yield from ((implementation, case) for case in cases)
        return
    problems = [
        (implementation, _problem(values, implementation.direction, dtype))
        for implementation in implementations
        for dtype in ([values["dtype"]] if values["dtype"] else implementation.dtypes)
    ]
    if not values["kernels"]:  # those that can; else those whose refusal helps
        problems = (
            [(kernel, wanted) for kernel, wanted in problems if kernel.solves(wanted)]
            or [(kernel, wanted) for kernel, wanted in problems if wanted.dtype in kernel.dtypes]
            or problems
        )
    for implementation, wanted in problems:
        implementation.build_for(wanted)
        yield from ((implementation, case) for case in one(implementation, wanted))


def _cpu_cases(values: dict[str, Any]) -> Iterator[tuple[str, Case]]:
    """The CPU's own kernels by name: their matrix, or the one problem that was given."""
    from ioaware_kernels.cases import Case
    from ioaware_kernels.cpu.prepare import NAMES
    from ioaware_kernels.cpu.verify import matrix

    from ..errors import unknown

    for name in values["kernels"] or NAMES:
        if name not in NAMES:
            raise unknown("CPU kernel", name, NAMES, f"known: {', '.join(NAMES)}")
        one = [Case(_problem(values, "fwd", values["dtype"] or "fp32"))] if _is_one_problem(values) else matrix()
        yield from ((name, case) for case in one)


def _fit(cases: list[tuple[Implementation, Case]], engine: Engine | None) -> list[tuple[Implementation, Case]]:
    """The cases that the engine can run; a line on stderr says which are left out, and why."""
    from ioaware_kernels.cuda_engine import CudaEngine

    why = [engine.unfit(case) if isinstance(engine, CudaEngine) else "" for _, case in cases]
    counts = {reason: why.count(reason) for reason in why if reason}
    left_out = [f"{count} case{'s' * (count > 1)} with {reason}" for reason, count in counts.items()]
    if left_out:
        click.echo(f"left out: {'; '.join(left_out)}", err=True)
    return [case for case, reason in zip(cases, why, strict=True) if not reason]


def _problem(values: dict[str, Any], direction: str, dtype: str) -> Any:
    """The problem of the options; 256 rows unless they say otherwise, for the executor is no GPU."""
    given = {"d_v": None, "mask": None, "dropout": None, **values, "dtype": dtype}
    if values["n"] is None:
        given["q_len"], given["kv_len"] = given["q_len"] or "256", given["kv_len"] or "256"
    return problem({**given, "direction": direction})


def _progress(jobs: list[Job]) -> Iterator[Report]:
    """Case by case, with a bar on a terminal's stderr."""
    import sys

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("verify", total=len(jobs))
        for job in jobs:
            bar.update(task, description=f"{job.kernel}: {job.case}")
            yield job.check()
            bar.advance(task)


def _print_json(reports: list[Report], engine: str, seed: int, *, complete: bool) -> None:
    import json

    from .. import __version__

    ok = complete and all(r.is_fine for r in reports)
    rows = [r.as_dict() for r in reports]
    head = {"schema": 1, "version": __version__, "engine": engine, "seed": seed, "complete": complete, "ok": ok}
    click.echo(json.dumps({**head, "cases": rows}, allow_nan=False))
