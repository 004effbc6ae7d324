"""Reading the TOML beside a `.cu` file, strictly: every key is known, and every name stands for something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ioaware import tables
from ioaware.algorithms import find
from ioaware.errors import InputError, refuse, unknown
from ioaware.program.nodes import Loop, Op
from ioaware.program.recorder import Program, record
from ioaware.readers.algebra import nodes

from .implementation import (
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

KEYS = ("title", "algorithm", "direction", "masks", "build", "launch", "order_dependent", "packs_group", "strided")


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
        algorithm = find(self._text("algorithm", data["algorithm"]))
        self.program = record(algorithm.text(direction))
        builds = tuple(self._build(b, f"build {n}: ") for n, b in enumerate(self._list("build", data["build"]), 1))
        self.sizes = (*SIZES, *(name for name in builds[0] if all(name in b for b in builds)))
        launches = enumerate(self._list("launch", data["launch"]), 1)
        outputs = [t.name for t in self.program.tensors.values() if t.role == "output"]
        return Implementation(
            path, self._text("title", data.get("title", "")), algorithm, direction,
            tuple(self._name("masks", m, MASKS) for m in self._list("masks", data.get("masks", ["full"]))), builds,
            tuple(self._launch(launch, f"launch {n}: ") for n, launch in launches),
            tuple(self._name("order_dependent", n, outputs) for n in data.get("order_dependent", ())),
            self._flag("packs_group", data.get("packs_group", False)), self._flag("strided", data.get("strided", True)),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- parts
    def _build(self, build: Any, where: str) -> dict[str, int]:
        for key in ("HEAD_DIM", "TILE_Q", "TILE_KV"):
            if key not in self._table(build, where):
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        for key, constant in build.items():
            if isinstance(constant, bool) or not isinstance(constant, int) or constant < 1:
                raise refuse(f"{self.file}: {where}{key}", constant, "must be a positive integer", 1)
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
        dots = self._list(f"{where}dots", data.get("dots", []))
        return KernelLaunch(
            self._text(f"{where}entry", data["entry"]), kernel,
            self._extents(f"{where}grid", data["grid"]), self._extents(f"{where}block", data["block"]),
            tuple(self._parameter(p, where) for p in self._list(f"{where}parameters", data["parameters"])), shared,
            self._dots(kernel, dots, where, [r.name for r in shared]),
        )  # fmt: skip

    def _parameter(self, parameter: Any, where: str) -> str:
        strides = [f"{tensor}.{stride}" for tensor in self.program.tensors for stride in STRIDES]
        return self._name(f"{where}parameter", parameter, [*self.program.tensors, *NUMBERS, *self.sizes, *strides])

    def _region(self, region: Any, where: str) -> SharedRegion:
        known = ("name", "rows", "columns", "pad", "holds", "passes")
        data = self._table(region, where, known, needed=known[:3])
        holds = self._name(f"{where}holds", data["holds"], list(self.program.tensors)) if "holds" in data else ""
        passes = None
        if "passes" in data:
            given = self._table(data["passes"], where, Passes._fields, Passes._fields)
            passes = Passes(*(self._quantity(f"{where}passes", given[key]) for key in Passes._fields))
        pad = data.get("pad", 0)
        if isinstance(pad, bool) or not isinstance(pad, int) or pad < 0:
            raise refuse(f"{self.file}: {where}pad", pad, "a number of floats behind each row", 0)
        rows, columns = (self._quantity(f"{where}{key}", data[key]) for key in ("rows", "columns"))
        return SharedRegion(self._text(f"{where}name", data["name"]), rows, columns, pad, holds, passes)

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
            raise InputError(f"{self.file}: {where}{table!r} must be a table, like {{ name = 1 }}")
        for key in table if known else ():
            self._name(f"{where}key", key, known)
        for key in needed:
            if key not in table:
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        return table

    def _name(self, what: str, name: Any, known: Sequence[str]) -> str:
        if name not in known:
            raise unknown(f"{self.file}: {what}", name, known, f"known: {', '.join(filter(None, known))}")
        return str(name)

    def _text(self, what: str, text: Any) -> str:
        if not isinstance(text, str):
            raise InputError(f"{self.file}: {what}={text!r} must be a text, in quotes")
        return text

    def _flag(self, what: str, flag: Any) -> bool:
        if not isinstance(flag, bool):
            raise refuse(f"{self.file}: {what}", flag, "must be true or false", "false")
        return flag

    def _list(self, what: str, values: Any) -> list[Any]:
        if not isinstance(values, list):
            raise InputError(f"{self.file}: {what}={values!r} must be a list, in [ ]")
        return values

    def _extents(self, what: str, values: Any) -> tuple[Quantity, ...]:
        extents = self._list(what, values)
        if not 1 <= len(extents) <= 3:
            raise refuse(f"{self.file}: {what}: extents", len(extents), "one to three", min(max(len(extents), 1), 3))
        return tuple(self._quantity(what, v) for v in extents)

    def _quantity(self, what: str, quantity: Any) -> Quantity:
        """A positive number, or the name of a size or of a constant that every build has."""
        if isinstance(quantity, int) and not isinstance(quantity, bool):
            if quantity < 1:
                raise refuse(f"{self.file}: {what}", quantity, "must be at least 1", 1)
            return quantity
        return self._name(what, quantity, self.sizes)
