"""The kernels on a GPU: every case of the matrix, from golden PTX and from source; what only a GPU can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ioaware import reference
from ioaware.dtypes import ITEMSIZE
from ioaware.errors import InputError
from ioaware.problem import AttentionProblem
from ioaware_kernels.cases import Case, denormal, matrix
from ioaware_kernels.cuda_engine import FREE_SHARED_BYTES, CudaEngine
from ioaware_kernels.implementation import load, names, region_bytes, sizes
from ioaware_kernels.ptx.shadow import OUTSIDE
from ioaware_kernels.run import plans, program_of, run, tensors
from ioaware_kernels.tensors import far_apart
from ioaware_kernels.tolerance import Expected, compare, expected
from ioaware_kernels.verify import module_of, verify
from tests.fitting import head_dim_for, with_gaps
from tests.messages.command import call

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:CUDA path could not be detected:UserWarning")]

ROOT = Path(__file__).parents[2]
KERNELS = {name: load(name) for name in names()}
CASES = [(name, case) for name, kernel in KERNELS.items() for case in matrix(kernel) if case.layout is not far_apart]
FLUSHED = [(name, case) for name, case in CASES if case.inputs is not denormal]  # CuPy compiles with -ftz=true
SEED = 0


def of(cases):
    return pytest.mark.parametrize(("kernel", "case"), cases, ids=[f"{name}: {case}" for name, case in cases])


def judged(kernel, case, engine):
    """Values, guards, inputs and bits from run to run; what may differ there is named in the kernel's table."""
    report = verify(KERNELS[kernel], case, engine, SEED)
    assert report.problems == {"values": [], "memory": [], "determinism": []}
    assert report.reproducible or KERNELS[kernel].order_dependent
    return report


@of(CASES)
def test_golden_ptx(kernel, case):
    judged(kernel, case, CudaEngine())


@of(FLUSHED)
def test_source(kernel, case):
    judged(kernel, case, CudaEngine(from_source=True))


# ------------------------------------------------------------------------------------------------ against the executor
def given(case):
    """What a kernel reads: the inputs, and for a backward pass the outputs of the forward pass."""
    inputs = case.values(SEED)
    return {**{n: a.astype(np.float32) for n, a in reference.attention(case.problem, dict(inputs)).items()}, **inputs}


@of(CASES)
def test_both_engines_agree(kernel, case):
    implementation, inputs = KERNELS[kernel], given(case)
    module = module_of(implementation, case)
    here, there = (run(implementation, module, case.problem, inputs, case.layout, e) for e in (None, CudaEngine()))
    known = expected(program_of(implementation, case.problem), case.problem, case.values(SEED))
    for name, values in there.outputs.items():
        of_executor = Expected(here.outputs[name].astype(np.float64), known[name].tolerance, known[name].matters)
        assert compare(values, of_executor).is_fine, name


# ------------------------------------------------------------------------------------------------ shared memory
def general(kernel, head_dim, dtype=None, **how):
    """A ragged case with GQA, in the first dtype of the kernel unless another is given."""
    implementation = KERNELS[kernel]
    problem = AttentionProblem(
        q_len=4 if implementation.packs_group else 37, kv_len=75, head_dim=head_dim_for(implementation, head_dim),
        batch=2, heads=4, kv_heads=2, mask=implementation.masks[0], dtype=dtype or implementation.dtypes[0],
        direction=implementation.direction,
    )  # fmt: skip
    return Case(problem, **how)


def planned(kernel, case):
    """The tensors and the launches of a case."""
    implementation = KERNELS[kernel]
    placed = tensors(implementation, case.problem, given(case), case.layout)
    return placed, plans(implementation, module_of(implementation, case), case.problem, placed)


def shared_bytes(kernel, case):
    """Of every launch of a kernel."""
    implementation = KERNELS[kernel]
    named = sizes(case.problem, implementation.build_for(case.problem))
    itemsize = ITEMSIZE[case.problem.dtype]
    return [sum(region_bytes(r, named, itemsize) for r in launch.shared) for launch in implementation.launches]


