"""An implementation: a `.cu` file and the TOML beside it, which says whose algorithm it claims to be and how to launch.

The TOML holds names and numbers, never expressions: sizes are named quantities of the problem or build constants.
docs/kernels.md describes the format; the project's own kernels in cuda/ are its examples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ioaware import tables
from ioaware.algorithms import Algorithm
from ioaware.errors import InputError, refuse, unknown
from ioaware.problem import AttentionProblem

Quantity: TypeAlias = str | int  # the name of a size, or a number

SIZES = ("batch", "heads", "kv_heads", "group", "q_len", "kv_len", "head_dim", "q_tiles", "kv_tiles")
NUMBERS = (*SIZES, "causal", "scale")  # what a parameter may be, besides a tensor
STRIDES = ("batch", "head", "row")
MASKS = ("full", "causal")
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda")


DTYPES = ("fp32", "fp16", "bf16")  # of the tensors, and of the elements in shared memory


class Passes(NamedTuple):
    """How often each element of a region is read and written, where threads work on it one by one.

    Elements: those loaded into it; of a region that holds no tensor its own, in every thread block.
    """

    read: Quantity
    write: Quantity


@dataclass(frozen=True)
class SharedRegion:
    """A part of dynamic shared memory: rows x (columns + pad) elements. `holds`: the tensor that is loaded into it.

    reads: how often each element of a loaded tile is read before it is multiplied: into registers that keep it.
    """

    name: str
    rows: Quantity
    columns: Quantity
    pad: int = 0
    holds: str = ""
    passes: Passes | None = None
    reads: Quantity | None = None


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
    parameters: tuple[str, ...]  # tensors, NUMBERS, or strides in elements like "Q.row"
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
    builds: tuple[dict[str, int], ...]  # each for every dtype
    launches: tuple[KernelLaunch, ...]
    order_dependent: tuple[str, ...] = ()  # outputs whose last bits depend on the order of thread blocks
    packs_group: bool = False  # the query heads of a group are rows of one tile
    strided: bool = True  # takes any strides; else tensors are contiguous (batch, heads, rows, columns)
    dtypes: tuple[str, ...] = ("fp32",)
    aligned: int = 1  # elements: head_dim, strides and first elements are multiples, so that a lane moves a vector

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
        """The CUDA text. Raises InputError where it is not UTF-8."""
        with open(self.path, encoding="utf-8") as file:
            try:
                return file.read()
            except UnicodeDecodeError as e:
                raise InputError(f"kernel file {self.path!r} is not UTF-8: byte {e.start:,}") from None

    def build_for(self, problem: AttentionProblem) -> dict[str, int]:
        """The constants of the smallest build that holds the problem. Raises InputError: not a problem it solves."""
        if problem.dtype not in self.dtypes:
            raise refuse("dtype", problem.dtype, f"{self.name} has only {' and '.join(self.dtypes)}", self.dtypes[0])
        if not isinstance(problem.q_len, int):
            raise InputError(f"{self.name} takes sequences of one length, not {len(problem.q_len)} different ones")
        if problem.value_dim != problem.head_dim:
            raise refuse("value_dim", problem.value_dim, f"{self.name} has as many as head_dim", problem.head_dim)
        largest = max(b["HEAD_DIM"] for b in self.builds)
        if problem.head_dim > largest:
            raise refuse("head_dim", problem.head_dim, f"{self.name} is built for at most {largest}", largest)
        if problem.head_dim % self.aligned:
            whole = -(-problem.head_dim // self.aligned) * self.aligned
            raise refuse("head_dim", problem.head_dim, f"{self.name} takes multiples of {self.aligned}", whole)
        fitting = [b for b in self.builds if b["HEAD_DIM"] >= problem.head_dim]
        build = min(fitting, key=lambda b: b["HEAD_DIM"])
        self._check_mask(problem)
        self._check_rows(problem, build)
        return build

    def solves(self, problem: AttentionProblem) -> bool:
        """Whether it can take a problem at all."""
        try:
            self.build_for(problem)
        except InputError:
            return False
        return True

    def _check_mask(self, problem: AttentionProblem) -> None:
        if not problem.plain:
            raise InputError(
                f"{self.name} computes softmax(Q K^T / sqrt(d)) V; leave scale, soft cap, ALiBi, bias, sinks, packing "
                "and the options of a KV cache out"
            )
        if str(problem.band) not in self.masks or problem.padding or problem.dropout:
            extras = " with key padding" * problem.padding + " with dropout" * (problem.dropout > 0)
            given, rule = f"{problem.band}{extras}", f"{self.name} has only {' and '.join(self.masks)}"
            raise refuse("mask", given, rule, self.masks[0])

    def _check_rows(self, problem: AttentionProblem, build: dict[str, int]) -> None:
        (q_len, _), *_ = problem.sequences
        rows, most = problem.group * q_len, build["TILE_Q"]
        if not self.packs_group or rows <= most:
            return
        rule = f"{self.name} packs group x q_len = {rows:,} rows into one tile of {most}"
        if problem.group <= most:
            raise refuse("q_len", q_len, rule, most // problem.group)
        fitting = (n for n in range(-(-problem.heads // most), problem.heads + 1) if problem.heads % n == 0)
        raise refuse("kv_heads", problem.kv_heads, rule, next(fitting))


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


def region_bytes(region: SharedRegion, named: Mapping[str, int], itemsize: int) -> int:
    """Bytes of a region of shared memory, given those of an element."""
    return itemsize * value(region.rows, named) * (value(region.columns, named) + region.pad)


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
        reason = "this is a folder" if os.path.isdir(path) else "no such file"
        raise InputError(f"kernel file {path!r}: {reason}; a .cu file is needed")
    toml = path.removesuffix(".cu") + ".toml"
    own = os.path.join(HERE, os.path.basename(toml))
    if not os.path.isfile(toml) and os.path.isfile(own):
        toml = own  # launched as the original
    if not os.path.isfile(toml):
        raise InputError(f"kernel file {path!r}: {toml!r} must say how to launch it; docs/kernels.md has the format")
    from .implementation_file import Reader

    return Reader(toml).implementation(path)
