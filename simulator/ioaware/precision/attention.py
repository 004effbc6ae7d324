"""Attention as implementations compute it, each rounding where theirs rounds. One head: Q, K, V are (rows, columns).

What all share: products of narrow numbers are exact, sums are fp32 (float32 here, in whatever order NumPy adds), and a
row that sees no key gives zeros. Tensor cores that keep fewer bits of an fp8 sum (Hopper's) are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .exp2 import hardware_exp2
from .formats import Array, rounded

if TYPE_CHECKING:
    from ..masks import Mask

SCORES = 1 << 18  # at a time: they stay in a CPU's cache, and no N x N matrix exists


@dataclass(frozen=True)
class Standard:
    """softmax(Q K^T scale) V, operator by operator as PyTorch runs it; every operator's result is in one format.

    form     of Q K^T, of that times the scale, of the weights and the output; inside of softmax all is fp32. With fp64
             all is float64, and nothing is rounded: the reference.
    weights  format in which the second matrix product reads the weights, where it is another
    """

    form: str
    weights: str | None = None

    def __call__(self, q: Array, k: Array, v: Array, scale: float, mask: Mask | None) -> Array:
        real = np.float64 if self.form == "fp64" else np.float32
        q, k, v = np.asarray(q, real), np.asarray(k, real), np.asarray(v, real)
        out: Array = np.empty((len(q), v.shape[1]), real)
        for rows in blocks(len(q), max(SCORES // len(k), 1)):
            s = rounded(rounded(q[rows] @ k.T, self.form) * real(scale), self.form)
            s = masked(s, mask, rows, slice(0, len(k)), len(q), len(k))
            most = s.max(axis=1, keepdims=True)
            e = np.exp(s - np.where(np.isneginf(most), real(0), most))
            total = e.sum(axis=1, keepdims=True)
            p = rounded(e / np.where(total == 0, real(1), total), self.weights or self.form)
            out[rows] = rounded(p @ v, self.form)
        return out


@dataclass(frozen=True)
class Tiled:
    """FlashAttention-2, -3 and -4: online softmax over tiles of keys, in fp32 and in units of log 2.

    tile       keys of a tile
    weights    format of the unnormalised weights 2^(s - m), which the second matrix product reads
    out        format of the output
    offset     weights are 2^offset times as large: FlashAttention-3 has 8 for fp8, whose smallest number is 2^-9
    exp2       of float32
    threshold  the reference m of a row stays unless the new maximum exceeds it by more: FlashAttention-4's lazy
               rescaling has log2 256 = 8. Exact once normalised: any m gives the same quotient.
    """

    tile: int
    weights: str
    out: str
    offset: float = 0.0
    exp2: Callable[[Array], Array] = hardware_exp2
    threshold: float = 0.0

    def __call__(self, q: Array, k: Array, v: Array, scale: float, mask: Mask | None) -> Array:
        out = np.empty((len(q), v.shape[1]), np.float32)
        for rows in blocks(len(q), max(SCORES // self.tile, 1)):
            out[rows] = self._rows(q[rows], k, v, np.float32(scale * np.log2(np.e)), mask, rows, len(q))
        return rounded(out, self.out)

    def _rows(
        self, q: Array, k: Array, v: Array, scale: np.float32, mask: Mask | None, rows: slice, q_len: int
    ) -> Array:
        m = np.full((len(q), 1), -np.inf, np.float32)
        total, acc = np.zeros((len(q), 1), np.float32), np.zeros((len(q), v.shape[1]), np.float32)
        for keys in blocks(len(k), self.tile):
            s = masked((q @ k[keys].T) * scale, mask, rows, keys, q_len, len(k))
            new = self.reference(m, s.max(axis=1, keepdims=True))
            safe = np.where(np.isneginf(new), np.float32(0), new)
            p = self.exp2(s - (safe - np.float32(self.offset)))
            factor = self.factor(m, safe)
            total = total * factor + p.sum(axis=1, keepdims=True)
            acc = acc * factor + rounded(p, self.weights) @ v[keys]
            m = new
        result: Array = acc / np.where(total == 0, np.float32(1), total)
        return result

    def reference(self, m: Array, most: Array) -> Array:
        """What scores are compared with from now on, given what they were compared with and a tile's maxima."""
        new = np.maximum(m, most)
        return np.where(new <= m + np.float32(self.threshold), m, new)

    def factor(self, m: Array, new: Array) -> Array:
        """What sums over earlier tiles are multiplied by; `new` is finite."""
        out: Array = np.exp2(m - new)
        return out


Attend: TypeAlias = Callable[[Array, Array, Array, float, "Mask | None"], Array]
exact: Attend = Standard("fp64")


def pairs(mask: Mask | None, q_len: int, kv_len: int) -> int:
    """How many (query, key) pairs are visible: counted, which no length forbids."""
    if mask is None:
        return q_len * kv_len
    keys, rows = np.arange(kv_len)[None], blocks(q_len, max(SCORES // kv_len, 1))
    return sum(int(mask.sees(np.arange(r.start, r.stop)[:, None], keys, q_len, kv_len).sum()) for r in rows)


def blocks(length: int, size: int) -> Iterator[slice]:
    """Of so many rows, `size` at a time."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def masked(
    s: Array, mask: Mask | None, rows: slice, keys: slice, q_len: int, kv_len: int, hidden: float = -np.inf
) -> Array:
    """Scores of these rows and keys, `hidden` where a key is."""
    if mask is None:
        return s
    q, k = np.arange(rows.start, rows.stop)[:, None], np.arange(keys.start, keys.stop)[None]
    return np.where(mask.sees(q, k, q_len, kv_len), s, s.dtype.type(hidden))
