"""A GPU: the checked-in PTX launched through CuPy with its tensors resident, timed by events on the current stream.

Clocks and other settings of the GPU are left alone. Ceilings: PTX loops for copies and exponentials (gpu_loops.py),
CuPy's matrix product in the problem's dtype.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ioaware import device as tables
from ioaware.device import Device
from ioaware.errors import InputError, Skipped, refuse
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program
from ioaware.readers.walk import Walk

from ..cases import Case
from ..cuda_engine import ELSEWHERE
from ..implementation import Implementation, load
from ..launch import Module, plan
from ..run import plans, program_of, shape_of, tiles_of
from ..tensors import Tensor, unpacked
from ..verify import module_of
from . import gpu_loops, peers
from .backend import Inputs, Subject
from .ceilings import Ceilings, rates_per_s
from .model import gpu as model_of
from .plan import Point, fits_memory
from .resident import DeviceTensor, Resident

SIDES = (2048, 4096)  # of the matrices
BLOCKS = 16  # thread blocks per SM of the loops
SAMPLE_S = 2e-3  # of a ceiling, about
OUTPUTS = ("O", "L")  # that are checked; P of naive attention would be large


class Cuda:
    """The current GPU. Raises Skipped: there is none, or no CuPy."""

    def __init__(self) -> None:
        try:
            self.engine = Resident()
        except Skipped as e:
            raise Skipped(f"{str(e).removesuffix(ELSEWHERE)}--device cpu runs on any machine") from None
        self.cupy = self.engine.cupy
        self.driver = self.cupy.cuda.runtime.driverGetVersion()
        self.properties = self.cupy.cuda.runtime.getDeviceProperties(self.cupy.cuda.Device().id)
        self.device = _device(self.properties)
        self.model = model_of(self.device)
        self._modules = {name: Module(ptx) for name, ptx in (("copy", gpu_loops.COPY), ("exp", gpu_loops.EXPONENTIALS))}
        self._far = self._tensor("far", 2 * (self.device.l2_bytes or 0) + 4)

    def describe(self) -> dict[str, Any]:
        """Name, driver, CUDA; clocks as nvidia-smi reads them now, where it is there."""
        d, cuda = self.device, self.cupy.cuda.runtime.runtimeGetVersion()
        return {
            "kind": "cuda", "name": _name(self.properties), "table": d.name, "sm_count": d.sm_count,
            "l2_bytes": d.l2_bytes, "memory_bytes": d.hbm_bytes, "cuda_runtime": cuda, "cuda_driver": self.driver,
            **_clocks(),
        }  # fmt: skip

    # -------------------------------------------------------------------------------------------- kernels
    def check(self, point: Point) -> None:
        """One of `ioaware_kernels.cuda`, forward, on a problem that it takes and this GPU holds."""
        implementation = load(point.algorithm)
        if implementation.direction != "fwd":
            raise refuse("--alg", point.algorithm, "only forward passes are timed", "flash2")
        if point.tiles is not None:
            raise InputError(
                f"--tiles={point.tiles}: a CUDA kernel has the tiles that it was built for; leave --tiles out"
            )
        implementation.build_for(point.problem)
        fits_memory(point, implementation.algorithm, self.device)

    def prepare(self, point: Point, inputs: Inputs) -> Subject:
        """The kernel with its tensors on the GPU."""
        implementation, problem = load(point.algorithm), point.problem
        program, tiles = program_of(implementation, problem), tiles_of(implementation.build_for(problem))
        with self.engine.told(point.algorithm):
            placed = self._placed(implementation, problem, inputs, program)
            module = module_of(implementation, Case(problem))
            launched = plans(implementation, module, problem, placed)
            runs = [self.engine.ready(one, {t: t for t in placed.values()}) for one in launched]
        outputs = [placed[name] for name in OUTPUTS if name in placed]
        return Subject(
            point.algorithm,
            partial(_each, runs),
            lambda: {t.name: t.download(self.cupy) for t in outputs},
            partial(_each, [t.poison for t in outputs]),
            program,
            tiles,
        )

    def _placed(
        self, implementation: Implementation, problem: AttentionProblem, inputs: Inputs, program: Program
    ) -> dict[str, DeviceTensor]:
        walk = Walk(program, problem, tiles_of(implementation.build_for(problem)))
        out = {}
        for name, tensor in program.tensors.items():
            dtype = problem.number_format(tensor.dtype)
            out[name] = DeviceTensor(self.cupy, name, shape_of(walk, tensor, problem), dtype)
            if tensor.role == "input":
                out[name].upload(self.cupy, unpacked(problem, inputs[name]))
        return out

    def peers(self, problem: AttentionProblem, inputs: Inputs) -> tuple[list[Subject], dict[str, str]]:
        """PyTorch's, each backend by itself."""
        return peers.on_cuda(problem, inputs)

    # -------------------------------------------------------------------------------------------- time
    def evict(self) -> None:
        """Write more than the L2 holds."""
        self._far.poison()

    def rest(self) -> None:
        """Nothing here: the GPU has no other threads."""

    def seconds(self, run: Callable[[], object], times: int) -> float:
        """By events before and after; launches follow one another without waiting."""
        before, after = (self.cupy.cuda.Event() for _ in range(2))
        with self.engine.told("a kernel"):
            before.record()
            for _ in range(times):
                run()
            after.record()
            after.synchronize()
            return float(self.cupy.cuda.get_elapsed_time(before, after)) / 1e3

    # -------------------------------------------------------------------------------------------- ceilings
    def ceilings(self, dtype: str, repeats: int) -> Ceilings:
        """Copies from an eighth of the L2 to eight times it."""
        l2 = self.device.l2_bytes or 32 << 20
        with self.engine.told("a ceiling"):
            return Ceilings(
                copy={size: self._copy(size, repeats) for size in (l2 // 8, l2 // 4, l2 // 2, l2, 2 * l2, 8 * l2)},
                matmul={f"cuBLAS {side}x{side}": self._matmul(side, dtype, repeats) for side in SIDES},
                exp=self._exp(repeats),
                launch=self._launch(repeats),
            )

    def _tensor(self, name: str, size: int) -> DeviceTensor:
        return DeviceTensor(self.cupy, name, (1, 1, 1, size // 4), "fp32")

    def _loop(self, name: str, arguments: list[Any]) -> Callable[[], None]:
        blocks = BLOCKS * self.device.sm_count
        module = self._modules[name]
        entry = next(iter(module.kernels))
        tensors: dict[Tensor, DeviceTensor] = {a: a for a in arguments if isinstance(a, DeviceTensor)}
        return self.engine.ready(plan(module, entry, (blocks,), (gpu_loops.THREADS,), arguments), tensors)

    def _copy(self, size: int, repeats: int) -> list[float]:
        """Source and target are two halves of the working set."""
        vectors = size // 2 // gpu_loops.WIDTH
        source, target = (self._tensor(name, vectors * gpu_loops.WIDTH) for name in ("from", "to"))
        work = 2 * vectors * gpu_loops.WIDTH
        return self._rate(work, lambda turns: self._loop("copy", [source, target, vectors, turns]), repeats)

    def _exp(self, repeats: int) -> list[float]:
        threads = BLOCKS * self.device.sm_count * gpu_loops.THREADS
        out = self._tensor("out", 4 * threads)
        work = threads * gpu_loops.CHAINS
        return self._rate(work, lambda turns: self._loop("exp", [out, turns]), repeats)

    def _launch(self, repeats: int) -> list[float]:
        """Of a kernel that has nothing to do, one behind the other."""
        out = self._tensor("out", 4 * BLOCKS * self.device.sm_count * gpu_loops.THREADS)
        return self._rate(1, lambda times: partial(_each, [self._loop("exp", [out, 0])] * times), repeats)

    def _matmul(self, side: int, dtype: str, repeats: int) -> list[float]:
        """bf16 is measured as fp16: the same units at the same rate."""
        number = np.dtype(np.float32 if dtype == "fp32" else np.float16)
        a = self.cupy.asarray(np.random.default_rng(0).standard_normal((side, side)).astype(number))
        return self._rate(2 * side**3, lambda times: partial(_each, [partial(self.cupy.matmul, a, a)] * times), repeats)

    def _rate(self, work: int, ready: Callable[[int], Callable[[], object]], repeats: int) -> list[float]:
        """Samples of work per second; `ready(n)` makes, outside the clock, what does it n times."""
        once = min(self.seconds(ready(1), 1) for _ in range(3))
        times = max(1, int(SAMPLE_S / once)) if once > 0 else 1
        run = ready(times)
        return rates_per_s(work * times, lambda: self.seconds(run, 1), repeats)


def _each(actions: Sequence[Callable[[], object]]) -> None:
    """Do all of them, in order."""
    for action in actions:
        action()


# ------------------------------------------------------------------------------------------------ which GPU it is
def _device(properties: dict[str, Any]) -> Device:
    """The table of this GPU: the same compute capability and number of SMs, and the nearest memory; else as it says."""
    capability = f"{properties['major']}.{properties['minor']}"
    every = [tables.load(name) for name in tables.names() if name != "cpu"]
    same = [d for d in every if (d.compute_capability, d.sm_count) == (capability, properties["multiProcessorCount"])]
    if same:
        return min(same, key=lambda d: abs(d.hbm_bytes - properties["totalGlobalMem"]))
    return Device(
        name=_name(properties),
        compute_capability=capability,
        sm_count=properties["multiProcessorCount"],
        sram_bytes=properties["sharedMemPerMultiprocessor"],
        l2_bytes=properties["l2CacheSize"],
        hbm_bytes=properties["totalGlobalMem"],
    )


def _name(properties: dict[str, Any]) -> str:
    name = properties["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _clocks() -> dict[str, str]:
    """What nvidia-smi reads; nothing is set."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    asked = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    command = [tool, f"--query-gpu={asked}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [text.strip() for text in done.stdout.partition("\n")[0].split(",")]
    names = asked.split(",")
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {}
