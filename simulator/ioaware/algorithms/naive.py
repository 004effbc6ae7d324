"""Standard attention (FlashAttention, Algorithms 0 and 3): three kernels, S and P make a round trip to HBM.

With one tile per sequence every kernel reads its inputs once, as the paper counts: 4 N^2 + 4 N d forward and
7 N^2 + 8 N d backward. With smaller tiles (`--gemm-tiles`) the matrix products' own re-reads appear, and tiles that the
mask hides are skipped. Dropout is drawn again where it is needed; `eager` is the one that stores a mask.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, rowmax, rowsum


def naive(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any) -> None:
    S = scores(p, Q, K)
    for b, h, g, i in p.kernel("P = softmax S", p.batch, p.kv_heads, p.group, p.q_tiles):
        for r in p.loop(p.tiles(i, 1)):
            row = p.seen(p.kv_tiles, i)
            s = p.load(S[h, g, r, row])
            e = exp(s - rowmax(s))
            p.store(P[h, g, r, row], e / rowsum(e))
    weighted_values(p, P, V, O)


def naive_backward(p: Recorder, Q: Any, K: Any, V: Any, P: Any, dO: Any, dQ: Any, dK: Any, dV: Any) -> None:
    """Algorithm 3: P was saved; dP and dS make a round trip to HBM."""
    value_gradient(p, P, dO, dV)
    dP = weight_gradient(p, V, dO)
    dS = p.scratch("dS", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i in p.kernel("dS = dsoftmax(P, dP)", p.batch, p.kv_heads, p.group, p.q_tiles):
        for r in p.loop(p.tiles(i, 1)):
            row = p.seen(p.kv_tiles, i)
            w, dw = p.load(P[h, g, r, row], dP[h, g, r, row])
            p.store(dS[h, g, r, row], p.scale * (w * (dw - rowsum(w * dw))))
    score_gradients(p, Q, K, dS, dQ, dK)


# ------------------------------------------------------------------------ the matrix products of standard attention
def scores(p: Recorder, Q: Any, K: Any) -> Any:
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i in p.kernel("S = QK^T", p.batch, p.kv_heads, p.group, p.q_tiles):
        for j in p.visible(p.kv_tiles, i):
            q, k = p.load(Q[h, g, i], K[h, j])
            p.store(S[h, g, i, j], p.score_mod(p.scale * (q @ k.T), h, g, i, j))
    return S


def weighted_values(p: Recorder, P: Any, V: Any, O: Any) -> None:
    for b, h, g, i in p.kernel("O = PV", p.batch, p.kv_heads, p.group, p.q_tiles):
        acc = p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            w, v = p.load(P[h, g, i, j], V[h, j])
            acc += p.drop(w, h, g, i, j) @ v
        p.store(O[h, g, i], acc)


def value_gradient(p: Recorder, P: Any, dO: Any, dV: Any) -> None:
    for b, h, j in p.kernel("dV = P^T dO", p.batch, p.kv_heads, p.kv_tiles):
        dv = p.zeros(j, p.value_dim)
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                w, do = p.load(P[h, g, i, j], dO[h, g, i])
                dv += p.drop(w, h, g, i, j).T @ do
        p.store(dV[h, j], dv)


def weight_gradient(p: Recorder, V: Any, dO: Any) -> Any:
    dP = p.scratch("dP", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i in p.kernel("dP = dO V^T", p.batch, p.kv_heads, p.group, p.q_tiles):
        for j in p.visible(p.kv_tiles, i):
            do, v = p.load(dO[h, g, i], V[h, j])
            p.store(dP[h, g, i, j], p.drop(do @ v.T, h, g, i, j))
    return dP


def score_gradients(p: Recorder, Q: Any, K: Any, dS: Any, dQ: Any, dK: Any) -> None:
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
