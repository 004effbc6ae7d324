"""execute: run the recorded program on NumPy arrays, in the declared number formats, counting as it goes.

It enumerates every iteration, so it is the independent witness for `count`: it returns the outputs, the traffic that
really happened and the on-chip high-water mark, and refuses races, reads of unwritten elements and unwritten outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dropout import keep_mask
from ..dtypes import numpy_dtype
from ..errors import InputError, ProgramError
from ..precision.formats import rounded
from ..problem import AttentionProblem
from ..program.loops import Axis, Index, Number, Pages, SameRows, Tiles, Visible
from ..program.nodes import Load, Loop, Node, Op, Operand, Store, Tensor, Value
from ..program.recorder import Program
from ..traffic import Moved, Traffic
from .evaluate import TileSizes
from .legal import check_legal
from .onchip import OnChip
from .storage import Storage
from .walk import Array, Walk


@dataclass(frozen=True)
class Run:
    """What a run produced: HBM tensors by name, traffic in bytes, on-chip high-water marks in bytes."""

    tensors: dict[str, Array]
    traffic: Traffic
    on_chip: OnChip


def execute(program: Program, problem: AttentionProblem, tiles: TileSizes, inputs: Mapping[str, Array]) -> Run:
    """Run the program on packed inputs (shapes: see `reference.shapes`). Raises ProgramError."""
    check_legal(program, problem, tiles)
    machine = Machine(program, problem, tiles, inputs)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        machine.run(program.body)
    machine.check_outputs()
    moved = {name: Moved(*(machine.moved[name, kind] for kind in ("read", "write", "add"))) for name in machine.hbm}
    return Run(machine.hbm, Traffic(moved), OnChip(*(machine.peak[k] for k in ("total", "loaded", "computed"))))


CONFLICTS = {"read": ("write", "add"), "write": ("write", "read", "add"), "add": ("write", "read")}
VERBS = {"read": "load", "write": "store to", "add": "add to"}
NOBODY, SEVERAL = -1, -2  # who touched an element in this launch, if it is not one thread block


def saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    """`x` in a number format; fp8_e4m3 has no infinity and saturates, as GPUs convert to it."""
    if dtype.name == "float8_e4m3fn":
        x = np.clip(x, -448.0, 448.0)
    out: Array = x.astype(dtype)
    return out


def _sub(a: Array, b: Array) -> Array:
    out = a - b
    return np.where(np.isneginf(np.broadcast_to(a, out.shape)), -np.inf, out)  # -inf - x = -inf


def _div(a: Array, b: Array) -> Array:
    out = a / b
    empty = (np.broadcast_to(a, out.shape) == 0) & (np.broadcast_to(b, out.shape) == 0)
    return np.where(empty, 0.0, out)  # 0 / 0 = 0


def _lazy_maximum(m: Array, new: Array) -> Array:
    return np.where((m >= new) | (new - m <= LAZY), m, new)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": _sub, "mul": np.multiply, "div": _div, "maximum": np.maximum, "exp": np.exp, "log": np.log,
    "dot": np.matmul, "rowmax": lambda x: x.max(-1, keepdims=True, initial=-np.inf),
    "rowsum": lambda x: x.sum(-1, keepdims=True), "lazy_maximum": _lazy_maximum,
    "elu_plus_1": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
}  # fmt: skip
LAZY = 8 * float(np.log(2))  # FlashAttention-4 rescales where a maximum grows by more than 2^8


def _meshed(where: list[Any], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """An index whose arrays and slices are axes of the result in their order; a number removes its axis."""
    kept = [n for n, w in enumerate(where) if not isinstance(w, int)]
    out = list(where)
    for axis, n in enumerate(kept):
        positions = np.arange(shape[n])[where[n]] if isinstance(where[n], slice) else where[n]
        out[n] = positions.reshape([-1 if other == axis else 1 for other in range(len(kept))])
    return tuple(out)


class Machine(Walk):
    """HBM tensors, on-chip values, and the books kept about both."""

    def __init__(
        self, program: Program, problem: AttentionProblem, tiles: TileSizes, inputs: Mapping[str, Array]
    ) -> None:
        super().__init__(program, problem, tiles)
        self.accum, self.score = numpy_dtype(problem.accum_dtype), numpy_dtype(str(problem.score_dtype))
        self.in_tf32 = {role for role in ("io", "score") if problem.number_format(role) == "tf32"}
        self.hbm: dict[str, Array] = {}
        self.written: dict[str, Array] = {}
        self.touched: dict[str, dict[str, Array]] = {}  # {tensor: {kind of access: the thread block, by element}}
        self.moved: Counter[tuple[str, str]] = Counter()
        self.values: dict[Value, Array] = {}
        self.held: set[Value] = set()  # values that take room of their own
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.block, self.kernel = 0, ""
        self.storage = Storage(problem, inputs)
        inputs = {**inputs, **self.storage.added()}
        for tensor in program.tensors.values():
            if tensor.role == "input" and tensor.name not in inputs:
                raise ProgramError(f"{program.name} needs the input {tensor.name}; inputs: {', '.join(inputs)}")
        for tensor in program.tensors.values():
            self._allocate(tensor, inputs)

    def _allocate(self, tensor: Tensor, inputs: Mapping[str, Array]) -> None:
        shape = tuple(self._length(tensor, axis) for axis in tensor.axes)
        if tensor.role == "input":
            x = np.asarray(inputs[tensor.name])
            if x.shape != shape:
                raise InputError(f"input {tensor.name} has shape {x.shape}; this problem's is {shape}")
            if tensor.dtype == "kv":
                x = self.storage.narrow[tensor.name][0]
            else:
                x = saturated(x, numpy_dtype(self.problem.number_format(tensor.dtype)))
            self.hbm[tensor.name] = self.storage.in_pages(x) if self.storage.is_paged(tensor) else x
            return
        dtype = numpy_dtype(self.problem.number_format(tensor.dtype))
        self.hbm[tensor.name] = np.zeros(shape, dtype)
        self.written[tensor.name] = np.zeros(shape, bool)
        self.touched[tensor.name] = {kind: np.full(shape, NOBODY) for kind in CONFLICTS}

    def _length(self, tensor: Tensor, axis: Axis) -> int:
        """Packed rows of all sequences; but S, P and numbers of tiles are local to a sequence: the longest one's."""
        each = [{"q_len": q, "kv_len": kv} for q, kv in self.problem.sequences]
        lengths = [self.number(axis.length, one) for one in each]
        return sum(lengths) if axis.tiled and not self._is_local(tensor, axis) else max(lengths)

    @staticmethod
    def _is_local(tensor: Tensor, axis: Axis) -> bool:
        return tensor.shared or (axis.name == "kv_len" and any(a.name == "q_len" for a in tensor.axes))

    # -------------------------------------------------------------------------------------------- control
    def run(self, body: list[Node]) -> None:
        for node in body:
            if isinstance(node, Loop):
                self._loop(node)
            else:
                self._node(node)
            for value in node.dies:
                self._release(value)

    def _loop(self, loop: Loop) -> None:
        innermost = loop.kernel is not None and not (isinstance(loop.body[0], Loop) and loop.body[0].kernel)
        if loop.kernel is not None and loop.kernel != self.kernel:
            self.kernel = loop.kernel
            for blocks in (b for kinds in self.touched.values() for b in kinds.values()):
                blocks.fill(NOBODY)
        for span in self.iterations(loop.index):
            self.at[loop.index] = span
            self.block += innermost
            self.run(loop.body)

    def _node(self, node: Node) -> None:
        match node:
            case Load():
                self._load(node)
            case Store():
                self._store(node)
            case Op():
                self._op(node)

    # -------------------------------------------------------------------------------------------- HBM
    def _piece(self, node: Load | Store) -> tuple[Any, ...]:
        """The NumPy index of a piece."""
        tensor = node.piece.tensor
        where = [self._positions(tensor, axis, w) for axis, w in zip(tensor.axes, node.piece.where, strict=True)]
        return (
            _meshed(where, self.hbm[tensor.name].shape)
            if any(isinstance(w, np.ndarray) for w in where)
            else tuple(where)
        )

    def _positions(self, tensor: Tensor, axis: Axis, where: Any) -> Any:
        shift = self.sequence.side(axis)[0] if axis.tiled and self._is_local(tensor, axis) else 0
        match where:
            case Index(over=Tiles()) if axis.name == "kv_len" and self.storage.is_paged(tensor):
                return self.storage.rows(self.at[where], self.sequence)
            case Pages(index=index):
                first = self.sequence.page_start + (self.at[index].start - self.sequence.kv_start) // self.storage.page
                return slice(first, first + self.number(where.rows))
            case SameRows(index=index):
                shift = self.sequence.kv_start - self.sequence.q_start
                return slice(self.at[index].start - shift, self.at[index].stop - shift)
            case Index(over=Tiles()):
                return slice(self.at[where].start - shift, self.at[where].stop - shift)
            case Index():
                return self.at[where].start
            case Number(index=index):
                return self.at[index].number
            case Visible():
                positions = self.columns(where) - shift
                if len(positions) and positions[-1] - positions[0] + 1 != len(positions):
                    return positions
                return slice(positions[0], positions[-1] + 1) if len(positions) else slice(0, 0)
        if not axis.tiled:
            return slice(None)
        start, length = self.sequence.side(axis)
        return slice(start - shift, start - shift + length)

    def _move(self, node: Load | Store, kind: str, x: Array) -> None:
        self.moved[node.piece.tensor.name, kind] += self._bytes_of(x, node.piece.tensor.dtype)

    def _bytes_of(self, x: Array, role: str) -> int:
        if role == "kv":  # a row of a narrow cache is a whole number of bytes
            return int(x.size // x.shape[-1] * -(-x.shape[-1] * self.problem.kv_bits // 8))
        return x.size * self.problem.itemsize(role)

    def _load(self, node: Load) -> None:
        name, where = node.piece.tensor.name, self._piece(node)
        if name in self.written and not self.written[name][where].all():
            raise ProgramError(f"line {node.line}: {name} is read before it was stored")
        self._claim(node, "read", name, where)
        x = self.hbm[name][where]
        if node.kept_by is None or self.fetched[node.kept_by]:
            self._move(node, "read", x)
        self._release(node.out)  # a tile kept at a turn makes room for the next one
        self.values[node.out] = x.astype(self.accum)
        self._hold(node.out, None)

    def _store(self, node: Store) -> None:
        name, where = node.piece.tensor.name, self._piece(node)
        x = self._get(node.value)
        if node.adds:
            if not self.written[name][where].all():
                raise ProgramError(f"line {node.line}: adds to {name} before it was stored")
            self._claim(node, "add", name, where)
            self.hbm[name][where] += x.astype(self.hbm[name].dtype)
        else:
            self._claim(node, "write", name, where)
            self.hbm[name][where] = saturated(x, self.hbm[name].dtype)
            self.written[name][where] = True
        self._move(node, "add" if node.adds else "write", x)

    def _claim(self, node: Load | Store, kind: str, name: str, where: tuple[Any, ...]) -> None:
        """Two thread blocks of one kernel launch must not touch the same element, unless both read or both add."""
        if name not in self.touched:
            return
        for other in CONFLICTS[kind]:
            blocks = self.touched[name][other][where]
            if ((blocks != NOBODY) & (blocks != self.block)).any():
                both = VERBS[kind] if kind == other else f"{VERBS[other]} and {VERBS[kind]}"
                raise ProgramError(
                    f"line {node.line}: two thread blocks of {self.kernel!r} {both} the same elements of {name}; "
                    "use p.add, another grid or another kernel launch"
                )
        mine = self.touched[name][kind][where]
        shared = (mine != NOBODY) & (mine != self.block)
        self.touched[name][kind][where] = np.where(shared, SEVERAL, self.block)

    def check_outputs(self) -> None:
        """Every element of every output was stored."""
        for tensor in self.program.tensors.values():
            missing = int((~self._must_be_written(tensor)).sum()) if tensor.role == "output" else 0
            if missing:
                total = self.written[tensor.name].size
                raise ProgramError(
                    f"{self.program.name}: {missing:,} of {total:,} elements of the output {tensor.name} were never "
                    "stored; every query row and every key row needs its store"
                )

    def _must_be_written(self, tensor: Tensor) -> Array:
        """Saved S, P and masks may lack the tiles that the mask hides; everything else is whole."""
        written = self.written[tensor.name]
        return written if not any(self._is_local(tensor, axis) for axis in tensor.axes) else np.ones(1, bool)

    # -------------------------------------------------------------------------------------------- on chip
    def _get(self, a: Operand) -> Any:
        if isinstance(a, Value):
            if a.of is None:
                return self.values[a]
            return self._get(a.of).T if a.turned else self._get(a.of)[:, : self.number(a.shape[1])]
        return self.accum.type(self.problem.scale) if a == "scale" else a

    def _op(self, op: Op) -> None:
        args = [self._get(a) for a in op.args]
        x = self._result(op, args)
        if op.kind == "update":
            x = np.broadcast_to(x, self.values[op.out].shape)
        self.values[op.out] = np.asarray(x, self.accum)
        if op.kind != "update" and not op.fused:
            self._hold(op.out, op.reuses)

    def _result(self, op: Op, args: list[Any]) -> Any:
        match op.kind:
            case "full":
                return np.full([self.number(s) for s in op.out.shape], op.extra[0], self.accum)
            case "dot":
                return OPERATIONS["dot"](*(self._rounded(a, x) for a, x in zip(op.args, args, strict=True)))
            case "mask":
                i, j = (self.columns(e) for e in op.extra)
                return np.where(self.sees(i, j), args[0], -np.inf)
            case "hide":
                return np.where(self.sees(*(self.columns(e) for e in op.extra)), args[0], 0.0)
            case "softcap":
                return self.problem.softcap * np.tanh(args[0] / self.problem.softcap)
            case "uncap":
                return args[0] * (1 - np.tanh(args[1] / self.problem.softcap) ** 2)
            case "alibi":
                return args[0] - self._per_row(args[1], op.extra[0]) * self._distances(*op.extra)
            case "per_row":
                return self._per_row(args[0], op.extra[0])
            case "drop":
                return args[0] * self._keep(op) / (1 - self.problem.dropout)
            case "keep":
                return self._keep(op)
            case "kept":
                return args[0] * args[1] / (1 - self.problem.dropout)
            case "update":
                return args[0] if op.extra == ("set",) else OPERATIONS[op.extra[0]](*args)
        return OPERATIONS[op.kind](*args)

    def _rounded(self, a: Operand, x: Array) -> Array:
        """Matrix units take computed inputs in the score format and loaded tiles in theirs, and accumulate wider.

        Loaded tiles have been rounded to their format already, but for tf32, which memory holds as fp32.
        """
        assert isinstance(a, Value)
        source = a.base.source
        if (source.dtype if source else "score") in self.in_tf32:
            return rounded(x, "tf32").astype(self.accum)
        return x if source else saturated(x, self.score).astype(self.accum)

    def _keep(self, op: Op) -> Array:
        h, g, i, j = op.extra
        head = self.at[h].start * self.problem.group + self.at[g].start
        return keep_mask(self.problem, head, self.columns(i), self.columns(j))

    def _per_row(self, per_head: Array, i: Index) -> Array:
        """A number of each head of the rows of a tile, as a column: packed rows are of several heads."""
        column: Array = per_head[self._local(i) % self.problem.pack]
        return column

    def _distances(self, i: Index, j: Index) -> Array:
        """|q + kv_len - q_len - k| of every query and key of two tiles, for ALiBi."""
        pack, s = self.problem.pack, self.sequence
        own = self._local(i) // pack + (s.kv_len - s.q_len // pack)
        distance: Array = np.abs(own[:, None] - (self.columns(j) - s.kv_start)[None])
        return distance

    def _local(self, i: Index) -> Array:
        return self.columns(i) - self.sequence.q_start

    def _hold(self, value: Value, reuses: Value | None) -> None:
        """Books a new value; the operand whose room it takes is still there, and is not counted twice."""
        self.held.add(value)
        for kind in ("total", _kind(value)):
            self.live[kind] += self._bytes(value)
            freed = self._bytes(reuses) if reuses in self.held and kind in ("total", _kind(reuses)) else 0
            self.peak[kind] = max(self.peak[kind], self.live[kind] - freed)

    def _bytes(self, value: Value) -> int:
        return self._bytes_of(self.values[value], value.dtype)

    def _release(self, value: Value) -> None:
        if value in self.held:
            self.held.discard(value)
            for kind in ("total", _kind(value)):
                self.live[kind] -= self._bytes(value)
        self.values.pop(value, None)


def _kind(value: Value) -> str:
    return "loaded" if value.source is not None else "computed"
