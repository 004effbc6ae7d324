"""The project's kernels as their TOMLs describe them: what they solve, their launches, builds and sources."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ioaware import AttentionProblem
from ioaware.algorithms import ALGORITHMS
from ioaware.dtypes import ITEMSIZE
from ioaware.errors import InputError
from ioaware.masks import Band
from ioaware.program.nodes import Loop
from ioaware.program.recorder import record
from ioaware.reference import shapes
from ioaware_kernels import golden
from ioaware_kernels.implementation import (
    HERE,
    NUMBERS,
    SIZES,
    SharedRegion,
    load,
    names,
    read,
    region_bytes,
    sizes,
    value,
)  # fmt: skip
from ioaware_kernels.launch import Module
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.run import plans, shared_layout, tensors

OPT_IN_BYTES = 99 * 1024  # what a block may ask for on every GPU since compute capability 8.6
LONGEST_LINE = 120
KERNELS = {name: load(name) for name in names()}
BUILDS = {build.file.removesuffix(".ptx"): build for build in golden.builds()}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def problem(kernel, head_dim=64, **shape):
    shape = {"q_len": 3, "kv_len": 5, "mask": kernel.masks[0], "dtype": kernel.dtypes[0], **shape}
    return AttentionProblem(head_dim=head_dim, direction=kernel.direction, **shape)


def problem_of(build, **shape):
    """A problem of the build's own head_dim and dtype."""
    return problem(build.implementation, build.constants["HEAD_DIM"], dtype=build.dtype, **shape)


def program(kernel, mask="full"):
    """The program that the kernel claims to be."""
    features = AttentionProblem(q_len=1, mask=mask).features
    return record(kernel.algorithm.text(kernel.direction), features)


def launched(kernel):
    """The names of the program's kernels, in order."""
    return [node.kernel for node in program(kernel, kernel.masks[0]).body if isinstance(node, Loop)]


# ------------------------------------------------------------------------------------------------ the ladder
def test_the_kernels_are_those_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8")
    rungs = re.findall(r"^\| `(\w+)` \| `(\w+)`(?:, (\w+))?", text, re.MULTILINE)
    assert sorted(name for name, _, _ in rungs) == names()
    for name, algorithm, variant in rungs:
        kernel = KERNELS[name]
        assert kernel.algorithm.name == algorithm
        assert kernel.direction == ("bwd" if variant == "backward" else "fwd")
        assert variant != "causal" or kernel.masks == ("causal",)


def test_every_source_has_a_table_and_every_table_a_source():
    files = {path.name for path in Path(HERE).iterdir()}
    assert files == {f"{name}{ending}" for name in names() for ending in (".cu", ".toml")}


@each_kernel
def test_names_and_places(kernel):
    assert (kernel.file, kernel.is_own) == (f"{kernel.name}.cu", True)
    assert KERNELS[kernel.name] == kernel == read(kernel.path)
    assert kernel.algorithm in ALGORITHMS
    assert kernel.title


# ------------------------------------------------------------------------------------------------ launches
@each_kernel
def test_launches_are_the_programs_kernels_in_order(kernel):
    assert [launch.kernel for launch in kernel.launches] == launched(kernel)
    assert len({launch.entry for launch in kernel.launches}) == len(kernel.launches)


@each_kernel
def test_every_tensor_of_the_program_is_passed_to_some_launch(kernel):
    passed = {name.partition(".")[0] for launch in kernel.launches for name in launch.parameters}
    assert passed >= {*program(kernel).tensors}
    assert passed <= {*program(kernel).tensors, *NUMBERS}


@each_kernel
def test_no_parameter_is_given_twice(kernel):
    for launch in kernel.launches:
        assert len(set(launch.parameters)) == len(launch.parameters)


@each_kernel
def test_a_kernel_with_both_masks_is_told_which(kernel):
    told = any("causal" in launch.parameters for launch in kernel.launches)
    assert told is (set(kernel.masks) == {"full", "causal"})


@each_kernel
def test_what_depends_on_the_order_of_blocks_is_what_is_added_to(kernel):
    """dQ of the backward pass with atomic adds, nothing else."""
    atomic = "atomicAdd" in kernel.source
    assert kernel.order_dependent == (("dQ",) if atomic else ())


@each_build
def test_the_table_fits_the_ptx(build):
    """Entries, and the number and kind of their parameters: `plans` refuses what does not fit."""
    entries, launches = parse(golden.load(build)), build.implementation.launches
    assert list(entries) == [launch.entry for launch in launches]
    for launch in launches:
        assert len(entries[launch.entry].params) == len(launch.parameters)
        for param, name in zip(entries[launch.entry].params, launch.parameters, strict=True):
            kinds = {"scale": ("f32", 4), **dict.fromkeys((*SIZES, "causal"), ("u32", 4))}
            assert (param.type, param.size) == kinds.get(name, ("b8", 32)), name


