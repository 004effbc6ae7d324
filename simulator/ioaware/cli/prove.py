"""`prove`: what is proved about the simulator's numbers, in plain English, and Coq's recheck of it from nothing.

`prove --trace` is about a schedule instead: see prove_trace.py.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import InputError
from .conventions import option
from .options import DEBUG, decorated
from .prove_trace import TRACE, prove_trace

if TYPE_CHECKING:
    from ioaware_proofs.audit import Axioms
    from ioaware_proofs.check import Recheck
    from ioaware_proofs.coq import Step
    from ioaware_proofs.theory import Theorem, Theory


class Asked(NamedTuple):
    """What the command is about."""

    subject: Theory | Theorem | None  # None: everything
    theories: tuple[Theory, ...]  # with the theorems that are asked about
    needed: tuple[Theory, ...]  # to be rechecked: these and what they rest on
    axioms: Axioms  # as expected

    @property
    def theorems(self) -> list[Theorem]:
        return [theorem for theory in self.theories for theorem in theory.theorems]


@click.command("prove", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False)
@option("--list", "listed", is_flag=True, help="Show what is proved, recheck nothing; needs no Coq.")
@option("--coqchk", is_flag=True, help="Let Coq's second, independent checker read the compiled files too.")
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@decorated(*TRACE)
@DEBUG
def prove_command(name: str | None, **values: Any) -> None:
    """Recheck the proofs with Coq, from nothing, and what they assume; with NAME one theorem or theory.

    With --trace, have the proved checker accept a schedule, operation by operation: a legal run that computes
    attention, its loads, and the lower bound that holds for them. The options below --trace say which.

    \b
    Examples: ioaware prove --list
              ioaware prove --trace --alg flash2 --N 6 --d 2 --tiles 3x2
    """
    _check_options(click.get_current_context(), name)
    if values["trace"]:
        prove_trace(values)
        return
    asked = _asked(name)
    if not values["as_json"] and (values["listed"] or name is not None):
        from .show_prove import show

        show(asked)
    if not values["listed"]:
        _recheck(asked, coqchk=values["coqchk"], as_json=values["as_json"])
    elif values["as_json"]:
        _print_json(asked, None)


def _check_options(ctx: click.Context, name: str | None) -> None:
    """Raises InputError: options of the proofs and of a trace together."""
    given = {p.name: p.opts[0] for p in ctx.command.params if p.name and _typed(ctx, p.name)}
    of_proofs = [option for option in ("listed", "coqchk") if option in given]
    of_traces = [option for option in given if option not in ("name", "listed", "coqchk", "as_json", "debug")]
    if "trace" in given and (name or of_proofs):
        what = name or given[of_proofs[0]]
        raise InputError(f"{what} is about the proofs, --trace about a schedule: give one of them")
    if "trace" not in given and of_traces:
        raise InputError(f"{given[of_traces[0]]} is about a schedule: give --trace too")


def _typed(ctx: click.Context, parameter: str) -> bool:
    return ctx.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _asked(name: str | None) -> Asked:
    """Raises InputError: an unknown name; VerificationError: the theories break a convention."""
    from ioaware_proofs import audit
    from ioaware_proofs.theory import Theorem, closure, find, load, root

    theories = load(root() / "theories")
    axioms = audit.expected(theories)
    if name is None:
        return Asked(None, theories, theories, axioms)
    by_name = {theory.name: theory for theory in theories}
    subject = find(theories, name)
    theory = by_name[subject.theory if isinstance(subject, Theorem) else subject.name]
    shown = theory._replace(theorems=(subject,)) if isinstance(subject, Theorem) else theory
    return Asked(subject, (shown,), closure(by_name, [theory.name]), axioms)


def _recheck(asked: Asked, *, coqchk: bool, as_json: bool) -> None:
    """Raises VerificationError: a proof fails, or rests on other axioms; Skipped: no Coq."""
    from ioaware_proofs import audit
    from ioaware_proofs.check import Recheck

    recheck = Recheck(asked.needed, asked.theorems, asked.axioms, coqchk=coqchk)
    steps: list[Step] = []
    since, ok = perf_counter(), False
    try:
        _progress(recheck, steps)
        audit.compare(recheck.axioms, asked.axioms)
        ok = True
    finally:  # interrupted or refused on the way: what is done is shown
        if as_json:
            complete = len(steps) == len(recheck)
            seconds = {step.name: round(step.seconds, 3) for step in steps}
            _print_json(asked, {"coq": recheck.version, "complete": complete, "ok": ok, "seconds": seconds})
        elif steps:
            from .show_prove import show_recheck

            show_recheck(asked, recheck, steps, perf_counter() - since, ok=ok)


def _progress(recheck: Recheck, steps: list[Step]) -> None:
    """Step by step, with a bar on a terminal's stderr."""
    import sys
    from contextlib import closing

    from rich.console import Console
    from rich.progress import Progress

    with (
        Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar,
        closing(iter(recheck)) as running,  # whatever happens here, no process and no folder is left behind
    ):
        task = bar.add_task("Coq", total=len(recheck))
        for step in running:
            steps.append(step)
            bar.update(task, description=f"{step.name} {step.seconds:.1f} s", advance=1)


def _print_json(asked: Asked, rechecked: dict[str, Any] | None) -> None:
    import json

    from ioaware_proofs.theory import as_dict

    from .. import __version__

    rows = [as_dict(theory, asked.axioms) for theory in asked.theories]
    click.echo(json.dumps({"schema": 1, "version": __version__, "rechecked": rechecked, "theories": rows}))
