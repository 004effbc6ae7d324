"""The familiar functions against the whole-matrix formula in NumPy: time as a ratio in one run."""

from __future__ import annotations

import numpy as np
import pytest

import ioaware as io

N, HEADS, D = 2048, 4, 64


def tensors():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((1, N, HEADS, D), np.float32) for _ in range(3))


def whole_matrix(q, k, v):
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    s = q @ k.swapaxes(-1, -2)
    s *= D**-0.5
    s -= s.max(axis=-1, keepdims=True)
    np.exp(s, out=s)
    s /= s.sum(axis=-1, keepdims=True)
    return (s @ v).swapaxes(1, 2)


CALLS = {
    "whole matrices": whole_matrix,
    "flash_attn_func": io.flash_attn_func,
    "causal": lambda q, k, v: io.flash_attn_func(q, k, v, causal=True),
    "window": lambda q, k, v: io.flash_attn_func(q, k, v, window_size=(128, 0)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_attention(benchmark, call):
    benchmark.group = f"attention, N = {N}, {HEADS} heads, d = {D}, fp32"
    benchmark(call, *tensors())