@each_build
def test_the_launch_bound_is_the_block(build):
    """`__launch_bounds__` becomes .maxntid: more threads would not start on a GPU."""
    launches, threads = build.implementation.launches, build.constants["THREADS"]
    bounds = [int(number) for number in re.findall(r"^\.maxntid (\d+)", golden.load(build), re.MULTILINE)]
    assert bounds == [threads] * len(launches)
    assert all([value(extent, build.constants) for extent in launch.block] == [threads] for launch in launches)


@each_build
def test_a_launch_is_planned(build):
    """The whole way from the table to a checked launch, at the build's own head_dim."""
    kernel, asked, module = build.implementation, problem_of(build), Module(golden.load(build))
    given = {name: np.zeros(shape, np.float32) for name, shape in shapes(asked).items()}
    ready = plans(kernel, module, asked, tensors(kernel, asked, given))
    assert [plan.kernel.name for plan in ready] == [launch.entry for launch in kernel.launches]
    for plan, launch in zip(ready, kernel.launches, strict=True):
        assert [region.name for region in plan.regions] == [region.name for region in launch.shared]
        assert plan.shared_bytes == (plan.regions[-1].stop if plan.regions else 0)


# ------------------------------------------------------------------------------------------------ shared memory
def bytes_of(build, **shape):
    named, itemsize = sizes(problem_of(build, **shape), build.constants), ITEMSIZE[build.dtype]
    launches = build.implementation.launches
    return [sum(region_bytes(region, named, itemsize) for region in launch.shared) for launch in launches]


@each_build
def test_shared_memory_fits_every_gpu(build):
    """99 KiB: what GPUs without big shared memories give a block; a row of naive's softmax of 16,384 keys, too."""
    lengths = {"kv_len": 100_000, "q_len": 1} if build.implementation.packs_group else {"kv_len": 16_384}
    assert max(bytes_of(build, **lengths)) <= OPT_IN_BYTES


@each_build
def test_regions_follow_one_another(build):
    named = sizes(problem_of(build), build.constants)
    for launch in build.implementation.launches:
        regions = shared_layout(launch, named, ITEMSIZE[build.dtype])
        assert [region.start for region in regions] == [0, *(region.stop for region in regions)][: len(regions)]
        assert len({region.name for region in regions}) == len(regions)
        assert not {region.name for region in regions} & {*program(build.implementation).tensors, "shared"}


def test_bytes_of_a_region():
    """rows x (columns + pad) elements."""
    named = {"TILE_Q": 32, "HEAD_DIM": 64}
    assert region_bytes(SharedRegion("sQ", "TILE_Q", "HEAD_DIM", 1), named, 4) == 4 * 32 * 65
    assert region_bytes(SharedRegion("row", 1, 100), named, 4) == 400
    assert bytes_of(BUILDS["flash2_d64"]) == [4 * (3 * 32 * 65 + 32 * 33)]
    assert bytes_of(BUILDS["flash2_mma_bf16_d128"]) == [2 * (64 * 128 + 2 * 2 * 64 * 128)]


# ------------------------------------------------------------------------------------------------ builds
@each_kernel
def test_builds_are_sorted_and_have_the_same_constants(kernel):
    dims = [build["HEAD_DIM"] for build in kernel.builds]
    assert dims == sorted(set(dims)) == ([64, 128] if kernel.name == "flash2_mma" else [32, 64, 128, 256])
    assert len({tuple(build) for build in kernel.builds}) == 1


