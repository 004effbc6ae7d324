"""PyTorch's scaled_dot_product_attention on NumPy arrays, held against PyTorch: what it returned once (tests/data), and
what it returns now where it is installed. Neither may be further from the formula than rounding explains."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import ioaware as io
from ioaware.errors import InputError
from ioaware.masks import Band
from ioaware.problem import Bias
from tests.data.make_sdpa_fixture import CASES, FIXTURE, FORMATS, inputs, load, torch_outputs
from tests.functional import assert_close, dense, grouped, normal, specified

TORCH, STORED = load()


def flat(x):
    """(..., heads, length, columns) as (batch, length, heads, columns), flash-attn's layout."""
    x = x.reshape(-1, *x.shape[-3:]) if x.ndim >= 3 else x[None, None]
    return x.swapaxes(1, 2)


def formula(case, given, **how):
    """The call written out, (batch, length, heads, columns)."""
    length, keys = case.lengths
    q, k, v = (flat(given[name]) for name in ("query", "key", "value"))
    how |= {"scale": case.options.get("scale")}
    if "is_causal" in case.options:
        how["seen"] = np.tri(length, keys, dtype=bool)  # top-left
    if "attn_mask" in given:
        mask = np.broadcast_to(given["attn_mask"], (*given["query"].shape[:-1], keys))
        mask = mask.reshape(-1, max(case.heads, 1), length, keys)
        how |= {"seen": mask} if mask.dtype == bool else {"seen": mask != -np.inf, "bias": mask.astype(np.float64)}
    if case.mask == "lowest" and case.dtype != "float16":  # a score added to finfo.min is lost: all are equal
        q, how = q.copy(), how | {"seen": (mask == 0) | (np.arange(length)[:, None] == 0), "bias": 0.0}
        q[:, 0] = 0
    how.setdefault("seen", np.ones((length, keys), bool))
    return dense(q, k, v, **how)[0]


def assert_as_the_formula(case, given, out):
    dtype = FORMATS[case.dtype]
    exact = formula(case, given, dtype=np.longdouble)
    plain = formula(case, given, rounded=dtype, dtype=np.float64 if dtype == np.float64 else np.float32)
    assert out.dtype == dtype
    assert_close(flat(out), exact, plain)
    assert not flat(out)[~exact.any(axis=-1)].any()  # rows that see nothing are zero, not about zero


def test_the_fixture_is_small_and_has_every_case():
    assert FIXTURE.stat().st_size < 300_000
    assert {*STORED} == {*CASES}
    assert TORCH.startswith("2.")


@pytest.mark.parametrize("name", CASES)
def test_pytorch_and_we_return_the_same(name):
    case, arrays = CASES[name], dict(STORED[name])
    given = {of: arrays[of] for of in ("query", "key", "value", "attn_mask") if of in arrays}
    out = io.scaled_dot_product_attention(**given, **case.options)
    assert out.shape == arrays["out"].shape
    assert_as_the_formula(case, given, arrays["out"])
    assert_as_the_formula(case, given, out)


WITH_GRADIENTS = [name for name, case in CASES.items() if case.gradients]


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_pytorchs_gradients_are_flash_attn_backwards(name):
    """Their causal masks are the same where there are as many queries as keys."""
    case, arrays, ledger = CASES[name], STORED[name], io.Ledger()
    options = {"causal": "is_causal" in case.options, "softmax_scale": case.options.get("scale")}
    q, k, v, dout = (flat(arrays[of]) for of in ("query", "key", "value", "dout"))
    out, lse, _ = io.flash_attn_func(q, k, v, **options, return_attn_probs=True)
    ours = io.flash_attn_backward(dout, q, k, v, out, lse, **options, ledger=ledger)

    problem = ledger.report.problem
    q, k, v, dout = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v, dout))
    inputs = {"Q": grouped(problem, q), "K": k.swapaxes(0, 1), "V": v.swapaxes(0, 1), "dO": grouped(problem, dout)}
    exact = specified(problem, inputs, np.longdouble)
    plain = specified(problem, inputs, np.float64 if case.dtype == "float64" else np.float32, FORMATS[case.dtype])
    for of, our in zip(("query", "key", "value"), ours, strict=True):
        for got in (our, flat(arrays[f"d{of}"])):
            assert got.dtype == FORMATS[case.dtype]
            want = [formulas[f"d{of[0].upper()}"] for formulas in (exact, plain)]
            rows = got.reshape(-1, *got.shape[2:])
            assert_close(grouped(problem, rows) if of == "query" else rows.swapaxes(0, 1), *want)


