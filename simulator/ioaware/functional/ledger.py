"""What calls cost in bytes: a ledger is handed to a call, which enters the problem that it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

from ..device import Device
from ..errors import InputError
from ..problem import AttentionProblem
from ..report import Report, Totals
from ..simulator import AnyAlgorithm, as_algorithm, choose, describe, simulate
from ..traffic import Traffic


class Entry(NamedTuple):
    """One call: the function, and what `simulate` reports of its problem."""

    function: str
    report: Report


@dataclass
class Ledger:
    """`flash_attn_func(q, k, v, ledger=ledger)` enters what the call costs on `device` with `algorithm`.

    `report` is what `simulate` returns for the last call's problem; all calls are in `entries`, their sums in `totals`.
    The arithmetic of a call does not depend on its ledger. Raises InputError as `simulate` does, before the call.
    """

    device: str | Device = "a100-sxm-40gb"
    algorithm: AnyAlgorithm = "flash2"
    tiles: str = "best"
    entries: list[Entry] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.device, self.algorithm = describe(self.device), as_algorithm(self.algorithm)
        choose(self.tiles, None)

    def enter(self, function: str, problem: AttentionProblem) -> None:
        """Simulate the problem of a call, and add it; a problem entered before is not simulated again."""
        known = next((e.report for e in self.entries if e.report.problem == problem), None)
        report = known or simulate(problem, self.device, [self.algorithm], tiles=self.tiles)
        self.entries.append(Entry(function, report))

    @property
    def report(self) -> Report:
        """What `simulate` returns for the last call."""
        return self._entered()[-1].report

    @property
    def totals(self) -> Totals:
        """Flops, exponentials, bytes of every level, the lower bound and time, summed over all calls."""
        return reduce(Totals.__add__, (next(iter(e.report.algorithms.values())).totals for e in self._entered()))

    @property
    def traffic(self) -> Traffic:
        """Issued bytes of each tensor, summed over all calls."""
        return self.totals.levels["issued"]

    @property
    def total_bytes(self) -> int:
        """Issued bytes, read and written, of all calls."""
        return self.traffic.total_bytes

    def _entered(self) -> list[Entry]:
        if not self.entries:
            raise InputError("the ledger is empty: hand it to a call, as ledger=")
        return self.entries
