"""Speed of the CPU kernels: naive, flash2, and torch's scaled_dot_product_attention where torch can be imported.

Within a group only ratios count. Each starts as many threads as the machine has cores.
"""

from __future__ import annotations

import numpy as np
import pytest

from ioaware.problem import AttentionProblem
from ioaware.reference import random_inputs
from ioaware_kernels.cpu.prepare import NAMES, prepare

HEADS = 2
LENGTHS = [256, 1024, 4096]


def torch_attention(problem, inputs):
    """torch's own FlashAttention for CPUs, on the same numbers."""
    torch = pytest.importorskip("torch")
    shape = 1, problem.heads, -1, problem.head_dim
    q, k, v = (torch.from_numpy(np.ascontiguousarray(inputs[n].reshape(shape))) for n in "QKV")
    attention = torch.nn.functional.scaled_dot_product_attention

    def run():
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return attention(q, k, v, is_causal=str(problem.band) == "causal")

    return run


@pytest.mark.parametrize("name", [*NAMES, "torch"])
@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("length", LENGTHS)
def test_attention(benchmark, length, head_dim, mask, name):
    benchmark.group = f"attention on the CPU, N = {length}, d = {head_dim}, {mask}"
    problem = AttentionProblem(q_len=length, head_dim=head_dim, heads=HEADS, mask=mask, dtype="fp32")
    inputs = random_inputs(problem)
    run = torch_attention(problem, inputs) if name == "torch" else prepare(name, problem, inputs).run
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
