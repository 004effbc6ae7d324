"""The engine `cuda` and the example that lifts a kernel, on a CuPy that launches with the PTX executor."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from struct import pack, unpack

import numpy as np
import pytest

from ioaware_kernels import cases, cuda_engine, golden
from ioaware_kernels.cases import matrix
from ioaware_kernels.cuda_engine import CudaEngine, needs
from ioaware_kernels.implementation import load, names
from ioaware_kernels.launch import Module, launch
from ioaware_kernels.tensors import Tensor, far_apart, padded, padded_by_eight
from ioaware_kernels.verify import module_of, verify
from tests.fitting import with_gaps
from tests.messages.command import call
from tests.unit.cuda_launches import STORE, ragged, run_small, small
from tests.unit.fake_cupy import (
    FakeCupy,
    Stream,
)
from tests.unit.test_cuda_refusals import MACHINES, NO_DRIVER, without_cupy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "lift_a_kernel.py"


# ------------------------------------------------------------------------------------------------ the whole path
@pytest.mark.parametrize("from_source", [False, True], ids=["ptx", "source"])
@pytest.mark.parametrize(("kernel", "dtype"), [(name, dtype) for name in names() for dtype in load(name).dtypes])
def test_every_kernel_verifies(kernel, dtype, from_source, gpu):
    case = ragged(kernel, dtype=dtype, layout=with_gaps(load(kernel)))
    report = verify(*case, CudaEngine(from_source=from_source))
    assert report.problems == {"values": [], "memory": [], "determinism": []}
    assert report.differences
    assert len(gpu.launches) == 2 * len(load(kernel).launches)


def test_every_case_of_the_matrix_verifies(gpu):
    engine = CudaEngine()
    fit = [case for case in matrix(load("flash2")) if not engine.unfit(case)]
    assert [r.problems for r in (verify(load("flash2"), c, engine) for c in fit) if not r.is_fine] == []
    assert len(fit) > 10


def test_what_differs_from_run_to_run_is_seen(gpu):
    """dQ of flash2_backward is added up by many thread blocks: in another order its last bits change, and may."""
    implementation, case = ragged("flash2_backward", head_dim=32)
    case = case._replace(problem=replace(case.problem, q_len=97, kv_len=161))
    gpu.reverses_after = len(implementation.launches)
    report = verify(implementation, case, CudaEngine())
    assert report.is_fine
    assert not report.reproducible


def test_a_wrong_result_is_seen(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "asnumpy", lambda array: array.host + np.int32(1 << 20))
    report = verify(*ragged("flash2"), CudaEngine())
    assert report.problems["values"]


def test_nothing_written_is_seen(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "run", lambda *_: None)
    report = verify(*ragged("flash2"), CudaEngine())
    assert report.problems["memory"] == ["O is not written everywhere", "L is not written everywhere"]


def test_a_store_between_rows_is_seen(gpu):
    tensor = run_small(STORE, n=17 + 3, layout=lambda shape, _: padded(shape)._replace(first=0))
    assert tensor.stray_elements() == 1


def test_memory_comes_back(gpu):
    tensor = run_small(STORE, n=4)
    assert tensor.values.view(np.int32).reshape(-1).tolist() == [0, 0, 0, 0, 7, 0]
    assert not gpu.memory, "nothing stays on the device"


def test_outputs_count_as_written_where_they_lost_their_poison(gpu):
    tensor = Tensor("x", (1, 1, 1, 2))
    for n in range(2):
        launch(small(STORE), "k", (1,), (1,), [tensor, n], engine=CudaEngine())
        assert tensor.is_written == (n == 1)


# ------------------------------------------------------------------------------------------------ the launch
def test_arguments_are_the_bytes_that_the_kernel_declares(gpu):
    implementation, case = ragged("flash2", layout=padded)
    verify(implementation, case, CudaEngine())
    *views, q_len, kv_len, head_dim, group, scale = gpu.launches[0].arguments.values()
    assert [len(view) for view in views] == [32] * 5
    assert [unpack("<i", n)[0] for n in (q_len, kv_len, head_dim, group)] == [37, 41, 20, 2]
    assert scale == pack("<f", 20**-0.5)
    shapes = [(2, 4, 37, 20), (2, 2, 41, 20), (2, 2, 41, 20), (2, 4, 37, 20), (2, 4, 37, 1)]
    for view, at in zip(views, (padded(shape, n) for n, shape in enumerate(shapes)), strict=True):
        data, *strides = unpack("<Qqqq", view)
        assert data % (1 << 40) == 4 * at.first
        assert strides == [at.batch, at.head, at.row]
    assert len({view[:8] for view in views}) == 5


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_16_bit_tensor_begins_where_the_kernel_is_told(dtype, gpu):
    """Strides are in elements, the pointer counts bytes; L is fp32."""
    verify(*ragged("flash2_mma", dtype=dtype, layout=padded_by_eight), CudaEngine())
    *views, q_len, kv_len, head_dim, group, causal, _scale = gpu.launches[0].arguments.values()
    assert [unpack("<i", n)[0] for n in (q_len, kv_len, head_dim, group, causal)] == [37, 41, 24, 2, 0]
    shapes = [(2, 4, 37, 24), (2, 2, 41, 24), (2, 2, 41, 24), (2, 4, 37, 24), (2, 4, 37, 1)]
    places = (padded_by_eight(shape, n) for n, shape in enumerate(shapes))
    for view, at, itemsize in zip(views, places, (2, 2, 2, 2, 4), strict=True):
        data, *strides = unpack("<Qqqq", view)
        assert data % (1 << 40) == itemsize * at.first
        assert strides == [at.batch, at.head, at.row]


@pytest.mark.parametrize(
    ("kind", "value", "raw"),
    [
        ("u32", 7, pack("<i", 7)), ("s32", -7, pack("<i", -7)), ("s64", -7, pack("<q", -7)),
        ("f32", 0.1, pack("<f", 0.1)), ("f64", 0.1, pack("<d", 0.1)), ("f32", 3, pack("<f", 3)),
    ],
)  # fmt: skip
def test_a_number_has_the_size_of_its_parameter(kind, value, raw, gpu):
    launch(Module(f".visible .entry k(.param .{kind} n) {{ ret; }}"), "k", (1,), (1,), [value], engine=CudaEngine())
    assert [*gpu.launches[0].arguments.values()] == [raw]


def test_a_tensor_that_is_given_twice_is_one(gpu):
    x = Tensor("x", (1, 1, 1, 2)).fill(np.zeros((1, 1, 1, 2)))
    two = Module(".visible .entry k(.param .u64 p, .param .u64 q) { ret; }")
    launch(two, "k", (1,), (1,), [x, x], engine=CudaEngine())
    assert len(set(gpu.launches[0].arguments.values())) == 1
    assert [what for what, *_ in gpu.log].count("upload") == 1


@pytest.mark.parametrize(
    ("static", "dynamic", "asked"),
    [
        (0, 48 * 1024, 48 * 1024),
        (0, 48 * 1024 + 4, 48 * 1024 + 4),
        (40_960, 16_384, 16_384),
        (40_960, 8_192, 48 * 1024),
    ],
)
def test_shared_memory_beyond_48_kb_is_asked_for(static, dynamic, asked, gpu):
    run_small(shared=dynamic, static=static)
    assert (gpu.launches[0].shared_mem, gpu.launches[0].asked) == (dynamic, asked)


def test_the_largest_build_gets_its_shared_memory(gpu):
    """flash2 with head_dim 256: sQ and sK, sV of 32 and 16 rows of 257 floats, sP of 32 x 17."""
    needed = 4 * ((32 + 16 + 16) * 257 + 32 * 17)
    report = verify(*ragged("flash2", head_dim=256), CudaEngine())
    assert report.is_fine
    assert {(launched.shared_mem, launched.asked) for launched in gpu.launches} == {(needed, needed)}


# ------------------------------------------------------------------------------------------------ streams and devices
def where(gpu, *operations):
    return {(device, stream) for what, device, stream in gpu.log if what in operations}


ALL = ("upload", "launch", "synchronize", "download", "load")


def test_everything_is_done_on_the_current_stream(gpu):
    with (stream := Stream(gpu, 0)):
        run_small(STORE)
    assert where(gpu, *ALL) == {(0, stream)}


def test_everything_is_done_on_the_stream_that_is_given(gpu):
    stream, null = Stream(gpu, 0), gpu.streams[-1]
    run_small(STORE, stream=stream)
    assert where(gpu, *ALL) == {(0, stream)}
    assert gpu.streams == [null]


def test_the_device_is_that_of_the_stream(monkeypatch):
    gpu = FakeCupy(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", gpu)
    stream = Stream(gpu, 1)
    assert run_small(STORE, n=2, stream=stream).values.view(np.int32)[0, 0, 0, 2] == 7
    assert where(gpu, *ALL) == {(1, stream)}
    assert gpu.device == 0


def test_the_kernel_has_run_when_the_results_are_fetched(gpu):
    run_small(STORE)
    assert [what for what, *_ in gpu.log][-4:] == ["upload", "launch", "synchronize", "download"]


# ------------------------------------------------------------------------------------------------ PTX and source
def test_the_ptx_is_that_of_the_executor(gpu):
    implementation, case = ragged("flash2")
    verify(implementation, case, CudaEngine())
    ((path, code, options),) = {(m.path, m.code, m.options) for m in gpu.raw_modules}
    assert (code, options) == (None, ())
    assert Path(path).read_bytes() == module_of(implementation, case).ptx.encode()


def test_a_module_loads_once_per_device(monkeypatch):
    gpu = FakeCupy(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", gpu)
    module, engine = small(STORE), CudaEngine()
    for device in (0, 0, 1, 1):
        with gpu.cuda.Device(device):
            launch(module, "k", (1,), (1,), [Tensor("x", (1, 1, 1, 2)), 0], engine=engine)
    assert [(what, device) for what, device, _ in gpu.log if what == "load"] == [("load", 0), ("load", 1)]


FOLDER = """
import sys
from tests.unit.fake_cupy import FakeCupy
sys.modules["cupy"] = FakeCupy()
from tests.unit.cuda_launches import run_small
run_small()
print(sys.modules["cupy"].raw_modules[0].path)
"""


def test_the_files_go_when_the_process_ends(tmp_path):
    paths = os.pathsep.join([*map(str, (ROOT, ROOT / "simulator", ROOT / "kernels")), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FOLDER], env=env, check=True, capture_output=True, text=True, timeout=60
    )
    assert Path(done.stdout.strip()).parents[1] == tmp_path
    assert [*tmp_path.iterdir()] == []


def test_from_source_cupy_gets_the_text_and_the_constants(gpu):
    implementation, case = ragged("flash2", head_dim=64)
    verify(implementation, case, CudaEngine(from_source=True))
    ((path, code, options),) = {(m.path, m.code, m.options) for m in gpu.raw_modules}
    assert (path, code) == (None, implementation.source)
    build = golden.Build(implementation, implementation.build_for(case.problem), "fp32")
    assert options == ("--std=c++17", *build.definitions)
    assert "-DHEAD_DIM=64" in options


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_from_source_cupy_is_told_the_dtype(dtype, gpu):
    verify(*ragged("flash2_mma", dtype=dtype), CudaEngine(from_source=True))
    ((_, options),) = {(m.code, m.options) for m in gpu.raw_modules}
    assert options[:3] == ("--std=c++17", f"-D{dtype.upper()}=1", "-DHEAD_DIM=64")


@pytest.mark.parametrize(
    ("isa", "cuda"),
    [("7.0", (11, 0)), ("7.8", (11, 8)), ("8.2", (12, 2)), ("8.5", (12, 5)), ("8.6", (12, 7)), ("8.8", (12, 9)),
     ("9.0", (13, 0))],
)  # fmt: skip
def test_the_cuda_version_of_a_ptx_version(isa, cuda):
    """The table of the PTX ISA's release notes."""
    assert needs(f"//\n.version {isa}\n.target sm_90a\n.address_size 64\n") == (cuda, 90)


