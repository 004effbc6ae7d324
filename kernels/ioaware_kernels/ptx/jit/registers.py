"""PTX registers and other operands as vectors: read as the type that an instruction names, stored as declared."""

from __future__ import annotations

import numpy as np

from ioaware.errors import InputError

from ..ops import DTYPES
from ..parse import SIZES, Address, Immediate, Instruction, Kernel, Operand, Register, Symbol
from ..slots import SPECIALS, literal
from . import layout, runtime
from .emit import FLOATS, LANES, Emitter, Vector, integer_type, vector, width

ELEMENTS = {"pred": "i1", "f16": "half", "f32": "float", "f64": "double"}


def element(type_: str) -> str:
    """The LLVM type of a PTX type."""
    return ELEMENTS.get(type_) or f"i{8 * SIZES[type_]}"


def is_signed(type_: str) -> bool:
    """Whether an integer type has a sign; `.b` counts as signed, as it does on NumPy."""
    return DTYPES[type_].kind != "u"


class Registers:
    """The registers of a kernel: each a place on the stack, that LLVM turns into values."""

    def __init__(self, kernel: Kernel, emitter: Emitter) -> None:
        self.kernel, self.e = kernel, emitter
        self.types: dict[str, str] = {}  # register -> LLVM type, in the order of the first use

    def stored(self, name: str) -> str:
        """How a register is stored."""
        if name not in self.types:
            try:
                self.types[name] = element(self.kernel.type_of(name))
            except KeyError:
                raise LookupError(f"the executor has no register {name}") from None
        return self.types[name]

    def place(self, name: str) -> str:
        """The stack slot of a register."""
        self.stored(name)
        return f'%"R{name}"'

    def allocate(self) -> list[str]:
        """The stack slots: a register that nobody wrote holds zero."""
        places = [(self.place(name), vector(type_)) for name, type_ in self.types.items()]
        return [
            *(f"  {place} = alloca {whole}, align 64" for place, whole in places),
            *(f"  store {whole} zeroinitializer, ptr {place}" for place, whole in places),
        ]

    # ---------------------------------------------------------------------------------------- whole registers
    def get(self, name: str) -> Vector:
        """A register, as it is stored."""
        return Vector(self.e.load(vector(self.stored(name)), self.place(name), 64), self.stored(name))

    def put(self, name: str, value: Vector) -> None:
        """Store into a register; the value has its type."""
        self.e.store(value.whole, value.text, self.place(name), 64)

    # ---------------------------------------------------------------------------------------- as a type
    def read(self, operand: Operand, type_: str) -> Vector:
        """An operand as an instruction sees it."""
        match operand:
            case Register(name) if name in SPECIALS:
                return self._fitted(self._special(name), type_, signed=True)
            case Register(name, negated):
                value = self._fitted(self.get(name), type_, signed=True)
                return self.e.negate(value) if negated else value
            case Immediate(text):
                number = np.asarray(literal(text, DTYPES[type_]))
                return self.e.constant(element(type_), int(number.view(f"u{number.itemsize}")))
            case Symbol(name) if name in self.kernel.shared:
                return self.e.constant(element(type_), self.kernel.shared[name].offset)
        raise LookupError(f"an operand of type {type_} is not one the executor reads")

    def write(self, register: Operand, value: Vector, type_: str, guard: Vector | None) -> None:
        """Store a result of a type, extended by its sign if the register is wider; only where the guard holds."""
        if not isinstance(register, Register) or register.name == "_":
            return
        fitted = self._as(value, self.stored(register.name), signed=is_signed(type_))
        if guard is not None:
            fitted = self.e.choose(guard, fitted, self.get(register.name))
        self.put(register.name, fitted)

    def address(self, address: Address) -> Vector:
        """`[base + offset]`: 32 or 64 bits, as the register has."""
        base = address.base
        wide = not isinstance(base, Register) or width(self.stored(base.name)) == 64
        value = self.read(base, "b64" if wide else "b32")
        return self.e.op("add", value, self.e.constant(value.type, address.offset)) if address.offset else value

    def _fitted(self, value: Vector, type_: str, *, signed: bool) -> Vector:
        return self._as(value, element(type_), signed=signed)

    def _as(self, value: Vector, to: str, *, signed: bool) -> Vector:
        """The same bits; cut, or extended by a sign or zeros."""
        if value.type == to:
            return value
        bits = self.e.cast("bitcast", value, integer_type(value.type))
        if width(to) < bits.bits:
            bits = self.e.cast("trunc", bits, integer_type(to))
        elif width(to) > bits.bits:
            bits = self.e.cast("sext" if signed else "zext", bits, integer_type(to))
        return self.e.cast("bitcast", bits, to) if to in FLOATS else bits

    def _special(self, name: str) -> Vector:
        if name == "%laneid":
            return self.e.lanes("i32", range(LANES))
        if name == "%warpid":
            return self.e.splat("i32", self.e.load("i32", self.e.field("%frame", layout.WARP)))
        axis = "xyz".index(name[-1])
        if name.startswith("%tid"):
            return self.e.load_vector("i32", self.e.field("%frame", layout.TID + 4 * LANES * axis))
        first = {"%ctaid": runtime.CTAID, "%ntid": runtime.NTID, "%nctaid": runtime.NCTAID}[name[:-2]]
        return self.e.splat("i32", self.e.load("i32", self.e.field("%state", 8 * (first + axis))))


def refusal(i: Instruction) -> InputError:
    """What this engine does not run although the grid does."""
    return InputError(f"{i.where}: the compiled executor does not run {i.opcode}; the engine `grid` does")
