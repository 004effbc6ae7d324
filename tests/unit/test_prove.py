"""The command `prove`: what is shown and printed, Coq as it is run, and what an interrupted run leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from ioaware import __version__
from ioaware.errors import Skipped, VerificationError
from ioaware_proofs import __main__ as writing
from ioaware_proofs import coq, page, theory
from tests.coq import needs_coq
from tests.messages.command import call
from tests.messages.theories import CHOICES, EXPECTED, edited, installed
from tests.unit.test_startup import HEAVY, imported, packages


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The small library in the place of the project's."""
    return installed(monkeypatch, tmp_path / "library")


def parsed(folder, command, code=0):
    result = call(folder, *shlex.split(command), "--json")
    assert result.code == code, result.err
    return json.loads(result.out)


# ------------------------------------------------------------------------------------------------ what there is
THEOREM = {"name": str, "line": int, "english": str, "statement": str, "axioms": list, "used_by": list}


def test_the_project_as_json(tmp_path):
    found = parsed(tmp_path, "prove --list")
    assert (found["schema"], found["version"], found["rechecked"]) == (1, __version__, None)
    assert [one["name"] for one in found["theories"]] == [t.name for t in theory.load(theory.root() / "theories")]
    for one in found["theories"]:
        assert set(one) == {"name", "file", "summary", "needs", "theorems"}
        assert one["file"] == f"proofs/theories/{one['name']}.v"
        for theorem in one["theorems"]:
            assert {key: type(value) for key, value in theorem.items()} == THEOREM
            assert all(set(use) == {"file", "name"} for use in theorem["used_by"])


def test_a_theorem_as_json(small):
    (sums,) = parsed(small, "prove --list zero_adds_nothing")["theories"]
    assert sums["needs"] == []
    (theorem,) = sums["theorems"]
    assert theorem["axioms"] == []
    assert theorem["used_by"][2] == {"file": "simulator/ioaware/units.py", "name": "parse_count"}
    assert theorem["statement"].splitlines()[-1] == "Theorem zero_adds_nothing n : n + 0 = n."


def test_every_theorem_of_the_project_is_shown(tmp_path):
    shown = call(tmp_path, "prove", "--list").out
    theories = theory.load(theory.root() / "theories")
    for theorem in [theorem for one in theories for theorem in one.theorems]:
        assert f"{theorem.name}  {theorem.place}  axioms: " in shown
    assert f"theorems in {len(theories)} files; " in shown
    assert "limits: exact attention" in shown


def test_lines_are_as_wide_as_the_terminal(small):
    for width in ("40", "100"):
        for line in call(small, "prove", "--list", "Sums", env={"COLUMNS": width}).out.splitlines():
            assert len(line) <= int(width)


def test_listing_runs_no_coq_and_imports_nothing_heavy(tmp_path):
    modules = imported(tmp_path, "-m", "ioaware", "prove", "--list", "--json")
    assert not packages(modules) & HEAVY
    assert "ioaware_proofs.check" not in modules


# ------------------------------------------------------------------------------------------------ without Coq
def test_without_coq_a_recheck_is_skipped_and_the_theorem_is_shown(small):
    result = call(small, "prove", "true_or_false", env={"PATH": ""})
    assert result.code == 77
    assert "Theorem true_or_false P : P \\/ ~ P." in result.out
    assert f"apt install {coq.DEBIAN}" in result.err


def test_continuous_integration_installs_what_the_sentence_says():
    script = (Path(__file__).parents[2] / ".ci" / "run").read_text(encoding="utf-8")
    assert f"apt-get install -y -qq {coq.DEBIAN}\n" in script