EVERY = [(name, general(name, 200, dtype)) for name, kernel in KERNELS.items() for dtype in kernel.dtypes]
LARGE = [(name, case) for name, case in EVERY if max(shared_bytes(name, case)) > FREE_SHARED_BYTES]


@pytest.mark.parametrize("from_source", [False, True], ids=["ptx", "source"])
@of(LARGE)
def test_more_than_48_kb_of_shared_memory(kernel, case, from_source):
    judged(kernel, case, CudaEngine(from_source=from_source))


@pytest.mark.parametrize("kernel", ["flash2", "flash2_mma"])
def test_all_of_the_shared_memory_and_no_byte_more(kernel, gpu):
    most = gpu.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
    placed, (plan,) = planned(kernel, general(kernel, 64))
    CudaEngine()(plan._replace(shared_bytes=most))
    assert placed["O"].is_written
    with pytest.raises(InputError, match=rf"bytes of shared memory={most + 4:,}: .*nearest legal value is {most:,}$"):
        CudaEngine()(plan._replace(shared_bytes=most + 4))


# ------------------------------------------------------------------------------------------------ streams
def output(engine):
    case = general("flash2", 64)
    return run(KERNELS["flash2"], module_of(KERNELS["flash2"], case), case.problem, given(case), engine=engine).outputs


@pytest.mark.parametrize("from_source", [False, True], ids=["ptx", "source"])
def test_streams(from_source, gpu):
    """One that waits for nobody, given to the engine or current, gives the bits of the default stream."""
    plain = output(CudaEngine(from_source=from_source))
    stream = gpu.cuda.Stream(non_blocking=True)
    with gpu.cuda.Stream(non_blocking=True):
        current = output(CudaEngine(from_source=from_source))
    for other in (current, output(CudaEngine(from_source=from_source, stream=stream))):
        assert {n: a.tobytes() for n, a in other.items()} == {n: a.tobytes() for n, a in plain.items()}


# ------------------------------------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize("kernel", ["flash2", "flash2_mma"])
def test_a_store_beyond_the_last_row_is_seen(kernel):
    """One row too many lands in the guard zone behind each head."""
    case = general(kernel, 20, layout=with_gaps(KERNELS[kernel]))
    placed, (plan,) = planned(kernel, case)
    around = placed["Q"].buffer.holds == OUTSIDE
    # the row too many is computed from numbers, not from poison, which is a NaN
    placed["Q"].buffer.words.view(f"i{placed['Q'].itemsize}")[around] = 0
    arguments = [case.problem.q_len + 1 if a == case.problem.q_len else a for a in plan.arguments]
    CudaEngine()(plan)
    assert placed["O"].stray_elements() == 0
    CudaEngine()(plan._replace(arguments=tuple(arguments)))
    assert placed["O"].stray_elements() > 0


STRAY = """
from tests.gpu.test_kernels_on_gpu import CudaEngine, general, planned
placed, (plan,) = planned("flash2", general("flash2", 64))
placed["O"].at = placed["O"].at._replace(row=1 << 44)
try:
    CudaEngine()(plan)
except Exception as e:
    print(type(e).__name__, e)
"""


def environment():
    paths = [*map(str, (ROOT, ROOT / "simulator", ROOT / "kernels")), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def spawn(*arguments):
    """A process of its own: after a stray access no other launch works in the same one."""
    return subprocess.run(
        [sys.executable, *arguments], env=environment(), check=False, capture_output=True, text=True, timeout=120
    )


def test_a_stray_access_is_one_sentence():
    done = spawn("-c", STRAY)
    assert done.stdout.startswith("VerificationError flash2 failed on the GPU: ")
    assert "llegal" in done.stdout
    assert done.stdout.count("\n") == 1


# ------------------------------------------------------------------------------------------ the command and the example
def test_the_command(tmp_path):
    kernels = [part for name in ("flash2", "flash2_mma", "flash2_backward") for part in ("--kernel", name)]
    result = call(tmp_path, "verify", "--engine", "cuda", *kernels)
    assert result.code == 0
    assert result.err.startswith("left out: ")
    assert result.err.count("\n") == 1


def test_the_example():
    done = spawn(str(ROOT / "docs" / "examples" / "lift_a_kernel.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("flash2: O differs from exact softmax by ")
