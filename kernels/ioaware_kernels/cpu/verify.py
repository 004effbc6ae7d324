"""verify for the CPU kernels: the values, the memory and the bits of every case, as for the CUDA kernels.

Nothing counts a CPU's loads and stores, so no bytes are compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
from numba import get_num_threads, set_num_threads

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.readers.evaluate import TileSizes

from .. import cases, implementation
from ..cases import Case
from ..ptx.context import POISON
from ..tensors import Array, packed
from ..tolerance import compare, expected
from ..verify import Report, wrong_values
from .prepare import prepare


def matrix() -> Iterator[Case]:
    """The cases of the CUDA kernels, contiguous, and rows of more keys than a tile has."""
    for kernel in ("flash2", "flash2_causal"):
        for case in cases.matrix(implementation.load(kernel)):
            yield case._replace(layout=packed)
    for mask in ("full", "causal"):
        problem = AttentionProblem(q_len=45, kv_len=2500, head_dim=40, heads=2, kv_heads=1, dtype="fp32", mask=mask)
        yield Case(problem, cases.rising)


def verify(name: str, case: Case, seed: int = 0, *, tiles: TileSizes | None = None) -> Report:
    """Run one kernel on one case, with several threads and with one, and check what a CPU lets us see.

    The layout of the case means nothing here: tensors are contiguous. Raises InputError as `prepare` does.
    """
    started, report = time.perf_counter(), Report(name, case, engine="cpu")
    given = case.inputs(case.problem, seed)
    before = {n: array.copy() for n, array in given.items()}
    first, second = (_run(name, case, given, tiles, threads) for threads in (get_num_threads(), 1))
    program = record(find(name).text("fwd"), case.problem.features)
    exact = expected(program, case.problem, before)
    report.differences = {n: compare(values, exact[n]) for n, values in first.items()}
    report.problems["values"] = list(wrong_values(report.differences))
    report.problems["memory"] = [f"{n} is not written everywhere" for n, values in first.items() if _poisoned(values)]
    report.problems["memory"] += [f"the input {n} is changed" for n in _changed(before, given)]
    changed = _changed(first, second)
    report.problems["determinism"] = [f"{n} depends on the number of threads: its bits change" for n in changed]
    report.reproducible = not changed
    report.seconds = time.perf_counter() - started
    return report


def _run(name: str, case: Case, given: Mapping[str, Array], tiles: TileSizes | None, threads: int) -> dict[str, Array]:
    """The outputs, poisoned before the kernel wrote them."""
    now = get_num_threads()
    set_num_threads(threads)
    try:
        prepared = prepare(name, case.problem, given, tiles)
        for values in prepared.outputs.values():
            values[...] = np.int32(POISON).view(np.float32)
        prepared.run()
    finally:
        set_num_threads(now)
    return prepared.outputs


def _poisoned(values: Array) -> bool:
    return bool((np.ascontiguousarray(values).view(np.int32) == POISON).any())


def _changed(one: Mapping[str, Array], other: Mapping[str, Array]) -> list[str]:
    return [n for n, values in one.items() if values.tobytes() != other[n].tobytes()]
