"""`verify()` and its Report: the JSON contract, what a case is called, what the matrix has, when a check fails."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from ioaware import AttentionProblem, __version__
from ioaware.algorithms import ALGORITHMS
from ioaware.errors import VerificationError
from ioaware.readers.count import count_kernels
from ioaware.traffic import Moved, Traffic
from ioaware_kernels import cases
from ioaware_kernels.cases import Case, matrix, one
from ioaware_kernels.implementation import load, names
from ioaware_kernels.run import program_of, tiles_of
from ioaware_kernels.tensors import packed, padded
from ioaware_kernels.tolerance import Difference
from ioaware_kernels.verify import CHECKS, Report, require, verify
from tests.compiler import needs_nvrtc
from tests.fitting import head_dim_for
from tests.messages.command import call, written
from tests.messages.kernels import changed

TOP = {"schema", "version", "engine", "seed", "complete", "ok", "cases"}
CASE = {
    "kernel",
    "problem",
    "engine",
    "inputs",
    "layout",
    "ok",
    "checks",
    "reproducible",
    "time_s",
    "outputs",
    "launches",
}
PROBLEM = {**dict.fromkeys(("q_len", "kv_len", "head_dim", "heads", "kv_heads", "batch"), int),
           **dict.fromkeys(("mask", "dtype", "direction"), str)}  # fmt: skip
OUTPUT = {"error": float, "tolerance": float, "misplaced": int}
TRAFFIC = ("counted", "predicted", "counted_shared", "predicted_shared")
LAUNCH = {"kernel", "instructions", "requests", *TRAFFIC}
SMALL = "--kernel flash2 --q-len 5 --kv-len 7 --d 4"


def ran(folder, options, code=0, files=None, **settings):
    """The JSON object, read by a reader that knows no Infinity and no NaN."""
    result = call(written(folder, files or {}), "verify", "--json", *shlex.split(options), **settings)
    assert result.code == code, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


WRONG_LIMIT = ("lane + LANES * c < kv_len", "lane + LANES * c <= kv_len")
LOAD_K = "load_tile<TILE_KV>(sK, k_rows, K.row, first_kv, kv_len, head_dim);"
K_TWICE = (LOAD_K, 2 * LOAD_K)


# ------------------------------------------------------------------------------------------------ the JSON contract
def check_traffic(traffic):
    """Exact bytes, and sums that add up."""
    assert set(traffic) == {"read_bytes", "write_bytes", "tensors"}
    for key in ("read_bytes", "write_bytes"):
        assert traffic[key] == sum(tensor[key] for tensor in traffic["tensors"].values())
    for tensor in traffic["tensors"].values():
        assert set(tensor) - {"atomic_bytes"} == {"read_bytes", "write_bytes"}
        assert all(type(number) is int and number >= 0 for number in tensor.values())
        assert sum(tensor.values()) > 0  # what does not move is left out


def check_case(case):
    assert set(case) == CASE
    assert {key: type(value) for key, value in case["problem"].items()} == PROBLEM
    assert case["engine"] in ("grid", "jit", "cpu", "cuda")
    assert case["inputs"] in vars(cases)
    assert case["layout"] in vars(cases)
    assert set(case["checks"]) <= set(CHECKS)
    assert all(isinstance(sentence, str) for found in case["checks"].values() for sentence in found)
    assert case["ok"] is not any(case["checks"].values())
    assert type(case["reproducible"]) is bool
    assert case["time_s"] > 0
    for output in case["outputs"].values():
        assert {key: type(value) for key, value in output.items()} == OUTPUT
    for launch in case["launches"]:
        assert set(launch) == LAUNCH
        assert type(launch["instructions"]) is int
        for key in TRAFFIC:
            check_traffic(launch[key])
        for asked in launch["requests"].values():
            assert set(asked) == {"requests", "sectors", "passes"}
            assert asked["requests"] > 0
            assert (asked["sectors"] == 0) is not (asked["passes"] == 0)  # global memory, or shared


def check_report(found, engine="auto", seed=0):
    assert set(found) == TOP
    assert (found["schema"], found["version"], found["engine"], found["seed"]) == (1, __version__, engine, seed)
    assert found["complete"] is True
    assert found["cases"]
    for case in found["cases"]:
        check_case(case)
    assert found["ok"] is all(case["ok"] for case in found["cases"])
    return found["cases"]


def test_one_problem(tmp_path):
    found = check_report(ran(tmp_path, f"{SMALL} --heads 2 --kv-heads 1 --batch 3"))
    shape = {"q_len": 5, "kv_len": 7, "head_dim": 4, "heads": 2, "kv_heads": 1, "batch": 3}
    for case in found:
        assert case["problem"] == {**shape, "mask": "full", "dtype": "fp32", "direction": "fwd"}
        assert case["ok"] is True
        assert set(case["checks"]) == set(CHECKS)
        assert set(case["outputs"]) == {"O", "L"}
    assert [case["layout"] for case in found] == ["packed", "padded"]


@pytest.mark.parametrize("kernel", names())
def test_counted_is_what_the_program_moves(kernel, tmp_path):
    """Every byte of every launch, against the simulator's reader on the claimed program."""
    implementation = load(kernel)
    mask, head_dim = implementation.masks[0], head_dim_for(implementation, 12)
    causal = "--causal" * (mask == "causal")
    found = check_report(ran(tmp_path, f"--kernel {kernel} --q-len 5 --kv-len 37 --d {head_dim} --heads 2 {causal}"))
    assert [case["problem"]["dtype"] for case in found] == [d for d in implementation.dtypes for _ in range(2)]
    shape = {"q_len": 5, "kv_len": 37, "head_dim": head_dim, "heads": 2, "mask": mask}
    for case in found:
        problem = AttentionProblem(**shape, dtype=case["problem"]["dtype"], direction=implementation.direction)
        tiles = tiles_of(implementation.build_for(problem))
        wanted = count_kernels(program_of(implementation, problem), problem, tiles)
        assert [launch["kernel"] for launch in case["launches"]] == list(wanted)
        for launch in case["launches"]:
            assert launch["counted"] == launch["predicted"] == wanted[launch["kernel"]].as_dict()
            assert launch["counted_shared"]["tensors"].items() >= launch["predicted_shared"]["tensors"].items()


