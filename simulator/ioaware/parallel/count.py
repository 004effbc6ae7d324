"""Count a scheme exactly, whatever the lengths: bytes on every link, visible pairs, memory, in closed form.

The texts run on shapes. Each line becomes an `Event`, a transfer or a computation; everything else is read off them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from ..masks import Band
from ..problem import AttentionProblem
from . import Scheme
from .layout import Layout, Shard, common, visible
from .machine import Machine, State, check, run

Link: TypeAlias = tuple[int, int]  # from device, to device: the two directions are two links


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: what each device holds of it, the words of a row, the role that gives the bytes of a word."""

    side: str  # q | kv: whose tokens and heads
    shards: tuple[Shard, ...]
    width: int
    role: str

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of one sequence that each device holds."""
        return tuple(shard.rows for shard in self.shards)


@dataclass(frozen=True, eq=False)
class Event:
    """One line of a scheme: a transfer over links, or the products of every device's visible pairs; else neither."""

    name: str
    uses: tuple[Value, ...]
    makes: tuple[Value, ...]
    updates: tuple[Value, ...] = ()  # used, and overwritten by what is made
    links: Mapping[Link, int] = field(default_factory=dict)  # bytes
    steps: int = 0  # hops that follow one another
    pairs: tuple[int, ...] = ()  # (query, key, head) triples per device
    flops_per_pair: int = 0


TURN = Event("backward pass", (), ())


@dataclass(frozen=True)
class Counts:
    """What a scheme moves and does on `devices` devices, pass by pass as the problem asks."""

    problem: AttentionProblem
    devices: int
    events: tuple[Event, ...]

    @property
    def passes(self) -> list[tuple[Event, ...]]:
        """The events of each pass that is asked for."""
        turn = self.events.index(TURN) if TURN in self.events else 0
        return [pass_ for pass_ in (self.events[:turn], self.events[turn:]) if pass_]

    @cached_property
    def links(self) -> Mapping[Link, int]:
        """Bytes on each link that is used."""
        total: Counter[Link] = Counter()
        for event in self.events:
            total.update(event.links)
        return +total

    @property
    def sent(self) -> tuple[int, ...]:
        """Bytes that each device sends."""
        out = [0] * self.devices
        for (source, _), size in self.links.items():
            out[source] += size
        return tuple(out)

    @property
    def steps(self) -> int:
        """Communication steps that follow one another."""
        return sum(event.steps for event in self.events)

    @property
    def pairs(self) -> tuple[int, ...]:
        """(query, key, head) triples whose scores each device computes, all passes together."""
        computed = [event.pairs for event in self.events if event.pairs]
        return tuple(map(sum, zip(*computed, strict=True)))

    @property
    def flops(self) -> int:
        """Of the matrix products of all devices."""
        return sum(sum(event.pairs) * event.flops_per_pair for event in self.events)

    @property
    def slowest_flops(self) -> int:
        """Of the device with the most to do, computation by computation: the others wait for it."""
        return sum(max(event.pairs, default=0) * event.flops_per_pair for event in self.events)

    @property
    def imbalance(self) -> float:
        """Work of the slowest device over that of the mean device: 1 where no device waits."""
        return self.slowest_flops * self.devices / self.flops if self.flops else 1.0

    @cached_property
    def memory(self) -> tuple[int, ...]:
        """The most bytes that each device holds at once: each tensor from the line that makes it to its last use."""
        last = {value: i for i, event in enumerate(self.events) for value in (*event.uses, *event.makes)}
        made = {value for event in self.events for value in event.makes}
        now = peak = self._change([0] * self.devices, add=[value for value in last if value not in made])
        for i, event in enumerate(self.events):
            gone = {value for value in (*event.uses, *event.makes) if last[value] == i} - set(event.updates)
            now = self._change(now, add=event.makes, drop=event.updates)
            peak = [*map(max, peak, now)]
            now = self._change(now, drop=gone)
        return tuple(peak)

    def _change(self, now: list[int], add: Iterable[Value] = (), drop: Iterable[Value] = ()) -> list[int]:
        more, less = (held(self.problem, values, self.devices) for values in (add, drop))
        return [a + b - c for a, b, c in zip(now, more, less, strict=True)]


