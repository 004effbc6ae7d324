"""From PTX instructions to LLVM IR, and from a kernel to the text of a module."""

from __future__ import annotations

from .. import ops
from ..analyse import MEMORY
from ..parse import Instruction
from ..steps import IGNORED
from . import memory, opcodes, tensor, warp
from .body import Body
from .emit import Vector
from .memory import group
from .registers import refusal

_OTHERS = {
    "ld": memory.load, "st": memory.store, "atom": memory.atomic, "red": memory.atomic,
    "shfl": warp.shuffle, "vote": warp.vote, "bar": warp.warp_barrier, "barrier": warp.warp_barrier,
    "mma": tensor.mma, "ldmatrix": tensor.load_matrices, "cp": tensor.copy,
}  # fmt: skip


def translate(body: Body, i: Instruction) -> None:
    """Write one instruction that does not jump."""
    if i.base in IGNORED:
        return
    body.guard = body.registers.read(i.guard, "pred") if i.guard else None
    if i.base in MEMORY and i.has("param"):
        memory.load_parameter(body, i)
    elif i.base in _OTHERS:
        _OTHERS[i.base](body, i)
    elif i.base == "mov" and any(isinstance(o, tuple) for o in i.operands):
        _regroup(body, i)
    else:
        _element_wise(body, i)
    body.guard = None


def _element_wise(body: Body, i: Instruction) -> None:
    meaning = ops.meaning(i)
    sources = [body.registers.read(o, t) for o, t in zip(i.operands[1:], meaning.sources, strict=True)]
    results = group(i.operands[0])
    values = [opcodes.compute(body.e, i, sources)]
    if len(results) > 1:
        values.append(opcodes.opposite(body.e, i, sources))
    for register, value in zip(results, values, strict=True):
        body.registers.write(register, value, meaning.result, body.guard)


def _regroup(body: Body, i: Instruction) -> None:
    """`mov.b64 {lo, hi}, a` cuts a register, `mov.b64 a, {lo, hi}` joins parts, the lowest first."""
    e, bits = body.e, int(i.parts[-1][1:])
    result, source = i.operands
    if isinstance(result, tuple):
        whole, width = body.registers.read(source, f"b{bits}"), bits // len(result)
        for n, part in enumerate(result):
            moved = e.op("lshr", whole, e.constant(whole.type, n * width))
            body.registers.write(part, e.cast("trunc", moved, f"i{width}"), f"u{width}", body.guard)
        return
    if not isinstance(source, tuple):
        raise refusal(i)
    width, joined = bits // len(source), Vector(f"splat (i{bits} 0)", f"i{bits}")
    for n, part in enumerate(source):
        wide = e.cast("zext", body.registers.read(part, f"b{width}"), f"i{bits}")
        joined = e.op("or", joined, e.op("shl", wide, e.constant(wide.type, n * width)))
    body.registers.write(result, joined, f"b{bits}", body.guard)
