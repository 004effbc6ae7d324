"""What the simulator predicts for an implementation: bytes per launch, of every tensor and every shared region.

Tensors: the program's own counts. Shared regions: whole tiles (readers/padded.py); what the TOML adds is only which
region holds which operand, and how many threads read each of its elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

from ioaware.dtypes import ITEMSIZE
from ioaware.problem import AttentionProblem
from ioaware.readers.count import count_kernels
from ioaware.readers.padded import Padded, Padding, padded
from ioaware.traffic import Moved, Traffic

from .implementation import Implementation, KernelLaunch, Passes, SharedRegion, sizes, value
from .run import program_of, tiles_of


class Prediction(NamedTuple):
    """Bytes of one launch."""

    tensors: Traffic
    shared: Traffic


def predict(implementation: Implementation, problem: AttentionProblem) -> list[Prediction]:
    """The prediction of every launch, in order."""
    build = implementation.build_for(problem)
    program, tiles, named = program_of(implementation, problem), tiles_of(build), sizes(problem, build)
    of_tensors = count_kernels(program, problem, tiles)
    rows = Padding(build["TILE_Q"], build.get("KEYS", build["TILE_KV"]), build["HEAD_DIM"])
    whole = padded(program, _packed(problem) if implementation.packs_group else problem, tiles, rows)
    out = []
    for launch in implementation.launches:
        issued, tiled = of_tensors[launch.kernel], whole.get(launch.kernel, Padded({}, []))
        out.append(Prediction(issued, _Shared(launch, tiled, issued, named, ITEMSIZE[problem.dtype]).traffic()))
    return out


def _packed(problem: AttentionProblem) -> AttentionProblem:
    """The query heads of a group as rows of one head."""
    (q_len, kv_len), *_ = problem.sequences
    return replace(problem, q_len=q_len * problem.group, kv_len=kv_len, heads=problem.kv_heads or 1)


class _Shared(NamedTuple):
    """The shared memory of one launch."""

    launch: KernelLaunch
    whole: Padded
    issued: Traffic
    named: Mapping[str, int]
    itemsize: int  # bytes of an element

    def traffic(self) -> Traffic:
        """Bytes of every region whose use the TOML tells."""
        return Traffic(
            {
                region.name: self._element_by_element(region, region.passes) if region.passes else self._staged(region)
                for region in self.launch.shared
                if region.passes or region.reads or any(region.name in dot.operands for dot in self.launch.dots)
            }
        )

    def _element_by_element(self, region: SharedRegion, passes: Passes) -> Moved:
        """Per loaded element; per element and thread block if nothing is loaded into the region."""
        if region.holds:
            moved = self.issued[region.holds].read
        else:
            blocks = prod(value(n, self.named) for n in self.launch.grid)
            moved = blocks * value(region.rows, self.named) * value(region.columns, self.named) * self.itemsize
        return Moved(moved * value(passes.read, self.named), moved * value(passes.write, self.named))

    def _staged(self, region: SharedRegion) -> Moved:
        """A tile is written once per load, or once where it is computed; the matrix products read it."""
        loaded = self.whole.loads[region.holds] if region.holds else 0
        read, first_use = loaded * value(region.reads or 0, self.named), 0
        for dot, product in zip(self.launch.dots, self.whole.dots, strict=True):
            left = product.multiply_adds // value(dot.columns, self.named) if dot.columns else product.left
            for operand, threads, elements in zip(dot.operands, dot.read_by, (left, product.right), strict=True):
                if operand == region.name:
                    read += elements * value(threads, self.named)
                    first_use = first_use or elements
        return Moved(read * self.itemsize, (loaded if region.holds else first_use) * self.itemsize)
