"""One call of an attention function: its sequences, views of the caller's arrays, and the problem that they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import refuse
from ..problem import AttentionProblem
from .arrays import FORMATS, Array, accumulator, module_of
from .gradient import gradients
from .online import attend, finite, query_tiles
from .scores import Scores

if TYPE_CHECKING:
    from .ledger import Ledger

silently = np.errstate(all="ignore")  # infinite and NaN inputs give what IEEE 754 says, as on a GPU


class Operands(NamedTuple):
    """The arrays of one sequence: q (q_len, heads, d), k (kv_len, kv_heads, d), v (kv_len, kv_heads, value_dim).

    mask  bool or additive, (heads, q_len, kv_len)
    """

    q: Array
    k: Array
    v: Array
    mask: Array | None = None


@dataclass(frozen=True)
class Call:
    """What is computed, once; and of which arrays. slopes: of ALiBi, fp32 (batch, heads)."""

    problem: AttentionProblem
    sequences: Sequence[Operands]
    slopes: Array | None = None

    @silently
    def forward(self, outs: Iterable[Array], logs: Iterable[Array], splits: int = 1) -> None:
        """Write O (q_len, heads, value_dim) and L (heads, q_len) of every sequence."""
        for x, scores, out, log in zip(self.sequences, self._scores(), outs, logs, strict=True):
            q, k, v = (self._by_head(a) for a in x[:3])
            self._view(out)[...], found = attend(q, k, v, scores, splits)
            log[...] = found.reshape(log.shape)

    @silently
    def backward(
        self, douts: Iterable[Array], outs: Iterable[Array], logs: Iterable[Array], into: Iterable[Sequence[Array]]
    ) -> None:
        """Write (dq, dk, dv), `into`, of every sequence, from dO and what `forward` wrote."""
        for x, scores, do, out, log, views in zip(self.sequences, self._scores(), douts, outs, logs, into, strict=True):
            q, k, v, do, out = (self._by_head(a) for a in (*x[:3], do, out))
            found = gradients(do, q, k, v, out, log.reshape(q.shape[:3]).astype(q.dtype, copy=False), scores)
            for view, gradient in zip(views, found, strict=True):
                self._view(view)[...] = gradient

    @silently
    def probabilities(self, logs: Iterable[Array], into: Iterable[Array]) -> None:
        """Write P (heads, q_len, kv_len) of every sequence, with a minus sign where dropout drops it."""
        for x, scores, log, view in zip(self.sequences, self._scores(), logs, into, strict=True):
            q, k = self._by_head(x.q) * accumulator(x.q).type(self.problem.scale), self._by_head(x.k)
            base = finite(log.reshape(*q.shape[:3], 1))
            view[...] = 0
            for rows in query_tiles(q):
                for cols in scores.key_tiles(rows, slice(0, scores.kv_len)):
                    s, _ = scores.shown(scores.capped(q[..., rows, :], k[..., cols, :]), rows, cols)
                    p = module_of(q).exp(s - base[..., rows, :])
                    signed = module_of(q).where(scores.kept(rows, cols, p) == 0, -p, p)
                    view[:, rows, cols] = signed.reshape(-1, *p.shape[2:])

    def _scores(self) -> Iterator[Scores]:
        """How the scores of each sequence are computed."""
        q0 = k0 = 0
        groups = (self.problem.kv_heads or 1, self.problem.group)
        for b, x in enumerate(self.sequences):
            slopes = None if self.slopes is None else self.slopes[b].astype(accumulator(x.q)).reshape(*groups, 1, 1)
            mask = None if x.mask is None else x.mask.reshape(*groups, *x.mask.shape[1:])
            yield Scores(self.problem, len(x.q), len(x.k), (q0, k0), slopes, mask)
            q0, k0 = q0 + len(x.q), k0 + len(x.k)

    def _view(self, x: Array) -> Array:
        """(length, heads, columns) as (kv_heads, heads of a group, length, columns): a view."""
        length, heads, columns = x.shape
        kv_heads = self.problem.kv_heads or 1
        return x.reshape(length, kv_heads, heads // kv_heads, columns).transpose(1, 2, 0, 3)

    def _by_head(self, x: Array) -> Array:
        """The view in the format that arithmetic is in; contiguous, so that no bit depends on the caller's layout."""
        return self._view(x).astype(accumulator(x), order="C", copy=False)


def call(
    function: str, ledger: Ledger | None, sequences: Sequence[Operands], slopes: Array | None = None, **fields: Any
) -> Call:
    """A call of `function`; its problem is entered into the ledger, if there is one.

    Sequences without queries or without keys are none that a problem describes: the ledger leaves them out.
    fields: of AttentionProblem, what is not said by the arrays. Raises InputError.
    """
    if not sequences:
        raise refuse("batch", 0, "must be at least 1", 1)
    q, k, v, _ = sequences[0]
    lengths = [(len(x.q), len(x.k)) for x in sequences if len(x.q) and len(x.k)]
    q_len, kv_len = zip(*(lengths or [(1, 1)]), strict=True)
    if len(set(lengths)) == 1:
        fields |= {"batch": len(lengths)}
        q_len, kv_len = q_len[0], kv_len[0]
    problem = AttentionProblem(
        q_len=q_len, kv_len=kv_len, heads=q.shape[1], kv_heads=k.shape[1], head_dim=q.shape[2], value_dim=v.shape[2],
        dtype=FORMATS[str(q.dtype)], accum_dtype=FORMATS[str(accumulator(q))], alibi=slopes is not None, **fields,
    )  # fmt: skip
    if ledger is not None and lengths:
        ledger.enter(function, problem)
    return Call(problem, sequences, slopes)
