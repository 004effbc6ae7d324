"""`launch()`: what it refuses, how arguments become bytes, grids, shared memory, and what is counted and written."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ioaware import AttentionProblem
from ioaware.errors import InputError
from ioaware.reference import random_inputs
from ioaware_kernels import golden
from ioaware_kernels.implementation import load
from ioaware_kernels.launch import VIEW, GridEngine, Module, launch, plan
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.global_memory import SHIFT
from ioaware_kernels.ptx.shared_memory import Region
from ioaware_kernels.tensors import Tensor, far_apart, interleaved, packed, padded, unpacked

REGISTERS = {"pred": "%p", "b32": "%r", "b64": "%rd", "f32": "%f", "f64": "%fd"}


def module(parameters, *lines, shared="", name="k"):
    """PTX of one kernel."""
    listed = ", ".join(f".param {parameter}" for parameter in parameters)
    registers = [f".reg .{type_} {prefix}<20>;" for type_, prefix in REGISTERS.items()]
    return Module("\n".join([f".visible .entry {name}({listed}) {{", *registers, shared, *lines, "ret;", "}"]))


def row(name, values):
    """A tensor of one row."""
    return Tensor(name, (1, 1, 1, len(values))).fill(np.array(values, np.float32))


def empty(columns, name="out"):
    return Tensor(name, (1, 1, 1, columns))


def words(tensor):
    """What is in the tensor, as 32-bit words."""
    return tensor.values.view(np.uint32).ravel().tolist()


POINTER = (".u64 out", "ld.param.u64 %rd1, [out];")
THREAD = [  # %r9: the thread's number in the grid, %rd9 its place in `out`
    "mov.u32 %r1, %tid.x;", "mov.u32 %r2, %tid.y;", "mov.u32 %r3, %tid.z;", "mov.u32 %r4, %ntid.x;",
    "mov.u32 %r5, %ntid.y;", "mov.u32 %r6, %ntid.z;", "mad.lo.s32 %r7, %r3, %r5, %r2;",
    "mad.lo.s32 %r7, %r7, %r4, %r1;",
    "mul.lo.s32 %r8, %r4, %r5;", "mul.lo.s32 %r8, %r8, %r6;", "mov.u32 %r10, %ctaid.x;", "mov.u32 %r11, %ctaid.y;",
    "mov.u32 %r12, %ctaid.z;", "mov.u32 %r13, %nctaid.x;", "mov.u32 %r14, %nctaid.y;",
    "mad.lo.s32 %r15, %r12, %r14, %r11;", "mad.lo.s32 %r15, %r15, %r13, %r10;", "mad.lo.s32 %r9, %r15, %r8, %r7;",
    "mad.wide.u32 %rd9, %r9, 4, %rd1;",
]  # fmt: skip
NUMBERED = module([POINTER[0]], POINTER[1], *THREAD, "st.global.u32 [%rd9], %r9;")
COPY = module(
    [".u64 x", ".u64 out"],
    "ld.param.u64 %rd2, [x];", "ld.param.u64 %rd1, [out];", *THREAD, "mad.wide.u32 %rd8, %r9, 4, %rd2;",
    "ld.global.f32 %f1, [%rd8];", "st.global.f32 [%rd9], %f1;",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ refusals
SCALAR = module([".u64 out", ".u32 n", ".f32 scale"])
OUT = empty(4)
POSITIVE = "one to three positive extents are needed, like (4, 1, 1)"
REFUSED = {
    "an entry of another name": ({"entry": "copy"}, "entry 'copy' is unknown, the nearest is 'k'; in the PTX: k"),
    **{f"{len(given)} arguments": (
        {"arguments": given}, f"k: arguments={len(given)}: one for each parameter; the nearest legal value is 3"
    ) for given in ([], [OUT, 1], [OUT, 1, 1.0, 1])},
    **{f"{shown} for {param}": (
        {"arguments": [given if at == n else usual for at, usual in enumerate([OUT, 1, 1.0], 1)]},
        f"k: parameter {n} is {param}; {shown} does not fit there",
    ) for n, param, given, shown in (
        (1, "u64, 8 bytes", 1.5, "1.5"), (2, "u32, 4 bytes", OUT, "tensor out"), (2, "u32, 4 bytes", 1.5, "1.5"),
        (2, "u32, 4 bytes", True, "True"), (3, "f32, 4 bytes", "1", "'1'"), (3, "f32, 4 bytes", None, "None"),
        (3, "f32, 4 bytes", OUT, "tensor out"),
    )},
    **{f"{name}={given}": ({name: given}, f"k: {name}={given}: {POSITIVE}") for name, given in (
        ("grid", (0,)), ("grid", (4, -1)), ("grid", (1, 1, 1, 1)), ("block", (32, 0)), ("block", (1, 1, 1, 1)),
    )},
    **{f"{name} {axis}={extent:,}": (
        {name: (1,) * "xyz".index(axis) + (extent,)},
        f"k: {name}, {axis}={extent:,}: CUDA takes at most {most:,} there; the nearest legal value is {most:,}",
    ) for name, axis, extent, most in (
        ("grid", "x", 2**31, 2**31 - 1), ("grid", "y", 65_536, 65_535), ("grid", "z", 65_536, 65_535),
        ("block", "x", 1025, 1024), ("block", "y", 1025, 1024), ("block", "z", 65, 64),
    )},
    **{f"the integer {number:,}": (
        {"arguments": [OUT, number, 1.0]},
        f"k: parameter 2={number:,}: it has 4 bytes; the nearest legal value is {nearest:,}",
    ) for number, nearest in ((2**32, 2**32 - 1), (10**30, 2**32 - 1), (-(2**31) - 1, -(2**31)))},
    "too many threads": (
        {"block": (64, 17)}, "k: threads per block=1,088: CUDA runs at most 1,024; the nearest legal value is 1,024"
    ),
    "more shared memory than any GPU has": (
        {"shared_bytes": 227 * 1024 + 1},
        "k: bytes of shared memory=232,449: no GPU gives a thread block more, so a smaller head_dim, kv_len or tile is "
        "needed; the nearest legal value is 232,448",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_launch_that_is_refused(changed, sentence):
    asked = {"entry": "k", "grid": (1,), "block": (1,), "arguments": [OUT, 1, 1.0], **changed}
    with pytest.raises(InputError) as caught:
        launch(SCALAR, **asked)
    assert str(caught.value) == sentence
    with pytest.raises(InputError):
        plan(SCALAR, **asked)


@pytest.mark.parametrize("block", [(1024,), (1, 1024), (1, 1, 64)], ids=str)
def test_the_largest_launch(block):
    assert launch(SCALAR, "k", (1,), block, [OUT, 1, 1.0], 227 * 1024).counts.instructions > 0
    assert plan(SCALAR, "k", (2**31 - 1, 65_535, 65_535), block, [OUT, 1, 1.0]).block[: len(block)] == block


# ------------------------------------------------------------------------------------------------ arguments
NUMBERS = [
    ("u32", 0, "<I"), ("u32", 7, "<I"), ("u32", 2**31 - 1, "<I"), ("s32", -7, "<i"), ("b32", 7, "<I"),
    ("s32", -(2**31), "<i"), ("u32", 2**32 - 1, "<I"), ("u32", -1, "<i"), ("u64", 2**64 - 1, "<Q"),
    ("u64", 2**40 + 3, "<Q"), ("s64", -(2**40), "<q"), ("b64", 2**63 - 1, "<Q"),
    ("f32", 0.1, "<f"), ("f32", 3, "<f"), ("f32", -1e30, "<f"), ("f64", 0.1, "<d"), ("f64", -3, "<d"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "number", "format_"), NUMBERS, ids=lambda x: str(x))
def test_a_number_reaches_the_kernel(type_, number, format_):
    """Stored as it arrived, it has the bytes that C would pass."""
    size = struct.calcsize(format_)
    register = {"u32": "%r1", "s32": "%r1", "b32": "%r1", "f32": "%f1", "f64": "%fd1"}.get(type_, "%rd2")
    kernel = module(
        [POINTER[0], f".{type_} n"], POINTER[1], f"ld.param.{type_} {register}, [n];",
        f"st.global.{type_} [%rd1], {register};",
    )  # fmt: skip
    out = empty(size // 4)
    launch(kernel, "k", (1,), (1,), [out, number])
    assert out.values.tobytes() == struct.pack(format_, number)


def test_several_numbers_keep_their_places():
    kernel = module(
        [".u32 a", ".u64 out", ".f64 b", ".u32 c"],
        "ld.param.u32 %r1, [a];", "ld.param.u64 %rd1, [out];", "ld.param.f64 %fd1, [b];", "ld.param.u32 %r2, [c];",
        "cvt.rn.f32.f64 %f1, %fd1;", "st.global.u32 [%rd1], %r1;", "st.global.f32 [%rd1+4], %f1;",
        "st.global.u32 [%rd1+8], %r2;",
    )  # fmt: skip
    out = empty(3)
    launch(kernel, "k", (1,), (1,), [11, out, 2.5, 13])
    assert words(out) == [11, struct.unpack("<I", struct.pack("<f", 2.5))[0], 13]


def test_a_pointer_is_that_of_the_first_element():
    """A layout may begin with a guard zone."""
    x = Tensor("x", (1, 1, 1, 4), padded).fill(np.arange(4.0))
    out = empty(4)
    launch(COPY, "k", (1,), (4,), [x, out])
    assert x.at.first > 0
    assert out.values.ravel().tolist() == [0, 1, 2, 3]


def test_the_same_tensor_twice_is_one_memory():
    x = row("x", [1, 2, 3])
    result = launch(COPY, "k", (1,), (3,), [x, x])
    assert [str(finding) for finding in result.findings] == []
    assert result.counts.traffic(["x"])["x"] == (12, 12, 0)


def test_a_view_is_a_pointer_and_three_strides():
    """struct View { float* data; long long batch, head, row; }, strides in elements."""
    kernel = module(
        [".u64 out", ".align 8 .b8 x[32]"], POINTER[1], "ld.param.u64 %rd2, [x];", "ld.param.u64 %rd3, [x+8];",
        "ld.param.u64 %rd4, [x+16];", "ld.param.u64 %rd5, [x+24];", "ld.global.f32 %f1, [%rd2];",
        "st.global.f32 [%rd1], %f1;", "st.global.u64 [%rd1+8], %rd3;", "st.global.u64 [%rd1+16], %rd4;",
        "st.global.u64 [%rd1+24], %rd5;",
    )  # fmt: skip
    for layout in (packed, interleaved, padded, far_apart):
        x, out = Tensor("x", (2, 3, 4, 5), layout).fill(np.full((2, 3, 4, 5), 7.0)), empty(8)
        launch(kernel, "k", (1,), (1,), [out, x])
        _, batch, head, stride = struct.unpack("<qqqq", out.values.tobytes())
        assert (batch, head, stride) == (x.at.batch, x.at.head, x.at.row)
        assert out.values.ravel()[0] == 7


def test_tensors_have_addresses_of_their_own():
    a, b = row("a", [1]), row("b", [2])
    ready = plan(COPY, "k", (1,), (1,), [a, b])
    assert ready.tensors == [a, b]
    bytes_of = ready.parameters(lambda tensor: (ready.tensors.index(tensor) + 1) << SHIFT)
    assert bytes_of == {"x": struct.pack("<Q", 1 << SHIFT), "out": struct.pack("<Q", 2 << SHIFT)}


def test_a_view_parameter_in_bytes():
    x = Tensor("x", (2, 3, 4, 5), padded)
    ready = plan(module([".align 8 .b8 x[32]"]), "k", (1,), (1,), [x])
    assert ready.parameters(lambda tensor: 1 << SHIFT)["x"] == VIEW.pack((1 << SHIFT) + 4 * 17, *x.at[1:4])


# ------------------------------------------------------------------------------------------------ grid and block
EXTENTS = [((1,), (1,)), ((3,), (5,)), ((2, 3), (4,)), ((2, 3, 2), (2, 3, 4)), ((1, 1, 7), (1, 5)), ([4], [33])]


@pytest.mark.parametrize(("grid", "block"), EXTENTS, ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_every_thread_of_every_block_runs_once(grid, block, reverse):
    threads = int(np.prod(grid) * np.prod(block))
    out = empty(threads)
    result = launch(NUMBERED, "k", grid, block, [out], engine=GridEngine(Options(races=True, reverse=reverse)))
    assert [str(finding) for finding in result.findings] == []
    assert words(out) == list(range(threads))
    assert result.counts.traffic(["out"])["out"] == (0, 4 * threads, 0)


def test_an_engine_is_given_the_plan():
    seen = []

    def engine(ready):
        seen.append(ready)

    assert launch(COPY, "k", (2,), (3, 4), [row("x", [1]), OUT], 96, [Region("a", 0, 96)], engine) is None
    (ready,) = seen
    assert (ready.grid, ready.block, ready.shared_bytes, ready.regions) == (
        (2, 1, 1), (3, 4, 1), 96, (Region("a", 0, 96),)
    )  # fmt: skip
    assert ready.kernel is COPY.kernel("k")


# ------------------------------------------------------------------------------------------------ shared memory
def through_shared(shared, *addresses):
    """Each thread writes its number to every address + 4 tid, and reads it back from the last thread's side."""
    lines = [POINTER[1], "mov.u32 %r1, %tid.x;", "mul.lo.s32 %r2, %r1, 4;", "mul.wide.u32 %rd3, %r1, 4;",
             "add.s64 %rd3, %rd1, %rd3;", "mov.u32 %r6, 0;"]  # fmt: skip
    for n, address in enumerate(addresses):
        lines += [f"mov.u32 %r3, {address};", "add.s32 %r3, %r3, %r2;", f"add.s32 %r4, %r1, {100 * n};",
                  "st.shared.u32 [%r3], %r4;"]  # fmt: skip
    lines.append("bar.sync 0;")
    for address in addresses:
        lines += [f"mov.u32 %r3, {address};", "sub.s32 %r3, %r3, %r2;", "ld.shared.u32 %r5, [%r3+28];",
                  "add.s32 %r6, %r6, %r5;"]  # fmt: skip
    return module([POINTER[0]], *lines, "st.global.u32 [%rd3], %r6;", shared=shared)


