"""What of a kernel is counted and checked: its accesses to memory, and where lanes of a warp must all be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..analyse import defined, is_access, is_copy, provenance
from ..parse import Address, Block, Instruction, Kernel, Register
from . import runtime

KINDS = {"ld": "read", "ldmatrix": "read", "st": "write", "atom": "add", "red": "add"}
TOGETHER = ("shfl", "vote", "mma", "ldmatrix")  # lanes of a warp
MOST_TOGETHER = 32  # accesses that are checked at once


@dataclass(eq=False)
class Site:
    """An access of an instruction: bytes that a lane moves, in which space; `kind` is a field of `Moved`.

    Accesses of a block of code that differ by a constant are checked at once, by the `first` of them, which has all as
    its `members`; `offset` is the distance from it in bytes.
    """

    instruction: Instruction
    kind: str
    bytes: int
    space: int
    number: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self.first, self.members = self, [self]

    def join(self, first: Site, offset: int) -> None:
        """Be checked together with another one."""
        self.first, self.offset, self.members = first, offset, []
        first.members.append(self)

    @property
    def reach(self) -> tuple[int, int]:
        """Bytes that the members reach before and behind the first access."""
        offsets = [m.offset for m in self.members]
        return -min(offsets), max(offsets)


@dataclass(eq=False)
class Sites:
    """All that is counted and checked, in the order of the text."""

    accesses: list[Site]
    events: list[Instruction]
    origins: dict[Instruction, frozenset[str]]

    def of(self, i: Instruction) -> Site:
        """The first site of an instruction."""
        return self._by_instruction[i]

    def event(self, i: Instruction) -> int:
        """The number of an instruction that lanes may do wrong besides where they touch memory."""
        return self._events[i]

    def __post_init__(self) -> None:
        self._by_instruction = {site.instruction: site for site in reversed(self.accesses)}
        self._events = {i: n for n, i in enumerate(self.events)}


@lru_cache(256)
def sites_of(kernel: Kernel) -> Sites:
    """The sites of a kernel."""
    accesses: list[Site] = []
    for block in kernel.blocks:
        found = [site for i in block.instructions if is_access(i) for site in _of(i)]
        for site in found:
            site.number = len(accesses)
            accesses.append(site)
        _join(block, {site.instruction: site for site in reversed(found)})
    events = [i for i in kernel.instructions() if i.base in TOGETHER or i.has("warp") or is_copy(i)]
    return Sites(accesses, events, provenance(kernel))


def _of(i: Instruction) -> Iterator[Site]:
    """Of a copy first where it reads, then where it writes."""
    if is_copy(i):
        yield Site(i, "read", i.lane_bytes, runtime.IN_GLOBAL)
        yield Site(i, "write", i.lane_bytes, runtime.IN_SHARED)
        return
    in_shared = i.has("shared") or i.base == "ldmatrix"
    space = runtime.IN_SHARED if in_shared else runtime.IN_GLOBAL if i.has("global") else runtime.GENERIC
    yield Site(i, KINDS[i.base], i.lane_bytes, space)


def _join(block: Block, found: dict[Instruction, Site]) -> None:
    """Find the accesses of a block that differ by a constant."""
    firsts: dict[tuple[str, int, int, int], tuple[Site, int]] = {}  # of each kind, with its offset
    for i in block.instructions:
        address = next((o for o in i.operands if isinstance(o, Address)), None)
        if i in found and not i.guard and i.base in ("ld", "st") and address and isinstance(address.base, Register):
            site = found[i]
            key = address.base.name, site.space, site.bytes, address.offset % site.bytes
            first, offset = firsts.get(key, (site, address.offset))
            if first is site or len(first.members) == MOST_TOGETHER:
                firsts[key] = site, address.offset
            else:
                site.join(first, address.offset - offset)
        for name in defined(i):
            firsts = {key: first for key, first in firsts.items() if key[0] != name}
