"""Races, uninitialised reads and bounds, against a happens-before relation over the full history of a word.

Threads of a block are ordered by __syncthreads, lanes of a warp also by __syncwarp, blocks of one launch by nothing.

What the shadow promises: as long as a word's history holds no race, the next access is judged exactly. It keeps one
write and a summary of the reads since, so that after a first race on a word nothing is promised about that word.
"""

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware_kernels.ptx import findings, grid
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.findings import RACES
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.ptx.shadow import EMPTY, FULL, OUTSIDE

THREADS = 96
PLACES = {"thread 0": (0, 0), "another lane": (0, 5), "another warp": (0, 40), "a third warp": (0, 70),
          "another block": (1, 0), "its other warp": (1, 40)}  # fmt: skip
KINDS = ("read", "write", "atomic")
SYNCS = ("nothing", "__syncwarp", "__syncthreads")


# The definition: a history is a list of accesses (kind, (block, thread)) and synchronisations of all threads


def happens_before(a, b, between):
    """Whether what lies between two accesses, or their being of one thread, orders them."""
    if a == b:
        return True
    (block, thread), (other_block, other_thread) = a, b
    same_warp = block == other_block and thread // 32 == other_thread // 32
    return (block == other_block and "__syncthreads" in between) or (same_warp and "__syncwarp" in between)


def apart(a, b):
    if a[0] != b[0]:
        return "blocks"
    return "lanes" if a[1] // 32 == b[1] // 32 else "warps"


def conflicts(history):
    """Of the last access with all earlier ones: the (what, what separates the threads) that may be said of it."""
    *earlier, (kind, here) = history
    found = set()
    for n, event in enumerate(earlier):
        if isinstance(event, str):
            continue
        before, there = event
        between = [e for e in earlier[n + 1 :] if isinstance(e, str)]
        if {before, kind} <= {"read"} or before == kind == "atomic" or happens_before(there, here, between):
            continue
        name = "write after read" if before == "read" else "read" if kind == "read" else "write"
        found.add(RACES[name, apart(there, here)])
    return found


# The same on the engine: words side by side, the accesses of each by one thread


def text_of(lines, space="global", shared_bytes=0):
    tile = f".shared .align 16 .b8 tile[{shared_bytes}];" if space == "shared" else ""
    return "\n".join(
        [".visible .entry k(.param .u64 p) {", ".reg .pred %q<9>;", ".reg .b32 %r<20>;", ".reg .b64 %d<20>;",
         ".reg .b16 %h<9>;", tile, "ld.param.u64 %d1, [p];", "mov.u32 %r1, %tid.x;", "mov.u32 %r2, %ctaid.x;",
         "mov.u32 %r3, %laneid;", *(["mov.u32 %r4, tile;"] if tile else []), *lines, "ret;", "}"]
    )  # fmt: skip


def launched(lines, space="global", words=1, holds=FULL, blocks=2, threads=THREADS, shared_bytes=64, **options):
    buffer = Buffer("x", np.zeros(words, np.int32), np.full(words, holds, np.uint8))
    kernel = parse(text_of(lines, space, shared_bytes))["k"]
    params = {"p": struct.pack("<Q", 1 << 40)}
    options = Options(**{"races": True, **options})
    return grid.launch(kernel, (blocks,), (threads,), params, [buffer], options=options), buffer


def accesses(space, kind, word, where):
    """The lines of one access; the last one is the access itself, and holds a number that nothing else does."""
    block, thread = where
    base = "%d1" if space == "global" else "%r4"
    access = {"read": f"ld.{space}.u32 %r5, [{base}+{4 * word}]", "write": f"st.{space}.u32 [{base}+{4 * word}], %r1",
              "atomic": f"atom.{space}.add.u32 %r5, [{base}+{4 * word}], %r1"}[kind]  # fmt: skip
    return [f"setp.eq.u32 %q1, %r1, {thread};", f"setp.eq.and.u32 %q1, %r2, {block}, %q1;", f"@%q1 {access};"]


SYNC_LINES = {"nothing": [], "__syncwarp": ["bar.warp.sync -1;"], "__syncthreads": ["bar.sync 0;"]}


