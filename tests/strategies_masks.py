"""Random masks of every kind, each with lengths that fit it; small, ragged, packed, with more queries than keys too."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from ioaware import masks as m
from ioaware.masks import Band, Mask

sides = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 30))
bands = st.builds(Band, left=sides, right=sides)
small = st.integers(1, 12)


class Sized(NamedTuple):
    """A mask and the lengths of a problem that it is a mask of; `q_len` counts rows."""

    mask: Mask
    q_len: int
    kv_len: int


def diagonals(q, k):
    """No band and no rectangles: every third diagonal, and a checkerboard of threes beside it."""
    return ((q + 2 * k) % 3 == 0) & (q // 3 + k // 3 < 9)


PATTERNS = {
    "band": st.builds(Band, left=sides, right=sides, top_left=st.booleans()),
    "sinks": st.builds(m.Sinks, small, small),
    "prefix": st.builds(m.Prefix, st.integers(1, 30)),
    "longformer": st.builds(m.Longformer, small, small),
    "chunks": st.builds(m.Chunks, small),
    "fixed": st.builds(m.Fixed, small, st.integers(1, 4)),
    "strided": st.builds(m.Strided, st.integers(1, 5), st.integers(1, 4)),
    "bigbird": st.builds(
        m.BigBird, st.integers(1, 6), st.sampled_from([1, 3, 5]), st.integers(0, 4), st.integers(0, 4),
        st.integers(0, 99), bands,
    ),
    "custom": st.just(m.Custom(diagonals)),
}  # fmt: skip
KINDS = (*PATTERNS, "documents", "blocks")


@st.composite
def documents(draw, longest: int) -> Sized:
    """Documents, one token long too, of which the queries are the last."""
    lengths = draw(st.lists(small, min_size=1, max_size=longest // 4))
    kv_len = sum(lengths)
    return Sized(m.Documents(tuple(lengths), draw(bands)), draw(st.integers(1, kv_len + 3)), kv_len)


@st.composite
def blocks(draw, longest: int) -> Sized:
    """A matrix of blocks, from empty to full, whose last blocks are ragged."""
    q_len, kv_len = (draw(st.integers(1, longest)) for _ in range(2))
    q, kv = (draw(st.integers(1, 7)) for _ in range(2))
    row = st.lists(st.booleans(), min_size=-(-kv_len // kv), max_size=-(-kv_len // kv))
    matrix = draw(st.lists(row, min_size=-(-q_len // q), max_size=-(-q_len // q)))
    return Sized(m.Blocks.of_matrix(matrix, q, kv, draw(bands)), q_len, kv_len)


@st.composite
def masks(draw, *, kinds: tuple[str, ...] = KINDS, longest: int = 30, most_packed: int = 3) -> Sized:
    """A mask of one of the kinds, perhaps packed, and lengths."""
    kind = draw(st.sampled_from(kinds))
    if kind in PATTERNS:
        sized = Sized(draw(PATTERNS[kind]), draw(st.integers(1, longest)), draw(st.integers(1, longest)))
    else:
        sized = draw({"documents": documents, "blocks": blocks}[kind](longest))
    pack = draw(st.integers(1, most_packed))
    return Sized(sized.mask.packed(pack), sized.q_len * pack, sized.kv_len)
