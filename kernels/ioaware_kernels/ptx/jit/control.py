"""Where lanes go: the function of a warp, block by block.

Short conditional code runs under a mask (`regions`). Lanes that part otherwise: those of the higher block of code are
parked, their live registers stored in the frame, and the lower block goes on; whoever reaches or passes a block where
others are parked is parked too, and the lowest parked block runs next. So registers are never written under a mask. At
a barrier lanes are parked until the whole thread block is there: the function returns the barrier's block, and is
called again.
"""

from __future__ import annotations

from ..analyse import defined, live_after, used
from ..parse import Block, Register
from . import layout, runtime
from .body import SCRATCH, Body
from .emit import LANES, Vector, vector
from .regions import conditionals
from .sites import MOST_TOGETHER
from .translate import translate

VARIABLES = {"mask": "i32", "lowest": "i32", "at": "i32", "parking": "i32", "after": "i32", "fuel": "i64"}
NOWHERE = -1


class Control:
    """The text of the function of a warp."""

    def __init__(self, body: Body) -> None:
        self.body, self.e, self.blocks = body, body.e, body.kernel.blocks
        self.live = [_live_before(b, after) for b, after in zip(self.blocks, live_after(body.kernel), strict=True)]
        self.conditionals = conditionals(body.kernel)
        self.meetings = self._meetings()
        self.splits: dict[int, list[int]] = {}  # block where lanes are parked -> blocks after which the others go on
        self.offsets: dict[str, int] = {}
        self.frame_bytes = layout.registers_offset(len(self.blocks))

    def _meetings(self) -> set[int]:
        """The blocks where lanes may be parked."""
        parked, inside, n = set(), self.conditionals, 0
        while n < len(self.blocks):
            after = inside[n].end if n in inside else n + 1
            first = {after} if n in inside else set(self.blocks[n].successors)
            parked |= {t for t in first if t != after or self._before(t) - set(range(n, after))}
            parked |= {after} if n not in inside and len(first) > 1 and min(first) < after else set()
            n = after
        return parked | {n for n, block in enumerate(self.blocks) if block.is_barrier}

    def _before(self, target: int) -> set[int]:
        return {n for n, block in enumerate(self.blocks) if target in block.successors}

    def write(self) -> None:
        """Every block, then how lanes are parked, taken up again, and leave."""
        n = 0
        while n < len(self.blocks):
            self.e.label(f"B{n}")
            n = self._block(n)
        self._place_registers()
        for n in sorted(self.meetings):
            self._park(n)
        for n in self._entries():
            self._resume(n)
        self._schedule()
        self._leave()

    def _entries(self) -> list[int]:
        """The blocks where parked lanes go on: behind a barrier, it is the next one."""
        entries = {n + 1 if self.blocks[n].is_barrier else n for n in self.meetings}
        return sorted(entries - {len(self.blocks)})

    def _place_registers(self) -> None:
        """Where parked registers are in the frame: all that live into some block."""
        for name in sorted(set().union(*self.live)):
            self.offsets[name] = self.frame_bytes
            bits = Vector("", self.body.registers.stored(name)).bits
            self.frame_bytes += -(-LANES * bits // 8 // 64) * 64

    # ---------------------------------------------------------------------------------------- a block
    def _block(self, n: int) -> int:
        """A block, and the conditional code behind it; which block is the next."""
        block, last = self.blocks[n], self.blocks[n].last
        self._straight(n)
        if n in self.conditionals:
            self._conditional(n)
            self._go(self.conditionals[n].end)
            return self.conditionals[n].end
        if last is not None and last.base in ("ret", "exit"):
            self._return(n, last.guard)
        elif last is not None and last.base == "bra" and last.guard and len(set(block.successors)) > 1:
            self._part(n, last.guard)
        elif block.successors:
            self._go(block.successors[0])
        else:
            self._return(n, None)
        return n + 1

    def _straight(self, n: int) -> None:
        """The instructions of a block that do not jump."""
        for i in self.blocks[n].instructions:
            if i.base not in ("bra", "ret", "exit") and not i.is_barrier:
                translate(self.body, i)
        if self.blocks[n].instructions:
            self._spend(n, len(self.blocks[n].instructions))

    # ---------------------------------------------------------------------------------------- conditional code
    def _conditional(self, n: int) -> None:
        """Both arms, each under the mask of its lanes."""
        last, (otherwise, end) = self.blocks[n].last, self.conditionals[n]
        assert last is not None
        assert last.guard is not None
        taken, stays, mask = self._holding(last.guard)
        self._arm(n + 1, otherwise, stays, self.live[otherwise] | self.live[end])
        if otherwise < end:
            self._arm(otherwise, end, taken, self.live[end])
        self.e.store("i32", mask, "%mask")

    def _arm(self, first: int, last: int, lanes: str, live: set[str]) -> None:
        """The blocks of an arm; of what they write, other lanes keep what they had."""
        e, registers = self.e, self.body.registers
        after = self.body.when(e.scalar(f"icmp ne i32 {lanes}, 0"), rare=False)
        e.store("i32", lanes, "%mask")
        written = {name for b in self.blocks[first:last] for i in b.instructions for name in defined(i)}
        old = {name: registers.get(name) for name in sorted(written & live)}
        n = first
        while n < last:
            self._straight(n)
            if n in self.conditionals:
                self._conditional(n)
            n = self.conditionals[n].end if n in self.conditionals else n + 1
        here = e.from_mask(lanes)
        for name, value in old.items():
            registers.put(name, e.choose(here, registers.get(name), value))
        self.body.end(after)

    # ---------------------------------------------------------------------------------------- from block to block
    def _spend(self, n: int, instructions: int) -> None:
        left = self.e.scalar(f"sub i64 {self.e.load('i64', '%fuel')}, {instructions}")
        self.e.store("i64", left, "%fuel")
        after = self.body.when(self.e.scalar(f"icmp slt i64 {left}, 0"))
        self.e.store("i32", str(n), self.e.field("%frame", layout.STOPPED_AT))
        self.e.store("i32", self.e.load("i32", "%mask"), self.e.field("%frame", layout.STOPPED))
        self.e.store("i32", str(layout.OUT_OF_BUDGET), "%at")
        self.e.jump("LEAVE")
        self.e.label(after)

    def _go(self, target: int) -> None:
        """All lanes to a block: directly, if nobody waits there or before."""
        if target not in self.meetings:
            self.e.jump(f"B{target}")
            return
        if self.blocks[target].is_barrier:
            self._park_all(target)
            return
        direct = self.e.scalar(f"icmp ugt i32 {self.e.load('i32', '%lowest')}, {target}")
        (wait,) = self.e.fresh("wait")
        self.e.branch(direct, f"B{target}", wait)
        self.e.label(wait)
        self._park_all(target)

    def _park_all(self, target: int) -> None:
        self.e.store("i32", self.e.load("i32", "%mask"), "%parking")
        self.e.store("i32", str(NOWHERE), "%after")
        self.e.jump(f"P{target}")

    def _holding(self, guard: Register) -> tuple[str, str, str]:
        """(the lanes where a predicate holds, the others, all)."""
        holds = self.e.as_mask(self.body.registers.read(guard, "pred"))
        mask = self.e.load("i32", "%mask")
        taken = self.e.scalar(f"and i32 {holds}, {mask}")
        return taken, self.e.scalar(f"xor i32 {taken}, {mask}"), mask

    def _part(self, n: int, guard: Register) -> None:
        """A conditional branch: unanimous, or the lanes of the higher block are parked."""
        e, (yes, no) = self.e, self.blocks[n].successors
        taken, stays, _ = self._holding(guard)
        every, some, none, split = e.fresh("every", "some", "none", "split")
        e.branch(e.scalar(f"icmp eq i32 {stays}, 0"), every, some)
        e.label(every)
        self._go(yes)
        e.label(some)
        e.branch(e.scalar(f"icmp eq i32 {taken}, 0"), none, split)
        e.label(none)
        self._go(no)
        e.label(split)
        (low, first), (high, second) = sorted([(yes, taken), (no, stays)])
        e.store("i32", first, "%mask")
        e.store("i32", second, "%parking")
        e.store("i32", str(n), "%after")
        e.jump(f"P{high}")
        self.splits.setdefault(high, []).append(n)
        e.label(f"S{n}")
        self._go(low)

    def _return(self, n: int, guard: Register | None) -> None:
        e = self.e
        ended = e.field("%frame", layout.ENDED)
        taken, stays, mask = self._holding(guard) if guard else ("", "", e.load("i32", "%mask"))
        gone = taken or mask
        e.store("i32", e.scalar(f"or i32 {e.load('i32', ended)}, {gone}"), ended)
        if guard is None:
            e.jump("SCHEDULE")
            return
        e.store("i32", stays, "%mask")
        (rest,) = e.fresh("rest")
        e.branch(e.scalar(f"icmp eq i32 {stays}, 0"), "SCHEDULE", rest)
        e.label(rest)
        self._go(self.blocks[n].successors[0])

    # ---------------------------------------------------------------------------------------- parking
    def _parked(self, n: int | str, *, at_barrier: bool = False) -> str:
        """A pointer to the lanes parked at a block."""
        masks = layout.PARKED + (4 * len(self.blocks) if at_barrier else 0)
        return self.e.scalar(f"getelementptr i32, ptr {self.e.field('%frame', masks)}, i32 {n}")

    def _park(self, n: int) -> None:
        e = self.e
        e.label(f"P{n}")
        lanes = e.load("i32", "%parking")
        for name in sorted(self.live[n]):
            self._save(name, lanes)
        there = self._parked(n, at_barrier=self.blocks[n].is_barrier)
        e.store("i32", e.scalar(f"or i32 {e.load('i32', there)}, {lanes}"), there)
        if self.blocks[n].is_barrier:
            at = e.load("i32", "%at")
            none, same = (e.scalar(f"icmp eq i32 {at}, {other}") for other in (layout.DONE, n))
            agrees = e.scalar(f"or i1 {none}, {same}")
            e.store("i32", e.scalar(f"select i1 {agrees}, i32 {n}, i32 {layout.DISAGREE}"), "%at")
        else:
            e.declare("i32 @llvm.umin.i32(i32, i32)")
            first = e.scalar(f"call i32 @llvm.umin.i32(i32 {e.load('i32', '%lowest')}, i32 {n})")
            e.store("i32", first, "%lowest")
        cases = " ".join(f"i32 {b}, label %S{b}" for b in self.splits.get(n, ()))
        e.line(f"switch i32 {e.load('i32', '%after')}, label %SCHEDULE [ {cases} ]")

    def _save(self, name: str, lanes: str) -> None:
        """The lanes of a register, into the frame."""
        e, value, at = self.e, self.body.registers.get(name), self.e.field("%frame", self.offsets[name])
        if value.type == "i1":
            old, new = e.load("i32", at), e.as_mask(value)
            changed = e.scalar(f"and i32 {e.scalar(f'xor i32 {old}, {new}')}, {lanes}")
            e.store("i32", e.scalar(f"xor i32 {old}, {changed}"), at)
            return
        whole = value.whole
        function = f"@llvm.masked.store.v{LANES}{'i' if value.type[0] == 'i' else 'f'}{value.bits}.p0"
        e.declare(f"void {function}({whole}, ptr, i32, {vector('i1')})")
        mask = e.from_mask(lanes)
        e.line(f"call void {function}({whole} {value.text}, ptr {at}, i32 64, {mask.whole} {mask.text})")

    def _resume(self, n: int) -> None:
        """Take up the lanes parked at a block."""
        e = self.e
        e.label(f"L{n}")
        for name in sorted(self.live[n]):
            at, type_ = e.field("%frame", self.offsets[name]), self.body.registers.stored(name)
            value = e.from_mask(e.load("i32", at)) if type_ == "i1" else Vector(e.load(vector(type_), at, 64), type_)
            self.body.registers.put(name, value)
        e.jump(f"B{n}")

    def _schedule(self) -> None:
        """The lowest parked block runs next; with none, the warp waits at a barrier or is done."""
        e, count = self.e, len(self.blocks)
        e.label("SCHEDULE")
        n = e.load("i32", "%lowest")
        e.branch(e.scalar(f"icmp eq i32 {n}, {count}"), "LEAVE", "TAKE")
        e.label("TAKE")
        lanes = self._parked(n)
        e.store("i32", e.load("i32", lanes), "%mask")
        e.store("i32", "0", lanes)
        e.jump("SEARCH")
        e.label("SEARCH")
        e.line(f"%seen = phi i32 [ {n}, %TAKE ], [ %next, %LOOK ]")
        e.line("%next = add i32 %seen, 1")
        e.branch(e.scalar(f"icmp eq i32 %next, {count}"), "FOUND", "LOOK")
        e.label("LOOK")
        here = e.load("i32", self._parked("%next"))
        e.branch(e.scalar(f"icmp ne i32 {here}, 0"), "FOUND", "SEARCH")
        e.label("FOUND")
        e.store("i32", "%next", "%lowest")
        self._switch(n)

    def _switch(self, n: str) -> None:
        cases = " ".join(f"i32 {k}, label %L{k}" for k in self._entries())
        self.e.line(f"switch i32 {n}, label %LEAVE [ {cases} ]")

    # ---------------------------------------------------------------------------------------- in and out
    def _leave(self) -> None:
        e = self.e
        e.label("LEAVE")
        left, fuel = e.load("i64", "%fuel"), e.field("%frame", layout.FUEL)
        spent = e.scalar(f"sub i64 {e.load('i64', fuel)}, {left}")
        e.store("i64", left, fuel)
        total = e.field("%state", 8 * runtime.INSTRUCTIONS)
        e.store("i64", e.scalar(f"add i64 {e.load('i64', total)}, {spent}"), total)
        e.line(f"ret i32 {e.load('i32', '%at')}")

    def begin(self) -> list[str]:
        """The first lines: %resume is the barrier that lanes waited at, or negative at the start."""
        e, body = self.e, self.body
        written, e.lines = e.lines, []
        for name, type_ in VARIABLES.items():
            e.line(f"%{name} = alloca {type_}")
        for scratch in SCRATCH:
            e.line(f"{scratch} = alloca {vector('i64')}, align 64")
        e.line(f"%right = alloca [{MOST_TOGETHER} x i32]")
        e.lines += body.registers.allocate()
        e.line(f"%shared = load ptr, ptr {e.field('%state', 8 * runtime.SHARED)}")
        e.store("i64", e.load("i64", e.field("%frame", layout.FUEL)), "%fuel")
        e.store("i32", str(len(self.blocks)), "%lowest")
        e.store("i32", str(layout.DONE), "%at")
        e.store("i32", "0", "%parking")
        e.store("i32", str(NOWHERE), "%after")
        e.store("i32", body.existing(), "%mask")
        e.branch(e.scalar("icmp slt i32 %resume, 0"), "B0", "BARRIER")
        e.label("BARRIER")
        lanes = self._parked("%resume", at_barrier=True)
        e.store("i32", e.load("i32", lanes), "%mask")
        e.store("i32", "0", lanes)
        self._switch(e.scalar("add i32 %resume, 1"))
        begun, e.lines = e.lines, written
        return begun


def _live_before(block: Block, after: set[str]) -> set[str]:
    """The registers that a block or what follows it reads."""
    live = set(after)
    for i in reversed(block.instructions):
        live = (live - set(defined(i))) | set(used(i))
    return live
