"""The machine itself as a device: what its operating system tells about cores, caches and memory, and nothing else.

No operating system tells memory bandwidth or arithmetic peaks: they stay unknown, and what needs them is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .device import Device
from .errors import InputError
from .units import parse_bytes

CACHES = "sys/devices/system/cpu/cpu0/cache"


class Cache(NamedTuple):
    """One data cache that the first core reaches."""

    level: int
    size: int  # bytes
    sharers: str  # who uses it: equal text, equal users
    source: str


class Machine(NamedTuple):
    """What an operating system told; `sources` says where each number was read."""

    name: str
    cores: int
    memory: int  # bytes
    caches: list[Cache]
    sources: Mapping[str, str]


def this_cpu(root: Path = Path("/")) -> Device:
    """This machine; `root` is where Linux mounts /proc and /sys. Raises InputError where no cache sizes are told."""
    machine = _linux(root) if (root / "proc/cpuinfo").is_file() else _macos()
    if not machine.caches or not machine.memory:
        raise InputError(
            "device 'cpu': the operating system does not tell this machine's cache and memory sizes; "
            "describe it in a TOML file and give that file's name instead of 'cpu'"
        )
    fast, last = _levels(machine.caches)
    return Device(
        name=machine.name,
        kind="cpu",
        sm_count=machine.cores,
        sram_bytes=fast.size,
        l2_bytes=last.size,
        hbm_bytes=machine.memory,
        sources={**machine.sources, "sram_bytes": fast.source, "l2_bytes": last.source},
    )


def _levels(caches: list[Cache]) -> tuple[Cache, Cache]:
    """A core's own fast memory and the last cache before memory.

    The last level is never the fast memory, even where only one core uses it: there must be something in between.
    Where the first level is also the last, it is both.
    """
    first, *_ = ordered = sorted(caches)
    last = ordered[-1]
    private = [cache for cache in ordered if cache.sharers == first.sharers and cache.level < last.level]
    return (private[-1] if private else first), last


def _linux(root: Path) -> Machine:
    processors = [_fields(block) for block in _text(root / "proc/cpuinfo").strip().split("\n\n")]
    # Hyper-threads share a core's caches, so cores are counted; ARM numbers no cores, and has one thread on each.
    cores = {(p.get("physical id"), p["core id"]) for p in processors if "core id" in p}
    memory = _fields(_text(root / "proc/meminfo")).get("MemTotal", "0").removesuffix("kB")
    return Machine(
        name=processors[0].get("model name", "CPU"),
        cores=len(cores) or sum("processor" in p for p in processors) or 1,
        memory=1024 * int(memory),
        caches=[cache for folder in sorted((root / CACHES).glob("index*")) for cache in _cache(folder)],
        sources={"sm_count": "/proc/cpuinfo: cores", "hbm_bytes": "/proc/meminfo: MemTotal"},
    )


def _cache(folder: Path) -> list[Cache]:
    """The data cache that a folder of /sys describes; none where it holds instructions or its size is not told."""
    kind, level, size, sharers = (_text(folder / name).strip() for name in ("type", "level", "size", "shared_cpu_list"))
    if kind not in ("Data", "Unified") or not level or size in ("", "0K"):
        return []
    return [Cache(int(level), parse_bytes(size, "cache size"), sharers, f"/{CACHES}/{folder.name}: level {level}")]


def _text(path: Path) -> str:
    """A file's text, or nothing where the kernel leaves it out."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fields(block: str) -> dict[str, str]:
    """`key : value` lines, as /proc writes them."""
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}


def _macos() -> Machine:
    cores, cores_source = _sysctl("hw.physicalcpu", "hw.ncpu")
    memory, memory_source = _sysctl("hw.memsize")
    keys = ("l1dcachesize", "l2cachesize", "l3cachesize")
    l1, l2, l3 = (_sysctl(f"hw.perflevel0.{key}", f"hw.{key}") for key in keys)
    # Intel's L2 belongs to a core and an L3 follows; Apple's L2 is shared by a cluster of cores and is the last.
    sharers = ("core", "core" if l3[0] else "cluster", "all")
    found = enumerate(zip((l1, l2, l3), sharers, strict=True), 1)
    return Machine(
        name=_sysctl("machdep.cpu.brand_string")[0] or "CPU",
        cores=int(cores or 1),
        memory=int(memory or 0),
        caches=[Cache(level, int(size), who, source) for level, ((size, source), who) in found if size],
        sources={"sm_count": cores_source, "hbm_bytes": memory_source},
    )


def _sysctl(*names: str) -> tuple[str, str]:
    """The first of these that the system knows, and which it was; empty where it knows none, or there is no sysctl."""
    import subprocess

    for name in names:
        try:
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
        except OSError:
            break
        if (value := done.stdout.strip()) not in ("", "0"):
            return value, f"sysctl {name}"
    return "", ""
