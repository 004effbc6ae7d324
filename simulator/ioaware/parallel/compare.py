"""Schemes side by side: what each moves and how long it takes, and from which length on communication is hidden."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

from ..device import Device
from ..errors import InputError
from ..masks import Band
from ..problem import AttentionProblem
from . import Scheme
from .count import Counts, count
from .links import Topology
from .timeline import Rates, Timeline, timeline


@dataclass(frozen=True)
class Comparison:
    """One scheme on some devices; without a matrix rate there is no time."""

    scheme: Scheme
    counts: Counts
    topology: Topology
    time: Timeline | None

    @property
    def hidden_from(self) -> int | None:
        """The tokens per device from which on matrix products alone cover every transfer beside them.

        Products grow with the square of the tokens and transfers with their number, so that one comparison tells:
        exactly for a full mask; for a causal one to a token, once devices hold many. Ring Attention (section 3.2) has
        this condition for a full mask and heads that share no keys: c >= F / B, FLOP/s over link bytes per second, in
        two-byte words. None: nothing is computed between transfers, or a window keeps products from growing that fast.
        """
        (q_len, kv_len), mask = self.counts.problem.sequences[0], self.counts.problem.mask
        grows = isinstance(mask, Band) and mask.left is None and q_len == kv_len
        if not grows or self.time is None or self.time.cover is None:
            return None
        return ceil(q_len / self.counts.devices / self.time.cover)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        counts = self.counts
        return {
            "title": self.scheme.title,
            "paper": self.scheme.paper,
            "sent_bytes": list(counts.sent),
            "busiest_link_bytes": max(counts.links.values(), default=0),
            "link_bytes": self.topology.by_link(counts.links),
            "steps": counts.steps,
            "memory_bytes": max(counts.memory),
            "pairs": list(counts.pairs),
            "imbalance": counts.imbalance,
            "time": None if self.time is None else {
                "compute_s": self.time.compute_s, "transfer_s": self.time.transfer_s, "total_s": self.time.total_s,
                "exposed_s": self.time.exposed_s, "cover": self.time.cover,
            },
            "hidden_from_tokens": self.hidden_from,
        }  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The schemes that can do it, in order, and why the others cannot."""

    able: dict[str, Comparison]
    unable: dict[str, InputError]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        schemes = {name: one.as_dict() for name, one in self.able.items()}
        return {"schemes": schemes, "refused": {name: str(reason) for name, reason in self.unable.items()}}


def compare(
    schemes: Iterable[Scheme], problem: AttentionProblem, devices: int, device: Device, topology: Topology
) -> Compared:
    """Every scheme on the same devices."""
    rate = device.matmul_flop_per_s(problem.dtype)
    able, unable = {}, {}
    for scheme in schemes:
        try:
            counts = count(scheme, problem, devices)
        except InputError as e:
            unable[scheme.name] = e
            continue
        time = None if rate is None else timeline(counts, topology, Rates(rate, device.hbm_bytes_per_s))
        able[scheme.name] = Comparison(scheme, counts, topology, time)
    return Compared(able, unable)
