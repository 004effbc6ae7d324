"""Execution: values in the declared number formats, rows without keys, dropout in any tiling, gradients."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from ioaware import reference
from ioaware.algorithms import find
from ioaware.algorithms.flash2 import flash2
from ioaware.algorithms.naive import naive
from ioaware.dropout import keep_mask
from ioaware.dtypes import numpy_dtype
from ioaware.errors import IoawareError
from ioaware.masks import Band
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware.readers.evaluate import TileSizes
from ioaware.readers.execute import execute
from tests.strategies import EXACT, GENERAL, problems, tiles

FORWARD = {a.forward.__name__: a.forward for a in GENERAL}
each_forward = pytest.mark.parametrize("text", FORWARD.values(), ids=FORWARD)
TILES = TileSizes(8, 12)


def run(text, problem, inputs, sizes=TILES):
    return execute(record(text, problem.features), problem, sizes, inputs).tensors


# Number formats


STORED_BITS = {"fp64": 52, "fp32": 23, "fp16": 10, "bf16": 7, "fp8_e4m3": 3, "fp8_e5m2": 2}  # of the mantissa


def error(text, dtype, **more):
    """The greatest error of O against float64 on the same inputs, relative to the greatest output."""
    accum = "fp64" if dtype == "fp64" else "fp32"
    problem = AttentionProblem(q_len=40, kv_len=50, head_dim=16, heads=2, dtype=dtype, accum_dtype=accum, **more)
    inputs = reference.random_inputs(problem)
    got, want = run(text, problem, inputs)["O"], reference.attention(problem, inputs)["O"]
    assert got.dtype == numpy_dtype(dtype)
    return np.abs(got.astype(float) - want).max() / np.abs(want).max()


@each_forward
@pytest.mark.parametrize("more", [{}, {"mask": "causal"}, {"padding": True}], ids=str)
def test_the_error_is_that_of_the_number_format(text, more):
    """Half a unit in the last place, times a small factor: the storage really rounds, and nothing else is lost."""
    errors = [error(text, dtype, **more) for dtype in STORED_BITS]
    for (dtype, bits), found in zip(STORED_BITS.items(), errors, strict=True):
        unit = 2.0 ** -(bits + 1)
        assert unit / 3 < found < 10 * unit, dtype
    assert errors == sorted(errors)


def test_masked_scores_are_stored_without_an_infinity():
    """fp8_e4m3 has none: -inf is stored as -448, whose weight is as much nothing."""
    problem = AttentionProblem(q_len=2, head_dim=1, dtype="fp8_e4m3", mask="causal")
    tensors = run(naive, problem, reference.random_inputs(problem), TileSizes(2, 2))
    assert tensors["S"].astype(float)[0, 0, 0, 1] == -448
    assert tensors["P"].astype(float)[0, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [*STORED_BITS, "tf32"])
@pytest.mark.parametrize("algorithm", GENERAL, ids=lambda a: a.name)
def test_tensors_are_of_the_declared_formats(algorithm, dtype):
    problem = AttentionProblem(q_len=9, head_dim=4, dtype=dtype, score_dtype="bf16", dropout=0.2)
    inputs = reference.random_inputs(problem)
    inputs |= {name: a for name, a in reference.attention(problem, inputs).items() if name not in inputs}
    for text in filter(None, (algorithm.forward, algorithm.backward)):
        program = record(text, problem.features)
        tensors = run(text, problem, inputs)
        for name, tensor in program.tensors.items():
            formats = {"io": dtype, "score": "bf16", "accum": "fp32", "stat": "fp32", "byte": "uint8"}
            assert tensors[name].dtype == numpy_dtype(formats[tensor.dtype])


def two_keys(score, **formats):
    """One query, two keys with the scores 0 and `score`, and the values 0 and 1: O is the second weight."""
    problem = AttentionProblem(q_len=1, kv_len=2, head_dim=1, **formats)
    inputs = {"Q": np.ones((1, 1, 1, 1)), "K": np.array([[[0.0], [score]]]), "V": np.array([[[0.0], [1.0]]])}
    return problem, inputs


def test_the_matrix_units_take_scores_in_their_format():
    """e^-0.1 = 0.905 is 0.875 in two bits of mantissa; the row sum is made of what was not rounded."""
    problem, inputs = two_keys(-0.1, dtype="fp32", score_dtype="fp8_e5m2")
    got = run(flash2, problem, inputs, TileSizes(1, 2))["O"]
    assert got.item() == pytest.approx(0.875 / (1 + np.exp(-0.1)), rel=1e-6)


def to_tf32(x):
    """By integers: the last 13 bits are rounded off, half of a step upwards."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) >> 13 << 13).view(np.float32)


