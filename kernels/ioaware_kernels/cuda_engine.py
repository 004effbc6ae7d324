"""The engine `cuda`: the same PTX on a GPU through CuPy. CuPy is imported here, and only when the engine is made.

By default `cupy.RawModule` loads the PTX that the executor runs, which needs a driver and no compiler. `from_source`
lets CuPy compile the `.cu` text with its own NVRTC and options, as a person would who lifts a kernel into a script.
CuPy then adds -ftz=true: numbers below the smallest normal one become 0.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ioaware.errors import InputError, IoawareError, Skipped, VerificationError, refuse

from .cases import Case, denormal
from .launch import Module, Plan
from .tensors import Tensor, far_apart

FREE_SHARED_BYTES = 48 * 1024  # what a launch may have without asking: the CUDA programming guide, section 16
INSTALL = "pip install 'ioaware[gpu12]' for CUDA 12, pip install 'ioaware[gpu13]' for CUDA 13"
ELSEWHERE = "--engine grid runs on any machine"


class CudaEngine:
    """Launches on the current device and stream, or on `stream` and its device; memory goes there and comes back.

    Raises Skipped (exit code 77) where CuPy is not installed or there is no usable GPU.
    """

    name = "cuda"

    def __init__(self, *, from_source: bool = False, stream: Any = None) -> None:
        self.cupy, self.from_source, self.stream = _cupy(), from_source, stream
        self._modules: dict[Module, Any] = {}

    @property
    def opposite(self) -> CudaEngine:
        """Itself: a GPU chooses its own order, another one each time."""
        return self

    def __call__(self, plan: Plan) -> None:
        """Run one launch and wait for it.

        Raises InputError: more shared memory, threads, blocks or memory than the GPU has; VerificationError: the
        kernel failed there; Skipped: the driver is too old for the PTX, or CuPy has no compiler.
        """
        name = plan.kernel.name
        try:
            with self._current() as stream:
                self._check(plan)
                self._launch(self._function(plan), plan, stream)
        except MemoryError:
            needed = sum(tensor.buffer.words.nbytes for tensor in plan.tensors)
            raise InputError(
                f"{name}: {needed:,} B of tensors are more than the GPU has free; take fewer rows"
            ) from None
        except self._errors as e:  # also what leaving the stream and the device raises after a kernel went wrong
            raise VerificationError(
                f"{name} failed on the GPU: {line_of(e)}; --engine grid names the access that is wrong"
            ) from None

    def unfit(self, case: Case) -> str:
        """What a case has that cannot be judged here, and why; empty for a case that can be run."""
        if case.layout is far_apart:
            return "tensors far apart, which only the executor can hold"
        if case.inputs is denormal and self.from_source:
            return "denormal numbers, which CuPy's -ftz=true makes 0"
        return ""

    # -------------------------------------------------------------------------------------------- the launch
    @contextmanager
    def _current(self) -> Iterator[Any]:
        """The stream and its device, both current."""
        device = -1 if self.stream is None else self.stream.device_id
        here = self.cupy.cuda.Device(None if device < 0 else device)  # -1: a stream of whatever device is current
        with here, self.stream or self.cupy.cuda.get_current_stream() as stream:
            yield stream

    def _launch(self, function: Any, plan: Plan, stream: Any) -> None:
        if plan.shared_bytes + plan.kernel.static_shared_bytes > FREE_SHARED_BYTES:
            function.max_dynamic_shared_size_bytes = plan.shared_bytes
        there = {tensor: self.cupy.asarray(tensor.buffer.words) for tensor in plan.tensors}
        params = plan.parameters(lambda tensor: _address(tensor, there[tensor]))
        function(plan.grid, plan.block, tuple(map(by_value, params.values())), shared_mem=plan.shared_bytes)
        stream.synchronize()  # what goes wrong in the kernel is said here
        for tensor, words in there.items():
            tensor.buffer.words[...] = self.cupy.asnumpy(words)
            tensor.note_written()

    def _check(self, plan: Plan) -> None:
        has = self.cupy.cuda.Device().attributes
        total, most = plan.shared_bytes + plan.kernel.static_shared_bytes, has["MaxSharedMemoryPerBlockOptin"]
        if total > most:
            rule = f"this GPU gives a thread block at most {most:,} B, so a smaller head_dim, kv_len or tile is needed"
            raise refuse(f"{plan.kernel.name}: bytes of shared memory", total, rule, most)
        for axis, blocks in zip("XYZ", plan.grid, strict=True):
            if blocks > (most := has[f"MaxGridDim{axis}"]):
                rule = f"this GPU launches at most {most:,} there"
                raise refuse(f"{plan.kernel.name}: thread blocks along {axis.lower()}", blocks, rule, most)

    # -------------------------------------------------------------------------------------------- the function
    def _function(self, plan: Plan) -> Any:
        """The kernel, loaded on the current device."""
        if plan.module not in self._modules:
            self._modules[plan.module] = self._module(plan)
        try:
            function = self._modules[plan.module].get_function(plan.kernel.name)
            most = function.max_threads_per_block  # loads it on this device, if that has not happened yet
        except self.cupy.cuda.compiler.CompileException as e:
            raise InputError(f"{plan.kernel.name} does not compile with CuPy's NVRTC: {line_of(e)}") from None
        except self._errors as e:
            raise self._not_loaded(plan, line_of(e)) from None
        except RuntimeError as e:
            rule = "CuPy needs NVRTC of a CUDA toolkit to compile the source; the PTX needs none"
            raise Skipped(f"{plan.kernel.name}: {rule} ({line_of(e)})") from None
        if prod(plan.block) > most:
            raise refuse(
                f"{plan.kernel.name}: threads per block", prod(plan.block), "it has registers for fewer here", most
            )
        return function

    def _module(self, plan: Plan) -> Any:
        module = plan.module
        if not self.from_source:
            return self.cupy.RawModule(path=_file(module.ptx))
        if not module.source:
            raise InputError(f"{plan.kernel.name}: this module has PTX and no source; leave from_source out")
        return self.cupy.RawModule(code=module.source, options=("--std=c++17", *module.options))

    def _not_loaded(self, plan: Plan, said: str) -> IoawareError:
        """What a driver that refuses a module means: mostly that it, or the GPU, is older than the PTX."""
        if self.from_source:
            return VerificationError(f"{plan.kernel.name}: the driver refuses what CuPy compiled: {said}")
        driver = self.cupy.cuda.runtime.driverGetVersion()
        of_driver, of_device = (driver // 1000, driver % 1000 // 10), int(self.cupy.cuda.Device().compute_capability)
        isa, target = needs(plan.module.ptx)
        if of_driver >= isa and of_device >= target:
            return VerificationError(f"{plan.kernel.name}: the driver refuses the PTX: {said}")
        return Skipped(
            f"{plan.kernel.name}: the PTX needs a driver for CUDA {isa[0]}.{isa[1]} and a GPU of compute capability "
            f"{target / 10}, here are {of_driver[0]}.{of_driver[1]} and {of_device / 10} ({said}); from source "
            "(--source) CuPy compiles for older ones"
        )

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """What CuPy raises where CUDA refuses something."""
        return self.cupy.cuda.driver.CUDADriverError, self.cupy.cuda.runtime.CUDARuntimeError


def needs(ptx: str) -> tuple[tuple[int, int], int]:
    """What PTX asks for: the CUDA version of the driver, and the GPU's compute capability times 10."""
    version = re.search(r"^\s*\.version\s+(\d+)\.(\d+)", ptx, re.MULTILINE)
    target = re.search(r"^\s*\.target\s+sm_(\d+)", ptx, re.MULTILINE)
    major, minor = (int(version[1]), int(version[2])) if version else (0, 0)
    # The PTX ISA's release notes: 7.x came with CUDA 11.x, 8.x with 12.x, 9.x with 13.x, but none with 12.6.
    return (major + 4, minor + (major == 8 and minor > 5)), int(target[1]) if target else 0


