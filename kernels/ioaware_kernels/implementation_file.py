"""Reading the TOML beside a `.cu` file, strictly: every key is known, and every name stands for something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ioaware import tables
from ioaware.algorithms import ALGORITHMS, find
from ioaware.errors import InputError, refuse, shown, unknown
from ioaware.program.nodes import Loop, Op
from ioaware.program.recorder import Program, record
from ioaware.readers.algebra import nodes
from ioaware.units import LARGEST

from .implementation import (
    DTYPES,
    MASKS,
    NUMBERS,
    SIZES,
    STRIDES,
    Dot,
    Implementation,
    KernelLaunch,
    Passes,
    Quantity,
    SharedRegion,
)  # fmt: skip

KEYS = (
    "title", "algorithm", "direction", "masks", "dtypes", "aligned", "build", "launch", "order_dependent",
    "packs_group", "strided",
)  # fmt: skip


class Reader:
    """Reads one TOML. Every refusal names the file, the place, the rule and the nearest legal value."""

    def __init__(self, toml: str) -> None:
        self.file, self.data = tables.file_name(toml), tables.read(toml, "kernel")
        self.sizes: tuple[str, ...] = SIZES
        self.program: Program

    def implementation(self, path: str) -> Implementation:
        """The whole file."""
        data = self._table(self.data, "", KEYS, needed=("algorithm", "build", "launch"))
        direction = self._name("direction", data.get("direction", "fwd"), ("fwd", "bwd"))
        algorithm = find(self._name("algorithm", data["algorithm"], [a.name for a in ALGORITHMS]))
        if direction == "bwd" and algorithm.backward is None:
            raise refuse(f"{self.file}: direction", "bwd", f"{algorithm.name} has no backward pass", "fwd")
        self.program = record(algorithm.text(direction))
        tables_of_builds = self._list("build", data["build"], least=1)
        builds = tuple(self._build(b, f"build {n}: ") for n, b in enumerate(tables_of_builds, 1))
        self.sizes = (*SIZES, *(name for name in builds[0] if all(name in b for b in builds)))
        launches = enumerate(self._list("launch", data["launch"], least=1), 1)
        outputs = [t.name for t in self.program.tensors.values() if t.role == "output"]
        return Implementation(
            path, self._text("title", data.get("title", "")), algorithm, direction,
            self._names("masks", data.get("masks", ["full"]), MASKS, least=1), builds,
            tuple(self._launch(launch, f"launch {n}: ") for n, launch in launches),
            self._names("order_dependent", data.get("order_dependent", []), outputs),
            self._flag("packs_group", data.get("packs_group", False)), self._flag("strided", data.get("strided", True)),
            self._names("dtypes", data.get("dtypes", ["fp32"]), DTYPES, least=1),
            self._whole("aligned", data.get("aligned", 1), "a number of elements", least=1),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- parts
    def _build(self, build: Any, where: str) -> dict[str, int]:
        for key in ("HEAD_DIM", "TILE_Q", "TILE_KV"):
            if key not in self._table(build, where):
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        for key, constant in build.items():
            if key in NUMBERS:
                raise InputError(f"{self.file}: {where}{key!r} has a meaning of its own; name the constant otherwise")
            if isinstance(constant, bool) or not isinstance(constant, int) or constant < 1:
                raise refuse(f"{self.file}: {where}{key}", _shown(constant), "must be a positive integer", 1)
            if constant > LARGEST:
                raise refuse(f"{self.file}: {where}{key}", _shown(constant), "at most 10^15", LARGEST)
        constants: dict[str, int] = build
        return constants

    def _launch(self, launch: Any, where: str) -> KernelLaunch:
        known = ("entry", "kernel", "grid", "block", "parameters", "shared", "dots")
        data = self._table(launch, where, known, needed=known[:5])
        kernels = [str(n.kernel) for n in self.program.body if isinstance(n, Loop)]
        kernel = self._name(f"{where}kernel", data["kernel"], kernels)
        shared = tuple(
            self._region(r, f"{where}shared: ") for r in self._list(f"{where}shared", data.get("shared", []))
        )
        twice = [r.name for n, r in enumerate(shared) if r.name in [other.name for other in shared[:n]]]
        if twice:
            raise InputError(f"{self.file}: {where}shared: two regions are named {twice[0]!r}; each has its own name")
        dots = self._list(f"{where}dots", data.get("dots", []))
        return KernelLaunch(
            self._text(f"{where}entry", data["entry"]), kernel,
            self._extents(f"{where}grid", data["grid"]), self._extents(f"{where}block", data["block"]),
            tuple(self._parameter(p, where) for p in self._list(f"{where}parameters", data["parameters"])), shared,
            self._dots(kernel, dots, where, [r.name for r in shared]),
        )  # fmt: skip

    def _parameter(self, parameter: Any, where: str) -> str:
        strides = [f"{tensor}.{stride}" for tensor in self.program.tensors for stride in STRIDES]
        known = dict.fromkeys([*self.program.tensors, *NUMBERS, *self.sizes, *strides])
        return self._name(f"{where}parameter", parameter, list(known))

    def _region(self, region: Any, where: str) -> SharedRegion:
        known = ("name", "rows", "columns", "pad", "holds", "passes", "reads")
        data = self._table(region, where, known, needed=known[:3])
        holds = self._name(f"{where}holds", data["holds"], list(self.program.tensors)) if "holds" in data else ""
        passes = None
        if "passes" in data:
            given = self._table(data["passes"], where, Passes._fields, Passes._fields)
            passes = Passes(*(self._quantity(f"{where}passes", given[key]) for key in Passes._fields))
        pad = self._whole(f"{where}pad", data.get("pad", 0), "a number of elements behind each row", least=0)
        reads = self._quantity(f"{where}reads", data["reads"]) if "reads" in data else None
        if reads and not holds:
            raise InputError(f"{self.file}: {where}reads is of a loaded tensor; {'holds'!r} must name it")
        rows, columns = (self._quantity(f"{where}{key}", data[key]) for key in ("rows", "columns"))
        name = self._text(f"{where}name", data["name"])
        if not name:
            raise InputError(f"{self.file}: {where}name is empty; a region has its own name, like 'sK'")
        if name in ("shared", *self.program.tensors):
            raise InputError(
                f"{self.file}: {where}name={name!r} is taken; a region has a name of its own, like 's{name}'"
            )
        return SharedRegion(name, rows, columns, pad, holds, passes, reads)

    def _dots(self, kernel: str, dots: list[Any], where: str, regions: list[str]) -> tuple[Dot, ...]:
        there = sum(
            isinstance(op, Op) and op.kind == "dot" and loops[0].kernel == kernel
            for op, loops in nodes(self.program.body)
        )
        if dots and len(dots) != there:
            raise refuse(f"{self.file}: {where}dots", len(dots), f"kernel {kernel!r} of the program has {there}", there)
        return tuple(self._dot(d, f"{where}dots: ", regions) for d in dots)

    def _dot(self, dot: Any, where: str, regions: list[str]) -> Dot:
        data = self._table(dot, where, ("operands", "read_by", "columns"), ("operands", "read_by"))
        operands, read_by = (self._list(f"{where}{key}", data[key]) for key in ("operands", "read_by"))
        for name, given in (("operands", operands), ("read_by", read_by)):
            if len(given) != 2:
                raise refuse(f"{self.file}: {where}{name}", len(given), "one for the left, one for the right", 2)
        left, right = (self._name(f"{where}operand", o, ["", *regions]) for o in operands)
        threads = tuple(self._quantity(f"{where}read_by", q) for q in read_by)
        columns = self._quantity(f"{where}columns", data["columns"]) if "columns" in data else None
        return Dot((left, right), (threads[0], threads[1]), columns)

    # ---------------------------------------------------------------------------------------- values
    def _table(
        self, table: Any, where: str, known: tuple[str, ...] = (), needed: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise InputError(f"{self.file}: {where}{_shown(table)} must be a table, like {{ name = 1 }}")
        for key in table if known else ():
            self._name(f"{where}key", key, known)
        for key in needed:
            if key not in table:
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        return table

    def _name(self, what: str, name: Any, known: Sequence[str]) -> str:
        if self._text(what, name) not in known:
            raise unknown(f"{self.file}: {what}", name, known, f"known: {', '.join(filter(None, known))}")
        return str(name)

    def _names(self, what: str, names: Any, known: Sequence[str], least: int = 0) -> tuple[str, ...]:
        return tuple(self._name(what, name, known) for name in self._list(what, names, least))

    def _text(self, what: str, text: Any) -> str:
        if not isinstance(text, str):
            raise InputError(f"{self.file}: {what}={_shown(text)} must be a text, in quotes")
        return text

    def _whole(self, what: str, number: Any, rule: str, least: int) -> int:
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise refuse(f"{self.file}: {what}", _shown(number), rule, least)
        return number

    def _flag(self, what: str, flag: Any) -> bool:
        if not isinstance(flag, bool):
            raise refuse(f"{self.file}: {what}", flag, "must be true or false", "false")
        return flag

    def _list(self, what: str, values: Any, least: int = 0) -> list[Any]:
        if not isinstance(values, list):
            double = what in ("build", "launch") and isinstance(values, dict)
            rule = f"must be written [[{what}]]" if double else "must be a list, in [ ]"
            raise InputError(f"{self.file}: {what}={_shown(values)} {rule}")
        if len(values) < least:
            raise InputError(f"{self.file}: {what} is empty; at least one is needed")
        return values

    def _extents(self, what: str, values: Any) -> tuple[Quantity, ...]:
        extents = self._list(what, values)
        if not 1 <= len(extents) <= 3:
            raise refuse(f"{self.file}: {what}: extents", len(extents), "one to three", min(max(len(extents), 1), 3))
        return tuple(self._quantity(what, v) for v in extents)

    def _quantity(self, what: str, quantity: Any) -> Quantity:
        """A positive number, or the name of a size or of a constant that every build has."""
        if isinstance(quantity, int) and not isinstance(quantity, bool):
            if not 1 <= quantity <= LARGEST:
                nearest = 1 if quantity < 1 else LARGEST
                raise refuse(f"{self.file}: {what}", _shown(quantity), "from 1 to 10^15", nearest)
            return quantity
        if not isinstance(quantity, str):
            raise refuse(
                f"{self.file}: {what}", _shown(quantity), "must be a positive integer or the name of a size", 1
            )
        return self._name(what, quantity, self.sizes)


def _shown(value: object) -> str:
    """A value, cut where it would flood the terminal."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return "a number beyond 10^15"
    return shown(str(value).lower() if isinstance(value, bool) else repr(value))
