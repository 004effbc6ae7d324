"""ncu and compute-sanitizer without a GPU: scripts that write a log that is given, and remember how they were called.

What they print is made by hand after NVIDIA's manuals: no GPU has printed it.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from ioaware_kernels.counters.metrics import metrics_of

SCRIPT = """#!{python} -ES
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
(here / "{name}.called").write_text("\\n".join(sys.argv[1:]), encoding="utf-8")
log = here / "{name}.log"
if "--query-metrics" in sys.argv:
    sys.exit(print((here / "known").read_text()) if (here / "known").exists() else 1)
if log.exists():
    pathlib.Path(sys.argv[sys.argv.index("--log-file") + 1]).write_bytes(log.read_bytes())
print({out!r})
print({err!r}, file=sys.stderr)
sys.stdout.flush()
time.sleep({seconds})
sys.exit({code})
"""


def tool(folder, name, log=None, out="", err="", code=0, seconds=0):
    """An executable of that name in a folder."""
    path = Path(folder, name)
    path.write_text(
        SCRIPT.format(python=sys.executable, name=name, out=out, err=err, code=code, seconds=seconds), encoding="utf-8"
    )
    path.chmod(0o755)
    if log is not None:
        Path(folder, f"{name}.log").write_text(log, encoding="utf-8")
    return path


def called(folder, name):
    """The arguments of its last call."""
    return Path(folder, f"{name}.called").read_text(encoding="utf-8").split("\n")


IDENTITY = (
    "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size",
    "Device", "CC",
)  # fmt: skip
UNITS = {"bytes": "byte", "sectors": "sector", "requests": "request", "ns": "ns", "cycles": "cycle", "ops": ""}


def raw_page(chip, launches, units=UNITS):
    """`ncu --csv --page raw`: a row per launch of (kernel, {quantity: number or text}), 0 where nothing is given."""
    metrics = metrics_of(chip)
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow([*IDENTITY, *metrics.values()])
    table.writerow([""] * len(IDENTITY) + [units.get(quantity.rpartition("_")[2], "") for quantity in metrics])
    for n, (kernel, counts) in enumerate(launches):
        cells = [counts.get(quantity, 0) for quantity in metrics]
        who = (n, 4711, "python3.11", "127.0.0.1", kernel, 1, 7, "(128, 1, 1)", "(4, 8, 1)", 0, "8.0")
        table.writerow([*who, *(cell if isinstance(cell, str) else f"{cell:,}" for cell in cells)])
    return f"==PROF== Connected to process 4711 (/usr/bin/python3.11)\n{out.getvalue()}"
