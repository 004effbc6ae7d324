"""Standard attention whose softmax is one streaming kernel (Milakov, Gimelshein 2018, arXiv 1805.02867).

A row of scores is walked tile by tile, so rows of any length fit on chip. Safe softmax touches each score four times
(maximum, sum, and read-and-write to normalise: 3 loads, 1 store), online softmax three times (2 loads, 1 store).
PyTorch's softmax of long rows is the safe one: with S and P that is the six N^2 passes of FlashAttention's Table 18.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..program import Recorder, exp, maximum, rowmax, rowsum
from .naive import score_gradients, scores, value_gradient, weight_gradient, weighted_values


def safe_softmax(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any) -> None:
    S = scores(p, Q, K)
    for b, h, g, i in p.kernel("P = softmax S", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l = p.full((i, 1), -inf), p.zeros(i, 1)
        for j in p.visible(p.kv_tiles, i):
            m[:] = maximum(m, rowmax(p.load(S[h, g, i, j])))
        for j in p.visible(p.kv_tiles, i):
            l += rowsum(exp(p.load(S[h, g, i, j]) - m))
        for j in p.visible(p.kv_tiles, i):
            p.store(P[h, g, i, j], exp(p.load(S[h, g, i, j]) - m) / l)
    weighted_values(p, P, V, O)


def online_softmax(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any) -> None:
    S = scores(p, Q, K)
    for b, h, g, i in p.kernel("P = softmax S", p.batch, p.kv_heads, p.group, p.q_tiles):
        m, l = p.row_state(h, g, i)
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
    value_gradient(p, P, dO, dV)
    dP = weight_gradient(p, V, dO)
    dS = p.scratch("dS", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i in p.kernel("dS = dsoftmax(P, dP)", p.batch, p.kv_heads, p.group, p.q_tiles):
        delta = p.zeros(i, 1)
        for j in p.visible(p.kv_tiles, i):
            w, dw = p.load(P[h, g, i, j], dP[h, g, i, j])
            delta += rowsum(w * dw)
        for j in p.visible(p.kv_tiles, i):
            w, dw = p.load(P[h, g, i, j], dP[h, g, i, j])
            p.store(dS[h, g, i, j], p.scale * (w * (dw - delta)))
    score_gradients(p, Q, K, dS, dQ, dK)
