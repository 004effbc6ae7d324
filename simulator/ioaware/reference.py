"""The specification: float64 softmax attention and its gradients by the textbook formulas, whole matrices, no tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .dropout import keep_mask
from .kv_cache import restored
from .problem import AttentionProblem, Bias

Arrays = dict[str, np.ndarray[Any, Any]]
Rounding = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def shapes(problem: AttentionProblem) -> dict[str, tuple[int, ...]]:
    """Shapes of the packed tensors: the rows of all sequences follow one another."""
    rows_q, rows_kv = (sum(lengths) for lengths in zip(*problem.sequences, strict=True))
    h, g, d, dv = problem.kv_heads or 1, problem.group, problem.head_dim, problem.value_dim or 1
    per_head = ["slopes"] * problem.alibi + ["sink"] * problem.sink
    return {
        **dict.fromkeys(("Q", "dQ"), (h, g, rows_q, d)),
        **dict.fromkeys(("O", "dO"), (h, g, rows_q, dv)),
        **dict.fromkeys(("K", "dK"), (h, rows_kv, d)),
        **dict.fromkeys(("V", "dV"), (h, rows_kv, dv)),
        **dict.fromkeys(("L", "l", "m"), (h, g, rows_q, 1)),
        **dict.fromkeys(("P", "P_dropped", "keep"), (h, g, rows_q, max(kv for _, kv in problem.sequences))),
        "padding": (rows_kv, 1),
        **dict.fromkeys(per_head, (h, g, problem.pack, 1)),
        **({"bias": bias_shape(problem, rows_q)} if problem.bias else {}),
    }


def bias_shape(problem: AttentionProblem, rows_q: int) -> tuple[int, ...]:
    """Of the additive bias: packed query rows, or one sequence's for all; with or without the axes of heads."""
    heads, batch = problem.bias or Bias()
    matrix = (rows_q if batch else problem.sequences[0][0], max(kv for _, kv in problem.sequences))
    return (problem.kv_heads or 1, problem.group, *matrix) if heads else matrix


def random_inputs(problem: AttentionProblem, seed: int = 0) -> Arrays:
    """Q, K, V, dO ~ N(0, 1) in the storage dtype; padding hides about a quarter of the keys, never all."""
    from .dtypes import numpy_dtype

    rng, shape = np.random.default_rng(seed), shapes(problem)
    out: Arrays = {n: rng.standard_normal(shape[n]).astype(numpy_dtype(problem.dtype)) for n in ("Q", "K", "V", "dO")}
    lowest = -224.0 if problem.dtype.startswith("fp8") else -np.inf  # fp8_e4m3 has no infinity; exp(-224) is 0 in fp32
    hidden = np.where(rng.random(shape["padding"]) < 0.25, lowest, 0.0)
    start = 0
    for _, kv_len in problem.sequences:
        hidden[start] = 0.0
        start += kv_len
    out["padding"] = hidden.astype(numpy_dtype(problem.dtype))
    if problem.alibi:
        out["slopes"] = (2.0 ** -rng.uniform(1, 8, shape["slopes"])).astype(np.float32)
    if problem.sink:
        out["sink"] = rng.standard_normal(shape["sink"]).astype(np.float32)
    if problem.bias:
        out["bias"] = rng.standard_normal(shape["bias"]).astype(numpy_dtype(problem.dtype))
    if problem.shared_kv:
        out["V"] = out["K"][..., : problem.value_dim].copy()
    return out


def attention(problem: AttentionProblem, inputs: Arrays) -> Arrays:
    """O, L, l, m, P, and dQ, dK, dV if dO is given: packed, in float64.

    A row that sees no key, or only keys of score -inf, gives O = 0 and L = -inf; one that sees +inf or NaN gives NaN.
    """
    return evaluate(problem, inputs, np.dtype(np.float64))


def linear_attention(inputs: Arrays) -> Arrays:
    """O of causal linear attention, phi = elu + 1, one sequence of each length for all: packed, in float64."""
    q, k, v = (np.asarray(inputs[n], np.float64) for n in ("Q", "K", "V"))

    def feature(x: Any) -> Any:
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    a = np.tril(feature(q) @ feature(k)[:, None].swapaxes(-1, -2))
    return {"O": a @ v[:, None] / a.sum(axis=-1, keepdims=True)}


