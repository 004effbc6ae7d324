"""The language of the schemes: what every device does at once (single program, multiple data), and who moves what.

A scheme is a plain function of a machine `p`. Two machines run it: `execute` has the devices' arrays and sends real
messages; `count` has the shapes and adds up closed forms. They share the texts and no arithmetic.

A value is a tensor of which each device holds a shard. Communication is one transfer however many values it moves;
`state` is the triple (m, l, o) of online softmax: row maxima, sums of exponentials, outputs not yet divided by l.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from ..errors import InputError, refuse
from ..masks import CAUSAL, Band
from ..problem import AttentionProblem
from .layout import Layout

if TYPE_CHECKING:
    from . import Scheme

T = TypeVar("T")
State: TypeAlias = tuple[T, T, T]


class Machine(ABC, Generic[T]):
    """`devices` logical devices, numbered along a ring; `home` says what each holds at the beginning and the end."""

    def __init__(self, problem: AttentionProblem, devices: int, home: Layout) -> None:
        self.problem, self.devices, self.home = problem, devices, home

    @abstractmethod
    def load(self, *names: str) -> tuple[T, ...]:
        """Inputs Q, K, V, dO where `home` has them."""

    @abstractmethod
    def turn(self) -> None:
        """The backward pass begins, long after the forward pass, which is counted only where it is asked for."""

    # Communication

    @abstractmethod
    def shift(self, *values: T) -> tuple[T, ...]:
        """Every device sends its shards to the next device and receives those of the one before: a hop of the ring."""

    @abstractmethod
    def all_gather(self, *values: T) -> tuple[T, ...]:
        """Every device gets the tokens of all devices, in devices - 1 hops of the ring."""

    @abstractmethod
    def reduce_scatter(self, *values: T) -> tuple[T, ...]:
        """The devices' parts are summed, and each device keeps its tokens of `home`: devices - 1 hops of the ring."""

    @abstractmethod
    def all_to_all(self, *values: T, to: Layout) -> tuple[T, ...]:
        """Every device sends every other what `to` gives that one; where several send the same rows, they are added."""

    @abstractmethod
    def all_max(self, *values: T) -> tuple[T, ...]:
        """The maximum over devices, to all of them: up a binary tree and down again, in 2 ceil(log2(devices)) steps."""

    @abstractmethod
    def all_sum(self, *values: T) -> tuple[T, ...]:
        """The sum over devices, likewise."""

    # What a device does alone

    @abstractmethod
    def attend(self, q: T, k: T, v: T, state: State[T] | None = None) -> State[T]:
        """FlashAttention of the queries and keys at hand, merged into the state so far (in place)."""

    @abstractmethod
    def rescale(self, state: State[T], m: T) -> tuple[T, T]:
        """The l and o of a state whose maxima are replaced by m."""

    @abstractmethod
    def finish(self, state: State[T]) -> tuple[T, T]:
        """O and L = m + log l, as they are stored."""

    @abstractmethod
    def row_sum(self, o: T, do: T) -> T:
        """D = rowsum(O * dO) of the backward pass."""

    @abstractmethod
    def gradients(self, q: T, k: T, v: T, lse: T, delta: T, do: T) -> tuple[T, T, T]:
        """The parts of dQ, dK and dV that the queries and keys at hand give, unrounded."""

    @abstractmethod
    def add(self, sums: tuple[T, ...], parts: tuple[T, ...]) -> tuple[T, ...]:
        """Parts added to the sums so far (in place)."""

    @abstractmethod
    def stored(self, *values: T) -> tuple[T, ...]:
        """Complete sums, rounded to the storage format."""


def run(p: Machine[T], scheme: Scheme) -> dict[str, T]:
    """The passes of the problem: {"O": ..., "dQ": ..., "dK": ..., "dV": ...}."""
    passes = p.problem.passes
    o, saved = scheme.forward(p, *p.load("Q", "K", "V"))
    out = {"O": o}
    if "bwd" in passes:
        assert scheme.backward is not None
        p.turn()
        out |= zip(("dQ", "dK", "dV"), scheme.backward(p, saved, *p.load("dO")), strict=True)
    return out


MOST_DEVICES = 256  # every link of every step is kept
SUPPORTED = (
    "q_len", "kv_len", "batch", "heads", "kv_heads", "head_dim", "value_dim", "dtype", "score_dtype", "accum_dtype",
    "mask", "direction", "softmax_scale",
)  # fmt: skip


def check(scheme: Scheme, problem: AttentionProblem, devices: int) -> None:
    """Refuse what the scheme, or all of them, cannot do. Raises InputError."""
    if not 1 <= devices <= MOST_DEVICES:
        raise refuse("devices", devices, f"must be 1 to {MOST_DEVICES:,}", 1 if devices < 1 else MOST_DEVICES)
    _check_supported(problem)
    if "bwd" in problem.passes and scheme.backward is None:
        raise InputError(f"direction={problem.direction}: {scheme.name} {scheme.no_backward}; give fwd")
    most = scheme.rows(problem)
    if devices > most:
        raise refuse("devices", devices, f"{scheme.name} has no more tokens to share out", most)
    heads = scheme.heads(problem)
    if heads % devices:
        legal = [n for n in range(1, min(heads, MOST_DEVICES) + 1) if heads % n == 0]
        nearest = min(legal, key=lambda n: abs(n - devices))
        raise refuse(
            "devices", devices, f"{scheme.name} shares out {heads:,} heads, which the devices must divide", nearest
        )


def _check_supported(problem: AttentionProblem) -> None:
    for name in ("q_len", "kv_len"):
        if isinstance(getattr(problem, name), tuple):
            longest = max(getattr(problem, name))
            raise refuse(name, getattr(problem, name), "many devices share sequences of one length", longest)
    plain = AttentionProblem(**{name: getattr(problem, name) for name in SUPPORTED})
    for one in fields(problem):
        if one.compare and getattr(problem, one.name) != getattr(plain, one.name):
            rule = "the multi-device schemes are simulated without it"
            raise refuse(one.name, getattr(problem, one.name), rule, getattr(plain, one.name))
    if not isinstance(problem.mask, Band) or problem.mask.pack != 1:
        raise refuse("mask", problem.mask, "many devices are simulated with bands: full, causal, a window", CAUSAL)
