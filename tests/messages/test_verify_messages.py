"""Refusals of `ioaware verify` and of the TOML beside a kernel, one sentence each. No kernel is compiled here."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from ioaware_kernels import cases
from tests.messages.command import call, spawn, written
from tests.messages.kernels import BUILD, LAUNCH, NOTHING, TABLE, keys, mine, table, without
from tests.messages.test_refusals import ADVICE, MEANT, lines, refused

# ------------------------------------------------------------------------------------------------ options
OPTIONS = lines("""
    verify --kernel flash3
    verify --kernel FLASH2
    verify --kernel flash2 --kernel flash3
    verify --kernel flash2.toml
    verify --kernel ''
    verify --kernel absent.cu
    verify --kernel flash2.cu
    verify --kernel flash2 --d 257
    verify --d 257
    verify --causal --d 257
    verify --kernel flash2 --causal --d 257
    verify --kernel flash2 --causal
    verify --kernel flash2_causal --N 8
    verify --kernel flash2_causal --kernel flash2 --causal
    verify --kernel split_kv --q-len 17 --kv-len 8
    verify --kernel split_kv --q-len 3 --kv-len 8 --heads 8 --kv-heads 1
    verify --kernel split_kv --N 64
    verify --kernel split_kv --q-len 1 --kv-len 8 --heads 32 --kv-heads 1
    verify --kernel flash2 --dtype fp16
    verify --kernel flash2 --dtype fp8
    verify --kernel flash2 --dtype float12
    verify --kernel flash2 --dtype ''
    verify --kernel flash2_mma --dtype fp32
    verify --kernel flash2_mma --d 20
    verify --kernel flash2_mma --d 136
    verify --kernel flash2_mma --d 257
    verify --dtype fp64
    verify --dtype bf16 --d 20
    verify --dtype bf16 --kernel flash2_mma --kernel flash2
    verify --kernel flash2 --source
    verify --kernel flash2 --source --engine grid
    verify --kernel flash2 --engine gpu
    verify --kernel flash2 --engine ''
    verify --kernel flash2 --N 2 --seed -1
    verify --kernel flash2 --N 2 --seed 1.5
    verify --kernel flash2 --N 2 --seed many
    verify --kernel flash2 --N 2 --seed 1e30
    verify --kernel flash2 --N 2 --seed ''
    verify --kernel flash2 --N 0
    verify --kernel flash2 --N 1.5
    verify --kernel flash2 --q-len 0
    verify --kernel flash2 --kv-len -1
    verify --kernel flash2 --d 0
    verify --kernel flash2 --heads 0
    verify --kernel flash2 --heads 4 --kv-heads 3
    verify --kernel flash2 --kv-heads 2
    verify --kernel flash2 --batch 0
    verify --kernel flash2 --batch 1e30
