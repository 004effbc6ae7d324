"""The tiles that flash-attention ships, by architecture and head_dim, and how many splits of the keys.

Source: Dao-AILab/flash-attention; later versions tune single entries:
FlashAttention-2  csrc/flash_attn at 0251105: flash_fwd_launch_template.h, flash_bwd_launch_template.h, flash_api.cpp
FlashAttention-3  hopper: tile_size.h at 8a80215, flash_bwd_launch_template.h at fc8e93c, flash_api.cpp at 0251105
FlashAttention-4  flash_attn/cute: flash_fwd_sm100.py at 001e273, flash_bwd_sm100.py at 021070c (128x128 to one MMA)
FlashAttention-1  version 0, csrc/flash_attn/src: 16 rows to 256 keys (128 for head_dim 128), fmha_fprop*
They hold loaded tiles in shared memory and everything computed in registers, so they may exceed the SRAM alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .algorithms import Algorithm
from .device import Device
from .errors import refuse
from .masks import CAUSAL, FULL, Band
from .problem import AttentionProblem
from .program.recorder import Program
from .readers.evaluate import TileSizes
from .readers.onchip import on_chip
from .splits import num_splits_flash2, num_splits_flash3

HEAD_DIMS = (32, 64, 96, 128, 192, 256)  # other head dims are padded to the next of these
SM8X = ("8.6", "8.9")  # the forward launch templates tell these from 8.0; 12.0 is not among them
SMALL_SHARED = 99 * 1024


def shipped_tiles(
    algorithm: Algorithm, program: Program, problem: AttentionProblem, device: Device
) -> tuple[TileSizes, str] | None:
    """The shipped tiles of a pass and where they are placed; None for an algorithm of which none are shipped."""
    if algorithm.name not in TABLES:
        return None
    tiles = shipped_sizes(algorithm.name, problem, device, backward=program.backward)
    longest_q, longest_kv = problem.longest()
    tiles = tiles._replace(q=min(tiles.q, longest_q), kv=min(tiles.kv, longest_kv))
    held = on_chip(program, problem, tiles)
    return tiles, f"as shipped: {held.loaded:,} B of tiles in shared memory, {held.computed:,} B in registers"


def shipped_sizes(name: str, problem: AttentionProblem, device: Device, *, backward: bool = False) -> TileSizes:
    """The tiles that a kernel is compiled for, however short the sequences; `name` is one of TABLES.

    Raises InputError where none are shipped: head_dim beyond 256, dropout where a kernel has none.
    """
    if problem.head_dim > HEAD_DIMS[-1]:
        raise refuse("head_dim", problem.head_dim, "flash-attention ships tiles up to head_dim 256", HEAD_DIMS[-1])
    padded = next(d for d in HEAD_DIMS if d >= problem.head_dim)
    return TileSizes(*TABLES[name][backward](padded, problem, device))


def causal_or_local(problem: AttentionProblem) -> tuple[bool, bool]:
    """(causal, local) as flash-attention tells kernels apart: a single query is not causal, other bands are local."""
    causal = problem.mask == CAUSAL and problem.longest()[0] > problem.pack
    return causal, isinstance(problem.mask, Band) and problem.mask not in (FULL, CAUSAL)


def _flash1(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    del problem, device
    return 16, 256 if d <= 64 else 128


# --------------------------------------------------------------------------------------------- FlashAttention-2
FORWARD = {32: (128, 128), 64: (128, 128), 96: (128, 64), 128: (128, 64), 192: (128, 64), 256: (64, 64)}
FORWARD_DROPOUT = {64: (128, 64), 128: (128, 32), 192: (64, 64)}


def _flash2_forward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    if problem.dropout > 0 and d in FORWARD_DROPOUT:
        return FORWARD_DROPOUT[d]
    small, (causal, _) = device.compute_capability in SM8X, causal_or_local(problem)
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


def _flash_decoding(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    del problem, device
    return 64, 256 if d <= 64 else 128 if d <= 128 else 64


def flash2_splits(problem: AttentionProblem, device: Device) -> int:
    """The splits of FlashAttention-2 for a problem. Dropout is not split.

    A single query per sequence becomes one row per head of its group, but for windows and ALiBi.
    """
    if problem.dropout > 0:
        return 1
    (rows, kv_len), heads = problem.longest(), problem.heads
    if rows == 1 and not causal_or_local(problem)[1] and not problem.alibi and problem.head_dim % 8 == 0:
        rows, heads = problem.group, heads // problem.group
    tiles = shipped_sizes("flash_decoding", problem, device)
    blocks = problem.batch * heads * -(-rows // tiles.q)
    return num_splits_flash2(blocks, 2 * device.sm_count, -(-kv_len // tiles.kv))


# --------------------------------------------------------------------------------------------- FlashAttention-3, -4
def _flash3_forward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    """Pages are walked by TMA, as contiguous keys are, if a page is whole tiles and a query tile is filled."""
    del device
    _no_dropout("FlashAttention-3", problem)
    causal, local = causal_or_local(problem)
    paged = False
    if problem.page_size is not None:
        q, kv = _flash3_tiles(d, problem, causal=causal, local=local, paged=False)
        paged = problem.page_size % kv > 0 or problem.longest()[0] * problem.group <= q
    return _flash3_tiles(d, problem, causal=causal, local=local, paged=paged)


def _flash3_tiles(d: int, problem: AttentionProblem, *, causal: bool, local: bool, paged: bool) -> tuple[int, int]:
    value_dim = problem.value_dim or 1
    if problem.itemsize("io") == 1:
        wide = 160 if paged else 192 if problem.softcap and local else 224
        return {
            32: (192, 160), 64: (192, 160), 96: (192, 128), 128: (128, wide),
            192: (128, 128 if (paged or problem.softcap) and local else 160), 256: (128, 64 if local else 128),
        }[d]  # fmt: skip
    if d <= 64 and value_dim > 128:
        return (64, 64) if value_dim > 256 else (128, 96)
    less = causal or local or paged
    return {
        32: (192, 128 if less else 192), 64: (192, 128 if less else 192), 96: (192, 128 if local or paged else 144),
        128: (128, 128 if less else 176), 192: (128, 96 if local or paged else 128 if value_dim <= 128 else 112),
        256: (128, 64 if local else 80),
    }[d]  # fmt: skip


def _flash3_backward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    del device
    _no_dropout("FlashAttention-3", problem)
    causal, local = causal_or_local(problem)
    if d <= 64:
        return (96 if causal and problem.softcap else 128), 128
    rows = 80 if d == 128 and not (causal or local or problem.softcap) else 64
    return rows, {96: 128, 128: 128, 192: 96, 256: 80}[d]


def flash3_splits(problem: AttentionProblem, device: Device) -> int:
    """The splits of FlashAttention-3 for a problem: query tiles are packed, of a window only its keys are loaded."""
    (q_len, kv_len), (causal, local) = problem.longest(), causal_or_local(problem)
    tiles = shipped_sizes("flash3", problem, device)
    loaded = kv_len
    if local and isinstance(problem.mask, Band):
        left = kv_len - 1 if problem.mask.left is None else problem.mask.left
        right = q_len - 1 if problem.mask.right is None else problem.mask.right
        loaded = min(kv_len, left + right + 1 + tiles.q)
    q_blocks, kv_blocks = -(-q_len * problem.group // tiles.q), -(-loaded // tiles.kv)
    blocks = problem.batch * (problem.kv_heads or 1) * q_blocks
    head_bytes = kv_len * (problem.head_dim + (problem.value_dim or 1)) * problem.itemsize("io")
    return num_splits_flash3(blocks, device.sm_count, kv_blocks, q_blocks, head_bytes, masked=causal or local)


def _flash4_forward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    """One MMA's tile, of which a thread block has two in flight."""
    del device
    return _flash4(d, problem, 192)


