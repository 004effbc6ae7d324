"""Every variant people run: values are float64 attention, counts are what ran, and what cannot be done is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from operator import le

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.flash_decoding import flash_decoding, mla, mla_unsplit
from ioaware.algorithms.linear import linear_chunkwise, linear_recurrent
from ioaware.errors import InputError
from ioaware.masks import CAUSAL, FULL, Documents
from ioaware.problem import AttentionProblem, Bias, Features
from ioaware.program import record
from ioaware.readers.count import count, has_closed_form, traffic_quantities
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from ioaware.readers.onchip import on_chip
from ioaware.readers.walk import walked
from ioaware.traffic import Moved, Traffic
from tests.property.test_readers_agree import SAVED, check_values, expected_and_inputs
from tests.strategies_masks import KINDS
from tests.variants import BACKWARD, LATENT, REFUSED, SOFTMAX, counted, ran, self_attention, variants

LINEAR = {f.__name__: f for f in (linear_recurrent, linear_chunkwise)}
seeds = st.integers(0, 99)


# ------------------------------------------------------------------------------------------------ three readers agree
def drawn_for(name):
    """Variants that the text can do."""
    fixed = {"shared_kv": True} if name in LATENT else {"direction": "bwd"} if name in BACKWARD else {}
    return variants(without=REFUSED.get(name, ()), kinds=KINDS, cached=name not in BACKWARD, **fixed)


def check_agreement(text, problem, sizes, seed):
    """Outputs equal float64 softmax, counts equal what ran, and no more was held than the ledger has."""
    program = record(text, problem.features)
    expected, inputs = expected_and_inputs(problem, seed)
    run = execute(program, problem, sizes, inputs)
    for tensor in program.tensors.values():
        if tensor.role == "output" and tensor.name not in SAVED:
            check_values(tensor.name, run.tensors[tensor.name], expected)
    check_books(program, problem, sizes, run)


def check_books(program, problem, sizes, run):
    assert count(program, problem, sizes) == run.traffic
    assert all(map(le, run.on_chip, on_chip(program, problem, sizes)))


@pytest.mark.parametrize("name", SOFTMAX)
@settings(max_examples=40)
@given(data=st.data(), seed=seeds)
def test_values_counts_and_ledger(name, data, seed):
    check_agreement(SOFTMAX[name], *data.draw(drawn_for(name)), seed)


@pytest.mark.parametrize("text", LINEAR.values(), ids=LINEAR)
@settings(max_examples=15)
@given(problem=self_attention(), chunk=st.integers(1, 14), seed=seeds)
def test_linear_attention(text, problem, chunk, seed):
    sizes = TileSizes(1, chunk)
    inputs = reference.random_inputs(problem, seed)
    run = ran(text, problem, sizes, inputs)
    for start, stop in pairwise(accumulate(problem.q_len, initial=0)):
        sequence = {name: inputs[name][..., start:stop, :] for name in ("Q", "K", "V")}
        expected = reference.linear_attention(sequence)["O"]
        np.testing.assert_allclose(run.tensors["O"][..., start:stop, :], expected, rtol=1e-9, atol=1e-9)
    check_books(record(text, problem.features), problem, sizes, run)


@pytest.mark.parametrize("name", SOFTMAX)
@settings(max_examples=8)
@given(data=st.data())
def test_closed_forms_equal_walks(name, data):
    """For every text and all features there is one, and it is what visiting every iteration gives."""
    problem, sizes = data.draw(drawn_for(name))
    program = record(SOFTMAX[name], problem.features)
    assert has_closed_form(program)
    walk = Traffic()
    for (_, tensor, kind), n in walked(program, traffic_quantities(program), problem, sizes).items():
        walk = walk + Traffic({tensor: Moved(**{kind: n})})
    assert count(program, problem, sizes) == walk


# ------------------------------------------------------------------------------------------------ refusals
FEATURES = {
    "padding": True, "dropout": True, "masked": True, "softcap": True, "alibi": True, "bias": Bias(), "sink": True,
    "paged": True, "kv_scales": "head",
}  # fmt: skip
CACHE = {"paged", "kv_scales"}


@pytest.mark.parametrize("text", {**SOFTMAX, **LINEAR}.values(), ids={**SOFTMAX, **LINEAR})
def test_a_feature_is_refused_by_name_or_done(text):
    """Nothing is silently left out: a text either has the call for it, or says which feature it lacks."""
    assert set(FEATURES) == set(Features._fields)
    name = text.__name__
    lacks = set(FEATURES) - {"masked", "dropout"} if name in LINEAR else REFUSED.get(name, set())
    for feature in set(FEATURES) - (CACHE if name in BACKWARD else set()):  # a cache has no gradient
        features = Features(**{feature: FEATURES[feature]})
        if feature in lacks:
            with pytest.raises(InputError, match=rf"^{feature}: {name} "):
                record(text, features)
        else:
            assert record(text, features).features == features


SELF = {"q_len": 8, "mask": CAUSAL, "heads": 2}
TILES = TileSizes(4, 4)


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        (linear_chunkwise, AttentionProblem(**{**SELF, "mask": FULL}), "mask=full: "),
        (linear_chunkwise, AttentionProblem(**{**SELF, "kv_len": 9}), "q_len and kv_len must be equal"),
        (linear_recurrent, AttentionProblem(**SELF, dropout=0.1), "no weights to drop"),
        (linear_recurrent, AttentionProblem(**{**SELF, "kv_heads": 1}).packed(), "q_len and kv_len must be equal"),
        (mla, AttentionProblem(**SELF), "only a latent cache"),
        (mla_unsplit, AttentionProblem(**SELF), "only a latent cache"),
        (flash2, AttentionProblem(**SELF, page_size=3), "tile_kv=4: .* pages of 3 keys.* nearest legal value is 3$"),
        (flash2, AttentionProblem(**SELF, page_size=6), "tile_kv=4: .* pages of 6 keys"),
    ],
)
def test_what_a_text_would_compute_otherwise_is_refused(text, problem, said):
    with pytest.raises(InputError, match=said):
        ran(text, problem, TILES, reference.random_inputs(problem))


# ------------------------------------------------------------------------------------------------ sizes that people run
N = 2**20
DECODE = AttentionProblem(q_len=1, kv_len=N, batch=3, heads=64, kv_heads=8, head_dim=128, page_size=1)


@pytest.mark.parametrize("page", [1, 16, 256, 1000, N])
@pytest.mark.parametrize("text", [flash2, flash_decoding], ids=lambda f: f.__name__)
def test_the_block_table_of_a_million_keys(text, page):
    """A packed group walks the keys of its head once: one entry per page, or per tile of a page."""
    problem = replace(DECODE, page_size=page).packed()
    sizes = TileSizes(64, page * -(-64 // page) if page < 4096 else 4096, 128)
    entries = 3 * 8 * -(-N // min(page, sizes.kv))
    assert counted(text, problem, sizes)["block_table"] == Moved(4 * entries)
    assert counted(text, problem, sizes)["K"] == Moved(3 * 8 * N * 128 * 2)


def test_ten_thousand_sequences():
    """Distinct lengths: K once per packed head, a table entry for every begun page, an int4 row of 128 in 64 bytes."""
    lengths = range(1, 10_001)
    problem = replace(DECODE, kv_len=tuple(lengths), batch=10_000, page_size=16, kv_dtype="int4", kv_scales="token")
    moved = counted(flash2, problem.packed(), TileSizes(64, 64))
    assert moved["K"] == Moved(8 * sum(lengths) * 64)
    assert moved["V_scale"] == Moved(8 * sum(lengths) * 4)
    assert moved["block_table"] == Moved(8 * sum(-(-n // 16) for n in lengths) * 4)


def test_a_prompt_of_a_million_in_documents():
    """8,192 causal documents of one query tile each, two key tiles long: both are visible, nothing else is."""
    problem = AttentionProblem(q_len=N, heads=2, mask=Documents((128,) * 8192, CAUSAL), softcap=50.0, sink=True)
    moved = counted(flash2, problem, TileSizes(128, 64))
    assert moved["K"] == moved["V"] == Moved(2 * N * 64 * 2)
    assert moved["sink"] == Moved(2 * 8192 * 4)
