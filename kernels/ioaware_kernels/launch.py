"""`launch()`: one call for every engine. A kernel is PTX; `grid` runs it on the CPU, `cuda` loads the same PTX.

    module = Module(ptx)  # the text of golden/flash2_d64.ptx, or what nvrtc.compile gives
    launch(module, "flash2", grid=(4, 8, 1), block=(128,), arguments=[Q, K, V, O, L, 128, 128, 64, 1, 0.125],
           shared_bytes=29_184)

Arguments are Tensors, ints and floats, in the order of the kernel's parameters; a Tensor becomes what the parameter
takes: a pointer, or the struct of pointer and three strides that the project's kernels call View.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from ioaware.errors import InputError, refuse, unknown

from .ptx import grid as grid_engine
from .ptx.context import Options
from .ptx.global_memory import SHIFT
from .ptx.parse import Kernel, Param, parse
from .ptx.shared_memory import Region
from .tensors import Tensor

Argument: TypeAlias = Tensor | int | float
Result = grid_engine.Result
VIEW = struct.Struct("<Qqqq")  # data, strides of batch, head and row in elements
_FORMATS: dict[tuple[str, type], str] = {
    **{(name, int): "" for name in ("u32", "s32", "b32", "u64", "s64", "b64")},  # packed by their size
    **{("f32", number): "<f" for number in (int, float)}, **{("f64", number): "<d" for number in (int, float)},
}  # fmt: skip
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65_535, 65_535)
MOST_SHARED_BYTES = 227 * 1024  # of a thread block: compute capability 9.0 and 10.0, the most there is


@dataclass(frozen=True, eq=False)
class Module:
    """PTX text and the kernels in it; `source` and `options` are what it was compiled from."""

    ptx: str
    source: str = ""
    options: tuple[str, ...] = ()

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        """The parsed kernels."""
        return parse(self.ptx)

    def kernel(self, entry: str) -> Kernel:
        """The kernel of that name. Raises InputError with the nearest name."""
        if entry not in self.kernels:
            raise unknown("entry", entry, self.kernels, f"in the PTX: {', '.join(self.kernels)}")
        return self.kernels[entry]


class Plan(NamedTuple):
    """A launch, checked and ready for an engine."""

    module: Module
    kernel: Kernel
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    shared_bytes: int  # dynamic
    regions: tuple[Region, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, each once."""
        return list(dict.fromkeys(a for a in self.arguments if isinstance(a, Tensor)))

    def parameters(self, address: Callable[[Tensor], int]) -> dict[str, bytes]:
        """The bytes of every parameter, given where an engine has put the tensors."""
        return {p.name: _pack(p, a, address) for p, a in zip(self.kernel.params, self.arguments, strict=True)}


class Engine(Protocol):
    """Something that runs a launch and changes the tensors' memory; counts and findings are the CPU's."""

    @property
    def name(self) -> str: ...

    @property
    def opposite(self) -> Engine:
        """The same with thread blocks in the opposite order, where it chooses one; it judges no races."""

    def __call__(self, plan: Plan) -> Result | None: ...


@dataclass(frozen=True)
class GridEngine:
    """The PTX executor on the CPU: counts every access, bounds it, and with `options.races` judges it."""

    options: Options = field(default_factory=Options)
    name: ClassVar[str] = "grid"

    @property
    def opposite(self) -> GridEngine:
        """Thread blocks in the opposite order, unwatched."""
        return GridEngine(Options(reverse=not self.options.reverse))

    def __call__(self, plan: Plan) -> Result:
        """Run; the tensors' memory is changed in place."""
        tensors = plan.tensors
        params = plan.parameters(lambda t: (tensors.index(t) + 1) << SHIFT)
        result = grid_engine.launch(
            plan.kernel, plan.grid, plan.block, params, [t.buffer for t in tensors], plan.shared_bytes, plan.regions,
            self.options,
        )  # fmt: skip
        for tensor in tensors if not self.options.races else ():  # else the shadow has seen what is written
            tensor.note_written()
        return result


