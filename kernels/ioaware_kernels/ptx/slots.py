"""Slots: registers, literals, parameters and special registers of a kernel, in one list."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ops import DTYPES
from .parse import Address, Immediate, Kernel, Operand, Register, Symbol

SPECIALS = (
    *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"), "%laneid", "%warpid",
)  # fmt: skip


class Slots:
    """Where registers, literals and parameters live in the list of slots."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.index: dict[object, int] = {}
        self.initial: list[Any] = []
        self.params: dict[tuple[str, int, str], int] = {}
        for name in SPECIALS:
            self._new(name, None)

    def _new(self, key: object, value: Any) -> int:
        if key not in self.index:
            self.index[key] = len(self.initial)
            self.initial.append(value)
        return self.index[key]

    def register(self, name: str) -> int:
        """The slot of a register; one that nobody wrote holds zero."""
        return self._new(name, self.dtype(name).type(0))

    def dtype(self, register: str) -> np.dtype[Any]:
        """How a register is stored."""
        if register in SPECIALS:
            return np.dtype("i4")
        try:
            return DTYPES[self.kernel.type_of(register)]
        except KeyError:
            raise LookupError(f"the executor has no register {register}") from None

    def parameter(self, name: str, offset: int, type_: str) -> int:
        """The slot of a piece of a parameter; the launch fills it."""
        return self.params.setdefault((name, offset, type_), self._new(("param", name, offset, type_), None))

    def address(self, address: Address) -> tuple[int, int]:
        """(slot, offset in bytes) of `[base + offset]`."""
        base = address.base
        wide = not isinstance(base, Register) or self.dtype(base.name).itemsize == 8
        slot, view = self.source(base, "b64" if wide else "b32")
        assert view is None
        return slot, address.offset

    def source(self, operand: Operand, type_: str) -> tuple[int, np.dtype[Any] | None]:
        """(slot, the dtype to view it as, None if it is stored so)."""
        wanted = DTYPES[type_]
        match operand:
            case Register(name):
                stored = self.dtype(name)
                return self.register(name), None if stored == wanted else wanted
            case Immediate(text):
                return self._new((text, type_), literal(text, wanted)), None
            case Symbol(name) if name in self.kernel.shared:
                return self._new((name, type_), wanted.type(self.kernel.shared[name].offset)), None
            case Symbol(name):
                raise LookupError(
                    f"the address of {name}, which is not in shared memory, is not run: keep arrays in registers "
                    "(constant indices) or in shared memory, and pass tables as tensors"
                )
        raise LookupError(f"an operand of type {type_} is not one the executor reads")


def literal(text: str, dtype: np.dtype[Any]) -> Any:
    """A PTX literal as a NumPy scalar: 0f and 0d are bit patterns, integers wrap."""
    if text[:2] in ("0f", "0F", "0d", "0D"):
        number = np.uint32(int(text[2:], 16)) if text[1] in "fF" else np.uint64(int(text[2:], 16))
        of_float = number.view(f"f{number.itemsize}")
        return of_float.astype(dtype) if dtype.kind == "f" else number.astype(f"u{dtype.itemsize}").view(dtype)
    if dtype.kind == "f":
        return dtype.type(float(text))
    whole = integer(text)
    if dtype.kind == "b":
        return np.bool_(whole != 0)
    return np.array(whole & ((1 << 8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype)[()]


def integer(text: str) -> int:
    """A PTX integer: decimal, 0x, 0b, or octal with a leading 0; U for unsigned."""
    digits = text.rstrip("U").lstrip("-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return (-1 if text.startswith("-") else 1) * int(digits, 8 if octal else 0)
