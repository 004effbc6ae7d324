"""The command `verify`: which kernels and cases are run, what is printed, exit codes, the bar, what is imported."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ioaware.errors import InputError
from ioaware_kernels import cases
from ioaware_kernels import verify as verifying
from ioaware_kernels.cases import matrix
from ioaware_kernels.implementation import load, names
from ioaware_kernels.verify import CHECKS, verify
from tests.compiler import needs_nvrtc
from tests.messages.command import call, environment
from tests.unit.test_startup import imported, packages
from tests.unit.test_verify import SMALL, check_report, ran

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "warp_per_query.cu")


# ------------------------------------------------------------------------------------------------ which cases
def kernels_of(found):
    return list(dict.fromkeys(case["kernel"] for case in found["cases"]))


def test_without_a_problem_the_matrix(tmp_path):
    """Every case that the kernel's masks and builds have, in order."""
    found = check_report(ran(tmp_path, "--kernel flash2_causal"))
    wanted = list(matrix(load("flash2_causal")))
    assert len(wanted) > 10
    for case, (problem, inputs, layout) in zip(found, wanted, strict=True):
        assert (case["inputs"], case["layout"]) == (inputs.__name__, layout.__name__)
        assert {key: case["problem"][key] for key in ("q_len", "kv_len", "head_dim", "heads", "kv_heads", "batch")} == {
            key: getattr(problem, key) for key in ("q_len", "kv_len", "head_dim", "heads", "kv_heads", "batch")
        }
        assert case["problem"]["mask"] == "causal"
    assert [case["layout"] for case in found].count("far_apart") == 1
    assert {case["inputs"] for case in found} >= {"not_a_number", "plus_infinity", "denormal"}


def test_several_kernels_in_the_order_given(tmp_path):
    found = ran(tmp_path, "--kernel flash2 --kernel naive --kernel flash1 --N 4 --d 4")
    assert kernels_of(found) == ["flash2", "naive", "flash1"]
    assert len(found["cases"]) == 6


def test_a_problem_without_a_kernel_goes_to_all_that_can(tmp_path):
    found = ran(tmp_path, "--N 4 --d 8")
    assert kernels_of(found) == [name for name in names() if "full" in load(name).masks]


def test_an_odd_head_dim_leaves_out_the_kernel_that_takes_vectors(tmp_path):
    found = ran(tmp_path, "--N 4 --d 4")
    assert kernels_of(found) == [name for name in names() if "full" in load(name).masks and name != "flash2_mma"]


def dtypes_of(found):
    return list(dict.fromkeys((case["kernel"], case["problem"]["dtype"]) for case in found["cases"]))


DTYPES = {
    "--dtype bf16 --N 4 --d 8": [("flash2_mma", "bf16")],
    "--dtype fp16 --N 4 --d 8 --causal": [("flash2_mma", "fp16")],
    "--dtype fp32 --N 4 --d 8 --causal": [
        (name, "fp32") for name in names() if "causal" in load(name).masks and name != "flash2_mma"
    ],
    "--kernel flash2_mma --N 4 --d 8": [("flash2_mma", "fp16"), ("flash2_mma", "bf16")],
    "--kernel flash2_mma --dtype bfloat16 --N 4 --d 8": [("flash2_mma", "bf16")],
    "--kernel flash2 --dtype fp32 --N 4 --d 4": [("flash2", "fp32")],
}


@pytest.mark.parametrize(("options", "wanted"), DTYPES.items(), ids=DTYPES)
def test_a_dtype_chooses_the_kernels_that_have_it(options, wanted, tmp_path):
    """Without one, all that each kernel has."""
    found = ran(tmp_path, options)
    assert dtypes_of(found) == wanted
    assert found["ok"] is True


def test_causal_chooses_the_kernels_that_can(tmp_path):
    found = ran(tmp_path, "--causal --N 4 --d 8")
    assert kernels_of(found) == [name for name in names() if "causal" in load(name).masks]
    assert "flash2_causal" in kernels_of(found)
    assert {case["problem"]["mask"] for case in found["cases"]} == {"causal"}