@pytest.mark.parametrize("build", [build for build in BUILDS.values() if build.dtype == "fp32"], ids=lambda b: b.file)
def test_constants_of_a_build_divide_each_other(build):
    """What the sources assert, and whole warps."""
    has = build.constants
    assert has["THREADS"] == has["TILE_Q"] * has["LANES"]
    assert has["THREADS"] % 32 == 32 % has["LANES"] == 0
    assert has["HEAD_DIM"] % has["LANES"] == has.get("KEYS", has["TILE_KV"]) % has["LANES"] == 0
    assert has.get("WARPS", has["THREADS"] // 32) == has["THREADS"] // 32


@pytest.mark.parametrize("build", [build for build in BUILDS.values() if build.dtype != "fp32"], ids=lambda b: b.file)
def test_constants_of_a_build_for_tensor_cores_divide_each_other(build):
    """What the source asserts; whole 16 x 16 blocks, whole swizzles, tiles that a block loads in whole steps."""
    has = build.constants
    chunks = has["HEAD_DIM"] // 8  # of 16 bytes in a row
    assert (has["THREADS"], has["TILE_Q"], has["KV_ROWS"]) == (32 * has["WARPS"], 16 * has["WARPS"], 2 * has["TILE_KV"])
    assert has["HEAD_DIM"] % 16 == has["TILE_KV"] % 16 == 0
    assert chunks % 8 == has["THREADS"] % chunks == 0
    assert has["TILE_Q"] % (has["THREADS"] // chunks) == has["TILE_KV"] % (has["THREADS"] // chunks) == 0


@each_kernel
def test_build_for_is_the_smallest_that_holds(kernel):
    """On both sides of every border between two builds, and inside."""
    dims = [build["HEAD_DIM"] for build in kernel.builds]
    for smaller, built in pairwise([0, *dims]):
        for head_dim in (smaller + kernel.aligned, built - kernel.aligned, built):
            assert kernel.build_for(problem(kernel, head_dim))["HEAD_DIM"] == built, head_dim


def test_builds_in_any_order(tmp_path):
    text = Path(KERNELS["flash2"].path).with_suffix(".toml").read_text(encoding="utf-8")
    head, *builds = text[: text.index("[[launch]]")].split("[[build]]")
    launches = text[text.index("[[launch]]") :]
    (tmp_path / "mine.toml").write_text("[[build]]".join([head, *reversed(builds)]).rstrip() + f"\n\n{launches}")
    (tmp_path / "mine.cu").touch()
    kernel = read(str(tmp_path / "mine.cu"))
    assert [build["HEAD_DIM"] for build in kernel.builds] == [256, 128, 64, 32]
    assert kernel.build_for(problem(kernel, 33)) == KERNELS["flash2"].build_for(problem(kernel, 33))


REFUSED = {
    "head_dim": ({"head_dim": 257}, "head_dim=257: {} is built for at most 256; the nearest legal value is 256"),
    "value_dim": ({"value_dim": 32}, "value_dim=32: {} has as many as head_dim; the nearest legal value is 64"),
    "dtype": ({"dtype": "fp16"}, "dtype=fp16: {} has only fp32; the nearest legal value is fp32"),
    "lengths": ({"q_len": (1, 2)}, "{} takes sequences of one length, not 2 different ones"),
    "head_dim and mask": ({"head_dim": 257, "mask": "causal"}, "head_dim=257: {} is built for at most 256; the nearest"
                          " legal value is 256"),
    **{mask: (shape, f"mask={mask}: {{}} has only full; the nearest legal value is full") for mask, shape in {
        "causal": {"mask": "causal"}, "window:2,0": {"mask": Band(left=2, right=0)},
        "full with key padding": {"padding": True}, "full with dropout": {"dropout": 0.5},
        "full with key padding with dropout": {"dropout": 0.5, "padding": True},
    }.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", ["flash1", "flash2", "naive", "online_softmax"])
@pytest.mark.parametrize(("shape", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_problem_that_is_refused(name, shape, sentence):
    asked = AttentionProblem(**{"q_len": 3, "head_dim": 64, "dtype": "fp32", **shape})
    with pytest.raises(InputError) as caught:
        KERNELS[name].build_for(asked)
    assert str(caught.value) == sentence.format(name)
    assert not KERNELS[name].solves(asked)


OF_TENSOR_CORES = {
    "dtype": ({"dtype": "fp32"}, "dtype=fp32: {} has only fp16 and bf16; the nearest legal value is fp16"),
    "a part of a vector": ({"head_dim": 20}, "head_dim=20: {} takes multiples of 8; the nearest legal value is 24"),
    "head_dim": ({"head_dim": 136}, "head_dim=136: {} is built for at most 128; the nearest legal value is 128"),
    "both": ({"head_dim": 257}, "head_dim=257: {} is built for at most 128; the nearest legal value is 128"),
}


@pytest.mark.parametrize(("shape", "sentence"), OF_TENSOR_CORES.values(), ids=OF_TENSOR_CORES)
def test_a_problem_that_tensor_cores_refuse(shape, sentence):
    kernel = KERNELS["flash2_mma"]
    with pytest.raises(InputError) as caught:
        kernel.build_for(problem(kernel, **shape))
    assert str(caught.value) == sentence.format(kernel.name)


@each_kernel
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "fp64", "fp8_e4m3"])
def test_solves_its_own_dtypes(kernel, dtype):
    assert kernel.solves(problem(kernel, dtype=dtype)) is (dtype in kernel.dtypes)


@each_kernel
@pytest.mark.parametrize("mask", ["full", "causal"])
def test_solves_its_own_masks(kernel, mask):
    assert kernel.solves(problem(kernel, mask=mask)) is (mask in kernel.masks)


@pytest.mark.parametrize(
    ("q_len", "heads", "kv_heads", "fits"),
    [(16, 1, 1, True), (17, 1, 1, False), (16, 8, 8, True), (2, 8, 1, True), (3, 8, 1, False), (1, 16, 1, True),
     (1, 17, 1, False), (4, 8, 2, True), (5, 8, 2, False)],
)  # fmt: skip
def test_split_kv_packs_the_rows_of_a_group(q_len, heads, kv_heads, fits):
    kernel = KERNELS["split_kv"]
    asked = problem(kernel, q_len=q_len, heads=heads, kv_heads=kv_heads)
    assert kernel.solves(asked) is fits is (asked.group * q_len <= 16)


# ------------------------------------------------------------------------------------------------ sizes
def test_sizes_of_a_problem():
    asked = AttentionProblem(
        q_len=33, kv_len=65, head_dim=20, batch=2, heads=6, kv_heads=3, dtype="fp32", mask="causal"
    )
    build = {"HEAD_DIM": 32, "TILE_Q": 32, "TILE_KV": 16, "THREADS": 64}
    assert sizes(asked, build) == {
        "batch": 2, "heads": 6, "kv_heads": 3, "group": 2, "q_len": 33, "kv_len": 65, "head_dim": 20, "causal": 1,
        "q_tiles": 2, "kv_tiles": 5, **build,
    }  # fmt: skip
    assert set(sizes(asked, build)) == {*SIZES, "causal", *build}


@pytest.mark.parametrize(("length", "tiles"), [(1, 1), (31, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_tiles_are_rounded_up(length, tiles):
    named = sizes(AttentionProblem(q_len=length, dtype="fp32"), {"TILE_Q": 32, "TILE_KV": 32})
    assert (named["q_tiles"], named["kv_tiles"], named["causal"]) == (tiles, tiles, 0)


def test_a_quantity_is_a_number_or_a_name():
    assert value(7, {"a": 3}) == 7
    assert value("a", {"a": 3}) == 3


# ------------------------------------------------------------------------------------------------ the sources
PARTS = ("What it does", "From ", "Predicted bytes", "Launch")


def header(kernel):
    """The comment that a source begins with, its lines without the slashes."""
    lines = kernel.source.splitlines()
    end = next(n for n, line in enumerate(lines) if not line.startswith("//"))
    return [line.removeprefix("//").removeprefix(" ") for line in lines[:end]]


@each_kernel
def test_a_header_is_a_manual_of_five_parts(kernel):
    """A title, what it does, what changed, its bytes, its launch; then a blank line, and how threads share it."""
    first, blank, *rest = header(kernel)
    assert first.startswith(f"{kernel.name}: ")
    assert first.endswith(f", {' or '.join(kernel.dtypes)}.")
    assert blank == ""
    found = [next((part for part in PARTS if line.startswith(part)), None) for line in rest]
    assert [part for part in found if part] == list(PARTS)
    assert "" in rest[found.index("Launch") :]


@each_kernel
def test_a_header_names_the_rung_below(kernel):
    (line,) = (line for line in header(kernel) if line.startswith("From "))
    below = line.split()[1]
    assert below in {*names(), "nothing"}
    assert (below == "nothing") is (kernel.name == "naive")
    assert below != kernel.name


@each_kernel
def test_a_source_is_short_and_stands_alone(kernel):
    lines, has_tensor_cores = kernel.source.splitlines(), "mma.sync" in kernel.source
    assert len(lines) < (220 if has_tensor_cores else 200)  # their instructions are 30 lines of assembly
    assert max(map(len, lines)) <= LONGEST_LINE
    assert "#include" not in kernel.source
    assert "__noinline__" not in kernel.source
    assert kernel.source.isascii()
    assert "\t" not in kernel.source
    assert kernel.source.endswith("}\n")


@each_kernel
def test_entries_are_in_the_order_of_the_launches(kernel):
    found = re.findall(r'extern "C" __global__ void __launch_bounds__\([^)]*\)(?:\s*//.*)?\s+(\w+)\(', kernel.source)
    assert found == [launch.entry for launch in kernel.launches]


@each_kernel
def test_a_table_is_read_as_it_stands(kernel):
    data = tomllib.loads(Path(kernel.path).with_suffix(".toml").read_text(encoding="utf-8"))
    assert data["algorithm"] == kernel.algorithm.name
    assert data["direction"] == kernel.direction
    assert tuple(data["masks"]) == kernel.masks
    assert data.get("packs_group", False) is kernel.packs_group is (kernel.name == "split_kv")
    assert tuple(data.get("dtypes", ["fp32"])) == kernel.dtypes
    assert data.get("aligned", 1) == kernel.aligned == (8 if kernel.name == "flash2_mma" else 1)
    assert kernel.strided
    assert data["build"] == list(kernel.builds)
    assert [launch["parameters"] for launch in data["launch"]] == [
        list(launch.parameters) for launch in kernel.launches
    ]
