"""`config`: the values that `simulate` would use, and where each comes from."""

from __future__ import annotations

import click
from click.core import ParameterSource

from .conventions import config_files
from .options import BUILT_IN, DEBUG
from .simulate import simulate

ORIGINS = {
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "configuration file",
    ParameterSource.DEFAULT: "built-in",
}


@click.command("config")
@DEBUG
@click.pass_context
def config_command(ctx: click.Context, debug: bool) -> None:  # noqa: FBT001
    """Print the defaults of simulate and where each comes from: IOAWARE_*, ./ioaware.toml, the user's file."""
    del debug
    for path in config_files():
        click.echo(f"# {path}")
    with simulate.make_context("simulate", [], parent=ctx.parent) as inner:
        for parameter in simulate.params:
            if parameter.name not in inner.params or parameter.name in ("debug", "version"):
                continue
            source = inner.get_parameter_source(parameter.name)
            origin = ORIGINS.get(source, "built-in") if source else "built-in"
            value = inner.params[parameter.name]
            shown = BUILT_IN.get(parameter.name, "none") if value in (None, ()) else value
            click.echo(f"{parameter.opts[-1].lstrip('-'):<12} {shown!s:<24} {origin}")
