"""The oracle of the tests of ioaware.functional: attention written out as whole matrices, without any of its code."""

from __future__ import annotations

import numpy as np
from ml_dtypes import finfo

from ioaware.reference import evaluate


def normal(*shape, dtype=np.float32, seed=0):
    """Standard normal numbers of a format."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def qkv(batch=1, q_len=7, kv_len=9, heads=2, kv_heads=None, head_dim=8, value_dim=None, dtype=np.float32):
    """Queries, keys and values in flash-attn's layout."""
    kv_heads, value_dim = kv_heads or heads, value_dim or head_dim
    return (
        normal(batch, q_len, heads, head_dim, dtype=dtype, seed=1),
        normal(batch, kv_len, kv_heads, head_dim, dtype=dtype, seed=2),
        normal(batch, kv_len, kv_heads, value_dim, dtype=dtype, seed=3),
    )


def visible(q_len, kv_len, causal=False, window=(-1, -1)):
    """Which keys each query sees, pair by pair, as flash-attn's documentation says."""
    left, right = window[0], 0 if causal else window[1]
    seen = np.zeros((q_len, kv_len), bool)
    for i in range(q_len):
        for j in range(kv_len):
            own = i + kv_len - q_len
            seen[i, j] = (left < 0 or j >= own - left) and (right < 0 or j <= own + right)
    return seen


def dense(q, k, v, *, scale=None, causal=False, window=(-1, -1), softcap=0.0, slopes=None, bias=0.0, seen=None,
          kept=1.0, rounded=None, dtype=np.float64):  # fmt: skip
    """(out, lse) in flash-attn's layouts. In complex numbers it is analytic, so that a step of 1e-30 i has the slope.

    seen     (q_len, kv_len) or more axes before: replaces causal and window
    kept     factors of the weights, after their sum is taken: dropout
    rounded  the format to which weights and outputs are rounded, as kernels on narrow formats do
    """
    q, k, v = (np.asarray(x, dtype) for x in (q, k, v))
    group, n, m = q.shape[2] // k.shape[2], q.shape[1], k.shape[1]
    s = np.einsum("bnhd,bmhd->bhnm", q, np.repeat(k, group, axis=2)) * dtype(scale or q.shape[3] ** -0.5)
    if softcap:
        s = dtype(softcap) * np.tanh(s / dtype(softcap))
    if slopes is not None:
        far = np.abs(np.arange(n)[:, None] + m - n - np.arange(m)[None])
        s = s - np.asarray(slopes, dtype)[..., None, None] * far.astype(dtype)
    s = np.where(visible(n, m, causal, window) if seen is None else seen, s + np.asarray(bias, dtype), dtype(-np.inf))
    with np.errstate(divide="ignore"):
        most = s.real.max(axis=-1, initial=-np.inf, keepdims=True)
        e = np.exp(s - np.where(most == -np.inf, 0, most)).astype(dtype)
        total = e.sum(axis=-1, keepdims=True)
        lse = (most + np.log(total))[..., 0]
    p = (kept * e / np.where(total == 0, 1, total)).astype(rounded or dtype).astype(dtype)
    return np.einsum("bhnm,bmhd->bnhd", p, np.repeat(v, group, axis=2)).astype(rounded or dtype), lse


def grouped(problem, x):
    """(rows, heads, columns) of q or out as the specification has it: (kv_heads, group, rows, columns)."""
    return x.swapaxes(0, 1).reshape(problem.kv_heads, problem.group, len(x), -1)


def specified(problem, inputs, dtype, rounded=None):
    """The simulator's specification in a precision; what is multiplied and stored is rounded to a narrower one."""
    how = () if rounded is None else (lambda a: a.astype(rounded).astype(a.dtype),)
    return evaluate(problem, inputs, np.dtype(dtype), *how)


def assert_close(got, exact, plain):
    """The rule of flash-attn's own tests (hopper/test_flash_attn.py): twice the error of the textbook formulas in the
    same precision, `plain`, and twice what adding 0.3 and taking it away can round; infinities at the same places.

    A case in which that allows more than a sixteenth of the largest value would test nothing: it is refused.
    """
    finite = np.isfinite(exact)
    assert got.shape == exact.shape
    np.testing.assert_array_equal(got[~finite], exact[~finite])
    largest = np.abs(exact[finite]).max(initial=0.0)
    noise = float(finfo(got.dtype).eps) * (largest + 0.3)
    allowed = 2 * np.abs(plain[finite] - exact[finite]).max(initial=0.0) + 2 * noise
    assert allowed <= max(largest, 1.0) / 16
    error = np.abs(got[finite] - exact[finite]).max(initial=0.0)
    assert error <= allowed, (error, allowed)


def assert_right(api, q, k, v, **options):
    """`flash_attn_func` of these fp32 or fp64 arrays is `dense` of them; options are those of flash_attn_func."""
    out, lse, _ = api.flash_attn_func(q, k, v, return_attn_probs=True, **options)
    same = {"softmax_scale": "scale", "window_size": "window", "alibi_slopes": "slopes"}
    options = {same.get(name, name): value for name, value in options.items()}
    wider = {np.float32: np.float64, np.float64: np.longdouble}[q.dtype.type]
    exact, plain = (dense(q, k, v, **options, dtype=dtype) for dtype in (wider, q.dtype.type))
    assert (out.dtype, out.flags.c_contiguous, lse.dtype) == (q.dtype, True, q.dtype)
    assert_close(out, exact[0], plain[0])
    assert_close(lse, exact[1], plain[1])
