"""Other people's kernels: PyTorch where it is, a reason where it is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.reference import random_inputs
from ioaware_kernels.bench import peers
from ioaware_kernels.bench.values import check

PROBLEM = AttentionProblem(q_len=40, head_dim=8, dtype="fp32", heads=2, batch=2, mask="causal")


@pytest.mark.parametrize("which", [peers.on_cpu, peers.on_cuda])
def test_what_is_not_installed_is_named(which, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    ready, absent = which(PROBLEM, random_inputs(PROBLEM))
    assert ready == []
    assert absent == {"torch sdpa": "not installed"}


def test_causal_rectangles_are_another_mask_there(monkeypatch):
    problem = AttentionProblem(q_len=4, kv_len=8, dtype="fp32", mask="causal")
    monkeypatch.setitem(sys.modules, "torch", object())
    assert peers.on_cpu(problem, random_inputs(problem)) == (
        [], {"torch sdpa": "aligns causal masks to the first key, not to the last"},
    )  # fmt: skip


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_torch_is_right(mask):
    pytest.importorskip("torch")
    problem = AttentionProblem(q_len=40, head_dim=8, dtype="fp32", heads=2, batch=2, mask=mask)
    inputs = {n: a for n, a in random_inputs(problem).items() if n != "dO"}
    (subject,), absent = peers.on_cpu(problem, inputs)
    assert (subject.name, absent) == ("torch sdpa", {})
    subject.run()
    assert subject.outputs()["O"].shape == (2, 2, 40, 8)
    assert check(record(find("flash2").forward, problem.features), problem, inputs, subject.outputs(), 0)[1] == []
    subject.poison()
    assert np.isnan(subject.outputs()["O"]).all()
