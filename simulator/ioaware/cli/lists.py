"""`list`, `cite`, `completion`: what there is, whom to cite, how to complete."""

from __future__ import annotations

import click

from ..errors import InputError, unknown
from .conventions import option
from .options import DEBUG

KINDS = ("devices", "algorithms", "workloads", "kernels", "dtypes")


@click.command("list")
@click.argument("kind", required=False, metavar="[devices|algorithms|workloads|kernels|dtypes]")
@click.argument("name", required=False)
@DEBUG
def list_command(kind: str | None, name: str | None, debug: bool) -> None:  # noqa: FBT001
    """List what is built in; with a NAME, every number of a device or phase of a workload, and its source."""
    del debug
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS, f"known: {', '.join(KINDS)}")
    if name is not None:
        _details(kind or "", name)
        return
    for one in (kind,) if kind else KINDS:
        click.echo(f"{one}:" if kind is None else "", nl=kind is None)
        for line in _names(one):
            click.echo(f"  {line}")


def _names(kind: str) -> list[str]:
    if kind == "devices":
        from .. import device

        known = [(n, device.load(n)) for n in device.names() if n != "cpu"]
        rows = [f"{n:<18} {d.name}{_aliases(d.aliases)}" for n, d in known]
        return [*rows, f"{'cpu':<18} the machine itself, its caches read from the operating system"]
    if kind == "algorithms":
        from ..algorithms import ALGORITHMS

        return [f"{a.name:<18} {a.title}" for a in ALGORITHMS]
    if kind == "workloads":
        from .. import workload

        return [f"{n:<18} {workload.load(n).title}" for n in workload.names()]
    if kind == "kernels":
        from ioaware_kernels.implementation import load as load_kernel
        from ioaware_kernels.implementation import names as kernels

        found = [load_kernel(name) for name in kernels()]
        return [f"{k.name:<18} {k.title} ({' and '.join(k.masks)} mask)" for k in found]
    from ..dtypes import FLOATS, ITEMSIZE

    return [f"{n:<18} {ITEMSIZE[n]} B" for n in FLOATS]


def _aliases(aliases: tuple[str, ...]) -> str:
    return f" (also {', '.join(aliases)})" if aliases else ""


def _details(kind: str, name: str) -> None:
    if kind == "devices":
        from ..device import NUMBERS, load

        device = load(name)
        click.echo(device.name)
        for field in NUMBERS:
            value = getattr(device, field)
            text = "unknown" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
            click.echo(f"  {field:<24} {text:>20}  {device.sources.get(field, '')}".rstrip())
    elif kind == "workloads":
        _workload(name)
    else:
        raise InputError(f"{kind} {name}: only devices and workloads have details; leave {name!r} out")


def _workload(name: str) -> None:
    """Every phase, training too, and what a token leaves in the KV cache."""
    from ..model_memory import cache_of
    from ..workload import ALL, load
    from .show import describe

    workload = load(name, ALL)
    click.echo(workload.title)
    for phase in workload.phases:
        click.echo(f"  {phase.name}: {phase.layers} layers x {phase.steps} of {describe(phase.problem)}")
        if cache := cache_of(phase):
            click.echo(f"    KV cache: {cache.token_bytes:,} B per token and layer")
        click.echo(f"    source: {phase.source}")


@click.command("cite")
@option("--alg", "algorithms", multiple=True, metavar="NAME", help="Algorithm; default naive, flash1, flash2.")
@DEBUG
def cite_command(algorithms: tuple[str, ...], debug: bool) -> None:  # noqa: FBT001
    """Print BibTeX of exactly what a simulation of these algorithms rests on."""
    del debug
    from ..algorithms import DEFAULT
    from ..cite import citation

    click.echo(citation(algorithms or DEFAULT))


SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", metavar="bash|zsh|fish")
@DEBUG
def completion_command(shell: str, debug: bool) -> None:  # noqa: FBT001
    """Print the completion script of both commands; for bash: eval "$(ioaware completion bash)"."""
    del debug
    from click.shell_completion import get_completion_class

    from . import ioaware
    from .simulate import simulate

    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise unknown("shell", shell, SHELLS, f"known: {', '.join(SHELLS)}")
    for command, name in ((ioaware, "ioaware"), (simulate, "simulate")):
        script = found(command, {}, name, f"_{name.upper()}_COMPLETE")
        click.echo(script.source_template % script.source_vars())
