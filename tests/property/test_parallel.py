"""Many devices: what logical devices compute and send, executed, is exact attention and what closed forms count."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ioaware.errors import InputError
from ioaware.masks import Band
from ioaware.parallel import SCHEMES
from ioaware.parallel.layout import visible
from ioaware.parallel.machine import check
from ioaware.parallel.verify import verify
from ioaware.problem import AttentionProblem

bands = st.builds(
    Band, left=st.sampled_from([None, 0, 2, 7]), right=st.sampled_from([None, 0, 3]), top_left=st.booleans()
)


@st.composite
def problems(draw):
    """Small and ragged: any lengths, grouped heads that devices may have to share, windows, several sequences."""
    kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return AttentionProblem(
        q_len=draw(st.integers(1, 14)), kv_len=draw(st.integers(1, 14)), batch=draw(st.integers(1, 2)),
        heads=kv_heads * group, kv_heads=kv_heads, head_dim=draw(st.integers(1, 4)), value_dim=draw(st.integers(1, 4)),
        mask=draw(bands), dtype=draw(st.sampled_from(["fp16", "fp32"])),
        accum_dtype=draw(st.sampled_from(["fp32", "fp16", "fp64"])),
        direction=draw(st.sampled_from(["fwd", "bwd", "fwd+bwd"])),
    )  # fmt: skip


def allowed(scheme, problem, devices):
    try:
        check(scheme, problem, devices)
    except InputError:
        return False
    return True


@settings(max_examples=200)
@given(st.sampled_from(SCHEMES), problems(), st.integers(1, 6))
def test_executed_is_exact_and_as_counted(scheme, problem, devices):
    assume(allowed(scheme, problem, devices))
    verify(scheme, problem, devices)


strides = st.integers(1, 5)


@given(st.data(), bands, st.integers(1, 30), st.integers(1, 30))
def test_visible_pairs_of_runs_are_those_of_the_element_mask(data, band, q_len, kv_len):
    step = data.draw(strides)
    q, k = (data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n))) for n in (q_len, kv_len))
    queries, keys = (range(start, stop, step) for start, stop in (q, k))
    shift = 0 if band.top_left else kv_len - q_len
    left, right = (10**9 if side is None else side for side in (band.left, band.right))
    brute = sum(-left <= b - a - shift <= right for a in queries for b in keys)
    assert visible((queries,), (keys,), band, (q_len, kv_len)) == brute
