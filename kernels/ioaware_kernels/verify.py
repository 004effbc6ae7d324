"""verify: run a kernel, and hold everything it does against what it should do.

values       every output against float64 softmax, within a computed tolerance
tensors      bytes read, written and added per tensor and launch: equal to the simulator's
shared       the same per region of shared memory
findings     no race, no uninitialised read, no access outside a tensor, no divergent barrier
memory       every output element written, inputs unchanged, nothing written outside the tensors
determinism  outputs are the same bits in another order of thread blocks, but for those that say otherwise
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ioaware.errors import InputError, VerificationError
from ioaware.problem import AttentionProblem
from ioaware.traffic import Moved, Traffic

from . import golden
from .cases import Case
from .implementation import Implementation
from .launch import Engine, GridEngine, Module
from .predict import Prediction, predict
from .ptx.context import Options
from .run import Launched, Run, program_of, run
from .tensors import Array, repacked
from .tolerance import Difference, compare, expected

MOST_JUDGED = 1 << 27  # multiply-adds of Q K^T: up to there judging every access takes about ten seconds
CHECKS = ("values", "tensors", "shared", "findings", "memory", "determinism")


@dataclass
class Report:
    """One case of one kernel: what was checked, and one sentence for everything that is wrong."""

    kernel: str
    case: Case
    differences: dict[str, Difference] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)  # per check that was made; empty: it holds
    launches: list[tuple[Launched, Prediction]] = field(default_factory=list)
    reproducible: bool = True  # the same bits in another order of thread blocks
    engine: str = ""
    seconds: float = 0.0

    @property
    def is_fine(self) -> bool:
        """Whether every check that was made holds."""
        return not any(self.problems.values())

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        p = self.case.problem
        return {
            "kernel": self.kernel,
            "problem": {
                "q_len": p.q_len, "kv_len": p.kv_len, "head_dim": p.head_dim, "heads": p.heads,
                "kv_heads": p.kv_heads, "batch": p.batch, "mask": str(p.band), "dtype": p.dtype,
                "direction": p.direction,
            },
            "engine": self.engine, "inputs": self.case.inputs.__name__, "layout": self.case.layout.__name__,
            "ok": self.is_fine, "checks": self.problems, "reproducible": self.reproducible, "time_s": self.seconds,
            "outputs": {n: d._asdict() for n, d in self.differences.items()},
            "launches": [
                {"kernel": launched.kernel, "instructions": launched.counts.instructions,
                 "counted": launched.tensors.as_dict(), "predicted": predicted.tensors.as_dict(),
                 "counted_shared": launched.shared.as_dict(), "predicted_shared": predicted.shared.as_dict(),
                 "requests": _requests(launched)}
                for launched, predicted in self.launches
            ],
        }  # fmt: skip


def _requests(launched: Launched) -> dict[str, dict[str, int]]:
    """Per memory, where they were counted."""
    memories = dict.fromkeys(memory for _, memory in launched.counts.requests)
    return {memory: asdict(launched.counts.requests_of(memory)) for memory in memories}


# ------------------------------------------------------------------------------------------------ what is run
def module_of(implementation: Implementation, case: Case) -> Module:
    """The PTX of the build that a case needs: the golden one for the project's own kernels, else compiled now."""
    build = golden.Build(implementation, implementation.build_for(case.problem), case.problem.dtype)
    if implementation.is_own:
        return _parsed(golden.load(build), implementation.source, build.definitions)
    return _compiled(implementation.source, implementation.file, build.definitions)


@lru_cache(128)
def _compiled(source: str, file: str, definitions: tuple[str, ...]) -> Module:
    return _parsed(golden.compile(source, file, definitions), source, definitions)


@lru_cache(128)
def _parsed(ptx: str, source: str, definitions: tuple[str, ...]) -> Module:
    return Module(ptx, source, definitions)


# ------------------------------------------------------------------------------------------------ verifying
def verify(
    implementation: Implementation, case: Case, engine: Engine | None = None, seed: int = 0, *, requests: bool = False
) -> Report:
    """Run one case and check everything that the engine lets one see; by default `chosen` takes one.

    requests: also count the 32-byte sectors and bank passes of what warps ask for, where the default engine can.
    """
    started = time.perf_counter()
    module, inputs = module_of(implementation, case), case.values(seed)
    engine = engine or chosen(implementation, module, case.problem, requests=requests)
    report = Report(implementation.name, case, engine=engine.name)
    program = program_of(implementation, case.problem)
    exact = expected(program, case.problem, inputs)
    given = {**{n: repacked(e.exact) for n, e in exact.items() if n in program.tensors}, **inputs}
    first, second = (
        run(implementation, module, case.problem, given, case.layout, e) for e in (engine, engine.opposite)
    )
    report.differences = {name: compare(values, exact[name]) for name, values in first.outputs.items()}
    report.problems["values"] = list(wrong_values(report.differences))
    if first.launches:  # not on a GPU
        report.launches = list(zip(first.launches, predict(implementation, case.problem), strict=True))
        report.problems["tensors"] = [s for a, b in report.launches for s in _bytes(a, a.tensors, b.tensors)]
        if any(predicted.shared for _, predicted in report.launches):
            report.problems["shared"] = [s for a, b in report.launches for s in _shared(a, b)]
        report.problems["findings"] = [str(f) for f in first.findings]
    report.problems["memory"] = list(_memory(implementation, case, first, given))
    report.problems["determinism"] = list(_order(implementation, first, second))
    report.reproducible = not _changed(first, second)
    report.seconds = time.perf_counter() - started
    return report


