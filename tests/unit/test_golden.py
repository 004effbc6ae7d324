"""Golden PTX: what is checked in is what the sources compile to, and nothing else can be loaded."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from ioaware.errors import InputError, IoawareError, MissingExtra, VerificationError
from ioaware_kernels import golden, nvrtc
from ioaware_kernels.golden import Entry, Region

BUILDS = {build.file: build for build in golden.builds()}
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def why_not():
    """Why nothing can be compared: no NVRTC, or another one."""
    try:
        found = nvrtc.release()
    except MissingExtra as e:
        return str(e)
    return "" if found == golden.NVRTC else f"golden PTX comes from NVRTC {golden.NVRTC}, this is {found}"


needs_nvrtc = pytest.mark.skipif(bool(why_not()), reason=why_not())


# What is checked in


def test_the_folder_holds_one_file_for_each_build_and_the_manifest():
    assert golden._present(golden.ROOT / "golden") == {*BUILDS, "manifest.json"}


@each_build
def test_the_manifest_describes_the_file(build):
    """Loading compares source, options and PTX with the manifest; names and layout are compared here."""
    ptx, record = golden.load(build.kernel, build.head_dim), golden.record(build.kernel, build.head_dim)
    assert (record.kernel, record.head_dim) == (build.kernel, build.head_dim)
    assert set(record.entries) == {launch["entry"] for launch in build.launches}
    for launch in build.launches:
        entry = record.entries[launch["entry"]]
        assert f".entry {launch['entry']}(" in ptx
        assert list(entry.parameters) == launch["parameters"]
        assert entry.shared == build.layout(launch)


@each_build
def test_ptx_is_for_every_driver_from_535_on_and_tells_no_path(build):
    ptx = golden.load(build.kernel, build.head_dim)
    assert ".version 8.2\n.target sm_80\n" in ptx
    assert re.findall(r"\.file.*", ptx) == [f'.file\t1 "{build.kernel}.cu"']
    assert "\0" not in ptx
    assert f"V{golden.NVRTC}\n" in ptx


@needs_nvrtc
@each_build
def test_compiling_gives_the_same_bytes(build):
    made = golden.make(build)
    assert made == (golden.load(build.kernel, build.head_dim), golden.record(build.kernel, build.head_dim))


def test_the_pin_is_the_one_that_pip_installs():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = project["optional-dependencies"]["nvrtc"]
    assert requirement.partition(";")[0] == f"nvidia-cuda-nvrtc-cu12=={golden.NVRTC}"


# Looking up


@pytest.mark.parametrize(("head_dim", "file"), [(1, 32), (32, 32), (33, 64), (96, 128), (129, 256), (256, 256)])
def test_the_smallest_build_that_serves(head_dim, file):
    assert golden.find("flash2", head_dim).file == f"flash2_d{file}.ptx"
    assert golden.load("flash2", head_dim) == golden._text(golden.ROOT / "golden" / f"flash2_d{file}.ptx")


@pytest.mark.parametrize(("head_dim", "nearest"), [(0, 1), (-3, 1), (257, 256)])
def test_a_head_dim_that_no_build_serves(head_dim, nearest):
    rule = f"head_dim={head_dim}: the builds of flash2 serve 1 to 256; the nearest legal value is {nearest}"
    for look_up in (golden.find, golden.load, golden.record):
        with pytest.raises(InputError, match=f"^{rule}$"):
            look_up("flash2", head_dim)


def test_a_kernel_that_does_not_exist():
    with pytest.raises(InputError, match=r"^kernel 'flash3' is unknown, the nearest is 'flash\d'; known: .*flash2"):
        golden.load("flash3", 64)


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


def forget(path):
    edit(path, '"flash2_d64.ptx"', '"flash2_d65.ptx"')


SPOILED = {
    "flash2.cu has changed since it was compiled": lambda c: edit(c / "cuda/flash2.cu", "//", "///"),
    "flash2.toml has changed since it was compiled": lambda c: edit(
        c / "cuda/flash2.toml", "THREADS = ", "X = 1\nTHREADS = "
    ),
    "it has been changed by hand": lambda c: edit(c / "golden/flash2_d64.ptx", "ret;", "exit;"),
    "the file is missing": lambda c: (c / "golden/flash2_d64.ptx").unlink(),
    "the manifest does not know it": lambda c: forget(c / "golden/manifest.json"),
}


@pytest.mark.parametrize(("reason", "spoil"), SPOILED.items(), ids=SPOILED)
def test_stale_ptx_is_refused(reason, spoil, copy):
    golden.load("flash2", 64, copy)
    spoil(copy)
    sentence = f"golden/flash2_d64.ptx does not hold: {reason}; python -m ioaware_kernels.golden compiles it anew"
    with pytest.raises(VerificationError, match=f"^{re.escape(sentence)}$"):
        golden.load("flash2", 64, copy)


def test_no_manifest_at_all(copy):
    (copy / "golden/manifest.json").unlink()
    with pytest.raises(VerificationError, match="the manifest does not know it"):
        golden.load("flash2", 64, copy)


def test_line_ends_of_a_checkout_do_not_matter(copy):
    expected = golden.load("flash2", 64, copy)
    for path in (copy / "cuda/flash2.cu", copy / "golden/flash2_d64.ptx", copy / "golden/manifest.json"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert golden.load("flash2", 64, copy) == expected


# Making them

SOURCE = """extern "C" __global__ void first(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] = TWO; }
extern "C" __global__ void second(float* x) { x[threadIdx.x] *= HEAD_DIM; }
"""
TABLE = """[[build]]
HEAD_DIM = 8
TWO = 2