def judged(space, histories, steps_between):
    """Per history (a list of accesses, one per step) and step the set of what is found."""
    lines, at = [], {}
    for step, between in enumerate([*steps_between, "nothing"]):
        for word, history in enumerate(histories):
            if step < len(history):
                lines += accesses(space, *history[step][:1], word, history[step][1])
                at[len(lines)] = word, step
        lines += SYNC_LINES[between]
    holds = FULL if space == "global" else EMPTY
    result, _ = launched(lines, space, len(histories), holds, shared_bytes=4 * len(histories))
    first = text_of(lines, space, 1).split("\n").index(lines[0])
    out = {place: set() for place in at.values()}
    for finding in result.findings:
        if finding.what != findings.UNINITIALISED:
            assert finding.times == 1
            word, step = at[finding.instruction.line - first]
            assert (finding.first.block, finding.first.thread) == histories[word][step][1]
            assert finding.first.offset == 4 * word
            out[word, step].add(finding.what)
    return out


def is_possible(space, *events):
    return space == "global" or len({where[0] for _, where in events}) == 1  # shared memory is of one block


PAIRS = list(itertools.product(KINDS, KINDS, ("thread 0", "another lane", "another warp", "another block")))


@pytest.mark.parametrize("between", SYNCS)
@pytest.mark.parametrize("space", ["global", "shared"])
def test_two_accesses_of_a_word(space, between):
    """All pairs of read, write and atomic, by one thread, two lanes, two warps and two blocks."""
    histories = [[(a, PLACES["thread 0"]), (b, PLACES[who])] for a, b, who in PAIRS]
    chosen = [n for n, h in enumerate(histories) if is_possible(space, *h)]
    found = judged(space, [histories[n] for n in chosen], [between])
    for word, n in enumerate(chosen):
        first, second = histories[n]
        assert found[word, 0] == set()
        assert found[word, 1] == conflicts([first, between, second]), f"{PAIRS[n]} with {between}"


VERDICTS = {  # a few of the same, written out
    ("write", "read", "another warp", "__syncwarp"): "reads what another warp wrote, with no barrier between",
    ("write", "read", "another lane", "__syncwarp"): None,
    ("write", "read", "another block", "__syncthreads"): "reads what another thread block wrote in this launch",
    ("read", "write", "another lane", "nothing"):
        "overwrites what another lane of the warp read, with no __syncwarp between",
    ("read", "atomic", "another warp", "nothing"): "overwrites what another warp read, with no barrier between",
    ("atomic", "write", "another warp", "nothing"): "writes what another warp wrote, with no barrier between",
    ("atomic", "atomic", "another block", "nothing"): None,
    ("read", "read", "another block", "nothing"): None,
    ("write", "write", "thread 0", "nothing"): None,
    ("write", "atomic", "another warp", "__syncthreads"): None,
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "who", "between"), VERDICTS, ids=" ".join)
def test_what_is_said_of_two_accesses(first, second, who, between):
    found = judged("global", [[(first, PLACES["thread 0"]), (second, PLACES[who])]], [between])
    said = VERDICTS[first, second, who, between]
    assert found[0, 1] == ({said} if said else set())


def histories_of(kinds, places, steps):
    event = st.tuples(st.sampled_from(kinds), st.sampled_from([PLACES[p] for p in places]))
    return st.lists(st.lists(event, min_size=2, max_size=steps), min_size=4, max_size=12)


def as_run(history, between, *, block_by_block):
    """The accesses and synchronisations in the order in which they happen, each with its step."""
    steps = [[(n, event), *((n, sync) for sync in between[n : n + 1])] for n, event in enumerate(history)]
    flat = list(itertools.chain(*steps))
    if not block_by_block:
        return flat
    return [(n, e) for block in (0, 1) for n, e in flat if isinstance(e, str) or e[1][0] == block]


