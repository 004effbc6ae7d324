"""What the documentation shows is what happens: README's output, its commands, the example program."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program_file import check, load_programs
from ioaware_kernels.implementation import load
from tests.compiler import needs_nvrtc
from tests.messages.command import call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "keys_outside.py"


def indented(after):
    """The indented block that follows a sentence of the README."""
    block = re.match(r"\n+((?:(?:    .*)?\n)+)", README.partition(after)[2])[1]
    return [line.removeprefix("    ").rstrip() for line in block.rstrip().splitlines()]


def test_readme_shows_what_its_first_command_prints(tmp_path):
    printed = [line.rstrip() for line in call(tmp_path, "simulate", "--sram", "192KB", "--N", "8192").out.splitlines()]
    shown = indented("(then the bytes of each tensor):")
    assert printed[: len(shown)] == shown


def test_readme_counts_the_theorems():
    axioms = [line.split(": ")[1] for line in (ROOT / "proofs" / "axioms.expected").read_text().splitlines()]
    said = f"Coq checks {len(axioms)} theorems, {axioms.count('closed')} of them from no axiom"
    assert said in README


def test_readme_shows_what_verify_counts(tmp_path):
    command = shlex.split(indented("## The real kernels, on any machine")[0])
    printed = [line.rstrip() for line in call(tmp_path, *command[1:]).out.splitlines()]
    shown = indented("every access against every other:")
    assert printed[-len(shown) :] == shown


COMMANDS = [shlex.split(line, comments=True) for line in indented("## More to ask")]


def test_docs_show_the_measured_run_as_it_is_stored(tmp_path):
    """docs/bench.md: what is printed of the result file."""
    stored = ROOT / "results" / "cpu-amd-epyc.json"
    out = call(tmp_path, "bench", "--from", str(stored), env={"COLUMNS": "110"}).out
    printed = [line.rstrip() for line in out.splitlines()]
    shown = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8").partition("![time over N")[2]
    block = re.search(r"\n\n((?:(?:    .*)?\n)+)", shown)[1]
    lines = [line.removeprefix("    ").rstrip() for line in block.rstrip().splitlines()]
    assert printed[-len(lines) :] == lines
    assert lines[0].startswith("ceilings")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_readme_commands_run(command, tmp_path):
    result = call(tmp_path, *(command[1:] if command[0] == "ioaware" else command))
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_the_example_program_is_right(mask):
    (program,) = load_programs(str(EXAMPLE))
    check(program, AttentionProblem(q_len=64, heads=2, mask=mask, dropout=0.1))


def test_docs_show_the_table_of_flash2():
    """docs/kernels.md explains the format on flash2.toml: the same values, its build for head_dim 64."""
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    shown = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    real = tomllib.loads((ROOT / "kernels/ioaware_kernels/cuda/flash2.toml").read_text(encoding="utf-8"))
    assert shown["build"][0] in real["build"]
    assert shown["launch"] == real["launch"]
    assert (shown["algorithm"], shown["masks"]) == (real["algorithm"], real["masks"])
    kernel = load("flash2")
    assert (tuple(shown["dtypes"]), shown["aligned"]) == (kernel.dtypes, kernel.aligned)


@needs_nvrtc
def test_the_example_kernel_is_right(tmp_path):
    result = call(tmp_path, "verify", "--kernel", str(ROOT / "docs/examples/warp_per_query.cu"))
    assert (result.code, result.err) == (0, "")


def test_docs_show_flash2_as_it_stands():
    """docs/programs.md prints the body of the built-in text, line for line."""
    import inspect

    body = inspect.getsource(find("flash2").forward).split("\n", 1)[1].rstrip()
    body = "\n".join(line.partition("  #")[0] for line in body.splitlines())
    assert body in (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
