"""Every wrong input is refused before anything runs: one sentence on stderr, exit code 2, nothing on stdout.

The sentences are snapshots, to be read: `pytest tests/messages --snapshot-update`, then `git diff`.
"""

from __future__ import annotations

import re
import shlex

import pytest

from tests.messages.command import call, spawn, written
from tests.messages.programs import BROKEN, FLASH2, SLIPS, WRONG, edited

DEVICE = 'name = "mine"\nsm_count = 4\nsram_bytes = "64KB"\nhbm_bytes = "1GB"\n'
PHASE = '[[phase]]\nname = "a"\nsource = "me"\nlayers = 2\nheads = 4\nhead_dim = 64\nq_len = 8\n'
WORKLOAD = f'title = "Mine"\n{PHASE}'


def lines(table):
    """Command lines, one a line, as a user types them."""
    return [line.strip() for line in table.strip().splitlines() if line.strip()]


def refused(folder, command, files=None, code=2, env=None):
    """The sentence on stderr, after everything else that a refusal must be has been checked."""
    result = call(written(folder, files or {}), *shlex.split(command), env=env)
    return sentence(folder, result, code)


def sentence(folder, result, code=2):
    assert result.out == ""
    assert result.code == code
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1, result.err
    assert result.err.endswith("\n")
    assert str(folder) not in result.err
    return result.err.rstrip("\n")


