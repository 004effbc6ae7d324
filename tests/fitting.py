"""What fits a kernel: the nearest of its head_dims, and a layout with gaps that it can read."""

from __future__ import annotations

from ioaware_kernels.implementation import Implementation
from ioaware_kernels.tensors import Layout, padded, padded_by_eight


def head_dim_for(implementation: Implementation, wanted: int) -> int:
    """As wanted, rounded up to whole vectors, but no more than the kernel is built for."""
    whole = -(-wanted // implementation.aligned) * implementation.aligned
    return min(whole, max(build["HEAD_DIM"] for build in implementation.builds))


def with_gaps(implementation: Implementation) -> Layout:
    """Guard zones between rows, heads and sequences; of odd sizes where a kernel needs no vectors."""
    return padded if implementation.aligned == 1 else padded_by_eight
