"""Workloads: the tables load, give the key/value caches that the models are known for, and wrong files are refused."""

import re
import tomllib
from pathlib import Path

import pytest

from ioaware import workload
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL

NAMES = workload.names()
PHASE = {"name": "prefill", "source": "a test", "layers": 2, "heads": 4, "head_dim": 64, "q_len": 128}
TABLE = {"title": "Mine", "phase": [PHASE]}
WRITTEN = 'title = "Mine"\n[[phase]]\nname = "a"\nsource = "me"\nlayers = 2\nheads = 4\nhead_dim = 64\nq_len = 8\n'


def cache_bytes_per_token(phase):
    """What one token leaves behind for later ones, in 16-bit numbers."""
    problem = phase.problem
    return phase.layers * problem.kv_heads * (problem.head_dim + problem.value_dim) * 2


def refusal(table, **overrides):
    with pytest.raises(InputError) as error:
        workload.from_table("mine", table, overrides)
    return str(error.value)


# The built-in files


def test_all_sixteen_are_there():
    assert set(NAMES) == {
        *("vit-b16", "bert-base", "bert-large", "gpt2", "gpt2-medium", "gpt3", "llama-7b", "llama2-7b", "llama2-70b"),
        *("llama3-8b", "llama3-70b", "llama3.1-405b", "mistral-7b", "openvla", "pi0", "deepseek-v3"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_workload_is_sound(name):
    loaded = workload.load(name)
    assert loaded.name == name
    assert loaded.title
    assert len({phase.name for phase in loaded.phases}) == len(loaded.phases)
    for phase in loaded.phases:
        q_len, kv_len = phase.problem.longest()
        assert phase.source
        assert phase.repeats == phase.layers * phase.steps >= 1
        assert phase.problem.pairs() > 0
        assert kv_len >= q_len  # a causal mask with fewer keys than queries leaves queries that see nothing


@pytest.mark.parametrize("name", NAMES)
def test_every_phase_states_its_mask_and_a_repository(name):
    for phase in tomllib.loads((Path(workload.FOLDER) / f"{name}.toml").read_text(encoding="utf-8"))["phase"]:
        assert phase["mask"] in ("full", "causal")
        assert re.search(r"[\w-]+/[\w-]+", phase["source"])


@pytest.mark.parametrize("name", NAMES)
def test_encoders_see_everything_and_decoders_look_back(name):
    full = {"encoder", "siglip", "dinov2", "prefix", "action"}
    for phase in workload.load(name).phases:
        assert phase.problem.mask == (FULL if phase.name in full else CAUSAL)


@pytest.mark.parametrize(
    ("name", "phase", "size"),
    [
        ("gpt3", "prefill", 4_718_592),
        ("llama2-7b", "prefill", 524_288),
        ("llama2-70b", "prefill", 327_680),
        ("llama3-8b", "prefill", 131_072),
        ("llama3-70b", "prefill", 327_680),
        ("llama3.1-405b", "prefill", 516_096),
        ("mistral-7b", "prefill", 131_072),
        ("openvla", "prefill", 524_288),
        ("pi0", "prefix", 18_432),
        ("pi0", "action", 18_432),
    ],
)
def test_key_value_cache_bytes_per_token(name, phase, size):
    (found,) = (p for p in workload.load(name).phases if p.name == phase)
    assert cache_bytes_per_token(found) == size


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("vit-b16", 768), ("bert-base", 768), ("bert-large", 1024), ("gpt2", 768), ("gpt2-medium", 1024)),
        *(("gpt3", 12288), ("llama-7b", 4096), ("llama2-7b", 4096), ("llama2-70b", 8192), ("llama3-8b", 4096)),
        *(("llama3-70b", 8192), ("llama3.1-405b", 16384), ("mistral-7b", 4096)),
    ],
)
def test_heads_times_head_dim_is_the_models_width(name, width):
    (phase,) = workload.load(name).phases
    assert phase.problem.heads * phase.problem.head_dim == width


def test_pi0_reuses_one_prefix_in_ten_flow_steps():
    siglip, prefix, action = workload.load("pi0").phases
    assert (siglip.repeats, prefix.repeats, action.repeats) == (81, 18, 180)
    assert prefix.problem.q_len == siglip.steps * siglip.problem.q_len + 48
    assert action.problem.kv_len == prefix.problem.q_len + action.problem.q_len
    assert action.problem.group == 8
    assert siglip.problem.head_dim == 72


def test_openvla_decodes_six_further_tokens():
    *_, prefill, decode = workload.load("openvla").phases
    assert decode.steps == 6
    lengths = [prefill.problem.q_len + i for i in range(1, decode.steps + 1)]
    assert decode.problem.kv_len == pytest.approx(sum(lengths) / len(lengths), abs=0.5)
    assert decode.problem.q_len == 1


def test_deepseek_has_narrower_values_than_keys():
    (phase,) = workload.load("deepseek-v3").phases
    assert (phase.problem.head_dim, phase.problem.value_dim, phase.layers) == (192, 128, 61)


def test_mistrals_prompt_fits_its_window():
    (phase,) = workload.load("mistral-7b").phases
    assert phase.problem.q_len == 4096


# Overrides


@pytest.mark.parametrize("name", NAMES)
def test_overrides_reach_every_phase(name):
    for phase in workload.load(name, dtype="bf16", batch=3, direction="fwd+bwd").phases:
        assert phase.problem.dtype == "bf16"
        assert phase.problem.batch == 3
        assert phase.problem.passes == ("fwd", "bwd")


def test_an_override_wins_over_the_file():
    (phase,) = workload.load("gpt2", q_len=77).phases
    assert phase.problem.longest() == (77, 77)


# Files of one's own


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WRITTEN)
    mine = workload.load(str(path))
    (phase,) = mine.phases
    assert (mine.name, mine.title, phase.repeats, phase.problem.kv_len) == ("mine", "Mine", 2, 8)


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
