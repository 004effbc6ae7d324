"""What becomes of q k^T between the two products, tile by tile: scale, softcap, ALiBi, additive mask, hidden pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..dropout import keep_mask
from ..masks import Band
from ..problem import AttentionProblem
from .arrays import Array, module_of

TILE_KV = 512  # keys


@dataclass(frozen=True)
class Scores:
    """The scores of one sequence: `problem` says what is done to them, the rest is what it is done with.

    first   packed positions of the first query and the first key: what dropout's generator counts by
    slopes  of ALiBi, (kv_heads, group, 1, 1)
    mask    bool (True: takes part) or additive, (kv_heads, group, q_len, kv_len)
    """

    problem: AttentionProblem
    q_len: int
    kv_len: int
    first: tuple[int, int] = (0, 0)
    slopes: Array | None = None
    mask: Array | None = None

    @property
    def band(self) -> Band:
        """Which keys a query sees, but for `mask`."""
        assert isinstance(self.problem.band, Band)
        return self.problem.band

    def key_tiles(self, rows: slice, keys: slice) -> Iterator[slice]:
        """Tiles that cover the keys, of those given, that some of the rows may see."""
        shift = 0 if self.band.top_left else self.kv_len - self.q_len
        start, stop = keys.start, keys.stop
        if self.band.left is not None:
            start = max(start, rows.start + shift - self.band.left)
        if self.band.right is not None:
            stop = min(stop, rows.stop + shift + self.band.right)
        for first in range(start, stop, TILE_KV):
            yield slice(first, min(first + TILE_KV, stop))

    def capped(self, q: Array, k: Array) -> Array:
        """q k^T of scaled queries (kv_heads, group, rows, d) and keys (kv_heads, 1, cols, d), after the softcap."""
        s: Array = q @ k.swapaxes(-1, -2)
        if cap := self.problem.softcap:
            s /= cap
            module_of(s).tanh(s, out=s)
            s *= cap
        return s

    def shown(self, s: Array, rows: slice, cols: slice) -> tuple[Array, Array | None]:
        """(s after ALiBi and mask, in place, -inf where hidden; which pairs are seen, or None for all of them)."""
        xp = module_of(s)
        seen = self._seen(rows, cols)
        seen = None if seen is None else xp.asarray(seen)
        if self.slopes is not None:
            s -= self.slopes * xp.asarray(self._distance(rows, cols).astype(s.dtype))
        if self.mask is not None:
            mask = self.mask[..., rows, cols]
            takes_part = mask if mask.dtype == bool else mask != -xp.inf
            if mask.dtype != bool:
                s += mask.astype(s.dtype)
            seen = takes_part if seen is None else takes_part & seen
        if seen is not None:  # set, not added: a hidden score may be NaN or infinite
            xp.copyto(s, s.dtype.type(-np.inf), where=~seen)
        return s, seen

    def kept(self, rows: slice, cols: slice, like: Array) -> Array | None:
        """Dropout's factors of the weights: 0 or 1 / (1 - dropout), (kv_heads, group, rows, cols); None without."""
        if not self.problem.dropout:
            return None
        q = self.first[0] + np.arange(rows.start, rows.stop)
        k = self.first[1] + np.arange(cols.start, cols.stop)
        kept = np.stack([keep_mask(self.problem, head, q, k) for head in range(self.problem.heads)])
        factors = (kept / (1 - self.problem.dropout)).astype(like.dtype).reshape(like.shape)
        out: Array = module_of(like).asarray(factors)
        return out

    def _seen(self, rows: slice, cols: slice) -> Array | None:
        """The band's element mask, or None where all is visible: a band is convex, so two corners decide."""
        first_last, last_first = np.array([rows.start, rows.stop - 1]), np.array([cols.stop - 1, cols.start])
        if self.band.sees(first_last, last_first, self.q_len, self.kv_len).all():
            return None
        q, k = np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop)
        return self.band.sees(q[:, None], k[None], self.q_len, self.kv_len)

    def _distance(self, rows: slice, cols: slice) -> Array:
        """|key - query|, where the last query stands at the last key."""
        aligned = np.arange(rows.start, rows.stop)[:, None] + self.kv_len - self.q_len
        out: Array = np.abs(np.arange(cols.start, cols.stop)[None] - aligned)
        return out


def weigh(weights: Array, values: Array, seen: Array | None) -> Array:
    """weights @ values, where a hidden value adds nothing even if it is NaN or infinite (0 * NaN is NaN).

    weights (..., rows, cols) are 0 where hidden; values (..., cols, columns).
    """
    xp = module_of(weights)
    out: Array = weights @ values
    if seen is None or xp.isfinite(out).all():
        return out
    spoilt = ~xp.isfinite(values).all(axis=-1)
    spoilt = spoilt.any(axis=tuple(range(spoilt.ndim - 1)))  # keys
    out = weights @ xp.where(spoilt[:, None], 0, values)
    for j in xp.flatnonzero(spoilt).tolist():
        out += xp.where(seen[..., j, None], weights[..., j, None] * values[..., j, None, :], 0)
    return out
