"""Measuring a plan: every kernel verified, then timed in turns with the others, warm and cold, in several rounds.

warm   the caches are as the last run left them; so many runs make a sample that it lasts a millisecond
cold   the caches are evicted before each sample of one run

A round visits every problem with new inputs and takes its share of the samples, and some of the ceilings before each,
so that an interruption leaves a whole picture and a drift of the machine reaches everything. Outputs are poisoned and
checked before the samples of a round, and poisoned again before the last one and checked after it: work that is done
once and remembered is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program.recorder import record
from ioaware.reference import random_inputs

from ..tensors import Array
from ..tolerance import Difference
from .backend import Backend, Inputs, Subject
from .ceilings import Ceilings
from .floor import floor, refused
from .plan import Plan, Point
from .record import MODES
from .values import check

ROUNDS = 3
CEILINGS = 2  # samples before each problem of a round
SAMPLE_S = 1e-3  # a warm sample takes at least this long
APPEALS = 5  # how often the ceilings are taken again before a time is called impossible
MOST_RUNS = 1000  # of a sample
OUTPUTS = record(find("flash2").forward, AttentionProblem(q_len=1).features)  # O and L of any exact forward pass


@dataclass
class Measured:
    """What is known of one kernel on one problem; `point` is None for other people's."""

    subject: Subject
    problem: AttentionProblem
    point: Point | None
    samples: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    differences: dict[str, Difference] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def release(self) -> None:
        """Let go of the kernel's memory; what it is called and claims to be stays known."""
        self.subject = replace(self.subject, run=_nothing, outputs=dict, poison=_nothing)


def _nothing() -> None:
    pass


class Measuring:
    """A run in progress: iterate over it, and use what it holds at any time."""

    def __init__(self, plan: Plan, backend: Backend) -> None:
        """Raises InputError: a point that its kernel or the machine does not take."""
        for point in plan.points:
            backend.check(point)
        self.plan, self.backend = plan, backend
        self.found: dict[tuple[str, AttentionProblem, object], Measured] = {}
        self.absent: dict[str, str] = {}
        self.ceilings: Ceilings | None = None
        self.complete = False

    def __len__(self) -> int:
        return ROUNDS * len(self.plan.groups)

    def __iter__(self) -> Iterator[str]:
        """Measure; says what comes next before each step."""
        for turn in range(ROUNDS):
            for problem, points in self.plan.groups.items():
                yield f"N={problem.kv_len} d={problem.head_dim}"
                self._take_ceilings()
                self._round(turn, problem, points)
        for _ in range(APPEALS):
            if self._accused():
                self._take_ceilings()
        self.complete = True

    def _accused(self) -> bool:
        """Whether a time is faster than physics: then the ceilings get another chance to be reached."""
        assert self.ceilings
        times = [(m.problem, median(samples)) for m in self.found.values() for samples in m.samples.values() if samples]
        return any(refused(time_s, floor(problem, self.ceilings)) for problem, time_s in times)

    def _take_ceilings(self) -> None:
        taken = self.backend.ceilings(self.plan.points[0].problem.dtype, CEILINGS)
        self.ceilings = self.ceilings.joined(taken) if self.ceilings else taken

    def _round(self, turn: int, problem: AttentionProblem, points: list[Point]) -> None:
        inputs = random_inputs(problem, self.plan.seed + turn)
        every = list(self._subjects(problem, points, inputs))
        ready = [m for m in every if self._is_right(m, inputs)]
        self.backend.rest()  # the check has used matrix products of NumPy
        times = {m.subject: self._times(m.subject) for m in ready}
        for n in (samples := range(ceil(self.plan.repeats / ROUNDS))):
            for m in ready:
                m.samples["warm"].append(self._warm(m.subject, times[m.subject]))
                self._leave(m)
            for m in ready:
                if n == samples[-1]:
                    m.subject.poison()
                m.samples["cold"].append(self._cold(m.subject))
                self._leave(m)
        for m in ready:
            self._is_right(m, inputs, ran=True)
        for m in every:
            m.release()

    def _leave(self, m: Measured) -> None:
        """Other people's kernels have threads of their own, which must not run into the next sample."""
        if m.point is None:
            self.backend.rest()

    def _subjects(self, problem: AttentionProblem, points: list[Point], inputs: Inputs) -> Iterator[Measured]:
        for point in points:
            yield self._of(self.backend.prepare(point, inputs), problem, point)
        if self.plan.peers:
            peers, self.absent = self.backend.peers(problem, inputs)
            yield from (self._of(subject, problem, None) for subject in peers)

    def _of(self, subject: Subject, problem: AttentionProblem, point: Point | None) -> Measured:
        """The record of a kernel, from round to round."""
        key = subject.name, problem, point
        known = self.found.setdefault(key, Measured(subject, problem, point))
        known.subject = subject
        return known

    # -------------------------------------------------------------------------------------------- one kernel
    def _is_right(self, m: Measured, inputs: Inputs, *, ran: bool = False) -> bool:
        """Run with poisoned outputs, if that is not what happened last, and check the outputs."""
        if not ran:
            m.subject.poison()
            self.backend.seconds(m.subject.run, 1)
        outputs: dict[str, Array] = m.subject.outputs()
        found, wrong = check(m.subject.program or OUTPUTS, m.problem, inputs, outputs, self.plan.seed)
        m.differences |= {name: max(m.differences.get(name, d), d) for name, d in found.items()}
        m.problems += [sentence for sentence in wrong if sentence not in m.problems]
        return not m.problems

    def _times(self, subject: Subject) -> int:
        """Runs of a warm sample."""
        once = min(self.backend.seconds(subject.run, 1) for _ in range(3))
        return min(max(1, ceil(SAMPLE_S / once)), MOST_RUNS) if once > 0 else 1

    def _warm(self, subject: Subject, times: int) -> float:
        self.backend.seconds(subject.run, 1)
        return self.backend.seconds(subject.run, times) / times

    def _cold(self, subject: Subject) -> float:
        self.backend.evict()
        return self.backend.seconds(subject.run, 1)
