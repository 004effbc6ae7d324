"""What the code of a warp is written with: the text, the registers, the lanes that take part, calls of `runtime`."""

from __future__ import annotations

from ..analyse import defined
from ..parse import Immediate, Instruction, Kernel
from ..slots import integer
from . import layout, runtime
from .emit import RARE, Emitter, Vector
from .place import Place
from .registers import Registers
from .sites import Site, sites_of

SCRATCH = ("%addresses", "%first", "%second", "%old")  # on the stack: an i64 per lane


class Body:
    """The function of a warp under construction; `guard` is the predicate of the instruction being written."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.e = kernel, Emitter()
        self.registers = Registers(kernel, self.e)
        self.guard: Vector | None = None
        self.functions: dict[str, str] = {}  # what the function of a warp calls, by name
        self.places: dict[Site, Place] = {}  # of accesses that another one has checked
        self.sites = sites_of(kernel)
        self._first_site = layout.sites_slot(kernel)
        self.literal_in = _literals(kernel)

    def site_field(self, site: Site, slot: int) -> str:
        """A pointer to a slot of a site."""
        return self.e.field("%state", 8 * (self._first_site + runtime.SITE * site.number + slot))

    # ---------------------------------------------------------------------------------------- lanes
    def mask(self) -> str:
        """The lanes that execute this instruction."""
        mask = self.e.load("i32", "%mask")
        return mask if self.guard is None else self.e.scalar(f"and i32 {mask}, {self.e.as_mask(self.guard)}")

    def existing(self) -> str:
        """The lanes that are threads of the thread block."""
        return self.e.load("i32", self.e.field("%frame", layout.EXISTING))

    def elsewhere(self, mask: str) -> str:
        """The lanes that have not ended, but do not take part."""
        ended = self.e.load("i32", self.e.field("%frame", layout.ENDED))
        gone = self.e.scalar(f"or i32 {ended}, {mask}")
        there = self.existing()
        return self.e.scalar(f"and i32 {there}, {self.e.scalar(f'xor i32 {gone}, -1')}")

    def when(self, condition: str, *, rare: bool = True) -> str:
        """Begin code that runs only on a condition; `self.e.label` of the result ends it."""
        inside, after = self.e.fresh("when", "after")
        self.e.branch(condition, inside, after, RARE if rare else "")
        self.e.label(inside)
        return after

    def end(self, after: str) -> None:
        """End what `when` began."""
        self.e.jump(after)
        self.e.label(after)

    # ---------------------------------------------------------------------------------------- runtime
    def call_runtime(self, name: str, *arguments: tuple[str, str]) -> None:
        """Call a function of `runtime` with (state, warp, *arguments)."""
        at = self.e.field("%state", 8 * (runtime.FUNCTIONS_AT + list(runtime.FUNCTIONS).index(name)))
        function = self.e.load("ptr", at)
        warp = self.e.load("i64", self.e.field("%frame", layout.WARP))
        self.e.call(function, ("ptr", "%state"), ("i64", warp), *arguments)

    def report(self, i: Instruction, lanes: str) -> None:
        """INACTIVE_LANE of these lanes, if there are any."""
        after = self.when(self.e.scalar(f"icmp ne i32 {lanes}, 0"))
        self.call_runtime("report", ("i64", str(self.sites.event(i))), ("i32", lanes))
        self.end(after)


def _literals(kernel: Kernel) -> dict[str, int]:
    """The registers that only ever get one integer."""
    definitions: dict[str, list[Instruction]] = {}
    for i in kernel.instructions():
        for name in defined(i):
            definitions.setdefault(name, []).append(i)
    moves = {name: i for name, (i, *others) in definitions.items() if not others and i.base == "mov" and not i.guard}
    literals = {name: i.operands[1] for name, i in moves.items() if i.parts[-1][0] in "bsu"}
    numbers = {name: o.text for name, o in literals.items() if isinstance(o, Immediate)}
    return {name: integer(text) for name, text in numbers.items() if text[1:2].lower() not in ("f", "d")}
