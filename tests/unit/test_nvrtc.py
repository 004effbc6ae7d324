"""NVRTC: what it makes, what it refuses and how that is said, and what its log holds."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from ioaware.algorithms import find
from ioaware.errors import InputError, MissingExtra
from ioaware_kernels import golden, nvrtc
from ioaware_kernels.implementation import Implementation, KernelLaunch, SharedRegion
from tests.compiler import needs_nvrtc

ROOT = Path(__file__).parents[2]
GOOD = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }\n'
VIRTUAL, REAL = "--gpu-architecture=compute_80", "--gpu-architecture=sm_80"


# Compiling


@needs_nvrtc
def test_a_virtual_architecture_gives_ptx_without_the_terminating_nul():
    code = nvrtc.compile(GOOD, "twice.cu", [VIRTUAL]).code
    assert b".entry twice(" in code
    assert b"\0" not in code


@needs_nvrtc
def test_a_real_architecture_gives_a_cubin():
    assert nvrtc.compile(GOOD, "twice.cu", [REAL]).code.startswith(b"\x7fELF")


@needs_nvrtc
def test_ptx_does_not_tell_where_it_was_compiled(tmp_path, monkeypatch):
    codes = []
    for folder in (tmp_path, tmp_path.parent, Path(os.sep)):
        monkeypatch.chdir(folder)
        codes.append(nvrtc.compile(GOOD, "twice.cu", [VIRTUAL, "-lineinfo"]).code)
    assert len(set(codes)) == 1
    assert b'.file\t1 "twice.cu"' in codes[0]
    assert os.fsencode(tmp_path.parent) not in codes[0]


@needs_nvrtc
def test_the_release_is_the_version_with_its_build():
    assert nvrtc.release().split(".")[:2] == [str(number) for number in nvrtc.version()]


REFUSED = {
    "an error in the source": (GOOD + "__device__ int y = z;", [], r"line 2: identifier \"z\" is undefined"),
    "a warning before it": ("__device__ void f() { int error; }\n#error stop", [], "line 2: #error directive: stop"),
    "no such header": ("#include <math.h>", [], r"line 1: could not open source file \"math\.h\".*"),
    "a static assertion": ('static_assert(1 == 2, "one");', [], 'line 1: static assertion failed with "one"'),
    "an option": (GOOD, ["--nope"], "unrecognized option --nope found"),
    "an architecture": (GOOD, ["--gpu-architecture=sm_8"], r"invalid value for --gpu-architecture \(-arch\)"),
    "the assembler": ('__global__ void f() { asm("foo;"); }', [REAL], "Not a name of any known instruction: 'foo'"),
}


@needs_nvrtc
@pytest.mark.parametrize(("source", "options", "what"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_one_sentence_and_keeps_the_log(source, options, what):
    with pytest.raises(InputError, match=rf"^bad\.cu does not compile with NVRTC \d+\.\d+: {what}$") as caught:
        nvrtc.compile(source, "bad.cu", options)
    assert isinstance(caught.value, nvrtc.CompileError)
    assert str(caught.value).rpartition(": ")[2] in caught.value.log


def test_without_nvrtc_the_message_says_what_to_install(tmp_path):
    with pytest.raises(MissingExtra, match=r"needs nvidia-cuda-nvrtc: pip install 'ioaware\[nvrtc\]'"):
        nvrtc.version(where=tmp_path)


# Where it is


@pytest.mark.parametrize(
    "file",
    [
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "nvidia/cuda_nvrtc/bin/nvrtc64_120_0.dll",
        "nvidia/cu13/lib/libnvrtc.so.13",
        "nvidia/cu13/bin/x86_64/nvrtc64_130_0.dll",
    ],
)
def test_a_wheel_is_found_and_its_other_libraries_are_not(file, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    for name in (path.name, "libnvrtc.alt.so.12", "libnvrtc-builtins.so.12.2", "nvrtc-builtins64_122.dll"):
        (path.parent / name).touch()
    assert list(nvrtc._candidates(tmp_path)) == [str(path)]


@pytest.mark.parametrize("variable", ["CUDA_PATH", "CUDA_HOME"])
def test_a_toolkit_is_found(variable, tmp_path, monkeypatch):
    path = tmp_path / "lib64" / "libnvrtc.so.12"
    path.parent.mkdir()
    path.touch()
    monkeypatch.setenv(variable, str(tmp_path))
    assert str(path) in nvrtc._candidates(None)


# The log


LOG = """k.cu(5): warning #177-D: variable "unused" was declared but never referenced
  int unused;
      ^

