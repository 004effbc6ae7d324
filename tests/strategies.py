"""Random problems and schedules for the property tests; small, ragged, and rich in diagonals."""

from __future__ import annotations

from hypothesis import strategies as st

from ioaware.algorithms import ALGORITHMS
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.readers.evaluate import TileSizes

# Softmax attention of any problem: not linear attention, and not mla, whose V is in K. test_variants.py has these too.
GENERAL = tuple(a for a in ALGORITHMS if a.softmax and a.name != "mla")
EXACT = {"dtype": "fp64", "accum_dtype": "fp64"}

bands = st.one_of(
    st.just(Band()),
    st.just(Band(right=0)),
    st.builds(Band, left=st.integers(0, 30), right=st.sampled_from([0, 3, None])),
)
# Small tiles as often as large ones: only many tiles along a diagonal exercise the staircases.
tile_sizes = st.one_of(st.integers(1, 6), st.integers(1, 40))
tiles = st.builds(TileSizes, tile_sizes, tile_sizes, st.integers(1, 4))


@st.composite
def problems(draw, *, longest: int = 60, **fixed):
    """Random problems: ragged, grouped heads, variable lengths, masks, padding, dropout."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        sequences = draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3))
        q_len, kv_len = (tuple(lengths) for lengths in zip(*sequences, strict=True))
        batch = len(sequences)
    else:
        q_len, kv_len = draw(st.integers(1, longest)), draw(st.integers(1, longest))
        batch = draw(st.integers(1, 2))
    shape = {
        "q_len": q_len, "kv_len": kv_len, "batch": batch, "heads": kv_heads * group, "kv_heads": kv_heads,
        "head_dim": draw(st.integers(1, 9)), "value_dim": draw(st.integers(1, 9)), "mask": draw(bands),
        "padding": draw(st.booleans()), "dropout": draw(st.sampled_from([0.0, 0.3])),
    }  # fmt: skip
    return AttentionProblem(**{**shape, **fixed})
