"""Claims about work and values: FLOPs, and what is computed with them."""

from __future__ import annotations

from functools import lru_cache

from .ask import GPT2, GPT2_FLAGS, report, run
from .printed import FA1, FA2, FIGURE_2_FLOP, INTRODUCTIONS, TABLES_18_19
from .record import Number, Numbers, Origin, claim, computed, counted, printed, ran


@claim(
    "FlashAttention makes attention's computation linear in N.",
    said=f'{INTRODUCTIONS}: "O(N d) computation"',
    because="It multiplies the same matrices as standard attention: 4 N² d FLOPs forward. Its memory is linear.",
    commands=tuple(f"simulate --N {n} --alg naive --alg flash2 --json" for n in ("4K", "8K")),
    cases={"FLOPs double as N doubles": lambda n: n["as N doubles"] == 2},
)
def linear_compute() -> Numbers:
    short, long = (run("flash2", n).flops for n in (4096, 8192))
    return {
        "as N doubles": computed(long / short),
        "N = 4,096": counted(short, "FLOP"),
        "N = 8,192": counted(long, "FLOP"),
        "standard attention, N = 8,192": counted(run("naive", 8192).flops, "FLOP"),
    }


@claim(
    "FlashAttention is faster because it does fewer FLOPs.",
    said=INTRODUCTIONS,
    because=(
        "Forward it does as many, backward one matrix product in five more: it computes the scores again. Figure 2 "
        "of the paper says so too, though its absolute GFLOPs are not those of the problem it names."
    ),
    commands=(f"simulate {GPT2_FLAGS} --alg eager --alg flash1 --tiles paper --json",),
    cases={"fewer than standard attention": lambda n: n["FlashAttention"] < n["standard attention"]},
)
def fewer_flops() -> Numbers:
    eager, flash = run("eager", 1024, **GPT2).flops, run("flash1", 1024, tiles="paper", **GPT2).flops
    return {
        "FlashAttention over standard": computed(flash / eager),
        "printed": printed(FIGURE_2_FLOP["flash"] / FIGURE_2_FLOP["standard"]),
        "FlashAttention": counted(flash, "FLOP"),
        "standard attention": counted(eager, "FLOP"),
    }


@claim(
    "The backward pass costs 2.5x the forward pass.",
    said=f"{FA2}, section 4.1",
    because=(
        "Five matrix products against two: dV, dP, dQ, dK and the scores again. Standard attention has kept them and "
        "needs four. Bytes have ratios of their own."
    ),
    condition="FLOPs of an algorithm that computes the scores again are meant",
    commands=("simulate --N 16K --direction fwd+bwd --alg naive --alg flash1 --json",),
    cases={
        "FlashAttention's FLOPs": lambda n: n["FlashAttention, FLOPs"] == 2.5,
        "standard attention's FLOPs": lambda n: n["standard attention, FLOPs"] == 2.5,
        "FlashAttention's bytes": lambda n: n["FlashAttention, bytes"] == 2.5,
    },
)
def backward_cost() -> Numbers:
    (forward, backward), (plain, plain_backward) = (
        [p.totals for p in report(name, 16384, direction="fwd+bwd").passes] for name in ("flash1", "naive")
    )
    moved = backward.levels["issued"].total_bytes / forward.levels["issued"].total_bytes
    return {
        "FlashAttention, FLOPs": computed(backward.flops / forward.flops),
        "FlashAttention, time in tables 18 and 19": printed(TABLES_18_19["bwd"] / TABLES_18_19["fwd"]),
        "standard attention, FLOPs": computed(plain_backward.flops / plain.flops),
        "FlashAttention, bytes": computed(moved),
        "FlashAttention, forward": counted(forward.flops, "FLOP"),
        "FlashAttention, backward": counted(backward.flops, "FLOP"),
        "standard attention, forward": counted(plain.flops, "FLOP"),
        "standard attention, backward": counted(plain_backward.flops, "FLOP"),
    }


