"""FlashAttention (2022), forward: version 0 of Dao-AILab/flash-attention, csrc/flash_attn/src at 0d85469.

Four warps split the keys of a block (kernel_traits.h: WARPS_N = 4); K and V stay in registers while queries pass, and
the four partial outputs are added through shared memory (gemm_cl.h). A comment in fmha_fprop_fp16_kernel.sm80.cu gives
the shared memory of two variants, "~41KB" and "~105KB", and how many blocks an SM schedules of them.
"""

from __future__ import annotations

from ..device import Device
from ..problem import AttentionProblem
from .design import Design, Entry, Family, Role, Tile, product

WARPS = 4


def forward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """K and V in registers; one buffer of shared memory for both on their way, and for the partial outputs."""
    del problem, device
    threads = 32 * WARPS
    outputs = WARPS * t.q * t.dv * 4  # one fp32 partial output per warp
    statistics = WARPS * t.q * 4 * 2
    on_the_way = t.kv * max(t.d, t.dv) * t.itemsize
    return Design(
        roles=(Role("all", WARPS, None, "each loads, multiplies and exponentiates its quarter of the keys"),),
        stages={"Q": 2, "K": 1, "V": 1},
        shared=(
            Entry("Q, 2 stages", 2 * t.q * t.d * t.itemsize),
            Entry("K, then V, then partial O of 4 warps and statistics", max(on_the_way, outputs + statistics)),
        ),
        registers=(
            Entry("K", t.kv * t.d * t.itemsize // 4 // threads),
            Entry("V", t.kv * t.dv * t.itemsize // 4 // threads),
            Entry("S, fp32", t.scores // threads),
            Entry("O of the warp's keys, fp32", t.q * t.dv // 32),
        ),
        holder="thread",
        products=(
            product("S = Q K^T", t.q, t.kv, t.d, t.itemsize, a=WARPS, b=0),
            product("O = P V", t.q, t.dv, t.kv, t.itemsize, a=0, b=0),
        ),
        exps=t.scores,
        staged=(
            Entry("partial O, written and read", 2 * outputs),
            Entry("statistics, written and read", 2 * statistics),
        ),
        differs=(
            "the keys of a tile are split among the warps, so O is added up through shared memory; FlashAttention-2 "
            "splits the queries, and no warp needs another's result",
            "keys are the outer loop: K and V wait in registers, and O, l and m go to HBM and back for every tile",
        ),
    )


FAMILY = Family(
    title="FlashAttention",
    device="a100-sxm-40gb",
    capability=((7, 5), (10, 0)),
    head_dims=(16, 32, 64, 128),
    dtypes=("fp16", "bf16"),
    own_value_dim=False,
    granules=((16, 64), (16, 64)),
    forward=forward,
    backward=None,
)