STATIC = ".shared .align 4 .b8 tile[32];"
DYNAMIC = ".extern .shared .align 16 .b8 more[];"
WATCHED = GridEngine(Options(races=True))


def found(result):
    return [(finding.what, finding.memory, finding.first.offset, finding.times) for finding in result.findings]


def test_static_shared_memory():
    out = empty(8)
    result = launch(through_shared(STATIC, "tile"), "k", (3,), (8,), [out], engine=WATCHED)
    assert [f for f in found(result) if f[1] != "out"] == []
    assert words(out) == list(range(7, -1, -1))
    assert result.counts.traffic(["shared"])["shared"] == (96, 96, 0)


def test_static_and_dynamic_shared_memory_lie_apart():
    """The launch's memory begins behind the kernel's own, at a multiple of 16 bytes."""
    kernel = through_shared(f"{STATIC}\n{DYNAMIC}", "tile", "more")
    out = empty(8)
    regions = [Region("mine", 0, 32), Region("given", 32, 64)]
    result = launch(kernel, "k", (1,), (8,), [out], 32, regions, WATCHED)
    assert found(result) == []
    assert words(out) == [2 * n + 100 for n in range(7, -1, -1)]
    moved = result.counts.traffic(["mine", "given", "shared"])
    assert dict(moved.tensors) == {"mine": (32, 32, 0), "given": (32, 32, 0)}


