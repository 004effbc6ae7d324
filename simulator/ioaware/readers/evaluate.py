"""From closed forms to numbers: exact integers, by interpretation or by one compiled Python function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

from .. import masks
from ..problem import AttentionProblem
from ..program.nodes import Shape
from ..sizes import Atom, Ceil, Least, Name, Size, Whole, ceil, name, product
from .algebra import Statistic, Turned


class TileSizes(NamedTuple):
    """The schedule's numbers: rows of a query tile (B_r) and of a key tile (B_c), and into how many splits keys go."""

    q: int
    kv: int
    splits: int = 1

    def __str__(self) -> str:
        return f"{self.q}x{self.kv}" + (f", {self.splits} splits" if self.splits > 1 else "")


PARAMETERS = (
    "batch", "kv_heads", "group", "q_len", "kv_len", "head_dim", "value_dim", "tile_q", "tile_kv", "splits",
    "pack", "page_size", "kv_bits",
    "bytes_io", "bytes_score", "bytes_accum", "bytes_stat", "bytes_byte", "bytes_index", "statistics", "turns",
)  # fmt: skip


def size_of(role: str) -> Size:
    """The itemsize of a dtype role, as a parameter of the closed form."""
    return name(f"bytes_{role}")


def bytes_of(shape: Shape, role: str) -> Size:
    """The bytes of a piece. Rows of a narrow KV cache are whole bytes, whatever the bits of an element."""
    if role == "kv":
        return product(shape[:-1]) * ceil(shape[-1] * name("kv_bits"), 8)
    return product(shape) * size_of(role)


Statistics: TypeAlias = Callable[..., masks.Statistics]


class Evaluator:
    """Exact values of closed forms. The first call interprets them, later calls run them compiled.

    Compiling costs a thousand evaluations, and many forms are wanted once.
    """

    def __init__(self, sizes: Sequence[Size]) -> None:
        self.sizes = tuple(sizes)
        self.compiled: Callable[..., tuple[int, ...]] | None = None
        self.calls = 0

    def __call__(
        self,
        problem: AttentionProblem,
        length: tuple[int, int],
        sequences: int,
        tiles: TileSizes,
        statistics: Statistics | None = None,
    ) -> tuple[int, ...]:
        """The values for `sequences` sequences of one (q_len, kv_len), in the order in which the sizes were given.

        `statistics(q_len, kv_len, tile_q, tile_kv)` stands in for the mask's own where bounds are wanted.
        """
        q_len, kv_len = length
        of_mask = statistics or problem.band.statistics
        arguments = (
            sequences, problem.kv_heads, problem.group, q_len, kv_len, problem.head_dim, problem.value_dim,
            *tiles, problem.pack, problem.page_size or 1, problem.kv_bits, *problem.itemsizes,
            lambda tile_q, tile_kv: of_mask(q_len, kv_len, tile_q, tile_kv),
            lambda tile_q, tile_kv: problem.band.turns(q_len, kv_len, tile_q, tile_kv),
        )  # fmt: skip
        self.calls += 1
        if self.calls == 1:
            return self._interpreted(arguments)
        if self.compiled is None:
            self.compiled = compiled(self.sizes)
        return self.compiled(*arguments)

    def _interpreted(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        names = dict(zip(PARAMETERS, arguments, strict=True))
        return tuple(interpreted(e, names) for e in self.sizes)


def interpreted(e: Size, names: dict[str, Any]) -> int:
    """The value of a size, given the values of all PARAMETERS."""

    def value(a: Atom) -> int:
        match a:
            case Name(name):
                number: int = names[name]
                return number
            case Ceil(over, by):
                return -(-interpreted(over, names) // interpreted(by, names))
            case Least(left, right):
                return min(interpreted(left, names), interpreted(right, names))
            case Statistic(what, tile_q, tile_kv):
                sums = names["statistics"](interpreted(tile_q, names), interpreted(tile_kv, names))
                return int(getattr(sums, what))
            case Turned(what, tile_q, tile_kv):
                kept = names["turns"](interpreted(tile_q, names), interpreted(tile_kv, names))
                return int(getattr(kept, what))
            case Whole(inner):
                return interpreted(inner, names)
        raise TypeError(f"{a!r} has no value outside its loop")

    return sum(c * prod(map(value, m)) for m, c in e.terms.items())


def compiled(sizes: Sequence[Size]) -> Callable[..., tuple[int, ...]]:
    """One Python function of PARAMETERS for all sizes; what several of them mention is computed once."""
    hoisted: dict[str, str] = {}

    def hoist(text: str) -> str:
        return hoisted.setdefault(text, f"t{len(hoisted)}")

    def show(atom: Atom) -> str:
        if isinstance(atom, Name):
            return atom.name
        if isinstance(atom, Statistic):
            call, _, what = atom.python().rpartition(".")
            return f"{hoist(call)}.{what}"
        return hoist(atom.python())

    results = "".join(f"{s.joined(show, '*')}, " for s in sizes)
    lines = [f"    {variable} = {text}\n" for text, variable in hoisted.items()]
    source = f"def f({', '.join(PARAMETERS)}):\n{''.join(lines)}    return ({results})\n"
    namespace: dict[str, Any] = {}
    exec(compile(source, "<closed form>", "exec"), namespace)
    f: Callable[..., tuple[int, ...]] = namespace["f"]
    return f
