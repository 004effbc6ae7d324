"""The command `bench` on a machine without speed: what is measured, printed and written, exit codes, interruptions."""

from __future__ import annotations

import json
import re

import pytest

from ioaware.cli.bench import _counts, _plan
from ioaware.errors import InputError, VerificationError
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels import bench
from ioaware_kernels.bench import read
from tests.messages.command import call
from tests.unit.fake_machine import FakeMachine, copy_all
from tests.unit.test_startup import imported, packages

SMALL = ("--N", "32,64,128", "--d", "16", "--repeats", "3")


@pytest.fixture
def machine(monkeypatch):
    """What `--device cpu` measures on."""
    fake = FakeMachine()
    monkeypatch.setattr(bench, "backend", {"cpu": fake}.__getitem__)
    return fake


def ran(folder, *options, code=0):
    result = call(folder, "bench", *options)
    assert result.code == code, result.err
    return result


def found(folder, *options, code=0):
    return json.loads(ran(folder, *SMALL, "--json", *options, code=code).out)


# ------------------------------------------------------------------------------------------------ what is measured
LISTS = {
    "512": (512,), "512,1024": (512, 1024), "256..2048": (256, 512, 1024, 2048), "1K..4K": (1024, 2048, 4096),
    "3..10": (3, 6, 10), "7..7": (7,), "8,4..16": (8, 4, 16), "8,8": (8,),
}  # fmt: skip


@pytest.mark.parametrize(("text", "counts"), LISTS.items())
def test_lists(text, counts):
    assert _counts(text, "--N") == counts


@pytest.mark.parametrize("text", ["", ",", "8,", "8..", "..8", "8...16", "16..8", "0..8", "-8", "8 16", "x"])
def test_what_is_no_list(text):
    with pytest.raises(InputError, match=r"^--N"):
        _counts(text, "--N")


def test_the_options_make_the_plan(machine, tmp_path):
    options = "--alg flash2 --N 16,32 --d 8 --tiles 16x16,8x32 --heads 3 --batch 2 --causal --repeats 3 --seed 5"
    table = json.loads(ran(tmp_path, *options.split(), "--json").out)
    assert [(p.problem.q_len, p.tiles) for p in machine.checked] == [
        (n, t) for n in (16, 32) for t in (TileSizes(16, 16), TileSizes(8, 32))
    ]
    for row in table["rows"]:
        p = row["problem"]
        assert (p["head_dim"], p["heads"], p["batch"], p["mask"], p["dtype"]) == (8, 3, 2, "causal", "fp32")
    assert (table["seed"], table["repeats"], table["complete"]) == (5, 3, True)


def test_by_default_naive_and_flash2(machine, tmp_path):
    assert [r["algorithm"] for r in found(tmp_path, "--N", "32")["rows"]] == ["naive", "flash2"]


def test_without_a_choice_three_sweeps():
    """Of a bare command: `ioaware bench`."""
    values = dict.fromkeys(("n", "d", "tiles", "heads")) | {"device": "cpu", "algorithms": (), "causal": False}
    _, plan = _plan({**values, "batch": "1", "dtype": "fp32", "repeats": "15", "seed": "0", "no_peers": False})
    problems = [point.problem for point in plan.points]
    assert len({p.q_len for p in problems}) >= 3
    assert len({p.head_dim for p in problems}) >= 3
    assert len({point.tiles for point in plan.points}) >= 4


def test_peers(machine, tmp_path):
    machine.names = ("theirs",)
    assert [r["algorithm"] for r in found(tmp_path, "--N", "32")["rows"]] == ["naive", "flash2", "theirs"]
    assert [r["algorithm"] for r in found(tmp_path, "--N", "32", "--no-peers")["rows"]] == ["naive", "flash2"]


# ------------------------------------------------------------------------------------------------ what is delivered
def test_the_tables(machine, tmp_path):
    result = ran(tmp_path, *SMALL)
    for text in (
        "device   fake",
        "ceilings",
        "time, warm",
        "time, cold",
        "exponents",
        "faster than naive from",
        "not here",
    ):
        assert text in result.out
    assert result.err == ""


def test_the_files(machine, tmp_path):
    ran(tmp_path, *SMALL, "--out", "run.json", "--plot", "run.html")
    assert read(str(tmp_path / "run.json")).command == f"ioaware bench {' '.join(SMALL)} --out run.json --plot run.html"
    assert "<svg" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_from_a_file_nothing_is_measured(machine, tmp_path):
    printed = ran(tmp_path, *SMALL, "--out", "run.json").out
    machine.log.clear()
    again = ran(tmp_path, "--from", "run.json", "--plot", "run.svg")
    assert again.out == printed
    assert (tmp_path / "run.svg").exists()
    assert machine.log == []
    assert json.loads(ran(tmp_path, "--from", "run.json", "--json").out) == json.loads(
        (tmp_path / "run.json").read_text(encoding="utf-8")
    )


def test_what_is_wrong_is_shown_saved_and_exit_1(machine, tmp_path):
    machine.broken["flash2"] = lambda outputs, right, state: [a.fill(0) for a in outputs.values()]
    result = ran(tmp_path, *SMALL, "--out", "run.json", code=1)
    assert re.match(r"Error: \d+ times or outputs are wrong, the first: flash2 N=32 d=16 ", result.err)
    assert "differs from exact softmax" in result.out
    assert read(str(tmp_path / "run.json")).problems


def test_an_interruption_keeps_what_is_measured(machine, tmp_path):
    def interrupted(outputs, right, state):
        copy_all(outputs, right, state)
        if machine.log.count("evict") > 10:
            raise KeyboardInterrupt

    machine.broken["flash2"] = interrupted
    result = ran(tmp_path, *SMALL, "--out", "run.json", code=130)
    assert "interrupted: only a part of the plan is measured" in result.out
    kept = read(str(tmp_path / "run.json"))
    assert not kept.complete
    assert sum(len(r.samples_s["cold"]) for r in kept.rows) >= 10


def test_a_machine_that_breaks_down_loses_nothing(machine, tmp_path):
    def failed(outputs, right, state):
        raise VerificationError("flash2 failed on the GPU: illegal address")

    machine.broken["flash2"] = failed
    result = ran(tmp_path, *SMALL, "--out", "run.json", code=1)
    assert result.err == "Error: flash2 failed on the GPU: illegal address\n"
    assert not read(str(tmp_path / "run.json")).complete


def test_an_interruption_before_the_ceilings(machine, tmp_path, monkeypatch):
    def interrupted(dtype, repeats):
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "ceilings", interrupted)
    result = ran(tmp_path, *SMALL, code=130)
    assert (result.out, result.err) == ("", "Error: interrupted\n")


def test_help_imports_nothing_heavy(tmp_path):
    assert not packages(imported(tmp_path, "-m", "ioaware", "bench", "--help")) & {
        "numpy",
        "numba",
        "rich",
        "matplotlib",
    }
