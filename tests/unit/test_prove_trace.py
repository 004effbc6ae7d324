"""`prove --trace`: what it prints about checked traces, and what it refuses before anything is compiled."""

import json
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner

from ioaware.cli.options import decorated
from ioaware.cli.prove_trace import TRACE, prove_trace
from ioaware.errors import InputError, VerificationError
from ioaware_proofs import certificate
from ioaware_proofs.certificate import MOST_IN_COQ
from tests.machine import play


@click.command()
@decorated(*TRACE)
@click.option("--json", "as_json", is_flag=True)
def command(**values):
    prove_trace(values)


class Playing:
    """In place of the proved checkers, which need Coq: the machine in Python."""

    def extracted(self, trace):
        play(trace)

    in_coq = extracted


class Refusing(Playing):
    def in_coq(self, trace):
        raise VerificationError("operation 3")


def using(checkers, monkeypatch):
    @contextmanager
    def made():
        yield checkers()

    monkeypatch.setattr(certificate, "checkers", made)


def run(*arguments):
    return CliRunner(catch_exceptions=False).invoke(command, ["--trace", *arguments])


def test_the_report(monkeypatch):
    using(Playing, monkeypatch)
    said = run("--N", "4", "--d", "2", "--alg", "flash2", "--alg", "naive").output
    assert "flash2: a legal run" in said
    assert "naive: a legal run" in said
    assert "40 loads, 12 stores, as count says" in said  # N d + 2 ceil(N / 2) N d; N d for O and N for L
    assert "24 loads, 8 stores" in said  # Q, K, V; O
    assert "void" in said
    assert "Coq kernel" in said


def test_json_and_large_traces(monkeypatch):
    using(Refusing, monkeypatch)
    (row,) = json.loads(run("--N", "40", "--d", "2", "--json").output)["certificates"]
    assert row["operations"] > MOST_IN_COQ
    assert list(row["seconds"]) == ["extracted checker"]
    n, d, m = 40, 2, row["memory_words"]
    assert row["loads"] == n * d + 2 * (n // 2) * n * d
    assert row["bound_loads"] == -(-2 * d * d * n * n // max(m, 4 * d * d)) - m
    assert row["bound_traffic"] == -(-4 * d * d * n * n // max(m, 8 * d * d)) - m
    assert row["ratio"] == row["loads"] / max(row["bound_loads"], 3 * n * d)


def test_what_was_certified_before_a_refusal_is_shown(monkeypatch):
    using(Refusing, monkeypatch)
    result = CliRunner().invoke(command, ["--trace", "--N", "40", "--d", "2", "--alg", "flash2", "--alg", "split_kv"])
    assert result.exit_code == 0
    using(Refusing, monkeypatch)
    result = CliRunner().invoke(command, ["--trace", "--q-len", "1", "--kv-len", "2", "--d", "1"])
    assert isinstance(result.exception, VerificationError)
    assert result.output == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--trace needs a small problem"),
        (("--N", "4", "--tiles", "2"), "--tiles=2"),
        (("--N", "4", "--alg", "flash5"), "nearest is 'flash"),
        (("--N", "4", "--direction", "bwd"), "traces are of forward passes"),
        (("--N", "4", "--mask", "padding"), "an additive mask is no word of the machine"),
        (("--N", "4", "--alibi"), "a score that is changed by more than a mask is no word"),
        (("--N", "8192"), "more than 1,000,000 operations"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_a_program_of_ones_own_is_held_against_softmax_first(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def mine(p, Q, K, V, O):\n"
        "    for b, h, g, i in p.kernel('mine', p.batch, p.kv_heads, p.group, p.q_tiles):\n"
        "        p.store(O[h, g, i], p.zeros(i, p.value_dim))\n"
    )
    with pytest.raises(VerificationError, match="mine: O differs from exact softmax attention"):
        run("--N", "4", "--program", str(file))
