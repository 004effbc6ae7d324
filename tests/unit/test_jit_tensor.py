"""mma.sync, ldmatrix and cp.async on the engine `jit`, against the grid."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware_kernels.ptx.shared_memory import Region
from ioaware_kernels.ptx.tensor_core import FORMATS
from tests.unit.jit_launches import agree, cache_in, on_both
from tests.unit.ptx_kernels import array, numbers, store, text_of

SHARED = ".shared .align 16 .b8 tile[4096];"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with cache_in(tmp_path_factory.mktemp("jit")):
        yield


# mma


MMA = [(a, b, depth, c) for a in FORMATS for b in FORMATS for depth in FORMATS[a].depths for c in ("f32", "f16")
       if (a == b or {a, b} == {"e4m3", "e5m2"}) and (c == "f32" or a not in ("bf16", "tf32"))]  # fmt: skip


def group(prefix, count):
    return "{" + ", ".join(f"{prefix}{n}" for n in range(count)) + "}"


def mma_lines(a, b, depth, c):
    """Registers of A, B, C from array 0, D into array 1: 10 words per lane."""
    of_a = depth // (2 * FORMATS[a].packed)
    of_c, prefix = (4, "%f") if c == "f32" else (2, "%r2")
    names = [*(f"%r{n}" for n in range(of_a)), *(f"%r1{n}" for n in range(of_a // 2)),
             *(f"{prefix}{n}" for n in range(of_c))]  # fmt: skip
    lines = ["mad.wide.u32 %d1, %i, 40, %p0;", "mad.wide.u32 %d2, %i, 40, %p1;"]
    lines += [f"ld.global.{'f32' if name[1] == 'f' else 'b32'} {name}, [%d1+{4 * n}];" for n, name in enumerate(names)]
    lines += [f"mma.sync.aligned.m16n8k{depth}.row.col.{c}.{a}.{b}.{c} {group(prefix, of_c)}, {group('%r', of_a)}, "
              f"{group('%r1', of_a // 2)}, {group(prefix, of_c)};"]  # fmt: skip
    t = "f32" if prefix == "%f" else "b32"
    return [*lines, *(f"st.global.{t} [%d2+{4 * n}], {prefix}{n};" for n in range(of_c))]


def finite_bits(rng, a, c, lanes):
    """10 words per lane: small numbers in A and B, any size in C."""
    words = rng.integers(0, 1 << 32, (lanes, 10), np.uint32)
    keep = {"f16": 0xBBFFBBFF, "bf16": 0xBFBFBFBF, "tf32": 0xBFFFFFFF, "e4m3": 0xBFBFBFBF, "e5m2": 0xBFBFBFBF}[a]
    words[:, :6] &= np.uint32(keep)
    words[:, 6:] &= np.uint32(0xBFFFFFFF if c == "f32" else 0xBBFFBBFF)
    return words


@pytest.mark.parametrize(("a", "b", "depth", "c"), MMA, ids=[f"{a} {b} k{k} {c}" for a, b, k, c in MMA])
def test_products_have_the_bits_of_the_grid(a, b, depth, c):
    """NaN and infinity come too, from the codes of all kinds; one NaN is as good as another."""
    rng = np.random.default_rng(depth)
    words = np.concatenate([finite_bits(rng, a, c, 64), rng.integers(0, 1 << 32, (64, 10), np.uint32)])
    by_grid, by_jit, _ = on_both(text_of(mma_lines(a, b, depth, c), 2), 2, 64, [array(words), numbers([0] * 1280)])
    dtype = np.dtype("f4" if c == "f32" else "f2")
    want, got = (np.frombuffer(d.memory[1], dtype) for d in (by_grid, by_jit))
    assert (np.isnan(want) == np.isnan(got)).all()
    assert (want[~np.isnan(want)].view(f"u{dtype.itemsize}") == got[~np.isnan(want)].view(f"u{dtype.itemsize}")).all()
    assert np.isfinite(got[: got.size // 2]).mean() > 0.9
    assert by_jit.findings == by_grid.findings == {}


WHOLE_WARP = ["ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r1];",
              f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {group('%f', 4)}, {group('%r', 2)}, {{%r10}}, "
              f"{group('%f', 4)};"]  # fmt: skip


@pytest.mark.parametrize("line", WHOLE_WARP, ids=["ldmatrix", "mma"])
@pytest.mark.parametrize(("begin", "threads"), [
    (["setp.lt.u32 %q1, %t, 16;", "@!%q1 bra $END;"], 64), (["setp.lt.u32 %q1, %t, 40;", "@!%q1 bra $END;"], 64),
    ([], 40),
])  # fmt: skip
def test_a_part_of_a_warp_is_found(line, begin, threads):
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r1, %t, 16, %r1;", *begin, line, "$END:", *store(0, "%t")]
    by_grid, by_jit, _ = on_both(text_of(lines, 1, SHARED), 1, threads, [numbers([0] * threads)])
    assert by_jit.findings == by_grid.findings
    assert by_jit.findings


# ldmatrix


FILL = ["mov.u32 %r1, tile;", "mad.lo.u32 %r2, %t, 16, %r1;", "mad.wide.u32 %d1, %t, 16, %p0;",
        "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%d1];", "st.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7};",
        "bar.sync 0;"]  # fmt: skip


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
@settings(max_examples=4)
@given(st.lists(st.integers(-1, 65), min_size=64, max_size=64), st.sampled_from([16, 16, 8]))
def test_matrices(count, trans, rows, stride):
    """Rows anywhere: some before and behind shared memory, and between its rows."""
    results = "{" + ", ".join(f"%r{10 + n}" for n in range(count)) + "}"
    lines = [*FILL, "mad.wide.u32 %d2, %t, 4, %p1;", "ld.global.u32 %r3, [%d2];",
             f"mad.lo.u32 %r3, %r3, {stride}, %r1;",
             f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {results}, [%r3];",
             "mad.wide.u32 %d3, %t, 16, %p2;",
             *(f"st.global.u32 [%d3+{4 * n}], %r{10 + n};" for n in range(count))]  # fmt: skip
    arrays = [array(random.Random(0).randbytes(1024)), numbers(rows), numbers([0] * 256)]
    agree(text_of(lines, 3, ".shared .align 16 .b8 tile[1024];"), 1, 64, arrays, 0, [Region("A", 0, 512)])


# cp.async


REGIONS = [Region("A", 0, 1024), Region("B", 1024, 2048)]
ORDERS = ["cp.async.commit_group;", "cp.async.wait_group 0;", "cp.async.wait_group 1;", "cp.async.wait_group 2;",
          "cp.async.wait_all;", "setp.lt.u32 %q1, %t, 20;", "setp.ge.u32 %q1, %t, 9;"]  # fmt: skip


@settings(max_examples=20)
@given(st.lists(st.sampled_from([*ORDERS, "copy", "copy", "look", "look"]), min_size=2, max_size=14), st.data())
def test_copies_arrive_when_they_do_on_the_grid(orders, data):
    """Random copies, groups and waits, some of them of some lanes; after each step everybody may look."""
    lines = ["setp.lt.u32 %q1, %t, 99;", "mov.u32 %r1, tile;", "mad.lo.u32 %r2, %t, 16, %r1;",
             "mad.wide.u32 %d1, %i, 16, %p0;", "mad.wide.u32 %d2, %i, 4, %p1;"]  # fmt: skip
    for order in orders:
        guard = data.draw(st.sampled_from(["", "", "@%q1 "]))
        if order == "copy":
            size = data.draw(st.sampled_from([4, 8, 16]))
            read = data.draw(st.sampled_from(["", f", {size}", ", 0", ", 4", ", %t"])) if size == 16 else ""
            read = ", %r9" if read == ", %t" else read
            at, by = (data.draw(st.sampled_from([0, 512, 1024, 1088])) for _ in range(2))
            lines += ["sub.u32 %r9, %t, 3;", f"{guard}cp.async.ca.shared.global [%r2+{at}], [%d1+{by}], {size}{read};"]
        elif order == "look":
            for at in (0, 516, 1096):
                lines += [f"ld.shared.u32 %r3, [%r2+{at}];", "mul.lo.u32 %r4, %r4, 3;", "xor.b32 %r4, %r4, %r3;"]
        else:
            lines += [order if order.startswith("setp") else guard + order]
    arrays = [array(random.Random(0).randbytes(2048)), numbers([0] * 64)]
    text = text_of([*lines, "st.global.u32 [%d2], %r4;"], 2, ".shared .align 16 .b8 tile[2048];")
    agree(text, 2, 32, arrays, 0, REGIONS)


def test_copies_that_nobody_waits_for_never_arrive_in_the_next_thread_block():
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r2, %t, 16, %r1;", "mad.wide.u32 %d1, %i, 16, %p0;",
             "cp.async.wait_all;", "ld.shared.u32 %r3, [%r2];", "cp.async.cg.shared.global [%r2], [%d1], 16;",
             "cp.async.commit_group;", *store(1, "%r3")]  # fmt: skip
    arrays = [array(random.Random(0).randbytes(2048)), numbers([0] * 128)]
    out = agree(text_of(lines, 2, ".shared .align 16 .b8 tile[512];"), 4, 32, arrays)
    assert set(out[1].words.tolist()) == {-1}


def test_the_source_is_read_when_the_copy_arrives():
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r2, %t, 4, %r1;", "mad.wide.u32 %d1, %t, 4, %p0;",
             "cp.async.ca.shared.global [%r2], [%d1], 4;", "st.global.u32 [%d1], %t;", "cp.async.wait_all;",
             "ld.shared.u32 %r3, [%r2];", *store(1, "%r3")]  # fmt: skip
    arrays = [numbers([7] * 32), numbers([0] * 32)]
    out = agree(text_of(lines, 2, ".shared .align 16 .b8 tile[128];"), 1, 32, arrays)
    assert out[1].words.tolist() == list(range(32))


@pytest.mark.parametrize(("source", "place"), [(0, 0), (-16, 0), (1 << 14, 0), (4, 0), (0, 4), (0, 480), (0, -16)])
def test_copies_that_stray(source, place):
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r2, %t, 16, %r1;", "mad.wide.u32 %d1, %t, 16, %p0;",
             f"add.s64 %d1, %d1, {source};",
             f"cp.async.ca.shared.global [%r2+{place}], [%d1], 16;", "cp.async.wait_all;", "ld.shared.u32 %r3, [%r2];",
             *store(1, "%r3")]  # fmt: skip
    arrays = [array(random.Random(0).randbytes(512)), numbers([0] * 32)]
    by_grid, by_jit, _ = on_both(text_of(lines, 2, ".shared .align 16 .b8 tile[512];"), 1, 32, arrays)
    assert by_jit == by_grid
    assert bool(by_jit.findings) == bool(source or place)
