"""Who holds what: the tokens and heads of each device, as ranges, so that a billion tokens cost as little as ten.

Tokens need not be shared out evenly: the first `n mod parts` chunks have one more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ..masks import Band
from ..problem import AttentionProblem

Tokens: TypeAlias = tuple[range, ...]


class Shard(NamedTuple):
    """The part of a tensor that one device holds: some heads of some tokens."""

    heads: range
    tokens: Tokens

    @property
    def rows(self) -> int:
        """Rows of one sequence: heads x tokens."""
        return len(self.heads) * sum(map(len, self.tokens))


class Layout(NamedTuple):
    """A shard per device: of Q, O and their gradients; of K, V and their gradients."""

    q: tuple[Shard, ...]
    kv: tuple[Shard, ...]


LayoutRule: TypeAlias = Callable[[AttentionProblem, int], Layout]


def chunk(n: int, parts: int, i: int) -> range:
    """The i-th of `parts` runs of consecutive tokens (or heads)."""
    start = [j * (n // parts) + min(j, n % parts) for j in (i, i + 1)]
    return range(*start)


def contiguous(problem: AttentionProblem, devices: int) -> Layout:
    """Device r holds the r-th run of tokens."""
    return _over_tokens(problem, devices, lambda n, r: (chunk(n, devices, r),))


def striped(problem: AttentionProblem, devices: int) -> Layout:
    """Device r holds every `devices`-th token, from the r-th on (Striped Attention)."""
    return _over_tokens(problem, devices, lambda n, r: (range(r, n, devices),))


def zigzag(problem: AttentionProblem, devices: int) -> Layout:
    """Of 2 x devices runs, device r holds the r-th from either end (Llama 3, section 3.3.2)."""
    ends = 2 * devices - 1
    return _over_tokens(problem, devices, lambda n, r: (chunk(n, ends + 1, r), chunk(n, ends + 1, ends - r)))


def _over_tokens(problem: AttentionProblem, devices: int, tokens: Callable[[int, int], Tokens]) -> Layout:
    heads, kv_heads = range(problem.heads), range(problem.kv_heads or 1)
    (q_len, kv_len), *_ = problem.sequences
    return Layout(
        tuple(Shard(heads, tokens(q_len, r)) for r in range(devices)),
        tuple(Shard(kv_heads, tokens(kv_len, r)) for r in range(devices)),
    )


def over_keys(problem: AttentionProblem, devices: int) -> Layout:
    """Every device holds all queries; device r the r-th run of keys: a KV cache that is shared out."""
    queries = Shard(range(problem.heads), (range(problem.sequences[0][0]),))
    return Layout((queries,) * devices, contiguous(problem, devices).kv)


def over_heads(problem: AttentionProblem, devices: int) -> Layout:
    """Device r holds the r-th run of query heads and every key/value head that these read; all tokens."""
    q_len, kv_len = ((range(n),) for n in problem.sequences[0])
    heads = [chunk(problem.heads, devices, r) for r in range(devices)]
    needed = [range(h[0] // problem.group, h[-1] // problem.group + 1) for h in heads]
    return Layout(tuple(Shard(h, q_len) for h in heads), tuple(Shard(h, kv_len) for h in needed))


def common(a: Shard, b: Shard) -> int:
    """Rows of one sequence that two shards share; their tokens are consecutive runs."""
    tokens = sum(len(_overlap(s, t)) for s in a.tokens for t in b.tokens)
    return len(_overlap(a.heads, b.heads)) * tokens


def _overlap(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))


def visible(q: Tokens, k: Tokens, mask: Band, lengths: tuple[int, int]) -> int:
    """Visible (query, key) pairs of some queries and some keys, in closed form."""
    return sum(_visible(rows, keys, mask, lengths) for rows in q for keys in k)


def _visible(q: range, k: range, mask: Band, lengths: tuple[int, int]) -> int:
    """Query i of q sees the keys j <= i + offset of k, and of these not the ones before its window: two staircases."""
    assert q.step == k.step
    own = q.start - k.start + (0 if mask.top_left else lengths[1] - lengths[0])
    until = len(q) * len(k)
    if mask.right is not None:
        until = _staircase(len(q), (own + mask.right) // q.step + 1, len(k))
    if mask.left is None:
        return until
    return until - _staircase(len(q), (own - mask.left - 1) // q.step + 1, len(k))


def _staircase(n: int, first: int, top: int) -> int:
    """Sum over i < n of min(max(first + i, 0), top)."""
    return _ramp(first + n) - _ramp(first) - _ramp(first + n - top) + _ramp(first - top)


def _ramp(n: int) -> int:
    """Sum over i < n of max(i, 0)."""
    return n * (n - 1) // 2 if n > 0 else 0
