"""Flash-Decoding as FlashAttention-2 and -3 ship it: the keys of a query tile go into num_splits parts (blog, 2023).

One thread block per query tile and split walks the key tiles of its split as FlashAttention-2 does and writes a
normalised partial output in fp32 with its own L; a second kernel combines them. Few queries then fill a GPU. With one
split the kernels write O themselves, which is flash2. Forward only: the backward pass is FlashAttention-2's.

In multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) with the up-projections absorbed, one cached row per
token is key and value at once: V is its first columns, and is not loaded again.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..program import Recorder, exp, log, maximum, rowmax, rowsum
from .split_kv import combine


def flash_decoding(p: Recorder, Q: Any, K: Any, V: Any, O: Any, L: Any) -> None:
    o_part, l_part = partial(p)
    for b, h, g, i, s in p.kernel("attend", p.batch, p.kv_heads, p.group, p.q_tiles, p.splits):
        m, l, acc = p.full((i, 1), -inf), p.zeros(i, 1), p.zeros(i, p.value_dim)
        attend(p, Q, K, V, (h, g, i), p.tiles(s, p.kv_tiles.step), m, l, acc)
        p.store(o_part[s.number, h, g, i], acc / l)
        p.store(l_part[s.number, h, g, i], m + log(l))
    combine(p, o_part, l_part, O, L, p.splits)


def mla(p: Recorder, Q: Any, K: Any, O: Any, L: Any) -> None:
    flash_decoding(p, Q, K, None, O, L)


def mla_unsplit(p: Recorder, Q: Any, K: Any, O: Any, L: Any) -> None:
    for b, h, g, i in p.kernel("mla", p.batch, p.kv_heads, p.group, p.q_tiles):
        (m, l), acc = p.row_state(h, g, i), p.zeros(i, p.value_dim)
        attend(p, Q, K, None, (h, g, i), p.kv_tiles, m, l, acc)
        p.store(O[h, g, i], acc / l)
        p.store(L[h, g, i], m + log(l))


def partial(p: Recorder) -> tuple[Any, Any]:
    """An output and a log-sum-exp per split, in fp32."""
    rows = (p.one_per(p.splits), p.kv_heads, p.group, p.q)
    return p.scratch("O_part", *rows, p.value_dim), p.scratch("L_part", *rows, p.one, dtype="stat")


def attend(p: Recorder, Q: Any, K: Any, V: Any, row: Any, keys: Any, m: Any, l: Any, acc: Any) -> None:
    """The loop of FlashAttention-2 over some key tiles; without V, the values are columns of the keys."""
    h, g, i = row
    q = p.load(Q[h, g, i])
    for j in p.visible(keys, i):
        if V:
            k, v = p.cached(K[h, j], V[h, j])
        else:
            k = p.cached(K[h, j])
            v = k.columns(p.value_dim)
        s = p.score_mod(p.scale * (q @ k.T), h, g, i, j)
        m_new = maximum(m, rowmax(s))
        e = exp(s - m_new)
        alpha = exp(m - m_new)
        l[:] = alpha * l + rowsum(e)
        acc *= alpha
        acc += p.drop(e, h, g, i, j) @ v
        m[:] = m_new
