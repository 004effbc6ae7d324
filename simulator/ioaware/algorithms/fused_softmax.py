"""Standard attention whose softmax is one streaming kernel (Milakov, Gimelshein 2018, arXiv 1805.02867).

A row of scores is walked tile by tile, so rows of any length fit on chip. Safe softmax touches each score four times
(maximum, sum, and read-and-write to normalise: 3 loads, 1 store), online softmax three times (2 loads, 1 store).
PyTorch's softmax of long rows is the safe one: with S and P that is the six N^2 passes of FlashAttention's Table 18.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..program import Recorder, exp, maximum, rowmax, rowsum


def scores(p: Recorder, Q: Any, K: Any, padding: Any) -> Any:
    """S = Q K^T through HBM, tiles that the mask hides skipped."""
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i in p.kernel("S = QK^T", p.batch, p.kv_heads, p.group, p.q_tiles):
        for j in p.visible(p.kv_tiles, i):
            q, k = p.load(Q[h, g, i], K[h, j])
            bias = p.load(padding[j]).T if padding else None
            p.store(S[h, g, i, j], p.mask(p.scale * (q @ k.T), i, j, bias))
    return S


def weighted_values(p: Recorder, P: Any, V: Any, O: Any) -> None:
    """O = P V, with dropout where the problem has it, by a counter-based generator."""
    for b, h, g, i in p.kernel("O = PV", p.batch, p.kv_heads, p.group, p.q_tiles):
        acc = p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            w, v = p.load(P[h, g, i, j], V[h, j])
            acc += p.drop(w, h, g, i, j) @ v
        p.store(O[h, g, i], acc)


def safe_softmax(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any, padding: Any = None) -> None:
    S = scores(p, Q, K, padding)
    for b, h, g, i in p.kernel("P = softmax S", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l = p.full((i, 1), -inf), p.zeros(i, 1)
        for j in p.visible(p.kv_tiles, i):
            m[:] = maximum(m, rowmax(p.load(S[h, g, i, j])))
        for j in p.visible(p.kv_tiles, i):
            l += rowsum(exp(p.load(S[h, g, i, j]) - m))
        for j in p.visible(p.kv_tiles, i):
            p.store(P[h, g, i, j], exp(p.load(S[h, g, i, j]) - m) / l)
    weighted_values(p, P, V, O)


def online_softmax(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any, padding: Any = None) -> None:
    S = scores(p, Q, K, padding)
    for b, h, g, i in p.kernel("P = softmax S", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l = p.full((i, 1), -inf), p.zeros(i, 1)
        for j in p.visible(p.kv_tiles, i):
            s = p.load(S[h, g, i, j])
            m_new = maximum(m, rowmax(s))
            l[:] = exp(m - m_new) * l + rowsum(exp(s - m_new))
            m[:] = m_new
        for j in p.visible(p.kv_tiles, i):
            p.store(P[h, g, i, j], exp(p.load(S[h, g, i, j]) - m) / l)
    weighted_values(p, P, V, O)


def fused_softmax_backward(p: Recorder, Q: Any, K: Any, V: Any, P: Any, dO: Any, dQ: Any, dK: Any, dV: Any) -> None:
    """The standard backward pass with a streaming softmax gradient: P and dP are read twice."""
    dP = p.scratch("dP", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    dS = p.scratch("dS", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, j in p.kernel("dV = P^T dO", p.batch, p.kv_heads, p.kv_tiles):
        dv = p.zeros(j, p.value_dim)
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                w, do = p.load(P[h, g, i, j], dO[h, g, i])
                dv += p.drop(w, h, g, i, j).T @ do
        p.store(dV[h, j], dv)
    for b, h, g, i in p.kernel("dP = dO V^T", p.batch, p.kv_heads, p.group, p.q_tiles):
        for j in p.visible(p.kv_tiles, i):
            do, v = p.load(dO[h, g, i], V[h, j])
            p.store(dP[h, g, i, j], p.drop(do @ v.T, h, g, i, j))
    for b, h, g, i in p.kernel("dS = dsoftmax(P, dP)", p.batch, p.kv_heads, p.group, p.q_tiles):
        delta = p.zeros(i, 1)
        for j in p.visible(p.kv_tiles, i):
            w, dw = p.load(P[h, g, i, j], dP[h, g, i, j])
            delta += rowsum(w * dw)
        for j in p.visible(p.kv_tiles, i):
            w, dw = p.load(P[h, g, i, j], dP[h, g, i, j])
            p.store(dS[h, g, i, j], p.scale * (w * (dw - delta)))
    for b, h, g, i in p.kernel("dQ = dS K", p.batch, p.kv_heads, p.group, p.q_tiles):
        dq = p.zeros(i, p.head_dim)
        for j in p.visible(p.kv_tiles, i):
            ds, k = p.load(dS[h, g, i, j], K[h, j])
            dq += ds @ k
        p.store(dQ[h, g, i], dq)
    for b, h, j in p.kernel("dK = dS^T Q", p.batch, p.kv_heads, p.kv_tiles):
        dk = p.zeros(j, p.head_dim)
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                ds, q = p.load(dS[h, g, i, j], Q[h, g, i])
                dk += ds.T @ q
        p.store(dK[h, j], dk)
