"""A cache of keys and values: rows of its own for every sequence, or pages that a block table names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError, refuse
from .arrays import Array, have_axes, integers, module_of


@dataclass(frozen=True)
class Cache:
    """k and v: (sequences, length, kv_heads, head_dim); with a block table (pages, page size, kv_heads, head_dim).

    block_table  (batch, pages), integers: entry [b, i] is the page of keys i * page size and on of sequence b
    """

    k: Array
    v: Array
    block_table: Array | None = None

    def __post_init__(self) -> None:
        table, axes = self.block_table, "sequences, length"
        if table is not None:
            axes = "pages, page_size"
            module_of(table, "block_table")
            if table.ndim != 2 or table.dtype.kind not in "iu":
                raise InputError(f"block_table.shape={table.shape}, {table.dtype}: must be (batch, pages), integers")
        have_axes(f"{axes}, kv_heads, head_dim", k=self.k, v=self.v)

    @property
    def page_size(self) -> int | None:
        """Keys in a page; None where the cache is contiguous."""
        return None if self.block_table is None else self.k.shape[1]

    @property
    def room(self) -> int:
        """The longest sequence that there is room for."""
        return int(self.k.shape[1]) * (1 if self.block_table is None else int(self.block_table.shape[1]))

    def place(self, sequence: int, start: int, stop: int) -> Any:
        """The index of keys start .. stop - 1: k[index] is (keys, kv_heads, head_dim). Raises InputError.

        Block-table entries of pages without such keys are not looked at.
        """
        sequences = len(self.k if self.block_table is None else self.block_table)
        if not 0 <= sequence < sequences:
            raise refuse(
                "sequence of the cache", sequence, f"there are {sequences}", 0 if sequence < 0 else sequences - 1
            )
        if stop > self.room:
            raise refuse("keys of a sequence", stop, "the cache has room for fewer", self.room)
        if self.block_table is None:
            return sequence, slice(start, stop)
        pages, page_size = self.k.shape[:2]
        row = self.block_table[sequence]
        wrong = [
            p for p in integers("block_table", row[start // page_size : -(-stop // page_size)]) if not 0 <= p < pages
        ]
        if wrong:
            raise refuse("block_table's page", wrong[0], f"there are {pages} pages", 0 if wrong[0] < 0 else pages - 1)
        keys = module_of(self.k).arange(start, stop)
        return row[keys // page_size], keys % page_size

    def read(self, sequence: int, start: int, stop: int) -> tuple[Array, Array]:
        """Keys and values start .. stop - 1 of a sequence: views, or where the cache is paged copies."""
        place = self.place(sequence, start, stop)
        return self.k[place], self.v[place]

    def write(self, sequence: int, start: int, k: Array, v: Array) -> None:
        """Put keys and values there, from `start` on."""
        place = self.place(sequence, start, start + len(k))
        self.k[place], self.v[place] = k, v
