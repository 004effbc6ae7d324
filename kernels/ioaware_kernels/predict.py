"""What the simulator predicts for an implementation: bytes per launch, of every tensor and every shared region.

Tensors: the program's own counts. Shared regions: whole tiles (readers/padded.py); what the TOML adds is only which
region holds which operand, and how many threads read each of its elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

from ioaware.problem import AttentionProblem
from ioaware.readers.count import count_kernels
from ioaware.readers.padded import Padded, Padding, padded
from ioaware.traffic import Moved, Traffic

from .implementation import Implementation, KernelLaunch, SharedRegion, sizes, value
from .run import program_of, tiles_of

WORD = 4  # bytes of a float


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
    return [
        Prediction(of_tensors[x.kernel], _shared(x, whole.get(x.kernel, Padded({}, [])), of_tensors[x.kernel], named))
        for x in implementation.launches
    ]


def _packed(problem: AttentionProblem) -> AttentionProblem:
    """The query heads of a group as rows of one head."""
    (q_len, kv_len), *_ = problem.sequences
    return replace(problem, q_len=q_len * problem.group, kv_len=kv_len, heads=problem.kv_heads or 1)


def _shared(launch: KernelLaunch, whole: Padded, issued: Traffic, named: Mapping[str, int]) -> Traffic:
    return Traffic(
        {
            region.name: _element_by_element(launch, region, issued, named)
            if region.passes
            else _staged(launch, region, whole, named)
            for region in launch.shared
            if region.passes or any(region.name in dot.operands for dot in launch.dots)
        }
    )


def _element_by_element(launch: KernelLaunch, region: SharedRegion, issued: Traffic, named: Mapping[str, int]) -> Moved:
    """Per loaded element; per element and thread block if nothing is loaded into the region."""
    assert region.passes is not None
    moved = issued[region.holds].read if region.holds else prod(value(n, named) for n in launch.grid) * WORD
    if not region.holds:
        moved *= value(region.rows, named) * value(region.columns, named)
    return Moved(moved * value(region.passes.read, named), moved * value(region.passes.write, named))


def _staged(launch: KernelLaunch, region: SharedRegion, whole: Padded, named: Mapping[str, int]) -> Moved:
    """A tile is written once per load, or once where it is computed; the matrix products read it."""
    read, first_use = 0, 0
    for dot, product in zip(launch.dots, whole.dots, strict=True):
        left = product.multiply_adds // value(dot.columns, named) if dot.columns else product.left
        for operand, threads, elements in zip(dot.operands, dot.read_by, (left, product.right), strict=True):
            if operand == region.name:
                read += elements * value(threads, named)
                first_use = first_use or elements
    return Moved(read * WORD, (whole.loads[region.holds] if region.holds else first_use) * WORD)