def test_bytes_written_out_by_hand(tmp_path):
    """One tile of flash2: Q, K, V and O once, L one float a row; 4 bytes each."""
    (case, _) = check_report(ran(tmp_path, SMALL))
    (launch,) = case["launches"]
    q, kv = 4 * 5 * 4, 4 * 7 * 4
    assert launch["counted"] == {
        "read_bytes": q + 2 * kv, "write_bytes": q + 4 * 5,
        "tensors": {
            "Q": {"read_bytes": q, "write_bytes": 0}, "K": {"read_bytes": kv, "write_bytes": 0},
            "V": {"read_bytes": kv, "write_bytes": 0}, "O": {"read_bytes": 0, "write_bytes": q},
            "L": {"read_bytes": 0, "write_bytes": 20},
        },
    }  # fmt: skip


def test_bytes_of_a_16_bit_kernel_written_out_by_hand(tmp_path):
    """One tile of flash2_mma: Q, K, V and O once, 2 bytes each; L 4 bytes a row. In shared memory whole tiles of 64
    rows and 64 columns: Q is read once, K and V by each of 4 warps."""
    found = check_report(ran(tmp_path, "--kernel flash2_mma --q-len 5 --kv-len 7 --d 24"))
    assert [(case["problem"]["dtype"], case["layout"]) for case in found] == [
        (dtype, layout) for dtype in ("fp16", "bf16") for layout in ("packed", "padded_by_eight")
    ]
    q, kv, tile = 2 * 5 * 24, 2 * 7 * 24, 2 * 64 * 64
    for case in found:
        (launch,) = case["launches"]
        assert launch["counted"] == {
            "read_bytes": q + 2 * kv, "write_bytes": q + 4 * 5,
            "tensors": {
                "Q": {"read_bytes": q, "write_bytes": 0}, "K": {"read_bytes": kv, "write_bytes": 0},
                "V": {"read_bytes": kv, "write_bytes": 0}, "O": {"read_bytes": 0, "write_bytes": q},
                "L": {"read_bytes": 0, "write_bytes": 20},
            },
        }  # fmt: skip
        assert launch["counted_shared"]["tensors"] == {
            "sQ": {"read_bytes": tile, "write_bytes": tile},
            **{name: {"read_bytes": 4 * tile, "write_bytes": tile} for name in ("sK", "sV")},
        }


