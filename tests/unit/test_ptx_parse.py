"""PTX text to kernels, and what the text tells before it runs."""

import pytest

from ioaware.errors import InputError
from ioaware_kernels import nvrtc
from ioaware_kernels.ptx.analyse import defined, live_after, provenance, used
from ioaware_kernels.ptx.parse import (
    Address,
    Immediate,
    Param,
    Register,
    SharedArray,
    Symbol,
    parse,
)
from tests.compiler import needs_nvrtc

HEAD = ".version 8.2\n.target sm_80\n.address_size 64\n\n"


def kernel(body, params=".param .u64 p", head=HEAD):
    return parse(f"{head}.visible .entry k({params})\n{{\n{body}\n}}\n")["k"]


def instruction(body):
    (found,) = kernel(body).instructions()
    return found


# Kernels and parameters


def test_all_kernels_of_a_text_and_nothing_else_of_it():
    text = HEAD + (
        "// .entry not_this()\n/* .entry nor_this() {\n } */\n"
        ".global .align 8 .u64 table = 1;\n.global .align 8 .b8 bytes[8] = {1};\n"
        ".visible .entry one()\n{\nret;\n}\n"
        ".entry $two(\n\t.param .u32 $two_param_0\n)\n.maxntid 128, 1, 1\n.minnctapersm 2\n{\n\tret;\n}\n"
        '\t.file\t1 "k.cu"\n\t.section .debug_str {\n.b8 107,0\n}\n'
    )
    assert {name: k.params for name, k in parse(text).items()} == {
        "one": [],
        "$two": [Param("$two_param_0", "u32", 4)],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".param .u64 a", Param("a", "u64", 8)),
        (".param .f32 a", Param("a", "f32", 4)),
        (".param .u8 a", Param("a", "u8", 1)),
        (".param .b16 a", Param("a", "b16", 2)),
        (".param .align 8 .b8 a[72]", Param("a", "b8", 72)),
        (".param .align 16 .b32 a[4]", Param("a", "b32", 16)),
        (".param .u64 .ptr .global .align 4 a", Param("a", "u64", 8)),
        (".param .u64 .ptr a", Param("a", "u64", 8)),
    ],
)
def test_parameters(text, expected):
    assert kernel("ret;", f"\n\t{text},\n\t.param .s32 last\n").params == [expected, Param("last", "s32", 4)]


def test_registers_by_number_or_by_name():
    k = kernel(".reg .pred %p<3>;\n.reg .b32 %r<4>;\n.reg .b64 %rd<2>;\n.reg .f32 %x, %y1;\nret;")
    names = ("%p2", "%r3", "%rd1", "%x", "%y1")
    assert [k.type_of(n) for n in names] == ["pred", "b32", "b64", "f32", "f32"]


# Shared memory


def test_shared_arrays_lie_one_after_another_aligned_and_the_dynamic_one_behind():
    declared = (
        ".extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 outside[6];\n"
        ".shared .align 4 .b8 of_another_kernel[400];\n"
    )
    k = kernel(
        ".shared .align 8 .b8 inside[24];\n.shared .f64 one;\n.shared .align 16 .f32 last[3];\n"
        "mov.u32 %r1, outside;\nmov.u32 %r1, inside;\nmov.u32 %r1, one;\nmov.u32 %r1, last;\nmov.u32 %r1, dynamic;",
        head=HEAD + declared,
    )
    assert k.shared == {
        "outside": SharedArray(0, 6),
        "inside": SharedArray(8, 24),
        "one": SharedArray(32, 8),
        "last": SharedArray(48, 12),
        "dynamic": SharedArray(64, None),
    }
    assert k.static_shared_bytes == 64  # the dynamic array begins there


def test_without_shared_arrays_there_is_no_shared_memory():
    k = kernel("mov.u32 %r1, dynamic;", head=HEAD + ".extern .shared .align 16 .b8 dynamic[];\n")
    assert (k.shared, k.static_shared_bytes) == ({"dynamic": SharedArray(0, None)}, 0)


@pytest.mark.parametrize("name", ["tile", "$tile", "_ZZ1kE4tile"])
def test_the_address_of_a_shared_array_is_a_symbol_also_under_a_mangled_name(name):
    k = kernel(f".shared .align 4 .b8 {name}[16];\nmov.u64 %rd1, {name};\nld.shared.f32 %f1, [{name}+4];")
    move, load = k.instructions()
    assert move.operands[1] == Symbol(name)
    assert load.operands[1] == Address(Symbol(name), 4)


