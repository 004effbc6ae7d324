"""Devices: the tables agree with themselves and with the papers; wrong digits and wrong files are refused."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from ioaware import device
from ioaware.cpu import this_cpu
from ioaware.errors import InputError

FILES = sorted(Path(device.FOLDER).glob("*.toml"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def parsed(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


def numbers(path):
    """{field: (value as written, source key)}"""
    return {key: entry for key, entry in parsed(path).items() if key in device.NUMBERS}


def bound_fields(path):
    """The fields of a file that enter an identity; from the text, so that a broken file fails its tests only."""
    given = numbers(path)
    bound = [(whole, *parts) for whole, parts in device.PARTS.items() if given.keys() >= {whole, *parts}]
    return [(path, field) for fields in bound for field in fields]


# The built-in files


@each_file
def test_a_built_in_file_loads_by_its_name(path):
    assert device.load(path.stem) == device.read(path)
    assert path.stem in device.names()


@each_file
def test_every_number_names_its_source(path):
    sources = device.read(path).sources
    for field, entry in numbers(path).items():
        assert isinstance(entry, list), field
        assert len(entry) == 2, field
        assert len(sources[field]) > 10, field
        assert sources[field] != device.GIVEN, field


@each_file
def test_every_source_is_used(path):
    assert set(parsed(path)["sources"]) <= {source for _, source in numbers(path).values()}


@each_file
def test_identities_hold_and_there_are_some(path):
    table = device.read(path)
    names = {name for name, given, expected in table.identities() if given == pytest.approx(expected, rel=0.01)}
    processor = set(device.PARTS) - {"link_bytes_per_s"} if table.kind == "gpu" else {"fp16_flop_per_s"}
    assert names == processor | ({"link_bytes_per_s"} if table.link else set())


@pytest.mark.parametrize(
    ("path", "field"), [pair for path in FILES for pair in bound_fields(path)], ids=lambda x: getattr(x, "stem", x)
)
def test_a_wrong_digit_is_refused(path, field):
    table = parsed(path)
    value, source = table[field]
    right = device.parse_field(field, value)
    wrong = max(right + 1, round(right * 1.1)) if isinstance(right, int) else right * 1.1
    table[field] = [wrong, source]
    with pytest.raises(InputError, match=r"its parts give .* they may differ by 1%"):
        device.from_table(table)


@each_file
def test_capacities_are_ordered(path):
    table = device.read(path)
    assert (table.shared_bytes or 0) <= table.sram_bytes < table.hbm_bytes
    assert table.sm_count * table.sram_bytes < table.hbm_bytes


def test_aliases_are_distinct_and_no_file_names():
    aliases = [alias for path in FILES for alias in device.read(path).aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & {path.stem for path in FILES}
    assert all(alias == alias.lower() for alias in aliases)


@pytest.mark.parametrize(
    ("alias", "stem"),
    [("a100", "a100-sxm-40gb"), ("A100", "a100-sxm-40gb"), ("h100", "h100-sxm"), ("v100", "v100-sxm2")],
)
def test_an_alias_is_its_device(alias, stem):
    assert device.load(alias) == device.load(stem)


# What the papers print


def test_a100_as_flashattention_describes_it():
    a100 = device.load("a100")
    assert a100.sram_bytes == 192 * 1024
    assert a100.sm_count * a100.sram_bytes == pytest.approx(20e6, rel=0.07)  # figure 1: 20 MB
    assert round(a100.sram_bytes_per_s / 1e12) == 19  # figure 1: 19 TB/s
    assert round(a100.hbm_bytes_per_s / 1e12, 1) in (1.5, 1.6)  # figure 1: 1.5 TB/s
    assert round(a100.fp16_flop_per_s / 1e12) == 312


def test_h100_as_flashattention3_describes_it():
    h100 = device.load("h100")
    assert h100.sm_count == 132
    assert round(h100.sram_bytes_per_s / 1e12) == 31  # table 1: 31 TB/s
    assert round(h100.exps_per_s / 1e12, 1) == 3.9  # section 3.1: 3.9 T exponentials/s
    assert round(h100.fp16_flop_per_s / 1e12) == 989
    assert round(h100.hbm_bytes_per_s / 1e12, 2) == 3.35
    assert h100.l2_bytes_per_s == 12e12
    assert h100.l2_bytes == 50 * 1024**2


def test_b200_as_flashattention4_describes_it():
    b200 = device.load("b200")
    assert (b200.matmul_flop_per_clock, b200.exps_per_clock, b200.sram_bytes_per_clock) == (8192, 16, 128)
    assert b200.mma_rows == 128


@pytest.mark.parametrize(
    ("name", "ratio"), [("v100", 0.125), ("a100", 0.25), ("h100", 0.5), ("b200", 1.0)]
)  # FlashAttention-3, section 3.1: 256 times fewer exponentials than matrix FLOP on an H100, 512 times fewer needed
def test_exponentials_take_this_much_of_the_matrix_time_at_head_dim_128(name, ratio):
    gpu = device.load(name)
    assert gpu.fp16_flop_per_s / (4 * 128) / gpu.exps_per_s == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize(
    ("name", "rate"), [("a100", 300e9), ("tpu-v4", 268e9), ("tpu-v5e", 186e9)]
)  # Ring Attention, table 2, where a TPU v5e's four links are 46.5 GB/s each and not 45
def test_links_as_ring_attention_lists_them(name, rate):
    assert device.load(name).link_bytes_per_s == pytest.approx(rate, rel=0.04)


@each_file
def test_a_link_is_described_whole_and_is_faster_than_the_host(path):
    table = device.read(path)
    described = [table.links, table.per_link_bytes_per_s, table.link_bytes_per_s, table.link_devices]
    assert [n is not None for n in described] == [bool(table.link)] * 4
    rates = [r for r in (table.pcie_bytes_per_s, table.link_bytes_per_s, table.hbm_bytes_per_s) if r is not None]
    assert len(rates) >= 2
    assert rates == sorted(rates)


def test_unknown_rates_are_none_not_invented():
    assert device.load("b200").l2_bytes_per_s is None
    assert device.load("tpu-v4").exps_per_s is None
    assert device.load("tpu-v5p").sram_bytes_per_s is None


@pytest.mark.parametrize(
    ("name", "dtype", "field"),
    [
        ("h100", "fp16", "fp16_flop_per_s"),
        ("h100", "bf16", "fp16_flop_per_s"),
        ("h100", "fp32", "fp32_flop_per_s"),
        ("h100", "fp8_e4m3", "fp8_flop_per_s"),
        ("a100", "fp8_e5m2", "fp16_flop_per_s"),
        ("a100", "tf32", "tf32_flop_per_s"),
        ("v100", "tf32", "fp32_flop_per_s"),  # it knows no tf32: frameworks compute such products in fp32
        ("t4", "tf32", "fp32_flop_per_s"),
    ],
)
def test_matrix_peak_of_a_number_format(name, dtype, field):
    gpu = device.load(name)
    assert gpu.matmul_flop_per_s(dtype) == getattr(gpu, field)


@each_file
def test_tf32_runs_at_half_the_16_bit_peak_from_compute_capability_8_on(path):
    """Inputs twice as wide; datasheets round, the L40S's two figures by 1.2 %."""
    table = device.read(path)
    if table.tf32_flop_per_s is None:
        assert table.kind == "tpu" or table.name.startswith("AMD") or float(table.compute_capability) < 8
    else:
        assert table.tf32_flop_per_s == pytest.approx(table.fp16_flop_per_s / 2, rel=0.015)


