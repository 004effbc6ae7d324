"""Figures that the FlashAttention papers print, reproduced from the programs; each test names its table or figure."""

from __future__ import annotations

import pytest

import ioaware as io
from ioaware.algorithms import find
from ioaware.program import record
from ioaware.readers.count import count, count_kernels
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.footprint import footprint

MIB = 2**20


def issued(algorithm, problem, **choices):
    return io.simulate(problem, algorithms=[algorithm], **choices).algorithms[algorithm].totals.levels["issued"]


# ---------------------------------------------------------------------------------- closed forms, in words
def words(text, n, d, tiles):
    """Words moved by a program whose tensors all have the same number format: fp32 everywhere."""
    problem = io.AttentionProblem(q_len=n, head_dim=d, dtype="fp32")
    traffic = count(record(text, problem.features), problem, tiles)
    return traffic.read_bytes // 4, traffic.write_bytes // 4


SIZES = [(1024, 64, 64, 384), (1000, 64, 48, 112), (77, 40, 5, 9), (8192, 128, 128, 192)]


@pytest.mark.parametrize(("n", "d", "br", "bc"), SIZES)
def test_standard_attention_moves_4nn_4nd_forward_and_7nn_8nd_backward(n, d, br, bc):
    """FlashAttention, Algorithms 0 and 3: each kernel reads its inputs once."""
    del br, bc
    whole = TileSizes(n, n)
    assert words(find("naive").forward, n, d, whole) == (2 * n * n + 3 * n * d, 2 * n * n + n * d)
    assert words(find("naive").backward, n, d, whole) == (5 * n * n + 5 * n * d, 2 * n * n + 3 * n * d)


