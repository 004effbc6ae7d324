"""Figures of the FlashAttention-3 and -4 papers, from formulas of what a tile multiplies, exponentiates and moves."""

from __future__ import annotations

import pytest

from ioaware import device
from ioaware.masks import FULL, Band
from ioaware.pipeline import pipeline
from ioaware.problem import AttentionProblem

A100, H100, B200 = (device.load(name) for name in ("a100", "h100", "b200"))


def kernel(name, hardware, head_dim=128, **given):
    return pipeline(name, AttentionProblem(**{"q_len": 8192, "head_dim": head_dim, **given}), hardware)


# ---------------------------------------------------------------------------------- FlashAttention-4, 2603.05451
@pytest.mark.parametrize(("rows", "matmul", "sram", "exp"), [(128, 1024, 768, 1024), (256, 2048, 1536, 2048)])
def test_flash4_table_1_forward_cycles(rows, matmul, sram, exp):
    """B200, N = d = 128: cycles of the matrix units, shared memory and exponential units for M = 128 and 256."""
    engines = kernel("flash4", B200, q_len=rows, kv_len=8192).engines
    assert engines == {"matmul": matmul, "exp": exp, "sram": sram}


# A window keeps the backward pass on one CTA per product
ONE_CTA, TWO_CTAS = Band(1024, 1024), FULL


@pytest.mark.parametrize(("mask", "sram"), [(ONE_CTA, 3328), (TWO_CTAS, 2688)])
def test_flash4_table_3_backward_cycles(mask, sram):
    """M = N = d = 128: five products, and what passes through shared memory for one CTA and for a pair."""
    engines = kernel("flash4", B200, direction="bwd", mask=mask).engines
    assert engines == {"matmul": 2560, "exp": 1024, "sram": sram}


@pytest.mark.parametrize(
    ("mask", "operands", "ds", "exchanged", "dq"), [(ONE_CTA, 2048, 256, 0, 1024), (TWO_CTAS, 1536, 256, 384, 512)]
)
def test_flash4_backward_cycles_of_shared_memory_by_use(mask, operands, ds, exchanged, dq):
    """Operands of the products, dS, its half for the other CTA, and dQ: 128 B per cycle."""
    design = kernel("flash4", B200, direction="bwd", mask=mask).design
    assert sum(p.read_bytes for p in design.products) == 128 * operands
    assert [e.size for e in design.staged] == [128 * cycles for cycles in (ds, exchanged, dq) if cycles]


def test_flash4_two_ctas_halve_the_atomics_of_dq():
    one, two = (kernel("flash4", B200, direction="bwd", mask=mask).design for mask in (ONE_CTA, TWO_CTAS))
    assert (one.cluster, two.cluster) == (1, 2)
    assert one.atomic_bytes == 2 * two.atomic_bytes == 128 * 128 * 4


def test_flash4_emulates_10_to_25_percent_of_the_exponentials():
    found = kernel("flash4", B200)
    assert 0.10 <= found.design.emulated <= 0.25
    assert found.bound_by == "matmul"  # what emulation is for: without it exponentials take as long


# ---------------------------------------------------------------------------------- FlashAttention-3, 2407.08608
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_flash3_exponentials_take_64_over_d_of_the_products(head_dim):
    """Section 3.1: at head_dim 128 the exponential can take 50 % of the cycles of matmul, and twice that in FP8."""
    engines = kernel("flash3", H100, head_dim).engines
    assert engines["exp"] / engines["matmul"] == 64 / head_dim
    narrow = kernel("flash3", H100, head_dim, dtype="fp8_e4m3").engines
    assert narrow["exp"] / narrow["matmul"] == 2 * 64 / head_dim


def test_flash3_has_512_times_as_many_matmul_flops_as_exponentials():
    """And the exponential has 256 times lower throughput: 989 TFLOP/s and 3.9 T/s."""
    design = kernel("flash3", H100).design
    assert sum(p.flops for p in design.products) == 512 * design.exps
    assert H100.matmul_flop_per_clock == 256 * H100.exps_per_clock


@pytest.mark.parametrize(("hardware", "name", "numerator"), [(A100, "flash2", 32), (B200, "flash4", 128)])
def test_exponentials_over_products_on_other_devices(hardware, name, numerator):
    """16 exponentials per clock everywhere, but 2,048 and 8,192 FLOP."""
    engines = kernel(name, hardware).engines
    assert engines["exp"] / engines["matmul"] == numerator / 128


@pytest.mark.parametrize(
    ("name", "hardware", "share", "measured"),
    [
        ("flash2", A100, 0.80, 230 / 312),  # up to 230 TFLOP/s, 73 % of an A100
        ("flash2", H100, 2 / 3, 370 / 989),  # figure 5, head_dim 128, 16k
        ("flash3", H100, 1.0, 661 / 989),  # table 2: 661; without overlap 582
        ("flash4", B200, 1.0, 1613 / 2250),  # 71 %
    ],
)
def test_no_kernel_is_faster_than_its_schedule_allows(name, hardware, share, measured):
    """In turns, exponentials leave the matrix units idle for a third of the time at head_dim 128 on Hopper."""
    found = kernel(name, hardware)
    assert found.matmul_share == pytest.approx(share)
    assert measured < found.matmul_share


def test_what_overlap_is_worth_on_hopper():
    """Without it no more than 67 % of the peak at head_dim 128, 50 % at 64; table 2's 570 and 582 are below that."""
    assert kernel("flash2", H100).matmul_share == pytest.approx(2 / 3)
    assert kernel("flash2", H100, 64).matmul_share == pytest.approx(1 / 2)
    assert 570 / 989 < 582 / 989 < kernel("flash2", H100).matmul_share
