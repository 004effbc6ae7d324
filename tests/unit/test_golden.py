"""Golden PTX: what is checked in is what the sources compile to, and nothing else can be loaded."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from ioaware import AttentionProblem
from ioaware.errors import InputError, IoawareError, VerificationError
from ioaware_kernels import golden, nvrtc
from ioaware_kernels.implementation import load
from tests.compiler import needs_pinned

BUILDS = {build.file: build for build in golden.builds()}
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


# What is checked in


def test_the_folder_holds_one_file_for_each_build_and_the_manifest():
    assert golden.present(golden.ROOT / "golden") == {*BUILDS, "manifest.json"}


@each_build
def test_the_manifest_tells_the_shared_memory_layout(build):
    """Source, options and PTX are compared with the manifest whenever a file is loaded."""
    manifest = json.loads((golden.ROOT / "golden/manifest.json").read_text(encoding="utf-8"))
    assert manifest["nvrtc"] == golden.NVRTC
    assert manifest["files"][build.file]["shared"] == golden.shared_layouts(build)


@each_build
def test_ptx_is_for_every_driver_from_535_on_and_tells_no_path(build):
    ptx = golden.load(build)
    assert ".version 8.2\n.target sm_80\n" in ptx
    assert re.findall(r"\.file.*", ptx) == [f'.file\t1 "{build.implementation.file}"']
    assert "\0" not in ptx
    assert f"V{golden.NVRTC}\n" in ptx


@needs_pinned
@each_build
def test_compiling_gives_the_same_bytes(build):
    made = golden.compile(build.implementation.source, build.implementation.file, build.definitions)
    assert made == golden.load(build)


def test_the_pin_is_the_one_that_pip_installs():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = project["optional-dependencies"]["nvrtc"]
    assert requirement.partition(";")[0] == f"nvidia-cuda-nvrtc-cu12=={golden.NVRTC}"


# Looking up


@pytest.mark.parametrize(("head_dim", "file"), [(1, 32), (32, 32), (33, 64), (96, 128), (129, 256), (256, 256)])
def test_the_smallest_build_that_serves(head_dim, file):
    problem = AttentionProblem(q_len=8, head_dim=head_dim, dtype="fp32")
    assert golden.Build(load("flash2"), load("flash2").build_for(problem), "fp32").file == f"flash2_d{file}.ptx"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_build_for_every_dtype(dtype):
    """The compiler is told the dtype, but of fp32, and the two are different files."""
    kernel = load("flash2_mma")
    problem = AttentionProblem(q_len=8, head_dim=72, dtype=dtype)
    build = golden.Build(kernel, kernel.build_for(problem), dtype)
    assert build.file == f"flash2_mma_{dtype}_d128.ptx"
    assert build.definitions[:2] == (f"-D{dtype.upper()}=1", "-DHEAD_DIM=128")
    multiplied = set(re.findall(r"mma\.sync\.\S+\.f32\.(\w+)\.(\w+)\.f32", golden.load(build)))
    assert multiplied == {("f16", "f16") if dtype == "fp16" else ("bf16", "bf16")}
    assert not any(option.startswith(("-DFP", "-DBF")) for option in of(golden.ROOT).definitions)


def test_a_head_dim_that_no_build_serves():
    with pytest.raises(
        InputError, match=r"^head_dim=257: flash2 is built for at most 256; the nearest legal value is 256$"
    ):
        load("flash2").build_for(AttentionProblem(q_len=8, head_dim=257, dtype="fp32"))


# Stale PTX


@pytest.fixture
def copy(tmp_path):
    """Sources and golden files to spoil."""
    for folder in ("cuda", "golden"):
        shutil.copytree(golden.ROOT / folder, tmp_path / folder)
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def of(root, file="flash2_d64.ptx"):
    return next(build for build in golden.builds(root) if build.file == file)


def forget(path):
    edit(path, '"flash2_d64.ptx"', '"flash2_d65.ptx"')


SPOILED = {
    "flash2.cu has changed since it was compiled": lambda c: edit(c / "cuda/flash2.cu", "//", "///"),
    "flash2.toml has changed since it was compiled": lambda c: edit(
        c / "cuda/flash2.toml", "THREADS = ", "X = 1\nTHREADS = "
    ),
    "it has been changed by hand": lambda c: edit(c / "golden/flash2_d64.ptx", "ret;", "exit;"),
    "flash2_d64.ptx is missing": lambda c: (c / "golden/flash2_d64.ptx").unlink(),
    "the manifest does not know it": lambda c: forget(c / "golden/manifest.json"),
}


@pytest.mark.parametrize(("reason", "spoil"), SPOILED.items(), ids=SPOILED)
def test_stale_ptx_is_refused(reason, spoil, copy):
    golden.load(of(copy), copy)
    spoil(copy)
    sentence = f"golden/flash2_d64.ptx does not hold: {reason}; python -m ioaware_kernels.golden compiles it anew"
    with pytest.raises(VerificationError, match=f"^{re.escape(sentence)}$"):
        golden.load(of(copy), copy)


def test_no_manifest_at_all(copy):
    (copy / "golden/manifest.json").unlink()
    with pytest.raises(VerificationError, match=r"manifest\.json is missing"):
        golden.load(of(copy), copy)


def test_line_ends_of_a_checkout_do_not_matter(copy):
    expected = golden.load(of(copy), copy)
    for path in (copy / "cuda/flash2.cu", copy / "golden/flash2_d64.ptx", copy / "golden/manifest.json"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert golden.load(of(copy), copy) == expected


# Making them

SOURCE = """extern "C" __global__ void first(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] = TWO; }
extern "C" __global__ void second(float* x) { x[threadIdx.x] *= HEAD_DIM; }
"""
TABLE = """algorithm = "flash2"

