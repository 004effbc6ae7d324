"""Run an implementation on a problem: place the tensors, launch kernel after kernel, read the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from ioaware.dtypes import ITEMSIZE
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program, record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.walk import Walk
from ioaware.traffic import Traffic

from .implementation import Implementation, KernelLaunch, region_bytes, sizes, value
from .launch import Argument, Engine, GridEngine, Module, Plan, plan
from .ptx.count import Counts
from .ptx.findings import Finding
from .ptx.shared_memory import Region
from .tensors import Array, Layout, Shape, Tensor, packed, unpacked


@dataclass(frozen=True)
class Launched:
    """One launch: what was counted per tensor and shared region, and what was found."""

    kernel: str
    counts: Counts
    tensors: Traffic
    shared: Traffic
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Run:
    """All launches of an implementation; outputs are (batch, heads, rows, columns) fp32."""

    outputs: dict[str, Array]
    tensors: dict[str, Tensor]
    launches: tuple[Launched, ...]  # empty on a GPU

    @property
    def findings(self) -> list[Finding]:
        """Everything found wrong."""
        return [f for launched in self.launches for f in launched.findings]


def program_of(implementation: Implementation, problem: AttentionProblem) -> Program:
    """The simulator's program that the implementation claims to be."""
    return record(implementation.algorithm.text(implementation.direction), problem.features)


def tiles_of(build: Mapping[str, int]) -> TileSizes:
    """The tile sizes of a build."""
    return TileSizes(build["TILE_Q"], build["TILE_KV"])


def tensors(
    implementation: Implementation, problem: AttentionProblem, inputs: Mapping[str, Array], layout: Layout = packed
) -> dict[str, Tensor]:
    """Every tensor of the program in memory: inputs filled, outputs and scratch poisoned.

    inputs: packed arrays of the simulator, as `ioaware.reference` gives them; O and L too for a backward pass.
    """
    program, build = program_of(implementation, problem), implementation.build_for(problem)
    walk = Walk(program, problem, tiles_of(build))
    out = {}
    for number, (name, tensor) in enumerate(program.tensors.items()):
        dtype = problem.number_format(tensor.dtype)
        out[name] = Tensor(name, shape_of(walk, tensor, problem), layout, dtype, number)
        if tensor.role == "input":
            out[name].fill(unpacked(problem, inputs[name]))
    return out


def shape_of(walk: Walk, tensor: Any, problem: AttentionProblem) -> Shape:
    """(batch, heads, rows, columns) of a tensor of the program; an axis of one entry per tile multiplies the rows."""
    heads, rows = 1, 1
    *leading, last = tensor.axes
    for axis in leading:
        if axis.name in ("kv_heads", "group"):
            heads *= walk.number(axis.length)
        else:
            rows *= walk.number(axis.length)
    return problem.batch, heads, rows, walk.number(last.length)


def plans(
    implementation: Implementation, module: Module, problem: AttentionProblem, placed: Mapping[str, Tensor]
) -> list[Plan]:
    """The launches, in order. Raises InputError where the TOML and the PTX do not fit together."""
    named = sizes(problem, implementation.build_for(problem))
    return [_plan(launch, module, problem, placed, named) for launch in implementation.launches]


def _plan(
    launch: KernelLaunch, module: Module, problem: AttentionProblem, placed: Mapping[str, Tensor], named: dict[str, int]
) -> Plan:
    regions = shared_layout(launch, named, ITEMSIZE[problem.dtype])
    arguments = [_argument(name, problem, placed, named) for name in launch.parameters]
    grid, block = ([value(q, named) for q in quantities] for quantities in (launch.grid, launch.block))
    return plan(module, launch.entry, grid, block, arguments, regions[-1].stop if regions else 0, regions)


def _argument(name: str, problem: AttentionProblem, placed: Mapping[str, Tensor], named: Mapping[str, int]) -> Argument:
    if name in placed:
        return placed[name]
    if name == "scale":
        return 1 / sqrt(problem.head_dim)
    tensor, dot, stride = name.partition(".")
    return int(getattr(placed[tensor].at, stride)) if dot else named[name]


def shared_layout(launch: KernelLaunch, named: Mapping[str, int], itemsize: int) -> list[Region]:
    """The regions of dynamic shared memory, one after another; `itemsize`: bytes of an element."""
    out: list[Region] = []
    for region in launch.shared:
        start = out[-1].stop if out else 0
        out.append(Region(region.name, start, start + region_bytes(region, named, itemsize)))
    return out


def run(
    implementation: Implementation,
    module: Module,
    problem: AttentionProblem,
    inputs: Mapping[str, Array],
    layout: Layout = packed,
    engine: Engine | None = None,
) -> Run:
    """Run every launch of an implementation on one problem, on the CPU unless an engine is given."""
    engine = engine or GridEngine()
    placed, launched = tensors(implementation, problem, inputs, layout), []
    for launch, ready in zip(implementation.launches, plans(implementation, module, problem, placed), strict=True):
        result = engine(ready)
        if result is not None:
            of_tensors = result.counts.traffic(t.name for t in ready.tensors)
            of_regions = result.counts.traffic([*(r.name for r in ready.regions), "shared"])
            launched.append(Launched(launch.kernel, result.counts, of_tensors, of_regions, tuple(result.findings)))
    program = program_of(implementation, problem)
    outputs = {name: placed[name].values for name, t in program.tensors.items() if t.role == "output"}
    return Run(outputs, placed, tuple(launched))
