"""Methods that compute all of attention, in fewer bits than float64 has."""

from __future__ import annotations

from .attention import Attend, Standard, Tiled
from .exp2 import mixed_exp2
from .method import Method, Stored
from .scales import PER_TENSOR, PER_TOKEN, per_block


def _all_in(name: str, title: str, attend: Attend, form: str, standard: str) -> Method:
    stored = Stored(form)
    return Method(name, title, attend, stored, stored, stored, standard)


def _fp8(name: str, title: str, form: str, *, block: bool = True, rotates: bool = True) -> Method:
    """FlashAttention-3's forward pass in 8 bits: tiles of 128 queries and 224 keys for d = 128, weights times 2^8."""
    tiles = [per_block(rows) if block else PER_TENSOR for rows in (128, 224, 224)]
    q, k, v = (Stored(form, share, rotates and x < 2) for x, share in enumerate(tiles))
    return Method(name, title, Tiled(224, form, "bf16", offset=8.0), q, k, v, "fp8_baseline")


def _cache(form: str) -> Method:
    stored = Stored(form, PER_TOKEN)
    title = f"FlashAttention-2 in fp16, K and V cached in {form}, a scale per token"
    return Method(f"kv_{form}", title, Tiled(64, "fp16", "fp16"), k=stored, v=stored)


E8 = Stored("fp8_e4m3", PER_TENSOR)
PRECISIONS = (
    _all_in("standard_fp32", "every operator's result in fp32", Standard("fp32"), "fp32", "standard_fp32"),
    _all_in("flash_fp32", "tiled, all in fp32", Tiled(64, "fp32", "fp32"), "fp32", "standard_fp32"),
    _all_in("standard_tf32", "fp32, matrix inputs in tf32", Standard("fp32", "tf32"), "tf32", "standard_tf32"),
    _all_in("flash_tf32", "tiled, matrix inputs in tf32", Tiled(64, "tf32", "fp32"), "tf32", "standard_tf32"),
    Method("standard_fp16", "every operator's result in fp16", Standard("fp16")),
    Method("flash2", "FlashAttention-2: tiles of 64 keys", Tiled(64, "fp16", "fp16")),
    Method("flash3", "FlashAttention-3: tiles of 176 keys", Tiled(176, "fp16", "fp16")),
    _all_in("standard_bf16", "every operator's result in bf16", Standard("bf16"), "bf16", "standard_bf16"),
    _all_in("flash2_bf16", "FlashAttention-2 in bf16", Tiled(64, "bf16", "bf16"), "bf16", "standard_bf16"),
    _all_in("flash4", "FlashAttention-4 in bf16: exp2 by polynomial for some, lazy rescaling",
            Tiled(128, "bf16", "bf16", exp2=mixed_exp2, threshold=8.0), "bf16", "standard_bf16"),
    Method("fp8_baseline", "e4m3, a scale per tensor; softmax in fp16", Standard("fp16"), E8, E8, E8, "fp8_baseline"),
    _fp8("flash3_fp8", "FlashAttention-3 in e4m3: scales per block, Q and K rotated", "fp8_e4m3"),
    _fp8("flash3_fp8_tensor", "the same with a scale per tensor", "fp8_e4m3", block=False),
    _fp8("flash3_fp8_unrotated", "the same with scales per block, not rotated", "fp8_e4m3", rotates=False),
    _fp8("flash3_e5m2", "FlashAttention-3's way in e5m2", "fp8_e5m2"),
    Method("int8_qk", "Q and K in int8, a scale per block, as SageAttention has them; no smoothing of K",
           Tiled(64, "fp16", "fp16"), Stored("int8", per_block(128)), Stored("int8", per_block(64))),
    *map(_cache, ("fp8_e4m3", "int8", "int4")),
)  # fmt: skip
