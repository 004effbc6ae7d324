"""The kernels' PTX as it is checked in: one file for each [[build]] of each table, and what they were made from.

    python -m ioaware_kernels.golden            compiles cuda/ into golden/, with the pinned NVRTC
    python -m ioaware_kernels.golden --check    compiles and compares, byte by byte

Whatever executes a kernel, on a GPU or not, takes its PTX from here: only these two commands need the compiler. The
manifest remembers the source and the options of each file, so that PTX of an older source is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ioaware.errors import InputError, IoawareError, VerificationError, refuse, unknown

from . import nvrtc

NVRTC = "12.2.140"  # its PTX ISA, 8.2, is read by every driver from 535 on; the extra `nvrtc` installs this one
OPTIONS = ("--gpu-architecture=compute_80", "--std=c++17", "-lineinfo")
COMMAND = "python -m ioaware_kernels.golden"
ROOT = Path(__file__).parent  # holds cuda/ and golden/
MANIFEST = "manifest.json"
FLOAT_BYTES = 4

Launch = Mapping[str, Any]  # a [[launch]] of a table


@dataclass(frozen=True)
class Build:
    """One [[build]] of cuda/KERNEL.toml: the constants that the compiler gets, and the launches they are for."""

    kernel: str
    constants: Mapping[str, int]
    launches: Sequence[Launch]

    @property
    def head_dim(self) -> int:
        """The largest head_dim that it serves."""
        return self.constants["HEAD_DIM"]

    @property
    def file(self) -> str:
        """The name of its PTX."""
        return f"{self.kernel}_d{self.head_dim}.ptx"

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options for its PTX."""
        return (*OPTIONS, *self.definitions)

    @property
    def definitions(self) -> tuple[str, ...]:
        """Its constants as compiler options, in the table's order."""
        return tuple(f"-D{name}={value}" for name, value in self.constants.items())

    def size(self, what: int | str) -> int | None:
        """A number or the value of a constant; None for what only a launch decides, such as kv_len."""
        return what if isinstance(what, int) else self.constants.get(what)

    def layout(self, launch: Launch) -> dict[str, Region]:
        """Where a launch's regions lie in dynamic shared memory."""
        regions: dict[str, Region] = {}
        offset: int | None = 0
        for region in launch.get("shared", ()):
            rows, columns = self.size(region["rows"]), self.size(region["columns"])
            size = None if rows is None or columns is None else rows * (columns + region.get("pad", 0)) * FLOAT_BYTES
            regions[region["name"]] = Region(offset, size)
            offset = None if offset is None or size is None else offset + size
        return regions


@dataclass(frozen=True)
class Region:
    """A piece of dynamic shared memory; None where a run-time size decides."""

    offset: int | None
    bytes: int | None


@dataclass(frozen=True)
class Entry:
    """One kernel function: its parameters with their sizes in bytes, and its dynamic shared memory."""

    parameters: Mapping[str, int]
    shared: Mapping[str, Region]


@dataclass(frozen=True)
class Record:
    """What the manifest knows about one file of PTX."""

    kernel: str
    head_dim: int
    source_sha256: str
    ptx_sha256: str
    options: tuple[str, ...]
    entries: Mapping[str, Entry]


def kernels(root: Path = ROOT) -> list[str]:
    """The names of the kernels: one table each."""
    return sorted(table.stem for table in (root / "cuda").glob("*.toml"))


def builds(root: Path = ROOT) -> list[Build]:
    """Every build of every kernel, in the tables' order."""
    return [build for kernel in kernels(root) for build in _builds(kernel, root)]


def find(kernel: str, head_dim: int, root: Path = ROOT) -> Build:
    """The smallest build of a kernel that serves a head_dim. Raises InputError: no such kernel, or none that large."""
    if kernel not in (known := kernels(root)):
        raise unknown("kernel", kernel, known, f"known: {', '.join(known)}")
    of_kernel = sorted(_builds(kernel, root), key=lambda build: build.head_dim)
    largest = of_kernel[-1].head_dim
    if not 1 <= head_dim <= largest:
        rule = f"the builds of {kernel} serve 1 to {largest}"
        raise refuse("head_dim", head_dim, rule, min(max(head_dim, 1), largest))
    return next(build for build in of_kernel if build.head_dim >= head_dim)


def load(kernel: str, head_dim: int, root: Path = ROOT) -> str:
    """The checked-in PTX of the smallest build that serves a head_dim.

    Raises InputError as `find`; VerificationError where the PTX is not that of the present source and table.
    """
    found = find(kernel, head_dim, root)
    known = record(kernel, head_dim, root)
    if found.file not in _present(root / "golden"):
        raise _stale(found, "the file is missing")
    ptx = _text(root / "golden" / found.file)
    if known.source_sha256 != _sha256(source(found, root)):
        raise _stale(found, f"{kernel}.cu has changed since it was compiled")
    if known.options != found.options:
        raise _stale(found, f"{kernel}.toml has changed since it was compiled")
    if known.ptx_sha256 != _sha256(ptx):
        raise _stale(found, "it has been changed by hand")
    return ptx


def record(kernel: str, head_dim: int, root: Path = ROOT) -> Record:
    """The manifest's record of the PTX that `load` gives.

    Raises InputError as `find`; VerificationError where there is none.
    """
    found = find(kernel, head_dim, root)
    try:
        return _record(json.loads(_text(root / "golden" / MANIFEST))["files"][found.file])
    except (FileNotFoundError, KeyError):
        raise _stale(found, "the manifest does not know it") from None


