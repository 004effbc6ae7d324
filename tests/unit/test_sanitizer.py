"""compute-sanitizer as a second opinion: how it is called, what is read of its log.

The logs follow the examples of NVIDIA's manual, made by hand; the one without a summary is what compute-sanitizer
2026.4 writes on a machine without a GPU.
"""

from __future__ import annotations

import pytest

from ioaware.errors import Skipped
from ioaware_kernels.counters import sanitizer, tools
from ioaware_kernels.counters.sanitizer import LIMITS, Opinion, check, parse
from ioaware_kernels.counters.worker import Job
from tests.unit.cuda_launches import ragged
from tests.unit.fake_nvidia_tools import called, tool

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
STRAY = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at flash2+0x90
=========     by thread (5,0,0) in block (1,0,0)
=========     Access at 0x7f0000000400 is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7f0000000000 of size 1,024 bytes
=========         Host Frame: cuLaunchKernel [0x2ed47b] in libcuda.so.1
=========
========= Invalid __global__ read of size 4 bytes
=========     at flash2+0x10
=========     by thread (6,0,0) in block (1,0,0)
=========
========= ERROR SUMMARY: 1,002 errors
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at flash2+0x90
=========     and Read access at flash2+0x100 [508]
=========
========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)
"""
NO_GPU = """========= COMPUTE-SANITIZER
========= Error: process didn't terminate successfully
=========     The application may have hit an error when dereferencing Unified Memory from the host.
========= Target application terminated before first instrumented API call
"""
NO_RACE = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in tools.TOOLKITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tools, "USUAL", ())
    return tmp_path


def jobs():
    return [Job(implementation, case.problem) for implementation, case in map(ragged, ("flash2", "split_kv"))]


# ------------------------------------------------------------------------------------------------ the log
@pytest.mark.parametrize(
    ("log", "name", "opinion"),
    [
        (CLEAN, "memcheck", Opinion("memcheck", 0, 0, [])),
        (CLEAN, "synccheck", Opinion("synccheck", 0, 0, [])),
        (NO_RACE, "racecheck", Opinion("racecheck", 0, 0, [])),
        (
            STRAY, "memcheck",
            Opinion(
                "memcheck", 1002, 0,
                [
                    "Invalid __global__ write of size 4 bytes at flash2+0x90 by thread (5,0,0) in block (1,0,0)",
                    "Invalid __global__ read of size 4 bytes at flash2+0x10 by thread (6,0,0) in block (1,0,0)",
                ],
            ),
        ),
        (
            RACE, "racecheck",
            Opinion(
                "racecheck", 1, 1,
                ["Error: Race reported between Write access at flash2+0x90 and Read access at flash2+0x100 [508]"],
            ),
        ),
        (NO_GPU, "memcheck", None),
        (CLEAN, "racecheck", None),
        ("", "memcheck", None),
    ],
)  # fmt: skip
def test_an_opinion_is_a_summary_and_the_first_messages(log, name, opinion):
    assert parse(log, name) == opinion


def test_messages_are_few():
    log = STRAY.replace("Invalid", "Invalid __global__ atomic\n========= Invalid")
    assert len(parse(log, "memcheck").messages) == sanitizer.SHOWN


@pytest.mark.parametrize(("errors", "warnings", "fine"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_fine_is_neither_errors_nor_warnings(errors, warnings, fine):
    opinion = Opinion("racecheck", errors, warnings, [])
    assert opinion.is_fine == fine
    assert opinion.as_dict()["sees"] == LIMITS["racecheck"]


# ------------------------------------------------------------------------------------------------ the process
@pytest.mark.parametrize("name", LIMITS)
def test_how_it_is_called(name, here):
    tool(here, "compute-sanitizer", NO_RACE if name == "racecheck" else CLEAN)
    assert check(jobs(), name).is_fine
    arguments = called(here, "compute-sanitizer")
    assert arguments[:3] == ["--tool", name, "--log-file"]
    assert arguments[-3:-1] == ["-m", "ioaware_kernels.counters.worker"]


def test_errors_are_an_opinion_whatever_the_exit_code(here):
    tool(here, "compute-sanitizer", STRAY, code=1)
    assert check(jobs(), "memcheck").errors == 1002


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"log": NO_GPU, "code": 255}, "gives no verdict here: Error: process didn't terminate successfully$"),
        ({"err": "the engine cuda finds no GPU", "code": 77}, "gives no verdict here: the engine cuda finds no GPU$"),
        ({"code": 2}, "gives no verdict here: exit code 2$"),
    ],
)
def test_no_verdict_is_one_sentence(how, sentence, here):
    tool(here, "compute-sanitizer", **how)
    with pytest.raises(Skipped, match=f"^compute-sanitizer memcheck {sentence}"):
        check(jobs(), "memcheck")


def test_one_that_hangs_is_stopped(here, monkeypatch):
    monkeypatch.setattr(tools, "GRACE_S", 0.2)
    tool(here, "compute-sanitizer", CLEAN, seconds=60)
    with pytest.raises(Skipped, match=r"^compute-sanitizer memcheck was stopped after 0 s$"):
        check(jobs(), "memcheck", 0.2)


def test_none_is_skipped(here):
    with pytest.raises(Skipped, match=r"^compute-sanitizer is neither on PATH nor in a CUDA toolkit"):
        check(jobs(), "memcheck")


def test_it_lies_in_a_folder_of_its_own_in_a_toolkit(here, monkeypatch):
    (here / "toolkit" / "compute-sanitizer").mkdir(parents=True)
    there = tool(here / "toolkit" / "compute-sanitizer", "compute-sanitizer")
    monkeypatch.setenv("CUDA_PATH", str(here / "toolkit"))
    assert tools.find("compute-sanitizer") == str(there)
