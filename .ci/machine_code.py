"""Every build of every kernel as machine code: it compiles without a warning, keeps to registers and fits. No GPU.

python .ci/machine_code.py [FOLDER]    FOLDER holds NVRTC (pip install --target); without it pip fetches the one below
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

from ioaware.errors import InputError
from ioaware_kernels import golden, nvrtc
from ioaware_kernels.implementation import KernelLaunch, value

NVRTC = "nvidia-cuda-nvrtc-cu12==12.9.86"  # newer than the one of the golden PTX: that one does not know sm_100a
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a")
REGISTERS, REGISTERS_PER_THREAD = 65_536, 255
SHARED_BYTES = 101_376  # 99 KiB: the least that an architecture from sm_80 on gives a thread block
ROW = "{:<20} {:>9}  {:<20} {:>7} {:>9}  {:>6} {:>6} {:>7}"


def main(arguments: list[str]) -> int:
    if arguments:
        return examine(Path(arguments[0]))
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, NVRTC]
        subprocess.run(pip, check=True)
        return examine(Path(folder))


def examine(folder: Path) -> int:
    """Prints a row for each entry of each build, then what is wrong: the exit code."""
    print(
        f"NVRTC {nvrtc.release(where=folder)}; shared B with +: and what kv_len asks for; sm_...: registers per thread"
    )
    print(ROW.format("kernel", "build", "entry", "threads", "shared B", *ARCHITECTURES))
    wrong: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows, problems_of_build in pool.map(lambda build: of_build(build, folder), golden.builds()):
            print("\n".join(rows))
            wrong += problems_of_build
    print("\n".join(wrong) if wrong else "no spills, no warnings, everything fits")
    return 1 if wrong else 0


def of_build(build: golden.Build, folder: Path) -> tuple[list[str], list[str]]:
    """A build's rows, and what is wrong with it on any architecture."""
    wrong: list[str] = []
    found: dict[str, dict[str, nvrtc.Resources]] = {}
    for architecture in ARCHITECTURES:
        try:
            log = compiled(build, architecture, folder).log
        except InputError as e:
            wrong.append(f"{build.file} {architecture}: {e}")
        else:
            found[architecture] = nvrtc.resources(log)
            wrong += [f"{build.file} {architecture}: {line}" for line in problems(build, log)]
    rows = [
        row(build, launch, {name: entries.get(launch.entry) for name, entries in found.items()})
        for launch in build.implementation.launches
    ]
    return rows, wrong


def compiled(build: golden.Build, architecture: str, folder: Path) -> nvrtc.Compiled:
    options = (f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v", *build.definitions)
    return nvrtc.compile(build.implementation.source, build.implementation.file, options, where=folder)


def problems(build: golden.Build, log: str) -> Iterator[str]:
    """The rules that a build's machine code breaks."""
    yield from nvrtc.warnings(log)
    entries = nvrtc.resources(log)
    for launch in build.implementation.launches:
        if launch.entry in entries:
            yield from of_entry(launch.entry, entries[launch.entry], threads(build, launch), dynamic(build, launch))
        else:
            yield f"{launch.entry}: the source has no such entry"


def of_entry(entry: str, used: nvrtc.Resources, threads: int, dynamic_bytes: int) -> Iterator[str]:
    if used.spill_bytes or used.stack_bytes:
        yield f"{entry}: {used.spill_bytes} bytes spilled, {used.stack_bytes} bytes of stack; neither may be"
    if used.registers > min(REGISTERS_PER_THREAD, REGISTERS // threads):
        yield f"{entry}: {threads} threads with {used.registers} registers; {REGISTERS:,} in all, 255 each may be"
    if used.shared_bytes + dynamic_bytes > SHARED_BYTES:
        yield f"{entry}: {used.shared_bytes + dynamic_bytes:,} bytes of shared memory; {SHARED_BYTES:,} may be"


def threads(build: golden.Build, launch: KernelLaunch) -> int:
    return prod(value(extent, build.constants) for extent in launch.block)


def dynamic(build: golden.Build, launch: KernelLaunch) -> int:
    """Bytes of dynamic shared memory, without what only a launch decides."""
    return sum(size or 0 for _, size in golden.shared_layouts(build)[launch.entry].values())


def row(build: golden.Build, launch: KernelLaunch, used: dict[str, nvrtc.Resources | None]) -> str:
    registers = [str(one.registers) if (one := used.get(name)) else "-" for name in ARCHITECTURES]
    static = max((one.shared_bytes for one in used.values() if one), default=0)
    more = "+" if any(size is None for _, size in golden.shared_layouts(build)[launch.entry].values()) else ""
    shared = f"{static + dynamic(build, launch):,}{more}"
    made = build.file.removeprefix(f"{build.implementation.name}_").removesuffix(".ptx")
    return ROW.format(build.implementation.name, made, launch.entry, threads(build, launch), shared, *registers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