def check_histories(space, histories, between):
    """Where there are atomics, thread blocks run one after another."""
    found = judged(space, histories, between)
    has_atomics = any(kind == "atomic" for history in histories for kind, _ in history)
    for word, history in enumerate(histories):
        events = []
        for step, event in as_run(history, between, block_by_block=has_atomics):
            if isinstance(event, str):
                events.append(event)
                continue
            expected = conflicts([*events, event])
            assert bool(found[word, step]) == bool(expected), f"{[*events, event]}: {found[word, step]} != {expected}"
            assert found[word, step] <= expected, f"{[*events, event]}: {found[word, step]} != {expected}"
            if expected:
                break  # nothing is promised after the first race
            events.append(event)


@pytest.mark.parametrize("space", ["global", "shared"])
@settings(max_examples=50)
@given(st.data())
def test_the_first_race_of_reads_and_writes_is_found_and_nothing_else(space, data):
    places = list(PLACES)[: 4 if space == "shared" else 6]
    steps = data.draw(st.lists(st.sampled_from(SYNCS), min_size=2, max_size=4))
    check_histories(space, data.draw(histories_of(("read", "write"), places, len(steps) + 1)), steps)


@pytest.mark.parametrize("space", ["global", "shared"])
@settings(max_examples=50)
@given(st.data())
def test_the_first_race_is_found_among_atomics_too(space, data):
    places = list(PLACES)[: 4 if space == "shared" else 6]
    steps = data.draw(st.lists(st.sampled_from(SYNCS), min_size=2, max_size=4))
    check_histories(space, data.draw(histories_of(KINDS, places, len(steps) + 1)), steps)


T, LANE, WARP, BLOCK = (PLACES[p] for p in ("thread 0", "another lane", "another warp", "another block"))
THREE = {
    "a variable that one thread clears before all add to it":
        [("write", T), "nothing", ("atomic", T), "nothing", ("atomic", WARP)],
    "a variable that one thread reads before all add to it":
        [("read", T), "nothing", ("atomic", T), "nothing", ("atomic", BLOCK)],
    "lanes add, and one reads after a __syncwarp":
        [("atomic", T), "nothing", ("atomic", LANE), "__syncwarp", ("read", T)],
    "lanes add with a __syncwarp between, and the second reads":
        [("atomic", T), "__syncwarp", ("atomic", LANE), "nothing", ("read", LANE)],
    "lanes add, and one reads at once": [("atomic", T), "nothing", ("atomic", LANE), "nothing", ("read", LANE)],
    "warps add, and one reads after a __syncwarp":
        [("atomic", T), "nothing", ("atomic", WARP), "__syncwarp", ("read", T)],
    "warps add, and one reads after a barrier":
        [("atomic", T), "nothing", ("atomic", WARP), "__syncthreads", ("read", T)],
    "blocks add, and one reads": [("atomic", T), "nothing", ("atomic", BLOCK), "__syncthreads", ("read", BLOCK)],
    "two warps read, one writes": [("read", T), "nothing", ("read", WARP), "nothing", ("write", T)],
    "two warps read, one writes after a barrier": [("read", T), "nothing", ("read", WARP), "__syncthreads",
                                                   ("write", LANE)],
    "two lanes read, one writes": [("read", T), "nothing", ("read", LANE), "nothing", ("write", LANE)],
    "two lanes read, one writes after a __syncwarp": [("read", T), "nothing", ("read", LANE), "__syncwarp",
                                                      ("write", LANE)],
    "a read of before a barrier is over": [("read", WARP), "__syncthreads", ("read", T), "nothing", ("write", T)],
    "blocks read, one writes": [("read", T), "__syncthreads", ("read", BLOCK), "__syncthreads", ("write", T)],
}  # fmt: skip


@pytest.mark.parametrize("history", THREE.values(), ids=THREE)
def test_three_accesses_of_a_word(history):
    found = judged("global", [history[::2]], history[1::2])
    assert found[0, 0] == found[0, 1] == set()
    assert found[0, 2] == conflicts(history)


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("t", "register", "size"), [("u8", "%h1", 1), ("b16", "%h1", 2)])
def test_lanes_that_write_different_bytes_of_a_word_do_not_race(space, t, register, size):
    wide = "mad.wide.u32 %d2, %r1, {}, %d1;" if space == "global" else "mad.lo.u32 %r6, %r1, {}, %r4;"
    to = "%d2" if space == "global" else "%r6"
    lines = ["mov.u16 %h1, 3;", wide.format(size), f"st.{space}.{t} [{to}], {register};", "bar.sync 0;",
             f"ld.{space}.{t} {register}, [{to}];"]  # fmt: skip
    result, _ = launched(lines, space, THREADS, blocks=1, shared_bytes=2 * THREADS)
    assert [str(f) for f in result.findings] == []


