"""What is computed: one attention problem, independent of how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import NamedTuple

from .dtypes import ITEMSIZE, canonical
from .errors import InputError, refuse, unknown
from .masks import CAUSAL, FULL, Band
from .units import LARGEST

MASKS = ("full", "causal", "padding")
DIRECTIONS = ("fwd", "bwd", "fwd+bwd")
ROLES = ("io", "score", "accum", "stat", "byte")  # what a tensor holds: tensors and gradients, S and P, ...


class Features(NamedTuple):
    """What of a problem changes an algorithm's text; everything else is only numbers."""

    padding: bool = False
    dropout: bool = False
    masked: bool = False  # some query may not see some key, or padding is given


@dataclass(frozen=True, kw_only=True)
class AttentionProblem:
    """`softmax(Q K^T / sqrt(head_dim)) V` for `batch` sequences and `heads` query heads, forward, backward or both.

    Q: (batch, heads, q_len, head_dim); K: (batch, kv_heads, kv_len, head_dim); V and O have `value_dim` columns.
    `q_len` and `kv_len` may be sequences of lengths, one per batch entry (packed, variable length).

    dtype        storage of Q, K, V, O and their gradients
    score_dtype  storage of S, P and their gradients where an algorithm stores them; and what the second
                 matrix product of a fused kernel takes as its input. Default: dtype
    accum_dtype  what on-chip arithmetic accumulates in, and fp32 accumulators in HBM (dQ of FlashAttention-2)
    mask         "full", "causal" (bottom-right aligned), "padding", or a `Band`
    padding      an additive key-padding vector (batch, kv_len) is given, besides the mask
    dropout      probability of dropping an attention weight

    Softmax statistics (l, m, L, D) are fp32, as every FlashAttention stores them (fp64 if accum_dtype is).
    Raises InputError: value, rule, nearest legal value.
    """

    q_len: int | tuple[int, ...]
    kv_len: int | tuple[int, ...] | None = None
    batch: int = 1
    heads: int = 1
    kv_heads: int | None = None
    head_dim: int = 64
    value_dim: int | None = None
    dtype: str = "fp16"
    score_dtype: str | None = None
    accum_dtype: str = "fp32"
    mask: Band | str = FULL
    padding: bool = False
    dropout: float = 0.0
    direction: str = "fwd"
    itemsizes: tuple[int, ...] = field(init=False, repr=False, compare=False)  # bytes per element, in order of ROLES

    def __post_init__(self) -> None:
        self._put("kv_len", self.q_len if self.kv_len is None else self.kv_len)
        self._put("kv_heads", self.heads if self.kv_heads is None else self.kv_heads)
        self._put("value_dim", self.head_dim if self.value_dim is None else self.value_dim)
        for name in ("batch", "heads", "kv_heads", "head_dim", "value_dim"):
            check_count(name, getattr(self, name))
        self._check_lengths()
        self._check_heads()
        self._put("dtype", canonical(self.dtype))
        self._put("score_dtype", canonical(self.score_dtype or self.dtype, "score_dtype"))
        self._put("accum_dtype", canonical(self.accum_dtype, "accum_dtype"))
        self._check_mask()
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            above = isinstance(self.dropout, (int, float)) and self.dropout >= 1
            raise refuse("dropout", self.dropout, "a probability in [0, 1)", 0.999 if above else 0.0)
        if self.direction not in DIRECTIONS:
            raise unknown("direction", self.direction, DIRECTIONS, f"known: {', '.join(DIRECTIONS)}")
        self._put("itemsizes", tuple(ITEMSIZE[self.number_format(role)] for role in ROLES))

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_lengths(self) -> None:
        q, kv = _lengths("q_len", self.q_len), _lengths("kv_len", self.kv_len)
        if isinstance(q, int) and isinstance(kv, int):
            return
        q = (q,) * len(kv) if isinstance(q, int) and not isinstance(kv, int) else q
        kv = (kv,) * len(q) if isinstance(kv, int) and not isinstance(q, int) else kv
        assert isinstance(q, tuple)
        assert isinstance(kv, tuple)
        if len(q) != len(kv):
            raise InputError(f"q_len has {len(q)} lengths and kv_len has {len(kv)}: one of each per sequence")
        if self.batch not in (1, len(q)):
            raise refuse("batch", self.batch, f"{len(q)} lengths are given, one per sequence", len(q))
        for name, value in (("q_len", q), ("kv_len", kv), ("batch", len(q))):
            self._put(name, value)

    def _check_heads(self) -> None:
        assert self.kv_heads is not None
        if self.heads % self.kv_heads:
            small = [k for k in range(1, min(isqrt(self.heads), 10**5) + 1) if self.heads % k == 0]
            wanted = self.kv_heads
            nearest = min((*small, *(self.heads // k for k in small)), key=lambda k: abs(k - wanted))
            raise refuse("kv_heads", self.kv_heads, f"must divide heads={self.heads:,}", nearest)

    def _check_mask(self) -> None:
        if isinstance(self.mask, Band):
            return
        if self.mask not in MASKS:
            raise unknown("mask", self.mask, MASKS, f"known: {', '.join(MASKS)}")
        self._put("padding", self.padding or self.mask == "padding")
        self._put("mask", CAUSAL if self.mask == "causal" else FULL)

    @property
    def band(self) -> Band:
        """The mask, as what it is after validation."""
        assert isinstance(self.mask, Band)
        return self.mask

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        assert self.kv_heads is not None
        return self.heads // self.kv_heads

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes to compute: ("fwd",), ("bwd",) or both."""
        return tuple(self.direction.split("+"))

    @property
    def sequences(self) -> list[tuple[int, int]]:
        """[(q_len, kv_len)], one per sequence."""
        if isinstance(self.q_len, int):
            return [(self.q_len, self.kv_len)] * self.batch  # type: ignore[list-item]
        return list(zip(self.q_len, self.kv_len, strict=True))  # type: ignore[arg-type]

    def lengths(self) -> list[tuple[tuple[int, int], int]]:
        """[((q_len, kv_len), how many sequences have them)]: all that counting needs."""
        if isinstance(self.q_len, int):
            return [((self.q_len, self.kv_len), self.batch)]  # type: ignore[list-item]
        from collections import Counter

        return list(Counter(self.sequences).items())

    def longest(self) -> tuple[int, int]:
        """The longest q_len and the longest kv_len."""
        (queries, keys), *_ = zip(*((length for length, _ in self.lengths())), strict=True), ()
        return max(queries), max(keys)

    def pairs(self) -> int:
        """|E|: visible (query, key) pairs over all sequences and query heads."""
        return self.heads * sum(n * self.band.pairs(*length) for length, n in self.lengths())

    @property
    def features(self) -> Features:
        """What of the problem changes an algorithm's text."""
        return Features(self.padding, self.dropout > 0, self.padding or self.band != FULL)

    def number_format(self, role: str) -> str:
        """The number format of a tensor's role: one of ROLES."""
        if role == "stat":
            return "fp64" if self.accum_dtype == "fp64" else "fp32"
        return {"io": self.dtype, "score": str(self.score_dtype), "accum": self.accum_dtype, "byte": "uint8"}[role]

    def itemsize(self, role: str) -> int:
        """Bytes per element of a tensor's role."""
        return self.itemsizes[ROLES.index(role)]


def check_count(name: str, value: object) -> int:
    """A positive integer of sane size; raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int):
        number = value if isinstance(value, float) and 1 <= value <= LARGEST else 1
        raise refuse(name, value, "must be a positive integer", round(number))
    if value < 1:
        raise refuse(name, value, "must be at least 1", 1)
    if value > LARGEST:
        raise refuse(name, value, "at most 10^15", LARGEST)
    return value


def _lengths(name: str, value: int | Sequence[int] | None) -> int | tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        return check_count(name, value)
    if not value:
        raise InputError(f"{name} is empty; give one length per sequence")
    return tuple(check_count(name, v) for v in value)
