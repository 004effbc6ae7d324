"""A machine without speed: kernels compute with NumPy, time is what the test says, on a clock that only they move."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import numpy as np

from ioaware.algorithms import find
from ioaware.device import Device
from ioaware.program.recorder import record
from ioaware.readers.evaluate import TileSizes
from ioaware.reference import evaluate
from ioaware_kernels.bench import Subject
from ioaware_kernels.bench.ceilings import Ceilings
from ioaware_kernels.bench.model import cpu
from ioaware_kernels.tensors import unpacked

KB, MB = 1024, 1024**2
DEVICE = Device(name="fake", kind="cpu", sm_count=2, sram_bytes=64 * KB, l2_bytes=MB, hbm_bytes=1024 * MB)
TILES = TileSizes(32, 32)
COPY = {64 * KB: 4e9, 512 * KB: 2e9, 4 * MB: 1e9}  # bytes per second, by working set
FLOPS, EXPS, LAUNCHES = 1e9, 1e8, 1e6


class FakeMachine:
    """`time_s` maps (name, problem) to the seconds of a run; `factors` are those of successive ceilings."""

    def __init__(self, time_s=lambda name, p: 1e-9 * 4 * p.pairs() * p.head_dim, factors=(1.0,), peers=()):
        self.model, self.time_s, self.factors, self.names = cpu(DEVICE), time_s, cycle(factors), peers
        self.now, self.log, self.checked, self.broken = 0.0, [], [], {}

    def describe(self):
        return {"kind": "cpu", "name": DEVICE.name}

    def ceilings(self, dtype, repeats):
        self.log.append("ceilings")
        many = [next(self.factors) for _ in range(repeats)]
        return Ceilings(
            {size: [rate * f for f in many] for size, rate in COPY.items()},
            {"fake": [FLOPS * f for f in many]}, [EXPS * f for f in many], [LAUNCHES * f for f in many],
        )  # fmt: skip

    def check(self, point):
        self.checked.append(point)

    def prepare(self, point, inputs):
        program = record(find(point.algorithm).forward, point.problem.features)
        return self._subject(point.algorithm, point.problem, inputs, program, point.tiles or TILES)

    def peers(self, problem, inputs):
        return [self._subject(name, problem, inputs) for name in self.names], {"other": "not installed"}

    def _subject(self, name, problem, inputs, program=None, tiles=None):
        outputs = {n: np.empty(0) for n in ("O", "L")}
        exact = evaluate(problem, {n: inputs[n] for n in "QKV"}, np.dtype(np.float32))
        right = {n: unpacked(problem, exact[n]) for n in outputs}
        outputs.update({n: np.full_like(a, np.nan) for n, a in right.items()})
        compute = self.broken.get(name, copy_all)
        state = {}

        def run():
            self.log.append(name)
            self.now += self.time_s(name, problem)
            compute(outputs, right, state)

        return Subject(name, run, lambda: outputs, partial(self._poison, name, outputs), program, tiles)

    def _poison(self, name, outputs):
        self.log.append(f"poison {name}")
        for array in outputs.values():
            array.fill(np.nan)

    def evict(self):
        self.log.append("evict")

    def rest(self):
        self.log.append("rest")

    def seconds(self, run, times):
        start = self.now
        for _ in range(times):
            run()
        return self.now - start


def copy_all(outputs, right, state):
    """A kernel that is right."""
    for name, array in outputs.items():
        array[...] = right[name]