# ------------------------------------------------------------------------------------------------ options
COUNTS = ("N", "q-len", "kv-len", "d", "d-v", "heads", "kv-heads", "batch")
WRONG_COUNTS = ("0", "-1", "nan", "inf", "1e30", "10000000000000001", "1.5", "12B", "8Kb", "''", "many")
OPTIONS = [f"simulate --{name} {value}" for name in COUNTS for value in WRONG_COUNTS]
OPTIONS += lines("""
    simulate --N -inf
    simulate --N 1e400
    simulate --N 0x10
    simulate --N 8KiB
    simulate --N ,
    simulate --N 999999999999999999999999999999999999999999999999999999999999999999999999999999
    simulate --d 100000
    simulate --d 1e15
    simulate --d-v 100000
    simulate --heads 8 --kv-heads 3
    simulate --heads 8 --kv-heads 16
    simulate --heads 1e15 --kv-heads 7
    simulate --heads 999999999999989 --kv-heads 2
    simulate --kv-heads 2

    simulate --dtype fp17
    simulate --dtype int8
    simulate --dtype uint8
    simulate --dtype ''
    simulate --mask cuasal
    simulate --mask window
    simulate --dropout -0.1
    simulate --dropout 1
    simulate --dropout 1.5
    simulate --dropout nan
    simulate --dropout inf
    simulate --dropout 1e30
    simulate --dropout 10%
    simulate --dropout 0,1
    simulate --dropout ''
    simulate --dropout some
    simulate --direction forward
    simulate --direction backward
    simulate --direction bwd+fwd
    simulate --direction ''
    simulate --N 64 --alg split_kv --direction bwd
    simulate --N 64 --alg flash2 --alg split_kv --direction fwd+bwd

    simulate --device h10
    simulate --device a100.tml
    simulate --device absent.toml
    simulate --device ''
    simulate --sram 0
    simulate --sram -192KB
    simulate --sram nan
    simulate --sram inf
    simulate --sram 1e30
    simulate --sram 10000000000000001
    simulate --sram 1PB
    simulate --sram 192kb
    simulate --sram 192Kb
    simulate --sram 192Kbit
    simulate --sram 192KBit
    simulate --sram 192XB
    simulate --sram 192KB/s
    simulate --sram 1.5
    simulate --sram 1.0001KB
    simulate --sram 0.3B
    simulate --sram ''
    simulate --sram KB
    simulate --sram 192
    simulate --sram 1KB
    simulate --sram 13440 --direction fwd+bwd
    simulate --sram 100GB
    simulate --set sram_bytes
    simulate --set ''
    simulate --set =5
    simulate --set sm_coutn=5
    simulate --set name=mine
    simulate --set sm_count=0
    simulate --set sm_count=1.5
    simulate --set sm_count=108B
    simulate --set l2_bytes=
    simulate --set l2_bytes=-1
    simulate --set l2_bytes=nan
    simulate --set l2_bytes=80Mb
    simulate --set l2_bytes=1PB
    simulate --set l2_bytes=1TB
    simulate --set hbm_bytes=1KB
    simulate --set shared_bytes=1MB
    simulate --set hbm_bytes_per_s=0
    simulate --set hbm_bytes_per_s=-3GB/s
    simulate --set hbm_bytes_per_s=nan
    simulate --set hbm_bytes_per_s=inf
    simulate --set hbm_bytes_per_s=1e30
    simulate --set hbm_bytes_per_s=1e400
    simulate --set hbm_bytes_per_s=1555GB
    simulate --set hbm_bytes_per_s=1555Gbit/s
    simulate --set hbm_bytes_per_s=
    simulate --set fp16_flop_per_s=312TFLOP/s --set matmul_flop_per_clock=1

    simulate --alg flash5
    simulate --alg FLASH2
    simulate --alg flash2,naive
    simulate --alg ''
    simulate --tiles 128
    simulate --tiles x64
    simulate --tiles 128x
    simulate --tiles 0x64
    simulate --tiles 64x0
    simulate --tiles -128x64
    simulate --tiles axb
    simulate --tiles nanxinf
    simulate --tiles 1e30x64
    simulate --tiles 128x64.5
    simulate --tiles 128x64x32
    simulate --tiles 128,64
    simulate --tiles bst
    simulate --tiles Best
    simulate --tiles ''
    simulate --tiles 1024x1024
    simulate --tiles 128x64 --sram 16KB
    simulate --tiles 128x64 --sram 1KB
    simulate --tiles shipped --d 257
    simulate --tiles shipped --d 512
    simulate --gemm-tiles 128
    simulate --gemm-tiles best
    simulate --gemm-tiles 0x0
    simulate --gemm-tiles 1e30x1

    simulate --workload pi1
    simulate --workload absent.toml
    simulate --workload pi0 --N 5
    simulate --workload pi0 --q-len 5
    simulate --workload pi0 --kv-len 5
    simulate --workload pi0 --d 5
    simulate --workload pi0 --d-v 5
    simulate --workload pi0 --heads 5
    simulate --workload pi0 --kv-heads 5
    simulate --workload pi0 --mask causal
    simulate --workload pi0 --causal
    simulate --workload pi0 --batch 0
    simulate --workload pi0 --dtype fp17
    simulate --workload pi0 --dropout 2
    simulate --workload pi0 --direction forward
    simulate --workload pi0 --sram 1KB
    simulate --workload pi0 --tiles 128x128

    fits --N 0
    fits --d 100000
    fits --sram 192kb
    fits --sram 1KB
    fits --set sram_bytes
    fits --heads 8 --kv-heads 3
    fits --direction forward
    fits --alg split_kv --direction bwd
    fits --device h10
    fits --alg flash9
    fits --alg naive

    list devces
    list ''
    list devices h10
    list workloads pi1
    list algorithms flash2
    list dtypes fp16
    cite --alg flash9
    cite --alg ''
    completion bsh
    completion powershell
    completion ''
""")


@pytest.mark.parametrize("command", OPTIONS)
def test_an_option(command, tmp_path, snapshot):
    assert refused(tmp_path, command) == snapshot


LONG = "a" * 300  # more than a file system allows


@pytest.mark.parametrize("option", ["--device", "--workload"])
@pytest.mark.parametrize("suffix", ["", ".toml"])
def test_a_name_that_no_file_can_have(option, suffix, tmp_path):
    refused(tmp_path, f"simulate {option} {LONG}{suffix}")