def test_many_queries_leave_out_the_kernel_that_packs_them(tmp_path):
    assert "split_kv" not in kernels_of(ran(tmp_path, "--q-len 17 --kv-len 3 --d 4"))


LENGTHS = {"--N 9": (9, 9), "--q-len 3 --kv-len 9": (3, 9), "--N 9 --q-len 3": (3, 9), "--N 9 --kv-len 3": (9, 3)}


@pytest.mark.parametrize(("options", "lengths"), LENGTHS.items(), ids=LENGTHS)
def test_lengths(options, lengths, tmp_path):
    for case in ran(tmp_path, f"--kernel flash2 --d 4 {options}")["cases"]:
        assert (case["problem"]["q_len"], case["problem"]["kv_len"]) == lengths


def test_a_problem_has_256_rows_unless_it_says_otherwise(tmp_path):
    (case, _) = ran(tmp_path, "--kernel flash2 --q-len 1 --d 4")["cases"]
    assert (case["problem"]["q_len"], case["problem"]["kv_len"]) == (1, 256)
    assert "q_len=256: " in call(tmp_path, "verify", "--kernel", "split_kv", "--kv-len", "1").err


def test_the_environment_gives_defaults(tmp_path):
    found = ran(tmp_path, "", env={"IOAWARE_KERNEL": "flash1 flash2", "IOAWARE_N": "4", "IOAWARE_D": "4"})
    assert kernels_of(found) == ["flash1", "flash2"]
    assert found["cases"][0]["problem"]["q_len"] == 4


# ------------------------------------------------------------------------------------------------ seeds
def test_seeds_change_the_inputs_and_nothing_else(tmp_path):
    found = {seed: ran(tmp_path, f"{SMALL} --seed {seed}") for seed in ("0", "1")}
    for seed in found:
        check_report(found[seed], seed=int(seed))
    a, b = (found[seed]["cases"][0] for seed in found)
    assert a["outputs"]["O"]["error"] != b["outputs"]["O"]["error"]
    assert a["launches"] == b["launches"]


def test_a_seed_is_0_unless_given(tmp_path):
    def without_time(found):
        return [{**case, "time_s": 0} for case in found["cases"]]

    assert without_time(ran(tmp_path, SMALL)) == without_time(ran(tmp_path, f"{SMALL} --seed 0"))


# ------------------------------------------------------------------------------------------------ how it ends
ENDED = {"interrupted": (KeyboardInterrupt(), 130), "refused": (InputError("no"), 2), "failed": (ValueError(), 70)}


@pytest.mark.parametrize(("raised", "code"), ENDED.values(), ids=ENDED)
def test_what_is_done_before_the_end_is_shown(raised, code, tmp_path, monkeypatch):
    """In JSON it is not complete, and so not ok; for people the cases that are done, and why it ended."""
    options = ("verify", "--kernel", "flash2", "--N", "4", "--d", "4")
    for extra in ("--json", "--all"):
        made = []

        def verified(*args, made=made, **given):
            if made:
                raise raised
            made.append(verify(*args, **given))
            return made[0]

        monkeypatch.setattr(verifying, "verify", verified)
        result = call(tmp_path, *options, extra)
        assert result.code == code
        assert result.err.startswith("Error: ")
        if extra == "--json":
            found = json.loads(result.out)
            assert (found["complete"], found["ok"]) == (False, False)
            assert [case["ok"] for case in found["cases"]] == [True]
        else:
            assert "flash2  4x4, d=4 " in result.out
            assert "padded" not in result.out


