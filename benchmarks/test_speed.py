"""Speed of what people wait for. Nothing is asserted: read the table (benchmarks/README.md has the budgets)."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ioaware
from ioaware import masks
from ioaware.algorithms import ALGORITHMS
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes
from ioaware.schedule import best_tiles

TEXTS = {f.__name__: f for a in ALGORITHMS for f in (a.forward, a.backward) if f}
TILED = {f.__name__: f for a in ALGORITHMS if not a.library_kernels for f in (a.forward, a.backward) if f}
MILLION = {"q_len": 2**20, "head_dim": 128, "heads": 32, "kv_heads": 8, "batch": 4}
TILES = TileSizes(128, 64)

EMPTY_CLICK = """
import click

@click.command()
def nothing():
    pass

nothing()
"""
COLD = {
    "empty click program": ["-c", EMPTY_CLICK],
    "simulate --json": ["-m", "ioaware", "simulate", "--sram", "192KB", "--N", "8192", "--json"],
    "simulate --help": ["-m", "ioaware", "simulate", "--help"],
}


@pytest.mark.parametrize("arguments", COLD.values(), ids=COLD)
@pytest.mark.benchmark(group="cold start")
def test_cold_start(benchmark, arguments):
    """Byte-compiled first: installers that skip it would be measured otherwise."""
    compileall.compile_dir(Path(ioaware.__file__).parent, quiet=2)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    benchmark(subprocess.run, command, check=True, stdout=subprocess.DEVNULL, env=environment)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.benchmark(group="record")
def test_record(benchmark, text):
    benchmark(record.__wrapped__, text, AttentionProblem(**MILLION).features)


@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.benchmark(group="count N=1M")
def test_count(benchmark, text, mask):
    """Mask sums are forgotten between rounds: a sweep asks for new sizes each time."""
    problem = AttentionProblem(**MILLION, mask=mask)
    program = record(text, problem.features)

    def cold_count():
        masks._band.cache_clear()
        return count(program, problem, TILES)

    cold_count()
    cold_count()  # the second call compiles the closed forms
    benchmark(cold_count)


@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("text", TILED.values(), ids=TILED)
@pytest.mark.benchmark(group="tile search, 192 KB, N=8192")
def test_tile_search(benchmark, text, mask):
    problem = AttentionProblem(q_len=8192, mask=mask)
    program = record(text, problem.features)

    def search():
        masks._band.cache_clear()
        return best_tiles(program, problem, 192 * 1024)

    benchmark(search)
