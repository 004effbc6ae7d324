"""Rotary position embedding (Su et al. 2021): pairs of columns are turned by an angle that grows with the position."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import refuse
from .arrays import Array, accumulator, module_of, same


def rotated(x: Array, cos: Array, sin: Array, first: Sequence[int], step: int, *, interleaved: bool) -> Array:
    """x (batch, length, heads, head_dim), row i of sequence b turned by the angles of position first[b] + step * i.

    cos, sin     (positions, pairs): the first 2 * pairs columns are turned, the others stay
    interleaved  pairs are columns 2 j and 2 j + 1; otherwise j and j + pairs
    """
    xp = module_of(x)
    same("rotary_sin", sin.shape, cos.shape, "rotary_cos")
    pairs = cos.shape[-1]
    if 2 * pairs > x.shape[3]:
        raise refuse("rotary_cos's columns", pairs, f"pairs of the {x.shape[3]} columns of q", x.shape[3] // 2)
    positions = xp.asarray(first)[:, None] + step * xp.arange(x.shape[1])[None]
    if positions.size and int(positions.max()) >= len(cos):
        raise refuse("rotary_cos's rows", len(cos), "one for every position is needed", int(positions.max()) + 1)
    c, s = (table[positions][:, :, None].astype(accumulator(x)) for table in (cos, sin))  # (batch, length, 1, pairs)
    one = slice(0, 2 * pairs, 2) if interleaved else slice(0, pairs)
    other = slice(1, 2 * pairs, 2) if interleaved else slice(pairs, 2 * pairs)
    a, b = (x[..., half].astype(accumulator(x)) for half in (one, other))
    out = x.copy()
    out[..., one], out[..., other] = a * c - b * s, a * s + b * c
    return out
