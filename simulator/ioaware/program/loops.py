"""What loops walk over: axes, axes cut into tiles, and the index that one iteration has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from ..sizes import ONE, Atom, Size, ceil, name, size


@dataclass(frozen=True)
class Axis:
    """A dimension of a tensor. Query and key axes are `tiled`: rows of the current sequence, walked in tiles."""

    name: str
    length: Size
    letter: str = "x"
    tiled: bool = False

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tiles:
    """An axis, or one tile of it again, cut into tiles of `step` rows; the last one is ragged."""

    span: Axis | Index
    step: Size
    seen_by: Index | None = None  # only the tiles visible to this index's tile (see `p.visible`)
    turns_with: Index | None = None  # back and forth: backwards where this index's tile is odd (see `p.serpentine`)

    @property
    def axis(self) -> Axis:
        """The axis that is cut."""
        return self.span if isinstance(self.span, Axis) else self.span.axis

    @property
    def count(self) -> Size:
        """How many tiles, were all of them visible."""
        return ceil(rows(self.span), self.step)

    def __str__(self) -> str:
        return f"{self.axis} in tiles of {self.step}"


Walk: TypeAlias = Axis | Tiles


@dataclass(frozen=True)
class Index:
    """One iteration of a loop: a tile of rows, or a single position of an untiled axis."""

    name: str
    over: Walk

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, float)):
            _no_branch()
        return isinstance(other, Index) and self.name == other.name and self.over == other.over

    def __bool__(self) -> bool:
        _no_branch()

    def __hash__(self) -> int:  # the name says nearly all; hashing what is walked would cost more than it tells apart
        return hash(self.name)

    @property
    def axis(self) -> Axis:
        """The axis that is walked."""
        return self.over.axis if isinstance(self.over, Tiles) else self.over

    @property
    def rows(self) -> Size:
        """How many rows the iteration has."""
        return rows(self)

    @property
    def number(self) -> Number:
        """The position of this tile among its siblings, as an index of a tensor that has one slot per tile."""
        return Number(self)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Number:
    """The position of a tile among its siblings (which key tile this is), not its rows."""

    index: Index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, float)):
            _no_branch()
        return isinstance(other, Number) and self.index == other.index

    def __bool__(self) -> bool:
        _no_branch()

    def __hash__(self) -> int:
        return hash(self.index)


@dataclass(frozen=True)
class Visible:
    """The rows of all tiles visible to an index's tile, taken together: a piece of a row of S."""

    tiles: Tiles
    to: Index

    @property
    def index(self) -> Index:
        """The index that a loop over these tiles would have."""
        return Index(f"{self.tiles.axis.letter}*", Tiles(self.tiles.span, self.tiles.step, self.to))

    @property
    def rows(self) -> Size:
        """How many rows the visible tiles have together."""
        return size(Seen(self.index, self.to, rows=True))


@dataclass(frozen=True)
class Pages:
    """The block table's entries of a key tile: which page of the cache each of its pages is."""

    index: Index

    @property
    def rows(self) -> Size:
        """How many pages the tile has; a tile is a whole number of pages, or lies in one."""
        return ceil(self.index.rows, name("page_size"))


@dataclass(frozen=True)
class SameRows:
    """The rows of the query axis at the positions of a key tile, in self-attention."""

    index: Index

    @property
    def rows(self) -> Size:
        """As many as the key tile has."""
        return self.index.rows


@dataclass(frozen=True)
class Extent(Atom):
    """How many rows the current tile of a loop has; ragged at the end of the axis."""

    index: Index

    def __str__(self) -> str:
        return f"|{self.index.name}|"


@dataclass(frozen=True)
class Seen(Atom):
    """Over the tiles of `index` visible to `other`'s tile: how many they are, or how many rows they have together."""

    index: Index
    other: Index
    rows: bool

    def __str__(self) -> str:
        return f"{'rows' if self.rows else 'tiles'} of {self.index.axis.letter} visible to {self.other.name}"


@dataclass(frozen=True)
class SeesLast(Atom):
    """1 if the last one of the tiles of `index`, which may be ragged, is visible to `other`'s tile, else 0."""

    index: Index
    other: Index

    def __str__(self) -> str:
        return f"last tile of {self.index.axis.letter} visible to {self.other.name}"


@dataclass(frozen=True)
class Fetched(Atom):
    """1 where a back-and-forth loop loads its tile, 0 at a turn, where the tile is on chip already."""

    index: Index

    def __str__(self) -> str:
        return f"fetched {self.index}"


@dataclass(frozen=True)
class Kept(Atom):
    """Over one walk of a back-and-forth loop: 1, or the tile's rows, if its first tile is on chip already."""

    index: Index
    rows: bool

    def __str__(self) -> str:
        return f"{'rows' if self.rows else 'tiles'} of {self.index.axis.letter} kept at the turn"


def _no_branch() -> NoReturn:
    from .nodes import fail

    fail("a program cannot branch on a loop index: the loop body is recorded once, for all iterations")


def rows(span: Axis | Index) -> Size:
    """The extent of an axis or of one iteration of a loop."""
    if isinstance(span, Axis):
        return span.length
    return size(Extent(span)) if isinstance(span.over, Tiles) else ONE
