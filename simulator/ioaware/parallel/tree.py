"""Tree Attention (Shyam et al. 2024, arXiv 2408.04093): decoding with a KV cache that is shared out.

Every device has the queries and attends to its own keys; what is combined is only the softmax state: the maximum, then
the sums and the unnormalised outputs, each up a tree of devices and down again. No key or value travels, the bytes do
not depend on the cache's length, and the steps grow as log P, not P.

Words sent, averaged over devices: 2 (P - 1)/P N_q h (d_v + 2).
"""

from __future__ import annotations

from .machine import Machine, T


def tree(p: Machine[T], q: T, k: T, v: T) -> tuple[T, tuple[T, ...]]:
    state = p.attend(q, k, v)
    (m,) = p.all_max(state[0])
    total, o = p.all_sum(*p.rescale(state, m))
    o, lse = p.finish((m, total, o))
    return o, (q, k, v, o, lse)
