"""What the lanes of a warp do together: shuffles, votes, warp barriers (PTX ISA 8.2, 9.7.8.6 and 9.7.12)."""

from __future__ import annotations

from ..parse import Immediate, Instruction, Operand, Register
from ..slots import integer
from . import layout
from .body import Body
from .emit import LANES, Emitter, Vector, vector
from .memory import gather


# ------------------------------------------------------------------------------------------------ who is here
def check_members(body: Body, i: Instruction, members: Vector | None, mask: str) -> None:
    """Lanes that the member mask names, all if there is none, must be here, or have ended."""
    e = body.e
    absent = body.elsewhere(mask)
    somebody = e.scalar(f"icmp ne i32 {mask}, 0")
    after = body.when(e.scalar(f"and i1 {somebody}, {e.scalar(f'icmp ne i32 {absent}, 0')}"))
    named = absent
    if members is not None:
        named = e.scalar(f"and i32 {absent}, {_of_first_lane(e, members, mask)}")
    body.report(i, named)
    body.end(after)


def _of_first_lane(e: Emitter, value: Vector, mask: str) -> str:
    """The value of the lowest lane in a mask."""
    e.declare("i32 @llvm.cttz.i32(i32, i1)")
    lane = e.scalar(f"call i32 @llvm.cttz.i32(i32 {mask}, i1 true)")
    return e.scalar(f"extractelement {value.whole} {value.text}, i32 {lane}")


def check_whole_warp(body: Body, i: Instruction, mask: str) -> None:
    """`.aligned`: all 32 lanes are here."""
    e = body.e
    check_members(body, i, None, mask)
    partial = e.scalar(f"icmp ne i32 {body.existing()}, -1")
    body.report(i, e.scalar(f"select i1 {partial}, i32 {mask}, i32 0"))


def warp_barrier(body: Body, i: Instruction) -> None:
    """bar.warp.sync: lanes move together anyway, so that only the members matter."""
    check_members(body, i, None, body.mask())


# ------------------------------------------------------------------------------------------------ votes
def vote(body: Body, i: Instruction) -> None:
    """vote.sync.{all,any,uni,ballot} d, p, membermask: of the lanes that are here."""
    e, kind = body.e, i.parts[2]
    result, predicate, members = i.operands
    mask = body.mask()
    check_members(body, i, body.registers.read(members, "b32"), mask)
    yes = e.scalar(f"and i32 {e.as_mask(body.registers.read(predicate, 'pred'))}, {mask}")
    if kind == "ballot":
        body.registers.write(result, e.splat("i32", yes), "b32", body.guard)
        return
    every, none = e.scalar(f"icmp eq i32 {yes}, {mask}"), e.scalar(f"icmp eq i32 {yes}, 0")
    answer = {
        "all": lambda: every,
        "any": lambda: e.scalar(f"xor i1 {none}, true"),
        "uni": lambda: e.scalar(f"or i1 {every}, {none}"),
    }[kind]()
    body.registers.write(result, e.splat("i1", answer), "pred", body.guard)


# ------------------------------------------------------------------------------------------------ shuffles
def shuffle(body: Body, i: Instruction) -> None:
    """shfl.sync.mode.b32 d[|p], a, b, c, membermask"""
    mode, mask = i.parts[2], body.mask()
    result, valid = i.operands[0] if isinstance(i.operands[0], tuple) else (i.operands[0], None)
    a, members = (body.registers.read(i.operands[n], "b32") for n in (1, 4))
    check_members(body, i, members, mask)
    known = [_known(body, o) for o in i.operands[2:4]]
    if None not in known:
        moved, in_range = _known_lanes(body, i, mode, a, [k or 0 for k in known], mask)
    else:
        b, c = (body.registers.read(o, "b32") for o in i.operands[2:4])
        chosen, in_range = _chosen_lanes(body, mode, b, c)
        moved = _moved(body, i, a, chosen, mask)
    body.registers.write(result, moved, "b32", body.guard)
    if valid is not None:
        body.registers.write(valid, in_range, "pred", body.guard)


