"""Nsight Compute as a subprocess: what the hardware counted in every launch of a worker's jobs.

`ncu --csv --page raw` prints one row per launch under a row of metric names and a row of units. It runs a launch once
per group of metrics and restores the memory in between, so that every run sees the same inputs.
Source: Nsight Compute CLI manual, sections Output Pages, Metrics and Units, and Command Line Options, Profile.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ioaware.errors import Skipped, VerificationError

from . import tools, worker
from .metrics import metrics_of
from .worker import Job

PLACES = ("/opt/nvidia/nsight-compute/*/ncu",)
QUERY_S = 30.0
CACHES = {"cold": "all", "warm": "none"}  # flushed before every run of a launch, or left as they are
PREFIXES = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SECONDS = {"n": 1, "u": 10**3, "m": 10**6, "": 10**9}  # in nanoseconds
FORBIDDEN = "ERR_NVGPUCTRPERM"
ADMINISTRATOR = (
    "ncu may not read hardware counters here: an administrator must allow it, by running as root or with the driver's "
    "module option NVreg_RestrictProfilingToAdminUsers=0"
)


class Reading(NamedTuple):
    """A number as ncu printed it: exact, or `within` half a unit of its last place if it was scaled."""

    amount: int
    within: int = 0


class Counted(NamedTuple):
    """One launch: the function's name in CUDA, and every quantity of the chip; None where ncu had no number."""

    entry: str
    counts: dict[str, Reading | None]


def measure(job: Job, chip: str, caches: str, limit_s: float) -> list[Counted]:
    """Count every launch of a job, in order, with `caches` "cold" or "warm".

    Raises Skipped: no ncu, no permission, it cannot profile this GPU, or the time is up; VerificationError: a kernel
    failed, or other kernels were launched than the job has.
    """
    program, entries = tools.find("ncu", PLACES), [launch.entry for launch in job.implementation.launches]
    metrics = known(program, chip)
    with tempfile.TemporaryDirectory(prefix="ioaware-") as folder:
        file, log = Path(folder, "jobs.json"), Path(folder, "ncu.csv")
        worker.write([job], file)
        command = [program, *_options(metrics, caches, entries, log), *worker.command(file)]
        finished = tools.run(command, limit_s, worker.environment())
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    _refuse(finished, text, limit_s)
    counted = parse(text, metrics)
    if (seen := [one.entry for one in counted]) != entries:
        raise VerificationError(f"launches of {', '.join(entries)} were expected, ncu saw {', '.join(seen) or 'none'}")
    nothing = dict.fromkeys(metrics_of(chip))
    return [one._replace(counts={**nothing, **one.counts}) for one in counted]


@cache
def known(program: str, chip: str) -> dict[str, str]:
    """The chip's metrics that this version of ncu knows: it would refuse all of them for one that is newer."""
    metrics = metrics_of(chip)
    said = tools.run([program, "--query-metrics", "--chips", chip.lower()], QUERY_S).out
    listed = {line.split()[0] for line in said.splitlines() if line.strip()}
    found = {quantity: metric for quantity, metric in metrics.items() if metric.rpartition(".")[0] in listed}
    return found if "global_bytes" in found else metrics  # without that one it was no list of this chip's metrics


def _options(metrics: Mapping[str, str], caches: str, entries: Sequence[str], log: Path) -> list[str]:
    return [
        "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log), "--target-processes", "all",
        "--clock-control", "none", "--cache-control", CACHES[caches],
        "--kernel-name", f"regex:^({'|'.join(map(re.escape, dict.fromkeys(entries)))})$",
        "--metrics", ",".join(dict.fromkeys(metrics.values())),
    ]  # fmt: skip


def _refuse(finished: tools.Finished, log: str, limit_s: float) -> None:
    """What went wrong, if something did."""
    said = f"{log}\n{finished.out}\n{finished.err}"
    if FORBIDDEN in said:
        raise Skipped(ADMINISTRATOR)
    if finished.code is None:
        raise Skipped(f"ncu was stopped after {limit_s:.0f} s")
    errors = re.findall(r"^==ERROR== (.*)$", said, re.MULTILINE)
    own = [line for line in errors if "application returned an error" not in line]
    if own or (finished.code and not errors):
        raise Skipped(f"ncu cannot profile here: {[*own, f'exit code {finished.code}'][0]}")
    if errors:
        last = finished.err.strip().splitlines() or errors
        raise VerificationError(f"a kernel failed under ncu: {last[-1]}")


# ------------------------------------------------------------------------------------------------ reading
def parse(text: str, metrics: Mapping[str, str]) -> list[Counted]:
    """The launches in a raw page. Raises VerificationError: there is no such table, or a metric has no column."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("==")]
    start = next((n for n, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise VerificationError("ncu printed no table of launches")
    header, units, *rows = csv.reader(lines[start:])
    column = {name: n for n, name in enumerate(header)}
    missing = [name for name in ("Kernel Name", *metrics.values()) if name not in column]
    if missing:
        raise VerificationError(f"ncu's table has no column {missing[0]}")
    return [
        Counted(
            row[column["Kernel Name"]].partition("(")[0],
            {quantity: reading(row[column[m]], units[column[m]]) for quantity, m in metrics.items()},
        )
        for row in rows
    ]


def reading(text: str, unit: str) -> Reading | None:
    """A number in its unit, "1,234" of "byte" or "1.05" of "Mbyte", times in nanoseconds; None for "n/a"."""
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    scale, place = _scale(unit), number.as_tuple().exponent
    assert isinstance(place, int)
    is_exact = scale == 1 and number == int(number)
    return Reading(round(number * scale), 0 if is_exact else max(1, round(scale * Decimal(10) ** place / 2)))


def _scale(unit: str) -> int:
    """Nanoseconds in a unit of time, else how many a prefix stands for: 1,000 in Kbyte or Ksector."""
    if found := re.fullmatch(r"([num]?)(s|second)", unit):
        return SECONDS[found[1]]
    found = re.match(r"([KMGT])[a-z]", unit)
    return PREFIXES[found[1]] if found else 1
