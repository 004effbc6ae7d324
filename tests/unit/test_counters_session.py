"""benchmarks/gpu.py: every step has its share of the time and its boundary; what is done is on disk; no GPU is 77."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ioaware.errors import Skipped, VerificationError
from ioaware_kernels.counters import compare, sanitizer
from ioaware_kernels.counters.compare import Compared, Row
from ioaware_kernels.counters.ncu import Reading
from ioaware_kernels.counters.sanitizer import LIMITS, Opinion
from ioaware_kernels.counters.tools import Finished
from ioaware_kernels.implementation import load, names
from tests.messages.command import call

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch):
    """The script as a module; its sources are on the path already."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def session(script, tmp_path):
    return script.Session(tmp_path / "results" / "gpu.json", 540, 3, ["python", "benchmarks/gpu.py"])


def written(session):
    return json.loads(session.path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------ steps
def test_a_step_that_goes_wrong_does_not_cost_the_others(script, session, capsys):
    def fine(session, found, limit_s):
        found["bytes"] = 12
        return script.Outcome("done", "12 B")

    def skipped(session, found, limit_s):
        raise Skipped("ncu is not there")

    def broken(session, found, limit_s):
        found["half"] = 1
        raise ZeroDivisionError("oh")

    script.go(session, (("a", 1, skipped), ("b", 1, broken), ("c", 1, fine)))
    steps = written(session)["steps"]
    assert [(name, step["state"], step["said"]) for name, step in steps.items()] == [
        ("a", "skipped", "ncu is not there"), ("b", "FAILED", "ZeroDivisionError: oh"), ("c", "done", "12 B"),
    ]  # fmt: skip
    assert (steps["b"]["half"], steps["c"]["bytes"]) == (1, 12)
    assert session.failed
    assert capsys.readouterr().err.splitlines()[-1] == "c: done: 12 B"


def test_whatever_is_done_is_on_disk_when_the_next_step_runs(script, session):
    seen = []

    def step(session, found, limit_s):
        seen.append({name: step["state"] for name, step in written(session)["steps"].items()})
        return script.Outcome("done", "")

    script.go(session, (("a", 1, step), ("b", 1, step)))
    assert seen == [{"a": "partial"}, {"a": "done", "b": "partial"}]
    assert [path.name for path in session.path.parent.iterdir()] == ["gpu.json"]


def test_an_interrupt_ends_it_and_leaves_what_was_done(script, session):
    def interrupted(session, found, limit_s):
        found["half"] = 1
        session.save()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        script.go(session, (("a", 1, interrupted),))
    assert written(session)["steps"]["a"] == {"state": "partial", "said": "interrupted", "limit_s": 540.0, "half": 1}


def test_each_step_gets_its_share_of_what_is_left(script, session, monkeypatch):
    """Of 500 s: 100; of the 499 that remain after one second 124.75 of 4/16, and so on; the last one gets the rest."""
    now = [0.0]
    monkeypatch.setattr(script.time, "monotonic", lambda: now[0])
    session.ends, limits = 500.0, []

    def step(session, found, limit_s):
        limits.append(limit_s)
        now[0] += 1.0
        return script.Outcome("done", "")

    script.go(session, (("a", 4, step), ("b", 4, step), ("c", 12, step)))
    assert limits == [100.0, 499 * 4 / 16, 498.0]


def test_without_time_a_step_is_skipped(script, session):
    session.ends = 0
    script.go(session, (("a", 1, pytest.fail),))
    assert (written(session)["steps"]["a"]["state"], written(session)["steps"]["a"]["said"]) == (
        "skipped", "no time was left",
    )  # fmt: skip
    assert not session.failed


def test_the_head_says_how_to_do_it_again(script, session):
    script.go(session, ())
    session.save()
    head = written(session)
    assert (head["command"], head["seed"], head["budget_s"]) == (["python", "benchmarks/gpu.py"], 3, 540)
    assert head["utc"].endswith("+00:00")
    assert head.keys() == {"command", "utc", "budget_s", "seed", "commit", "steps"}


# ------------------------------------------------------------------------------------------------ subprocesses
def says(script, monkeypatch, out="", err="", code=0):
    """Every child process says that; returns the commands that were run."""
    commands = []

    def ran(arguments, limit_s):
        commands.append(arguments)
        return Finished(out, err, code)

    monkeypatch.setattr(script, "ran", ran)
    return commands


def test_children_find_the_sources(script):
    out = script.ran(["-c", "import os; print(os.environ['PYTHONPATH'])"], 60).out
    assert out.strip().split(os.pathsep)[:3] == [str(ROOT / name) for name in ("simulator", "kernels", "proofs")]


def test_verify_by_kernel(script, session, monkeypatch, tmp_path):
    """What the command prints, whatever ran the kernels; a wrong case is a failed step."""
    result = call(tmp_path, "verify", "--kernel", "flash2", "--kernel", "naive", "--N", "8", "--d", "8", "--json")
    commands, found = says(script, monkeypatch, result.out), {}
    assert script.verify(session, found, 60) == ("done", "4 cases of 2 kernels, 0 wrong")
    assert commands == [["-m", "ioaware", "verify", "--engine", "cuda", "--json", "--seed", "3"]]
    assert {name: kernel["cases"] for name, kernel in found["kernels"].items()} == {"flash2": 2, "naive": 2}
    assert all(0 < kernel["worst_error_of_tolerance"] < 1 for kernel in found["kernels"].values())

    wrong = json.loads(result.out)
    wrong["cases"][1] |= {"ok": False, "checks": {"values": ["O differs"]}}
    says(script, monkeypatch, json.dumps(wrong), code=1)
    assert script.verify(session, found, 60) == ("FAILED", "4 cases of 2 kernels, 1 wrong")
    assert found["kernels"]["flash2"]["wrong"] == ["O differs"]


def test_verify_stopped_on_the_way_is_partial(script, session, monkeypatch):
    says(script, monkeypatch, json.dumps({"cases": [], "complete": False}), code=None)
    assert script.verify(session, {}, 60) == ("partial", "0 cases of 0 kernels, 0 wrong")


@pytest.mark.parametrize("step", ["verify", "bench"])
@pytest.mark.parametrize(("code", "error"), [(2, VerificationError), (77, Skipped), (None, Skipped)])
def test_a_command_that_prints_no_json_is_one_sentence(step, code, error, script, session, monkeypatch):
    says(script, monkeypatch, err="Usage: ioaware\nError: No such command 'bench'.\n", code=code)
    with pytest.raises(error, match=r"^Error: No such command 'bench'\.$"):
        getattr(script, step)(session, {}, 60)


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (1, "FAILED"), (None, "partial")])
def test_the_benchmark_is_kept_whole(code, state, script, session, monkeypatch):
    found = {}
    commands = says(script, monkeypatch, '{"rows": [1, 2]}', code=code)
    assert script.bench(session, found, 60).state == state
    assert found == {"bench": {"rows": [1, 2]}}
    assert commands == [["-m", "ioaware", "bench", "--device", "cuda", "--json", "--seed", "3"]]


