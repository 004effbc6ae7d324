"""What the engine `cuda` refuses and what goes wrong on a GPU, in one sentence each, and the command's exit codes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ioaware.errors import InputError, Skipped, VerificationError
from ioaware_kernels.cuda_engine import CudaEngine
from ioaware_kernels.tensors import far_apart
from ioaware_kernels.verify import verify
from tests.messages.command import call
from tests.unit.cuda_launches import STORE, ragged, run_small
from tests.unit.fake_cupy import (
    CompileException,
    CUDADriverError,
    CUDARuntimeError,
    FakeCupy,
    OutOfMemoryError,
)


# ------------------------------------------------------------------------------------------------ launches
def test_more_shared_memory_than_there_is_is_refused(gpu):
    gpu.attributes["MaxSharedMemoryPerBlockOptin"] = 65_536
    with pytest.raises(InputError, match=r"^flash2: bytes of shared memory=67,968: this GPU gives .* 65,536 B, so a "):
        verify(*ragged("flash2", head_dim=256), CudaEngine())
    with pytest.raises(InputError, match=r"=65,540: .*nearest legal value is 65,536$"):
        run_small(static=65_536, shared=4)
    assert gpu.launches == []
    run_small(static=32_768, shared=32_768)
    assert len(gpu.launches) == 1


def test_a_grid_that_is_too_long_is_refused(gpu):
    """By the GPU's own limit where that is lower than CUDA's."""
    gpu.attributes["MaxGridDimY"] = 1000
    with pytest.raises(InputError, match=r"^k: thread blocks along y=1,001: .* at most 1,000 there; .* is 1,000$"):
        run_small(grid=(1, 1001))


def test_a_block_that_has_too_few_registers_is_refused(gpu):
    gpu.max_threads_per_block = 256
    with pytest.raises(InputError, match=r"^k: threads per block=512: .* nearest legal value is 256$"):
        run_small(block=(8, 64))


def test_tensors_far_apart_are_refused(gpu):
    with pytest.raises(InputError, match=r"^Q lies in pieces far apart"):
        verify(*ragged("flash2", layout=far_apart), CudaEngine())


# ------------------------------------------------------------------------------------------------ sources
def test_from_source_needs_a_source(gpu):
    with pytest.raises(InputError, match=r"^k: this module has PTX and no source; leave from_source out$"):
        run_small(from_source=True)


def test_what_does_not_compile_is_said_in_a_sentence(gpu):
    log = '/tmp/a/b.cu(12): error: identifier "foo" is undefined\n\n1 error detected in the compilation of "b.cu".\n'
    gpu.refuses["compile"] = CompileException(log)
    with pytest.raises(InputError, match=r"^flash2 does .* CuPy's NVRTC: line 12: identifier \"foo\" is undefined$"):
        verify(*ragged("flash2"), CudaEngine(from_source=True))


def test_cupy_without_a_compiler_is_no_pass(gpu):
    gpu.refuses["compile"] = RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file")
    with pytest.raises(Skipped, match=r"^flash2: CuPy needs NVRTC .*; the PTX needs none \(CuPy failed to load"):
        verify(*ragged("flash2"), CudaEngine(from_source=True))


# ------------------------------------------------------------------------------------------------ what goes wrong
UNSUPPORTED = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an unsupported toolchain."


@pytest.mark.parametrize(
    ("driver", "capability", "here"), [(12_010, "80", "12.1 and 8.0"), (12_020, "75", "12.2 and 7.5")]
)
def test_a_driver_or_a_gpu_that_is_too_old_is_named(driver, capability, here, gpu):
    gpu.driver, gpu.capability, gpu.refuses["load"] = driver, capability, CUDADriverError(UNSUPPORTED)
    with pytest.raises(Skipped) as refused:
        verify(*ragged("flash2"), CudaEngine())
    assert str(refused.value) == (
        "flash2: the PTX needs a driver for CUDA 12.2 and a GPU of compute capability 8.0, here are "
        f"{here} ({UNSUPPORTED[:-1]}); from source (--source) CuPy compiles for older ones"
    )


def test_a_refusal_of_ptx_that_should_work_is_a_failure(gpu):
    gpu.refuses["load"] = CUDADriverError("CUDA_ERROR_INVALID_PTX: a PTX JIT compilation failed")
    with pytest.raises(VerificationError, match=r"^flash2: the driver refuses the PTX: CUDA_ERROR_INVALID_PTX: a PTX"):
        verify(*ragged("flash2"), CudaEngine())


def test_a_refusal_of_what_cupy_compiled_is_a_failure(gpu):
    gpu.refuses["compile"] = CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available")
    with pytest.raises(VerificationError, match=r"^flash2: the driver refuses what CuPy compiled: CUDA_ERROR_NO_B"):
        verify(*ragged("flash2"), CudaEngine(from_source=True))


def test_a_stray_access_is_a_failure_in_a_sentence(gpu):
    """Also though leaving the stream and the device raises anew, as CUDA does once a kernel went wrong."""
    with pytest.raises(VerificationError) as failed:
        run_small(STORE, n=1 << 20)
    assert str(failed.value) == (
        "k failed on the GPU: cudaErrorIllegalAddress: an illegal memory access was encountered; "
        "--engine grid names the access that is wrong"
    )


def test_a_launch_that_is_refused_is_a_failure(gpu):
    gpu.refuses["launch"] = CUDADriverError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested")
    with pytest.raises(VerificationError, match=r"^k failed on the GPU: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too"):
        run_small()


def test_too_little_memory_is_said_in_a_sentence(gpu):
    gpu.refuses["upload"] = OutOfMemoryError("Out of memory allocating 24 bytes")
    with pytest.raises(InputError, match=r"^k: 24 B of tensors are more than the GPU has free; take fewer rows$"):
        run_small()


def without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def broken_cupy(monkeypatch):
    """CuPy's own import error has a banner; its cause says what is wrong."""
    import builtins

    plain = builtins.__import__

    def importing(name, *rest):
        if name == "cupy":
            raise ImportError("\n=====\nFailed to import CuPy.\n") from OSError("libcudart.so.12: cannot open it")
        return plain(name, *rest)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)


