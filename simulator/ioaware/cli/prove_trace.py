"""`prove --trace`: a schedule as operations of the two-level machine, checked by the proved checker."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .conventions import option
from .options import PROBLEM, problem

if TYPE_CHECKING:
    from ioaware_proofs.certificate import Bounds, Checkers

    from ..algorithms import Algorithm
    from ..problem import AttentionProblem
    from ..readers.evaluate import TileSizes
    from ..readers.trace import Trace, Words

TRACE = (
    option("--trace", is_flag=True, help="Check the schedules of --alg or --program on a small problem."),
    option("--alg", "algorithms", multiple=True, metavar="NAME", help="Repeatable; default flash2."),
    option("--tiles", metavar="QxKV", help="Rows of a query tile and of a key tile; default 2x2."),
    option("--program", metavar="FILE", help="Check the programs of this Python file, which is run."),
    *PROBLEM,
)


class Certificate(NamedTuple):
    """What is certified about one schedule; words."""

    algorithm: str
    trace: Trace
    bounds: Bounds
    floor: Words  # compulsory: inputs that matter are read once, outputs written once
    seconds: dict[str, float]  # who accepted it, and how long that took

    @property
    def ratio(self) -> float:
        """Loads over the least that is proved for them."""
        return self.trace.loads / max(self.bounds.loads, self.floor.loads)

    @property
    def traffic_ratio(self) -> float:
        """The same for loads and stores together."""
        least = max(self.bounds.loads, self.floor.loads) + self.floor.stores
        return (self.trace.loads + self.trace.stores) / max(self.bounds.traffic, least)


def prove_trace(values: dict[str, Any]) -> None:
    """Make the traces, have them checked, print what is certified.

    Raises InputError; VerificationError: a checker rejects a trace, or counts otherwise; Skipped: no Coq or no OCaml.
    """
    from ioaware_proofs.certificate import checkers

    from ..errors import InputError
    from ..schedule import parse_tiles

    if values["n"] is None and values["q_len"] is None:
        raise InputError("--trace needs a small problem, every word of which is an operation; for example --N 6 --d 2")
    asked, tiles = problem(values), parse_tiles(values["tiles"] or "2x2", "--tiles")
    traces = {a.name: _trace(a, asked, tiles) for a in _algorithms(values, asked)}
    done = []
    try:
        with checkers() as checking:
            for name, trace in traces.items():
                done.append(_certified(name, trace, asked, checking))
    finally:  # refused on the way: what is certified is shown
        if values["as_json"]:
            _print_json(done)
        else:
            _print(done)


def _algorithms(values: dict[str, Any], asked: AttentionProblem) -> list[Algorithm]:
    """Those of --alg and of --program; a program file's are held against exact softmax first."""
    from ..algorithms import find_all
    from ..program_file import check, load_programs

    found = list(find_all(values["algorithms"]))
    if values["program"]:
        own = load_programs(values["program"])
        for algorithm in own:
            check(algorithm, asked)
        found += own
    return found or list(find_all(["flash2"]))


def _trace(algorithm: Algorithm, asked: AttentionProblem, tiles: TileSizes) -> Trace:
    """Raises VerificationError where its loads and stores are not what `count` says."""
    from ..errors import VerificationError
    from ..program.recorder import record
    from ..readers.trace import counted, trace

    program = record(algorithm.text(asked.direction), asked.features)
    made, words = trace(program, asked, tiles), counted(program, asked, tiles)
    if (made.loads, made.stores) != words:
        raise VerificationError(
            f"{algorithm.name}: the trace has {made.loads:,} loads and {made.stores:,} stores, count says "
            f"{words.loads:,} and {words.stores:,}"
        )
    return made


def _certified(name: str, trace: Trace, asked: AttentionProblem, checking: Checkers) -> Certificate:
    from ioaware_proofs.certificate import MOST_IN_COQ, bounds

    from ..bounds import compulsory
    from ..readers.trace import Words

    checkers = {"extracted checker": checking.extracted}
    if len(trace.operations) <= MOST_IN_COQ:
        checkers["Coq kernel"] = checking.in_coq
    seconds = {}
    for who, check in checkers.items():
        since = perf_counter()
        check(trace)
        seconds[who] = perf_counter() - since
    floor, width = compulsory(asked, "fwd"), asked.itemsize("io")
    return Certificate(
        name, trace, bounds(trace), Words(floor.read_bytes // width, floor.write_bytes // width), seconds
    )


def _print(certificates: list[Certificate]) -> None:
    for c in certificates:
        by = ", ".join(f"{who} ({seconds:.1f} s)" for who, seconds in c.seconds.items())
        void = "void: M is too large for this problem"
        bound = f"{c.bounds.loads:,} loads, {c.bounds.traffic:,} loads and stores" if min(c.bounds) > 0 else void
        click.echo(
            f"{c.algorithm}: a legal run of the two-level machine; every output is the sum over its visible keys\n"
            f"  operations   {len(c.trace.operations):,}\n"
            f"  memory M     {c.trace.memory:,} words, the most that it holds\n"
            f"  moved        {c.trace.loads:,} loads, {c.trace.stores:,} stores, as count says\n"
            f"  I/O bound    {bound}\n"
            f"  compulsory   {c.floor.loads:,} loads, {c.floor.stores:,} stores\n"
            f"  ratio        {c.ratio:.2f} for loads, {c.traffic_ratio:.2f} with stores, over what is proved least\n"
            f"  checked by   {by}"
        )


def _print_json(certificates: list[Certificate]) -> None:
    import json

    from .. import __version__

    rows = [
        {
            "algorithm": c.algorithm, "operations": len(c.trace.operations), "memory_words": c.trace.memory,
            "loads": c.trace.loads, "stores": c.trace.stores, "bound_loads": max(c.bounds.loads, 0),
            "bound_traffic": max(c.bounds.traffic, 0), "compulsory_loads": c.floor.loads,
            "compulsory_stores": c.floor.stores, "ratio": c.ratio, "traffic_ratio": c.traffic_ratio,
            "seconds": c.seconds,
        }
        for c in certificates
    ]  # fmt: skip
    click.echo(json.dumps({"schema": 1, "version": __version__, "certificates": rows}))
