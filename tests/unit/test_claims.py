"""The claims: verdicts follow from numbers, numbers are in what the commands print, and the page is up to date."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from ioaware import claims
from ioaware.claims import CLAIMS, find
from ioaware.claims.check import found, missing
from ioaware.claims.record import Judged, Verdict, computed, counted
from ioaware.cli.claims import printed_by
from ioaware.errors import VerificationError
from ioaware_proofs import theory
from tests.messages.command import call

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("claim", CLAIMS, ids=[claim.name for claim in CLAIMS])


@cache
def judged(name):
    return find(name).judge()


printed = cache(printed_by)


def outputs(claim):
    return [printed(command) for command in claim.commands]


# ------------------------------------------------------------------------------------------------ verdicts
@pytest.mark.parametrize(("cases", "verdict"), [("tt", "holds"), ("tf", "holds if"), ("ff", "false")])
def test_a_verdict_is_all_some_or_none_of_the_cases(cases, verdict):
    found = {str(n): case == "t" for n, case in enumerate(cases)}
    assert Judged(CLAIMS[0], {}, found).verdict is Verdict(verdict)


@EVERY
def test_a_condition_is_given_where_it_is_needed(claim):
    assert bool(claim.condition) == (judged(claim.name).verdict is Verdict.HOLDS_IF)


def flips(claim, case):
    """Whether another value of a single number turns the case around."""
    numbers = judged(claim.name).numbers
    for name, number in numbers.items():
        for value in {0, number.value / 2, number.value * 2, 1e30, *(other.value for other in numbers.values())}:
            changed = {**numbers, name: replace(number, value=value)}
            if claim.judge(changed).cases[case] != judged(claim.name).cases[case]:
                return True
    return False


@EVERY
def test_other_numbers_give_another_verdict(claim):
    assert all(flips(claim, case) for case in claim.cases)


def test_a_changed_model_changes_the_verdict(monkeypatch):
    """If eager PyTorch passed over its matrices twice as often, 9x would be 17x."""
    from ioaware.claims import traffic

    issued = traffic.issued
    monkeypatch.setattr(traffic, "issued", lambda name, *a, **k: issued(name, *a, **k) * (1 + (name == "eager")))
    assert find("fewer-accesses").judge().verdict is Verdict.FALSE


# ------------------------------------------------------------------------------------------------ numbers
@EVERY
def test_the_commands_print_the_numbers(claim):
    assert judged(claim.name).shown
    assert missing(judged(claim.name), outputs(claim)) == []


@EVERY
def test_a_number_that_is_off_by_a_hundredth_is_noticed(claim):
    for name, number in judged(claim.name).shown.items():
        off = replace(number, value=type(number.value)(number.value * 1.01 + isinstance(number.value, int)))
        assert missing(Judged(claim, {name: off}, {}), outputs(claim)) == [name]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("total 1,234 B", True), ('{"bytes": 1234}', True), ("1.234 kB", True), ("1,234,567", False), ("11,234", False),
        ("0.1234", False), ("1234.5", False), ("x1234", False), ("12345", False),
    ],
)  # fmt: skip
def test_a_number_in_a_text(text, holds):
    assert found(counted(1234), text) is holds


def test_options_from_outside_do_not_change_what_a_command_prints(monkeypatch):
    monkeypatch.setenv("IOAWARE_DEVICE", "h100-sxm")
    assert "A100" in printed_by("simulate --N 128 --alg naive")


def test_a_command_that_fails():
    with pytest.raises(VerificationError, match="'simulate --N x' fails"):
        printed_by("simulate --N x")


def test_theorems_are_called_by_their_names():
    known = {theorem.name for one in theory.load(theory.root() / "theories") for theorem in one.theorems}
    named = {word for claim in CLAIMS for word in re.findall(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b", claim.because)}
    assert named - {"head_dim"} <= known


# ------------------------------------------------------------------------------------------------ the command
def test_names_and_numbers():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    assert [find(str(n)) for n in range(1, len(CLAIMS) + 1)] == list(CLAIMS)


@pytest.mark.parametrize(("name", "near"), [("exakt", "'exact'"), ("0", " 1"), ("99", f" {len(CLAIMS)}")])
def test_what_is_no_claim(name, near, tmp_path):
    result = call(tmp_path, "claims", name)
    assert result.code == 2
    assert near in result.err


def test_all_as_a_table(tmp_path):
    out = call(tmp_path, "claims", env={"COLUMNS": "200"}).out
    for claim in CLAIMS:
        assert f"{claim.sentence}  " in out
        assert judged(claim.name).verdict.value in out


def test_one_in_full(tmp_path):
    out = call(tmp_path, "claims", "scores-256mb", "--check").out
    assert "holds if scores are stored in fp32" in out
    assert re.search(r"one head, fp32 +256 MiB \(268,435,456 B\) +counted", out)
    assert "32 heads, fp16: false" in out
    assert out.splitlines()[-2:] == [find("scores-256mb").commands[1], "2 numbers found in what 2 commands print"]


def test_as_json(tmp_path):
    result = json.loads(call(tmp_path, "claims", "fewer-flops", "--check", "--json").out)
    assert (result["schema"], result["missing"]) == (1, [])
    (claim,) = result["claims"]
    assert claim["verdict"] == "false"
    assert claim["condition"] is None
    assert claim["numbers"]["FlashAttention"] == {"value": 14 * 2**36, "unit": "FLOP", "origin": "counted"}
    fields = "name sentence said verdict condition cases numbers because commands"
    assert set(claim) == set(fields.split())


def test_check_refuses_a_number_that_no_command_prints(tmp_path, monkeypatch):
    wrong = replace(find("fewer-flops"), numbers=lambda: {"made up": counted(12345), "x": computed(1)}, cases={})
    monkeypatch.setattr(claims, "CLAIMS", (wrong,))
    result = call(tmp_path, "claims", "--check")
    assert result.code == 1
    assert "12.35 kB" in result.out
    assert result.err == "Error: these numbers are not in what the commands print: fewer-flops: made up\n"


# ------------------------------------------------------------------------------------------------ the page
def test_the_page_is_what_its_command_prints(capsys):
    shown = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    command, _, file = re.search(r"Written by `(.*?)`", shown)[1].partition(" > ")
    assert (shlex.split(command), file) == (["python", "-m", "ioaware.claims"], "docs/claims.md")
    runpy.run_module("ioaware.claims", run_name="__main__")
    assert capsys.readouterr().out == shown
