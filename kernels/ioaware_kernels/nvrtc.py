"""CUDA C++ to PTX or machine code through NVRTC, a shared library called with ctypes: no GPU, driver or cupy needed.

`pip install 'ioaware[nvrtc]'` brings it, a CUDA toolkit has it; there is none for macOS. What comes out depends on the
source, the options and NVRTC's version only: the folder in which the compiler ran is taken out of the PTX.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ioaware.errors import InputError, MissingExtra

WHEELS = (  # folders of pip's packages for CUDA 12 and CUDA 13, Linux and Windows
    "nvidia/cuda_nvrtc/lib",
    "nvidia/cuda_nvrtc/bin",
    "nvidia/cu13/lib",
    "nvidia/cu13/bin/x86_64",
)
TOOLKIT = ("lib64", "lib", "bin", "bin/x64")
FILES = ("libnvrtc.so.*", "nvrtc64_*_0.dll")
OK = 0


class CompileError(InputError):
    """A source or an option that NVRTC refuses; `log` is everything that the compiler said."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Compiled:
    """One compiled source: PTX for `compute_80` and the like, a cubin (an ELF file) for `sm_80`; and the log."""

    code: bytes
    log: str


@dataclass(frozen=True)
class Resources:
    """What one kernel takes of a multiprocessor, as the assembler reports it."""

    registers: int  # per thread
    spill_bytes: int  # registers stored to memory and loaded back, in the functions it calls too
    stack_bytes: int  # per thread: spilled registers, and arrays that the compiler could not keep in registers
    shared_bytes: int  # static; dynamic shared memory is asked for at the launch


def compile(source: str, name: str, options: Sequence[str] = (), *, where: Path | None = None) -> Compiled:
    """Compiles CUDA C++; `name` is what messages and line tables call the source.

    `where` is a folder into which pip installed NVRTC (`--target`); without it the usual places are searched.
    Raises CompileError (an InputError) with the compiler's first error, MissingExtra where there is no NVRTC.
    """
    library = _library(where)
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = library.nvrtcCompileProgram(program, len(options), arguments)
        log = _output(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status != OK:
            raise CompileError(_sentence(name, log or _reason(library, status), where), log)
        cubin = _output(library, program, "CUBIN")  # empty for a virtual architecture
        return Compiled(cubin or _without_folders(_output(library, program, "PTX").rstrip(b"\0")), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def version(*, where: Path | None = None) -> tuple[int, int]:
    """NVRTC's version, (12, 2) for example. Raises MissingExtra."""
    library, major, minor = _library(where), ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def release(*, where: Path | None = None) -> str:
    """NVRTC's version with its build, '12.2.140' for example: what decides every byte. Raises MissingExtra."""
    header = compile("", "version.cu", where=where).code.decode()
    found = re.search(r"^// Cuda compilation tools, release .*, V(\S+)$", header, re.MULTILINE)
    return found[1] if found else "unknown"


def resources(log: str) -> dict[str, Resources]:
    """The entries in a log of `--ptxas-options=-v`, each with its registers, spilled bytes and static shared bytes."""
    _, *parts = re.split(r"Compiling entry function '(\S+)' for ", log)
    return {entry: _resources(text) for entry, text in zip(parts[::2], parts[1::2], strict=True)}


def warnings(log: str) -> list[str]:
    """The lines of a log with a warning or an assembler's performance advice such as (C7510)."""
    return [line.strip() for line in log.splitlines() if re.search(r"warning *(#\S+)?: |\(C\d{4}\)", line)]


def _resources(text: str) -> Resources:
    def total(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, text)))

    return Resources(
        registers=total(r"Used (\d+) registers"),
        spill_bytes=total(r"(\d+) bytes spill (?:stores|loads)"),
        stack_bytes=total(r"(\d+) bytes stack frame"),
        shared_bytes=total(r"(\d+) bytes smem"),
    )


def _without_folders(ptx: bytes) -> bytes:
    """Line tables name the source with the folder in which the compiler ran: the name alone is kept."""
    return re.sub(rb'^(\s*\.file\s+\d+\s+")[^"\n]*[/\\]', rb"\1", ptx, flags=re.MULTILINE)


def _sentence(name: str, log: str, where: Path | None) -> str:
    """The first error of a log, with its line where there is one."""
    found = re.search(r"^(?:.*\((\d+)\): )?.*?(?:error|fatal)(?: #\S+)? *: (.*)$", log, re.MULTILINE)
    line, text = found.groups() if found else (None, log.strip().partition("\n")[0])
    what = f"line {line}: {text}" if line else text
    major, minor = version(where=where)
    return f"{name} does not compile with NVRTC {major}.{minor}: {what}"


@cache
def _library(where: Path | None) -> ctypes.CDLL:
    for path in _candidates(where):
        if sys.platform == "win32" and os.path.isabs(path):  # NVRTC loads a second library from its folder by name
            os.add_dll_directory(os.path.dirname(path))
            os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(path)))
        with suppress(OSError):  # not for this machine: the next one may be
            return _declared(ctypes.CDLL(path))
    raise MissingExtra("compiling a kernel (Linux and Windows only)", "nvidia-cuda-nvrtc", "nvrtc")


def _candidates(where: Path | None) -> Iterator[str]:
    """Where NVRTC may be: the packages that pip installed, a toolkit, the loader's own path."""
    for entry in [where] if where else map(Path, sys.path):
        yield from _files(entry, WHEELS)
    if where is None:
        for root in filter(None, map(os.environ.get, ("CUDA_PATH", "CUDA_HOME"))):
            yield from _files(Path(root), TOOLKIT)
        if found := find_library("nvrtc"):
            yield found


def _files(root: Path, folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        for pattern in FILES:
            yield from map(str, sorted((root / folder).glob(pattern)))


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """What ctypes cannot guess: handles are pointers, lengths are size_t, and one function returns a text."""
    handle, text = ctypes.c_void_p, ctypes.c_char_p
    library.nvrtcCreateProgram.argtypes = [ctypes.POINTER(handle), text, text, ctypes.c_int, handle, handle]
    library.nvrtcCompileProgram.argtypes = [handle, ctypes.c_int, ctypes.POINTER(text)]
    for what in ("ProgramLog", "PTX", "CUBIN"):
        getattr(library, f"nvrtcGet{what}Size").argtypes = [handle, ctypes.POINTER(ctypes.c_size_t)]
        getattr(library, f"nvrtcGet{what}").argtypes = [handle, text]
    library.nvrtcGetErrorString.restype = text
    return library


def _output(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    if size.value:
        _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _reason(library: ctypes.CDLL, status: int) -> str:
    text: bytes = library.nvrtcGetErrorString(status)
    return text.decode()


def _check(library: ctypes.CDLL, status: int) -> None:
    if status != OK:
        raise InputError(f"NVRTC refused a call: {_reason(library, status)}")