# ------------------------------------------------------------------------------------------------ for people
def printed(folder, options, **settings):
    result = call(folder, "verify", *shlex.split(options), **settings)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_all_shows_every_case(tmp_path):
    """One line per kernel; with --all one per case, each with its name."""
    options = "--kernel flash1 --kernel flash2 --N 4 --d 4"
    short, long = (printed(tmp_path, f"{options} {extra}").splitlines() for extra in ("", "--all"))
    assert [line.split()[:2] for line in short[1:3]] == [["flash1", "2"], ["flash2", "2"]]
    assert [line.split("  ")[:2] for line in long[1:5]] == [
        [kernel, case] for kernel in ("flash1", "flash2") for case in ("4x4, d=4", "4x4, d=4, padded")
    ]


def test_every_tensor_is_shown_for_one_problem_only(tmp_path, monkeypatch):
    problem = printed(tmp_path, "--kernel flash1 --kernel flash2 --N 4 --d 4")
    assert problem.count(": launch") == 2
    for name in ("Q", "K", "V", "O", "l", "m", "sQ", "sK", "sV", "sP"):
        assert re.search(rf"^flash1 +{name} ", problem, re.MULTILINE)
    monkeypatch.setattr(cases, "matrix", lambda implementation: list(matrix(implementation))[1:3])
    assert ": launch" not in printed(tmp_path, "--kernel flash2")


@needs_nvrtc
def test_a_check_that_was_not_made_is_not_called_equal(tmp_path):
    """The example uses no shared memory: there is nothing to compare."""
    line = printed(tmp_path, f"--kernel {shlex.quote(EXAMPLE)} --N 4 --d 4").splitlines()[1]
    assert line.split()[3:5] == ["equal", "-"]
    (case, *_) = check_report(ran(tmp_path, f"--kernel {shlex.quote(EXAMPLE)} --N 4 --d 4"))
    assert set(case["checks"]) == {*CHECKS} - {"shared"}


def test_bits_that_may_change_are_said_so(tmp_path):
    assert " by order " in printed(tmp_path, "--kernel flash2_backward --q-len 8 --kv-len 65 --d 4").splitlines()[1]
    assert " same " in printed(tmp_path, "--kernel flash2_no_atomics --q-len 8 --kv-len 65 --d 4").splitlines()[1]


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_no_number_is_cut(columns, tmp_path):
    out = printed(tmp_path, "--kernel split_kv --N 4 --d 4", env={"COLUMNS": str(columns)})
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= columns


def test_help(tmp_path):
    out = call(tmp_path, "verify", "--help").out
    assert out.startswith("Usage: ioaware verify [OPTIONS]")
    assert out == call(tmp_path, "verify", "-h").out
    for option in ("--kernel", "--N", "--q-len", "--kv-len", "--d", "--heads", "--kv-heads", "--batch", "--causal",
                   "--dtype", "--engine", "--source", "--seed", "--all", "--json", "--debug"):  # fmt: skip
        assert re.search(rf"  {option}\b.*\w", out), option
    assert "\n  verify " in call(tmp_path, "--help").out


# ------------------------------------------------------------------------------------------------ list kernels
def test_list_kernels(tmp_path):
    out = call(tmp_path, "list", "kernels").out.splitlines()
    assert [line.split()[0] for line in out] == names()
    for line, name in zip(out, names(), strict=True):
        assert load(name).title in line
        assert line.endswith(f"({' and '.join(load(name).masks)} mask)")


def test_a_kernel_is_the_path_of_its_source(tmp_path):
    path = load("flash2").path
    assert kernels_of(ran(tmp_path, f"--kernel {shlex.quote(path)} --N 4 --d 4")) == ["flash2"]


# ------------------------------------------------------------------------------------------------ a terminal
def stderr_of_a_terminal(folder, *args):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    settings = environment(folder, {"TERM": "xterm-256color", "COLUMNS": "100"})
    line = [sys.executable, "-m", "ioaware", *args]
    pipe = subprocess.DEVNULL
    with subprocess.Popen(line, cwd=folder, env=settings, stdout=pipe, stderr=slave) as process:
        os.close(slave)
        with os.fdopen(master, "rb") as stream:
            out = b"".join(iter(lambda: _read(stream), b""))
    assert process.returncode == 0
    return out.decode()