# What click itself says depends on its version: only what must be in it is checked.
CLICK = [
    ("simulate --N", "--N"),
    ("simulate --n 5", "--N"),
    ("simulate --srma 192KB", "--sram"),
    ("simulate --hed 5", "--heads"),
    ("simulate --json=yes", "--json"),
    ("simulate --causal=1", "--causal"),
    ("simulate --sram 192 KB", "KB"),
    ("simulate extra", "extra"),
    ("simulate -x", "-x"),
    ("simulat", "simulat"),
    ("--foo", "--foo"),
    ("fits --tiles 128x64", "--tiles"),
    ("cite extra", "extra"),
    ("cite --agl flash2", "--alg"),
    ("list devices h100 extra", "extra"),
    ("list --foo", "--foo"),
    ("completion", "bash|zsh|fish"),
    ("completion bash zsh", "zsh"),
    ("config extra", "extra"),
]


@pytest.mark.parametrize(("command", "named"), CLICK, ids=[command for command, _ in CLICK])
def test_what_click_refuses(command, named, tmp_path):
    assert named in refused(tmp_path, command)


# ------------------------------------------------------------------------------------------------ environment
ENVIRONMENT = [
    ("N", "-1"),
    ("SRAM", "192kb"),
    ("DEVICE", "h10"),
    ("D_V", "0"),
    ("KV_HEADS", "3"),
    ("GEMM_TILES", "x"),
    ("DROPOUT", "nan"),
    ("MASK", "cuasal"),
]


@pytest.mark.parametrize(("name", "value"), ENVIRONMENT, ids=[f"IOAWARE_{n}={v}" for n, v in ENVIRONMENT])
def test_an_environment_variable(name, value, tmp_path, snapshot):
    assert refused(tmp_path, "simulate", env={f"IOAWARE_{name}": value}) == snapshot


# ------------------------------------------------------------------------------------------------ ioaware.toml
CONFIGURATION = lines("""
    srma = "192KB"
    n = 8192
    d_v = 64
    "" = 1
    help = true
    sram = "192kb"
    sram = 192
    N = 0
    N = -1
    N = 8.5
    N = 1e30
    N = nan
    N = inf
    N = true
    N = []
    N = {}
    N = 1979-05-27
    N = ["1", "2"]
    batch = ""
    dtype = ""
    alg = ["flash9"]
    alg = [1]
    set = ["l2_bytes"]
    program = "absent.py"
    workload = "pi1"
""")


@pytest.mark.parametrize("text", CONFIGURATION)
def test_a_configuration_file(text, tmp_path, snapshot):
    assert refused(tmp_path, "simulate", {"ioaware.toml": text}) == snapshot


@pytest.mark.parametrize("command", ["fits", "config", "list", "cite"])
def test_a_configuration_file_is_checked_by_every_command(command, tmp_path):
    assert "did you mean 'sram'?" in refused(tmp_path, command, {"ioaware.toml": 'srma = "192KB"'})


# What Python's TOML reader, its decoder and its compiler say depends on its version.
FOREIGN = {
    "ioaware.toml without a value": ("simulate", {"ioaware.toml": "N ="}, "ioaware.toml' is not TOML: "),
    "ioaware.toml with a key twice": ("simulate", {"ioaware.toml": "N = 1\nN = 2"}, "ioaware.toml' is not TOML: "),
    "ioaware.toml in no encoding": ("simulate", {"ioaware.toml": b"\xff\xfe"}, "ioaware.toml' is not TOML: "),
    "a flag that is no flag": ("simulate", {"ioaware.toml": 'causal = "maybe"'}, "'maybe' is not a valid boolean"),
    "a device that is not TOML": ("simulate --device m.toml", {"m.toml": "name ="}, "'m.toml' is not TOML: "),
    "a device in no encoding": ("simulate --device m.toml", {"m.toml": b"\xff\xfe"}, "'m.toml' is not TOML: "),
    "a device that is a folder": ("simulate --device m.toml", {"m.toml": None}, "'m.toml': "),
    "a workload that is not TOML": ("simulate --workload m.toml", {"m.toml": "title ="}, "'m.toml' is not TOML: "),
    "a workload in no encoding": ("simulate --workload m.toml", {"m.toml": b"\xff\xfe"}, "'m.toml' is not TOML: "),
    "a workload that is a folder": ("simulate --workload m.toml", {"m.toml": None}, "'m.toml': "),
    "a program that is no text": ("simulate --program m.py", {"m.py": b"\xff\xfe\x00"}, "'m.py' does not run: "),
    "a program that is not Python": ("simulate --program m.py", {"m.py": "a program"}, "does not run: SyntaxError: "),
    "a program that never ends": ("simulate --program m.py", {"m.py": "def f(): f()\nf()"}, "run: RecursionError"),
}