PYTEST = """
tests/gpu/test_kernels_on_gpu.py::test_golden_ptx[flash2: 64x64, d=64] PASSED        [  0%]
tests/gpu/test_kernels_on_gpu.py::test_golden_ptx[flash2: 1x1, d=1] {}        [ 50%]
tests/gpu/test_kernels_on_gpu.py::test_streams[ptx] SKIPPED (no) [100%]
tests/gpu/test_kernels_on_gpu.py::test_streams[source] SKIPPED  [100%]
"""


@pytest.mark.parametrize(
    ("end", "code", "outcome"),
    [
        ("PASSED", 0, ("done", "2 passed, 1 skipped")),
        ("FAILED", 1, ("FAILED", "1 passed, 1 failed, 1 skipped")),
        ("ERROR", 1, ("FAILED", "1 passed, 1 error, 1 skipped")),
        ("PASSED", None, ("partial", "2 passed, 1 skipped")),
    ],
)
def test_tests_are_counted_also_when_they_are_stopped(end, code, outcome, script, session, monkeypatch):
    found = {}
    says(script, monkeypatch, PYTEST.format(end), code=code)
    assert script.tests(session, found, 60) == outcome
    assert ("output" in found) == (outcome[0] == "FAILED")


def test_tests_that_do_not_begin_have_failed(script, session, monkeypatch):
    says(script, monkeypatch, "ERROR: unrecognized arguments", code=4)
    assert script.tests(session, {}, 60) == ("FAILED", "exit code 4")


def test_without_pytest_there_are_no_tests(script, session, monkeypatch):
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Skipped, match=r"^pytest and hypothesis not installed$"):
        script.tests(session, {}, 60)


# ------------------------------------------------------------------------------------------------ counters
def compared(measured):
    return Compared(
        "flash2", [Row("tensors read", "=", 100, None, Reading(measured))], {"global_bytes": Reading(measured)}
    )


def answers(monkeypatch, of_call):
    """`compare.check` answers with what of_call(n, job, cache) gives or raises; returns what was asked."""
    asked = []

    def check(job, cache, limit_s, *, execute):
        asked.append((job.implementation.name, job.problem.kv_len, cache, execute))
        return of_call(len(asked), job, cache)

    monkeypatch.setattr(compare, "check", check)
    return asked


def test_counters_of_every_kernel(script, session, monkeypatch):
    found = {}
    asked = answers(monkeypatch, lambda *_: [compared(100)])
    kernels = len(names())
    assert script.counters(session, found, 500) == ("done", f"{3 * kernels} launches, 0 contradictions, 0 left out")
    assert {(size, cache, execute) for _, size, cache, execute in asked} == {
        (500, "cold", True), (2048, "cold", False), (2048, "warm", False),
    }  # fmt: skip
    assert found["flash2, small, cold"][0]["rows"][0]["measured_bytes"] == 100


