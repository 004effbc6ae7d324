"""An implementation: a `.cu` file and the TOML beside it, which says whose algorithm it claims to be and how to launch.

The TOML holds names and numbers, never expressions: sizes are named quantities of the problem or build constants.
docs/kernels.md describes the format; the project's own kernels in cuda/ are its examples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ioaware import tables
from ioaware.algorithms import Algorithm, find
from ioaware.errors import InputError, refuse, unknown
from ioaware.problem import AttentionProblem

Quantity: TypeAlias = str | int  # the name of a size, or a number

SIZES = ("batch", "heads", "kv_heads", "group", "q_len", "kv_len", "head_dim", "q_tiles", "kv_tiles")
NUMBERS = (*SIZES, "causal", "scale")  # what a parameter may be, besides a tensor
MASKS = ("full", "causal")
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda")


class Passes(NamedTuple):
    """How often each element of a region is read and written, where threads work on it one by one.

    Elements: those loaded into it; of a region that holds no tensor its own, in every thread block.
    """

    read: Quantity
    write: Quantity


@dataclass(frozen=True)
class SharedRegion:
    """A part of dynamic shared memory: rows x (columns + pad) floats. `holds`: the tensor that is loaded into it."""

    name: str
    rows: Quantity
    columns: Quantity
    pad: int = 0
    holds: str = ""
    passes: Passes | None = None


@dataclass(frozen=True)
class Dot:
    """A matrix product of the program: the regions its operands are read from ("" for registers), and by how many
    threads each element is read. `columns`: of the result at a time, if not all; the left operand is read for each."""

    operands: tuple[str, str]
    read_by: tuple[Quantity, Quantity]
    columns: Quantity | None = None


@dataclass(frozen=True)
class KernelLaunch:
    """One kernel launch: `kernel` is the program's name for it, `entry` the function's name in CUDA."""

    entry: str
    kernel: str
    grid: tuple[Quantity, ...]
    block: tuple[Quantity, ...]
    parameters: tuple[str, ...]
    shared: tuple[SharedRegion, ...] = ()
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Implementation:
    """A CUDA file that claims to be an algorithm of the simulator."""

    path: str  # of the .cu file
    title: str
    algorithm: Algorithm
    direction: str
    masks: tuple[str, ...]
    builds: tuple[dict[str, int], ...]
    launches: tuple[KernelLaunch, ...]
    order_dependent: tuple[str, ...] = ()  # outputs whose last bits depend on the order of thread blocks
    packs_group: bool = False  # the query heads of a group are rows of one tile

    @property
    def file(self) -> str:
        """The name of the .cu file."""
        return tables.file_name(self.path)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.removesuffix(".cu")

    @property
    def is_own(self) -> bool:
        """Whether it is one of the project's kernels, whose PTX is checked in."""
        return os.path.dirname(os.path.abspath(self.path)) == HERE

    @property
    def source(self) -> str:
        """The CUDA text."""
        with open(self.path, encoding="utf-8") as file:
            return file.read()

    def build_for(self, problem: AttentionProblem) -> dict[str, int]:
        """The constants of the smallest build that holds the problem. Raises InputError: not a problem it solves."""
        if problem.dtype != "fp32":
            raise refuse("dtype", problem.dtype, f"{self.name} computes in fp32", "fp32")
        if not isinstance(problem.q_len, int):
            raise InputError(f"{self.name} takes sequences of one length, not {len(problem.q_len)} different ones")
        if str(problem.band) not in self.masks or problem.padding or problem.dropout:
            extras = " with key padding" * problem.padding + " with dropout" * (problem.dropout > 0)
            raise InputError(f"{self.name} has the masks {' and '.join(self.masks)}, not {problem.band}{extras}")
        if problem.value_dim != problem.head_dim:
            raise refuse("value_dim", problem.value_dim, f"{self.name} has as many as head_dim", problem.head_dim)
        for build in sorted(self.builds, key=lambda b: b["HEAD_DIM"]):
            if build["HEAD_DIM"] >= problem.head_dim:
                self._check_rows(problem, build)
                return build
        largest = max(b["HEAD_DIM"] for b in self.builds)
        raise refuse("head_dim", problem.head_dim, f"{self.name} is built for at most {largest}", largest)

    def solves(self, problem: AttentionProblem) -> bool:
        """Whether it can take a problem at all."""
        try:
            self.build_for(problem)
        except InputError:
            return False
        return True

    def _check_rows(self, problem: AttentionProblem, build: dict[str, int]) -> None:
        rows = problem.group * int(problem.q_len)  # type: ignore[arg-type]
        if self.packs_group and rows > build["TILE_Q"]:
            most = max(build["TILE_Q"] // problem.group, 1)
            rule = f"{self.name} packs group x q_len = {rows:,} rows into one tile of {build['TILE_Q']}"
            raise refuse("q_len", problem.q_len, rule, most)


# ------------------------------------------------------------------------------------------------ sizes
def sizes(problem: AttentionProblem, build: Mapping[str, int]) -> dict[str, int]:
    """Every quantity that a TOML may name: the problem's sizes and the build's constants."""
    (q_len, kv_len), *_ = problem.sequences
    of_problem = {
        "batch": problem.batch, "heads": problem.heads, "kv_heads": problem.kv_heads or 1, "group": problem.group,
        "q_len": q_len, "kv_len": kv_len, "head_dim": problem.head_dim, "causal": int(str(problem.band) == "causal"),
        "q_tiles": -(-q_len // build["TILE_Q"]), "kv_tiles": -(-kv_len // build["TILE_KV"]),
    }  # fmt: skip
    return {**of_problem, **build}


def value(quantity: Quantity, named: Mapping[str, int]) -> int:
    """The number that a quantity stands for."""
    return quantity if isinstance(quantity, int) else named[quantity]


def region_bytes(region: SharedRegion, named: Mapping[str, int]) -> int:
    """Bytes of a region of shared memory."""
    return 4 * value(region.rows, named) * (value(region.columns, named) + region.pad)


# ------------------------------------------------------------------------------------------------ reading
def names(folder: str = HERE) -> list[str]:
    """The kernels of a folder, the project's own if none is given."""
    return tables.names(folder)


def load(name_or_path: str) -> Implementation:
    """The implementation of that name, or of a `.cu` file with its TOML beside it. Raises InputError."""
    if name_or_path in names():
        return read(os.path.join(HERE, f"{name_or_path}.cu"))
    if not name_or_path.endswith(".cu"):
        raise unknown("kernel", name_or_path, names(), f"known: {', '.join(names())}, or the path of a .cu file")
    return read(name_or_path)


def read(path: str) -> Implementation:
    """The implementation in a `.cu` file; a changed copy of a project kernel needs no TOML. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"kernel file {path!r}: no such file; write it, or take its table away")
    toml = path.removesuffix(".cu") + ".toml"
    own = os.path.join(HERE, os.path.basename(toml))
    if not os.path.isfile(toml) and os.path.isfile(own):
        toml = own  # launched as the original
    if not os.path.isfile(toml):
        raise InputError(f"kernel file {path!r}: {toml!r} must say how to launch it; docs/kernels.md has the format")
    return _Reader(toml).implementation(path)


class _Reader:
    """Reads one TOML strictly: every key is known, every name stands for something."""

    def __init__(self, toml: str) -> None:
        self.file, self.data = tables.file_name(toml), tables.read(toml, "kernel")
        self.constants: set[str] = set()

    def implementation(self, path: str) -> Implementation:
        """The whole file."""
        known = ("title", "algorithm", "direction", "masks", "build", "launch", "order_dependent", "packs_group")
        data = self._table(self.data, "", known, needed=("algorithm", "build", "launch"))
        builds = tuple(self._build(b, n) for n, b in enumerate(data["build"]))
        self.constants = set(builds[0])
        direction = data.get("direction", "fwd")
        if direction not in ("fwd", "bwd"):
            raise unknown(f"{self.file}: direction", direction, ("fwd", "bwd"), "known: fwd, bwd")
        algorithm = find(data["algorithm"])
        algorithm.text(direction)
        return Implementation(
            path, data.get("title", ""), algorithm, direction, self._masks(data.get("masks", ["full"])), builds,
            tuple(self._launch(x, f"launch {n + 1}: ") for n, x in enumerate(data["launch"])),
            tuple(data.get("order_dependent", ())), bool(data.get("packs_group", False)),
        )  # fmt: skip

    def _table(self, table: Any, where: str, known: tuple[str, ...], needed: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise InputError(f"{self.file}: {where}a table is expected, this is {table!r}")
        for key in table:
            if key not in known:
                raise unknown(f"{self.file}: {where}key", key, known, f"known: {', '.join(known)}")
        for key in needed:
            if key not in table:
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        return table

    def _masks(self, masks: list[str]) -> tuple[str, ...]:
        for mask in masks:
            if mask not in MASKS:
                raise unknown(f"{self.file}: mask", mask, MASKS, f"known: {', '.join(MASKS)}")
        return tuple(masks)

    def _build(self, build: dict[str, Any], n: int) -> dict[str, int]:
        where = f"build {n + 1}: "
        for key in ("HEAD_DIM", "TILE_Q", "TILE_KV"):
            if key not in build:
                raise InputError(f"{self.file}: {where}{key!r} is missing")
        for key, constant in build.items():
            if isinstance(constant, bool) or not isinstance(constant, int) or constant < 1:
                raise refuse(f"{self.file}: {where}{key}", constant, "must be a positive integer", 1)
        return build

    def _launch(self, launch: dict[str, Any], where: str) -> KernelLaunch:
        known = ("entry", "kernel", "grid", "block", "parameters", "shared", "dots")
        data = self._table(launch, where, known, needed=known[:5])
        shared = tuple(self._region(r, f"{where}shared: ") for r in data.get("shared", ()))
        return KernelLaunch(
            data["entry"], data["kernel"],
            self._quantities(data["grid"], f"{where}grid: "), self._quantities(data["block"], f"{where}block: "),
            tuple(data["parameters"]), shared,
            tuple(self._dot(d, f"{where}dots: ", {r.name for r in shared}) for d in data.get("dots", ())),
        )  # fmt: skip

    def _quantities(self, values: list[Quantity], where: str) -> tuple[Quantity, ...]:
        if not 1 <= len(values) <= 3:
            raise refuse(f"{self.file}: {where}extents", len(values), "a grid or block has one to three", 3)
        return tuple(self._quantity(v, where) for v in values)

    def _quantity(self, quantity: Quantity, where: str) -> Quantity:
        if isinstance(quantity, str) and quantity not in (*SIZES, *self.constants):
            raise unknown(f"{self.file}: {where}size", quantity, (*SIZES, *self.constants), "a size or build constant")
        return quantity

    def _region(self, region: dict[str, Any], where: str) -> SharedRegion:
        known = ("name", "rows", "columns", "pad", "holds", "passes")
        data = self._table(region, where, known, needed=known[:3])
        passes = (
            Passes(**self._table(data["passes"], where, Passes._fields, Passes._fields)) if "passes" in data else None
        )
        return SharedRegion(
            data["name"], self._quantity(data["rows"], where), self._quantity(data["columns"], where),
            int(data.get("pad", 0)), data.get("holds", ""), passes,
        )  # fmt: skip

    def _dot(self, dot: dict[str, Any], where: str, regions: set[str]) -> Dot:
        data = self._table(dot, where, ("operands", "read_by", "columns"), ("operands", "read_by"))
        for name in data["operands"]:
            if name and name not in regions:
                raise unknown(f"{self.file}: {where}region", name, regions, f"known: {', '.join(sorted(regions))}")
        left, right = (self._quantity(q, where) for q in data["read_by"])
        columns = self._quantity(data["columns"], where) if "columns" in data else None
        return Dot(tuple(data["operands"]), (left, right), columns)
