"""Sizes: exact integer polynomials over named things: `head_dim`, `ceil(q_len / tile_q)`, the extent of a tile.

One value serves every reader: `python()` is compiled by `count`, `str()` is what people read, and each reader that
needs another notation (sympy, Coq) walks `terms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


class Atom:
    """An indivisible factor of a term. Subclasses are frozen dataclasses: compared by value, hashable."""

    __slots__ = ()

    def python(self) -> str:
        """The atom as a Python expression over the names of `count`'s arguments."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Name(Atom):
    """A parameter of the problem or of the schedule."""

    name: str

    def __str__(self) -> str:
        return SYMBOLS.get(self.name, self.name)

    def python(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Ceil(Atom):
    """ceil(over / by)."""

    over: Size
    by: Size

    def __str__(self) -> str:
        return f"⌈{_grouped(self.over)}/{_grouped(self.by)}⌉"

    def python(self) -> str:
        return f"-(-({self.over.python()})//({self.by.python()}))"


@dataclass(frozen=True, slots=True)
class Least(Atom):
    """min(a, b)."""

    a: Size
    b: Size

    def __str__(self) -> str:
        return f"min({self.a}, {self.b})"

    def python(self) -> str:
        return f"min({self.a.python()}, {self.b.python()})"


@dataclass(frozen=True, slots=True)
class Whole(Atom):
    """A size taken as one indivisible thing, so that sums of it stay short."""

    inner: Size

    def __str__(self) -> str:
        return f"({self.inner})"

    def python(self) -> str:
        return self.inner.python()


SYMBOLS = {  # the papers' letters, as people see them
    "q_len": "N_q", "kv_len": "N_k", "head_dim": "d", "value_dim": "d_v", "tile_q": "B_r", "tile_kv": "B_c",
    "batch": "b", "kv_heads": "h", "group": "g", "splits": "n_s",
}  # fmt: skip

Monomial: TypeAlias = tuple[Atom, ...]


class Size:
    """A sum of `integer * product of atoms`; immutable, hashable, compared by value."""

    __slots__ = ("_hash", "terms")
    terms: dict[Monomial, int]

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = {m: c for m, c in terms.items() if c}
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __add__(self, other: Size | int) -> Size:
        terms = dict(self.terms)
        for m, c in size(other).terms.items():
            terms[m] = terms.get(m, 0) + c
        return Size(terms)

    def __mul__(self, other: Size | int) -> Size:
        if isinstance(other, int):
            return Size({m: c * other for m, c in self.terms.items()})
        terms: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            for n, e in other.terms.items():
                key = tuple(sorted(m + n, key=str)) if m and n else m or n
                terms[key] = terms.get(key, 0) + c * e
        return Size(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __sub__(self, other: Size | int) -> Size:
        return self + size(other) * -1

    def atoms(self) -> set[Atom]:
        """Every atom of every term."""
        return {a for m in self.terms for a in m}

    def all_atoms(self) -> Iterator[Atom]:
        """Every atom, those inside other atoms too."""
        for atom in self.atoms():
            yield atom
            slots: tuple[str, ...] = atom.__slots__
            for inner in (getattr(atom, slot) for slot in slots):
                if isinstance(inner, Size):
                    yield from inner.all_atoms()

    def map(self, f: Callable[[Atom], Size]) -> Size:
        """The size with every atom `a` replaced by `f(a)`."""
        total = size(0)
        for m, c in self.terms.items():
            term = size(c)
            for a in m:
                term = term * f(a)
            total = total + term
        return total

    def python(self) -> str:
        """The size as a Python expression."""
        return self.joined(lambda a: f"({a.python()})", "*")

    def joined(self, show: Callable[[Atom], str], times: str) -> str:
        """The sum written out, each atom by `show`."""
        if not self.terms:
            return "0"
        return " + ".join(
            times.join(([str(c)] if c != 1 or not m else []) + [show(a) for a in m]) for m, c in self.terms.items()
        )

    def __str__(self) -> str:  # sorted, so that equal sizes read the same
        parts = sorted((c < 0, -len(m), Size({m: c}).joined(str, "·")) for m, c in self.terms.items())
        return " + ".join(text for _, _, text in parts).replace("-1·", "-").replace("+ -", "- ") or "0"

    __repr__ = __str__

    def __bool__(self) -> bool:
        return bool(self.terms)


def _grouped(e: Size) -> str:
    text = str(e)
    return f"({text})" if len(e.terms) > 1 or "·" in text else text


def size(x: Size | Atom | int) -> Size:
    """A number, an atom or a size, as a size."""
    if isinstance(x, Size):
        return x
    return Size({(): x}) if isinstance(x, int) else Size({(x,): 1})


def name(text: str) -> Size:
    """The parameter of that name."""
    return size(Name(text))


def ceil(over: Size | int, by: Size | int) -> Size:
    """ceil(over / by), simplified where nothing is divided."""
    over, by = size(over), size(by)
    if by == ONE:
        return over
    return ONE if over == by else size(Ceil(over, by))


def least(a: Size, b: Size) -> Size:
    """min(a, b), simplified where both are the same."""
    return a if a == b else size(Least(a, b))


def product(factors: tuple[Size, ...]) -> Size:
    """The product of a shape: how many elements it has."""
    out = ONE
    for factor in factors:
        out = out * factor
    return out


ONE = size(1)
