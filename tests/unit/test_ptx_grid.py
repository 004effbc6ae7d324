"""The engine: control flow, barriers, shuffles, votes, counts of a whole grid, against one thread at a time."""

import itertools
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware_kernels import nvrtc
from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.ptx.shared_memory import Region
from tests.compiler import needs_nvrtc
from tests.unit.ptx_kernels import MASK, PROLOGUE, array, found, launch, load, numbers, run, store, text_of

# Control flow: random programs, and the same one thread at a time


class Jump(Exception):
    """break, continue or ret."""


def statements(depth, *, in_loop):
    simple = st.tuples(st.just("add"), st.integers(1, 99))
    jumps = st.tuples(st.sampled_from(["ret", *(["break", "continue"] if in_loop else [])]), st.integers(0, 11))
    if depth == 0:
        return st.lists(simple | jumps, min_size=1, max_size=3)
    inner = st.deferred(lambda: statements(depth - 1, in_loop=in_loop))
    looped = st.deferred(lambda: statements(depth - 1, in_loop=True))
    branch = st.tuples(st.just("if"), st.integers(0, 11), inner, inner)
    loop = st.tuples(st.just("loop"), st.integers(0, 10), looped)
    return st.lists(simple | jumps | branch | loop, min_size=1, max_size=4)


def translate(program, names, depth=0, around=None):
    """PTX lines: %r0 is the thread's data, %r1 its sum, %r10 and up the counters of loops."""
    lines = []

    def bit(n):
        return [f"shr.u32 %r2, %r0, {n};", f"add.u32 %r2, %r2, %r{9 + depth};" if depth else "",
                "and.b32 %r2, %r2, 1;", "setp.ne.u32 %q1, %r2, 0;"]  # fmt: skip

    for kind, n, *parts in program:
        label = f"$L{next(names)}"
        if kind == "add":
            lines += ["mul.lo.u32 %r1, %r1, 3;", f"add.u32 %r1, %r1, {n};"]
        elif kind == "ret":
            lines += [*bit(n), *(["@%q1 bra $END;"] if n % 2 else ["@%q1 ret;"])]
        elif kind in ("break", "continue"):
            lines += [*bit(n), f"@%q1 bra {around}_{kind};"]
        elif kind == "if":
            lines += [*bit(n), f"@!%q1 bra {label}_else;", *translate(parts[0], names, depth, around),
                      f"bra.uni {label}_end;", f"{label}_else:", *translate(parts[1], names, depth, around),
                      f"{label}_end:"]  # fmt: skip
        else:
            counter, limit = f"%r{10 + depth}", f"%r{20 + depth}"
            lines += [f"mov.u32 {counter}, 0;", f"shr.u32 {limit}, %r0, {n};", f"and.b32 {limit}, {limit}, 3;",
                      f"{label}_head:", f"setp.ge.u32 %q1, {counter}, {limit};", f"@%q1 bra {label}_break;",
                      *translate(parts[0], names, depth + 1, label), f"{label}_continue:",
                      f"add.u32 {counter}, {counter}, 1;", f"bra {label}_head;", f"{label}_break:"]  # fmt: skip
    return [line for line in lines if line]


def one_thread(program, data, total, counters=()):
    def is_set(n):
        return (data >> n) + (counters[-1] if counters else 0) & 1

    for kind, n, *parts in program:
        if kind == "add":
            total[0] = (3 * total[0] + n) & MASK
        elif kind == "if":
            one_thread(parts[0] if is_set(n) else parts[1], data, total, counters)
        elif kind == "loop":
            for counter in range(data >> n & 3):
                try:
                    one_thread(parts[0], data, total, (*counters, counter))
                except Jump as jump:
                    if str(jump) == "ret":
                        raise
                    if str(jump) == "break":
                        break
        elif is_set(n):
            raise Jump(kind)


@settings(max_examples=60)
@given(statements(3, in_loop=False), st.lists(st.integers(0, 4095), min_size=96, max_size=96))
def test_diverging_threads_do_what_each_would_do_alone(program, data):
    """The sum is stored at once, so that threads that return early leave theirs."""
    names = itertools.count()
    body = translate(program, names)
    stores = [x for line in body for x in ([line, *store(1, "%r1")] if "add.u32 %r1" in line else [line])]
    lines = [*load(0, "%r0"), "mov.u32 %r1, 0;", *stores, *store(1, "%r1"), "$END:"]
    out = run(lines, 2, 48, data)
    for value, given_ in zip(out, data, strict=True):
        total = [0]
        with suppress(Jump):
            one_thread(program, given_, total)
        assert value == total[0]


