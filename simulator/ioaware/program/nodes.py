"""The recorded loop nest: tensors in HBM, values on chip, and the four kinds of node that every reader walks."""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from ..errors import ProgramError
from ..sizes import ONE, Size, product
from .loops import Axis, Index, Number, Pages, SameRows, Tiles, Visible

if TYPE_CHECKING:
    from .recorder import Recorder

Shape: TypeAlias = tuple[Size, ...]
Where: TypeAlias = Index | Number | Visible | Pages | SameRows | slice


# ------------------------------------------------------------------------------------------------ tensors in HBM
@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor in HBM. `dtype` is a role (io, score, accum, stat, byte) that the problem turns into a number format."""

    name: str
    axes: tuple[Axis, ...]
    dtype: str
    role: str  # input | output | scratch
    shared: bool = False  # the same for every sequence of the batch

    def __getitem__(self, where: Where | tuple[Where, ...]) -> Piece:
        return Piece(self, where if isinstance(where, tuple) else (where,))


class Piece:
    """A rectangular piece of a tensor. Leading indices first; missing trailing ones mean `:`."""

    __slots__ = ("shape", "tensor", "where")

    def __init__(self, tensor: Tensor, where: tuple[Where, ...]) -> None:
        if len(where) > len(tensor.axes):
            fail(f"{tensor.name} has {len(tensor.axes)} axes, {len(where)} indices are given")
        where += (slice(None),) * (len(tensor.axes) - len(where))
        self.tensor, self.where = tensor, where
        kept = [_extent(tensor, n, axis, w) for n, (axis, w) in enumerate(zip(tensor.axes, where, strict=True))]
        self.shape: Shape = tuple(s for s in kept if s is not None)


def _extent(tensor: Tensor, n: int, axis: Axis, where: Where) -> Size | None:
    """The extent of one axis of a piece; None where a single position removes the axis."""
    match where:
        case Index():
            if where.axis != axis:
                fail(f"{tensor.name}: axis {n} is {axis}, but index {where} walks {where.axis}")
            if isinstance(where.over, Tiles):
                return where.rows
            return fail(f"{tensor.name}: axis {n} ({axis}) is walked in tiles; use p.tiles") if axis.tiled else None
        case Visible():
            if where.tiles.axis != axis:
                fail(f"{tensor.name}: axis {n} is {axis}, but the visible tiles are of {where.tiles.axis}")
            return where.rows
        case Pages():
            return where.rows
        case SameRows():
            if axis.name != "q_len":
                fail(f"{tensor.name}: axis {n} is {axis}, but p.same_rows is of queries")
            return where.rows
        case Number():
            return None
        case slice(start=None, stop=None, step=None):
            return axis.length
    return fail(f"{tensor.name}: index {where!r} is neither a loop index, .number, p.seen(...) nor `:`")


# ------------------------------------------------------------------------------------------------ values on chip
class Value:
    """A tile on chip, with NumPy's notation and broadcasting.

    Two conventions make rows without a visible key harmless: -inf - x = -inf, and 0 / 0 = 0.
    """

    __slots__ = ("carried", "file", "line", "of", "program", "scope", "shape", "source", "turned")

    def __init__(
        self,
        program: Recorder,
        shape: Shape,
        where: tuple[int, str],
        *,
        carried: bool = False,
        source: Tensor | None = None,
        of: Value | None = None,
        turned: bool = False,
    ) -> None:
        self.program, self.shape = program, shape
        self.line, self.file = where
        self.carried = carried  # made by p.zeros or p.full: may be updated in place
        self.source = source  # the tensor it was loaded from; None if it was computed
        self.of = of  # what it is a view of: its transpose if `turned`, else its first columns
        self.turned = turned
        self.scope: object = of.scope if of is not None else program.scopes[-1]

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, Value) else self.__lt__(other)

    def __hash__(self) -> int:
        return id(self)

    def __lt__(self, other: object) -> bool:
        fail("a program cannot compare values: the loop body is recorded once, for all iterations; use p.mask")

    __gt__ = __le__ = __ge__ = __lt__

    @property
    def words(self) -> Size:
        """How many elements it has."""
        return product(self.shape)

    @property
    def base(self) -> Value:
        """The value that holds the elements; it may be a view."""
        return self if self.of is None else self.of.base

    @property
    def dtype(self) -> str:
        """Its role: what it was loaded as, or `accum` for everything computed."""
        source = self.base.source
        return source.dtype if source is not None else "accum"

    @property
    def T(self) -> Value:
        """The transpose of a matrix: a view, no data moves."""
        if len(self.shape) != 2:
            fail(f".T needs a matrix, this is {show(self.shape)}")
        return Value(self.program, self.shape[::-1], (self.line, self.file), of=self, turned=True)

    def columns(self, axis: Axis) -> Value:
        """The first columns of a matrix, as many as `axis` is long: a view, no data moves."""
        if len(self.shape) != 2:
            fail(f".columns needs a matrix, this is {show(self.shape)}")
        self.program.used.add("columns")
        return Value(self.program, (self.shape[0], axis.length), (self.line, self.file), of=self)

    def __add__(self, other: Operand) -> Value:
        return self.program.map("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.program.map("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.program.map("sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.program.map("sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.program.map("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.program.map("mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.program.map("div", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.program.dot(self, other)

    def __iadd__(self, other: Operand) -> Value:
        return self.program.update("add", self, other)

    def __imul__(self, other: Operand) -> Value:
        return self.program.update("mul", self, other)

    def __setitem__(self, where: object, value: Operand) -> None:
        if where != slice(None):
            fail("only a whole value can be set: m[:] = ...")
        self.program.update("set", self, value)

    def __bool__(self) -> bool:
        fail("a program cannot branch on a value: the loop body is recorded once, for all iterations")


Operand: TypeAlias = Value | float | str  # a str names a problem constant: "scale"


# ------------------------------------------------------------------------------------------------ nodes
@dataclass(eq=False)
class Loop:
    """A loop over one index. With `kernel`, its iterations are thread blocks of that kernel launch."""

    index: Index
    body: list[Node]
    line: int
    kernel: str | None = None
    dies: tuple[Value, ...] = ()  # values whose last use is inside


@dataclass(eq=False)
class Load:
    """HBM to chip."""

    out: Value
    piece: Piece
    line: int
    file: str
    kept_by: Index | None = None  # the back-and-forth loop at whose turns the piece is on chip already
    dies: tuple[Value, ...] = ()


@dataclass(eq=False)
class Store:
    """Chip to HBM; with `adds`, an atomic read-modify-write."""

    piece: Piece
    value: Value
    line: int
    file: str
    adds: bool = False
    dies: tuple[Value, ...] = ()


@dataclass(eq=False)
class Op:
    """An on-chip operation. `update` writes `out` in place with the operation named in `extra[0]`."""

    kind: str
    out: Value
    args: tuple[Operand, ...]
    line: int
    extra: tuple[Any, ...] = ()
    dies: tuple[Value, ...] = ()
    fused: bool = False  # a product accumulated where it is made: it needs no room of its own
    reuses: Value | None = None  # an operand that dies here and whose room the result takes


Node: TypeAlias = Loop | Load | Store | Op


class Frame(NamedTuple):
    """A loop body that is being recorded: its nodes, its scope, and the loop indices that it knows."""

    body: list[Node]
    scope: object
    indices: tuple[Index, ...]


def show(shape: Shape) -> str:
    """A shape as the message shows it."""
    return "[" + ", ".join(map(str, shape)) + "]"


def broadcast(kind: str, a: Shape, b: Shape) -> Shape:
    """NumPy's broadcasting of equal ranks: sizes are equal, or one of them is 1."""
    if len(a) != len(b) or any(x != y and ONE not in (x, y) for x, y in zip(a, b, strict=True)):
        fail(f"{kind}: shapes {show(a)} and {show(b)} do not fit")
    return tuple(y if x == ONE else x for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------ where the user is
_HOME = __name__.rpartition(".")[0]


def user_line() -> tuple[int, str]:
    """(line, file) of the program text that is being recorded: the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").startswith(_HOME) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_lineno, frame.f_code.co_filename


def fail(why: str, line: int | None = None, file: str = "") -> NoReturn:
    """Refuse the program at the line that is being recorded."""
    if line is None:
        line, file = user_line()
    raise ProgramError(f"line {line}: `{linecache.getline(file, line).strip()}`: {why}")
