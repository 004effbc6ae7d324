"""Everything that a GPU can tell, in one go, from a bare checkout and without network:

    python benchmarks/gpu.py --budget 540

verify of every kernel on the GPU, hardware counters beside the predicted bytes and the executor's, the benchmark,
compute-sanitizer, tests/gpu. Each step has a share of the time and goes on without a tool that is missing; a file in
results/ is written anew whenever something is done, and a table is printed at the end. Needs numpy, numba, click,
rich and CuPy. Exit codes: 0, 1 where a step failed, 77 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ioaware.problem import AttentionProblem
    from ioaware_kernels.counters.tools import Finished
    from ioaware_kernels.counters.worker import Job
    from ioaware_kernels.implementation import Implementation

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [str(ROOT / name) for name in ("simulator", "kernels", "proofs", ".")]
VERSIONS = ("numpy", "numba", "pytest", "hypothesis", "matplotlib")
SMI = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit")
DONE, FAILED, PARTIAL, SKIPPED = "done", "FAILED", "partial", "skipped"
LEAST_S, MOST_S = 5.0, 60.0  # under which nothing is started any more; for the counters of one kernel
SENTENCES = 20  # of what went wrong, per step


class Outcome(NamedTuple):
    """How a step ended, and what it says, in a sentence."""

    state: str
    said: str


class Session:
    """What is known so far, on disk after every step."""

    def __init__(self, path: Path, budget_s: float, seed: int, command: Sequence[str]) -> None:
        self.path, self.seed = path, seed
        self.ends = time.monotonic() + budget_s
        self.steps: dict[str, dict[str, Any]] = {}
        self.report: dict[str, Any] = {
            "command": list(command), "utc": datetime.now(UTC).isoformat(timespec="seconds"), "budget_s": budget_s,
            "seed": seed, "commit": commit(), "steps": self.steps,
        }  # fmt: skip

    @property
    def left_s(self) -> float:
        """Seconds until the budget is spent."""
        return max(0.0, self.ends - time.monotonic())

    def save(self) -> None:
        """Write everything, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        os.replace(new, self.path)

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(step["state"] == FAILED for step in self.steps.values())


Step = Callable[[Session, dict[str, Any], float], Outcome]  # with what it finds, and for how many seconds


