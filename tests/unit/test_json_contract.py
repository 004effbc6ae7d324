"""The JSON of `simulate`, schema 1: exactly these keys and types, sums that add up, and the same as the Python API."""

from __future__ import annotations

import json
import math
import shlex

import pytest

import ioaware as io
from ioaware.device import FIELDS, NUMBERS
from ioaware.report import LEVELS, SCHEMA
from tests.messages.command import call, written

TOP = {"schema", "version", "device", "problem", "algorithms"}
PROBLEM = {  # key: type
    **dict.fromkeys(("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim", "value_dim"), int),
    **dict.fromkeys(("dtype", "score_dtype", "accum_dtype", "direction", "mask"), str),
    **dict.fromkeys(("dropout", "softcap", "softmax_scale"), float),
    **dict.fromkeys(("padding", "alibi", "sink", "shared_kv"), bool),
    **dict.fromkeys(("bias", "page_size", "kv_dtype"), type(None)),  # where none is asked for
    "kv_scales": str,
    "pack": int,
}
TOTALS = {"flops", "exps", "levels", "lower_bound", "time_s", "bound_by"}
ALGORITHM = {"tile_q", "tile_kv", "fits", "sram_peak_bytes", *TOTALS}
PASS = {
    *ALGORITHM,
    *(
        "program",
        "splits",
        "tiles_from",
        "binds",
        "fits_device",
        "shared_peak_bytes",
        "register_peak_bytes",
        "counted_by",
        "mask_tiles",
    ),
}
ENGINES = {"dram", "l2", "sram", "matmul", "exp"}
BARE = 'name = "bare"\nsm_count = 4\nsram_bytes = "64KB"\nhbm_bytes = "1GB"\n'


def parsed(folder, options):
    """The JSON object, read by a reader that knows no Infinity and no NaN."""
    result = call(written(folder, {"bare.toml": BARE}), "simulate", "--json", *shlex.split(options))
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# ------------------------------------------------------------------------------------------------ what each part is
def check_moved(moved, extra=frozenset()):
    """Bytes read and written: exact integers, never floats."""
    assert set(moved) - {"atomic_bytes"} == {"read_bytes", "write_bytes", *extra}
    for key in set(moved) - extra:
        assert type(moved[key]) is int, key
        assert moved[key] >= 0


def check_level(level):
    """One level: its tensors, and their sums."""
    check_moved(level, {"tensors"})
    for tensor in level["tensors"].values():
        check_moved(tensor)
        assert tensor.get("atomic_bytes", 0) <= min(tensor["read_bytes"], tensor["write_bytes"])
        assert tensor["read_bytes"] + tensor["write_bytes"] > 0  # a tensor that does not move is left out
    for key in ("read_bytes", "write_bytes"):
        assert level[key] == sum(tensor[key] for tensor in level["tensors"].values())


def check_bound(bound, issued, extra=frozenset()):
    """The lower bound and the distance from it."""
    assert set(bound) == {"issued_read_bytes", "issued_bytes", "ratio", *extra}
    moved = issued["read_bytes"] + issued["write_bytes"]
    assert type(bound["issued_read_bytes"]) is type(bound["issued_bytes"]) is int
    assert 0 < bound["issued_read_bytes"] <= issued["read_bytes"]
    assert bound["issued_read_bytes"] < bound["issued_bytes"] <= moved
    assert type(bound["ratio"]) is float
    assert bound["ratio"] == moved / bound["issued_bytes"]


def check_time(a):
    """Seconds and the engine that bounds them; both null where rates are unknown."""
    if a["time_s"] is None:
        assert a["bound_by"] is None
        return
    assert type(a["time_s"]) is float
    assert 0 < a["time_s"] < math.inf
    assert a["bound_by"] in ENGINES


def check_totals(a, extra_of_bound=frozenset()):
    assert type(a["flops"]) is int
    assert type(a["exps"]) is int
    assert list(a["levels"]) == list(LEVELS)
    for level in a["levels"].values():
        check_level(level)
    check_bound(a["lower_bound"], a["levels"]["issued"], extra_of_bound)
    check_time(a)