# Instructions


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        ("mov.u32 %r1, %tid.x", (Register("%r1"), Register("%tid.x"))),
        ("mov.f32 %f1, 0f3F800000", (Register("%f1"), Immediate("0f3F800000"))),
        ("add.s32 %r1, %r2, -1", (Register("%r1"), Register("%r2"), Immediate("-1"))),
        ("ld.global.f32 %f1, [%rd1]", (Register("%f1"), Address(Register("%rd1"), 0))),
        ("ld.global.f32 %f1, [%rd1+-16]", (Register("%f1"), Address(Register("%rd1"), -16))),
        ("ld.global.f32 %f1, [ %rd1 + 0x10 ]", (Register("%f1"), Address(Register("%rd1"), 16))),
        ("ld.param.u64 %rd1, [k_param_0+8]", (Register("%rd1"), Address(Symbol("k_param_0"), 8))),
        ("ld.shared.u32 %r1, [64]", (Register("%r1"), Address(Immediate("64"), 0))),
        ("st.v2.f32 [%rd1+8], {%f1, %f2}", (Address(Register("%rd1"), 8), (Register("%f1"), Register("%f2")))),
        ("setp.lt.and.s32 %p1|%p2, %r1, 3, !%p3",
         ((Register("%p1"), Register("%p2")), Register("%r1"), Immediate("3"), Register("%p3", negated=True))),
        ("atom.add.f32 _, [%rd1], %f1", (Register("_"), Address(Register("%rd1"), 0), Register("%f1"))),
        ("bra.uni $L__BB0_2", (Symbol("$L__BB0_2"),)),
        ("bar.sync \t0", (Immediate("0"),)),
    ],
)  # fmt: skip
def test_operands(text, operands):
    if text.startswith("bra"):
        text = "$L__BB0_2:\n" + text
    found = instruction(text + ";")
    assert found.operands == operands
    assert found.guard is None


@pytest.mark.parametrize(("text", "guard"), [("@%p1", Register("%p1")), ("@!%p1", Register("%p1", negated=True))])
def test_guards(text, guard):
    found = instruction(f"{text} add.rn.ftz.f32 \t%f1,%f2,\n\t%f3;")
    assert (found.guard, found.opcode, found.base) == (guard, "add.rn.ftz.f32", "add")
    assert found.text == f"{text} add.rn.ftz.f32 %f1,%f2, %f3"
    assert found.has("ftz", "sat")
    assert not found.has("sat")


@pytest.mark.parametrize(
    ("text", "size"),
    [("ld.global.u8 %r1", 1), ("ld.global.nc.f32 %f1", 4), ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}", 16),
     ("ld.shared.v2.b64 {%rd1, %rd2}", 16), ("ld.global.v2.u8 {%r1, %r2}", 2)],
)  # fmt: skip
def test_bytes_per_lane(text, size):
    assert instruction(f"{text}, [%rd1];").lane_bytes == size


# Lines


def test_lines_of_the_text_and_of_the_source():
    text = HEAD + (
        ".visible .entry k()\n{\n"  # lines 5 and 6
        "\t.reg .b32 %r<9>;\n"
        "\tmov.u32 %r1, 1; // a comment; with semicolons {\n"
        "\t.loc\t1 12 5\n"
        "\tmov.u32 %r2, 2; mov.u32 %r3, 3;\n\n"
        "$L: mov.u32\n\t\t%r4, 4;\n"
        "/* three\n   lines\n   of comment */\n"
        "\t.loc\t1 7 9, function_name $L__info_string0, inlined_at 1 12 5\n"
        "\tmov.u32 %r5, 5;\n"
        "\t.loc\t1 0 9\n"  # 0: no line of the source, the one before goes on
        "\tmov.u32 %r6, 6;\n}\n"
    )
    found = [(i.line, i.source) for i in parse(text)["k"].instructions()]
    assert found == [(8, 0), (10, 12), (10, 12), (12, 12), (18, 7), (20, 7)]
    lines = text.split("\n")
    for i in parse(text)["k"].instructions():
        assert i.text.split()[0] in lines[i.line - 1]


# Inline assembly


def test_registers_of_inline_assembly_are_those_of_their_scope():
    k = kernel(
        ".reg .b32 %r<9>;\n"
        "{\n.reg .b32 t;\nmov.u32 t, %tid.x;\nadd.u32 %r1, t, 1;\n}\n"
        "{ .reg.f32 t, u;\nmov.b32 t, %r1;\n{ .reg .pred t;\nsetp.eq.u32 t, %r1, 0;\n@t mov.b32 u, %r1;\n}\n"
        "mov.b32 %r2, t; }\n"
    )
    first, add, second, compare, guarded, last = k.instructions()
    names = [first.operands[0], second.operands[0], compare.operands[0]]
    assert [k.type_of(r.name) for r in names] == ["b32", "f32", "pred"]
    assert len(set(names)) == 3
    assert add.operands[1] == names[0]
    assert guarded.guard == names[2]
    assert last.operands[1] == names[1]
    assert not any(r.name in ("%t", "t") for r in names)


