"""A trace as text, for Coq and for the extracted checker: lists, and for Coq numbers, are written once and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ioaware.readers.trace import Operation, Trace
from ioaware.readers.words import Entry, Other, Output, Score, Word

TOGETHER = 20  # operations of one Coq list: Coq reads long ones slowly


def ocaml_text(trace: Trace) -> Iterator[str]:
    """The lines that checker/main.ml reads; it says what they are."""
    lists = _lists(trace)

    def word(w: Word) -> str:
        match w:
            case Entry(tensor, row, column):
                return f"{tensor} {row} {column}"
            case Score(query, key):
                return f"P {query} {key} 0"
            case Output(query, column, keys):
                return f"O {query} {column} {lists[keys]}"
            case Other(number):
                return f"X {number}"

    yield f"{trace.memory} {trace.head_dim} {trace.value_dim}"
    yield from (" ".join(("list", *map(str, numbers))) for numbers in lists)
    yield from (f"row {row} {lists[keys]}" for row, keys in trace.rows)
    yield from (" ".join((o.verb, word(o.word), *map(word, o.dropped))) for o in trace.operations)


def coq_text(trace: Trace) -> Iterator[str]:
    """The lines of a Coq file that define the trace T, the visible keys E, and the number n of each `n` as _n."""
    lists = _lists(trace)

    def numbers(verb: str, *names: int) -> str:
        return " ".join((verb, *(f"_{n}" for n in names)))

    def word(w: Word) -> str:
        match w:
            case Entry(tensor, row, column):
                return numbers(tensor, row, column)
            case Score(query, key):
                return f"{numbers('Part QK', query, key)} L0"
            case Output(query, column, keys):
                return f"{numbers('Out', query, column)} L{lists[keys]}"
            case Other(number):
                return numbers("Other", number)

    def computed(w: Word) -> str:
        match w:
            case Score(query, key):
                return f"{numbers('Dot QK', query, key)} L0"
            case Output(query, column, ()):
                return numbers("Zero", query, column)
            case Output(query, column, keys):
                return f"{numbers('Accumulate', query, column)} L{lists[keys]}"
            case Other(number):
                return numbers("Misc", number)
        raise TypeError(f"{w!r} is not computed")

    def operation(o: Operation) -> str:
        made = computed(o.word) if o.verb == "compute" else f"{o.verb.capitalize()} ({word(o.word)})"
        return f"({made}, {_list(map(word, o.dropped))})"

    yield "From Coq Require Import List Arith.\nFrom IOAware Require Import Machine Checker.\nImport ListNotations."
    yield "Definition _0 := 0."
    yield from (f"Definition _{n + 1} := S _{n}." for n in range(_largest(trace)))
    yield from (f"Definition L{n} : list nat := {_list(f'_{x}' for x in numbers)}." for numbers, n in lists.items())
    yield f"Definition E : rows := {_list(f'(_{row}, L{lists[keys]})' for row, keys in trace.rows)}."
    starts = range(0, len(trace.operations), TOGETHER)
    for n in starts:
        yield f"Definition T{n} : trace := {_list(map(operation, trace.operations[n : n + TOGETHER]))}."
    yield f"Definition T : trace := {' ++ '.join(f'T{n}' for n in starts)}.\n"


def _lists(trace: Trace) -> dict[tuple[int, ...], int]:
    """Every list of numbers in the trace, and its own number; the columns of Q and K come first."""
    found: dict[tuple[int, ...], int] = {tuple(range(trace.head_dim)): 0}
    for _, keys in trace.rows:
        found.setdefault(keys, len(found))
    for operation in trace.operations:
        for word in (operation.word, *operation.dropped):
            if isinstance(word, Output):
                found.setdefault(word.keys, len(found))
    return found


def _largest(trace: Trace) -> int:
    """The largest number in the trace."""
    words = [operation.word for operation in trace.operations]
    found = {n for word in words for n in word if isinstance(n, int)}
    return max(
        found | {row for row, _ in trace.rows} | {key for _, keys in trace.rows for key in keys} | {trace.head_dim}
    )


def _list(items: Iterable[str]) -> str:
    return "[" + "; ".join(items) + "]"
