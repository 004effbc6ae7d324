"""The engine `jit`: kernels compiled to machine code, with the counts and findings of the grid, an order faster.

It judges no races and counts no requests: that is the grid's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from .launch import Module, Plan, Result
from .ptx.global_memory import SHIFT
from .ptx.jit.compile import Code, compiled
from .ptx.jit.run import launch


@lru_cache(256)
def code_of(module: Module, entry: str) -> Code:
    """A kernel of a module in machine code. Raises InputError for an opcode that is not run."""
    return compiled(module.kernel(entry), f"{entry}\0{module.ptx}")


@dataclass(frozen=True)
class JitEngine:
    """Compiled kernels on the CPU. Raises InputError for an opcode that is not run; the grid may run it.

    reverse: thread blocks in the opposite order.
    """

    reverse: bool = False
    name: ClassVar[str] = "jit"

    @property
    def opposite(self) -> JitEngine:
        """Thread blocks in the opposite order."""
        return JitEngine(not self.reverse)

    def __call__(self, plan: Plan) -> Result:
        """Run; the tensors' memory is changed in place."""
        tensors = plan.tensors
        params = plan.parameters(lambda t: (tensors.index(t) + 1) << SHIFT)
        result = launch(
            plan.kernel, code_of(plan.module, plan.kernel.name), plan.grid, plan.block, params,
            [t.buffer for t in tensors], plan.shared_bytes, plan.regions, reverse=self.reverse,
        )  # fmt: skip
        for tensor in tensors:
            tensor.note_written()
        return result
