"""From instructions to steps: each becomes a Python function of (registers, mask, machine).

Registers, literals, parameters and special registers are slots of one list. A masked step computes all lanes; only
memory and other threads see the mask, and the engine keeps the old values of lanes that do not take part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ioaware.errors import InputError

from . import ops, tensor_steps
from .analyse import defined
from .arithmetic import Function
from .atomics import OPERATIONS
from .ops import DTYPES
from .parse import Address, Immediate, Instruction, Operand, Register, Symbol
from .slots import Slots, integer

Registers: TypeAlias = list[Any]
Step: TypeAlias = Callable[[Registers, Any, Any], None]  # registers, mask, machine
IGNORED = ("membar", "fence")  # orderings that lock step gives anyway; only barriers order threads in the shadow


# ------------------------------------------------------------------------------------------------ compiling
def compile_step(i: Instruction, slots: Slots) -> Step | None:
    """The step of an instruction; None for jumps, which the engine does. Raises InputError for an unknown opcode."""
    if i.base in ("bra", "ret", "exit", *IGNORED):
        return None
    try:
        step = _make(i, slots)
    except LookupError as e:
        raise InputError(f"{i.where}: {e}") from None
    return step if i.guard is None else _guarded(i, step, slots)


def _make(i: Instruction, slots: Slots) -> Step:
    if i.base == "ld" and i.has("param"):
        return _parameter(i, slots)
    if i.base in _ACCESS:
        return _ACCESS[i.base](i, slots)
    if i.base in _TALK:
        return _TALK[i.base](i, slots)
    if i.base == "mov" and any(isinstance(o, tuple) for o in i.operands):
        return _regroup(i, slots)
    if i.is_barrier or (i.base in ("bar", "barrier") and i.has("warp")):
        return _barrier(i, slots)
    return _element_wise(i, slots)


def _element_wise(i: Instruction, slots: Slots) -> Step:
    m = ops.meaning(i)
    operands = i.operands[1:]
    if len(operands) != len(m.sources):
        raise ops.unknown(i)
    sources = [slots.source(o, t) for o, t in zip(operands, m.sources, strict=True)]
    negated = [isinstance(o, Register) and o.negated for o in operands]
    function = m.function
    if any(negated) or any(view is not None for _, view in sources):
        function = _seen_as(function, [view for _, view in sources], negated)
    result = i.operands[0]
    if isinstance(result, tuple) and i.base == "setp":
        other = _seen_as(ops.opposite(i).function, [view for _, view in sources], negated)
        return _two_results(function, other, result, [s for s, _ in sources], slots)
    if not isinstance(result, Register):
        raise ops.unknown(i)
    stored = slots.dtype(result.name)
    if stored != DTYPES[m.result]:
        function = _stored_as(function, stored)
    return _call(function, slots.register(result.name), [s for s, _ in sources])


def _seen_as(function: Function, views: list[Any], negated: list[bool]) -> Function:
    def see(x: Any, view: Any, *, inverted: bool) -> Any:
        if view is not None:
            x = x.view(view) if x.dtype.itemsize == view.itemsize else x.astype(view)
        return ~x if inverted else x

    def seen(*xs: Any) -> Any:
        return function(*(see(x, v, inverted=n) for x, v, n in zip(xs, views, negated, strict=True)))

    return seen


def _stored_as(function: Function, stored: np.dtype[Any]) -> Function:
    def converted(*xs: Any) -> Any:
        return stored_as(function(*xs), stored)

    return converted


def stored_as(x: Any, stored: np.dtype[Any]) -> Any:
    """A value as a register stores it: the same bits, extended by its sign if it is narrower."""
    if x.dtype == stored:
        return x
    return x.view(stored) if x.dtype.itemsize == stored.itemsize else x.astype(stored)


def _call(function: Function, d: int, sources: list[int]) -> Step:
    """Plain closures for the usual numbers of operands: a call per operand list would cost as much as the work."""
    if len(sources) == 1:
        (a,) = sources

        def one(r: Registers, mask: Any, machine: Any) -> None:
            r[d] = function(r[a])

        return one
    if len(sources) == 2:
        a, b = sources

        def two(r: Registers, mask: Any, machine: Any) -> None:
            r[d] = function(r[a], r[b])

        return two
    if len(sources) == 3:
        a, b, c = sources

        def three(r: Registers, mask: Any, machine: Any) -> None:
            r[d] = function(r[a], r[b], r[c])

        return three

    def more(r: Registers, mask: Any, machine: Any) -> None:
        r[d] = function(*(r[s] for s in sources))

    return more


def _two_results(
    function: Function, other: Function, results: tuple[Operand, ...], sources: list[int], slots: Slots
) -> Step:
    """`setp p|q`"""
    first, second = (slots.register(r.name) for r in results if isinstance(r, Register))

    def step(r: Registers, mask: Any, machine: Any) -> None:
        given = [r[s] for s in sources]
        r[first], r[second] = function(*given), other(*given)

    return step


def _regroup(i: Instruction, slots: Slots) -> Step:
    """`mov.b64 {lo, hi}, a` cuts a register, `mov.b64 a, {lo, hi}` joins parts, the lowest first."""
    whole, parts = i.operands if isinstance(i.operands[1], tuple) else i.operands[::-1]
    if not isinstance(parts, tuple) or not isinstance(whole, Register):
        raise ops.unknown(i)
    width = DTYPES[i.parts[-1]].itemsize
    bits, narrow = 8 * width // len(parts), f"u{width // len(parts)}"
    slot, stored = slots.register(whole.name), slots.dtype(whole.name)
    pieces = [slots.source(p, f"b{bits}") for p in parts]
    joins = isinstance(i.operands[1], tuple)

    def join(r: Registers, mask: Any, machine: Any) -> None:
        given = [_cut(r[s], np.dtype(narrow)).astype(f"u{width}") for s, _ in pieces]
        shifted = [g << np.array(n * bits, f"u{width}") for n, g in enumerate(given)]
        r[slot] = np.asarray(np.bitwise_or.reduce(np.broadcast_arrays(*shifted), axis=0)).view(stored)

    def cut(r: Registers, mask: Any, machine: Any) -> None:
        value = np.asarray(r[slot]).view(f"u{width}")
        for n, part in enumerate(parts):
            if isinstance(part, Register) and part.name != "_":
                piece = (value >> np.array(n * bits, f"u{width}")).astype(narrow)
                r[slots.register(part.name)] = stored_as(piece, slots.dtype(part.name))

    return join if joins else cut


def _guarded(i: Instruction, step: Step, slots: Slots) -> Step:
    """`@p`: only lanes where the predicate holds; the others keep what they have."""
    assert i.guard is not None
    predicate, negated = slots.register(i.guard.name), i.guard.negated
    results = [slots.register(name) for name in defined(i)]

    def guarded(r: Registers, mask: Any, machine: Any) -> None:
        holds = machine.context.full(~r[predicate] if negated else r[predicate])
        inner = holds if mask is None else holds & mask
        if not inner.any():
            return
        old = [r[d] for d in results]
        step(r, inner, machine)
        for d, before in zip(results, old, strict=True):
            r[d] = np.where(inner, r[d], before)

    return guarded


# ------------------------------------------------------------------------------------------------ memory
def _parameter(i: Instruction, slots: Slots) -> Step:
    result, address = i.operands
    if not (isinstance(address, Address) and isinstance(address.base, Symbol)):
        raise ops.unknown(i)
    results = result if isinstance(result, tuple) else (result,)
    type_ = i.parts[-1]
    moves = []
    for n, register in enumerate(results):
        assert isinstance(register, Register)
        offset = address.offset + n * DTYPES[type_].itemsize
        moves.append((slots.register(register.name), slots.parameter(address.base.name, offset, type_),
                      slots.dtype(register.name)))  # fmt: skip

    def step(r: Registers, mask: Any, machine: Any) -> None:
        for d, source, stored in moves:
            r[d] = stored_as(r[source], stored)

    return step


def _space(i: Instruction) -> str:
    """global, shared, or generic: then the address decides."""
    if i.has("local", "const"):
        raise InputError(
            f"{i.where}: {'local' if i.has('local') else 'constant'} memory is not run; "
            "keep arrays in registers (constant indices) or in shared memory"
        )
    return next((p for p in i.parts if p in ("global", "shared")), "generic")


def _address(i: Instruction, slots: Slots, position: int) -> tuple[int, int]:
    address = i.operands[position]
    assert isinstance(address, Address)
    return slots.address(address)


def _allowed(i: Instruction, modifiers: str) -> None:
    known = {*modifiers.split(), *DTYPES, "global", "shared", "cta", i.base}
    if not set(i.parts) <= known:
        raise ops.unknown(i)


def _load(i: Instruction, slots: Slots) -> Step:
    _allowed(i, "nc volatile relaxed acquire gpu sys cg ca cs lu v2 v4 weak")
    results = i.operands[0] if isinstance(i.operands[0], tuple) else (i.operands[0],)
    base, offset = _address(i, slots, 1)
    space, count = _space(i), len(results)
    dtype = DTYPES[i.parts[-1].replace("b", "u")]  # without a sign, so that a wider register is filled with zeros
    targets = [(slots.register(r.name), slots.dtype(r.name)) for r in results if isinstance(r, Register)]
    plain = targets[0][0] if count == 1 and targets[0][1] == dtype else None

    def step(r: Registers, mask: Any, machine: Any) -> None:
        values = machine.load(i, space, r[base], offset, dtype, count, mask)
        if plain is not None:
            r[plain] = values[0]
            return
        for (d, stored), value in zip(targets, values, strict=True):
            r[d] = stored_as(value, stored)

    return step


def _store(i: Instruction, slots: Slots) -> Step:
    _allowed(i, "volatile relaxed release gpu sys wb cg cs wt v2 v4 weak")
    values = i.operands[1] if isinstance(i.operands[1], tuple) else (i.operands[1],)
    base, offset = _address(i, slots, 0)
    space, dtype = _space(i), DTYPES[i.parts[-1]]
    sources = [slots.source(v, i.parts[-1]) for v in values]

    def step(r: Registers, mask: Any, machine: Any) -> None:
        given = [r[s] if view is None else _cut(r[s], view) for s, view in sources]
        machine.store(i, space, r[base], offset, [np.asarray(g, dtype) for g in given], mask)

    return step


def _cut(x: Any, dtype: np.dtype[Any]) -> Any:
    """The low bits of a register, as a narrower type."""
    return x.view(dtype) if x.dtype.itemsize == dtype.itemsize else x.astype(f"u{dtype.itemsize}").view(dtype)


def _atomic(i: Instruction, slots: Slots) -> Step:
    _allowed(i, "relaxed acquire release acq_rel gpu sys " + " ".join(OPERATIONS))
    operation = next((OPERATIONS[p] for p in i.parts[1:] if p in OPERATIONS), None)
    if operation is None:
        raise ops.unknown(i)
    at = 0 if i.base == "red" else 1
    base, offset = _address(i, slots, at)
    space, sources = _space(i), [slots.source(o, i.parts[-1]) for o in i.operands[at + 1 :]]
    result = i.operands[0] if at else None
    target = slots.register(result.name) if isinstance(result, Register) and result.name != "_" else None
    stored = slots.dtype(result.name) if isinstance(result, Register) and target is not None else None

    def step(r: Registers, mask: Any, machine: Any) -> None:
        operands = [np.asarray(r[s] if view is None else r[s].view(view)) for s, view in sources]
        old = machine.atomic(i, space, r[base], offset, operation, operands, mask)
        if target is not None:
            r[target] = stored_as(old, stored)  # type: ignore[arg-type]

    return step


_ACCESS = {
    "ld": _load, "st": _store, "atom": _atomic, "red": _atomic,
    "mma": tensor_steps.mma, "ldmatrix": tensor_steps.ldmatrix, "cp": tensor_steps.copy,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ other threads
def _barrier(i: Instruction, slots: Slots) -> Step:
    if i.has("red"):
        raise ops.unknown(i)
    warp = i.has("warp")
    if not warp and [o for o in i.operands if o != Immediate("0")]:
        raise InputError(f"{i.where}: only barrier 0 of all threads is run, not a named barrier")
    members = [o for o in i.operands if not isinstance(o, Immediate) or integer(o.text) not in (-1, 0xFFFFFFFF)]
    if warp and members:
        raise InputError(f"{i.where}: only __syncwarp() of a whole warp is run, not of some lanes")

    def step(r: Registers, mask: Any, machine: Any) -> None:
        machine.warp_barrier(i, mask) if warp else machine.barrier(i, mask)

    return step


def _shuffle(i: Instruction, slots: Slots) -> Step:
    """shfl.sync.mode.b32 d[|p], a, b, c, membermask"""
    mode = i.parts[2]
    if mode not in ("up", "down", "bfly", "idx"):
        raise ops.unknown(i)
    result, valid = i.operands[0] if isinstance(i.operands[0], tuple) else (i.operands[0], None)
    assert isinstance(result, Register)
    (a, view), (b, _), (c, _), (members, _) = (slots.source(o, "b32") for o in i.operands[1:5])
    d, stored = slots.register(result.name), slots.dtype(result.name)
    p = slots.register(valid.name) if isinstance(valid, Register) else None

    def step(r: Registers, mask: Any, machine: Any) -> None:
        value = r[a] if view is None else r[a].view(view)
        moved, in_range = machine.shuffle(i, mode, value, r[b], r[c], r[members], mask)
        r[d] = stored_as(moved, stored)
        if p is not None:
            r[p] = in_range

    return step


def _vote(i: Instruction, slots: Slots) -> Step:
    """vote.sync.{all,any,uni,ballot} d, p, membermask"""
    kind = i.parts[2]
    if kind not in ("all", "any", "uni", "ballot"):
        raise ops.unknown(i)
    result, predicate = i.operands[0], i.operands[1]
    assert isinstance(result, Register)
    assert isinstance(predicate, Register)
    d, p, (members, _) = slots.register(result.name), slots.register(predicate.name), slots.source(i.operands[2], "b32")

    def step(r: Registers, mask: Any, machine: Any) -> None:
        r[d] = machine.vote(i, kind, ~r[p] if predicate.negated else r[p], r[members], mask)

    return step


_TALK = {"shfl": _shuffle, "vote": _vote}
