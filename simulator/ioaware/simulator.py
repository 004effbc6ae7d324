"""simulate: problem, device and algorithms -> exact bytes at every level, first-order time, distance from optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

from . import algorithms as table
from .algorithms import Algorithm
from .bounds import compulsory, lower_bound, published
from .cost import cost
from .device import Device, load
from .errors import InputError, unknown
from .hierarchy import launches, levels
from .masks import Kinds, tile_kinds
from .problem import AttentionProblem, check_count
from .program.recorder import record
from .readers.count import has_closed_form
from .readers.evaluate import TileSizes
from .readers.legal import check_legal
from .readers.onchip import on_chip
from .report import AlgorithmReport, PassReport, Report, Totals, WorkloadReport, workload_report
from .schedule import Choice, SplitRule, parse_tiles
from .units import parse_bytes, parse_count

if TYPE_CHECKING:
    from .workload import Workload

RULES = ("best", "paper", "shipped")
AnyAlgorithm: TypeAlias = str | Algorithm | Callable[..., None]


def simulate(
    problem: AttentionProblem,
    device: str | Device = "a100-sxm-40gb",
    algorithms: Iterable[AnyAlgorithm] = table.DEFAULT,
    *,
    tiles: str = "best",
    gemm_tiles: str | None = None,
    splits: str | int | None = None,
    pack_gqa: bool = False,
    sram: str | int | None = None,
    settings: Mapping[str, str | int | float] | None = None,
) -> Report:
    """Exact bytes per tensor and level of each algorithm, first-order time, and the distance from the optimum.

    device      a name, a TOML file, or a Device; `sram` and `settings` change its fields, {"l2_bytes": "80MB"}
    algorithms  names, Algorithm records, or program functions of your own
    tiles       best, paper, shipped, or tile_q x tile_kv like "128x64"
    gemm_tiles  tiles of the library matrix products of naive attention; without, each kernel reads its inputs once
    splits      into how many parts flash_decoding and mla cut the keys: a number, or "flash2" or "flash3" for what
                these kernels choose with their own tiles; without, FlashAttention-2's heuristic for the tiles here
    pack_gqa    the query heads of a group share a tile's rows, so that its keys are loaded once for all of them

    Raises InputError, ProgramError.
    """
    choice, hardware = choose(tiles, gemm_tiles, splits), describe(device, sram, settings)
    found = _distinct(algorithms)
    problem = problem.packed() if pack_gqa else problem
    _refuse_idle(choice, found)
    reports = {a.name: _algorithm(a, problem, hardware, choice) for a in found}
    return Report(problem, hardware, reports, tuple(published(problem, hardware.sram_bytes)))


def simulate_workload(
    workload: str | Workload,
    device: str | Device = "a100-sxm-40gb",
    algorithms: Iterable[AnyAlgorithm] = table.DEFAULT,
    *,
    tiles: str = "best",
    gemm_tiles: str | None = None,
    splits: str | int | None = None,
    pack_gqa: bool = False,
    sram: str | int | None = None,
    settings: Mapping[str, str | int | float] | None = None,
) -> WorkloadReport:
    """The same for every phase of a model's attention, and the sums over all layers and steps.

    The query heads of a group share a tile's rows in decoding, as flash-attention has them; elsewhere with `pack_gqa`.
    """
    from .workload import load as load_workload

    model = load_workload(workload) if isinstance(workload, str) else workload
    hardware, found = describe(device, sram, settings), list(algorithms)
    phases = tuple(
        simulate(
            p.problem, hardware, found, tiles=tiles, gemm_tiles=gemm_tiles, splits=splits,
            pack_gqa=pack_gqa or p.stage == "decode",
        )
        for p in model.phases
    )  # fmt: skip
    return workload_report(model, phases)


def usual(workload: Workload) -> tuple[str, ...]:
    """The default algorithms for a workload: the usual ones, and those that decode, which can do all of its phases."""
    names = (*table.DEFAULT, "flash_decoding", "mla") if "decode" in workload.stages else table.DEFAULT
    return tuple(
        n for n in names if all(can(n, direction, p.problem) for p in workload.phases for direction in p.problem.passes)
    )


def can(name: str, direction: str, problem: AttentionProblem) -> bool:
    """Whether an algorithm has the pass, and all that the problem asks for."""
    try:
        program = record(table.find(name).text(direction), problem.features)
        check_legal(program, replace(problem, page_size=None), TileSizes(1, 1))
    except InputError:
        return False
    return True


def choose(tiles: str, gemm_tiles: str | None, splits: str | int | None = None) -> Choice:
    """How tile sizes are chosen, from their text."""
    gemm = parse_tiles(gemm_tiles, "gemm-tiles") if gemm_tiles is not None else None
    parts = _splits(splits)
    if tiles in RULES:
        return Choice(tiles, None, gemm, parts)
    if not any(c.isdigit() for c in tiles):
        raise unknown("tiles rule", tiles, RULES, f"known: {', '.join(RULES)}, or a size like 128x64")
    return Choice("given", parse_tiles(tiles), gemm, parts)


def _splits(splits: str | int | None) -> int | SplitRule | None:
    """A number of splits, or a kernel's own rule for its own tiles, from its name."""
    if splits is None or isinstance(splits, int):
        return None if splits is None else check_count("splits", splits)
    if any(c.isalpha() for c in splits) and splits.lower().startswith("flash"):
        from .shipped import flash2_splits, flash3_splits

        rules: dict[str, SplitRule] = {"flash2": flash2_splits, "flash3": flash3_splits}
        if splits.lower() not in rules:
            raise unknown("splits", splits, rules, f"known: {', '.join(rules)}, or a number")
        return rules[splits.lower()]
    return parse_count(splits, "splits")


