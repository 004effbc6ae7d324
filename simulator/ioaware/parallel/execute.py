"""Run a scheme on logical devices: NumPy arrays in float64, real messages, every byte counted as it is sent.

A device's arrays are touched by that device alone; whatever comes from another one comes through `Wires`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import VerificationError
from ..problem import AttentionProblem
from ..reference import Arrays
from . import Scheme
from .blocks import Array, Block, Spread, assembled, joined, shared_out, zeros
from .layout import Layout
from .machine import Machine, State, check, run


class Wires:
    """Messages under way, and the bytes that have passed each link."""

    def __init__(self) -> None:
        self.sent: Counter[tuple[int, int]] = Counter()
        self.steps = 0
        self._under_way: dict[tuple[int, int], deque[list[Block]]] = {}

    def send(self, source: int, target: int, blocks: Sequence[Block], itemsizes: Sequence[int]) -> None:
        """One message. What a device keeps for itself passes no link."""
        if source != target:
            self.sent[source, target] += sum(b.data.size * n for b, n in zip(blocks, itemsizes, strict=True))
        self._under_way.setdefault((source, target), deque()).append(list(blocks))

    def receive(self, source: int, target: int) -> list[Block]:
        """The oldest message of that link."""
        return self._under_way[source, target].popleft()

    @property
    def empty(self) -> bool:
        """Whether every message has been received."""
        return not any(self._under_way.values())


@dataclass(frozen=True)
class Execution:
    """What came out, packed as in `reference.shapes`, and what was counted on the way."""

    outputs: Arrays
    links: dict[tuple[int, int], int]
    steps: int
    pairs: tuple[int, ...]  # (query, key, head) triples per device


def execute(scheme: Scheme, problem: AttentionProblem, devices: int, inputs: Arrays) -> Execution:
    """Run a scheme on the packed inputs Q, K, V (and dO). Raises InputError for what it cannot do."""
    check(scheme, problem, devices)
    return execute_on(Devices(problem, devices, scheme.home(problem, devices), inputs), scheme)


def execute_on(p: Devices, scheme: Scheme) -> Execution:
    """Run a scheme on a machine at hand. Raises VerificationError for results and messages that do not arrive."""
    values = run(p, scheme)
    for name, value in values.items():
        if not all(map(Block.is_of, value.blocks, getattr(p.home, value.side))):
            raise VerificationError(f"{scheme.name}: {name} ends on other devices than those that hold its tokens")
    if not p.wires.empty:
        raise VerificationError(f"{scheme.name}: a device sent a message that no device received")
    outputs = {name: assembled(p.problem, value) for name, value in values.items()}
    return Execution(outputs, dict(+p.wires.sent), p.wires.steps, tuple(p.pairs))


class Devices(Machine[Spread]):
    """The machine whose devices hold arrays."""

    def __init__(self, problem: AttentionProblem, devices: int, home: Layout, inputs: Arrays) -> None:
        super().__init__(problem, devices, home)
        self._inputs = inputs
        self.wires, self.pairs = Wires(), [0] * devices

    def load(self, *names: str) -> tuple[Spread, ...]:
        sides = ("q" if name in ("Q", "dO") else "kv" for name in names)
        return tuple(
            shared_out(self.problem, self._inputs[name], side, getattr(self.home, side))
            for name, side in zip(names, sides, strict=True)
        )

    def turn(self) -> None:
        if "fwd" not in self.problem.passes:
            self.wires, self.pairs = Wires(), [0] * self.devices

    # Communication

    def _hop(self, values: Sequence[Spread], messages: Sequence[Sequence[Block]]) -> list[list[Block]]:
        """One step of the ring: every device's message to the next one; what each then has."""
        itemsizes = [self.problem.itemsize(x.role) for x in values]
        for r, message in enumerate(messages):
            self.wires.send(r, (r + 1) % self.devices, message, itemsizes)
        self.wires.steps += self.devices > 1
        return [self.wires.receive((r - 1) % self.devices, r) for r in range(self.devices)]

    def shift(self, *values: Spread) -> tuple[Spread, ...]:
        return _by_value(values, self._hop(values, _by_device(values)))

    def all_gather(self, *values: Spread) -> tuple[Spread, ...]:
        passing = _by_device(values)
        had = [[blocks] for blocks in passing]
        for _ in range(self.devices - 1):
            passing = self._hop(values, passing)
            for r, blocks in enumerate(passing):
                had[r].append(blocks)
        return _by_value(values, [[joined(parts) for parts in zip(*blocks, strict=True)] for blocks in had])

    def reduce_scatter(self, *values: Spread) -> tuple[Spread, ...]:
        parts = _by_device(values)
        kept = [[getattr(self.home, x.side)[r] for x in values] for r in range(self.devices)]

        def part(r: int, keeper: int) -> list[Block]:
            """What device r has of the sum that another one keeps."""
            shards = kept[keeper % self.devices]
            return [block.cut(shard) for block, shard in zip(parts[r], shards, strict=True)]

        passing = [part(r, r - 1) for r in range(self.devices)]
        for step in range(self.devices - 1):
            passing = self._hop(values, passing)
            for r, blocks in enumerate(passing):
                passing[r] = [a.plus(b) for a, b in zip(blocks, part(r, r - 2 - step), strict=True)]
        return _by_value(values, passing)

    def all_to_all(self, *values: Spread, to: Layout) -> tuple[Spread, ...]:
        itemsizes = [self.problem.itemsize(x.role) for x in values]
        wanted = [[getattr(to, x.side)[r] for x in values] for r in range(self.devices)]
        for a, held in enumerate(_by_device(values)):
            for b, shards in enumerate(wanted):
                self.wires.send(a, b, [block.cut(s) for block, s in zip(held, shards, strict=True)], itemsizes)
        self.wires.steps += self.devices > 1
        out = [[zeros(x.blocks[0], s) for x, s in zip(values, shards, strict=True)] for shards in wanted]
        for b in range(self.devices):
            for a in range(self.devices):
                out[b] = [block.plus(came) for block, came in zip(out[b], self.wires.receive(a, b), strict=True)]
        return _by_value(values, out)

    def all_max(self, *values: Spread) -> tuple[Spread, ...]:
        return self._tree(values, np.maximum)

    def all_sum(self, *values: Spread) -> tuple[Spread, ...]:
        return self._tree(values, np.add)

    def _tree(self, values: tuple[Spread, ...], combine: Callable[[Array, Array], Array]) -> tuple[Spread, ...]:
        """Devices one, two, four, ... apart combine towards device 0, which then tells them in the reverse order."""
        itemsizes = [self.problem.itemsize(x.role) for x in values]
        held = _by_device(values)
        strides = [1 << i for i in range(self.devices) if 1 << i < self.devices]
        for stride in strides:
            for r in range(stride, self.devices, 2 * stride):
                self.wires.send(r, r - stride, held[r], itemsizes)
                pairs = zip(held[r - stride], self.wires.receive(r, r - stride), strict=True)
                held[r - stride] = [Block(combine(a.data, b.data), a.heads, a.tokens) for a, b in pairs]
        for stride in reversed(strides):
            for r in range(stride, self.devices, 2 * stride):
                self.wires.send(r - stride, r, held[r - stride], itemsizes)
                held[r] = self.wires.receive(r - stride, r)
        self.wires.steps += 2 * len(strides)
        return _by_value(values, held)

    # What a device does alone

    def _alone(self, work: Callable[..., Sequence[Array]], *values: Spread) -> list[tuple[Array, ...]]:
        """Device by device: work(its number, its block of each value); per output, the arrays of all devices."""
        done = [work(r, *blocks) for r, blocks in enumerate(_by_device(values))]
        return list(zip(*done, strict=True))

    def _serving(self, q: Block, k: Block) -> Array:
        """For each query head, where its key/value head is."""
        return np.searchsorted(k.heads, q.heads // self.problem.group)

    def _scores(self, r: int, q: Block, k: Block) -> Array:
        """Scores of one device's queries and keys, -inf where hidden."""
        sees = self.problem.band.sees(q.tokens[:, None], k.tokens[None], *self.problem.sequences[0])
        self.pairs[r] += int(sees.sum()) * len(q.heads) * self.problem.batch
        scores = self.problem.scale * (q.data @ k.data[:, self._serving(q, k)].swapaxes(-1, -2))
        return np.where(sees, scores, -np.inf)

    def attend(self, q: Spread, k: Spread, v: Spread, state: State[Spread] | None = None) -> State[Spread]:
        def work(r: int, q: Block, k: Block, v: Block, *so_far: Block) -> Sequence[Array]:
            scores = self._scores(r, q, k)
            m = scores.max(-1, keepdims=True)
            e = np.exp(scores - finite(m))
            new = m, e.sum(-1, keepdims=True), e @ v.data[:, self._serving(q, v)]
            return self.merge([block.data for block in so_far], new) if so_far else new

        m, total, o = self._alone(work, q, k, v, *(state or ()))
        return q.holding(m, "stat"), q.holding(total, "stat"), q.holding(o, "accum")

    def merge(self, a: Sequence[Array], b: Sequence[Array]) -> Sequence[Array]:
        """Two states of the same queries, brought to their common maximum."""
        m = np.maximum(a[0], b[0])
        return m, *(x + y for x, y in zip(rescaled(a, m), rescaled(b, m), strict=True))

    def rescale(self, state: State[Spread], m: Spread) -> tuple[Spread, Spread]:
        def work(_: int, m: Block, *state: Block) -> Sequence[Array]:
            return rescaled([block.data for block in state], m.data)

        total, o = self._alone(work, m, *state)
        return state[1].holding(total, "stat"), state[2].holding(o, "accum")

    def finish(self, state: State[Spread]) -> tuple[Spread, Spread]:
        def work(_: int, m: Block, total: Block, o: Block) -> Sequence[Array]:
            with np.errstate(divide="ignore"):
                return o.data / np.where(total.data > 0, total.data, 1.0), m.data + np.log(total.data)

        o, lse = self._alone(work, *state)
        return state[2].holding(o, "io"), state[0].holding(lse, "stat")

    def row_sum(self, o: Spread, do: Spread) -> Spread:
        (delta,) = self._alone(lambda _, o, do: [(o.data * do.data).sum(-1, keepdims=True)], o, do)
        return o.holding(delta, "stat")

    def gradients(
        self, q: Spread, k: Spread, v: Spread, lse: Spread, delta: Spread, do: Spread
    ) -> tuple[Spread, Spread, Spread]:
        def work(r: int, q: Block, k: Block, v: Block, lse: Block, delta: Block, do: Block) -> Sequence[Array]:
            p = np.exp(self._scores(r, q, k) - finite(lse.data))
            serving = self._serving(q, k)
            dp = do.data @ v.data[:, serving].swapaxes(-1, -2)
            ds = self.problem.scale * p * (dp - delta.data)
            dk = per_kv_head(ds.swapaxes(-1, -2) @ q.data, serving, k.data)
            dv = per_kv_head(p.swapaxes(-1, -2) @ do.data, serving, v.data)
            return ds @ k.data[:, serving], dk, dv

        dq, dk, dv = self._alone(work, q, k, v, lse, delta, do)
        return q.holding(dq, "accum"), k.holding(dk, "accum"), v.holding(dv, "accum")

    def add(self, sums: tuple[Spread, ...], parts: tuple[Spread, ...]) -> tuple[Spread, ...]:
        added = (self._alone(lambda _, a, b: [a.data + b.data], *pair)[0] for pair in zip(sums, parts, strict=True))
        return tuple(x.holding(data, x.role) for x, data in zip(sums, added, strict=True))

    def stored(self, *values: Spread) -> tuple[Spread, ...]:
        return tuple(Spread(x.blocks, x.side, "io") for x in values)


def finite(m: Array) -> Array:
    """0 where a row has seen no key: exp(-inf - 0) = 0."""
    return np.where(np.isneginf(m), 0.0, m)


def rescaled(state: Sequence[Array], m: Array) -> Sequence[Array]:
    """The l and o of a state, for maxima m."""
    weight = np.exp(state[0] - finite(m))
    return weight * state[1], weight * state[2]


def per_kv_head(parts: Array, serving: Array, like: Array) -> Array:
    """Gradients of query heads, added up over those that a key/value head serves."""
    out = np.zeros_like(like)
    for head, kv_head in enumerate(serving):
        out[:, kv_head] += parts[:, head]
    return out


def _by_device(values: Sequence[Spread]) -> list[list[Block]]:
    return [list(blocks) for blocks in zip(*(x.blocks for x in values), strict=True)]


def _by_value(values: Sequence[Spread], devices: Sequence[Sequence[Block]]) -> tuple[Spread, ...]:
    return tuple(Spread(list(b), x.side, x.role) for x, b in zip(values, zip(*devices, strict=True), strict=True))
