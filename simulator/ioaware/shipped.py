"""The tiles that flash-attention ships, by architecture and head_dim.

Source: Dao-AILab/flash-attention, csrc/flash_attn (flash_fwd_launch_template.h, flash_bwd_launch_template.h),
commit 0251105; for FlashAttention 1 its K block of 256 columns (128 for head_dim 128) and 16-row query blocks
(unverified).
They hold loaded tiles in shared memory and everything computed in registers, so they may exceed the SRAM alone.
"""

from __future__ import annotations

from .algorithms import Algorithm
from .device import Device
from .errors import refuse
from .masks import CAUSAL
from .problem import AttentionProblem
from .program.recorder import Program
from .readers.evaluate import TileSizes
from .readers.onchip import on_chip

HEAD_DIMS = (32, 64, 96, 128, 192, 256)  # other head dims are padded to the next of these
SM8X = ("8.6", "8.9")  # the forward launch templates tell these from 8.0; 12.0 is not among them
SMALL_SHARED = 99 * 1024


def shipped_tiles(
    algorithm: Algorithm, program: Program, problem: AttentionProblem, device: Device
) -> tuple[TileSizes, str] | None:
    """The shipped tiles of a pass and where they are placed; None for an algorithm of which none are shipped."""
    if algorithm.name not in TABLES:
        return None
    if problem.head_dim > HEAD_DIMS[-1]:
        raise refuse("head_dim", problem.head_dim, "flash-attention ships tiles up to head_dim 256", HEAD_DIMS[-1])
    padded = next(d for d in HEAD_DIMS if d >= problem.head_dim)
    q, kv = TABLES[algorithm.name][program.backward](padded, problem, device)
    longest_q, longest_kv = problem.longest()
    tiles = TileSizes(min(q, longest_q), min(kv, longest_kv))
    held = on_chip(program, problem, tiles)
    return tiles, f"as shipped: {held.loaded:,} B of tiles in shared memory, {held.computed:,} B in registers"


def _flash1(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    del problem, device
    return 16, 256 if d <= 64 else 128


FORWARD = {32: (128, 128), 64: (128, 128), 96: (128, 64), 128: (128, 64), 192: (128, 64), 256: (64, 64)}
FORWARD_DROPOUT = {64: (128, 64), 128: (128, 32), 192: (64, 64)}


def _flash2_forward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    if problem.dropout > 0 and d in FORWARD_DROPOUT:
        return FORWARD_DROPOUT[d]
    small, causal = device.compute_capability in SM8X, problem.band == CAUSAL
    if small and d == 128:
        return (64, 64) if causal else (128, 32)
    if small and d == 96 and causal:
        return 64, 64
    return (128, 64) if d == 256 and device.compute_capability == "8.0" else FORWARD[d]


def _flash2_backward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    del problem
    shared = device.shared_bytes or device.sram_bytes
    if d <= 64:
        return (128, 128) if shared >= _backward_shared(128, 128, d) else (64, 128)
    if d == 96:
        return 64, 128
    if d == 128:
        return (64, 128) if shared >= 144 * 1024 else (64, 64)
    return (64, 32) if d == 256 and shared <= SMALL_SHARED else (64, 64)


def _backward_shared(q: int, kv: int, d: int) -> int:
    """Shared memory of the shipped backward kernel: Q (twice), dO, K, V, and two score tiles in 16 bits.

    At head_dim 32 V stays in registers.
    """
    keys = 1 if d <= 32 else 2
    return 2 * ((3 * q + keys * kv) * d + 2 * q * kv)


TABLES = {  # algorithm: (forward, backward)
    "flash1": (_flash1, _flash1),
    "flash2": (_flash2_forward, _flash2_backward),
    "flash2_no_atomics": (_flash2_forward, _flash2_backward),
}
