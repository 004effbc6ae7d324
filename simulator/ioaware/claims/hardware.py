"""Claims about the hardware: which memory is meant, what it holds, which engine is the slowest."""

from __future__ import annotations

from ..device import Device, load
from ..units import parse_bytes
from .ask import A100, H100, dram, run
from .printed import FA1, FA2, FA3, INTRODUCTIONS
from .record import Numbers, claim, computed, counted, listed, memory

MB = 2**20


@claim(
    "The SRAM of FlashAttention is the L2 cache.",
    said=INTRODUCTIONS,
    because=(
        "Figure 1 of the paper says 20 MB at 19 TB/s: the L1 and shared memory of all SMs of an A100. Each SM has its "
        "own, and M is one of them. The L2 is larger than all of them, slower, and shared."
    ),
    commands=(f"ioaware list devices {A100}",),
    cases={
        "the L2 has figure 1's 20 MB": lambda n: int(n["L2"] / MB) == 20,
        "the L2 has figure 1's 19 TB/s": lambda n: int(n["L2 bandwidth"] / 1e12) == 19,
    },
)
def sram_is_l2() -> Numbers:
    device = load(A100)
    return {
        "SRAM of all SMs": computed(device.sm_count * device.sram_bytes / MB, "MiB"),
        "SRAM bandwidth": computed(device.sram_bytes_per_s or 0, "B/s"),
        "SRAM of one SM": memory(device.sram_bytes),
        "L2": memory(device.l2_bytes),
        "L2 bandwidth": listed(device.l2_bytes_per_s, "B/s"),
    }


@claim(
    "An A100 has 192 KB of SRAM per SM for the tiles.",
    said=f"{FA1}, section 2.1",
    because=(
        "192 KB are L1 and shared memory together, and one thread block may allocate less of it. On the other hand "
        "kernels hold O, S and P in the registers, which that figure leaves out."
    ),
    commands=(f"ioaware fits --device {A100}",),
    cases={"a thread block may have it": lambda n: n["shared memory of one block"] >= parse_bytes("192KB")},
)
def sram_192kb() -> Numbers:
    device = load(A100)
    return {
        "shared memory of one block": memory(device.shared_bytes),
        "L1 and shared memory": memory(device.sram_bytes),
        "registers": memory(device.register_bytes),
    }


@claim(
    "A non-matmul FLOP is 16x as expensive as a matmul FLOP.",
    said=f"{FA2}, section 3.1",
    because="It is the ratio of two peaks, of fp16 matrix units and of fp32 arithmetic, and it changes with the GPU.",
    condition="the GPU is an A100",
    commands=tuple(f"ioaware list devices {name}" for name in (A100, H100, "v100-sxm2")),
    cases={
        "A100": lambda n: round(n["A100"]) == 16,
        "H100": lambda n: round(n["H100"]) == 16,
        "V100": lambda n: round(n["V100"]) == 16,
    },
)
def non_matmul() -> Numbers:
    devices = {name: load(file) for name, file in (("A100", A100), ("H100", H100), ("V100", "v100-sxm2"))}
    peaks = {
        f"{name}, {what}": listed(rate, "FLOP/s")
        for name, device in devices.items()
        for what, rate in (("matmul", device.fp16_flop_per_s), ("fp32", device.fp32_flop_per_s))
    }
    return {
        **{name: computed(peaks[f"{name}, matmul"].value / peaks[f"{name}, fp32"].value) for name in devices},
        **peaks,
    }


@claim(
    "The exponentials of the softmax are negligible.",
    said=INTRODUCTIONS,
    because=(
        "A score costs 4 d FLOPs and one exponential. An SM of an H100 finishes 16 exponentials per clock "
        f"({FA3}, section 3.1) and 4,096 FLOPs, so that at d = 64 both take as long. That an A100 finishes 16 too is "
        "from memory."
    ),
    commands=(
        "simulate --N 8K --alg flash2 --tiles shipped --json",
        f"simulate --device {H100} --N 8K --alg flash2 --tiles shipped --json",
    ),
    cases={
        "A100, d = 64": lambda n: n["A100, d = 64"] < 0.1,
        "H100, d = 64": lambda n: n["H100, d = 64"] < 0.1,
        "H100, d = 128": lambda n: n["H100, d = 128"] < 0.1,
    },
)
def exponentials() -> Numbers:
    a100, h100 = (run("flash2", device=name, tiles="shipped") for name in (A100, H100))
    wide = run("flash2", device=H100, tiles="shipped", head_dim=128)
    return {
        "H100, d = 64": computed(_over_matmul(load(H100), h100.exps, h100.flops)),
        "H100, d = 128": computed(_over_matmul(load(H100), wide.exps, wide.flops)),
        "A100, d = 64": computed(_over_matmul(load(A100), a100.exps, a100.flops)),
        "exponentials, d = 64": counted(h100.exps, ""),
        "FLOPs, d = 64": counted(h100.flops, "FLOP"),
    }


def _over_matmul(device: Device, exps: int, flops: int) -> float:
    """Time of the exponentials over time of the matrix products, each engine at its peak."""
    exps_per_s, flop_per_s = device.exps_per_s, device.fp16_flop_per_s
    assert exps_per_s is not None
    assert flop_per_s is not None
    return (exps / exps_per_s) / (flops / flop_per_s)


@claim(
    "Attention is memory-bound.",
    said=f"{INTRODUCTIONS}, after {FA1}, section 2.1",
    because=(
        "Standard attention moves S and P and does about d / 2 FLOPs per byte, far fewer than an A100 can. "
        "FlashAttention-2 moves Q, K, V and O, and the matrix units wait for nothing in DRAM: that was the point."
    ),
    condition="standard attention is meant; FlashAttention is bound by computation",
    commands=("simulate --N 8K --alg naive --alg flash2", "simulate --N 8K --alg naive --alg flash2 --json"),
    cases={
        "standard attention": lambda n: n["standard attention"] < n["what an A100 can"],
        "FlashAttention-2": lambda n: n["FlashAttention-2"] < n["what an A100 can"],
    },
)
def memory_bound() -> Numbers:
    flops, device = run("naive").flops, load(A100)
    assert device.fp16_flop_per_s is not None
    assert device.hbm_bytes_per_s is not None
    naive, flash = (counted(dram(name)) for name in ("naive", "flash2"))
    return {
        "standard attention": computed(flops / naive.value, "FLOP/B"),
        "FlashAttention-2": computed(flops / flash.value, "FLOP/B"),
        "what an A100 can": computed(device.fp16_flop_per_s / device.hbm_bytes_per_s, "FLOP/B"),
        "DRAM bytes, standard": naive,
        "DRAM bytes, FlashAttention-2": flash,
        "FLOPs": counted(flops, "FLOP"),
    }


CLAIMS = (sram_is_l2, sram_192kb, non_matmul, exponentials, memory_bound)
