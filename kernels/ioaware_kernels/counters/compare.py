"""Hardware counters beside the simulator's bytes: what must be equal, what is a floor, launch by launch.

Instructions ask for bytes whatever the caches do: over all tensors together (hardware knows no tensors) they must
equal the prediction, to the byte. Between L2 and SM, and from DRAM, at least what a launch touches must move once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ioaware.readers.footprint import footprint
from ioaware.traffic import Moved, Traffic

from ..cuda_engine import CudaEngine
from ..implementation import KernelLaunch
from ..launch import GridEngine
from ..predict import Prediction, predict
from ..run import Launched, program_of, tiles_of
from . import ncu
from .metrics import chip_of
from .ncu import Counted, Reading
from .worker import Job


class Bytes(Protocol):
    """What a launch moves: a simulator's Prediction, or what the executor Launched."""

    @property
    def tensors(self) -> Traffic: ...

    @property
    def shared(self) -> Traffic: ...


class Rule(NamedTuple):
    """A quantity, its bytes in a launch's traffic, and the counters that together must show them."""

    quantity: str
    bytes: Callable[[Bytes], int]
    counters: tuple[str, ...]


def _sum(kind: str, *, shared: bool = False) -> Callable[[Bytes], int]:
    return lambda moved: sum(getattr(m, kind) for m in (moved.shared if shared else moved.tensors).tensors.values())


def _all(moved: Bytes) -> int:
    return sum(sum(m) for m in moved.tensors.tensors.values())


def _all_shared(moved: Bytes) -> int:
    return sum(sum(m) for m in moved.shared.tensors.values())


TENSORS = (
    Rule("tensors read", _sum("read"), ("global_load_bytes", "global_async_bytes")),
    Rule("tensors written", _sum("write"), ("global_store_bytes",)),
    Rule("tensors added to", _sum("add"), ("global_red_bytes", "global_atomic_bytes")),
    Rule("tensors, all kinds", _all, ("global_bytes",)),
    Rule("local memory", lambda _: 0, ("local_load_bytes", "local_store_bytes")),
)
SHARED = (
    Rule(
        "shared memory read",
        _sum("read", shared=True),
        ("shared_load_bytes", "shared_matrix_load_bytes", "shared_wgmma_bytes"),
    ),
    Rule(
        "shared memory written",
        _sum("write", shared=True),
        ("shared_store_bytes", "shared_matrix_store_bytes", "shared_async_bytes"),
    ),
    Rule("shared memory added to", _sum("add", shared=True), ("shared_atomic_bytes",)),
    Rule("shared memory, all kinds", _all_shared, ("shared_bytes",)),
)
FLOORS = (
    Rule("L2 to SM", _sum("read"), ("l2_to_sm_bytes",)),  # an atomic add happens in L2 and sends nothing back
    Rule("SM to L2", lambda moved: moved.tensors.write_bytes, ("sm_to_l2_bytes",)),
    Rule("read from DRAM", _sum("read"), ("dram_read_bytes",)),
)


class Row(NamedTuple):
    """One quantity of one launch. Bytes; None where there is no such number."""

    quantity: str
    relation: str  # of what is measured to what is predicted: "=", ">=", or "" where none is claimed
    predicted: int | None
    counted: int | None  # by the executor
    measured: Reading | None

    @property
    def verdict(self) -> str:
        """equal, differs, holds, below; "as printed" where a rounded number cannot tell; "-" without a claim."""
        if self.measured is None or self.predicted is None or not self.relation:
            return "-"
        excess, within = self.measured.amount - self.predicted, self.measured.within
        if self.relation == ">=":
            return "holds" if excess + within >= 0 else "below"
        if abs(excess) > within:
            return "differs"
        return "as printed" if within else "equal"

    @property
    def is_wrong(self) -> bool:
        """Whether hardware contradicts the prediction."""
        return self.verdict in ("differs", "below")

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "quantity": self.quantity, "relation": self.relation, "predicted_bytes": self.predicted,
            "executor_bytes": self.counted, "measured_bytes": self.measured and self.measured.amount,
            "verdict": self.verdict,
        }  # fmt: skip


