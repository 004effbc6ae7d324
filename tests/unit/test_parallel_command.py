"""`ioaware parallel`: what it prints is what is counted, what it refuses and leaves out, and its page."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path

import pytest

from ioaware import device
from ioaware.parallel import SCHEMES
from ioaware.parallel.compare import compare
from ioaware.parallel.links import topology
from ioaware.parallel.ring import ring, ring_backward
from ioaware.problem import AttentionProblem
from tests.messages.command import call, spawn

H100 = device.load("h100-sxm")
ASKED = (
    "parallel",
    "--device",
    "h100-sxm",
    "--N",
    "4096",
    "--heads",
    "32",
    "--kv-heads",
    "8",
    "--d",
    "128",
    "--causal",
)


def printed(folder, *args):
    result = call(folder, *args)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_the_command_prints_what_is_counted(tmp_path):
    problem = AttentionProblem(q_len=4096, heads=32, kv_heads=8, head_dim=128, mask="causal")
    want = compare(SCHEMES, problem, 8, H100, topology(H100))
    found = json.loads(printed(tmp_path, *ASKED, "--json"))
    assert found["devices"] == {"8": json.loads(json.dumps(want.as_dict()))}
    assert list(found["devices"]["8"]["schemes"]) == [scheme.name for scheme in SCHEMES]
    assert found["links"]["inside"]["bytes_per_s"] == 450e9
    out = printed(tmp_path, *ASKED)
    for name, row in want.able.items():
        assert f"\n{name} ({row.scheme.paper}): " in out


def test_the_command_leaves_out_what_cannot_be_done_and_says_why(tmp_path):
    out = printed(tmp_path, *ASKED, "--devices", "16", "--direction", "fwd+bwd")
    assert "tensor: left out: devices=16: tensor shares out 8 heads" in " ".join(out.split())
    refused = call(tmp_path, *ASKED, "--devices", "16", "--scheme", "tensor")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("Error: devices=16: tensor shares out 8 heads")


def test_scaling_doubles(tmp_path):
    found = json.loads(printed(tmp_path, *ASKED, "--scaling", "3..24", "--scheme", "ring", "--json"))
    assert list(found["devices"]) == ["3", "6", "12", "24"]
    assert list(json.loads(printed(tmp_path, *ASKED, "--scaling", "1..5", "--json"))["devices"]) == ["1", "2", "4", "5"]
    assert "InfiniBand NDR" in printed(tmp_path, *ASKED, "--scaling", "4..16")


def test_verify_runs_the_schemes(tmp_path):
    found = json.loads(
        printed(tmp_path, "parallel", "--devices", "2", "--heads", "2", "--d", "4", "--verify", "--json")
    )
    assert found["verified"] == [f"{scheme.name} on 2" for scheme in SCHEMES]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--devices", "0"),
        ("--devices", "8192"),
        ("--devices", "many"),
        ("--scheme", "rings"),
        ("--link", "token-ring"),
        ("--link", "50Gb"),
        ("--scaling", "8"),
        ("--scaling", "8..2"),
        ("--device", "cpu"),
        ("--dropout", "0.1"),
        ("--devices", "32", "--verify"),
        ("--accum-dtype", "int3"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused_in_one_sentence(wrong, tmp_path):
    result = call(tmp_path, *ASKED, *wrong)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("Error: ")


def test_the_page_shows_what_the_command_prints_and_the_text_of_the_ring(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "parallel.md").read_text(encoding="utf-8")
    command, table = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)[:2]
    out = printed(tmp_path, *shlex.split(command)[1:])
    shown = [line.removeprefix("    ").rstrip() for line in table.strip("\n").splitlines()]
    assert [line.rstrip() for line in out.splitlines()][: len(shown)] == shown
    assert len(shown) == 12
    assert f"{inspect.getsource(ring)}\n\n{inspect.getsource(ring_backward)}" in page


def test_counting_imports_no_arrays(tmp_path):
    result = spawn(tmp_path, python=("-X", "importtime", "-m", "ioaware", *ASKED, "--json"))
    assert result.code == 0
    assert "ioaware.parallel.count" in result.err
    assert "numpy" not in result.err
    assert "rich" not in result.err