def _flash4_backward(d: int, problem: AttentionProblem, device: Device) -> tuple[int, int]:
    """The tile of one CTA, of which two share the keys' other half."""
    del device
    return _flash4(d, problem, 128)


def _flash4(d: int, problem: AttentionProblem, widest: int) -> tuple[int, int]:
    _no_dropout("FlashAttention-4", problem)
    if d > widest:
        raise refuse("head_dim", problem.head_dim, f"this pass of FlashAttention-4 ships tiles up to {widest}", widest)
    return 128, 128


def _no_dropout(kernel: str, problem: AttentionProblem) -> None:
    if problem.dropout > 0:
        raise refuse("dropout", problem.dropout, f"{kernel} ships no dropout", 0.0)


Table: TypeAlias = Callable[[int, AttentionProblem, Device], tuple[int, int]]
TABLES: dict[str, tuple[Table, Table]] = {  # algorithm: (forward, backward)
    "flash1": (_flash1, _flash1),
    "flash2": (_flash2_forward, _flash2_backward),
    "flash2_no_atomics": (_flash2_forward, _flash2_backward),
    "flash3": (_flash3_forward, _flash3_backward),
    "flash4": (_flash4_forward, _flash4_backward),
    "flash_decoding": (_flash_decoding, _flash2_backward),
}