def check_tiles(a, whole=int):
    """Tiles, whether they fit, and what they hold. A workload's tiles are null where its phases differ."""
    for key in ("tile_q", "tile_kv"):
        assert type(a[key]) in (int, whole)
    assert type(a["fits"]) is bool
    assert type(a["sram_peak_bytes"]) is int


def check_algorithm(a, passes=()):
    """One algorithm; outside of a workload with its passes, whose sum it is."""
    assert set(a) == ALGORITHM | ({"passes"} if passes else set())
    check_tiles(a, int if passes else type(None))
    check_totals(a)
    if not passes:
        return
    assert tuple(a["passes"]) == passes
    for one in a["passes"].values():
        check_pass(one)
    check_sum(a, [(1, one) for one in a["passes"].values()])
    first = a["passes"][passes[0]]
    assert (a["tile_q"], a["tile_kv"]) == (first["tile_q"], first["tile_kv"])
    assert a["fits"] is all(one["fits"] for one in a["passes"].values())
    assert a["sram_peak_bytes"] == max(one["sram_peak_bytes"] for one in a["passes"].values())


def check_pass(one):
    assert set(one) == PASS
    check_tiles(one)
    check_totals(one, {"binds", "theorem", "memory_words"})
    assert type(one["fits_device"]) in (bool, type(None))
    for key in ("program", "binds"):
        assert isinstance(one[key], str)
        assert one[key]
    assert one["tiles_from"] in ("best", "paper", "shipped", "given", "whole")
    assert one["counted_by"] in ("closed form", "walked")
    assert one["lower_bound"]["binds"] in ("traffic", "loads", "small_memory", "compulsory")
    assert type(one["lower_bound"]["memory_words"]) is int
    assert type(one["shared_peak_bytes"]) is type(one["register_peak_bytes"]) is int
    assert one["sram_peak_bytes"] <= one["shared_peak_bytes"] + one["register_peak_bytes"]


def check_sum(total, parts):
    """Everything that adds up, exactly; times to rounding. `parts`: (repeats, part)."""
    for key in ("flops", "exps"):
        assert total[key] == sum(n * part[key] for n, part in parts)
    for bound in ("issued_read_bytes", "issued_bytes"):
        assert total["lower_bound"][bound] == sum(n * part["lower_bound"][bound] for n, part in parts)
    for level in LEVELS:
        of_parts = [(n, part["levels"][level]["tensors"]) for n, part in parts]
        assert set(total["levels"][level]["tensors"]) == {name for _, tensors in of_parts for name in tensors}
        for name, tensor in total["levels"][level]["tensors"].items():
            for key in tensor:
                assert tensor[key] == sum(n * tensors.get(name, {}).get(key, 0) for n, tensors in of_parts)
    if total["time_s"] is not None:
        assert total["time_s"] == pytest.approx(sum(n * part["time_s"] for n, part in parts))


def check_device(device):
    assert type(device["name"]) is type(device["kind"]) is str
    assert set(device) - {"name", "kind"} <= set(NUMBERS)
    assert {"sm_count", "sram_bytes", "hbm_bytes"} <= set(device)
    for key in set(device) - {"name", "kind"}:
        assert type(device[key]) is (float if "float" in FIELDS[key] else int), key


def check_problem(problem):
    assert {key: type(value) for key, value in problem.items()} == PROBLEM


