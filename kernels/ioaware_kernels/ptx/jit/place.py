"""Where an access to memory goes, once it is bounded."""

from __future__ import annotations

from typing import NamedTuple

from .emit import Emitter, Vector, vector


class Place(NamedTuple):
    """Where an access goes: bytes from the thread block's shared memory on, or addresses; the lanes that may."""

    address: Vector
    is_shared: bool
    mask: str
    offset: int = 0

    def pointers(self, e: Emitter, offset: int = 0) -> str:
        """A pointer per lane, so many bytes on."""
        by = self.offset + offset
        if self.is_shared:
            base = e.field("%shared", by)
            return e.scalar(f"getelementptr i8, ptr {base}, {self.address.whole} {self.address.text}")
        at = e.op("add", self.address, e.constant("i64", by)) if by else self.address
        return e.scalar(f"inttoptr {at.whole} {at.text} to {vector('ptr')}")
