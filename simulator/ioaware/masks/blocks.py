"""Block-sparse masks: a matrix says which blocks of queries and keys are visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..errors import refuse
from ..problem import check_count
from .band import FULL, Band
from .base import Positions, Sees
from .layout import Layout
from .rectangles import Rectangles, aligned, inner_band
from .sweep import Pieces


@dataclass(frozen=True)
class Blocks(Rectangles):
    """Query q and key k see each other iff layout[q // block_q, k // block_kv] is one, and `band` lets them.

    A causal band cuts the blocks of the diagonal. Tiles need not be multiples of blocks; the last blocks may be ragged.
    """

    layout: Layout
    block_q: int
    block_kv: int
    band: Band = FULL

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("block_q", self.block_q)
        check_count("block_kv", self.block_kv)
        inner_band(self.band)

    @classmethod
    def of_matrix(cls, matrix: Any, block_q: int, block_kv: int, band: Band = FULL) -> Self:
        """From a matrix of zeros and ones, (blocks of queries, blocks of keys). Raises InputError."""
        return cls(Layout.of_matrix(matrix), block_q, block_kv, band)

    @classmethod
    def of_lists(
        cls, lists: Sequence[Sequence[int]], width: int, block_q: int, block_kv: int, band: Band = FULL
    ) -> Self:
        """From the visible blocks of keys of each block of queries, `width` in all. Raises InputError."""
        return cls(Layout.of_lists(lists, width), block_q, block_kv, band)

    def check(self, q_len: int, kv_len: int) -> None:
        """Refuses lengths that the blocks do not cover, or that leave blocks over."""
        super().check(q_len, kv_len)
        sides = (("q_len", q_len // self.pack, self.block_q, self.layout.rows),
                 ("kv_len", kv_len, self.block_kv, self.layout.width))  # fmt: skip
        for name, length, block, blocks in sides:
            if -(-length // block) != blocks:
                nearest = blocks * block if length > blocks * block else (blocks - 1) * block + 1
                raise refuse(name, length, f"the mask has {blocks:,} blocks of {block:,}", nearest)

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of a visible block, and inside of the band."""
        self.check(q_len * self.pack, kv_len)
        return self.layout.holds(q // self.block_q, k // self.block_kv) & self.band.pattern(q, k, q_len, kv_len)

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """Runs of blocks; rows of the matrix are queries, not positions."""
        rows, keys = self.layout.rectangles()
        shift = kv_len - q_len
        q0, q1 = (row * self.block_q + shift for row in rows)
        k0, k1 = (column * self.block_kv for column in keys)
        return aligned(q_len, kv_len, (q0, q1), (k0, k1), self.band)

    def causal(self) -> Blocks:
        """The same blocks, cut by the diagonal."""
        return Blocks(self.layout, self.block_q, self.block_kv, self.band.causal(), pack=self.pack)

    def name(self) -> str:
        """The matrix and the block size."""
        size = str(self.block_q) if self.block_q == self.block_kv else f"{self.block_q}x{self.block_kv}"
        matrix = f"{self.layout.columns.size} of {self.layout.rows}x{self.layout.width}"
        return f"blocks:{size},{matrix}" + (f"+{self.band}" if self.band != FULL else "")
