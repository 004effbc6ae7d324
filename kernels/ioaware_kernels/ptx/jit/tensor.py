"""mma.sync, ldmatrix and cp.async as LLVM IR (PTX ISA 8.2, 9.7.8.24 and 9.7.13.4).

Fragments are those that `tensor_core` describes; sums are its too: exact products, added in float64 in ascending k.
"""

from __future__ import annotations

from collections.abc import Callable

from ..parse import Address, Immediate, Instruction
from ..slots import integer
from ..tensor_core import FORMATS
from .body import Body
from .convert import of_float
from .emit import LANES, Emitter, Vector
from .memory import gather, group, locate
from .place import Place
from .warp import check_whole_warp

PAIRS = [lane & ~3 for lane in range(LANES)]  # the first lane of a row of fragments


# ------------------------------------------------------------------------------------------------ formats
def _bits(e: Emitter, register: Vector, n: int, width: int) -> Vector:
    """Element n of a packed register, as an integer of its width."""
    shifted = e.op("lshr", register, e.constant("i32", n * width)) if n else register
    return e.cast("trunc", shifted, f"i{width}")


def _half(e: Emitter, register: Vector, n: int) -> Vector:
    return e.cast("bitcast", _bits(e, register, n, 16), "half")


def _brain(e: Emitter, register: Vector, n: int) -> Vector:
    upper = register if n else e.op("shl", register, e.constant("i32", 16))
    return e.cast("bitcast", e.op("and", upper, e.constant("i32", 0xFFFF0000)), "float")


def _tensor_float(e: Emitter, register: Vector, n: int) -> Vector:
    return e.cast("bitcast", e.op("and", register, e.constant("i32", ~0x1FFF)), "float")


def _e5m2(e: Emitter, register: Vector, n: int) -> Vector:
    wide = e.cast("zext", _bits(e, register, n, 8), "i16")
    return e.cast("bitcast", e.op("shl", wide, e.constant("i16", 8)), "half")


def _e4m3(e: Emitter, register: Vector, n: int) -> Vector:
    """Exponent and fraction in their places of fp32, whose exponent is 120 more; 0x7f is NaN."""
    wide = e.cast("zext", _bits(e, register, n, 8), "i32")
    size = e.op("and", wide, e.constant("i32", 127))
    is_nan = e.compare("icmp eq", size, e.constant("i32", 127))
    small = e.cast("bitcast", e.op("shl", size, e.constant("i32", 20)), "float")
    scaled = e.cast("bitcast", e.op("fmul", small, e.constant("float", 247 << 23)), "i32")
    sign = e.op("shl", e.op("and", wide, e.constant("i32", 128)), e.constant("i32", 24))
    value = e.op("or", e.choose(is_nan, e.constant("i32", 0x7FC00000), scaled), sign)
    return e.cast("bitcast", value, "float")


