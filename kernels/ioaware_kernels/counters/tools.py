"""NVIDIA's command-line tools: where they lie, and running one for a limited time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ioaware.errors import Skipped

TOOLKITS = ("CUDA_PATH", "CUDA_HOME")
USUAL = ("/usr/local/cuda", "/opt/cuda")
GRACE_S = 10.0  # to end by itself after an interrupt: what it has done so far is said then


def find(name: str, places: Sequence[str] = ()) -> str:
    """The tool's path: on PATH, in a CUDA toolkit, or in `places` (patterns), the newest first. Raises Skipped."""
    roots = [*filter(None, map(os.environ.get, TOOLKITS)), *USUAL]
    inside = [Path(root, folder, name) for root in roots for folder in ("bin", name)]
    elsewhere = [path for place in places for path in sorted(Path("/").glob(place.lstrip("/")), reverse=True)]
    found = shutil.which(name) or next((str(path) for path in (*inside, *elsewhere) if os.access(path, os.X_OK)), None)
    if not found:
        raise Skipped(f"{name} is neither on PATH nor in a CUDA toolkit; it comes with the toolkit")
    return found


class Finished(NamedTuple):
    """All that a process said, and its exit code: None where it was stopped at the limit."""

    out: str
    err: str
    code: int | None


def run(command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command for at most that long; then it and all that it started are interrupted, and killed if need be."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        return Finished(*process.communicate(timeout=limit_s), process.returncode)
    except subprocess.TimeoutExpired:
        return Finished(*_interrupted(process), None)
    except BaseException:
        _tell(process, signal.SIGKILL)
        raise


def _interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    _tell(process, signal.SIGINT)
    try:
        return process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        _tell(process, signal.SIGKILL)
        return process.communicate()


def _tell(process: subprocess.Popen[str], what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, what)
