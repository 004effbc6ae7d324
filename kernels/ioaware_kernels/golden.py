"""The kernels' PTX as it is checked in: one file for each [[build]] of each kernel, and what they were made from.

    python -m ioaware_kernels.golden            compiles cuda/ into golden/, with the pinned NVRTC
    python -m ioaware_kernels.golden --check    compiles and compares, byte by byte

Whatever executes a kernel, on a GPU or not, takes its PTX from here: only these two commands need the compiler. The
manifest remembers the source and the options of each file, so that PTX of an older source is refused.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ioaware.dtypes import ITEMSIZE
from ioaware.errors import InputError, IoawareError, VerificationError

from . import nvrtc
from .implementation import Implementation, names, read, region_bytes
from .ptx.parse import parse

NVRTC = "12.2.140"  # its PTX ISA, 8.2, is read by every driver from 535 on; the extra `nvrtc` installs this one
OPTIONS = ("--gpu-architecture=compute_80", "--std=c++17", "-lineinfo")
COMMAND = "python -m ioaware_kernels.golden"
ROOT = Path(__file__).parent  # holds cuda/ and golden/
MANIFEST = "manifest.json"


class Build(NamedTuple):
    """One [[build]] of a kernel in one dtype: the constants that the compiler gets."""

    implementation: Implementation
    constants: Mapping[str, int]
    dtype: str

    @property
    def file(self) -> str:
        """The name of its PTX."""
        format_ = "" if self.dtype == "fp32" else f"_{self.dtype}"
        return f"{self.implementation.name}{format_}_d{self.constants['HEAD_DIM']}.ptx"

    @property
    def definitions(self) -> tuple[str, ...]:
        """Its constants as compiler options, in the table's order; before them -DFP16=1 or -DBF16=1."""
        constants = {} if self.dtype == "fp32" else {self.dtype.upper(): 1}
        return tuple(f"-D{name}={value}" for name, value in {**constants, **self.constants}.items())


def builds(root: Path = ROOT) -> list[Build]:
    """Every build of every kernel, in the tables' order."""
    folder = root / "cuda"
    kernels = [read(str(folder / f"{name}.cu")) for name in names(str(folder))]
    return [Build(k, constants, dtype) for k in kernels for dtype in k.dtypes for constants in k.builds]


def load(build: Build, root: Path = ROOT) -> str:
    """A build's checked-in PTX. Raises VerificationError where it is not that of the present source and table."""
    try:
        known = json.loads(_text(root / "golden" / MANIFEST))["files"][build.file]
        ptx = _text(root / "golden" / build.file)
    except FileNotFoundError as e:
        raise _stale(build, f"{Path(e.filename).name} is missing") from None
    except KeyError:
        raise _stale(build, "the manifest does not know it") from None
    if known["source_sha256"] != _sha256(build.implementation.source):
        raise _stale(build, f"{build.implementation.file} has changed since it was compiled")
    if known["options"] != [*OPTIONS, *build.definitions]:
        raise _stale(build, f"{build.implementation.name}.toml has changed since it was compiled")
    if known["ptx_sha256"] != _sha256(ptx):
        raise _stale(build, "it has been changed by hand")
    return ptx


def compile(source: str, file: str, definitions: Sequence[str]) -> str:
    """PTX compiled now, with the options of the golden files. Raises InputError, MissingExtra."""
    return nvrtc.compile(source, file, (*OPTIONS, *definitions)).code.decode()


# ------------------------------------------------------------------------------------------------ making them
def write(root: Path = ROOT) -> list[str]:
    """Compile everything into golden/ and take away what is not made any more. Raises as `generate`."""
    files, folder = generate(root), root / "golden"
    folder.mkdir(exist_ok=True)
    for name in present(folder) - files.keys():
        (folder / name).unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return sorted(files)


def check(root: Path = ROOT) -> list[str]:
    """Compile everything and compare it with golden/.

    Raises VerificationError naming the first file that differs; InputError, MissingExtra as `generate`.
    """
    files, folder = generate(root), root / "golden"
    for name in sorted(files.keys() | present(folder), key=lambda name: (name == MANIFEST, name)):
        if name not in files or name not in present(folder) or _text(folder / name) != files[name]:
            raise VerificationError(f"golden/{name} is not what cuda/ compiles to; {COMMAND} writes it anew")
    return sorted(files)


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
            raise InputError(f"{build.implementation.name}.toml has two builds for {build.file}; keep one of them")
        source, file = build.implementation.source, build.implementation.file
        files[build.file] = ptx = compile(source, file, build.definitions)
        _check_launches(build, ptx)
        records[build.file] = {
            "source_sha256": _sha256(source), "ptx_sha256": _sha256(ptx),
            "options": [*OPTIONS, *build.definitions], "shared": shared_layouts(build),
        }  # fmt: skip
    return files | {MANIFEST: json.dumps({"nvrtc": NVRTC, "files": records}, indent=1) + "\n"}


def shared_layouts(build: Build) -> dict[str, dict[str, Any]]:
    """Per entry and region of dynamic shared memory [offset, bytes]; null from where only a launch decides."""
    out: dict[str, dict[str, Any]] = {}
    for launch in build.implementation.launches:
        offset: int | None = 0
        regions = out.setdefault(launch.entry, {})
        for region in launch.shared:
            known = all(isinstance(q, int) or q in build.constants for q in (region.rows, region.columns))
            size = region_bytes(region, build.constants, ITEMSIZE[build.dtype]) if known else None
            regions[region.name] = [offset, size]
            offset = None if offset is None or size is None else offset + size
    return out


def _check_launches(build: Build, ptx: str) -> None:
    """The functions that the table launches are there, with as many parameters."""
    kernels, table = parse(ptx), f"{build.implementation.name}.toml"
    for launch in build.implementation.launches:
        if launch.entry not in kernels:
            raise InputError(f"{table}: no entry {launch.entry!r}; the source defines {', '.join(kernels)}")
        taken, given = len(kernels[launch.entry].params), len(launch.parameters)
        if taken != given:
            raise InputError(f"{table}: {launch.entry} is given {given} parameters, but takes {taken}")


# ------------------------------------------------------------------------------------------------ the command
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


def _stale(build: Build, reason: str) -> VerificationError:
    return VerificationError(f"golden/{build.file} does not hold: {reason}; {COMMAND} compiles it anew")


def present(folder: Path) -> set[str]:
    """The golden files in a folder."""
    return {file.name for pattern in ("*.ptx", MANIFEST) for file in folder.glob(pattern)}


def _text(path: Path) -> str:
    """A file's text with \\n at the ends of lines, as on the machine that wrote it."""
    return path.read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
