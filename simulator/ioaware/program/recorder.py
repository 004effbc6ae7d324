"""The recorder: calling an algorithm's function once, with symbolic sizes, records its loop nest.

Three rules make one recording enough, and all of them are checked:
  * a loop body is recorded, not repeated: no Python `if` on data, no `break`;
  * state is carried only by updating `p.zeros` / `p.full` values in place (`acc += ...`, `m[:] = ...`);
  * a value lives on chip from the line that makes it to its last use, and never leaves the loop body that made it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import InputError, ProgramError, closest
from ..problem import ROLES, Features
from ..sizes import ONE, Size, ceil, name, size
from .attention import (
    ALWAYS_INPUT,
    BATCH,
    CACHE,
    GRADIENTS,
    GROUP,
    HEAD_DIM,
    KV_HEADS,
    KV_LEN,
    MODIFIERS,
    OPTIONAL,
    Q_LEN,
    TENSORS,
    UNIT,
    VALUE_DIM,
    AttentionOps,
    unsupported,
)  # fmt: skip
from .lifetimes import annotate
from .loops import Axis, Index, Number, Pages, SameRows, Tiles, Visible, Walk, rows
from .nodes import (
    Frame,
    Load,
    Loop,
    Node,
    Op,
    Operand,
    Piece,
    Shape,
    Store,
    Tensor,
    Value,
    broadcast,
    fail,
    show,
    user_line,
)
from .signature import signature


@dataclass(frozen=True, eq=False)
class Program:
    """A recorded algorithm: its tensors and its loop nest."""

    name: str
    function: Callable[..., None]
    file: str
    line: int
    features: Features
    tensors: dict[str, Tensor]
    body: list[Node]
    calls: frozenset[str] = frozenset()  # what the text uses of AttentionOps

    @property
    def backward(self) -> bool:
        """Whether it computes gradients: it is given dO."""
        return "dO" in self.tensors


@lru_cache(maxsize=1024)
def record(function: Callable[..., None], features: Features = Features()) -> Program:  # noqa: B008
    """Record an algorithm, once per function and features. Raises ProgramError at the line that breaks a rule."""
    recorder = Recorder(function, features)
    file, line = inspect.getsourcefile(function) or "?", function.__code__.co_firstlineno
    _call(function, recorder, file)
    if recorder.left_early:
        fail(
            "`break` or `return` leaves this loop, but a loop body is recorded once, for all iterations; "
            "to skip tiles use p.visible",
            recorder.left_early,
            file,
        )
    if not recorder.body:
        raise ProgramError(f"{function.__name__} launches no kernel: it needs a loop `for ... in p.kernel(...)`")
    refused = unsupported(function.__name__, features, recorder.used, recorder.tensors)
    if refused:
        raise refused
    annotate(recorder.body)
    calls = frozenset(recorder.used)
    return Program(function.__name__, function, file, line, features, recorder.tensors, recorder.body, calls)


def _call(function: Callable[..., None], recorder: Recorder, file: str) -> None:
    """Run the text; whatever it raises is told with its line."""
    try:
        function(recorder, **recorder.parameters)
    except (InputError, ProgramError):
        raise
    except Exception as e:
        from traceback import extract_tb

        lines = [frame.lineno for frame in extract_tb(e.__traceback__) if frame.filename == file]
        fail(f"{type(e).__name__}: {e}", lines[-1] if lines else function.__code__.co_firstlineno, file)


class Recorder(AttentionOps):
    """The `p` of a program text: axes, loops, memory and on-chip operations."""

    scale = "scale"  # 1 / sqrt(head_dim)
    batch, kv_heads, group = BATCH, KV_HEADS, GROUP
    q, kv, head_dim, value_dim, one = Q_LEN, KV_LEN, HEAD_DIM, VALUE_DIM, UNIT
    q_tiles, kv_tiles = Tiles(Q_LEN, name("tile_q")), Tiles(KV_LEN, name("tile_kv"))
    splits = Tiles(KV_LEN, ceil(ceil(name("kv_len"), name("tile_kv")), name("splits")) * name("tile_kv"))  # whole tiles

    def __init__(self, function: Callable[..., None], features: Features) -> None:
        self.features = features
        self.masked = features.masked
        self.modified = features.masked or any(getattr(features, what) for what in MODIFIERS)
        self.body: list[Node] = []
        self.scopes: list[object] = [object()]
        self.frames: list[Frame] = []
        self.hoists: dict[tuple[object, str], Value] = {}
        self.used: set[str] = set()  # the calls of AttentionOps that the text has
        self.active: list[Index] = []
        self.blocks: tuple[Index, ...] = ()  # the indices that number thread blocks
        self.launched = False  # inside a kernel launch
        self.replaying = False  # inside the second recording of a loop body
        self.kernels: set[str] = set()
        self.left_early: int | None = None
        self.tensors: dict[str, Tensor] = {}
        self.parameters = self._parameters(function)

    def __getattr__(self, name: str) -> Any:
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        fail(f"p has no {name!r}; did you mean {closest(name, known)!r}?")

    def _parameters(self, function: Callable[..., None]) -> dict[str, Tensor | None]:
        wanted = [n for n in inspect.signature(function).parameters if n != "p"]
        given: dict[str, Tensor | None] = {}
        for n in wanted:
            if n not in TENSORS:
                raise ProgramError(
                    f"{function.__name__}: no tensor is called {n!r}, the nearest is {closest(n, TENSORS)!r}; "
                    f"known: {', '.join(TENSORS)}"
                )
            absent = n in OPTIONAL and not self.features.dropout
            given[n] = None if absent else self._declare(n, "dO" in wanted)
        return given

    def _declare(self, n: str, backward: bool) -> Tensor:  # noqa: FBT001
        axes, dtype = TENSORS[n]
        is_input = n in ALWAYS_INPUT or (backward and n not in GRADIENTS)
        dtype = "kv" if n in CACHE and self.features.kv_scales else dtype
        self.tensors[n] = tensor = Tensor(n, axes, dtype, "input" if is_input else "output")
        return tensor

    # -------------------------------------------------------------------------------------------- memory
    def scratch(self, label: str, *axes: Axis, dtype: str = "accum") -> Tensor:
        """An HBM intermediate of dtype role `accum`, `score`, `io`, `stat` or `byte`; unwritten until stored."""
        if dtype not in ROLES:
            fail(f"dtype {dtype!r} is no role, the nearest is {closest(dtype, ROLES)!r}; roles: {', '.join(ROLES)}")
        if label in self.tensors:
            fail(f"a tensor called {label!r} exists already")
        self.tensors[label] = tensor = Tensor(label, axes, dtype, "scratch")
        return tensor

    def declared(self, label: str, axes: tuple[Axis, ...], dtype: str, *, shared: bool = False) -> Tensor:
        """An input that comes with a feature of the problem, not with a parameter of the text."""
        return self.tensors.setdefault(label, Tensor(label, axes, dtype, "input", shared))

    def load(self, *pieces: Piece) -> Any:
        """HBM to chip: one value per piece."""
        if any(isinstance(piece, Piece) and piece.tensor.name in CACHE for piece in pieces):
            self.used.add("uncached")
        out = self._read(*pieces)
        return out[0] if len(out) == 1 else out

    def _read(self, *pieces: Piece) -> list[Value]:
        out = []
        for piece in pieces:
            self._check_piece("load", piece)
            value = Value(self, piece.shape, user_line(), source=piece.tensor)
            self.body.append(Load(value, piece, value.line, value.file, self._kept_by(piece)))
            out.append(value)
        return out

    def hoisted(self, piece: Piece, *indices: Index) -> Value:
        """A piece read once, at the outermost place that knows `indices`, however often it is asked for inside."""
        self._check_piece("load", piece)
        frame = next(f for f in self.frames if set(indices) <= set(f.indices))
        key = frame.scope, piece.tensor.name
        if key not in self.hoists:
            value = Value(self, piece.shape, user_line(), source=piece.tensor)
            value.scope = frame.scope
            kept_by = self._kept_by(piece) if frame is self.frames[-1] else None
            frame.body.append(Load(value, piece, value.line, value.file, kept_by))
            self.hoists[key] = value
        return self.hoists[key]

    def _kept_by(self, piece: Piece) -> Index | None:
        """The back-and-forth loop around, if the piece does not depend on the tile that turns it."""
        j = self.active[-1] if self.active else None
        if j is None or not isinstance(j.over, Tiles) or j.over.turns_with is None:
            return None
        tiles = [w for w in piece.where if isinstance(w, Index)]
        return j if j in tiles and j.over.turns_with not in tiles else None

    def store(self, piece: Piece, value: Value) -> None:
        """Chip to HBM. Two thread blocks of a kernel may not store to the same element."""
        self._store(piece, value, adds=False)

    def add(self, piece: Piece, value: Value) -> None:
        """Atomic read-modify-write in HBM."""
        self._store(piece, value, adds=True)

    def _store(self, piece: Piece, value: Value, *, adds: bool) -> None:
        if not isinstance(value, Value):
            fail(f"only a value on chip can be stored, not {value!r}; p.zeros and p.full make one")
        self._check_piece("add" if adds else "store", piece)
        self._check_alive(value)
        tensor = piece.tensor
        if tensor.role == "input":
            fail(f"{tensor.name} is an input; it cannot be stored to")
        if piece.shape != value.shape:
            fail(f"the piece of {tensor.name} is {show(piece.shape)}, the value is {show(value.shape)}")
        self.body.append(Store(piece, value, *user_line(), adds))

    def _check_piece(self, verb: str, piece: object) -> None:
        if not isinstance(piece, Piece):
            fail(f"{verb} takes pieces of tensors, like Q[h, g, i]")
        if not self.launched:
            fail("memory is touched by thread blocks only: inside a loop `for ... in p.kernel(...)`")
        for where in piece.where:
            index: object = where.to if isinstance(where, Visible) else where
            if isinstance(where, (Number, Pages, SameRows)):
                index = where.index
            if isinstance(index, Index):
                self._check_active(index)

    # -------------------------------------------------------------------------------------------- on chip
    def full(self, shape: tuple[Axis | Index | int, ...], x: float) -> Value:
        """A carried value filled with `x`; shape of axes, loop indices and integers."""
        for s in shape:
            if isinstance(s, Index):
                self._check_active(s)
        sizes = tuple(rows(s) if isinstance(s, (Axis, Index)) else size(s) for s in shape)
        return self._op("full", sizes, extra=(x,), carried=True)

    def zeros(self, *shape: Axis | Index | int) -> Value:
        """A carried value of zeros."""
        return self.full(shape, 0.0)

    def map(self, kind: str, *args: Operand) -> Value:
        """An elementwise operation with broadcasting."""
        shape: Shape | None = None
        for a in args:
            if isinstance(a, Value):
                shape = a.shape if shape is None else broadcast(kind, shape, a.shape)
        assert shape is not None
        return self._op(kind, shape, *args)

    def rows(self, kind: str, x: Value) -> Value:
        """A reduction over the last axis, which stays with length 1."""
        return self._op(kind, (*x.shape[:-1], ONE), x)

    def dot(self, a: Value, b: Value) -> Value:
        """The matrix product of `a` with the matrix `b`."""
        if len(b.shape) != 2 or a.shape[-1] != b.shape[0]:
            fail(f"dot: {show(a.shape)} @ {show(b.shape)}: inner sizes {a.shape[-1]} and {b.shape[0]} differ")
        return self._op("dot", (*a.shape[:-1], b.shape[1]), a, b)

    def update(self, kind: str, target: Value, value: Operand) -> Value:
        """Change a carried value in place: add, mul or set."""
        if not target.carried:
            fail(f"the value of line {target.line} is not carried: only p.zeros/p.full values are updated in place")
        self._check_alive(target, value)
        if isinstance(value, Value) and broadcast(kind, target.shape, value.shape) != target.shape:
            fail(f"cannot put {show(value.shape)} into {show(target.shape)}")
        args = (value,) if kind == "set" else (target, value)
        self.body.append(Op("update", target, args, user_line()[0], (kind,)))
        return target

    def _op(self, kind: str, shape: Shape, *args: Operand, extra: tuple[Any, ...] = (), carried: bool = False) -> Value:
        if not self.launched:
            fail("values live in thread blocks: make them inside a loop `for ... in p.kernel(...)`")
        self._check_alive(*args)
        value = Value(self, shape, user_line(), carried=carried)
        self.body.append(Op(kind, value, args, value.line, extra))
        return value

    def _check_alive(self, *values: Operand) -> None:
        for v in values:
            if isinstance(v, Value) and v.scope not in self.scopes:
                fail(
                    f"this value was made on line {v.line}, inside a loop iteration that has ended: it is gone; "
                    "to carry it, make it before the loop with p.zeros/p.full and update it in place "
                    "(acc += ..., m[:] = ...)"
                )

    def _check_active(self, index: Index) -> None:
        if index not in self.active:
            fail(f"the loop over {index.over} has ended: its index {index} means nothing here")

    # -------------------------------------------------------------------------------------------- loops
    def tiles(self, span: Axis | Index, step: int | Size) -> Tiles:
        """An axis, or one tile of it again, in tiles of `step` rows; the last one is ragged."""
        axis = span.axis if isinstance(span, Index) else span
        if axis not in (Q_LEN, KV_LEN):
            fail(f"only queries and keys are cut into tiles; {axis} is walked one by one, or taken whole with `:`")
        if not isinstance(step, Size) and (not isinstance(step, int) or step < 1):
            fail(f"a step of {step} rows: a positive integer")
        return Tiles(span, size(step))

    def one_per(self, tiles: Tiles) -> Axis:
        """An axis with one position per tile, for scratch tensors; index it with `tile.number`."""
        return Axis(f"number of {tiles}", tiles.count)

    def seen(self, tiles: Tiles, i: Index) -> Visible:
        """The rows of all `tiles` visible to `i`'s tile, taken together, as an index of a piece."""
        self._check_visible(tiles, i)
        return Visible(tiles, i)

    def loop(self, *walks: Walk) -> Iterator[Any]:
        """A sequential loop; several walks nest, the first outermost."""
        return self._loop(None, walks)

    def kernel(self, label: str, *walks: Walk) -> Iterator[Any]:
        """One kernel launch; its iterations are thread blocks, each with on-chip memory of its own."""
        if self.active:
            fail("a kernel launch cannot be inside a loop")
        if label in self.kernels:
            fail(f"a kernel called {label!r} exists already; give this launch a name of its own")
        self.kernels.add(label)
        return self._loop(label, walks)

    def visible(self, tiles: Tiles, other: Index) -> Iterator[Any]:
        """A loop over the tiles with at least one pair visible to `other`'s tile; works from queries and from keys."""
        self._check_visible(tiles, other)
        return self._loop(None, (Tiles(tiles.span, tiles.step, other),))

    def serpentine(self, tiles: Tiles, other: Index) -> Iterator[Any]:
        """The loop of `p.visible` walked back and forth: forwards for even tiles of `other`, backwards for odd ones.

        At a turn the last tile is on chip already: what is loaded by this loop's index, and not by `other`, is not
        loaded again. `other` must be the loop just around, and one thread block must walk all of it.
        """
        self._check_visible(tiles, other)
        if self.active[-1] is not other or other in self.blocks:
            fail(
                f"p.serpentine keeps a tile from one iteration of {other} to the next: make {other} the p.loop just "
                "around it, not an index of p.kernel"
            )
        seen_by = other if self.masked else None  # where all tiles are visible, the turns have a closed form
        return self._loop(None, (Tiles(tiles.span, tiles.step, seen_by, other),))

    def _check_visible(self, tiles: object, other: object) -> None:
        walked = {x.axis for x in (tiles, other) if isinstance(x, Tiles) or (isinstance(x, Index) and x.axis.tiled)}
        if not isinstance(tiles, Tiles) or not isinstance(other, Index) or walked != {Q_LEN, KV_LEN}:
            fail("p.visible takes tiles and a loop index over tiles of the other axis, like p.visible(p.kv_tiles, i)")
        self._check_active(other)

    def _loop(self, label: str | None, walks: tuple[Walk, ...]) -> Iterator[Any]:
        line, outer, depth = user_line()[0], self.body, len(self.active)
        self.launched = self.launched or label is not None
        for walk in walks:
            self.active.append(Index(self._fresh(walk), walk))
        indices = tuple(self.active[depth:])
        self.blocks = indices if label is not None else self.blocks
        bodies, inside_replay = [], self.replaying
        # The second time finds Python variables carried from the first: they refer to a dead scope. While an outer loop
        # is at its second time, once is enough: its first time has checked this loop.
        for time in range(1 if inside_replay else 2):
            self.body, self.replaying = [], inside_replay or time == 1
            self.scopes.append(object())
            self.frames.append(Frame(self.body, self.scopes[-1], tuple(self.active)))
            try:
                yield indices[0] if len(indices) == 1 else indices
            except GeneratorExit:  # the text goes on behind this loop, so that the error names it and nothing else
                self.left_early = self.left_early or line
                self.body, self.launched, self.replaying = outer, self.launched and label is None, inside_replay
                del self.active[depth:]
                raise
            bodies.append(self.body)
            self.scopes.pop()
            self.frames.pop()
        del self.active[depth:]
        self.launched, self.replaying = self.launched and label is None, inside_replay
        if not inside_replay and signature(bodies[0]) != signature(bodies[1]):
            fail("the loop body changes from one iteration to the next")
        body = bodies[0]
        for index in reversed(indices):
            body = [Loop(index, body, line, label)]
        self.body = outer
        outer.extend(body)

    def _fresh(self, walk: Walk) -> str:
        axis = walk.axis if isinstance(walk, Tiles) else walk
        label = axis.letter
        while any(label == index.name for index in self.active):
            label += "'"
        return label