@each_forward
@pytest.mark.parametrize("more", [{}, {"mask": "causal", "dropout": 0.2}], ids=str)
def test_tf32_is_fp32_whose_matrix_units_round_every_input(text, more):
    """Bit for bit what fp32 storage gives of Q, K and V that were rounded before."""
    tf32 = AttentionProblem(q_len=40, kv_len=50, head_dim=16, heads=2, dtype="tf32", **more)
    inputs = reference.random_inputs(tf32)
    before = inputs | {name: to_tf32(inputs[name]) for name in "QKV"}
    fp32 = dataclasses.replace(tf32, dtype="fp32")
    got, unrounded = run(text, tf32, inputs)["O"], run(text, dataclasses.replace(fp32, score_dtype="fp32"), inputs)["O"]
    assert got.tobytes() == run(text, fp32, before)["O"].tobytes()
    assert got.tobytes() != run(text, dataclasses.replace(fp32, score_dtype="fp32"), before)["O"].tobytes()
    assert 2.0**-11 / 3 < np.abs(got - unrounded).max() / np.abs(unrounded).max() < 10 * 2.0**-11


def test_scores_and_outputs_of_tf32_products_are_stored_in_fp32():
    """1 + 2^-12 is 1 in tf32, and 1 + 2^-11 is 1 + 2^-10; their product is not rounded."""
    problem, inputs = two_keys(1 + 2.0**-11, dtype="tf32")
    inputs["Q"] = inputs["Q"] + 2.0**-11
    inputs["V"] = inputs["V"] * (1 + 2.0**-12)
    tensors = run(naive, problem, inputs, TileSizes(1, 2))
    assert tensors["S"].ravel().tolist() == [0.0, (1 + 2.0**-10) ** 2]
    assert tensors["V"].ravel()[1] == 1 + 2.0**-12
    assert tensors["O"].item() == to_tf32(tensors["P"])[0, 0, 0, 1] != tensors["P"][0, 0, 0, 1]


def test_stored_scores_are_rounded():
    """S = -0.1 is stored as -0.09375 in e5m2: e^-0.09375 and then P = 0.4766, stored as 0.5."""
    problem, inputs = two_keys(-0.1, dtype="fp32", score_dtype="fp8_e5m2")
    tensors = run(naive, problem, inputs, TileSizes(1, 2))
    assert tensors["S"].astype(float).ravel().tolist() == [0.0, -0.09375]
    assert tensors["P"].astype(float).ravel().tolist() == [0.5, 0.5]
    assert tensors["O"].item() == 0.5


def sums(p, Q, dQ):
    for b, h, g, i in p.kernel("sums", p.batch, p.kv_heads, p.group, p.q_tiles):
        total = p.load(Q[h, g, i]) + 1.0
        p.store(dQ[h, g, i], total + 1.0)


@pytest.mark.parametrize(("accum", "expected"), [("fp16", 2048), ("fp32", 2050), ("fp64", 2050)])
def test_arithmetic_is_in_the_accumulators_format(accum, expected):
    """2048 + 1 is 2048 in fp16, twice; 2050 is a number of fp16."""
    problem = AttentionProblem(q_len=1, head_dim=1, dtype="fp16", accum_dtype=accum)
    assert run(sums, problem, {"Q": np.full((1, 1, 1, 1), 2048.0)})["dQ"].item() == expected


def test_inputs_are_rounded_to_the_declared_format():
    problem, inputs = two_keys(0.0, dtype="bf16")
    inputs["V"] = inputs["V"] + 2.0**-9  # lost beside 1 in 8 bits, kept beside 0
    assert run(flash2, problem, inputs)["V"].astype(float).ravel().tolist() == [2.0**-9, 1.0]


# Rows that see no key