@pytest.mark.parametrize(("command", "files", "said"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_python_refuses(command, files, said, tmp_path):
    assert said in refused(tmp_path, command, files)


# ------------------------------------------------------------------------------------------------ device files
def device(old, new):
    assert old in DEVICE
    return DEVICE.replace(old, new)


SM_COUNTS = lines("""
    0
    -3
    1.5
    nan
    inf
    1e30
    true
    ""
    "4B"
    []
    [4]
    [4, "me"]
    [4, "me", 3]
    {a = 1}
""")
DEVICES = {
    **{f"sm_count = {value}": device("= 4", f"= {value}") for value in SM_COUNTS},
    **{f"sram_bytes = {value}": device('"64KB"', value) for value in ('"64kb"', '"2GB"', '""', "1.5", "true")},
    "name = 5": device('"mine"', "5"),
    "nothing": "",
    "no memory": device("hbm_bytes", "# hbm_bytes"),
    **{
        added: f"{DEVICE}{added}\n"
        for added in lines("""
            sm_cuont = 1
            kind = 3
            aliases = "a"
            aliases = [1]
            compute_capability = 8.0
            clock_hz = 0
            clock_hz = -1.0
            clock_hz = true
            clock_hz = "1.4GB"
            clock_hz = "1e999"
            l2_bytes = "2GB"
            shared_bytes = "65KB"
            hbm_bytes_per_s = []
            exps_per_clock = [1e30, "unverified"]
            sources = 3
            """)
    },
    "a product of other parts": f"{DEVICE}memory_bus_bytes = 10\nmemory_transfers_per_s = 10\nhbm_bytes_per_s = 1000\n",
    "an unknown table": f"{DEVICE}[other]\na = 1\n",
}


@pytest.mark.parametrize("text", DEVICES.values(), ids=DEVICES)
def test_a_device_file(text, tmp_path, snapshot):
    assert refused(tmp_path, "simulate --device mine.toml", {"mine.toml": text}) == snapshot


# ------------------------------------------------------------------------------------------------ workload files
def phase(old, new):
    assert old in WORKLOAD
    return WORKLOAD.replace(old, new)


LAYERS = ("0", "-1", "2.0", "1e30", "nan", '"2"', "true", "[2]")
Q_LENS = ("0", "-8", "10000000000000000", "true", '"8"', "[]", "[1, 0]", "{a = 1}")
WORKLOADS = {
    **{f"layers = {value}": phase("layers = 2", f"layers = {value}") for value in LAYERS},
    **{f"q_len = {value}": phase("q_len = 8", f"q_len = {value}") for value in Q_LENS},
    "no layers": phase("layers", "# layers"),
    "no phase": 'title = "Mine"\n',
    "no phases": 'title = "Mine"\nphase = []\n',
    "phase = 3": 'title = "Mine"\nphase = 3\n',
    "phase = [3]": 'title = "Mine"\nphase = [3]\n',
    "no title": PHASE,
    "nothing": "",
    "titel": phase("title", "titel"),
    "head_dim = 100000": phase("head_dim = 64", "head_dim = 100000"),
    "kv_len = [1, 2, 3] for two": phase("q_len = 8", "q_len = [1, 2]\nkv_len = [1, 2, 3]"),
    **{
        added: f"{WORKLOAD}{added}\n"
        for added in lines("""
            kv_haeds = 1
            kv_heads = 3
            kv_len = 0
            value_dim = 0
            steps = 0
            steps = "x"
            mask = "cuasal"
            mask = 3
            mask = [1]
            dtype = "fp16"
            """)
    },
}


@pytest.mark.parametrize("text", WORKLOADS.values(), ids=WORKLOADS)
def test_a_workload_file(text, tmp_path, snapshot):
    assert refused(tmp_path, "simulate --workload mine.toml", {"mine.toml": text}) == snapshot


def test_a_workload_of_two_lengths_is_no_batch_of_three(tmp_path, snapshot):
    files = {"mine.toml": phase("q_len = 8", "q_len = [1, 2]")}
    assert refused(tmp_path, "simulate --workload mine.toml --batch 3", files) == snapshot


# ------------------------------------------------------------------------------------------------ program files
PROGRAMS = {
    "no such file": ("simulate --program absent.py", {}),
    "a folder": ("simulate --program mine.py", {"mine.py": None}),
    "not .py": ("simulate --program mine.txt", {"mine.txt": FLASH2}),
    "no suffix": ("simulate --program mine", {"mine": FLASH2}),
    "empty": ("simulate --program mine.py", {"mine.py": ""}),
    "no program": ("simulate --program mine.py", {"mine.py": "def f(a):\n    pass\n"}),
    "a backward pass alone": ("simulate --program mine.py", {"mine.py": edited(("def mine", "def mine_backward"))}),
    "raises": ("simulate --program mine.py", {"mine.py": "raise ValueError('boom')"}),
    "imports what is absent": ("simulate --program mine.py", {"mine.py": "import nothing_of_that_name"}),
    "no backward pass": ("simulate --program mine.py --direction bwd", {"mine.py": FLASH2}),
    "no backward pass for both": ("simulate --program mine.py --direction fwd+bwd", {"mine.py": FLASH2}),
    "tiles too large": ("simulate --program mine.py --tiles 1024x1024", {"mine.py": FLASH2}),
    **{why: ("simulate --program mine.py", {"mine.py": text}) for why, text in BROKEN.items()},
}


@pytest.mark.parametrize(("command", "files"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_file(command, files, tmp_path, snapshot):
    assert refused(tmp_path, command, files) == snapshot


# A program that computes something else fails its verification: exit code 1, and no number is printed.
VERIFIED = {
    **{why: ("", text) for why, text in WRONG.items()},
    "the causal mask ignored": ("--causal", edited(("p.mask(p.scale * (q @ k.T), i, j)", "p.scale * (q @ k.T)"))),
    "dropout ignored": ("--dropout 0.1", edited(("p.drop(e, h, g, i, j)", "e"))),
}


@pytest.mark.parametrize(("options", "text"), VERIFIED.values(), ids=VERIFIED)
def test_a_wrong_program(options, text, tmp_path, snapshot):
    assert refused(tmp_path, f"simulate --program mine.py {options}", {"mine.py": text}, code=1) == snapshot


LEFT_OUT = ["--mask padding", "--softcap 50", "--alibi", "--bias full", "--sinks", "--page-size 16", "--kv-dtype int8"]


@pytest.mark.parametrize("options", LEFT_OUT)
def test_a_program_without_what_its_problem_has(options, tmp_path, snapshot):
    assert refused(tmp_path, f"simulate --program mine.py {options}", {"mine.py": FLASH2}) == snapshot


# ------------------------------------------------------------------------------------------------ the advice
ADVICE = re.compile(r"Error: (?:--)?([\w-]+)=.*the nearest legal value is ([\d,.x]+(?: B)?)(?:, or .*)?$")
CHOICES = re.compile(r"(?:nearest and legal:|the nearest legal value of) (\w+)(?:=| is )([\d,]*\d)")
MEANT = re.compile(r"Error: (?:--)?([\w ]+?) '.*the nearest is '([^']+)'")
FLAGS = {
    "kv_heads": "kv-heads",
    "head_dim": "d",
    "value_dim": "d-v",
    "algorithm": "alg",
    "sram_bytes": "sram",
    "tiles rule": "tiles",
}  # what a message calls an option
ADVISED = [f"simulate --{name} {value}" for name in COUNTS for value in ("0", "-1", "1.5", "1e30")]
ADVISED += [command for command in OPTIONS if re.match(r"simulate --(dtype|mask|direction|device|alg) [^']", command)]
ADVISED += lines("""
    simulate --heads 8 --kv-heads 3
    simulate --heads 8 --kv-heads 16
    simulate --heads 999999999999989 --kv-heads 2
    simulate --d 100000
    simulate --d-v 100000
    simulate --dropout -0.1
    simulate --dropout 1
    simulate --dropout nan
    simulate --sram 0
    simulate --sram 1.0001KB
    simulate --sram 1KB
    simulate --sram 13440 --direction fwd+bwd
    simulate --sram 1e30
    simulate --tiles 0x64
    simulate --tiles 128x64.5
    simulate --tiles 1024x1024
    simulate --tiles 128x64 --sram 16KB
    simulate --tiles shipped --d 257
    simulate --gemm-tiles 0x0
    simulate --workload pi1
    simulate --workload pi0 --sram 1KB
    simulate --workload pi0 --tiles 128x128
""")
ADVISED.remove("simulate --device absent.toml")  # which file was meant is not known
ADVISED.remove("simulate --mask window")  # nor how long a window is


def advised(folder, command):
    """The command with the advice of its refusal taken; None where it is not refused."""
    result = call(folder, *command)
    if result.code == 0:
        return None
    found = ADVICE.search(result.err) or CHOICES.search(result.err) or MEANT.search(result.err)
    assert found, result.err
    name, value = found.groups()
    flag = f"--{FLAGS.get(name, name)}"
    taken = [*command]
    if flag not in taken:
        return [*taken, flag, value]
    taken[taken.index(flag) + 1] = value
    return taken


@pytest.mark.parametrize("command", ADVISED)
def test_the_advice_leads_to_a_legal_command(command, tmp_path):
    """Whoever does what the messages say gets there, after a few of them at most."""
    tried = shlex.split(command)
    for _ in range(5):
        tried = advised(tmp_path, tried)
        if tried is None:
            return
    pytest.fail("five pieces of advice were not enough")


# ------------------------------------------------------------------------------------------------ as processes
PROCESSES = lines("""
    simulate --N 0
    simulate --sram 192kb
    simulate --device h10
    simulate --srma 192KB
    list devces
""")


@pytest.mark.parametrize("command", PROCESSES)
def test_a_refusal_is_the_same_in_a_process_of_its_own(command, tmp_path):
    assert spawn(tmp_path, *shlex.split(command)) == call(tmp_path, *shlex.split(command))


def test_a_failed_verification_is_exit_code_1_in_a_process_of_its_own(tmp_path):
    (text, *_) = WRONG.values()
    result = spawn(written(tmp_path, {"mine.py": text}), "simulate", "--program", "mine.py")
    assert "exact softmax attention" in sentence(tmp_path, result, code=1)


def test_debug_shows_the_traceback(tmp_path):
    result = spawn(tmp_path, "simulate", "--N", "0", "--debug")
    assert result.out == ""
    assert result.err.startswith("Traceback ")
    assert "InputError: --N=0: " in result.err


# ------------------------------------------------------------------------------------------------ known defects
def workload(old, new):
    return ("simulate --workload mine.toml", {"mine.toml": phase(old, new)})


def program(text, options=""):
    return (f"simulate --program mine.py {options}", {"mine.py": text})


UNMASKED = edited(("p.mask(p.scale * (q @ k.T), i, j)", "p.scale * (q @ k.T)"))
ONCE_ACCEPTED = {  # {what went wrong: [(command, files), ...]}: each is refused with one sentence
    "an exponent that decimal cannot hold is a traceback": [
        ("simulate --N 1e999999999999", {}),
        ("simulate --N 1e9999999999999999999", {}),
        ("simulate --N 1e-9999999999999999999", {}),
        ("simulate --sram 1e999999999999KB", {}),
    ],
    "an empty text is taken for the default": [
        ("simulate --mask ''", {}),
        ("simulate --workload ''", {}),
        ("simulate --program ''", {}),
        ("simulate --gemm-tiles ''", {}),
    ],
    "commas anywhere are dropped, so that a list becomes one number": [
        ("simulate --N 1024,2048", {}),
        ("simulate --N 8,5", {}),
    ],
    "I is no unit": [("simulate --sram 192000I", {}), ("simulate --sram 192000iB", {})],
    "a rate takes the unit of any other rate": [
        ("simulate --set clock_hz=5GB/s", {}),
        ("simulate --set hbm_bytes_per_s=1555GHz", {}),
        ("simulate --set hbm_bytes_per_s=1555TFLOP/s", {}),
    ],
    "a name too long for the file system is a traceback": [(f"simulate --program {LONG}.py", {})],
    "a length that is a float is a traceback": [
        workload("q_len = 8", "q_len = 8.0"),
        workload("q_len = 8", "q_len = 1e16"),
    ],
    "texts of a workload are not checked": [
        workload('"Mine"', "3"),
        workload('"a"', "3"),
        workload('"me"', "3"),
    ],
    "texts of a device are not checked": [
        ("simulate --device mine.toml", {"mine.toml": device('"mine"', '""')}),
        ("simulate --device mine.toml", {"mine.toml": f'{DEVICE}kind = "qpu"\n'}),
    ],
    "a program's own exceptions are tracebacks": [program(text) for text in SLIPS.values()],
    "a program file may end the command": [program("import sys\nsys.exit(3)"), program("import sys\nsys.exit(0)")],
    "an exception of several lines makes an error of several lines": [program("raise ValueError('one\\ntwo')")],
    "a program without the output O is verified vacuously": [
        program(edited((", O, L)", ", L)"), ("        p.store(O[h, g, i], acc / l)\n", "")))
    ],
}
KNOWN = [
    pytest.param(command, files, id=f"{reason}, {number}")
    for reason, cases in ONCE_ACCEPTED.items()
    for number, (command, files) in enumerate(cases, 1)
]


@pytest.mark.parametrize(("command", "files"), KNOWN)
def test_what_was_once_accepted(command, files, tmp_path):
    refused(tmp_path, command, files)


def test_huge_tiles_are_refused_at_once(tmp_path):
    refused(tmp_path, "simulate --tiles 1e15x1e15")


WITH_A_PROGRAM = [
    pytest.param("--sram 192kb"),
    pytest.param("--device h10"),
    pytest.param("--srma 192KB"),
    *(pytest.param(o) for o in ("--N 0", "--tiles bst", "--gemm-tiles x", "--alg flash9", "--dropout 2")),
    pytest.param("--workload pi0 --N 5"),
]


@pytest.mark.parametrize("options", WITH_A_PROGRAM)
def test_a_program_file_is_not_run_before_all_else_is_right(options, tmp_path):
    command, files = program(f"import pathlib\npathlib.Path('ran').touch()\n{FLASH2}", options)
    refused(tmp_path, command, files)
    assert not (tmp_path / "ran").exists()


def test_a_program_is_verified_with_the_masks_of_the_workload(tmp_path):
    command, files = program(UNMASKED, "--workload gpt2")
    refused(tmp_path, command, files, code=1)


def test_an_interrupt_is_one_line(tmp_path):
    command, files = program("raise KeyboardInterrupt")
    assert refused(tmp_path, command, files, code=130) == "Error: interrupted"
