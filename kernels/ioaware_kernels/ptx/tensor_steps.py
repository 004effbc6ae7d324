"""The steps of tensor-core code: mma.sync, ldmatrix and cp.async with its groups (PTX ISA 8.2, 9.7.8 and 9.7.13)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ioaware.errors import InputError

from . import ops
from .parse import Address, Immediate, Instruction, Operand, Register
from .slots import Slots, integer
from .tensor_core import FORMATS

if TYPE_CHECKING:
    from .steps import Registers, Step


# ------------------------------------------------------------------------------------------------ mma
def mma(i: Instruction, slots: Slots) -> Step:
    """mma.sync.aligned.m16n8k<depth>.row.col.<d>.<a>.<b>.<c>"""
    form = re.fullmatch(r"mma\.sync\.aligned\.m16n8k(\d+)\.row\.col\.(f32|f16)\.(\w+)\.(\w+)\.\2", i.opcode)
    if form is None or len(i.operands) != 4:
        raise ops.unknown(i)
    depth, of_c, of_a, of_b = int(form[1]), form[2], form[3], form[4]
    alike = of_a == of_b or {of_a, of_b} == {"e4m3", "e5m2"}  # only the 8-bit ones may be mixed
    if of_a not in FORMATS or not alike or depth not in FORMATS[of_a].depths:
        raise ops.unknown(i)
    if of_c == "f16" and of_a in ("bf16", "tf32"):
        raise ops.unknown(i)
    d, a, b, c = i.operands
    registers = depth // (2 * FORMATS[of_a].packed)
    wide = of_c == "f32"
    if [len(_group(i, o)) for o in (d, a, b, c)] != [4 if wide else 2, registers, registers // 2, 4 if wide else 2]:
        raise ops.unknown(i)
    sources = [[slots.source(x, "b32")[0] for x in _group(i, o)] for o in (a, b)]
    added = [slots.source(x, "f32" if wide else "b32") for x in _group(i, c)]
    targets = [(slots.register(r.name), slots.dtype(r.name)) for r in _group(i, d) if isinstance(r, Register)]
    formats = FORMATS[of_a], FORMATS[of_b]

    def step(r: Registers, mask: Any, machine: Any) -> None:
        left, right = ([r[s] for s in of] for of in sources)
        sums = [r[s] if view is None else np.asarray(r[s]).view(view) for s, view in added]
        for (slot, stored), value in zip(
            targets, machine.multiply_add(i, formats, left, right, sums, mask), strict=True
        ):
            r[slot] = value.view(stored)

    return step


def _group(i: Instruction, operand: Operand) -> tuple[Operand, ...]:
    if not isinstance(operand, tuple):
        raise ops.unknown(i)
    return operand


# ------------------------------------------------------------------------------------------------ ldmatrix
def ldmatrix(i: Instruction, slots: Slots) -> Step:
    """ldmatrix.sync.aligned.m8n8.x<count>[.trans][.shared].b16"""
    form = re.fullmatch(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?(\.shared(::cta)?)?\.b16", i.opcode)
    if form is None or len(i.operands) != 2:
        raise ops.unknown(i)
    group, address = _group(i, i.operands[0]), i.operands[1]
    if len(group) != int(form[1]) or not isinstance(address, Address):
        raise ops.unknown(i)
    base, offset = slots.address(address)
    targets = [(slots.register(r.name), slots.dtype(r.name)) for r in group if isinstance(r, Register)]
    transposed = i.has("trans")

    def step(r: Registers, mask: Any, machine: Any) -> None:
        values = machine.load_matrices(i, r[base], offset, len(targets), mask, transposed=transposed)
        for (slot, stored), value in zip(targets, values, strict=True):
            r[slot] = value.view(stored)

    return step


# ------------------------------------------------------------------------------------------------ cp.async
def copy(i: Instruction, slots: Slots) -> Step:
    """cp.async.{ca,cg}.shared.global [place], [source], size{, bytes to read}; commit_group; wait_group n; wait_all"""
    if i.parts[:2] != ["cp", "async"] or len(i.parts) < 3:
        raise ops.unknown(i)
    if i.parts[2:] == ["commit_group"]:
        return lambda r, mask, machine: machine.copies.commit(mask)
    if i.parts[2:] == ["wait_all"]:
        return lambda r, mask, machine: machine.copies.wait_all(mask)
    if i.parts[2:] == ["wait_group"] and len(i.operands) == 1 and isinstance(i.operands[0], Immediate):
        newest = integer(i.operands[0].text)
        return lambda r, mask, machine: machine.copies.wait(newest, mask)
    return _issue(i, slots)


def _issue(i: Instruction, slots: Slots) -> Step:
    form = re.fullmatch(r"cp\.async\.(ca|cg)\.shared(::cta)?\.global(\.L2::(64|128|256)B)?", i.opcode)
    if form is None or len(i.operands) not in (3, 4):
        raise ops.unknown(i)
    place, source, size, *given = i.operands
    if not isinstance(place, Address) or not isinstance(source, Address) or not isinstance(size, Immediate):
        raise ops.unknown(i)
    if i.lane_bytes not in ((16,) if form[1] == "cg" else (4, 8, 16)):
        raise InputError(f"{i.where}: a cp.async copies 4, 8 or 16 bytes, with .cg only 16")
    for read in given:
        if isinstance(read, Immediate) and not 0 <= integer(read.text) <= i.lane_bytes:
            raise InputError(f"{i.where}: a cp.async reads at most the {i.lane_bytes} bytes that it copies")
        if isinstance(read, Register) and slots.dtype(read.name).itemsize != 4:
            raise ops.unknown(i)  # a predicate: to ignore the source
    (to, to_offset), (start, start_offset) = slots.address(place), slots.address(source)
    count = slots.source(given[0] if given else size, "b32")[0]

    def step(r: Registers, mask: Any, machine: Any) -> None:
        machine.copies.issue(i, r[to], to_offset, r[start], start_offset, r[count], mask)

    return step
