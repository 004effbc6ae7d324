"""Sizes as sympy expressions: the same closed forms in a computer algebra system's hands."""

from __future__ import annotations

from typing import Any

from ..errors import InputError, MissingExtra, unknown
from ..sizes import SYMBOLS, Atom, Ceil, Least, Name, Size, Whole
from .algebra import Statistic
from .formula import statistic_of_full

try:
    import sympy
except ImportError:
    raise MissingExtra("closed forms as expressions", "sympy", "formula") from None

MASKS = ("full", "causal", "band")


def symbol(parameter: str) -> Any:
    """The positive integer symbol of a parameter: N_q for q_len, d for head_dim, ..."""
    return sympy.Symbol(SYMBOLS.get(parameter, parameter), integer=True, positive=True)


def to_sympy(e: Size, mask: str | None) -> Any:
    """A size as a sympy expression; see `formula.expressions` for `mask`."""
    if mask is not None and mask not in MASKS:
        raise unknown("mask", mask, MASKS, f"known: {', '.join(MASKS)}, or None")
    return sympy.Add(*(sympy.Mul(c, *(_atom(a, mask) for a in m)) for m, c in e.terms.items()))


def _atom(a: Atom, mask: str | None) -> Any:
    match a:
        case Name(name):
            return symbol(name)
        case Ceil(over, by):
            return sympy.ceiling(to_sympy(over, mask) / to_sympy(by, mask))
        case Least(left, right):
            return sympy.Min(to_sympy(left, mask), to_sympy(right, mask))
        case Whole(inner):
            return to_sympy(inner, mask)
        case Statistic():
            return _statistic(a, mask)
    raise InputError(f"{a} is not part of a closed form")


def _statistic(a: Statistic, mask: str | None) -> Any:
    if mask == "full":
        return to_sympy(statistic_of_full(a), mask)
    tile_q, tile_kv = to_sympy(a.tile_q, mask), to_sympy(a.tile_kv, mask)
    if mask == "causal":
        return _causal(a.what, tile_q, tile_kv)
    return _band(a.what, tile_q, tile_kv) if mask == "band" else sympy.Symbol(a.what, integer=True, nonnegative=True)


def _causal(what: str, tile_q: Any, tile_kv: Any) -> Any:
    n = symbol("q_len")
    tiles = n * (n + sympy.Max(tile_q, tile_kv)) / (2 * tile_q * tile_kv)
    last = sympy.ceiling(tile_kv / tile_q)  # the query tiles that reach the last keys
    sums = {"tiles": tiles, "rows": tile_q * tiles, "cols": tile_kv * tiles, "cells": tile_q * tile_kv * tiles}
    return {**sums, "last": last}[what]


def _band(what: str, tile_q: Any, tile_kv: Any) -> Any:
    n, m = symbol("q_len"), symbol("kv_len")
    i, left, right = sympy.symbols("i w_left w_right", integer=True)
    last = sympy.Min((i + 1) * tile_q, n)
    begin = sympy.Max(0, sympy.floor((i * tile_q + m - n - left) / tile_kv))
    end = sympy.Min(sympy.ceiling(m / tile_kv), sympy.floor((last - 1 + m - n + right) / tile_kv) + 1)
    tiles = sympy.Max(0, end - begin)
    keys = sympy.Max(0, sympy.Min(end * tile_kv, m) - begin * tile_kv)
    rows = last - i * tile_q
    reaches = sympy.Piecewise((1, sympy.And(end * tile_kv >= m, tiles > 0)), (0, True))
    term = {"tiles": tiles, "rows": rows * tiles, "cols": keys, "cells": rows * keys, "last": reaches}[what]
    return sympy.Sum(term, (i, 0, sympy.ceiling(n / tile_q) - 1))