@pytest.mark.parametrize(("given_bytes", "times"), [(28, 2), (4, 14), (0, 16)])
def test_dynamic_shared_memory_ends_where_the_launch_says(given_bytes, times):
    kernel = through_shared(f"{STATIC}\n{DYNAMIC}", "tile", "more")
    result = launch(kernel, "k", (1,), (8,), [empty(8)], given_bytes, engine=WATCHED)
    strays = [f for f in found(result) if f[0].startswith("touches memory outside")]
    assert {memory for _, memory, _, _ in strays} == {"shared memory"}
    assert sum(count for *_, count in strays) == times


def test_accesses_outside_all_regions_are_shared():
    kernel = through_shared(STATIC, "tile")
    result = launch(kernel, "k", (1,), (8,), [empty(8)], regions=[Region("low", 0, 12)])
    moved = result.counts.traffic(["low", "shared"])
    assert dict(moved.tensors) == {"low": (12, 12, 0), "shared": (20, 20, 0)}


def test_a_block_sees_only_its_own_shared_memory():
    """What nobody wrote in this block is reported, though another block wrote the same place."""
    kernel = module(
        [POINTER[0]], POINTER[1], "mov.u32 %r1, %ctaid.x;", "setp.ne.u32 %p1, %r1, 0;",
        "@!%p1 st.shared.u32 [tile], %r1;", "ld.shared.u32 %r2, [tile];", shared=STATIC,
    )  # fmt: skip
    result = launch(kernel, "k", (3,), (1,), [OUT], engine=WATCHED)
    assert found(result) == [("reads what nobody wrote", "shared", 0, 2)]


