"""Exact attention in tiles, in memory that grows with the lengths and not with their product.

A tile of keys gives each row three numbers: the largest score m, the sum l of exp(s - m), and the sum of values so
weighted. `merge` joins two of these; it is associative, so that the online softmax (Milakov, Gimelshein 2018), the
loop of FlashAttention-2 (Dao 2023) and the splits of Flash-Decoding are the same reduction, grouped in other ways.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .arrays import Array, module_of
from .scores import TILE_KV, Scores, weigh

TILE_SCORES = 2**20  # scores, over all heads, that are worked on at once


class Partial(NamedTuple):
    """Rows over some of their keys: (kv_heads, group, rows, 1), and for `acc` (..., rows, value_dim)."""

    m: Array
    l: Array  # noqa: E741 the papers' name
    acc: Array


def attend(q: Array, k: Array, v: Array, scores: Scores, splits: int = 1) -> tuple[Array, Array]:
    """(O, L = m + log l) of one sequence; a row that sees no key has O = 0 and L = -inf.

    q (kv_heads, group, q_len, d); k (kv_heads, 1, kv_len, d); v (kv_heads, 1, kv_len, value_dim).
    splits: in how many parts the keys are worked on, each by itself
    """
    xp = module_of(q)
    out = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    logs = xp.empty(q.shape[:-1], q.dtype)
    splits = max(min(splits, scores.kv_len), 1)
    ends = [scores.kv_len * s // splits for s in range(splits + 1)]
    for rows in query_tiles(q):
        scaled = q[..., rows, :] * q.dtype.type(scores.problem.scale)
        parts = []
        for part in pairwise(ends):
            tiles = (_tile(scaled, k, v, scores, rows, cols) for cols in scores.key_tiles(rows, slice(*part)))
            parts.append(reduce(merge, tiles, _nothing(scaled, v)))
        m, l, acc = reduce(merge, parts)  # noqa: E741
        out[..., rows, :] = acc / xp.where(l == 0, 1, l)
        logs[..., rows] = (m + xp.log(l))[..., 0]
    return out, logs


def query_tiles(q: Array) -> list[slice]:
    """Rows to be worked on at once, of q (kv_heads, group, rows, d)."""
    heads, length = q.shape[0] * q.shape[1], q.shape[2]
    step = max(32, TILE_SCORES // (heads * TILE_KV))
    return [slice(first, min(first + step, length)) for first in range(0, length, step)]


def merge(a: Partial, b: Partial) -> Partial:
    """The same rows over the keys of both."""
    xp = module_of(a.m)
    m = xp.maximum(a.m, b.m)
    base = finite(m)
    of_a, of_b = xp.exp(a.m - base), xp.exp(b.m - base)
    return Partial(m, of_a * a.l + of_b * b.l, of_a * a.acc + of_b * b.acc)


def finite(m: Array) -> Array:
    """A maximum that can be subtracted: 0 for rows that saw nothing, whose exponentials are then 0 and not NaN."""
    xp = module_of(m)
    out: Array = xp.where(xp.isneginf(m), m.dtype.type(0), m)
    return out


def _tile(q: Array, k: Array, v: Array, scores: Scores, rows: slice, cols: slice) -> Partial:
    xp = module_of(q)
    s, seen = scores.shown(scores.capped(q, k[..., cols, :]), rows, cols)
    m = s.max(axis=-1, keepdims=True)
    s -= finite(m)
    p = xp.exp(s, out=s)
    l = p.sum(axis=-1, keepdims=True)  # noqa: E741 before dropout, which drops weights and not probabilities
    kept = scores.kept(rows, cols, p)
    return Partial(m, l, weigh(p if kept is None else p * kept, v[..., cols, :], seen))


def _nothing(q: Array, v: Array) -> Partial:
    """Rows over no keys: what `merge` leaves others unchanged by."""
    xp = module_of(q)
    one = (*q.shape[:-1], 1)
    m = xp.full(one, -np.inf, q.dtype)
    return Partial(m, xp.zeros(one, q.dtype), xp.zeros((*q.shape[:-1], v.shape[-1]), q.dtype))
