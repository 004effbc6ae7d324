"""The page docs/claims.md: every claim with its verdict and numbers, as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .record import Judged, Origin, Verdict

COMMAND = "python -m ioaware.claims > docs/claims.md"
HEAD = f"""# What people say about FlashAttention

<!-- Written by `{COMMAND}`; change simulator/ioaware/claims instead. -->

Sentences that introductions repeat, each judged by numbers that the simulator computes. A verdict follows from the
numbers: the claim is tried in several cases, and holds in all, in some, or in none. `ioaware claims` prints the table,
`ioaware claims NAME` one of them, and `ioaware claims --check` runs every command and looks for the numbers in what it
prints. Times are first order, or printed in a paper; none was measured here. Where nothing else is said, N = 8,192,
d = 64, one head, fp16, forward, on an A100 of 40 GB.
"""


def page(judged: Sequence[Judged]) -> str:
    """Markdown."""
    table = ["| | claim | verdict | number |", "|---|---|---|---|"]
    for n, one in enumerate(judged, 1):
        label, number = next(iter(one.numbers.items()))
        table.append(f"| {n} | [{one.claim.sentence}](#{one.claim.name}) | {_verdict(one)} | {number} ({label}) |")
    return "\n".join([HEAD, *table, "", *(line for j in judged for line in _section(j))])


def _verdict(judged: Judged) -> str:
    condition = f" {judged.claim.condition}" if judged.verdict is Verdict.HOLDS_IF else ""
    return f"**{judged.verdict.value}**{condition}"


def _section(judged: Judged) -> Iterator[str]:
    claim = judged.claim
    yield f"## {claim.name}"
    yield f'"{claim.sentence}" ({claim.said})'
    yield ""
    yield f"{_verdict(judged)}. {claim.because}"
    yield ""
    for what, true in judged.cases.items():
        yield f"- {what}: {'true' if true else 'false'}"
    yield ""
    yield "| number | value | |"
    yield "|---|---|---|"
    for name, number in judged.numbers.items():
        if number.origin is not Origin.RUN:  # it would differ from machine to machine
            yield f"| {name} | {number} | {number.origin.value} |"
    yield ""
    for command in claim.commands:
        yield f"    {command}"
    yield ""
