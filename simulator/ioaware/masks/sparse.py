"""Published block-sparse patterns: which blocks are visible follows from the length."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np

from ..errors import refuse
from ..problem import check_count
from .band import CAUSAL, FULL, Band
from .base import Positions, Sees
from .layout import Layout
from .rectangles import Rectangles, aligned, inner_band
from .sweep import Pieces


@dataclass(frozen=True)
class BlockPattern(Rectangles):
    """A square layout of `block` positions a side, made for a number of blocks, and cut by `band`."""

    block: int

    @abstractmethod
    def layout(self, blocks: int) -> Layout:
        """The visible blocks of a sequence of so many."""

    @property
    @abstractmethod
    def cut(self) -> Band:
        """The band that cuts the blocks."""

    def pattern(self, q: Positions, k: Positions, q_len: int, kv_len: int) -> Sees:
        """Of a visible block, and inside of the band."""
        p = q + (kv_len - q_len)
        blocks = _layout(self, -(-kv_len // self.block))
        return blocks.holds(p // self.block, k // self.block) & self.cut.pattern(q, k, q_len, kv_len)

    def pieces(self, q_len: int, kv_len: int) -> Pieces:
        """Runs of blocks."""
        (p0, p1), (k0, k1) = _layout(self, -(-kv_len // self.block)).rectangles()
        b = self.block
        return aligned(q_len, kv_len, (p0 * b, p1 * b), (k0 * b, k1 * b), self.cut)


@lru_cache(8)
def _layout(pattern: BlockPattern, blocks: int) -> Layout:
    return pattern.layout(blocks)


@dataclass(frozen=True)
class BigBird(BlockPattern):
    """BigBird (Zaheer et al. 2020), the authors' block-sparse version.

    Every block sees `window` blocks around itself, `tokens` global ones, the first and the last of the sequence by
    turns, which see all blocks, and `random` others. These are the same everywhere for the same seed and length.
    """

    window: int = 3
    tokens: int = 2
    random: int = 3
    seed: int = 0
    band: Band = FULL

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("BigBird block", self.block)
        if self.window < 1 or self.window % 2 == 0:
            raise refuse("BigBird window", self.window, "an odd number of blocks", max(self.window + 1, 1))
        for name in ("tokens", "random", "seed"):
            if getattr(self, name) < 0:
                raise refuse(f"BigBird {name}", getattr(self, name), "at least 0", 0)
        inner_band(self.band)

    @property
    def cut(self) -> Band:
        """The band given."""
        return self.band

    def layout(self, blocks: int) -> Layout:
        """Global rows and columns, the window, and the random blocks of the other rows."""
        every = np.arange(blocks)
        last = min(self.tokens // 2, blocks)
        first = min(self.tokens - last, blocks - last)
        few = np.concatenate([every[:first], every[blocks - last :]])
        rest = every[first : blocks - last]
        near = every[:, None] + np.arange(-(self.window // 2), self.window // 2 + 1)
        near_keys = (every[:, None] * blocks + near)[(near >= 0) & (near < blocks)]
        ones = [np.add.outer(few * blocks, every), np.add.outer(every * blocks, few), near_keys]
        ones += [rest * blocks + other for other in self._others(rest, first, blocks - last)]
        return Layout.of_keys(blocks, blocks, np.concatenate([np.ravel(some) for some in ones]))

    def _others(self, rest: Positions, first: int, end: int) -> list[Positions]:
        """`random` different columns of [first, end) outside of each row's window, or as many as there are.

        Columns are drawn by rank among those that are left, then moved past the earlier ones and the window.
        """
        low, high = np.maximum(rest - self.window // 2, first), np.minimum(rest + self.window // 2 + 1, end)
        left = end - first - (high - low)
        bits = np.random.Philox(key=self.seed).random_raw((self.random, rest.size))
        drawn = np.zeros((0, rest.size), np.int64)
        for n, word in enumerate(bits[: left.max(initial=0)]):
            rank = (word % np.maximum(left - n, 1).astype(np.uint64)).astype(np.int64)
            for earlier in np.sort(drawn, axis=0):
                rank += rank >= earlier
            drawn = np.vstack([drawn, np.where(n < left, rank, -1)])
        columns = drawn + first
        columns += (columns >= low) * (high - low)
        return [np.where(rank < 0, rest, column) for rank, column in zip(drawn, columns, strict=True)]

    def causal(self) -> Self:
        """The same blocks, cut by the diagonal."""
        return replace(self, band=self.band.causal())

    def name(self) -> str:
        """The block size, and what is not the authors' choice."""
        usual = replace(self, window=3, tokens=2, random=3, seed=0) == self
        rest = "" if usual else f",{self.window},{self.tokens},{self.random},{self.seed}"
        return f"bigbird:{self.block}{rest}" + (f"+{self.band}" if self.band != FULL else "")


@dataclass(frozen=True)
class Strided(BlockPattern):
    """The strided pattern of Sparse Transformers (Child et al. 2019) over blocks, causal, both heads merged.

    A block sees itself and the `stride` blocks before it, and beyond these every block that is a multiple of `stride`
    blocks away.
    """

    stride: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Strided block", self.block)
        check_count("Strided stride", self.stride)

    @property
    def cut(self) -> Band:
        """The diagonal."""
        return CAUSAL

    def layout(self, blocks: int) -> Layout:
        """The diagonals of the window, and every so many of those below."""
        every = np.arange(blocks)
        away = every[(every <= self.stride) | (every % self.stride == 0)]
        ones = [(every[gap:]) * blocks + every[: blocks - gap] for gap in away.tolist()]
        return Layout.of_keys(blocks, blocks, np.concatenate(ones))

    def causal(self) -> Self:
        """It is causal."""
        return self

    def name(self) -> str:
        """The block size and the stride."""
        return f"strided:{self.block},{self.stride}"
