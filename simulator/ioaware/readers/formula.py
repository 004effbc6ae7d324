"""formula: the closed forms as mathematics, per tensor and beside each line of the program's text.

What people read is printed from the same sizes that `count` compiles. `expressions` gives sympy, for further algebra.
"""

from __future__ import annotations

import linecache
from typing import Any, NamedTuple

from ..masks import FULL, Statistics
from ..problem import AttentionProblem
from ..program.recorder import Program
from ..sizes import ONE, Atom, Ceil, Least, Monomial, Name, Size, Whole, ceil, least, name, size
from .algebra import Statistic, accesses
from .evaluate import Evaluator, TileSizes

ORDER = ("batch", "kv_heads", "group", "N", "q_len", "kv_len", "head_dim", "value_dim", "tile_q", "tile_kv")


VERBS = {"read": "read", "write": "write", "add": "add to"}
SUPERSCRIPT = {2: "²", 3: "³", 4: "⁴"}


class Line(NamedTuple):
    """One line of a program's text and the closed forms of what it moves (words)."""

    number: int
    text: str
    forms: tuple[str, ...]


# ------------------------------------------------------------------------------------------------ for people
def closed_form(e: Size, problem: AttentionProblem, *, whole: bool = False) -> str:
    """A closed form as the papers write it: factors that are 1 left out, N for equal lengths, d for equal dims.

    With `whole`, one tile holds the sequence: every tile count is 1.
    """
    return pretty(in_symbols(e, problem, whole=whole))


def per_tensor(program: Program, problem: AttentionProblem, *, whole: bool = False) -> dict[tuple[str, str], str]:
    """{(tensor, read | write | add): closed form in words}."""
    forms: dict[tuple[str, str], Size] = {}
    for a in accesses(program):
        forms[a.tensor.name, a.kind] = forms.get((a.tensor.name, a.kind), size(0)) + a.total
    return {key: closed_form(form, problem, whole=whole) for key, form in forms.items()}


def total(program: Program, problem: AttentionProblem, *, whole: bool = False) -> str:
    """The closed form of everything that is read and written, in words; an atomic add is one of each."""
    e = size(0)
    for a in accesses(program):
        e = e + a.total * (2 if a.kind == "add" else 1)
    return closed_form(e, problem, whole=whole)


def annotated(program: Program, problem: AttentionProblem, *, whole: bool = False) -> list[Line]:
    """The program's own text, then its helpers', with the closed form of each memory access beside its line."""
    by_line: dict[tuple[str, int], list[str]] = {}
    for a in accesses(program):
        form = closed_form(a.total, problem, whole=whole)
        by_line.setdefault((a.node.file, a.node.line), []).append(f"{VERBS[a.kind]} {a.tensor.name}: {form}")
    shown: dict[tuple[str, int], Line] = {}
    for file, line in ((program.file, program.line), *by_line):
        if (file, line) not in shown:
            for number, text in _function(file, line):
                shown[file, number] = Line(number, text, tuple(by_line.get((file, number), ())))
    return list(shown.values())


def _function(file: str, line: int) -> list[tuple[int, str]]:
    """The numbered lines of the function that a line belongs to."""
    import ast

    lines = linecache.getlines(file)
    functions = [n for n in ast.walk(ast.parse("".join(lines))) if isinstance(n, ast.FunctionDef)]
    found = max((f for f in functions if f.lineno <= line <= (f.end_lineno or line)), key=lambda f: f.lineno)
    return [(n, lines[n - 1].rstrip()) for n in range(found.lineno, (found.end_lineno or line) + 1)]


def in_symbols(e: Size, problem: AttentionProblem, *, whole: bool) -> Size:
    """The size with this problem's simplifications: no mask, one head, equal lengths, equal dims."""
    same_length = problem.q_len == problem.kv_len
    ones = {n for n in ("batch", "kv_heads", "group") if getattr(problem, n) == 1}
    if isinstance(problem.q_len, tuple):  # a sum over sequences: the lengths say the batch
        ones.add("batch")

    def simplified(a: Atom) -> Size:
        if isinstance(a, Name):
            if a.name in ones:
                return ONE
            if same_length and a.name in ("q_len", "kv_len"):
                return name("N")
            return name("head_dim") if a.name == "value_dim" and problem.value_dim == problem.head_dim else size(a)
        if isinstance(a, Ceil):
            return ONE if whole else ceil(a.over.map(simplified), a.by.map(simplified))
        if isinstance(a, Least):
            return least(a.a.map(simplified), a.b.map(simplified))
        if isinstance(a, Whole):
            return size(Whole(a.inner.map(simplified)))
        if isinstance(a, Statistic) and (whole or problem.band == FULL):
            return statistic_of_full(a).map(simplified)
        return size(a)

    return e.map(simplified)