def _known(body: Body, operand: Operand) -> int | None:
    """A literal, or a register that only ever gets one; None for others."""
    if isinstance(operand, Immediate):
        return integer(operand.text)
    if isinstance(operand, Register):
        return body.literal_in.get(operand.name)
    return None


def _known_lanes(
    body: Body, i: Instruction, mode: str, a: Vector, known: list[int], mask: str
) -> tuple[Vector, Vector]:
    """Where lanes and ranges are in the text: one permutation, if the whole warp is here."""
    e, (by, clamp) = body.e, known
    source = [source_lane(mode, lane, by, clamp) for lane in range(LANES)]
    chosen = [lane for lane, _ in source]
    whole, part, after = e.fresh("whole", "part", "shuffled")
    e.branch(e.scalar(f"icmp eq i32 {mask}, -1"), whole, part)
    e.label(whole)
    fast = e.shuffle(a, chosen)
    e.jump(after)
    e.label(part)
    slow = _moved(body, i, a, _clamped(body, e.lanes("i32", chosen)), mask)
    (last,) = e.fresh("moved")
    e.jump(last)
    e.label(last)
    e.jump(after)
    e.label(after)
    moved = e.value(a.type, f"phi {a.whole} [ {fast.text}, %{whole} ], [ {slow.text}, %{last} ]")
    return moved, e.lanes("i1", [int(valid) for _, valid in source])


def source_lane(mode: str, lane: int, by: int, clamp: int) -> tuple[int, bool]:
    """(the lane that is read, whether it is in range)."""
    by, segment = by & 31, clamp >> 8 & 31
    limit = (lane & segment) | (clamp & 31 & ~segment)
    source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": (lane & segment) | (by & ~segment)}[mode]
    valid = source >= limit if mode == "up" else source <= limit
    return (source if valid else lane), valid


def _chosen_lanes(body: Body, mode: str, b: Vector, c: Vector) -> tuple[Vector, Vector]:
    """The same as vectors."""
    e = body.e
    lane, low = e.lanes("i32", range(LANES)), e.constant("i32", 31)
    by = e.op("and", b, low)
    segment = e.op("and", e.op("lshr", c, e.constant("i32", 8)), low)
    rest, own = e.negate(segment), e.op("and", lane, segment)
    limit = e.op("or", own, e.op("and", e.op("and", c, low), rest))
    source = {
        "up": lambda: e.op("sub", lane, by), "down": lambda: e.op("add", lane, by),
        "bfly": lambda: e.op("xor", lane, by), "idx": lambda: e.op("or", own, e.op("and", by, rest)),
    }[mode]()  # fmt: skip
    in_range = e.compare("icmp sge" if mode == "up" else "icmp sle", source, limit)
    return _clamped(body, e.choose(in_range, source, lane)), in_range


def _clamped(body: Body, lanes: Vector) -> Vector:
    """Lanes that are no threads of the thread block are read as its last."""
    e = body.e
    last = e.load("i32", e.field("%frame", layout.LAST_LANE))
    return e.intrinsic("umin", lanes, e.splat("i32", last))


def _moved(body: Body, i: Instruction, a: Vector, chosen: Vector, mask: str) -> Vector:
    """The values of other lanes, which must be here."""
    e = body.e
    here = e.op("and", e.op("lshr", e.splat("i32", mask), chosen), e.constant("i32", 1))
    absent = e.as_mask(e.compare("icmp eq", here, e.constant("i32", 0)))
    body.report(i, e.scalar(f"and i32 {absent}, {mask}"))
    e.store_vector(a, "%first")
    pointers = e.scalar(f"getelementptr i32, ptr %first, {vector('i32')} {chosen.text}")
    return gather(e, a.type, pointers, e.constant("i1", 1))
