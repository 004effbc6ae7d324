"""The gradient of attention in tiles, from O and L alone: P is computed again (Dao 2023, algorithm 2)."""

from __future__ import annotations

from .arrays import Array, module_of
from .online import finite, query_tiles
from .scores import Scores, weigh


def gradients(
    do: Array, q: Array, k: Array, v: Array, out: Array, logs: Array, scores: Scores
) -> tuple[Array, Array, Array]:
    """(dQ, dK, dV) of one sequence, from dO and what the forward pass returned.

    q, do, out (kv_heads, group, q_len, ...); logs (kv_heads, group, q_len); k and v (kv_heads, 1, kv_len, ...)
    """
    xp = module_of(q)
    dq, dk, dv = xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v)
    scale = q.dtype.type(scores.problem.scale)
    for rows in query_tiles(q):
        scaled, do_rows, base = q[..., rows, :] * scale, do[..., rows, :], finite(logs[..., rows, None])
        d = (do_rows * out[..., rows, :]).sum(axis=-1, keepdims=True)
        for cols in scores.key_tiles(rows, slice(0, scores.kv_len)):
            s = scores.capped(scaled, k[..., cols, :])
            slope = 1 - (s / scores.problem.softcap) ** 2 if scores.problem.softcap else None  # of c tanh(s / c)
            s, seen = scores.shown(s, rows, cols)
            p = xp.exp(s - base)
            dp, dropped, kept = do_rows @ v[..., cols, :].swapaxes(-1, -2), p, scores.kept(rows, cols, p)
            if kept is not None:
                dp, dropped = dp * kept, p * kept
            ds = p * (dp - d)
            if slope is not None:
                ds *= slope
            if seen is not None:  # a hidden key may be NaN or infinite
                ds = xp.where(seen, ds, ds.dtype.type(0))
            seen_t = None if seen is None else seen.swapaxes(-1, -2)
            dq[..., rows, :] += scale * weigh(ds, k[..., cols, :], seen)
            dk[..., cols, :] += weigh(ds.swapaxes(-1, -2), scaled, seen_t).sum(axis=1, keepdims=True)
            dv[..., cols, :] += weigh(dropped.swapaxes(-1, -2), do_rows, seen_t).sum(axis=1, keepdims=True)
    return dq, dk, dv
