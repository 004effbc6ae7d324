"""Dropout by a counter-based generator: the same decision for a (head, query, key) in any tiling, nothing stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import AttentionProblem

Array = np.ndarray[Any, Any]


def keep_mask(problem: AttentionProblem, head: int, q: Array, kv: Array) -> Array:
    """1 where the weight of (query, key) is kept, else 0: float64, (len(q), len(kv)); positions are packed rows.

    A row of a problem that packs heads is the query and the head that it stands for.
    """
    heads, queries = head * problem.pack + q % problem.pack, q // problem.pack
    with np.errstate(over="ignore"):
        x = _mix(_mix(heads.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)) + queries.astype(np.uint64))
        x = _mix(x[:, None] + kv[None].astype(np.uint64))
    kept: Array = (x / 2.0**64 >= problem.dropout).astype(np.float64)
    return kept


def _mix(x: Any) -> Any:
    """splitmix64's finaliser (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
