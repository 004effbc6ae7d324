"""Every mistake planted in a kernel is caught by `verify`, by the checks that its row names.

The kernels are compiled anew, changed: NVRTC is needed. `pytest tests/quality/test_kernel_mutants.py -rP` prints, for
every mutant, what caught it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ioaware_kernels import implementation
from ioaware_kernels.cases import Case, matrix
from ioaware_kernels.implementation import Implementation
from ioaware_kernels.ptx import findings
from ioaware_kernels.verify import Report, verify
from tests.compiler import needs_nvrtc
from tests.quality.kernel_mutants_mma import TENSOR_CORES
from tests.quality.kernel_mutants_own import DERIVATIVES, FLASH1, NAIVE, SPLITS
from tests.quality.kernel_mutants_table import BOUNDS, CAUSAL, DECODING, HEADS, SOFTMAX, TILES, VECTORS, Mutant

ROWS = [*TILES, *HEADS, *SOFTMAX, *BOUNDS, *CAUSAL, *FLASH1, *NAIVE, *DERIVATIVES, *SPLITS, *TENSOR_CORES]
MUTANTS = [row._replace(kernel=kernel) for row in ROWS for kernel in row.kernel.split()]
BARRIER = re.compile(r"__sync(?:threads|warp)\(\);")
BROKEN = {  # what stands in a barrier's place, and a part of what must be found
    "__syncthreads();": {
        "removed": ("", "with no barrier between"),
        "of each warp": ("__syncwarp();", "with no barrier between"),
        "of half the threads": ("if (threadIdx.x % 64 < 32) __syncthreads();", "barrier"),  # missed, or not enough
    },
    "__syncwarp();": {
        "removed": ("", "with no __syncwarp between"),
        "of half the lanes": ("if (threadIdx.x % 32 < 16) __syncwarp();", findings.INACTIVE_LANE),
    },
}


pytestmark = needs_nvrtc


def source_of(kernel: str) -> str:
    return implementation.load(kernel).source


def broken_barriers() -> Iterator[tuple[str, int, str]]:
    """Every barrier of every kernel, by its position: removed, and of three kernels in the other ways too."""
    for kernel in implementation.names():
        for n, barrier in enumerate(BARRIER.findall(source_of(kernel))):
            for change in BROKEN[barrier]:
                if change == "removed" or kernel in ("naive", "split_kv", "flash2_mma"):
                    yield kernel, n, change


def changed(source: str, mutant: Mutant) -> str:
    """The source with the mistake. The old text must be there: once, or as often as the row counts."""
    for old, new, at in ((mutant.old, mutant.new, mutant.at), *((old, new, 0) for old, new in mutant.more)):
        places = [m.start() for m in re.finditer(re.escape(old), source)]
        assert old != new
        assert len(places) >= at if at else len(places) == 1, f"{old!r} is {len(places)} times in {mutant.kernel}.cu"
        start = places[max(at, 1) - 1]
        source = source[:start] + new + source[start + len(old) :]
    return source


def case_of(kernel: Implementation, name: str) -> Case:
    """The last case of the matrix with that name: of several masks the causal one."""
    translated = DECODING if kernel.packs_group else VECTORS if kernel.aligned > 1 else {}
    name = translated.get(name, name)
    return [case for case in matrix(kernel) if name in str(case)][-1]


@pytest.fixture
def verified(tmp_path: Path) -> Callable[[str, str, str], Report]:
    """Verifies a source in the place of a kernel's own."""

    def verified(kernel: str, source: str, case: str) -> Report:
        path = tmp_path / f"{kernel}.cu"
        path.write_text(source)
        copy = implementation.load(str(path))
        return verify(copy, case_of(copy, case), requests=copy.aligned > 1)

    return verified


def caught_by(report: Report) -> set[str]:
    """The checks that do not hold, and `banks`, which is none: 16 bytes of each lane take 4 passes over the banks."""
    requests = [r for launched, _ in report.launches for r in launched.counts.requests.values()]
    checks = {check for check, problems in report.problems.items() if problems}
    return checks | {"banks"} if any(r.passes > 4 * r.requests for r in requests) else checks


def tell(what: str, report: Report, record_property: Callable[[str, object], None]) -> set[str]:
    """The checks that caught it; printed for `pytest -rP`, and in a JUnit report."""
    caught = caught_by(report)
    print(f"{what} -> {', '.join(sorted(caught)) or 'nothing'}")
    record_property("caught by", sorted(caught))
    return caught


def test_no_two_mistakes_have_the_same_name():
    assert len({(m.kernel, m.name) for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.kernel}: {m.name}")
def test_mistake_is_caught(mutant, verified, record_property):
    report = verified(mutant.kernel, changed(source_of(mutant.kernel), mutant), mutant.case)
    caught, expected = tell(f"{mutant.kernel}: {mutant.name}", report, record_property), set(mutant.by.split())
    if "only" in expected:
        assert caught == expected - {"only"}
    else:
        assert caught >= expected


@pytest.mark.parametrize(("kernel", "nth", "change"), [*broken_barriers()])
def test_broken_barrier_is_found(kernel, nth, change, verified, record_property):
    source = source_of(kernel)
    barrier = list(BARRIER.finditer(source))[nth]
    new, sentence = BROKEN[barrier[0]][change]
    report = verified(kernel, source[: barrier.start()] + new + source[barrier.end() :], "34x70")
    tell(f"{kernel}: barrier {nth + 1} {change}", report, record_property)
    assert any(sentence in finding for finding in report.problems["findings"])


@pytest.mark.parametrize(("kernel", "case"), sorted({(m.kernel, m.case) for m in MUTANTS}))
def test_the_unchanged_kernel_passes(kernel, case, verified):
    report = verified(kernel, source_of(kernel), case)
    assert not caught_by(report), report.problems


@pytest.mark.parametrize("kernel", implementation.names())
def test_the_unchanged_kernel_passes_where_barriers_are_broken(kernel, verified):
    assert verified(kernel, source_of(kernel), "34x70").is_fine