# ------------------------------------------------------------------------------------------------ helpers
def by_value(raw: bytes) -> Any:
    """A parameter as CuPy takes it: a NumPy array of one element goes by value, whatever the element is."""
    return np.frombuffer(raw, np.dtype((np.void, len(raw))))


def _address(tensor: Tensor, words: Any) -> int:
    if len(tensor.buffer.starts) > 1:
        raise InputError(f"{tensor.name} lies in pieces far apart, which only the executor has; use another layout")
    return int(words.data.ptr)


def line_of(e: BaseException) -> str:
    """The line of an error that says what is wrong."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    line = next((line for line in lines if "error" in line.lower()), lines[0]).rstrip(".")
    return re.sub(r"^.*\((\d+)\): error(?: #\S+)?: ", r"line \1: ", line)  # the compiler's own: without its folder


def _file(ptx: str) -> str:
    """The PTX as a file: CuPy reads it on every device, when that first needs it."""
    path = os.path.join(_folder(), f"{hashlib.sha256(ptx.encode()).hexdigest()}.ptx")
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(ptx)
    return path


@cache
def _folder() -> str:
    """A folder until this process ends."""
    folder = tempfile.mkdtemp(prefix="ioaware-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _cupy() -> Any:
    """CuPy, where it finds a GPU that works."""
    try:
        import cupy
    except ModuleNotFoundError as e:
        if e.name != "cupy":
            raise Skipped(f"the engine cuda cannot load CuPy ({line_of(e)}); {ELSEWHERE}") from None
        raise Skipped(f"the engine cuda needs CuPy: {INSTALL}; {ELSEWHERE}") from None
    except ImportError as e:
        raise Skipped(f"the engine cuda cannot load CuPy ({line_of(e.__cause__ or e)}); {ELSEWHERE}") from None
    try:
        if cupy.cuda.runtime.is_hip:
            raise Skipped(f"the engine cuda needs an NVIDIA GPU, this CuPy is for ROCm; {ELSEWHERE}")
        count = cupy.cuda.runtime.getDeviceCount()
        if count:
            cupy.cuda.Device().synchronize()  # makes a context: refused where others have the GPU for themselves
    except RuntimeError as e:
        raise Skipped(f"the engine cuda finds no usable GPU ({line_of(e)}); {ELSEWHERE}") from None
    if not count:
        raise Skipped(f"the engine cuda finds no GPU; {ELSEWHERE}")
    return cupy
