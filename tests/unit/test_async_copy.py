"""cp.async against its definition, thread by thread: what arrives, when, how much is counted, what is found.

PTX ISA 8.2, 9.7.8.24: a copy moves 4, 8 or 16 bytes; of these only src-size are read, the others are zeros.
commit_group makes a group of the thread's copies since its last one, wait_group n waits for all but its last n groups,
wait_all is commit_group and wait_group 0. Only the thread that waited knows that the data is there.

The executor lets data arrive as late as that allows, and reads the source only then.
"""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.findings import IN_FLIGHT, RACES
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.ptx.shadow import EMPTY, FULL, OUTSIDE
from tests.unit.ptx_kernels import array, found, kernel_text, launch, load, numbers, run, store, text_of

POISON = 0xFFFFFFFF
COMMIT, WAIT_ALL = "cp.async.commit_group;", "cp.async.wait_all;"
DONE = [COMMIT, "cp.async.wait_group 0;"]


def wait(newest):
    return f"cp.async.wait_group {newest};"


# What arrives


VECTOR = {4: ("u32", "%r4"), 8: ("v2.u32", "{%r4, %r5}"), 16: ("v4.u32", "{%r4, %r5, %r6, %r7}")}
PLACES = ["mov.u32 %r10, tile;", "mad.lo.u32 %r11, %t, {0}, %r10;", "mad.wide.u32 %d1, %i, {0}, %p0;"]


def copying(size, lines, threads=64, read=None, blocks=2, given_=None, before=None, **options):
    """(result, source, what each thread finds at its place in the end); %r11 is its place, %d1 its source.

    before  a word that fills shared memory first; given_: array 1, a number for each thread in %r2
    """
    total = threads * blocks
    source = random.Random(size).randbytes(size * total)
    t, registers = VECTOR[size]
    begin = [line.format(size) for line in PLACES] + (load(1, "%r2") if given_ else [])
    if before is not None:
        begin += [f"mov.u32 %r{n}, {before};" for n in range(4, 8)] + [f"st.shared.{t} [%r11], {registers};"]
    end = [f"ld.shared.{t} {registers}, [%r11];", *store(2, registers, t, size)]
    arrays = [array(source), numbers(given_ or [0]), array(bytes(size * total))]
    text = text_of([*begin, *lines, *end], 3, f".shared .align 16 .b8 tile[{size * threads}];")
    result = launch(text, blocks, threads, arrays, **options)
    out = arrays[2].words.tobytes()
    return result, source, [out[size * n : size * (n + 1)] for n in range(total)]


def parts(source, size):
    return [source[n : n + size] for n in range(0, len(source), size)]


@pytest.mark.parametrize("names", ["shared.global", "shared.global.L2::64B", "shared.global.L2::256B",
                                   "shared::cta.global"])  # fmt: skip
@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_of_every_size(size, names):
    result, source, out = copying(size, [f"cp.async.ca.{names} [%r11], [%d1], {size};", *DONE])
    assert not found(result)
    assert out == parts(source, size)


@pytest.mark.parametrize("opcode", ["cp.async.cg.shared.global", "cp.async.cg.shared.global.L2::128B"])
def test_copies_past_the_first_cache(opcode):
    result, source, out = copying(16, [f"{opcode} [%r11], [%d1], 16;", *DONE])
    assert not found(result)
    assert out == parts(source, 16)


def test_offsets_of_both_addresses():
    """Every thread copies from its neighbour above into its neighbour below."""
    lines = ["setp.gt.u32 %q1, %t, 0;", "setp.lt.and.u32 %q1, %t, 31, %q1;",
             "@%q1 cp.async.ca.shared.global [%r11+-8], [%d1+8], 8;", *DONE, "bar.sync 0;"]  # fmt: skip
    result, source, out = copying(8, lines, 32, before=9)
    data, nine = parts(source, 8), (9).to_bytes(4, "little") * 2
    assert not found(result)
    assert out == [data[n + 2] if n % 32 < 30 else nine for n in range(64)]


def test_an_address_that_is_the_same_in_all_threads():
    lines = ["mov.u32 %r11, %r10;", "mov.u64 %d1, %p0;", "cp.async.ca.shared.global [%r11], [%d1], 4;", *DONE]
    result, source, out = copying(4, lines)
    assert not found(result)
    assert out == [source[:4]] * 128


