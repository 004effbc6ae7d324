"""metrics.toml: which metric of Nsight Compute counts which quantity, on which chip."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from ioaware import tables
from ioaware.errors import Skipped, unknown

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics.toml")


def chips() -> dict[str, str]:
    """The chip of each compute capability, {"9.0": "GH100", ...}."""
    return dict(_table()["chips"])


def chip_of(capability: str) -> str:
    """The chip of a compute capability such as "9.0". Raises Skipped: no metrics are known for it."""
    if capability not in chips():
        known = ", ".join(chips())
        raise Skipped(f"no hardware counters are known for compute capability {capability}, only for {known}")
    return chips()[capability]


def metrics_of(chip: str) -> dict[str, str]:
    """Metric by quantity, what the chip lacks left out. Raises InputError: not a chip of the table."""
    known = chips().values()
    if chip not in known:
        raise unknown("chip", chip, known, f"known: {', '.join(known)}")
    return {**_table()["all"], **_table().get(chip, {})}


@cache
def _table() -> dict[str, Any]:
    return tables.read(FILE, "metric")
