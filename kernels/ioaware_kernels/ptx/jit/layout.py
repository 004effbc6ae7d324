"""Where things lie in the frame of a warp, and what of a launch's state (`runtime`) depends on the kernel."""

from __future__ import annotations

from collections.abc import Mapping

from ..parse import Kernel, Param
from .runtime import PARAMETERS

# The frame, in bytes
FUEL, WARP = 0, 8  # 64 bits: instructions left, number in the thread block
LAST_LANE, EXISTING, ENDED, STOPPED_AT, STOPPED = 16, 20, 24, 28, 32  # 32 bits: lanes; where the budget ended
TID = 64  # three vectors
PARKED = 448  # two masks per block of code: of lanes that go on from there, of lanes that wait at that barrier
DONE, DISAGREE, OUT_OF_BUDGET = -1, -2, -3  # what a warp returns instead of the barrier where it waits


def parameter_offsets(params: list[Param]) -> Mapping[str, int]:
    """Where parameters begin, in bytes from the slot PARAMETERS."""
    out, at = {}, 0
    for param in params:
        out[param.name] = at
        at += -(-param.size // 8) * 8
    return out


def sites_slot(kernel: Kernel) -> int:
    """The slot of the first site."""
    return PARAMETERS + sum(-(-p.size // 8) for p in kernel.params)


def registers_offset(blocks: int) -> int:
    """Where the registers begin in a frame."""
    return -(-(PARKED + 8 * blocks) // 64) * 64
