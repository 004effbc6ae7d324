"""What a machine must offer to be measured: kernels ready to run, ceilings, an eviction, a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ioaware.problem import AttentionProblem
from ioaware.program.recorder import Program
from ioaware.readers.evaluate import TileSizes

from ..tensors import Array
from .ceilings import Ceilings
from .model import Model
from .plan import Point

Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class Subject:
    """A kernel ready to run on inputs that it already has.

    run      starts it; it may return before the work is done if the backend's clock waits
    outputs  (batch, heads, rows, columns), by the names of the simulator's tensors
    poison   fills the outputs with NaN
    program  the simulator's program that it claims to be, with its tiles; None for other people's kernels
    """

    name: str
    run: Callable[[], object]
    outputs: Callable[[], dict[str, Array]]
    poison: Callable[[], None]
    program: Program | None = None
    tiles: TileSizes | None = None


class Backend(Protocol):
    """A machine."""

    model: Model

    def describe(self) -> dict[str, Any]:
        """Name, cores or clocks, caches, driver: what JSON holds."""

    def ceilings(self, dtype: str, repeats: int) -> Ceilings:
        """The rates that it reaches now."""

    def check(self, point: Point) -> None:
        """Raises InputError: no kernel of this project, or not a problem or tiles that it takes."""

    def prepare(self, point: Point, inputs: Inputs) -> Subject:
        """A kernel of this project with its inputs."""

    def peers(self, problem: AttentionProblem, inputs: Inputs) -> tuple[list[Subject], dict[str, str]]:
        """Other people's kernels for a problem; and why the others are not here, by name."""

    def evict(self) -> None:
        """Push everything out of the caches."""

    def rest(self) -> None:
        """Wait until threads of other libraries, which look out for more work without sleeping, give up."""

    def seconds(self, run: Callable[[], object], times: int) -> float:
        """Seconds that `times` runs take, one after another, until the last is done."""
