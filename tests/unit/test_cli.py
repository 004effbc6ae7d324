"""The command line: what each command prints, where its values come from, and its manners in a pipe and a terminal."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ioaware import AttentionProblem, __version__, device, workload
from ioaware.algorithms import ALGORITHMS, find_all
from ioaware.cite import PAPERS
from ioaware.cli.simulate import simulate as command
from ioaware.fits import SIDES, fits
from ioaware.problem import DIRECTIONS
from ioaware.report import LEVELS
from tests.messages.command import call, environment, inside, spawn, written
from tests.messages.programs import FLASH2
from tests.strategies import GENERAL

NAMES = [a.name for a in ALGORITHMS]


def printed(folder, *args, **options):
    """What a command prints that has nothing to complain about."""
    result = call(folder, *args, **options)
    assert (result.code, result.err) == (0, "")
    return result.out


def parsed(folder, *args, **options):
    """The one JSON object that a command prints."""
    out = printed(folder, *args, "--json", **options)
    assert out.count("\n") == 1
    return json.loads(out)


# ------------------------------------------------------------------------------------------------ help and version
@pytest.mark.parametrize("script", ["ioaware", "simulate"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(script, flag, tmp_path):
    out = printed(tmp_path, flag, script=script)
    assert out.startswith(f"Usage: {script} [OPTIONS]")


@pytest.mark.parametrize("name", ["cite", "completion", "config", "fits", "list", "simulate"])
def test_every_command_is_listed_and_helps(name, tmp_path):
    assert f"\n  {name} " in printed(tmp_path, "--help")
    out = printed(tmp_path, name, "--help")
    assert out.startswith(f"Usage: ioaware {name} ")
    assert out == printed(tmp_path, name, "-h")


def test_every_option_of_simulate_is_explained(tmp_path):
    out = printed(tmp_path, "simulate", "--help")
    for parameter in command.params:
        assert parameter.opts[0] in out
        assert parameter.help, parameter.opts


@pytest.mark.parametrize("script", ["ioaware", "simulate"])
@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(script, flag, tmp_path):
    assert printed(tmp_path, flag, script=script) == f"ioaware, version {__version__}\n"


SCRIPTS = [
    (("-m", "ioaware"), "main", ("--help",)),
    (("-m", "ioaware"), "main", ("list", "dtypes")),
    (("-m", "ioaware"), "main", ("simulate", "--sram", "192KB", "--json")),
    (("-m", "ioaware"), "main", ("simulate", "--N", "0")),
]


@pytest.mark.parametrize(("module", "function", "args"), SCRIPTS, ids=[" ".join(args) for *_, args in SCRIPTS])
def test_the_module_is_the_script(module, function, args, tmp_path):
    script = ("-c", f"from ioaware.cli import {function}; {function}()")
    assert spawn(tmp_path, *args, python=module) == spawn(tmp_path, *args, python=script)


def test_the_script_simulate_is_the_command_simulate(tmp_path):
    script = ("-c", "from ioaware.cli import simulate_main; simulate_main()")
    assert spawn(tmp_path, "--json", python=script).out == printed(tmp_path, "simulate", "--json")


# ------------------------------------------------------------------------------------------------ simulate
def test_the_command_of_the_readme(tmp_path):
    found = parsed(tmp_path, "simulate", "--sram", "192KB", "--N", "8192")
    assert list(found["algorithms"]) == ["naive", "flash1", "flash2"]
    assert found["device"]["sram_bytes"] == 192 * 1024
    assert (found["problem"]["q_len"], found["problem"]["head_dim"]) == (8192, 64)
    issued = {name: a["levels"]["issued"] for name, a in found["algorithms"].items()}
    moved = {name: level["read_bytes"] + level["write_bytes"] for name, level in issued.items()}
    square, column = 2 * 8192**2, 2 * 8192 * 64  # bytes of S or P, and of Q, K, V or O
    assert moved["naive"] == 4 * square + 4 * column
    assert moved["flash2"] < moved["flash1"] < moved["naive"]


def test_the_table_says_what_the_json_says(tmp_path):
    found = parsed(tmp_path, "simulate")
    out = printed(tmp_path, "simulate")
    for name, a in found["algorithms"].items():
        assert f"\n{name} " in out
        for tensor, moved in a["levels"]["issued"]["tensors"].items():
            assert re.search(rf"{tensor} +{moved['read_bytes']:,} +{moved['write_bytes']:,}\b", out)


@pytest.mark.parametrize("length", [10**9, 10**9 + 1, 10**15])
def test_lengths_of_any_size_are_counted_exactly(length, tmp_path):
    a = parsed(tmp_path, "simulate", "--N", str(length), "--alg", "flash2")["algorithms"]["flash2"]
    tensors = a["levels"]["issued"]["tensors"]
    tiles = -(-length // a["tile_q"])
    assert tensors["K"]["read_bytes"] == tensors["V"]["read_bytes"] == 2 * length * 64 * tiles
    assert tensors["Q"]["read_bytes"] == tensors["O"]["write_bytes"] == 2 * length * 64


SAME = [
    (["--N", "8192"], ["--N", "8K"]),
    (["--N", "8192"], ["--N", "8,192"]),
    (["--N", "8192"], ["--q-len", "8192", "--kv-len", "8192"]),
    (["--N", "4096"], ["--N", "8192", "--q-len", "4096", "--kv-len", "4096"]),
    (["--sram", "192KB"], ["--sram", "192KiB"]),
    (["--sram", "192KB"], ["--sram", "196608"]),
    (["--sram", "192KB"], ["--set", "sram_bytes=192K"]),
    (["--device", "a100"], ["--device", "A100-SXM-40GB"]),
    (["--mask", "causal"], ["--causal"]),
    (["--heads", "8"], ["--heads", "8", "--kv-heads", "8"]),
    (["--dtype", "half"], ["--dtype", "float16"]),
    (["--tiles", "64x32"], ["--tiles", "64X32"]),
    (["--set", "hbm_bytes_per_s=1555GB/s"], ["--set", "hbm_bytes_per_s=1.555e12"]),
    (["--alg", "flash2", "--alg", "naive"], ["--alg", "flash2", "--alg", "naive", "--alg", "flash2"]),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[" ".join(other) for _, other in SAME])
def test_two_ways_to_say_the_same(one, other, tmp_path):
    assert parsed(tmp_path, "simulate", *one) == parsed(tmp_path, "simulate", *other)


def test_keys_of_another_length(tmp_path):
    found = parsed(tmp_path, "simulate", "--q-len", "100", "--kv-len", "200", "--d", "8", "--d-v", "4")["problem"]
    assert [found[key] for key in ("q_len", "kv_len", "head_dim", "value_dim")] == [100, 200, 8, 4]


def test_key_padding_and_a_causal_mask(tmp_path):
    found = parsed(tmp_path, "simulate", "--mask", "padding", "--causal", "--alg", "flash2")
    assert (found["problem"]["mask"], found["problem"]["padding"]) == ("causal", True)
    assert "padding" in found["algorithms"]["flash2"]["levels"]["issued"]["tensors"]


PASSES = [(a.name, direction) for a in GENERAL for direction in DIRECTIONS if a.backward or direction == "fwd"]


@pytest.mark.parametrize(("name", "direction"), PASSES, ids=map("-".join, PASSES))
@pytest.mark.parametrize("mask", [[], ["--causal"], ["--mask", "padding"]], ids=["full", "causal", "padding"])
def test_every_algorithm_explains_itself(name, direction, mask, tmp_path):
    out = printed(tmp_path, "simulate", "--explain", "--N", "512", "--alg", name, "--direction", direction, *mask)
    for one in direction.split("+"):
        assert f"\n{name}, {one}: " in out
    explained = len(direction.split("+"))
    assert out.count("\non chip: ") == out.count("\ntime by engine") == explained
    assert out.count("words moved = ") + out.count("no closed form") == explained
    for tensor in ("Q", "K", "V"):
        assert f"read {tensor}: " in out or "no closed form" in out


DECODING = (
    "--q-len 2 --kv-len 1000 --heads 8 --kv-heads 2 --causal --pack-gqa --alibi --softcap 30 --sinks --tiles 16x64"
)
CACHE = "--page-size 16 --kv-dtype int4 --kv-scales token --alg flash_decoding --splits 3"


def test_a_paged_cache_is_explained(tmp_path):
    out = printed(tmp_path, "simulate", "--explain", *DECODING.split(), *CACHE.split())
    assert "\n  last = 1: query tiles that see the last key tile\n" in out
    assert "read block_table: " in out


def test_an_explanation_adds_up(tmp_path):
    """The closed form beside a line of the text, evaluated by hand, is what the table says."""
    out = printed(tmp_path, "simulate", "--explain", "--alg", "flash2", "--tiles", "64x32", "--N", "1000")
    assert "# read K: N d ⌈N/B_r⌉; read V: N d ⌈N/B_r⌉" in out
    assert re.search(rf"\bK +{2 * 1000 * 64 * 16:,} +0\b", out)


def test_a_device_without_rates_says_what_a_time_needs(tmp_path):
    mine = 'name = "mine"\nsm_count = 4\nsram_bytes = "64KB"\nhbm_bytes = "1GB"\n'
    out = " ".join(printed(written(tmp_path, {"mine.toml": mine}), "simulate", "--device", "mine.toml").split())
    assert "time is unknown" in out
    assert "--set hbm_bytes_per_s=" in out
    timed = ("--set", "hbm_bytes_per_s=1TB/s", "--set", "fp16_flop_per_s=1TFLOP/s")
    assert "time is unknown" not in printed(tmp_path, "simulate", "--device", "mine.toml", *timed)


# ------------------------------------------------------------------------------------------------ workloads
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_pi0_counts_its_ten_flow_steps(direction, tmp_path):
    found = parsed(tmp_path, "simulate", "--workload", "pi0", "--direction", direction)
    phases = found["workload"]["phases"]
    assert {p["name"]: p["repeats"] for p in phases} == {"siglip": 81, "prefix": 18, "action": 180}
    for name, total in found["algorithms"].items():
        each = [(p["repeats"], p["algorithms"][name]) for p in phases]
        for key in ("flops", "exps"):
            assert total[key] == sum(n * a[key] for n, a in each)
        for level in LEVELS:
            for key in ("read_bytes", "write_bytes"):
                assert total["levels"][level][key] == sum(n * a["levels"][level][key] for n, a in each)
        for bound in ("issued_read_bytes", "issued_bytes"):
            assert total["lower_bound"][bound] == sum(n * a["lower_bound"][bound] for n, a in each)
        assert total["time_s"] == pytest.approx(sum(n * a["time_s"] for n, a in each))


@pytest.mark.parametrize(("sram", "below"), [("8KB", True), ("192KB", False)])
def test_library_kernels_that_no_sram_allows_are_called_so(sram, below, tmp_path):
    """Each reads its inputs once whatever the SRAM is; with 8 KB and d = 256 no schedule can."""
    out = printed(tmp_path, "simulate", "--alg", "naive", "--N", "8192", "--d", "256", "--sram", sram)
    assert ("less than any schedule with this SRAM moves" in " ".join(out.split())) is below


def test_a_workload_prints_every_phase(tmp_path):
    out = printed(tmp_path, "simulate", "--workload", "pi0", "--explain", "--alg", "flash2")
    for phase in workload.load("pi0").phases:
        assert f"\n{phase.name}: {phase.layers} layers" in out
        assert f"\nphase {phase.name}: {phase.repeats} x" in out
    assert "x 10 steps" in out
    assert "all layers and steps" in out


@pytest.mark.parametrize("name", workload.names())
def test_every_workload_is_simulated(name, tmp_path):
    assert parsed(tmp_path, "simulate", "--workload", name, "--alg", "flash2")["workload"]["name"] == name


def test_a_workload_takes_what_it_leaves_open(tmp_path):
    found = parsed(tmp_path, "simulate", "--workload", "gpt2", "--phase", "prefill", "--batch", "3", "--dtype", "bf16")
    assert (found["problem"]["batch"], found["problem"]["dtype"]) == (3, "bf16")


# ------------------------------------------------------------------------------------------------ programs
PROGRAM = ("simulate", "--program", "mine.py")


OPTIONS = ["", "--causal", "--dropout 0.1", "--heads 6 --kv-heads 3", "--tiles 64x32"]


@pytest.mark.parametrize("options", [o.split() for o in OPTIONS], ids=OPTIONS)
def test_a_program_of_ones_own_moves_what_the_built_in_one_moves(options, tmp_path):
    written(tmp_path, {"mine.py": FLASH2})
    mine = parsed(tmp_path, *PROGRAM, *options)["algorithms"]["mine"]
    assert mine["levels"] == parsed(tmp_path, "simulate", "--alg", "flash2", *options)["algorithms"]["flash2"]["levels"]


def test_a_program_beside_a_built_in_one(tmp_path):
    written(tmp_path, {"mine.py": FLASH2})
    assert list(parsed(tmp_path, *PROGRAM, "--alg", "naive")["algorithms"]) == ["naive", "mine"]


def test_a_program_explains_itself(tmp_path):
    out = printed(written(tmp_path, {"mine.py": FLASH2}), *PROGRAM, "--explain")
    assert "\nmine, fwd: FlashAttention-2, written for a test." in out
    assert "# read K: N d ⌈N/B_r⌉" in out


def test_two_programs_of_a_file_and_its_helpers(tmp_path):
    other = FLASH2.partition("\n\n\n")[2].replace("def mine", "def other")
    written(tmp_path, {"mine.py": f"{FLASH2}\n\n{other}\n\ndef helper(x):\n    return x\n"})
    assert list(parsed(tmp_path, *PROGRAM)["algorithms"]) == ["mine", "other"]


def test_what_a_program_prints_is_not_the_result(tmp_path):
    result = call(written(tmp_path, {"mine.py": f"print('hello')\n{FLASH2}"}), *PROGRAM, "--json")
    assert list(json.loads(result.out)["algorithms"]) == ["mine"]
    assert result.err == "hello\n"


def test_a_program_named_as_a_built_in_one_replaces_nothing(tmp_path):
    written(tmp_path, {"mine.py": FLASH2.replace("def mine", "def flash2")})
    result = call(tmp_path, *PROGRAM, "--alg", "flash2", "--json")
    assert result.code == 2 or len(json.loads(result.out)["algorithms"]) == 2


# ------------------------------------------------------------------------------------------------ configuration
SOURCES = ["built-in", "user", "project", "environment", "flag"]


def settings(strongest):
    """Files, environment and flags that give --batch at every source up to the strongest: 1, 2, 3, 4 and 5."""
    used = SOURCES[: SOURCES.index(strongest) + 1]
    files = {"user": "home/ioaware/config.toml", "project": "ioaware.toml"}
    given = {path: f"batch = {SOURCES.index(name) + 1}\n" for name, path in files.items() if name in used}
    env = {"IOAWARE_BATCH": "4"} if "environment" in used else {}
    return given, env, ["--batch", "5"] if "flag" in used else []


@pytest.mark.parametrize("strongest", SOURCES)
def test_precedence(strongest, tmp_path, monkeypatch):
    files, env, flags = settings(strongest)
    monkeypatch.setattr("click.get_app_dir", lambda name: str(tmp_path / "home" / name))
    written(tmp_path, files)
    for name in ("simulate", "fits"):
        found = parsed(tmp_path, name, *flags, env=env)
        assert found["problem"]["batch"] == SOURCES.index(strongest) + 1


@pytest.mark.parametrize("strongest", SOURCES[:-1])
def test_config_says_which_value_wins_and_why(strongest, tmp_path, monkeypatch):
    files, env, _ = settings(strongest)
    monkeypatch.setattr("click.get_app_dir", lambda name: str(tmp_path / "home" / name))
    out = printed(written(tmp_path, files), "config", env=env)
    origin = {"user": "configuration file", "project": "configuration file"}.get(strongest, strongest)
    assert re.search(rf"^batch +{SOURCES.index(strongest) + 1} +{origin}$", out, re.MULTILINE)
    for path in files:
        assert re.search(rf"^# .*{os.path.basename(path)}$", out, re.MULTILINE)


def test_config_lists_every_option(tmp_path):
    options = [line.split()[0] for line in printed(tmp_path, "config").splitlines()]
    assert options == [p.opts[-1].lstrip("-") for p in command.params if p.name not in ("debug", "version")]


def test_the_users_own_configuration_folder(tmp_path):
    import click

    with inside(tmp_path, [], {}):
        folder = click.get_app_dir("ioaware")
    if not folder.startswith(str(tmp_path)):
        pytest.skip("this system keeps configuration outside of the home folder")
    written(tmp_path, {os.path.relpath(os.path.join(folder, "config.toml"), tmp_path): 'dtype = "bf16"\n'})
    assert parsed(tmp_path, "simulate")["problem"]["dtype"] == "bf16"


TYPED = {  # a configuration file's value, typed as TOML has it, and what comes of it
    "N = 4096": ("problem", "q_len", 4096),
    'N = "4K"': ("problem", "q_len", 4096),
    "causal = true": ("problem", "mask", "causal"),
    "causal = false": ("problem", "mask", "full"),
    "dropout = 0.25": ("problem", "dropout", 0.25),
    'sram = "100KB"': ("device", "sram_bytes", 102400),
    "kv-heads = 1": ("problem", "kv_heads", 1),
    'set = ["l2_bytes=10MB", "sm_count=7"]': ("device", "sm_count", 7),
    'device = "h100"': ("device", "name", "NVIDIA H100 SXM5 80 GB"),
}


@pytest.mark.parametrize(("text", "expected"), TYPED.items(), ids=TYPED)
def test_a_configuration_file(text, expected, tmp_path):
    part, key, value = expected
    assert parsed(written(tmp_path, {"ioaware.toml": text}), "simulate")[part][key] == value


def test_a_list_of_algorithms_in_a_configuration_file(tmp_path):
    written(tmp_path, {"ioaware.toml": 'alg = ["flash2", "naive"]'})
    assert list(parsed(tmp_path, "simulate")["algorithms"]) == ["flash2", "naive"]


ENVIRONMENT = {
    "N": ("4K", "problem", "q_len", 4096),
    "D_V": ("32", "problem", "value_dim", 32),
    "CAUSAL": ("1", "problem", "mask", "causal"),
    "DEVICE": ("h100", "device", "name", "NVIDIA H100 SXM5 80 GB"),
    "SRAM": ("100KB", "device", "sram_bytes", 102400),
}


@pytest.mark.parametrize(("name", "expected"), ENVIRONMENT.items(), ids=ENVIRONMENT)
def test_an_environment_variable(name, expected, tmp_path):
    value, part, key, meant = expected
    assert parsed(tmp_path, "simulate", env={f"IOAWARE_{name}": value})[part][key] == meant


@pytest.mark.parametrize(("name", "value"), [("JSON", "1"), ("ALG", "flash2"), ("SET", "sm_count=7")])
def test_an_environment_variable_is_called_as_its_option(name, value, tmp_path):
    found = printed(tmp_path, "simulate", env={f"IOAWARE_{name}": value})
    assert found != printed(tmp_path, "simulate")


def test_an_empty_environment_variable_is_none(tmp_path):
    empty = {f"IOAWARE_{p.opts[-1].lstrip('-').replace('-', '_').upper()}": "" for p in command.params}
    assert printed(tmp_path, "simulate", env=empty) == printed(tmp_path, "simulate")


# ------------------------------------------------------------------------------------------------ fits
def test_fits_prints_every_tile_and_the_best(tmp_path):
    out = printed(tmp_path, "fits", "--device", "rtx4090", "--d", "128")
    for title in ("flash1 fwd", "flash1 bwd", "flash2 fwd", "flash2 bwd"):
        assert f"\n{title}\n" in out
    assert out.count("\nbest ") == out.count("\n  total ") == 4
    for side in SIDES:
        assert len(re.findall(rf"^{side} +[\d,]+ ", out, re.MULTILINE)) == 4


def test_fits_as_json_is_the_python_api(tmp_path):
    found = parsed(tmp_path, "fits", "--device", "h100", "--N", "4096")
    assert found["schema"] == 1
    expected = fits(find_all(["flash1", "flash2"]), AttentionProblem(q_len=4096), device.load("h100"))
    for p in expected:
        assert found["algorithms"][p.algorithm][p.direction] == json.loads(json.dumps(p.as_dict()))


def test_fits_says_yes_only_where_it_fits(tmp_path):
    found = parsed(tmp_path, "fits", "--d", "128")
    memory = found["device"]
    for passes in found["algorithms"].values():
        for one in passes.values():
            assert sum(entry["bytes"] for entry in one["ledger"]) <= memory["sram_bytes"]
            for t in one["tiles"]:
                assert t["fits"] is (t["sram_peak_bytes"] <= memory["sram_bytes"])
                placed = t["shared_peak_bytes"], t["register_peak_bytes"]
                assert t["fits_device"] is (placed <= (memory["shared_bytes"], memory["register_bytes"]) and all(
                    held <= memory[name] for held, name in zip(placed, ("shared_bytes", "register_bytes"), strict=True)
                ))  # fmt: skip


def test_fits_and_simulate_choose_the_same_tiles(tmp_path):
    best = parsed(tmp_path, "fits", "--alg", "flash2")["algorithms"]["flash2"]["fwd"]["best"]
    a = parsed(tmp_path, "simulate", "--alg", "flash2")["algorithms"]["flash2"]
    assert (best["tile_q"], best["tile_kv"]) == (a["tile_q"], a["tile_kv"])


# ------------------------------------------------------------------------------------------------ lists
LISTED = {
    "devices": device.names(),
    "algorithms": NAMES,
    "workloads": workload.names(),
    "dtypes": ["fp64", "fp32", "tf32", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2"],
}


@pytest.mark.parametrize(("kind", "names"), LISTED.items(), ids=LISTED)
def test_list(kind, names, tmp_path):
    out = printed(tmp_path, "list", kind)
    assert [line.split()[0] for line in out.splitlines()] == names
    assert f"{kind}:\n{out}" in printed(tmp_path, "list")


@pytest.mark.parametrize("name", [n for n in device.names() if n != "cpu"])
def test_list_shows_every_number_of_a_device_and_its_source(name, tmp_path):
    out = printed(tmp_path, "list", "devices", name)
    for field, source in device.load(name).sources.items():
        assert re.search(rf"^  {field} .*{re.escape(source)}$", out, re.MULTILINE)


def test_list_says_what_is_unknown(tmp_path):
    unknown = [f for f in device.NUMBERS if getattr(device.load("tpu-v4"), f) is None]
    out = printed(tmp_path, "list", "devices", "tpu-v4")
    assert re.findall(r"^  (\w+) +unknown$", out, re.MULTILINE) == unknown


def test_list_shows_the_phases_of_a_workload(tmp_path):
    out = printed(tmp_path, "list", "workloads", "pi0")
    assert "action: 18 layers x 10 of N_q=51 N_k=867" in out
    assert out.count("source: Physical-Intelligence/openpi") == 4


def test_cite_names_the_papers_of_the_default_algorithms(tmp_path):
    out = printed(tmp_path, "cite")
    assert re.findall(r"^@\w+\{(\w+),", out, re.MULTILINE) == [
        *("dao2022flashattention", "dao2024flashattention2", "saha2024io", "ioaware"),
    ]
    assert f"version={{{__version__}}}" in out


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_can_be_cited(name, tmp_path):
    out = printed(tmp_path, "cite", "--alg", name)
    (algorithm,) = find_all([name])
    assert all(PAPERS[key] in out for key in algorithm.papers)
    assert out.count("{") == out.count("}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_covers_both_scripts(shell, tmp_path):
    out = printed(tmp_path, "completion", shell)
    assert "_IOAWARE_COMPLETE" in out
    assert "_SIMULATE_COMPLETE" in out
    if shutil.which(shell):
        read = subprocess.run([shell, "-n"], input=out, text=True, capture_output=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")


TYPED_SO_FAR = [
    ("ioaware", "ioaware si", "plain,simulate"),
    ("ioaware", "ioaware simulate --sr", "plain,--sram"),
    ("ioaware", "ioaware fits --dev", "plain,--device"),
    ("simulate", "simulate --workl", "plain,--workload"),
]


@pytest.mark.parametrize(("script", "words", "offered"), TYPED_SO_FAR, ids=[words for _, words, _ in TYPED_SO_FAR])
def test_completion_completes(script, words, offered, tmp_path):
    asked = {f"_{script.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert offered in call(tmp_path, script=script, env=asked).out.splitlines()


# ------------------------------------------------------------------------------------------------ pipes
LONG = [("simulate",), ("simulate", "--json"), ("simulate", "--explain"), ("list",), ("--help",)]
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and terminals as POSIX has them")


@posix
@pytest.mark.parametrize("args", LONG, ids=" ".join)
def test_a_reader_that_goes_away_is_no_error_message(args, tmp_path):
    assert unread(tmp_path, *args).err == ""


@posix
@pytest.mark.parametrize("args", LONG, ids=" ".join)
def test_a_reader_that_goes_away_is_exit_code_141(args, tmp_path):
    assert unread(tmp_path, *args).code == 141


def unread(folder, *args):
    """A command whose output nobody reads: every write fails."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return spawn(folder, *args, stdout=writer)
    finally:
        os.close(writer)


