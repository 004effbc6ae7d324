"""Nsight Compute as a subprocess: how it is called, what is read of its table, what stands in the way of it."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import pytest

from ioaware.errors import Skipped, VerificationError
from ioaware_kernels.counters import ncu, tools
from ioaware_kernels.counters.metrics import metrics_of
from ioaware_kernels.counters.ncu import Counted, Reading, measure, parse, reading
from ioaware_kernels.counters.worker import Job
from tests.unit.cuda_launches import ragged
from tests.unit.fake_nvidia_tools import UNITS, called, raw_page, tool

METRICS = metrics_of("GA100")


def job(kernel="flash2"):
    implementation, case = ragged(kernel)
    return Job(implementation, case.problem)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that alone is on PATH, on a machine without a toolkit."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in tools.TOOLKITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tools, "USUAL", ())
    monkeypatch.setattr(ncu, "PLACES", ())
    return tmp_path


# ------------------------------------------------------------------------------------------------ numbers
@pytest.mark.parametrize(
    ("text", "unit", "found"),
    [
        ("0", "byte", Reading(0)),
        ("1,234,567", "byte", Reading(1_234_567)),
        ("1234567.000000", "byte", Reading(1_234_567)),
        ("12", "sector", Reading(12)),
        ("7", "", Reading(7)),
        ("12.3", "Ksector", Reading(12_300, 50)),
        ("1.05", "Kbyte", Reading(1_050, 5)),
        ("1,023.50", "Mbyte", Reading(1_023_500_000, 5_000)),
        ("2", "Gbyte", Reading(2_000_000_000, 500_000_000)),
        ("5,120", "ns", Reading(5_120)),
        ("5.12", "usecond", Reading(5_120, 5)),
        ("1.5", "ms", Reading(1_500_000, 50_000)),
        ("n/a", "byte", None),
        ("nan", "byte", None),
        ("", "byte", None),
    ],
)
def test_a_number_is_exact_only_in_the_unit_that_it_is_counted_in(text, unit, found):
    assert reading(text, unit) == found


# ------------------------------------------------------------------------------------------------ the table
def test_a_row_for_each_launch():
    text = raw_page(
        "GA100",
        [
            ("split(View, View, int)", {"global_load_bytes": 1_234_567, "time_ns": 5_120}),
            ("combine", {"global_load_bytes": 64, "dram_read_bytes": "n/a"}),
        ],
    )
    first, second = parse(text, METRICS)
    assert (first.entry, second.entry) == ("split", "combine")
    assert first.counts.keys() == METRICS.keys()
    assert (first.counts["global_load_bytes"], first.counts["time_ns"]) == (Reading(1_234_567), Reading(5_120))
    assert (second.counts["global_load_bytes"], second.counts["dram_read_bytes"]) == (Reading(64), None)


def test_columns_are_found_by_name_and_units_by_column():
    """Whatever other columns a version prints, in whatever order."""
    text = (
        "==PROF== Connected\n"
        '"ID","b.sum","Kernel Name","device__attribute_x","a.sum"\n'
        '"","Kbyte","","",""\n'
        '"0","1.50","k","9","3"\n'
        "==WARNING== Found outstanding GPU clock reset, trying to revert...Success.\n"
    )
    assert parse(text, {"a": "a.sum", "b": "b.sum"}) == [Counted("k", {"a": Reading(3), "b": Reading(1_500, 5)})]


def test_no_launches_in_a_table_are_none():
    assert parse(raw_page("GA100", []), METRICS) == []


def test_a_table_without_a_metric_is_refused():
    with pytest.raises(VerificationError, match=r"^ncu's table has no column dram__bytes_read.sum$"):
        parse(raw_page("GA100", []).replace("dram__bytes_read.sum", "x"), METRICS)


def test_no_table_is_refused():
    with pytest.raises(VerificationError, match=r"^ncu printed no table of launches$"):
        parse("==WARNING== No kernels were profiled.\n", METRICS)


# ------------------------------------------------------------------------------------------------ the process
@pytest.mark.parametrize(("cache", "control"), [("cold", "all"), ("warm", "none")])
def test_how_it_is_called(cache, control, here):
    tool(here, "ncu", raw_page("GA100", [("split", {}), ("combine", {})]))
    assert [c.entry for c in measure(job("split_kv"), "GA100", cache, 60)] == ["split", "combine"]
    arguments = called(here, "ncu")
    options = dict(pairwise(arguments))
    assert options["--cache-control"] == control
    assert options["--clock-control"] == "none"
    assert (options["--page"], options["--print-units"]) == ("raw", "base")
    assert options["--kernel-name"] == "regex:^(split|combine)$"
    assert options["--metrics"].split(",") == list(METRICS.values())
    assert arguments[-3:-1] == ["-m", "ioaware_kernels.counters.worker"]


@pytest.mark.parametrize("seen", [[], ["split"], ["combine", "split"], ["split", "combine", "combine"]])
def test_other_launches_than_the_jobs_are_refused(seen, here):
    tool(here, "ncu", raw_page("GA100", [(name, {}) for name in seen]))
    with pytest.raises(VerificationError, match=rf"^launches of split, combine .* saw {', '.join(seen) or 'none'}$"):
        measure(job("split_kv"), "GA100", "cold", 60)


SAID = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ({"log": SAID, "code": 1}, Skipped, "ncu may not read hardware counters here: an administrator must allow it"),
        ({"out": SAID, "code": 1}, Skipped, "ncu may not read hardware counters here: an administrator must allow it"),
        (
            {"log": "==ERROR== Failed to initialize the profiler: LibraryNotLoaded", "code": 1},
            Skipped,
            "ncu cannot profile here: Failed to initialize the profiler: LibraryNotLoaded$",
        ),
        ({"code": 3}, Skipped, "ncu cannot profile here: exit code 3$"),
        (
            {
                "log": "==ERROR== The application returned an error code (1).",
                "err": "flash2 failed on the GPU",
                "code": 1,
            },
            VerificationError,
            "a kernel failed under ncu: flash2 failed on the GPU$",
        ),
    ],
)
def test_what_stands_in_the_way_is_one_sentence(how, error, sentence, here):
    tool(here, "ncu", **how)
    with pytest.raises(error, match=f"^{sentence}"):
        measure(job(), "GA100", "cold", 60)


def test_one_that_hangs_is_stopped(here):
    tool(here, "ncu", raw_page("GA100", [("flash2", {})]), seconds=60)
    started = time.monotonic()
    with pytest.raises(Skipped, match=r"^ncu was stopped after 0 s$"):
        measure(job(), "GA100", "cold", 0.3)
    assert time.monotonic() - started < 30


# ------------------------------------------------------------------------------------------------ older versions
def listing(folder, *without):
    """What `ncu --query-metrics` prints: names and descriptions under a heading; some metrics are newer than it."""
    names = [metric.rpartition(".")[0] for quantity, metric in METRICS.items() if quantity not in without]
    text = "Device GA100\n\n" + "".join(f"{name:<80}  Counter  byte  # of something\n" for name in names)
    (folder / "known").write_text(text, encoding="utf-8")


def test_a_metric_that_this_version_does_not_know_is_not_asked_for_and_has_no_number(here):
    listing(here, "tensor_bf16_ops")
    tool(here, "ncu", raw_page("GA100", [("flash2", {"l2_bytes": 8})]))
    (counted,) = measure(job(), "GA100", "cold", 60)
    assert counted.counts.keys() == METRICS.keys()
    assert (counted.counts["tensor_bf16_ops"], counted.counts["l2_bytes"]) == (None, Reading(8))
    assert METRICS["tensor_bf16_ops"] not in ",".join(called(here, "ncu"))


def test_a_list_of_other_things_is_none(here):
    listing(here, *METRICS)
    assert ncu.known(str(tool(here, "ncu")), "GA100") == METRICS


# ------------------------------------------------------------------------------------------------ finding it
def test_no_ncu_is_skipped(here):
    with pytest.raises(Skipped, match=r"^ncu is neither on PATH nor in a CUDA toolkit; it comes with the toolkit$"):
        measure(job(), "GA100", "cold", 60)


def test_it_is_found_on_the_path_first_then_in_the_toolkit_then_elsewhere_the_newest(here, monkeypatch):
    apart = here / "apart"
    for folder in ("toolkit/bin", "apart/2024.3", "apart/2025.1"):
        (here / folder).mkdir(parents=True)
    newest = tool(apart / "2025.1", "ncu")
    tool(apart / "2024.3", "ncu")
    assert tools.find("ncu", [f"{apart}/*/ncu"]) == str(newest)
    of_toolkit = tool(here / "toolkit" / "bin", "ncu")
    monkeypatch.setenv("CUDA_HOME", str(here / "toolkit"))
    assert tools.find("ncu", [f"{apart}/*/ncu"]) == str(of_toolkit)
    on_path = tool(here, "ncu")
    assert tools.find("ncu", [f"{apart}/*/ncu"]) == str(on_path)


# ------------------------------------------------------------------------------------------------ running it
def test_an_interrupted_command_says_what_it_has_done(monkeypatch):
    """What it started ends with it, also a process that does not heed the interrupt, as a shell's in the background."""
    monkeypatch.setattr(tools, "GRACE_S", 0.2)
    script = "echo begun; (sleep 60; echo late) & echo $!; wait"
    finished = tools.run(["/bin/sh", "-c", script], 0.3)
    said, child = finished.out.split()
    assert (said, finished.code) == ("begun", None)
    with pytest.raises(ProcessLookupError):
        gone(int(child))


def gone(process):
    """Raises ProcessLookupError when it is."""
    for _ in range(200):
        os.kill(process, 0)
        if os.path.exists(f"/proc/{process}/stat"):
            with open(f"/proc/{process}/stat", encoding="utf-8") as file:
                if file.read().split()[2] == "Z":  # dead, and nobody has asked how
                    raise ProcessLookupError
        time.sleep(0.02)


def test_a_command_in_time_has_its_exit_code():
    assert tools.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], 60) == ("out\n", "err\n", 3)


def test_units_of_the_made_table_are_those_of_the_quantities():
    """The table made by hand knows every kind of quantity, or prints none for it."""
    kinds = {quantity.rpartition("_")[2] for quantity in METRICS}
    assert kinds - UNITS.keys() == {"wavefronts", "conflicts", "instructions"}