@pytest.mark.parametrize("name", ["t", "%t", "tid", "%tid", "laneid_of_warp"])
def test_a_register_of_inline_assembly_is_one_whatever_its_name(name):
    k = kernel(f".reg .b32 %r<3>;\n{{ .reg .u32 {name}; mov.u32 {name}, %tid.x;\nadd.u32 %r1, {name}, %laneid; }}")
    move, add = k.instructions()
    assert len(defined(move)) == 1
    assert used(move) == ()  # special registers never change
    assert used(add) == defined(move)


# Blocks


LOOP = """
.reg .pred %p<3>; .reg .b32 %r<6>; .reg .b64 %rd<3>;
    ld.param.u32 %r1, [p];
    mov.u32 %r2, 0;
    mov.u32 %r3, 0;
    setp.eq.s32 %p1, %r1, 0;
    @%p1 bra $END;
$LOOP:
    add.s32 %r4, %r3, %r2;
    mov.u32 %r3, %r4;
    add.s32 %r2, %r2, 1;
    setp.lt.s32 %p2, %r2, %r1;
    @%p2 bra $LOOP;
    bar.sync 0;
    mov.u32 %r5, 7;
$END:
    st.shared.u32 [0], %r3;
    ret;
"""


def test_blocks_end_at_jumps_and_labels_and_a_barrier_has_its_own():
    blocks = kernel(LOOP).blocks
    assert [b.label for b in blocks if b.instructions] == ["", "$LOOP", "", "", "$END"]
    blocks = [b for b in blocks if b.instructions]
    assert [len(b.instructions) for b in blocks] == [5, 5, 1, 1, 2]
    assert [b.is_barrier for b in blocks] == [False, False, True, False, False]
    assert [b.last.base for b in blocks] == ["bra", "bra", "bar", "mov", "ret"]


def test_successors_are_taken_then_not_taken():
    blocks = kernel(LOOP).blocks
    at = {id(b): n for n, b in enumerate(blocks)}
    begin, loop, barrier, move, end = (at[id(b)] for b in blocks if b.instructions)
    found = [blocks[n].successors for n in (begin, loop, barrier, move, end)]
    assert found == [(end, loop), (loop, barrier), (move,), (end,), ()]


@pytest.mark.parametrize(
    ("text", "barrier"),
    [("bar.sync 0", True), ("barrier.sync 0", True), ("barrier.sync.aligned 0", True), ("bar.warp.sync -1", False)],
)
def test_which_instruction_is_a_barrier_of_the_thread_block(text, barrier):
    k = kernel(f"mov.u32 %r1, 1;\n{text};\nmov.u32 %r2, 2;")
    assert [b.is_barrier for b in k.blocks if b.instructions] == ([False, True, False] if barrier else [False])


def test_a_jump_backwards_over_labels_without_instructions():
    k = kernel("$A:\n$B:\nadd.s32 %r1, %r1, 1;\nbra.uni $A;")
    begin = next(n for n, b in enumerate(k.blocks) if b.label == "$A")
    last = next(b for b in k.blocks if b.last is not None)
    assert last.successors == (begin,)
    assert k.blocks[begin].successors == (begin + 1,)


# What is alive


def test_live_registers_of_a_loop():
    k = kernel(LOOP)
    live = {b.label or b.last.base: after for b, after in zip(k.blocks, live_after(k), strict=True) if b.instructions}
    assert live == {
        "bra": {"%r1", "%r2", "%r3"},  # the loop's bound, its counter, its sum
        "$LOOP": {"%r1", "%r2", "%r3"},
        "bar": {"%r3"},
        "mov": {"%r3"},
        "$END": set(),
    }


@pytest.mark.parametrize(
    ("text", "writes", "reads"),
    [
        ("add.s32 %r1, %r2, %r3", {"%r1"}, {"%r2", "%r3"}),
        ("@%p1 add.s32 %r1, %r2, 1", {"%r1"}, {"%r1", "%r2", "%p1"}),  # where the guard is false the old value stays
        ("setp.lt.and.s32 %p1|%p2, %r1, %r2, !%p3", {"%p1", "%p2"}, {"%r1", "%r2", "%p3"}),
        ("ld.global.v2.f32 {%f1, %f2}, [%rd1+8]", {"%f1", "%f2"}, {"%rd1"}),
        ("st.global.v2.f32 [%rd1], {%f1, %f2}", set(), {"%rd1", "%f1", "%f2"}),
        ("atom.global.add.f32 %f1, [%rd1], %f2", {"%f1"}, {"%rd1", "%f2"}),
        ("red.global.add.f32 [%rd1], %f2", set(), {"%rd1", "%f2"}),
        ("shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1", {"%r1", "%p1"}, {"%r2"}),
        ("bar.warp.sync %r1", set(), {"%r1"}),
        ("mov.u32 %r1, %ctaid.x", {"%r1"}, set()),
        ("ret", set(), set()),
    ],
)
def test_what_an_instruction_reads_and_writes(text, writes, reads):
    found = instruction(text + ";")
    assert (set(defined(found)), set(used(found))) == (writes, reads)


