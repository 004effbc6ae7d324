"""Flash-Decoding (Dao, Haziza, Massa, Sizov 2023): attention for few queries and many keys, cut along the keys.

A decoding step has too few query tiles to fill a GPU. Here every key tile, a split, is a thread block: it reads its
keys once for all query heads that share them and writes a normalised partial output with its own L; a second kernel
combines the partial outputs, weighed by exp(L_part - L). Forward only: L is FlashAttention-2's, and so is the backward.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, log, maximum, rowmax, rowsum


def split_kv(p: Recorder, Q: Any, K: Any, V: Any, O: Any, L: Any) -> None:
    partial = (p.one_per(p.kv_tiles), p.kv_heads, p.group, p.q)
    o_part = p.scratch("O_part", *partial, p.value_dim)
    l_part = p.scratch("L_part", *partial, p.one, dtype="stat")

    for b, h, j in p.kernel("split", p.batch, p.kv_heads, p.kv_tiles):
        k, v = p.cached(K[h, j], V[h, j])
        for g, i in p.loop(p.group, p.q_tiles):  # all of them: the combining kernel reads every split of a row
            q = p.load(Q[h, g, i])
            s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
            m = rowmax(s)
            e = exp(s - m)
            l = rowsum(e)
            p.store(o_part[j.number, h, g, i], (p.drop(e, h, g, i, j) @ v) / l)
            p.store(l_part[j.number, h, g, i], m + log(l))

    combine(p, o_part, l_part, O, L, p.kv_tiles)


def combine(p: Recorder, o_part: Any, l_part: Any, O: Any, L: Any, splits: Any) -> None:
    """The partial outputs of all splits, weighed by exp(L_part - L)."""
    for b, h, g, i in p.kernel("combine", p.batch, p.kv_heads, p.group, p.q_tiles):
        (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
        for s in p.loop(splits):
            o, lse = p.load(o_part[s.number, h, g, i], l_part[s.number, h, g, i])
            m_new = maximum(m, lse)
            w = exp(lse - m_new)
            alpha = exp(m - m_new)
            l[:] = alpha * l + w
            acc *= alpha
            acc += w * o
            m[:] = m_new
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))
