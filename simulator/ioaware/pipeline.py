"""What a kernel's schedule changes besides traffic: who does what, whether a tile fits, which engine a tile waits for.

`pipeline("flash3", problem, device)` puts a design of `pipelines/` on a device: ledgers of shared memory, registers and
tensor memory against their limits, thread blocks per SM, and how many cycles a tile keeps each engine of an SM busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from .device import Device
from .errors import InputError, refuse, unknown
from .pipelines import flash1, flash2, flash3, flash4
from .pipelines.design import Design, Entry, Family, Tile
from .problem import AttentionProblem
from .readers.evaluate import TileSizes
from .shipped import shipped_sizes

FAMILIES: Mapping[str, Family] = {
    "flash1": flash1.FAMILY, "flash2": flash2.FAMILY, "flash3": flash3.FAMILY, "flash4": flash4.FAMILY,
}  # fmt: skip
RESERVED = 1024  # bytes of shared memory that the system takes per block since compute capability 8.0


class Ledger(NamedTuple):
    """What lies in one memory, in its unit, and how much the memory has."""

    memory: str
    unit: str
    entries: tuple[Entry, ...]
    limit: int

    @property
    def total(self) -> int:
        """All entries."""
        return sum(e.size for e in self.entries)

    @property
    def full(self) -> Fraction:
        """How much of the memory is used."""
        return Fraction(self.total, self.limit)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pass of a kernel on a device; cycles are those of one SM's engine for one tile of one thread block."""

    name: str
    direction: str
    tiles: TileSizes
    design: Design
    ledgers: tuple[Ledger, ...]
    engines: Mapping[str, float]  # cycles; an engine whose rate the device does not know is left out
    emulating: Mapping[str, float]  # the same, with the design's share of exponentials on the fp32 units
    blocks_per_sm: int  # at most: the compiler may take more registers than the ledger has

    @property
    def binds(self) -> Ledger:
        """The fullest memory: the one that a larger tile would not fit first, or that does not hold this one."""
        return max(self.ledgers, key=lambda ledger: ledger.full)

    @property
    def fits(self) -> bool:
        """Whether every memory holds its ledger."""
        return self.binds.full <= 1

    @property
    def bound_by(self) -> str:
        """The engine that is busy longest."""
        return max(self.emulating, key=lambda name: self.emulating[name])

    @property
    def cycles(self) -> float:
        """Least cycles of a tile: the busiest engine's, or, where nothing overlaps, products and then exponentials."""
        busy = self.emulating
        if any(overlap.together for overlap in self.design.overlap):
            return max(busy.values())
        in_turns = sum(busy.get(name, 0.0) for name in ("matmul", "exp", "fma"))
        return max(in_turns, busy.get("sram", 0.0))

    @property
    def matmul_share(self) -> float:
        """The most that the matrix units can be busy: what of their peak this schedule can reach."""
        return self.emulating.get("matmul", 0.0) / self.cycles

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        design = self.design
        return {
            "kernel": self.name,
            "direction": self.direction,
            "tile_q": self.tiles.q,
            "tile_kv": self.tiles.kv,
            "fits": self.fits,
            "binds": self.binds.memory,
            "blocks_per_sm": self.blocks_per_sm,
            "threads": design.threads,
            "block_registers": design.block_registers,
            "cluster": design.cluster,
            "stages": dict(design.stages),
            "roles": [role._asdict() for role in design.roles],
            "ledgers": {
                ledger.memory: {
                    "unit": ledger.unit,
                    "entries": [e._asdict() for e in ledger.entries],
                    "total": ledger.total,
                    "limit": ledger.limit,
                }
                for ledger in self.ledgers
            },
            "products": [p._asdict() for p in design.products],
            "staged": [e._asdict() for e in design.staged],
            "cycles": {"engines": dict(self.engines), "emulating": dict(self.emulating), "tile": self.cycles},
            "bound_by": self.bound_by,
            "matmul_share": self.matmul_share,
            "emulated_exps": float(design.emulated),
            "overlap": [o._asdict() for o in design.overlap],
            "atomic_bytes": design.atomic_bytes,
            "differs": list(design.differs),
        }