# Where addresses come from


def test_an_address_comes_from_the_pointer_of_a_parameter_through_any_arithmetic():
    k = kernel(
        "ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nld.param.u32 %r1, [in+8];\nld.param.u32 %r2, [n];\n"
        "cvta.to.global.u64 %rd3, %rd1;\nmul.wide.s32 %rd4, %r1, %r2;\nadd.s64 %rd5, %rd3, %rd4;\n"
        "$LOOP:\nld.global.f32 %f1, [%rd5+4];\nadd.s64 %rd5, %rd5, 64;\n"
        "mov.b64 %rd6, %rd2;\nmad.lo.s64 %rd7, %rd4, 4, %rd6;\nst.global.f32 [%rd7], %f1;\n"
        "setp.ne.s64 %p1, %rd5, %rd7;\nselp.b64 %rd8, %rd5, %rd7, %p1;\nld.global.u64 %rd9, [%rd8];\n"
        "ld.global.f32 %f2, [%rd9];\nst.shared.f32 [%r1], %f2;\nred.global.add.f32 [%rd2], %f2;\n@%p1 bra $LOOP;",
        params=".param .align 8 .b8 in[72], .param .align 8 .b8 out[72], .param .u32 n",
    )
    assert [(i.text.partition(" ")[0], set(names)) for i, names in provenance(k).items()] == [
        ("ld.global.f32", {"in"}),
        ("st.global.f32", {"out"}),
        ("ld.global.u64", {"in", "out"}),
        ("ld.global.f32", set()),  # an address that was itself loaded
        ("st.shared.f32", set()),
        ("red.global.add.f32", {"out"}),
    ]


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "no kernel in the PTX: it has no `.entry`"),
        (HEAD + ".entry k()\n{\nret;\n{\n}\n", "PTX line 10: the text ends inside a kernel"),
        (HEAD + ".entry k()\n{\nmov.u32 %r1, 1\n}\n", "PTX line 7: 'mov.u32 %r1, 1' is not PTX"),
        (HEAD + "\n.func (.param .b32 r) f()\n;\n.entry k()\n{\nret;\n}\n",
         "PTX line 6: a function is called, and calls are not run: declare device functions __forceinline__, "
         "leave printf out"),
        (HEAD + ".entry k()\n{\n@%p1 bra $NOWHERE;\nret;\n}\n", "PTX line 7: .*NOWHERE"),
    ],
    ids=["no kernel", "no end", "no semicolon", "a function", "no such label"],
)  # fmt: skip
def test_refusals(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        parse(text)


# What the compiler really writes


SOURCE = """
struct Tensor { float* data; long strides[2]; };
extern __shared__ float dynamic[];
extern "C" __global__ void k(Tensor a, const Tensor b, int n) {
  __shared__ float tile[33];
  unsigned first; asm volatile("{ .reg .u32 tid; mov.u32 tid, %%tid.x; shl.b32 %0, tid, 1; }" : "=r"(first));
  tile[threadIdx.x] = a.data[first * a.strides[0]];
  dynamic[threadIdx.x] = 1.0f;
  __syncthreads();
  for (int i = 0; i < n; i++) b.data[i * b.strides[1]] += tile[threadIdx.x ^ 1] + dynamic[i];
}
"""


@needs_nvrtc
def test_what_the_compiler_writes_is_read():
    text = nvrtc.compile(SOURCE, "k.cu", ["--gpu-architecture=compute_80", "-lineinfo"]).code.decode()
    k = parse(text)["k"]
    assert [(p.type, p.size) for p in k.params] == [("b8", 24), ("b8", 24), ("u32", 4)]
    assert sorted((a.offset, a.size) for a in k.shared.values()) == [(0, 132), (144, None)]
    assert {i.source for i in k.instructions()} <= set(range(len(SOURCE.split("\n"))))
    assert sum(b.is_barrier for b in k.blocks) == 1
    origins = {(i.base, tuple(names)) for i, names in provenance(k).items() if i.has("global")}
    assert origins == {("ld", ("k_param_0",)), ("ld", ("k_param_1",)), ("st", ("k_param_1",))}
