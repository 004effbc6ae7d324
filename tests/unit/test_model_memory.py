"""Memory of models: KV caches against the numbers the models are known for, activations against published formulas."""

from dataclasses import replace

import pytest

import ioaware as io
from ioaware import workload
from ioaware.masks import Band
from ioaware.model_memory import Activations, LayerMemory, StageMemory, activations_of, cache_of, memory, summary
from ioaware.problem import AttentionProblem
from ioaware.workload import Phase, Workload


def phase(layers=1, caches=True, latent=None, name="decode", **problem):
    shape = {"q_len": 1, "kv_len": 1000, "heads": 8, "kv_heads": 2, "head_dim": 64, "mask": "causal", **problem}
    made = AttentionProblem(**shape)
    stage = name.partition(" ")[0]
    return Phase(name=name, stage=stage, source="", layers=layers, steps=1, problem=made, caches=caches, latent=latent)


def of_stage(name, stage, **overrides):
    """The KV cache of all layers of a built-in model."""
    phases = workload.load(name, stage, **overrides).phases
    return StageMemory(stage, tuple(LayerMemory(p, cache_of(p), {}) for p in phases)).cache


def simulated(phases, *algorithms):
    return io.simulate_workload(Workload(name="mine", title="Mine", phases=tuple(phases)), algorithms=algorithms)


# KV caches

BYTES_PER_TOKEN = {  # 2 (K and V) x layers x kv_heads x head_dim x 2 bytes
    "gpt3": 4_718_592, "llama2-7b": 524_288, "llama2-70b": 327_680, "llama3-8b": 131_072, "llama3-70b": 327_680,
    "llama3.1-405b": 516_096, "mistral-7b": 131_072, "openvla": 524_288, "deepseek-v3": 70_272, "llama3.1-8b": 131_072,
    "mixtral-8x7b": 131_072, "qwen2.5-7b": 57_344, "qwen3-32b": 262_144, "gemma2-9b": 344_064, "gemma3-27b": 507_904,
    "gpt-oss-120b": 73_728, "gpt-oss-20b": 49_152,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), BYTES_PER_TOKEN.items())
def test_bytes_per_token(name, size):
    """In every phase: what prefill leaves is what decode finds, also where prefill expands a latent cache."""
    assert of_stage(name, "prefill").token_bytes == of_stage(name, "decode").token_bytes == size


@pytest.mark.parametrize("name", ["vit-b16", "bert-base", "bert-large", "flux1-dev"])
def test_encoders_cache_nothing(name):
    assert all(cache_of(p) is None for p in workload.load(name, "all").phases)


@pytest.mark.parametrize("name", ["gpt2", "pi0", "gpt-oss-20b"])
def test_training_caches_nothing(name):
    assert of_stage(name, "training") is None


def test_llama3_70b_at_128k():
    """80 layers x 8 heads x 2 x 128 elements x 2 bytes x 131,072 tokens = 40 GiB."""
    cache = of_stage("llama3-70b", "decode", kv_len=131_072, batch=16)
    assert (cache.sequence_bytes, cache.total_bytes) == (40 * 2**30, 16 * 40 * 2**30)


def test_windows_bound_the_cache():
    """gpt-oss-120b at 128K: 18 layers of 131,072 tokens, 18 of 128; 2 x 8 x 64 elements of 2 bytes."""
    assert of_stage("gpt-oss-120b", "decode").total_bytes == 18 * 2048 * (131_072 + 128)
    assert of_stage("gpt-oss-120b", "decode", kv_len=100).total_bytes == 18 * 2048 * (100 + 100)


def test_pi0_caches_the_prefix_once_and_reads_it_in_every_step():
    prefix, action = (of_stage("pi0", stage) for stage in ("prefix", "action"))
    assert prefix == action
    assert prefix.total_bytes == 816 * 18_432
    report = io.simulate_workload(io.load_workload("pi0", "action"), algorithms=["flash2"])
    moved = report.algorithms["flash2"].totals.levels["compulsory"]
    assert moved["K"].read_bytes + moved["V"].read_bytes == 10 * (816 + 51) * 18_432  # cached, and its own