def test_no_matrix_peak_is_claimed_for_fp64():
    assert device.load("h100").matmul_flop_per_s("fp64") is None


# What-if devices


SETTINGS = [
    {"sm_count": 7},
    {"clock_hz": "1GHz"},
    {"matmul_flop_per_clock": 12345},
    {"fp16_flop_per_s": "1TFLOP/s"},
    {"hbm_bytes_per_s": "1TB/s"},
    {"sram_bytes": "32KB"},
    {"sm_count": 7, "fp16_flop_per_s": "1TFLOP/s"},
    {"memory_transfers_per_s": "9GT/s", "boost_hz": "3GHz"},
    {"per_link_bytes_per_s": "1GB/s"},
]


@each_file
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "+".join(settings))
def test_a_what_if_keeps_the_identities(path, settings):
    changed = device.read(path).with_settings(settings)
    for field, text in settings.items():
        assert getattr(changed, field) == device.parse_field(field, text)
        assert changed.sources[field] == device.GIVEN
    for _, given, expected in changed.identities():
        assert given == pytest.approx(expected, rel=0.01)


def test_more_sms_are_more_flops():
    a100 = device.load("a100")
    doubled = a100.with_settings({"sm_count": 216})
    assert doubled.fp16_flop_per_s == pytest.approx(2 * a100.fp16_flop_per_s, rel=0.01)
    assert doubled.hbm_bytes_per_s == a100.hbm_bytes_per_s


def test_other_formats_gain_and_lose_with_the_matrix_units():
    h100 = device.load("h100")
    slower = h100.with_settings({"clock_hz": "0.915GHz"})
    assert slower.fp8_flop_per_s == pytest.approx(h100.fp8_flop_per_s / 2, rel=0.01)
    assert slower.tf32_flop_per_s == pytest.approx(h100.tf32_flop_per_s / 2, rel=0.01)
    assert h100.with_settings({"fp16_flop_per_s": "1TFLOP/s"}).tf32_flop_per_s == h100.tf32_flop_per_s
    assert device.load("v100").with_settings({"clock_hz": "1GHz"}).tf32_flop_per_s is None