def evaluate(
    problem: AttentionProblem, inputs: Arrays, dtype: np.dtype[Any], rounded: Rounding = lambda a: a
) -> Arrays:
    """The same formulas in any precision: in that of a kernel, they tell how exact a kernel can be expected to be.

    dtype    of all arithmetic
    rounded  to a narrower format, as tensor cores have it: what is multiplied (P, dS) and stored (O, dQ, dK, dV)
    """
    x = {name: np.asarray(a, dtype) for name, a in as_stored(problem, inputs).items()}
    out = {name: np.zeros(shape, dtype) for name, shape in shapes(problem).items() if name not in x}
    scale = dtype.type(problem.scale)
    q0 = kv0 = 0
    for q_len, kv_len in problem.sequences:
        q, kv = slice(q0, q0 + q_len), slice(kv0, kv0 + kv_len)
        sees = problem.band.sees(np.arange(q_len)[:, None], np.arange(kv_len)[None], q_len, kv_len)
        for h, g in np.ndindex(problem.kv_heads or 1, problem.group):
            with np.errstate(divide="ignore", invalid="ignore"):
                _head(problem, x, out, scale, sees, (h, g), q, kv, rounded)
        q0, kv0 = q.stop, kv.stop
    return out | {name: rounded(out[name]) for name in ("O", "dQ", "dK", "dV")}


def _head(
    problem: AttentionProblem,
    x: Arrays,
    out: Arrays,
    scale: float,
    sees: Any,
    head: tuple[int, int],
    q: slice,
    kv: slice,
    rounded: Rounding,
) -> None:
    h, g = head
    scaled = scale * x["Q"][h, g, q] @ x["K"][h, kv].T
    s, slope = modified(problem, x, scaled, head, q, kv)
    s = np.where(sees, s, s.dtype.type(-np.inf))  # set, not added: a hidden score may be infinite
    m = s.max(axis=-1, keepdims=True)
    if problem.sink:
        sink = x["sink"][h, g, np.arange(q.stop - q.start) % problem.pack]
        m = np.maximum(m, sink)
    e = np.exp(s - np.where(np.isneginf(m), m.dtype.type(0), m))
    total = e.sum(axis=-1, keepdims=True) + (np.exp(sink - m) if problem.sink else s.dtype.type(0))
    p = e / np.where(total == 0, total.dtype.type(1), total)
    positions = np.arange(q.start, q.stop), np.arange(kv.start, kv.stop)
    kept = keep_mask(problem, h * problem.group + g, *positions)
    z = (kept / (1 - problem.dropout)).astype(s.dtype)
    out["O"][h, g, q] = rounded(p * z) @ x["V"][h, kv]
    out["L"][h, g, q] = m + np.log(total)
    out["l"][h, g, q], out["m"][h, g, q] = total, m
    for name, a in (("P", p), ("P_dropped", p * z), ("keep", kept)):
        out[name][h, g, q, : a.shape[1]] = a
    if "dO" in x:
        do = x["dO"][h, g, q]
        ds = p * ((do @ x["V"][h, kv].T) * z - (do * out["O"][h, g, q]).sum(axis=-1, keepdims=True))
        ds = rounded(ds * slope)
        out["dV"][h, kv] += rounded(p * z).T @ do
        out["dQ"][h, g, q] = scale * ds @ x["K"][h, kv]
        out["dK"][h, kv] += scale * ds.T @ x["Q"][h, g, q]


def modified(
    problem: AttentionProblem, x: Arrays, s: Any, head: tuple[int, int], q: slice, kv: slice
) -> tuple[Any, Any]:
    """The scaled scores of one head and sequence with soft cap, ALiBi, bias and padding; and their derivative."""
    slope: Any = s.dtype.type(1)
    rows, keys = np.arange(q.stop - q.start), np.arange(kv.stop - kv.start)
    if problem.softcap:
        slope = 1 - np.tanh(s / problem.softcap) ** 2
        s = problem.softcap * np.tanh(s / problem.softcap)
    if problem.alibi:
        own = rows // problem.pack + len(keys) - len(rows) // problem.pack
        s = s - x["slopes"][head][rows % problem.pack] * np.abs(own[:, None] - keys[None]).astype(s.dtype)
    if problem.bias:
        bias = x["bias"][head] if problem.bias.heads else x["bias"]
        s = s + bias[q if problem.bias.batch else slice(None), : len(keys)]
    if problem.padding:
        s = s + x["padding"][kv, 0][None]
    return s, slope


def as_stored(problem: AttentionProblem, inputs: Arrays) -> Arrays:
    """The inputs as attention sees them: keys and values of a narrow cache come back rounded."""
    if not problem.kv_dtype:
        return inputs
    back = {n: restored(inputs[n], problem.kv_dtype, problem.kv_scales) for n in ("K", "V")}
    if problem.shared_kv:
        back["V"] = back["K"][..., : problem.value_dim]
    return {**inputs, **back}
