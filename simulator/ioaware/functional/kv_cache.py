# ruff: noqa: FBT001, FBT002 the signature is flash-attn's
"""flash-attn's decoding: new keys are put into a cache, contiguous or paged, then queries attend to all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError, refuse
from ..masks import FULL
from .arrays import Array, accumulator, alike, have_axes, integers, keys_fit, number, same
from .call import Operands, call
from .flash_attn import AXES
from .options import Window, fields, per_sequence
from .pages import Cache
from .rotary import rotated

if TYPE_CHECKING:
    from .ledger import Ledger


def flash_attn_with_kvcache(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    k: Array | None = None,
    v: Array | None = None,
    rotary_cos: Array | None = None,
    rotary_sin: Array | None = None,
    cache_seqlens: Any = None,
    cache_batch_idx: Any = None,
    cache_leftpad: Any = None,
    block_table: Array | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Array | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
    *,
    ledger: Ledger | None = None,
) -> Any:
    """Attention of q (batch, seqlen_q, heads, head_dim) to k_cache and v_cache (sequences, length, kv_heads, head_dim).

    k, v             (batch, seqlen_new, kv_heads, head_dim): written into the cache, in place, behind cache_seqlens
    rotary_cos, _sin (positions, rotary_dim / 2): rotate k by its positions in the cache, and q likewise if there is a
                     causal mask or a window, else by the first of them
    cache_seqlens    keys in the cache, one number or (batch,). Default: all of it
    cache_batch_idx  (batch,): which sequence of the cache. Default: 0, 1, 2, ...
    cache_leftpad    (batch,): where in the cache a sequence starts. Default: 0
    block_table      (batch, pages): then the caches are (pages, page size, kv_heads, head_dim), of any page size
    num_splits       in how many parts the keys are worked on, each by itself; 0: one

    Slots behind a sequence are never read. The ledger counts attention, not the copy of k and v into the cache.
    Returns out (batch, seqlen_q, heads, value_dim), or with softmax_lse (batch, heads, seqlen_q). Raises InputError.
    """
    xp, cache = alike(q=q, k_cache=k_cache, v_cache=v_cache), Cache(k_cache, v_cache, block_table)
    have_axes(AXES, q=q)
    batch, length, heads, head_dim = q.shape
    keys_fit(heads, head_dim, k_cache, v_cache, "k_cache", "v_cache")
    if block_table is not None and cache_batch_idx is not None:
        raise InputError("cache_batch_idx and block_table both say where a sequence is; give one of them")
    num_splits = number(num_splits)
    if not isinstance(num_splits, int) or num_splits < 0:
        raise refuse("num_splits", num_splits, "a number of parts, or 0", 0)
    added = _check_new(q, cache, k, v, cache_seqlens, rotary_cos, rotary_sin)
    starts = _each("cache_leftpad", cache_leftpad, batch, 0)
    stops = _each("cache_seqlens", cache_seqlens, batch, cache.room)
    which = _each("cache_batch_idx", range(batch) if cache_batch_idx is None else cache_batch_idx, batch, 0)
    out, lse = xp.empty((*q.shape[:3], v_cache.shape[3]), q.dtype), xp.empty((batch, heads, length), accumulator(q))

    def sequences(queries: Array) -> list[Operands]:
        parts = zip(queries, which, starts, stops, strict=True)
        return [Operands(x, *cache.read(b, start, stop + added)) for x, b, start, stop in parts]

    options, slopes = fields(0.0, softmax_scale, causal, window_size, softcap), per_sequence(alibi_slopes, batch, heads)
    made = call("flash_attn_with_kvcache", ledger, sequences(q), slopes, page_size=cache.page_size, **options)
    if k is not None and v is not None:  # all that is refused is refused by now: the cache may be written
        if rotary_cos is not None and rotary_sin is not None:
            first = [stop - start for start, stop in zip(starts, stops, strict=True)]
            step = 0 if options["mask"] == FULL else 1
            q = rotated(q, rotary_cos, rotary_sin, first, step, interleaved=rotary_interleaved)
            k = rotated(k, rotary_cos, rotary_sin, first, 1, interleaved=rotary_interleaved)
        for b, stop, keys, values in zip(which, stops, k, v, strict=True):
            cache.write(b, stop, keys, values)
        made = replace(made, sequences=sequences(q))
    made.forward(out, lse, max(num_splits, 1))
    return (out, lse) if return_softmax_lse else out


def _check_new(
    q: Array, cache: Cache, k: Array | None, v: Array | None, lengths: Any, cos: Array | None, sin: Array | None
) -> int:
    """How many keys are new for each sequence. Raises InputError."""
    if (cos is None) != (sin is None) or (cos is not None and k is None):
        raise InputError("rotary embeddings need rotary_cos, rotary_sin and new keys k")
    if k is None and v is None:
        return 0
    if k is None or v is None or lengths is None:
        raise InputError("new keys need k, v and cache_seqlens, the place in the cache where they go")
    alike(q=q, k=k, v=v)
    have_axes(AXES, k=k, v=v)
    same("k", k.shape, (len(q), k.shape[1], *cache.k.shape[2:]), "q and k_cache")
    same("v", v.shape, (*k.shape[:2], *cache.v.shape[2:]), "k and v_cache")
    return int(k.shape[1])


def _each(name: str, values: Any, batch: int, default: int) -> list[int]:
    """One length for each sequence."""
    given = number(default if values is None else values)
    lengths = [given] * batch if isinstance(given, int) else integers(name, given, batch)
    if min(lengths, default=0) < 0:
        raise refuse(name, min(lengths), "must be at least 0", 0)
    return lengths
