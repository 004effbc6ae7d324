"""Designs of kernels: ledgers against their sources' own byte counts, shipped tiles fit, refusals, the command."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ioaware import device
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Band
from ioaware.pipeline import FAMILIES, pipeline
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes
from ioaware.shipped import flash2_splits, flash3_splits
from tests.messages.command import call

A100, H100, B200, GEFORCE = (device.load(name) for name in ("a100", "h100", "b200", "rtx3090"))
LOCAL = Band(512, 0)
KB = 1024
DOCS = Path(__file__).parents[2] / "docs" / "pipelines.md"


def kernel(name, hardware, tiles=None, **given):
    problem = AttentionProblem(**{"q_len": 8192, "head_dim": 128, **given})
    return pipeline(name, problem, hardware, TileSizes(*tiles) if tiles else None)


def ledger(found, memory):
    return next(one for one in found.ledgers if one.memory == memory)


def shared(name, hardware, tiles=None, **given):
    return ledger(kernel(name, hardware, tiles, **given), "shared memory").total


# ------------------------------------------------------------------------------------- what sources say of themselves
@pytest.mark.parametrize(
    ("hardware", "head_dim", "kib", "blocks"),
    [
        (GEFORCE, 128, 48, 2),  # "128 x 32 (48 KB smem) is the fastest for non-causal since we get 2 CTAs per SM"
        (A100, 256, 128, 1),  # "For A100, we want to run with 128 x 64 (128KB smem)"
        (H100, 256, 96, 2),  # "64 x 64 (96KB smem) since then we can get 2 CTAs per SM"
    ],
)
def test_comments_of_flash2_forward(hardware, head_dim, kib, blocks):
    found = kernel("flash2", hardware, head_dim=head_dim)
    assert ledger(found, "shared memory").total == kib * KB
    assert found.blocks_per_sm == blocks


@pytest.mark.parametrize(
    ("hardware", "head_dim", "dropout", "kib"),
    [
        (A100, 32, 0.1, 104),
        (A100, 32, 0, 96),
        (GEFORCE, 32, 0.1, 96),
        (A100, 64, 0, 144),
        (A100, 96, 0, 92),
        (A100, 96, 0.1, 116),
        (A100, 128, 0, 144),
        (A100, 192, 0, 136),
        (H100, 256, 0, 176),
        (A100, 256, 0, 144),  # "we don't do double buffering to save smem"
    ],
)
def test_comments_of_flash2_backward(hardware, head_dim, dropout, kib):
    assert shared("flash2", hardware, head_dim=head_dim, dropout=dropout, direction="bwd") == kib * KB


def test_comments_of_flash1():
    """fmha_fprop_fp16_kernel.sm80.cu: 128 keys take "~41KB" and two blocks go to an SM; 256 keys spill registers."""
    found = kernel("flash1", A100)
    queries, outputs, statistics = 2 * 16 * 128 * 2, 4 * 16 * 128 * 4, 4 * 16 * 4 * 2
    assert ledger(found, "shared memory").total == queries + outputs + statistics == 41_472
    assert found.blocks_per_sm == 2
    longer = kernel("flash1", A100, (16, 256))
    assert not longer.fits
    assert longer.binds.memory == "registers"


@pytest.mark.parametrize(
    ("head_dim", "given", "fitting", "too_long"),
    [
        (128, {}, 192, 208),  # "128 x 192 hits the limit of smem if MmaPV_is_RS"
        (192, {}, 112, 128),  # "128 x 112 hits the limit of smem"
        (256, {}, 80, 96),  # "128 x 80 hits the limit of smem"
    ],
)
def test_comments_of_flash3(head_dim, given, fitting, too_long):
    """The next tile of 16 more keys is the first not to fit."""
    assert kernel("flash3", H100, (128, fitting), head_dim=head_dim, **given).fits
    found = kernel("flash3", H100, (128, too_long), head_dim=head_dim, **given)
    assert not found.fits
    assert found.binds.memory == "shared memory"


def test_flash3_at_head_dim_128_takes_208_kb():
    assert shared("flash3", H100) == 208 * KB
    assert shared("flash3", H100, (128, 128)) == 160 * KB


@pytest.mark.parametrize(("mask", "size"), [(FULL, 231_424), (CAUSAL, 231_424), (LOCAL, 232_448)])
def test_comments_of_flash4_backward(mask, size):
    """flash_bwd_sm100.py: "2-CTA: 231424 and 1-CTA: 232448"; windows are not computed by pairs."""
    assert shared("flash4", B200, mask=mask, direction="bwd") == size


@pytest.mark.parametrize(("tiles", "total"), [(None, 512), ((128, 64), 384)])
def test_flash4_forward_fills_tensor_memory(tiles, total):
    """flash_fwd_sm100.py: S at columns 0 and 128, O at 256 and 384."""
    memory = ledger(kernel("flash4", B200, tiles), "tensor memory")
    assert (memory.total, memory.limit) == (total, 512)


def test_flash4_backward_fills_tensor_memory():
    """flash_bwd_sm100.py: S, dV, dP and dK, 128 columns each; P, dS and dQ over them."""
    assert [e.size for e in ledger(kernel("flash4", B200, direction="bwd"), "tensor memory").entries] == [128] * 4


def test_wide_heads_do_not_fit_tensor_memory():
    """Two S of 128 and two O of 192 columns are 640; DeepSeek's 192 and 128 are 512."""
    found = kernel("flash4", B200, head_dim=192)
    assert (found.fits, found.binds.memory, found.blocks_per_sm) == (False, "tensor memory", 0)
    assert kernel("flash4", B200, head_dim=192, value_dim=128).fits


