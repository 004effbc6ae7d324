"""Element-wise opcodes as LLVM IR: each gives what the function of the same opcode in `ops` and `arithmetic` gives.

Only `ex2`, `lg2`, `sin`, `cos` and `tanh` may differ from there, in the last bits: both call some libm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from .. import ops
from ..ops import DTYPES, JOIN
from ..parse import Instruction
from .convert import convert
from .emit import FLOATS, Emitter, Vector, integer_type
from .registers import element, is_signed, refusal


class Operation(NamedTuple):
    """An opcode taken apart: the text being written, the type it names last, its types, its modifiers."""

    e: Emitter
    type: str
    types: list[str]
    modifiers: set[str]

    @property
    def is_float(self) -> bool:
        """Whether it computes with floating-point numbers."""
        return self.type.startswith("f")

    @property
    def sign(self) -> str:
        """How LLVM names the type's kind in shifts, comparisons, minima: s or u."""
        return "s" if is_signed(self.type) else "u"


Make: TypeAlias = Callable[..., Vector]


def compute(e: Emitter, i: Instruction, sources: list[Vector]) -> Vector:
    """The result of an element-wise instruction, of the type that `ops.meaning` names."""
    meaning, make = ops.meaning(i), TABLE.get(i.base)
    if make is None:
        raise refusal(i)
    types = [p for p in i.parts if p in DTYPES]
    operation = Operation(e, types[-1], types, set(i.parts[1:]) - DTYPES.keys())
    if "ftz" not in operation.modifiers:
        return make(operation, *sources)
    result = make(operation, *(flushed(e, s) if s.type == "float" else s for s in sources))
    return flushed(e, result) if meaning.result == "f32" else result


# ------------------------------------------------------------------------------------------------ floating point
def number(e: Emitter, type_: str, value: float) -> Vector:
    """A floating-point constant."""
    bits = np.asarray(value, f"f{ {'half': 2, 'float': 4, 'double': 8}[type_] }")
    return e.constant(type_, int(bits.view(f"u{bits.itemsize}")))


def flushed(e: Emitter, x: Vector) -> Vector:
    """Subnormal numbers as zeros of the same sign."""
    small = e.compare("fcmp olt", e.intrinsic("fabs", x), number(e, x.type, 2.0**-126))
    return e.choose(small, e.intrinsic("copysign", number(e, x.type, 0.0), x), x)


def saturated(e: Emitter, x: Vector) -> Vector:
    """Into [0, 1]; NaN to 0."""
    zero, one = number(e, x.type, 0.0), number(e, x.type, 1.0)
    positive = e.choose(e.compare("fcmp ogt", x, zero), x, zero)
    return e.choose(e.compare("fcmp ogt", positive, one), one, positive)


def _arithmetic(of_floats: str, of_integers: str) -> Make:
    def make(o: Operation, a: Vector, b: Vector) -> Vector:
        if o.is_float:
            result = o.e.op(of_floats, a, b)
            return saturated(o.e, result) if "sat" in o.modifiers else result
        if "sat" in o.modifiers:
            return o.e.intrinsic(f"{o.sign}{of_integers}.sat", a, b)
        return o.e.op(of_integers, a, b)

    return make


def _fused(o: Operation, a: Vector, b: Vector, c: Vector) -> Vector:
    result = o.e.intrinsic("fma", a, b, c)
    return saturated(o.e, result) if "sat" in o.modifiers else result


def _extreme(wins: str, of_zeros: str, of_integers: str) -> Make:
    """A NaN loses against a number, and -0 is less than +0; LLVM 20 has this as an operation, and computes it wrong."""

    def make(o: Operation, a: Vector, b: Vector) -> Vector:
        if not o.is_float:
            return o.e.intrinsic(f"{o.sign}{of_integers}", a, b)
        e, bits = o.e, integer_type(a.type)
        number_or_b = e.choose(e.compare(f"fcmp {wins}", a, b), a, b)
        chosen = e.choose(e.compare("fcmp uno", b, b), a, number_or_b)
        signs = e.op(of_zeros, e.cast("bitcast", a, bits), e.cast("bitcast", b, bits))
        return e.choose(e.compare("fcmp oeq", a, b), e.cast("bitcast", signs, a.type), chosen)

    return make


