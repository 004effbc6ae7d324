"""The engine: loads, stores and atomics of every width, in global and in shared memory."""

import struct

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.ptx_kernels import MASK, REGISTERS, array, found, launch, load, numbers, run, store, text_of

# Loads and stores


REGISTER_OF = {2: "%h1", 4: "%r1", 8: "%d1"}
FLOAT_REGISTER = {"f32": "%f1", "f64": "%e1"}
WIDTHS = [(f"{kind}{bits}", to) for kind in "bus" for bits in (8, 16, 32, 64) for to in (2, 4, 8) if 8 * to >= bits]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("t", "size"), [*WIDTHS, ("f32", 4), ("f64", 8)], ids=lambda x: str(x))
def test_a_wider_register_is_extended_by_the_sign_of_a_signed_type_only(space, t, size):
    width = int(t[1:]) // 8
    register = FLOAT_REGISTER.get(t, REGISTER_OF[size])
    plain = FLOAT_REGISTER.get(t, REGISTER_OF[max(width, 2)]).replace("1", "2")
    staged = [
        *load(0, plain, t, width), "mov.u32 %r3, tile;", f"mad.lo.u32 %r4, %t, {width}, %r3;",
        f"st.shared.{t} [%r4], {plain};", "bar.sync 0;", "xor.b32 %r4, %t, 1;", f"mad.lo.u32 %r4, %r4, {width}, %r3;",
        f"ld.shared.{t} {register}, [%r4];",
    ]  # fmt: skip
    lines = load(0, register, t, width) if space == "global" else staged
    lines = lines + store(1, register, "f" + t[1:] if t[0] == "f" else f"b{8 * size}", size)
    threads = 32
    bits = [(0x9E3779B97F4A7C15 * (n + 1) >> 7) & ((1 << 8 * width) - 1) for n in range(2 * threads)]
    arrays = [array(b"".join(b.to_bytes(width, "little") for b in bits)), array(bytes(2 * threads * size))]
    assert not found(launch(text_of(lines, 2, f".shared .align 8 .b8 tile[{threads * width}];"), 2, threads, arrays))
    data = arrays[1].words.tobytes()
    for n in range(2 * threads):
        value = bits[n if space == "global" else n ^ 1]
        if t[0] == "s" and value >> (8 * width - 1):
            value -= 1 << 8 * width
        assert data[n * size : (n + 1) * size] == (value & (1 << 8 * size) - 1).to_bytes(size, "little")


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(
    ("t", "size", "count"),
    [("u8", 1, 4), ("u16", 2, 2), ("b16", 2, 4), ("u32", 4, 2), ("f32", 4, 4), ("b32", 4, 4), ("u64", 8, 2),
     ("f64", 8, 2)],
)  # fmt: skip
def test_vectors_and_constant_offsets(space, t, size, count):
    """Thread by thread a vector goes through memory, and comes back from the neighbour below (the first: its own)."""
    prefix = {"f32": "%f", "f64": "%e"}.get(t, {1: "%h", 2: "%h", 4: "%r1", 8: "%d"}[size])
    registers = "{" + ", ".join(f"{prefix}{n}" for n in range(count)) + "}"
    whole, vector = size * count, f"v{count}.{t}"
    base = ["mov.u64 %d20, tile;"] if space == "shared" else ["mov.u64 %d20, %p1;"]
    lines = [
        *load(0, registers, vector, whole), *base, f"mad.wide.u32 %d21, %t, {whole}, %d20;",
        f"st.{space}.{vector} [%d21+{whole}], {registers};", "bar.sync 0;",
        f"add.s64 %d22, %d21, {3 * whole};", "setp.eq.u32 %q1, %t, 0;", f"@%q1 ld.{space}.{vector} {registers}, [tile+"
        f"{whole}];" if space == "shared" else f"@%q1 ld.{space}.{vector} {registers}, [%p1+{whole}];",
        f"@!%q1 ld.{space}.{vector} {registers}, [%d22+{-3 * whole}];", *store(2, registers, vector, whole),
    ]  # fmt: skip
    threads = 32
    data = bytes((37 * n + n // 7) & 255 for n in range(threads * whole))
    arrays = [array(data), array(bytes((threads + 4) * whole)), array(bytes(threads * whole))]
    tile = f".shared .align 16 .b8 tile[{(threads + 4) * whole}];"
    assert not found(launch(text_of(lines, 3, tile), 1, threads, arrays))
    assert arrays[2].words.tobytes() == data[:whole] + data[: (threads - 1) * whole]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("t", "register", "size"), [("u8", "%r1", 1), ("u8", "%h1", 1), ("b16", "%r1", 2),
                                                     ("s16", "%d1", 2), ("u32", "%d1", 4)])  # fmt: skip
def test_a_narrow_store_takes_the_low_bits_and_leaves_the_neighbours(space, t, register, size):
    begin = [f"mov.u32 %r5, {0x5A5A5A5A};", "mov.u32 %r6, tile;", "mad.lo.u32 %r6, %t, 8, %r6;",
             "mad.wide.u32 %d6, %t, 8, %p0;"]  # fmt: skip
    at = "%r6" if space == "shared" else "%d6"
    value = [f"mad.lo.u32 %r7, %t, {0x01010101}, {0xF0E1D2C3};",
             f"cvt.u{8 * {'h': 2, 'r': 4, 'd': 8}[register[1]]}.u32 {register}, %r7;"]  # fmt: skip
    lines = [*begin, f"st.{space}.u32 [{at}], %r5;", f"st.{space}.u32 [{at}+4], %r5;", *value,
             f"st.{space}.{t} [{at}+{size if size < 4 else 0}], {register};", f"ld.{space}.u64 %d2, [{at}];",
             *store(1, "%d2", "u64", 8)]  # fmt: skip
    arrays = [array(bytes(256)), array(bytes(256))]
    assert not found(launch(text_of(lines, 2, ".shared .align 8 .b8 tile[256];"), 1, 32, arrays))
    for n in range(32):
        expected = bytearray(b"\x5a" * 8)
        begin_at = size if size < 4 else 0
        stored = (n * 0x01010101 + 0xF0E1D2C3) & MASK
        expected[begin_at : begin_at + size] = stored.to_bytes(4, "little")[:size]
        assert arrays[1].words.tobytes()[8 * n : 8 * n + 8] == bytes(expected)


@pytest.mark.parametrize(("base", "offset"), [(4, -4), (16, -16), (2, 2), (6, -2), (-8, 12), (1, 3)])
def test_base_and_offset_of_a_shared_address_need_only_be_aligned_together(base, offset):
    lines = [
        "mov.u32 %r1, tile;", "shl.b32 %r2, %t, 2;", "add.u32 %r2, %r1, %r2;", "st.shared.u32 [%r2], %i;",
        "bar.sync 0;", f"add.s32 %r2, %r2, {base};", f"ld.shared.u32 %r3, [%r2+{offset}];",
        "bar.sync 0;", "add.s32 %r3, %r3, 5;", f"st.shared.u32 [%r2+{offset}], %r3;",
        "bar.sync 0;", f"ld.shared.u32 %r3, [%r2+{offset}];", *store(0, "%r3"),
    ]  # fmt: skip
    out = run(lines, 2, 32, shared=".shared .align 16 .b8 tile[136];")
    move = (base + offset) // 4  # the last thread may read what nobody wrote
    assert [out[n] for n in range(64) if n % 32 < 32 - move] == [n + 5 + move for n in range(64) if n % 32 < 32 - move]


def test_dynamic_shared_memory_has_all_its_bytes_behind_static_ones_of_any_size():
    shared = ".shared .align 4 .b8 tile[20];\n.extern .shared .align 16 .b8 dynamic[];"
    lines = ["mov.u32 %r1, tile;", "st.shared.u32 [%r1+16], 9;", "mov.u32 %r1, dynamic;", "shl.b32 %r2, %t, 2;",
             "add.u32 %r2, %r1, %r2;", "st.shared.u32 [%r2], %t;", "ld.shared.u32 %r3, [%r2];",
             *store(0, "%r3")]  # fmt: skip
    assert run(lines, 1, 32, shared=shared, dynamic=128) == list(range(32))


def test_generic_addresses_are_shared_or_global_by_their_value():
    lines = ["mov.u64 %d1, tile;", "cvta.shared.u64 %d1, %d1;", "mad.wide.u32 %d1, %t, 4, %d1;", "st.u32 [%d1], %i;",
             "bar.sync 0;", "xor.b32 %r1, %t, 1;", "mov.u64 %d2, tile;", "mad.wide.u32 %d2, %r1, 4, %d2;",
             "ld.u32 %r2, [%d2];", *[line.replace(".global", "") for line in store(0, "%r2")]]  # fmt: skip
    assert run(lines, 2, 32, shared=".shared .align 4 .b8 tile[128];") == [n ^ 1 for n in range(64)]


def test_threads_that_take_no_part_do_not_decide_what_a_generic_address_is():
    lines = ["mov.u64 %d1, tile;", "mad.wide.u32 %d1, %t, 4, %d1;", "st.shared.u32 [%d1], 7;",
             "setp.lt.u32 %q1, %t, 16;", "selp.b64 %d2, %d1, %p0, %q1;", "mov.u32 %r1, 1;",
             "@%q1 ld.u32 %r1, [%d2];", *store(0, "%r1")]  # fmt: skip
    assert run(lines, 1, 32, shared=".shared .align 4 .b8 tile[128];") == [7] * 16 + [1] * 16


def test_threads_of_one_instruction_may_touch_different_arrays():
    lines = ["setp.lt.u32 %q1, %t, 16;", "selp.b64 %d2, %p0, %p1, %q1;", "mad.wide.u32 %d2, %i, 4, %d2;",
             "ld.global.u32 %r1, [%d2];", *store(2, "%r1")]  # fmt: skip
    out = run(lines, 2, 32, range(100, 164), range(200, 264))
    assert out == [(100 if n % 32 < 16 else 200) + n for n in range(64)]


# Atomics


OPERATIONS = {
    "add": lambda old, a: old + a, "min": lambda old, a: min(old, a), "max": lambda old, a: max(old, a),
    "exch": lambda old, a: a, "cas": lambda old, a, b: b if old == a else old,
}  # fmt: skip
ATOMICS = [("add", "u32"), ("add", "s32"), ("add", "u64"), ("add", "f32"), ("add", "f64"), ("min", "u32"),
           ("min", "s32"), ("max", "u32"), ("max", "s32"), ("min", "u64"), ("max", "s64"), ("exch", "b32"),
           ("exch", "b64"), ("cas", "b32"), ("cas", "b64")]  # fmt: skip
CODES = {"u32": "I", "s32": "i", "b32": "I", "u64": "Q", "s64": "q", "b64": "Q", "f32": "f", "f64": "d"}


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("name", "t"), ATOMICS, ids=[".".join(a) for a in ATOMICS])
@settings(max_examples=5, phases=[Phase.explicit, Phase.generate])  # as drawn: 40 threads say little when shrunk
@given(st.data())
def test_atomics_happen_thread_after_thread_and_return_what_they_found(space, name, t, data):
    size, code, threads, places = int(t[1:]) // 8, CODES[t], 40, 4
    low = 0 if t[0] in "ub" else -50
    values = [data.draw(st.lists(st.integers(low, 50), min_size=threads, max_size=threads)) for _ in range(2)]
    values = [[v % 3 for v in column] for column in values] if name == "cas" else values
    where = data.draw(st.lists(st.integers(0, places - 1), min_size=threads, max_size=threads))
    begin = data.draw(st.lists(st.integers(max(low, -3), 3), min_size=places, max_size=places))
    kind = t if t[0] == "f" else f"b{8 * size}"
    prefix = REGISTERS[kind]
    a, b, old = (f"{prefix}{n}" for n in (30, 31, 32))
    operands = f"{a}, {b}" if name == "cas" else a
    lines = [*load(0, a, kind, size), *load(1, b, kind, size), *load(2, "%r1"), *load(3, f"{prefix}33", kind, size,
             "%r1"), f"mad.wide.u32 %d1, %r1, {size}, %p3;", "mov.u32 %r2, tile;", f"mad.lo.u32 %r3, %r1, {size}, %r2;",
             f"st.shared.{kind} [%r3], {prefix}33;", "bar.sync 0;",
             f"atom.{space}.{name}.{t} {old}, [{'%d1' if space == 'global' else '%r3'}], {operands};", "bar.sync 0;",
             *([f"ld.shared.{kind} {prefix}33, [%r3];", f"st.global.{kind} [%d1], {prefix}33;"]
               if space == "shared" else []), *store(4, old, kind, size)]  # fmt: skip
    packed = [struct.pack(f"<{len(v)}{c}", *v) for v, c in zip((*values, where, begin), (code, code, "I", code))]  # noqa: B905
    arrays = [*map(array, packed), array(bytes(size * threads))]
    text = text_of(lines, 5, f".shared .align 8 .b8 tile[{places * size}];")
    assert not found(launch(text, 1, threads, arrays))
    memory, olds = list(begin), []
    for n in range(threads):
        olds.append(memory[where[n]])
        given_ = (values[0][n], values[1][n]) if name == "cas" else (values[0][n],)
        memory[where[n]] = OPERATIONS[name](memory[where[n]], *given_)
    wrap = (lambda x: x % (1 << 8 * size)) if t[0] in "ub" else lambda x: x
    assert arrays[4].words.tobytes() == struct.pack(f"<{threads}{code}", *map(wrap, olds))
    assert arrays[3].words.tobytes()[: size * places] == struct.pack(f"<{places}{code}", *map(wrap, memory))


def test_reductions_and_atomics_without_a_result():
    lines = ["red.global.add.u32 [%p0+4], %i;", "atom.global.max.u32 _, [%p0], %i;"]
    arrays = [numbers([0, 0])]
    result = launch(text_of(lines, 1), 300, 40, arrays)
    assert arrays[0].words.tolist() == [11999, sum(range(12000)) & MASK]
    assert list(result.counts.bytes.values()) == [48000, 48000]
    assert result.counts.traffic(["x"])["x"].add == 2 * 4 * 12000
