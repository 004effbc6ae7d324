"""Sentences that introductions to FlashAttention repeat, each judged by numbers computed when it is asked.

record      what a claim is, and how its verdict follows from its numbers
printed     what papers print, quoted
ask         what claims ask of the simulator
the others  the claims, by subject
"""

from __future__ import annotations

from ..errors import InputError, unknown
from . import hardware, memory, speed, traffic, variants, work
from .record import Claim

CLAIMS = (
    *speed.CLAIMS, *memory.CLAIMS, *traffic.CLAIMS, *work.CLAIMS, *hardware.CLAIMS, *variants.CLAIMS,
)  # fmt: skip


def find(name: str) -> Claim:
    """The claim of that name or number, from 1. Raises InputError with the nearest."""
    if name.isascii() and name.isdigit():
        if not 1 <= int(name) <= len(CLAIMS):
            nearest = 1 if int(name) < 1 else len(CLAIMS)
            raise InputError(f"claim {name:.20}: there are {len(CLAIMS)}; the nearest legal value is {nearest}")
        return CLAIMS[int(name) - 1]
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise unknown("claim", name, [claim.name for claim in CLAIMS], "`ioaware claims` shows all")
