"""Self-attention does not need O(n^2) memory (Rabe, Staats 2021, arXiv 2112.05682), as its two functions run.

Each (query chunk, key chunk) yields a partial output with its own maximum and sum, kept in HBM until the chunks of a
query are combined: the tiling of FlashAttention without its running rescale. The backward pass is the checkpointed
recomputation: the partial results are computed again, then differentiated chunk by chunk.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..program import Recorder, exp, maximum, rowmax, rowsum


def summarize_chunks(p: Recorder, Q: Any, K: Any, V: Any) -> tuple[Any, Any, Any]:
    """Per key chunk: unnormalised output, row sum and row maximum, to HBM."""
    partial = (p.one_per(p.kv_tiles), p.kv_heads, p.group, p.q)
    o_part = p.scratch("O_part", *partial, p.value_dim)
    l_part = p.scratch("l_part", *partial, p.one, dtype="stat")
    m_part = p.scratch("m_part", *partial, p.one, dtype="stat")
    for b, h, g, i in p.kernel("summarize chunks", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        for j in p.visible(p.kv_tiles, i):
            k, v = p.cached(K[h, j], V[h, j])
            s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
            m = rowmax(s)
            e = exp(s - m)
            p.store(m_part[j.number, h, g, i], m)
            p.store(l_part[j.number, h, g, i], rowsum(e))
            p.store(o_part[j.number, h, g, i], p.drop(e, h, g, i, j) @ v)
    return o_part, l_part, m_part


def memory_efficient(p: Recorder, Q: Any, K: Any, V: Any, O: Any) -> None:
    o_part, l_part, m_part = summarize_chunks(p, Q, K, V)
    for b, h, g, i in p.kernel("combine", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            m[:] = maximum(m, p.load(m_part[j.number, h, g, i]))
        for j in p.visible(p.kv_tiles, i):
            w = exp(p.load(m_part[j.number, h, g, i]) - m)
            l += w * p.load(l_part[j.number, h, g, i])
            acc += w * p.load(o_part[j.number, h, g, i])
        p.store(O[h, g, i], acc / l)


def memory_efficient_backward(p: Recorder, Q: Any, K: Any, V: Any, O: Any, dO: Any, dQ: Any, dK: Any, dV: Any) -> None:
    _, l_part, m_part = summarize_chunks(p, Q, K, V)
    for b, h in p.kernel("gradients", p.batch, p.kv_heads):
        for j in p.loop(p.kv_tiles):
            p.store(dK[h, j], p.zeros(j, p.head_dim))
            p.store(dV[h, j], p.zeros(j, p.value_dim))
        for g, i in p.loop(p.group, p.q_tiles):
            q, o, do = p.load(Q[h, g, i], O[h, g, i], dO[h, g, i])
            delta = rowsum(o * do)
            m, l, dq = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.head_dim)
            for j in p.visible(p.kv_tiles, i):
                m[:] = maximum(m, p.load(m_part[j.number, h, g, i]))
            for j in p.visible(p.kv_tiles, i):
                l += exp(p.load(m_part[j.number, h, g, i]) - m) * p.load(l_part[j.number, h, g, i])
            for j in p.visible(p.kv_tiles, i):
                k, v, dk, dv = p.load(K[h, j], V[h, j], dK[h, j], dV[h, j])
                x = p.scale * (q @ k.T)
                e = exp(p.score_mod(x, h, g, i, j) - m) / l
                ds = p.scale * p.score_grad(e * (p.drop(do @ v.T, h, g, i, j) - delta), x)
                p.store(dV[h, j], dv + p.drop(e, h, g, i, j).T @ do)
                p.store(dK[h, j], dk + ds.T @ q)
                dq += ds @ k
            p.store(dQ[h, g, i], dq)
