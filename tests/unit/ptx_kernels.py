"""PTX kernels around a few lines under test, their arrays in memory, and launches of them by the executor."""

import struct

import numpy as np

from ioaware_kernels.ptx import grid
from ioaware_kernels.ptx.context import Options
from ioaware_kernels.ptx.global_memory import Buffer
from ioaware_kernels.ptx.parse import parse

WIDTH = {"pred": 8, "b8": 8, "u8": 8, "s8": 8, **{f"{kind}{bits}": bits for kind in "busf" for bits in (16, 32, 64)}}
REGISTER = {8: ("b16", "%rs"), 16: ("b16", "%rs"), 32: ("b32", "%r"), 64: ("b64", "%rd")}
REGISTERS = {"pred": "%q", "b16": "%h", "b32": "%r", "b64": "%d", "f32": "%f", "f64": "%e"}
MASK = (1 << 32) - 1


def text_of(lines, arrays, shared=""):
    """`%i` is the number of the thread in the grid, `%t` in its block; `%p0`, `%p1`, ... point to the arrays."""
    return "\n".join(
        [
            f".visible .entry k({', '.join(f'.param .u64 p{n}' for n in range(arrays))}) {{",
            *(f".reg .{t} {prefix}<40>;" for t, prefix in REGISTERS.items()),
            ".reg .b32 %i, %t, %n;", ".reg .b64 %at;", ".reg .b64 %p<9>;", shared,
            *(f"ld.param.u64 %p{n}, [p{n}];" for n in range(arrays)),
            "mov.u32 %t, %tid.x;", "mov.u32 %n, %ntid.x;", "mov.u32 %i, %ctaid.x;", "mad.lo.s32 %i, %i, %n, %t;",
            *lines, "ret;", "}",
        ]
    )  # fmt: skip


PROLOGUE = 4  # instructions before the lines, without the parameters


def load(n, register, t="u32", size=4, index="%i"):
    return [f"mul.wide.u32 %at, {index}, {size};", f"add.s64 %at, %p{n}, %at;", f"ld.global.{t} {register}, [%at];"]


def store(n, register, t="u32", size=4, index="%i"):
    return [*load(n, "", t, size, index)[:2], f"st.global.{t} [%at], {register};"]


def array(data, name="x"):
    words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), np.int32).copy()
    return Buffer(name, words, np.ones(len(words), np.uint8))


def numbers(values):
    return array(struct.pack(f"<{len(values)}I", *(v & MASK for v in values)))


def launch(text, blocks, threads, arrays, dynamic=0, **options):
    params = {f"p{n}": struct.pack("<Q", (n + 1) << 40) for n in range(len(arrays))}
    as_tuple = [(e,) if isinstance(e, int) else e for e in (blocks, threads)]
    return grid.launch(parse(text)["k"], *as_tuple, params, arrays, dynamic, options=Options(**options))


def run(lines, blocks, threads, *given_, shared="", dynamic=0, **options):
    """The unsigned numbers that the threads store in the last array, which begins as zeros; nothing may be found."""
    arrays = [*map(numbers, given_), numbers([0] * (blocks * threads))]
    result = launch(text_of(lines, len(arrays), shared), blocks, threads, arrays, dynamic, **options)
    assert [str(f) for f in result.findings] == []
    return arrays[-1].words.view(np.uint32).tolist()


def found(result):
    return [(f.what, f.instruction.text, f.first.block, f.first.thread, f.times) for f in result.findings]


# Kernels that declare their own registers


def register_type(t):
    return "pred" if t == "pred" else t if t in ("f32", "f64") else REGISTER[WIDTH[t]][0]


def kernel_text(registers, params, lines):
    """A kernel whose 32-bit %i is the number of the thread in the grid and whose %p0, %p1, ... are its parameters."""
    loads = "".join(f"ld.param.u64 %p{n}, [p{n}];\n" for n in range(params))
    return (
        f".visible .entry k({', '.join(f'.param .u64 p{n}' for n in range(params))})\n{{\n.reg .b32 %i;\n"
        ".reg .b32 %block;\n.reg .b32 %threads;\n.reg .b64 %at;\n.reg .b64 %p<9>;\n" + "".join(
            f".reg .{t} {name};\n" for name, t in registers) + loads +
        "mov.u32 %block, %ctaid.x;\nmov.u32 %threads, %ntid.x;\nmov.u32 %i, %tid.x;\n"
        "mad.lo.s32 %i, %block, %threads, %i;\n" + "\n".join(lines) + "\nret;\n}\n"
    )  # fmt: skip


def move(opcode, t, param, register, bytes_each):
    return [f"mul.wide.u32 %at, %i, {bytes_each};", f"add.s64 %at, %p{param}, %at;",
            f"ld.global.{t} {register}, [%at];" if opcode == "ld" else f"st.global.{t} [%at], {register};"]  # fmt: skip


def results(text, count, arrays, **more):
    """All threads of the text's kernel, 32 per block; the bytes of the last buffer."""
    params = {f"p{n}": struct.pack("<Q", (n + 1) << 40) for n in range(len(arrays))}
    grid.launch(parse(text)["k"], (-(-count // 32),), (32,), params, arrays, **more)
    return arrays[-1].words.tobytes()