Remark: The warnings can be suppressed with "-diag-suppress <warning-number>"

ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas warning : Registers are spilled to local memory in function 'k', 2932 bytes spill stores, 3436 bytes spill loads
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'small' for 'sm_80'
ptxas info    : Function properties for small
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
ptxas         .     2416 bytes stack frame, 2932 bytes spill stores, 3436 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 2416 bytes cumulative stack size, 308 bytes smem, 364 bytes cmem[0]
ptxas info    : Function properties for called_by_k
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
"""


def test_resources_by_entry():
    assert nvrtc.resources(LOG) == {
        "small": nvrtc.Resources(registers=8, spill_bytes=0, stack_bytes=0, shared_bytes=0),
        "k": nvrtc.Resources(registers=64, spill_bytes=2932 + 3436 + 4 + 8, stack_bytes=2416 + 16, shared_bytes=308),
    }


def test_a_log_without_entries():
    assert nvrtc.resources("") == {}
    assert nvrtc.warnings("") == []


def test_warnings_of_compiler_and_assembler():
    assert nvrtc.warnings(LOG) == [LOG.splitlines()[line] for line in (0, 6, 7)]


@needs_nvrtc
def test_the_compiler_in_use_writes_such_logs():
    body = "__shared__ float s[7]; s[x[0] > 0] = 1; __syncthreads(); *x = s[1];"
    source = f'extern "C" __global__ void k(float* x) {{ {body} }}'
    log = nvrtc.compile(source, "k.cu", [REAL, "--ptxas-options=-v"]).log
    used = nvrtc.resources(log)["k"]
    assert used == nvrtc.Resources(used.registers, spill_bytes=0, stack_bytes=0, shared_bytes=28)
    assert used.registers > 0
    assert nvrtc.warnings(log) == []


# The gate on machine code


def gate():
    spec = importlib.util.spec_from_file_location("machine_code", ROOT / ".ci" / "machine_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def log_of(registers=64, spilled=0, stack=0, shared=0, more=""):
    return f"""ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas         .     {stack} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {registers} registers, {shared} bytes smem
{more}"""


def build_of(entry, threads):
    """A build with one launch of 10 x (32 + 1) floats of shared memory."""
    launch = KernelLaunch(entry, "", (1,), ("THREADS",), (), (SharedRegion("s", 10, "D", 1),))
    constants = {"HEAD_DIM": 32, "D": 32, "THREADS": threads}
    return golden.Build(
        Implementation("k.cu", "", find("flash2"), "fwd", ("full",), (constants,), (launch,)), constants, "fp32"
    )


LIMITS = {
    "registers": ({"registers": 128}, {"registers": 129}),  # 512 threads share 65,536
    "spills": ({}, {"spilled": 4}),
    "arrays in memory": ({}, {"stack": 8}),
    "shared memory": ({"shared": 101_376 - 4 * 10 * 33}, {"shared": 101_376 - 4 * 10 * 33 + 1}),
    "warnings": ({}, {"more": "ptxas warning : anything"}),
    "advice": ({}, {"more": "ptxas info    : (C7510) Potential Performance Loss"}),
}


@pytest.mark.parametrize(("legal", "refused"), LIMITS.values(), ids=LIMITS)
def test_the_gate_lets_the_limit_pass_and_nothing_beyond(legal, refused):
    build = build_of("k", 512)
    assert list(gate().problems(build, log_of(**legal))) == []
    assert len(list(gate().problems(build, log_of(**refused)))) == 1


def test_the_gate_misses_an_entry_that_is_not_there():
    assert list(gate().problems(build_of("other", 128), log_of())) == ["other: the source has no such entry"]
