"""Claims about bytes moved: the papers' HBM accesses are what thread blocks issue, L2 to SM."""

from __future__ import annotations

from ..device import load
from .ask import A100, GPT2, GPT2_FLAGS, dram, issued, report, run
from .printed import FA1, FIGURE_2_BYTES, INTRODUCTIONS
from .record import Numbers, claim, computed, counted, predicted, printed


@claim(
    "FlashAttention makes 9x fewer HBM accesses.",
    said=f"{FA1}, figure 2: 40.3 GB and 4.4 GB",
    because=(
        "Eager PyTorch with padding mask and dropout passes 18 times over N x N matrices, forward and backward; the "
        "paper's own Algorithms 0 and 3 would pass 11 times."
    ),
    condition="the baseline is eager PyTorch with padding mask and dropout, as measured there",
    commands=(f"simulate {GPT2_FLAGS} --alg eager --alg naive --alg flash1 --tiles paper",),
    cases={
        "over eager PyTorch": lambda n: round(n["eager over FlashAttention"]) == 9,
        "over Algorithms 0 and 3": lambda n: round(n["Algorithms 0 and 3 over FlashAttention"]) == 9,
    },
)
def fewer_accesses() -> Numbers:
    eager, naive = (counted(issued(name, 1024, **GPT2)) for name in ("eager", "naive"))
    flash = counted(issued("flash1", 1024, tiles="paper", **GPT2))
    return {
        "eager over FlashAttention": computed(eager.value / flash.value),
        "printed": printed(FIGURE_2_BYTES["standard"] / FIGURE_2_BYTES["flash"]),
        "Algorithms 0 and 3 over FlashAttention": computed(naive.value / flash.value),
        "eager PyTorch": eager,
        "Algorithms 0 and 3": naive,
        "FlashAttention": flash,
    }


@claim(
    "FlashAttention makes O(N² d² / M) HBM accesses.",
    said=f"{FA1}, theorem 2",
    because=(
        "Issued bytes follow the law in N, d and M: each key tile walks all of Q and O. The L2 of an A100 holds what "
        "is walked again, so that DRAM moves each tensor about once, and as N doubles twice as much (first order)."
    ),
    condition="what thread blocks issue is meant, not what is left behind the L2",
    commands=(
        "simulate --N 16K --alg flash1 --tiles paper",
        "simulate --N 32K --alg flash1 --tiles paper",
        "simulate --N 16K --d 128 --alg flash1 --tiles paper",
        "simulate --N 16K --sram 96KB --alg flash1 --tiles paper",
    ),
    cases={
        "issued bytes": lambda n: (
            [round(n[f"issued, as {what}"]) for what in ("N doubles", "d doubles", "M is halved")] == [4, 4, 2]
        ),
        "DRAM bytes": lambda n: round(n["DRAM, as N doubles"]) == 4,
    },
)
def io_complexity() -> Numbers:
    base, longer, wider, smaller = (
        issued("flash1", tiles="paper", **choice)
        for choice in ({"n": 16384}, {"n": 32768}, {"n": 16384, "head_dim": 128}, {"n": 16384, "sram": "96KB"})
    )
    short, long = (dram("flash1", n, tiles="paper") for n in (16384, 32768))
    return {
        "issued, as N doubles": computed(longer / base),
        "issued, as d doubles": computed(wider / base),
        "issued, as M is halved": computed(smaller / base),
        "DRAM, as N doubles": computed(long / short),
        "issued, N = 16,384": counted(base),
        "issued, N = 32,768": counted(longer),
        "issued, d = 128": counted(wider),
        "issued, M = 96 KB": counted(smaller),
        "DRAM, N = 16,384": counted(short),
        "DRAM, N = 32,768": counted(long),
    }


@claim(
    "FlashAttention reads Q, K and V from HBM once.",
    said=INTRODUCTIONS,
    because=(
        "FlashAttention-2 asks for all of K and V once per query tile. What it asks for a second time, the L2 answers "
        "while it holds K and V of the heads in flight."
    ),
    condition="DRAM behind an L2 that holds K and V is meant (first order)",
    commands=("simulate --N 8K --alg flash2 --tiles shipped --json",),
    cases={
        "behind the L2": lambda n: n["DRAM reads of K"] == n["K"],
        "issued": lambda n: n["issued reads of K"] == n["K"],
    },
)
def reads_once() -> Numbers:
    levels = run("flash2", tiles="shipped").levels
    size, asked, passed = (levels[level]["K"].read_bytes for level in ("compulsory", "issued", "dram"))
    return {
        "times that K is asked for": computed(asked / size),
        "K": counted(size),
        "issued reads of K": counted(asked),
        "DRAM reads of K": counted(passed),
    }


@claim(
    "FlashAttention-2 moves fewer bytes than FlashAttention.",
    said=INTRODUCTIONS,
    because=(
        "With q query tiles against k key tiles, FlashAttention-2 moves no more if and only if 2 q d <= d + 1 + "
        "k (3 d + 4) (theorem flash2_flash1_crossover). Its shipped query tiles are short, and it is faster for all "
        "its bytes. The tiles that FlashAttention shipped with are from memory."
    ),
    condition="both have the best tiles for one SRAM, not the shipped ones",
    commands=(
        "simulate --N 8K --alg flash1 --alg flash2",
        "simulate --N 8K --alg flash1 --alg flash2 --tiles shipped",
        "ioaware prove --list flash2_flash1_crossover",
    ),
    cases={
        "best tiles": lambda n: n["FlashAttention-2, best"] < n["FlashAttention, best"],
        "shipped tiles": lambda n: n["FlashAttention-2, shipped"] < n["FlashAttention, shipped"],
    },
)
def less_than_flash1() -> Numbers:
    return {
        f"{name}, {rule}": counted(issued(algorithm, tiles=rule))
        for rule in ("shipped", "best")
        for algorithm, name in (("flash2", "FlashAttention-2"), ("flash1", "FlashAttention"))
    }