def go(session: Session, steps: Sequence[tuple[str, int, Step]]) -> None:
    """Run steps, each for its share of the time that is left; whatever goes wrong in one, the next one runs."""
    from ioaware.errors import Skipped

    for n, (name, share, step) in enumerate(steps):
        limit_s = session.left_s * share / sum(of_step for _, of_step, _ in steps[n:])
        found = session.steps[name] = {"state": PARTIAL, "said": "interrupted", "limit_s": round(limit_s, 1)}
        session.save()
        started = time.monotonic()
        try:
            if limit_s < LEAST_S:
                raise Skipped("no time was left")
            outcome = step(session, found, limit_s)
        except Skipped as e:
            outcome = Outcome(SKIPPED, str(e))
        except Exception as e:  # the boundary: a GPU is rare, one step must not cost the others
            outcome = Outcome(FAILED, f"{type(e).__name__}: {e}")
        found |= {**outcome._asdict(), "time_s": round(time.monotonic() - started, 1)}
        session.save()
        print(f"{name}: {outcome.state}: {outcome.said}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ the machine
def machine(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """Device, driver and versions. Raises Skipped: no GPU."""
    from ioaware_kernels.counters import tools
    from ioaware_kernels.cuda_engine import CudaEngine

    cupy = CudaEngine().cupy
    versions: dict[str, str] = {"python": platform.python_version(), "cupy": cupy.__version__}
    for name in VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    found |= {
        "device": properties["name"].decode(), "compute_capability": device.compute_capability,
        "multiprocessors": properties["multiProcessorCount"], "l2_bytes": properties["l2CacheSize"],
        "memory_bytes": properties["totalGlobalMem"], "cuda_of_driver": runtime.driverGetVersion(),
        "cuda_of_cupy": runtime.runtimeGetVersion(), "versions": versions, "system": platform.platform(),
    }  # fmt: skip
    with suppress(OSError):
        said = tools.run(["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"], limit_s).out
        found["nvidia_smi"] = dict(zip(SMI, (cell.strip() for cell in said.split(",")), strict=False))
    missing = [name for name in VERSIONS if name not in versions]
    return Outcome(DONE, found["device"] + (f"; not installed: {', '.join(missing)}" if missing else ""))


def commit() -> str | None:
    """The git commit, with + where files have changed since; None outside a repository."""
    git = ["git", "-C", str(ROOT)]
    with suppress(OSError, subprocess.CalledProcessError):
        head, changed = (
            subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
        return head + "+" * bool(changed)
    return None


# ------------------------------------------------------------------------------------------------ subprocesses
def ran(arguments: Sequence[str], limit_s: float) -> Finished:
    """A Python command with the checkout's sources on its path; interrupted when the time is up."""
    from ioaware_kernels.counters import tools

    paths = [*SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
    return tools.run([sys.executable, *arguments], limit_s, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


def as_json(finished: Finished) -> dict[str, Any]:
    """What a command with --json printed. Raises Skipped, VerificationError: it printed none."""
    from ioaware.errors import Skipped, VerificationError

    with suppress(ValueError):
        found: dict[str, Any] = json.loads(finished.out)
        return found
    said = (finished.err.strip().splitlines() or ["it printed nothing"])[-1]
    raise (Skipped if finished.code in (None, Skipped.exit_code) else VerificationError)(said)


def verify(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """Every case of every kernel on the GPU: values, guard zones, the same bits twice."""
    finished = ran(["-m", "ioaware", "verify", "--engine", "cuda", "--json", "--seed", str(session.seed)], limit_s)
    cases = as_json(finished)["cases"]
    kernels: dict[str, dict[str, Any]] = {}
    for case in cases:
        of_kernel = kernels.setdefault(case["kernel"], {"cases": 0, "worst_error_of_tolerance": 0.0, "wrong": []})
        of_kernel["cases"] += 1
        shares = [o["error"] / o["tolerance"] for o in case["outputs"].values() if o["tolerance"]]
        of_kernel["worst_error_of_tolerance"] = max(of_kernel["worst_error_of_tolerance"], *shares, 0.0)
        of_kernel["wrong"] += [sentence for sentences in case["checks"].values() for sentence in sentences][:SENTENCES]
    found["kernels"] = kernels
    wrong = sum(not case["ok"] for case in cases)
    state = FAILED if wrong else PARTIAL if finished.code is None else DONE
    return Outcome(state, f"{len(cases)} cases of {len(kernels)} kernels, {wrong} wrong")


def bench(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """Predicted beside measured time."""
    finished = ran(["-m", "ioaware", "bench", "--device", "cuda", "--json", "--seed", str(session.seed)], limit_s)
    found["bench"] = as_json(finished)
    if finished.code is None:
        return Outcome(PARTIAL, "stopped when its time was up")
    return Outcome(FAILED if finished.code else DONE, f"exit code {finished.code}")


def tests(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """tests/gpu, with pytest and hypothesis alone."""
    from ioaware.errors import Skipped

    if missing := [name for name in ("pytest", "hypothesis") if not importlib.util.find_spec(name)]:
        raise Skipped(f"{' and '.join(missing)} not installed")
    plain = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    finished = ran(["-m", "pytest", "-v", "--tb=short", *plain, str(ROOT / "tests" / "gpu")], limit_s)
    ends = re.findall(r" (PASSED|FAILED|ERROR|SKIPPED) +\[ *\d+%\]$", finished.out, re.MULTILINE)
    found |= {"counts": {end.lower(): ends.count(end) for end in dict.fromkeys(ends)}}
    wrong = ends.count("FAILED") + ends.count("ERROR")
    if wrong or finished.code not in (0, None):
        found["output"] = finished.out.splitlines()[-60:]
    said = ", ".join(f"{count} {end}" for end, count in found["counts"].items()) or f"exit code {finished.code}"
    return Outcome(FAILED if wrong or finished.code else PARTIAL if finished.code is None else DONE, said)


# ------------------------------------------------------------------------------------------------ counters
def problem(kernel: Implementation, q_len: int, kv_len: int, **shape: Any) -> AttentionProblem:
    """A problem that a kernel takes; decoding has as few queries as its tile holds."""
    from ioaware.problem import AttentionProblem

    return AttentionProblem(
        q_len=2 if kernel.packs_group else q_len, kv_len=kv_len, mask=kernel.masks[0], direction=kernel.direction,
        dtype=kernel.dtypes[0], **shape,
    )  # fmt: skip


def small(kernel: Implementation) -> AttentionProblem:
    """Ragged, with grouped heads, quick enough for the executor."""
    return problem(kernel, 500, 500, head_dim=64, heads=4, kv_heads=2)


def large(kernel: Implementation) -> AttentionProblem:
    """Many tiles: what L2 and DRAM do shows only here."""
    return problem(kernel, 2048, 2048, head_dim=64, heads=4)


def tiny(kernel: Implementation) -> AttentionProblem:
    """For compute-sanitizer, which is slow."""
    return problem(kernel, 70, 90, head_dim=40, heads=2, kv_heads=1)


SIZES = (("small", small, "cold"), ("large", large, "cold"), ("large", large, "warm"))


def jobs(of: Callable[[Implementation], AttentionProblem], seed: int) -> Iterator[Job]:
    """One job for each kernel that takes the problem."""
    from ioaware_kernels.counters.worker import Job
    from ioaware_kernels.implementation import load, names

    return (Job(kernel, of(kernel), seed) for kernel in map(load, names()) if kernel.solves(of(kernel)))


def counters(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """Hardware counters beside the predicted bytes; the executor's own for the small problem."""
    from ioaware.errors import IoawareError, Skipped
    from ioaware_kernels.counters.compare import check

    ends, launches, wrong, silent = time.monotonic() + limit_s, 0, list[str](), list[str]()
    for size, cache, job in [(size, cache, job) for size, of, cache in SIZES for job in jobs(of, session.seed)]:
        name = f"{job.implementation.name}, {size}, {cache}"
        if (left_s := ends - time.monotonic()) < LEAST_S:
            silent.append(f"no time was left for {name} and what follows")
            break
        try:
            compared = check(job, cache, min(left_s, MOST_S), execute=size == "small")
        except Skipped as e:
            if not launches:
                raise
            silent.append(f"{name}: {e}")
        except IoawareError as e:
            wrong.append(f"{name}: {e}")
        else:
            launches += len(compared)
            wrong += [f"{name}: {sentence}" for one in compared for sentence in one.problems]
            found[name] = [one.as_dict() for one in compared]
        found |= {"wrong": wrong[:SENTENCES], "left_out": silent}
        session.save()
    said = f"{launches} launches, {len(wrong)} contradictions, {len(silent)} left out"
    return Outcome(FAILED if wrong else PARTIAL if silent else DONE, said)


def sanitizer(session: Session, found: dict[str, Any], limit_s: float) -> Outcome:
    """NVIDIA's checkers on every kernel."""
    from ioaware.errors import Skipped
    from ioaware_kernels.counters.sanitizer import LIMITS, check

    opinions, silent = [], list[str]()
    for n, tool in enumerate(LIMITS):
        started = time.monotonic()
        try:
            opinions.append(check(list(jobs(tiny, session.seed)), tool, limit_s / (len(LIMITS) - n)))
        except Skipped as e:
            silent.append(str(e))
            found[tool] = {"said": str(e)}
        else:
            found[tool] = opinions[-1].as_dict()
        limit_s = max(LEAST_S, limit_s - (time.monotonic() - started))
        session.save()
    if not opinions:
        raise Skipped(silent[0])
    said = ", ".join(f"{o.tool}: {o.errors} errors, {o.warnings} warnings" for o in opinions)
    state = FAILED if any(not o.is_fine for o in opinions) else PARTIAL if silent else DONE
    return Outcome(state, "; ".join([said, *silent]))


STEPS: tuple[tuple[str, int, Step], ...] = (  # with their shares of the time
    ("verify", 15, verify),
    ("counters", 35, counters),
    ("bench", 25, bench),
    ("compute-sanitizer", 10, sanitizer),
    ("tests/gpu", 15, tests),
)


# ------------------------------------------------------------------------------------------------ the command
def show(session: Session) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "", "s", "what it says", box=None, pad_edge=False)
    for name, step in session.steps.items():
        table.add_row(name, step["state"], str(step.get("time_s", "")), step["said"])
    console = Console()
    console.print(table)
    console.print(f"all of it: {session.path}", soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """The command line: an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="in all; default: 540")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs; default: 0")
    parser.add_argument("--out", type=Path, default=ROOT / "results", metavar="FOLDER", help="default: results/")
    given = parser.parse_args(arguments)
    sys.path[:0] = [path for path in SOURCES if path not in sys.path]
    from ioaware.errors import Skipped

    name = f"gpu-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    session = Session(given.out / name, given.budget, given.seed, ["python", "benchmarks/gpu.py", *arguments])
    try:
        from ioaware_kernels.cuda_engine import CudaEngine

        CudaEngine()
    except Skipped as e:
        print(str(e).partition(";")[0], file=sys.stderr)
        return e.exit_code
    try:
        go(session, (("machine", 10, machine), *STEPS))
    finally:
        show(session)
    return int(session.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