def machine(**changes):
    def make(monkeypatch):
        fake = FakeCupy(changes.get("devices", 1))
        fake.refuses = changes.get("refuses", {})
        fake.cuda.runtime.is_hip = changes.get("is_hip", False)
        monkeypatch.setitem(sys.modules, "cupy", fake)

    return make


NO_DRIVER = CUDARuntimeError(
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
)
NO_DEVICE = CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
TAKEN = CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")
MACHINES = {
    "no CuPy": (
        without_cupy,
        "needs CuPy: pip install 'ioaware[gpu12]' for CUDA 12, pip install 'ioaware[gpu13]' for CUDA 13",
    ),
    "a broken CuPy": (broken_cupy, "cannot load CuPy (libcudart.so.12: cannot open it)"),
    "no driver": (machine(refuses={"count": NO_DRIVER}), f"finds no usable GPU ({NO_DRIVER})"),
    "no device": (machine(refuses={"count": NO_DEVICE}), f"finds no usable GPU ({NO_DEVICE})"),
    "no devices": (machine(devices=0), "finds no GPU"),
    "a GPU that is taken": (machine(refuses={"context": TAKEN}), f"finds no usable GPU ({TAKEN})"),
    "ROCm": (machine(is_hip=True), "needs an NVIDIA GPU, this CuPy is for ROCm"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), MACHINES.values(), ids=MACHINES)
def test_a_machine_without_a_gpu_is_skipped(make, reason, monkeypatch, tmp_path):
    make(monkeypatch)
    expected = f"the engine cuda {reason}; --engine grid runs on any machine"
    with pytest.raises(Skipped) as skipped:
        CudaEngine()
    assert str(skipped.value) == expected
    assert call(tmp_path, "verify", "--engine", "cuda") == (77, "", f"Error: {expected}\n")


# ------------------------------------------------------------------------------------------------ exit codes
ARGUMENTS = ("verify", "--engine", "cuda", "--kernel", "flash2", "--N", "8", "--d", "256")


def test_exit_code_2_where_the_gpu_is_too_small(gpu, tmp_path):
    gpu.attributes["MaxSharedMemoryPerBlockOptin"] = 65_536
    result = call(tmp_path, *ARGUMENTS)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: flash2: bytes of shared memory=67,968: ")
    assert result.err.count("\n") == 1


def test_exit_code_77_where_the_driver_is_too_old(gpu, tmp_path):
    gpu.driver, gpu.refuses["load"] = 12_000, CUDADriverError(UNSUPPORTED)
    result = call(tmp_path, *ARGUMENTS)
    assert (result.code, result.err.count("\n")) == (77, 1)


def test_exit_code_1_where_the_kernel_fails(gpu, tmp_path):
    gpu.broken = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
    result = call(tmp_path, *ARGUMENTS)
    assert result.code == 1
    assert result.err.startswith("Error: flash2 failed on the GPU: cudaErrorIllegalAddress")


def test_exit_code_1_where_the_values_are_wrong(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "asnumpy", lambda array: array.host + np.int32(1 << 20))
    result = call(tmp_path, *ARGUMENTS)
    assert result.code == 1
    assert "differs from exact softmax" in result.err
