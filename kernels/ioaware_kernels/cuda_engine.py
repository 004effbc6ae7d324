"""The engine `cuda`: the same PTX on a GPU through CuPy. CuPy is imported here, and only when the engine is made.

By default `cupy.RawModule` loads the PTX that the executor runs. `from_source` lets CuPy compile the `.cu` text with
its own NVRTC and options (it adds -ftz=true), as a person would who lifts a kernel into a script.
"""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from typing import Any

import numpy as np

from ioaware.errors import InputError, MissingExtra, Skipped

from .launch import Module, Plan
from .tensors import Tensor

FREE_SHARED_BYTES = 48 * 1024  # what a launch may have without asking: the CUDA programming guide, section 16


class CudaEngine:
    """Launches on the current device and stream; the tensors' memory goes there and comes back.

    Raises MissingExtra where CuPy is not installed, Skipped (exit code 77) where there is no usable GPU.
    """

    def __init__(self, *, from_source: bool = False, stream: Any = None) -> None:
        self.cupy, self.from_source, self.stream = _cupy(), from_source, stream

    def __call__(self, plan: Plan) -> None:
        """Run one launch. Raises InputError: more shared memory than the device has for one thread block."""
        function = self._function(plan.module, plan.kernel.name)
        self._give_shared_memory(function, plan)
        with self.stream or self.cupy.cuda.get_current_stream():
            there = {id(t): self.cupy.asarray(t.buffer.words) for t in plan.tensors}
            params = plan.parameters(lambda tensor: self._address(tensor, there))
            arguments = tuple(np.frombuffer(raw, np.dtype((np.void, len(raw)))) for raw in params.values())
            function(plan.grid, plan.block, arguments, shared_mem=plan.shared_bytes)
            for tensor in plan.tensors:
                tensor.buffer.words[...] = self.cupy.asnumpy(there[id(tensor)])
                tensor.note_written()

    def _address(self, tensor: Tensor, there: dict[int, Any]) -> int:
        if len(tensor.buffer.starts) > 1:
            raise Skipped(f"{tensor.name} lies in pieces far apart, which only the executor can do")
        return int(there[id(tensor)].data.ptr)

    def _function(self, module: Module, entry: str) -> Any:
        return _loaded(self.cupy, module, from_source=self.from_source).get_function(entry)

    def _give_shared_memory(self, function: Any, plan: Plan) -> None:
        total = plan.shared_bytes + plan.kernel.static_shared_bytes
        most = self.cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        if total > most:
            raise InputError(
                f"{plan.kernel.name} needs {total:,} B of shared memory per thread block; this device has {most:,}, "
                "so a smaller head_dim or kv_len is needed"
            )
        if total > FREE_SHARED_BYTES:
            function.max_dynamic_shared_size_bytes = plan.shared_bytes


@lru_cache(64)
def _loaded(cupy: Any, module: Module, *, from_source: bool) -> Any:
    """The module on the device: from the source text, or from PTX, which CuPy loads from a file."""
    if from_source:
        return cupy.RawModule(code=module.source, options=("--std=c++17", *module.options))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "module.ptx")
        with open(path, "w", encoding="utf-8") as file:
            file.write(module.ptx)
        loaded = cupy.RawModule(path=path)
        for entry in module.kernels:
            loaded.get_function(entry)  # loads now: the file goes away
        return loaded


@lru_cache(1)
def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise MissingExtra("--engine cuda", "CuPy", "gpu12") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as e:
        raise Skipped(f"--engine cuda: CuPy finds no usable GPU ({e}); --engine grid runs on any machine") from None
    if not count:
        raise Skipped("--engine cuda: CuPy finds no GPU; --engine grid runs on any machine")
    return cupy