@each_forward
@pytest.mark.parametrize("dtype", ["fp64", "fp16"])
@pytest.mark.parametrize("sizes", [TileSizes(1, 1), TileSizes(4, 5), TileSizes(100, 100)], ids=str)
def test_rows_without_a_key_give_zero(text, dtype, sizes):
    """Causal with 13 queries and 4 keys: the first 9 queries are before every key."""
    accum = "fp64" if dtype == "fp64" else "fp32"
    problem = AttentionProblem(
        q_len=13, kv_len=4, head_dim=3, mask="causal", dropout=0.3, dtype=dtype, accum_dtype=accum
    )
    inputs = reference.random_inputs(problem)
    got, want = run(text, problem, inputs, sizes)["O"], reference.attention(problem, inputs)["O"]
    assert (got[:, :, :9] == 0).all()
    assert (got[:, :, 9:] != 0).any()
    np.testing.assert_allclose(got.astype(float), want, atol=1e-12 if dtype == "fp64" else 5e-3)


def test_the_specification_gives_zero_too():
    problem = AttentionProblem(q_len=13, kv_len=4, head_dim=3, mask="causal", **EXACT)
    out = reference.attention(problem, reference.random_inputs(problem))
    assert (out["O"][:, :, :9] == 0).all()
    assert (out["dQ"][:, :, :9] == 0).all()
    assert np.isneginf(out["L"][:, :, :9]).all()
    assert all(np.isfinite(out[name]).all() for name in ("O", "dQ", "dK", "dV"))


def test_keys_hidden_by_padding_have_no_gradient():
    problem = AttentionProblem(q_len=6, head_dim=3, padding=True, **EXACT)
    inputs = reference.random_inputs(problem, seed=3)
    hidden = np.isneginf(inputs["padding"][:, 0])
    assert hidden.any()
    backward = find("flash2").backward
    got = run(backward, problem, {**reference.attention(problem, inputs), **inputs})
    assert (got["dK"][:, hidden] == 0).all()
    assert (got["dV"][:, hidden] == 0).all()


# The specification by hand


def test_the_specification_is_the_textbook():
    """softmax(Q K^T / sqrt(d)) V, spelled out for one head without tiles, masks or tricks."""
    problem = AttentionProblem(q_len=5, kv_len=6, head_dim=4, heads=4, kv_heads=2, **EXACT)
    inputs = reference.random_inputs(problem)
    out = reference.attention(problem, inputs)
    for h, g in itertools.product(range(2), range(2)):
        weights = np.exp(inputs["Q"][h, g] @ inputs["K"][h].T / 2.0)
        np.testing.assert_allclose(out["O"][h, g], weights / weights.sum(1, keepdims=True) @ inputs["V"][h])
        np.testing.assert_allclose(out["L"][h, g][:, 0], np.log(weights.sum(1)))


def test_sequences_of_a_batch_do_not_see_each_other():
    """A packed batch is its sequences, one by one; with dropout off, positions in the pack do not matter."""
    packed = AttentionProblem(q_len=(3, 9, 5), kv_len=(4, 2, 8), head_dim=3, mask=Band(3, 1), **EXACT)
    inputs = reference.random_inputs(packed)
    got = run(flash2, packed, inputs, TileSizes(2, 3))
    q = kv = 0
    for q_len, kv_len in packed.sequences:
        alone = dataclasses.replace(packed, q_len=q_len, kv_len=kv_len, batch=1)
        rows, keys = slice(q, q + q_len), slice(kv, kv + kv_len)
        part = {"Q": inputs["Q"][:, :, rows], "K": inputs["K"][:, keys], "V": inputs["V"][:, keys]}
        np.testing.assert_allclose(got["O"][:, :, rows], run(flash2, alone, part)["O"], rtol=1e-12, atol=1e-13)
        q, kv = q + q_len, kv + kv_len


# Dropout


@each_forward
@settings(max_examples=10)
@given(problem=problems(longest=30, dropout=0.4, **EXACT), one=tiles, two=tiles)
def test_dropout_does_not_depend_on_tiles(text, problem, one, two):
    inputs = reference.random_inputs(problem)
    a, b = (run(text, problem, inputs, sizes)["O"] for sizes in (one, two))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_the_stored_mask_is_the_generators():
    problem = AttentionProblem(q_len=20, kv_len=30, heads=3, head_dim=2, dropout=0.4, **EXACT)
    kept = run(find("eager").forward, problem, reference.random_inputs(problem))["keep"]
    for head in range(3):
        np.testing.assert_array_equal(kept[head, 0], keep_mask(problem, head, np.arange(20), np.arange(30)))


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9])
def test_the_mask_keeps_what_it_should(dropout):
    """200,000 draws: the share kept is 1 - p within five standard deviations, in every head, row and column alike."""
    problem = AttentionProblem(q_len=1, dropout=dropout)
    mask = np.stack([keep_mask(problem, head, np.arange(400), np.arange(500)) for head in range(3)])
    deviation = np.sqrt(dropout * (1 - dropout))
    assert set(np.unique(mask)) <= {0.0, 1.0}
    for axes, draws in (((1, 2), 200_000), ((0, 2), 1500), ((0, 1), 1200)):
        assert np.abs(mask.mean(axis=axes) - (1 - dropout)).max() <= 5 * deviation / draws**0.5


