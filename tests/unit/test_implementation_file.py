"""How a `.cu` finds its TOML, one's own or the project's, and what a TOML may say."""

from __future__ import annotations

import shutil
from pathlib import Path

from ioaware.algorithms import find
from ioaware_kernels.implementation import Dot, Passes, SharedRegion, load, names

FLASH2 = load("flash2")


def test_names_are_sorted():
    assert names() == sorted(names())
    assert "flash2" in names()


def test_a_changed_copy_uses_the_projects_table(tmp_path):
    shutil.copy(FLASH2.path, tmp_path)
    copy = load(str(tmp_path / "flash2.cu"))
    assert not copy.is_own
    assert copy.name == "flash2"
    assert (copy.builds, copy.launches, copy.title) == tuple(
        getattr(FLASH2, name) for name in ("builds", "launches", "title")
    )


def test_a_copy_with_a_table_of_its_own_uses_that(tmp_path):
    shutil.copy(FLASH2.path, tmp_path)
    text = Path(FLASH2.path).with_suffix(".toml").read_text(encoding="utf-8")
    (tmp_path / "flash2.toml").write_text(text.replace('title = "', 'title = "Changed: '), encoding="utf-8")
    assert load(str(tmp_path / "flash2.cu")).title == f"Changed: {FLASH2.title}"


def test_an_own_file_lies_beside_its_table():
    path = Path(__file__).parents[2] / "docs" / "examples" / "warp_per_query.cu"
    kernel = load(str(path))
    assert (kernel.name, kernel.is_own, kernel.strided) == ("warp_per_query", False, False)
    assert (kernel.algorithm, kernel.direction, kernel.masks) == (find("flash2"), "fwd", ("full",))
    (launch,) = kernel.launches
    assert (launch.grid, launch.block, launch.shared, launch.dots) == (("q_len", "heads", "batch"), (32,), (), ())
    assert kernel.source == path.read_text(encoding="utf-8")


def test_a_name_in_the_working_folder_is_the_projects(tmp_path, monkeypatch):
    """`flash2` is a name, `flash2.cu` a path: a file of that name does not hide the project's kernel."""
    shutil.copy(FLASH2.path, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load("flash2").is_own
    assert not load("flash2.cu").is_own


LEAST = """\
algorithm = "flash2"
[[build]]
HEAD_DIM = 64
TILE_Q = 1
TILE_KV = 1
[[launch]]
entry = "mine"
kernel = "flash2"
grid = [1]
block = [1]
parameters = []
"""


def test_the_least_that_a_table_says(tmp_path):
    (tmp_path / "mine.cu").touch()
    (tmp_path / "mine.toml").write_text(LEAST, encoding="utf-8")
    kernel = load(str(tmp_path / "mine.cu"))
    assert (kernel.title, kernel.direction, kernel.masks) == ("", "fwd", ("full",))
    assert (kernel.order_dependent, kernel.packs_group, kernel.strided) == ((), False, True)
    assert (kernel.dtypes, kernel.aligned) == (("fp32",), 1)
    (launch,) = kernel.launches
    assert (launch.grid, launch.block, launch.parameters, launch.shared, launch.dots) == ((1,), (1,), (), (), ())


def test_everything_that_a_table_may_say(tmp_path):
    text = LEAST.replace("parameters = []", "").replace(
        '"flash2"\n[[', '"flash2"\norder_dependent = ["O", "L"]\ndtypes = ["bf16", "fp32"]\naligned = 4\n[['
    ) + (
        'parameters = ["Q", "L.row", "O.head", "K.batch", "causal", "scale", "TILE_Q", "kv_tiles"]\n'
        'shared = [{ name = "a", rows = "TILE_Q", columns = 3, pad = 2, holds = "K",'
        " passes = { read = 2, write = 3 } },"
        ' { name = "b", rows = 1, columns = 1, holds = "Q", reads = "TILE_KV" }]\n'
        'dots = [{ operands = ["", "a"], read_by = [4, "TILE_KV"], columns = "TILE_KV" },'
        ' { operands = ["", ""], read_by = [1, 1] }]\n'
    )
    (tmp_path / "mine.cu").touch()
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    kernel = load(str(tmp_path / "mine.cu"))
    assert (kernel.order_dependent, kernel.dtypes, kernel.aligned) == (("O", "L"), ("bf16", "fp32"), 4)
    (launch,) = kernel.launches
    assert launch.parameters[1:4] == ("L.row", "O.head", "K.batch")
    assert launch.shared == (
        SharedRegion("a", "TILE_Q", 3, 2, "K", Passes(2, 3)),
        SharedRegion("b", 1, 1, holds="Q", reads="TILE_KV"),
    )
    assert launch.dots == (Dot(("", "a"), (4, "TILE_KV"), "TILE_KV"), Dot(("", ""), (1, 1)))