[[build]]
HEAD_DIM = 8
TILE_Q = 1
TILE_KV = 1
TWO = 2

[[launch]]
entry = "first"
kernel = "flash2"
grid = [1]
block = [32]
parameters = ["O", "q_len"]
shared = [
    { name = "a", rows = "TWO", columns = "HEAD_DIM", pad = 1 },
    { name = "b", rows = 1, columns = "kv_len" },
    { name = "c", rows = "TWO", columns = 1 },
]
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "tiny.cu").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "cuda" / "tiny.toml").write_text(TABLE, encoding="utf-8")
    return tmp_path


@needs_pinned
def test_what_is_written_holds(tiny):
    assert golden.write(tiny) == golden.check(tiny) == ["manifest.json", "tiny_d8.ptx"]
    (build,) = golden.builds(tiny)
    assert ".entry first(" in golden.load(build, tiny)
    assert build.definitions == ("-DHEAD_DIM=8", "-DTILE_Q=1", "-DTILE_KV=1", "-DTWO=2")


def test_regions_follow_one_another_until_one_is_not_known(tiny):
    (build,) = golden.builds(tiny)
    assert golden.shared_layouts(build) == {"first": {"a": [0, 72], "b": [72, None], "c": [None, 8]}}


@needs_pinned
def test_writing_takes_away_what_is_not_made_any_more(tiny):
    golden.write(tiny)
    (tiny / "golden" / "tiny_d9.ptx").touch()
    golden.write(tiny)
    assert golden.present(tiny / "golden") == {"tiny_d8.ptx", "manifest.json"}


DIFFERENT = {
    "tiny_d8.ptx": lambda folder: edit(folder / "tiny_d8.ptx", "ret;", "ret; "),
    "manifest.json": lambda folder: edit(folder / "manifest.json", "72", "73"),
    "tiny_d9.ptx": lambda folder: (folder / "tiny_d9.ptx").touch(),
}


@needs_pinned
@pytest.mark.parametrize(("name", "spoil"), DIFFERENT.items(), ids=DIFFERENT)
def test_check_names_the_file_that_differs(name, spoil, tiny):
    golden.write(tiny)
    spoil(tiny / "golden")
    with pytest.raises(VerificationError, match=f"^golden/{re.escape(name)} is not what cuda/ compiles to; python -m"):
        golden.check(tiny)


@needs_pinned
def test_check_without_any_file(tiny):
    with pytest.raises(VerificationError, match=r"^golden/tiny_d8\.ptx is not what"):
        golden.check(tiny)


WRONG = {
    "tiny.toml: first is given 1 parameters, but takes 2": ("tiny.toml", '"O", "q_len"', '"O"'),
    "tiny.toml: no entry 'third'; the source defines first, second": ("tiny.toml", '"first"', '"third"'),
    "tiny.cu does not compile with NVRTC 12.2: line 2: .*": ("tiny.cu", "threadIdx.x] *=", "threadIdx.y] *= z"),
    "tiny.toml has two builds for tiny_d8.ptx; keep one of them": (
        "tiny.toml", "[[launch]]", "[[build]]\nHEAD_DIM = 8\nTILE_Q = 1\nTILE_KV = 1\nTWO = 2\n[[launch]]",
    ),
}  # fmt: skip


@needs_pinned
@pytest.mark.parametrize(("sentence", "change"), WRONG.items(), ids=WRONG)
def test_a_table_that_does_not_fit_its_source(sentence, change, tiny):
    file, old, new = change
    edit(tiny / "cuda" / file, old, new)
    with pytest.raises(InputError, match=f"^{sentence}$"):
        golden.write(tiny)
    assert not (tiny / "golden").exists()


def test_a_table_without_a_source(tiny):
    (tiny / "cuda" / "tiny.cu").unlink()
    with pytest.raises(InputError, match=r"tiny\.cu': no such file; a \.cu file is needed$"):
        golden.builds(tiny)


def test_another_compiler_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(nvrtc, "release", lambda: "12.9.86")
    for command in (golden.write, golden.check):
        with pytest.raises(
            InputError, match=r"^golden PTX comes from NVRTC 12\.2\.140, this is 12\.9\.86; pip install"
        ):
            command(tiny)


# The command


def failing(error):
    def function():
        raise error

    return function


def test_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(golden, "write", lambda: ["a", "b"])
    monkeypatch.setattr(golden, "check", lambda: ["a"])
    assert (golden.main([]), golden.main(["--check"])) == (0, 0)
    assert capsys.readouterr().out == "2 files written, NVRTC 12.2.140\n1 files compared, NVRTC 12.2.140\n"


def test_the_command_line_fails(monkeypatch, capsys):
    monkeypatch.setattr(golden, "write", failing(InputError("another NVRTC")))
    monkeypatch.setattr(golden, "check", failing(VerificationError("differs")))
    assert (golden.main([]), golden.main(["--check"]), golden.main(["--chek"])) == (2, 1, 2)
    assert capsys.readouterr().err == ("another NVRTC\ndiffers\nusage: python -m ioaware_kernels.golden [--check]\n")
    assert issubclass(VerificationError, IoawareError)