@posix
def test_head(tmp_path):
    line = f"'{sys.executable}' -m ioaware simulate --workload pi0 --explain | head -n 1"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True, check=True)
    assert (done.stdout.count(b"\n"), done.stderr) == (1, b"")


@posix
@pytest.mark.parametrize("args", [("simulate",), ("simulate", "--json")], ids=" ".join)
def test_a_full_disk_is_one_sentence(args, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as full:
        result = spawn(tmp_path, *args, stdout=full)
    assert result.code != 0
    assert result.err.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in result.err


def test_an_encoding_without_mathematics(tmp_path):
    result = spawn(tmp_path, "simulate", "--explain", env={"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.err) == (0, "")


WAITING = "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)\n"


@posix
def test_an_interrupt_is_exit_code_130(tmp_path):
    written(tmp_path, {"mine.py": WAITING})
    args = [sys.executable, "-m", "ioaware", *PROGRAM]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(args, cwd=tmp_path, env=environment(tmp_path), **streams) as process:
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"Error: interrupted")


# ------------------------------------------------------------------------------------------------ terminals
ESCAPE = "\x1b["
COMMANDS = [("simulate", "--explain"), ("simulate", "--workload", "pi0"), ("fits",), ("list",), ("config",)]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("env", [{}, {"TERM": "xterm-256color"}, {"NO_COLOR": "1"}], ids=str)
def test_no_escape_codes_in_a_pipe(args, env, tmp_path):
    assert ESCAPE not in printed(tmp_path, *args, env=env)


def test_force_color_forces_it_in_a_pipe(tmp_path):
    assert ESCAPE in printed(tmp_path, "simulate", env={"FORCE_COLOR": "1", "TERM": "xterm-256color"})


def on_terminal(folder, *args, env):
    """What a command writes to a terminal; read while it runs, for a terminal holds little."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    settings = environment(folder, {"TERM": "xterm-256color", "COLUMNS": "100", **env})
    line = [sys.executable, "-m", "ioaware", *args]
    with subprocess.Popen(line, cwd=folder, env=settings, stdout=slave) as process, os.fdopen(master, "rb") as stream:
        os.close(slave)
        out = b"".join(iter(lambda: read_terminal(stream), b""))
    assert process.returncode == 0
    return out.decode()


def read_terminal(stream):
    try:
        return stream.read1(65536)
    except OSError:  # Linux ends a terminal so
        return b""


TERMINALS = [
    pytest.param({}, True, id="a terminal"),
    pytest.param({"TERM": "dumb"}, False, id="TERM=dumb"),
    pytest.param({"NO_COLOR": "1"}, False, id="NO_COLOR"),
    pytest.param({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, id="NO_COLOR and FORCE_COLOR"),
]


@posix
@pytest.mark.parametrize(("env", "styled"), TERMINALS)
def test_escape_codes_on_a_terminal(env, styled, tmp_path):
    assert (ESCAPE in on_terminal(tmp_path, "fits", "--alg", "flash2", env=env)) is styled


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("args", [("simulate",), ("simulate", "--workload", "pi0"), ("fits",)], ids=" ".join)
def test_columns_are_kept(args, columns, tmp_path):
    out = printed(tmp_path, *args, env={"COLUMNS": str(columns)})
    assert max(map(len, out.splitlines())) <= columns


def test_without_a_terminal_there_are_100_columns(tmp_path):
    assert printed(tmp_path, "simulate") == printed(tmp_path, "simulate", env={"COLUMNS": "100"})


@pytest.mark.parametrize("args", [("simulate",), ("simulate", "--N", "1e15", "--batch", "1e9")], ids=" ".join)
def test_no_number_is_cut_in_80_columns(args, tmp_path):
    assert "…" not in printed(tmp_path, *args, env={"COLUMNS": "80"})
