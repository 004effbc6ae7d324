"""Rounding, scales and tiled attention over random numbers, shapes and masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware.precision.attention import Standard, Tiled, exact
from ioaware.precision.formats import FORMATS, find, rounded
from ioaware.precision.scales import Share, quantised
from tests.strategies import bands

names = st.sampled_from(sorted(FORMATS))
numbers = (
    st.floats(width=32, allow_nan=False) | st.floats(-500, 500, width=32) | st.floats(-(2.0**-8), 2.0**-8, width=32)
)


@given(st.lists(numbers, min_size=2, max_size=40), names)
def test_rounding_keeps_the_order_repeats_itself_and_is_odd(x, name):
    x = np.sort(np.array(x, np.float32))
    y = rounded(x, name)
    assert (y[1:] >= y[:-1]).all()
    assert rounded(y, name).tobytes() == y.tobytes()
    assert rounded(-x, name).tobytes() == (-y).tobytes()
    assert rounded(x.astype(np.float64), name).astype(np.float32).tobytes() == y.tobytes()


@given(st.lists(numbers, min_size=1, max_size=40), names)
def test_rounding_is_off_by_half_a_step_at_most(x, name):
    form = find(name)
    x = np.array(x, np.float64)
    x = x[np.abs(x) <= form.greatest]
    exponent = np.frexp(np.maximum(np.abs(x), 2.0**form.lowest))[1] - 1
    assert (np.abs(rounded(x, name) - x) <= np.ldexp(0.5, exponent - form.mantissa)).all()


box = st.one_of(st.none(), st.integers(1, 9))


@given(box, box, box, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9)), st.integers(0, 99))
def test_a_box_has_one_scale_and_its_largest_number_keeps_its_size(heads, rows, columns, shape, seed):
    share = Share(heads, rows, columns)
    x = np.random.default_rng(seed).standard_normal(shape)
    found = quantised(x, "int8", share)
    scale = np.broadcast_to(found.scale, shape)
    assert len(np.unique(scale)) == share.count(shape)
    assert (np.abs(found.codes) == 127).sum() >= share.count(shape)
    assert (np.abs(found.restored - x) <= scale * (0.5 + 2.0**-16)).all()


@settings(max_examples=40)
@given(
    bands, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 8.0]), st.integers(0, 99)
)
def test_tiled_attention_is_exact_attention(mask, rows, keys, tile, threshold, seed):
    """In fp32, within what its roundings explain: of a score, of exp2, and of each sum over the keys."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((n, 8)).astype(np.float32) * np.float32(3) for n in (rows, keys, keys))
    wanted = exact(q, k, v, 0.5, mask)
    largest = 0.5 * np.abs(q @ k.T).max()
    allowed = 2.0**-24 * (20 * (largest + 1) + 4 * keys) * np.abs(v).max()
    for attend in (Tiled(tile, "fp32", "fp32", threshold=threshold), Standard("fp32")):
        assert np.abs(attend(q, k, v, 0.5, mask) - wanted).max() <= allowed
