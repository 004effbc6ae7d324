"""Coq's programs: whether they are there, running several at once, and what their errors say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ioaware.errors import Skipped, VerificationError

DEBIAN = "coq libcoq-coquelicot libcoq-flocq libcoq-interval ocaml"
FOLDER = ("-Q", ".", "IOAware")  # the working folder's logical name
COQC = ("coqc", "-q", "-w", "-all", *FOLDER)  # no user's settings, no warnings
ERROR = re.compile(r'File "\./(\w+)\.v", line (\d+), characters [-\d]+:\s+(?:Error:)?(.*)', re.S)
NO_LIBRARY = re.compile(r"Cannot find a physical path bound to logical path\s+(.*)\.", re.S)
NAP_S = 0.005  # between two looks at what is running
LONGEST = 400  # characters of Coq's message: a goal can fill pages


class Step(NamedTuple):
    """What is done, and how long it took."""

    name: str
    seconds: float


class Running(NamedTuple):
    """A file that is being compiled."""

    process: subprocess.Popen[bytes]
    log: Path
    since: float


def require(program: str) -> None:
    """Raises Skipped where the program is not on PATH."""
    if shutil.which(program) is None:
        raise Skipped(
            f"{program} is not on PATH: the proofs are checked by Coq 8.16 or later with its libraries Coquelicot, "
            f"Flocq and Interval; on Debian: apt install {DEBIAN}"
        )


def version() -> str:
    """Coq's version, like 8.16.1. Raises Skipped."""
    require("coqc")
    said = subprocess.run(["coqc", "--print-version"], capture_output=True, text=True, check=False).stdout
    return (said.split() or ["of unknown version"])[0]


def compile_all(needs: Mapping[str, Collection[str]], folder: Path) -> Iterator[Step]:
    """Compile the folder's files of these names, one process per core, each after those that it needs.

    Raises VerificationError: Coq refuses a file; Skipped: a library of Coq's is missing. No process is left behind.
    """
    waiting = {name: set(before) for name, before in needs.items()}
    running: dict[str, Running] = {}
    try:
        while waiting or running:
            ready = [name for name, before in waiting.items() if not before]
            for name in ready[: (os.cpu_count() or 1) - len(running)]:
                del waiting[name]
                running[name] = _start(name, folder)
            ended = [name for name, file in running.items() if file.process.poll() is not None]
            for name in ended:
                file = running.pop(name)
                step = Step(name, time.perf_counter() - file.since)
                _judge(name, file.process.returncode, file.log.read_text(encoding="utf-8", errors="replace"))
                for before in waiting.values():
                    before.discard(name)
                yield step
            if not ended:
                time.sleep(NAP_S)
    finally:
        for file in running.values():
            file.process.kill()
            file.process.wait()


def run(command: Sequence[str], folder: Path) -> str:
    """What one of Coq's programs prints. Raises as `compile_all`."""
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    _judge(command[0], done.returncode, done.stdout)
    return done.stdout


def _start(name: str, folder: Path) -> Running:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COQC, f"{name}.v"], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    return Running(process, log, time.perf_counter())


def _judge(what: str, code: int, said: str) -> None:
    """Raises Skipped, or VerificationError with file, line and message."""
    if code == 0:
        return
    found = ERROR.search(said)
    message = textwrap.shorten(found[3] if found else said, LONGEST, placeholder=" ...")
    library = NO_LIBRARY.search(message)
    if library and "IOAware" not in library[1]:
        raise Skipped(f"Coq's library {library[1]} is not on this machine; on Debian: apt install {DEBIAN}")
    where = f"{found[1]}.v:{found[2]}" if found else f"{what} ends with code {code}"
    raise VerificationError(f"{where}: Coq says: {message}")
