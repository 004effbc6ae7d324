"""LLVM IR as text: vectors of 32 lanes, scalars, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LANES = 32
FLOATS = {"half": 16, "float": 32, "double": 64}
RARE, EVEN = "!0", ""  # of a branch: its first target is hardly ever taken
FOOTER = '!0 = !{!"branch_weights", i32 1, i32 100000}\n'


class Vector(NamedTuple):
    """A value in all lanes: its name or constant in the text, and the LLVM type of a lane."""

    text: str
    type: str

    @property
    def whole(self) -> str:
        """The type of all lanes."""
        return vector(self.type)

    @property
    def bits(self) -> int:
        """The width of a lane."""
        return width(self.type)


def vector(type_: str) -> str:
    """The type of 32 lanes."""
    return f"<{LANES} x {type_}>"


def width(type_: str) -> int:
    """Bits of a type."""
    return FLOATS.get(type_) or int(type_[1:])


def integer_type(type_: str) -> str:
    """The integer as wide as a type."""
    return f"i{width(type_)}"


class Emitter:
    """The text of a function under construction."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self._number = 0

    # ---------------------------------------------------------------------------------------- text
    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def scalar(self, text: str) -> str:
        """The name of an instruction's result."""
        self._number += 1
        self.line(f"%v{self._number} = {text}")
        return f"%v{self._number}"

    def value(self, type_: str, text: str) -> Vector:
        """An instruction's result as a vector."""
        return Vector(self.scalar(text), type_)

    def declare(self, function: str) -> None:
        """A function that is elsewhere."""
        self.declared.add(f"declare {function}")

    # ---------------------------------------------------------------------------------------- labels
    def fresh(self, *names: str) -> list[str]:
        """Labels that nobody else has."""
        self._number += 1
        return [f"{name}.{self._number}" for name in names]

    def label(self, name: str) -> None:
        """Here a block begins."""
        self.lines.append(f"{name}:")

    def jump(self, label: str) -> None:
        """To a label, whatever happens."""
        self.line(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str, weights: str = EVEN) -> None:
        """To one of two labels."""
        weighted = f", !prof {weights}" if weights else ""
        self.line(f"br i1 {condition}, label %{yes}, label %{no}{weighted}")

    # ---------------------------------------------------------------------------------------- memory
    def field(self, base: str, offset: int) -> str:
        """A pointer so many bytes on."""
        return self.scalar(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def load(self, type_: str, pointer: str, align: int = 0) -> str:
        """A scalar or vector from memory."""
        return self.scalar(f"load {type_}, ptr {pointer}" + (f", align {align}" if align else ""))

    def store(self, type_: str, value: str, pointer: str, align: int = 0) -> None:
        """A scalar or vector to memory."""
        self.line(f"store {type_} {value}, ptr {pointer}" + (f", align {align}" if align else ""))

    def load_vector(self, type_: str, pointer: str) -> Vector:
        """32 neighbouring elements."""
        return Vector(self.load(vector(type_), pointer, 64 if width(type_) > 8 else 1), type_)

    def store_vector(self, value: Vector, pointer: str) -> None:
        """32 neighbouring elements."""
        self.store(value.whole, value.text, pointer, 64 if value.bits > 8 else 1)

    # ---------------------------------------------------------------------------------------- vectors
    def constant(self, type_: str, bits: int) -> Vector:
        """The same bits in all lanes."""
        if type_ in FLOATS:
            return self.cast("bitcast", self.constant(integer_type(type_), bits), type_)
        if type_ == "i1":
            return Vector(f"splat (i1 {'true' if bits else 'false'})", "i1")
        return Vector(f"splat ({type_} {bits & (1 << width(type_)) - 1})", type_)

    def lanes(self, type_: str, numbers: Sequence[int]) -> Vector:
        """An integer per lane."""
        return Vector("<" + ", ".join(f"{type_} {n}" for n in numbers) + ">", type_)

    def splat(self, type_: str, scalar: str) -> Vector:
        """A scalar in all lanes."""
        first = self.value(type_, f"insertelement {vector(type_)} poison, {type_} {scalar}, i32 0")
        return self.shuffle(first, [0] * LANES)

    def op(self, opcode: str, a: Vector, b: Vector) -> Vector:
        """A binary operation."""
        return self.value(a.type, f"{opcode} {a.whole} {a.text}, {b.text}")

    def compare(self, how: str, a: Vector, b: Vector) -> Vector:
        """`icmp slt`, `fcmp olt`, ..."""
        return self.value("i1", f"{how} {a.whole} {a.text}, {b.text}")

    def choose(self, condition: Vector, a: Vector, b: Vector) -> Vector:
        """a where the condition holds, else b."""
        return self.value(a.type, f"select {condition.whole} {condition.text}, {a.whole} {a.text}, {b.whole} {b.text}")

    def cast(self, opcode: str, a: Vector, to: str) -> Vector:
        """bitcast, trunc, sext, fpext, ..."""
        return self.value(to, f"{opcode} {a.whole} {a.text} to {vector(to)}") if a.type != to else a

    def negate(self, a: Vector) -> Vector:
        """All bits the other way round."""
        return self.op("xor", a, self.constant(a.type, -1))

    def shuffle(self, a: Vector, lanes: Sequence[int]) -> Vector:
        """Every lane gets the value of a lane known beforehand."""
        text = "zeroinitializer" if not any(lanes) else self.lanes("i32", lanes).text
        return self.value(a.type, f"shufflevector {a.whole} {a.text}, {a.whole} poison, {vector('i32')} {text}")

    def intrinsic(self, name: str, *operands: Vector, flags: str = "") -> Vector:
        """An element-wise function of LLVM; `flags` are its constant arguments."""
        a = operands[0]
        function = f"@llvm.{name}.v{LANES}{'f' if a.type in FLOATS else 'i'}{a.bits}"
        more = ", i1" if flags else ""
        self.declare(f"{a.whole} {function}({', '.join(o.whole for o in operands)}{more})")
        given = ", ".join(f"{o.whole} {o.text}" for o in operands)
        return self.value(a.type, f"call {a.whole} {function}({given}{flags})")

    # ---------------------------------------------------------------------------------------- masks
    def as_mask(self, a: Vector) -> str:
        """Predicates as the bits of a 32-bit scalar."""
        return self.scalar(f"bitcast {a.whole} {a.text} to i32")

    def from_mask(self, mask: str) -> Vector:
        """The way back."""
        return self.value("i1", f"bitcast i32 {mask} to {vector('i1')}")

    def call(self, function: str, *arguments: tuple[str, str]) -> None:
        """Call a function by its pointer: (type, value) of each argument."""
        self.line(f"call void {function}({', '.join(f'{t} {value}' for t, value in arguments)})")
