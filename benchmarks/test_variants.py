"""Counting any variant at N = 2^20, 50 ms each: of 10^4 documents or lengths, of a table with 10^6 entries.

Nothing is asserted: read the table (benchmarks/README.md).
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.test_masks import MASKS, forget
from ioaware.algorithms import find
from ioaware.kv_cache import BITS
from ioaware.problem import AttentionProblem, Bias
from ioaware.program.recorder import record
from ioaware.readers.count import count
from ioaware.readers.evaluate import TileSizes

N = 2**20
PROMPT = {"q_len": N, "heads": 32, "kv_heads": 8, "head_dim": 128}
DECODE = {"q_len": 1, "kv_len": N, "batch": 4, "heads": 32, "kv_heads": 8, "head_dim": 128}
LENGTHS = tuple(np.random.default_rng(0).permutation(np.arange(1, N, N // 10**4))[: 10**4].tolist())
SCORES = {
    "soft cap, sink": {"softcap": 50.0, "sink": True}, "ALiBi": {"alibi": True}, "bias": {"bias": Bias(batch=False)},
    "padding, dropout": {"padding": True, "dropout": 0.1},
}  # fmt: skip
CACHES = {
    "contiguous": {}, "page 1": {"page_size": 1}, "page 16": {"page_size": 16},
    "page 256, int8": {"page_size": 256, "kv_dtype": "int8"},
    **{f"{name}, scale per token": {"kv_dtype": name, "kv_scales": "token"} for name in BITS},
}  # fmt: skip
LATENT = {"heads": 128, "kv_heads": 1, "head_dim": 576, "value_dim": 512, "shared_kv": True, "page_size": 64}


def measure(benchmark, name, problem, splits=1):
    """Sums over a mask are forgotten between rounds: a sweep asks for new sizes each time."""
    program, sizes = record(find(name).forward, problem.features), TileSizes(128, 64, splits)
    for _ in range(2):  # the second call compiles the closed forms
        count(program, problem, sizes)
    benchmark.pedantic(count, (program, problem, sizes), setup=forget, rounds=5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.benchmark(group="variants N=1M: masks")
def test_masks(benchmark, mask):
    measure(benchmark, "flash2", AttentionProblem(**PROMPT, mask=mask))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.benchmark(group="variants N=1M: masks, packed")
def test_packed_masks(benchmark, mask):
    measure(benchmark, "flash2", AttentionProblem(**PROMPT, mask=mask).packed())


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.benchmark(group="variants N=1M: masks, split, paged, narrow")
def test_split_masks(benchmark, mask):
    problem = AttentionProblem(**PROMPT, mask=mask, page_size=1, kv_dtype="int8")
    measure(benchmark, "flash_decoding", problem, splits=128)


@pytest.mark.parametrize("change", SCORES.values(), ids=SCORES)
@pytest.mark.benchmark(group="variants N=1M: scores")
def test_scores(benchmark, change):
    measure(benchmark, "flash2", AttentionProblem(**PROMPT, **change, mask="causal"))


@pytest.mark.parametrize("change", CACHES.values(), ids=CACHES)
@pytest.mark.benchmark(group="variants N=1M: decoding, 128 splits")
def test_decoding(benchmark, change):
    measure(benchmark, "flash_decoding", AttentionProblem(**DECODE, **change).packed(), splits=128)


@pytest.mark.benchmark(group="variants N=1M: decoding, 128 splits")
def test_latent(benchmark):
    measure(benchmark, "mla", AttentionProblem(**{**DECODE, **LATENT}).packed(), splits=128)


@pytest.mark.parametrize("algorithm", ["flash2", "flash_decoding"])
@pytest.mark.benchmark(group="variants N=1M: 10^4 lengths")
def test_lengths(benchmark, algorithm):
    shape = {**DECODE, "kv_len": LENGTHS, "batch": len(LENGTHS), "page_size": 16}
    measure(benchmark, algorithm, AttentionProblem(**shape).packed(), splits=128)
