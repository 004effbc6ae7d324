"""Claims about variants: decoding, shared keys, sparse masks."""

from __future__ import annotations

from math import log2
from typing import Any

from ..device import load
from ..masks import window
from ..simulator import simulate
from ..workload import load as load_workload
from .ask import A100, dram, run
from .printed import FA1, INTRODUCTIONS
from .record import Numbers, claim, computed, counted

DECODE: dict[str, Any] = {"n": 1, "kv_len": 8192, "head_dim": 128}


@claim(
    "Decoding is memory-bound.",
    said=INTRODUCTIONS,
    because=(
        "One query per head does 2 g / s FLOPs per byte of the cache: g query heads share a key/value head, an element "
        "has s bytes. Batches do not change that, sharing does: in DeepSeek's latent attention all 128 heads share one "
        "row per token, for keys and values both."
    ),
    condition="few query heads share a key/value head; with multi-head latent attention an A100 computes longer",
    commands=(
        "simulate --q-len 1 --kv-len 8K --d 128 --heads 32 --alg flash2",
        "simulate --q-len 1 --kv-len 8K --d 128 --heads 64 --kv-heads 8 --alg flash2",
        "simulate --workload deepseek-v3 --phase decode --alg flash2 --json",
    ),
    cases={
        "own keys per head": lambda n: n["own keys per head"] < n["what an A100 can"],
        "8 heads share keys": lambda n: n["8 heads share keys"] < n["what an A100 can"],
        "latent attention": lambda n: n["latent attention"] < n["what an A100 can"],
    },
)
def decode_memory_bound() -> Numbers:
    latent = simulate(load_workload("deepseek-v3", "decode").phases[0].problem, A100, ["flash2"])
    found = {
        "own keys per head": run("flash2", **DECODE, heads=32),
        "8 heads share keys": run("flash2", **DECODE, heads=64, kv_heads=8),
        "latent attention": latent.algorithms["flash2"].totals,
    }
    least = {name: totals.levels["compulsory"].total_bytes for name, totals in found.items()}
    device = load(A100)
    assert device.fp16_flop_per_s is not None
    assert device.hbm_bytes_per_s is not None
    return {
        **{name: computed(totals.flops / least[name], "FLOP/B") for name, totals in found.items()},
        "what an A100 can": computed(device.fp16_flop_per_s / device.hbm_bytes_per_s, "FLOP/B"),
        "bytes, own keys per head": counted(least["own keys per head"]),
        "bytes, 8 heads share keys": counted(least["8 heads share keys"]),
        "FLOPs, latent attention": counted(found["latent attention"].flops, "FLOP"),
    }


@claim(
    "Grouped queries make attention 8x cheaper.",
    said=f"{INTRODUCTIONS}, of 64 query heads on 8 key/value heads",
    because=(
        "The cache is 8 times smaller, and decoding reads little else. Every query head still multiplies its own "
        "matrices, so a prompt costs the FLOPs that it did."
    ),
    condition="the bytes of decoding are meant; FLOPs stay, and a prompt is bound by them",
    commands=(
        "simulate --q-len 1 --kv-len 8K --d 128 --heads 64 --alg flash2",
        "simulate --q-len 1 --kv-len 8K --d 128 --heads 64 --kv-heads 8 --alg flash2",
        "simulate --N 8K --d 128 --heads 64 --alg flash2 --json",
        "simulate --N 8K --d 128 --heads 64 --kv-heads 8 --alg flash2 --json",
    ),
    cases={
        "decoding, DRAM bytes": lambda n: round(n["decoding, bytes"]) == 8,
        "a prompt, FLOPs": lambda n: round(n["a prompt, FLOPs"]) == 8,
    },
)
def grouped_queries() -> Numbers:
    own, shared = (counted(dram("flash2", heads=64, kv_heads=h, **DECODE)) for h in (64, 8))
    prompt, grouped = (counted(run("flash2", 8192, heads=64, kv_heads=h, head_dim=128).flops, "FLOP") for h in (64, 8))
    return {
        "decoding, bytes": computed(own.value / shared.value),
        "a prompt, FLOPs": computed(prompt.value / grouped.value),
        "decoding, own keys": own,
        "decoding, shared keys": shared,
        "a prompt, own keys": prompt,
        "a prompt, shared keys": grouped,
    }


@claim(
    "Block-sparse FlashAttention's cost is proportional to the fraction of nonzero blocks.",
    said=f"{FA1}, proposition 4 and figure 2 (right)",
    because=(
        "It skips hidden blocks and all that they would move. What is moved once stays: little of what is issued, but "
        "all that passes the L2. A block is hidden if every pair in it is: a mask of scattered elements skips none."
    ),
    condition="FLOPs are meant, and bytes as far as they are moved more than once",
    commands=(
        "simulate --N 32K --alg flash2 --tiles shipped --json",
        "simulate --N 32K --mask window:1023,0 --alg flash2 --tiles shipped --json",
    ),
    cases={
        "FLOPs": lambda n: n["FLOPs"] == n["visible blocks"],
        "DRAM bytes": lambda n: round(n["DRAM bytes"], 2) == round(n["visible blocks"], 2),
    },
)
def block_sparse() -> Numbers:
    length, block, mask = 32768, 128, window(1023)
    sparse, dense = (run("flash2", length, tiles=f"{block}x{block}", sram="384KB", mask=m) for m in (mask, "full"))
    visible = mask.statistics(length, length, block, block).tiles
    moved = {
        f"{name} bytes": computed(sparse.levels[level].total_bytes / dense.levels[level].total_bytes)
        for name, level in (("issued", "issued"), ("DRAM", "dram"))
    }
    return {
        "visible blocks": computed(visible / (length // block) ** 2),
        "FLOPs": computed(sparse.flops / dense.flops),
        **moved,
        "sparse": counted(sparse.flops, "FLOP"),
        "dense": counted(dense.flops, "FLOP"),
    }


@claim(
    "Sparse attention is O(N log N).",
    said=f"{INTRODUCTIONS}, after {FA1}, section 3.3",
    because=(
        "It depends on how many keys a query sees: a fixed window makes N; the strided pattern of Sparse Transformers, "
        "with a stride of √N, makes N^1.5. As N quadruples, N log N grows by the limit given here."
    ),
    condition="a query sees no more than about log N keys, as in a window of fixed size",
    commands=tuple(
        f"simulate --N {n} --mask {mask} --alg flash2 --tiles shipped --json"
        for n, stride in (("8K", 8), ("32K", 16))
        for mask in ("window:1023,0", f"strided:128,{stride}")
    ),
    cases={
        "a window of 1,024 keys": lambda n: n["window"] <= n["N log N"],
        "a stride of √N": lambda n: n["strided"] <= n["N log N"],
    },
)
def sparse_n_log_n() -> Numbers:
    from ..masks.sparse import Strided

    short, long = 8192, 32768
    windows, strides = (
        [counted(run("flash2", n, tiles="shipped", mask=mask).flops, "FLOP") for n, mask in pair]
        for pair in (
            ((short, window(1023)), (long, window(1023))),
            ((short, Strided(128, 8)), (long, Strided(128, 16))),  # √N in blocks of 128
        )
    )
    return {
        "window": computed(windows[1].value / windows[0].value),
        "strided": computed(strides[1].value / strides[0].value),
        "N log N": computed(long * log2(long) / (short * log2(short))),
        "window, N = 8,192": windows[0],
        "window, N = 32,768": windows[1],
        "strided, N = 8,192": strides[0],
        "strided, N = 32,768": strides[1],
    }


CLAIMS = (decode_memory_bound, grouped_queries, block_sparse, sparse_n_log_n)
