"""What `ioaware verify` says of a kernel: that does not compile, cannot be run or launched, fails, or is fine."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from ioaware_kernels import verify as verifying
from tests.compiler import needs_nvrtc, needs_pinned
from tests.messages.command import call, written
from tests.messages.kernels import KERNEL, NOTHING, TABLE, changed, keys, mine, table
from tests.messages.test_refusals import refused, sentence

# ------------------------------------------------------------------------------------------------ the source
COMPILER = {  # the words after the line are the compiler's
    "no CUDA": ({"flash2.cu": "int main(\n"}, "flash2.cu does not compile with NVRTC"),
    "an unknown name": (mine(TABLE, KERNEL % "\n  O[0] = x;\n"), ": line 2: "),
    "a header": (mine(TABLE, f"#include <math.h>\n{NOTHING}"), ": line 1: could not open source file"),
    "an assertion": (mine(TABLE, f'static_assert(THREADS == 64, "wide");\n{NOTHING}'), "line 1: static assertion"),
}


@needs_nvrtc
@pytest.mark.parametrize(("files", "said"), COMPILER.values(), ids=COMPILER)
def test_a_source_that_does_not_compile(files, said, tmp_path):
    (name,) = (name for name in files if name.endswith(".cu"))
    assert said in refused(tmp_path, f"verify --kernel {name} --N 4", files)


TWICE = "__device__ __noinline__ float twice(float x) { return 2.0f * x; }\n"
PTX = {
    "nothing": "",
    "a device function that is called": TWICE + KERNEL % "L[n] = twice(Q[n]);",
    "a local array": KERNEL % "float a[64]; for (int k = 0; k < n; ++k) a[k & 63] = Q[k]; L[0] = a[n & 63];",
    "a constant array": "__constant__ float c[4];\n" + KERNEL % "L[0] = c[n];",
    "a global array": "__device__ float g[4];\n" + KERNEL % "g[n] = L[0];",
    "a special register": KERNEL % "L[0] = clock();",
    "an unknown opcode": KERNEL % "__nanosleep(10);",
    "an opcode that is none": KERNEL % 'asm volatile("nonsense.u32;");',
    "a trap": KERNEL % "if (n) __trap();",
    "a named barrier": KERNEL % 'asm volatile("bar.sync 1, 32;");',
    "a part of a warp": KERNEL % "__syncwarp(1);",
    "too few parameters": KERNEL.replace(", int n", "") % "",
    "too many parameters": KERNEL.replace("int n", "int n, float scale") % "",
    "a number where a tensor is given": KERNEL.replace("float* L", "int L") % "",
    "a small struct where a tensor is given": "struct View { float* data; };\n" + KERNEL.replace("float* L", "View L")
    % "",
    "a tensor where a small number is given": KERNEL.replace("int n", "short n") % "",
    "an entry of another name": NOTHING.replace("mine", "other"),
}  # fmt: skip


@needs_nvrtc
@pytest.mark.parametrize("source", PTX.values(), ids=PTX)
def test_ptx_that_cannot_be_run(source, tmp_path, snapshot):
    """Lines and registers of the PTX are NVRTC's."""
    said = refused(tmp_path, "verify --kernel mine.cu --N 4", mine(TABLE, source))
    assert re.sub(r"%([a-z]+)\d+", r"%\1", re.sub(r"PTX line \d+", "PTX line #", said)) == snapshot


@needs_nvrtc
def test_a_name_that_the_compiler_changed(tmp_path):
    """Without `extern "C"` an entry has another name, which the refusal tells."""
    said = refused(tmp_path, "verify --kernel mine.cu --N 4", mine(TABLE, NOTHING.replace('extern "C" ', "")))
    assert re.search(r"entry 'mine' is unknown, the nearest is '_Z4mine\w+'; in the PTX: _Z4mine\w+$", said)


