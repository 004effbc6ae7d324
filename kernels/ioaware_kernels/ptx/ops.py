"""The one table of what opcodes mean: element-wise functions on NumPy arrays (PTX ISA 8.2, section 9.7).

A register is an array over (threads, thread blocks), or anything that broadcasts to it. Its storage type follows its
declaration; an instruction sees it as the type that its opcode names. Opcodes that touch memory or other threads are
not here but in the engine (grid.py).

`ex2`, `lg2`, `sin`, `cos`, `tanh`, `rcp.approx`, ... are computed to the last bit or two of fp32, closer than the
hardware's approximations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ioaware.errors import InputError

from .parse import Instruction

Array: TypeAlias = Any  # an array or a NumPy scalar
Function: TypeAlias = Callable[..., Array]

DTYPES = {
    "pred": np.dtype(bool), "f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8"),
    "b8": np.dtype("u1"), "u8": np.dtype("u1"), "s8": np.dtype("i1"),
    "b16": np.dtype("i2"), "u16": np.dtype("u2"), "s16": np.dtype("i2"),
    "b32": np.dtype("i4"), "u32": np.dtype("u4"), "s32": np.dtype("i4"),
    "b64": np.dtype("i8"), "u64": np.dtype("u8"), "s64": np.dtype("i8"),
}  # fmt: skip
_TWICE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
_ROUNDING = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


class Meaning(NamedTuple):
    """What one opcode does: result = function(*sources), with the types in which each is seen."""

    result: str
    sources: tuple[str, ...]
    function: Function


def meaning(instruction: Instruction) -> Meaning:
    """The meaning of an instruction of the table. Raises InputError where the opcode or a modifier is unknown."""
    known = TABLE.get(instruction.base)
    mods = set(instruction.parts[1:]) - DTYPES.keys()
    types = [p for p in instruction.parts if p in DTYPES]
    if known is None or not mods <= known.modifiers or not set(types) <= known.types:
        raise unknown(instruction)
    if "ftz" in mods and "f32" not in types:
        raise unknown(instruction)
    out = known.make(types, mods)
    return out._replace(function=_flushing(out)) if "ftz" in mods else out


def opposite(instruction: Instruction) -> Meaning:
    """The second result of `setp p|q`: the opposite comparison, joined with the same predicate."""
    mods = set(instruction.parts[1:]) - DTYPES.keys()
    return _comparison([p for p in instruction.parts if p in DTYPES], mods, opposite=True)


def unknown(instruction: Instruction) -> InputError:
    """The refusal of an opcode that the executor does not run."""
    return InputError(
        f"PTX line {instruction.line}: `{instruction.text}`: opcode {instruction.opcode} is not one the executor runs; "
        "ioaware_kernels/ptx/ops.py lists those it does"
    )


# ------------------------------------------------------------------------------------------------ floating point
@lru_cache(1)
def _fma() -> Function:
    """a * b + c with one rounding, as the hardware does; a NumPy ufunc made by numba."""
    from llvmlite import ir
    from numba import vectorize
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Instruction:
            return builder.fma(*arguments)

        return (a(a, a, a), generate) if isinstance(a, types.Float) else None

    def of_elements(a: Any, b: Any, c: Any) -> Any:
        return fma(a, b, c)  # type: ignore[call-arg]

    make: Any = vectorize
    ufunc: Function = make(["f4(f4, f4, f4)", "f8(f8, f8, f8)"])(of_elements).ufunc
    return ufunc


def _subnormal_to_zero(x: Array) -> Array:
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def _flushing(plain: Meaning) -> Function:
    """`.ftz`: subnormal fp32 inputs and results are zeros of the same sign."""
    flushed = [t == "f32" for t in plain.sources]

    def function(*sources: Array) -> Array:
        given = [_subnormal_to_zero(x) if flush else x for x, flush in zip(sources, flushed, strict=True)]
        result = plain.function(*given)
        return _subnormal_to_zero(result) if plain.result == "f32" else result

    return function


def _saturating(function: Function, type_: str) -> Function:
    """`.sat`: floats into [0, 1], NaN to 0; sums of integers to what the type holds."""
    if not type_.startswith("f"):
        limits = np.iinfo(str(DTYPES[type_]))

        def within(*sources: Array) -> Array:
            exact = function(*(x.astype(np.int64) for x in sources))
            return np.clip(exact, limits.min, limits.max).astype(DTYPES[type_])

        return within

    def clamped(*sources: Array) -> Array:
        x = function(*sources)
        return np.clip(np.where(np.isnan(x), x.dtype.type(0), x), x.dtype.type(0), x.dtype.type(1))

    return clamped


def _largest(a: Array, b: Array) -> Array:
    """A NaN loses against a number, -0 against +0."""
    return np.where((a == 0) & (b == 0), a + b, np.fmax(a, b))


def _least(a: Array, b: Array) -> Array:
    """A NaN loses against a number, +0 against -0."""
    return np.where((a == 0) & (b == 0), -(-a - b), np.fmin(a, b))


def _one(x: Array) -> Array:
    return x.dtype.type(1)


# ------------------------------------------------------------------------------------------------ integers
def _quotient(a: Array, b: Array) -> Array:
    """Integer division towards zero; what a division by zero gives is not specified, here all ones."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    floor = a // safe
    exact = floor * safe == a
    towards_zero = floor + (~exact & ((a < 0) != (safe < 0))).astype(floor.dtype)
    return np.where(b == 0, np.array(-1).astype(a.dtype), towards_zero)