def test_a_launch_is_ordered_before_the_next():
    buffer = Buffer("x", np.zeros(1, np.int32), np.full(1, FULL, np.uint8))
    for where in (T, WARP, BLOCK):
        lines = accesses("global", "write", 0, where)
        kernel = parse(text_of(lines))["k"]
        params = {"p": struct.pack("<Q", 1 << 40)}
        assert not len(grid.launch(kernel, (2,), (96,), params, [buffer], options=Options(races=True)).findings)


def test_blocks_of_different_goes_race_too():
    """More blocks than run together: the shadow of global memory is of the whole launch, that of shared is not."""
    result, _ = launched(["st.global.u32 [%d1], %r1;"], blocks=1000, threads=32)
    assert {f.what: f.times for f in result.findings} == {RACES["write", "lanes"]: 31 * 1000,
                                                          RACES["write", "blocks"]: 999}  # fmt: skip
    assert [f.first.block for f in result.findings] == [0, 1]
    only = ["setp.eq.u32 %q1, %r1, 0;", "@%q1 st.shared.u32 [%r4], %r1;"]
    assert not len(launched(only, "shared", blocks=1000, threads=32)[0].findings)


# What nobody wrote, and where nothing is


def summary(result):
    return [(f.what, f.memory, f.first, f.times) for f in result.findings]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_wrote(space, kind):
    lines = [*accesses(space, kind, 3, (1, 37)), *accesses(space, "read", 3, (1, 37))]
    result, _ = launched(lines, space, 4, EMPTY)
    found = [(findings.UNINITIALISED, "x" if space == "global" else "shared", (1, 37, 12), 1)]
    assert summary(result) == {"read": found * 2, "write": [], "atomic": found}[kind]
    assert list(result.counts.bytes.values()) == [4, 4]


@pytest.mark.parametrize(("kind", "loaded"), [("read", 1), ("write", 0), ("atomic", 1)])
def test_memory_between_the_rows(kind, loaded):
    """Rows of 2 words, 3 apart: the word between belongs to nobody."""
    buffer = Buffer("x", np.zeros(6, np.int32), np.array([FULL, FULL, OUTSIDE] * 2, np.uint8))
    opcode = {"read": "ld.global.u32 %r5, [%d2]", "write": "st.global.u32 [%d2], %r1",
              "atomic": "atom.global.add.u32 %r5, [%d2], 1"}[kind]  # fmt: skip
    lines = ["mad.wide.u32 %d2, %r1, 4, %d1;", f"{opcode};"]
    params = {"p": struct.pack("<Q", 1 << 40)}
    result = grid.launch(parse(text_of(lines))["k"], (1,), (6,), params, [buffer], options=Options(races=True))
    assert summary(result) == [(findings.GUARD, "x", (0, 2, 8), 2)]
    assert list(result.counts.bytes.values()) == [24]


BOUNDS = {  # type, address in bytes of a tensor or of shared memory of 60 bytes, what is found
    "the last word": ("u32", 56, None),
    "the last vector": ("v4.u32", 32, None),
    "behind": ("u32", 60, findings.OUT_OF_BOUNDS),
    "far behind": ("u32", 1 << 20, findings.OUT_OF_BOUNDS),
    "before": ("u32", -4, findings.OUT_OF_BOUNDS),
    "a vector that begins inside": ("v4.u32", 48, findings.OUT_OF_BOUNDS),
    "a half behind": ("b16", 60, findings.OUT_OF_BOUNDS),
    "an odd word": ("u32", 2, findings.MISALIGNED),
    "an odd half": ("b16", 5, findings.MISALIGNED),
    "an odd double word": ("u64", 4, findings.MISALIGNED),
    "an odd pair": ("v2.u32", 12, findings.MISALIGNED),
    "an odd vector": ("v4.u32", 8, findings.MISALIGNED),
    "an odd pair of double words": ("v2.u64", 8, findings.MISALIGNED),
    "a byte anywhere": ("u8", 59, None),
}
OPERANDS = {"u8": "%h1", "b16": "%h1", "u32": "%r7", "u64": "%d7", "v2.u32": "{%r7, %r8}", "v2.u64": "{%d7, %d8}",
            "v4.u32": "{%r7, %r8, %r9, %r10}"}  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("kind", ["ld", "st"])
