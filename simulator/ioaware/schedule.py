"""Tile sizes: the best legal ones by exhaustive search, the paper's rule, what flash-attention ships, or given ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from .algorithms import Algorithm
from .device import Device
from .errors import InputError, refuse
from .masks import FULL, Band, Statistics
from .problem import AttentionProblem
from .program.recorder import Program, record
from .readers.algebra import Statistic
from .readers.count import has_closed_form, total_of, traffic_quantities
from .readers.evaluate import Evaluator, TileSizes
from .readers.legal import whole_pages
from .readers.onchip import on_chip, total_bytes
from .sizes import Ceil, Name, Size
from .units import LARGEST

SplitRule: TypeAlias = Callable[[AttentionProblem, Device], int]
GRANULE = 16  # rows of a tensor-core tile: mma.m16n8k16


class Schedule(NamedTuple):
    """Tile sizes, where they come from, and the constraint that keeps them from being better."""

    tiles: TileSizes
    origin: str  # best | paper | shipped | given | whole | square
    binds: str


# ------------------------------------------------------------------------------------------------ choosing
@dataclass(frozen=True)
class Choice:
    """How tile sizes are to be chosen. `rule`: best, paper, shipped, or given with the sizes in `given`.

    `gemm` are the tiles of library matrix products (naive, eager, ...); without them each kernel reads its inputs once.
    """

    rule: str = "best"
    given: TileSizes | None = None
    gemm: TileSizes | None = None
    splits: int | SplitRule | None = None  # of the keys, where an algorithm splits them; None: a heuristic

    def schedule(self, algorithm: Algorithm, program: Program, problem: AttentionProblem, device: Device) -> Schedule:
        """The tiles of one pass of an algorithm. Raises InputError where given or searched tiles cannot fit."""
        if algorithm.library_kernels:
            return self._library(problem)
        if self.given:
            return _given(program, problem, device, self.given)
        if self.rule == "paper":
            return _in_pages(paper_tiles(program, problem, device), problem)
        if self.rule == "shipped":
            from .shipped import shipped_tiles

            shipped = shipped_tiles(algorithm, program, problem, device)
            if shipped is not None:
                return _in_pages(Schedule(shipped[0], "shipped", shipped[1]), problem)
        return best_tiles(program, problem, device.sram_bytes)

    def split(self, schedule: Schedule, problem: AttentionProblem, device: Device) -> Schedule:
        """The schedule with the keys in as many parts as was asked for, else in FlashAttention-2's number of parts."""
        q, kv, _ = schedule.tiles
        parts = self.splits(problem, device) if callable(self.splits) else self.splits
        if parts is None:
            from .splits import num_splits_flash2

            blocks = sum(n * problem.heads * -(-q_len // q) for (q_len, _), n in problem.lengths())
            parts = num_splits_flash2(blocks, 2 * device.sm_count, -(-problem.longest()[1] // kv))
        return schedule._replace(tiles=TileSizes(q, kv, parts))

    def _library(self, problem: AttentionProblem) -> Schedule:
        if self.gemm:
            return Schedule(self.gemm, "given", "GEMM tiles as given: every output tile reads its operands")
        return Schedule(
            TileSizes(*problem.longest()), "whole", "library kernels: each reads its inputs once, as the paper counts"
        )


def parse_tiles(text: str, name: str = "tiles") -> TileSizes:
    """`128x64` -> tile_q 128, tile_kv 64."""
    from .units import parse_count

    parts = text.lower().split("x")
    if len(parts) != 2:
        raise InputError(f"{name}={text:.60}: not tile_q x tile_kv; write it like 128x64")
    try:
        return TileSizes(*(parse_count(part, name) for part in parts))
    except InputError:
        raise refuse(name, text, "tile_q and tile_kv are integers from 1 to 10^15", _repaired(parts)) from None


def _repaired(parts: list[str]) -> TileSizes:
    """The nearest tile to a text that is none: numbers rounded into range, words replaced by the usual sizes."""
    sides = []
    for part, usual in zip(parts, (128, 64), strict=True):
        try:
            sides.append(round(min(max(float(part), 1), LARGEST)))
        except ValueError:
            sides.append(usual)
    return TileSizes(*sides)


def _in_pages(schedule: Schedule, problem: AttentionProblem) -> Schedule:
    """The same with the longest key tile up to the rule's that is whole pages, or lies in one."""
    page, kv = problem.page_size or 1, schedule.tiles.kv
    legal = kv // page * page or max(n for n in range(1, kv + 1) if page % n == 0)
    return schedule if legal == kv else schedule._replace(tiles=schedule.tiles._replace(kv=legal))


def _given(program: Program, problem: AttentionProblem, device: Device, tiles: TileSizes) -> Schedule:
    held = on_chip(program, problem, tiles).total
    if held > device.sram_bytes:
        nearest = _Need(program, problem, device.sram_bytes).nearest(tiles)
        rule = f"{program.name} would hold {held:,} B on chip, the SRAM has {device.sram_bytes:,} B"
        raise refuse("tiles", tiles, rule, nearest) if nearest else _nothing_fits(program, problem, device.sram_bytes)
    return Schedule(tiles, "given", "tiles as given")


def paper_tiles(program: Program, problem: AttentionProblem, device: Device) -> Schedule:
    """FlashAttention's rule (Algorithm 1, line 1): B_c = ceil(M/4d), B_r = min(ceil(M/4d), d), M in words.

    The paper claims it up to a constant: the exact on-chip need may exceed M, and then the schedule says so.
    """
    words = device.sram_bytes // problem.itemsize("io")
    rows = -(-words // (4 * problem.head_dim))
    longest_q, longest_kv = problem.longest()
    tiles = TileSizes(min(rows, problem.head_dim, longest_q), min(rows, longest_kv))
    held = on_chip(program, problem, tiles).total
    binds = f"the paper's rule: B_c = ⌈M/4d⌉, B_r = min(⌈M/4d⌉, d) with M = {words:,} words"
    if held > device.sram_bytes:
        binds += f"; overflows M: {held:,} B on chip, {held / device.sram_bytes:.3f} M"
    return Schedule(tiles, "paper", binds)


# ------------------------------------------------------------------------------------------------ searching
@lru_cache(1024)
def tile_sizes(length: int) -> tuple[int, ...]:
    """The legal tile sizes for an axis: multiples of 16 up to 4,096 rows, of 256 up to 65,536, of 4,096 up to 2^20, ...

    The set does not depend on the SRAM, so more SRAM only adds legal tiles. The last one covers the axis.
    """
    whole = -(-length // GRANULE) * GRANULE
    out, step, size = [], GRANULE, GRANULE
    while size < whole:
        out.append(size)
        if size >= 256 * step:
            step *= 16
        size += step
    return (*out, whole)


def best_tiles(program: Program, problem: AttentionProblem, sram_bytes: int) -> Schedule:
    """The legal tiles with the least issued bytes; of equal ones the largest area. Raises InputError if none fits.

    Exhaustive, in exact integers. Without a mask only the largest key tile for each query tile is evaluated, because a
    larger tile never moves more; under a band, tiles are skipped that cannot win even if key tiles fitted the band.
    """
    need = _Need(program, problem, sram_bytes)
    if not need.fits(GRANULE, need.kv_sizes[0]):
        raise _nothing_fits(program, problem, sram_bytes)
    if not has_closed_form(program):
        return _square_tiles(need)
    if program.features.paged:  # the block table moves little, and its closed form has no order to prune by
        program = record(program.function, program.features._replace(paged=False))
        problem = replace(problem, page_size=None)
    if not isinstance(problem.band, Band):
        return _powers_of_two(program, problem, need)
    cost = _Cost(program, problem)
    best: tuple[int, int] | None = None
    tiles = TileSizes(GRANULE, GRANULE)
    for q, longest_kv in need.frontier():
        for kv in (longest_kv,) if cost.monotone else need.shorter(longest_kv):
            if best is not None and cost.at_least(q, kv) > best[0]:
                break  # and no shorter key tile can win
            rank = cost.exact(q, kv), -q * kv
            if best is None or rank < best:
                best, tiles = rank, TileSizes(q, kv)
    return Schedule(tiles, "best", need.binding(tiles))


def _nothing_fits(program: Program, problem: AttentionProblem, sram_bytes: int) -> InputError:
    """Which SRAM would hold the smallest tile, and which head_dim or value_dim the SRAM would hold."""
    value_dim = problem.value_dim or 1
    widest = "value_dim" if value_dim > problem.head_dim else "head_dim"
    d = max(problem.head_dim, value_dim)

    def smallest(d: int) -> int:
        narrower = replace(problem, head_dim=min(d, problem.head_dim), value_dim=min(d, value_dim))
        return on_chip(program, narrower, TileSizes(GRANULE, GRANULE)).total

    need, fitting = smallest(d), bisect_right(range(1, d + 1), sram_bytes, key=smallest)
    legal = [f"sram={need}"] * (need <= LARGEST) + [f"{widest}={fitting}"] * (fitting > 0)
    return InputError(
        f"sram={sram_bytes:,} B and {widest}={d:,}: the smallest tile of {program.name}, {GRANULE}x{GRANULE}, holds "
        f"{need:,} B; nearest and legal: {' or '.join(legal)}"
    )


def _powers_of_two(program: Program, problem: AttentionProblem, need: _Need) -> Schedule:
    """Where a mask's sums are no closed form: of the powers of two, each query tile with the longest key tile."""
    cost, found = _Cost(program, problem), []
    for q, kv in need.frontier():
        if q & (q - 1) == 0:
            longest = max((s for s in need.kv_sizes if s <= kv and s & (s - 1) == 0), default=kv)
            found.append((cost.exact(q, longest), -q * longest, TileSizes(q, longest)))
    if not found:
        return _square_tiles(need)
    return Schedule(min(found)[2], "powers of two", "of the powers of two, the mask's sums being no closed form")


def _square_tiles(need: _Need) -> Schedule:
    """Without a closed form nothing is searched: the largest square power of two that fits."""
    side = GRANULE
    while side < max(need.problem.longest()) and need.fits(2 * side, 2 * side):
        side *= 2
    return Schedule(TileSizes(side, side), "square", "no closed form to search: the largest square tile that fits")


def _whole_pages(sizes: tuple[int, ...], page: int) -> tuple[int, ...]:
    """The key tiles that are whole numbers of pages, or lie in one."""
    return tuple(s for s in sizes if whole_pages(s, page)) or (page,)


class _Need:
    """The on-chip need of a program over tile sizes; it never falls as a tile grows."""

    def __init__(self, program: Program, problem: AttentionProblem, sram_bytes: int) -> None:
        self.problem, self.sram_bytes = problem, sram_bytes
        self.evaluate = total_bytes(program)
        self.lengths = [length for length, _ in problem.lengths()]
        self.q_sizes, self.kv_sizes = (tile_sizes(length) for length in problem.longest())
        if problem.page_size:
            self.kv_sizes = _whole_pages(self.kv_sizes, problem.page_size)

    def bytes(self, q: int, kv: int) -> int:
        """The high-water mark."""
        tiles = TileSizes(q, kv)
        return max(max(self.evaluate(self.problem, length, 1, tiles)) for length in self.lengths)

    def fits(self, q: int, kv: int) -> bool:
        """Whether a thread block's values fit into the SRAM."""
        return self.bytes(q, kv) <= self.sram_bytes

    def frontier(self) -> Iterator[tuple[int, int]]:
        """For every query tile the longest key tile that fits, from the longest query tile down."""
        at, last = 0, len(self.kv_sizes) - 1
        fitting = bisect_right(self.q_sizes, self.sram_bytes, key=lambda q: self.bytes(q, self.kv_sizes[0]))
        for q in reversed(self.q_sizes[:fitting]):
            while at < last and self.fits(q, self.kv_sizes[at + 1]):
                at += 1
            yield q, self.kv_sizes[at]

    def nearest(self, tiles: TileSizes) -> TileSizes | None:
        """The largest legal tile within these: the query tile as long as can be, then the key tile."""
        q_sizes, kv_sizes = ([s for s in sizes if s <= limit] or [sizes[0]] for sizes, limit in (
            (self.q_sizes, tiles.q), (self.kv_sizes, tiles.kv)
        ))  # fmt: skip
        fitting = bisect_right(q_sizes, self.sram_bytes, key=lambda q: self.bytes(q, kv_sizes[0]))
        if not fitting:
            return None
        q = q_sizes[fitting - 1]
        return TileSizes(q, kv_sizes[bisect_right(kv_sizes, self.sram_bytes, key=lambda kv: self.bytes(q, kv)) - 1])

    def shorter(self, kv: int) -> Iterator[int]:
        """All key tiles up to `kv`, the longest first."""
        return reversed(self.kv_sizes[: self.kv_sizes.index(kv) + 1])

    def binding(self, tiles: TileSizes) -> str:
        """What keeps the best tiles from being larger."""
        for name, sizes, at in (("tile_q", self.q_sizes, tiles.q), ("tile_kv", self.kv_sizes, tiles.kv)):
            if at == sizes[-1]:
                continue
            larger = sizes[sizes.index(at) + 1]
            need = self.bytes(larger, tiles.kv) if name == "tile_q" else self.bytes(tiles.q, larger)
            if need > self.sram_bytes:
                return f"SRAM: {name}={larger} would hold {need:,} B of {self.sram_bytes:,} B"
        if tiles[:2] == (self.q_sizes[-1], self.kv_sizes[-1]):
            return "the sequence: one tile holds it"
        return "the mask or the sequence: a larger tile moves as much or more"


class _Cost:
    """Issued bytes of a program over tile sizes."""

    def __init__(self, program: Program, problem: AttentionProblem) -> None:
        self.problem = problem
        self.evaluate, falls = _cost_evaluator(program)
        self.monotone = falls and problem.band == FULL
        self.prunable = falls

    def exact(self, q: int, kv: int) -> int:
        """Bytes read and written."""
        lengths = self.problem.lengths()
        return sum(self.evaluate(self.problem, length, n, TileSizes(q, kv))[0] for length, n in lengths)

    def at_least(self, q: int, kv: int) -> int:
        """A lower bound for these tiles and for all shorter key tiles.

        Each query tile reads at least the keys that it sees, and each query row is visited once per `kv` pairs.
        """
        if not self.prunable:
            return 0
        total = 0
        for length, n in self.problem.lengths():
            total += self.evaluate(self.problem, length, n, TileSizes(q, kv), self._least)[0]
        return total

    def _least(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Statistics:
        band = self.problem.band
        pairs, cols = band.pairs(q_len, kv_len), band.statistics(q_len, kv_len, tile_q, 1).tiles
        rows = -(-pairs // tile_kv)
        return Statistics(max(-(-cols // tile_kv), -(-rows // tile_q)), rows, cols, pairs)


@lru_cache(1024)
def _cost_evaluator(program: Program) -> tuple[Evaluator, bool]:
    """Total issued bytes, and whether they can only fall as tiles grow, the mask's statistics given."""
    total = total_of(program, traffic_quantities, lambda key: 2 if key[-1] == "add" else 1)
    return Evaluator([total]), _falls(total)


def _falls(e: Size) -> bool:
    """Whether tile sizes occur only as divisors, under non-negative coefficients."""
    tiles = (Name("tile_q"), Name("tile_kv"))
    plain = all(isinstance(a, (Name, Ceil, Statistic)) and a not in tiles for a in e.atoms())
    divided = all(not set(tiles) & set(a.over.all_atoms()) for a in e.all_atoms() if isinstance(a, Ceil))
    return plain and divided and all(c >= 0 for c in e.terms.values())
