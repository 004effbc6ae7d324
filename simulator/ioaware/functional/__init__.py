"""Attention under the names, arguments and layouts that people know, on NumPy and CuPy arrays, with its bytes."""

from __future__ import annotations

from .flash_attn import (
    flash_attn_backward,
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
)
from .kv_cache import flash_attn_with_kvcache
from .ledger import Ledger
from .sdpa import scaled_dot_product_attention

__all__ = [
    "Ledger",
    "flash_attn_backward",
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
    "scaled_dot_product_attention",
]