""")


@pytest.mark.parametrize("command", OPTIONS)
def test_an_option(command, tmp_path, snapshot):
    assert refused(tmp_path, command) == snapshot


CLICK = [  # what click itself says depends on its version: only what must be in it is checked
    ("verify --kernel", "--kernel"),
    ("verify --kernl flash2", "--kernel"),
    ("verify --N", "--N"),
    ("verify --json=yes", "--json"),
    ("verify flash2", "flash2"),
    *((f"verify --kernel flash2 --{name} {value}", f"--{name}") for name, value in (  # a kernel has no choice there
        ("mask", "causal"), ("direction", "bwd"), ("dropout", "0.1"), ("d-v", "32"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("command", "named"), CLICK, ids=[command for command, _ in CLICK])
def test_what_click_refuses(command, named, tmp_path):
    assert named in refused(tmp_path, command)


ENVIRONMENT = [("KERNEL", "flash3"), ("DTYPE", "fp8"), ("SEED", "many"), ("ENGINE", "gpu"), ("N", "0"), ("SOURCE", "1")]


@pytest.mark.parametrize(("name", "value"), ENVIRONMENT, ids=[f"IOAWARE_{n}={v}" for n, v in ENVIRONMENT])
def test_an_environment_variable(name, value, tmp_path, snapshot):
    assert refused(tmp_path, "verify", env={f"IOAWARE_{name}": value}) == snapshot


def test_a_gpu_without_cupy_is_skipped_not_passed(tmp_path, monkeypatch, snapshot):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert refused(tmp_path, "verify --kernel flash2 --N 2 --engine cuda", code=77) == snapshot


@pytest.mark.parametrize("command", ["verify --kernel flash3", "verify --kernel flash2 --d 257"])
def test_a_refusal_is_the_same_in_a_process_of_its_own(command, tmp_path):
    assert spawn(tmp_path, *shlex.split(command)) == call(tmp_path, *shlex.split(command))


LONG = {
    "a seed": (f"verify --kernel flash2 --N 2 --d 2 --seed {'9' * 5000}", {}),
    "a constant": ("verify --kernel mine.cu --N 4", mine(table("HEAD_DIM = 64", f"HEAD_DIM = {'9' * 5000}"))),
    "a hexadecimal constant": ("verify --kernel mine.cu --N 4", mine(table("TILE_Q = 1", f"TILE_Q = 0x{'f' * 5000}"))),
}


@pytest.mark.parametrize(("command", "files"), LONG.values(), ids=LONG)
def test_a_number_of_many_digits(command, files, tmp_path):
    assert call(written(tmp_path, files), *shlex.split(command)).code in (0, 2)


NAMED = re.compile(r"Error: (\w+)=.*the nearest legal value is (\w+)$")
FLAGS = {"head_dim": "--d", "kv_heads": "--kv-heads", "q_len": "--q-len", "kernel": "--kernel", "dtype": "--dtype"}
ADVISED = [f"{command} --kv-len 4" if "--kv-len" not in command else command for command in lines("""
    verify --kernel flash3 --q-len 1
    verify --kernel flash2 --q-len 1 --d 300
    verify --kernel flash2 --q-len 0
    verify --kernel flash2 --q-len 2 --heads 4 --kv-heads 3
    verify --kernel flash2 --q-len 2 --seed 1.5
    verify --kernel flash2 --q-len 2 --engine gri
    verify --kernel split_kv --q-len 17
    verify --kernel split_kv --q-len 3 --heads 8 --kv-heads 1
    verify --kernel split_kv --q-len 1 --heads 32 --kv-heads 1
    verify --kernel split_kv --q-len 1 --heads 17 --kv-heads 1
    verify --kernel flash2 --q-len 1 --seed -1
    verify --causal --d 257 --q-len 1
    verify --kernel flash2_mma --d 20 --q-len 1
    verify --kernel flash2_mma --d 257 --q-len 1
    verify --kernel flash2_mma --dtype fp32 --q-len 1
    verify --dtype float12 --q-len 1
""")]  # fmt: skip


@pytest.mark.parametrize("command", ADVISED)
def test_the_advice_leads_to_a_kernel_that_is_verified(command, tmp_path):
    tried = shlex.split(command)
    for _ in range(3):
        result = call(tmp_path, *tried)
        if result.code == 0:
            return
        name, value = next(filter(None, (rule.search(result.err) for rule in (ADVICE, MEANT, NAMED)))).groups()
        flag = FLAGS.get(name, f"--{name}")
        tried += [flag, value] if flag not in tried else []
        tried[tried.index(flag) + 1] = value
    pytest.fail(result.err)


# ------------------------------------------------------------------------------------------------ files
FILES = {
    "no table beside it": ("mine.cu", {"mine.cu": NOTHING}),
    "no table in its folder": ("a/mine.cu", {"a/mine.cu": NOTHING, "mine.toml": TABLE}),
    "a folder for a table": ("mine.cu", {"mine.cu": NOTHING, "mine.toml": None}),
    "no source beside the table": ("mine.cu", {"mine.toml": TABLE}),
    "a folder for a source": ("mine.cu", {"mine.cu": None, "mine.toml": TABLE}),
    "a folder and no table": ("mine.cu", {"mine.cu": None}),
    "a source in no encoding": ("mine.cu", mine(TABLE, b"// \xff\n")),
    "a table for a source": ("mine.toml", mine(TABLE)),
}


@pytest.mark.parametrize(("path", "files"), FILES.values(), ids=FILES)
def test_a_file(path, files, tmp_path, snapshot):
    assert refused(tmp_path, f"verify --kernel {path}", files) == snapshot


@pytest.mark.parametrize("text", ["algorithm =", "a = 1\na = 2", b"\xff\xfe"], ids=["no value", "twice", "no encoding"])
def test_a_table_that_python_refuses(text, tmp_path):
    """What Python's reader says depends on its version."""
    assert "kernel file 'mine.toml' is not TOML: " in refused(tmp_path, "verify --kernel mine.cu", mine(text))


