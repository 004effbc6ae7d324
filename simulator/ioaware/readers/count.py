"""count: exact integers for any problem in microseconds, from the closed forms of a recorded program.

A program whose traffic has no closed form is counted by `walk`, which visits every iteration: exact too, and slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..errors import NoClosedForm
from ..problem import AttentionProblem
from ..program.nodes import Op
from ..program.recorder import Program
from ..sizes import ONE, Size, size
from ..traffic import Moved, Traffic
from .algebra import Loops, accesses, exponentials, flops, nodes, operand_reads, total
from .evaluate import Evaluator, TileSizes, bytes_of, size_of

Key: TypeAlias = tuple[str, ...]
Quantity: TypeAlias = tuple[Key, Size, Loops]  # what, how much per iteration, iterated by which loops
KINDS = ("read", "write", "add")


class Work(NamedTuple):
    """Arithmetic of one kernel launch, over the whole problem."""

    flops: int  # of matrix products
    exps: int


# ------------------------------------------------------------------------------------------------ what is counted
@lru_cache(1024)
def traffic_quantities(program: Program) -> tuple[Quantity, ...]:
    """Bytes per (kernel, tensor, kind)."""
    return tuple(
        ((a.kernel, a.tensor.name, a.kind), bytes_of(a.shape, a.tensor.dtype) * a.fetched, a.loops)
        for a in accesses(program)
    )


@lru_cache(1024)
def tensor_quantities(program: Program) -> tuple[Quantity, ...]:
    """Bytes per (tensor, kind): every moving tensor has all three kinds, in order, so that `count` need not sort."""
    moving = dict.fromkeys(a.tensor.name for a in accesses(program))
    slots: list[Quantity] = [((tensor, kind), size(0), ()) for tensor in moving for kind in KINDS]
    return (*slots, *((key[1:], words, loops) for key, words, loops in traffic_quantities(program)))


@lru_cache(1024)
def work_quantities(program: Program) -> tuple[Quantity, ...]:
    """Thread blocks, flops and exponentials per kernel, shared-memory operand reads per (kernel, tensor)."""
    grids = {str(loops[0].kernel): tuple(n for n in loops if n.kernel) for _, loops in nodes(program.body) if loops}
    out: list[Quantity] = [((str(kernel), "blocks"), ONE, loops) for kernel, loops in grids.items()]
    for op, loops in nodes(program.body):
        if not isinstance(op, Op):
            continue
        kernel = (loops[0].kernel or "") if loops else ""
        out += [((kernel, "flops"), flops(op), loops), ((kernel, "exps"), exponentials(op), loops)]
        for tensor, once, per_row in operand_reads(op):
            width = size_of("io" if tensor.dtype == "kv" else tensor.dtype)  # a narrow cache is widened on chip
            out += [((kernel, tensor.name, "once"), once * width, loops)]
            out += [((kernel, tensor.name, "per_row"), per_row * width, loops)]
    return tuple(q for q in out if q[1])


# ------------------------------------------------------------------------------------------------ counting
Quantities: TypeAlias = Callable[[Program], tuple[Quantity, ...]]


@lru_cache(1024)
def _compiled(program: Program, quantities: Quantities) -> tuple[tuple[Key, ...], Evaluator] | None:
    """The keys and one function for all sums; None without a closed form."""
    try:
        forms = closed_forms(program, quantities)
    except NoClosedForm:
        return None
    return tuple(forms), Evaluator(list(forms.values()))


@lru_cache(1024)
def closed_forms(program: Program, quantities: Quantities) -> dict[Key, Size]:
    """Every quantity summed over its loops, symbolically. Raises NoClosedForm."""
    forms: dict[Key, Size] = {}
    for key, per_iteration, loops in quantities(program):
        forms[key] = forms.get(key, size(0)) + total(per_iteration, loops)
    return forms


def total_of(program: Program, quantities: Quantities, weight: Callable[[Any], int]) -> Size:
    """One closed form for all quantities together, each weighed by its key."""
    out = size(0)
    for key, form in closed_forms(program, quantities).items():
        out = out + form * weight(key)
    return out


def has_closed_form(program: Program) -> bool:
    """Whether the traffic is counted by closed forms; otherwise it is walked."""
    return _compiled(program, traffic_quantities) is not None


def sums(program: Program, quantities: Quantities, problem: AttentionProblem, tiles: TileSizes) -> dict[Key, int]:
    """Every quantity summed over the whole problem."""
    compiled = _compiled(program, quantities)
    if compiled is None:
        from .walk import walked

        return walked(program, quantities(program), problem, tiles)
    keys, evaluate = compiled
    (first, sequences), *others = problem.lengths()
    out: Iterable[int] = evaluate(problem, first, sequences, tiles)
    for length, sequences in others:
        out = [a + b for a, b in zip(out, evaluate(problem, length, sequences, tiles), strict=True)]
    return dict(zip(keys, out, strict=True))


def count(program: Program, problem: AttentionProblem, tiles: TileSizes) -> Traffic:
    """Bytes that the program's thread blocks ask for (the papers' "HBM accesses"), per tensor: exact."""
    n = sums(program, tensor_quantities, problem, tiles)
    names = dict.fromkeys(tensor for tensor, _ in n)
    bytes_ = list(n.values())
    return Traffic(dict(zip(names, map(Moved, bytes_[0::3], bytes_[1::3], bytes_[2::3]), strict=True)))


def count_kernels(program: Program, problem: AttentionProblem, tiles: TileSizes) -> dict[str, Traffic]:
    """The same, per kernel launch."""
    moved: dict[str, dict[str, list[int]]] = {}
    for (kernel, tensor, kind), n in sums(program, traffic_quantities, problem, tiles).items():
        moved.setdefault(kernel, {}).setdefault(tensor, [0, 0, 0])[KINDS.index(kind)] += n
    return {k: Traffic({t: Moved(*m) for t, m in tensors.items()}) for k, tensors in moved.items()}


def merged(traffics: Iterable[Traffic]) -> Traffic:
    """The sum of several traffics."""
    out = Traffic()
    for traffic in traffics:
        out = out + traffic
    return out
