"""FlashAttention (Dao, Fu, Ermon, Rudra, Re 2022, arXiv 2205.14135): Algorithms 2 (forward), 4 (backward) and 5.

The outer loop holds a key tile; O, l and m make a round trip to HBM per key tile. Forward traffic of one head in
words: 3 N d + 2 N + ceil(N/B_c) (3 N d + 4 N); backward: 7 N d + ceil(N/B_c) (5 N d + 2 N).
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, maximum, rowmax, rowsum


def flash1(p: Recorder, Q: Any, K: Any, V: Any, O: Any, l: Any, m: Any) -> None:
    for b, h, g in p.kernel("flash1", p.batch, p.kv_heads, p.group):
        for i in p.loop(p.q_tiles):  # line 2: O = 0, l = 0, m = -inf in HBM
            m_0, l_0 = p.row_state(h, g, i)
            p.store(O[h, g, i], p.zeros(i, p.value_dim))
            p.store(l[h, g, i], l_0)
            p.store(m[h, g, i], m_0)
        for j in p.loop(p.kv_tiles):  # line 5
            k, v = p.cached(K[h, j], V[h, j])
            for i in p.visible(p.q_tiles, j):  # line 7
                q, o, l_old, m_old = p.load(Q[h, g, i], O[h, g, i], l[h, g, i], m[h, g, i])
                s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
                m_new = maximum(m_old, rowmax(s))
                e = exp(s - m_new)
                old = exp(m_old - m_new) * l_old
                l_new = old + rowsum(e)
                p.store(O[h, g, i], (old * o + p.drop(e, h, g, i, j) @ v) / l_new)  # line 12
                p.store(l[h, g, i], l_new)
                p.store(m[h, g, i], m_new)


def flash1_backward(
    p: Recorder, Q: Any, K: Any, V: Any, O: Any, dO: Any, l: Any, m: Any, dQ: Any, dK: Any, dV: Any
) -> None:
    """Algorithm 4: P is computed again from Q, K, l and m; dQ makes a round trip per key tile."""
    for b, h in p.kernel("flash1 backward", p.batch, p.kv_heads):
        for g, i in p.loop(p.group, p.q_tiles):  # line 5: dQ = dK = dV = 0 in HBM
            p.store(dQ[h, g, i], p.zeros(i, p.head_dim))
        for j in p.loop(p.kv_tiles):
            p.store(dK[h, j], p.zeros(j, p.head_dim))
            p.store(dV[h, j], p.zeros(j, p.value_dim))
        for j in p.loop(p.kv_tiles):  # line 7
            k, v = p.load(K[h, j], V[h, j])
            dk, dv = p.zeros(j, p.head_dim), p.zeros(j, p.value_dim)
            for g in p.loop(p.group):
                for i in p.visible(p.q_tiles, j):  # line 10
                    q, o, do, l_i, m_i = p.load(Q[h, g, i], O[h, g, i], dO[h, g, i], l[h, g, i], m[h, g, i])
                    x = p.scale * (q @ k.T)
                    e = exp(p.score_mod(x, h, g, i, j) - m_i) / l_i
                    dv += p.drop(e, h, g, i, j).T @ do
                    ds = p.score_grad(e * (p.drop(do @ v.T, h, g, i, j) - rowsum(do * o)), x)
                    dq = p.load(dQ[h, g, i])
                    p.store(dQ[h, g, i], dq + p.scale * (ds @ k))  # line 21
                    dk += ds.T @ q
            p.store(dK[h, j], p.scale * dk)
            p.store(dV[h, j], dv)
