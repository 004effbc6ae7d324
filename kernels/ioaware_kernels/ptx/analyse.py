"""What a kernel's text tells before it runs: definitions and uses, live registers, where pointers come from."""

from __future__ import annotations

from collections.abc import Iterator

from .parse import Address, Block, Instruction, Kernel, Operand, Register, Symbol

NO_RESULT = ("st", "red", "bra", "bar", "barrier", "ret", "exit", "cp", "membar", "fence", "trap")
SPECIAL = ("%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid")
MEMORY = ("ld", "st", "atom", "red")


def is_access(instruction: Instruction) -> bool:
    """Whether it touches global or shared memory: a site that is counted and checked."""
    if instruction.base in MEMORY:
        return not instruction.has("param")
    return instruction.base == "ldmatrix" or is_copy(instruction)


def is_copy(instruction: Instruction) -> bool:
    """Whether it copies from global to shared memory by itself: cp.async, but not the orders that go with it."""
    return instruction.base == "cp" and instruction.has("shared", "shared::cta")


def registers(operand: Operand) -> Iterator[str]:
    """The registers an operand names."""
    match operand:
        case Register(name) if name.startswith("%") and not name.startswith(SPECIAL):
            yield name
        case Address(base, _):
            yield from registers(base)
        case tuple():
            for inner in operand:
                yield from registers(inner)


def defined(instruction: Instruction) -> tuple[str, ...]:
    """The registers it writes."""
    if instruction.base in NO_RESULT or not instruction.operands:
        return ()
    return tuple(registers(instruction.operands[0]))


def used(instruction: Instruction) -> tuple[str, ...]:
    """The registers it reads; a guarded result is also read, where the guard is false it stays."""
    result = defined(instruction)
    sources = instruction.operands if instruction.base in NO_RESULT else instruction.operands[1:]
    names = [name for operand in sources for name in registers(operand)]
    return (*names, *((instruction.guard.name, *result) if instruction.guard else ()))


def live_after(kernel: Kernel) -> list[set[str]]:
    """For every block, the registers that are read after it."""
    reads, writes = zip(*(_block(b) for b in kernel.blocks), strict=True)
    live = [set(r) for r in reads]
    after: list[set[str]] = [set() for _ in live]
    changed = True
    while changed:
        changed = False
        for n in reversed(range(len(live))):
            after[n] = set().union(*(live[s] for s in kernel.blocks[n].successors))
            now = reads[n] | (after[n] - writes[n])
            changed |= now != live[n]
            live[n] = now
    return after


def _block(block: Block) -> tuple[set[str], set[str]]:
    """Registers read before they are written in a block, and registers written."""
    reads: set[str] = set()
    writes: set[str] = set()
    for instruction in block.instructions:
        reads |= set(used(instruction)) - writes
        writes |= set(defined(instruction))
    return reads, writes


def provenance(kernel: Kernel) -> dict[Instruction, frozenset[str]]:
    """For every access, the kernel parameters that its address is computed from."""
    origin: dict[str, frozenset[str]] = {}
    nothing: frozenset[str] = frozenset()
    changed = True
    while changed:
        changed = False
        for i in kernel.instructions():
            came = _parameter(i) or nothing.union(*(origin.get(name, nothing) for name in used(i)))
            if i.base in ("setp", "shfl", "atom") or (i.base == "ld" and not i.has("param")):
                came = nothing
            for name in defined(i):
                if not came <= origin.get(name, nothing):
                    origin[name] = origin.get(name, nothing) | came
                    changed = True
    accesses = [
        (i, [o for o in i.operands if isinstance(o, Address)][-1]) for i in kernel.instructions() if is_access(i)
    ]  # of a copy, where it reads
    return {i: nothing.union(*(origin.get(name, nothing) for name in registers(a))) for i, a in accesses}


def _parameter(instruction: Instruction) -> frozenset[str] | None:
    """The parameter whose pointer an instruction loads; nothing for other parameters, None for other instructions."""
    if not (instruction.base == "ld" and instruction.has("param")):
        return None
    match instruction.operands[1]:
        case Address(Symbol(name), 0) if instruction.has("u64", "b64"):
            return frozenset([name])
    return frozenset()