def launch(
    module: Module,
    entry: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Argument],
    shared_bytes: int = 0,
    regions: Sequence[Region] = (),
    engine: Engine | None = None,
) -> Result | None:
    """Launch a kernel. Returns counts and findings (engine `grid`, the default) or None (`cuda`).

    grid, block    up to three extents each
    shared_bytes   dynamic shared memory per thread block; `regions` name its parts, by byte offset
    Raises InputError: unknown entry, wrong number or kind of arguments, more than 1,024 threads in a block,
    or more shared memory than any GPU has.
    """
    return (engine or GridEngine())(plan(module, entry, grid, block, arguments, shared_bytes, regions))


def plan(
    module: Module,
    entry: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Argument],
    shared_bytes: int = 0,
    regions: Sequence[Region] = (),
) -> Plan:
    """Check a launch. Raises InputError as `launch` does."""
    kernel = module.kernel(entry)
    if len(arguments) != len(kernel.params):
        raise refuse(f"{entry}: arguments", len(arguments), "one for each parameter", len(kernel.params))
    for n, (param, argument) in enumerate(zip(kernel.params, arguments, strict=True)):
        _check(entry, n, param, argument)
    blocks = _extents(f"{entry}: grid", grid, MOST_BLOCKS)
    each = _extents(f"{entry}: block", block, (MOST_THREADS, MOST_THREADS, 64))
    threads = prod(each)
    if threads > MOST_THREADS:
        raise refuse(f"{entry}: threads per block", threads, "CUDA runs at most 1,024", MOST_THREADS)
    total = shared_bytes + kernel.static_shared_bytes
    if total > MOST_SHARED_BYTES:
        rule = "no GPU gives a thread block more, so a smaller head_dim, kv_len or tile is needed"
        raise refuse(f"{entry}: bytes of shared memory", total, rule, MOST_SHARED_BYTES)
    return Plan(module, kernel, blocks, each, tuple(arguments), shared_bytes, tuple(regions))


def _extents(name: str, given: Sequence[int], most: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*given, 1, 1, 1)[:3]
    if len(given) > 3 or min(x, y, z) < 1:
        raise InputError(f"{name}={tuple(given)}: one to three positive extents are needed, like (4, 1, 1)")
    for axis, extent, limit in zip("xyz", (x, y, z), most, strict=True):
        if extent > limit:
            raise refuse(f"{name}, {axis}", extent, f"CUDA takes at most {limit:,} there", limit)
    return x, y, z


def _check(entry: str, n: int, param: Param, argument: Argument) -> None:
    takes_tensor = (param.type, param.size) in (("b8", VIEW.size), ("u64", 8), ("b64", 8))
    fine = takes_tensor if isinstance(argument, Tensor) else (param.type, type(argument)) in _FORMATS
    if not fine:
        given = f"tensor {argument.name}" if isinstance(argument, Tensor) else repr(argument)
        raise InputError(f"{entry}: parameter {n + 1} is {param.type}, {param.size} bytes; {given} does not fit there")
    if isinstance(argument, int) and not param.type.startswith("f"):
        half = 1 << 8 * param.size - 1  # the type u32 is int's too
        if not -half <= argument < 2 * half:
            nearest = 2 * half - 1 if argument > 0 else -half
            raise refuse(f"{entry}: parameter {n + 1}", argument, f"it has {param.size} bytes", nearest)


def _pack(param: Param, argument: Argument, address: Callable[[Tensor], int]) -> bytes:
    if isinstance(argument, float) or param.type.startswith("f"):
        assert not isinstance(argument, Tensor)
        return struct.pack(_FORMATS[param.type, type(argument)], argument)
    if isinstance(argument, int):
        return (argument % (1 << 8 * param.size)).to_bytes(param.size, "little")
    first = address(argument) + argument.itemsize * argument.at.first
    if param.size == 8:
        return struct.pack("<Q", first)
    return VIEW.pack(first, argument.at.batch, argument.at.head, argument.at.row)