def statistic_of_full(a: Statistic) -> Size:
    """A mask statistic where every pair is visible: products of lengths and tile counts."""
    q, kv = name("q_len"), name("kv_len")
    rows, cols = ceil(q, a.tile_q), ceil(kv, a.tile_kv)
    return {"tiles": rows * cols, "rows": q * cols, "cols": kv * rows, "cells": q * kv, "last": rows}[a.what]


def statistics_used(program: Program, problem: AttentionProblem, tiles: TileSizes) -> dict[str, int]:
    """The values of the mask statistics that the closed forms of a masked problem mention.

    Of one sequence, as the batch is a factor of the closed form; of all sequences together if their lengths differ.
    """
    together = isinstance(problem.q_len, tuple)
    mentioned = {x for a in accesses(program) for x in a.total.atoms() if isinstance(x, Statistic)}
    values: dict[str, int] = {}
    for statistic in sorted(mentioned, key=lambda x: Statistics._fields.index(x.what)):
        value = Evaluator([size(statistic)])
        each = ((n if together else 1) * value(problem, length, 1, tiles)[0] for length, n in problem.lengths())
        values[statistic.what] = sum(each)
    return values


def pretty(e: Size) -> str:
    """The size with common ceilings and statistics factored out: `2 N + 3 N d + ⌈N/B_c⌉ (4 N + 3 N d)`."""
    groups: dict[Monomial, list[tuple[Monomial, int]]] = {}
    for monomial, c in e.terms.items():
        names = tuple(sorted((a for a in monomial if isinstance(a, Name)), key=_position))
        factor = tuple(sorted((a for a in monomial if not isinstance(a, Name)), key=str))
        groups.setdefault(factor, []).append((names, c))
    shown = [_group(factor, terms) for factor, terms in sorted(groups.items(), key=lambda g: len(g[0]))]
    return " + ".join(shown).replace("+ -", "- ") or "0"


def _group(factor: Monomial, terms: list[tuple[Monomial, int]]) -> str:
    inner = " + ".join(_term(c, names) for names, c in sorted(terms, key=lambda t: (len(t[0]), str(t[0]))))
    outer = " ".join(str(a) for a in factor)
    if not factor:
        return inner
    return f"{outer} ({inner})" if len(terms) > 1 else f"{inner} {outer}".removeprefix("1 ")


def _term(c: int, names: Monomial) -> str:
    powers = [f"{a}{SUPERSCRIPT.get(names.count(a), '')}" for a in dict.fromkeys(names)]
    if names and abs(c) == 1:
        return ("-" if c < 0 else "") + " ".join(powers)
    return " ".join([str(c), *powers])


def _position(a: Atom) -> int:
    return ORDER.index(a.name) if isinstance(a, Name) and a.name in ORDER else len(ORDER)


# ------------------------------------------------------------------------------------------------ sympy
def expressions(program: Program, mask: str | None = "full") -> dict[tuple[str, str], Any]:
    """{(tensor, read | write | add): sympy expression in words}. Needs sympy (extra `formula`).

    mask  "full"    products of ceilings, true for any sizes
          "causal"  q_len = kv_len, the larger tile a multiple of the smaller and a divisor of the length
          "band"    any Band and any sizes: a sum over query tiles, with w_left and w_right; evaluate it by
                    `lambdify(..., "math")`, as sympy's own doit() may take minutes
          None      the symbols tiles, rows, cols, cells: true for every mask
    """
    from .symbolic import to_sympy

    forms: dict[tuple[str, str], Any] = {}
    for a in accesses(program):
        key = a.tensor.name, a.kind
        forms[key] = forms.get(key, 0) + to_sympy(a.total, mask)
    return {key: form.factor() if mask == "full" else form for key, form in forms.items()}
