"""Launches on a GPU whose tensors stay there: what is timed is the kernel, not the way to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ioaware.errors import InputError, VerificationError

from ..cuda_engine import FREE_SHARED_BYTES, CudaEngine, by_value, line_of
from ..launch import Plan
from ..tensors import Array, Shape, Tensor, packed

NOT_A_NUMBER = 0xFF  # in every byte: NaN in fp32, fp16 and bf16


class DeviceTensor(Tensor):
    """A contiguous tensor on the GPU; of it the host's memory has one element."""

    def __init__(self, cupy: Any, name: str, shape: Shape, dtype: str) -> None:
        super().__init__(name, (1, 1, 1, 1), lambda *_: packed(shape)._replace(size=1), dtype)
        self.shape = shape
        self.array = cupy.empty(shape, f"i{self.itemsize}")  # bits: CuPy does not know every number format
        self.poison()

    def poison(self) -> None:
        """Fill with NaN."""
        self.array.data.memset_async(NOT_A_NUMBER, self.array.size * self.itemsize)

    def upload(self, cupy: Any, values: Array) -> None:
        """Put values there."""
        self.array = cupy.asarray(np.ascontiguousarray(self.format.encode(np.asarray(values))))

    def download(self, cupy: Any) -> Array:
        """(batch, heads, rows, columns) fp32."""
        return self.format.decode(cupy.asnumpy(self.array))


class Resident(CudaEngine):
    """As the engine `cuda`, but a launch is made ready once and run many times; `run` does not wait for it."""

    def ready(self, plan: Plan, there: Mapping[Tensor, DeviceTensor]) -> Callable[[], None]:
        """What runs the launch. Raises InputError, Skipped and VerificationError as the engine does."""
        self._check(plan)
        function = self._function(plan)
        if plan.shared_bytes + plan.kernel.static_shared_bytes > FREE_SHARED_BYTES:
            function.max_dynamic_shared_size_bytes = plan.shared_bytes
        params = plan.parameters(lambda tensor: int(there[tensor].array.data.ptr))
        arguments = tuple(map(by_value, params.values()))

        def run() -> None:
            function(plan.grid, plan.block, arguments, shared_mem=plan.shared_bytes)

        return run

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """In one sentence what CUDA refuses: InputError for too much memory, VerificationError for a failed launch."""
        try:
            yield
        except MemoryError:
            raise InputError(f"{name}: its tensors are more than the GPU has free; take fewer rows or heads") from None
        except self._errors as e:
            raise VerificationError(
                f"{name} failed on the GPU: {line_of(e)}; `ioaware verify` names the access"
            ) from None
