"""A schedule of one's own: FlashAttention's loop order with FlashAttention-2's deferred division.

Keys stay on chip and queries stream past, as in FlashAttention, but O stays unnormalised in fp32 until the end.
Is that better than writing a normalised fp16 O per key tile? Ask:

    simulate --program docs/examples/keys_outside.py --alg flash1 --alg flash2 --explain
"""

from math import inf

from ioaware.program import exp, maximum, rowmax, rowsum


def keys_outside(p, Q, K, V, O):
    """Keys outside, queries inside, one division per row at the end."""
    acc = p.scratch("acc", p.kv_heads, p.group, p.q, p.value_dim)
    l = p.scratch("l", p.kv_heads, p.group, p.q, p.one, dtype="stat")
    m = p.scratch("m", p.kv_heads, p.group, p.q, p.one, dtype="stat")

    for b, h, g in p.kernel("stream queries", p.batch, p.kv_heads, p.group):
        for i in p.loop(p.q_tiles):
            p.store(acc[h, g, i], p.zeros(i, p.value_dim))
            p.store(l[h, g, i], p.zeros(i, 1))
            p.store(m[h, g, i], p.full((i, 1), -inf))
        for j in p.loop(p.kv_tiles):
            k, v = p.load(K[h, j], V[h, j])
            for i in p.visible(p.q_tiles, j):
                q, o, l_old, m_old = p.load(Q[h, g, i], acc[h, g, i], l[h, g, i], m[h, g, i])
                s = p.mask(p.scale * (q @ k.T), i, j)
                m_new = maximum(m_old, rowmax(s))
                e = exp(s - m_new)
                alpha = exp(m_old - m_new)
                p.store(acc[h, g, i], alpha * o + p.drop(e, h, g, i, j) @ v)
                p.store(l[h, g, i], alpha * l_old + rowsum(e))
                p.store(m[h, g, i], m_new)

    for b, h, g, i in p.kernel("divide", p.batch, p.kv_heads, p.group, p.q_tiles):
        o, l_i = p.load(acc[h, g, i], l[h, g, i])
        p.store(O[h, g, i], o / l_i)