def source(build: Build, root: Path = ROOT) -> str:
    """A build's CUDA C++. Raises InputError: there is none beside the table."""
    path = root / "cuda" / f"{build.kernel}.cu"
    if not path.exists():
        raise InputError(f"{build.kernel}.toml has no {path.name} beside it; write it or take the table away")
    return _text(path)


def make(build: Build, root: Path = ROOT) -> tuple[str, Record]:
    """Compiles a build: its PTX and what the manifest says of it. Raises InputError, MissingExtra."""
    text = source(build, root)
    ptx = nvrtc.compile(text, f"{build.kernel}.cu", build.options).code.decode()
    hashes = {"source_sha256": _sha256(text), "ptx_sha256": _sha256(ptx)}
    return ptx, Record(build.kernel, build.head_dim, **hashes, options=build.options, entries=_entries(build, ptx))


def generate(root: Path = ROOT) -> dict[str, str]:
    """What golden/ must hold, by file name.

    Raises InputError: another NVRTC, or a kernel that breaks a rule; MissingExtra: no NVRTC.
    """
    if (found := nvrtc.release()) != NVRTC:
        raise InputError(f"golden PTX comes from NVRTC {NVRTC}, this is {found}; pip install 'ioaware[nvrtc]'")
    files: dict[str, str] = {}
    records: dict[str, object] = {}
    for build in builds(root):
        if build.file in files:
            raise InputError(f"{build.kernel}.toml has two builds with HEAD_DIM={build.head_dim}; keep one of them")
        files[build.file], made = make(build, root)
        records[build.file] = asdict(made)
    return files | {MANIFEST: json.dumps({"nvrtc": NVRTC, "files": records}, indent=1) + "\n"}


def write(root: Path = ROOT) -> list[str]:
    """Compiles everything into golden/ and takes away what is not made any more. Raises as `generate`."""
    files, folder = generate(root), root / "golden"
    folder.mkdir(exist_ok=True)
    for name in _present(folder) - files.keys():
        (folder / name).unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return sorted(files)


def check(root: Path = ROOT) -> list[str]:
    """Compiles everything and compares it with golden/.

    Raises VerificationError naming the first file that differs; InputError, MissingExtra as `generate`.
    """
    files, folder = generate(root), root / "golden"
    for name in sorted(files.keys() | _present(folder), key=lambda name: (name == MANIFEST, name)):
        if name not in files or name not in _present(folder) or _text(folder / name) != files[name]:
            raise VerificationError(f"golden/{name} is not what cuda/ compiles to; {COMMAND} writes it anew")
    return sorted(files)


def main(arguments: Sequence[str]) -> int:
    """The command line: an exit code."""
    if set(arguments) - {"--check"}:
        print(f"usage: {COMMAND} [--check]", file=sys.stderr)
        return InputError.exit_code
    try:
        done = check() if arguments else write()
    except IoawareError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    print(f"{len(done)} files {'compared' if arguments else 'written'}, NVRTC {NVRTC}")
    return 0


def _builds(kernel: str, root: Path) -> list[Build]:
    content = tomllib.loads(_text(root / "cuda" / f"{kernel}.toml"))
    return [Build(kernel, constants, content["launch"]) for constants in content["build"]]


def _entries(build: Build, ptx: str) -> dict[str, Entry]:
    """The functions that the launches name, which the PTX must have with as many parameters."""
    sizes = _parameter_bytes(ptx)
    entries: dict[str, Entry] = {}
    for launch in build.launches:
        name, parameters = launch["entry"], launch["parameters"]
        if len(parameters) != len(sizes.get(name, ())):
            raise InputError(f"{build.kernel}.toml: {name} has {len(parameters)} parameters, but {_has(sizes, name)}")
        entry = Entry(dict(zip(parameters, sizes[name], strict=True)), build.layout(launch))
        if entries.setdefault(name, entry) != entry:
            raise InputError(f"{build.kernel}.toml: two launches of {name} differ; give each an entry of its own")
    return entries


def _has(sizes: Mapping[str, Sequence[int]], name: str) -> str:
    return f"{len(sizes[name])} in the source" if name in sizes else f"the source defines {', '.join(sizes)}"


def _parameter_bytes(ptx: str) -> dict[str, list[int]]:
    """For each function of the PTX, the sizes of its parameters: `.param .u32 x` has 4, `.param .b8 x[32]` has 32."""
    entries = re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
    each = re.compile(r"\.param (?:\.align \d+ )?\.[a-z](\d+) \w+(?:\[(\d+)\])?")
    return {name: [int(bits) // 8 * int(n or 1) for bits, n in each.findall(text)] for name, text in entries}


def _record(content: Mapping[str, Any]) -> Record:
    entries = {
        name: Entry(entry["parameters"], {region: Region(**where) for region, where in entry["shared"].items()})
        for name, entry in content["entries"].items()
    }
    return Record(**{**content, "options": tuple(content["options"]), "entries": entries})


def _stale(build: Build, reason: str) -> VerificationError:
    return VerificationError(f"golden/{build.file} does not hold: {reason}; {COMMAND} compiles it anew")


def _present(folder: Path) -> set[str]:
    return {file.name for pattern in ("*.ptx", MANIFEST) for file in folder.glob(pattern)}


def _text(path: Path) -> str:
    """A file's text with \\n at the ends of lines, as on the machine that wrote it."""
    return path.read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