def test_static_memory_of_a_kernel_is_known():
    assert through_shared(STATIC, "tile").kernel("k").static_shared_bytes == 32
    assert through_shared(f"{STATIC}\n{DYNAMIC}", "tile", "more").kernel("k").static_shared_bytes == 32
    assert NUMBERED.kernel("k").static_shared_bytes == 0


def test_a_shared_array_of_a_compiled_kernel():
    """`__shared__ float tile[8]` of an extern "C" kernel is _ZZ1kE4tile in PTX."""
    out = empty(8)
    launch(through_shared(STATIC.replace("tile", "_ZZ1kE4tile"), "_ZZ1kE4tile"), "k", (1,), (8,), [out])
    assert words(out) == list(range(7, -1, -1))


# ------------------------------------------------------------------------------------------------ counts
def test_counts_of_a_launch():
    """Bytes per tensor in the direction of the access; inputs are only read, outputs only written."""
    x, out = row("x", [1, 2, 3, 4, 5, 6]), empty(6)
    result = launch(COPY, "k", (2,), (3,), [x, out])
    assert dict(result.counts.traffic(["x", "out"]).tensors) == {"x": (24, 0, 0), "out": (0, 24, 0)}
    assert result.counts.instructions == sum(len(block.instructions) for block in COPY.kernel("k").blocks)
    ((site, moved),) = result.counts.sites("x", "read").items()
    assert (site.opcode, moved) == ("ld.global.f32", 24)
    assert result.counts.sites("x", "write") == {}
    assert not len(result.findings)