def test_lengths_of_ones_own():
    cache = cache_of(phase(q_len=(1, 1, 1), kv_len=(10, 300, 20)))
    assert (cache.token_bytes, cache.sequence_bytes, cache.total_bytes) == (512, 300 * 512, 330 * 512)


@pytest.mark.parametrize("page", [1, 16, 100, 256])
@pytest.mark.parametrize("left", [None, 0, 15, 127, 5000])
@pytest.mark.parametrize("kv_len", [1, 100, 256, 1000])
def test_pages_that_hold_a_visible_key(page, left, kv_len):
    found = cache_of(phase(kv_len=kv_len, page_size=page, mask=Band(left, 0)))
    keys = [k for k in range(kv_len) if left is None or k >= kv_len - 1 - left]
    rows = len({k // page for k in keys}) * page
    assert found.sequence_bytes == found.total_bytes == rows * 512
    assert found.page_waste_bytes == (rows - len(keys)) * 512
    if left is None:
        assert found.page_waste_bytes <= (page - 1) * 512


SCALES = {"tensor": (0, 1), "head": (0, 2), "token": (2, 0)}  # per token; shared: of K, with 2 key/value heads


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(("kv_dtype", "bits"), [("fp8_e4m3", 8), ("int8", 8), ("int4", 4)])
def test_narrow_caches_and_their_scales(kv_dtype, bits, scales):
    """Rows of 63 elements are whole bytes; K and V have fp32 scales each."""
    of_token, shared = (4 * 2 * n for n in SCALES[scales])
    found = cache_of(phase(head_dim=63, kv_dtype=kv_dtype, kv_scales=scales, q_len=(1, 1), kv_len=(5, 7)))
    assert found.token_bytes == 2 * 2 * -(-63 * bits // 8) + of_token
    assert found.total_bytes == (5 + 7) * found.token_bytes + shared


def test_a_latent_cache_is_one_row_for_all_heads():
    expanded = phase(heads=128, kv_heads=128, head_dim=192, value_dim=128, latent=576)
    absorbed = phase(heads=128, kv_heads=1, head_dim=576, value_dim=512, shared_kv=True)
    assert cache_of(expanded) == cache_of(absorbed)
    assert cache_of(absorbed).token_bytes == 1152


# Activations


def one_layer(algorithm, **problem):
    made = phase(name="training", caches=False, **{"mask": "full", "kv_len": None, **problem})
    (stage,) = memory(simulated([made], algorithm))
    return stage.kinds[0].activations[algorithm]


SQUARE, LINEAR, ROWS = 16 * 8 * 2, 16 * 8 * 64 * 2, 16 * 8 * 4  # bytes of N x N, N x d and N fp32 over 16 x 8 heads
TABLE_21 = {"q_len": 1024, "kv_heads": 8, "batch": 16, "direction": "fwd+bwd"}


def test_flashattention_table_21():
    """1184 and 209 MiB at N = 1024: what attention writes, its inputs Q, K, V, dO, and the framework's copies.

    Standard attention writes S, P, dP, dS and O, dQ, dK, dV; the framework copies 2 arrays (tests/papers). The same for
    FlashAttention: O, dQ, dK, dV, l and m; 3 copies, and an fp32 accumulator, which is 2 more.
    """
    n, inputs = 1024, 4 * 1024 * LINEAR
    assert one_layer("eager", **TABLE_21).peak_bytes == 4 * n * n * SQUARE + 4 * n * LINEAR
    assert one_layer("eager", **TABLE_21).peak_bytes + inputs + 2 * n * LINEAR == 1184 * 2**20
    flash = one_layer("flash1", **TABLE_21).peak_bytes
    assert flash == 4 * n * LINEAR + 2 * n * ROWS
    assert flash + inputs + 5 * n * LINEAR == 209 * 2**20


def test_megatron_counts_five_a_s_s_b():
    """Korthikanti et al. 2022, section 4.1: softmax 2 a s^2 b, dropout mask a s^2 b, its output 2 a s^2 b bytes."""
    s, a, b = 512, 8, 16
    saved = one_layer("eager", **{**TABLE_21, "q_len": s}, dropout=0.1).saved_bytes
    assert saved == 5 * a * s * s * b


def test_flashattention2_saves_o_and_its_logarithms():
    n = 777
    assert one_layer("flash2", **{**TABLE_21, "q_len": n}).saved_bytes == n * (LINEAR + ROWS)
    assert one_layer("flash2", **{**TABLE_21, "q_len": n, "direction": "fwd"}) == (0, n * (LINEAR + ROWS))


def test_scratch_of_the_same_name_is_not_saved():
    """The chunks' statistics of the memory-efficient backward pass are computed again, not kept."""
    assert one_layer("memory_efficient", **TABLE_21).saved_bytes == 1024 * LINEAR  # O


def test_a_decode_step_needs_next_to_nothing():
    """Standard: S and P, a row per head, and O. The cache is not an activation."""
    found = one_layer("naive", mask="causal", kv_len=1000)
    assert found == Activations(0, 8 * 2 * (2 * 1000 + 64))


def test_layers_keep_what_they_saved_and_one_has_everything():
    kinds = [phase(3, False, name="training (a)", q_len=64, kv_len=64, mask="full", direction="fwd+bwd")]
    kinds.append(replace(kinds[0], name="training (b)", layers=2, problem=replace(kinds[0].problem, heads=16)))
    report = simulated(kinds, "flash2")
    a, b = (activations_of(r.algorithms["flash2"], r.problem) for r in report.phases)
    (stage,) = memory(report)
    saved = 3 * a.saved_bytes + 2 * b.saved_bytes
    assert b.peak_bytes > a.peak_bytes > a.saved_bytes > 0
    assert stage.activations == {"flash2": (saved, saved + b.peak_bytes - b.saved_bytes)}
    assert stage.cache is None


# What is printed, and JSON


def test_summary_of_two_kinds_of_layers():
    report = io.simulate_workload(io.load_workload("gpt-oss-120b", "decode", kv_len=100_000), algorithms=["flash2"])
    (stage,) = memory(report)
    output = 64 * (64 * 2 + 4)  # O in fp16 and L in fp32, of 64 heads
    assert summary(stage) == [
        "KV cache     262.1 kB per window layer, 204.8 MB per full layer, 3.691 GB in 36 layers; 73,728 B per token",
        f"activations  flash2 {output / 1000:.4g} kB in one layer, reused",
    ]


def test_summary_of_training_and_pages():
    training = phase(3, False, name="training", q_len=1000, mask="full", direction="fwd+bwd")
    decode = phase(3, page_size=256)
    first, second = memory(simulated([training, decode], "flash2"))
    one, *_ = (kind.activations["flash2"] for kind in first.kinds)
    assert first.activations["flash2"].peak_bytes == one.peak_bytes + 2 * one.saved_bytes
    assert [line.partition("flash2")[0].strip() for line in summary(first)] == ["activations", ""]
    assert summary(second)[0] == (  # 1024 rows of 512 bytes in 3 layers; 24 rows are unused
        "KV cache     524.3 kB per layer, 1.573 MB in 3 layers, 36.86 kB of it unused in pages; 1,536 B per token"
    )


def test_json_has_all_layers_and_one_of_each_kind():
    report = io.simulate_workload(io.load_workload("gemma2-9b", "decode"), algorithms=["flash2"])
    (found,) = [stage.as_dict() for stage in memory(report)]
    window, full = found["per_layer"]
    assert (found["stage"], found["layers"]) == ("decode", 42)
    assert [window["phase"], full["phase"]] == ["decode (window)", "decode (full)"]
    for key, total in found["kv_cache"].items():
        assert total == 21 * window["kv_cache"][key] + 21 * full["kv_cache"][key]
    assert set(found["activations"]["flash2"]) == {"saved_bytes", "peak_bytes"}