def test_atomic_adds_have_a_column(tmp_path):
    found = check_report(ran(tmp_path, "--kernel flash2_backward --N 5 --d 4"))
    assert found[0]["launches"][1]["counted"]["tensors"]["dQ_sum"] == {
        "read_bytes": 80, "write_bytes": 80, "atomic_bytes": 80
    }  # fmt: skip
    assert "dQ" in load("flash2_backward").order_dependent


@needs_nvrtc
@pytest.mark.parametrize(("edit", "check"), [(K_TWICE, "tensors"), (WRONG_LIMIT, "values")], ids=["bytes", "values"])
def test_the_json_of_a_failure_is_complete(edit, check, tmp_path):
    found = ran(tmp_path, "--kernel flash2.cu --q-len 5 --kv-len 7 --d 4", 1, changed(*edit))
    for case in check_report(found):
        assert case["ok"] is False
        assert case["checks"][check]
        assert case["launches"]
        assert case["outputs"]
    assert found["ok"] is False


@needs_nvrtc
def test_one_failing_case_of_several_is_a_failure(tmp_path):
    """The kernel that is fine stays fine; the exit code is that of the other."""
    options = "--kernel flash2.cu --kernel flash1 --q-len 5 --kv-len 7 --d 4"
    found = ran(tmp_path, options, 1, changed(*WRONG_LIMIT))
    assert [(case["kernel"], case["ok"]) for case in check_report(found)] == [
        ("flash2", False), ("flash2", False), ("flash1", True), ("flash1", True)
    ]  # fmt: skip
    assert found["ok"] is False


# ------------------------------------------------------------------------------------------------ Report and require
def report(**problems):
    return Report("mine", Case(AttentionProblem(q_len=2, dtype="fp32")), {"O": Difference(0.5, 1.0, 0)}, problems)


def test_a_report_is_fine_where_no_check_has_a_sentence():
    assert report().is_fine
    assert report(values=[], tensors=[]).is_fine
    for check in CHECKS:
        assert not report(**{"values": [], check: ["something"]}).is_fine


def test_require_lets_pass_what_is_fine():
    require([])
    require([report(values=[]), report()])


def test_require_names_how_many_fail_and_the_first():
    reports = [report(values=[]), report(values=[], tensors=["one", "two"]), report(values=["three"]), report()]
    with pytest.raises(VerificationError, match=r"^2 of 4 cases fail, the first: mine \(2x2, d=64\): one$") as caught:
        require(reports)
    assert caught.value.exit_code == 1


def test_a_report_as_a_dictionary_is_json():
    made = verify(load("flash2"), Case(AttentionProblem(q_len=3, head_dim=4, dtype="fp32")))
    assert made.is_fine
    check_case(json.loads(json.dumps(made.as_dict())))
    assert made.seconds > 0
    ((launched, predicted),) = made.launches
    assert launched.tensors == predicted.tensors
    assert launched.tensors["Q"] == Moved(read=48)


def test_every_check_has_a_place_in_the_report():
    made = verify(load("flash2"), Case(AttentionProblem(q_len=3, head_dim=4, dtype="fp32")))
    assert tuple(made.problems) == CHECKS


CASES = {
    "2x3, d=8": {"q_len": 2, "kv_len": 3, "head_dim": 8},
    "2x3, d=8, 4/2 heads": {"q_len": 2, "kv_len": 3, "head_dim": 8, "heads": 4, "kv_heads": 2},
    "2x2, d=64, batch 3, causal": {"q_len": 2, "batch": 3, "mask": "causal"},
    "2x2, d=64, causal, bf16": {"q_len": 2, "mask": "causal", "dtype": "bf16"},
}


