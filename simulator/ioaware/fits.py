"""fits: which tiles fit where, forward and backward, with the ledger itemised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .algorithms import Algorithm
from .device import Device
from .problem import AttentionProblem
from .program.recorder import record
from .readers.evaluate import TileSizes
from .readers.onchip import Entry, OnChip, ledger, on_chip
from .schedule import Choice, Schedule

SIDES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Fit:
    """One tile on one device: what a thread block holds, and whether that fits."""

    tiles: TileSizes
    held: OnChip
    sram: bool  # everything fits into the SRAM: the papers' one-level model
    placed: bool | None  # loaded tiles into shared memory, computed values into registers; None: sizes unknown


@dataclass(frozen=True)
class PassFits:
    """All tiles of one pass of an algorithm, and the ledger of the best one."""

    algorithm: str
    direction: str
    schedule: Schedule
    where: tuple[str, int]  # kernel and line of the high-water mark
    ledger: tuple[Entry, ...]
    fits: tuple[Fit, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "best": {"tile_q": self.schedule.tiles.q, "tile_kv": self.schedule.tiles.kv, "binds": self.schedule.binds},
            "ledger": [entry._asdict() for entry in self.ledger],
            "tiles": [
                {
                    "tile_q": f.tiles.q, "tile_kv": f.tiles.kv, "fits": f.sram, "fits_device": f.placed,
                    "sram_peak_bytes": f.held.total, "shared_peak_bytes": f.held.loaded,
                    "register_peak_bytes": f.held.computed,
                }
                for f in self.fits
            ],
        }  # fmt: skip


def fits(algorithms: Iterable[Algorithm], problem: AttentionProblem, device: Device) -> list[PassFits]:
    """The fits of every tiled algorithm in the problem's passes. Raises InputError where not even the smallest fits."""
    tiled = [a for a in algorithms if not a.library_kernels]
    return [_pass(a, direction, problem, device) for a in tiled for direction in problem.passes]


def _pass(algorithm: Algorithm, direction: str, problem: AttentionProblem, device: Device) -> PassFits:
    program = record(algorithm.text(direction), problem.features)
    schedule = Choice().schedule(algorithm, program, problem, device)
    kernel, line, entries = ledger(program, problem, schedule.tiles)
    grid = (TileSizes(q, kv) for q in SIDES for kv in SIDES)
    held = ((tiles, on_chip(program, problem, tiles)) for tiles in grid)
    found = tuple(Fit(t, h, h.total <= device.sram_bytes, device.holds(h.loaded, h.computed)) for t, h in held)
    return PassFits(algorithm.name, direction, schedule, (kernel, line), tuple(entries), found)