_DECODE: dict[str, Callable[[Emitter, Vector, int], Vector]] = {
    "f16": _half, "bf16": _brain, "tf32": _tensor_float, "e5m2": _e5m2, "e4m3": _e4m3,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ mma
def mma(body: Body, i: Instruction) -> None:
    """mma.sync.aligned.m16n8k<depth>.row.col.<d>.<a>.<b>.<c>: a call of a function that all of its kind share."""
    e, of_c = body.e, i.parts[-1]
    check_whole_warp(body, i, body.mask())
    d, a, b, c = map(group, i.operands)
    given = [body.registers.read(o, "b32") for o in (*a, *b)]
    given += [body.registers.read(o, "f32" if of_c == "f32" else "b32") for o in c]
    name, result = f"@{i.opcode}", "{ " + ", ".join(v.whole for v in given[len(a) + len(b) :]) + " }"
    if name not in body.functions:
        body.functions[name] = _function(body, i, f"{result} {name}", given, len(a))
    all_of = e.scalar(f"call {result} {name}({', '.join(f'{v.whole} {v.text}' for v in given)})")
    for n, register in enumerate(d):
        value = e.value(given[-1].type, f"extractvalue {result} {all_of}, {n}")
        body.registers.write(register, value, "f32" if of_c == "f32" else "b32", body.guard)


def _function(body: Body, i: Instruction, head: str, given: list[Vector], of_a: int) -> str:
    """D of the registers of A, B and C. Inlined, it would take the compiler long."""
    e, (of_d, a_format, b_format, _) = Emitter(), i.parts[-4:]
    e.declared = body.e.declared
    parameters = [Vector(f"%p{n}", v.type) for n, v in enumerate(given)]
    packed, depth, of_b = FORMATS[a_format].packed, int(i.parts[3].rpartition("k")[2]), of_a // 2
    a = _elements(e, parameters[:of_a], a_format)
    b = _elements(e, parameters[of_a : of_a + of_b], b_format)
    sums = _sums(e, parameters[of_a + of_b :])
    for k in range(depth):
        part, t, element = k // (4 * packed), k % (4 * packed) // packed, k % packed
        rows = [e.shuffle(a[2 * part + r][element], [first + t for first in PAIRS]) for r in (0, 1)]
        columns = [e.shuffle(b[part][element], [4 * (2 * (lane % 4) + c) + t for lane in range(LANES)]) for c in (0, 1)]
        left, right = ([e.cast("fpext", x, "double") for x in xs] for xs in (rows, columns))
        sums = [e.intrinsic("fma", left[n // 2], right[n % 2], total) for n, total in enumerate(sums)]
    result, out = head.rpartition(" ")[0], "poison"
    for n, value in enumerate(_rounded(e, sums, of_d)):
        out = e.scalar(f"insertvalue {result} {out}, {value.whole} {value.text}, {n}")
    e.line(f"ret {result} {out}")
    listed = ", ".join(f"{p.whole} {p.text}" for p in parameters)
    return "\n".join([f"define internal {head}({listed}) noinline {{", *e.lines, "}"])


def _elements(e: Emitter, registers: list[Vector], format_: str) -> list[list[Vector]]:
    """The elements of each register of a fragment."""
    return [[_DECODE[format_](e, register, n) for n in range(FORMATS[format_].packed)] for register in registers]


def _sums(e: Emitter, registers: list[Vector]) -> list[Vector]:
    """C in float64."""
    if registers[0].type == "i32":
        registers = [_half(e, register, n) for register in registers for n in (0, 1)]
    return [e.cast("fpext", v, "double") for v in registers]


def _rounded(e: Emitter, sums: list[Vector], format_: str) -> list[Vector]:
    """D, rounded once; halves in pairs."""
    if format_ == "f32":
        return [of_float(e, s, "float") for s in sums]
    halves = [e.cast("zext", e.cast("bitcast", of_float(e, s, "half"), "i16"), "i32") for s in sums]
    return [
        e.op("or", e.op("shl", high, e.constant("i32", 16)), low)
        for low, high in zip(halves[::2], halves[1::2], strict=True)
    ]


# ------------------------------------------------------------------------------------------------ ldmatrix
def load_matrices(body: Body, i: Instruction) -> None:
    """Lanes 8 j to 8 j + 7 give where the rows of matrix j are; each lane gets two neighbours of a row, or column."""
    e, mask = body.e, body.mask()
    check_whole_warp(body, i, mask)
    results, address = group(i.operands[0]), i.operands[1]
    assert isinstance(address, Address)
    giving = e.scalar(f"and i32 {mask}, {(1 << 8 * len(results)) - 1}")
    where = body.registers.address(address)
    (place,) = locate(body, body.sites.of(i), where, giving)
    fine = e.from_mask(place.mask)
    for n, register in enumerate(results):
        received = (_of_columns if i.has("trans") else _of_rows)(e, place, fine, 8 * n)
        body.registers.write(register, received, "b32", body.guard)


def _element(e: Emitter, place: Place, fine: Vector, type_: str, rows: list[int], offsets: list[int]) -> Vector:
    """What every lane finds in a row that another lane gave."""
    index = e.op("add", e.shuffle(place.address, rows), e.lanes("i32", offsets))
    return gather(e, type_, place._replace(address=index).pointers(e), e.shuffle(fine, rows))


def _of_rows(e: Emitter, place: Place, fine: Vector, first: int) -> Vector:
    rows, offsets = zip(*((first + lane // 4, 4 * (lane % 4)) for lane in range(LANES)), strict=True)
    return _element(e, place, fine, "i32", list(rows), list(offsets))


def _of_columns(e: Emitter, place: Place, fine: Vector, first: int) -> Vector:
    offsets = [2 * (lane // 4) for lane in range(LANES)]
    both = [[first + 2 * (lane % 4) + n for lane in range(LANES)] for n in (0, 1)]
    low, high = (e.cast("zext", _element(e, place, fine, "i16", rows, offsets), "i32") for rows in both)
    pair = e.op("or", e.op("shl", high, e.constant("i32", 16)), low)
    right = e.op("and", *(e.shuffle(fine, rows) for rows in both))
    return e.choose(right, pair, e.constant("i32", -1))


# ------------------------------------------------------------------------------------------------ cp.async
def copy(body: Body, i: Instruction) -> None:
    """cp.async [place], [source], size{, bytes to read}; commit_group; wait_group n; wait_all"""
    mask = ("i32", body.mask())
    if i.has("commit_group"):
        body.call_runtime("commit", mask)
    elif i.has("wait_all", "wait_group"):
        newest = i.operands[0] if i.operands else Immediate("-1")
        assert isinstance(newest, Immediate)
        body.call_runtime("wait", mask, ("i64", str(integer(newest.text))))
    else:
        _issue(body, i, mask)


def _issue(body: Body, i: Instruction, mask: tuple[str, str]) -> None:
    e, (place, source, size, *given) = body.e, i.operands
    assert isinstance(place, Address)
    assert isinstance(source, Address)
    vectors = [
        body.registers.address(source),
        body.registers.address(place),
        body.registers.read(given[0] if given else size, "b32"),
    ]
    slots = ("%addresses", "%first", "%second")
    for value, slot in zip(vectors, slots, strict=True):
        e.store_vector(e.cast("sext", value, "i64"), slot)
    numbers = (("i64", str(n)) for n in (body.sites.of(i).number, body.sites.event(i)))
    body.call_runtime("issue", *numbers, mask, *(("ptr", slot) for slot in slots))