@pytest.mark.parametrize(("n", "d", "br", "bc"), SIZES)
def test_flashattention_moves_its_closed_forms(n, d, br, bc):
    """Algorithms 2 and 4: 3Nd + 2N + T_c (3Nd + 4N) forward, 7Nd + T_c (5Nd + 2N) backward."""
    tiles, columns = TileSizes(br, bc), -(-n // bc)
    assert sum(words(find("flash1").forward, n, d, tiles)) == 3 * n * d + 2 * n + columns * (3 * n * d + 4 * n)
    assert sum(words(find("flash1").backward, n, d, tiles)) == 7 * n * d + columns * (5 * n * d + 2 * n)


@pytest.mark.parametrize(("n", "d", "br", "bc"), SIZES)
def test_flashattention2_reads_nd_and_its_keys_once_per_query_tile(n, d, br, bc):
    """FlashAttention-2, Algorithm 1: Nd + 2 ceil(N/B_r) Nd reads, Nd + N writes."""
    reads, writes = words(find("flash2").forward, n, d, TileSizes(br, bc))
    assert reads == n * d + 2 * -(-n // br) * n * d
    assert writes == n * d + n


def test_softmax_pass_counts():
    """Milakov and Gimelshein 2018: safe softmax touches a score 4 times, online softmax 3 times; S and PV add 2."""
    n, d = 4096, 64
    whole = TileSizes(n, n)
    for name, passes in (("safe_softmax", 6), ("online_softmax", 5), ("naive", 4)):
        assert sum(words(find(name).forward, n, d, whole)) == passes * n * n + 4 * n * d


# ---------------------------------------------------------------------------------- Figure 2
FIGURE_2 = {
    "q_len": 1024, "head_dim": 64, "heads": 16, "batch": 64, "mask": "padding", "dropout": 0.1, "direction": "fwd+bwd",
}  # fmt: skip


def test_figure_2_flashattention_moves_4_4_gb():
    measured = issued("flash1", io.AttentionProblem(**FIGURE_2), tiles="paper", sram="192KB").total_bytes
    assert measured == pytest.approx(4.4e9, rel=0.10)


def test_figure_2_eager_attention_moves_40_3_gb():
    problem = io.AttentionProblem(**FIGURE_2)
    moved = issued("eager", problem, sram="192KB").total_bytes
    assert moved == pytest.approx(40.3e9, rel=0.03)
    square = 64 * 16 * 1024 * 1024 * 2  # one pass over an N x N matrix in fp16
    linear = 12 * 64 * 16 * 1024 * 64 * 2
    padding = moved - 18 * square - linear
    assert padding == 64 * 16 * 1024 * 2  # the key-padding vector, read once per head


def test_figure_2_eager_passes_by_kernel():
    """Forward S 1, mask 2, softmax 2, dropout 2.5, PV 1; backward dV 1, dP 1, dropout 2.5, softmax 3, dQ and dK 2."""
    problem = io.AttentionProblem(**FIGURE_2)
    square = 64 * 16 * 1024 * 1024 * 2
    passes = {}
    for text in (find("eager").forward, find("eager").backward):
        for kernel, traffic in count_kernels(record(text, problem.features), problem, TileSizes(1024, 1024)).items():
            big = {"S", "S_masked", "P", "P_dropped", "keep", "dP", "dP_dropped", "dS"}
            moved = sum(m.read_bytes + m.write_bytes for t, m in traffic.tensors.items() if t in big)
            passes.setdefault(kernel, []).append(moved / square)
    assert passes == {
        "S = QK^T": [1.0], "mask": [2.0], "P = softmax S": [2.0], "dropout": [2.5, 2.5], "O = PV": [1.0],
        "dV = P^T dO": [1.0], "dP = dO V^T": [1.0], "dS = dsoftmax(P, dP)": [3.0], "dQ = dS K": [1.0],
        "dK = dS^T Q": [1.0],
    }  # fmt: skip


# ---------------------------------------------------------------------------------- Table 18: forward, no mask
@pytest.mark.parametrize(("n", "printed_ms"), [(2048, 4.32), (4096, 16.47), (8192, 67.77)])
def test_table_18_pytorch_forward_is_six_passes(n, printed_ms):
    """PyTorch's forward pass on an A100 40 GB takes as long as six N x N passes at 1555 GB/s: batch 16, 8 heads."""
    problem = io.AttentionProblem(q_len=n, head_dim=64, heads=8, batch=16)
    report = io.simulate(problem, device="a100-sxm-40gb", algorithms=["safe_softmax"])
    cost = report.algorithms["safe_softmax"].totals.cost
    assert cost.bound_by == "dram"
    assert cost.time_s * 1e3 == pytest.approx(printed_ms, rel=0.05)


# ---------------------------------------------------------------------------------- Table 21: memory, MiB
# What a training step keeps is the program's own tensors, and what the framework allocates besides: the packed QKV's
# gradient is copied. The copies are whole N x d arrays, the same for every length; both were fitted on N = 1024.
COPIES = {"eager": 2, "flash1": 3}
KEY_BLOCK = 256  # FlashAttention's kernel keeps an fp32 accumulator only if there is more than one key block
TABLE_21 = {
    "eager": {128: 36, 256: 104, 512: 336, 1024: 1184, 2048: 4416, 4096: 17024},
    "flash1": {
        128: 22, 256: 44, 512: 104, 1024: 209, 2048: 418, 4096: 836, 8192: 1672, 16384: 3344, 32768: 6688, 65536: 13376,
    },
    "block-sparse": {
        128: 22, 256: 44, 512: 104, 1024: 209, 2048: 418, 4096: 836, 8192: 1672, 16384: 3344, 32768: 6690, 65536: 13384,
    },
}  # fmt: skip
CELLS = [(row, n, mib) for row, cells in TABLE_21.items() for n, mib in cells.items()]


@pytest.mark.parametrize(("row", "n", "printed"), CELLS)
def test_table_21_memory(row, n, printed):
    """Batch 16, 8 heads, d 64, fp16, forward and backward, no dropout, no mask: every cell exact in whole MiB."""
    name = "eager" if row == "eager" else "flash1"
    problem, linear = io.AttentionProblem(q_len=n, head_dim=64, heads=8, batch=16), 16 * 8 * n * 64 * 2
    kept: dict[str, int] = {}
    for text in (find(name).forward, find(name).backward):
        kept |= footprint(record(text, problem.features), problem, TileSizes(n, n))
    total = sum(kept.values()) + COPIES[name] * linear
    if name == "flash1" and n > KEY_BLOCK:
        total += 2 * linear  # fp32 is twice fp16
    if row == "block-sparse":
        total += (n // 16) * (n // KEY_BLOCK) * 8  # its block mask
    assert total // MIB == printed


# ---------------------------------------------------------------------------------- peers' common case
def test_case_a_flashattention2_loads_what_an_interpreter_counts():
    """N 8192, d 128, fp16, B_r 128: Triton-Viz interprets a Triton kernel and counts these loads per head."""
    problem = io.AttentionProblem(q_len=8192, head_dim=128)
    traffic = count(record(find("flash2").forward, problem.features), problem, TileSizes(128, 64))
    assert traffic.read_bytes == 270_532_608


@pytest.mark.parametrize(("d", "tile_q", "moved"), [(128, 256, 138.4e6), (64, 512, 35.65e6)])
def test_accelforge_optimum_under_its_own_constraints(d, tile_q, moved):
    """AccelForge's mapper, 192 KB: tiles divide N, O is held in fp16, scores and statistics take no room.

    Its optimum for N 8192 is Q-stationary with 256 query rows at d 128 (138.4 MB per head) and 512 at d 64 (35.65 MB).
    """
    n, sram = 8192, 192 * 1024
    problem = io.AttentionProblem(q_len=n, head_dim=d)
    program = record(find("flash2").forward, problem.features)
    divisors = [n >> shift for shift in range(14)]
    legal = [TileSizes(q, kv) for q in divisors for kv in divisors if 2 * d * (2 * q + 2 * kv) <= sram]

    def without_statistics(tiles):
        traffic = count(program, problem, tiles)
        return traffic.total_bytes - traffic["L"].write

    best = min(legal, key=without_statistics)
    assert best.q == tile_q
    assert without_statistics(best) == pytest.approx(moved, rel=0.001)
