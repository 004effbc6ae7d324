"""`ioaware accuracy`: what it prints is what Python measures; its tables, refusals and documentation."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ioaware.masks import CAUSAL
from ioaware.precision import measure, table3
from ioaware.precision.methods import METHODS, find_method
from tests.messages.command import call


def test_the_command_prints_what_python_measures(tmp_path):
    options = ("--N", "128", "--d", "64", "--heads", "2", "--causal", "--method", "flash3", "--seed", "5")
    out = json.loads(call(tmp_path, "accuracy", *options, "--json").out)
    x = measure.inputs(2, 128, 64, 5)
    wanted = {m.name: e for m, e in measure.measured([find_method("standard_fp16"), find_method("flash3")], x, CAUSAL)}
    assert [r["name"] for r in out["methods"]] == list(wanted)
    for r in out["methods"]:
        assert (r["rmse"], r["max_abs"], r["frobenius"]) == wanted[r["name"]]
        assert r["x_standard"] == r["rmse"] / wanted["standard_fp16"].rmse
        assert (r["pairs"], r["standard"]) == (1, "standard_fp16")
    assert out["complete"]
    assert "flash3" in call(tmp_path, "accuracy", *options).out


def test_what_leaves_pairs_out_is_shown_with_the_share_of_those_it_computes(tmp_path):
    options = ("--N", "200", "--d", "16", "--causal", "--peaked", "--method", "window_128", "--method", "linear")
    out = json.loads(call(tmp_path, "accuracy", *options, "--json").out)
    x = measure.inputs(1, 200, 16, peaked=True)
    wanted = {m.name: e for m, e in measure.measured(map(find_method, ("window_128", "linear")), x, CAUSAL)}
    assert out["problem"]["peaked"]
    assert [r["name"] for r in out["methods"]] == list(wanted)
    assert [r["rmse"] for r in out["methods"]] == [e.rmse for e in wanted.values()]
    assert [r["pairs"] for r in out["methods"]] == [(128 * 200 - 128 * 127 / 2) / (200 * 201 / 2), None]
    assert {(r["standard"], r["x_standard"]) for r in out["methods"]} == {(None, None)}
    shown = call(tmp_path, "accuracy", *options).out
    assert "Q = K a slow walk" in shown
    assert re.search(r"window_128 .* - +86\.9% ", shown)
    assert re.search(r"linear .* - +- ", shown)


def test_a_table_of_few_heads_of_another_size(tmp_path):
    options = ("--table", "fa3", "--N", "300", "--d", "32", "--heads")
    one, two = (json.loads(call(tmp_path, "accuracy", *options, heads, "--json").out) for heads in "12")
    assert [r["standard_error"] is None for r in one["rows"] + two["rows"]] == [True] * 7 + [False] * 7
    squares = [table3.one_head(seed, 300, 32) for seed in (0, 1)]
    assert [r["rmse"] for r in two["rows"]] == pytest.approx(np.sqrt(np.mean(squares, axis=0)))
    assert two["rows"][0]["standard_error"] == pytest.approx(
        abs(squares[0][0] - squares[1][0]) / 2 / (2 * two["rows"][0]["rmse"])
    )
    assert "-" in call(tmp_path, "accuracy", *options, "1").out


def test_half_of_the_sample_are_queries_with_an_outlier_and_all_together_stand_for_all():
    q = measure.inputs(1, table3.LENGTH, 128, outliers=True)[0][0]
    queries, weights = table3.sample(q, np.random.default_rng(0))
    has = np.abs(q).max(axis=1) > table3.LARGE
    assert len(set(queries)) == table3.QUERIES
    assert has[queries].sum() == table3.QUERIES // 2
    assert weights[has[queries]].sum() == pytest.approx(has.mean())
    assert weights.sum() == pytest.approx(1)


def test_methods_that_do_not_take_the_head_dimension_are_left_out_unless_asked_for(tmp_path):
    small = ("accuracy", "--N", "64", "--d", "96")
    result = call(tmp_path, *small, "--json")
    assert "left out: flash3_fp8, flash3_fp8_tensor, flash3_e5m2: head_dim=96" in result.err
    assert len(json.loads(result.out)["methods"]) == len(METHODS) - 3
    assert call(tmp_path, *small, "--method", "flash3_fp8").code == 2


@pytest.mark.parametrize(("options", "sentence"), [
    (("--method", "flash3_fp9"), "method 'flash3_fp9' is unknown, the nearest is 'flash3_fp8'"),
    (("--table", "fa2"), "--table 'fa2' is unknown, the nearest is 'fa3'"),
    (("--table", "fa3", "--causal"), "--causal with --table fa3: the table has its own; leave it out"),
    (("--table", "fa3", "--peaked"), "--peaked with --table fa3"),
    (("--table", "fa3", "--method", "flash3"), "--method with --table fa3"),
    (("--heads", "0"), "--heads=0: must be at least 1"),
])  # fmt: skip
def test_refusals(tmp_path, options, sentence):
    result = call(tmp_path, "accuracy", *options)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err


def test_the_example_of_the_documentation_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    nearest, int8_keys = capsys.readouterr().out.splitlines()
    assert nearest.startswith("nearest Errors(rmse=")
    assert int8_keys.endswith(str(2 * (512 * 64 * (2 + 1 + 2) + 4 * 64)))
