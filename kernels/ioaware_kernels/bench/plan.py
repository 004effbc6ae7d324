"""What is to be measured: points, each an algorithm on a problem with tiles. Building a plan runs nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ioaware.algorithms import ALGORITHMS, Algorithm
from ioaware.device import Device
from ioaware.errors import refuse
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.footprint import footprint

REPEATS = 30  # samples


class Sweeps(NamedTuple):
    """What is measured if nothing is asked: over N, over d and over M at one N; a GPU's kernels have their tiles."""

    algorithms: tuple[str, ...]
    lengths: tuple[int, ...]
    head_dims: tuple[int, ...]
    tiles: tuple[TileSizes, ...]  # of the sweep over M
    length: int  # of the sweeps over d and M
    head_dim: int  # of the sweeps over N and M
    heads: int


STANDARD = {  # about a minute on two cores; on a GPU enough heads to keep it busy
    "cpu": Sweeps(
        ("naive", "flash2"), (256, 512, 1024, 2048, 4096, 8192), (32, 64, 128, 256),
        tuple(TileSizes(q, 32) for q in (64, 128, 256, 512)), 2048, 64, 1,
    ),
    "cuda": Sweeps(
        ("naive", "flash2", "flash2_causal", "flash2_mma"), (512, 1024, 2048, 4096, 8192), (32, 64, 128, 256), (),
        4096, 64, 16,
    ),
}  # fmt: skip
QUERY_TILE = 8192  # words of a query tile in the sweep over d: tile_q x d, so that M hardly changes


def algorithms_for(device: str, problem: AttentionProblem) -> tuple[str, ...]:
    """What is measured if no algorithm is named: on a GPU, of the standard ones those that take the problem."""
    names = STANDARD[device].algorithms
    if device == "cpu":
        return names
    from ..implementation import load

    return tuple(name for name in names if load(name).solves(problem)) or names[:1]


class Point(NamedTuple):
    """One thing to time; without tiles the kernel chooses its own."""

    algorithm: str
    problem: AttentionProblem
    tiles: TileSizes | None = None


@dataclass(frozen=True)
class Plan:
    """A sweep. `repeats`: samples per point, warm and cold each; `peers`: also other people's kernels that are here."""

    points: tuple[Point, ...]
    repeats: int = REPEATS
    seed: int = 0
    peers: bool = True

    @property
    def groups(self) -> dict[AttentionProblem, list[Point]]:
        """The points of each problem: they are measured in turns, so that a machine's drift hits all of them."""
        out: dict[AttentionProblem, list[Point]] = {}
        for point in self.points:
            out.setdefault(point.problem, []).append(point)
        return out


def standard(device: str, problem: AttentionProblem, algorithms: Iterable[str] = ()) -> tuple[Point, ...]:
    """The three sweeps; `problem` has everything but lengths and head_dim."""
    sweeps, names = STANDARD[device], tuple(algorithms) or algorithms_for(device, problem)
    over_n = grid(names, problem, sweeps.lengths, (sweeps.head_dim,))
    tiled = [name for name in names if sweeps.tiles and takes_tiles(name)]
    over_m = grid(tiled, problem, (sweeps.length,), (sweeps.head_dim,), sweeps.tiles)
    whole = grid([name for name in names if name not in tiled], problem, (sweeps.length,), sweeps.head_dims)
    at_one_m = [p for d in sweeps.head_dims for t in sweeps.tiles[:1] for p in grid(
        tiled, problem, (sweeps.length,), (d,), (TileSizes(QUERY_TILE // d, t.kv),)
    )]  # fmt: skip
    points = tuple(dict.fromkeys((*over_n, *whole, *at_one_m, *over_m)))
    return points if device == "cpu" else tuple(filter(_is_solved, points)) or points


def _is_solved(point: Point) -> bool:
    """Whether a CUDA kernel takes the problem: some have no build for the largest head_dims."""
    from ..implementation import load

    return load(point.algorithm).solves(point.problem)


def grid(
    algorithms: Iterable[str],
    problem: AttentionProblem,
    lengths: Iterable[int],
    head_dims: Iterable[int],
    tiles: Iterable[TileSizes | None] = (None,),
) -> tuple[Point, ...]:
    """All combinations; lengths and head_dims replace those of the problem. Naive attention has no tiles to choose."""
    return tuple(dict.fromkeys(_grid(tuple(algorithms), problem, tuple(lengths), tuple(head_dims), tuple(tiles))))


def _grid(
    algorithms: tuple[str, ...],
    problem: AttentionProblem,
    lengths: tuple[int, ...],
    head_dims: tuple[int, ...],
    tiles: tuple[TileSizes | None, ...],
) -> Iterator[Point]:
    for d in head_dims:
        for n in lengths:
            one = replace(problem, q_len=n, kv_len=n, head_dim=d, value_dim=d)
            for algorithm in algorithms:
                yield from (Point(algorithm, one, t if takes_tiles(algorithm) else None) for t in tiles)


def takes_tiles(algorithm: str) -> bool:
    """Whether tile sizes mean anything to an algorithm or a kernel."""
    return not any(known.name == algorithm and known.library_kernels for known in ALGORITHMS)


# ------------------------------------------------------------------------------------------------ memory
MEMORY = 0.8  # of it, at most, for the tensors of one kernel


def fits_memory(point: Point, algorithm: Algorithm, device: Device) -> None:
    """Raises InputError where the tensors of a point, S and P of naive attention among them, are too many."""
    most = int(MEMORY * device.hbm_bytes)
    wanted = tensor_bytes(point, algorithm, point.problem.longest()[1])
    if wanted > most:
        longest = bisect_right(
            range(1, point.problem.longest()[1]), most, key=lambda n: tensor_bytes(point, algorithm, n)
        )
        rule = f"the tensors of {point.algorithm} take {wanted:,} B, {MEMORY:.0%} of the memory is {most:,} B"
        raise refuse("--N", point.problem.longest()[1], rule, longest)


def tensor_bytes(point: Point, algorithm: Algorithm, length: int) -> int:
    """Bytes of all tensors at another length."""
    problem = replace(point.problem, q_len=length, kv_len=length)
    program = record(algorithm.text("fwd"), problem.features)
    return sum(footprint(program, problem, point.tiles or TileSizes(1, 1)).values())
