"""compute-sanitizer as a second opinion: NVIDIA's own checkers on the same launches, on a GPU.

Where both look, they must agree with the executor; each sees things that the other does not (LIMITS).
Source: Compute Sanitizer manual, sections Memcheck, Racecheck, Initcheck, Synccheck.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ioaware.errors import Skipped

from . import tools, worker
from .worker import Job

LIMITS = {
    "memcheck": "accesses outside allocations or not aligned; a stray access into another tensor's memory is none",
    "racecheck": "hazards in shared memory between threads; tensor copies by TMA and what wgmma reads are not watched, "
    "and cp.async.bulk in a loop gives false alarms",
    "synccheck": "barriers that part of a block misses",
    "initcheck": "reads of global memory that nobody wrote; the tensors here are copied whole, so only scratch counts",
}
SHOWN = 3  # messages
SUMMARY = re.compile(r"^=+ ERROR SUMMARY: ([\d,]+) errors?", re.MULTILINE)
HAZARDS = re.compile(r"^=+ RACECHECK SUMMARY: .*\(([\d,]+) errors?, ([\d,]+) warnings?\)", re.MULTILINE)
MESSAGE = re.compile(r"^=+ (?!COMPUTE-SANITIZER|.*SUMMARY:)(\S.*(?:\n=+ {5}(?:at|and|by) .*)*)", re.MULTILINE)


class Opinion(NamedTuple):
    """What one checker found: how many errors and warnings, and the first messages."""

    tool: str
    errors: int
    warnings: int
    messages: list[str]

    @property
    def is_fine(self) -> bool:
        """Whether it has nothing to say."""
        return not self.errors and not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**self._asdict(), "sees": LIMITS[self.tool]}


def check(jobs: list[Job], tool: str, limit_s: float = 120.0) -> Opinion:
    """One checker's opinion of the jobs' launches.

    tool: a key of LIMITS. Raises Skipped: no compute-sanitizer, it gives no verdict here, or the time is up.
    """
    program = tools.find("compute-sanitizer")
    with tempfile.TemporaryDirectory(prefix="ioaware-") as folder:
        file, log = Path(folder, "jobs.json"), Path(folder, "sanitizer.log")
        worker.write(jobs, file)
        command = [program, "--tool", tool, "--log-file", str(log), *worker.command(file)]
        finished = tools.run(command, limit_s, worker.environment())
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if finished.code is None:
        raise Skipped(f"compute-sanitizer {tool} was stopped after {limit_s:.0f} s")
    opinion = parse(text, tool)
    if opinion is None:
        said = [*finished.err.strip().splitlines()[-1:], *_messages(text), f"exit code {finished.code}"]
        raise Skipped(f"compute-sanitizer {tool} gives no verdict here: {said[0]}")
    return opinion


def parse(text: str, tool: str) -> Opinion | None:
    """The opinion in a log; None where it has no summary."""
    found = (HAZARDS if tool == "racecheck" else SUMMARY).search(text)
    if not found:
        return None
    errors, *warnings = (int(number.replace(",", "")) for number in found.groups())
    return Opinion(tool, errors, sum(warnings), _messages(text))


def _messages(text: str) -> list[str]:
    """The first messages, each with where it happened, on one line."""
    return [re.sub(r"\s*\n=+ +", " ", message) for message in MESSAGE.findall(text)[:SHOWN]]
