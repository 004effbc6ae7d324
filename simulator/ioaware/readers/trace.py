"""trace: a run of a recorded program as operations of the two-level machine that the proofs are about.

It walks the program as `execute` does, with words in place of numbers. Every element that a thread block loads, stores
or computes is an operation, and every word is dropped when the last value that holds it dies. The trace is checked by
`ioaware prove --trace`; that it belongs to the program is tested (loads and stores are what `count` says), not proved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError, ProgramError
from ..problem import AttentionProblem
from ..program.loops import Index, Visible
from ..program.nodes import Load, Op, Store, Tensor, Value
from ..program.recorder import Program
from .count import count
from .evaluate import TileSizes
from .execute import CONFLICTS, NOBODY, Machine
from .walk import Array
from .words import Cell, Entry, Other, Output, Score, Word, combined, product, vector

MOST_OPERATIONS = 1_000_000  # a quarter of a minute, half a gigabyte


class Operation(NamedTuple):
    """One operation, and the words that are dropped after it."""

    verb: str  # load, store, compute
    word: Word
    dropped: list[Word]


@dataclass(frozen=True)
class Trace:
    """A schedule in the machine's terms, and what it claims: M words of fast memory, loads and stores in words."""

    operations: list[Operation]
    memory: int  # M: the most words held
    loads: int
    stores: int
    rows: list[tuple[int, tuple[int, ...]]]  # each query row with the keys that it sees, both numbered over all heads
    head_dim: int
    value_dim: int


class Words(NamedTuple):
    """How many words are read from and written to HBM."""

    loads: int
    stores: int