def test_the_golden_ptx_needs_what_its_documentation_says():
    """NVRTC 12.2 and compute_80; driver 535 is the first of CUDA 12.2."""
    assert {needs(golden.load(build)) for build in golden.builds()} == {((12, 2), 80)}


def test_what_cannot_be_judged_is_left_out(gpu):
    of_ptx, of_source = CudaEngine(), CudaEngine(from_source=True)
    for case in matrix(load("flash2")):
        assert bool(of_ptx.unfit(case)) == (case.layout is far_apart)
        assert bool(of_source.unfit(case)) == (case.layout is far_apart or case.inputs is cases.denormal)


def test_cupy_is_imported_only_where_it_is_used(monkeypatch, tmp_path):
    without_cupy(monkeypatch)
    assert call(tmp_path, "verify", "--kernel", "flash2", "--N", "8", "--d", "4").code == 0
    files = [ROOT / folder for folder in ("simulator", "kernels")]
    importing = {p.name for folder in files for p in folder.rglob("*.py") if "import cupy" in p.read_text("utf-8")}
    assert importing == {Path(cuda_engine.__file__).name}


# ------------------------------------------------------------------------------------------------ the command
def test_the_command_says_what_it_leaves_out(gpu, tmp_path):
    result = call(tmp_path, "verify", "--engine", "cuda", "--kernel", "flash2", "--kernel", "split_kv")
    assert result.code == 0
    assert result.err == "left out: 3 cases with tensors far apart, which only the executor can hold\n"
    assert "flash2" in result.out