def _function(name: str) -> Make:
    return lambda o, x: o.e.intrinsic(name, x)


def _reciprocal(o: Operation, x: Vector) -> Vector:
    return o.e.op("fdiv", number(o.e, x.type, 1.0), x)


# ------------------------------------------------------------------------------------------------ integers
def _product(o: Operation, a: Vector, b: Vector) -> Vector:
    """The low half, the high half (`hi`) or all (`wide`) of a product."""
    e = o.e
    if o.is_float:
        product = e.op("fmul", a, b)
        return saturated(e, product) if "sat" in o.modifiers else product
    if not o.modifiers & {"wide", "hi"}:
        return e.op("mul", a, b)
    extend, twice = "sext" if o.sign == "s" else "zext", f"i{2 * a.bits}"
    whole = e.op("mul", e.cast(extend, a, twice), e.cast(extend, b, twice))
    if "wide" in o.modifiers:
        return whole
    return e.cast("trunc", e.op("lshr", whole, e.constant(twice, a.bits)), a.type)


def _product_and_sum(o: Operation, a: Vector, b: Vector, c: Vector) -> Vector:
    return o.e.op("fadd" if o.is_float else "add", _product(o, a, b), c)


def _quotient(o: Operation, a: Vector, b: Vector) -> Vector:
    """Towards zero. By zero: all ones; by -1 the negative, which LLVM does not define for the lowest number."""
    e = o.e
    if o.is_float:
        return e.op("fdiv", a, b)
    zero, minus_one = e.constant(a.type, 0), e.constant(a.type, -1)
    by_zero = e.compare("icmp eq", b, zero)
    by_minus_one = e.compare("icmp eq", b, minus_one)
    special = e.op("or", by_zero, by_minus_one) if o.sign == "s" else by_zero
    result = e.op(f"{o.sign}div", a, e.choose(special, e.constant(a.type, 1), b))
    if o.sign == "s":
        result = e.choose(by_minus_one, e.op("sub", zero, a), result)
    return e.choose(by_zero, minus_one, result)


def _remainder(o: Operation, a: Vector, b: Vector) -> Vector:
    return o.e.op("sub", a, o.e.op("mul", _quotient(o, a, b), b))


def _absolute(o: Operation, a: Vector) -> Vector:
    return o.e.intrinsic("fabs", a) if o.is_float else o.e.intrinsic("abs", a, flags=", i1 false")


def _negative(o: Operation, a: Vector) -> Vector:
    if o.is_float:
        return o.e.value(a.type, f"fneg {a.whole} {a.text}")
    return o.e.op("sub", o.e.constant(a.type, 0), a)


def resized(e: Emitter, a: Vector, to: str) -> Vector:
    """An unsigned integer, cut or filled with zeros."""
    wanted = e.constant(to, 0).bits
    return a if a.bits == wanted else e.cast("trunc" if a.bits > wanted else "zext", a, to)


def shifted(e: Emitter, opcode: str, a: Vector, by: Vector) -> Vector:
    """shl, lshr, ashr by an unsigned 32-bit number; one that is too large counts as the width."""
    most = e.constant("i32", a.bits - 1)
    within = e.intrinsic("umin", by, most)
    moved = e.op(opcode, a, resized(e, within, a.type))
    if opcode == "ashr":
        return moved  # the sign moves in
    return e.choose(e.compare("icmp ugt", by, most), e.constant(a.type, 0), moved)


def _right(o: Operation, a: Vector, by: Vector) -> Vector:
    """A type `.b` has no sign to move in."""
    return shifted(o.e, "ashr" if o.type[0] == "s" else "lshr", a, by)