def find(name: str) -> Family:
    """The kernels of that name; raises InputError with the nearest name."""
    if name not in FAMILIES:
        raise unknown("kernel", name, FAMILIES, f"known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def pipeline(name: str, problem: AttentionProblem, device: Device, tiles: TileSizes | None = None) -> Pipeline:
    """The kernel `name` (flash1, flash2, flash3, flash4) with its shipped tiles, or with `tiles`.

    `problem` gives direction ("fwd" or "bwd"), head dims, dtype and mask; its lengths only say whether tiles pair up.
    Raises InputError where the kernel does not run: device, direction, dtype, head dims, tiles.
    """
    family = find(name)
    _check(name, family, problem, device)
    backward = problem.direction == "bwd"
    if tiles is None:
        tiles = shipped_sizes(name, problem, device, backward=backward)
    else:
        _check_tiles(tiles, family.granules[backward])
    build = family.backward if backward else family.forward
    assert build is not None
    head_dim, value_dim = (next(h for h in family.head_dims if h >= d) for d in _dims(problem))
    design = build(Tile(tiles.q, tiles.kv, head_dim, value_dim, problem.itemsize("io")), problem, device)
    ledgers = _ledgers(design, device)
    return Pipeline(
        name=name,
        direction=problem.direction,
        tiles=tiles,
        design=design,
        ledgers=ledgers,
        engines=_engines(design, problem, device, Fraction(0)),
        emulating=_engines(design, problem, device, design.emulated),
        blocks_per_sm=_blocks(design, ledgers, device),
    )


def _dims(problem: AttentionProblem) -> tuple[int, int]:
    return problem.head_dim, problem.value_dim or 1


def _check(name: str, family: Family, problem: AttentionProblem, device: Device) -> None:
    least, below = family.capability
    found = tuple(int(part) for part in device.compute_capability.split(".") if part)
    if not least <= found < below:
        rule = f"{name} is compiled for compute capability {_dotted(least)} to below {_dotted(below)}"
        raise refuse("device", device.name, rule, family.device)
    for field in ("shared_bytes", "register_bytes"):
        if getattr(device, field) is None:
            raise InputError(f"device {device.name!r} gives no {field}; give it, like --set {field}=...")
    if problem.direction not in ("fwd", "bwd"):
        raise refuse("direction", problem.direction, "a pass by itself has a pipeline: fwd or bwd", "fwd")
    if problem.direction == "bwd" and family.backward is None:
        raise refuse("direction", "bwd", f"of {name} only the forward pass is described", "fwd")
    if problem.dtype not in family.dtypes or (problem.dtype.startswith("fp8") and problem.direction == "bwd"):
        raise refuse("dtype", problem.dtype, f"{name} multiplies {', '.join(family.dtypes)} (backward: no fp8)", "fp16")
    for field, dim in zip(("head_dim", "value_dim"), _dims(problem), strict=True):
        if dim > family.head_dims[-1]:
            raise refuse(field, dim, f"{name} has kernels up to {family.head_dims[-1]}", family.head_dims[-1])
    if problem.value_dim != problem.head_dim and not family.own_value_dim:
        raise refuse("value_dim", problem.value_dim, f"{name} has V as wide as K", problem.head_dim)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _check_tiles(tiles: TileSizes, granule: tuple[int, int]) -> None:
    nearest = TileSizes(*(max(g, round(size / g) * g) for size, g in zip((tiles.q, tiles.kv), granule, strict=True)))
    if (nearest.q, nearest.kv) != (tiles.q, tiles.kv):
        raise refuse("tiles", tiles, f"this kernel's tiles are multiples of {granule[0]}x{granule[1]}", nearest)


def _ledgers(design: Design, device: Device) -> tuple[Ledger, ...]:
    out = (
        Ledger("shared memory", "B", design.shared, device.shared_bytes or 0),
        Ledger("registers", f"of 32 bits, per {design.holder}", design.registers, design.register_limit),
    )
    return (*out, Ledger("tensor memory", "columns of 512 B", design.tmem, flash4.TMEM_COLUMNS)) if design.tmem else out


def _blocks(design: Design, ledgers: tuple[Ledger, ...], device: Device) -> int:
    """Thread blocks that an SM holds at once. A block that uses tensor memory allocates all of it."""
    if any(ledger.full > 1 for ledger in ledgers):
        return 0
    reserved = RESERVED if not device.compute_capability.startswith("7.") else 0
    shared, registers = ledgers[0], (device.register_bytes or 0) // 4
    fitting = min((shared.limit + reserved) // (shared.total + reserved), registers // design.block_registers)
    return min(fitting, 1) if design.tmem else fitting


def _engines(design: Design, problem: AttentionProblem, device: Device, emulated: Fraction) -> dict[str, float]:
    """Cycles of one SM's matrix units, exponential units, fp32 units and shared memory for one tile."""
    flops = sum(p.flops for p in design.products)
    moved = sum(p.read_bytes for p in design.products) + sum(e.size for e in design.staged)
    fmas = flash4.EMULATION_FMAS * emulated * design.exps
    work = {
        "matmul": (flops, _flop_per_clock(problem, device)),
        "exp": ((1 - emulated) * design.exps, device.exps_per_clock),
        "fma": (2 * fmas, device.fp32_flop_per_clock if fmas else None),
        "sram": (moved, device.sram_bytes_per_clock),
    }
    return {name: float(amount) / rate for name, (amount, rate) in work.items() if rate}


def _flop_per_clock(problem: AttentionProblem, device: Device) -> int | None:
    """Of the matrix units for the problem's dtype: 8-bit inputs are a whole multiple faster than 16-bit ones."""
    rate, narrow, wide = device.matmul_flop_per_clock, device.fp8_flop_per_s, device.fp16_flop_per_s
    if rate is None or problem.itemsize("io") > 1:
        return rate
    return rate * round(narrow / wide) if narrow and wide else None