def test_the_command_compiles_with_cupy(gpu, tmp_path):
    result = call(tmp_path, "verify", "--engine", "cuda", "--source", "--kernel", "flash2", "--json")
    assert result.code == 0
    assert result.err == (
        "left out: 1 case with tensors far apart, which only the executor can hold; "
        "1 case with denormal numbers, which CuPy's -ftz=true makes 0\n"
    )
    printed = json.loads(result.out)
    assert (printed["engine"], printed["ok"]) == ("cuda", True)
    assert {tuple(case["checks"]) for case in printed["cases"]} == {("values", "memory", "determinism")}
    assert all(module.code for module in gpu.raw_modules)


def test_the_command_leaves_nothing_out_of_a_problem(gpu, tmp_path):
    result = call(tmp_path, "verify", "--engine", "cuda", "--kernel", "flash2", "--N", "33", "--d", "8")
    assert (result.code, result.err) == (0, "")


# ------------------------------------------------------------------------------------------------ the example
def example():
    """The example's exit code."""
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return stop.value.code


def test_the_example_lifts_a_kernel(gpu, capsys):
    assert example() == 0
    out = capsys.readouterr().out
    assert out.startswith("flash2: O differs from exact softmax by ")
    assert out.count("\n") == 1
    (launched,) = gpu.launches
    assert (launched.kernel, launched.shared_mem) == ("flash2", 29_184)  # as launch.py's own example


def test_the_example_sees_a_wrong_kernel(gpu, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "run", lambda *_: None)
    assert example() == 1
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("name", ["no CuPy", "a broken CuPy", "no driver"])
def test_the_example_says_that_there_is_no_gpu(name, monkeypatch, capsys):
    MACHINES[name][0](monkeypatch)
    if name == "no driver":
        sys.modules["cupy"].refuses["context"] = NO_DRIVER
    assert example() == 77
    out = capsys.readouterr().out
    assert out.startswith("this needs CuPy and a GPU, pip install 'ioaware[gpu12]' or 'ioaware[gpu13]': ")


def test_the_example_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