def _remainder(a: Array, b: Array) -> Array:
    return a - _quotient(a, b) * b


def _shift_left(a: Array, by: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    moved = a << np.minimum(by, by.dtype.type(bits - 1)).astype(a.dtype)
    return moved if np.ndim(by) == 0 and by < bits else np.where(by < bits, moved, a.dtype.type(0))


def _shift_right(a: Array, by: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    moved = a >> np.minimum(by, by.dtype.type(bits - 1)).astype(a.dtype)
    if a.dtype.kind == "i" or (np.ndim(by) == 0 and by < bits):
        return moved  # of a signed number the sign moves in
    return np.where(by < bits, moved, a.dtype.type(0))


def _field_mask(start: Array, length: Array, dtype: np.dtype[Any]) -> Array:
    """`length` ones from bit `start` on."""
    ones = np.array(-1).astype(dtype)
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    return _shift_left(~_shift_left(ones, length), start)


def _insert(field: Array, into: Array, start: Array, length: Array) -> Array:
    mask = _field_mask(start, length, into.dtype)
    return (into & ~mask) | (_shift_left(field, start & np.uint32(0xFF)) & mask)


def _extract(a: Array, start: Array, length: Array) -> Array:
    """Bits start .. start + length - 1; of a signed number the field's highest bit is its sign."""
    bits = 8 * a.dtype.itemsize
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    field = _shift_right(a, start) & _field_mask(np.uint32(0), length, a.dtype)
    if a.dtype.kind == "u":
        return field
    sign_at = np.minimum(start + length - np.uint32(1), np.uint32(bits - 1))
    negative = (_shift_right(a, sign_at) & a.dtype.type(1)) == 1
    above = ~_field_mask(np.uint32(0), length, a.dtype)
    return np.where(length == 0, a.dtype.type(0), np.where(negative, field | above, field))


def _count_ones(a: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    return sum(((a >> a.dtype.type(n)) & a.dtype.type(1)).astype(np.int32) for n in range(bits))


def _leading_zeros(a: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    a = a.view(f"u{a.dtype.itemsize}")
    return sum(((a >> a.dtype.type(n)) == 0).astype(np.int32) for n in range(bits))


def _reverse(a: Array) -> Array:
    out = np.zeros_like(a)
    for n in range(8 * a.dtype.itemsize):
        out = (out << a.dtype.type(1)) | ((a >> a.dtype.type(n)) & a.dtype.type(1))
    return out


def _logic3(a: Array, b: Array, c: Array, table: Array) -> Array:
    """Any function of three bits: bit (a, b, c) of an 8-bit table."""
    out = np.zeros_like(a & b & c)
    for n in range(8):
        chosen = (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
        out = out | np.where((table >> table.dtype.type(n)) & table.dtype.type(1) == 1, chosen, a.dtype.type(0))
    return out


def _permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """Four bytes chosen among the eight of b:a; bit 3 of a choice replicates that byte's sign."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    out = np.zeros_like(a & b)
    for n in range(4):
        choice = (selector >> np.uint32(4 * n)) & np.uint32(15)
        byte = (both >> ((choice & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(0xFF)
        sign = np.where(byte & np.uint32(0x80), np.uint32(0xFF), np.uint32(0))
        out = out | (np.where(choice & np.uint32(8), sign, byte) << np.uint32(8 * n))
    return out


# ------------------------------------------------------------------------------------------------ the table
class Known(NamedTuple):
    """An opcode of the table: the modifiers and types it may have, and its meaning for those given."""

    modifiers: frozenset[str]
    make: Callable[[list[str], set[str]], Meaning]
    types: frozenset[str] = frozenset(DTYPES)


def _same(count: int, function: Function, modifiers: str = "") -> Known:
    """All operands have the type that the opcode names."""

    def make(types: list[str], mods: set[str]) -> Meaning:
        f = _saturating(function, types[-1]) if "sat" in mods else function
        return Meaning(types[-1], (types[-1],) * count, f)

    return Known(frozenset(modifiers.split()), make)


def _by_kind(count: int, of_floats: Function, of_integers: Function, modifiers: str = "") -> Known:
    """Different functions for floating point and integers."""

    def make(types: list[str], mods: set[str]) -> Meaning:
        f = of_floats if types[-1].startswith("f") else of_integers
        return Meaning(types[-1], (types[-1],) * count, f)

    return Known(frozenset(modifiers.split()), make)


def _product(types: list[str], mods: set[str], *, add: bool) -> Meaning:
    """mul and mad: the low half, the high half (`hi`) or all (`wide`) of an integer product."""
    t = types[-1]
    wide = _TWICE.get(t, t)
    if t.startswith("f"):
        product: Function = _saturating(np.multiply, t) if "sat" in mods else np.multiply
    elif "wide" in mods:

        def product(a: Array, b: Array) -> Array:  # fmt: skip
            return a.astype(DTYPES[wide]) * b.astype(DTYPES[wide])
    elif "hi" in mods:
        bits = 8 * DTYPES[t].itemsize

        def product(a: Array, b: Array) -> Array:  # fmt: skip
            whole = a.astype(DTYPES[wide]) * b.astype(DTYPES[wide])
            return (whole >> DTYPES[wide].type(bits)).astype(DTYPES[t])

        if wide == t:
            product = _high_of_64
    else:
        product = np.multiply
    result = wide if "wide" in mods else t
    if not add:
        return Meaning(result, (t, t), product)
    return Meaning(result, (t, t, result), lambda a, b, c: product(a, b) + c)


def _fused(types: list[str], mods: set[str]) -> Meaning:
    return Meaning(types[-1], (types[-1],) * 3, _saturating(_fma(), types[-1]) if "sat" in mods else _fma())


def _high_of_64(a: Array, b: Array) -> Array:
    """The high half of a 64-bit product, from four 32-bit ones."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x, y = a.view(np.uint64), b.view(np.uint64)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = x1 * y0 + ((x0 * y0) >> half)
    other = x0 * y1 + (middle & low)
    high = (x1 * y1 + (middle >> half) + (other >> half)).view(a.dtype)
    if a.dtype.kind == "u":
        return high
    zero = a.dtype.type(0)
    return high - np.where(a < 0, b, zero) - np.where(b < 0, a, zero)


def _shift(function: Function) -> Known:
    """A type `.b` has no sign to move in."""

    def make(types: list[str], mods: set[str]) -> Meaning:
        t = types[-1].replace("b", "u")
        return Meaning(t, (t, "u32"), function)

    return Known(frozenset(), make)


def _comparison(types: list[str], mods: set[str], *, opposite: bool = False) -> Meaning:
    """setp: ordered comparisons are false for NaN, unordered ones (`ltu`) true; `.and.` etc. join a predicate."""
    (name,) = mods & COMPARE.keys()
    compare = COMPARE[name]
    if opposite:
        compare = _not(compare)
    join = next((JOIN[m] for m in mods & JOIN.keys()), None)
    if join is None:
        return Meaning("pred", (types[-1],) * 2, compare)
    return Meaning("pred", (types[-1], types[-1], "pred"), lambda a, b, p: join(compare(a, b), p))


def _not(compare: Function) -> Function:
    return lambda a, b: ~compare(a, b)


def _nan(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


def _not_equal(a: Array, b: Array) -> Array:
    return (a < b) | (a > b) if a.dtype.kind == "f" else a != b


COMPARE: dict[str, Function] = {
    "eq": np.equal, "ne": _not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    "equ": lambda a, b: ~_not_equal(a, b), "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~_nan(a, b), "nan": _nan,
}  # fmt: skip
JOIN: dict[str, Function] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
TESTS: dict[str, Function] = {
    "finite": np.isfinite, "infinite": np.isinf, "number": lambda x: ~np.isnan(x), "notanumber": np.isnan,
}  # fmt: skip


def _conversion(types: list[str], mods: set[str]) -> Meaning:
    """cvt: integers wrap or extend, or saturate if asked; floats to integers round as asked and saturate."""
    to, source = types[-2:]
    integer = next((_ROUNDING[m] for m in mods & _ROUNDING.keys()), None)
    if "sat" in mods and not to.startswith("f") and not source.startswith("f"):
        return Meaning(to, (source,), lambda x: _clipped(x, to))
    of_nan = 0 if source != "f64" and not to.endswith("64") else -(1 << (8 * DTYPES[to].itemsize - 1))

    def convert(x: Array) -> Array:
        if not source.startswith("f") or integer is None:
            return x.astype(DTYPES[to])
        rounded = integer(x)
        if to.startswith("f"):
            return rounded.astype(DTYPES[to])
        limits = np.iinfo(str(DTYPES[to]))
        inside = (rounded >= float(limits.min)) & (rounded < float(limits.max) + 1)
        beyond = np.where(rounded > 0, limits.max, limits.min).astype(DTYPES[to])
        whole = np.where(inside, rounded, 0).astype(DTYPES[to])
        return np.where(np.isnan(x), np.array(of_nan).astype(DTYPES[to]), np.where(inside, whole, beyond))

    return Meaning(to, (source,), _saturating(convert, to) if "sat" in mods and to.startswith("f") else convert)


def _clipped(x: Array, to: str) -> Array:
    """An integer as the nearest one of another type."""
    here, there = np.iinfo(x.dtype), np.iinfo(str(DTYPES[to]))
    low, high = max(here.min, there.min), min(here.max, there.max)
    return np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(DTYPES[to])


def _fixed(result: str | None, sources: str, function: Function, modifiers: str = "") -> Known:
    """Operand types that the opcode implies; `t` is the type it names."""

    def make(types: list[str], mods: set[str]) -> Meaning:
        return Meaning(result or types[-1], tuple(s if s != "t" else types[-1] for s in sources.split()), function)

    return Known(frozenset(modifiers.split()), make)


def _testp(types: list[str], mods: set[str]) -> Meaning:
    (what,) = mods
    return Meaning("pred", (types[-1],), TESTS[what])


def _funnel(types: list[str], mods: set[str]) -> Meaning:
    """shf: 32 bits of the 64 of b:a, moved by c, which wraps or is clamped to 32."""

    def shift(a: Array, b: Array, c: Array) -> Array:
        by = (c & np.uint32(31) if "wrap" in mods else np.minimum(c, np.uint32(32))).astype(np.uint64)
        both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
        moved = (both << by) >> np.uint64(32) if "l" in mods else both >> by
        return moved.astype(np.uint32)

    return Meaning("u32", ("u32",) * 3, shift)


TABLE: dict[str, Known] = {
    # floating point and integers
    "add": _same(2, np.add, "rn ftz sat"),
    "sub": _same(2, np.subtract, "rn ftz sat"),
    "mul": Known(frozenset(["rn", "ftz", "sat", "lo", "hi", "wide"]), lambda t, m: _product(t, m, add=False)),
    "mad": Known(frozenset(["lo", "hi", "wide"]), lambda t, m: _product(t, m, add=True)),
    "fma": Known(frozenset(["rn", "ftz", "sat"]), _fused, frozenset(["f32", "f64"])),
    "div": _by_kind(2, np.divide, _quotient, "rn approx full ftz"),
    "rem": _same(2, _remainder),
    "abs": _same(1, np.abs, "ftz"),
    "neg": _same(1, np.negative, "ftz"),
    "min": _by_kind(2, _least, np.minimum, "ftz"),
    "max": _by_kind(2, _largest, np.maximum, "ftz"),
    "copysign": _same(2, lambda sign, x: np.copysign(x, sign)),
    "rcp": _same(1, lambda x: _one(x) / x, "rn approx ftz"),
    "sqrt": _same(1, np.sqrt, "rn approx ftz"),
    "rsqrt": _same(1, lambda x: _one(x) / np.sqrt(x), "approx ftz"),
    "ex2": _same(1, np.exp2, "approx ftz"),
    "lg2": _same(1, np.log2, "approx ftz"),
    "sin": _same(1, np.sin, "approx ftz"),
    "cos": _same(1, np.cos, "approx ftz"),
    "tanh": _same(1, np.tanh, "approx"),
    # bits
    "and": _same(2, np.bitwise_and),
    "or": _same(2, np.bitwise_or),
    "xor": _same(2, np.bitwise_xor),
    "not": _same(1, np.invert),
    "shl": _shift(_shift_left),
    "shr": _shift(_shift_right),
    "shf": Known(frozenset(["l", "r", "wrap", "clamp"]), _funnel),
    "bfi": _fixed(None, "t t u32 u32", _insert),
    "bfe": _fixed(None, "t u32 u32", _extract),
    "popc": _fixed("b32", "t", _count_ones),
    "clz": _fixed("b32", "t", _leading_zeros),
    "brev": _same(1, _reverse),
    "lop3": _fixed("b32", "b32 b32 b32 b32", _logic3),
    "prmt": _fixed("u32", "u32 u32 u32", _permute_bytes),
    # comparing, choosing, moving
    "setp": Known(frozenset({*COMPARE, *JOIN, "ftz"}), _comparison),
    "testp": Known(frozenset(TESTS), _testp),
    "selp": _fixed(None, "t t pred", lambda a, b, p: np.where(p, a, b)),
    "mov": _same(1, lambda x: x),
    "cvta": _same(1, lambda x: x, "to global shared"),
    "cvt": Known(frozenset({*_ROUNDING, "rn", "ftz", "sat"}), _conversion),
}
