"""The command line: thin, and the only place that prints. `ioaware` is the group, `simulate` its main command alone."""

from __future__ import annotations

from typing import ClassVar

import click

from .. import __version__
from .conventions import run
from .simulate import simulate


class Lazy(click.Group):
    """A group that imports a command only when it is asked for."""

    commands_of: ClassVar = {
        "accuracy": "accuracy",
        "bench": "bench",
        "cite": "lists",
        "claims": "claims",
        "completion": "lists",
        "config": "config",
        "fits": "fits",
        "list": "lists",
        "parallel": "parallel",
        "pipeline": "pipeline",
        "prove": "prove",
        "verify": "verify",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.commands_of])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands_of:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module

        module = import_module(f".{self.commands_of[cmd_name]}", __name__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(cls=Lazy, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", "-V", prog_name="ioaware")
@click.pass_context
def ioaware(ctx: click.Context) -> None:
    """What attention costs in bytes, why, and how far that is from the proved optimum."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


ioaware.add_command(simulate)


def main() -> None:
    """The script `ioaware`."""
    run(ioaware, "ioaware")


def simulate_main() -> None:
    """The script `simulate`."""
    run(simulate, "simulate")
