"""The one table of what opcodes mean: element-wise functions on NumPy arrays (PTX ISA 8.2, section 9.7).

A register is an array over (threads, thread blocks), or anything that broadcasts to it. Its storage type follows its
declaration; an instruction sees it as the type that its opcode names. Opcodes that touch memory or other threads are
not here but in the engine (grid.py).

`ex2`, `lg2`, `sin`, `cos`, `tanh`, `rcp.approx`, ... are computed to the last bit or two of fp32, closer than the
hardware's approximations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ioaware.errors import InputError

from . import packed
from .arithmetic import (
    Array,
    Function,
    count_ones,
    extract,
    from_bf16,
    fused_multiply_add,
    high_of_64,
    insert,
    largest,
    leading_zeros,
    least,
    logic3,
    one,
    permute_bytes,
    quotient,
    remainder,
    reverse,
    shift_left,
    shift_right,
    subnormal_to_zero,
    to_bf16,
    to_f16,
    to_tf32,
)  # fmt: skip
from .parse import Instruction

DTYPES = {
    "pred": np.dtype(bool), "bf16": np.dtype("u2"), "f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8"),
    "b8": np.dtype("u1"), "u8": np.dtype("u1"), "s8": np.dtype("i1"),
    "b16": np.dtype("i2"), "u16": np.dtype("u2"), "s16": np.dtype("i2"),
    "b32": np.dtype("i4"), "u32": np.dtype("u4"), "s32": np.dtype("i4"),
    "b64": np.dtype("i8"), "u64": np.dtype("u8"), "s64": np.dtype("i8"),
    "f16x2": np.dtype("i4"), "bf16x2": np.dtype("i4"), "tf32": np.dtype("i4"),
}  # fmt: skip
_ONLY_CONVERTED = {"bf16", "f16x2", "bf16x2", "tf32"}
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
    if _is_packed(instruction.base, types) and mods <= {"rn"}:
        count, function = packed.arithmetic(instruction.base, types[-1])
        return Meaning(types[-1], (types[-1],) * count, function)
    if known is None or not mods <= known.modifiers or not set(types) <= known.types:
        raise unknown(instruction)
    if "ftz" in mods and "f32" not in types:
        raise unknown(instruction)
    if instruction.base == "cvt" and not _is_conversion(types, mods):
        raise unknown(instruction)
    out = known.make(types, mods)
    return out._replace(function=_flushing(out)) if "ftz" in mods else out


def _is_packed(base: str, types: list[str]) -> bool:
    """Whether NumPy lacks the arithmetic: pairs of 16-bit numbers, bf16, and the fused multiply-add of fp16."""
    by_numpy = base != "fma" and types == ["f16"]
    return base in packed.ARITHMETIC and bool(types) and set(types) <= set(packed.TYPES) and not by_numpy


def opposite(instruction: Instruction) -> Meaning:
    """The second result of `setp p|q`: the opposite comparison, joined with the same predicate."""
    mods = set(instruction.parts[1:]) - DTYPES.keys()
    return _comparison([p for p in instruction.parts if p in DTYPES], mods, opposite=True)


def unknown(instruction: Instruction) -> InputError:
    """The refusal of an opcode that the executor does not run."""
    return InputError(
        f"{instruction.where}: opcode {instruction.opcode} is not one the executor runs; "
        "ioaware_kernels/ptx/ops.py lists those it does"
    )


# ------------------------------------------------------------------------------------------------ modifiers
def _flushing(plain: Meaning) -> Function:
    """`.ftz`: subnormal fp32 inputs and results are zeros of the same sign."""
    flushed = [t == "f32" for t in plain.sources]

    def function(*sources: Array) -> Array:
        given = [subnormal_to_zero(x) if flush else x for x, flush in zip(sources, flushed, strict=True)]
        result = plain.function(*given)
        return subnormal_to_zero(result) if plain.result == "f32" else result

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


# ------------------------------------------------------------------------------------------------ the table
class Known(NamedTuple):
    """An opcode of the table: the modifiers and types it may have, and its meaning for those given."""

    modifiers: frozenset[str]
    make: Callable[[list[str], set[str]], Meaning]
    types: frozenset[str] = frozenset(DTYPES.keys() - _ONLY_CONVERTED)


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
            product = high_of_64
    else:
        product = np.multiply
    result = wide if "wide" in mods else t
    if not add:
        return Meaning(result, (t, t), product)
    return Meaning(result, (t, t, result), lambda a, b, c: product(a, b) + c)


def _fused(types: list[str], mods: set[str]) -> Meaning:
    t, function = types[-1], fused_multiply_add()
    return Meaning(t, (t, t, t), _saturating(function, t) if "sat" in mods else function)


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
    if to in NARROWING:
        return _narrowed(to, source, mods)
    if source == "bf16":
        return Meaning(to, (source,), from_bf16)
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


def _is_conversion(types: list[str], mods: set[str]) -> bool:
    """Whether a conversion from or to the formats of the tensor cores is one of those that are run."""
    to, source = types
    if to in NARROWING:
        return source == "f32" and mods - {"ftz"} == {"rna" if to == "tf32" else "rn"}
    return "rna" not in mods and (source not in _ONLY_CONVERTED or (source == "bf16" and to == "f32" and not mods))


NARROWING: dict[str, Function] = {"f16x2": to_f16, "bf16x2": to_bf16, "bf16": to_bf16, "tf32": to_tf32}


def _narrowed(to: str, source: str, mods: set[str]) -> Meaning:
    """fp32 to the formats of the tensor cores, to nearest; two at once: the first is the upper half."""
    narrow = NARROWING[to]
    if not to.endswith("x2"):
        return Meaning(to, (source,), narrow)

    def pair(high: Array, low: Array) -> Array:
        bits = (narrow(x).view(np.uint16).astype(np.uint32) for x in (high, low))
        return ((next(bits) << np.uint32(16)) | next(bits)).view(np.int32)

    return Meaning(to, (source, source), pair)


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
    "div": _by_kind(2, np.divide, quotient, "rn approx full ftz"),
    "rem": _same(2, remainder),
    "abs": _same(1, np.abs, "ftz"),
    "neg": _same(1, np.negative, "ftz"),
    "min": _by_kind(2, least, np.minimum, "ftz"),
    "max": _by_kind(2, largest, np.maximum, "ftz"),
    "copysign": _same(2, lambda sign, x: np.copysign(x, sign)),
    "rcp": _same(1, lambda x: one(x) / x, "rn approx ftz"),
    "sqrt": _same(1, np.sqrt, "rn approx ftz"),
    "rsqrt": _same(1, lambda x: one(x) / np.sqrt(x), "approx ftz"),
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
    "shl": _shift(shift_left),
    "shr": _shift(shift_right),
    "shf": Known(frozenset(["l", "r", "wrap", "clamp"]), _funnel),
    "bfi": _fixed(None, "t t u32 u32", insert),
    "bfe": _fixed(None, "t u32 u32", extract),
    "popc": _fixed("b32", "t", count_ones),
    "clz": _fixed("b32", "t", leading_zeros),
    "brev": _same(1, reverse),
    "lop3": _fixed("b32", "b32 b32 b32 b32", logic3),
    "prmt": _fixed("u32", "u32 u32 u32", permute_bytes),
    # comparing, choosing, moving
    "setp": Known(frozenset({*COMPARE, *JOIN, "ftz"}), _comparison),
    "testp": Known(frozenset(TESTS), _testp),
    "selp": _fixed(None, "t t pred", lambda a, b, p: np.where(p, a, b)),
    "mov": _same(1, lambda x: x),
    "cvta": _same(1, lambda x: x, "to global shared"),
    "cvt": Known(frozenset({*_ROUNDING, "rn", "rna", "ftz", "sat"}), _conversion, frozenset(DTYPES)),
}
