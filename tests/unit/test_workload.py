"""Workloads: the tables load, say what the models are known for, take lengths, and wrong files are refused."""

import re
import tomllib
from math import isclose, sqrt
from pathlib import Path

import pytest

from ioaware import workload
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Band

NAMES = workload.names()
PHASE = {"name": "prefill", "source": "a test", "layers": 2, "heads": 4, "head_dim": 64, "q_len": 128}
TABLE = {"title": "Mine", "phase": [PHASE]}
WRITTEN = 'title = "Mine"\n[[phase]]\nname = "a"\nsource = "me"\nlayers = 2\nheads = 4\nhead_dim = 64\nq_len = 8\n'
MODEL = {
    "title": "Mine",
    "model": {k: PHASE[k] for k in ("source", "layers", "heads", "head_dim")} | {"mask": "causal"},
    "phase": [
        {"name": "prefill", "q_len": 128},
        {"name": "decode", "q_len": 1, "kv_len": 128},
        {"name": "training", "q_len": 64, "direction": "fwd+bwd"},
    ],
}


def loaded(table, phase=None, **overrides):
    return workload.from_table("mine", table, phase, overrides)


def refusal(table, phase=None, **overrides):
    with pytest.raises(InputError) as error:
        loaded(table, phase, **overrides)
    return str(error.value)


def phase_of(name, phase, **overrides):
    """The one phase of that name."""
    (found,) = workload.load(name, phase, **overrides).phases
    return found


# The built-in files


def test_all_are_there():
    assert set(NAMES) == {
        *("vit-b16", "bert-base", "bert-large", "gpt2", "gpt2-medium", "gpt3", "llama-7b", "llama2-7b", "llama2-70b"),
        *("llama3-8b", "llama3-70b", "llama3.1-8b", "llama3.1-405b", "mistral-7b", "mixtral-8x7b", "qwen2.5-7b"),
        *("qwen3-32b", "gemma2-9b", "gemma3-27b", "gpt-oss-20b", "gpt-oss-120b", "deepseek-v3", "openvla", "pi0"),
        *("flux1-dev", "whisper-large"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_workload_is_sound(name):
    model = workload.load(name, "all")
    assert model.name == name
    assert model.title
    assert len({phase.name for phase in model.phases}) == len(model.phases)
    for phase in model.phases:
        q_len, kv_len = phase.problem.longest()
        assert re.search(r"[\w-]+/[\w-]+", phase.source)
        assert phase.name.startswith(phase.stage)
        assert phase.repeats == phase.layers * phase.steps >= 1
        assert phase.problem.pairs() > 0
        assert kv_len >= q_len  # a causal mask with fewer keys than queries leaves queries that see nothing


@pytest.mark.parametrize("name", NAMES)
def test_every_file_states_its_masks(name):
    """The default, a full mask, would be taken in silence."""
    table = tomllib.loads((Path(workload.FOLDER) / f"{name}.toml").read_text(encoding="utf-8"))
    for phase in table["phase"]:
        assert {**table["model"], **phase}["mask"] in ("full", "causal", "window:4095,0")


ENCODERS = {"encoder", "siglip", "dinov2", "prefix", "action", "cross", "denoise"}


@pytest.mark.parametrize("name", NAMES)
def test_encoders_see_everything_and_decoders_look_back(name):
    phases = workload.load(name, "all").phases
    bidirectional = {phase.stage for phase in phases} <= ENCODERS | {"training"}
    for phase in phases:
        full = phase.stage in ENCODERS or (phase.stage == "training" and bidirectional)
        assert (phase.problem.band == FULL) is full
        assert full or phase.problem.band.right == 0


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("openvla", "pi0", "whisper-large")])
def test_a_run_goes_forward_and_training_both_ways(name):
    run, *rest = (workload.load(name, phase).stages for phase in (None, "all"))
    assert all(p.problem.passes == ("fwd",) for stage in run.values() for p in stage)
    assert [*rest[0]] == [*run, "training"]
    assert all(p.problem.passes == ("fwd", "bwd") for p in rest[0]["training"])


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("vit-b16", 768), ("bert-base", 768), ("bert-large", 1024), ("gpt2", 768), ("gpt2-medium", 1024)),
        *(("gpt3", 12288), ("llama-7b", 4096), ("llama2-7b", 4096), ("llama2-70b", 8192), ("llama3-8b", 4096)),
        *(("llama3-70b", 8192), ("llama3.1-8b", 4096), ("llama3.1-405b", 16384), ("mistral-7b", 4096)),
        *(("mixtral-8x7b", 4096), ("qwen2.5-7b", 3584), ("flux1-dev", 3072), ("whisper-large", 1280)),
    ],
)
def test_heads_times_head_dim_is_the_models_width(name, width):
    for phase in workload.load(name, "all").phases:
        assert phase.problem.heads * phase.problem.head_dim == width


