"""First-order time: when a transfer runs beside a computation, and what is left exposed.

A device has two engines, its matrix units and its links. Each does its work in the order of the scheme's text, a line
starting when what it uses is there; a transfer starts no earlier than the computation written before it, because until
then its buffer is in use. A computation takes as long as its matrix products or, if that is longer, as moving what it
uses and makes between the processor and its memory once; every line as long as on its slowest device, for which the
others wait. Latency and elementwise work are left out. The backward pass starts when the forward pass is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .count import Counts, Event, Value, held
from .links import Topology


@dataclass(frozen=True)
class Timeline:
    """Seconds: of all computations, of all transfers, and until both are done."""

    compute_s: float
    transfer_s: float
    total_s: float
    cover: float | None  # matrix products' seconds over those of the transfers beside them, at worst; None: no such

    @property
    def exposed_s(self) -> float:
        """What communication adds to the time of the computations."""
        return self.total_s - self.compute_s


@dataclass(frozen=True)
class Timed:
    """A line of a scheme and its seconds on the slowest device: of its matrix products, in all, or on the links."""

    event: Event
    products_s: float = 0.0
    compute_s: float = 0.0
    transfer_s: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Of one device: its matrix products, and its own memory (None: not looked at)."""

    flop_per_s: float
    hbm_bytes_per_s: float | None = None


def timeline(counts: Counts, topology: Topology, rates: Rates) -> Timeline:
    """When everything happens."""
    passes = [[_timed(event, counts, topology, rates) for event in events] for events in counts.passes]
    covers = [cover for lines in passes for cover in _covers(lines)]
    return Timeline(
        sum(line.compute_s for lines in passes for line in lines),
        sum(line.transfer_s for lines in passes for line in lines),
        sum(map(_total, passes)),
        min(covers, default=None),
    )


def _timed(event: Event, counts: Counts, topology: Topology, rates: Rates) -> Timed:
    if not event.pairs:
        return Timed(event, transfer_s=topology.seconds(event.links))
    products = max(event.pairs) * event.flops_per_pair / rates.flop_per_s
    moved = max(held(counts.problem, (*event.uses, *event.makes), counts.devices))
    memory = moved / rates.hbm_bytes_per_s if rates.hbm_bytes_per_s else 0.0
    return Timed(event, products, max(products, memory))


def _total(lines: Iterable[Timed]) -> float:
    there: dict[Value, float] = {}
    computed = transferred = began = 0.0  # when each engine is free, and when the last computation started
    for line in lines:
        ready = max((there.get(value, 0.0) for value in line.event.uses), default=0.0)
        if line.event.links:
            transferred = done = max(ready, transferred, began) + line.transfer_s
        else:
            start = max(ready, computed)
            began = start if line.event.pairs else began
            computed = done = start + line.compute_s
        there |= dict.fromkeys(line.event.makes, done)
    return max(computed, transferred)


def _covers(lines: Iterable[Timed]) -> Iterable[float]:
    """Of the products of every computation but the last: their seconds over those of the transfers before the next."""
    products_s, transfer_s = 0.0, 0.0
    for line in lines:
        if line.event.pairs:
            if products_s and transfer_s:
                yield products_s / transfer_s
            products_s, transfer_s = line.products_s, 0.0
        else:
            transfer_s += line.transfer_s