[[launch]]
entry = "first"
parameters = ["x", "n"]
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "tiny.cu").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "cuda" / "tiny.toml").write_text(TABLE, encoding="utf-8")
    return tmp_path


@needs_nvrtc
def test_what_is_written_holds(tiny):
    assert golden.write(tiny) == golden.check(tiny) == ["manifest.json", "tiny_d8.ptx"]
    assert ".entry first(" in golden.load("tiny", 3, tiny)
    record = golden.record("tiny", 3, tiny)
    assert record.options[-2:] == ("-DHEAD_DIM=8", "-DTWO=2")
    assert record.entries == {"first": Entry({"x": 8, "n": 4}, {})}


@needs_nvrtc
def test_writing_takes_away_what_is_not_made_any_more(tiny):
    golden.write(tiny)
    (tiny / "golden" / "tiny_d9.ptx").touch()
    golden.write(tiny)
    assert golden._present(tiny / "golden") == {"tiny_d8.ptx", "manifest.json"}


DIFFERENT = {
    "tiny_d8.ptx": lambda folder: edit(folder / "tiny_d8.ptx", "ret;", "ret; "),
    "manifest.json": lambda folder: edit(folder / "manifest.json", '"x": 8', '"x": 4'),
    "tiny_d9.ptx": lambda folder: (folder / "tiny_d9.ptx").touch(),
}


@needs_nvrtc
@pytest.mark.parametrize(("name", "spoil"), DIFFERENT.items(), ids=DIFFERENT)
def test_check_names_the_file_that_differs(name, spoil, tiny):
    golden.write(tiny)
    spoil(tiny / "golden")
    with pytest.raises(VerificationError, match=f"^golden/{re.escape(name)} is not what cuda/ compiles to; python -m"):
        golden.check(tiny)


@needs_nvrtc
def test_check_without_any_file(tiny):
    with pytest.raises(VerificationError, match=r"^golden/tiny_d8\.ptx is not what"):
        golden.check(tiny)


WRONG = {
    "tiny.toml: first has 1 parameters, but 2 in the source": ("tiny.toml", '"x", "n"', '"x"'),
    "tiny.toml: third has 2 parameters, but the source defines first, second": ("tiny.toml", '"first"', '"third"'),
    "tiny.cu does not compile with NVRTC 12.2: line 2: .*": ("tiny.cu", "threadIdx.x] *=", "threadIdx.y] *= z"),
    "tiny.toml has two builds with HEAD_DIM=8; keep one of them": (
        "tiny.toml",
        "[[launch]]",
        "[[build]]\nHEAD_DIM = 8\nTWO = 2\n[[launch]]",
    ),
    "tiny.toml: two launches of first differ; give each an entry of its own": (
        "tiny.toml",
        "[[launch]]",
        '[[launch]]\nentry = "first"\nparameters = ["y", "n"]\n[[launch]]',
    ),
}


@needs_nvrtc
@pytest.mark.parametrize(("sentence", "change"), WRONG.items(), ids=WRONG)
def test_a_table_that_does_not_fit_its_source(sentence, change, tiny):
    file, old, new = change
    edit(tiny / "cuda" / file, old, new)
    with pytest.raises(InputError, match=f"^{sentence}$"):
        golden.write(tiny)
    assert not (tiny / "golden").exists()


def test_a_table_without_a_source(tiny):
    (tiny / "cuda" / "tiny.cu").unlink()
    with pytest.raises(InputError, match=r"^tiny\.toml has no tiny\.cu beside it; write it or take the table away$"):
        golden.source(golden.find("tiny", 8, tiny), tiny)


def test_another_compiler_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(nvrtc, "release", lambda: "12.9.86")
    for command in (golden.write, golden.check):
        with pytest.raises(
            InputError, match=r"^golden PTX comes from NVRTC 12\.2\.140, this is 12\.9\.86; pip install"
        ):
            command(tiny)


# Layout


def test_regions_follow_one_another_until_one_is_not_known():
    build = golden.Build("kernel", {"HEAD_DIM": 64, "TILE": 16, "WARPS": 4}, [])
    shared = [
        {"name": "a", "rows": "TILE", "columns": "HEAD_DIM", "pad": 1},
        {"name": "b", "rows": 2, "columns": "WARPS"},
        {"name": "c", "rows": 1, "columns": "kv_len", "pad": 0},
        {"name": "d", "rows": "TILE", "columns": 1},
    ]
    assert build.layout({"shared": shared}) == {
        "a": Region(0, 4 * 16 * 65),
        "b": Region(4 * 16 * 65, 4 * 2 * 4),
        "c": Region(4 * 16 * 65 + 4 * 2 * 4, None),
        "d": Region(None, 4 * 16),
    }


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
