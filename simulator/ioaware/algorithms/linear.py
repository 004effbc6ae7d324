"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236): phi(Q) (phi(K)^T V), causal, phi = elu + 1.

It is another function than softmax attention, at a cost linear in N: each token's key and value are added to a state of
d x d_v numbers, which answers the queries. Recurrent: token by token, the state makes a round trip to HBM, as in
decoding. Chunkwise: the state stays on chip, and within a chunk of keys scores are computed as usual. Forward only.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, elu_plus_1, rowsum


def linear_recurrent(p: Recorder, Q: Any, K: Any, V: Any, O: Any) -> None:
    state = p.scratch("state", p.batch, p.kv_heads, p.group, p.head_dim, p.value_dim)
    total = p.scratch("total", p.batch, p.kv_heads, p.group, p.head_dim, p.one)
    for b, h, g in p.kernel("tokens", p.batch, p.kv_heads, p.group):
        p.store(state[b, h, g], p.zeros(p.head_dim, p.value_dim))
        p.store(total[b, h, g], p.zeros(p.head_dim, 1))
        for t in p.loop(p.tiles(p.kv, 1)):
            k, v, s, n = p.load(K[h, t], V[h, t], state[b, h, g], total[b, h, g])
            k = elu_plus_1(k)
            s_new, n_new = s + k.T @ v, n + rowsum(k.T)
            q = elu_plus_1(p.load(Q[h, g, p.same_rows(t)]))
            p.store(O[h, g, p.same_rows(t)], (q @ s_new) / (q @ n_new))
            p.store(state[b, h, g], s_new)
            p.store(total[b, h, g], n_new)


def linear_chunkwise(p: Recorder, Q: Any, K: Any, V: Any, O: Any) -> None:
    for b, h, g in p.kernel("chunks", p.batch, p.kv_heads, p.group):
        state, total = p.zeros(p.head_dim, p.value_dim), p.zeros(p.head_dim, 1)
        for j in p.loop(p.kv_tiles):
            i = p.same_rows(j)
            q, k, v = p.load(Q[h, g, i], K[h, j], V[h, j])
            q, k = elu_plus_1(q), elu_plus_1(k)
            a = p.hide(q @ k.T, i, j)
            p.store(O[h, g, i], (q @ state + a @ v) / (q @ total + rowsum(a)))
            state += k.T @ v
            total += rowsum(k.T)
