"""Loads, stores and atomics: an address is that of the grid's memory, and is translated, bounded and counted here.

Every site remembers the window of memory that it touched last: while all lanes stay in it, a comparison and an addition
do everything. Otherwise `runtime.resolve` looks lane by lane, counts, and reports what strays.
"""

from __future__ import annotations

from ..atomics import OPERATIONS
from ..parse import SIZES, Address, Instruction, Operand, Register, Symbol
from . import layout, runtime
from .body import Body
from .emit import LANES, RARE, Emitter, Vector, vector
from .place import Place
from .registers import element, is_signed, refusal
from .sites import Site


# ------------------------------------------------------------------------------------------------ addresses
def locate(body: Body, site: Site, address: Vector, mask: str) -> list[Place]:
    """Translate, bound and count an access, and those that are checked with it."""
    e, is_shared = body.e, site.space == runtime.IN_SHARED
    known, unknown, after = e.fresh("known", "unknown", "located")
    if not is_shared and address.type == "i32":
        address = e.cast("sext", address, "i64")
    index = e.cast("trunc", address, "i32") if is_shared else address
    strays = e.scalar(f"and i32 {mask}, {e.as_mask(_outside(body, site, address))}")
    e.branch(e.scalar(f"icmp ne i32 {strays}, 0"), unknown, known, RARE)
    e.label(known)
    _count(body, site, mask)
    delta = e.splat("i64", e.load("i64", body.site_field(site, runtime.DELTA)))
    usual = address if is_shared else e.op("add", address, delta)
    e.jump(after)
    e.label(unknown)
    e.store_vector(e.cast("sext", address, "i64"), "%addresses")
    body.call_runtime("resolve", ("i64", str(site.number)), ("i32", mask), ("ptr", "%addresses"), ("ptr", "%right"))
    right = [e.load("i32", e.field("%right", 4 * n)) for n in range(len(site.members))]
    found = address if is_shared else e.load_vector("i64", "%addresses")
    e.jump(after)
    e.label(after)
    if not is_shared:
        index = e.value("i64", f"phi {index.whole} [ {usual.text}, %{known} ], [ {found.text}, %{unknown} ]")
    lanes = [e.scalar(f"phi i32 [ {mask}, %{known} ], [ {fine}, %{unknown} ]") for fine in right]
    return [Place(index, is_shared, fine, m.offset) for fine, m in zip(lanes, site.members, strict=True)]


def _outside(body: Body, site: Site, address: Vector) -> Vector:
    """The lanes that leave the remembered window, or are not aligned: then the low bits are turned to the top."""
    e = body.e
    low = e.splat(address.type, e.load(address.type, body.site_field(site, runtime.LOW)))
    limit = e.splat(address.type, e.load(address.type, body.site_field(site, runtime.LIMIT)))
    within = e.op("sub", address, low)
    if site.bytes > 1:
        within = e.intrinsic("fshr", within, within, e.constant(address.type, site.bytes.bit_length() - 1))
    return e.compare("icmp uge", within, limit)


def _count(body: Body, site: Site, mask: str) -> None:
    e = body.e
    e.declare("i32 @llvm.ctpop.i32(i32)")
    lanes = e.scalar(f"zext i32 {e.scalar(f'call i32 @llvm.ctpop.i32(i32 {mask})')} to i64")
    counted = body.site_field(site, runtime.LANES_COUNTED)
    e.store("i64", e.scalar(f"add i64 {e.load('i64', counted)}, {lanes}"), counted)


def place_of(body: Body, i: Instruction, operand: Operand) -> Place:
    """The place that an instruction's address names."""
    site = body.sites.of(i)
    if site.first is site:
        assert isinstance(operand, Address)
        places = locate(body, site, body.registers.address(operand), body.mask())
        body.places.update(zip(site.members, places, strict=True))
    return body.places.pop(site)


# ------------------------------------------------------------------------------------------------ lane by lane
def gather(e: Emitter, type_: str, pointers: str, mask: Vector) -> Vector:
    """An integer per lane; poison where the mask is not."""
    bits = type_[1:]
    function = f"@llvm.masked.gather.v{LANES}i{bits}.v{LANES}p0"
    whole, aligned = vector(type_), int(bits) // 8
    e.declare(f"{whole} {function}({vector('ptr')}, i32, {vector('i1')}, {whole})")
    poison = e.constant(type_, -1)
    given = f"{vector('ptr')} {pointers}, i32 {aligned}, {mask.whole} {mask.text}, {whole} {poison.text}"
    return e.value(type_, f"call {whole} {function}({given})")


def scatter(e: Emitter, value: Vector, pointers: str, mask: Vector) -> None:
    """Store an integer per lane; of lanes at the same place the last wins."""
    function = f"@llvm.masked.scatter.v{LANES}i{value.bits}.v{LANES}p0"
    e.declare(f"void {function}({value.whole}, {vector('ptr')}, i32, {vector('i1')})")
    given = f"{value.whole} {value.text}, {vector('ptr')} {pointers}, i32 {value.bits // 8}, {mask.whole} {mask.text}"
    e.line(f"call void {function}({given})")


