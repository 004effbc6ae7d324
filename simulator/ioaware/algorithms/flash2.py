"""FlashAttention-2 (Dao 2023, arXiv 2307.08691): Algorithm 1, with the factor of line 10 corrected, and Algorithm 2.

The loops of FlashAttention are swapped: a thread block keeps one query tile and its output and walks the keys, so O is
written once and only L = m + log l is saved for the backward pass.
"""

from __future__ import annotations

from typing import Any

from ..program import Recorder, exp, log, maximum, rowmax, rowsum


def flash2(p: Recorder, Q: Any, K: Any, V: Any, O: Any, L: Any) -> None:
    for b, h, g, i in p.kernel("flash2", p.batch, p.kv_heads, p.group, p.q_tiles):
        q = p.load(Q[h, g, i])
        (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.cached(K[h, j], V[h, j])
            s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
            m_new = maximum(m, rowmax(s))
            e = exp(s - m_new)
            alpha = exp(m - m_new)  # line 10 prints its inverse
            l[:] = alpha * l + rowsum(e)
            acc *= alpha
            acc += p.drop(e, h, g, i, j) @ v
            m[:] = m_new
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))


def flash2_backward(p: Recorder, Q: Any, K: Any, V: Any, O: Any, dO: Any, L: Any, dQ: Any, dK: Any, dV: Any) -> None:
    """Algorithm 2: one thread block per key tile; dQ is accumulated in fp32 with atomic adds."""
    D, dQ_sum = preprocessed(p, O, dO)
    gradients(p, "main", p.kv_tiles, (Q, K, V, dO, L, D), (dQ_sum, dK, dV))
    dq_converted(p, dQ_sum, dQ)


def gradients(p: Recorder, label: str, key_tiles: Any, given: Any, wanted: Any) -> None:
    """The launch that owns dK and dV by key tiles, and adds to the sum of dQ."""
    Q, K, V, dO, L, D = given
    dQ_sum, dK, dV = wanted
    for b, h, j in p.kernel(label, p.batch, p.kv_heads, key_tiles):
        k, v = p.load(K[h, j], V[h, j])
        dk, dv = p.zeros(j, p.head_dim), p.zeros(j, p.value_dim)
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                q, do, lse, delta = p.load(Q[h, g, i], dO[h, g, i], L[h, g, i], D[h, g, i])
                x = p.scale * (q @ k.T)
                e = exp(p.score_mod(x, h, g, i, j) - lse)
                dv += p.drop(e, h, g, i, j).T @ do
                ds = p.score_grad(e * (p.drop(do @ v.T, h, g, i, j) - delta), x)
                p.add(dQ_sum[h, g, i], ds @ k)
                dk += ds.T @ q
        p.store(dK[h, j], p.scale * dk)
        p.store(dV[h, j], dv)


def preprocessed(p: Recorder, O: Any, dO: Any) -> tuple[Any, Any]:
    """D, the row sums of O dO, and the fp32 sum of dQ, zero."""
    D = p.scratch("D", p.kv_heads, p.group, p.q, p.one, dtype="stat")
    dQ_sum = p.scratch("dQ_sum", p.kv_heads, p.group, p.q, p.head_dim)
    for b, h, g, i in p.kernel("preprocess", p.batch, p.kv_heads, p.group, p.q_tiles):
        o, do = p.load(O[h, g, i], dO[h, g, i])
        p.store(D[h, g, i], rowsum(o * do))
        p.store(dQ_sum[h, g, i], p.zeros(i, p.head_dim))
    return D, dQ_sum


def dq_converted(p: Recorder, dQ_sum: Any, dQ: Any) -> None:
    """The sum of dQ, scaled, in its own format."""
    for b, h, g, i in p.kernel("convert", p.batch, p.kv_heads, p.group, p.q_tiles):
        p.store(dQ[h, g, i], p.scale * p.load(dQ_sum[h, g, i]))


def flash2_backward_two_kernels(
    p: Recorder, Q: Any, K: Any, V: Any, O: Any, dO: Any, L: Any, dQ: Any, dK: Any, dV: Any
) -> None:
    """Without atomics: one kernel owns dK and dV, another owns dQ; the scores are computed twice."""
    D = p.scratch("D", p.kv_heads, p.group, p.q, p.one, dtype="stat")

    for b, h, g, i in p.kernel("preprocess", p.batch, p.kv_heads, p.group, p.q_tiles):
        o, do = p.load(O[h, g, i], dO[h, g, i])
        p.store(D[h, g, i], rowsum(o * do))

    for b, h, j in p.kernel("dK, dV", p.batch, p.kv_heads, p.kv_tiles):
        k, v = p.load(K[h, j], V[h, j])
        dk, dv = p.zeros(j, p.head_dim), p.zeros(j, p.value_dim)
        for g in p.loop(p.group):
            for i in p.visible(p.q_tiles, j):
                q, do, lse, delta = p.load(Q[h, g, i], dO[h, g, i], L[h, g, i], D[h, g, i])
                x = p.scale * (q @ k.T)
                e = exp(p.score_mod(x, h, g, i, j) - lse)
                dv += p.drop(e, h, g, i, j).T @ do
                ds = p.score_grad(e * (p.drop(do @ v.T, h, g, i, j) - delta), x)
                dk += ds.T @ q
        p.store(dK[h, j], p.scale * dk)
        p.store(dV[h, j], dv)

    for b, h, g, i in p.kernel("dQ", p.batch, p.kv_heads, p.group, p.q_tiles):
        q, do, lse, delta = p.load(Q[h, g, i], dO[h, g, i], L[h, g, i], D[h, g, i])
        dq = p.zeros(i, p.head_dim)
        for j in p.visible(p.kv_tiles, i):
            k, v = p.load(K[h, j], V[h, j])
            x = p.scale * (q @ k.T)
            e = exp(p.score_mod(x, h, g, i, j) - lse)
            ds = p.score_grad(e * (p.drop(do @ v.T, h, g, i, j) - delta), x)
            dq += ds @ k
        p.store(dQ[h, g, i], p.scale * dq)
