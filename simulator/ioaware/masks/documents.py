"""Document masks: several documents packed into one sequence, none of which sees another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError, refuse
from ..problem import check_count
from .band import FULL, Band
from .base import Positions, Sees
from .rectangles import Rectangles, aligned, inner_band
from .sweep import Pieces

SHOWN = 8  # lengths in a name


@dataclass(frozen=True)
class Documents(Rectangles):
    """Documents of `lengths` rows side by side: a query sees the keys of its own document, cut by `band`.

    Unlike the lengths of a batch, documents share tiles. `kv_len` must be their sum; queries are its last positions.
    """

    lengths: tuple[int, ...]
    band: Band = FULL

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lengths", tuple(self.lengths))
        if not self.lengths:
            raise InputError("documents is empty; give one length per document")
        for length in self.lengths:
            check_count("document length", length)
        inner_band(self.band)

    def check(self, q_len: int, kv_len: int) -> None:
        """Refuses lengths of other sequences."""
        super().check(q_len, kv_len)
        if kv_len != sum(self.lengths):
            raise refuse("kv_len", kv_len, "must be the sum of all documents' lengths", sum(self.lengths))

    @cached_property
    def ends(self) -> Positions:
        """Where each document ends: (documents,)."""
        return np.cumsum(np.array(self.lengths, np.int64))

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of one document, and inside of the band."""
        self.check(q_len * self.pack, kv_len)
        of_query, of_key = (np.searchsorted(self.ends, at, "right") for at in (q + (kv_len - q_len), k))
        seen: Sees = (of_query == of_key) & self.band.pattern(q, k, q_len, kv_len)
        return seen & (q >= q_len - kv_len)

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The squares of the diagonal."""
        ends = self.ends
        square = (ends - np.array(self.lengths), ends)
        return aligned(q_len, kv_len, square, square, self.band)

    def causal(self) -> Documents:
        """Causal inside of each document."""
        return Documents(self.lengths, self.band.causal(), pack=self.pack)

    def name(self) -> str:
        """The lengths, if they are few."""
        few = ",".join(map(str, self.lengths)) if len(self.lengths) <= SHOWN else f"{len(self.lengths)} of them"
        return f"documents:{few}" + (f"+{self.band}" if self.band != FULL else "")
