"""From what the thread blocks ask for to each level of the hierarchy. First order: one rule per level, stated here.

issued  what thread blocks load and store: L2 to SM, the papers' "HBM accesses" (readers/count.py)
dram    each kernel launch moves each element that it touches once, if the L2 holds what is touched again by the
        key/value heads in flight (one thread block per SM); otherwise it moves what it issues. Nothing survives
        between launches.
sram    loaded tiles are written to shared memory once and read by the operations that use them; a matrix product
        reads its right operand once per `mma_rows` accumulator rows. Computed values stay in registers.
"""

from __future__ import annotations

from typing import NamedTuple

from .device import Device
from .problem import AttentionProblem
from .program.recorder import Program
from .readers.count import Work, count_kernels, merged, sums, work_quantities
from .readers.evaluate import TileSizes
from .readers.footprint import footprint
from .traffic import Moved, Traffic

MMA_ROWS = 16  # where a device does not say: one mma.m16n8k16


class Launch(NamedTuple):
    """One kernel launch over the whole problem: its work, and its traffic at every level."""

    kernel: str
    work: Work
    issued: Traffic
    dram: Traffic
    sram: Traffic


def launches(program: Program, problem: AttentionProblem, tiles: TileSizes, device: Device) -> list[Launch]:
    """Every kernel launch of a program, in order."""
    work = sums(program, work_quantities, problem, tiles)
    whole = footprint(program, problem, tiles)
    out = []
    for kernel, issued in count_kernels(program, problem, tiles).items():
        done = Work(work.get((kernel, "flops"), 0), work.get((kernel, "exps"), 0))
        dram = _dram(whole, problem, device, issued, work[kernel, "blocks"])
        out.append(Launch(kernel, done, issued, dram, _sram(kernel, work, issued, device)))
    return out


def levels(passes: list[Launch]) -> dict[str, Traffic]:
    """The traffic of several launches together, by level."""
    return {level: merged(getattr(launch, level) for launch in passes) for level in ("issued", "dram", "sram")}


def _dram(whole: dict[str, int], problem: AttentionProblem, device: Device, issued: Traffic, blocks: int) -> Traffic:
    once = {name: Moved(*(min(moved, whole[name]) for moved in kinds)) for name, kinds in issued.tensors.items()}
    again = sum(whole[name] for name, kinds in issued.tensors.items() if once[name] != kinds)
    heads = (problem.kv_heads or 1) * problem.batch
    in_flight = min(heads, -(-device.sm_count * heads // blocks))
    return Traffic(once) if again * in_flight <= (device.l2_bytes or 0) * heads else issued


def _sram(kernel: str, work: dict[tuple[str, ...], int], issued: Traffic, device: Device) -> Traffic:
    rows = device.mma_rows or MMA_ROWS
    out = {}
    for tensor, moved in issued.tensors.items():
        shared = -(-work.get((kernel, tensor, "per_row"), 0) // rows)
        out[tensor] = Moved(work.get((kernel, tensor, "once"), 0) + shared, moved.read)
    return Traffic(out)
