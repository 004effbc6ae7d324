"""What programs say about attention itself: masks, changes of scores, dropout, sinks, and the KV cache.

Each of these is there only if the problem has it: the text is the same, and so is everything else that it moves. A text
that leaves out what its problem needs is refused (`unsupported`), never run as if the problem had it not.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..problem import Features
from ..sizes import ONE, ceil, name
from .loops import Axis, Index, Pages, SameRows, Visible
from .nodes import Piece, Tensor, Value, broadcast, fail, show

Q_LEN, KV_LEN = Axis("q_len", name("q_len"), "i", tiled=True), Axis("kv_len", name("kv_len"), "j", tiled=True)
KV_HEADS, GROUP = Axis("kv_heads", name("kv_heads"), "h"), Axis("group", name("group"), "g")
PACK, PAGES = Axis("pack", name("pack")), Axis("pages", ceil(name("kv_len"), name("page_size")), tiled=True)
UNIT = Axis("1", ONE)

BATCH = Axis("batch", name("batch"), "b")
HEAD_DIM, VALUE_DIM = Axis("head_dim", name("head_dim")), Axis("value_dim", name("value_dim"))

_HEADS = (KV_HEADS, GROUP)
TENSORS: dict[str, tuple[tuple[Axis, ...], str]] = {  # what a parameter's name means: axes, dtype role
    **dict.fromkeys(("Q", "dQ"), ((*_HEADS, Q_LEN, HEAD_DIM), "io")),
    **dict.fromkeys(("O", "dO"), ((*_HEADS, Q_LEN, VALUE_DIM), "io")),
    **dict.fromkeys(("K", "dK"), ((KV_HEADS, KV_LEN, HEAD_DIM), "io")),
    **dict.fromkeys(("V", "dV"), ((KV_HEADS, KV_LEN, VALUE_DIM), "io")),
    **dict.fromkeys(("L", "l", "m"), ((*_HEADS, Q_LEN, UNIT), "stat")),
    **dict.fromkeys(("P", "P_dropped"), ((*_HEADS, Q_LEN, KV_LEN), "score")),
    "keep": ((*_HEADS, Q_LEN, KV_LEN), "byte"),
}
OPTIONAL = ("keep", "P_dropped")  # given only with dropout
CACHE = ("K", "V")
ALWAYS_INPUT = ("Q", "K", "V", "dO")
GRADIENTS = ("dQ", "dK", "dV")
SCALES = {"tensor": (UNIT, UNIT), "head": (KV_HEADS, UNIT, UNIT), "token": (KV_HEADS, KV_LEN, UNIT)}
SAVED = {"L", "l", "P"}  # any of these has in it what was done to the scores
MODIFIERS = ("padding", "softcap", "alibi", "bias")  # what score_mod does besides the mask


def unsupported(name: str, features: Features, used: set[str], tensors: Iterable[str]) -> InputError | None:
    """What the problem has and the text never asks for. A backward pass has most of it in what forward saved."""
    backward, saved = "dO" in tensors, not SAVED.isdisjoint(tensors)
    calls = {"sink": "row_state", "paged": "cached", "kv_scales": "cached", **dict.fromkeys(MODIFIERS, "score_mod")}
    if backward:
        calls = {**({} if saved else calls), "softcap": "score_grad"}
    for feature, call in calls.items():
        if getattr(features, feature) and (call not in used or (call == "cached" and "uncached" in used)):
            return InputError(
                f"{feature}: {name} has no p.{call}, so it would compute something else; flash2 has it"
                if call != "score_grad"
                else f"{feature}: {name} keeps no scores to differentiate (p.{call}); flash2 has it, or --direction fwd"
            )
    return None


class AttentionOps:
    """The part of the recorder that knows what attention is."""

    if TYPE_CHECKING:  # given by the recorder
        features: Features
        used: set[str]

        def full(self, shape: tuple[Axis | Index | int, ...], x: float) -> Value: ...
        def zeros(self, *shape: Axis | Index | int) -> Value: ...
        def hoisted(self, piece: Piece, *indices: Index) -> Value: ...
        def declared(self, label: str, axes: tuple[Axis, ...], dtype: str, *, shared: bool = ...) -> Tensor: ...
        def _read(self, *pieces: Piece) -> list[Value]: ...
        def _op(self, kind: str, shape: Any, *args: Any, extra: Any = ...) -> Value: ...

    # ------------------------------------------------------------------------------------------------ scores
    def score_mod(self, x: Value, h: Index, g: Index, i: Index, j: Index) -> Value:
        """All that the problem does to the scaled scores `x`, then -inf where a query of `i` sees no key of `j`.

        In this order: soft cap, ALiBi, additive bias, key padding, mask. What is read for it is read here.
        """
        self.used.add("score_mod")
        self._check_heads("score_mod", h, g)
        self._check_pairs("score_mod", x, i, j)
        if self.features.softcap:
            x = self._op("softcap", x.shape, x)
        if self.features.alibi:
            x = self._op("alibi", x.shape, x, self._per_head("slopes", h, g), extra=(i, j))
        if self.features.bias:
            x = x + self._bias(h, g, i, j)
        if self.features.padding:
            x = x + self.hoisted(self.declared("padding", (KV_LEN, UNIT), "io")[j], j).T
        return self.mask(x, i, j)

    def score_grad(self, ds: Value, x: Value) -> Value:
        """The gradient of the scaled scores `x` from that of the modified ones: only a soft cap changes it."""
        self.used.add("score_grad")
        shape = broadcast("score_grad", ds.shape, x.shape)
        return self._op("uncap", shape, ds, x) if self.features.softcap else ds

    def row_state(self, h: Index, g: Index, i: Index) -> tuple[Value, Value]:
        """Row maximum and row sum of no key yet: -inf and 0; with a learned sink, a key of value 0: its logit and 1."""
        self.used.add("row_state")
        self._check_heads("row_state", h, g)
        if not self.features.sink:
            return self.full((i, 1), -inf), self.zeros(i, 1)
        m = self.full((i, 1), -inf)
        m[:] = self._op("per_row", (i.rows, ONE), self._per_head("sink", h, g), extra=(i,))
        return m, self.full((i, 1), 1.0)

    def _per_head(self, label: str, h: Index, g: Index) -> Value:
        """A number per query head, read once where the head is known; packed rows have several heads."""
        return self.hoisted(self.declared(label, (KV_HEADS, GROUP, PACK, UNIT), "stat")[h, g], h, g)

    def _bias(self, h: Index, g: Index, i: Index, j: Index) -> Value:
        assert self.features.bias is not None
        heads, batch = self.features.bias
        axes = (KV_HEADS, GROUP, Q_LEN, KV_LEN) if heads else (Q_LEN, KV_LEN)
        tensor = self.declared("bias", axes, "io", shared=not batch)
        return self.hoisted(tensor[h, g, i, j], h, g, i, j) if heads else self.hoisted(tensor[i, j], i, j)

    # ------------------------------------------------------------------------------------------------ masks
    def mask(self, s: Value, i: Index, j: Index | Visible) -> Value:
        """`s`, and -inf where a query of `i` does not see a key of `j`."""
        self._check_pairs("mask", s, i, j)
        return self._op("mask", s.shape, s, extra=(i, j))

    def _check_pairs(self, kind: str, x: Value, i: Index, j: Index | Visible) -> None:
        """A value of one number per (query, key) pair: rows are queries, columns are keys."""
        self._check_axes(kind, i, j)
        pairs = (i.rows, j.rows)
        if x.shape[-2:] != pairs:
            fail(f"p.{kind}: the value is {show(x.shape)}, its queries and keys are {show(pairs)}; a transpose is .T")

    def _check_axes(self, kind: str, i: Index, j: Index | Visible) -> None:
        axes = i.axis, j.tiles.axis if isinstance(j, Visible) else j.axis
        if axes != (Q_LEN, KV_LEN):
            fail(f"p.{kind} takes a query tile, then a key tile; these walk {axes[0]} and {axes[1]}")

    def _check_heads(self, kind: str, h: Index, g: Index) -> None:
        if (h.axis, g.axis) != (KV_HEADS, GROUP):
            fail(f"p.{kind} takes a kv_heads index, then a group index; these walk {h.axis} and {g.axis}")

    # ------------------------------------------------------------------------------------------------ dropout
    def drop(self, x: Value, h: Index, g: Index, i: Index, j: Index | Visible) -> Value:
        """Dropout: 0 or x / (1 - dropout), by a counter-based generator, so any tiling agrees; `x` without dropout."""
        self._check_heads("drop", h, g)
        self._check_pairs("drop", x, i, j)
        return self._op("drop", x.shape, x, extra=(h, g, i, j)) if self.features.dropout else x

    def keep(self, h: Index, g: Index, i: Index, j: Index) -> Value:
        """The 0/1 dropout mask itself."""
        self._check_heads("keep", h, g)
        self._check_axes("keep", i, j)
        return self._op("keep", (i.rows, j.rows), extra=(h, g, i, j))

    def kept(self, x: Value, keep: Value) -> Value:
        """x / (1 - dropout) where `keep` is 1, else 0."""
        return self._op("kept", broadcast("kept", x.shape, keep.shape), x, keep)

    # ------------------------------------------------------------------------------------------------ the KV cache
    def cached(self, *pieces: Piece) -> Any:
        """Key tiles of the KV cache: found through the block table if it is paged, times their scales if it is narrow.

        The table's entries of a tile are read once for all pieces. Without pages and scales, the same as `load`.
        """
        self.used.add("cached")
        h, j = self._of_cache(pieces)
        if self.features.paged:
            self._read(self.declared("block_table", (PAGES,), "index")[Pages(j)])
        out = self._read(*pieces)
        if self.features.kv_scales:
            out = [x * self._scale(p.tensor.name, h, j) for x, p in zip(out, pieces, strict=True)]
        return out[0] if len(out) == 1 else out

    def _of_cache(self, pieces: tuple[Piece, ...]) -> tuple[Index, Index]:
        places = {piece.where[:2] for piece in pieces if isinstance(piece, Piece) and piece.tensor.name in ("K", "V")}
        h, j = places.pop() if len(places) == 1 else (None, None)
        if len(pieces) == 0 or places or not isinstance(h, Index) or not isinstance(j, Index):
            fail("p.cached takes pieces of K and V of one head and one key tile, like p.cached(K[h, j], V[h, j])")
        return h, j

    def _scale(self, tensor: str, h: Index, j: Index) -> Value:
        kind = str(self.features.kv_scales)
        scales = self.declared(f"{tensor}_scale", SCALES[kind], "stat")
        where = {"tensor": (), "head": (h,), "token": (h, j)}[kind]
        return self.hoisted(scales[where], *where)

    # ------------------------------------------------------------------------------------------------ self-attention
    def same_rows(self, j: Index) -> SameRows:
        """The queries at the positions of a key tile, as an index of a piece; needs q_len = kv_len."""
        if j.axis != KV_LEN:
            fail(f"p.same_rows takes a key tile; this index walks {j.axis}")
        self.used.add("same_rows")
        return SameRows(j)

    def hide(self, x: Value, i: SameRows, j: Index) -> Value:
        """`x`, and 0 where a query of `i` does not see a key of `j`."""
        if x.shape != (i.rows, j.rows):
            fail(f"p.hide: the value is {show(x.shape)}, its queries and keys are {show((i.rows, j.rows))}")
        return self._op("hide", x.shape, x, extra=(i, j))