# ------------------------------------------------------------------------------------------------ one problem
CASES = [
    "",
    "--sram 100KB --N 1000",
    "--direction bwd --alg flash1 --alg flash2",
    "--direction fwd+bwd --causal --alg flash2 --alg flash2_no_atomics --alg memory_efficient",
    "--direction fwd+bwd --mask padding --dropout 0.1 --heads 6 --kv-heads 3 --batch 2 --d 96 --d-v 32",
    "--q-len 1 --heads 8 --kv-heads 2 --alg flash2 --alg split_kv",
    "--alg naive --alg eager --alg safe_softmax --alg online_softmax --gemm-tiles 128x128 --dtype fp32",
    "--tiles paper",
    "--tiles shipped --d 128 --device h100",
    "--tiles 64x32 --dtype fp8",
    "--N 1e15 --batch 1e15 --alg flash2",
    "--device bare.toml",
    "--device tpu-v4 --dtype fp64",
]


@pytest.mark.parametrize("options", CASES)
def test_every_key_and_type(options, tmp_path):
    found = parsed(tmp_path, options)
    assert set(found) == {*TOP, "published_bounds"}
    assert (found["schema"], SCHEMA) == (1, 1)
    assert found["version"] == io.__version__
    check_device(found["device"])
    check_problem(found["problem"])
    passes = tuple(found["problem"]["direction"].split("+"))
    for a in found["algorithms"].values():
        check_algorithm(a, passes)
    for bound in found["published_bounds"]:
        assert {key: type(value) for key, value in bound.items()} == {"name": str, "words": int, "source": str}


def test_keys_come_in_the_order_in_which_people_read(tmp_path):
    found = parsed(tmp_path, "--alg flash2")
    assert list(found) == ["schema", "version", "device", "problem", "algorithms", "published_bounds"]
    a = found["algorithms"]["flash2"]
    assert list(a)[:4] == ["tile_q", "tile_kv", "fits", "sram_peak_bytes"]
    assert list(a["levels"]["issued"]["tensors"]) == ["Q", "K", "V", "O", "L"]


def test_numbers_beyond_floating_point_are_exact(tmp_path):
    """N = 10^15 + odd things would be lost in a float: 53 bits hold no product of this size."""
    a = parsed(tmp_path, "--N 999999999999999 --d 63 --alg naive")["algorithms"]["naive"]
    assert a["levels"]["issued"]["tensors"]["S"]["read_bytes"] == 2 * 999999999999999**2
    assert a["levels"]["issued"]["tensors"]["Q"]["read_bytes"] == 2 * 999999999999999 * 63


def test_an_atomic_add_reads_and_writes(tmp_path):
    a = parsed(tmp_path, "--direction bwd --alg flash2 --N 1024 --tiles 64x64")["algorithms"]["flash2"]
    moved = a["levels"]["issued"]["tensors"]["dQ_sum"]
    once = 4 * 1024 * 64  # fp32: zeroed once, converted once, and added to by each of the 16 key tiles
    assert moved == {"read_bytes": 17 * once, "write_bytes": 17 * once, "atomic_bytes": 16 * once}


def test_unknown_rates_are_left_out_and_times_are_null(tmp_path):
    found = parsed(tmp_path, "--device bare.toml")
    assert set(found["device"]) == {"name", "kind", "sm_count", "sram_bytes", "hbm_bytes"}
    assert {a["time_s"] for a in found["algorithms"].values()} == {None}


def test_no_time_is_infinite(tmp_path):
    result = call(tmp_path, "simulate", "--json", "--set", "hbm_bytes_per_s=1e-320")
    assert "Infinity" not in result.out


def test_levels_are_ordered(tmp_path):
    """No level moves less than is compulsory, and what goes through the L2 is not more than was issued."""
    for a in parsed(tmp_path, "--N 2048")["algorithms"].values():
        levels = {name: level["read_bytes"] for name, level in a["levels"].items()}
        assert levels["compulsory"] <= levels["dram"] <= levels["issued"] <= levels["sram"]