@pytest.mark.parametrize(("t", "address", "expected"), BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("offset", [0, 16])
def test_bounds_and_alignment(space, kind, t, address, expected, offset):
    """One thread goes there, the others to the first bytes: they are served and counted."""
    begin = ["mov.u64 %d7, 0;", "mov.u64 %d8, 0;", "mov.u16 %h1, 0;", *(f"mov.u32 %r{n}, 0;" for n in range(7, 11)),
             "setp.eq.u32 %q1, %r1, 3;", f"selp.b32 %r6, {address - offset}, {-offset}, %q1;",
             "cvt.s64.s32 %d2, %r6;", "add.s64 %d2, %d2, %d1;",
             *(["add.u32 %r6, %r6, %r4;"] if space == "shared" else [])]  # fmt: skip
    at = f"[{'%d2' if space == 'global' else '%r6'}+{offset}]"
    operands = f"{OPERANDS[t]}, {at}" if kind == "ld" else f"{at}, {OPERANDS[t]}"
    lines = [*begin, f"{kind}.{space}.{t} {operands};"]
    result, _ = launched(lines, space, 15, blocks=1, shared_bytes=60, races=False)
    memory = "x" if space == "global" else "shared memory"
    assert summary(result) == ([(expected, memory, (0, 3, address), 1)] if expected else [])
    ((instruction, *_),) = result.counts.bytes
    assert list(result.counts.bytes.values()) == [(THREADS - bool(expected)) * instruction.lane_bytes]


def test_an_address_of_no_tensor():
    lines = ["mov.u64 %d2, 4096;", "setp.eq.u32 %q1, %r1, 3;", "@%q1 ld.global.u32 %r5, [%d2];"]
    result, _ = launched(lines, races=False)
    assert summary(result) == [(findings.OUT_OF_BOUNDS, "", (0, 3, 4096), 2)]
    assert not result.counts.bytes


def test_tensors_in_pieces():
    """Two pieces of two words, 1 GiB apart: what lies between is in neither."""
    far = 1 << 30
    for address, expected in ((0, None), (4, None), (8, far), (far - 4, far), (far, None), (far + 4, None)):
        buffer = Buffer("x", np.arange(4, dtype=np.int32), np.full(4, FULL, np.uint8), (0, far), (8, 8))
        lines = [f"add.s64 %d2, %d1, {address};", "ld.global.u32 %r5, [%d2];", "add.u32 %r5, %r5, 10;",
                 "st.global.u32 [%d2], %r5;"]  # fmt: skip
        params = {"p": struct.pack("<Q", 1 << 40)}
        result = grid.launch(parse(text_of(lines))["k"], (1,), (1,), params, [buffer], options=Options(races=True))
        assert {f.what for f in result.findings} == ({findings.OUT_OF_BOUNDS} if expected else set())
        assert [f.first.offset for f in result.findings] == ([address] * 2 if expected else [])
        word = {0: 0, 4: 1, far: 2, far + 4: 3}.get(address)
        assert buffer.words.tolist() == [n + 10 * (n == word) for n in range(4)]


# What a warp asks of memory


def sectors_of(addresses, size):
    """(requests, sectors of 32 bytes) of one warp's addresses."""
    sectors = {(a + n) // 32 for a in addresses if a is not None for n in range(size)}
    return bool(sectors), len(sectors)


def passes_of(addresses, size):
    """(requests, passes): 128 bytes of lanes at a time, as often as the fullest bank has different words."""
    group = 32 * 4 // max(size, 4)
    passes = 0
    for first in range(0, 32, group):
        words = {(a + n) // 4 for a in addresses[first : first + group] if a is not None for n in range(size)}
        passes += max((sum(w % 32 == bank for w in words) for bank in range(32)), default=0)
    return any(a is not None for a in addresses), passes


WIDE = {1: ("u8", "%h1"), 2: ("b16", "%h1"), 4: ("u32", "%r7"), 8: ("v2.u32", "{%r7, %r8}"),
        16: ("v4.u32", OPERANDS["v4.u32"])}  # fmt: skip


def requested(space, addresses, size):
    """(requests, sectors or passes) of threads that load from these addresses; None takes no part."""
    t, registers = WIDE[size]
    threads = len(addresses)
    given_ = np.array([a if a is not None else -1 for a in addresses], np.int32)
    buffers = [Buffer("x", np.zeros(2048, np.int32), np.full(2048, FULL, np.uint8)),
               Buffer("a", given_, np.full(threads, FULL, np.uint8))]  # fmt: skip
    lines = [f"mov.u64 %d3, {2 << 40};", "mad.wide.u32 %d3, %r1, 4, %d3;", "ld.global.u32 %r6, [%d3];",
             "setp.ge.s32 %q1, %r6, 0;", "cvt.s64.s32 %d2, %r6;", "add.s64 %d2, %d2, %d1;",
             f"@%q1 ld.{space}.{t} {registers}, [{'%d2' if space == 'global' else '%r6'}];"]  # fmt: skip
    kernel = parse(text_of(lines, space, 8192))["k"]
    params = {"p": struct.pack("<Q", 1 << 40)}
    result = grid.launch(kernel, (2,), (threads,), params, buffers, options=Options(requests=True))
    assert not len(result.findings)
    memory = "x" if space == "global" else "shared"
    found = [r for (_, name), r in result.counts.requests.items() if name == memory]
    return [(r.requests // 2, (r.sectors if space == "global" else r.passes) // 2) for r in found] or [(0, 0)]


PATTERNS = {  # address of a lane, bytes per lane, sectors, passes
    "coalesced": (lambda n: 4 * n, 4, 4, 1),
    "coalesced vectors": (lambda n: 16 * n, 16, 16, 4),
    "coalesced pairs": (lambda n: 8 * n, 8, 8, 2),
    "coalesced halves": (lambda n: 2 * n, 2, 2, 1),
    "one word for all": (lambda n: 0, 4, 1, 1),
    "beginning off a sector": (lambda n: 4 * n + 16, 4, 5, 1),
    "every second word": (lambda n: 8 * n, 4, 8, 2),
    "a column of 32 words": (lambda n: 128 * n, 4, 32, 32),
    "a column of 33 words": (lambda n: 132 * n, 4, 32, 1),
    "backwards": (lambda n: 4 * (31 - n), 4, 4, 1),
    "pairs of lanes share a word": (lambda n: n // 2 * 4, 4, 2, 1),
}


@pytest.mark.parametrize(("address", "size", "sectors", "passes"), PATTERNS.values(), ids=PATTERNS)
def test_sectors_and_passes_of_common_patterns(address, size, sectors, passes):
    addresses = [address(n) for n in range(32)]
    assert requested("global", addresses, size) == [(1, sectors)] == [sectors_of(addresses, size)]
    assert requested("shared", addresses, size) == [(1, passes)] == [passes_of(addresses, size)]


@settings(max_examples=60)
@given(st.sampled_from([1, 2, 4, 8, 16]), st.data())
def test_sectors_and_passes_of_any_addresses(size, data):
    position = (
        st.none() | st.integers(0, 8192 // size - 1) | st.integers(0, 40) | st.integers(0, 15).map(lambda n: 32 * n)
    )
    drawn = data.draw(st.lists(position, min_size=1, max_size=80))
    addresses = [None if n is None else n * size % 8192 for n in drawn]
    warps = [addresses[n : n + 32] for n in range(0, len(addresses), 32)]
    for space, count in (("global", sectors_of), ("shared", passes_of)):
        assert requested(space, addresses, size) == [
            tuple(map(sum, zip(*(count(w, size) for w in warps), strict=True)))
        ]
