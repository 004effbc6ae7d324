"""A claim: a sentence that people say about attention, and the numbers of this project that decide whether it holds.

A claim is tried in one or more cases, each a predicate on the numbers: true in all of them, it holds; true in some, it
holds under its condition; true in none, it is false. No verdict is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from ..units import show_capacity, show_scaled, show_time


class Origin(Enum):
    """Where a number comes from."""

    COUNTED = "counted"
    PREDICTED = "predicted, first order"
    DEVICE = "device table"
    PROVED = "proved"
    COMPUTED = "computed"  # from the others, or by a function whose result no command prints
    RUN = "run here"  # may differ in its last bits on another machine
    PRINTED = "from figures that a paper prints"


SHOWN = (Origin.COUNTED, Origin.PREDICTED, Origin.DEVICE, Origin.PROVED)  # by the claim's commands
SCALED = ("B", "B/s", "FLOP", "FLOP/s")


@dataclass(frozen=True)
class Number:
    """A value in base units (B, s, FLOP, their rates, or x for a ratio), and where it comes from."""

    value: int | float
    unit: str
    origin: Origin

    def __str__(self) -> str:
        if self.unit == "s":
            return show_time(self.value)
        if self.unit in SCALED:
            return show_scaled(self.value, self.unit)
        return f"{self.plain}x" if self.unit == "x" else f"{self.plain} {self.unit}".rstrip()

    @property
    def plain(self) -> str:
        """The value alone, for people."""
        return f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:.4g}"


class Capacity(Number):
    """Bytes of memory, 1024-based for people; bytes moved are 1000-based, as the papers' GB."""

    def __str__(self) -> str:
        return show_capacity(int(self.value))


Numbers: TypeAlias = dict[str, Number]
Values: TypeAlias = Mapping[str, int | float]
Case: TypeAlias = Callable[[Values], bool]


def counted(value: int | float, unit: str = "B") -> Number:
    """What a command counts, exactly."""
    return Number(value, unit, Origin.COUNTED)


def kept(value: int) -> Number:
    """Bytes of a tensor in memory, which a command shows as what is written there once."""
    return Capacity(value, "B", Origin.COUNTED)


def predicted(value: float | None) -> Number:
    """A first-order time, s; the devices that claims are about have all the rates that it needs."""
    assert value is not None
    return Number(value, "s", Origin.PREDICTED)


def listed(value: float | None, unit: str) -> Number:
    """A rate of a device's table."""
    assert value is not None
    return Number(value, unit, Origin.DEVICE)


def memory(value: int | None) -> Number:
    """A capacity of a device's table."""
    assert value is not None
    return Capacity(value, "B", Origin.DEVICE)


def computed(value: float, unit: str = "x") -> Number:
    """What follows from other numbers."""
    return Number(value, unit, Origin.COMPUTED)


def ran(value: float, unit: str) -> Number:
    """What a run in floating point gave."""
    return Number(value, unit, Origin.RUN)


def printed(value: float, unit: str = "x") -> Number:
    """What a paper prints, or a quotient of two such numbers."""
    return Number(value, unit, Origin.PRINTED)


class Verdict(Enum):
    """What the numbers say about a claim."""

    HOLDS = "holds"
    HOLDS_IF = "holds if"
    FALSE = "false"


class Judged(NamedTuple):
    """A claim, its numbers as they are now, and in which cases it is true."""

    claim: Claim
    numbers: Numbers
    cases: dict[str, bool]

    @property
    def verdict(self) -> Verdict:
        """All cases, some, or none."""
        if all(self.cases.values()):
            return Verdict.HOLDS
        return Verdict.HOLDS_IF if any(self.cases.values()) else Verdict.FALSE

    @property
    def shown(self) -> Numbers:
        """The numbers that the claim's commands print."""
        return {name: number for name, number in self.numbers.items() if number.origin in SHOWN}

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        numbers = {n: {"value": x.value, "unit": x.unit, "origin": x.origin.value} for n, x in self.numbers.items()}
        return {
            "name": self.claim.name,
            "sentence": self.claim.sentence,
            "said": self.claim.said,
            "verdict": self.verdict.value,
            "condition": self.claim.condition if self.verdict is Verdict.HOLDS_IF else None,
            "cases": self.cases,
            "numbers": numbers,
            "because": self.claim.because,
            "commands": list(self.claim.commands),
        }


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence, who says it, what decides it, and the commands that show its numbers."""

    name: str
    sentence: str
    said: str
    because: str
    commands: tuple[str, ...]
    numbers: Callable[[], Numbers]  # the first is the one to quote
    cases: Mapping[str, Case]
    condition: str = ""  # under which it holds, where it is true in some cases only

    def judge(self, numbers: Numbers | None = None) -> Judged:
        """The verdict on the numbers as they are now, or on given ones."""
        found = self.numbers() if numbers is None else numbers
        values = {name: number.value for name, number in found.items()}
        return Judged(self, found, {what: true(values) for what, true in self.cases.items()})


def claim(
    sentence: str, *, said: str, because: str, commands: tuple[str, ...], cases: Mapping[str, Case], condition: str = ""
) -> Callable[[Callable[[], Numbers]], Claim]:
    """The claim whose numbers the decorated function computes; its name is the function's."""

    def decorate(numbers: Callable[[], Numbers]) -> Claim:
        return Claim(
            name=numbers.__name__.replace("_", "-"), sentence=sentence, said=said, because=because, commands=commands,
            numbers=numbers, cases=cases, condition=condition,
        )  # fmt: skip

    return decorate
