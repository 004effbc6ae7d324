"""FlashAttention-3 (arXiv 2407.08608): Dao-AILab/flash-attention, hopper.

tile_size.h (at 8a80215) says where P is and what overlaps, flash_fwd_kernel_sm90.h (0473b46) and its backward twin
(51b5c15) the warps and their registers, mainloop_fwd_sm90_tma_gmma_ws.hpp (0473b46) and its twin (0105a8f) the shared
memory, flash_bwd_launch_template.h (fc8e93c) the layouts. Of a consumer's registers some 24 (32 with three
warpgroups) are taken by addresses and statistics: for 16-bit tiles, flash_attn/cute/sm90_config_search.py (01afd16)
keeps 216 and 128. Barriers, less than 1 KB, are not in the ledger.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Device
from ..errors import refuse
from ..problem import AttentionProblem
from ..shipped import causal_or_local
from .design import Design, Entry, Family, Overlap, Product, Role, Tile, product

WARPGROUP = 128  # threads
ROWS = 64  # of one wgmma
REGISTERS = {2: (24, 240, 216), 3: (32, 160, 128)}  # by consumers: a producer's, a consumer's, for tiles
INTRA_WARPGROUP = Overlap(
    "intra-warpgroup", together=True, how="the next tile's scores are multiplied while this tile is in its softmax"
)
PING_PONG = Overlap(
    "ping-pong", together=True, how="named barriers let one warpgroup multiply while another is in its softmax"
)
ASYNCHRONOUS = Overlap(
    "asynchronous products", together=True, how="dP is multiplied while P is exponentiated (unverified)"
)


def forward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """A producer warpgroup keeps two stages of K and V coming; consumers own 64 rows each."""
    del device
    groups = t.q // ROWS
    if groups not in REGISTERS:
        raise refuse("tile_q", t.q, "two or three consumer warpgroups of 64 query rows", 128 if groups < 2 else 192)
    narrow, in_registers = t.itemsize == 1, _p_in_registers(t, problem)
    next_tile = narrow or t.d > 64 or t.dv <= 128  # IntraWGOverlap: S of the next tile is held beside P of this one
    kept = (Entry(f"P, {8 * t.itemsize} bits", t.kv * t.itemsize // 8),) if in_registers and next_tile else ()
    turns = not next_tile or (t.d >= 128 if narrow else t.d <= 128)  # UseSchedulerBarrier
    values = 2 * t.kv * t.dv * t.itemsize
    p_bytes, v_turned = t.scores * t.itemsize, 2 * t.kv * t.dv
    shared = (
        Entry("Q", t.q * t.d * t.itemsize),
        Entry("K, 2 stages", 2 * t.kv * t.d * t.itemsize),
        Entry("V, 2 stages", values),
        *((Entry("V transposed, 2 stages", values),) if narrow else ()),
        *(() if in_registers else (Entry("P", p_bytes),)),
        Entry("O, over V: beyond it", max(0, t.q * t.dv * 2 - values)),
    )
    staged = (Entry("V, read and written transposed", v_turned),) if narrow else ()
    return Design(
        roles=_roles(groups, "loads K and V with TMA" + (", and transposes V" if narrow else "; one warp is enough")),
        stages={"K": 2, "V": 2},
        shared=shared,
        registers=(Entry("S, fp32", t.kv // 2), *kept, Entry("O, fp32", t.dv // 2)),
        holder="consumer thread",
        register_limit=REGISTERS[groups][1 if narrow else 2],
        products=(
            product("S = Q K^T", t.q, t.kv, t.d, t.itemsize, b=groups),
            product("O += P V", t.q, t.dv, t.kv, t.itemsize, a=0 if in_registers else 1, b=groups),
        ),
        exps=t.scores,
        staged=staged if in_registers else (Entry("P, written", p_bytes),),
        overlap=(INTRA_WARPGROUP,) * next_tile + (PING_PONG,) * turns,
        cluster=_cluster(t, problem),
        differs=(
            f"a producer warpgroup loads with TMA and gives its registers to {groups} consumers; FlashAttention-2's "
            "warps load for themselves",
            "wgmma reads K and V from shared memory once per 64 rows; FlashAttention-2's mma.sync once per warp, which "
            "has 16 or 32",
            "a tile's softmax hides behind the products of the next; FlashAttention-2's warps do one after the other",
        ),
    )


def _p_in_registers(t: Tile, problem: AttentionProblem) -> bool:
    """MmaPV_is_RS of tile_size.h: P passes through shared memory where registers do not hold it beside the next S."""
    if t.itemsize == 1 or t.d > 96 or (t.d <= 64 and t.dv > 128):
        return True
    return t.d <= 64 and (any(causal_or_local(problem)) or problem.page_size is not None)


def _cluster(t: Tile, problem: AttentionProblem) -> int:
    """Two blocks share K and V by multicast if nothing is masked and they have as many query tiles."""
    wide = t.d >= 128 if t.itemsize == 2 else t.d == 192
    plain = not any(causal_or_local(problem)) and isinstance(problem.q_len, int) and problem.page_size is None
    return 2 if wide and plain and -(-problem.longest()[0] // t.q) % 2 == 0 else 1


def _roles(groups: int, loads: str) -> tuple[Role, ...]:
    producer, consumer, _ = REGISTERS[groups]
    return (
        Role("producer", 4, producer, loads),
        Role("consumer", 4 * groups, consumer, f"{groups} warpgroups multiply and exponentiate"),
    )


class Layout(NamedTuple):
    """run_mha_bwd_*: which products are transposed (swapAB), and how warpgroups are laid out along their rows."""

    groups: int
    do_stages: int
    ds_stages: int
    scores: tuple[bool, int]
    keys: tuple[bool, int]
    queries: tuple[bool, int]


def _layout(t: Tile, problem: AttentionProblem) -> Layout:
    if t.d <= 64:
        return Layout(2, 2, 2, (True, 1), (False, 2), (t.q == 96, 2))
    if t.d == 96:
        return Layout(2, 2, 2, (True, 1), (False, 2), (False, 1))
    if t.d == 128:
        return Layout(2, 2, 2, (True, 1), (False, 2), (not (any(causal_or_local(problem)) or problem.softcap), 1))
    if t.d == 192:
        return Layout(3, 1, 1, (False, 1), (True, 1), (False, 1))
    return Layout(2, 1, 1, (False, 1), (True, 1), (True, 1))


def backward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """One block per key tile; one more producer warp adds dQ to HBM from shared memory."""
    del device
    layout = _layout(t, problem)
    groups, threads = layout.groups, layout.groups * WARPGROUP
    # P^T and dS^T are in the registers that dV and dK want them in
    kept = layout.scores == (True, 1) and layout.keys == (False, groups)
    by_tma = t.d < 256  # dQ leaves through shared memory; at 256 it is added from registers, in two halves
    dq, score_tile = t.q * t.d * 4, t.scores * t.itemsize
    statistics = 2 * 2 * -(-t.q // 64) * 64 * 4
    return Design(
        roles=_roles(groups, "one warp loads Q and dO with TMA, one adds dQ to HBM"),
        stages={"Q": 2, "dO": layout.do_stages, "dS": layout.ds_stages},
        shared=(
            Entry("K", t.kv * t.d * t.itemsize),
            Entry("V", t.kv * t.dv * t.itemsize),
            *((Entry("dQ, fp32", dq),) if by_tma else ()),
            Entry("Q, 2 stages", 2 * t.q * t.d * t.itemsize),
            Entry(_staged("dO", layout.do_stages), layout.do_stages * t.q * t.dv * t.itemsize),
            Entry("L and D, 2 stages", statistics),
            *(() if kept else (Entry("P", score_tile),)),
            Entry(_staged("dS", layout.ds_stages), layout.ds_stages * score_tile),
        ),
        registers=(
            Entry("dK, fp32", t.kv * t.d // threads),
            Entry("dV, fp32", t.kv * t.dv // threads),
            Entry("S and dP, then dQ, fp32", max(2 * t.scores, t.q * t.d // (1 if by_tma else 2)) // threads),
        ),
        holder="consumer thread",
        register_limit=REGISTERS[groups][2],
        products=(
            _product("S = Q K^T", t.q, t.kv, t.d, t, groups, layout.scores),
            _product("dP = dO V^T", t.q, t.kv, t.dv, t, groups, layout.scores),
            _product("dV += P^T dO", t.kv, t.dv, t.q, t, groups, layout.keys, kept=kept),
            _product("dK += dS^T Q", t.kv, t.d, t.q, t, groups, layout.keys, kept=kept),
            _product("dQ += dS K", t.q, t.d, t.kv, t, groups, layout.queries),
        ),
        exps=t.scores,
        staged=(
            *(() if kept else (Entry("P, written", score_tile),)),
            Entry("dS, written", score_tile),
            *((Entry("dQ, written and read", 2 * dq),) if by_tma else ()),
        ),
        overlap=(ASYNCHRONOUS,),
        atomic_bytes=dq,
        differs=(
            "a producer warp loads with TMA and another adds dQ with TMA reductions; FlashAttention-2's warps do both",
            "P stays in registers, transposed, for dV; FlashAttention-2 passes it through shared memory"
            if kept
            else "P passes through shared memory, as FlashAttention-2's does",
        ),
    )


def _staged(what: str, stages: int) -> str:
    return f"{what}, {stages} stages" if stages > 1 else what


def _product(
    what: str, m: int, n: int, k: int, t: Tile, groups: int, layout: tuple[bool, int], *, kept: bool = False
) -> Product:
    """A product on warpgroups, `along` of them along its rows: each reads its rows once, its columns per 64 rows."""
    swapped, along = layout
    columns = along if swapped else groups // along
    if swapped:
        m, n = n, m
    return product(what, m, n, k, t.itemsize, a=0 if kept else columns, b=-(-m // ROWS))


FAMILY = Family(
    title="FlashAttention-3",
    device="h100-sxm",
    capability=((9, 0), (10, 0)),
    head_dims=(64, 96, 128, 192, 256),
    dtypes=("fp16", "bf16", "fp8_e4m3"),
    own_value_dim=True,
    granules=((64, 8), (16, 16)),
    forward=forward,
    backward=backward,
)
