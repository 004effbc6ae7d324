"""Eager PyTorch: one kernel per operator, every intermediate through HBM.

The scale is folded into the matrix product; an additive mask, softmax, and dropout with a stored byte mask are separate
kernels, each there only if the problem has it; soft cap, ALiBi and bias are part of the mask kernel. With a padding
mask and dropout, forward and backward, this is the 18.0 N^2 fp16 passes of FlashAttention's Figure 2: forward 1 (S)
+ 2 (mask) + 2 (softmax) + 2.5 (dropout) + 1 (PV), backward 1 (dV) + 1 (dP) + 2.5 (dropout) + 3 (softmax) + 2 (dQ, dK).

No tile is skipped under a causal mask: PyTorch's operators compute whole matrices. A causal mask is added from indices,
like `masked_fill` with a broadcast mask; reading a stored N x N mask would be one more pass.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, rowmax, rowsum


def eager(p: Recorder, Q: Any, K: Any, V: Any, O: Any, P: Any, P_dropped: Any = None, keep: Any = None) -> None:
    heads = p.batch, p.kv_heads, p.group
    S = p.scratch("S", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, g, i, j in p.kernel("S = QK^T", *heads, p.q_tiles, p.kv_tiles):
        q, k = p.load(Q[h, g, i], K[h, j])
        p.store(S[h, g, i, j], p.scale * (q @ k.T))
    masked = S
    if p.modified:
        masked = p.scratch("S_masked", p.kv_heads, p.group, p.q, p.kv, dtype="score")
        for b, h, g, i, j in p.kernel("mask", *heads, p.q_tiles, p.kv_tiles):
            s = p.load(S[h, g, i, j])
            p.store(masked[h, g, i, j], p.score_mod(s, h, g, i, j))
    for b, h, g, i in p.kernel("P = softmax S", *heads, p.tiles(p.q, 1)):
        s = p.load(masked[h, g, i, :])
        e = exp(s - rowmax(s))
        p.store(P[h, g, i, :], e / rowsum(e))
    if keep:
        for b, h, g, i, j in p.kernel("dropout", *heads, p.q_tiles, p.kv_tiles):
            kept = p.keep(h, g, i, j)
            p.store(keep[h, g, i, j], kept)
            p.store(P_dropped[h, g, i, j], p.kept(p.load(P[h, g, i, j]), kept))
    for b, h, g, i in p.kernel("O = PV", *heads, p.q_tiles):
        acc = p.zeros(i, p.value_dim)
        for j in p.loop(p.kv_tiles):
            w, v = p.load((P_dropped or P)[h, g, i, j], V[h, j])
            acc += w @ v
        p.store(O[h, g, i], acc)


def eager_backward(
    p: Recorder,
    Q: Any,
    K: Any,
    V: Any,
    P: Any,
    dO: Any,
    dQ: Any,
    dK: Any,
    dV: Any,
    P_dropped: Any = None,
    keep: Any = None,
) -> None:
    heads = p.batch, p.kv_heads, p.group
    dR = dP = p.scratch("dP", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    if keep:
        dR = p.scratch("dP_dropped", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    dS = p.scratch("dS", p.kv_heads, p.group, p.q, p.kv, dtype="score")
    for b, h, j in p.kernel("dV = P^T dO", p.batch, p.kv_heads, p.kv_tiles):
        dv = p.zeros(j, p.value_dim)
        for g, i in p.loop(p.group, p.q_tiles):
            w, do = p.load((P_dropped or P)[h, g, i, j], dO[h, g, i])
            dv += w.T @ do
        p.store(dV[h, j], dv)
    for b, h, g, i, j in p.kernel("dP = dO V^T", *heads, p.q_tiles, p.kv_tiles):
        do, v = p.load(dO[h, g, i], V[h, j])
        p.store(dR[h, g, i, j], do @ v.T)
    if keep:
        for b, h, g, i, j in p.kernel("dropout", *heads, p.q_tiles, p.kv_tiles):
            dw, kept = p.load(dR[h, g, i, j], keep[h, g, i, j])
            p.store(dP[h, g, i, j], p.kept(dw, kept))
    for b, h, g, i in p.kernel("dS = dsoftmax(P, dP)", *heads, p.tiles(p.q, 1)):
        w, dw = p.load(P[h, g, i, :], dP[h, g, i, :])
        p.store(dS[h, g, i, :], p.scale * (w * (dw - rowsum(w * dw))))
    for b, h, g, i in p.kernel("dQ = dS K", *heads, p.q_tiles):
        dq = p.zeros(i, p.head_dim)
        for j in p.loop(p.kv_tiles):
            ds, k = p.load(dS[h, g, i, j], K[h, j])
            dq += ds @ k
        p.store(dQ[h, g, i], dq)
    for b, h, j in p.kernel("dK = dS^T Q", p.batch, p.kv_heads, p.kv_tiles):
        dk = p.zeros(j, p.head_dim)
        for g, i in p.loop(p.group, p.q_tiles):
            ds, q = p.load(dS[h, g, i, j], Q[h, g, i])
            dk += ds.T @ q
        p.store(dK[h, j], dk)
