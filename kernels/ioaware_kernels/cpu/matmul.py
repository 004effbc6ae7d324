"""The matrix product that both kernels are made of: c += a @ b on a strip, accumulated in vector registers.

A strip is STRIP neighbouring columns of c and b: two vector registers per row. ROWS rows of c at a time stay in
registers while the product walks the rows of b; the elements of a are broadcast, so a may have any strides (Goto, van
de Geijn 2008, "Anatomy of high-performance matrix multiplication"). LLVM's vectoriser would not keep c in registers:
the vectors are written out.

Numba's cache of a caller does not notice a change of this file: remove __pycache__ after one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from ..tensors import Array
from .vector import FLOAT_BYTES, FLOATS, LANES, REGISTERS, at, broadcast, instruction

VECTORS = 2  # per row of a strip
STRIP = VECTORS * LANES
ROWS = REGISTERS // (2 * VECTORS)  # half of the registers hold c: enough sums to hide the latency of an addition


@instruction
def _add_rows(typing: Any, rows: Any, c: Any, a: Any, b: Any, first: Any) -> Any:
    """c[first : first + rows] += a[first : first + rows] @ b, `rows` a literal."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, a, b = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[1:4], arguments[1:4], strict=True)
        )
        strides = [builder.extract_value(a.strides, axis) for axis in range(2)]
        depth = builder.extract_value(a.shape, 1)
        _write(builder, rows.literal_value, (c.data, a.data, b.data), arguments[4], strides, depth)
        return context.get_dummy_value()

    return types.void(rows, c, a, b, first), code


def _write(builder: Any, rows: int, data: Any, first: Any, strides: Any, depth: Any) -> None:
    """The loop over the rows of b; data: where c, a and b begin; strides of a in bytes."""
    c, a, b = data
    index = depth.type
    places = [(r, n) for r in range(rows) for n in range(VECTORS)]

    def in_strip(start: Any, row: Any, n: int) -> Any:
        offset = builder.add(builder.mul(row, index(STRIP * FLOAT_BYTES)), index(n * LANES * FLOAT_BYTES))
        return at(builder, start, offset)

    numbers = [builder.add(first, index(r)) for r in range(rows)]
    c_places = [in_strip(c, numbers[r], n) for r, n in places]
    a_rows = [at(builder, a, builder.mul(row, strides[0])) for row in numbers]
    sums = [cgutils.alloca_once(builder, FLOATS) for _ in places]  # type: ignore[no-untyped-call, unused-ignore]
    for total, place in zip(sums, c_places, strict=True):
        builder.store(builder.load(place, align=FLOAT_BYTES), total)
    with cgutils.for_range(builder, depth) as loop:
        b_row = [builder.load(in_strip(b, loop.index, n), align=FLOAT_BYTES) for n in range(VECTORS)]
        step = builder.mul(loop.index, strides[1])
        elements = [broadcast(builder, builder.load(at(builder, row, step, ir.FloatType()))) for row in a_rows]
        for total, (r, n) in zip(sums, places, strict=True):
            product = builder.fmul(elements[r], b_row[n], flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
    for total, place in zip(sums, c_places, strict=True):
        builder.store(builder.load(total), place, align=FLOAT_BYTES)


@njit(cache=True)
def add_product(c: Array, a: Array, b: Array) -> None:
    """c += a @ b: c (rows, STRIP), a (rows, depth) of any strides, b (depth, STRIP); fp32, c and b contiguous."""
    blocked = len(a) // ROWS * ROWS
    for first in range(0, blocked, ROWS):
        _add_rows(ROWS, c, a, b, first)
    for first in range(blocked, len(a)):
        _add_rows(1, c, a, b, first)
