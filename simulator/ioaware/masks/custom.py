"""A mask of one's own: an element function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .base import Mask, Positions, Sees
from .enumeration import refuse_many


@dataclass(frozen=True)
class Custom(Mask):
    """Query q sees key k iff `function(q, k)`, which takes and gives broadcast arrays. Nothing is known beside it.

    visited   visited(i, j, tile_q, tile_kv): whether query tile i sees key tile j, broadcast, where that is faster
              than to look at every pair; it must agree with the function, and is not asked about packed rows

    Raises InputError beyond 2^28 pairs (or tiles, where `visited` is given). Equal if the functions are the same ones.
    """

    function: Callable[[Positions, Positions], Sees]
    title: str = "custom"
    visited: Callable[[Positions, Positions, int, int], Sees] | None = None

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """What the function says."""
        q, k = np.broadcast_arrays(q, k)
        return np.broadcast_to(np.asarray(self.function(q, k), bool), q.shape)

    def visible_tiles(self, q_len: int, kv_len: int, tile_q: int, tile_kv: int) -> Iterator[Sees]:
        """Which key tiles each query tile sees, as `visited` says, or else from all pairs."""
        if self.visited is None or self.pack != 1:
            yield from super().visible_tiles(q_len, kv_len, tile_q, tile_kv)
            return
        q_tiles, key_tiles = -(-q_len // tile_q), -(-kv_len // tile_kv)
        refuse_many(self, "query x key tiles", q_tiles, key_tiles)
        every = np.arange(key_tiles)
        for tile in range(q_tiles):
            yield np.broadcast_to(np.asarray(self.visited(np.array(tile), every, tile_q, tile_kv), bool), every.shape)

    def name(self) -> str:
        """The title."""
        return self.title
