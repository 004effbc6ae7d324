"""Kernels in machine code: made by LLVM once, then kept on disk by content.

The key is everything that the code depends on: the PTX, the text of this package, llvmlite, the processor. A file that
is damaged is made again, a folder that cannot be written to only costs time.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from .. import grid
from ..parse import Kernel
from .body import Body
from .control import Control
from .emit import FOOTER
from .thread_blocks import thread_blocks

OPTIMIZE = 1  # of machine code, of 3. LLVM's passes over the text before would take twice as long, and save a fifth
MOST_FILES = 200  # kept, the newest


class Code:
    """A kernel in machine code."""

    def __init__(self, machine_code: bytes) -> None:
        self._engine: Any = _engine()
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
        self._engine.finalize_object()

    @cached_property
    def run(self) -> Any:
        """`run(state, frames, first, last, warps)`; Python's lock is free meanwhile."""
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        return ctypes.CFUNCTYPE(number, pointer, pointer, number, number, number)(
            self._engine.get_function_address("run")
        )

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes that a warp needs."""
        return ctypes.c_int64.from_address(self._engine.get_global_value_address("frame_bytes")).value


def compiled(kernel: Kernel, identity: str) -> Code:
    """A kernel in machine code; `identity` is the PTX text and what else tells it from other kernels.

    Raises InputError for an opcode that is not run.
    """
    key = sha256("\0".join([identity, _versions()]).encode()).hexdigest()
    stored = _read(key)
    if stored is not None:
        return Code(stored)
    grid.compile_kernel(kernel)  # refuses what the grid refuses
    machine_code = _machine_code(text_of(kernel))
    _write(key, machine_code)
    return Code(machine_code)


def text_of(kernel: Kernel) -> str:
    """The LLVM IR of a kernel. Raises InputError for an opcode that is not run."""
    body = Body(kernel)
    control = Control(body)
    control.write()
    head = ["define internal i32 @warp(ptr noalias %frame, ptr noalias %state, i32 %resume) {", *control.begin()]
    lines = [*sorted(body.e.declared), *body.functions.values(), *head, *body.e.lines, "}"]
    return "\n".join(lines) + thread_blocks(len(kernel.blocks), control.frame_bytes) + FOOTER


# ------------------------------------------------------------------------------------------------ LLVM
def _machine() -> Any:
    """The processor that this is, with all that it can; an engine takes it for its own."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=f"{features},-prefer-256-bit" if "+avx512f" in features else features,
        opt=OPTIMIZE, reloc="pic", codemodel="large" if os.name == "nt" else "default",
    )  # fmt: skip


def _engine() -> Any:
    machine = _machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _machine_code(text: str) -> bytes:
    code: bytes = _machine().emit_object(llvm.parse_assembly(text))
    return code


# ------------------------------------------------------------------------------------------------ on disk
@lru_cache(1)
def _versions() -> str:
    """What the machine code depends on besides the kernel."""
    package = Path(__file__).parent.parent
    texts = [path.read_bytes() for path in sorted([*package.glob("*.py"), *package.glob("jit/*.py")])]
    processor = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    code = sha256(b"\0".join(texts)).hexdigest()
    return "\0".join([code, llvmlite.__version__, llvm.get_default_triple(), processor])


def folder() -> Path:
    """Where machine code is kept."""
    own = os.environ.get("IOAWARE_CACHE_DIR")
    cache = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ioaware"
    return cache / "jit"


def _read(key: str) -> bytes | None:
    """The machine code of a key; None where there is none, or it is damaged: the file begins with its checksum."""
    with suppress(OSError):
        path = folder() / f"{key}.o"
        stored = path.read_bytes()
        if stored[:32] == sha256(stored[32:]).digest():
            with suppress(zlib.error):
                code = zlib.decompress(stored[32:])
                os.utime(path)
                return code
    return None


def _write(key: str, machine_code: bytes) -> None:
    """All at once: another process sees the whole file or none."""
    packed = zlib.compress(machine_code, 1)
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder(), suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(sha256(packed).digest() + packed)
                file.flush()
                part.replace(folder() / f"{key}.o")
            finally:
                part.unlink(missing_ok=True)
        for path in _oldest():
            path.unlink(missing_ok=True)


def _oldest() -> Iterator[Path]:
    """The files beyond the newest ones."""
    yield from sorted(folder().glob("*.o"), key=lambda path: path.stat().st_mtime, reverse=True)[MOST_FILES:]
