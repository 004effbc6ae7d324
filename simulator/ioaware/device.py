"""A device is a table: a memory hierarchy and rates, each number with its source, checking its own identities.

`devices/NAME.toml` holds one device; `load("h100-sxm")`, `load("mine.toml")` and `load("cpu")` read it.
A device of your own is one more file: see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import tables
from .errors import InputError, closest, unknown
from .units import parse_bytes, parse_count, parse_rate

FOLDER = tables.folder("devices")
TOLERANCE = 0.01  # datasheets round: every identity must hold within 1 %
GIVEN = "given by the user"
KINDS = ("gpu", "tpu", "cpu")


@dataclass(frozen=True, kw_only=True)
class Device:
    """One processor as attention sees it: `sm_count` cores with private fast memory, an L2, and HBM.

    Capacities are bytes, rates are per second in base units, `None` means that no trustworthy figure is known:
    what needs it is left out and said so. "SM" stands for a GPU's multiprocessor, a TPU's core, a CPU's core.
    """

    name: str
    kind: str = "gpu"  # gpu | tpu | cpu
    aliases: tuple[str, ...] = ()
    compute_capability: str = ""  # NVIDIA only; which tiles are shipped depends on it

    sm_count: int
    sram_bytes: int  # fast memory per SM: the papers' M (L1 + shared memory on a GPU)
    shared_bytes: int | None = None  # the part of it that one thread block may allocate
    register_bytes: int | None = None  # register file per SM
    l2_bytes: int | None = None  # shared by all SMs; a TPU may have none
    hbm_bytes: int

    hbm_bytes_per_s: float | None = None
    memory_bus_bytes: int | None = None  # width: bytes per transfer
    memory_transfers_per_s: float | None = None
    l2_bytes_per_s: float | None = None
    clock_hz: float | None = None  # at which the matrix peak below is quoted
    boost_hz: float | None = None  # at which the fp32 peak is quoted: often the same
    sram_bytes_per_clock: int | None = None  # per SM
    exps_per_clock: int | None = None  # per SM
    mma_rows: int | None = None  # accumulator rows that one matrix unit's owner (warp, warpgroup) holds
    matmul_flop_per_clock: int | None = None  # per SM, 16-bit inputs, fp32 accumulation, dense
    fp32_flop_per_clock: int | None = None  # per SM, ordinary fp32 arithmetic

    fp16_flop_per_s: float | None = None  # 16-bit matrix peak, dense, fp32 accumulation
    fp8_flop_per_s: float | None = None
    tf32_flop_per_s: float | None = None
    fp32_flop_per_s: float | None = None  # ordinary fp32 arithmetic

    link: str = ""  # what joins the devices of one node, like NVLink 4; "" where only the host's PCIe does
    links: int | None = None  # of one device
    per_link_bytes_per_s: float | None = None  # one way, as are the next two: links carry as much the other way too
    link_bytes_per_s: float | None = None  # all links of a device together
    link_devices: int | None = None  # how many devices they join: a node, a pod
    pcie_bytes_per_s: float | None = None

    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("device kind", self.kind, KINDS, f"known: {', '.join(KINDS)}")
        if not self.name:
            raise InputError("device name is empty; give it one")
        for name, got, expected in self.identities():
            if abs(got / expected - 1) > TOLERANCE:
                raise InputError(
                    f"device {self.name!r}: {name} is {got:.4g}, but its parts give {expected:.4g}; "
                    f"they may differ by {TOLERANCE:.0%}"
                )
        for small, large in (("shared_bytes", "sram_bytes"), ("sram_bytes", "hbm_bytes"), ("l2_bytes", "hbm_bytes")):
            a, b = getattr(self, small), getattr(self, large)
            if a is not None and a > b:
                raise InputError(
                    f"device {self.name!r}: {small}={a:,} is part of {large}={b:,} and exceeds it; the nearest legal "
                    f"value of {small} is {b:,}, of {large} {a:,}"
                )

    def identities(self) -> Iterator[tuple[str, float, float]]:
        """What a datasheet must satisfy: (name, the number given, the same number from its parts)."""
        for whole, parts in PARTS.items():
            given, expected = getattr(self, whole), product([getattr(self, part) for part in parts])
            if given is not None and expected is not None:
                yield whole, given, expected

    @property
    def sram_bytes_per_s(self) -> float | None:
        """On-chip bandwidth of all SMs: SMs x bytes per clock x clock."""
        return product([self.sm_count, self.sram_bytes_per_clock, self.clock_hz])

    @property
    def exps_per_s(self) -> float | None:
        """Exponentials of all SMs: SMs x results per clock x clock (FlashAttention-3, section 3.1)."""
        return product([self.sm_count, self.exps_per_clock, self.clock_hz])

    def matmul_flop_per_s(self, dtype: str) -> float | None:
        """Matrix peak for inputs of `dtype`, accumulating in fp32.

        Without an 8-bit rate the 16-bit one counts, and without a tf32 rate that of fp32: such GPUs know no tf32.
        """
        if dtype.startswith("fp8"):
            return self.fp8_flop_per_s or self.fp16_flop_per_s
        if dtype == "tf32":
            return self.tf32_flop_per_s or self.fp32_flop_per_s
        if dtype == "fp64":
            return None
        return self.fp32_flop_per_s if dtype == "fp32" else self.fp16_flop_per_s

    def holds(self, loaded: int, computed: int) -> bool | None:
        """Whether a thread block's loaded tiles fit into shared memory and its computed values into registers.

        Bytes; None where the device does not say how large these are.
        """
        if self.shared_bytes is None or self.register_bytes is None:
            return None
        return loaded <= self.shared_bytes and computed <= self.register_bytes

    def with_settings(self, settings: Mapping[str, str | int | float]) -> Device:
        """A what-if device: fields replaced, e.g. `{"sram_bytes": "1MB"}`.

        A changed part changes its datasheet product (more SMs, more FLOP/s); a changed product keeps what was asked.
        """
        changes: dict[str, Any] = {name: parse_field(name, value) for name, value in settings.items()}
        if "sram_bytes" in changes and self.shared_bytes:  # what is added or taken away, a block gains or loses
            grown = self.shared_bytes + max(0, changes["sram_bytes"] - self.sram_bytes)
            changes.setdefault("shared_bytes", min(grown, changes["sram_bytes"]))
        values = {name: changes.get(name, getattr(self, name)) for name in NUMBERS}
        for whole, parts in PARTS.items():
            if whole in changes:
                values[parts[1]] = changes.get(parts[1])  # given with its product, it must agree with it
            elif changes.keys() & set(parts):
                values[whole] = product([values[part] for part in parts]) or values[whole]
        scale = (values["fp16_flop_per_s"] or 1) / (self.fp16_flop_per_s or 1)
        for other in {"fp8_flop_per_s", "tf32_flop_per_s"} - changes.keys():
            if values[other] and "fp16_flop_per_s" not in changes:
                values[other] *= scale  # the same units, on other inputs
        return replace(self, **values, sources={**self.sources, **dict.fromkeys(settings, GIVEN)})


PARTS = {  # a datasheet number and what it is the product of; the part at [1] belongs to no other product
    "fp16_flop_per_s": ("sm_count", "matmul_flop_per_clock", "clock_hz"),
    "fp32_flop_per_s": ("sm_count", "fp32_flop_per_clock", "boost_hz"),
    "hbm_bytes_per_s": ("memory_bus_bytes", "memory_transfers_per_s"),
    "link_bytes_per_s": ("links", "per_link_bytes_per_s"),
}
FIELDS = {f.name: str(f.type) for f in fields(Device) if f.name != "sources"}
NUMBERS = tuple(name for name, kind in FIELDS.items() if "int" in kind or "float" in kind)


def product(factors: list[Any]) -> float | None:
    """The product, or None where a factor is unknown."""
    out = 1.0
    for factor in factors:
        if factor is None:
            return None
        out *= factor
    return out


def parse_field(name: str, value: str | int | float) -> int | float:
    """A device number in base units, from text with or without a unit; raises InputError."""
    if name not in NUMBERS:
        raise unknown("device field", name, NUMBERS, "`ioaware list devices a100` shows every field")
    if name.endswith(("_per_s", "_hz")):
        return parse_rate(value, name)
    return parse_bytes(value, name) if name.endswith("_bytes") else parse_count(value, name)  # type: ignore[arg-type]


def load(name: str) -> Device:
    """The device of that name, alias or TOML file; `cpu` is read from the machine. Raises InputError."""
    if name.endswith(".toml"):
        return read(name)
    if name.lower() == "cpu":
        from .cpu import this_cpu

        return this_cpu()
    return read(tables.path_of(FOLDER, name if name.lower() in tables.names(FOLDER) else _aliased(name)))


def names() -> list[str]:
    """All devices, `cpu` (the machine itself) among them."""
    return [*tables.names(FOLDER), "cpu"]


def _aliased(name: str) -> str:
    for built_in in tables.mentioning(FOLDER, f'"{name.lower()}"'):
        if name.lower() in load(built_in).aliases:
            return built_in
    known = [alias for built_in in tables.names(FOLDER) for alias in (built_in, *load(built_in).aliases)]
    raise unknown("device", name, [*known, "cpu"], "`ioaware list devices` shows all, or give a .toml file")


def read(path: str) -> Device:
    """A device from its TOML file. A number is `[value, "source key"]`, explained in `[sources]`, or a bare value."""
    table = tables.read(path, "device")
    try:
        return from_table(table)
    except InputError as e:
        raise InputError(f"{tables.file_name(path)}: {e}") from None


def from_table(table: dict[str, Any]) -> Device:
    """A device from a parsed TOML table; raises InputError naming the key."""
    named = table.get("sources", {})
    if not isinstance(named, dict):
        raise InputError("sources must be a table of texts: [sources]")
    explained = {"unverified": "unverified: from memory", **named}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, entry in table.items():
        if key == "sources":
            continue
        if key not in FIELDS:
            raise InputError(f"unknown key {key!r}; did you mean {closest(key, FIELDS)!r}?")
        if key not in NUMBERS:
            values[key] = _text(key, entry)
            continue
        value, source = entry if isinstance(entry, list) and len(entry) == 2 else (entry, None)
        if source is not None and str(source) not in explained:
            raise InputError(f"{key} names the source {source!r}, which [sources] does not explain")
        values[key] = parse_field(key, value)
        sources[key] = explained[str(source)] if source else GIVEN
    missing = [name for name in REQUIRED if name not in values]
    if missing:
        raise InputError(f"the key {missing[0]!r} is missing; every device needs {', '.join(REQUIRED)}")
    return Device(**values, sources=sources)


def _text(key: str, entry: object) -> str | tuple[str, ...]:
    if key == "aliases" and isinstance(entry, list) and all(isinstance(a, str) for a in entry):
        return tuple(entry)
    if key == "aliases" or not isinstance(entry, str):
        raise InputError(f"{key}={entry!r}: must be a {'list of texts' if key == 'aliases' else 'text'}")
    return entry


REQUIRED = ("name", "sm_count", "sram_bytes", "hbm_bytes")