@pytest.mark.parametrize("name", CASES)
def test_pytorch_says_so_today(name):
    pytest.importorskip("torch")
    case = CASES[name]
    given = inputs(case, 1_000)
    theirs = torch_outputs(case, given)
    del given["dout"]
    assert_as_the_formula(case, given, theirs["out"])
    assert_as_the_formula(case, given, io.scaled_dot_product_attention(**given, **case.options))


def test_parameters_are_pytorchs_in_its_order():
    parameters = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa", "ledger"]
    assert list(inspect.signature(io.scaled_dot_product_attention).parameters) == parameters


# ------------------------------------------------------------------------------------------------ what it means
def test_is_causal_is_top_left_where_flash_attn_is_bottom_right():
    query, key, value = np.zeros((1, 2, 1)), np.zeros((1, 5, 1)), np.eye(5)[None]
    weights = io.scaled_dot_product_attention(query, key, value, is_causal=True)
    np.testing.assert_array_equal(weights, [[[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0]]])


def test_a_bool_mask_is_the_additive_mask_of_minus_infinity():
    q, k, v = normal(2, 4, 6, 8, seed=1), normal(2, 4, 9, 8, seed=2), normal(2, 4, 9, 8, seed=3)
    for shape in [(6, 9), (1, 9), (6, 1), (4, 6, 9), (2, 1, 1, 9), (2, 4, 6, 9)]:
        mask = np.random.default_rng(4).random(shape) < 0.5
        additive = np.where(mask, 0, -np.inf).astype(np.float32)
        np.testing.assert_array_equal(
            io.scaled_dot_product_attention(q, k, v, mask), io.scaled_dot_product_attention(q, k, v, additive)
        )


def test_what_is_hidden_may_be_nan():
    """PyTorch's result is NaN here."""
    q, k, v = normal(2, 6, 8, seed=1), normal(2, 9, 8, seed=2), normal(2, 9, 8, seed=3)
    for mask, causal in ((np.arange(9) < 6, False), (np.where(np.arange(9) < 6, 0, -np.inf), False), (None, True)):
        mask = None if mask is None else np.broadcast_to(mask, (6, 9))
        want = io.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        spoilt = [x.copy() for x in (k, v)]
        for x in spoilt:
            x[:, 6:] = np.nan
        np.testing.assert_array_equal(io.scaled_dot_product_attention(q, *spoilt, mask, is_causal=causal), want)
        spoilt[1][:, 0] = np.nan  # seen by all rows
        assert np.isnan(io.scaled_dot_product_attention(q, *spoilt, mask, is_causal=causal)).all()


def test_dropout_keeps_the_mean():
    query, key, value = np.zeros((64, 10, 1)), np.zeros((64, 50, 1)), np.ones((64, 50, 1))
    out = io.scaled_dot_product_attention(query, key, value, dropout_p=0.2)
    # of n = 32,000 weights, each 1 / (1 - p) or 0: five standard deviations of the mean
    assert abs(out.mean() - 1) <= 5 * (0.2 / 0.8 / 32_000) ** 0.5
    assert out.std() > 0


