"""Run the command line as a user does, in this process or in one of its own, far from the machine's own settings."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

import ioaware
from ioaware.cli import ioaware as group
from ioaware.cli.conventions import run
from ioaware.cli.simulate import simulate

COMMANDS = {"ioaware": group, "simulate": simulate}
FOREIGN = (  # what a user, a terminal or a continuous-integration service may have said about the output
    *("IOAWARE_", "_IOAWARE_", "_SIMULATE_"),
    *("TTY_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "PYTHONIOENCODING"),
)
HOMES = ("HOME", "XDG_CONFIG_HOME", "APPDATA", "USERPROFILE")


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def environment(folder, extra=None):
    """This process's environment without foreign settings, with a home folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    home = dict.fromkeys(HOMES, str(folder / "home"))
    # A process of its own must find the package under test, installed or not.
    paths = [str(Path(ioaware.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, **home, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


def written(folder, files):
    """The folder, with these files in it; None is a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    return folder


@contextlib.contextmanager
def inside(folder, argv, env):
    """This process as a fresh one in `folder` would find itself."""
    with (
        contextlib.chdir(folder),
        patch.dict(os.environ, environment(folder, env), clear=True),
        patch.object(sys, "argv", argv),
    ):
        yield


def call(folder, *args, env=None, script="ioaware"):
    """A command in this process: fast. An exception that the command line lets through fails the test."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        inside(folder, [script, *args], env),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        run(COMMANDS[script], script)
    return Result(stop.value.code or 0, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def spawn(folder, *args, env=None, python=("-m", "ioaware"), **streams):
    """A command in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [sys.executable, *python, *args]
    done = subprocess.run(command, cwd=folder, env=environment(folder, env), check=False, timeout=60, **streams)
    return Result(done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode())
