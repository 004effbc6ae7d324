"""FlashAttention-4 (arXiv 2603.05451): Dao-AILab/flash-attention, flash_attn/cute.

flash_fwd_sm100.py (at 001e273) and flash_bwd_sm100.py (021070c) have the warps, their registers, tensor memory and
shared memory ("2-CTA: 231424 and 1-CTA: 232448" bytes); softmax.py which exponentials are emulated, utils.py how. The
cycles are the paper's tables 1 and 3. Registers of the backward pass are counted here, not as compiled (unverified).
"""

from __future__ import annotations

from fractions import Fraction

from ..device import Device
from ..problem import AttentionProblem
from ..shipped import causal_or_local
from .design import Design, Entry, Family, Overlap, Role, Tile, product

MMA_ROWS = 128  # of one CTA
TMEM_COLUMNS = 512  # of 128 lanes x 4 B: PTX ISA, tcgen05.alloc
ROOM = 224 * 1024  # bytes that Q, O and the ring of K and V share
ALIGNMENT = 1024
# Of a row of 128 scores fragments 1 and 2 of 4, and of each 16 scores 4, take the polynomial (ex2_emu_freq 16)
EMULATED = Fraction(2, 4) * Fraction(4, 16)
EMULATION_FMAS = 6  # three to split off the fraction, three of the cubic
TWO_TILES = Overlap(
    "two query tiles", together=True, how="one is multiplied while the other is in its softmax; other warps rescale O"
)
NEIGHBOURS = Overlap(
    "neighbouring tiles",
    together=True,
    how="products of the tiles before and after run beside this one's softmax",
)