def _funnel(o: Operation, a: Vector, b: Vector, c: Vector) -> Vector:
    """32 bits of the 64 of b:a."""
    e = o.e
    wraps = "wrap" in o.modifiers
    by = e.op("and", c, e.constant("i32", 31)) if wraps else e.intrinsic("umin", c, e.constant("i32", 32))
    upper = e.op("shl", e.cast("zext", b, "i64"), e.constant("i64", 32))
    both, wide = e.op("or", upper, e.cast("zext", a, "i64")), e.cast("zext", by, "i64")
    if "l" not in o.modifiers:
        return e.cast("trunc", e.op("lshr", both, wide), "i32")
    return e.cast("trunc", e.op("lshr", e.op("shl", both, wide), e.constant("i64", 32)), "i32")


# ------------------------------------------------------------------------------------------------ bits
def _ones(e: Emitter, type_: str, length: Vector) -> Vector:
    """So many ones in the lowest bits."""
    return e.negate(shifted(e, "shl", e.constant(type_, -1), length))


def _byte(e: Emitter, a: Vector) -> Vector:
    return e.op("and", a, e.constant("i32", 0xFF))


def _insert(o: Operation, field: Vector, into: Vector, start: Vector, length: Vector) -> Vector:
    e, start, length = o.e, _byte(o.e, start), _byte(o.e, length)
    mask = shifted(e, "shl", _ones(e, into.type, length), start)
    kept = e.op("and", into, e.negate(mask))
    return e.op("or", kept, e.op("and", shifted(e, "shl", field, start), mask))


def _extract(o: Operation, a: Vector, start: Vector, length: Vector) -> Vector:
    """Of a signed number the field's highest bit is its sign."""
    e, start, length = o.e, _byte(o.e, start), _byte(o.e, length)
    mask, zero = _ones(e, a.type, length), e.constant(a.type, 0)
    field = e.op("and", _right(o, a, start), mask)
    if o.sign == "u":
        return field
    last = e.op("sub", e.op("add", start, length), e.constant("i32", 1))
    sign_at = e.intrinsic("umin", last, e.constant("i32", a.bits - 1))
    bit = e.op("and", shifted(e, "lshr", a, sign_at), e.constant(a.type, 1))
    filled = e.choose(e.compare("icmp ne", bit, zero), e.op("or", field, e.negate(mask)), field)
    return e.choose(e.compare("icmp eq", length, e.constant("i32", 0)), zero, filled)


def _count_ones(o: Operation, a: Vector) -> Vector:
    return resized(o.e, o.e.intrinsic("ctpop", a), "i32")


def _leading_zeros(o: Operation, a: Vector) -> Vector:
    return resized(o.e, o.e.intrinsic("ctlz", a, flags=", i1 false"), "i32")


def _logic3(o: Operation, a: Vector, b: Vector, c: Vector, table: Vector) -> Vector:
    """Any function of three bits; LLVM simplifies it for a given table."""
    e = o.e
    out = zero = e.constant("i32", 0)
    for n in range(8):
        terms = [x if n & bit else e.negate(x) for x, bit in ((a, 4), (b, 2), (c, 1))]
        here = e.compare("icmp ne", e.op("and", table, e.constant("i32", 1 << n)), zero)
        chosen = e.op("and", e.op("and", terms[0], terms[1]), terms[2])
        out = e.op("or", out, e.choose(here, chosen, zero))
    return out


def _permute(o: Operation, a: Vector, b: Vector, selector: Vector) -> Vector:
    """Four bytes among the eight of b:a; bit 3 of a choice replicates that byte's sign."""
    e = o.e
    upper = e.op("shl", e.cast("zext", b, "i64"), e.constant("i64", 32))
    both, out = e.op("or", upper, e.cast("zext", a, "i64")), e.constant("i32", 0)
    for n in range(4):
        choice = e.op("lshr", selector, e.constant("i32", 4 * n))
        at = e.op("shl", e.op("and", choice, e.constant("i32", 7)), e.constant("i32", 3))
        byte = e.cast("trunc", e.op("lshr", both, e.cast("zext", at, "i64")), "i8")
        signs = e.op("ashr", byte, e.constant("i8", 7))
        wants_sign = e.compare("icmp ne", e.op("and", choice, e.constant("i32", 8)), e.constant("i32", 0))
        chosen = e.cast("zext", e.choose(wants_sign, signs, byte), "i32")
        out = e.op("or", out, e.op("shl", chosen, e.constant("i32", 8 * n)))
    return out


