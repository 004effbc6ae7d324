"""What is computed: one attention problem, independent of how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isqrt
from typing import NamedTuple

from .dtypes import ITEMSIZE, canonical
from .errors import InputError, refuse, unknown
from .kv_cache import BITS, stored
from .masks import CAUSAL, FULL, Mask
from .units import LARGEST

MASKS = ("full", "causal", "padding")
DIRECTIONS = ("fwd", "bwd", "fwd+bwd")
ROLES = ("io", "score", "accum", "stat", "byte", "index")  # what a tensor holds: tensors and gradients, S and P, ...
KV_SCALES = ("tensor", "head", "token")


class Bias(NamedTuple):
    """An additive bias matrix (q_len x kv_len): whether every query head, and every sequence, has one of its own."""

    heads: bool = True
    batch: bool = True


class Features(NamedTuple):
    """What of a problem changes an algorithm's text; everything else is only numbers."""

    padding: bool = False
    dropout: bool = False
    masked: bool = False  # some query may not see some key, or padding is given
    softcap: bool = False
    alibi: bool = False
    bias: Bias | None = None
    sink: bool = False
    paged: bool = False
    kv_scales: str | None = None  # K and V are stored narrow, with scales per: one of KV_SCALES


@dataclass(frozen=True, kw_only=True)
class AttentionProblem:
    """`softmax(Q K^T / sqrt(head_dim)) V` for `batch` sequences and `heads` query heads, forward, backward or both.

    Q: (batch, heads, q_len, head_dim); K: (batch, kv_heads, kv_len, head_dim); V and O have `value_dim` columns.
    `q_len` and `kv_len` may be sequences of lengths, one per batch entry (packed, variable length).

    dtype        storage of Q, K, V, O and their gradients
    score_dtype  storage of S, P and their gradients where an algorithm stores them; and what the second
                 matrix product of a fused kernel takes as its input. Default: dtype
    accum_dtype  what on-chip arithmetic accumulates in, and fp32 accumulators in HBM (dQ of FlashAttention-2)
    mask         "full", "causal" (bottom-right aligned), "padding", or a `Mask` (ioaware.masks)
    padding      an additive key-padding vector (batch, kv_len) is given, besides the mask
    dropout      probability of dropping an attention weight

    What is done to scores, in this order; then the mask:
    softmax_scale  multiplies Q K^T. Default: 1 / sqrt(head_dim)
    softcap        c tanh(s / c); 0: none
    alibi          - slope |q + kv_len - q_len - k|, one fp32 slope per query head
    bias           an additive matrix, see `Bias`
    sink           a learned logit per query head, in every row's softmax as a key of value 0

    How the keys and values are kept:
    page_size    in pages of so many keys, found through a block table of 4-byte entries. Default: contiguous
    kv_dtype     in another format than dtype: fp8_e4m3, fp8_e5m2, int8 or int4
    kv_scales    with fp32 scales per "tensor", per key/value "head", or per "token" of a head
    shared_kv    V is the first value_dim columns of K, as in the latent cache of multi-head latent attention

    pack         rows of Q are (query, head of the group) pairs, `pack` heads to a query; see `packed`

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
    mask: Mask | str = FULL
    padding: bool = False
    dropout: float = 0.0
    direction: str = "fwd"
    softmax_scale: float | None = None
    softcap: float = 0.0
    alibi: bool = False
    bias: Bias | None = None
    sink: bool = False
    page_size: int | None = None
    kv_dtype: str | None = None
    kv_scales: str = "head"
    shared_kv: bool = False
    pack: int = 1
    itemsizes: tuple[int, ...] = field(init=False, repr=False, compare=False)  # bytes per element, in order of ROLES

    def __post_init__(self) -> None:
        self._put("kv_len", self.q_len if self.kv_len is None else self.kv_len)
        self._put("kv_heads", self.heads if self.kv_heads is None else self.kv_heads)
        self._put("value_dim", self.head_dim if self.value_dim is None else self.value_dim)
        for name in ("batch", "heads", "kv_heads", "head_dim", "value_dim", "pack"):
            check_count(name, getattr(self, name))
        self._check_lengths()
        self._check_heads()
        self._put("dtype", canonical(self.dtype))
        self._put("score_dtype", canonical(self.score_dtype or self.dtype, "score_dtype"))
        self._put("accum_dtype", canonical(self.accum_dtype, "accum_dtype"))
        if self.accum_dtype == "tf32":
            raise refuse("accum_dtype", "tf32", "matrix units round their inputs to tf32, and accumulate wider", "fp32")
        self._check_mask()
        self._check_lengths_of_mask()
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            above = isinstance(self.dropout, (int, float)) and self.dropout >= 1
            raise refuse("dropout", self.dropout, "a probability in [0, 1)", 0.999 if above else 0.0)
        if self.direction not in DIRECTIONS:
            raise unknown("direction", self.direction, DIRECTIONS, f"known: {', '.join(DIRECTIONS)}")
        self._check_scores()
        self._check_cache()
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
        if isinstance(self.mask, Mask):
            return
        if self.mask not in MASKS:
            raise unknown("mask", self.mask, MASKS, f"known: {', '.join(MASKS)}, or a Mask of ioaware.masks")
        self._put("padding", self.padding or self.mask == "padding")
        self._put("mask", CAUSAL if self.mask == "causal" else FULL)

    def _check_lengths_of_mask(self) -> None:
        for length, _ in self.lengths():
            self.band.check(*length)

    def _check_scores(self) -> None:
        if self.softmax_scale is not None:
            check_number("softmax_scale", self.softmax_scale, 1 / self.head_dim**0.5)
        if not isinstance(self.softcap, (int, float)) or not 0 <= self.softcap < inf:
            raise refuse("softcap", self.softcap, "0 for none, or a positive number", 50.0)
        self._put("softcap", float(self.softcap))
        if self.bias is not None and not isinstance(self.bias, Bias):
            raise InputError(f"bias={self.bias!r}: say what has its own by Bias(heads=True, batch=False)")
        if self.bias is not None and not self.bias.batch and isinstance(self.q_len, tuple):
            raise InputError("bias shared over the batch: the sequences have different lengths; give Bias(batch=True)")
        if self.bias is not None and self.pack > 1:
            raise InputError(f"pack={self.pack}: a bias matrix has no row per packed head; the nearest legal is 1")

    def _check_cache(self) -> None:
        if self.page_size is not None:
            check_count("page_size", self.page_size)
        if self.kv_dtype is not None:
            self._put("kv_dtype", stored(self.kv_dtype))
        if self.kv_scales not in KV_SCALES:
            raise unknown("kv_scales", self.kv_scales, KV_SCALES, f"known: {', '.join(KV_SCALES)}")
        if self.shared_kv and self.value_dim > self.head_dim:  # type: ignore[operator]
            rule = f"with shared_kv V is columns of K, of which there are head_dim={self.head_dim}"
            raise refuse("value_dim", self.value_dim, rule, self.head_dim)
        cache = self.page_size is not None or self.kv_dtype is not None or self.shared_kv
        if cache and "bwd" in self.passes:
            raise InputError(f"direction={self.direction}: a paged, narrow or latent KV cache has no gradient; use fwd")

    @property
    def band(self) -> Mask:
        """The mask, as what it is after validation."""
        assert isinstance(self.mask, Mask)
        return self.mask

    @property
    def scale(self) -> float:
        """What Q K^T is multiplied by."""
        return 1 / self.head_dim**0.5 if self.softmax_scale is None else float(self.softmax_scale)

    def packed(self) -> AttentionProblem:
        """The problem that a kernel sees which puts the query heads of a group into the rows of one tile (pack-GQA).

        Row r is head r mod group of query r div group, so that a tile of keys is loaded once for all heads of a group.
        """
        group = self.group
        rows = tuple(q * group for q in self.q_len) if isinstance(self.q_len, tuple) else self.q_len * group
        return replace(
            self, q_len=rows, heads=self.heads // group, mask=self.band.packed(group), pack=self.pack * group
        )

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
        return Features(
            self.padding, self.dropout > 0, self.padding or self.band != FULL, self.softcap > 0, self.alibi, self.bias,
            self.sink, self.page_size is not None, self.kv_scales if self.kv_dtype else None,
        )  # fmt: skip

    @property
    def plain(self) -> bool:
        """Whether a mask, padding and dropout are all that there is besides softmax(Q K^T / sqrt(head_dim)) V."""
        return not any(self.features[3:]) and not self.shared_kv and self.pack == 1 and self.softmax_scale is None

    def number_format(self, role: str) -> str:
        """The number format of a tensor's role: one of ROLES."""
        if role == "stat":
            return "fp64" if self.accum_dtype == "fp64" else "fp32"
        formats = {"io": self.dtype, "score": str(self.score_dtype), "accum": self.accum_dtype}
        return {**formats, "byte": "uint8", "index": "int32"}[role]

    @property
    def kv_bits(self) -> int:
        """Bits per element of K and V as they are stored."""
        return BITS[self.kv_dtype] if self.kv_dtype else 8 * self.itemsize("io")

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


def check_number(name: str, value: object, usual: float) -> float:
    """A finite number; raises InputError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -inf < value < inf:
        raise refuse(name, value, "must be a finite number", usual)
    return value


def _lengths(name: str, value: int | Sequence[int] | None) -> int | tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        return check_count(name, value)
    if not value:
        raise InputError(f"{name} is empty; give one length per sequence")
    return tuple(check_count(name, v) for v in value)