def forward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """Two query tiles in flight, unless one holds all rows; S, P and O are in tensor memory."""
    del device
    rows = problem.longest()[0] * problem.group
    count = 2 if rows > t.q else 1
    tiles = t._replace(q=count * t.q)
    queries, outputs = tiles.q * t.d * t.itemsize, tiles.q * t.dv * t.itemsize
    over = t.d == 192  # O lies over Q
    ring, stages = _ring(t, ROOM - (max(queries, outputs) if over else queries + outputs))
    statistics = tiles.q * 2 * 4
    return Design(
        roles=_forward_roles(t, count),
        stages={"Q": count, "K and V": stages},
        shared=(
            Entry("Q", queries),
            Entry("O, over Q: beyond it" if over else "O", max(0, outputs - queries) if over else outputs),
            Entry(f"K and V in turns, {stages} stages", ring),
            *_barriers(statistics, "row maxima and sums"),
        ),
        registers=(Entry("S, a row, fp32", t.kv), Entry("P, a row, 16 bits", t.kv // 2)),
        holder="softmax thread",
        register_limit=_forward_registers(t)[0],
        tmem=(
            Entry("S of two tiles, fp32; P over it", 2 * t.kv),
            Entry(f"O of {count} tile{'s' * (count - 1)}, fp32", count * t.dv),
        ),
        products=(
            product("S = Q K^T", tiles.q, t.kv, t.d, t.itemsize, b=tiles.q // MMA_ROWS),
            product("O += P V", tiles.q, t.dv, t.kv, t.itemsize, a=0, b=tiles.q // MMA_ROWS),
        ),
        exps=tiles.scores,
        overlap=(TWO_TILES,),
        emulated=EMULATED if t.d <= 128 else Fraction(0),
        differs=(
            "one thread issues the products, which accumulate in tensor memory; FlashAttention-2's accumulate in the "
            "registers of every warp",
            "a thread owns a row of scores, no maximum or sum crosses lanes; FlashAttention-2 has rows on four lanes",
            "other warps rescale O, and only where a maximum grew by more than 2^8; FlashAttention-2 always rescales",
            "the fp32 units compute some of the exponentials; FlashAttention-2 leaves all to the exponential units",
        ),
    )


def _ring(t: Tile, room: int) -> tuple[int, int]:
    """(bytes, stages) of the buffers that K and V take in turns; with 192 and 128 columns every second one is short."""
    stages = max(1, room // (t.kv * max(t.d, t.dv) * t.itemsize))
    if (t.d, t.dv, stages) == (192, 128, 2):
        return t.kv * (2 * t.d + t.dv) * t.itemsize, 3
    return stages * t.kv * max(t.d, t.dv) * t.itemsize, stages


def _barriers(statistics: int, what: str) -> tuple[Entry, Entry]:
    """Statistics, and what else comes before the tiles: they begin at a multiple of 1,024 B."""
    return Entry(what, statistics), Entry("barriers and alignment", ALIGNMENT + -statistics % ALIGNMENT)


def _forward_registers(t: Tile) -> tuple[int, int, int]:
    """(softmax, correction, other): what most shapes have; some are tuned by 16 up or down."""
    return (200, 64, 48) if t.d < 96 else (192, 80, 48)


def _forward_roles(t: Tile, count: int) -> tuple[Role, ...]:
    softmax, correction, other = _forward_registers(t)
    return (
        Role("softmax", 4 * count, softmax, "a warpgroup per query tile: a row per thread, P to tensor memory"),
        Role("correction", 4, correction, "rescales O in tensor memory, and at last writes O to shared memory"),
        Role("MMA", 1, other, "one thread issues both products"),
        Role("load", 1, other, "TMA of Q, K and V"),
        Role("epilogue", 1, other, "TMA of O"),
        Role("idle", 1 + 4 * (2 - count), other, "nothing"),
    )


def backward(t: Tile, problem: AttentionProblem, device: Device) -> Design:
    """One block per key tile; with head_dim 128 and no window, two CTAs share every product."""
    del device
    pair = t.d >= 128 and not causal_or_local(problem)[1]
    half = Fraction(1, 2) if pair else 1
    roles = _backward_roles(pair=pair, masked=any(causal_or_local(problem)))
    dq_rows, dq_keys = (t.q // 2, 2 * t.kv) if pair else (t.q, t.kv)
    ds, dq = t.scores * t.itemsize, dq_rows * t.d * 4
    return Design(
        roles=roles,
        stages={"Q": 1 if pair else 2, "dO": 1},
        shared=_backward_pair(t) if pair else _backward_one(t),
        registers=(Entry("S, then P, fp32", t.scores // 256), Entry("dP, then dS, fp32", t.scores // 256)),
        holder="compute thread",
        register_limit=roles[1].registers or 0,
        tmem=(
            Entry("S, fp32; P over it" + ("; then dQ" if pair else ""), t.kv),
            Entry("dV, fp32", t.dv),
            Entry("dP, fp32; dS over it" + ("" if pair else "; then dQ"), t.q),
            Entry("dK, fp32", t.d),
        ),
        products=(
            product("S^T = K Q^T", t.kv, t.q, t.d, t.itemsize, b=half),
            product("dP^T = V dO^T", t.kv, t.q, t.dv, t.itemsize, b=half),
            product("dV += P^T dO", t.kv, t.dv, t.q, t.itemsize, a=0, b=half),
            product("dK += dS^T Q", t.kv, t.d, t.q, t.itemsize, a=0, b=half),
            product("dQ = dS K", dq_rows, t.d, dq_keys, t.itemsize, b=half),
        ),
        exps=t.scores,
        staged=(
            Entry("dS, written", ds),
            *((Entry("half of dS, staged, read, written to the other CTA", 3 * ds // 2),) if pair else ()),
            Entry("dQ, written and read", 2 * dq),
        ),
        overlap=(NEIGHBOURS,),
        cluster=2 if pair else 1,
        atomic_bytes=dq,
        differs=(
            "P and dS go to their products through tensor memory; FlashAttention-2's pass through shared memory",
            "two CTAs each read half of every right operand and add half of the rows of dQ, over twice the keys: half "
            "the atomics of FlashAttention-2"
            if pair
            else "dQ is added by TMA reductions from shared memory; FlashAttention-2 adds it from registers",
        ),
    )


def _backward_one(t: Tile) -> tuple[Entry, ...]:
    return (
        Entry("Q, 2 stages", 2 * t.q * t.d * t.itemsize),
        Entry("K", t.kv * t.d * t.itemsize),
        Entry("V", t.kv * t.dv * t.itemsize),
        Entry("dO", t.q * t.dv * t.itemsize),
        Entry("dS", t.scores * t.itemsize),
        Entry("dQ, 2 stages of 32 columns, fp32", 2 * 32 * t.q * 4),
        *_barriers(3 * t.q * 4, "L, 2 stages, and D"),
    )


def _backward_pair(t: Tile) -> tuple[Entry, ...]:
    """Q, dO and K are loaded in both orientations, half of each: a CTA has its half of every right operand."""
    return (
        Entry("Q and Q^T, a half each", t.q * t.d * t.itemsize),
        Entry("K", t.kv * t.d * t.itemsize),
        Entry("K^T, half of two tiles", t.kv * t.d * t.itemsize),
        Entry("V", t.kv * t.dv * t.itemsize),
        Entry("dO and dO^T, a half each", t.q * t.dv * t.itemsize),
        Entry("dS", t.scores * t.itemsize),
        Entry("half of dS for the other CTA", t.scores * t.itemsize // 2),
        Entry("dQ, 4 stages of 8 columns, fp32", 4 * 8 * t.q * 4),
        *_barriers(2 * t.q * 4, "L and D"),
    )


def _backward_roles(*, pair: bool, masked: bool) -> tuple[Role, ...]:
    reduce, other = (144, 96) if pair else (152, 88)
    return (
        Role("reduce", 4, reduce - 16 * masked, "dQ from tensor memory to shared memory, added to HBM by TMA"),
        Role("compute", 8, 136 + 8 * masked, "P and dS, to tensor memory; at last dK and dV"),
        Role("MMA", 1, other, "one thread issues the five products"),
        Role("load", 1, other, "TMA of Q, dO, K and V"),
        Role("idle", 2, 24, "nothing"),
    )


FAMILY = Family(
    title="FlashAttention-4",
    device="b200",
    capability=((10, 0), (12, 0)),
    head_dims=tuple(range(16, 257, 16)),
    dtypes=("fp16", "bf16"),
    own_value_dim=True,
    granules=((128, 16), (128, 16)),
    forward=forward,
    backward=backward,
)
