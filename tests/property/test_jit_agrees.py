"""The engines `grid` and `jit` agree on the project's kernels: the same traffic, no findings, outputs that differ only
where exponentials and the order of atomics may make them.

Every kernel on every case of its matrix; mistakes put into the PTX, whose findings must be the same.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.problem import AttentionProblem
from ioaware_kernels.cases import Case, matrix
from ioaware_kernels.implementation import load, names
from ioaware_kernels.jit_engine import JitEngine
from ioaware_kernels.launch import GridEngine, Module
from ioaware_kernels.run import program_of, run
from ioaware_kernels.tensors import repacked
from ioaware_kernels.tolerance import compare, expected
from ioaware_kernels.verify import module_of


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IOAWARE_CACHE_DIR", str(tmp_path_factory.mktemp("jit")))
        yield


def found(launched):
    return {(f.what, f.instruction, f.memory): f.times for f in launched.findings}


def both(implementation, module, case, seed=0):
    """The runs of both engines, after their counts and findings were compared, and what is expected."""
    inputs = case.values(seed)
    exact = expected(program_of(implementation, case.problem), case.problem, inputs)
    given_ = {**{name: repacked(e.exact) for name, e in exact.items()}, **inputs}
    by_grid, by_jit = (
        run(implementation, module, case.problem, given_, case.layout, e) for e in (GridEngine(), JitEngine())
    )
    for a, b in zip(by_grid.launches, by_jit.launches, strict=True):
        assert b.counts.bytes == a.counts.bytes
        assert found(b) == found(a)
    return by_grid, by_jit, exact


def is_ordered(module):
    """Whether the order of thread blocks can change the last bits."""
    return re.search(r"\b(atom|red)\.", module.ptx) is not None


@pytest.mark.parametrize("kernel", names())
def test_every_case_of_the_matrix(kernel):
    implementation = load(kernel)
    for case in matrix(implementation):
        _, by_jit, exact = both(implementation, module_of(implementation, case), case)
        assert by_jit.findings == []
        for name, e in exact.items():
            if name in by_jit.outputs:
                assert compare(by_jit.outputs[name], e).is_fine, f"{case}: {name}"


@pytest.mark.parametrize("kernel", names())
@settings(max_examples=4)
@given(q_len=st.integers(1, 70), kv_len=st.integers(1, 70), head_dim=st.integers(1, 48), seed=st.integers(0, 99))
def test_random_problems(kernel, q_len, kv_len, head_dim, seed):
    implementation = load(kernel)
    q_len = min(q_len, 16) if implementation.packs_group else q_len
    problem = AttentionProblem(
        q_len=q_len, kv_len=kv_len, head_dim=head_dim, mask=implementation.masks[0],
        dtype=next(matrix(implementation)).problem.dtype, direction=implementation.direction,
    )  # fmt: skip
    if implementation.solves(problem):
        both(implementation, module_of(implementation, Case(problem)), Case(problem), seed)


def without_exponentials(module):
    """The same kernel with a division in the place of every exponential and logarithm: all its arithmetic is exact."""
    ptx = re.sub(r"(?:ex2|lg2)\.approx(?:\.ftz)?\.f32", "rcp.rn.f32", module.ptx)
    return Module(ptx, module.source, module.options)


@pytest.mark.parametrize("kernel", [k for k in names() if not load(k).packs_group])
def test_without_exponentials_every_bit_is_the_same(kernel):
    implementation = load(kernel)
    case = next(matrix(implementation))
    module = without_exponentials(module_of(implementation, case))
    by_grid, by_jit, _ = both(implementation, module, case)
    for name, want in by_grid.outputs.items():
        if not is_ordered(module):
            assert by_jit.outputs[name].tobytes() == want.tobytes(), name


MISTAKES = {
    "no bound": (r"setp\.ge\.s32 (\s*%p\d+), (%r\d+), (%r\d+);", r"setp.ge.s32 \1, -1, 0;"),
    "a word behind": (r"st\.global\.f32 (\s*)\[(%rd\d+)\]", r"st.global.f32 \1[\2+4]"),
    "a byte behind": (r"st\.shared\.f32 (\s*)\[(%rd\d+)\]", r"st.shared.f32 \1[\2+1]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("kernel", ["flash2", "naive", "split_kv"])
def test_mistakes_are_found_alike(kernel, mistake):
    implementation, (pattern, put) = load(kernel), MISTAKES[mistake]
    case = list(matrix(implementation))[1]
    original = module_of(implementation, case)
    wrong = Module(re.sub(pattern, put, original.ptx), original.source, original.options)
    assert wrong.ptx != original.ptx
    _, by_jit, _ = both(implementation, wrong, case)
    assert by_jit.findings
