"""Counting: how many bytes of which tensor or region moved at which instruction; sectors and bank conflicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numba import njit

from ioaware.traffic import Moved, Traffic

from .parse import Instruction


@dataclass
class Requests:
    """What warps ask of the memory system: requests, 32-byte sectors (global) or passes over the banks (shared)."""

    requests: int = 0
    sectors: int = 0
    passes: int = 0


@dataclass
class Counts:
    """Bytes per instruction, memory and kind, over a whole launch.

    `memory` is a tensor's or a shared region's name, `kind` a field of `Moved`: read, write or add.
    """

    bytes: dict[tuple[Instruction, str, str], int] = field(default_factory=dict)
    requests: dict[tuple[Instruction, str], Requests] = field(default_factory=dict)
    instructions: int = 0  # executed, of the whole grid together

    def add(self, instruction: Instruction, memory: str, kind: str, moved: int) -> None:
        """Count bytes moved."""
        key = instruction, memory, kind
        self.bytes[key] = self.bytes.get(key, 0) + moved

    def traffic(self, names: Iterable[str]) -> Traffic:
        """Bytes per memory, of those named."""
        wanted, moved = set(names), dict[str, Moved]()
        for (_, memory, kind), amount in self.bytes.items():
            if memory in wanted:
                moved[memory] = Moved(*map(sum, zip(moved.get(memory, Moved()), Moved(**{kind: amount}), strict=True)))
        return Traffic(moved)

    def requests_of(self, memory: str) -> Requests:
        """What warps asked of one memory, over all instructions."""
        of_memory = [r for (_, name), r in self.requests.items() if name == memory]
        return Requests(*(sum(getattr(r, f.name) for r in of_memory) for f in fields(Requests)))

    def sites(self, memory: str, kind: str) -> Mapping[Instruction, int]:
        """Bytes per instruction of one memory and kind, most first: where a tensor's traffic comes from."""
        found = {i: moved for (i, m, k), moved in self.bytes.items() if (m, k) == (memory, kind)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


SECTOR = 32  # bytes
BANKS = 32  # of 4 bytes


@njit(cache=True)
def sectors(address: np.ndarray[Any, Any], active: np.ndarray[Any, Any], size: int) -> tuple[int, int]:
    """(requests, sectors): a request is one warp's access; a sector counts once per request.

    address, active: (threads, blocks); size: bytes per lane.
    """
    requests = found = 0
    seen = np.empty(64, np.int64)
    for b in range(address.shape[1]):
        for warp in range(0, address.shape[0], 32):
            n = 0
            for t in range(warp, min(warp + 32, address.shape[0])):
                if active[t, b]:
                    for sector in range(address[t, b] // SECTOR, (address[t, b] + size - 1) // SECTOR + 1):
                        if sector not in seen[:n]:
                            seen[n] = sector
                            n += 1
            found += n
            requests += n > 0
    return requests, found


@njit(cache=True)
def bank_passes(address: np.ndarray[Any, Any], active: np.ndarray[Any, Any], size: int) -> tuple[int, int]:
    """(requests, passes): a pass serves one word of every bank; lanes that want the same word share it.

    Accesses wider than 4 bytes are served in parts of a warp, 128 bytes each.
    """
    requests = passes = 0
    together = 32 * 4 // max(size, 4)
    for b in range(address.shape[1]):
        for warp in range(0, address.shape[0], 32):
            served = 0
            for first in range(warp, min(warp + 32, address.shape[0]), together):
                seen, n = np.empty(128, np.int64), 0
                depth = np.zeros(BANKS, np.int64)
                for t in range(first, min(first + together, address.shape[0])):
                    if active[t, b]:
                        for word in range(address[t, b] // 4, (address[t, b] + size - 1) // 4 + 1):
                            if word not in seen[:n]:
                                seen[n] = word
                                n += 1
                                depth[word % BANKS] += 1
                served += depth.max()
            passes += served
            requests += served > 0
    return requests, passes
