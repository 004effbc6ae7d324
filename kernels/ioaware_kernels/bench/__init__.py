"""bench: predicted beside measured. From Python:

from ioaware_kernels.bench import Plan, backend, measure, standard

bench = measure(Plan(standard()), backend("cpu"))
bench.rows[0].median_s("warm"), bench.rows[0].predicted["warm"]["time_s"], bench.fits
"""

from __future__ import annotations

from .backend import Backend, Subject
from .measuring import Measuring
from .plan import Plan, Point, grid, standard
from .record import Bench, read, write
from .result import result

__all__ = [
    "Backend", "Bench", "Measuring", "Plan", "Point", "Subject", "backend", "grid", "measure", "read", "result",
    "standard", "write",
]  # fmt: skip


def measure(plan: Plan, on: Backend, command: str = "") -> Bench:
    """Measure a plan from beginning to end. Raises InputError: a point that its kernel does not take."""
    measuring = Measuring(plan, on)
    for _ in measuring:
        pass
    return result(measuring, command)


def backend(name: str) -> Backend:
    """`cpu` or `cuda`. Raises Skipped: this machine has no GPU."""
    if name == "cpu":
        from .on_cpu import Cpu

        return Cpu()
    from .on_cuda import Cuda

    return Cuda()
