"""FlashAttention-4 (arXiv 2603.05451), for Blackwell: two query tiles to a block, rescaling only where it matters.

Forward: one block walks the keys once for two query tiles, of which one is multiplied while the other is in its
softmax; O is rescaled only if a row's maximum grew by more than 2^8, because any reference gives the same O / l.
Backward: two CTAs share a key tile of twice the rows, so queries are read, and dQ is added to, half as often.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, lazy_maximum, log, rowmax, rowsum
from .flash2 import dq_converted, gradients, preprocessed


def flash4(p: Recorder, Q: Any, K: Any, V: Any, O: Any, L: Any) -> None:
    for b, h, g, i in p.kernel("flash4", p.batch, p.kv_heads, p.group, p.tiles(p.q, 2 * p.q_tiles.step)):
        q = p.load(Q[h, g, i])
        (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.cached(K[h, j], V[h, j])
            s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
            m_new = lazy_maximum(m, rowmax(s))
            e = exp(s - m_new)
            alpha = exp(m - m_new)
            l[:] = alpha * l + rowsum(e)
            acc *= alpha
            acc += p.drop(e, h, g, i, j) @ v
            m[:] = m_new
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))


def flash4_backward(p: Recorder, Q: Any, K: Any, V: Any, O: Any, dO: Any, L: Any, dQ: Any, dK: Any, dV: Any) -> None:
    D, dQ_sum = preprocessed(p, O, dO)
    pairs = p.tiles(p.kv, 2 * p.kv_tiles.step)
    gradients(p, "main, pairs of CTAs", pairs, (Q, K, V, dO, L, D), (dQ_sum, dK, dV))
    dq_converted(p, dQ_sum, dQ)