# ------------------------------------------------------------------------------------------------ the table
REGION = '{ name = "sQ", holds = "Q", rows = "TILE_Q", columns = "HEAD_DIM", pad = 1 }'
PASSED = '{ name = "sP", rows = "TILE_Q", columns = "TILE_KV", passes = { read = 1, write = 1 } }'
DOT = '{ operands = ["sQ", ""], read_by = [1, 1] }'
DOTS = TABLE[TABLE.index("dots") :]


def parts(whole, *edits):
    """Edits `old -> new` of a region or of a matrix product."""
    out = {}
    for edit in edits:
        old, new = edit.split(" -> ")
        assert old in whole
        out[edit] = table(whole, whole.replace(old, new))
    return out


RULES = {
    "nothing": "",
    "an unknown key": table("title", "titel"),
    **keys("-algorithm", "title = 3", "algorithm = 3", 'algorithm = "flash9"', 'direction = "forward"'),
    **keys("direction = 3", 'direction = "fwd+bwd"', 'masks = "full"', 'masks = ["padding"]', "masks = [3]"),
    **keys('order_dependent = ["Q"]', 'order_dependent = ["dQ"]', "order_dependent = [3]", "order_dependent = 3"),
    **keys('order_dependent = "O"', "masks = []"),
    **keys("packs_group = 1", 'strided = "no"', 'dtypes = "fp16"', "dtypes = []", 'dtypes = ["fp64"]', "dtypes = [16]"),
    **keys("aligned = 0", "aligned = 1.5", "aligned = true", 'aligned = "8"'),
    "no backward pass": keys('direction = "bwd"')['direction = "bwd"'].replace('algorithm = "flash2"',
                                                                                'algorithm = "split_kv"'),
    # builds
    "no [[build]]": without(BUILD),
    "[build]": table("[[build]]", "[build]"),
    "build = 3": without(BUILD, "build = 3\n"),
    "build = [3]": without(BUILD, "build = [3]\n"),
    "build = []": without(BUILD, "build = []\n"),
    "a constant named as a size": table("THREADS = 32\n", "THREADS = 32\nheads = 1\n"),
    "a constant named as a number": table("THREADS = 32\n", "THREADS = 32\nscale = 1\n"),
    **keys("-HEAD_DIM", "-TILE_Q", "-TILE_KV", "HEAD_DIM = 0", "HEAD_DIM = -64", "HEAD_DIM = 64.0", "HEAD_DIM = true"),
    **keys('HEAD_DIM = "64"', "TILE_KV = 0", "THREADS = 0", "THREADS = [32]"),
    "a second build is wrong": table("[[launch]]", "[[build]]\nHEAD_DIM = 128\n\n[[launch]]"),
    "a constant of one build only": table(
        "[[launch]]", "[[build]]\nHEAD_DIM = 128\nTILE_Q = 1\nTILE_KV = 1\n\n[[launch]]"
    ),
    # launches
    "no [[launch]]": without(LAUNCH),
    "launch = 3": without(LAUNCH, "launch = 3\n"),
    "launch = [3]": without(LAUNCH, "launch = [3]\n"),
    "launch = []": without(LAUNCH, "launch = []\n"),
    "[launch]": table("[[launch]]", "[launch]"),
    "an unknown key of a launch": table("entry", "entri"),
    **keys("-entry", "-kernel", "-grid", "-block", "-parameters", "entry = 3", 'kernel = "flash"', "kernel = 3"),
    **keys('grid = "q_tiles"', "grid = 4", "grid = []", "grid = [1, 1, 1, 1]", 'grid = ["q_tile"]'),
    **keys('grid = ["THREAD"]'),
    **keys('grid = ["q_tiles * 2"]', "grid = [0]", "grid = [-1]", "grid = [1.5]", "grid = [true]", 'grid = ["causal"]'),
    **keys("block = 32", "block = []", "block = [0]", "block = [1, 1, 1, 1]", 'block = ["threads"]'),
    **keys('parameters = "Q"', 'parameters = ["q"]', 'parameters = ["Q.stride"]', 'parameters = ["S.row"]'),
    **keys('parameters = ["Q.row.x"]', "parameters = [3]", 'parameters = ["causl"]', 'parameters = ["D"]'),
    "a second launch is wrong": f'{TABLE}\n[[launch]]\nentry = "other"\n',
    # regions of shared memory
    "shared = 3": table(f"shared = [\n    {REGION},\n    {PASSED},\n]", "shared = 3"),
    "shared = [3]": table(REGION, "3"),
    **parts(REGION, "columns -> colums", 'name = "sQ", -> ', 'rows = "TILE_Q", -> ', 'columns = "HEAD_DIM", -> '),
    **parts(REGION, '"sQ" -> "Q"', '"sQ" -> "shared"', '"sQ" -> ""', '"sQ" -> "sP"'),
    **parts(REGION, '"sQ" -> 3', '"TILE_Q" -> 0', '"TILE_Q" -> 1.5', '"TILE_Q" -> "ROWS"', '"HEAD_DIM" -> "head_dmi"'),
    **parts(REGION, "pad = 1 -> pad = -1", "pad = 1 -> pad = 1.5", "pad = 1 -> pad = true", 'pad = 1 -> pad = "1"'),
    **parts(REGION, 'holds = "Q" -> holds = "X"', 'holds = "Q" -> holds = 3', 'holds = "Q" -> holds = ""'),
    **parts(PASSED, "{ read = 1, write = 1 } -> 3", "read = 1,  -> ", ", write = 1 -> ", "read = 1 -> reads = 1"),
    **parts(PASSED, "read = 1 -> read = 0", "write = 1 -> write = 1.5", 'read = 1 -> read = "READS"'),
    **parts(REGION, "pad = 1 -> reads = 0", "pad = 1 -> reads = 1.5", 'pad = 1 -> reads = "READS"'),
    **parts(REGION, 'holds = "Q" -> reads = 1'),
    # matrix products
    "dots = 3": table(DOTS, "dots = 3\n"),
    "dots = [3, 3]": table(DOTS, "dots = [3, 3]\n"),
    "one product too few": table(f"    {DOT},\n", ""),
    "one product too many": table(f"    {DOT},\n", f"    {DOT},\n    {DOT},\n"),
    **parts(DOT, 'operands = ["sQ", ""],  -> ', ", read_by = [1, 1] -> ", "read_by -> readby"),
    **parts(DOT, '["sQ", ""] -> "sQ"', '["sQ", ""] -> ["sQ"]', '["sQ", ""] -> ["sQ", "", ""]', '"sQ" -> "sX"'),
    **parts(DOT, "[1, 1] -> 1", "[1, 1] -> [1]", "[1, 1] -> [1, 1, 1]", "[1, 1] -> [0, 1]", '[1, 1] -> [1, "X"]'),
    **parts(DOT, "[1, 1] -> [1, 1], columns = 0", '[1, 1] -> [1, 1], columns = "X"'),
}  # fmt: skip


@pytest.mark.parametrize("text", RULES.values(), ids=RULES)
def test_a_table(text, tmp_path, snapshot):
    assert refused(tmp_path, "verify --kernel mine.cu --N 4", mine(text)) == snapshot


def test_a_kernel_for_which_the_matrix_has_no_case(tmp_path, monkeypatch, snapshot):
    monkeypatch.setattr(cases, "matrix", lambda implementation: iter(()))
    assert refused(tmp_path, "verify --kernel mine.cu", mine(TABLE)) == snapshot


def test_every_change_is_one():
    assert len(set(RULES.values())) == len(RULES)
    assert TABLE not in RULES.values()