@pytest.mark.parametrize(
    ("name", "window", "layers"),
    [
        *(("gemma2-9b", 4096, {"window": 21, "full": 21}), ("gemma3-27b", 1024, {"window": 52, "full": 10})),
        *(("gpt-oss-120b", 128, {"window": 18, "full": 18}), ("gpt-oss-20b", 128, {"window": 12, "full": 12})),
    ],
)
def test_models_of_two_kinds_of_layers(name, window, layers):
    """`sliding_window` counts a query's own key, flash-attention's window does not."""
    for stage, phases in workload.load(name, "all").stages.items():
        assert {phase.name: phase.layers for phase in phases} == {f"{stage} ({k})": n for k, n in layers.items()}
        assert [phase.problem.band for phase in phases] == [Band(window - 1, 0), CAUSAL]


def test_gemma_caps_its_scores_and_gpt_oss_has_sinks():
    assert {phase.problem.softcap for phase in workload.load("gemma2-9b", "all").phases} == {50.0}
    assert {phase.problem.sink for phase in workload.load("gpt-oss-120b", "all").phases} == {True}
    (scale,) = {phase.problem.scale for phase in workload.load("gemma3-27b", "all").phases}
    assert isclose(scale, 1 / sqrt(168), rel_tol=1e-15)


def test_mistral_sees_the_last_4096_keys_of_any_prompt():
    prefill = phase_of("mistral-7b", "prefill", length=10_000)
    assert prefill.problem.pairs() == 32 * (10_000 * 4096 - 4096 * 4095 // 2)
    assert phase_of("mistral-7b", "decode", kv_len=10_000).problem.pairs() == 32 * 4096
    assert phase_of("mistral-7b", "decode", kv_len=100).problem.pairs() == 32 * 100


def test_pi0_reuses_one_prefix_in_ten_flow_steps():
    siglip, prefix, action = workload.load("pi0").phases
    assert (siglip.repeats, prefix.repeats, action.repeats) == (81, 18, 180)
    assert prefix.problem.q_len == siglip.steps * siglip.problem.q_len + 48
    assert action.problem.kv_len == prefix.problem.q_len + action.problem.q_len
    assert action.problem.group == 8
    assert siglip.problem.head_dim == 72
    assert phase_of("pi0", "training").problem.longest() == (867, 867)


def test_openvla_decodes_six_further_tokens():
    *_, prefill, decode = workload.load("openvla").phases
    assert decode.steps == 6
    lengths = [prefill.problem.q_len + i for i in range(1, decode.steps + 1)]
    assert decode.problem.kv_len == pytest.approx(sum(lengths) / len(lengths), abs=0.5)
    assert decode.problem.q_len == 1


def test_deepseek_expands_its_latent_rows_but_in_decode():
    prefill, decode = workload.load("deepseek-v3").phases
    assert (prefill.problem.head_dim, prefill.problem.value_dim, prefill.problem.group) == (128 + 64, 128, 1)
    latent = decode.problem
    assert (latent.head_dim, latent.value_dim, latent.shared_kv, latent.group) == (512 + 64, 512, True, 128)
    assert isclose(latent.scale, prefill.problem.scale, rel_tol=1e-15)  # absorbing changes no score
    assert prefill.latent == decode.latent == latent.head_dim


def test_whisper_reads_the_encoders_keys_for_every_token():
    encoder, _, cross = workload.load("whisper-large").phases
    assert cross.problem.longest() == (1, encoder.problem.q_len)


# Phases, lengths and other overrides


def test_a_run_by_default_one_phase_by_name_and_all():
    assert [p.name for p in loaded(MODEL).phases] == ["prefill", "decode"]
    assert [p.name for p in loaded(MODEL, "training").phases] == ["training"]
    assert [p.name for p in loaded(MODEL, "all").phases] == ["prefill", "decode", "training"]
    only = {**MODEL, "phase": MODEL["phase"][2:]}
    assert [p.name for p in loaded(only).phases] == ["training"]  # nothing else is there


def test_a_phase_has_what_the_model_says_and_may_say_otherwise():
    table = {**MODEL, "phase": [{"name": "a", "q_len": 8}, {"name": "b", "q_len": 8, "layers": 5, "mask": "full"}]}
    a, b = loaded(table).phases
    assert (a.layers, a.source, a.problem.band) == (2, "a test", CAUSAL)
    assert (b.layers, b.source, b.problem.band) == (5, "a test", FULL)


def test_kinds_of_layers():
    kinds = [{"name": "local", "layers": 3, "mask": "window:15"}, {"name": "global", "layers": 1}]
    kinds.append({"name": "sinks", "layers": 2, "mask": "sinks:4,20"})
    found = loaded({**MODEL, "model": {**MODEL["model"], "layers": kinds}}, "decode").phases
    assert [(p.name, p.stage, p.layers) for p in found] == [
        *(("decode (local)", "decode", 3), ("decode (global)", "decode", 1), ("decode (sinks)", "decode", 2)),
    ]
    assert [p.problem.pairs() for p in found] == [4 * 16, 4 * 128, 4 * 24]


LENGTHS = [
    ("prefill", {"length": 300}, (300, 300)),
    ("prefill", {"q_len": 300}, (300, 300)),
    ("prefill", {"q_len": 100, "kv_len": 300}, (100, 300)),  # a chunk after 200 cached keys
    ("training", {"length": 300}, (300, 300)),
    ("decode", {"length": 300}, (1, 300)),
    ("decode", {"kv_len": 300}, (1, 300)),
    ("decode", {"q_len": 4}, (4, 128)),  # speculative: four tokens at once
]


@pytest.mark.parametrize(("phase", "given", "lengths"), LENGTHS)
def test_a_length_is_what_the_phase_makes_of_it(phase, given, lengths):
    (found,) = loaded(MODEL, phase, **given).phases
    assert found.problem.longest() == lengths


@pytest.mark.parametrize("key", ["length", "q_len", "kv_len"])
def test_a_length_needs_one_phase(key):
    said = f"{key}=1,000: every phase has its own lengths; name one phase, prefill or decode or training"
    assert refusal(MODEL, **{key: 1000}) == refusal(MODEL, "all", **{key: 1000}) == said
    assert loaded(TABLE, q_len=77).phases[0].problem.longest() == (77, 77)  # the only one


def test_keys_alone_are_refused_where_they_are_the_queries_own():
    assert refusal(MODEL, "prefill", kv_len=1000) == (
        "phase 'prefill': kv_len=1,000: its keys are those of its 128 queries; give length (--N), "
        "or q_len too, for a chunk"
    )


def test_an_unknown_phase_gets_the_nearest_one():
    said = "phase 'decoding' is unknown, the nearest is 'decode'; mine has prefill, decode, training, or all"
    assert refusal(MODEL, "decoding") == said
    with pytest.raises(InputError, match="vit-b16 has encoder, training, or all"):
        workload.load("vit-b16", "decode")


@pytest.mark.parametrize("name", NAMES)
def test_overrides_reach_every_phase(name):
    for phase in workload.load(name, "all", dtype="bf16", batch=3).phases:
        assert (phase.problem.dtype, phase.problem.batch) == ("bf16", 3)


def test_what_has_gradients_is_no_cache():
    assert phase_of("llama3-8b", "prefill").caches
    training = phase_of("llama3-8b", "prefill", direction="fwd+bwd")
    assert training.problem.passes == ("fwd", "bwd")
    assert not training.caches
    with pytest.raises(InputError, match=r"phase 'decode': direction=fwd\+bwd: .* KV cache has no gradient"):
        workload.load("deepseek-v3", "decode", direction="fwd+bwd")


# Files of one's own


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WRITTEN)
    mine = workload.load(str(path))
    (phase,) = mine.phases
    assert (mine.name, mine.title, phase.repeats, phase.problem.kv_len) == ("mine", "Mine", 2, 8)