# ------------------------------------------------------------------------------------------------ the Python API
API = {
    "": ({"q_len": 8192}, {}),
    "--sram 100KB --N 1000 --d 128": ({"q_len": 1000, "head_dim": 128}, {"sram": "100KB"}),
    "--device h100 --set l2_bytes=10MB --causal": (
        {"q_len": 8192, "mask": "causal"},
        {"device": "h100", "settings": {"l2_bytes": "10MB"}},
    ),
    "--alg flash2 --alg eager --tiles 64x32 --gemm-tiles 128x64 --direction fwd+bwd": (
        {"q_len": 8192, "direction": "fwd+bwd"},
        {"algorithms": ["flash2", "eager"], "tiles": "64x32", "gemm_tiles": "128x64"},
    ),
    "--mask padding --dropout 0.5 --heads 4 --kv-heads 2 --batch 3 --dtype bf16 --d-v 32": (
        {"q_len": 8192, "padding": True, "dropout": 0.5, "heads": 4, "kv_heads": 2, "batch": 3, "dtype": "bf16",
         "value_dim": 32},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "arguments"), API.items(), ids=API)
def test_the_command_line_is_the_python_api(options, arguments, tmp_path):
    problem, rest = arguments
    report = io.simulate(io.AttentionProblem(**problem), **rest)
    assert parsed(tmp_path, options) == json.loads(json.dumps(report.as_dict()))


def test_a_report_of_lengths_per_sequence(tmp_path):
    """The Python API takes packed sequences; their lengths are lists in the JSON."""
    report = io.simulate(io.AttentionProblem(q_len=(100, 7), kv_len=(100, 30)), algorithms=["flash2"])
    found = json.loads(json.dumps(report.as_dict()))
    assert (found["problem"]["q_len"], found["problem"]["kv_len"]) == ([100, 7], [100, 30])
    assert found["problem"]["batch"] == 2
    check_algorithm(found["algorithms"]["flash2"], ("fwd",))


def test_a_mask_of_a_band_is_named():
    report = io.simulate(io.AttentionProblem(q_len=64, mask=io.Band(left=8, right=0)), algorithms=["flash2"])
    assert report.as_dict()["problem"]["mask"] == "window:8,0"


# ------------------------------------------------------------------------------------------------ workloads
@pytest.mark.parametrize("options", ["pi0", "pi0 --direction fwd+bwd", "gpt2 --tiles paper", "openvla --device h100"])
def test_a_workload(options, tmp_path):
    found = parsed(tmp_path, f"--workload {options} --alg naive --alg flash2")
    assert set(found) == {*TOP, "workload"}
    assert set(found["workload"]) == {"name", "title", "phases", "memory"}
    phases = found["workload"]["phases"]
    assert found["problem"] == (phases[0]["problem"] if len(phases) == 1 else None)
    for phase in phases:
        check_phase(phase)
    for name, a in found["algorithms"].items():
        check_algorithm(a)
        check_sum(a, [(phase["repeats"], phase["algorithms"][name]) for phase in phases])


def check_phase(phase):
    assert set(phase) == {"name", "layers", "steps", "repeats", "source", "problem", "algorithms"}
    assert type(phase["layers"]) is type(phase["steps"]) is int
    assert phase["repeats"] == phase["layers"] * phase["steps"]
    check_problem(phase["problem"])
    for a in phase["algorithms"].values():
        check_algorithm(a, tuple(phase["problem"]["direction"].split("+")))


def test_a_workload_is_the_python_api(tmp_path):
    report = io.simulate_workload("pi0", "h100", ["flash2"])
    found = parsed(tmp_path, "--workload pi0 --device h100 --alg flash2")
    assert found == json.loads(json.dumps(report.as_dict()))


def test_a_phase_is_its_problem_alone(tmp_path):
    """What a workload says of a phase is what the command line says of the phase's problem."""
    (phase,) = parsed(tmp_path, "--workload gpt2 --phase prefill --alg flash2")["workload"]["phases"]
    p = phase["problem"]
    alone = parsed(tmp_path, f"--N {p['q_len']} --heads {p['heads']} --d {p['head_dim']} --causal --alg flash2")
    assert (phase["problem"], phase["algorithms"]) == (alone["problem"], alone["algorithms"])
