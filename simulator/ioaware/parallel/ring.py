"""Ring Attention (Liu, Zaharia, Abbeel 2023, arXiv 2310.01889): queries stay, keys and values travel around a ring.

While a device works on the keys it has, they are on their way to the next one. Striped Attention (Brandon et al. 2023,
arXiv 2311.09431) and zigzag ring attention are the same text: they only share out the tokens differently, so that under
a causal mask no device waits for another. In the backward pass dK and dV travel with their keys, and one hop further,
home.

Words sent per device, N/P tokens each: (P - 1) N/P h_kv (d + d_v) forward, (2P - 1) N/P h_kv (d + d_v) backward.
"""

from __future__ import annotations

from .machine import Machine, T


def ring(p: Machine[T], q: T, k: T, v: T) -> tuple[T, tuple[T, ...]]:
    home = k, v
    state = p.attend(q, k, v)
    for _ in range(p.devices - 1):
        k, v = p.shift(k, v)
        state = p.attend(q, k, v, state)
    o, lse = p.finish(state)
    return o, (q, *home, o, lse)


def ring_backward(p: Machine[T], saved: tuple[T, ...], do: T) -> tuple[T, ...]:
    q, k, v, o, lse = saved
    delta = p.row_sum(o, do)
    dq, dk, dv = p.gradients(q, k, v, lse, delta, do)
    for _ in range(p.devices - 1):
        k, v = p.shift(k, v)
        dk, dv = p.shift(dk, dv)
        parts = p.gradients(q, k, v, lse, delta, do)
        dq, dk, dv = p.add((dq, dk, dv), parts)
    dk, dv = p.shift(dk, dv)
    return p.stored(dq, dk, dv)
