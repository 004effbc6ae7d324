"""What a run leaves behind: the result file and its way back, tables, picture, page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ioaware.errors import InputError, MissingExtra
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware_kernels.bench import Measuring, Plan, grid, measure, read, result, write
from ioaware_kernels.bench.page import page
from ioaware_kernels.bench.plot import draw, require, svg
from ioaware_kernels.bench.tables import notes, tables
from tests.unit.fake_machine import FakeMachine

PROBLEM = AttentionProblem(q_len=1, dtype="fp32", score_dtype="fp32")


def points():
    tiles = [TileSizes(q, 16) for q in (8, 16, 32)]
    return (*grid(["naive", "flash2"], PROBLEM, [32, 64, 128], [16]), *grid(["flash2"], PROBLEM, [64], [16], tiles))


@pytest.fixture(scope="module")
def bench():
    """A whole run, with someone else's kernel in it."""
    return measure(Plan(points(), 3), FakeMachine(peers=("theirs",)), "ioaware bench --plot 'a <b>.html'")


# ------------------------------------------------------------------------------------------------ the file
def test_the_result_file_holds_everything(bench, tmp_path):
    path = str(tmp_path / "run.json")
    write(bench, path)
    assert read(path) == bench
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1
    assert set(found) == {
        "schema", "device", "versions", "date", "command", "seed", "repeats", "complete", "doubts", "absent",
        "ceilings", "rates", "rows", "fits", "crossovers",
    }  # fmt: skip
    assert {len(samples) for row in found["rows"] for samples in row["samples_s"].values()} == {3}
    assert set(found["versions"]) >= {"ioaware", "python", "numpy", "numba"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])


def test_a_result_without_a_crossover_is_json(tmp_path):
    """Infinity is not: null stands for it."""
    machine = FakeMachine(lambda name, p: 1e-5 * p.q_len * (1 if name == "naive" else 2))
    never = measure(Plan(points(), 3), machine)
    write(never, str(tmp_path / "a.json"))
    assert "null" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read(str(tmp_path / "a.json")) == never


DAMAGED = {
    "nothing": "",
    "a list": "[]",
    "another schema": '{"schema": 2}',
    "no rows": '{"schema": 1}',
    "not JSON": "{'schema': 1}",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_no_result(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"^result file '.*a\.json' (is|has)"):
        read(str(tmp_path / "a.json"))


def damaged(bench, path, change):
    write(bench, str(path))
    table = json.loads(path.read_text(encoding="utf-8"))
    change(table)
    path.write_text(json.dumps(table), encoding="utf-8")
    return str(path)


CHANGES = {
    "a key too many": lambda t: t.update(more=1),
    "a key of a row too many": lambda t: t["rows"][0].update(more=1),
    "a row without samples": lambda t: t["rows"][0].pop("samples_s"),
    "samples that are texts": lambda t: t["rows"][0].update(samples_s={"warm": ["fast"], "cold": []}),
    "ceilings that are none": lambda t: t.update(ceilings={}),
    "rows that are none": lambda t: t.update(rows=[1]),
    "a problem without a length": lambda t: t["rows"][0].update(problem={}),
    "a fit without points": lambda t: t["fits"][0].update(points=[]),
    "a device without a name": lambda t: t.update(device={}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_damaged_result_is_one_sentence(change, bench, tmp_path):
    with pytest.raises(InputError, match=r"is damaged \(.*\); measure again$"):
        read(damaged(bench, tmp_path / "a.json", change))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(str(tmp_path / "absent.json"))


# ------------------------------------------------------------------------------------------------ tables
def test_tables_show_every_row_and_fit(bench):
    ceilings, warm, cold, exponents, crossovers = tables(bench)
    assert len(ceilings.rows) == len(bench.rates) == 6
    assert len(warm.rows) == len(cold.rows) == len(bench.rows) == 12
    assert len(exponents.rows) == len(bench.fits) == 6
    assert len(crossovers.rows) == 2
    for table in tables(bench):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_what_was_interrupted_says_so():
    run = Measuring(Plan(points(), 3), FakeMachine())
    turns = iter(run)
    for _ in range(2):
        next(turns)
    partial = result(run)
    assert notes(partial)[0] == "interrupted: only a part of the plan is measured"
    assert all(row[5] != "" or row[4] == "-" for row in tables(partial)[1].rows)
    svg(partial)


def test_notes_name_what_is_absent(bench):
    assert notes(bench) == ["not here: other: not installed"]


# ------------------------------------------------------------------------------------------------ picture and page
@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.HTML", b"<!DOCTYPE html>")]
)
def test_a_picture(name, start, bench, tmp_path):
    draw(bench, str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


def test_the_picture_names_every_algorithm(bench):
    text = svg(bench)
    for name in ("naive", "flash2", "theirs", "naive, predicted", "physical floor", "compulsory", "measured"):
        assert f">{name}<" in text, name
    assert ">theirs, predicted<" not in text


def test_the_same_run_gives_the_same_picture(bench):
    assert svg(bench) == svg(bench)


def test_algorithms_differ_without_colour():
    from ioaware_kernels.bench.plot import COLOURS, MARKERS

    assert len(set(MARKERS)) == len(set(COLOURS)) == len(MARKERS) == len(COLOURS)


class Reader(HTMLParser):
    """Collects tags, and everything that would be fetched or run."""

    def __init__(self):
        super().__init__()
        self.tags, self.fetched, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data") and not value.startswith("#"):
                self.fetched.append(value)
            assert not name.startswith("on"), "a handler runs"


def test_the_page_is_offline_and_runs_nothing(bench):
    reader = Reader()
    text = page(bench, svg(bench))
    reader.feed(text)
    assert reader.fetched == []
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(reader.tags)
    assert reader.tags.count("svg") == 1
    assert reader.tags.count("table") == 6
    assert "@import" not in text
    assert "url(http" not in text


def test_the_page_escapes_what_it_shows(bench):
    text = page(replace(bench, doubts=["<script>alert(1)</script>"]), "<svg></svg>")
    assert "ioaware bench --plot &#x27;a &lt;b&gt;.html&#x27;" in text
    assert "<script>" not in text


@pytest.mark.parametrize("path", ["a.pdf", "a", ".png.txt", "a.jpg"])
def test_other_kinds_of_pictures_are_refused(path):
    with pytest.raises(InputError, match=r"^--plot=.*: draws \.png, \.svg, \.html only; name it like bench\.svg$"):
        require(path)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"^--plot needs Matplotlib: pip install 'ioaware\[plot\]'$"):
        require("a.png")
