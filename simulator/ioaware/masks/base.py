"""What a mask is, and what every mask can be asked; without a closed form, the answers are enumerated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from ..errors import InputError, refuse

if TYPE_CHECKING:
    import numpy as np

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Sees: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


class Statistics(NamedTuple):
    """Sums over the visible pairs of a query tile i and a key tile j; |i| is the number of rows of tile i."""

    tiles: int
    rows: int
    cols: int
    cells: int
    last: int = 0  # query tiles that see the last key tile


class Turns(NamedTuple):
    """Key tiles that need not be loaded when the visible ones are walked back and forth, and their rows."""

    tiles: int
    rows: int


class Kinds(NamedTuple):
    """All tiles: every pair is visible, some are (these need masking), none is (these are never visited)."""

    full: int
    partial: int
    skipped: int


@dataclass(frozen=True)
class Mask(ABC):
    """Which keys a query sees: a value, equal to others with the same fields. Queries are aligned bottom-right.

    pack   rows per query: row r stands for query r // pack (the heads of a group, packed), and `q_len` counts rows
    """

    pack: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.pack, bool) or not isinstance(self.pack, int) or self.pack < 1:
            raise refuse("pack", self.pack, "a number of rows per query, at least 1", 1)

    @abstractmethod
    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """The element mask of queries `q` and keys `k` (broadcast against each other): bool. Knows of no packing."""

    def check(self, q_len: int, kv_len: int) -> None:
        """Raises InputError if the mask is none of `q_len` rows and `kv_len` keys."""
        if q_len % self.pack:
            nearest = max(q_len - q_len % self.pack, self.pack)
            raise refuse("q_len", q_len, f"must be a multiple of the {self.pack:,} rows of a query", nearest)

    def causal(self) -> Mask:
        """The same mask, but no query sees a key after its own. Raises InputError where that is not known."""
        raise InputError(f"mask {self} is what its function says: make the function itself causal")

    def sees(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """The element mask of rows `q` and keys `k` (broadcast against each other): bool."""
        return self.pattern(q // self.pack, k, q_len // self.pack, kv_len)

    def visible_tiles(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Iterator[Sees]:
        """Which key tiles each query tile sees, one query tile after another: bool, (key tiles,)."""
        from .enumeration import any_of_tiles

        return any_of_tiles(self, q_len, kv_len, tile_q, tile_kv)

    def statistics(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
        """The five sums, exact."""
        from .enumeration import statistics

        return statistics(self, q_len, kv_len, tile_q, tile_kv)

    def full_tiles(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> int:
        """Tiles, ragged ones too, in which every pair is visible."""
        from .enumeration import all_of_tiles

        return sum(int(full.sum()) for full in all_of_tiles(self, q_len, kv_len, tile_q, tile_kv))

    def turns(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Turns:
        """What is on chip already where a walk over the visible key tiles turns."""
        from .enumeration import turns

        return turns(self, q_len, kv_len, tile_q, tile_kv)

    def pairs(self, q_len: int, kv_len: int) -> int:
        """|E|: how many (row, key) pairs are visible."""
        return self.statistics(q_len, kv_len, 1, 1).tiles

    def seen_rows(self, q_len: int, kv_len: int) -> tuple[int, int]:
        """How many rows see a key, and how many keys are seen: what no algorithm can leave unread."""
        return self.statistics(q_len, kv_len, 1, kv_len).tiles, self.statistics(q_len, kv_len, q_len, 1).tiles

    def packed(self, rows: int) -> Self:
        """The same mask with `rows` rows per query, next to each other."""
        return replace(self, pack=self.pack * rows)

    @abstractmethod
    def name(self) -> str:
        """What the command line calls the mask, where it can."""

    def __str__(self) -> str:
        return self.name() if self.pack == 1 else f"{self.name()}, {self.pack} rows per query"


def tile_kinds(mask: Mask, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Kinds:
    """How many tiles are full, partially visible and skipped."""
    visible = mask.statistics(q_len, kv_len, tile_q, tile_kv).tiles
    full = mask.full_tiles(q_len, kv_len, tile_q, tile_kv)
    return Kinds(full, visible - full, -(-q_len // tile_q) * -(-kv_len // tile_kv) - visible)
