"""PTX text to kernels: parameters, registers, shared arrays, and basic blocks of instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeAlias

from ioaware.errors import InputError


# ------------------------------------------------------------------------------------------------ operands
@dataclass(frozen=True, slots=True)
class Register:
    """A register, or a special one such as `%tid.x`; `negated` for `!%p1`."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Immediate:
    """A literal, as written: its value depends on the type of the instruction."""

    text: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of a label, parameter or shared array."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """`[base + offset]`."""

    base: Register | Symbol | Immediate
    offset: int


Operand: TypeAlias = Register | Immediate | Symbol | Address | tuple["Operand", ...]  # a tuple is `{a, b}` or `a|b`


# ------------------------------------------------------------------------------------------------ kernels
@dataclass(frozen=True, eq=False)
class Instruction:
    """One instruction. `line` counts in the PTX text, `source` and `caller` in the CUDA source (0 where unknown).

    `caller` is the line that calls the inlined function in which `source` is; without one it is the same line.
    """

    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | None
    line: int
    source: int
    caller: int
    text: str

    @property
    def parts(self) -> list[str]:
        """The opcode cut at its dots."""
        return self.opcode.split(".")

    @property
    def base(self) -> str:
        """The opcode's first part."""
        return self.opcode.partition(".")[0]

    def has(self, *parts: str) -> bool:
        """Whether any of these modifiers is there."""
        return not set(parts).isdisjoint(self.parts)

    @property
    def where(self) -> str:
        """How messages name it."""
        source = f"CUDA line {self.source}, " if self.source else ""
        return f"{source}PTX line {self.line}: `{self.text}`"

    @cached_property
    def lane_bytes(self) -> int:
        """Bytes that one lane moves at an access: the type's size times the vector width; a row, a copy's size."""
        if self.base == "ldmatrix":
            return 16  # a row of eight 2-byte elements, by each lane that gives an address
        if self.base == "cp":
            return int(str(getattr(self.operands[2], "text", 0)), 0)
        width = next((int(p[1:]) for p in self.parts if p in ("v2", "v4")), 1)
        return SIZES[self.parts[-1]] * width

    @property
    def is_barrier(self) -> bool:
        """Whether all threads of a thread block wait for one another here."""
        return self.base in ("bar", "barrier") and not self.has("warp")


@dataclass(eq=False)
class Block:
    """Instructions without a jump between them; a barrier has a block of its own."""

    label: str = ""
    instructions: list[Instruction] = field(default_factory=list)
    successors: tuple[int, ...] = ()  # of a conditional branch: taken, not taken

    @property
    def last(self) -> Instruction | None:
        """The instruction that may jump."""
        return self.instructions[-1] if self.instructions else None

    @property
    def is_barrier(self) -> bool:
        """Whether this block is a barrier."""
        return bool(self.instructions) and self.instructions[0].is_barrier


class Param(NamedTuple):
    """A kernel parameter of `size` bytes."""

    name: str
    type: str
    size: int


class SharedArray(NamedTuple):
    """A `__shared__` array: where it begins in shared memory, and its size; None if the launch decides."""

    offset: int
    size: int | None


@dataclass(eq=False)
class Kernel:
    """One `.entry`."""

    name: str
    params: list[Param]
    registers: dict[str, str] = field(default_factory=dict)  # name, or prefix of numbered names -> type
    shared: dict[str, SharedArray] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    @property
    def static_shared_bytes(self) -> int:
        """Shared memory that the kernel needs before what the launch gives."""
        return max((a.offset + (a.size or 0) for a in self.shared.values()), default=0)

    def type_of(self, register: str) -> str:
        """The declared type of a register."""
        if register in self.registers:
            return self.registers[register]
        return self.registers[register.rstrip("0123456789")]

    def instructions(self) -> Iterator[Instruction]:
        """All instructions, in order."""
        for block in self.blocks:
            yield from block.instructions


SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "b32": 4, "u32": 4, "s32": 4,
         "f32": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8, "bf16": 2, "f16x2": 4, "bf16x2": 4, "tf32": 4}  # fmt: skip


# ------------------------------------------------------------------------------------------------ parsing
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{")
_SHARED = re.compile(r"(\.extern\s+)?\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?\s*;")
_TOKEN = re.compile(
    r"\s*(?:\.loc\s+\d+\s+(?P<loc>\d+)\s+\d+(?:[^\n]*inlined_at\s+\d+\s+(?P<at>\d+))?[^\n]*"
    r"|(?P<label>[\w$]+):|(?P<brace>[{}])|(?P<text>[^;{}][^;]*);)"
)


def parse(text: str) -> dict[str, Kernel]:
    """The kernels of a PTX file. Raises InputError where the text is not PTX or calls functions."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", _blank, text, flags=re.S)
    function = re.search(r"\.func\b", text)
    if function:
        line = text.count("\n", 0, function.start()) + 1
        rule = "calls are not run: declare device functions __forceinline__, leave printf out"
        raise InputError(f"PTX line {line}: a function is called, and {rule}")
    kernels = {}
    for entry in _ENTRY.finditer(text):
        end = _closing(text, entry.end())
        kernel = Kernel(entry[1], [_param(p) for p in entry[2].split(",") if p.strip()])
        _place_shared(kernel, text[: entry.start()] + text[entry.end() : end], text[entry.end() : end])
        _Body(kernel, text, entry.end(), end).read()
        kernels[kernel.name] = kernel
    if not kernels:
        raise InputError("no kernel in the PTX: it has no `.entry`")
    return kernels


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")  # line numbers stay


def _closing(text: str, position: int) -> int:
    depth = 1
    while depth:
        brace = re.compile(r"[{}]").search(text, position)
        if brace is None:
            raise InputError(f"PTX line {text.count(chr(10)) + 1}: the text ends inside a kernel")
        depth += 1 if brace[0] == "{" else -1
        position = brace.end()
    return position - 1


def _param(text: str) -> Param:
    array = re.search(r"([\w$]+)\s*\[(\d+)\]\s*$", text)
    type_ = re.findall(r"\.(\w+)", text.replace(".param", "").replace(".align", "").replace(".ptr", ""))[0]
    if array:
        return Param(array[1], type_, int(array[2]) * SIZES[type_])
    return Param(text.split()[-1], type_, SIZES[type_])


def _place_shared(kernel: Kernel, declarations: str, body: str) -> None:
    """Static arrays one after another, the launch's dynamic array behind them."""
    offset, dynamic = 0, []
    for extern, align, type_, name, count in _SHARED.findall(declarations):
        if not re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", body):
            continue
        if extern:
            dynamic.append(name)
            continue
        size, alignment = SIZES[type_] * int(count or 1), int(align or SIZES[type_])
        offset = -(-offset // alignment) * alignment
        kernel.shared[name] = SharedArray(offset, size)
        offset += size
    for name in dynamic:
        kernel.shared[name] = SharedArray(-(-offset // 16) * 16, None)


class _Body:
    """Reads one kernel's body statement by statement; registers of inline assembly are renamed per scope."""

    def __init__(self, kernel: Kernel, text: str, start: int, end: int) -> None:
        self.kernel, self.text, self.position, self.end = kernel, text, start, end
        self.line, self.counted = text.count("\n", 0, start) + 1, start
        self.source = self.caller = 0
        self.scopes: list[dict[str, str]] = [{}]
        self.blocks = [Block()]

    def read(self) -> None:
        """Fill the kernel's blocks and registers."""
        for token in iter(self._next, None):
            if token["loc"]:
                self.source = int(token["loc"]) or self.source
                self.caller = int(token["at"] or self.source)
            elif token["label"]:
                self.blocks.append(Block(token["label"]))
            elif token["brace"]:
                self._scope(token["brace"])
            elif token["text"].startswith("."):
                self._directive(token["text"])
            else:
                self._instruction(token["text"])
        self.kernel.blocks = [b for n, b in enumerate(self.blocks) if b.instructions or b.label or n == 0]
        self._link()

    def _next(self) -> re.Match[str] | None:
        token = _TOKEN.match(self.text, self.position, self.end)
        if token is None and self.text[self.position : self.end].strip():
            rest = self.text[self.position : self.end]
            line = self.line + self.text.count("\n", self.counted, self.position + len(rest) - len(rest.lstrip()))
            raise InputError(f"PTX line {line}: {rest.strip()[:40]!r} is not PTX")
        if token is not None:
            start = token.end() - len(token[0].lstrip())
            self.line += self.text.count("\n", self.counted, start)
            self.counted, self.position = start, token.end()
        return token

    def _scope(self, brace: str) -> None:
        if brace == "{":
            self.scopes.append(dict(self.scopes[-1]))
        else:
            self.scopes.pop()

    def _directive(self, text: str) -> None:
        declared = re.match(r"\.reg\s*\.(\w+)\s+(.*)", text, flags=re.S)
        if not declared:
            return
        for name in declared[2].split(","):
            name = name.strip().partition("<")[0]
            if len(self.scopes) > 1:
                self.scopes[-1][name] = f"%@{self.line}_{name.lstrip('%')}"
                name = self.scopes[-1][name]
            self.kernel.registers[name] = declared[1]

    def _instruction(self, text: str) -> None:
        text = " ".join(text.split())
        guard = None
        rest = text
        if text.startswith("@"):
            condition, _, rest = text[1:].partition(" ")
            guard = self._register(condition)
        opcode, _, operands = rest.partition(" ")
        instruction = Instruction(
            opcode, tuple(map(self._operand, _split(operands))), guard, self.line, self.source, self.caller, text
        )
        if instruction.is_barrier and self.blocks[-1].instructions:
            self.blocks.append(Block())
        self.blocks[-1].instructions.append(instruction)
        if instruction.is_barrier or instruction.base in ("bra", "ret", "exit"):
            self.blocks.append(Block())

    def _register(self, text: str) -> Register:
        name = text.lstrip("!")
        return Register(self.scopes[-1].get(name, name), text.startswith("!"))

    def _operand(self, text: str) -> Operand:
        if text.startswith("["):
            base, _, offset = text[1:-1].replace(" ", "").partition("+")
            inner = self._operand(base)
            assert isinstance(inner, (Register, Symbol, Immediate))
            return Address(inner, int(offset or "0", 0))
        if text.startswith("{"):
            return tuple(map(self._operand, _split(text[1:-1])))
        if "|" in text:
            return tuple(self._operand(t.strip()) for t in text.split("|"))
        if text[0] in "%!" or text == "_" or text in self.scopes[-1]:
            return self._register(text)
        return Immediate(text) if text[0] in "-0123456789" else Symbol(text)

    def _link(self) -> None:
        """Successors of every block."""
        blocks = self.kernel.blocks
        at = {b.label: n for n, b in enumerate(blocks) if b.label}
        for n, block in enumerate(blocks):
            last = block.last
            following = (n + 1,) if n + 1 < len(blocks) else ()
            block.successors = following
            if last is not None and last.base == "bra":
                target = last.operands[0]
                if not isinstance(target, Symbol) or target.name not in at:
                    raise InputError(f"{last.where}: there is no such label in the kernel")
                block.successors = (at[target.name], *(following if last.guard else ()))
            elif last is not None and last.base in ("ret", "exit") and not last.guard:
                block.successors = ()


def _split(text: str) -> list[str]:
    """Cut at the commas outside brackets."""
    return [t.strip() for t in re.findall(r"(?:\[[^\]]*\]|\{[^}]*\}|[^,])+", text) if t.strip()]
