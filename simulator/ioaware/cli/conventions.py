"""What every command shares: one-sentence errors, exit codes, environment variables and configuration files.

Exit codes: 0 done; 1 a verification failed; 2 wrong usage; 77 skipped; 130 interrupted; 141 the reader went away.
Precedence: flag, IOAWARE_* environment, ./ioaware.toml, the user's config file, built-in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..errors import InputError, IoawareError, closest

Function = TypeVar("Function", bound=Callable[..., Any])


def option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    """A click option that also reads IOAWARE_NAME."""
    variable = "IOAWARE_" + names[-1].lstrip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


def run(command: click.Command, name: str) -> None:
    """Run a command with the house's manners and exit."""
    try:
        defaults = load_config()
        result = command.main(prog_name=name, standalone_mode=False, default_map=defaults)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except IoawareError as e:
        _refuse(str(e), e.exit_code)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        _refuse(e.format_message(), e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _refuse("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _refuse(message: str, code: int) -> None:
    if "--debug" in sys.argv:
        raise
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


def config_files() -> list[str]:
    """The configuration files that exist, the strongest first."""
    found = ["ioaware.toml", os.path.join(click.get_app_dir("ioaware"), "config.toml")]
    return [path for path in found if os.path.isfile(path)]


def load_config() -> dict[str, Any]:
    """click's default map from the configuration files: keys are option names, as in `sram = "192KB"`."""
    values: dict[str, Any] = {}
    for path in reversed(config_files()):
        values |= read_config(path)
    return {"simulate": values, "fits": values, "config": values, **values} if values else {}


def read_config(path: str) -> dict[str, Any]:
    """One configuration file; an unknown key gets the nearest option."""
    from .. import tables
    from .simulate import simulate

    known = {p.opts[-1].lstrip("-"): p.name or "" for p in simulate.params}
    table = tables.read(path, "configuration")
    for key in table:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; did you mean {closest(key, known)!r}?")
    return {known[key]: _texts(value) for key, value in table.items()}


def _texts(value: object) -> Any:
    """Options read text, so that a file's 8192 and a flag's 8192 are the same."""
    if isinstance(value, (bool, list)):
        return value
    return str(value)
