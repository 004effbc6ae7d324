"""Figures that papers print and claims quote: measured on their GPUs, not here."""

from __future__ import annotations

FA1 = "FlashAttention (arXiv 2205.14135)"
FA2 = "FlashAttention-2 (arXiv 2307.08691)"
FA3 = "FlashAttention-3 (arXiv 2407.08608)"
INTRODUCTIONS = "common in introductions"

# FA1, figure 2 (left): GPT-2 medium, N 1024, d 64, 16 heads, batch 64, A100, forward and backward
FIGURE_2_FLOP = {"standard": 66.6e9, "flash": 75.2e9}
FIGURE_2_BYTES = {"standard": 40.3e9, "flash": 4.4e9}
FIGURE_2_S = {"standard": 41.7e-3, "flash": 7.3e-3}

# FA1, appendix E.6: A100 40 GB, batch 16, 8 heads, d 64, fp16, forward and backward, ms by N
TABLE_11 = {  # with key padding and dropout 0.1
    "pytorch": {128: 0.84, 256: 0.86, 512: 2.35, 1024: 8.29, 2048: 31.75, 4096: 124.19},
    "flash": {128: 0.43, 256: 0.41, 512: 0.95, 1024: 2.55, 2048: 9.56, 4096: 37.49},
}
TABLE_20 = {  # without
    "pytorch": {128: 0.67, 256: 0.70, 512: 1.18, 1024: 3.67, 2048: 13.22, 4096: 50.44},
    "flash": {128: 0.31, 256: 0.31, 512: 0.73, 1024: 2.29, 2048: 7.64, 4096: 30.09},
}
TABLES_18_19 = {"fwd": 134.03, "bwd": 336.00}  # FlashAttention at N 16384, neither mask nor dropout
TABLE_21_MIB = {"pytorch": {2048: 4416, 4096: 17024}, "flash": {2048: 418, 4096: 836}}  # memory

# FA2, figure 4: A100 80 GB, forward and backward at N 16384, no mask, FLOP/s by d
FIGURE_4 = {64: {"flash1": 110e12, "flash2": 176e12}, 128: {"flash1": 83e12, "flash2": 203e12}}


def speedups(table: dict[str, dict[int, float]], least_n: int) -> list[float]:
    """PyTorch's time over FlashAttention's, for every N from `least_n` on."""
    return [time / table["flash"][n] for n, time in table["pytorch"].items() if n >= least_n]