# ------------------------------------------------------------------------------------------------ the ledger
@pytest.mark.parametrize(
    ("shape", "dtype", "field", "want"),
    [
        (None, bool, "bias", None),
        ((6, 9), bool, "bias", Bias(heads=False, batch=False)),
        ((4, 6, 9), np.float32, "bias", Bias(heads=True, batch=False)),
        ((2, 1, 6, 9), np.float32, "bias", Bias(heads=False, batch=True)),
        ((2, 4, 6, 9), bool, "bias", Bias(heads=True, batch=True)),
        ((2, 1, 1, 9), bool, "padding", True),
    ],
)
def test_the_ledger_knows_what_is_read(shape, dtype, field, want):
    ledger, q, k = io.Ledger(), normal(2, 4, 6, 8), normal(2, 2, 9, 8)
    mask = None if shape is None else np.zeros(shape, dtype)
    io.scaled_dot_product_attention(q, k, k, mask, enable_gqa=True, scale=0.5, ledger=ledger)
    problem = ledger.report.problem
    assert getattr(problem, field) == want
    assert (problem.q_len, problem.kv_len, problem.batch, problem.heads, problem.kv_heads) == (6, 9, 2, 4, 2)
    assert (problem.softmax_scale, problem.band) == (0.5, Band())
    io.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True, ledger=ledger)
    assert ledger.report.problem.band == Band(right=0, top_left=True)
    assert len(ledger.entries) == 2


# ------------------------------------------------------------------------------------------------ refusals
Q, K = normal(2, 4, 6, 8), normal(2, 4, 9, 8)
MASK = np.ones((6, 9), bool)
REFUSED = {
    "query is a list": lambda sdpa: sdpa([1], K, K),
    r"query.shape=\(8,\): must be \(length, head_dim\)": lambda sdpa: sdpa(Q[0, 0, 0], K[0, 0], K[0, 0]),
    r"key.shape=\(4, 9, 8\): must be \(..., ..., length, head_dim\)": lambda sdpa: sdpa(Q, K[0], K[0]),
    "key.dtype=float16: must be that of query": lambda sdpa: sdpa(Q, K.astype(np.float16), K),
    r"key's batch.shape=\(1,\): must fit query": lambda sdpa: sdpa(Q, K[:1], K[:1]),
    "key's heads=2: must be those of query without enable_gqa": lambda sdpa: sdpa(Q, K[:, :2], K[:, :2]),
    "key's heads=3: must divide the 4 heads of q": lambda sdpa: sdpa(Q, K[:, :3], K[:, :3], enable_gqa=True),
    "key's head_dim=7: must be that of q": lambda sdpa: sdpa(Q, K[..., :7], K),
    r"value.shape=\(2, 8, 4\): must fit key but": lambda sdpa: sdpa(Q, K, K[:, :, :8]),
    "attn_mask and is_causal both": lambda sdpa: sdpa(Q, K, K, MASK, is_causal=True),
    "attn_mask is a list": lambda sdpa: sdpa(Q, K, K, [True]),
    "attn_mask.dtype=int64: must be bool": lambda sdpa: sdpa(Q, K, K, MASK.astype(int)),
    r"attn_mask.shape=\(5, 9\): must broadcast to": lambda sdpa: sdpa(Q, K, K, MASK[:5]),
    r"attn_mask.shape=\(2, 1, 1, 6, 9\): must broadcast to": lambda sdpa: sdpa(Q, K, K, np.ones((2, 1, 1, 6, 9))),
    "dropout=1.5: a probability": lambda sdpa: sdpa(Q, K, K, dropout_p=1.5),
    "softmax_scale=inf: must be a finite number": lambda sdpa: sdpa(Q, K, K, scale=np.inf),
    "batch=0: must be at least 1": lambda sdpa: sdpa(Q[:0], K[:0], K[:0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_input_is_one_sentence(message):
    with pytest.raises(InputError, match=f"^{message}") as refusal:
        REFUSED[message](io.scaled_dot_product_attention)
    assert "\n" not in str(refusal.value)