@claim(
    "More SRAM always helps.",
    said=f"{INTRODUCTIONS}, after {FA1}, theorem 2",
    because=(
        "Bytes fall as 1 / M until each input is read once. The first-order time hardly moves even before: "
        "FlashAttention-2 is bound by the shared memory and the matrix units, not by these bytes."
    ),
    condition="M is still too small for a head's Q and O, and bytes are meant, not time",
    commands=tuple(f"simulate --N 8K --alg flash2 --sram {m}" for m in ("192KB", "384KB", "8MB", "16MB")),
    cases={
        "192 KB to 384 KB": lambda n: n["384 KB"] < n["192 KB"],
        "8 MB to 16 MB": lambda n: n["16 MB"] < n["8 MB"],
    },
)
def more_sram() -> Numbers:
    found = {m: run("flash2", sram=m.replace(" ", "")) for m in ("192 KB", "384 KB", "8 MB", "16 MB")}
    moved = {m: counted(totals.levels["issued"].total_bytes) for m, totals in found.items()}
    times = {f"time, {m}": predicted(found[m].cost.time_s) for m in ("192 KB", "384 KB")}
    return {"192 KB over 384 KB": computed(moved["192 KB"].value / moved["384 KB"].value), **moved, **times}


@claim(
    "The optimal block size is M / 4d.",
    said=f"{FA1}, Algorithm 1, line 1",
    because=(
        "The rule is right up to a constant, which is all that theorem 2 needs. Taken literally its tiles do not fit "
        "into M, at d = 128 not even if scores are fp16 and nothing else is held; and tiles that do fit move less."
    ),
    commands=(
        "simulate --N 8K --alg flash1 --tiles paper",
        "simulate --N 8K --alg flash1 --tiles best",
        "simulate --N 8K --d 128 --alg flash1 --tiles paper",
    ),
    cases={
        "no tiles that fit move less": lambda n: n["its bytes"] <= n["best tiles' bytes"],
        "it fits, d = 64": lambda n: n["held, d = 64"] <= 1,
        "it fits, d = 128": lambda n: n["held, d = 128"] <= 1,
        "it fits, d = 128, scores in fp16": lambda n: n["Q, K, V, O and S alone, d = 128"] <= 1,
    },
)
def best_block() -> Numbers:
    paper, best, wide = (
        report("flash1", tiles=rule, head_dim=d) for rule, d in (("paper", 64), ("best", 64), ("paper", 128))
    )
    sram, tiles = load(A100).sram_bytes, wide.passes[0].schedule.tiles
    alone = 2 * (2 * 128 * (tiles.q + tiles.kv) + tiles.q * tiles.kv)  # Q, O, K, V of d = 128 and S, all fp16
    return {
        "held, d = 128": counted(wide.sram_peak_bytes / sram, "M"),
        "held, d = 64": counted(paper.sram_peak_bytes / sram, "M"),
        "Q, K, V, O and S alone, d = 128": computed(alone / sram, "M"),
        "its bytes": counted(paper.totals.levels["issued"].total_bytes),
        "best tiles' bytes": counted(best.totals.levels["issued"].total_bytes),
    }


@claim(
    "FlashAttention is optimal: no algorithm makes fewer HBM accesses.",
    said=f"{INTRODUCTIONS}, after {FA1}, proposition 3",
    because=(
        "Any schedule of exact attention as sums of products moves at least 4 d² |E| / M - M words (theorem "
        "parallel_narrow_traffic_lower_bound), and FlashAttention-2 moves that to leading order where M holds nothing "
        "but its tiles (flash2_total_traffic_optimal). FlashAttention itself moves more. Proposition 3 excludes only "
        "an algorithm that is better for all M; approximations are not covered at all."
    ),
    condition="a constant factor does not count, and attention is exact",
    commands=(
        "simulate --N 32K --alg flash1 --alg flash2",
        "simulate --N 1M --alg flash1 --alg flash2",
        "ioaware prove --list flash2_total_traffic_optimal",
    ),
    cases={
        "it stays as near to the proved bound": lambda n: n["FlashAttention, 1M"] <= n["FlashAttention, 32K"],
        "nothing moves less, N = 32K": lambda n: n["FlashAttention, 32K"] <= n["FlashAttention-2, 32K"],
    },
)
def optimal() -> Numbers:
    return {
        f"{name}, {label}": counted(run(algorithm, n).ratio, "x bound")
        for label, n in (("32K", 2**15), ("1M", 2**20))
        for algorithm, name in (("flash1", "FlashAttention"), ("flash2", "FlashAttention-2"))
    }


CLAIMS = (
    fewer_accesses, io_complexity, reads_once, less_than_flash1, more_sram, best_block, optimal,
)  # fmt: skip