LAUNCHES = {
    **keys(
        'block = ["THREADS", 33]',
        "block = [1025]",
        "block = [1, 1, 65]",
        "grid = [1, 65536]",
        'parameters = ["Q", "K", "V", "O", "L", "scale"]',
    ),
    "shared memory that no GPU has": table("pad = 1", "pad = 100000"),
    "shared memory that no machine has": table("pad = 1", f"pad = {10**12}"),
    "a huge constant": keys(f"HEAD_DIM = {10**20}")[f"HEAD_DIM = {10**20}"],
}


@needs_nvrtc
@pytest.mark.parametrize("text", LAUNCHES.values(), ids=LAUNCHES)
def test_a_launch_that_does_not_fit(text, tmp_path, snapshot):
    assert refused(tmp_path, "verify --kernel mine.cu --N 4", mine(text)) == snapshot


# ------------------------------------------------------------------------------------------------ a kernel that fails
LOAD_K = "        load_tile<TILE_KV>(sK, k_rows, K.row, first_kv, kv_len, head_dim);\n"
WRONG = {
    "K is loaded twice": (LOAD_K, 2 * LOAD_K),
    "a barrier is gone": ("__syncthreads();  // everyone", "// everyone"),
    "a key too many": ("lane + LANES * c < kv_len", "lane + LANES * c <= kv_len"),
    "a row too many": ("first + i < length", "first + i <= length"),
    "an output is not written": ("if (lane == 0) rows_of(L", "if (lane == 0 && row) rows_of(L"),
}


def told(text):
    """The text without what depends on how an array library sums up."""
    text = re.sub(r"(rounding explains\s+)[\d.e-]+", r"\1#", text)
    return re.sub(r"^(flash2(?:_mma)?  .*?)\b\d\.\d\d\b(?=  )", r"\1#.##", text, flags=re.MULTILINE)


@pytest.fixture
def no_time(monkeypatch):
    """Every case takes 0.0 s."""
    monkeypatch.setattr(verifying, "time", SimpleNamespace(perf_counter=lambda: 0.0))


@needs_pinned
@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("edit", WRONG.values(), ids=WRONG)
def test_a_kernel_that_fails(edit, tmp_path, snapshot):
    result = call(written(tmp_path, changed(*edit)), "verify", "--kernel", "flash2.cu", "--N", "40", "--d", "20")
    assert result.code == 1
    assert result.err.startswith("Error: 2 of 2 cases fail, the first: flash2 (40x40, d=20): ")
    assert result.err.count("\n") == 1
    assert told(result.out + result.err) == snapshot


@needs_pinned
@pytest.mark.usefixtures("no_time")
def test_a_copy_that_is_not_waited_for(tmp_path, snapshot):
    files = changed("        wait_group<0>();\n", "", "flash2_mma")
    options = ("--kernel", "flash2_mma.cu", "--dtype", "bf16", "--N", "40", "--d", "24")
    result = call(written(tmp_path, files), "verify", *options)
    assert result.code == 1
    assert told(result.out + result.err) == snapshot


@needs_pinned
@pytest.mark.usefixtures("no_time")
def test_every_case_of_a_kernel_that_fails(tmp_path, snapshot):
    files = changed(*WRONG["a key too many"])
    result = call(written(tmp_path, files), "verify", "--kernel", "flash2.cu", "--N", "40", "--d", "20", "--all")
    assert result.code == 1
    assert told(result.out + result.err) == snapshot


@needs_nvrtc
def test_a_failure_is_one_line_for_json_too(tmp_path):
    files = changed(*WRONG["K is loaded twice"])
    result = call(written(tmp_path, files), "verify", "--kernel", "flash2.cu", "--N", "8", "--d", "8", "--json")
    assert result.out.count("\n") == 1
    assert "K is read: 512 B, 2 times the 256 B of the algorithm" in sentence(tmp_path, result._replace(out=""), code=1)


@pytest.mark.usefixtures("no_time")
def test_a_kernel_that_is_fine(tmp_path, snapshot):
    result = call(tmp_path, "verify", "--kernel", "flash2", "--N", "40", "--d", "20")
    assert (result.code, result.err) == (0, "")
    assert told(result.out) == snapshot
