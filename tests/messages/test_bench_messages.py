"""Refusals of `ioaware bench`, one sentence each, before anything is measured."""

from __future__ import annotations

import shlex
import sys

import pytest

from ioaware_kernels.bench import measuring
from tests.messages.command import call, spawn, written
from tests.messages.test_refusals import lines, refused

OPTIONS = lines("""
    bench --device gpu
    bench --device h100
    bench --device ''
    bench --alg flash3
    bench --alg flash1
    bench --alg ''
    bench --N 0
    bench --N ''
    bench --N 256..
    bench --N 4096..256
    bench --N 256...4096
    bench --N many
    bench --N 256,,512
    bench --N 1e30
    bench --d 0
    bench --d 1.5
    bench --tiles 64
    bench --tiles ''
    bench --tiles 64x0
    bench --tiles 64x64,
    bench --heads 0
    bench --heads ''
    bench --batch -1
    bench --dtype fp16
    bench --dtype float
    bench --repeats 0
    bench --repeats 100000
    bench --seed -1
    bench --seed many
    bench --plot bench.pdf
    bench --plot bench
    bench --plot absent/bench.png
    bench --plot folder.png
    bench --out absent/bench.json
    bench --out folder.png
    bench --out ''
    bench --from absent.json
    bench --from text.json
    bench --from list.json
    bench --from other.json
    bench --from ''
    bench --from list.json --N 8
    bench --from list.json --alg flash2
    bench --from list.json --device cpu
    bench --from list.json --out a.json
""")
FILES = {"folder.png": None, "text.json": "hello", "list.json": "[1]", "other.json": '{"schema": 2}'}


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch):
    def fail(*_):
        pytest.fail("something is measured")

    monkeypatch.setattr(measuring.Measuring, "_take_ceilings", fail)


@pytest.mark.parametrize("command", OPTIONS)
def test_an_option(command, tmp_path, snapshot):
    assert refused(tmp_path, command, FILES) == snapshot


CLICK = [("bench --N", "--N"), ("bench --n 8", "--n"), ("bench flash2", "flash2"), ("bench --json=yes", "--json")]


@pytest.mark.parametrize(("command", "named"), CLICK, ids=[command for command, _ in CLICK])
def test_what_click_refuses(command, named, tmp_path):
    assert named in refused(tmp_path, command)


def test_a_gpu_without_cupy_is_skipped_not_passed(tmp_path, monkeypatch, snapshot):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert refused(tmp_path, "bench --device cuda", code=77) == snapshot


def test_a_picture_without_matplotlib(tmp_path, monkeypatch, snapshot):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(tmp_path, "bench --plot a.png") == snapshot


@pytest.mark.parametrize("command", ["bench --device gpu", "bench --from absent.json"])
def test_a_refusal_is_the_same_in_a_process_of_its_own(command, tmp_path):
    assert spawn(tmp_path, *shlex.split(command)) == call(tmp_path, *shlex.split(command))


@pytest.mark.parametrize(
    "variable", ["IOAWARE_DEVICE=h100", "IOAWARE_TILES=best", "IOAWARE_N=8192", "IOAWARE_ALG=eager"]
)
def test_what_the_environment_says_is_for_simulate(variable, tmp_path):
    """Its options of these names mean something else."""
    name, _, value = variable.partition("=")
    result = call(written(tmp_path, {}), "bench", "--repeats", "0", env={name: value})
    assert result.err.startswith("Error: --repeats=0: ")
