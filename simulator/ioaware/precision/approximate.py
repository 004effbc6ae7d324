"""Attention that leaves pairs out, or softmax. All else is float64 of inputs in fp32, so that nothing else is lost.

Sparse attention is exact attention under another mask, which may depend on Q and K. What it takes to find that mask
(pooled scores, an indexer) is not counted among its pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..masks.band import Band
from ..masks.custom import Custom
from ..masks.patterns import Longformer
from ..masks.sparse import BigBird
from .attention import SCORES, blocks, exact, masked
from .formats import Array
from .method import Choose, Method, Stored

if TYPE_CHECKING:
    from ..masks import Mask


@dataclass(frozen=True)
class Pattern:
    """The pairs of a mask that does not look at the numbers."""

    mask: Mask

    def __call__(self, q: Array, k: Array, mask: Mask | None) -> Mask:
        return _both(lambda i, j: self.mask.sees(i, j, len(q), len(k)), mask, q, k)


@dataclass(frozen=True)
class TopBlocks:
    """For every block of queries, one in `per` blocks of keys: those whose mean the mean query scores highest.

    As block-sparse attention chooses them at run time (MInference, arXiv 2407.02490); MoBA (2502.13189) and native
    sparse attention (2502.11089) do so for each query, and take its own block too.
    """

    block: int
    per: int

    def __call__(self, q: Array, k: Array, mask: Mask | None) -> Mask:
        pooled = self._means(q) @ self._means(k).T
        if mask is not None:
            visible = np.stack(list(mask.visible_tiles(len(q), len(k), self.block, self.block)))
            pooled = np.where(visible, pooled, -np.inf)
        chosen = highest(pooled, -(-pooled.shape[1] // self.per))
        return _both(lambda i, j: chosen[i // self.block, j // self.block], mask, q, k)

    def _means(self, x: Array) -> Array:
        starts = np.arange(0, len(x), self.block)
        sums = np.add.reduceat(np.asarray(x, np.float64), starts)
        return sums / np.diff(np.append(starts, len(x)))[:, None]


@dataclass(frozen=True)
class TopTokens:
    """For every query the keys that it scores highest: one in `per`, at most `most`.

    DeepSeek sparse attention (DeepSeek-V3.2: 2048 keys) with an indexer that is never wrong. Memory: a byte per pair.
    """

    most: int
    per: int

    def __call__(self, q: Array, k: Array, mask: Mask | None) -> Mask:
        chosen = np.empty((len(q), len(k)), bool)
        for rows in blocks(len(q), max(SCORES // len(k), 1)):
            scores = masked(q[rows] @ k.T, mask, rows, slice(0, len(k)), len(q), len(k))
            chosen[rows] = highest(scores, min(self.most, -(-len(k) // self.per)))
        return _both(lambda i, j: chosen[i, j], mask, q, k)


def highest(scores: Array, count: int) -> Array:
    """Which are the `count` highest of each row, bool."""
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, np.argpartition(scores, -count, axis=1)[:, -count:], values=True, axis=1)
    return chosen


def _both(chosen: Callable[[Array, Array], Array], mask: Mask | None, q: Array, k: Array) -> Mask:
    if mask is None:
        return Custom(chosen)
    return Custom(lambda i, j: chosen(i, j) & mask.sees(i, j, len(q), len(k)))


def linear(q: Array, k: Array, v: Array, scale: float, mask: Mask | None) -> Array:
    """Linear attention (Katharopoulos et al., arXiv 2006.16236): weights phi(q) phi(k), phi = elu + 1, in float64.

    Its kernels keep a state of (d, d_v) numbers and compute no pair; here the pairs are, which is the same.
    """
    out = np.empty((len(q), v.shape[1]))
    features = _elu_plus_1(k).T
    for rows in blocks(len(q), max(SCORES // len(k), 1)):
        weights = masked(_elu_plus_1(q[rows]) @ features, mask, rows, slice(0, len(k)), len(q), len(k), hidden=0)
        total = weights.sum(axis=1, keepdims=True)
        out[rows] = weights @ v / np.where(total == 0, 1, total)
    return out


def _elu_plus_1(x: Array) -> Array:
    x = np.asarray(x, np.float64)
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


FP32 = Stored("fp32")


def _sparse(name: str, title: str, choose: Choose) -> Method:
    return Method(name, title, exact, FP32, FP32, FP32, standard=None, choose=choose)


APPROXIMATE = (
    _sparse("window_128", "sliding window: the own key and 127 to either side", Pattern(Band(127, 127))),
    _sparse("window_512", "sliding window: the own key and 511 to either side", Pattern(Band(511, 511))),
    _sparse("sinks_128", "StreamingLLM: 4 first keys, a window of 124; not causal: as Longformer has these",
            Pattern(Longformer(123, 4))),
    _sparse("longformer", "Longformer: 256 keys to either side, a global token", Pattern(Longformer(256, 1))),
    _sparse("bigbird", "BigBird: blocks of 64: window, global, random", Pattern(BigBird(64))),
    _sparse("top_blocks", "of blocks of 64 keys those with the highest pooled scores, a quarter", TopBlocks(64, 4)),
    _sparse("top_tokens", "of each query the highest scores, a quarter, at most 2048", TopTokens(2048, 4)),
    Method("linear", "linear attention, elu + 1: no softmax", linear, FP32, FP32, FP32, standard=None, choose=None),
)  # fmt: skip
