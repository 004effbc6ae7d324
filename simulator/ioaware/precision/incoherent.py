"""Incoherent processing: Q and K times the same random orthogonal matrix, so that outliers are spread over the columns.

The matrix is a Hadamard matrix with random column signs, H diag(s) / sqrt(d), applied in O(d log d): Q K^T stays what
it was, up to rounding (QuIP, arXiv 2307.13304; QuaRot, arXiv 2404.00456; FlashAttention-3, arXiv 2407.08608, 3.3).
"""

from __future__ import annotations

import numpy as np

from ..errors import refuse
from .formats import Array


def check(head_dim: int) -> None:
    """Raises InputError: there is a Hadamard matrix of this construction for powers of two only."""
    if head_dim < 1 or head_dim & (head_dim - 1):
        below = 1 << max(head_dim.bit_length() - 1, 0)
        nearest = below if head_dim - below < 2 * below - head_dim else 2 * below
        raise refuse("head_dim", head_dim, "a Hadamard transform needs a power of two", max(nearest, 1))


def hadamard(x: Array) -> Array:
    """x H / sqrt(d) along the last axis of size d: orthogonal, and its own inverse. Raises InputError: see `check`."""
    d = x.shape[-1]
    check(d)
    out: Array = x * x.dtype.type(d**-0.5)
    half = 1
    while half < d:
        pairs = out.reshape(*x.shape[:-1], d // (2 * half), 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        out = np.stack((first + second, first - second), axis=-2)
        half *= 2
    return out.reshape(x.shape)


def rotated(x: Array) -> Array:
    """x diag(s) H / sqrt(d), with signs s that depend on d alone: the same for Q and K, as a kernel has them."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], x.dtype), x.shape[-1])
    return hadamard(x * signs)
