"""FlashAttention-2 by one persistent thread block per head that walks the keys back and forth.

Every second query tile reads the keys from the last to the first, so the key tile at which the walk turns is still on
chip and is not read again: ceil(N_q/B_r) - 1 key tiles are saved. Without a mask most small problems have no better
order (docs/model.md). The price is parallelism: the query tiles of a head follow one another.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, log, maximum, rowmax, rowsum


def flash2_serpentine(p: Recorder, Q: Any, K: Any, V: Any, O: Any, L: Any) -> None:
    for b, h, g in p.kernel("flash2, persistent", p.batch, p.kv_heads, p.group):
        for i in p.loop(p.q_tiles):
            q = p.load(Q[h, g, i])
            (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
            for j in p.serpentine(p.kv_tiles, i):
                k, v = p.cached(K[h, j], V[h, j])
                s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
                m_new = maximum(m, rowmax(s))
                e = exp(s - m_new)
                alpha = exp(m - m_new)
                l[:] = alpha * l + rowsum(e)
                acc *= alpha
                acc += p.drop(e, h, g, i, j) @ v
                m[:] = m_new
            p.store(O[h, g, i], acc / l)
            p.store(L[h, g, i], m + log(l))