def _read(stream):
    try:
        return stream.read1(65536)
    except OSError:  # Linux ends a terminal so
        return b""


def test_a_bar_on_a_terminal_only(tmp_path):
    """It names the case that runs, and is gone at the end; a pipe sees nothing of it."""
    args = ("verify", "--kernel", "flash2", "--N", "4", "--d", "4", "--json")
    assert "flash2: 4x4, d=4" in stderr_of_a_terminal(tmp_path, *args)
    assert call(tmp_path, *args).err == ""


# ------------------------------------------------------------------------------------------------ what is imported
LIGHT = [("simulate", "--json"), ("fits", "--json"), ("--help",), ("list", "algorithms"), ("cite",)]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_who_runs_no_kernel_imports_none(args, tmp_path):
    assert not packages(imported(tmp_path, "-m", "ioaware", *args)) & {"ioaware_kernels", "numba", "llvmlite"}


def test_listing_kernels_runs_none(tmp_path):
    modules = imported(tmp_path, "-m", "ioaware", "list", "kernels")
    assert "ioaware_kernels.implementation_file" in modules
    assert not packages(modules) & {"numba", "numpy", "cupy"}


# ------------------------------------------------------------------------------------------------ engines
@pytest.mark.parametrize("engine", ["grid", "jit"])
def test_an_engine_by_its_name(engine, tmp_path):
    cases = check_report(ran(tmp_path, f"{SMALL} --engine {engine}"), engine=engine)
    assert {case["engine"] for case in cases} == {engine}
    assert all(case["ok"] and case["launches"] for case in cases)


def test_both_engines_count_the_same(tmp_path):
    """And the grid alone counts requests."""
    moved = {
        engine: [
            [(launch["counted"], launch["counted_shared"]) for launch in case["launches"]]
            for case in check_report(ran(tmp_path, f"{SMALL} --engine {engine}"), engine=engine)
        ]
        for engine in ("grid", "jit")
    }
    assert moved["grid"] == moved["jit"]
    assert all(moved["jit"])


def test_a_large_problem_is_compiled(tmp_path, monkeypatch):
    """The rule of `verify.chosen`, with a limit that a small problem is beyond; a reader of the table is told."""
    monkeypatch.setattr("ioaware_kernels.verify.MOST_JUDGED", 5 * 7 * 4 - 1)
    cases = check_report(ran(tmp_path, SMALL))
    assert {case["engine"] for case in cases} == {"jit"}
    assert "races are not judged" in " ".join(printed(tmp_path, SMALL).split())
    monkeypatch.setattr("ioaware_kernels.verify.MOST_JUDGED", 5 * 7 * 4)
    assert {case["engine"] for case in check_report(ran(tmp_path, SMALL))} == {"grid"}
    assert "races are not judged" not in " ".join(printed(tmp_path, SMALL).split())


def test_what_is_not_compiled_stays_on_the_grid(tmp_path, monkeypatch):
    def refused(*_):
        raise InputError("the compiled executor does not run it")

    monkeypatch.setattr("ioaware_kernels.verify.MOST_JUDGED", 0)
    monkeypatch.setattr("ioaware_kernels.jit_engine.code_of", refused)
    assert {case["engine"] for case in check_report(ran(tmp_path, SMALL))} == {"grid"}


def test_the_kernels_of_the_cpu(tmp_path):
    """Nothing counts a CPU's bytes: values, memory and bits are what is checked."""
    cases = check_report(ran(tmp_path, "--engine cpu --q-len 5 --kv-len 7 --d 4 --heads 2 --causal"), engine="cpu")
    assert [case["kernel"] for case in cases] == ["naive", "flash2"]
    assert all(set(case["checks"]) == {"values", "memory", "determinism"} and case["ok"] for case in cases)
    matrix = check_report(ran(tmp_path, "--engine cpu --kernel flash2"), engine="cpu")
    assert len(matrix) > 20
    assert all(case["ok"] for case in matrix)
