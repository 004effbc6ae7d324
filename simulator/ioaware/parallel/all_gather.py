"""Context parallelism by all-gather (Llama 3, arXiv 2407.21783, section 3.3.2): keys and values are collected first.

Every device gathers all keys and values, then attends with its own queries: any mask is as easy as on one device, and
grouped heads keep K and V small, but nothing is computed while they travel. Chunks are dealt zigzag, so that causal
work is balanced. The backward pass gathers again, rather than keep them, and reduce-scatters dK and dV.

Words sent per device: (P - 1)/P N h_kv (d + d_v) forward; twice that backward, as much again for dK and dV.
"""

from __future__ import annotations

from .machine import Machine, T


def all_gather(p: Machine[T], q: T, k: T, v: T) -> tuple[T, tuple[T, ...]]:
    all_k, all_v = p.all_gather(k, v)
    o, lse = p.finish(p.attend(q, all_k, all_v))
    return o, (q, k, v, o, lse)


def all_gather_backward(p: Machine[T], saved: tuple[T, ...], do: T) -> tuple[T, ...]:
    q, k, v, o, lse = saved
    all_k, all_v = p.all_gather(k, v)
    dq, dk, dv = p.gradients(q, all_k, all_v, lse, p.row_sum(o, do), do)
    return p.stored(dq, *p.reduce_scatter(dk, dv))
