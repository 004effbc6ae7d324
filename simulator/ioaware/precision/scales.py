"""Scales of narrow formats: numbers that share one are divided by it, rounded, and multiplied by it again.

A scale maps the largest magnitude that it serves to the format's greatest number: symmetric, without a zero point.
Arrays are (heads, rows, columns).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import refuse
from .formats import Array, find, rounded


@dataclass(frozen=True)
class Share:
    """What shares a scale: a box of so many heads, rows and columns; None is all of them. Boxes at the end are cut."""

    heads: int | None = None
    rows: int | None = None
    columns: int | None = None

    @property
    def box(self) -> tuple[int | None, int | None, int | None]:
        return self.heads, self.rows, self.columns

    def largest(self, x: Array) -> Array:
        """The largest magnitude in each number's box; broadcasts to `x`."""
        out = np.abs(x)
        for axis, length in enumerate(self.box):
            if length is None:
                out = out.max(axis=axis, keepdims=True)
            elif length > 1:
                out = np.maximum.reduceat(out, np.arange(0, x.shape[axis], length), axis=axis)
        for axis, length in enumerate(self.box):
            if length is not None and length > 1:
                out = out.repeat(length, axis=axis).take(range(x.shape[axis]), axis=axis)
        return out

    def count(self, shape: tuple[int, ...]) -> int:
        """How many scales a tensor of that shape has."""
        return math.prod(1 if b is None else -(-n // b) for n, b in zip(shape, self.box, strict=True))


PER_TENSOR = Share()
PER_HEAD = Share(heads=1)
PER_TOKEN = Share(heads=1, rows=1)
PER_CHANNEL = Share(heads=1, columns=1)


def per_block(rows: int) -> Share:
    """One scale for every `rows` consecutive rows of a head: for a tile of a kernel."""
    if rows < 1:
        raise refuse("rows of a block", rows, "at least 1", 1)
    return Share(heads=1, rows=rows)


@dataclass(frozen=True)
class Quantised:
    """Numbers of a narrow format and their fp32 scales, which broadcast to them."""

    codes: Array
    scale: Array

    @property
    def restored(self) -> Array:
        """What a kernel computes with, float32."""
        out: Array = (self.codes * self.scale).astype(np.float32)
        return out


def quantised(x: Array, name: str, share: Share) -> Quantised:
    """`x` of (heads, rows, columns) in a format with scales; zeros alone get the scale 1."""
    most = share.largest(x)
    scale = np.where(most > 0, most / find(name).greatest, 1.0).astype(np.float32)
    return Quantised(rounded(x / scale, name), scale)