def describe(
    device: str | Device, sram: str | int | None = None, settings: Mapping[str, str | int | float] | None = None
) -> Device:
    """The device with its changed fields."""
    hardware = load(device) if isinstance(device, str) else device
    changes = dict(settings or {})
    if sram is not None:
        if "sram_bytes" in changes:
            raise InputError(f"sram={sram} and sram_bytes={changes['sram_bytes']} say the same thing; give one of them")
        changes["sram_bytes"] = parse_bytes(sram, "sram")
    return hardware.with_settings(changes) if changes else hardware


def as_algorithm(algorithm: AnyAlgorithm) -> Algorithm:
    """An algorithm by name, as it is, or around a program function of one's own."""
    if isinstance(algorithm, str):
        return table.find(algorithm)
    if isinstance(algorithm, Algorithm):
        return algorithm
    return Algorithm(algorithm.__name__, (algorithm.__doc__ or "").strip().partition("\n")[0], algorithm, None)


def _distinct(algorithms: Iterable[AnyAlgorithm]) -> list[Algorithm]:
    """The algorithms, each once; two different ones must not share a name."""
    found: dict[str, Algorithm] = {}
    for algorithm in map(as_algorithm, algorithms):
        if found.setdefault(algorithm.name, algorithm) != algorithm:
            raise InputError(f"two algorithms are called {algorithm.name!r}: rename one of them")
    if not found:
        raise InputError("no algorithm is named; `ioaware list algorithms` shows all")
    return list(found.values())


def _refuse_idle(choice: Choice, found: list[Algorithm]) -> None:
    """A choice of tiles that no algorithm here would follow."""
    names = ", ".join(a.name for a in found)
    if all(a.library_kernels for a in found) and choice.rule != "best":
        raise InputError(
            f"tiles={choice.given or choice.rule}: {names} leave tiles to library kernels; give gemm-tiles"
        )
    if choice.gemm and not any(a.library_kernels for a in found):
        raise InputError(f"gemm-tiles={choice.gemm}: {names} call no library matrix product; give tiles")
    if choice.splits and not any(a.unsplit for a in found):
        raise InputError(f"splits: {names} split no keys; flash_decoding does")


def _algorithm(algorithm: Algorithm, problem: AttentionProblem, device: Device, choice: Choice) -> AlgorithmReport:
    passes = tuple(_pass(algorithm, direction, problem, device, choice) for direction in problem.passes)
    return AlgorithmReport(algorithm.name, algorithm.title, passes, reduce(Totals.__add__, (p.totals for p in passes)))


def _pass(
    algorithm: Algorithm, direction: str, problem: AttentionProblem, device: Device, choice: Choice
) -> PassReport:
    program = record(algorithm.text(direction), problem.features)
    schedule = choice.schedule(algorithm, program, problem, device)
    if algorithm.unsplit:
        schedule = choice.split(schedule, problem, device)
        if schedule.tiles.splits == 1:
            program = record(algorithm.unsplit, problem.features)
            schedule = choice.schedule(algorithm, program, problem, device)
    check_legal(program, problem, schedule.tiles)
    launched = launches(program, problem, schedule.tiles, device)
    traffic = {"compulsory": compulsory(problem, direction), **levels(launched)}
    bound = lower_bound(problem, direction, device.sram_bytes, softmax=algorithm.softmax)
    held = on_chip(program, problem, schedule.tiles)
    work = [launch.work for launch in launched]
    totals = Totals(
        sum(w.flops for w in work),
        sum(w.exps for w in work),
        traffic,
        bound.issued_read_bytes,
        bound.issued_bytes,
        cost(launched, problem, device),
    )
    return PassReport(
        direction, program, schedule, held, held.total <= device.sram_bytes, device.holds(held.loaded, held.computed),
        "closed form" if has_closed_form(program) else "walked", _kinds(problem, schedule.tiles), bound, totals,
    )  # fmt: skip


def _kinds(problem: AttentionProblem, tiles: TileSizes) -> Kinds:
    """How many tiles of these sizes the mask leaves whole, cuts, and hides."""
    parts = [(tile_kinds(problem.band, *length, tiles.q, tiles.kv), n) for length, n in problem.lengths()]
    return Kinds(*(problem.heads * sum(n * kinds[which] for kinds, n in parts) for which in range(3)))
