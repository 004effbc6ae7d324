"""Claims about speed: nothing here was measured by this project; times are printed in the papers, or first order."""

from __future__ import annotations

from .ask import A100_80, GPT2, GPT2_FLAGS, issued, run
from .printed import FA1, FA2, FIGURE_2_S, FIGURE_4, INTRODUCTIONS, TABLE_11, TABLE_20, speedups
from .record import Numbers, claim, computed, counted, predicted, printed


@claim(
    "FlashAttention is 2-4x faster than standard attention.",
    said="flash-attention, README; FlashAttention-2 (arXiv 2307.08691), abstract",
    because=(
        "Tables 11 and 20 of the FlashAttention paper time forward and backward together, with padding mask and "
        "dropout and without. Eager PyTorch spends passes over N x N matrices on both, FlashAttention none. The "
        "first-order times are those of ideal kernels, not a forecast."
    ),
    condition="the baseline runs padding mask and dropout as kernels of their own",
    commands=(
        "simulate --N 4K --heads 8 --batch 16 --mask padding --dropout 0.1 --direction fwd+bwd --alg eager "
        "--alg flash1 --tiles paper",
    ),
    cases={
        "with mask and dropout, N = 512 to 4,096": lambda n: n["least, table 11"] >= 2 and n["greatest, table 11"] <= 4,
        "without, N = 512 to 4,096": lambda n: n["least, table 20"] >= 2 and n["greatest, table 20"] <= 4,
    },
)
def faster() -> Numbers:
    shape = {**GPT2, "heads": 8, "batch": 16}
    eager, flash = run("eager", 4096, **shape).cost.time_s, run("flash1", 4096, tiles="paper", **shape).cost.time_s
    with_both, without = speedups(TABLE_11, 512), speedups(TABLE_20, 512)
    return {
        "greatest, table 11": printed(max(with_both)),
        "least, table 11": printed(min(with_both)),
        "greatest, table 20": printed(max(without)),
        "least, table 20": printed(min(without)),
        "eager, N = 4,096": predicted(eager),
        "FlashAttention, N = 4,096": predicted(flash),
    }


@claim(
    "FlashAttention makes GPT-2's attention 7.6x faster.",
    said=f"{FA1}, figure 1 (right)",
    because=(
        "Kernels that reach their rooflines would gain more on GPT-2 medium. The same paper's figure 2, measured on "
        "that model, and its table 11, at the same N and d, have less."
    ),
    condition="every kernel reaches its roofline; figure 2 and table 11 of the same paper measured less",
    commands=(f"simulate {GPT2_FLAGS} --alg eager --alg flash1 --tiles paper",),
    cases={
        "ideal kernels": lambda n: n["ideal kernels"] >= 7.6,
        "measured, figure 2": lambda n: n["figure 2"] >= 7.6,
        "measured, table 11": lambda n: n["table 11, N = 1,024"] >= 7.6,
    },
)
def gpt2() -> Numbers:
    eager, flash = (
        predicted(run(name, 1024, tiles=rule, **GPT2).cost.time_s)
        for name, rule in (("eager", "best"), ("flash1", "paper"))
    )
    return {
        "figure 2": printed(FIGURE_2_S["standard"] / FIGURE_2_S["flash"]),
        "table 11, N = 1,024": printed(TABLE_11["pytorch"][1024] / TABLE_11["flash"][1024]),
        "ideal kernels": computed(eager.value / flash.value),
        "eager": eager,
        "FlashAttention": flash,
    }


@claim(
    "FlashAttention does not pay off at short sequences.",
    said=INTRODUCTIONS,
    because=(
        "While one tile holds all queries, FlashAttention-2 adds N words of L to what attention must move, standard "
        "attention 4 N². FlashAttention's round trips of O cost more than S and P while N is below about d / 2. Table "
        "20 measured N = 128. How much of a model's time is attention at such N is another question."
    ),
    condition="FlashAttention-1 is meant, and N is below the crossover",
    commands=("simulate --N 128 --alg naive --alg flash2", "simulate --N 32 --alg naive --alg flash1"),
    cases={
        "FlashAttention-2's bytes, N = 128": lambda n: n["bytes saved, N = 128"] <= 1,
        "measured, N = 128": lambda n: n["table 20, N = 128"] <= 1,
        "FlashAttention-1's bytes, N = 32": lambda n: n["naive, N = 32"] <= n["FlashAttention-1, N = 32"],
    },
)
def short_sequences() -> Numbers:
    naive, flash2 = (counted(issued(name, 128)) for name in ("naive", "flash2"))
    return {
        "table 20, N = 128": printed(speedups(TABLE_20, 128)[0]),
        "bytes saved, N = 128": computed(naive.value / flash2.value),
        "naive, N = 128": naive,
        "FlashAttention-2, N = 128": flash2,
        "naive, N = 32": counted(issued("naive", 32)),
        "FlashAttention-1, N = 32": counted(issued("flash1", 32)),
        "FlashAttention-1 saves bytes from N": computed(
            next(n for n in range(1, 128) if issued("flash1", n) < issued("naive", n)), ""
        ),
    }


@claim(
    "FlashAttention-2 is twice as fast as FlashAttention.",
    said=f"{FA2}, abstract",
    because=(
        "Figure 4 measured it on an A100. The first-order model gives FlashAttention-2 no advantage at d = 64: both "
        "are bound by the matrix units there, and what FlashAttention-2 improves, parallelism and work inside a "
        "thread block, it does not see."
    ),
    condition="head_dim is 128",
    commands=(
        f"simulate --device {A100_80} --N 16K --heads 32 --direction fwd+bwd --alg flash1 --alg flash2 --tiles shipped",
    ),
    cases={
        "d = 128": lambda n: n["figure 4, d = 128"] >= 2,
        "d = 64": lambda n: n["figure 4, d = 64"] >= 2,
    },
)
def twice_flash1() -> Numbers:
    shape = {"device": A100_80, "tiles": "shipped", "heads": 32, "direction": "fwd+bwd"}
    return {
        **{f"figure 4, d = {d}": printed(rate["flash2"] / rate["flash1"]) for d, rate in FIGURE_4.items()},
        "FlashAttention, d = 64": predicted(run("flash1", 16384, **shape).cost.time_s),
        "FlashAttention-2, d = 64": predicted(run("flash2", 16384, **shape).cost.time_s),
    }


CLAIMS = (faster, gpt2, short_sequences, twice_flash1)
