"""FlashAttention-2 (arXiv 2307.08691): Dao-AILab/flash-attention, csrc/flash_attn/src.

kernel_traits.h (at 0a4755e) has the shared memory, flash_fwd_launch_template.h (01afd16) and
flash_bwd_launch_template.h (073afd5) the warps, their layouts and the bytes that comments give: 48, 96 and 128 KB
forward, 92 to 176 KB backward.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Device
from ..problem import AttentionProblem
from .design import Design, Entry, Family, Role, Tile, product

KB = 1024


def forward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """Every warp owns rows of Q and reads all of K and V; S and P never leave its registers."""
    del problem, device
    warps = 8 if t.d >= 192 and t.q >= 128 else 4
    threads = 32 * warps
    return Design(
        roles=(Role("all", warps, None, "each loads with cp.async, multiplies and exponentiates its rows"),),
        stages={"K": 1, "V": 1},
        shared=(
            Entry("Q", t.q * t.d * t.itemsize),
            Entry("K", t.kv * t.d * t.itemsize),
            Entry("V", t.kv * t.dv * t.itemsize),
        ),
        registers=(Entry("S, fp32, then P", t.scores // threads), Entry("O, fp32", t.q * t.dv // threads)),
        holder="thread",
        products=(
            product("S = Q K^T", t.q, t.kv, t.d, t.itemsize, b=warps),
            product("O += P V", t.q, t.dv, t.kv, t.itemsize, a=0, b=warps),
        ),
        exps=t.scores,
    )


class Layout(NamedTuple):
    """Eight warps as (along rows, along columns) of the products: AtomLayoutMSdP, AtomLayoutNdKV, AtomLayoutMdQ."""

    scores: int
    keys: int
    queries: int
    v_in_registers: bool = False
    q_buffers: int = 2


BWARPS = 8


def _layout(t: Tile, problem: AttentionProblem, device: Device) -> Layout:
    """The layout that flash_bwd_launch_template.h takes: what a block may allocate, and dropout, decide where V is."""
    room, dropout = device.shared_bytes or 0, problem.dropout > 0
    if t.d == 32:
        return Layout(4, 4, 4, v_in_registers=not dropout or room < 104 * KB)
    if t.d == 64:
        return Layout(4, 4, 4) if room >= 144 * KB else Layout(2, 4, 4, v_in_registers=True)
    if t.d == 96:
        return Layout(2, 4, 4, v_in_registers=not dropout or room < 116 * KB)
    if t.d == 128:
        return Layout(2, 4, 2) if room >= 144 * KB else Layout(4, 2, 2, v_in_registers=True)
    if t.d == 192:
        return Layout(4, 2, 2) if room >= 136 * KB else Layout(4, 2, 2, v_in_registers=True, q_buffers=1)
    if room < 144 * KB:
        return Layout(4, 1, 2, v_in_registers=True, q_buffers=1)
    return Layout(4, 2, 2, q_buffers=2 if room >= 176 * KB else 1)


def backward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """One block per key tile; P and dS pass through shared memory, dQ is added to HBM from registers."""
    warps, layout = BWARPS, _layout(t, problem, device)
    threads, rows = 32 * warps, layout.q_buffers
    keys, values, queries = t.kv * t.d * t.itemsize, t.kv * t.dv * t.itemsize, t.q * t.d * t.itemsize
    score_tile = t.scores * t.itemsize
    two_tiles, v = 2 * score_tile, layout.v_in_registers
    v_registers = t.kv * t.dv * t.itemsize // 4 // (warps // layout.scores * 32)
    across, down = warps // layout.scores, layout.scores
    return Design(
        roles=(Role("all", warps, None, "each loads, multiplies and exponentiates its part of every product"),),
        stages={"Q": rows, "dO": 1},
        shared=(
            Entry(f"Q, {rows} stages" if rows > 1 else "Q", rows * queries),
            Entry("dO", t.q * t.dv * t.itemsize),
            Entry("K", keys),
            Entry("V, then dS and P" if v else "V", max(values, two_tiles) if v else values),
            *(() if v else (Entry("dS", score_tile), Entry("P", score_tile))),
        ),
        registers=(
            Entry("dK, fp32", t.kv * t.d // threads),
            Entry("dV, fp32", t.kv * t.dv // threads),
            Entry("S and dP, then dQ, fp32", max(2 * t.scores, t.q * t.d) // threads),
            *((Entry("V", v_registers),) if v else ()),
        ),
        holder="thread",
        products=(
            product("S = Q K^T", t.q, t.kv, t.d, t.itemsize, a=across, b=down),
            product("dP = dO V^T", t.q, t.kv, t.dv, t.itemsize, a=across, b=0 if v else down),
            product("dV += P^T dO", t.kv, t.dv, t.q, t.itemsize, a=warps // layout.keys, b=layout.keys),
            product("dK += dS^T Q", t.kv, t.d, t.q, t.itemsize, a=warps // layout.keys, b=layout.keys),
            product("dQ += dS K", t.q, t.d, t.kv, t.itemsize, a=warps // layout.queries, b=layout.queries),
        ),
        exps=t.scores,
        staged=(Entry("P, written", score_tile), Entry("dS, written", score_tile)),
        atomic_bytes=t.q * t.d * 4,
    )


FAMILY = Family(
    title="FlashAttention-2",
    device="a100-sxm-40gb",
    capability=((8, 0), (13, 0)),
    head_dims=(32, 64, 96, 128, 192, 256),
    dtypes=("fp16", "bf16"),
    own_value_dim=False,
    granules=((64, 32), (64, 32)),
    forward=forward,
    backward=backward,
)