def test_a_thread_block_gains_and_loses_with_the_fast_memory_of_a_what_if():
    a100 = device.load("a100")
    assert a100.with_settings({"sram_bytes": "192KB"}).shared_bytes == a100.shared_bytes
    assert a100.with_settings({"sram_bytes": "1MB"}).shared_bytes == a100.shared_bytes + 1024**2 - 192 * 1024
    assert a100.with_settings({"sram_bytes": "48KB"}).shared_bytes == 48 * 1024


@pytest.mark.parametrize(
    "settings", [{"sram": "1MB"}, {"sram_bytes": "1Mb"}, {"hbm_bytes_per_s": "fast"}, {"sm_count": 0}]
)
def test_a_wrong_setting_is_refused(settings):
    with pytest.raises(InputError):
        device.load("a100").with_settings(settings)


# Files of one's own


MINIMAL = {"name": "mine", "sm_count": 4, "sram_bytes": "64KB", "hbm_bytes": "1GB"}


def refusal(table):
    with pytest.raises(InputError) as error:
        device.from_table(table)
    return str(error.value)


def test_bare_numbers_are_the_users(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsm_count = 4\nsram_bytes = "64KB"\nl2_bytes = "1MB"\nhbm_bytes = "1GB"\n')
    mine = device.load(str(path))
    assert (mine.sm_count, mine.sram_bytes, mine.hbm_bytes) == (4, 65536, 1024**3)
    assert set(mine.sources.values()) == {device.GIVEN}


def test_an_unknown_key_gets_the_nearest_one():
    assert refusal({**MINIMAL, "sm_cuont": 4}) == "unknown key 'sm_cuont'; did you mean 'sm_count'?"


@pytest.mark.parametrize("key", MINIMAL)
def test_a_missing_key_is_named(key):
    assert f"the key '{key}' is missing" in refusal({k: v for k, v in MINIMAL.items() if k != key})


def test_a_source_must_be_explained():
    assert "'datasheet', which [sources] does not explain" in refusal({**MINIMAL, "sm_count": [4, "datasheet"]})


@pytest.mark.parametrize(
    ("small", "large"), [("shared_bytes", "sram_bytes"), ("sram_bytes", "hbm_bytes"), ("l2_bytes", "hbm_bytes")]
)
def test_a_part_larger_than_the_whole_is_refused(small, large):
    message = refusal({**MINIMAL, small: "2GB"})
    assert small in message
    assert large in message


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 'x'\nname = 'y'"])
def test_a_file_that_is_not_toml(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not TOML"):
        device.load(str(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        device.load(str(tmp_path / "absent.toml"))


def test_a_refused_file_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n')
    with pytest.raises(InputError, match=r"^mine\.toml: the key 'sm_count' is missing"):
        device.load(str(path))


@pytest.mark.parametrize(
    ("typed", "meant"), [("h10", "h100"), ("a1000", "a100"), ("mi300", "mi300x"), ("tpuv4", "tpu-v4")]
)
def test_an_unknown_device_gets_the_nearest_one(typed, meant):
    with pytest.raises(InputError, match=f"the nearest is '{meant}'"):
        device.load(typed)


# The machine itself


def linux(root, caches, cpuinfo, meminfo="MemTotal:       1048576 kB\nMemFree:  1 kB\n"):
    """A fake /proc and /sys: caches are (type, level, size, shared_cpu_list)."""
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    if meminfo:
        (root / "proc/meminfo").write_text(meminfo)
    for i, described in enumerate(caches):
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{i}"
        folder.mkdir(parents=True)
        for name, text in zip(("type", "level", "size", "shared_cpu_list"), described, strict=True):
            if text:
                (folder / name).write_text(f"{text}\n")
    return root


def x86(sockets=1, cores=2, threads=1):
    blocks = [
        f"processor\t: {s + c + t}\nmodel name\t: Fast CPU\nphysical id\t: {s}\ncore id\t\t: {c}\n"
        for s in range(sockets)
        for c in range(cores)
        for t in range(threads)
    ]
    return "\n".join(blocks)


ARM = "processor\t: 0\nBogoMIPS\t: 38\n\nprocessor\t: 1\nBogoMIPS\t: 38\n"
L1 = [("Data", "1", "48K", "0,2"), ("Instruction", "1", "32K", "0,2")]
L2 = ("Unified", "2", "1024K", "0,2")
L3 = ("Unified", "3", "32768K", "0-3")


def test_linux_with_a_private_l2_and_a_shared_l3(tmp_path):
    cpu = this_cpu(linux(tmp_path, [*L1, L2, L3], x86(cores=2, threads=2)))
    assert (cpu.name, cpu.kind, cpu.sm_count) == ("Fast CPU", "cpu", 2)
    assert (cpu.sram_bytes, cpu.l2_bytes, cpu.hbm_bytes) == (2**20, 2**25, 2**30)
    assert cpu.sources["sram_bytes"] == "/sys/devices/system/cpu/cpu0/cache/index2: level 2"
    assert cpu.sources["l2_bytes"] == "/sys/devices/system/cpu/cpu0/cache/index3: level 3"
    assert cpu.sources["hbm_bytes"] == "/proc/meminfo: MemTotal"


def test_linux_with_an_l1_only(tmp_path):
    cpu = this_cpu(linux(tmp_path, L1, x86()))
    assert (cpu.sram_bytes, cpu.l2_bytes) == (48 * 1024, 48 * 1024)


@pytest.mark.parametrize("sharers", ["0-3", "0,2"], ids=["shared", "private"])
def test_linux_whose_l2_is_the_last(tmp_path, sharers):
    cpu = this_cpu(linux(tmp_path, [*L1, ("Unified", "2", "2048K", sharers)], ARM))
    assert (cpu.name, cpu.sm_count) == ("CPU", 2)
    assert (cpu.sram_bytes, cpu.l2_bytes) == (48 * 1024, 2**21)


def test_linux_counts_cores_of_all_sockets_and_no_threads(tmp_path):
    assert this_cpu(linux(tmp_path, L1, x86(sockets=2, cores=8, threads=2))).sm_count == 16


@pytest.mark.parametrize(
    "caches", [[], [("Instruction", "1", "32K", "0")], [("Data", "1", "", "0")], [("Data", "1", "0K", "0")]]
)
def test_linux_that_tells_no_cache_sizes(tmp_path, caches):
    with pytest.raises(InputError, match="describe it in a TOML file"):
        this_cpu(linux(tmp_path, caches, x86()))


def test_linux_that_tells_no_memory_size(tmp_path):
    with pytest.raises(InputError, match="describe it in a TOML file"):
        this_cpu(linux(tmp_path, L1, x86(), meminfo=""))


def macos(monkeypatch, told):
    """`sysctl -n KEY` of a fake machine; unknown keys fail as they do there."""

    def run(command, **_):
        known = command[-1] in told
        return subprocess.CompletedProcess(command, not known, f"{told[command[-1]]}\n" if known else "", "")

    monkeypatch.setattr(subprocess, "run", run)


def test_macos_on_apple_silicon(tmp_path, monkeypatch):
    p = "hw.perflevel0."
    macos(
        monkeypatch,
        {
            "machdep.cpu.brand_string": "Apple M1",
            "hw.physicalcpu": 8,
            "hw.memsize": 2**34,
            p + "l1dcachesize": 131072,
            p + "l2cachesize": 12582912,
            "hw.l1dcachesize": 65536,
            "hw.l2cachesize": 4194304,
        },
    )
    cpu = this_cpu(tmp_path)
    assert (cpu.name, cpu.sm_count, cpu.hbm_bytes) == ("Apple M1", 8, 2**34)
    assert (cpu.sram_bytes, cpu.l2_bytes) == (131072, 12582912)
    assert cpu.sources["l2_bytes"] == "sysctl hw.perflevel0.l2cachesize"


def test_macos_on_intel(tmp_path, monkeypatch):
    sizes = {"hw.l1dcachesize": 32768, "hw.l2cachesize": 262144, "hw.l3cachesize": 2**24}
    macos(monkeypatch, {"hw.ncpu": 12, "hw.memsize": 2**34, **sizes})
    cpu = this_cpu(tmp_path)
    assert (cpu.sm_count, cpu.sram_bytes, cpu.l2_bytes) == (12, 262144, 2**24)
    assert cpu.sources["sm_count"] == "sysctl hw.ncpu"


def test_a_machine_with_neither_proc_nor_sysctl(tmp_path, monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(InputError, match="describe it in a TOML file"):
        this_cpu(tmp_path)


def test_this_machine():
    told = Path("/sys/devices/system/cpu/cpu0/cache/index0/size")
    if not told.is_file():
        pytest.skip("this system does not describe its caches in /sys")
    cpu = device.load("cpu")
    assert cpu.kind == "cpu"
    assert cpu.sm_count >= 1
    assert cpu.sram_bytes <= cpu.l2_bytes < cpu.hbm_bytes
    assert set(cpu.sources) == {"sm_count", "sram_bytes", "l2_bytes", "hbm_bytes"}
    assert all(getattr(cpu, rate) is None for rate in device.NUMBERS if rate.endswith("_per_s"))
    assert "cpu" in device.names()
