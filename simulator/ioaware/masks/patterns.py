"""Patterns of a few rectangles, by position: p = q + kv_len - q_len is the position of query q among the keys."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..problem import check_count
from .band import CAUSAL, FULL, Band
from .base import Mask, Positions, Sees
from .rectangles import Rectangles, aligned, joined
from .sweep import Pieces


@dataclass(frozen=True)
class Pattern(Rectangles):
    """A pattern that its name and a few positive numbers describe."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.numbers():
            check_count(f"{type(self).__name__} {name}", getattr(self, name))

    def numbers(self) -> list[str]:
        """The names of the numbers, in order."""
        return [f.name for f in fields(self) if f.name != "pack"]

    def name(self) -> str:
        """The name and the numbers."""
        return f"{type(self).__name__.lower()}:{','.join(str(getattr(self, name)) for name in self.numbers())}"


@dataclass(frozen=True)
class Sinks(Pattern):
    """Attention sinks (StreamingLLM, Xiao et al. 2023): causal; the first `sinks` keys, and the last `window` keys.

    The window counts the query's own key. Longformer's causal variant is the same: `Sinks(tokens, window + 1)`.
    """

    sinks: int
    window: int

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Causal, and a sink or inside of the window."""
        gap = (q + (kv_len - q_len)) - k
        seen: Sees = (gap >= 0) & ((gap < self.window) | (k < self.sinks))
        return seen

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The columns of the sinks, and the window to the right of them."""
        rows, window = (kv_len - q_len, kv_len), Band(self.window - 1, 0)
        return joined(
            aligned(q_len, kv_len, rows, (0, self.sinks), CAUSAL),
            aligned(q_len, kv_len, rows, (self.sinks, kv_len), window),
        )

    def causal(self) -> Sinks:
        """It is causal."""
        return self


@dataclass(frozen=True)
class Prefix(Pattern):
    """Prefix language model (Raffel et al. 2020): causal, but all queries see the first `keys` keys."""

    keys: int

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of the prefix, or not behind the query."""
        seen: Sees = (k <= q + (kv_len - q_len)) | (k < self.keys)
        return seen

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The columns of the prefix, and the causal rest."""
        rows = (kv_len - q_len, kv_len)
        return joined(
            aligned(q_len, kv_len, rows, (0, self.keys)), aligned(q_len, kv_len, rows, (self.keys, kv_len), CAUSAL)
        )

    def causal(self) -> Mask:
        """Without its prefix nothing is left but the causal mask."""
        return CAUSAL.packed(self.pack)


@dataclass(frozen=True)
class Longformer(Pattern):
    """Longformer (Beltagy et al. 2020): `window` keys to either side, and the first `tokens` positions are global.

    Global positions see all keys and are seen by all queries. Its authors' `attention_window` is both sides: 2 window.
    """

    window: int
    tokens: int

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Near each other, or one of both is global."""
        p = q + (kv_len - q_len)
        seen: Sees = (abs(k - p) <= self.window) | (k < self.tokens) | (p < self.tokens)
        return seen

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """Global rows; global columns of the other rows; and the window where nothing is global."""
        top, rest = (kv_len - q_len, self.tokens), (max(self.tokens, kv_len - q_len), kv_len)
        return joined(
            aligned(q_len, kv_len, top, (0, kv_len)),
            aligned(q_len, kv_len, rest, (0, self.tokens)),
            aligned(q_len, kv_len, rest, (self.tokens, kv_len), Band(self.window, self.window)),
        )

    def causal(self) -> Sinks:
        """Global rows see what is before them, which is global too: nothing is left of them."""
        return Sinks(self.tokens, self.window + 1, pack=self.pack)


@dataclass(frozen=True)
class Chunks(Pattern):
    """Chunked attention (Llama 4's `attention_chunk_size`): causal, inside of chunks of `length` positions."""

    length: int

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of one chunk, and not behind the query."""
        p = q + (kv_len - q_len)
        seen: Sees = (k <= p) & (k // self.length == p // self.length)
        return seen

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The squares of the diagonal."""
        begin = np.arange(0, kv_len, self.length)
        square = (begin, begin + self.length)
        return aligned(q_len, kv_len, square, square, CAUSAL)

    def causal(self) -> Chunks:
        """It is causal."""
        return self


@dataclass(frozen=True)
class Fixed(Pattern):
    """The fixed pattern of Sparse Transformers (Child et al. 2019), causal, both heads merged.

    A query sees its own stretch of `stride` positions, and of every earlier stretch the last `summary` keys.
    """

    stride: int
    summary: int

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of one stretch or of a summary, and not behind the query."""
        p = q + (kv_len - q_len)
        summary = k % self.stride >= self.stride - self.summary
        seen: Sees = (k <= p) & ((k // self.stride == p // self.stride) | summary)
        return seen

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """The squares of the diagonal, and the columns of the summaries below them."""
        begin = np.arange(0, kv_len, self.stride)
        end = begin + self.stride
        return joined(
            aligned(q_len, kv_len, (begin, end), (begin, end), CAUSAL),
            aligned(q_len, kv_len, (end, kv_len), (np.maximum(end - self.summary, begin), end), FULL),
        )

    def causal(self) -> Fixed:
        """It is causal."""
        return self