def held(problem: AttentionProblem, values: Iterable[Value], devices: int) -> list[int]:
    """Bytes that each device holds of some tensors."""
    total = [0] * devices
    for value in values:
        row = problem.batch * value.width * problem.itemsize(value.role)
        total = [size + row * rows for size, rows in zip(total, value.rows, strict=True)]
    return total


def count(scheme: Scheme, problem: AttentionProblem, devices: int) -> Counts:
    """Exact counts of a scheme. Raises InputError for what it cannot do."""
    check(scheme, problem, devices)
    machine = Shapes(problem, devices, scheme.home(problem, devices))
    outputs = tuple(run(machine, scheme).values())
    return Counts(problem, devices, (*machine.events, Event("done", outputs, ())))


class Shapes(Machine[Value]):
    """The machine whose devices hold shapes."""

    def __init__(self, problem: AttentionProblem, devices: int, home: Layout) -> None:
        super().__init__(problem, devices, home)
        self.events: list[Event] = []

    def load(self, *names: str) -> tuple[Value, ...]:
        d, dv = self.problem.head_dim, self.problem.value_dim or 1
        kinds = {"Q": ("q", d), "dO": ("q", dv), "K": ("kv", d), "V": ("kv", dv)}
        sides = (kinds[name] for name in names)
        return tuple(Value(side, getattr(self.home, side), width, "io") for side, width in sides)

    def turn(self) -> None:
        if "fwd" in self.problem.passes:
            self.events.append(TURN)
        else:
            self.events.clear()

    # Communication

    def _transfer(
        self, name: str, values: tuple[Value, ...], made: Iterable[Value], links: Mapping[Link, int], steps: int
    ) -> tuple[Value, ...]:
        if self.devices == 1:
            return values
        makes = tuple(made)
        self.events.append(Event(name, values, makes, links=links, steps=steps))
        return makes

    def _around(self, sizes: Sequence[int]) -> dict[Link, int]:
        """Bytes on the ring, by the device that sends them."""
        return {(r, (r + 1) % self.devices): size for r, size in enumerate(sizes)}

    def _held(self, values: Iterable[Value]) -> list[int]:
        return held(self.problem, values, self.devices)

    def shift(self, *values: Value) -> tuple[Value, ...]:
        made = (Value(x.side, (x.shards[-1], *x.shards[:-1]), x.width, x.role) for x in values)
        return self._transfer("shift", values, made, self._around(self._held(values)), 1)

    def all_gather(self, *values: Value) -> tuple[Value, ...]:
        """A device passes on everything but what the next one has had from the beginning."""
        own, tokens = self._held(values), range(self.problem.sequences[0][1])
        whole = (Shard(x.shards[0].heads, (tokens,)) for x in values)
        made = (Value(x.side, (s,) * self.devices, x.width, x.role) for x, s in zip(values, whole, strict=True))
        passed = [sum(own) - own[(r + 1) % self.devices] for r in range(self.devices)]
        return self._transfer("all_gather", values, made, self._around(passed), self.devices - 1)

    def reduce_scatter(self, *values: Value) -> tuple[Value, ...]:
        """The sum for device j starts at device j + 1: it passes over every link but the one from j."""
        made = tuple(Value(x.side, getattr(self.home, x.side), x.width, x.role) for x in values)
        kept = self._held(made)
        passed = [sum(kept) - own for own in kept]
        return self._transfer("reduce_scatter", values, made, self._around(passed), self.devices - 1)

    def all_to_all(self, *values: Value, to: Layout) -> tuple[Value, ...]:
        made = tuple(Value(x.side, getattr(to, x.side), x.width, x.role) for x in values)
        links: Counter[Link] = Counter()
        for x, y in zip(values, made, strict=True):
            row = self.problem.batch * x.width * self.problem.itemsize(x.role)
            for a, source in enumerate(x.shards):
                links.update({(a, b): row * common(source, wanted) for b, wanted in enumerate(y.shards) if a != b})
        return self._transfer("all_to_all", values, made, links, 1)

    def all_max(self, *values: Value) -> tuple[Value, ...]:
        return self._tree("all_max", values)

    def all_sum(self, *values: Value) -> tuple[Value, ...]:
        return self._tree("all_sum", values)

    def _tree(self, name: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Every device has the whole value: on the way up the later one of two sends it, on the way down the first."""
        size = self._held(values)[0]
        strides = [1 << i for i in range((self.devices - 1).bit_length())]
        rounds = [[(r + s, r) for r in range(0, self.devices - s, 2 * s)] for s in strides]
        rounds += [[(a, b) for b, a in links] for links in reversed(rounds)]
        for links in rounds:
            self.events.append(Event(name, values, (), links=dict.fromkeys(links, size), steps=1))
        made = tuple(Value(x.side, x.shards, x.width, x.role) for x in values)
        self.events.append(Event(name, values, made))
        return made

    # What a device does alone

    def attend(self, q: Value, k: Value, v: Value, state: State[Value] | None = None) -> State[Value]:
        m, total = (Value("q", q.shards, 1, "stat") for _ in range(2))
        made = m, total, Value("q", q.shards, v.width, "accum")
        self._products("attend", (q, k, v), made, state or (), 2 * (q.width + v.width))
        return made

    def gradients(
        self, q: Value, k: Value, v: Value, lse: Value, delta: Value, do: Value
    ) -> tuple[Value, Value, Value]:
        """Five products: S and dP again, then dV, dQ and dK."""
        dq, dk, dv = (Value(x.side, x.shards, x.width, "accum") for x in (q, k, v))
        self._products("gradients", (q, k, v, lse, delta, do), (dq, dk, dv), (), 2 * (3 * q.width + 2 * v.width))
        return dq, dk, dv

    def add(self, sums: tuple[Value, ...], parts: tuple[Value, ...]) -> tuple[Value, ...]:
        return self._local("add", (*sums, *parts), sums, tuple(x.role for x in sums))

    def _products(
        self, name: str, uses: tuple[Value, ...], makes: tuple[Value, ...], updates: tuple[Value, ...], flops: int
    ) -> None:
        q, k, *_ = uses
        mask, lengths = self.problem.mask, self.problem.sequences[0]
        assert isinstance(mask, Band)
        pairs = tuple(
            self.problem.batch * len(a.heads) * visible(a.tokens, b.tokens, mask, lengths)
            for a, b in zip(q.shards, k.shards, strict=True)
        )
        self.events.append(Event(name, (*uses, *updates), makes, updates, pairs=pairs, flops_per_pair=flops))

    def rescale(self, state: State[Value], m: Value) -> tuple[Value, Value]:
        _, total, o = state
        total, o = self._local("rescale", (*state, m), (total, o), (total.role, o.role))
        return total, o

    def finish(self, state: State[Value]) -> tuple[Value, Value]:
        m, _, o = state
        o, lse = self._local("finish", state, (o, m), ("io", "stat"))
        return o, lse

    def row_sum(self, o: Value, do: Value) -> Value:
        delta = Value("q", o.shards, 1, "stat")
        self.events.append(Event("row_sum", (o, do), (delta,)))
        return delta

    def stored(self, *values: Value) -> tuple[Value, ...]:
        return self._local("stored", values, values, ("io",) * len(values))

    def _local(
        self, name: str, uses: tuple[Value, ...], alike: tuple[Value, ...], roles: tuple[str, ...]
    ) -> tuple[Value, ...]:
        """New values in the place of those that they are like."""
        made = tuple(Value(x.side, x.shards, x.width, role) for x, role in zip(alike, roles, strict=True))
        self.events.append(Event(name, uses, made, alike))
        return made