class Compared(NamedTuple):
    """One launch: what was compared, and every counter that was read."""

    kernel: str
    rows: list[Row]
    counts: dict[str, Reading | None]

    @property
    def problems(self) -> list[str]:
        """One sentence for each row that hardware contradicts."""
        return [
            f"{self.kernel}: {r.quantity}: {r.measured.amount:,} B measured, {r.relation} {r.predicted:,} B predicted"
            for r in self.rows
            if r.is_wrong and r.measured is not None
        ]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        counts = {name: found and found.amount for name, found in self.counts.items()}
        return {"kernel": self.kernel, "rows": [row.as_dict() for row in self.rows], "counters": counts}


# ------------------------------------------------------------------------------------------------ comparing
def check(job: Job, caches: str = "cold", limit_s: float = 120.0, *, execute: bool = False) -> list[Compared]:
    """Count a job's launches on this machine's GPU, beside the prediction; `execute`: and the executor's own count.

    Raises Skipped: no GPU, no counters known for it, no ncu, no permission; VerificationError as `ncu.measure`.
    """
    capability: str = CudaEngine().cupy.cuda.Device().compute_capability  # "90"
    chip = chip_of(f"{capability[:-1]}.{capability[-1]}")
    counted = ncu.measure(job, chip, caches, limit_s)
    return compare(job, counted, caches, job.run(GridEngine()).launches if execute else ())


def compare(job: Job, counted: Sequence[Counted], caches: str, executed: Sequence[Launched] = ()) -> list[Compared]:
    """Every launch of a job, what was counted beside what is predicted."""
    predictions = predict(job.implementation, job.problem)
    seen: Sequence[Launched | None] = executed or [None] * len(predictions)
    launches = zip(job.implementation.launches, predictions, floors(job, predictions), counted, seen, strict=True)
    return [
        Compared(launch.kernel, list(_rows(launch, prediction, floor, of_launch, executor, caches)), of_launch.counts)
        for launch, prediction, floor, of_launch, executor in launches
    ]


def quantities(moved: Bytes) -> dict[str, int]:
    """What instructions ask for in a launch, as counters can show it: bytes over all tensors, and over shared memory.

    moved: a Prediction, or a Launched of the executor.
    """
    return {rule.quantity: rule.bytes(moved) for rule in (*TENSORS, *SHARED)}


def floors(job: Job, predictions: Iterable[Prediction]) -> list[Prediction]:
    """What each launch touches, moved once: bytes."""
    build = job.implementation.build_for(job.problem)
    whole = footprint(program_of(job.implementation, job.problem), job.problem, tiles_of(build))
    return [Prediction(_once(prediction.tensors, whole), Traffic()) for prediction in predictions]


def _once(moved: Traffic, whole: Mapping[str, int]) -> Traffic:
    return Traffic({n: Moved(*(min(amount, whole[n]) for amount in m)) for n, m in moved.tensors.items()})


def _rows(
    launch: KernelLaunch, prediction: Prediction, floor: Bytes, of_launch: Counted, executor: Bytes | None, caches: str
) -> Iterable[Row]:
    tells_shared = {region.name for region in launch.shared} <= prediction.shared.tensors.keys()
    for rule in (*TENSORS, *SHARED):
        predicted = None if rule in SHARED and not tells_shared else rule.bytes(prediction)
        counted = None if executor is None else rule.bytes(executor)
        yield Row(rule.quantity, "=", predicted, counted, _measured(rule, of_launch))
    for rule in FLOORS:
        relation = ">=" if caches == "cold" else ""  # warm, another launch may have brought some of it
        yield Row(rule.quantity, relation, rule.bytes(floor), None, _measured(rule, of_launch))


def _measured(rule: Rule, of_launch: Counted) -> Reading | None:
    """The counters' sum; those that the chip lacks have nothing to count."""
    asked = [of_launch.counts[name] for name in rule.counters if name in of_launch.counts]
    found = [each for each in asked if each is not None]
    if len(found) < len(asked) or not asked:
        return None
    return Reading(sum(each.amount for each in found), sum(each.within for each in found))