SIZES = [(size, given_) for size in (4, 8, 16) for given_ in range(size + 1)]


@pytest.mark.parametrize(("size", "given_"), SIZES, ids=lambda n: str(n))
@pytest.mark.parametrize("form", ["immediate", "register"])
def test_what_is_not_read_is_zero(form, size, given_):
    """Also where something was before."""
    lines = [f"mov.u32 %r3, {given_};", f"cp.async.ca.shared.global [%r11], [%d1], {size}, "
             f"{given_ if form == 'immediate' else '%r3'};", *DONE]  # fmt: skip
    result, source, out = copying(size, lines, before=0x5A5A5A5A)
    assert not found(result)
    assert out == [part[:given_] + bytes(size - given_) for part in parts(source, size)]


@pytest.mark.parametrize("size", [4, 8, 16])
def test_every_thread_may_read_another_number_of_bytes(size):
    rng = random.Random(1)
    sizes = [rng.randrange(size + 1) for _ in range(128)]
    lines = [f"cp.async.ca.shared.global [%r11], [%d1], {size}, %r2;", *DONE]
    result, source, out = copying(size, lines, given_=sizes, before=0x5A5A5A5A, requests=True)
    assert not found(result)
    assert out == [part[:n] + bytes(size - n) for part, n in zip(parts(source, size), sizes, strict=True)]
    assert counted(result) == {"read": sum(sizes), "write": size * 128}


def test_where_nothing_is_read_the_source_may_be_anywhere():
    lines = ["mov.u64 %d1, 12345;", "cp.async.cg.shared.global [%r11], [%d1], 16, 0;", *DONE]
    result, _, out = copying(16, lines, races=True)
    assert not found(result)
    assert out == [bytes(16)] * 128


@pytest.mark.parametrize("wrong", [17, 20, 1 << 20, -1])
def test_more_bytes_to_read_than_to_copy(wrong):
    """What happens then is not specified: it is found, and the others are served."""
    lines = ["cp.async.ca.shared.global [%r11], [%d1], 16, %r2;", *DONE]
    result, source, out = copying(16, lines, given_=[wrong if n == 5 else 16 for n in range(64)], threads=64, blocks=1)
    assert [rest for _, *rest in found(result)] == [[lines[0][:-1], 0, 5, 1]]
    assert [o for n, o in enumerate(out) if n != 5] == [p for n, p in enumerate(parts(source, 16)) if n != 5]


def test_only_some_threads_copy_and_each_another_number_of_bytes():
    sizes = [n % 5 for n in range(128)]
    lines = ["setp.lt.u32 %q1, %t, 50;", "@%q1 cp.async.ca.shared.global [%r11], [%d1], 4, %r2;", *DONE]
    result, source, out = copying(4, lines, given_=sizes, before=9, races=True)
    assert not found(result)
    copied = [part[:n] + bytes(4 - n) for part, n in zip(parts(source, 4), sizes, strict=True)]
    assert out == [c if n % 64 < 50 else (9).to_bytes(4, "little") for n, c in enumerate(copied)]


# What is counted


def counted(result):
    """Bytes that copies read and write."""
    out = {}
    for (i, memory, kind), moved in result.counts.bytes.items():
        if i.base == "cp":
            assert memory == {"read": "x", "write": "shared"}[kind]
            out[kind] = out.get(kind, 0) + moved
    return out


