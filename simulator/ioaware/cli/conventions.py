"""What every command shares: one-sentence errors, exit codes, environment variables and configuration files.

Exit codes: 0 done; 1 a verification failed; 2 wrong usage; 70 a defect of ours; 74 the output cannot be written;
77 skipped; 130 interrupted; 141 the reader went away.
Precedence: flag, IOAWARE_* environment, ./ioaware.toml, the user's config file, built-in.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..errors import InputError, IoawareError, closest

Function = TypeVar("Function", bound=Callable[..., Any])


def option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    """A click option that also reads IOAWARE_NAME, and refuses an empty text."""
    flag = next(name for name in names if name.startswith("--"))
    variable = "IOAWARE_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, callback=_not_empty, **attributes)


def _not_empty(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    del ctx
    if value == "" or (isinstance(value, tuple) and "" in value):
        raise InputError(f"{parameter.opts[-1]} is empty; leave it out or give a value")
    return value


def run(command: click.Command, name: str) -> None:
    """Run a command with the house's manners and exit."""
    gc.disable()  # a command ends before its garbage matters, and looking for it would cost every start 4 ms
    arguments = sys.argv[1:]
    if sys.stdout is None:  # closed by the caller: there is nobody to print to
        sys.stdout = io.StringIO()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII terminal gets ? instead of a traceback
    if os.environ.get(f"_{name.upper()}_COMPLETE"):
        command.main(arguments, prog_name=name)
    try:
        with command.make_context(name, arguments, default_map=_defaults(arguments)) as context:
            result = command.invoke(context)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (Exception, KeyboardInterrupt) as e:
        if "--debug" in arguments or os.environ.get("IOAWARE_DEBUG"):
            raise
        message, code = _told(e)
        click.echo(f"Error: {' '.join(message.split())}", err=True)
        sys.exit(code)


def _told(e: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of an exception."""
    match e:
        case IoawareError():
            return str(e), e.exit_code
        case click.ClickException():
            return e.format_message(), e.exit_code
        case KeyboardInterrupt() | click.Abort():
            return "interrupted", 130
        case OSError():
            return f"the output cannot be written: {e.strerror}", 74
    return f"this is a defect, {type(e).__name__}: {e}; --debug shows where", 70


def config_files() -> list[str]:
    """The configuration files that exist, the strongest first."""
    found = ["ioaware.toml", os.path.join(click.get_app_dir("ioaware"), "config.toml")]
    return [path for path in found if os.path.isfile(path)]


INFORMATIVE = ("-h", "--help", "-V", "--version")


def _defaults(arguments: list[str]) -> dict[str, Any]:
    """click's default map from the configuration files; help is given even where they are broken."""
    values: dict[str, Any] = {}
    try:
        for path in reversed(config_files()):
            values |= read_config(path)
    except IoawareError:
        if not set(arguments) & set(INFORMATIVE):
            raise
    return {**dict.fromkeys(("simulate", "fits", "cite", "config", "parallel"), values), **values} if values else {}


def read_config(path: str) -> dict[str, Any]:
    """One configuration file: keys are option names, as in `sram = "192KB"`; an unknown key gets the nearest option."""
    from .. import tables
    from .simulate import simulate

    known = {p.opts[-1].lstrip("-"): p for p in simulate.params if p.name not in ("debug", "version")}
    table = tables.read(path, "configuration")
    for key in table:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; did you mean {closest(key, known)!r}?")
    return {known[key].name or key: _texts(value, known[key]) for key, value in table.items()}


def _texts(value: object, parameter: click.Parameter) -> Any:
    """Options read text, so that a file's 8192 and a flag's 8192 are the same."""
    if isinstance(value, bool):
        return value
    if getattr(parameter, "multiple", False):
        return [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return str(value)
