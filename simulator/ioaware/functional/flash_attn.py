# ruff: noqa: FBT001, FBT002 the signatures are flash-attn's
"""flash-attn's functions, argument for argument, on NumPy and CuPy arrays (Dao 2023, the package flash-attn 2).

What they mean: causal masks and windows are aligned bottom-right, so that the last query's own key is the last key;
query head h uses key head h // group; a row that sees no key gives 0, and its logarithm is -inf. Memory grows with the
lengths, not with their product; sums are in fp32 (fp64 for fp64 inputs), outputs in the format of q.

Where they differ: dropout's decisions come from the simulator's counter-based generator, the same in every call, so
they agree with flash-attn's in distribution only. NumPy has no automatic gradients: `flash_attn_backward` has them. Any
head_dim will do, and values of another width than keys. `ledger=` takes a `Ledger`, which enters the call's bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import InputError, refuse
from .arrays import Array, accumulator, alike, have_axes, integers, keys_fit, module_of, same
from .call import Call, Operands, call
from .options import Window, fields, per_sequence
from .pages import Cache

if TYPE_CHECKING:
    from .ledger import Ledger

AXES = "batch, seqlen, heads, head_dim"
PACKED_AXES = "total, heads, head_dim"


def flash_attn_func(
    q: Array,
    k: Array,
    v: Array,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Array | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    *,
    ledger: Ledger | None = None,
) -> Any:
    """softmax(softmax_scale q k^T) v of q (batch, seqlen_q, heads, head_dim), k, v (batch, seqlen_k, kv_heads, ...).

    dropout_p          probability of dropping a weight, in [0, 1)
    softmax_scale      default 1 / sqrt(head_dim)
    causal             query i sees key j iff j <= i + seqlen_k - seqlen_q
    window_size        (left, right) keys beside the query's own, -1 for all
    softcap            c tanh(s / c) of the scaled scores; 0: none
    alibi_slopes       (heads,) or (batch, heads): adds -slope |i + seqlen_k - seqlen_q - j|
    deterministic      accepted; always so
    return_attn_probs  also softmax_lse (batch, heads, seqlen_q), fp32, natural logarithm; and S_dmask (batch, heads,
                       seqlen_q, seqlen_k), the weights before dropout, negative where dropped: all of the matrix, and
                       therefore only with dropout; without, it is empty, as flash-attn's is

    Returns out (batch, seqlen_q, heads, value_dim), or (out, softmax_lse, S_dmask). Raises InputError.
    """
    del deterministic
    made, out, lse = _batch("flash_attn_func", ledger, q, k, v, dropout_p, softmax_scale, causal, window_size, softcap,
                            alibi_slopes)  # fmt: skip
    made.forward(out, lse)
    return (out, lse, _dropped(made, lse)) if return_attn_probs else out


def flash_attn_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    softmax_lse: Array,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Array | None = None,
    deterministic: bool = False,
    *,
    ledger: Ledger | None = None,
) -> tuple[Array, Array, Array]:
    """(dq, dk, dv) of `flash_attn_func`, in the shapes and format of q, k and v: P is computed again, tile by tile.

    out, softmax_lse: what it returned for the same arguments. Raises InputError.
    """
    del deterministic
    made, like_out, like_lse = _batch("flash_attn_backward", ledger, q, k, v, dropout_p, softmax_scale, causal,
                                      window_size, softcap, alibi_slopes, direction="bwd")  # fmt: skip
    xp = alike(q=q, dout=dout, out=out)
    for name, given, like in (("dout", dout, like_out), ("out", out, like_out), ("softmax_lse", softmax_lse, like_lse)):
        same(name, given.shape, like.shape, "q and v")
    into = tuple(xp.empty_like(x) for x in (q, k, v))
    made.backward(dout, out, softmax_lse, list(zip(*into, strict=True)))
    return into


def flash_attn_kvpacked_func(q: Array, kv: Array, *options: Any, **more: Any) -> Any:
    """`flash_attn_func` of keys and values in one array (batch, seqlen, 2, kv_heads, head_dim)."""
    _packed("kv", kv, "batch, seqlen", 2)
    return flash_attn_func(q, kv[:, :, 0], kv[:, :, 1], *options, **more)


def flash_attn_qkvpacked_func(qkv: Array, *options: Any, **more: Any) -> Any:
    """`flash_attn_func` of queries, keys and values in one array (batch, seqlen, 3, heads, head_dim)."""
    _packed("qkv", qkv, "batch, seqlen", 3)
    return flash_attn_func(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], *options, **more)


def flash_attn_varlen_func(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Array | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Array | None = None,
    *,
    ledger: Ledger | None = None,
) -> Any:
    """`flash_attn_func` of sequences one after another: q (total_q, heads, head_dim), k, v (total_k, kv_heads, ...).

    cu_seqlens_q, cu_seqlens_k  (batch + 1,): where each sequence starts, then where the last ends
    max_seqlen_q, max_seqlen_k  no sequence is longer
    block_table                 (batch, pages): then k and v are (pages, page size, kv_heads, head_dim)

    Returns out (total_q, heads, value_dim), or (out, softmax_lse (heads, total_q), S_dmask (batch, heads, max_seqlen_q,
    max_seqlen_k)). Raises InputError.
    """
    del deterministic
    xp = alike(q=q, k=k, v=v)
    have_axes(PACKED_AXES, q=q)
    cache = None if block_table is None else Cache(k, v, block_table)
    if cache is None:
        have_axes(PACKED_AXES, k=k, v=v)
    keys_fit(q.shape[1], q.shape[2], k, v)
    rows = _parts("cu_seqlens_q", cu_seqlens_q, max_seqlen_q, len(q))
    parts = _parts("cu_seqlens_k", cu_seqlens_k, max_seqlen_k, len(k) if cache is None else None)
    if len(rows) != len(parts):
        raise refuse("cu_seqlens_k's sequences", len(parts), "as many as in cu_seqlens_q", len(rows))
    if cache is None:
        keys = [(k[part], v[part]) for part in parts]
    else:
        keys = [cache.read(b, 0, part.stop - part.start) for b, part in enumerate(parts)]
    out, lse = xp.empty((*q.shape[:2], v.shape[-1]), q.dtype), xp.empty((q.shape[1], len(q)), accumulator(q))
    sequences = [Operands(q[part], *of_keys) for part, of_keys in zip(rows, keys, strict=True)]
    options = fields(dropout_p, softmax_scale, causal, window_size, softcap)
    slopes = per_sequence(alibi_slopes, len(rows), q.shape[1])
    made = call("flash_attn_varlen_func", ledger, sequences, slopes, page_size=cache and cache.page_size, **options)
    logs = [lse[:, part] for part in rows]
    made.forward([out[part] for part in rows], logs)
    return (out, lse, _dropped(made, logs, (max_seqlen_q, max_seqlen_k))) if return_attn_probs else out


def flash_attn_varlen_kvpacked_func(q: Array, kv: Array, *options: Any, **more: Any) -> Any:
    """`flash_attn_varlen_func` of keys and values in one array (total_k, 2, kv_heads, head_dim)."""
    _packed("kv", kv, "total", 2)
    return flash_attn_varlen_func(q, kv[:, 0], kv[:, 1], *options, **more)


def flash_attn_varlen_qkvpacked_func(qkv: Array, cu_seqlens: Any, max_seqlen: int, *options: Any, **more: Any) -> Any:
    """`flash_attn_varlen_func` of queries, keys and values in one array (total, 3, heads, head_dim)."""
    _packed("qkv", qkv, "total", 3)
    ends = cu_seqlens, cu_seqlens, max_seqlen, max_seqlen
    return flash_attn_varlen_func(qkv[:, 0], qkv[:, 1], qkv[:, 2], *ends, *options, **more)


# ------------------------------------------------------------------------------------------------ what they share
def _batch(
    function: str, ledger: Ledger | None, q: Array, k: Array, v: Array, dropout_p: float, softmax_scale: float | None,
    causal: bool, window_size: Window, softcap: float, alibi_slopes: Array | None, **more: Any,
) -> tuple[Call, Array, Array]:  # fmt: skip
    """The call on sequences of one length, and its empty outputs."""
    xp = alike(q=q, k=k, v=v)
    have_axes(AXES, q=q, k=k, v=v)
    batch, length, heads, head_dim = q.shape
    if len(k) != batch:
        raise refuse("k's batch", len(k), "must be that of q", batch)
    keys_fit(heads, head_dim, k, v)
    made = call(function, ledger, [Operands(*x) for x in zip(q, k, v, strict=True)],
                per_sequence(alibi_slopes, batch, heads),
                **fields(dropout_p, softmax_scale, causal, window_size, softcap), **more)  # fmt: skip
    return made, xp.empty((*q.shape[:3], v.shape[3]), q.dtype), xp.empty((batch, heads, length), accumulator(q))


def _parts(name: str, cu_seqlens: Any, longest: int, total: int | None = None) -> list[slice]:
    """Where each sequence lies among `total` rows."""
    starts = integers(name, cu_seqlens)
    if len(starts) < 2 or starts[0] != 0 or sorted(starts) != starts:
        raise InputError(f"{name} must start with 0 and never decrease, one entry more than there are sequences")
    if total is not None and starts[-1] != total:
        raise refuse(f"{name}'s last entry", starts[-1], "must be the number of rows", total)
    if (found := max(b - a for a, b in pairwise(starts))) > longest:
        raise refuse(name.replace("cu", "max", 1).replace("seqlens", "seqlen"), longest, "a sequence is longer", found)
    return [slice(*ends) for ends in pairwise(starts)]


def _packed(name: str, packed: Array, rows: str, parts: int) -> None:
    """Raises InputError unless an array holds so many arrays along its third axis from behind."""
    if packed.ndim != rows.count(",") + 4 or packed.shape[-3] != parts:
        raise InputError(f"{name}.shape={tuple(packed.shape)}: must be ({rows}, {parts}, heads, head_dim)")


def _dropped(made: Call, logs: Any, longest: tuple[int, int] | None = None) -> Array:
    """S_dmask; empty without dropout."""
    q, k = made.sequences[0].q, made.sequences[0].k
    xp = module_of(q)
    if not made.problem.dropout:
        empty: Array = xp.empty((0,), q.dtype)
        return empty
    longest = longest or (len(q), len(k))
    weights: Array = xp.zeros((len(made.sequences), q.shape[1], *longest), q.dtype)
    made.probabilities(logs, [w[:, : len(x.q), : len(x.k)] for w, x in zip(weights, made.sequences, strict=True)])
    return weights