@claim(
    "A causal mask halves the work.",
    said=INTRODUCTIONS,
    because=(
        "A tile is skipped if no pair in it is visible: of T x T tiles (T + 1) / 2T remain, more than half while the "
        "sequence is a few tiles long. Eager PyTorch computes whole matrices and moves half as much again, to mask "
        "them."
    ),
    condition="the kernel skips hidden tiles, and the sequence is many tiles long",
    commands=(
        *(f"simulate --N {n} {m}--alg flash2 --tiles shipped --json" for n in ("8K", "256") for m in ("", "--causal ")),
        *(f"simulate --N 8K {m}--alg eager --json" for m in ("", "--causal ")),
    ),
    cases={
        "FlashAttention-2, N = 8,192": lambda n: round(n["FlashAttention-2, N = 8,192"], 1) == 0.5,
        "FlashAttention-2, N = 256": lambda n: round(n["FlashAttention-2, N = 256"], 1) == 0.5,
        "eager PyTorch": lambda n: round(n["eager PyTorch, FLOPs"], 1) == 0.5,
    },
)
def causal_half() -> Numbers:
    long, short, eager = (
        [run(name, n, tiles=rule, mask=mask) for mask in ("causal", "full")]
        for name, n, rule in (("flash2", 8192, "shipped"), ("flash2", 256, "shipped"), ("eager", 8192, "best"))
    )
    masked, whole = (t.levels["issued"].total_bytes for t in eager)
    return {
        "FlashAttention-2, N = 8,192": computed(long[0].flops / long[1].flops),
        "FlashAttention-2, N = 256": computed(short[0].flops / short[1].flops),
        "eager PyTorch, FLOPs": computed(eager[0].flops / eager[1].flops),
        "eager PyTorch, bytes": computed(masked / whole),
        "causal, N = 8,192": counted(long[0].flops, "FLOP"),
        "full, N = 8,192": counted(long[1].flops, "FLOP"),
        "causal, N = 256": counted(short[0].flops, "FLOP"),
        "full, N = 256": counted(short[1].flops, "FLOP"),
        "eager, causal": counted(eager[0].flops, "FLOP"),
    }


@claim(
    "FlashAttention is exact.",
    said=f"{FA1}, title and theorem 1",
    because=(
        "In real numbers any tiling and order computes softmax attention (theorems flash1_computes_attention, "
        "flash2_computes_attention, split_kv_computes_attention). In floating point the order of additions differs, "
        "so bits do; the proved bound is on |O - exact O| / max |V| for 65,536 keys in fp32. FlashAttention-2's line "
        "10 as printed, with an inverse too many, is not exact (flash2_printed_line_10_is_wrong)."
    ),
    condition="results are compared up to rounding",
    commands=("ioaware prove --list flash2_computes_attention", "ioaware prove --list error_fp32_65536"),
    cases={
        "up to rounding": lambda n: n["largest difference in fp64"] <= _rounding(),
        "bit for bit in fp32": lambda n: n["outputs that differ in fp32"] == 0,
    },
)
def exact() -> Numbers:
    return _values()


@claim(
    "FlashAttention is an approximation.",
    said=INTRODUCTIONS,
    because=(
        "It leaves nothing out: it sums the same terms in another order (theorem tiled_computes_attention). Sparse and "
        "low-rank attention, with which it is often listed, do approximate; its block-sparse variant too."
    ),
    commands=("ioaware prove --list tiled_computes_attention", "ioaware prove --list error_fp32_65536"),
    cases={"it differs by more than rounding": lambda n: n["largest difference in fp64"] > _rounding()},
)
def approximation() -> Numbers:
    return _values()


def _rounding() -> float:
    """What float64 arithmetic may lose on a small problem: a wrong update is off by far more."""
    from ..program_file import TOLERANCE

    return TOLERANCE


@lru_cache
def _outputs(dtype: str) -> tuple[float, int]:
    """FlashAttention-2 run on a small problem: its largest error, and how many outputs are not naive's bits."""
    import numpy as np

    from .. import reference
    from ..algorithms import find
    from ..problem import AttentionProblem
    from ..program.recorder import record
    from ..readers.evaluate import TileSizes
    from ..readers.execute import execute

    problem = AttentionProblem(q_len=64, head_dim=16, dtype=dtype, accum_dtype=dtype)  # O: 1,024 numbers
    inputs = reference.random_inputs(problem)
    outputs = [
        execute(record(find(name).forward, problem.features), problem, TileSizes(16, 16), inputs).tensors["O"]
        for name in ("flash2", "naive")
    ]
    error = np.abs(outputs[0] - reference.attention(problem, inputs)["O"]).max()
    return float(error), int((outputs[0] != outputs[1]).sum())


def _values() -> Numbers:
    """How far FlashAttention-2's output is from exact attention: run, and proved."""
    from math import ceil

    from ioaware_proofs.rounding import error_bound

    bound = error_bound(kv_len=65536, tile_kv=128, head_dim=128)
    return {
        "proved bound in fp32": Number(ceil(bound * 1e6) / 1e6, "", Origin.PROVED),
        "largest difference in fp64": ran(_outputs("fp64")[0], ""),
        "outputs that differ in fp32": ran(_outputs("fp32")[1], "of 1,024"),
    }


CLAIMS = (linear_compute, fewer_flops, backward_cost, causal_half, exact, approximation)