def test_a_guarded_access_counts_the_lanes_that_take_part():
    kernel = module(
        [POINTER[0]], POINTER[1], *THREAD, "setp.lt.u32 %p1, %r1, 3;", "@%p1 st.global.u32 [%rd9], %r1;"
    )  # fmt: skip
    out = empty(8)
    result = launch(kernel, "k", (1,), (8,), [out], engine=WATCHED)
    assert result.counts.traffic(["out"])["out"] == (0, 12, 0)
    assert words(out)[:3] == [0, 1, 2]
    assert not out.is_written


def test_atomic_adds_are_counted_apart():
    kernel = module([POINTER[0]], POINTER[1], "red.global.add.f32 [%rd1], 0f3F800000;")
    out = row("out", [0])
    result = launch(kernel, "k", (5,), (2,), [out])
    assert result.counts.traffic(["out"])["out"] == (0, 0, 40)
    assert out.values.ravel().tolist() == [10]


def test_a_kernel_of_the_project():
    """The example of the module's docstring, by the bytes and the values that it must have."""
    problem = AttentionProblem(q_len=20, kv_len=9, head_dim=64, dtype="fp32")
    flash2 = load("flash2")
    build = golden.Build(flash2, flash2.build_for(problem), "fp32")
    given_ = random_inputs(problem)
    q, k, v = (Tensor(n, unpacked(problem, given_[n]).shape).fill(unpacked(problem, given_[n])) for n in "QKV")
    o, l = Tensor("O", (1, 1, 20, 64)), Tensor("L", (1, 1, 20, 1))
    result = launch(
        Module(golden.load(build)), "flash2", grid=(1, 1, 1), block=(128,),
        arguments=[q, k, v, o, l, 20, 9, 64, 1, 0.125], shared_bytes=29_184, engine=WATCHED,
    )  # fmt: skip
    assert [str(finding) for finding in result.findings] == []
    s = q.values[0, 0] @ k.values[0, 0].T * 0.125
    e = np.exp(s - s.max(1, keepdims=True))
    assert np.allclose(o.values[0, 0], e @ v.values[0, 0] / e.sum(1, keepdims=True), atol=1e-5)
    assert o.is_written
    assert l.is_written


# ------------------------------------------------------------------------------------------------ what is written
@pytest.mark.parametrize("engine", [WATCHED, GridEngine()], ids=["watched", "not"])
def test_what_a_kernel_wrote_is_written(engine):
    """Whether or not the executor watches every access."""
    for threads in (3, 4):
        out = empty(4)
        launch(NUMBERED, "k", (1,), (threads,), [out], engine=engine)
        assert words(out)[:threads] == [*range(threads)]
        assert out.is_written is (threads == 4)


def test_a_kernel_that_writes_too_far_leaves_stray_elements():
    """The executor also says so; on a GPU only the guards do."""
    out = Tensor("out", (1, 1, 2, 4), padded)
    result = launch(NUMBERED, "k", (1,), (7,), [out], engine=WATCHED)
    assert out.stray_elements() == 3
    assert found(result) == [("touches memory between or behind the rows of the tensor", "out", 4 * (17 + 4), 3)]
    assert not out.is_written
