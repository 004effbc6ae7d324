"""Sparse matrices of blocks: compressed rows, as values that can be compared and hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from ..errors import InputError
from .base import Positions, Sees
from .rectangles import Range


@dataclass(frozen=True, repr=False)
class Layout:
    """A 0/1 matrix with `width` columns. Row i has ones in columns[starts[i] : starts[i + 1]], which ascend.

    Both are kept as the bytes of int64 arrays: compared and hashed like any value.
    """

    width: int
    starts_bytes: bytes
    columns_bytes: bytes

    @classmethod
    def of_keys(cls, rows: int, width: int, ones: Positions) -> Self:
        """From row * width + column of every one, in any order; a one may be given several times."""
        ones = np.sort(ones)
        ones = ones[np.diff(ones, prepend=-1) != 0]
        starts = np.searchsorted(ones, np.arange(rows + 1) * width)
        return cls(width, starts.astype(np.int64).tobytes(), (ones % width).astype(np.int64).tobytes())

    @classmethod
    def of_matrix(cls, matrix: Any) -> Self:
        """From a matrix of zeros and ones, (rows, columns). Raises InputError."""
        dense = np.asarray(matrix)
        if dense.ndim != 2 or not dense.size:
            raise InputError(f"a block matrix has rows and columns: this one has the shape {dense.shape}")
        if dense.dtype.kind not in "biuf" or not np.isin(dense, (0, 1)).all():
            raise InputError("a block matrix holds zeros and ones only: 1 where the block is visible")
        return cls.of_keys(dense.shape[0], dense.shape[1], np.flatnonzero(dense))

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]], width: int) -> Self:
        """From the columns of the ones of each row. Raises InputError."""
        rows = np.repeat(np.arange(len(lists)), [len(columns) for columns in lists])
        columns = np.array([column for columns in lists for column in columns], np.int64)
        if not lists or ((columns < 0) | (columns >= width)).any():
            raise InputError(f"a block matrix needs rows, and columns from 0 to {width - 1:,}")
        return cls.of_keys(len(lists), width, rows * width + columns)

    @cached_property
    def starts(self) -> Positions:
        """(rows + 1,)"""
        return np.frombuffer(self.starts_bytes, np.int64)

    @cached_property
    def columns(self) -> Positions:
        """(ones,)"""
        return np.frombuffer(self.columns_bytes, np.int64)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.starts.size - 1

    @cached_property
    def row_of(self) -> Positions:
        """The row of each one: (ones,)."""
        return np.repeat(np.arange(self.rows), np.diff(self.starts))

    def holds(self, row: Positions, column: Positions) -> Sees:
        """Whether there is a one, broadcast; none outside of the matrix."""
        wanted = row * self.width + column
        keys = self.row_of * self.width + self.columns
        at = np.searchsorted(keys, wanted)
        inside = (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.width) & (at < keys.size)
        found: Sees = inside & (np.append(keys, -1)[at] == wanted)
        return found

    def rectangles(self) -> tuple[Range, Range]:
        """Disjoint rectangles of ones: neighbours in a row are one run, and equal runs of neighbouring rows are one."""
        row, column = self.row_of, self.columns
        keys = row * (self.width + 1) + column  # neighbours differ by one, and rows do not touch
        begins = np.diff(keys, prepend=-2) != 1
        ends = np.append(begins[1:], True)[: begins.size]
        row, low, high = row[begins], column[begins], column[ends] + 1
        order = np.lexsort((row, high, low))
        row, low, high = row[order], low[order], high[order]
        fresh = (np.diff(row, prepend=-2) != 1) | (np.diff(low, prepend=-1) != 0) | (np.diff(high, prepend=-1) != 0)
        final = np.append(fresh[1:], True)[: fresh.size]
        return (row[fresh], row[final] + 1), (low[fresh], high[fresh])
