"""Launches with the engine `cuda`: of the project's kernels on a ragged problem, and of a small one."""

from __future__ import annotations

import numpy as np

from ioaware.problem import AttentionProblem
from ioaware_kernels.cases import Case
from ioaware_kernels.cuda_engine import CudaEngine
from ioaware_kernels.implementation import load
from ioaware_kernels.launch import Module, launch
from ioaware_kernels.tensors import Tensor, packed
from tests.fitting import head_dim_for


def ragged(kernel, head_dim=20, dtype=None, **inputs):
    """A case with GQA that fills no tile, in the first dtype of the kernel unless another is given."""
    implementation = load(kernel)
    lengths = {"q_len": 2, "kv_len": 41} if implementation.packs_group else {"q_len": 37, "kv_len": 41}
    problem = AttentionProblem(
        **lengths, head_dim=head_dim_for(implementation, head_dim), batch=2, heads=4, kv_heads=2,
        mask=implementation.masks[0], dtype=dtype or implementation.dtypes[0], direction=implementation.direction,
    )  # fmt: skip
    return implementation, Case(problem, **inputs)


def small(body, static=0, name="k"):
    """A module with one kernel of a pointer %p and a number %n."""
    return Module(
        f""".version 8.2
        .target sm_80
        .visible .entry {name}(.param .u64 p, .param .u32 n) {{
        .reg .b64 %p, %at; .reg .b32 %n, %r<9>; .reg .pred %q;
        {f".shared .align 4 .b8 room[{static}];" if static else ""}
        ld.param.u64 %p, [p]; ld.param.u32 %n, [n];
        {body}
        ret; }}"""
    )


STORE = "mul.wide.s32 %at, %n, 4; add.s64 %at, %p, %at; mov.u32 %r1, 7; st.global.u32 [%at], %r1;"
NOTHING = ""


def run_small(body=NOTHING, n=0, layout=packed, shared=0, grid=(1,), block=(1,), static=0, **how):
    tensor = Tensor("x", (1, 1, 2, 3), layout).fill(np.zeros((1, 1, 2, 3)))
    launch(small(body, static), "k", grid, block, [tensor, n], shared, engine=CudaEngine(**how))
    return tensor