def test_masks_of_heads_and_rows_are_unrelated():
    problem = AttentionProblem(q_len=1, dropout=0.5)
    masks = [keep_mask(problem, head, np.arange(300), np.arange(300)).ravel() for head in range(2)]
    rows = keep_mask(problem, 0, np.arange(301), np.arange(300))
    for a, b in (masks, (rows[:-1].ravel(), rows[1:].ravel()), (rows[:300].ravel(), rows[:300].T.ravel())):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / 300


def test_weights_are_kept_in_expectation():
    """What is kept is divided by 1 - p: the mean over many masks is attention without dropout."""
    problem = AttentionProblem(q_len=4, kv_len=16, heads=4000, kv_heads=1, head_dim=2, dropout=0.25, **EXACT)
    inputs = reference.random_inputs(dataclasses.replace(problem, heads=1))
    inputs = {"Q": np.broadcast_to(inputs["Q"], (1, 4000, 4, 2)), "K": inputs["K"], "V": inputs["V"]}
    got = reference.attention(problem, inputs)["O"][0]
    plain = reference.attention(dataclasses.replace(problem, heads=1, dropout=0.0), {**inputs, "Q": inputs["Q"][:, :1]})
    error_of_mean = got.std(axis=0) / np.sqrt(4000)
    assert (np.abs(got.mean(axis=0) - plain["O"][0, 0]) <= 5 * error_of_mean).all()


# Gradients against finite differences through the forward program


SMALL = AttentionProblem(
    q_len=(5, 4), kv_len=(6, 4), heads=4, kv_heads=2, head_dim=3, value_dim=2, mask=Band(4, 1), padding=True, **EXACT
)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("algorithm", [a for a in GENERAL if a.backward], ids=lambda a: a.name)
def test_gradients_are_the_differences_of_the_forward_program(algorithm, dropout):
    """Along random directions: (f(x + e u) - f(x - e u)) / 2 e = <grad, u>, for the loss <O, dO>."""
    problem = dataclasses.replace(SMALL, dropout=dropout)
    inputs, sizes = reference.random_inputs(problem, seed=1), TileSizes(2, 3)
    saved = run(algorithm.forward, problem, inputs, sizes)
    gradients = run(algorithm.backward, problem, {**saved, **inputs}, sizes)
    rng, step = np.random.default_rng(2), 1e-5
    for name in "QKV":
        along = rng.standard_normal(inputs[name].shape)
        ends = [inputs | {name: inputs[name] + sign * step * along} for sign in (1, -1)]
        plus, minus = ((run(algorithm.forward, problem, end, sizes)["O"] * inputs["dO"]).sum() for end in ends)
        expected = (gradients[f"d{name}"] * along).sum()
        assert (plus - minus) / (2 * step) == pytest.approx(expected, rel=1e-7, abs=1e-8)


# What is refused


@pytest.mark.parametrize("rows", [5, 9])
def test_inputs_of_another_shape_are_refused(rows):
    problem = AttentionProblem(q_len=8, head_dim=4, **EXACT)
    inputs = reference.random_inputs(problem)
    with pytest.raises(IoawareError, match="K"):
        run(flash2, problem, {**inputs, "K": np.resize(inputs["K"], (1, rows, 4))})


def test_inputs_are_only_read():
    problem = AttentionProblem(q_len=8, head_dim=4, **EXACT)
    inputs = reference.random_inputs(problem)
    before = {name: a.copy() for name, a in inputs.items()}
    tensors = run(flash2, problem, inputs)
    for name, a in inputs.items():
        np.testing.assert_array_equal(a, before[name])
        assert not any(np.shares_memory(a, made) for made in tensors.values())
