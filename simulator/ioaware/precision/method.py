"""A method: how Q, K and V are stored, which pairs are computed, and how attention is computed from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from . import incoherent
from .attention import Attend, pairs
from .formats import Array, find, rounded
from .scales import Share, quantised

if TYPE_CHECKING:
    from ..masks import Mask

Choose: TypeAlias = Callable[[Array, Array, "Mask | None"], "Mask | None"]


def all_pairs(q: Array, k: Array, mask: Mask | None) -> Mask | None:
    """What is visible, and nothing less."""
    return mask


@dataclass(frozen=True)
class Stored:
    """How a tensor is stored: a format, what shares a scale (None: no scales), and whether it is rotated before."""

    form: str
    share: Share | None = None
    rotates: bool = False

    def __call__(self, x: Array) -> Array:
        """What a kernel finds, float32, of `x` (heads, rows, columns). Raises InputError: no rotation of this size."""
        x = incoherent.rotated(x) if self.rotates else x
        if self.share is None:
            return rounded(x, self.form).astype(np.float32)
        return quantised(x, self.form, self.share).restored

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor with its fp32 scales."""
        heads, rows, columns = shape
        scales = self.share.count(shape) if self.share else 0
        return heads * rows * -(-columns * find(self.form).bits // 8) + 4 * scales


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    attend    one head: (q, k, v, scale, mask) to o, all (rows, columns) and float32; mask None: all is seen
    q, k, v   how the inputs are stored
    standard  the straightforward method in the same precision, with whose error this one's is compared; None: none
    choose    one head's pairs that are computed: (q, k, mask) to a mask; None where pairs are not how it works
    """

    name: str
    title: str
    attend: Attend
    q: Stored = Stored("fp16")
    k: Stored = Stored("fp16")
    v: Stored = Stored("fp16")
    standard: str | None = "standard_fp16"
    choose: Choose | None = all_pairs

    def store(self, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """What `attend` gets of inputs (heads, rows, columns), head by head."""
        return self.q(q), self.k(k), self.v(v)

    def __call__(self, q: Array, k: Array, v: Array, scale: float, mask: Mask | None = None) -> Array:
        """O of all heads, (heads, rows, columns). Raises InputError: the head dimension does not fit."""
        choose = self.choose or all_pairs
        heads = zip(*self.store(q, k, v), strict=True)
        return np.stack([self.attend(*head, scale, choose(head[0], head[1], mask)) for head in heads])

    def share(self, q: Array, k: Array, mask: Mask | None = None) -> float | None:
        """Of the visible pairs, how many are computed: 1 is all."""
        if self.choose is None or self.choose is all_pairs:
            return None if self.choose is None else 1.0
        lengths, heads = (q.shape[1], k.shape[1]), zip(self.q(q), self.k(k), strict=True)
        return sum(pairs(self.choose(*head, mask), *lengths) for head in heads) / (len(q) * pairs(mask, *lengths))

    def check(self, head_dim: int) -> None:
        """Raises InputError: the head dimension does not fit."""
        if self.q.rotates:
            incoherent.check(head_dim)

    def nbytes(self, q: Array, k: Array, v: Array) -> int:
        """Bytes of the inputs as they are stored."""
        return sum(stored.nbytes(x.shape) for stored, x in ((self.q, q), (self.k, k), (self.v, v)))
