# ruff: noqa: FBT001 the arguments are flash-attn's
"""The options that all of flash-attn's functions share, as the fields of the problem that they describe."""

from __future__ import annotations

from typing import Any

from ..errors import refuse
from ..masks import Band
from .arrays import FORMATS, Array, integers, module_of, number

Window = tuple[int, int]


def fields(
    dropout_p: float, softmax_scale: float | None, causal: bool, window_size: Window, softcap: float
) -> dict[str, Any]:  # fmt: skip
    """The options as fields of AttentionProblem, which checks them."""
    sides = integers("window_size", window_size)
    if len(sides) != 2 or min(sides) < -1:
        raise refuse("window_size", window_size, "two numbers of keys, or -1 for all", (-1, -1))
    left, right = (None if side == -1 else side for side in sides)
    return {
        "mask": Band(left, 0 if causal else right), "dropout": number(dropout_p), "softcap": number(softcap),
        "softmax_scale": number(softmax_scale),
    }  # fmt: skip


def per_sequence(slopes: Array | None, batch: int, heads: int) -> Array | None:
    """ALiBi's slopes, (batch, heads)."""
    if slopes is None:
        return None
    xp = module_of(slopes, "alibi_slopes")
    if str(slopes.dtype) not in FORMATS:
        raise refuse("alibi_slopes.dtype", slopes.dtype, f"must be one of {', '.join(FORMATS)}", "float32")
    if slopes.shape not in ((heads,), (batch, heads)):
        raise refuse("alibi_slopes.shape", slopes.shape, f"must be ({heads},) or ({batch}, {heads})", (heads,))
    out: Array = xp.broadcast_to(slopes, (batch, heads))
    return out
