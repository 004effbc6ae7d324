"""A kernel of the project in a script of one's own: CuPy compiles flash2.cu and launches it on CuPy arrays.

    python docs/examples/lift_a_kernel.py

A tensor goes to it as a View, a struct of a pointer and three strides: CuPy passes arrays of size one by value.
"""

import sys
from importlib.resources import files
from math import sqrt

import numpy as np

BUILD = {"HEAD_DIM": 64, "TILE_Q": 32, "TILE_KV": 32, "THREADS": 128, "LANES": 4}  # a [[build]] of flash2.toml
SHARED_BYTES = 4 * ((32 + 32 + 32) * (64 + 1) + 32 * (32 + 1))  # sQ, sK, sV, sP, each row padded by one
VIEW = np.dtype([("data", "u8"), ("batch", "i8"), ("head", "i8"), ("row", "i8")])


def view(x):
    """A CuPy array (batch, heads, rows, columns) as the kernel's View: strides in elements."""
    return np.array((x.data.ptr, *(stride // x.itemsize for stride in x.strides[:3])), VIEW)


def attention(q, k, v):
    """O = softmax(Q K^T / sqrt(d)) V, written out, in the precision of its arguments."""
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    s = q @ k.swapaxes(2, 3) / q.dtype.type(sqrt(q.shape[3]))
    p = np.exp(s - s.max(axis=3, keepdims=True))
    return p / p.sum(axis=3, keepdims=True) @ v


def main():
    try:
        import cupy

        cupy.cuda.Device().synchronize()
    except (ImportError, RuntimeError) as e:
        print(f"this needs CuPy and a GPU, pip install 'ioaware[gpu12]' or 'ioaware[gpu13]': {e}")
        return 77
    source = (files("ioaware_kernels") / "cuda" / "flash2.cu").read_text(encoding="utf-8")
    flash2 = cupy.RawKernel(source, "flash2", ("--std=c++17", *(f"-D{name}={size}" for name, size in BUILD.items())))

    batch, heads, kv_heads, q_len, kv_len, head_dim = 2, 4, 2, 100, 130, 64
    shapes = [(batch, heads, q_len, head_dim), *[(batch, kv_heads, kv_len, head_dim)] * 2]
    q, k, v = (np.random.default_rng(n).standard_normal(shape, np.float32) for n, shape in enumerate(shapes))
    O, L = (cupy.empty((batch, heads, q_len, columns), np.float32) for columns in (head_dim, 1))
    there = [*map(cupy.asarray, (q, k, v)), O, L]  # by name: a kernel does not keep its arrays alive
    sizes = (np.int32(n) for n in (q_len, kv_len, head_dim, heads // kv_heads))
    arguments = (*map(view, there), *sizes, np.float32(1 / sqrt(head_dim)))
    flash2((-(-q_len // BUILD["TILE_Q"]), heads, batch), (BUILD["THREADS"],), arguments, shared_mem=SHARED_BYTES)

    exact = attention(*(x.astype(np.float64) for x in (q, k, v)))
    error, plain = (float(abs(o - exact).max()) for o in (cupy.asnumpy(O), attention(q, k, v)))
    rounding = 2 * plain + 2 * sqrt(head_dim + kv_len) * 2**-24 * abs(exact).max()
    print(f"flash2: O differs from exact softmax by {error:.2g}, rounding explains {rounding:.2g}")
    return int(not error <= rounding)


if __name__ == "__main__":
    sys.exit(main())
