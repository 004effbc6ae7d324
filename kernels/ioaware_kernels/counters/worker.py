"""A process that launches kernels on the GPU and does nothing else: what ncu and compute-sanitizer look at.

    python -m ioaware_kernels.counters.worker JOBS.json

Tensors are contiguous, each in an allocation of its own, so that memcheck sees their ends. Errors are one line on
stderr, with the exit codes of the command line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import ioaware
import ioaware_kernels
from ioaware.errors import IoawareError
from ioaware.problem import AttentionProblem
from ioaware.reference import attention, random_inputs

from ..cases import Case
from ..cuda_engine import CudaEngine
from ..implementation import Implementation, load
from ..launch import Engine
from ..run import Run, run
from ..tensors import Array
from ..verify import module_of


class Job(NamedTuple):
    """One implementation on one problem, with random inputs."""

    implementation: Implementation
    problem: AttentionProblem
    seed: int = 0

    @property
    def inputs(self) -> dict[str, Array]:
        """What the kernels read; for a backward pass also the outputs of the forward pass."""
        given = random_inputs(self.problem, self.seed)
        if self.problem.direction == "fwd":
            return given
        return {**{n: a.astype("float32") for n, a in attention(self.problem, dict(given)).items()}, **given}

    def run(self, engine: Engine | None = None) -> Run:
        """Every launch, on the CPU unless an engine is given."""
        module = module_of(self.implementation, Case(self.problem))
        return run(self.implementation, module, self.problem, self.inputs, engine=engine)


# ------------------------------------------------------------------------------------------------ from here to there
def write(jobs: Iterable[Job], path: Path) -> None:
    """Jobs as a file that the worker reads."""
    path.write_text(json.dumps([_as_dict(job) for job in jobs]), encoding="utf-8")


def read(path: Path) -> list[Job]:
    """The jobs in a file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Job(load(job["kernel"]), AttentionProblem(**job["problem"]), job["seed"]) for job in found]


def _as_dict(job: Job) -> dict[str, object]:
    given = {f.name: getattr(job.problem, f.name) for f in fields(job.problem) if f.init}
    problem = {**given, "mask": str(job.problem.band)}
    return {"kernel": os.path.abspath(job.implementation.path), "problem": problem, "seed": job.seed}


def command(path: Path) -> list[str]:
    """The command that runs a file of jobs."""
    return [sys.executable, "-m", "ioaware_kernels.counters.worker", str(path)]


def environment() -> dict[str, str]:
    """This process's environment, in which the worker finds the packages, installed or not."""
    roots = dict.fromkeys(str(Path(package.__path__[0]).parent) for package in (ioaware, ioaware_kernels))
    paths = [*roots, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


# ------------------------------------------------------------------------------------------------ the process
def main(arguments: Sequence[str]) -> int:
    """Launch every job: an exit code."""
    try:
        engine = CudaEngine()
        engine.cupy.cuda.set_allocator(None)  # no pool: it would hide where an array ends
        for job in read(Path(arguments[0])):
            job.run(engine)
    except IoawareError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
