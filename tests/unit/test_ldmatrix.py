"""ldmatrix against its definition, lane by lane and half by half; what is counted, found and judged of it.

PTX ISA 8.2, 9.7.13.4.15: threads 8 j to 8 j + 7 give the addresses of the rows of matrix j, 16 bytes each. Thread t
gets the elements 2 (t % 4) and 2 (t % 4) + 1 of row t / 4 in the lower and the upper half of register j; with .trans
the matrix is read by columns, so that these are elements of column t / 4 in rows 2 (t % 4) and 2 (t % 4) + 1.
"""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.findings import RACES
from ioaware_kernels.ptx.parse import parse
from tests.unit.ptx_kernels import array, found, kernel_text, launch, load, numbers, store, text_of

TILE = 4096  # bytes of shared memory
POISON = 0xFFFF
COUNTS = (1, 2, 4)
each_form = pytest.mark.parametrize("trans", [False, True], ids=["rows", "columns"])
each_count = pytest.mark.parametrize("count", COUNTS, ids=lambda n: f"x{n}")

# The definition


def pair(trans, thread):
    """(row, element) of the halves that a thread gets of a matrix, the lower first."""
    row, first = thread // 4, 2 * (thread % 4)
    return [(first, row), (first + 1, row)] if trans else [(row, first), (row, first + 1)]


def definition(memory, addresses, count, trans):
    """Per thread of a warp the halves that it gets; None from a row that is not in memory or not aligned.

    memory: bytes; addresses: of 32 threads
    """

    def half(row, element):
        address = addresses[row]
        if address % 16 or not 0 <= address <= len(memory) - 16:
            return None
        return int.from_bytes(memory[address + 2 * element : address + 2 * element + 2], "little")

    return [[half(8 * j + row, element) for j in range(count) for row, element in pair(trans, thread)]
            for thread in range(32)]  # fmt: skip


# The same on the engine


def instruction(count, trans=False, address="%r8", offset=0):
    registers = ", ".join(f"%r{n}" for n in range(count))
    at = f"{address}+{offset}" if offset else address
    return f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if trans else ''}.shared.b16 {{{registers}}}, [{at}];"


def fill(threads, blocks_differ=True):
    """The bytes of array 0 into `tile`, 16 a thread and turn; those of another block are behind."""
    lines = ["mov.u32 %r20, tile;", "mad.lo.u32 %r20, %t, 16, %r20;", "mov.u32 %r21, %ctaid.x;",
             f"mul.wide.u32 %d1, %r21, {TILE * blocks_differ};", "mad.wide.u32 %d1, %t, 16, %d1;",
             "add.s64 %d1, %p0, %d1;"]  # fmt: skip
    for turn in range(0, TILE, 16 * threads):
        lines += [f"ld.global.v4.u32 {{%r22, %r23, %r24, %r25}}, [%d1+{turn}];",
                  f"st.shared.v4.u32 [%r20+{turn}], {{%r22, %r23, %r24, %r25}};"]  # fmt: skip
    return [*lines, "bar.sync 0;"]


def halves_of(words):
    return [half for word in words for half in (word & 0xFFFF, word >> 16)]


def loaded(lines, addresses, count, threads=32, filled=True, **options):
    """(result, per thread the halves in %r0, %r1, ...); addresses, of all threads, are in %r8, counted from `tile`."""
    blocks = len(addresses) // threads
    data = random.Random(0).randbytes(TILE * blocks)
    out = numbers([0] * (count * len(addresses)))
    group = "{" + ", ".join(f"%r{n}" for n in range(count)) + "}" if count > 1 else "%r0"
    text = text_of(
        [*(fill(threads) if filled else []), *load(1, "%r8"), "mov.u32 %r9, tile;", "add.s32 %r8, %r8, %r9;", *lines,
         *store(2, group, f"v{count}.u32" if count > 1 else "u32", 4 * count)],
        3, f".shared .align 16 .b8 tile[{TILE}];",
    )  # fmt: skip
    result = launch(text, blocks, threads, [array(data), numbers(addresses), out], **options)
    words = out.words.view(np.uint32).tolist()
    got = [halves_of(words[n * count : (n + 1) * count]) for n in range(len(addresses))]
    return result, got, [data[TILE * b : TILE * (b + 1)] for b in range(blocks)]


