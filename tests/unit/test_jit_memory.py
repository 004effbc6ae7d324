"""Memory on the engine `jit`: what is counted, what strays, atomics, as on the grid."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_kernels.ptx import findings
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.jit import run as jit
from ioaware_kernels.ptx.jit.compile import compiled
from ioaware_kernels.ptx.jit.compile import text_of as ir_of
from ioaware_kernels.ptx.jit.sites import sites_of
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.ptx.shared_memory import Region
from tests.unit.jit_launches import agree, cache_in, on_both, words
from tests.unit.ptx_kernels import array, load, numbers, store, text_of
from tests.unit.test_ptx_memory import ATOMICS, CODES, REGISTERS

TILE = ".shared .align 16 .b8 tile[256];"
POISON = 0xFFFFFFFF
REGIONS = [Region("A", 0, 64), Region("B", 64, 128), Region("C", 160, 256)]  # nothing between 128 and 160


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with cache_in(tmp_path_factory.mktemp("jit")):
        yield


def zeros(count):
    return numbers([0] * count)


# Regions, buffers and pieces


@settings(max_examples=15)
@given(st.lists(st.integers(0, 63), min_size=64, max_size=64), st.lists(st.integers(0, 63), min_size=64, max_size=64))
def test_a_site_that_touches_several_regions_counts_each(first, second):
    """Also in a loop, and with a constant between two accesses that are checked at once."""
    lines = [*load(0, "%r1"), *load(1, "%r2"), "mov.u32 %r9, 0;", "$LOOP:", "mov.u32 %r4, tile;",
             "mad.lo.u32 %r3, %r1, 4, %r4;", "st.shared.u32 [%r3], %t;", "ld.shared.u32 %r5, [%r3];",
             "and.b32 %r6, %r1, 31;", "mad.lo.u32 %r6, %r6, 4, %r4;", "ld.shared.u32 %r7, [%r6+128];",
             "ld.shared.u32 %r8, [%r6];", "add.u32 %r5, %r5, %r7;", "mov.u32 %r1, %r2;", "add.u32 %r9, %r9, 1;",
             "setp.lt.u32 %q1, %r9, 3;", "@%q1 bra $LOOP;", *store(2, "%r9")]  # fmt: skip
    arrays = [numbers(first), numbers(second), zeros(64)]
    agree(text_of(lines, 3, TILE), 2, 32, arrays, 0, REGIONS)


@settings(max_examples=12)
@given(st.lists(st.integers(-2, 18), min_size=8, max_size=8))
def test_a_window_is_as_wide_as_all_that_are_checked_together(places):
    """Trip after trip the first access moves, and takes others before and behind it across the ends of regions."""
    lines = ["mov.u32 %r9, 0;", "$LOOP:", "mad.wide.u32 %d1, %r9, 4, %p0;", "ld.global.u32 %r1, [%d1];",
             "mov.u32 %r2, tile;", "mad.lo.u32 %r1, %r1, 16, %r2;", "st.shared.u32 [%r1], %r9;",
             "st.shared.u32 [%r1+-16], %r9;", "st.shared.u32 [%r1+16], %r9;", "add.u32 %r9, %r9, 1;",
             "setp.lt.u32 %q1, %r9, 8;", "@%q1 bra $LOOP;"]  # fmt: skip
    agree(text_of(lines, 1, TILE), 1, 32, [numbers(places)], 0, REGIONS)


def test_accesses_that_differ_by_a_constant_are_checked_at_once():
    lines = ["mov.u32 %r1, tile;", "ld.shared.u32 %r2, [%r1+8];", "ld.shared.u32 %r3, [%r1];", "mov.u32 %r4, %r1;",
             "ld.shared.v2.u32 {%r5, %r6}, [%r1+16];", "ld.shared.u32 %r5, [%r4];", "add.u32 %r1, %r1, 4;",
             "st.shared.u32 [%r1], %r2;", "@%q1 st.shared.u32 [%r1+4], %r2;"]  # fmt: skip
    sites = sites_of(parse(text_of(lines, 0, TILE))["k"]).accesses
    assert [(s.first.number, s.offset) for s in sites] == [(0, 0), (0, -8), (2, 0), (3, 0), (4, 0), (5, 0)]
    assert sites[0].reach == (8, 0)


@pytest.mark.parametrize("base", [-16, -4, 0, 200, 240, 256, 300, 2, 1 << 31])
def test_what_strays_of_several_that_are_checked_at_once(base):
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r1, %t, 4, %r1;", f"add.u32 %r1, %r1, {base};",
             "st.shared.u32 [%r1+8], %t;", "st.shared.u32 [%r1], %t;", "ld.shared.u32 %r2, [%r1+16];",
             "st.shared.v4.u32 [%r1+32], {%t, %t, %t, %t};", *store(0, "%r2")]  # fmt: skip
    by_grid, by_jit, out = on_both(text_of(lines, 1, TILE), 2, 32, [zeros(64)], 0, REGIONS)
    assert by_jit.findings == by_grid.findings
    assert by_jit.counts == by_grid.counts
    on_grid = np.frombuffer(by_grid.memory[0], np.uint32).tolist()
    assert all(n in (POISON, m) for n, m in zip(words(out[0]), on_grid, strict=True))
    strays = any("ld.shared" in text for _, text, *_ in by_jit.findings)
    assert POISON in words(out[0]) or not strays


@pytest.mark.parametrize("at", [-4, 0, 2, 120, 124, 126, 1 << 20, 1 << 39, 1 << 40, -(1 << 40), 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("t", ["u8", "u16", "u32", "f64", "v2.u32", "v4.f32"])
def test_what_strays_from_a_tensor(t, at):
    """Every lane an element further; loads give poison, stores do nothing."""
    registers = {"v2.u32": "{%r2, %r3}", "v4.f32": "{%f1, %f2, %f3, %f4}", "f64": "%e1"}.get(t, "%r2")
    lines = [f"mov.u64 %d1, {at};", "add.s64 %d1, %p0, %d1;", "mad.wide.u32 %d1, %t, 4, %d1;",
             f"ld.global.{t} {registers}, [%d1];", "add.s64 %d1, %d1, 64;", f"st.global.{t} [%d1], {registers};",
             *store(1, "%r2")]  # fmt: skip
    agree(text_of(lines, 2), 1, 32, [numbers(range(50)), zeros(32)])


def test_a_finding_says_where_first():
    lines = ["setp.eq.u32 %q1, %i, 100;", "mov.u32 %r1, 8;", "@%q1 ld.shared.u32 %r2, [%r1];"]
    text = text_of(lines, 0)
    result = jit.launch(parse(text)["k"], compiled(parse(text)["k"], text), (5,), (40,), {}, [])
    (finding,) = result.findings
    assert (finding.what, finding.memory, finding.first, finding.times) == (
        findings.OUT_OF_BOUNDS, "shared memory", (2, 20, 8), 1,
    )  # fmt: skip


def test_a_tensor_in_pieces_far_apart():
    pieces = [0, 1 << 34, 1 << 35]
    buffer = Buffer("x", np.arange(48, dtype=np.int32), np.ones(48, np.uint8), pieces, [64] * 3)
    lines = ["shr.u32 %r1, %i, 4;", "mul.wide.u32 %d1, %r1, 0x40000000;", "shl.b64 %d1, %d1, 4;",
             "and.b32 %r2, %i, 15;", "mad.wide.u32 %d1, %r2, 4, %d1;", "add.s64 %d1, %p0, %d1;",
             "ld.global.u32 %r3, [%d1];", "add.u32 %r3, %r3, 1;", "st.global.u32 [%d1], %r3;",
             "ld.global.u32 %r4, [%d1+32];", *store(1, "%r4")]  # fmt: skip
    agree(text_of(lines, 2), 2, 32, [buffer, zeros(64)])


def test_lanes_of_one_instruction_may_touch_different_tensors():
    lines = ["setp.lt.u32 %q1, %t, 16;", "selp.b64 %d2, %p0, %p1, %q1;", "mad.wide.u32 %d2, %i, 4, %d2;",
             "ld.global.u32 %r1, [%d2];", "st.global.u32 [%d2], %t;", *store(2, "%r1")]  # fmt: skip
    arrays = [array(struct.pack("<64I", *range(100, 164)), "a"), array(struct.pack("<64I", *range(200, 264)), "b")]
    out = agree(text_of(lines, 3), 2, 32, [*arrays, zeros(64)], findings=0)
    assert words(out[2]) == [(100 if n % 32 < 16 else 200) + n for n in range(64)]


def test_generic_addresses_are_shared_or_global_by_their_value():
    lines = ["mov.u64 %d1, tile;", "cvta.shared.u64 %d1, %d1;", "mad.wide.u32 %d1, %t, 4, %d1;", "st.u32 [%d1], %i;",
             "bar.sync 0;", "xor.b32 %r1, %t, 1;", "mov.u64 %d2, tile;", "mad.wide.u32 %d2, %r1, 4, %d2;",
             "ld.u32 %r2, [%d2];", "ld.u32 %r3, [%d2+200];", "atom.add.u32 %r4, [%d2], 5;",
             *[line.replace(".global", "") for line in store(0, "%r2")]]  # fmt: skip
    agree(text_of(lines, 1, TILE), 2, 32, [zeros(64)], 0, REGIONS)


def test_the_poison_of_every_thread_block_is_fresh():
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r1, %t, 4, %r1;", "ld.shared.u32 %r2, [%r1];",
             "st.shared.u32 [%r1], %i;", *store(0, "%r2")]  # fmt: skip
    assert set(words(agree(text_of(lines, 1, TILE), 9, 32, [zeros(288)])[0])) == {0xFFFFFFFF}


# Types


MOVES = [(t, register) for t in ("u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32", "u64", "b64", "f32", "f64")
         for register in ("%h1", "%r1", "%d1", "%f1", "%e1")
         if {"h": 2, "r": 4, "d": 8, "f": 4, "e": 8}[register[1]] * 8 >= int(t[1:])
         and ((register[1] in "fe") == (t[0] == "f")) and not (register == "%e1" and t == "f32")]  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared"])
def test_loads_extend_and_stores_cut(space):
    lines = ["mov.u32 %r9, tile;", "mad.lo.u32 %r9, %t, 8, %r9;", "mad.wide.u32 %d9, %t, 8, %p0;",
             "ld.global.u64 %d8, [%d9];", "st.shared.u64 [%r9], %d8;", "mad.wide.u32 %d7, %t, 8, %p1;"]  # fmt: skip
    at = "%r9" if space == "shared" else "%d9"
    for n, (t, register) in enumerate(MOVES):
        whole = {"h": "b16", "r": "b32", "d": "b64", "f": "f32", "e": "f64"}[register[1]]
        lines += [f"ld.{space}.{t} {register}, [{at}];", f"st.global.{whole} [%d7+{512 * n}], {register};",
                  f"st.{space}.{t} [{at}], {register};"]  # fmt: skip
    data = np.random.default_rng(0).integers(0, 256, 512, np.uint8).tobytes()
    shared = ".shared .align 8 .b8 tile[512];"
    agree(text_of(lines, 2, shared), 1, 64, [array(data), array(bytes(512 * len(MOVES)))], findings=0)


@pytest.mark.parametrize("width", ["v2", "v4"])
@pytest.mark.parametrize("t", ["f32", "u16", "f64"])
def test_vectors(width, t):
    count, size = int(width[1]), int(t[1:]) // 8
    if count * size > 16:
        return
    prefix = {"f32": "%f", "u16": "%h", "f64": "%e"}[t]
    registers = "{" + ", ".join(f"{prefix}{n}" for n in range(count)) + "}"
    total = count * size
    lines = ["mov.u32 %r1, tile;", f"mad.lo.u32 %r1, %t, {total}, %r1;", f"mad.wide.u32 %d1, %i, {total}, %p0;",
             f"ld.global.{width}.{t} {registers}, [%d1];", f"st.shared.{width}.{t} [%r1], {registers};", "bar.sync 0;",
             "mov.u32 %r2, tile;", "sub.u32 %r3, 31, %t;", f"mad.lo.u32 %r2, %r3, {total}, %r2;",
             f"ld.shared.{width}.{t} {registers}, [%r2];", f"mad.wide.u32 %d1, %i, {total}, %p1;",
             f"st.global.{width}.{t} [%d1], {registers};"]  # fmt: skip
    data = np.random.default_rng(0).integers(0, 256, 64 * total, np.uint8).tobytes()
    shared = ".shared .align 16 .b8 tile[512];"
    agree(text_of(lines, 2, shared), 2, 32, [array(data), array(bytes(64 * total))], findings=0)


# Atomics


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("name", "t"), ATOMICS, ids=[".".join(a) for a in ATOMICS])
def test_atomics_happen_lane_after_lane_and_return_what_they_found(space, name, t):
    """One warp: then the order is that of the grid, also of sums that round."""
    size, code, threads, places = int(t[1:]) // 8, CODES[t], 32, 4
    rng, low = np.random.default_rng(0), 0 if t[0] in "ub" else -50
    draw = lambda: rng.integers(low, 50, threads).tolist() if t[0] != "f" else rng.normal(size=threads).tolist()  # noqa: E731
    values = [[v % 3 for v in draw()] if name == "cas" else draw() for _ in range(2)]
    where, begin = rng.integers(0, places, threads).tolist(), draw()[:places]
    kind = t if t[0] == "f" else f"b{8 * size}"
    prefix = REGISTERS[kind]
    a, b, old = (f"{prefix}{n}" for n in (30, 31, 32))
    operands = f"{a}, {b}" if name == "cas" else a
    lines = [*load(0, a, kind, size), *load(1, b, kind, size), *load(2, "%r1"), *load(3, f"{prefix}33", kind, size,
             "%r1"), f"mad.wide.u32 %d1, %r1, {size}, %p3;", "mov.u32 %r2, tile;", f"mad.lo.u32 %r3, %r1, {size}, %r2;",
             f"st.shared.{kind} [%r3], {prefix}33;", "bar.sync 0;", "setp.ne.u32 %q1, %t, 5;",
             f"@%q1 atom.{space}.{name}.{t} {old}, [{'%d1' if space == 'global' else '%r3'}], {operands};",
             "bar.sync 0;",
             *([f"ld.shared.{kind} {prefix}33, [%r3];", f"st.global.{kind} [%d1], {prefix}33;"]
               if space == "shared" else []), *store(4, old, kind, size)]  # fmt: skip
    packed = [struct.pack(f"<{len(v)}{c}", *v) for v, c in zip((*values, where, begin), (code, code, "I", code))]  # noqa: B905
    arrays = [*map(array, packed), array(bytes(size * threads))]
    agree(text_of(lines, 5, f".shared .align 8 .b8 tile[{places * size}];"), 1, threads, arrays, findings=0)


def test_atomics_that_stray_do_nothing_and_give_zero():
    lines = ["mad.wide.u32 %d1, %t, 6, %p0;", "mov.u32 %r1, 9;", "atom.global.add.u32 %r1, [%d1], 3;",
             "red.global.max.u32 [%d1+64], %i;", *store(1, "%r1")]  # fmt: skip
    agree(text_of(lines, 2), 2, 40, [numbers(range(20)), zeros(80)], findings=4)


# What is not run


@pytest.mark.parametrize("line", ["atom.global.min.f32 %f1, [%p0], %f2;", "atom.global.add.u16 %h1, [%p0], %h2;"])
def test_what_only_the_grid_runs_is_refused_with_a_reference_to_it(line):
    with pytest.raises(InputError, match=r"^PTX line \d+: .* the compiled executor does not run atom.*`grid` does$"):
        ir_of(parse(text_of([line], 1))["k"])


def test_engines_that_differ_would_be_seen():
    """The comparison itself can fail: in a value, a count, a finding."""
    did = [on_both(text_of(lines, 1), 1, threads, [zeros(32)])[1] for lines, threads in (
        (store(0, "%t"), 32), (store(0, "%n"), 32), (store(0, "%t"), 31),
        ([*store(0, "%t"), "st.shared.u32 [%t], %t;"], 32),
    )]  # fmt: skip
    assert did[0].memory != did[1].memory
    assert did[0].counts != did[2].counts
    assert did[0].findings != did[3].findings
