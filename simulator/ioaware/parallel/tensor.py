"""Tensor parallelism (Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053): heads are shared out; nothing travels.

The baseline: attention itself needs no communication. What the layer pays is outside of attention and not counted: the
output projection's all-reduce, 2 (P - 1)/P N h d words per device and pass, or with sequence parallelism (Korthikanti
et al. 2022, arXiv 2205.05198) as many in an all-gather before and a reduce-scatter after. Every device holds whole
sequences, so long contexts do not fit, and at most h_kv devices can be used.
"""

from __future__ import annotations

from .machine import Machine, T


def tensor(p: Machine[T], q: T, k: T, v: T) -> tuple[T, tuple[T, ...]]:
    o, lse = p.finish(p.attend(q, k, v))
    return o, (q, k, v, o, lse)


def tensor_backward(p: Machine[T], saved: tuple[T, ...], do: T) -> tuple[T, ...]:
    q, k, v, o, lse = saved
    return p.stored(*p.gradients(q, k, v, lse, p.row_sum(o, do), do))
