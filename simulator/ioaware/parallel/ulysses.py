"""DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509): from runs of tokens to runs of heads, and back.

One all-to-all gives every device all tokens of some heads, so that it computes ordinary attention; another brings the
output home. A key/value head whose query heads are on several devices is sent to each of them.

Words sent per device, with P dividing h_kv: (P - 1)/P N/P (h d + h_kv d + h_kv d_v + h d_v) forward, and as much
backward: dO comes, dQ, dK and dV go. For h = h_kv and d = d_v that is the paper's 4 N h d / P but for the own part.
"""

from __future__ import annotations

from .layout import over_heads
from .machine import Machine, T


def ulysses(p: Machine[T], q: T, k: T, v: T) -> tuple[T, tuple[T, ...]]:
    q, k, v = p.all_to_all(q, k, v, to=over_heads(p.problem, p.devices))
    o, lse = p.finish(p.attend(q, k, v))
    (home,) = p.all_to_all(o, to=p.home)
    return home, (q, k, v, o, lse)


def ulysses_backward(p: Machine[T], saved: tuple[T, ...], do: T) -> tuple[T, ...]:
    q, k, v, o, lse = saved
    (do,) = p.all_to_all(do, to=over_heads(p.problem, p.devices))
    dq, dk, dv = p.gradients(q, k, v, lse, p.row_sum(o, do), do)
    (dq,) = p.stored(dq)
    if (p.problem.kv_heads or 1) % p.devices == 0:  # no key/value head is shared: these sums are complete
        dk, dv = p.stored(dk, dv)
    return p.stored(*p.all_to_all(dq, dk, dv, to=p.home))
