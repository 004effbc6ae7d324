"""Claims about memory: what is kept in HBM, not what is moved."""

from __future__ import annotations

from .ask import extra, tensors
from .printed import FA1, INTRODUCTIONS, TABLE_21_MIB
from .record import Numbers, claim, computed, kept, printed


@claim(
    "FlashAttention needs O(N) memory instead of O(N²).",
    said=f"{FA1}, theorem 1",
    because=(
        "Theorem 1 is about memory besides inputs and outputs. Standard attention keeps S and P, FlashAttention two "
        "words per query (l, m), FlashAttention-2 one (L). Q, K, V and O are linear in N in any case. It says nothing "
        "about what is moved."
    ),
    commands=("simulate --N 8K --alg naive --alg flash2", "simulate --N 16K --alg naive --alg flash2"),
    cases={
        "S and P grow as N²": lambda n: n["standard, as N doubles"] == 4,
        "what FlashAttention-2 adds grows as N": lambda n: n["FlashAttention-2, as N doubles"] == 2,
    },
)
def linear_memory() -> Numbers:
    short, long = ({name: extra(name, n) for name in ("naive", "flash2")} for n in (8192, 16384))
    growth = {name: sum(long[name].values()) / sum(short[name].values()) for name in short}
    return {
        "FlashAttention-2, as N doubles": computed(growth["flash2"]),
        "standard, as N doubles": computed(growth["naive"]),
        "L, N = 8,192": kept(short["flash2"]["L"]),
        "S, N = 8,192": kept(short["naive"]["S"]),
        "L, N = 16,384": kept(long["flash2"]["L"]),
        "S, N = 16,384": kept(long["naive"]["S"]),
    }


@claim(
    "FlashAttention saves 10x memory at N = 2K and 20x at 4K.",
    said="flash-attention, README",
    because=(
        "The saving is proportional to N: it is whatever N one chooses to quote. Computed are the tensors of a "
        "training step's attention; table 21 of the paper measured the same with the framework's copies."
    ),
    condition="N is that long: the saving grows with N",
    commands=(
        "simulate --N 4K --heads 8 --batch 16 --direction fwd+bwd --alg eager --alg flash1 --tiles paper",
        "simulate --N 256 --heads 8 --batch 16 --direction fwd+bwd --alg eager --alg flash1 --tiles paper",
    ),
    cases={
        "10x at N = 2,048": lambda n: n["N = 2,048"] >= 10 and n["table 21, N = 2,048"] >= 10,
        "20x at N = 4,096": lambda n: n["N = 4,096"] >= 20 and n["table 21, N = 4,096"] >= 20,
        "10x at N = 256": lambda n: n["N = 256"] >= 10,
    },
)
def memory_saving() -> Numbers:
    shape = {"heads": 8, "batch": 16, "direction": "fwd+bwd"}
    eager, flash = ({n: tensors(name, n, **shape) for n in (4096, 2048, 256)} for name in ("eager", "flash1"))
    return {
        **{f"N = {n:,}": computed(sum(eager[n].values()) / sum(flash[n].values())) for n in eager},
        **{f"table 21, N = {n:,}": printed(m / TABLE_21_MIB["flash"][n]) for n, m in TABLE_21_MIB["pytorch"].items()},
        "S alone, N = 256": kept(eager[256]["S"]),
        "S alone, N = 4,096": kept(eager[4096]["S"]),
    }


@claim(
    "For N = 8K the score matrix takes 256 MB.",
    said=INTRODUCTIONS,
    because="It is 8,192² scores of one head. fp32 scores make 256 MiB of it; fp16, which is what is stored, half.",
    condition="scores are stored in fp32, and one head of one sequence is meant",
    commands=("simulate --N 8K --dtype fp32 --alg naive", "simulate --N 8K --dtype fp16 --alg naive"),
    cases={
        "one head, fp32": lambda n: n["one head, fp32"] == 256 * 2**20,
        "one head, fp16": lambda n: n["one head, fp16"] == 256 * 2**20,
        "32 heads, fp16": lambda n: n["32 heads, fp16"] == 256 * 2**20,
    },
)
def scores_256mb() -> Numbers:
    fp32, fp16 = (kept(tensors("naive", dtype=dtype)["S"]) for dtype in ("fp32", "fp16"))
    return {"one head, fp32": fp32, "one head, fp16": fp16, "32 heads, fp16": computed(32 * fp16.value, "B")}


@claim(
    "FlashAttention's backward pass needs no N x N matrix either.",
    said=f"{FA1}, section 3.1",
    because=(
        "It computes P again from Q, K and L, which costs a fifth matrix product where standard attention has four. "
        "The largest thing that FlashAttention-2 adds is its fp32 sum of dQ, N x d."
    ),
    commands=("simulate --N 8K --direction fwd+bwd --alg naive --alg flash2",),
    cases={"every tensor is smaller than N x N": lambda n: n["its largest tensor"] < n["P of standard attention"]},
)
def backward_memory() -> Numbers:
    standard, flash = (extra(name, direction="fwd+bwd") for name in ("naive", "flash2"))
    return {
        "its largest tensor": computed(max(flash.values()), "B"),
        "P of standard attention": kept(standard["P"]),
        "L": kept(flash["L"]),
        "D": kept(flash["D"]),
    }


CLAIMS = (linear_memory, memory_saving, scores_256mb, backward_memory)