def test_counters_that_contradict_are_a_failure(script, session, monkeypatch):
    def of_call(n, job, cache):
        if n == 2:
            raise VerificationError("a kernel failed under ncu: oh")
        return [compared(104 if n == 3 else 100)]

    found = {}
    answers(monkeypatch, of_call)
    outcome = script.counters(session, found, 500)
    assert outcome.state == "FAILED"
    assert "2 contradictions" in outcome.said
    second, third = names()[1:3]
    assert found["wrong"] == [
        f"{second}, small, cold: a kernel failed under ncu: oh",
        f"{third}, small, cold: flash2: tensors read: 104 B measured, = 100 B predicted",
    ]


def test_counters_without_ncu_are_skipped_at_once(script, session, monkeypatch):
    def of_call(n, job, cache):
        raise Skipped("ncu is not there")

    asked = answers(monkeypatch, of_call)
    with pytest.raises(Skipped, match=r"^ncu is not there$"):
        script.counters(session, {}, 500)
    assert len(asked) == 1


def test_counters_that_one_kernel_does_not_give_are_left_out(script, session, monkeypatch):
    def of_call(n, job, cache):
        if n == 2:
            raise Skipped("ncu was stopped after 60 s")
        return [compared(100)]

    found = {}
    answers(monkeypatch, of_call)
    assert script.counters(session, found, 500).state == "partial"
    assert found["left_out"] == [f"{names()[1]}, small, cold: ncu was stopped after 60 s"]


def test_counters_stop_when_their_time_is_up(script, session, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(script.time, "monotonic", lambda: now[0])

    def of_call(n, job, cache):
        now[0] += 40
        return [compared(100)]

    asked = answers(monkeypatch, of_call)
    outcome = script.counters(session, {}, 100)
    assert (len(asked), outcome.state) == (3, "partial")


@pytest.mark.parametrize("size", ["small", "large", "tiny"])
def test_every_kernel_takes_the_problems(size, script):
    assert all(kernel.solves(getattr(script, size)(kernel)) for kernel in map(load, names()))


# ------------------------------------------------------------------------------------------------ compute-sanitizer
def test_all_checkers_are_asked(script, session, monkeypatch):
    found, limits = {}, []

    def check(jobs, tool, limit_s):
        limits.append(limit_s)
        assert [job.implementation.name for job in jobs] == names()
        return Opinion(tool, 0, int(tool == "racecheck"), [])

    monkeypatch.setattr(sanitizer, "check", check)
    outcome = script.sanitizer(session, found, 80)
    assert outcome.state == "FAILED"
    assert outcome.said.startswith("memcheck: 0 errors, 0 warnings, racecheck: 0 errors, 1 warnings, ")
    assert found.keys() == LIMITS.keys()
    assert limits == pytest.approx([20, 80 / 3, 40, 80], rel=0.01)  # what one does not use, the next ones may


def test_a_checker_without_a_verdict_is_partial_and_none_at_all_skipped(script, session, monkeypatch):
    def check(jobs, tool, limit_s):
        if tool in silent:
            raise Skipped(f"{tool} says nothing")
        return Opinion(tool, 0, 0, [])

    monkeypatch.setattr(sanitizer, "check", check)
    silent = ["initcheck"]
    assert script.sanitizer(session, {}, 80).state == "partial"
    silent = list(LIMITS)
    with pytest.raises(Skipped, match=r"^memcheck says nothing$"):
        script.sanitizer(session, {}, 80)


# ------------------------------------------------------------------------------------------------ the command
@pytest.fixture
def machine(gpu):
    """What CuPy says of a GPU."""
    gpu.__version__ = "14.2.0"
    gpu.cuda.runtime.runtimeGetVersion = lambda: 13_000
    gpu.cuda.runtime.getDeviceProperties = lambda number: {
        "name": b"a GPU", "multiProcessorCount": 132, "l2CacheSize": 50, "totalGlobalMem": 80,
    }  # fmt: skip
    device = gpu.cuda.Device
    gpu.cuda.Device = lambda *number: SimpleNamespace(
        id=0, compute_capability="90", synchronize=device().synchronize, attributes={}
    )
    return gpu


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("skipped", 0), ("partial", 0), ("FAILED", 1)])
def test_the_command(state, code, script, machine, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "STEPS", (("something", 1, lambda *_: script.Outcome(state, "so it is")),))
    assert script.main(["--budget", "100", "--out", str(tmp_path)]) == code
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["command"] == ["python", "benchmarks/gpu.py", "--budget", "100", "--out", str(tmp_path)]
    assert found["steps"]["machine"]["device"] == "a GPU"
    assert found["steps"]["machine"]["versions"]["cupy"] == "14.2.0"
    out = capsys.readouterr().out
    assert "so it is" in out
    assert str(path) in out.replace("\n", "")


def test_without_a_gpu_it_is_one_sentence_and_77(tmp_path):
    """From a bare checkout: in another folder, nothing installed of ours, no path set."""
    (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError('no', name='cupy')", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "results")], cwd=tmp_path, check=False, timeout=60,
        env={**environment, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.startswith("the engine cuda needs CuPy")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
