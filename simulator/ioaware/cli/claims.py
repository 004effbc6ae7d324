"""`claims`: what introductions to FlashAttention say, judged by numbers computed now."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import click

from ..errors import VerificationError
from .conventions import option
from .options import DEBUG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..claims.record import Judged

WIDE = "200"  # columns: no number is folded


@click.command("claims", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False, metavar="[NAME|NUMBER]")
@option("--check", is_flag=True, help="Run every command of a claim, and look for its numbers in what it prints.")
@option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@DEBUG
def claims_command(name: str | None, check: bool, as_json: bool, debug: bool) -> None:  # noqa: FBT001
    """Judge the sentences that introductions to FlashAttention repeat; with NAME one, with all its numbers.

    A verdict follows from numbers that are computed now. Example: ioaware claims scores-256mb
    """
    del debug
    from ..claims import CLAIMS, find

    judged = [claim.judge() for claim in (CLAIMS if name is None else (find(name),))]
    if not as_json:
        from .show_claims import show, show_one

        show(judged) if name is None else show_one(judged[0])
    missing = _missing(judged) if check else None
    if as_json:
        _print_json(judged, missing)
    if missing:
        raise VerificationError(f"these numbers are not in what the commands print: {'; '.join(missing)}")
    if check and not as_json:
        shown, commands = sum(len(j.shown) for j in judged), sum(len(j.claim.commands) for j in judged)
        click.echo(f"{shown} numbers found in what {commands} commands print")


def _missing(judged: Sequence[Judged]) -> list[str]:
    """Every "claim: number" that the claim's commands do not print."""
    from ..claims.check import missing

    printed = {j.claim.name: [printed_by(command) for command in j.claim.commands] for j in judged}
    return [f"{j.claim.name}: {name}" for j in judged for name in missing(j, printed[j.claim.name])]


def printed_by(command: str) -> str:
    """What a command prints where no option is set from outside. Raises VerificationError: it fails."""
    from click.testing import CliRunner

    from . import ioaware

    ours = {name: None for name in os.environ if name.startswith("IOAWARE_")}
    words = shlex.split(command)
    arguments = words[1:] if words[0] == "ioaware" else words
    done = CliRunner().invoke(ioaware, arguments, env={**ours, "COLUMNS": WIDE, "NO_COLOR": "1"}, standalone_mode=False)
    if done.exception:
        raise VerificationError(f"{command!r} fails: {done.exception}") from done.exception
    return done.stdout


def _print_json(judged: Sequence[Judged], missing: list[str] | None) -> None:
    import json

    from .. import __version__

    rows: list[dict[str, Any]] = [j.as_dict() for j in judged]
    click.echo(json.dumps({"schema": 1, "version": __version__, "claims": rows, "missing": missing}, allow_nan=False))
