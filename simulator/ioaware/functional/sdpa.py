# ruff: noqa: FBT001, FBT002 the signature is PyTorch's
"""PyTorch's scaled_dot_product_attention, argument for argument, on NumPy and CuPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, refuse
from ..masks import FULL, Band
from ..problem import Bias
from .arrays import FORMATS, Array, accumulator, alike, have_axes, keys_fit, module_of, number, same
from .call import Operands, call

if TYPE_CHECKING:
    from .ledger import Ledger


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    ledger: Ledger | None = None,
) -> Array:
    """softmax(scale query key^T + attn_mask) value.

    query (..., heads, L, E), key (..., kv_heads, S, E), value (..., kv_heads, S, Ev); or (L, E), (S, E), (S, Ev)

    attn_mask   broadcast to (..., heads, L, S): bool, where True takes part; or a number that is added to the score
    dropout_p   probability of dropping a weight, in [0, 1), by the simulator's generator, not PyTorch's
    is_causal   query i sees key j iff j <= i: aligned top-left, unlike flash-attn's
    scale       default 1 / sqrt(E)
    enable_gqa  kv_heads may divide heads: query head h uses key head h // (heads // kv_heads)

    A row that sees no key gives 0, as PyTorch's CPU kernels do. A hidden key adds nothing even where it or its value is
    NaN, which PyTorch does not promise. Batch axes must be equal: they are not broadcast.
    Returns (..., heads, L, Ev) in the format of query. Raises InputError.
    """
    xp, axes = alike(query=query, key=key, value=value), max(query.ndim, 2)
    have_axes(", ".join(["..."] * (axes - 2) + ["length", "head_dim"]), query=query, key=key, value=value)
    q, k, v = ((x if axes > 2 else x[None]).swapaxes(-3, -2) for x in (query, key, value))  # (..., length, heads, d)
    *batch, length, heads, head_dim = q.shape
    same("key's batch", k.shape[:-3], tuple(batch), "query")
    keys_fit(heads, head_dim, k, v, "key", "value")
    if heads != k.shape[-2] and not enable_gqa:
        raise refuse("key's heads", k.shape[-2], "must be those of query without enable_gqa", heads)
    if attn_mask is not None and is_causal:
        raise InputError("attn_mask and is_causal both say what is masked; give one of them")
    mask, described = _mask(attn_mask, query, (*batch, heads, length, k.shape[-3]))
    out = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = xp.empty((*batch, heads, length), accumulator(q))
    every = list(np.ndindex(*batch))
    made = call(
        "scaled_dot_product_attention", ledger,
        [Operands(q[b], k[b], v[b], None if mask is None else mask[b]) for b in every],
        mask=Band(right=0, top_left=True) if is_causal else FULL, dropout=number(dropout_p),
        softmax_scale=number(scale), **described,
    )  # fmt: skip
    made.forward([out[b] for b in every], [lse[b] for b in every])
    found: Array = out.swapaxes(-3, -2)
    return found if axes > 2 else found[0]


def _mask(mask: Array | None, query: Array, shape: tuple[int, ...]) -> tuple[Array | None, dict[str, Any]]:
    """(the mask, broadcast; what it is in the problem): a row per sequence is key padding, else it is a bias matrix.

    A bool mask is counted as the additive one that PyTorch's fused kernels read, in the format of query.
    """
    if mask is None:
        return None, {}
    if module_of(mask, "attn_mask") is not module_of(query) or str(mask.dtype) not in ("bool", *FORMATS):
        raise refuse("attn_mask.dtype", mask.dtype, f"must be bool, or one of {', '.join(FORMATS)}", query.dtype)
    try:
        out = module_of(mask).broadcast_to(mask, shape)
    except ValueError:
        raise refuse("attn_mask.shape", mask.shape, "must broadcast to (..., heads, L, S)", shape) from None
    *batch, heads, rows, _ = (1,) * (len(shape) - mask.ndim) + mask.shape
    if rows == heads == 1:
        return out, {"padding": True}
    return out, {"bias": Bias(heads=heads > 1, batch=any(size > 1 for size in batch))}