def test_the_example_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
    prefill, decode, training = loaded(tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]), "all").phases
    assert (prefill.problem.longest(), decode.problem.longest()) == ((8192, 8192), (1, 8192))
    assert training.problem.passes == ("fwd", "bwd")


def test_an_unknown_workload_gets_the_nearest_one():
    with pytest.raises(InputError, match="the nearest is 'llama3-8b'"):
        workload.load("lama3-8b")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError):
        workload.load(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("content", [b"title = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not TOML"):
        workload.load(str(path))


@pytest.mark.parametrize("table", [{}, {"title": "Mine"}, {"title": "Mine", "phase": []}, {"phase": [PHASE]}])
def test_a_title_and_a_phase_are_needed(table):
    assert refusal(table) == "a workload needs a title and at least one [[phase]]"


def test_an_unknown_key_gets_the_nearest_one():
    assert refusal({**TABLE, "tilte": "Mine"}) == "unknown key 'tilte'; did you mean 'title'?"
    assert refusal({"title": "Mine", "phase": [{**PHASE, "kv_haeds": 2}]}) == (
        "phase 'prefill': unknown key 'kv_haeds'; did you mean 'kv_heads'?"
    )


@pytest.mark.parametrize("key", PHASE)
def test_a_missing_key_is_named(key):
    message = refusal({"title": "Mine", "phase": [{k: v for k, v in PHASE.items() if k != key}]})
    assert message.endswith(f"the key '{key}' is missing")


def test_an_impossible_problem_names_the_file_and_the_phase(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WRITTEN + "kv_heads = 3\n")
    with pytest.raises(InputError, match=r"^mine\.toml: phase 'a': kv_heads=3: must divide heads=4"):
        workload.load(str(path))


def test_an_impossible_override_is_refused():
    assert "dtype 'fp17' is unknown" in refusal(TABLE, dtype="fp17")


def test_a_model_is_a_table_without_a_name():
    assert refusal({**TABLE, "model": 3}) == "what the phases have in common is a table: [model]"
    assert refusal({**TABLE, "model": {"head": 3}}) == "model: unknown key 'head'; did you mean 'heads'?"
    assert refusal({**TABLE, "model": {"name": "x"}}).startswith("model: unknown key 'name'")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"mask": "window:1,2,3"},
            "phase 'prefill': mask=1,2,3: a window has two sides; write LEFT,RIGHT, like 4095,0",
        ),
        (
            {"caches": "yes"},
            "phase 'prefill': caches=yes: whether the keys stay in the KV cache; the nearest legal value is true",
        ),
        ({"latent": 0}, "phase 'prefill': latent=0: must be at least 1; the nearest legal value is 1"),
        (
            {"layers": [{"layers": 3}]},
            "phase 'prefill': every kind of layers has a name and a number: { name = ..., layers = ... }",
        ),
        (
            {"layers": [{"name": "a", "layers": 3, "maks": "full"}]},
            "phase 'prefill': layers: unknown key 'maks'; did you mean 'mask'?",
        ),
    ],
)
def test_an_impossible_phase_is_refused(changed, said):
    assert refusal({"title": "Mine", "phase": [{**PHASE, **changed}]}) == said


def test_a_wrong_length_is_not_blamed_on_the_file():
    with pytest.raises(InputError, match=r"^length=0: must be at least 1"):
        workload.load("gpt2", "decode", length=0)