def test_threads_that_have_ended_do_not_hold_up_a_barrier():
    lines = ["mov.u32 %r1, tile;", "shl.b32 %r2, %t, 2;", "add.u32 %r2, %r1, %r2;", "st.shared.u32 [%r2], %i;",
             "setp.ge.u32 %q1, %t, 40;", "@%q1 ret;", "setp.lt.u32 %q1, %t, 7;", "@%q1 bra $END;", "bar.sync 0;",
             "sub.u32 %r3, 39, %t;", "shl.b32 %r3, %r3, 2;", "add.u32 %r3, %r1, %r3;", "ld.shared.u32 %r4, [%r3];",
             *store(0, "%r4"), "$END:"]  # fmt: skip
    out = run(lines, 3, 64, shared=".shared .align 4 .b8 tile[256];")
    assert out == [64 * (n // 64) + 39 - n % 64 if 7 <= n % 64 < 40 else 0 for n in range(192)]


def test_a_barrier_in_a_loop_whose_length_differs_between_blocks():
    lines = ["mov.u32 %r9, %ctaid.x;", "mov.u32 %r1, tile;", "shl.b32 %r2, %t, 2;", "add.u32 %r2, %r1, %r2;",
             "st.shared.u32 [%r2], %t;", "mov.u32 %r5, 0;", "$LOOP:", "setp.ge.u32 %q1, %r5, %r9;", "@%q1 bra $DONE;",
             "bar.sync 0;", "add.u32 %r3, %t, 1;", "and.b32 %r3, %r3, 31;", "shl.b32 %r3, %r3, 2;",
             "add.u32 %r3, %r1, %r3;", "ld.shared.u32 %r4, [%r3];", "bar.sync 0;", "st.shared.u32 [%r2], %r4;",
             "add.u32 %r5, %r5, 1;", "bra $LOOP;", "$DONE:", "ld.shared.u32 %r4, [%r2];", *store(0, "%r4")]  # fmt: skip
    out = run(lines, 5, 32, shared=".shared .align 4 .b8 tile[128];", races=True)
    assert out == [(n % 32 + n // 32) % 32 for n in range(160)]


def test_a_barrier_that_a_part_of_a_block_never_reaches():
    lines = ["setp.lt.u32 %q1, %i, 40;", "@%q1 bra $ONE;", "bar.sync 0;", "mov.u32 %r1, 1;", "bra $END;", "$ONE:",
             "barrier.sync 0;", "$END:", *store(0, "%t")]  # fmt: skip
    arrays = [numbers([0] * 96)]
    result = launch(text_of(lines, 1), 3, 32, arrays)
    assert found(result) == [(findings.DIVERGENT_BARRIER, "bar.sync 0", 1, 8, 24),
                             (findings.DIVERGENT_BARRIER, "barrier.sync 0", 1, 0, 8)]  # fmt: skip
    assert arrays[0].words.tolist() == [*range(32), *[0] * 32, *range(32)]


def test_an_endless_loop_ends_at_the_budget():
    lines = [
        *store(0, "%t"),
        "mov.u32 %r1, 0;",
        "$LOOP:",
        "add.u32 %r1, %r1, 1;",
        "setp.ne.u32 %q1, %t, 3;",
        "@!%q1 bra $LOOP;",
    ]
    arrays = [numbers([0] * 32)]
    result = launch(text_of(lines, 1), 1, 32, arrays, budget=1000)
    assert found(result) == [(findings.BUDGET, "@!%q1 bra $LOOP", 0, 3, 1)]
    assert 1000 < result.counts.instructions <= 1003
    assert arrays[0].words.tolist() == list(range(32))


def test_instructions_are_counted_once_for_all_threads_that_run_them_together():
    straight = ["add.u32 %r1, %t, 1;"] * 7
    one_parameter = PROLOGUE + 1 + 1  # and `ret`
    count = lambda lines: launch(text_of(lines, 1), 2, 64, [numbers([0])]).counts.instructions  # noqa: E731
    assert count(straight) == 7 + one_parameter
    trips = ["mov.u32 %r1, 0;", "$LOOP:", "add.u32 %r1, %r1, 1;", "setp.lt.u32 %q1, %r1, 9;", "@%q1 bra $LOOP;"]
    assert count(trips) == 1 + 3 * 9 + one_parameter
    lane_dependent = [line.replace(" 9;", " %t;") for line in trips]  # thread 63 goes round most
    assert count(lane_dependent) == 1 + 3 * 63 + one_parameter
    branches = ["setp.lt.u32 %q1, %t, 32;", "@%q1 bra $A;", "mov.u32 %r1, 1;", "mov.u32 %r1, 2;", "bra $B;", "$A:",
                "mov.u32 %r1, 3;", "$B:"]  # fmt: skip
    assert count(branches) == 2 + 3 + 1 + one_parameter


# Grids


@settings(max_examples=10)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([1, 64, 8192]))
def test_grids_and_blocks_of_up_to_three_dimensions(blocks, threads, together):
    lines = ["mov.u32 %i, 0;"]
    for name, axis in itertools.product(("ctaid", "tid"), "zyx"):
        lines += [f"mov.u32 %r1, %n{name}.{axis};", f"mov.u32 %r2, %{name}.{axis};", "mad.lo.u32 %i, %i, %r1, %r2;"]
    total = int(np.prod(blocks) * np.prod(threads))
    arrays = [numbers([0] * total)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "LANES_TOGETHER", together)
        launch(text_of([*lines, *store(0, "%i")], 1), blocks, threads, arrays)
    assert arrays[0].words.tolist() == list(range(total))


@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_run_in_several_goes_without_a_difference(reverse):
    """Shared memory is fresh for every block; counts and findings are of the whole grid."""
    blocks, threads = 700, 32  # more lanes than LANES_TOGETHER
    assert blocks * threads > 2 * grid.LANES_TOGETHER
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r1, %t, 4, %r1;", "ld.shared.u32 %r2, [%r1];",
             "setp.eq.u32 %q1, %i, 22000;", "@%q1 ld.shared.u32 %r3, [%r1+512];", "st.shared.u32 [%r1], %i;",
             *store(0, "%r2")]  # fmt: skip
    arrays = [numbers([0] * (blocks * threads))]
    result = launch(text_of(lines, 1, ".shared .align 4 .b8 tile[128];"), blocks, threads, arrays, reverse=reverse)
    assert set(arrays[0].words.tolist()) == {-1}  # what nobody wrote
    ((what, text, _, thread, times),) = found(result)
    assert (what, text, thread, times) == (findings.OUT_OF_BOUNDS, "@%q1 ld.shared.u32 %r3, [%r1+512]", 16, 1)
    assert sorted(result.counts.bytes.values()) == [4 * blocks * threads] * 3


@pytest.mark.parametrize(
    "reverse",
    [False, True],
)
def test_a_finding_names_its_block(reverse):
    lines = ["setp.eq.u32 %q1, %i, 100;", "mov.u32 %r1, 0;", "@%q1 ld.shared.u32 %r2, [%r1];"]
    result = launch(text_of(lines, 0), 5, 32, [], reverse=reverse)
    assert found(result) == [(findings.OUT_OF_BOUNDS, lines[-1][:-1], 3, 4, 1)]


def test_the_reverse_order_is_that_of_blocks_and_of_the_lanes_of_an_atomic():
    lines = ["atom.global.exch.b32 %r1, [%p0], %i;", *store(1, "%r1")]
    for reverse in (False, True):
        arrays = [numbers([MASK]), numbers([0] * 20000)]
        launch(text_of(lines, 2), 625, 32, arrays, reverse=reverse)
        before = arrays[1].words.tolist()
        assert before == ([*range(1, 20000), -1] if reverse else [-1, *range(19999)])


# Other threads of the warp


def shuffled(mode, lane, b, c):
    """(lane to read, whether it is in range): the words of the PTX ISA."""
    bval, clamp, segmask = b & 31, c & 31, c >> 8 & 31
    lowest = lane & segmask
    highest = lowest | clamp & ~segmask
    j = {"up": lane - bval, "down": lane + bval, "bfly": lane ^ bval, "idx": lowest | bval & ~segmask}[mode]
    valid = j >= highest if mode == "up" else j <= highest
    return (j, True) if valid else (lane, False)


WIDTH = {w: {"up": 32 - w << 8, **dict.fromkeys(("down", "bfly", "idx"), 32 - w << 8 | 31)} for w in (1, 2, 8, 16, 32)}


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@settings(max_examples=10)
@given(st.data())
def test_shuffles(mode, data):
    uniform = st.tuples(st.integers(0, 40), st.sampled_from([w[mode] for w in WIDTH.values()]))
    b, c = data.draw(st.one_of(
        uniform.map(lambda x: ([x[0]] * 64, [x[1]] * 64)),
        st.tuples(*[st.lists(st.integers(0, 0x1F1F), min_size=64, max_size=64)] * 2),
    ))  # fmt: skip
    as_literals = len({*b}) == len({*c}) == 1 and data.draw(st.booleans())
    named = f"{b[0]}, {c[0]}" if as_literals else "%r2, %r3"
    lines = [*load(0, "%r1"), *load(1, "%r2"), *load(2, "%r3"), f"shfl.sync.{mode}.b32 %r4|%q1, %r1, {named}, -1;",
             "selp.u32 %r5, 1, 0, %q1;", "mad.lo.u32 %r4, %r4, 2, %r5;", *store(3, "%r4")]  # fmt: skip
    given_ = [1000 + 7 * n for n in range(64)]
    expected = []
    for n in range(64):
        source, valid = shuffled(mode, n % 32, b[n], c[n])
        expected.append(2 * given_[n // 32 * 32 + source % 32] + valid if 0 <= source < 32 else None)
    out = run(lines, 1, 64, given_, b, c)
    assert [o for o, e in zip(out, expected, strict=True) if e is not None] == [e for e in expected if e is not None]


def test_a_shuffle_that_reads_a_thread_elsewhere_is_found():
    lines = ["mov.u32 %r1, 0;", "setp.lt.u32 %q1, %t, 16;", "@!%q1 bra $END;", "mov.u32 %r1, %i;",
             "shfl.sync.down.b32 %r1, %i, 4, 31, 65535;", "$END:", *store(0, "%r1")]  # fmt: skip
    result = launch(text_of(lines, 1), 2, 32, [numbers([0] * 64)])
    assert found(result) == [(findings.INACTIVE_LANE, "shfl.sync.down.b32 %r1, %i, 4, 31, 65535", 0, 12, 8)]


@settings(max_examples=15)
@given(st.lists(st.booleans(), min_size=80, max_size=80), st.integers(1, 40), st.booleans())
def test_votes_are_over_the_lanes_of_the_mask(given_, some, negated):
    """The first `some` threads of a block of 40 vote: a whole warp and a partial one, or only a part of the first."""
    p = "!%q2" if negated else "%q2"
    lines = [*load(0, "%r1"), "setp.ne.u32 %q2, %r1, 0;", f"setp.ge.u32 %q1, %t, {some};", "@%q1 bra $END;",
             "setp.lt.u32 %q3, %t, 32;", f"mov.u32 %r9, {(1 << min(some, 32)) - 1};",
             f"selp.b32 %r9, %r9, {(1 << max(some - 32, 0)) - 1}, %q3;",
             f"vote.sync.all.pred %q4, {p}, %r9;", f"vote.sync.any.pred %q5, {p}, %r9;",
             f"vote.sync.uni.pred %q6, {p}, %r9;", f"vote.sync.ballot.b32 %r2, {p}, %r9;",
             "selp.u32 %r3, 1, 0, %q4;", "selp.u32 %r4, 2, 0, %q5;", "selp.u32 %r5, 4, 0, %q6;",
             "or.b32 %r3, %r3, %r4;", "or.b32 %r3, %r3, %r5;", *store(1, "%r2"), *store(2, "%r3"), "$END:"]  # fmt: skip
    arrays = [numbers(list(map(int, given_))), numbers([0] * 80), numbers([0] * 80)]
    assert not found(launch(text_of(lines, 3), 2, 40, arrays))
    for n in range(80):
        block, thread = divmod(n, 40)
        warp = [t for t in range(some) if t // 32 == thread // 32]
        votes = [given_[40 * block + t] != negated for t in warp]
        expected = (sum(v << t % 32 for v, t in zip(votes, warp, strict=True)),
                    all(votes) + 2 * any(votes) + 4 * (all(votes) or not any(votes)))  # fmt: skip
        got = int(arrays[1].words.view(np.uint32)[n]), int(arrays[2].words[n])
        assert got == (expected if thread < some else (0, 0))


@pytest.mark.parametrize("mask", ["-1", "0xffffffff"])
def test_a_warp_barrier_of_the_threads_that_have_not_ended(mask):
    lanes = 20
    lines = [f"setp.ge.u32 %q1, %t, {lanes};", "@%q1 ret;", f"bar.warp.sync {mask};", *store(0, "%t")]
    assert run(lines, 1, 32) == [n if n < lanes else 0 for n in range(32)]


def test_a_warp_barrier_that_names_a_thread_elsewhere_is_found():
    lines = ["setp.ge.u32 %q1, %t, 16;", "@%q1 bra $END;", "bar.warp.sync -1;", "add.u32 %r1, %t, 1;", "$END:"]
    result = launch(text_of(lines, 0), 1, 32, [])
    assert [f.what for f in result.findings] == [findings.INACTIVE_LANE]


# Counts


def test_counts_are_of_the_threads_that_took_part_by_tensor_and_region():
    lines = ["mov.u32 %r1, tile;", "mad.lo.u32 %r1, %t, 4, %r1;", "setp.lt.u32 %q1, %t, 20;",
             "st.shared.u32 [%r1], %t;", "@%q1 ld.shared.v2.u32 {%r2, %r3}, [tile+64];", *store(0, "%t"),
             "mad.wide.u32 %d1, %t, 8, %p1;", "@!%q1 ld.global.u64 %d2, [%d1];"]  # fmt: skip
    arrays = [array(bytes(128 * 3), "a"), array(bytes(256), "b")]
    text = text_of(lines, 2, ".shared .align 8 .b8 tile[128];")
    params = {f"p{n}": struct.pack("<Q", (n + 1) << 40) for n in range(2)}
    result = grid.launch(parse(text)["k"], (3,), (32,), params, arrays, regions=[Region("low", 0, 64),
                                                                                 Region("high", 64, 128)])  # fmt: skip
    moved = {(i.base, memory, kind): n for (i, memory, kind), n in result.counts.bytes.items()}
    assert moved == {
        ("st", "low", "write"): 4 * 48, ("st", "high", "write"): 4 * 48, ("ld", "high", "read"): 8 * 60,
        ("st", "a", "write"): 4 * 96, ("ld", "b", "read"): 8 * 36,
    }  # fmt: skip
    moved = result.counts.traffic(["a", "b", "low", "high"])
    assert (moved["a"].write, moved["b"].read, moved["high"].read, moved["high"].write) == (384, 288, 480, 192)


# What the compiler writes


SOURCE = """
extern "C" __global__ void k(const float* in, float* out, int n) {
  __shared__ float tile[32];
  float sum = 0.0f;
  for (int base = 0; base < n; base += 32) {
    tile[threadIdx.x] = base + threadIdx.x < n ? in[blockIdx.x * n + base + threadIdx.x] : 0.0f;
    __syncthreads();
    for (int j = 0; j <= threadIdx.x % 5; ++j) {
      if ((j ^ threadIdx.x) & 2) continue;
      sum += tile[(threadIdx.x + j) % 32];
    }
    __syncthreads();
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffff, sum, lanes);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
"""


@needs_nvrtc
def test_a_compiled_kernel_with_a_static_shared_array():
    text = nvrtc.compile(SOURCE, "k.cu", ["--gpu-architecture=compute_80"]).code.decode()
    blocks, n = 3, 70
    given_ = [[(7 * k + 3 * b) % 11 for k in range(n)] for b in range(blocks)]
    arrays = [array(struct.pack(f"<{blocks * n}f", *itertools.chain(*given_))), array(bytes(4 * blocks))]
    params = {"k_param_0": struct.pack("<Q", 1 << 40), "k_param_1": struct.pack("<Q", 2 << 40),
              "k_param_2": struct.pack("<i", n)}  # fmt: skip
    result = grid.launch(parse(text)["k"], (blocks,), (32,), params, arrays, options=Options(races=True))
    assert not found(result)
    expected = [
        sum(row[base + (t + j) % 32] for base in range(0, n, 32) for t in range(32) for j in range(t % 5 + 1)
            if not (j ^ t) & 2 and base + (t + j) % 32 < n) for row in given_
    ]  # fmt: skip
    assert arrays[1].words.view(np.float32).tolist() == expected
