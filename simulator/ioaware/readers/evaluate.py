"""From closed forms to numbers: sizes compiled once into one Python function of exact integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..masks import Statistics
from ..problem import AttentionProblem
from ..sizes import Atom, Name, Size, name
from .algebra import Statistic


class TileSizes(NamedTuple):
    """The schedule's two numbers: rows of a query tile (B_r) and of a key tile (B_c)."""

    q: int
    kv: int

    def __str__(self) -> str:
        return f"{self.q}x{self.kv}"


PARAMETERS = (
    "batch", "kv_heads", "group", "q_len", "kv_len", "head_dim", "value_dim", "tile_q", "tile_kv",
    "bytes_io", "bytes_score", "bytes_accum", "bytes_stat", "bytes_byte", "statistics",
)  # fmt: skip


def size_of(role: str) -> Size:
    """The itemsize of a dtype role, as a parameter of the closed form."""
    return name(f"bytes_{role}")


class Evaluator(Protocol):
    """Exact values of sizes for `sequences` sequences of one (q_len, kv_len).

    `statistics(q_len, kv_len, tile_q, tile_kv)` stands in for the mask's own where bounds are wanted.
    """

    def __call__(
        self,
        problem: AttentionProblem,
        length: tuple[int, int],
        sequences: int,
        tiles: TileSizes,
        statistics: Callable[..., Statistics] | None = None,
    ) -> tuple[int, ...]:
        """The values, in the order in which the sizes were given."""
        ...


def compile_sizes(sizes: Sequence[Size]) -> Evaluator:
    """One function that evaluates all sizes; what several of them mention is computed once."""
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
    f = namespace["f"]

    def evaluate(
        problem: AttentionProblem,
        length: tuple[int, int],
        sequences: int,
        tiles: TileSizes,
        statistics: Callable[..., Statistics] | None = None,
    ) -> tuple[int, ...]:
        q_len, kv_len = length
        of_mask = statistics or problem.band.statistics
        result: tuple[int, ...] = f(
            sequences, problem.kv_heads, problem.group, q_len, kv_len, problem.head_dim, problem.value_dim,
            tiles.q, tiles.kv, *problem.itemsizes, lambda tile_q, tile_kv: of_mask(q_len, kv_len, tile_q, tile_kv),
        )  # fmt: skip
        return result

    return evaluate