@pytest.mark.parametrize(("text", "shape"), CASES.items(), ids=CASES)
def test_the_name_of_a_case(text, shape):
    problem = AttentionProblem(**{"dtype": "fp32", **shape})
    assert str(Case(problem)) == text
    assert str(Case(problem, cases.huge_equal, padded)) == f"{text}, huge equal, padded"


def test_traffic_that_is_nowhere_predicted_is_a_problem():
    from ioaware_kernels.verify import _bytes

    made = verify(load("flash2"), Case(AttentionProblem(q_len=3, head_dim=4, dtype="fp32")))
    ((launched, predicted),) = made.launches
    less = Traffic({name: moved for name, moved in predicted.tensors.tensors.items() if name != "Q"})
    (sentence,) = _bytes(launched, launched.tensors, less)
    assert re.fullmatch(r"flash2: Q is read: 48 B, by the algorithm never; by CUDA line: \d+: 48 B", sentence)
    (sentence,) = _bytes(launched, Traffic(), Traffic({"S": Moved(write=48)}))
    assert sentence == "flash2: S is written: 0 B, 0 times the 48 B of the algorithm"


def test_every_kernel_claims_an_algorithm_of_the_table():
    assert {load(name).algorithm for name in names()} <= set(ALGORITHMS)


# ------------------------------------------------------------------------------------------------ the matrix
@pytest.mark.parametrize("kernel", names())
def test_every_mask_dtype_and_build_has_a_case_in_the_matrix(kernel):
    implementation = load(kernel)
    problems = [case.problem for case in matrix(implementation)]
    met = {(str(p.band), p.dtype, implementation.build_for(p)["HEAD_DIM"]) for p in problems}
    dims = [build["HEAD_DIM"] for build in implementation.builds]
    assert met == {*product(implementation.masks, implementation.dtypes, dims)}


def test_an_aligned_kernel_gets_aligned_tensors_only():
    """Every stride and every first element a multiple of eight: `padded` has none such."""
    for case in [*matrix(load("flash2_mma")), *one(load("flash2_mma"), AttentionProblem(q_len=8, dtype="bf16"))]:
        assert case.layout is not padded
        p = case.problem
        at = case.layout((p.batch, p.heads, p.q_len, p.head_dim))
        assert {at.first % 8, at.batch % 8, at.head % 8, at.row % 8} == {0}


def test_a_kernel_that_takes_no_strides_gets_packed_tensors_only():
    implementation = replace(load("flash2"), strided=False)
    assert {case.layout for case in matrix(implementation)} == {packed}
    problem = AttentionProblem(q_len=8, dtype="fp32")
    assert [case.layout for case in one(implementation, problem)] == [packed]
    assert [case.layout for case in one(load("flash2"), problem)] == [packed, padded]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("inputs", [*cases.EXTREME, cases.normal, cases.rising], ids=lambda f: f.__name__)
def test_a_cases_values_are_those_of_its_dtype(inputs, dtype):
    """fp16 as NumPy has it; a bf16 is an fp32 whose lower half is 0."""
    values = Case(AttentionProblem(q_len=4, kv_len=6, heads=2, dtype=dtype), inputs).values(0)
    for array in values.values():
        assert array.dtype == np.float32
        if dtype == "fp16":
            np.testing.assert_array_equal(array, array.astype(np.float16).astype(np.float32))
        else:
            assert not (array.view(np.uint32) & 0xFFFF).any()


INPUTS = ["normal", "huge_equal", "minus_infinity", "only_minus_infinity", "plus_infinity", "not_a_number", "denormal"]


@pytest.mark.parametrize("inputs", [getattr(cases, name) for name in INPUTS], ids=INPUTS)
def test_inputs_are_those_of_their_seed(inputs):
    problem = AttentionProblem(q_len=4, kv_len=6, heads=2, dtype="fp32")
    first, again, other = (inputs(problem, seed) for seed in (0, 0, 1))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert first["V"].tobytes() != other["V"].tobytes()