@pytest.mark.parametrize(("size", "given_"), [(4, 4), (8, 8), (16, 16), (16, 8), (16, 5), (8, 0)], ids=str)
def test_bytes_and_sectors(size, given_):
    """Of the source what is read, of shared memory all; 64 threads read from neighbouring places."""
    lines = [f"cp.async.ca.shared.global [%r11], [%d1], {size}, {given_};", *DONE]
    result, *_ = copying(size, lines, requests=True)
    moved = counted(result)
    assert (moved.get("read", 0), moved["write"]) == (given_ * 128, size * 128)
    of = {memory: (r.requests, r.sectors + r.passes) for (i, memory), r in result.counts.requests.items()
          if i.base == "cp"}  # fmt: skip
    assert of["shared"] == (4, 4 * (32 * size // 128))
    assert of.get("x", (0, 0)) == ((4, 4 * (32 * size // 32)) if given_ else (0, 0))


def test_waiting_and_committing_move_nothing():
    lines = ["cp.async.ca.shared.global [%r11], [%d1], 4;", COMMIT, COMMIT, wait(1), wait(0), WAIT_ALL, WAIT_ALL]
    result, *_ = copying(4, lines)
    assert counted(result) == {"read": 512, "write": 512}


# When it arrives: words of shared memory, each copied into once


def words(lines, threads=32, **options):
    """The words 0 to 3 of each thread's place and the source, which has the numbers 100 i, 100 i + 1, ...

    Shared memory begins with 7, 17, 27, 37 everywhere.
    """
    begin = [line.format(16) for line in PLACES] + [f"mov.u32 %r{4 + n}, {10 * n + 7};" for n in range(4)]
    begin += ["st.shared.v4.u32 [%r11], {%r4, %r5, %r6, %r7};"]
    end = ["ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r11];", *store(1, "{%r4, %r5, %r6, %r7}", "v4.u32", 16)]
    arrays = [numbers([100 * i + n for i in range(threads) for n in range(4)]), numbers([0] * 4 * threads)]
    result = launch(text_of([*begin, *lines, *end], 2, f".shared .align 16 .b8 tile[{16 * threads}];"), 1, threads,
                    arrays, **options)  # fmt: skip
    assert not found(result)
    return arrays[1].words.reshape(threads, 4).tolist()


def copy(n):
    return f"cp.async.ca.shared.global [%r11+{4 * n}], [%d1+{4 * n}], 4;"


THREE = [copy(0), COMMIT, copy(1), COMMIT, copy(2), COMMIT]
ARRIVED = {  # lines, and which of a thread's words 0 to 3 have arrived
    "not before it is waited for": ([copy(0), COMMIT], []),
    "not by a wait before it is committed": ([copy(0), wait(0)], []),
    "committed and waited for": ([copy(0), *DONE], [0]),
    "wait_all needs no commit": ([copy(0), COMMIT, copy(1), WAIT_ALL], [0, 1]),
    "all of a group": ([copy(0), copy(1), *DONE], [0, 1]),
    "all but the last group": ([*THREE, wait(1)], [0, 1]),
    "all but the last two": ([*THREE, wait(2)], [0]),
    "all but more than there are": ([*THREE, wait(5)], []),
    "an empty group counts": ([*THREE, COMMIT, wait(1)], [0, 1, 2]),
    "an empty group counts before": ([COMMIT, COMMIT, *THREE, wait(2)], [0]),
    "what follows the last commit is in no group": ([*THREE, copy(3), wait(0)], [0, 1, 2]),
    "what follows a commit belongs to the next group": ([copy(0), COMMIT, copy(1), wait(0), COMMIT, wait(1)], [0]),
    "a wait is only for what was before it": ([copy(0), *DONE, copy(1), COMMIT], [0]),
    "after wait_all groups count anew": ([copy(0), WAIT_ALL, copy(1), COMMIT, copy(2), COMMIT, wait(1)], [0, 1]),
    "a barrier is no wait": ([*THREE, "bar.sync 0;"], []),
    "the number may be written otherwise": ([*THREE, wait("0x1")], [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "arrived"), ARRIVED.values(), ids=ARRIVED)
def test_data_arrives_when_it_is_waited_for(lines, arrived):
    expected = [[100 * i + n if n in arrived else 10 * n + 7 for n in range(4)] for i in range(32)]
    assert words(lines) == expected


def test_what_was_read_before_the_wait_is_what_was_there():
    lines = [copy(0), copy(1), copy(2), copy(3), COMMIT, "ld.shared.u32 %r12, [%r11+4];", wait(0),
             "add.u32 %r12, %r12, 1000;", "st.shared.u32 [%r11+4], %r12;"]  # fmt: skip
    assert words(lines) == [[100 * i, 1017, 100 * i + 2, 100 * i + 3] for i in range(32)]


def test_shared_memory_that_nobody_wrote_is_poison_until_then():
    result, _, out = copying(4, ["cp.async.ca.shared.global [%r11], [%d1], 4;", COMMIT])
    assert not found(result)
    assert out == [POISON.to_bytes(4, "little")] * 128


def test_the_source_is_read_when_the_data_arrives():
    """What a thread writes there before it waits is what it gets: a copy may be as late as that."""
    lines = [copy(0), COMMIT, "mov.u32 %r12, 5;", "st.global.u32 [%d1], %r12;", wait(0), "mov.u32 %r12, 6;",
             "st.global.u32 [%d1], %r12;"]  # fmt: skip
    assert words(lines) == [[5, 17, 27, 37]] * 32


# Threads that go their own ways


UPPER = "setp.ge.u32 %q1, %t, 16;"


def by_half(lower, upper):
    """Lanes 0 to 15 run the first lines, the others the second."""
    return [UPPER, "@%q1 bra $UPPER;", *lower, "bra $END;", "$UPPER:", *upper, "$END:"]


def halves(lower, upper):
    return [[100 * i + n if n in (lower, upper)[i > 15] else 10 * n + 7 for n in range(4)] for i in range(32)]


DIVERGED = {  # lines, and what has arrived in the lower and in the upper lanes
    "half commit twice": ([copy(0), UPPER, f"@%q1 {COMMIT}", copy(1), COMMIT, wait(1)], [], [0]),
    "half wait": ([copy(0), COMMIT, UPPER, f"@%q1 {wait(0)}"], [], [0]),
    "half wait for all": ([copy(0), UPPER, f"@!%q1 {WAIT_ALL}"], [0], []),
    "half copy": ([UPPER, f"@%q1 {copy(2)}", *DONE], [], [2]),
    "half commit an empty group": ([*by_half([copy(0), COMMIT], [copy(0), COMMIT, COMMIT]), wait(1)], [], [0]),
    "each its own": (by_half([copy(0), COMMIT, copy(1), COMMIT, wait(1)], [copy(3), WAIT_ALL, copy(2)]), [0], [3]),
    "half wait, then all": ([*THREE, UPPER, f"@%q1 {wait(1)}", wait(2)], [0], [0, 1]),
    "then all wait": ([*by_half([copy(0)], [copy(1), COMMIT]), copy(2), COMMIT, wait(1), wait(0)], [0, 2], [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "lower", "upper"), DIVERGED.values(), ids=DIVERGED)
def test_every_thread_has_its_own_groups(lines, lower, upper):
    assert words(lines) == halves(lower, upper)


def operations():
    """(what, number, which threads: those whose number has this remainder by three, or all)"""
    some = st.sampled_from([None, None, 0, 1, 2])
    kinds = st.tuples(st.sampled_from(["copy", "copy", "commit", "wait", "wait_all", "change", "look"]),
                      st.integers(0, 2), some)  # fmt: skip
    return st.lists(kinds, min_size=1, max_size=14)


def program(steps):
    """PTX of random operations; the n-th step's copy, and what it looks at, has word n of the thread."""
    lines = ["mov.u32 %r10, tile;", f"mad.lo.u32 %r11, %t, {4 * len(steps)}, %r10;",
             f"mad.wide.u32 %d1, %i, {4 * len(steps)}, %p0;", "rem.u32 %r12, %t, 3;", "mov.u32 %r14, 0;"]  # fmt: skip
    for n, (what, number, who) in enumerate(steps):
        before = max(0, n - number - 1)
        action = {
            "copy": [copy(n)], "commit": [COMMIT], "wait": [wait(number)], "wait_all": [WAIT_ALL],
            "change": [f"st.global.u32 [%d1+{4 * before}], %r15;"],
            "look": [f"ld.shared.u32 %r13, [%r11+{4 * before}];", "mad.lo.u32 %r14, %r14, 31, %r13;"],
        }[what]  # fmt: skip
        lines += [f"setp.eq.u32 %q1, %r12, {who};"] if who is not None else []
        guard = "@%q1 " if who is not None else ""
        lines += [f"mov.u32 %r15, {n + 1};", *(guard + line for line in action)]
    return lines


def one_thread(steps, thread, source):
    """What a thread has seen, by the definition."""
    place, flying, committed, seen = [POISON] * len(steps), [], 0, 0
    for n, (what, number, who) in enumerate(steps):
        before = max(0, n - number - 1)
        if who is not None and thread % 3 != who:
            continue
        if what == "copy":
            flying.append((n, committed))
        elif what == "commit":
            committed += 1
        elif what == "change":
            source[before] = n + 1
        elif what == "look":
            seen = (31 * seen + place[before]) & POISON
        else:
            committed += what == "wait_all"
            newest = 0 if what == "wait_all" else number
            for m, group in flying:
                if group < committed - newest:
                    place[m] = source[m]
            flying = [(m, group) for m, group in flying if group >= committed - newest]
    for word in place:
        seen = (31 * seen + word) & POISON
    return seen


@settings(max_examples=60)
@given(operations())
def test_random_programs_do_what_each_thread_would_do_alone(steps):
    lines = program(steps)
    for n in range(len(steps)):
        lines += [f"ld.shared.u32 %r13, [%r11+{4 * n}];", "mad.lo.u32 %r14, %r14, 31, %r13;"]
    threads, count = 40, len(steps)
    source = [1000 * i + n for i in range(2 * threads) for n in range(count)]
    tile = f".shared .align 16 .b8 tile[{4 * count * threads}];"
    out = run([*lines, *store(1, "%r14")], 2, threads, source, shared=tile)
    assert out == [one_thread(steps, n % threads, source[count * n : count * (n + 1)]) for n in range(2 * threads)]


# Addresses that stray


def strayed(lane_lines, size=16, threads=32, races=False):
    """Thread 5's address is changed by the lines; (findings, what arrived, what should have without it, moved)."""
    lines = ["mov.u32 %r12, %r11;", "setp.eq.u32 %q1, %t, 5;", *(f"@%q1 {line}" for line in lane_lines),
             f"cp.async.ca.shared.global [%r12], [%d1], {size};", *DONE]  # fmt: skip
    result, source, out = copying(size, lines, threads, blocks=1, before=0x5A5A5A5A, races=races)
    return [(f.what, f.memory, f.first, f.times) for f in result.findings], out, parts(source, size), counted(result)


OUT, ODD = findings.OUT_OF_BOUNDS, findings.MISALIGNED
each_judged = pytest.mark.parametrize("races", [False, True], ids=["", "judged"])


@each_judged
@pytest.mark.parametrize(("line", "offset", "what"), [
    ("add.s64 %d1, %p0, 512;", 512, OUT), ("add.s64 %d1, %p0, -16;", -16, OUT), ("add.s64 %d1, %p0, 24;", 24, ODD),
    ("add.s64 %d1, %p0, 4;", 4, ODD),
], ids=["behind", "before", "misaligned by eight", "misaligned by four"])  # fmt: skip
def test_a_source_that_strays(line, offset, what, races):
    """It is found, the others are served, and its place is poisoned, as a register by a load that strays."""
    wrong, out, right, moved = strayed([line], races=races)
    assert wrong == [(what, "x", (0, 5, offset), 1)]
    assert [o for n, o in enumerate(out) if n != 5] == [r for n, r in enumerate(right) if n != 5]
    assert moved["read"] == 16 * 31
    assert out[5] == b"\xff" * 16


@each_judged
@pytest.mark.parametrize(("line", "offset", "what"), [
    ("add.s32 %r12, %r10, 512;", 512, OUT), ("add.s32 %r12, %r10, -16;", -16, OUT),
    ("add.s32 %r12, %r10, 88;", 88, ODD), ("add.s32 %r12, %r10, 84;", 84, ODD),
], ids=["behind", "before", "misaligned by eight", "misaligned by four"])  # fmt: skip
def test_a_place_that_strays(line, offset, what, races):
    """It is found, the others are served, its own place keeps what it had."""
    wrong, out, right, moved = strayed([line], races=races)
    assert wrong == [(what, "shared memory", (0, 5, offset), 1)]
    assert out == [b"\x5a" * 16 if n == 5 else r for n, r in enumerate(right)]
    assert moved["write"] == 16 * 31


def test_a_partial_read_at_the_end_of_the_tensor():
    """Only what is read must be inside."""
    source = numbers([3, 4, 5])
    lines = ["mov.u32 %r10, tile;", "cp.async.ca.shared.global [%r10], [%p0+8], 8, 4;", *DONE,
             "ld.shared.u64 %d2, [%r10];", *store(1, "%d2", "u64", 8)]  # fmt: skip
    arrays = [source, numbers([0] * 64)]
    result = launch(text_of(lines, 2, ".shared .align 16 .b8 tile[8];"), 1, 32, arrays)
    assert not found(result)
    assert arrays[1].words.tolist() == [5, 0] * 32


# Races: each of 64 threads copies its word of x to its word of `tile`


MOVE = "cp.async.ca.shared.global [%r11], [%d1], 4;"
OWN, READ_OWN = "st.shared.u32 [%r11], %t;", "ld.shared.u32 %r13, [%r11];"
READ_LANE, READ_WARP = "ld.shared.u32 %r13, [%r14];", "ld.shared.u32 %r13, [%r15];"
BARRIER, WARP_BARRIER, COPY = "bar.sync 0;", "bar.warp.sync -1;", MOVE
WHO = ["xor.b32 %r14, %t, 1;", "mad.lo.u32 %r14, %r14, 4, %r10;", "xor.b32 %r15, %t, 32;",
       "mad.lo.u32 %r15, %r15, 4, %r10;", "setp.lt.u32 %q1, %t, 32;", "setp.lt.u32 %q2, %t, 1;"]  # fmt: skip


def watched(lines, holds=FULL, tile=512):
    begin = [line.format(4) for line in PLACES] + WHO
    source = Buffer("x", np.arange(64, dtype=np.int32), np.full(64, holds, np.uint8))
    text = text_of([*begin, *lines], 1, f".shared .align 16 .b8 tile[{tile}];")
    return launch(text, 1, 64, [source], races=True)


def judged(*lines, holds=FULL):
    """[(what, the instruction, how many threads)] of what is found."""
    return [(f.what, f.instruction.text + ";", f.times) for f in watched(lines, holds).findings]


RACY = {  # what is found where, and in how many threads
    "reading what is in flight": ([COPY, COMMIT, READ_OWN], [(IN_FLIGHT, READ_OWN, 64)]),
    "reading what is not even committed": ([COPY, wait(0), READ_OWN], [(IN_FLIGHT, READ_OWN, 64)]),
    "reading what another warp has in flight": (
        [COPY, COMMIT, BARRIER, READ_WARP], [(IN_FLIGHT, READ_WARP, 64)]),
    "writing what is in flight": ([COPY, COMMIT, OWN], [(IN_FLIGHT, OWN, 64)]),
    "waiting for too few groups": ([COPY, COMMIT, COMMIT, wait(2), READ_OWN], [(IN_FLIGHT, READ_OWN, 64)]),
    "half of the warps wait": (
        [COPY, COMMIT, f"@%q1 {wait(0)}", BARRIER, READ_WARP], [(IN_FLIGHT, READ_WARP, 32)]),
    "another warp, without a barrier": (
        [COPY, *DONE, READ_WARP], [(RACES["read", "warps"], READ_WARP, 64)]),
    "another warp, with a __syncwarp": (
        [COPY, *DONE, WARP_BARRIER, READ_WARP], [(RACES["read", "warps"], READ_WARP, 64)]),
    "another lane, without a __syncwarp": (
        [COPY, *DONE, READ_LANE], [(RACES["read", "lanes"], READ_LANE, 64)]),
    "a barrier before the wait": (
        [COPY, COMMIT, BARRIER, wait(0), READ_WARP], [(RACES["read", "warps"], READ_WARP, 64)]),
    "writing what another warp waited for": (
        [COPY, *DONE, "st.shared.u32 [%r15], %t;"], [(RACES["write", "warps"], "st.shared.u32 [%r15], %t;", 64)]),
    "issued while another warp reads": (
        [OWN, BARRIER, READ_WARP, COPY, *DONE], [(RACES["write after read", "warps"], COPY, 64)]),
    "issued while another lane reads": (
        [OWN, BARRIER, READ_LANE, COPY, *DONE], [(RACES["write after read", "lanes"], COPY, 64)]),
    "issued where another warp wrote": (
        ["st.shared.u32 [%r15], %t;", COPY, *DONE], [(RACES["write", "warps"], COPY, 64)]),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), RACY.values(), ids=RACY)
def test_what_races(lines, expected):
    assert judged(*lines) == expected


def test_a_second_copy_to_a_place_in_flight():
    """In one thread, and in another that comes in between."""
    again = "cp.async.ca.shared.global [%r11+0], [%d1], 4;"
    assert judged(COPY, again, *DONE) == [(IN_FLIGHT, again, 64)]
    assert judged(COPY, COMMIT, again, *DONE) == [(IN_FLIGHT, again, 64)]
    other = "cp.async.ca.shared.global [%r15], [%d1], 4;"
    assert (IN_FLIGHT, other, 64) in judged(COPY, other, *DONE)


def test_two_threads_copy_to_one_place():
    """Also by one instruction: the second of them finds the first one's copy."""
    one = "cp.async.ca.shared.global [%r10], [%d1], 4;"
    assert {what for what, *_ in judged(one, *DONE)} == {RACES["write", "lanes"], RACES["write", "warps"]}


CLEAN = {
    "read by the same thread": [COPY, *DONE, READ_OWN],
    "read by another lane": [COPY, *DONE, WARP_BARRIER, READ_LANE],
    "read by another warp": [COPY, *DONE, BARRIER, READ_WARP],
    "read by another warp after wait_all": [COPY, WAIT_ALL, BARRIER, READ_WARP],
    "issued after the readers' barrier": [OWN, BARRIER, READ_WARP, BARRIER, COPY, *DONE, BARRIER, READ_WARP],
    "over one's own write": [OWN, COPY, *DONE, OWN],
    "over one's own read": [COPY, *DONE, READ_OWN, COPY, *DONE],
    "one after another": [COPY, *DONE, COPY, *DONE, BARRIER, READ_WARP],
    "elsewhere while it flies": [COPY, COMMIT, OWN.replace("[%r11]", "[%r11+256]"), READ_OWN.replace("]", "+256]"),
                                 wait(0), BARRIER, READ_WARP],
    "never looked at": [COPY, COMMIT, BARRIER],
}  # fmt: skip


@pytest.mark.parametrize("lines", CLEAN.values(), ids=CLEAN)
def test_what_does_not_race(lines):
    assert judged(*lines) == []


READ_TOO_EARLY, OVERWRITTEN = RACES["read", "warps"], RACES["write after read", "warps"]


@pytest.mark.parametrize(
    ("after_wait", "at_end", "expected"),
    [([BARRIER], [], set()), ([], [BARRIER], {READ_TOO_EARLY}), ([], [], {READ_TOO_EARLY, OVERWRITTEN})],
    ids=["a barrier after the wait", "only at the end of the loop", "none"],
)
def test_a_pipeline_of_two_buffers(after_wait, at_end, expected):
    """Tile n is read while tile n + 1 is on its way: wait, barrier, next copy, read. Four turns of a loop."""
    lines = [COPY, COMMIT, "mov.u32 %r20, 0;", "$LOOP:", "and.b32 %r21, %r20, 1;", "shl.b32 %r21, %r21, 8;",
             "xor.b32 %r22, %r21, 256;", "add.u32 %r23, %r11, %r22;", "add.u32 %r24, %r15, %r21;", wait(0),
             *after_wait, "cp.async.ca.shared.global [%r23], [%d1], 4;", COMMIT, "ld.shared.u32 %r13, [%r24];",
             *at_end, "add.u32 %r20, %r20, 1;", "setp.lt.u32 %q3, %r20, 4;", "@%q3 bra $LOOP;", WAIT_ALL]  # fmt: skip
    assert {f.what for f in watched(lines).findings} == expected


def test_what_is_said_of_a_copy_in_flight():
    (finding,) = watched([COPY, COMMIT, READ_OWN]).findings
    line = finding.instruction.line
    assert str(finding) == (
        f"k, PTX line {line} `{READ_OWN[:-1]}` shared+0 touches what a cp.async is still copying, with no wait between"
        " (thread 0 of block 0; 64 times)"
    )


@pytest.mark.parametrize("holds", [EMPTY, OUTSIDE])
def test_a_source_that_nobody_wrote_or_owns(holds):
    what = findings.UNINITIALISED if holds == EMPTY else findings.GUARD
    assert judged(COPY, *DONE, holds=holds) == [(what, COPY, 64)]
    nothing = "cp.async.ca.shared.global [%r11], [%d1], 4, 0;"
    assert judged(nothing, *DONE, holds=holds) == []


@pytest.mark.parametrize("given_", [2, 6, 10])
def test_a_row_that_ends_within_a_word(given_):
    """Rows of 1, 3 or 5 halves, 16 bytes apart: the half behind them is not read."""
    holds = np.where(np.arange(8) < given_ // 2, FULL, OUTSIDE).astype(np.uint8)
    source = Buffer("x", np.arange(64 * 4, dtype=np.int32), np.tile(holds, 64))
    lines = [line.format(16) for line in PLACES]
    lines += [f"cp.async.cg.shared.global [%r11], [%d1], 16, {given_};", *DONE]
    text = text_of(lines, 1, ".shared .align 16 .b8 tile[1024];")
    assert not found(launch(text, 1, 64, [source], races=True))


def test_what_was_never_copied_is_uninitialised():
    assert judged(f"@%q1 {COPY}", *DONE, BARRIER, READ_OWN) == [(findings.UNINITIALISED, READ_OWN, 32)]


# What is not run


REFUSED = {
    "12 bytes": "cp.async.ca.shared.global [%r1], [%at], 12;",
    "no bytes": "cp.async.ca.shared.global [%r1], [%at], 0;",
    "32 bytes": "cp.async.ca.shared.global [%r1], [%at], 32;",
    "8 bytes past the first cache": "cp.async.cg.shared.global [%r1], [%at], 8;",
    "a size in a register": "cp.async.ca.shared.global [%r1], [%at], %r2;",
    "more bytes to read than to copy": "cp.async.ca.shared.global [%r1], [%at], 4, 8;",
    "a negative number of bytes to read": "cp.async.ca.shared.global [%r1], [%at], 4, -4;",
    "a predicate that the source is ignored": "cp.async.ca.shared.global [%r1], [%at], 4, %q1;",
    "a cache policy": "cp.async.ca.shared.global.L2::cache_hint [%r1], [%at], 4, 4, %at;",
    "no way of caching": "cp.async.shared.global [%r1], [%at], 4;",
    "a group in a register": "cp.async.wait_group %r1;",
    "a group without a number": "cp.async.wait_group;",
    "an mbarrier": "cp.async.mbarrier.arrive.shared.b64 [%r1];",
    "an mbarrier that is not counted": "cp.async.mbarrier.arrive.noinc.shared.b64 [%r1];",
    "a bulk copy": "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%at], 16, [%r2];",
    "a group of bulk copies": "cp.async.bulk.commit_group;",
    "a wait for bulk copies": "cp.async.bulk.wait_group 0;",
    "two operands": "cp.async.ca.shared.global [%r1], [%at];",
    "nothing": "cp.async;",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_line_of_the_ptx_and_quotes_it(line):
    text = kernel_text([("%r1", "b32"), ("%r2", "b32"), ("%q1", "pred")], 1, [line])
    number = text.split("\n").index(line) + 1
    with pytest.raises(InputError, match=rf"^PTX line {number}: `{re.escape(line[:-1])}`: "):
        grid.compile_kernel(parse(text)["k"])


# These tests can fail


def test_a_copy_that_arrives_at_once_is_noticed(monkeypatch):
    real = grid.AsyncCopies.issue

    def at_once(self, i, *given_):
        real(self, i, *given_)
        self.wait_all(None)

    monkeypatch.setattr(grid.AsyncCopies, "issue", at_once)
    with pytest.raises(AssertionError):
        test_data_arrives_when_it_is_waited_for([copy(0), COMMIT], [])


def test_groups_of_all_threads_together_are_noticed(monkeypatch):
    real = grid.AsyncCopies.commit
    monkeypatch.setattr(grid.AsyncCopies, "commit", lambda self, mask: real(self, None))
    with pytest.raises(AssertionError):
        test_every_thread_has_its_own_groups(*DIVERGED["half commit twice"])