# --------------------------------------------------------------------------------------------- registers
def test_registers_of_a_consumer():
    """64 rows on 128 threads: S fp32 B_N / 2, P 16 bits B_N / 4, O fp32 d / 2; 216 of 240 registers are for them."""
    registers = ledger(kernel("flash3", H100), "registers")
    assert [e.size for e in registers.entries] == [176 // 2, 176 // 4, 128 // 2]
    assert registers.limit == 216
    longer = ledger(kernel("flash3", H100, (128, 208)), "registers")
    assert longer.total == 104 + 52 + 64 > longer.limit


def test_p_goes_through_shared_memory_where_registers_do_not_hold_it():
    """At head_dim 96 three consumers have 128 registers: S and O take 120, and P would take 36 more."""
    registers = ledger(kernel("flash3", H100, head_dim=96), "registers")
    assert (registers.total, registers.limit) == (144 // 2 + 96 // 2, 128)
    assert registers.total + 144 // 4 > registers.limit
    assert "P" in [e.what for e in ledger(kernel("flash3", H100, head_dim=96), "shared memory").entries]


@pytest.mark.parametrize("name", ["flash3", "flash4"])
@pytest.mark.parametrize("direction", ["fwd", "bwd"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_setmaxnreg_gives_out_no_more_than_the_register_file(name, direction, head_dim):
    found = kernel(name, device.load(FAMILIES[name].device), head_dim=head_dim, direction=direction)
    assert found.design.block_registers <= 65_536
    assert all(role.registers % 8 == 0 for role in found.design.roles)


# --------------------------------------------------------------------------------------------- all that is shipped
def shipped_cases():
    for name, family in FAMILIES.items():
        for direction in ("fwd", "bwd") if family.backward else ("fwd",):
            widest = {("flash4", "fwd"): 128, ("flash4", "bwd"): 128}.get((name, direction), 256)
            for head_dim in (h for h in (32, 64, 96, 128, 192, 256) if h <= min(widest, family.head_dims[-1])):
                for mask in (FULL, CAUSAL, LOCAL):
                    for dtype in family.dtypes if direction == "fwd" else family.dtypes[:1]:
                        yield name, head_dim, {"direction": direction, "mask": mask, "dtype": dtype}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_shipped_fits(name):
    """On the device it was made for, in all memories: an independent check of both tables."""
    cases = [case for case in shipped_cases() if case[0] == name]
    assert len(cases) >= 24
    for _, head_dim, given in cases:
        found = kernel(name, device.load(FAMILIES[name].device), head_dim=head_dim, **given)
        assert found.fits, (head_dim, given, found.binds)
        assert found.blocks_per_sm >= 1


# --------------------------------------------------------------------------------------------- work
def definition(direction, q, kv, d):
    """FLOP and exponentials of a tile."""
    return (4 if direction == "fwd" else 10) * q * kv * d, q * kv


@pytest.mark.parametrize(
    ("name", "hardware", "direction", "rows"),
    [
        ("flash1", A100, "fwd", 1),
        ("flash2", A100, "fwd", 1),
        ("flash2", A100, "bwd", 1),
        ("flash3", H100, "fwd", 1),
        ("flash3", H100, "bwd", 1),
        ("flash4", B200, "fwd", 2),  # two query tiles in flight
        ("flash4", B200, "bwd", 1),
    ],
)
def test_work_of_a_tile(name, hardware, direction, rows):
    found = kernel(name, hardware, direction=direction)
    flops, exps = definition(direction, rows * found.tiles.q, found.tiles.kv, 128)
    assert sum(p.flops for p in found.design.products) == flops
    assert found.design.exps == exps
    assert found.engines["matmul"] == flops / hardware.matmul_flop_per_clock


def test_operands_of_mma_sync():
    """Each of 4 warps reads its 32 rows of Q, and all of K and V: 2 B x (128 + 4 x 2 x 64) x 128."""
    read = sum(p.read_bytes for p in kernel("flash2", A100).design.products)
    assert read == 2 * (128 + 4 * 2 * 64) * 128


def test_operands_of_the_backward_pass_of_flash2():
    """64x128, 8 warps: 2 x 4 along S and dP, 4 x 2 along dV and dK, 2 x 4 along dQ; each reads its rows and columns."""
    q, kv, d = 64, 128, 128
    scores, keys, queries = 4 * q * d + 2 * kv * d, 2 * kv * q + 4 * d * q, 4 * q * kv + 2 * d * kv
    read = [p.read_bytes for p in kernel("flash2", A100, direction="bwd").design.products]
    assert read == [2 * n for n in (scores, scores, keys, keys, queries)]


def test_operands_of_wgmma():
    """Each of 2 warpgroups reads its 64 rows of Q, and all of K and V; P is in registers."""
    read = sum(p.read_bytes for p in kernel("flash3", H100).design.products)
    assert read == 2 * (128 + 2 * 2 * 176) * 128


def test_shared_memory_of_the_backward_pass_of_flash3():
    """80x128 at head_dim 128: 2 instructions of 64 rows per product; dS^T and P^T are in registers for dK and dV."""
    found = kernel("flash3", H100, direction="bwd")
    a, b = 64 * 128 * 2, 80 * 128 * 2
    assert [p.read_bytes for p in found.design.products] == [2 * (a + b), 2 * (a + b), 2 * b, 2 * b, 2 * (a + b)]
    assert [e.size for e in found.design.staged] == [80 * 128 * 2, 2 * 80 * 128 * 4]


def test_emulation_moves_exponentials_to_the_fp32_units():
    """One in eight: fragments 1 and 2 of 4, scores 12 to 15 of 16; six fused multiply-adds each, 128 per clock."""
    found = kernel("flash4", B200)
    chosen = [k for k in range(128) if 1 <= k // 32 < 3 and k % 16 >= 12]
    assert found.design.emulated == len(chosen) / 128
    assert found.emulating["exp"] == found.engines["exp"] * 7 / 8
    assert found.emulating["fma"] == 256 * len(chosen) * 6 / 128


def test_unknown_rates_are_left_out():
    assert set(kernel("flash2", replace(A100, exps_per_clock=None)).engines) == {"matmul", "sram"}


# --------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("name", "hardware", "given", "message"),
    [
        ("flash3", A100, {}, "device=NVIDIA A100.*the nearest legal value is h100-sxm$"),
        ("flash4", H100, {}, "device=NVIDIA H100.*the nearest legal value is b200$"),
        ("flash2", device.load("mi300x"), {}, "device=.*the nearest legal value is a100-sxm-40gb$"),
        ("flash1", A100, {"direction": "bwd"}, "direction=bwd: .*the nearest legal value is fwd$"),
        ("flash2", A100, {"direction": "fwd+bwd"}, r"direction=fwd\+bwd: .*the nearest legal value is fwd$"),
        ("flash2", A100, {"dtype": "fp32"}, "dtype=fp32: .*the nearest legal value is fp16$"),
        ("flash3", H100, {"dtype": "fp8_e4m3", "direction": "bwd"}, "dtype=fp8_e4m3: .*backward: no fp8"),
        ("flash1", A100, {"head_dim": 256}, "head_dim=256: .*the nearest legal value is 128$"),
        ("flash2", A100, {"value_dim": 64}, "value_dim=64: .*the nearest legal value is 128$"),
        ("flash3", H100, {"tiles": (64, 128)}, "tile_q=64: .*the nearest legal value is 128$"),
        ("flash3", H100, {"tiles": (256, 128)}, "tile_q=256: .*the nearest legal value is 192$"),
        ("flash2", A100, {"tiles": (100, 64)}, "tiles=100x64: .*the nearest legal value is 128x64$"),
    ],
)
def test_refusals(name, hardware, given, message):
    with pytest.raises(InputError, match=message):
        kernel(name, hardware, **given)


def test_an_unknown_kernel():
    with pytest.raises(InputError, match="kernel 'flash5' is unknown"):
        kernel("flash5", A100)


def test_a_device_without_sizes():
    with pytest.raises(InputError, match="gives no shared_bytes; give it, like --set shared_bytes="):
        kernel("flash2", replace(A100, shared_bytes=None))


# --------------------------------------------------------------------------------------------- the command, the docs
def test_json_says_what_the_function_says(tmp_path):
    out = json.loads(call(tmp_path, "pipeline", "flash3", "--d", "128", "--causal", "--json").out)
    found = kernel("flash3", H100, mask="causal")
    assert (out["tile_q"], out["tile_kv"], out["fits"], out["binds"]) == (128, 128, True, found.binds.memory)
    assert out["ledgers"]["shared memory"]["total"] == shared("flash3", H100, mask="causal")
    assert out["cycles"]["engines"] == found.engines
    assert out["problem"]["mask"] == "causal"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_command_runs_where_its_kernel_was_made_for(name, tmp_path):
    result = call(tmp_path, "pipeline", name)
    assert (result.code, result.err) == (0, "")
    assert device.load(FAMILIES[name].device).name in result.out


def test_the_command_takes_tiles_devices_and_settings(tmp_path):
    options = ["--device", "h100", "--tiles", "128x128", "--set", "shared_bytes=16KB"]
    result = call(tmp_path, "pipeline", "flash2", *options)
    assert "tiles 128x128" in result.out
    assert "does not fit; the fullest: shared memory, 300%" in result.out


def test_the_docs_show_what_the_command_prints(tmp_path):
    text = DOCS.read_text(encoding="utf-8")
    block = re.search(r"    ioaware (pipeline .*)\n\n((?:(?:    .*)?\n)+)", text)
    shown = [line.removeprefix("    ").rstrip() for line in block[2].rstrip().splitlines()]
    printed = [line.rstrip() for line in call(tmp_path, *block[1].split()).out.rstrip().splitlines()]
    assert printed == shown


def test_the_docs_have_the_splits_of_decoding():
    row = r"^\| ([\d,]+) \| ([\d,]+) \| (\d+) / (\d+) \| (\d+) \| (\d+) \| (\d+) \|$"
    rows = re.findall(row, DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 8
    for batch, kv_len, heads, kv_heads, head_dim, *splits in ([int(cell.replace(",", "")) for cell in r] for r in rows):
        problem = AttentionProblem(
            q_len=1, kv_len=kv_len, batch=batch, heads=heads, kv_heads=kv_heads, head_dim=head_dim
        )
        assert [flash2_splits(problem, A100), flash3_splits(problem, H100)] == splits