def chosen(implementation: Implementation, module: Module, problem: AttentionProblem, *, requests: bool) -> Engine:
    """The executor that judges every access; compiled code where that would take minutes, and if it has the opcodes."""
    (q_len, kv_len), *_ = problem.sequences
    if problem.batch * problem.heads * q_len * kv_len * problem.head_dim > MOST_JUDGED:
        from .jit_engine import JitEngine, code_of

        with suppress(InputError):  # an opcode that is not compiled
            for launch in implementation.launches:
                code_of(module, launch.entry)
            return JitEngine()
    return GridEngine(Options(races=True, requests=requests))


def require(reports: list[Report]) -> None:
    """Raises VerificationError where a check does not hold: exit code 1."""
    bad = [r for r in reports if not r.is_fine]
    if bad:
        first = next(sentence for found in bad[0].problems.values() for sentence in found)
        raise VerificationError(
            f"{len(bad)} of {len(reports)} cases fail, the first: {bad[0].kernel} ({bad[0].case}): {first}"
        )


# ------------------------------------------------------------------------------------------------ the checks
def wrong_values(differences: Mapping[str, Difference]) -> Iterator[str]:
    """A sentence for every output that is not exact softmax."""
    for name, d in differences.items():
        if d.misplaced:
            yield f"{name} has {d.misplaced:,} elements that are NaN or infinite where exact softmax is not, or not so"
        if d.error > d.tolerance:
            yield f"{name} differs from exact softmax by {d.error:.3g}; rounding explains {d.tolerance:.3g}"


def _bytes(launched: Launched, counted: Traffic, predicted: Traffic) -> Iterator[str]:
    """Every tensor or region that moves other than predicted, with the line of the source that moves most."""
    for name, excess in (counted - predicted).tensors.items():
        for kind, verb in zip(Moved._fields, ("read", "written", "added to"), strict=True):
            if getattr(excess, kind):
                have, want = getattr(counted[name], kind), getattr(predicted[name], kind)
                rule = f"{have / want:.3g} times the {want:,} B of the algorithm" if want else "by the algorithm never"
                yield f"{launched.kernel}: {name} is {verb}: {have:,} B, {rule}{_most(launched, name, kind)}"


def _shared(launched: Launched, predicted: Prediction) -> Iterator[str]:
    """The regions whose use the table tells, and accesses outside all regions."""
    if predicted.shared:
        told = {name: launched.shared[name] for name in (*predicted.shared.tensors, "shared")}
        yield from _bytes(launched, Traffic(told), predicted.shared)


def _most(launched: Launched, name: str, kind: str) -> str:
    by_line: dict[int, int] = {}
    for instruction, moved in launched.counts.sites(name, kind).items():
        by_line[instruction.caller] = by_line.get(instruction.caller, 0) + moved
    if not any(by_line):
        return ""
    return "; by CUDA line: " + ", ".join(f"{line}: {by_line[line]:,} B" for line in sorted(by_line))


def _memory(implementation: Implementation, case: Case, done: Run, given: Mapping[str, Array]) -> Iterator[str]:
    for name, tensor in program_of(implementation, case.problem).tensors.items():
        placed = done.tensors[name]
        if tensor.role == "output" and not placed.is_written:
            yield f"{name} is not written everywhere"
        if placed.stray_elements():
            yield f"{placed.stray_elements():,} elements around {name} are overwritten"
        if tensor.role == "input" and repacked(placed.values).tobytes() != given[name].astype(np.float32).tobytes():
            yield f"the input {name} is changed"


def _order(implementation: Implementation, first: Run, second: Run) -> Iterator[str]:
    for name in _changed(first, second):
        if name not in implementation.order_dependent:
            yield f"{name} depends on the order of thread blocks: its bits change from run to run"


def _changed(first: Run, second: Run) -> list[str]:
    return [n for n, values in first.outputs.items() if values.tobytes() != second.outputs[n].tobytes()]
