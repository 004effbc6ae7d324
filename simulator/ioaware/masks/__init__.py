"""Masks: which keys a query sees. A mask is asked a few things, and the first is independent of the others' code:

sees(q, k)   the element mask                        (execute, and the walk over visible tiles)
statistics   five sums over visible tiles (i, j), all that a closed form needs:
             tiles = #(i, j)   rows = sum |i|   cols = sum |j|   cells = sum |i||j|   last = #(i, last j)
full_tiles   tiles in which every pair is visible, which need no masking
turns        what walks back and forth over visible tiles find on chip (flash2_serpentine only)

A band (full, causal, a window) has closed forms. Every other pattern is a few rectangles, each cut by a band, or very
many: they are swept in O(tiles of the shorter side). What is neither is enumerated element by element.
"""

from __future__ import annotations

from typing import Any

from .band import CAUSAL, FULL, Band, _band, _floor_sum, _staircase, _turns, window
from .base import Kinds, Mask, Statistics, Turns, tile_kinds

_WHERE = {  # public name: its module, imported when first used: these need arrays, and a band does not
    "BigBird": "sparse",
    "Blocks": "blocks",
    "Chunks": "patterns",
    "Custom": "custom",
    "Documents": "documents",
    "Fixed": "patterns",
    "Longformer": "patterns",
    "Prefix": "patterns",
    "Sinks": "patterns",
    "Strided": "sparse",
    "parse_mask": "parse",
    "parse_window": "parse",
}
__all__ = [
    "CAUSAL",
    "FULL",
    "Band",
    "Kinds",
    "Mask",
    "Statistics",
    "Turns",
    "_band",
    "_floor_sum",
    "_staircase",
    "_turns",
    "tile_kinds",
    "window",
    *_WHERE,
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ioaware.masks' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
