"""Arrays of logical devices: what each holds of a tensor, cut out of the packed tensors and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import VerificationError
from ..problem import AttentionProblem
from .layout import Shard

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Block:
    """What a device holds of a tensor: data (batch, heads, tokens, width), and which heads and tokens these are."""

    data: Array
    heads: Array
    tokens: Array

    def cut(self, shard: Shard) -> Block:
        """Those of the rows that a shard has."""
        heads, tokens = positions(shard)
        h, t = np.isin(self.heads, heads), np.isin(self.tokens, tokens)
        return Block(self.data[:, h][:, :, t], self.heads[h], self.tokens[t])

    def is_of(self, shard: Shard) -> bool:
        """Whether it holds just these heads and tokens."""
        heads, tokens = positions(shard)
        return np.array_equal(self.heads, heads) and np.array_equal(self.tokens, tokens)

    def plus(self, other: Block) -> Block:
        """Rows of another block added to these."""
        data = self.data.copy()
        h, t = np.searchsorted(self.heads, other.heads), _where(self.tokens, other.tokens)
        data[:, h[:, None], t] += other.data
        return Block(data, self.heads, self.tokens)


def _where(tokens: Array, wanted: Array) -> Array:
    """Where some tokens are among others, which are in any order."""
    order = np.argsort(tokens)
    return order[np.searchsorted(tokens, wanted, sorter=order)]


def joined(parts: Sequence[Block]) -> Block:
    """The same heads of several devices' tokens."""
    tokens = np.concatenate([part.tokens for part in parts])
    return Block(np.concatenate([part.data for part in parts], axis=2), parts[0].heads, tokens)


def zeros(like: Block, shard: Shard) -> Block:
    """A shard that is empty yet, of the tensor that a block belongs to."""
    heads, tokens = positions(shard)
    batch, *_, width = like.data.shape
    return Block(np.zeros((batch, len(heads), len(tokens), width)), heads, tokens)


def positions(shard: Shard) -> tuple[Array, Array]:
    """The heads and tokens of a shard, one by one."""
    return np.array(shard.heads), np.concatenate([np.array(run, np.int64) for run in shard.tokens])


@dataclass(frozen=True)
class Spread:
    """A tensor over all devices."""

    blocks: Sequence[Block]
    side: str  # q | kv: whose tokens and heads
    role: str  # which number format is sent

    def holding(self, data: Sequence[Array], role: str) -> Spread:
        """Other numbers for the same heads and tokens of each device."""
        blocks = [Block(a, b.heads, b.tokens) for a, b in zip(data, self.blocks, strict=True)]
        return Spread(blocks, self.side, role)


def shared_out(problem: AttentionProblem, packed: Array, side: str, shards: Sequence[Shard]) -> Spread:
    """Each device's part of a packed input (see `reference.shapes`)."""
    heads = problem.heads if side == "q" else problem.kv_heads or 1
    whole = np.asarray(packed, np.float64).reshape(heads, problem.batch, -1, packed.shape[-1]).swapaxes(0, 1)
    places = map(positions, shards)
    return Spread([Block(whole[:, h[:, None], t], h, t) for h, t in places], side, "io")


def assembled(problem: AttentionProblem, value: Spread) -> Array:
    """The packed tensor of all shards; what no device has is NaN. Raises VerificationError where copies differ."""
    query, width = value.side == "q", value.blocks[0].data.shape[-1]
    kv_heads, rows = problem.kv_heads or 1, problem.sequences[0][0 if query else 1]
    out = np.full((problem.batch, problem.heads if query else kv_heads, rows, width), np.nan)
    for r, block in enumerate(value.blocks):
        there = np.s_[:, block.heads[:, None], block.tokens]
        if not np.all(np.isnan(out[there]) | (out[there] == block.data)):
            raise VerificationError(f"device {r} has another copy of the result than the devices before it")
        out[there] = block.data
    packed = (kv_heads, problem.group) if query else (kv_heads,)
    return out.swapaxes(0, 1).reshape(*packed, problem.batch * rows, width)