def load(body: Body, i: Instruction) -> None:
    """ld, of one, two or four neighbouring elements."""
    e, results, type_ = body.e, group(i.operands[0]), i.parts[-1]
    place = place_of(body, i, i.operands[1])
    mask, bits = e.from_mask(place.mask), 8 * SIZES[type_]
    seen = f"{'s' if type_[0] == 's' else 'u'}{bits}"  # without a sign, so that a wider register is filled with zeros
    for n, register in enumerate(results):
        value = gather(e, f"i{bits}", place.pointers(e, n * bits // 8), mask)
        body.registers.write(register, value, seen, body.guard)


def store(body: Body, i: Instruction) -> None:
    """st, of one, two or four neighbouring elements."""
    e, type_ = body.e, i.parts[-1]
    values = [body.registers.read(o, type_) for o in group(i.operands[1])]
    place = place_of(body, i, i.operands[0])
    mask = e.from_mask(place.mask)
    for n, value in enumerate(values):
        scatter(e, e.cast("bitcast", value, f"i{value.bits}"), place.pointers(e, n * value.bits // 8), mask)


def group(operand: Operand) -> tuple[Operand, ...]:
    """The registers of `{a, b}`, or the one."""
    return operand if isinstance(operand, tuple) else (operand,)


def load_parameter(body: Body, i: Instruction) -> None:
    """ld.param: the same for all threads."""
    result, address = i.operands
    assert isinstance(address, Address)
    assert isinstance(address.base, Symbol)
    type_, e = i.parts[-1], body.e
    first = 8 * runtime.PARAMETERS + layout.parameter_offsets(body.kernel.params)[address.base.name] + address.offset
    for n, register in enumerate(group(result)):
        scalar = e.load(element(type_), e.field("%state", first + n * SIZES[type_]), align=1)
        body.registers.write(register, e.splat(element(type_), scalar), type_, body.guard)


# ------------------------------------------------------------------------------------------------ atomics
def atomic(body: Body, i: Instruction) -> None:
    """atom and red: lane after lane."""
    e, type_, at = body.e, i.parts[-1], 0 if i.base == "red" else 1
    (name,) = set(i.parts[1:]) & OPERATIONS.keys()
    if SIZES[type_] < 4 or (type_[0] == "f" and name in ("min", "max")):
        raise refusal(i)
    kind = element(type_)
    values = [body.registers.read(o, type_) for o in i.operands[at + 1 :]]
    place = place_of(body, i, i.operands[at])
    pointers = place.pointers(e)
    e.store(vector("ptr"), pointers, "%addresses", 64)
    for value, scratch in zip(values, ("%first", "%second"), strict=False):
        e.store_vector(value, scratch)
    e.store_vector(e.constant(kind, 0), "%old")
    _each_lane(body, place.mask, name, kind, signed=is_signed(type_))
    result = i.operands[0]
    if at and isinstance(result, Register):
        body.registers.write(result, e.load_vector(kind, "%old"), type_, body.guard)


def _each_lane(body: Body, mask: str, name: str, kind: str, *, signed: bool) -> None:
    e = body.e
    e.declare("i32 @llvm.cttz.i32(i32, i1)")
    before, loop, one, after = e.fresh("atomic", "lanes", "lane", "done")
    e.jump(before)
    e.label(before)
    e.jump(loop)
    e.label(loop)
    left = e.scalar(f"phi i32 [ {mask}, %{before} ], [ %{one}.left, %{one} ]")
    e.branch(e.scalar(f"icmp eq i32 {left}, 0"), after, one)
    e.label(one)
    lane = e.scalar(f"call i32 @llvm.cttz.i32(i32 {left}, i1 true)")
    at = e.load("ptr", _of_lane(e, "%addresses", "ptr", lane))
    first, old = e.load(kind, _of_lane(e, "%first", kind, lane)), e.load(kind, at)
    e.store(kind, old, _of_lane(e, "%old", kind, lane))
    second = e.load(kind, _of_lane(e, "%second", kind, lane)) if name == "cas" else ""
    e.store(kind, _updated(e, name, kind, old, first, second, signed=signed), at)
    e.line(f"%{one}.rest = sub i32 {left}, 1")
    e.line(f"%{one}.left = and i32 {left}, %{one}.rest")
    e.jump(loop)
    e.label(after)


def _of_lane(e: Emitter, base: str, type_: str, lane: str) -> str:
    return e.scalar(f"getelementptr {type_}, ptr {base}, i32 {lane}")


def _updated(e: Emitter, name: str, kind: str, old: str, first: str, second: str, *, signed: bool) -> str:
    """What memory holds after an atomic operation."""
    if name == "exch":
        return first
    if name == "add":
        return e.scalar(f"{'fadd' if kind in ('float', 'double') else 'add'} {kind} {old}, {first}")
    if name == "cas":
        same = e.scalar(f"icmp eq {kind} {old}, {first}")
        return e.scalar(f"select i1 {same}, {kind} {second}, {kind} {old}")
    how = f"{'s' if signed else 'u'}{'lt' if name == 'min' else 'gt'}"
    better = e.scalar(f"icmp {how} {kind} {first}, {old}")
    return e.scalar(f"select i1 {better}, {kind} {first}, {kind} {old}")
