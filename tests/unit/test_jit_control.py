"""Control flow, barriers, shuffles, votes on the engine `jit`: the same values, counts and findings as on the grid."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware_kernels.ptx import findings
from ioaware_kernels.ptx.jit.regions import Conditional, conditionals
from ioaware_kernels.ptx.parse import parse
from tests.unit.jit_launches import agree, cache_in, on_both, words
from tests.unit.ptx_kernels import load, numbers, store, text_of
from tests.unit.test_ptx_grid import statements, translate


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with cache_in(tmp_path_factory.mktemp("jit")):
        yield


def zeros(count):
    return numbers([0] * count)


# Divergence


@settings(max_examples=25)
@given(statements(3, in_loop=False), st.lists(st.integers(0, 4095), min_size=96, max_size=96))
def test_diverging_threads_do_what_they_do_on_the_grid(program, data):
    """Random loops, branches, early ends: every sum is stored at once, so that the counts say who was where."""
    body = translate(program, itertools.count())
    stores = [x for line in body for x in ([line, *store(1, "%r1")] if "add.u32 %r1" in line else [line])]
    lines = [*load(0, "%r0"), "mov.u32 %r1, 0;", *stores, *store(1, "%r1"), "$END:"]
    agree(text_of(lines, 2), 2, 48, [numbers(data), zeros(96)], findings=0)


NESTED = ["setp.lt.u32 %q1, %t, 20;", "@!%q1 bra $ELSE;", "add.u32 %r1, %t, 1;", "setp.lt.u32 %q2, %t, 7;",
          "@!%q2 bra $INNER;", "mul.lo.u32 %r1, %r1, 3;", "$INNER:", "bra $END;", "$ELSE:", "mov.u32 %r1, 100;",
          "@%q1 add.u32 %r1, %r1, 1;", "$END:"]  # fmt: skip


def test_conditional_code_without_jumps_elsewhere_is_found():
    kernel = parse(text_of([*NESTED, *store(0, "%r1")], 1))["k"]
    assert conditionals(kernel) == {0: Conditional(otherwise=4, end=5), 1: Conditional(otherwise=3, end=3)}


def test_a_loop_an_end_or_a_barrier_is_no_conditional_code():
    for line in ("bra $HEAD;", "ret;", "@%q2 ret;", "bar.sync 0;"):
        lines = ["$HEAD:", "setp.lt.u32 %q1, %t, 40;", "@%q1 bra $END;", "add.u32 %r1, %t, 1;", line, "$END:"]
        assert conditionals(parse(text_of(lines, 0))["k"]) == {}


@pytest.mark.parametrize("threads", [32, 40, 96])
def test_both_arms_and_nested_ones(threads):
    out = agree(text_of(["mov.u32 %r1, 7;", *NESTED, *store(0, "%r1")], 1), 2, threads, [zeros(2 * threads)])
    each = [(3 * (t + 1) if t < 7 else t + 1) if t < 20 else 100 for t in range(threads)]
    assert words(out[0]) == 2 * each


def test_a_branch_to_the_next_line():
    agree(text_of(["setp.lt.u32 %q1, %t, 9;", "@%q1 bra $NEXT;", "$NEXT:", *store(0, "%t")], 1), 1, 32, [zeros(32)])


def test_a_register_that_nobody_wrote_holds_zero():
    lines = ["setp.lt.u32 %q1, %t, 9;", "@%q1 mov.u32 %r1, 5;", *store(0, "%r1")]
    assert words(agree(text_of(lines, 1), 1, 32, [zeros(32)])[0]) == [5] * 9 + [0] * 23


# Barriers


def test_a_barrier_in_a_loop_whose_length_differs_between_blocks():
    lines = ["mov.u32 %r9, %ctaid.x;", "mov.u32 %r1, tile;", "shl.b32 %r2, %t, 2;", "add.u32 %r2, %r1, %r2;",
             "st.shared.u32 [%r2], %t;", "mov.u32 %r5, 0;", "$LOOP:", "setp.ge.u32 %q1, %r5, %r9;", "@%q1 bra $DONE;",
             "bar.sync 0;", "add.u32 %r3, %t, 1;", "and.b32 %r3, %r3, 63;", "shl.b32 %r3, %r3, 2;",
             "add.u32 %r3, %r1, %r3;", "ld.shared.u32 %r4, [%r3];", "bar.sync 0;", "st.shared.u32 [%r2], %r4;",
             "add.u32 %r5, %r5, 1;", "bra $LOOP;", "$DONE:", "ld.shared.u32 %r4, [%r2];", *store(0, "%r4")]  # fmt: skip
    out = agree(text_of(lines, 1, ".shared .align 4 .b8 tile[256];"), 5, 64, [zeros(320)], findings=0)
    assert words(out[0]) == [(n % 64 + n // 64) % 64 for n in range(320)]


def test_threads_that_have_ended_do_not_hold_up_a_barrier():
    lines = ["mov.u32 %r1, tile;", "shl.b32 %r2, %t, 2;", "add.u32 %r2, %r1, %r2;", "st.shared.u32 [%r2], %i;",
             "setp.ge.u32 %q1, %t, 40;", "@%q1 ret;", "setp.lt.u32 %q1, %t, 7;", "@%q1 bra $END;", "bar.sync 0;",
             "sub.u32 %r3, 39, %t;", "shl.b32 %r3, %r3, 2;", "add.u32 %r3, %r1, %r3;", "ld.shared.u32 %r4, [%r3];",
             *store(0, "%r4"), "$END:"]  # fmt: skip
    agree(text_of(lines, 1, ".shared .align 4 .b8 tile[256];"), 3, 64, [zeros(192)], findings=0)


def test_a_barrier_that_a_part_of_a_block_never_reaches():
    lines = ["setp.lt.u32 %q1, %i, 140;", "@%q1 bra $ONE;", "bar.sync 0;", "mov.u32 %r1, 1;", "bra $END;", "$ONE:",
             "barrier.sync 0;", "$END:", *store(0, "%t")]  # fmt: skip
    agree(text_of(lines, 1), 3, 96, [zeros(288)], findings=2)


def test_an_endless_loop_ends_at_the_budget():
    lines = [*store(0, "%t"), "mov.u32 %r1, 0;", "$LOOP:", "add.u32 %r1, %r1, 1;", "setp.ne.u32 %q1, %t, 3;",
             "@!%q1 bra $LOOP;"]  # fmt: skip
    by_grid, by_jit, _ = on_both(text_of(lines, 1), 1, 32, [zeros(32)], budget=1000)
    assert by_jit == by_grid
    assert [(what, times) for (what, *_), times in by_jit.findings.items()] == [(findings.BUDGET, 1)]


def test_thread_blocks_behind_an_endless_one_run():
    lines = ["$LOOP:", "setp.lt.u32 %q1, %i, 64;", "@%q1 bra $LOOP;", *store(0, "%t")]
    _, by_jit, out = on_both(text_of(lines, 1), 3, 32, [zeros(96)], budget=1000)
    assert list(by_jit.findings.values()) == [64]
    assert words(out[0]) == [0] * 64 + list(range(32))


# Grids


@settings(max_examples=6)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_grids_and_blocks_of_up_to_three_dimensions(blocks, threads):
    lines = ["mov.u32 %i, 0;"]
    for name, axis in itertools.product(("ctaid", "tid"), "zyx"):
        lines += [f"mov.u32 %r1, %n{name}.{axis};", f"mov.u32 %r2, %{name}.{axis};", "mad.lo.u32 %i, %i, %r1, %r2;"]
    lines += ["mov.u32 %r3, %laneid;", "mov.u32 %r4, %warpid;", "mad.lo.u32 %r3, %r4, 32, %r3;", *store(0, "%i"),
              *store(1, "%r3")]  # fmt: skip
    total = blocks[0] * blocks[1] * blocks[2] * threads[0] * threads[1] * threads[2]
    out = agree(text_of(lines, 2), blocks, threads, [zeros(total), zeros(total)])
    assert words(out[0]) == list(range(total))


# Other lanes of the warp


@pytest.mark.parametrize("threads", [32, 64, 40])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@settings(max_examples=5)
@given(st.data())
def test_shuffles(mode, threads, data):
    """By literals, by registers that hold one, and by lane; of a partial warp too."""
    b = data.draw(st.lists(st.integers(0, 40), min_size=threads, max_size=threads))
    c = data.draw(st.lists(st.sampled_from([0x1F, 0x101F, 0x181F, 0x1C00, 0, 0x1F00]), min_size=threads,
                           max_size=threads))  # fmt: skip
    lines = [*load(0, "%r1"), *load(1, "%r2"), *load(2, "%r3"), f"mov.u32 %r20, {b[0]};", f"mov.u32 %r21, {c[0]};"]
    for named in ("%r2, %r3", "%r20, %r21", f"{b[0]}, {c[0]}"):
        lines += [f"shfl.sync.{mode}.b32 %r4|%q1, %r1, {named}, -1;", "selp.u32 %r5, 1, 0, %q1;",
                  "mad.lo.u32 %r4, %r4, 2, %r5;", "xor.b32 %r6, %r6, %r4;", "mul.lo.u32 %r6, %r6, 3;"]  # fmt: skip
    arrays = [numbers([1000 + 7 * n for n in range(threads)]), numbers(b), numbers(c), zeros(threads)]
    agree(text_of([*lines, *store(3, "%r6")], 4), 1, threads, arrays, findings=0)


@pytest.mark.parametrize("line", [
    "shfl.sync.down.b32 %r1, %i, 4, 31, 65535;", "shfl.sync.idx.b32 %r1, %i, %r7, 31, 65535;",
    "shfl.sync.bfly.b32 %r2, %i, 1, 31, -1;", "bar.warp.sync -1;", "vote.sync.any.pred %q3, %q1, -1;",
    "vote.sync.ballot.b32 %r1, %q1, 0x1ffff;",
])  # fmt: skip
@pytest.mark.parametrize("begin", [
    ["setp.lt.u32 %q1, %t, 16;", "@!%q1 bra $END;"],
    ["setp.lt.u32 %q1, %t, 16;", "@!%q1 ret;"],
    ["setp.lt.u32 %q1, %t, 16;", "@%q1 bra $GO;", "setp.ge.u32 %q2, %t, 48;", "@%q2 bra $GO;", "bra $END;", "$GO:"],
], ids=["elsewhere", "ended", "some of every warp"])  # fmt: skip
def test_a_lane_that_takes_no_part_is_found(begin, line):
    lines = ["and.b32 %r7, %t, 24;", *begin, line, "mov.u32 %r1, %t;", "$END:", *store(0, "%r7")]
    by_grid, by_jit, _ = on_both(text_of(lines, 1), 2, 64, [zeros(128)])
    assert by_jit == by_grid


@settings(max_examples=6)
@given(st.lists(st.booleans(), min_size=80, max_size=80), st.integers(1, 40), st.booleans())
def test_votes_are_over_the_lanes_that_are_here(given_, some, negated):
    p = "!%q2" if negated else "%q2"
    lines = [*load(0, "%r1"), "setp.ne.u32 %q2, %r1, 0;", f"setp.ge.u32 %q1, %t, {some};", "@%q1 bra $END;",
             "setp.lt.u32 %q3, %t, 32;", f"mov.u32 %r9, {(1 << min(some, 32)) - 1};",
             f"selp.b32 %r9, %r9, {(1 << max(some - 32, 0)) - 1}, %q3;",
             f"vote.sync.all.pred %q4, {p}, %r9;", f"vote.sync.any.pred %q5, {p}, %r9;",
             f"vote.sync.uni.pred %q6, {p}, %r9;", f"vote.sync.ballot.b32 %r2, {p}, %r9;",
             "selp.u32 %r3, 1, 0, %q4;", "selp.u32 %r4, 2, 0, %q5;", "selp.u32 %r5, 4, 0, %q6;",
             "or.b32 %r3, %r3, %r4;", "or.b32 %r3, %r3, %r5;", *store(1, "%r2"), *store(2, "%r3"), "$END:"]  # fmt: skip
    agree(text_of(lines, 3), 2, 40, [numbers(list(map(int, given_))), zeros(80), zeros(80)], findings=0)