def counted(program: Program, problem: AttentionProblem, tiles: TileSizes) -> Words:
    """What `count` says about a program, in words; an atomic add is one of each."""
    moved = count(program, problem, tiles).tensors
    widths = {name: problem.itemsize(program.tensors[name].dtype) for name in moved}
    return Words(
        sum(m.read_bytes // widths[name] for name, m in moved.items()),
        sum(m.write_bytes // widths[name] for name, m in moved.items()),
    )


def trace(program: Program, problem: AttentionProblem, tiles: TileSizes) -> Trace:
    """The trace of a forward program. Raises InputError, ProgramError."""
    if program.backward:
        raise InputError(f"{program.name} is a backward pass: traces are of forward passes; use --direction fwd")
    if problem.padding:
        raise InputError("mask=padding: an additive mask is no word of the machine; the nearest that is one is full")
    if not problem.plain:
        raise InputError(
            "a score that is changed by more than a mask is no word of the machine, nor is a paged, narrow or latent "
            "cache; leave scale, soft cap, ALiBi, bias, sinks, packing and the cache's options out"
        )
    if sum(counted(program, problem, tiles)) > MOST_OPERATIONS:
        raise _too_long(program)
    tracer = _Tracer(program, problem, tiles)
    tracer.run(program.body)
    tracer.check_outputs()
    return tracer.finished()


class _Tracer(Machine):
    """The machine of `execute` with a `Cell` for each number."""

    def __init__(self, program: Program, problem: AttentionProblem, tiles: TileSizes) -> None:
        self.operations: list[Operation] = []
        self.holders: Counter[Word] = Counter()  # how many living cells hold a word: those that some hold are on chip
        self.most = self.others = 0
        self.fused: Op | None = None  # a product that the next operation accumulates
        self.late: list[Value] = []  # what dies with it
        super().__init__(program, problem, tiles, dict.fromkeys(("Q", "K", "V"), np.empty(0)))
        self.accum = np.dtype(object)

    def finished(self) -> Trace:
        """What was recorded."""
        verbs = Counter(operation.verb for operation in self.operations)
        most = max(self.most, len(self.holders))
        d, dv = self.problem.head_dim, self.problem.value_dim or 1
        return Trace(self.operations, most, verbs["load"], verbs["store"], list(self._rows()), d, dv)

    def _rows(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        q_total = sum(q for q, _ in self.problem.sequences)
        kv_total = sum(kv for _, kv in self.problem.sequences)
        for head in range(self.problem.heads):
            q, kv = head * q_total, head // self.problem.group * kv_total
            for q_len, kv_len in self.problem.sequences:
                sees = self.problem.band.sees(np.arange(q_len)[:, None], np.arange(kv_len)[None], q_len, kv_len)
                yield from ((q + n, tuple((kv + np.flatnonzero(row)).tolist())) for n, row in enumerate(sees))
                q, kv = q + q_len, kv + kv_len

    # -------------------------------------------------------------------------------------------- fast memory
    def _emit(self, verb: str, word: Word) -> None:
        if len(self.operations) == MOST_OPERATIONS:
            raise _too_long(self.program)
        if len(self.holders) > self.most:
            self.most = len(self.holders)
        self.operations.append(Operation(verb, word, []))

    def _take(self, word: Word) -> None:
        """One more cell holds the word; a word that none held is computed."""
        if word not in self.holders:
            self._emit("compute", word)
        self.holders[word] += 1

    def _leave(self, word: Word) -> None:
        """One cell less."""
        self.holders[word] -= 1
        if not self.holders[word]:
            del self.holders[word]
            self.operations[-1].dropped.append(word)

    def _turn(self, x: Array, at: int | tuple[int, ...], cell: Cell) -> None:
        """Another word takes the room of one."""
        self._take(cell.word)
        self._leave(x[at].word)
        x[at] = cell

    def _other(self, *, zero: bool = False) -> Cell:
        self.others += 1
        return Cell(Other(self.others - 1), zero)

    def _hold(self, value: Value, reuses: Value | None) -> None:
        """Words are booked where they are taken."""

    def _release(self, value: Value) -> None:
        if self.fused is not None:
            self.late.append(value)
        elif value in self.values:
            for cell in self.values.pop(value).flat:
                self._leave(cell.word)

    # -------------------------------------------------------------------------------------------- HBM
    def _allocate(self, tensor: Tensor, inputs: Mapping[str, Array]) -> None:
        del inputs
        shape = tuple(self._length(tensor, axis) for axis in tensor.axes)
        self.hbm[tensor.name] = np.empty(shape, object)
        if tensor.role == "input":
            places = (divmod(n, shape[-1]) for n in range(self.hbm[tensor.name].size))
            self.hbm[tensor.name] = _array([Cell(Entry(tensor.name, *place)) for place in places], shape)
            return
        self.written[tensor.name] = np.zeros(shape, bool)
        self.touched[tensor.name] = {kind: np.full(shape, NOBODY) for kind in CONFLICTS}

    def _load(self, node: Load) -> None:
        if node.kept_by is None or self.fetched[node.kept_by]:
            self._release(node.out)  # a tile kept at a turn makes room for the next one
            super()._load(node)

    def _move(self, node: Load | Store, kind: str, x: Array) -> None:
        for cell in x.flat:
            self._emit("load" if kind == "read" else "store", cell.word)
            if kind == "read":
                self.holders[cell.word] += 1

    def _store(self, node: Store) -> None:
        if node.adds:
            raise ProgramError(f"line {node.line}: an atomic add is no operation of the machine; load, add and store")
        if node.piece.tensor.name == "O":
            self._settle(node)
        super()._store(node)

    def _settle(self, node: Store) -> None:
        """What is stored to O must be the output of its place: zeros become empty sums, anything else is Other."""
        x, shape = self._get(node.value), self.hbm["O"].shape
        places = np.arange(self.hbm["O"].size).reshape(shape)[self._piece(node)]
        for at, cell in np.ndenumerate(x):
            place = divmod(int(places[at]), shape[-1])
            if isinstance(cell.word, Output) and cell.word[:2] == place:
                continue
            self._turn(x, at, Cell(Output(place[0], place[1], ())) if cell.zero else self._other())

    # -------------------------------------------------------------------------------------------- on chip
    def _op(self, op: Op) -> None:
        if op.fused:
            self.fused = op
            return
        results, room = self._results(op), self._room(op)
        cells = []
        for n, cell in enumerate(results):
            self._take(cell.word)
            cells.append(cell)
            if room is not None:
                self._leave(room.flat[n].word)
        if op.reuses is not None:
            del self.values[op.reuses]
        self.values[op.out] = _array(cells, tuple(self.number(s) for s in op.out.shape))
        self._end_fused(op)

    def _room(self, op: Op) -> Array | None:
        """The cells whose room the results take, one by one."""
        if op.kind == "update":
            return self.values[op.out]
        return None if op.reuses is None else self.values[op.reuses]

    def _end_fused(self, op: Op) -> None:
        if op.kind == "update" and self.fused is not None:
            self.fused = None
            for value in self.late:
                self._release(value)
            self.late = []

    def _results(self, op: Op) -> Iterator[Cell]:
        """The result's cells in order. A word is computed when the cell is taken, before the next one is asked for."""
        match op.kind:
            case "full":
                yield from (self._other(zero=op.extra[0] == 0) for _ in range(self._size(op)))
            case "rowmax" | "rowsum" | "keep":
                yield from (self._other() for _ in range(self._size(op)))
            case "dot":
                yield from self._dots(op)
            case "mask":
                yield from self._masked(op)
            case "update" if self.fused is not None:
                yield from self._accumulated(op.out, self.fused)
            case "update" if op.extra == ("set",):
                yield from np.broadcast_to(self._get(op.args[0]), self.values[op.out].shape).flat
            case kind:
                name = op.extra[0] if kind == "update" else {"kept": "mul"}.get(kind, kind)
                for operands in np.broadcast(*(self._get(a) for a in op.args)):
                    yield combined(name, operands) or self._other()

    def _size(self, op: Op) -> int:
        return self.number(op.out.words)

    def _masked(self, op: Op) -> Iterator[Cell]:
        i, j = (self.columns(e) for e in op.extra if isinstance(e, (Index, Visible)))
        x = self._get(op.args[0])
        for cell, seen in zip(x.flat, np.broadcast_to(self.sees(i, j), x.shape).flat, strict=True):
            yield cell if seen or not isinstance(cell.word, Score) else Cell(cell.word, void=True)

    def _dots(self, op: Op) -> Iterator[Cell]:
        for new in self._products(op):
            if isinstance(new, Output) and new.keys:  # a sum begins as an empty one
                self._take(new._replace(keys=()))
                yield Cell(new)
                self._leave(new._replace(keys=()))
            else:
                yield self._other() if new is None else Cell(new)

    def _accumulated(self, target: Value, product: Op) -> Iterator[Cell]:
        room = self.values[target].reshape(-1)
        for n, new in enumerate(self._products(product)):
            if isinstance(new, Output) and room[n].zero:
                self._turn(room, n, Cell(new._replace(keys=())))
            made = None if new is None else combined("add", (room[n], Cell(new)))
            yield made or self._other()

    def _products(self, op: Op) -> Iterator[Score | Output | None]:
        a, b = (self._get(x) for x in op.args)
        rows = [vector(row, self.problem.head_dim) for row in a.reshape(-1, a.shape[-1])]
        columns = [vector(column, self.problem.head_dim) for column in b.T]
        return (product(row, column) for row in rows for column in columns)


def _too_long(program: Program) -> InputError:
    return InputError(
        f"{program.name}: its trace has more than {MOST_OPERATIONS:,} operations; choose a shorter sequence, fewer "
        "heads or a smaller head dimension"
    )


def _array(cells: list[Cell], shape: tuple[int, ...]) -> Array:
    out = np.empty(len(cells), object)
    out[:] = cells
    return out.reshape(shape)