def test_the_page_is_written_without_coq_too(small, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert writing.main([]) == Skipped.exit_code
    library = theory.load(small / "theories")
    expected = {name: tuple(axioms) for name, axioms in writing.audit.read().items()}
    assert (small / "README.md").read_text(encoding="utf-8") == page.page(library, expected)
    assert (small / "axioms.expected").read_text(encoding="utf-8") == EXPECTED
    assert "coqc is not on PATH" in capsys.readouterr().err


def test_the_page_of_the_small_library(small):
    library = theory.load(small / "theories")
    text = page.page(library, writing.audit.expected(library))
    assert "3 theorems in 2 files" in text
    assert "\n  - `classical`: every statement is true or false\n" in text
    assert "`reals`" not in text
    assert "anything about `multiplication`." in text
    assert "\n\n      n + 0 = n.\n\n" in text
    assert (
        "| `true_or_false` | Every statement holds or its negation does. | [Choices.v:6](theories/Choices.v#L6) "
        "| classical |  |\n"
    ) in text
    assert "[simulator/ioaware/units.py](../simulator/ioaware/units.py) `parse_count` |" in text


def test_nothing_is_written_into_an_installed_package(small, monkeypatch, capsys):
    monkeypatch.setattr(writing, "__file__", str(small / "__main__.py"))
    assert writing.main([]) == 2
    assert "pip install -e ." in capsys.readouterr().err
    assert not (small / "README.md").exists()


def test_arguments_that_the_writer_does_not_take(capsys):
    assert writing.main(["--check"]) == 2
    assert capsys.readouterr().err == "usage: python -m ioaware_proofs\n"


# ------------------------------------------------------------------------------------------------ running Coq
posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for coqc is a shell script")


STAND_IN = """\
#!/bin/sh
for file; do :; done
echo "begin $file $$" >> runs
. "./$file"
echo "end $file" >> runs
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A coqc that writes down when it runs; what it does then is in the .v file, for the shell."""
    program = tmp_path / "bin" / "coqc"
    program.parent.mkdir()
    program.write_text(STAND_IN, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return tmp_path


def sources(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.v").write_text(text, encoding="utf-8")
    return folder


def runs(folder):
    return [line.split() for line in (folder / "runs").read_text(encoding="utf-8").splitlines()]


@posix
def test_a_file_is_compiled_behind_what_it_needs_and_two_at_a_time(stand_in):
    folder = sources(stand_in, **dict.fromkeys("abcd", "sleep 0.1"))
    steps = list(coq.compile_all({"d": ["b", "c"], "c": ["a"], "b": ["a"], "a": []}, folder))
    assert steps[0].name == "a"
    assert steps[3].name == "d"
    assert all(step.seconds >= 0.1 for step in steps)
    order = [(kind, file) for kind, file, *_ in runs(folder)]
    assert order[:2] == [("begin", "a.v"), ("end", "a.v")]
    assert {kind for kind, _ in order[2:4]} == {"begin"}  # b and c at once
    assert order[6:] == [("begin", "d.v"), ("end", "d.v")]


@posix
def test_a_failure_stops_what_still_runs(stand_in):
    refused = "sleep 0.2; echo 'File \"./bad.v\", line 3, characters 2-5:\nError: no.'; exit 1"
    folder = sources(stand_in, bad=refused, slow="sleep 60")
    with pytest.raises(VerificationError, match=r"^bad.v:3: Coq says: no\.$"):
        list(coq.compile_all({"bad": [], "slow": []}, folder))
    check_ended(folder, "slow.v")


@posix
def test_an_interrupt_stops_what_runs(stand_in, monkeypatch):
    folder = sources(stand_in, slow="sleep 60")

    def nap(seconds):
        if (folder / "runs").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(coq.time, "sleep", nap)
    with pytest.raises(KeyboardInterrupt):
        list(coq.compile_all({"slow": []}, folder))
    check_ended(folder, "slow.v")


def check_ended(folder, file):
    (pid,) = [int(line[2]) for line in runs(folder) if line[:2] == ["begin", file]]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PLACE = 'File "./a.v", line 12, characters 0-9:\nError:'
NO_PATH = "Cannot find a physical path bound to logical path"
SAID = {
    "a library": (
        f"{PLACE} {NO_PATH}\nInterval.Tactic.\n", Skipped,
        "Coq's library Interval.Tactic is not on this machine; on Debian: apt install coq ",
    ),
    "a file of ours": (
        f"{PLACE} {NO_PATH}\nGone with prefix IOAware.\n", VerificationError,
        f"a.v:12: Coq says: {NO_PATH} Gone with prefix IOAware.",
    ),
    "no place": ("Fatal error: no memory\n", VerificationError, "a ends with code 1: Coq says: Fatal error: no memory"),
    "pages": (f"{PLACE} {'x ' * 5000}", VerificationError, f"a.v:12: Coq says: {'x ' * 198}..."),
}  # fmt: skip


@posix
@pytest.mark.parametrize(("said", "error", "sentence"), SAID.values(), ids=SAID)
def test_what_coq_says_is_one_sentence(said, error, sentence, stand_in):
    (stand_in / "said").write_text(said, encoding="utf-8")
    with pytest.raises(error) as refusal:
        list(coq.compile_all({"a": []}, sources(stand_in, a="cat said; exit 1")))
    assert str(refusal.value).startswith(sentence)


# ------------------------------------------------------------------------------------------------ with Coq
@needs_coq
def test_everything_is_rechecked_and_nothing_is_written_beside_the_sources(small):
    before = sorted(path.name for path in small.rglob("*"))
    found = parsed(small, "prove --coqchk")["rechecked"]
    assert set(found) == {"coq", "complete", "ok", "seconds"}
    assert (found["complete"], found["ok"]) == (True, True)
    assert found["coq"] == coq.version()
    assert list(found["seconds"]) == ["Sums", "Choices", "axioms", "coqchk"]
    assert sorted(path.name for path in small.rglob("*")) == before


@needs_coq
def test_what_was_rechecked_before_a_failure_is_told(monkeypatch, tmp_path):
    small = installed(monkeypatch, tmp_path, Choices=edited(CHOICES, "apply classic", "reflexivity"))
    found = parsed(small, "prove", code=1)
    assert (found["rechecked"]["complete"], found["rechecked"]["ok"]) == (False, False)
    assert list(found["rechecked"]["seconds"]) == ["Sums"]
    assert [one["name"] for one in found["theories"]] == ["Sums", "Choices"]


@needs_coq
@pytest.mark.parametrize(
    ("name", "files"), [("Sums", ["Sums"]), ("zero_adds_nothing", ["Sums"]), ("true_or_false", ["Sums", "Choices"])]
)
def test_only_what_is_needed_is_rechecked(name, files, small):
    assert list(parsed(small, f"prove {name}")["rechecked"]["seconds"]) == [*files, "axioms"]


@needs_coq
def test_the_closing_line(small):
    result = call(small, "prove")
    assert (result.code, result.err) == (0, "")
    last = result.out.splitlines()[-1]
    assert last.startswith("3 theorems in 2 files rechecked in ")
    assert last.endswith(f" s by Coq {coq.version()}; axioms as expected")


@needs_coq
def test_the_writer_finds_the_axioms_of_new_theorems(small, capsys):
    (small / "axioms.expected").write_text(edited(EXPECTED, "Classical_Prop.classic", "closed"), encoding="utf-8")
    assert writing.main([]) == 0
    assert (small / "axioms.expected").read_text(encoding="utf-8") == EXPECTED
    assert capsys.readouterr().out.endswith("written: axioms.expected\nwritten: README.md\n")
    (small / "axioms.expected").unlink()
    assert writing.main([]) == 0
    assert (small / "axioms.expected").read_text(encoding="utf-8") == EXPECTED