# ------------------------------------------------------------------------------------------------ comparing
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def _comparison(o: Operation, a: Vector, b: Vector, *joined: Vector) -> Vector:
    return joined_with(o, compared(o, a, b), joined)


def opposite(e: Emitter, i: Instruction, sources: list[Vector]) -> Vector:
    """The second result of `setp p|q`."""
    types = [p for p in i.parts if p in DTYPES]
    o = Operation(e, types[-1], types, set(i.parts[1:]) - DTYPES.keys())
    a, b, *joined = sources
    return joined_with(o, e.negate(compared(o, a, b)), tuple(joined))


def joined_with(o: Operation, result: Vector, others: tuple[Vector, ...]) -> Vector:
    """`.and`, `.or`, `.xor` with one more predicate, if there is one."""
    (how,) = o.modifiers & JOIN.keys() or {""}
    return o.e.op(how, result, others[0]) if how else result


def compared(o: Operation, a: Vector, b: Vector) -> Vector:
    """Ordered comparisons are false for NaN, unordered ones (`ltu`) true."""
    (name,) = o.modifiers & ops.COMPARE.keys()
    if o.is_float:
        known = {"num": "ord", "nan": "uno"}
        return o.e.compare(f"fcmp {known.get(name) or (f'u{name[:-1]}' if len(name) == 3 else f'o{name}')}", a, b)
    name = _UNSIGNED.get(name, name)
    return o.e.compare(f"icmp {name if name in ('eq', 'ne') else o.sign + name}", a, b)


def _tested(o: Operation, x: Vector) -> Vector:
    (what,) = o.modifiers
    how = {"finite": "one", "infinite": "oeq", "number": "ord", "notanumber": "uno"}[what]
    return o.e.compare(f"fcmp {how}", o.e.intrinsic("fabs", x), number(o.e, x.type, np.inf))


# ------------------------------------------------------------------------------------------------ the table
def _same(o: Operation, x: Vector) -> Vector:
    return x


def _plain(opcode: str) -> Make:
    return lambda o, a, b: o.e.op(opcode, a, b)


def _conversion(o: Operation, *sources: Vector) -> Vector:
    to, source = o.types[-2:]
    result = convert(o.e, to, source, o.modifiers, *sources)
    return saturated(o.e, result) if "sat" in o.modifiers and element(to) in FLOATS else result


TABLE: dict[str, Make] = {
    "add": _arithmetic("fadd", "add"), "sub": _arithmetic("fsub", "sub"), "mul": _product, "mad": _product_and_sum,
    "fma": _fused, "div": _quotient, "rem": _remainder, "abs": _absolute, "neg": _negative,
    "min": _extreme("olt", "or", "min"), "max": _extreme("ogt", "and", "max"),
    "copysign": lambda o, sign, x: o.e.intrinsic("copysign", x, sign),
    "rcp": _reciprocal, "sqrt": _function("sqrt"), "rsqrt": lambda o, x: _reciprocal(o, o.e.intrinsic("sqrt", x)),
    "ex2": _function("exp2"), "lg2": _function("log2"), "sin": _function("sin"), "cos": _function("cos"),
    "tanh": _function("tanh"),
    "and": _plain("and"), "or": _plain("or"), "xor": _plain("xor"), "not": lambda o, a: o.e.negate(a),
    "shl": lambda o, a, by: shifted(o.e, "shl", a, by), "shr": _right, "shf": _funnel, "bfi": _insert,
    "bfe": _extract, "popc": _count_ones, "clz": _leading_zeros, "brev": _function("bitreverse"), "lop3": _logic3,
    "prmt": _permute, "setp": _comparison, "testp": _tested,
    "selp": lambda o, a, b, p: o.e.choose(p, a, b), "mov": _same, "cvta": _same, "cvt": _conversion,
}  # fmt: skip