def check(count, trans, addresses, threads=32, offset=0):
    """All warps of all blocks; the addresses are those of the rows, without the offset."""
    result, got, memory = loaded([instruction(count, trans, offset=offset)], [a - offset for a in addresses], count,
                                 threads)  # fmt: skip
    assert [str(f) for f in result.findings] == []
    for first in range(0, len(addresses), 32):
        expected = definition(memory[first // threads], addresses[first : first + 32], count, trans)
        assert got[first : first + 32] == expected
    return result


def rows(rng, lanes):
    return [16 * rng.randrange(TILE // 16) for _ in range(lanes)]


# Values


@each_form
@each_count
@pytest.mark.parametrize("offset", [0, 16, 2048, -48, 8])
def test_every_lane_gets_its_pair_of_every_matrix(count, trans, offset):
    """Rows anywhere, others in each of four warps; base and offset need only be aligned together."""
    check(count, trans, rows(random.Random(offset), 128), 64, offset)


@each_form
@settings(max_examples=10)
@given(st.data())
def test_rows_may_be_shared_and_in_any_order(trans, data):
    count = data.draw(st.sampled_from(COUNTS))
    row = st.integers(0, TILE // 16 - 1) | st.integers(0, 3)
    check(count, trans, [16 * n for n in data.draw(st.lists(row, min_size=32, max_size=32))])


@each_form
@each_count
def test_only_the_threads_that_give_rows_need_an_address(count, trans):
    """Of the others it is not looked at."""
    addresses = rows(random.Random(1), 32)
    stray = addresses[: 8 * count] + [3 - (1 << 29)] * (32 - 8 * count)
    result, got, memory = loaded([instruction(count, trans)], stray, count)
    assert not found(result)
    assert got == definition(memory[0], addresses, count, trans)


@each_form
@each_count
def test_one_row_for_all(count, trans):
    """An address that is the same in all threads, also of different blocks."""
    lines = ["mov.u32 %r8, tile;", instruction(count, trans, offset=32)]
    result, got, memory = loaded(lines, [0] * 96, count)
    assert not found(result)
    assert got == [halves for b in range(3) for halves in definition(memory[b], [32] * 32, count, trans)]


@each_form
def test_rows_that_differ_between_blocks_only(trans):
    lines = ["mov.u32 %r8, %ctaid.x;", "mad.lo.u32 %r8, %r8, 64, %r9;", instruction(4, trans)]
    result, got, memory = loaded(lines, [0] * 96, 4)
    assert not found(result)
    assert got == [halves for b in range(3) for halves in definition(memory[b], [64 * b] * 32, 4, trans)]


def test_the_address_may_be_one_of_the_results():
    addresses = rows(random.Random(2), 32)
    lines = ["mov.u32 %r2, %r8;", instruction(4, address="%r2")]
    _, got, memory = loaded(lines, addresses, 4)
    assert got == definition(memory[0], addresses, 4, trans=False)


@each_form
def test_a_64_bit_and_a_generic_address(trans):
    addresses = rows(random.Random(3), 32)
    for space in (".shared", ""):
        lines = ["cvt.u64.u32 %d5, %r8;", instruction(2, trans, "%d5").replace(".shared", space)]
        _, got, memory = loaded(lines, addresses, 2)
        assert got == definition(memory[0], addresses, 2, trans)


def test_shared_memory_of_the_thread_block_by_its_full_name():
    addresses = rows(random.Random(3), 32)
    _, got, memory = loaded([instruction(1).replace(".shared", ".shared::cta")], addresses, 1)
    assert got == definition(memory[0], addresses, 1, trans=False)


# Lanes that are away


@pytest.mark.parametrize("where", [0, 1 << 28, -16, 5], ids=["somewhere", "far away", "before", "misaligned"])
def test_a_warp_may_stay_away_whatever_its_addresses(where):
    """Warp 1 of every block jumps over it: its registers keep what they had, and its addresses mean nothing."""
    addresses = rows(random.Random(4), 128)
    addresses = [where if n & 32 else a for n, a in enumerate(addresses)]
    lines = ["mov.u32 %r0, 7;", "mov.u32 %r1, 8;", "setp.ge.u32 %q1, %t, 32;", "@%q1 bra $END;", instruction(2),
             "$END:"]  # fmt: skip
    result, got, memory = loaded(lines, addresses, 2, threads=64)
    assert not found(result)
    for block in (0, 1):
        first = 64 * block
        assert got[first : first + 32] == definition(memory[block], addresses[first : first + 32], 2, trans=False)
        assert got[first + 32 : first + 64] == [[7, 0, 8, 0]] * 32


@pytest.mark.parametrize("where", [0, 1 << 28, -16], ids=["somewhere", "far away", "before"])
def test_a_lane_that_is_missing(where):
    """What it would have given is unspecified, that it is missing is found."""
    addresses = rows(random.Random(4), 32)
    addresses[20:] = [where] * 12
    lines = ["setp.ge.u32 %q1, %t, 20;", "@%q1 bra $END;", instruction(4), "$END:"]
    result, *_ = loaded(lines, addresses, 4)
    assert found(result)[0] == (findings.INACTIVE_LANE, instruction(4)[:-1], 0, 20, 12)


@pytest.mark.parametrize("threads", [40, 8])
def test_a_warp_that_is_not_whole(threads):
    result, *_ = loaded(["mov.u32 %r8, %r9;", instruction(4)], [0] * threads, 4, threads, filled=False)
    last = threads // 32 * 32
    assert found(result) == [(findings.INACTIVE_LANE, instruction(4)[:-1], 0, last, threads - last)]


# What is counted


def counted(result, kind="bytes"):
    return [moved for (i, *_), moved in getattr(result.counts, kind).items() if i.base == "ldmatrix"]


@each_form
@each_count
def test_a_row_is_16_bytes(count, trans):
    """Of 8, 16 or 32 lanes; three blocks of two warps."""
    result = check(count, trans, rows(random.Random(5), 192), 64)
    assert counted(result) == [3 * 2 * 8 * count * 16]
    assert {key[1:] for key in result.counts.bytes if key[0].base == "ldmatrix"} == {("shared", "read")}


ROWS_OF_128_BYTES = {  # the address of a row, and the passes for each matrix
    "without a swizzle": (lambda row, chunk: 128 * row + 16 * chunk, 8),
    "swizzled": (lambda row, chunk: 128 * row + 16 * (chunk ^ row & 7), 1),
    "padded": (lambda row, chunk: 144 * row, 1),
    "one after another": (lambda row, chunk: 16 * row, 1),
    "half of a swizzle": (lambda row, chunk: 128 * row + 16 * (chunk ^ row & 3), 2),
    "the same row": (lambda row, chunk: 16 * chunk, 1),
}  # fmt: skip


@each_form
@each_count
@pytest.mark.parametrize(("place", "passes"), ROWS_OF_128_BYTES.values(), ids=ROWS_OF_128_BYTES)
def test_bank_passes(count, trans, place, passes):
    """Eight rows are 128 bytes: one pass, if they are in different banks."""
    addresses = [place(lane % 8 + 8 * (lane // 8 % 2), lane // 16) for lane in range(32)]
    result, *_ = loaded([instruction(count, trans)], addresses, count, requests=True)
    assert [(r.requests, r.passes) for r in counted(result, "requests")] == [(1, passes * count)]


@settings(max_examples=15)
@given(st.data())
def test_bank_passes_of_any_rows(data):
    """Of each matrix as often as its fullest bank has different words."""
    count = data.draw(st.sampled_from(COUNTS))
    row = st.integers(0, TILE // 16 - 1) | st.integers(0, 31).map(lambda n: 8 * n)
    addresses = [16 * n for n in data.draw(st.lists(row, min_size=32, max_size=32))]
    result, *_ = loaded([instruction(count)], addresses, count, requests=True)
    expected = 0
    for first in range(0, 8 * count, 8):
        words = {(a + n) // 4 for a in addresses[first : first + 8] for n in range(16)}
        expected += max(sum(w % 32 == bank for w in words) for bank in range(32))
    assert [(r.requests, r.passes) for r in counted(result, "requests")] == [(1, expected)]


# Rows that stray


OUTSIDE, ODD = findings.OUT_OF_BOUNDS, findings.MISALIGNED
STRAY = {
    "behind": (TILE, {OUTSIDE}), "far behind": (1 << 20, {OUTSIDE}), "before": (-16, {OUTSIDE}),
    "begins inside": (TILE - 8, {OUTSIDE, ODD}),
    "misaligned by a half": (2, {ODD}), "misaligned by eight": (520, {ODD}),
}  # fmt: skip


@each_form
@pytest.mark.parametrize("races", [False, True], ids=["", "judged"])
@pytest.mark.parametrize(("address", "expected"), STRAY.values(), ids=STRAY)
def test_a_row_that_strays(trans, races, address, expected):
    """It is found with the lane that gave it; who should get of it gets poison, and all others what is theirs."""
    addresses = rows(random.Random(6), 128)
    lane = 32 + 8 + 5  # row 5 of matrix 1, in the second warp
    addresses[lane] = address
    result, got, memory = loaded([instruction(4, trans)], addresses, 4, threads=64, races=races)
    assert {f.what for f in result.findings} == expected
    assert {(f.memory, f.first, f.times) for f in result.findings} == {("shared memory", (0, lane, address), 1)}
    for first in range(0, 128, 32):
        expected_halves = definition(memory[first // 64], addresses[first : first + 32], 4, trans)
        for halves, right in zip(got[first : first + 32], expected_halves, strict=True):
            poisoned = {n // 2 for n, half in enumerate(right) if half is None}
            assert all(halves[n] == POISON for n, half in enumerate(right) if half is None)
            assert all(h == r for n, (h, r) in enumerate(zip(halves, right, strict=True)) if n // 2 not in poisoned)
    assert counted(result) == [16 * (128 - 1)]


def test_all_rows_stray():
    result, got, _ = loaded([instruction(4)], [TILE] * 32, 4, races=True)
    assert found(result) == [(findings.OUT_OF_BOUNDS, instruction(4)[:-1], 0, 0, 32)]
    assert got == [[POISON] * 8] * 32
    assert sum(counted(result)) == 0


# Races


RECEIVED = {(trans, count): {(t, 8 * j + row, e) for t in range(32) for j in range(count) for row, e in pair(trans, t)}
            for trans in (False, True) for count in COUNTS}  # fmt: skip
WRITE_ROW = ["mad.lo.u32 %r10, %t, 16, %r9;", "st.shared.v4.u32 [%r10], {%t, %t, %t, %t};"]
ROW_OF_LANE = ["mov.u32 %r8, %laneid;", "mad.lo.u32 %r8, %r8, 16, %r9;"]


def judged(lines, threads=32, blocks=1, count=4):
    return loaded(lines, [0] * (threads * blocks), count, threads, filled=False, races=True)[0]


@each_form
@each_count
def test_what_another_lane_wrote_needs_a_syncwarp(trans, count):
    """It is the lane that gets an element that races with the one that wrote it, not the one that gives the address."""
    result = judged([*WRITE_ROW, *ROW_OF_LANE, instruction(count, trans)], count=count)
    others = {(lane, row // 8) for lane, row, _ in RECEIVED[trans, count] if lane != row}  # lane `row` wrote the row
    ((what, text, block, thread, times),) = found(result)
    assert (what, text) == (RACES["read", "lanes"], instruction(count, trans)[:-1])
    assert (block, thread, times) == (0, min(lane for lane, matrix in others if matrix == 0), len(others))
    for barrier in ("bar.warp.sync -1;", "bar.sync 0;"):
        assert not found(judged([*WRITE_ROW, *ROW_OF_LANE, barrier, instruction(count, trans)], count=count))


@each_form
def test_what_another_warp_wrote_needs_a_barrier(trans):
    """Warp 1 reads what warp 0 wrote, a __syncwarp is not enough."""
    begin = ["setp.lt.u32 %q1, %t, 32;", "mad.lo.u32 %r10, %t, 16, %r9;",
             "@%q1 st.shared.v4.u32 [%r10], {%t, %t, %t, %t};", *ROW_OF_LANE]  # fmt: skip
    end = ["@%q1 bra $END;", instruction(4, trans), "$END:"]
    result = judged([*begin, "bar.warp.sync -1;", *end], threads=64, blocks=2)
    ((what, text, block, thread, times),) = found(result)
    assert (what, text) == (RACES["read", "warps"], instruction(4, trans)[:-1])
    assert (block, thread, times) == (0, 32, 2 * 32 * 4)
    assert not found(judged([*begin, "bar.sync 0;", *end], threads=64, blocks=2))


@each_form
def test_overwriting_what_another_warp_got(trans):
    begin = [*WRITE_ROW, *ROW_OF_LANE, "bar.sync 0;", instruction(4, trans)]
    again = ["setp.ge.u32 %q1, %t, 32;", "mov.u32 %r11, %laneid;", "mad.lo.u32 %r10, %r11, 16, %r9;",
             "@%q1 st.shared.u32 [%r10], %t;"]  # fmt: skip
    result = judged([*begin, *again], threads=64)
    ((what, text, _, thread, times),) = found(result)
    assert (what, text) == (RACES["write after read", "warps"], "@%q1 st.shared.u32 [%r10], %t")
    assert (thread, times) == (32, 32)
    assert not found(judged([*begin, "bar.sync 0;", *again], threads=64))


def test_overwriting_what_another_lane_got():
    """Lane 0 got the first words of row 0 itself, lane 1 the next: only over that one may it not write."""
    begin = [*WRITE_ROW, *ROW_OF_LANE, "bar.sync 0;", instruction(1), "setp.eq.u32 %q1, %t, 0;"]
    assert not found(judged([*begin, "@%q1 st.shared.u32 [%r9], 1;"], count=1))
    ((what, *_, times),) = found(judged([*begin, "@%q1 st.shared.u32 [%r9+4], 1;"], count=1))
    assert (what, times) == (RACES["write after read", "lanes"], 1)
    assert not found(judged([*begin, "bar.warp.sync -1;", "@%q1 st.shared.u32 [%r9+4], 1;"], count=1))


def write_halves(trans):
    """Every lane writes the two halves that it will get of matrix 0."""
    row, column = ("%r11", "%r12") if not trans else ("%r12", "%r11")  # of its first half
    return ["mov.u16 %h1, 5;", "shr.u32 %r11, %laneid, 2;", "and.b32 %r12, %laneid, 3;", "shl.b32 %r12, %r12, 1;",
            f"mad.lo.u32 %r13, {row}, 16, %r9;", f"mad.lo.u32 %r13, {column}, 2, %r13;", "st.shared.b16 [%r13], %h1;",
            f"st.shared.b16 [%r13+{16 if trans else 2}], %h1;"]  # fmt: skip


@each_form
def test_halves_are_told_apart(trans):
    """What a lane wrote itself it may get at once, half by half; read the other way, most is another lane's."""
    begin = [*write_halves(trans), *ROW_OF_LANE]
    assert not found(judged([*begin, instruction(1, trans)], count=1))
    ((what, *_, times),) = found(judged([*begin, instruction(1, not trans)], count=1))
    own = {(row, e): lane for lane in range(32) for row, e in pair(trans, lane)}
    others = {lane for lane in range(32) for place in pair(not trans, lane) if own[place] != lane}
    assert (what, times) == (RACES["read", "lanes"], len(others))


@each_form
@each_count
def test_rows_that_nobody_wrote(trans, count):
    """All but row 3 of matrix 0 are written."""
    lines = ["setp.ne.u32 %q1, %t, 3;", WRITE_ROW[0], f"@%q1 {WRITE_ROW[1]}", *ROW_OF_LANE, "bar.sync 0;",
             instruction(count, trans)]  # fmt: skip
    result, got, _ = loaded(lines, [0] * 32, count, filled=False, races=True)
    ((what, text, _, thread, times),) = found(result)
    receivers = sorted({lane for lane, row, _ in RECEIVED[trans, count] if row == 3})
    assert (what, text) == (findings.UNINITIALISED, instruction(count, trans)[:-1])
    assert (thread, times) == (receivers[0], len(receivers))
    for lane in range(32):
        for n, (row, _) in enumerate(pair(trans, lane)):
            assert (got[lane][n] == POISON) == (row == 3)


# What is not run


REFUSED = {
    "b8": "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0, %r1}, [%r8];",
    "another shape": "ldmatrix.sync.aligned.m8n16.x1.shared.b16 {%r0}, [%r8];",
    "three matrices": "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r0, %r1, %r2}, [%r8];",
    "fewer registers": "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1}, [%r8];",
    "more registers": "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0, %r1}, [%r8];",
    "global memory": "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r0}, [%at];",
    "no address": "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, %r8;",
    "one operand": "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0};",
    "three operands": "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r8], 4;",
    "the way back": "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r8], {%r0};",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_line_of_the_ptx_and_quotes_it(line):
    text = kernel_text([*((f"%r{n}", "b32") for n in range(9))], 1, [line])
    number = text.split("\n").index(line) + 1
    with pytest.raises(InputError, match=rf"^PTX line {number}: `{re.escape(line[:-1])}`: "):
        grid.compile_kernel(parse(text)["k"])


# These tests can fail


def test_another_place_of_a_half_is_noticed(monkeypatch):
    real = grid.SharedMemory.load_matrices

    def mutant(self, *given_, transposed):
        return real(self, *given_, transposed=not transposed)

    monkeypatch.setattr(grid.SharedMemory, "load_matrices", mutant)
    for trans in (False, True):
        with pytest.raises(AssertionError):
            check(4, trans, rows(random.Random(0), 32))
