"""A vector register of fp32 numbers as a Numba type: loads, stores, + - * /, and a choice.

LLVM's vectoriser would find most of it, but not all, and not always: here what is one instruction is written as one.
Numbers are broadcast where they meet a vector. a * b + c may be contracted to one rounding.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

FLOAT_BYTES = 4


def _registers() -> tuple[int, int]:
    """(fp32 numbers in a vector register, how many such registers there are) of this CPU."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 32
    if features.get("avx"):
        return 8, 16
    return 4, 16 if features.get("sse") else 32


LANES, REGISTERS = _registers()
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class Vector(types.Type):
    """LANES fp32 numbers."""


VECTOR = Vector("Vector")  # type: ignore[no-untyped-call, unused-ignore]


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)  # type: ignore[no-untyped-call, unused-ignore]


# ------------------------------------------------------------------------------------------------ in LLVM
def broadcast(builder: Any, number: Any) -> Any:
    """A number in every lane."""
    alone = builder.insert_element(FLOATS(ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(alone, alone, INTEGERS(None))


def at(builder: Any, start: Any, offset: Any, kind: Any = FLOATS) -> Any:
    """The place so many bytes behind another."""
    place = builder.gep(builder.bitcast(start, ir.IntType(8).as_pointer()), [offset])
    return builder.bitcast(place, kind.as_pointer())


def _vectors(builder: Any, kinds: Any, values: Any) -> list[Any]:
    return [v if kind is VECTOR else broadcast(builder, v) for kind, v in zip(kinds, values, strict=True)]


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Where vector n of a row begins, in an array (rows, columns) with contiguous columns."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    row, n = arguments[1], arguments[2]
    row_bytes = builder.extract_value(array.strides, 0)
    offset = builder.add(builder.mul(row, row_bytes), builder.mul(n, n.type(LANES * FLOAT_BYTES)))
    return at(builder, array.data, offset)


# ------------------------------------------------------------------------------------------------ in Numba
def instruction(code: Any) -> Any:
    """A function of Numba code that is written as LLVM code; numbers known when it is compiled are seen as such."""
    return intrinsic(prefer_literal=True)(code)


@instruction
def load(typing: Any, array: Any, row: Any, n: Any) -> Any:
    """Vector n of a row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments), align=FLOAT_BYTES)

    return VECTOR(array, types.intp, types.intp), code


@instruction
def store(typing: Any, array: Any, row: Any, n: Any, vector: Any) -> Any:
    """Put a vector where vector n of a row is."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        [vector] = _vectors(builder, signature.args[3:], arguments[3:])
        builder.store(vector, _place(context, builder, signature, arguments), align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), code


@instruction
def choose_below(typing: Any, x: Any, bound: Any, below: Any, otherwise: Any) -> Any:
    """Lane by lane `below if x < bound else otherwise`; NaN is not below."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, bound, below, otherwise = _vectors(builder, signature.args, arguments)
        return builder.select(builder.fcmp_ordered("<", x, bound), below, otherwise)

    return VECTOR(x, bound, below, otherwise), code


@instruction
def power_of_two(typing: Any, integers: Any) -> Any:
    """2^n, n from -126 to 127 in the lowest bits of the mantissa: what is left of n + 1.5 x 2^23."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], INTEGERS)
        exponent = builder.shl(bits, INTEGERS([23] * LANES))
        return builder.bitcast(builder.add(exponent, INTEGERS([127 << 23] * LANES)), FLOATS)

    return VECTOR(integers), code


def _define(operation: Any, name: str) -> None:
    @instruction
    def compute(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*_vectors(builder, signature.args, arguments), flags=("contract",))

        return VECTOR(a, b), code

    @overload(operation, strict=False)
    def _(a: Any, b: Any) -> Any:
        if VECTOR in (a, b) and {a, b} <= {VECTOR, types.float32}:
            return lambda a, b: compute(a, b)
        return None


for _operation in ("add", "sub", "mul", "truediv"):
    _define(getattr(operator, _operation), f"f{_operation.removeprefix('true')}")
