"""The tolerance is its documented formula, lets fp32 pass and nothing worse; `compare` sees special values."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise, product
from math import exp, inf, log, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioaware import reference
from ioaware.algorithms import find
from ioaware.problem import AttentionProblem
from ioaware.program import record
from ioaware_kernels import cases
from ioaware_kernels.cases import Case
from ioaware_kernels.implementation import load
from ioaware_kernels.tensors import unpacked
from ioaware_kernels.tolerance import Expected, compare, expected, noise
from ioaware_kernels.verify import verify

UNIT = 2.0**-24  # unit roundoff of fp32
SMALLEST = 2.0**-149
FP32 = np.dtype(np.float32)
OUTPUTS = ("P", "O", "l", "m", "L", "dQ", "dK", "dV")
PASSES = {"flash2": "fwd", "split_kv": "fwd", "flash2_no_atomics": "bwd"}
READS_L = {"flash2": False, "split_kv": True, "flash2_no_atomics": True}


def problem_of(q_len, kv_len, head_dim, **shape):
    return AttentionProblem(q_len=q_len, kv_len=kv_len, head_dim=head_dim, dtype="fp32", **shape)


def expected_of(problem, inputs, algorithm="flash2"):
    return expected(record(find(algorithm).text(PASSES[algorithm]), problem.features), problem, inputs)


def noise_of(problem, inputs, reads_logarithm=False):
    return noise(problem, inputs, reference.attention(problem, inputs), reads_logarithm=reads_logarithm)


def scaled(problem, factor, seed=0):
    inputs = reference.random_inputs(problem, seed)
    inputs["Q"] *= np.float32(factor)
    return inputs


# ------------------------------------------------------------------------------------------------ the formula
def size(terms):
    """How large a sum's partial sums get."""
    return sqrt(sum(t * t for t in terms)) + abs(sum(terms))


def by_hand(problem, x, reads_logarithm):
    """The noise in units of u, number by number: softmax, then the errors that each output inherits."""
    x = {n: a.astype(float) for n, a in x.items()}
    d, (n, kv) = problem.head_dim, (problem.q_len, problem.kv_len)
    columns, most = range(d), Counter()
    for b, h in product(range(problem.batch), range(problem.kv_heads)):
        k, v = (x[name][h, b * kv : (b + 1) * kv] for name in ("K", "V"))
        of_keys = Counter()
        for g in range(problem.group):
            q, do = (x[name][h, g, b * n : (b + 1) * n] for name in ("Q", "dO"))
            to_dv, to_dk = {}, {}
            for i in range(n):
                keys = [j for j in range(kv) if str(problem.band) == "full" or j <= i + kv - n]
                s = {j: sum(q[i] * k[j]) / sqrt(d) for j in keys}
                m = max(s.values(), default=0.0)
                total = sum(exp(s[j] - m) for j in keys)
                p = {j: exp(s[j] - m) / total for j in keys}
                o = [sum(p[j] * v[j, c] for j in keys) for c in columns]
                # Of a score: the root of its d terms and the scale cancel.
                heard = [size([q[i, c] * k[j, c] for c in columns]) for j in keys if p[j] > UNIT]
                score = max(heard, default=0.0)
                # Both the score and the maximum are off by that; the row's sum has kv terms; L is rounded in memory.
                logarithm = m + log(total) if keys else 0.0
                weight = 2 * score + sqrt(kv) + abs(logarithm) * reads_logarithm
                found = {"m": score, "l": weight * total, "P": weight * max(p.values(), default=0.0)}
                found["L"] = score + weight + abs(m) + (log(total) if keys else 0.0)
                found["O"] = (weight + sqrt(kv)) * max(size([p[j] * v[j, c] for j in keys]) for c in columns)
                delta = size([do[i, c] * o[c] for c in columns])
                ds = {j: p[j] * (size([do[i, c] * v[j, c] for c in columns]) + delta) for j in keys}
                lost = (1 + sqrt(d)) * SMALLEST / UNIT
                off = {j: (weight + sqrt(d)) * ds[j] + lost for j in keys}
                terms = [[(off[j] + sqrt(kv) * ds[j]) * k[j, c] for j in keys] for c in columns]
                found["dQ"] = max(map(size, terms)) / sqrt(d)
                most |= Counter(found)  # of each the larger
                rows = sqrt(n * problem.group)  # the root of how many terms dK and dV have
                for j, c in product(keys, columns):
                    to_dv.setdefault((j, c), []).append((weight + rows) * p[j] * do[i, c])
                    to_dk.setdefault((j, c), []).append((off[j] + rows * ds[j]) * q[i, c])
            of_keys.update({("dV", *at): size(terms) for at, terms in to_dv.items()})
            of_keys.update({("dK", *at): size(terms) / sqrt(d) for at, terms in to_dk.items()})
        for (name, *_), value in of_keys.items():
            most[name] = max(most[name], value)
    return most


SHAPES = {
    "one number": problem_of(1, 1, 1), "full": problem_of(5, 7, 3), "wide": problem_of(3, 4, 20),
    "causal": problem_of(4, 6, 5, mask="causal"), "empty rows": problem_of(5, 3, 2, mask="causal"),
    "grouped": problem_of(3, 5, 2, heads=6, kv_heads=2), "sequences": problem_of(2, 3, 4, batch=2),
    "all at once": problem_of(4, 3, 7, heads=4, kv_heads=2, batch=2, mask="causal"),
}  # fmt: skip


@pytest.mark.parametrize("reads_logarithm", [False, True])
@pytest.mark.parametrize("factor", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("problem", SHAPES.values(), ids=SHAPES)
def test_noise_is_its_formula(problem, factor, reads_logarithm):
    inputs = scaled(problem, factor)
    want = by_hand(problem, inputs, reads_logarithm)
    assert noise_of(problem, inputs, reads_logarithm) == pytest.approx(
        {name: UNIT * want[name] for name in OUTPUTS}, rel=1e-9
    )


@pytest.mark.parametrize("algorithm", PASSES)
@pytest.mark.parametrize("shape", [{}, {"mask": "causal"}, {"heads": 4, "kv_heads": 2, "batch": 2}], ids=str)
def test_a_tolerance_is_twice_the_error_of_fp32_and_noise(shape, algorithm):
    """So the textbook formulas in fp32 pass."""
    problem = problem_of(23, 31, 16, **shape)
    inputs = scaled(problem, 3.0)
    exact, plain = reference.attention(problem, inputs), reference.evaluate(problem, inputs, FP32)
    allowed = noise_of(problem, inputs, READS_L[algorithm])
    for name, e in expected_of(problem, inputs, algorithm).items():
        difference = compare(unpacked(problem, plain[name]), e)
        assert difference.is_fine
        assert e.tolerance == pytest.approx(2 * difference.error + allowed.get(name, 0.0), rel=1e-12), name
        np.testing.assert_array_equal(e.exact, unpacked(problem, exact[name]))


# ------------------------------------------------------------------------------------------------ where it must grow
def uniform(problem, factor=0.0):
    """All weights are 1 / kv_len."""
    inputs = {n: np.ones_like(a) for n, a in reference.random_inputs(problem).items() if n != "padding"}
    inputs["Q"] *= np.float32(factor)
    return inputs


def grows(found, names):
    assert all(a[name] < b[name] for a, b in pairwise(found) for name in names)


def test_longer_sums_may_be_further_away():
    grows([noise_of(p, uniform(p)) for p in (problem_of(3, 4**n, 4) for n in range(6))], ("O", "l", "L", "dQ"))
    grows([noise_of(p, uniform(p, 1)) for p in (problem_of(4**n, 3, 4) for n in range(6))], ("dK", "dV"))
    grows(
        [noise_of(p, uniform(p, 1)) for p in (problem_of(3, 3, 4, heads=2**n, kv_heads=1) for n in range(5))],
        ("dK", "dV"),
    )
    grows([noise_of(p, uniform(p, 1)) for p in (problem_of(3, 3, 4**n) for n in range(5))], OUTPUTS)


@pytest.mark.parametrize("reads_logarithm", [False, True])
def test_larger_scores_may_be_further_away(reads_logarithm):
    problem = problem_of(3, 5, 4)
    grows([noise_of(problem, uniform(problem, 4.0**n), reads_logarithm) for n in range(8)], OUTPUTS)


# ------------------------------------------------------------------------------------------------ never nothing
@pytest.mark.parametrize("zeros", [("V",), ("dO",), ("Q",), ("K",), ("Q", "K", "V", "dO")])
def test_it_is_never_zero(zeros):
    """One rounding of a subnormal is up to half of 2^-149, however small the output."""
    problem = problem_of(3, 4, 2)
    inputs = reference.random_inputs(problem)
    for name in zeros:
        inputs[name][...] = 0.0
    assert min(noise_of(problem, inputs).values()) >= 2 * SMALLEST


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", ["Q", "K", "V", "dO"])
@pytest.mark.parametrize("value", [inf, -inf, nan, 1e38])
def test_it_is_always_a_number(value, name, everywhere):
    problem = problem_of(3, 4, 2, mask="causal")
    inputs = reference.random_inputs(problem)
    inputs[name][... if everywhere else (..., -1, 0)] = value
    with np.errstate(all="ignore"):
        found = noise_of(problem, inputs, reads_logarithm=True)
        tolerances = {n: e.tolerance for n, e in expected_of(problem, inputs).items() if n in OUTPUTS}
    assert all(2 * SMALLEST <= x < inf for x in (*found.values(), *tolerances.values()))


def test_the_maximum_of_a_row_that_is_not_a_number_means_nothing():
    problem = problem_of(4, 3, 2, mask="causal")  # the first query sees no key
    inputs = reference.random_inputs(problem)
    assert expected_of(problem, inputs)["L"].exact[0, 0, 0, 0] == -inf
    inputs["Q"][...] = nan
    found = expected_of(problem, inputs)
    assert found["m"].matters[0, 0, :, 0].tolist() == [True, False, False, False]
    assert all(found[name].matters.all() for name in OUTPUTS if name != "m")


# ------------------------------------------------------------------------------------------------ compare
def of(values, tolerance=0.0, matters=(True,)):
    exact = np.array(values, np.float64).reshape(1, 1, -1, 1)
    return Expected(exact, tolerance, np.resize(matters, exact.shape))


def against(output, e):
    return compare(np.array(output, np.float32).reshape(e.exact.shape), e)


def test_the_largest_distance_counts():
    assert against([1.0, 2.5, 3.0], of([1.0, 2.0, 2.75], 0.5))[:2] == (0.5, 0.5)


@pytest.mark.parametrize("sign", [-1, 1])
def test_just_inside_and_just_outside(sign):
    e = of([1.0, 4.0], tolerance=2.0**-20)
    inside = np.float32(4.0 + sign * 2.0**-20)
    assert against([1.0, inside], e).is_fine
    outside = np.nextafter(inside, np.float32(sign * inf))
    assert not against([1.0, outside], e).is_fine
    assert against([1.0, outside], e).misplaced == 0


@pytest.mark.parametrize(
    ("output", "exact"),
    [(nan, 1.0), (inf, 1.0), (-inf, 0.0), (1.0, nan), (0.0, -inf), (inf, -inf), (-inf, inf), (nan, inf), (inf, nan)],
)
def test_a_special_value_in_the_wrong_place_is_never_fine(output, exact):
    assert against([output, 2.0], of([exact, 2.0], tolerance=1e30)) == (0.0, 1e30, 1)
    assert not against([output, 2.0], of([exact, 2.0], tolerance=inf)).is_fine
    assert against([output, 2.0], of([exact, 2.0], matters=[False, True])).is_fine


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_special_value_in_its_place_is_fine(value):
    assert against([value, 2.0], of([value, 2.0])) == (0.0, 0.0, 0)
    assert against([value, value], of([value, value])).is_fine


def test_zeros_of_either_sign_are_equal():
    assert against([-0.0, 0.0], of([0.0, -0.0])).is_fine
    assert not against([SMALLEST, 0.0], of([0.0, 0.0])).is_fine


# ------------------------------------------------------------------------------------------------ what it tells apart
PROBLEM = problem_of(64, 64, 64)
INPUTS = reference.random_inputs(PROBLEM)


def rounded(values, bits):
    """To a mantissa of so many bits: 7 are bf16, 10 tf32."""
    step = 1 << 23 - bits
    words = np.asarray(values, np.float32).view(np.uint32).astype(np.int64)
    return ((words + step // 2) // step * step).astype(np.uint32).view(np.float32)


def is_fine(name, values, wanted):
    return compare(unpacked(PROBLEM, values).astype(np.float32), wanted[name]).is_fine


@pytest.fixture(scope="module", params=PASSES)
def wanted(request):
    return expected_of(PROBLEM, INPUTS, request.param)


def test_one_key_of_64_that_is_left_out_is_seen(wanted):
    for key in range(64):
        fewer = {n: np.delete(a, key, axis=1) if n in ("K", "V") else a for n, a in INPUTS.items()}
        without = reference.attention(replace(PROBLEM, kv_len=63), fewer)
        seen = {name: not is_fine(name, without[name], wanted) for name in ("O", "L", "l", "dQ")}
        assert all(seen.values()), (key, seen)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_rounded_to_bf16_is_seen(name, wanted):
    exact = wanted[name].exact
    assert compare(exact.astype(np.float32), wanted[name]).is_fine
    assert not compare(rounded(exact, 7), wanted[name]).is_fine


REACHED = {"Q": OUTPUTS, "K": OUTPUTS, "V": ("O", "dQ", "dK"), "dO": ("dQ", "dK", "dV")}


@pytest.mark.parametrize("name", REACHED)
def test_an_input_rounded_to_tf32_is_seen(name, wanted):
    """In every output that it reaches."""
    worse = reference.attention(PROBLEM, INPUTS | {name: rounded(INPUTS[name], 10)})
    assert {n for n in OUTPUTS if not is_fine(n, worse[n], wanted)} == {*REACHED[name]}


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_scale_off_by_one_percent_is_seen(factor, wanted):
    worse = reference.attention(PROBLEM, INPUTS | {"Q": factor * INPUTS["Q"].astype(float)})
    assert not any(is_fine(name, worse[name], wanted) for name in OUTPUTS)


def test_a_maximum_that_is_not_updated_is_seen(wanted):
    """The rescaling by exp(m - m_new) forgotten between two halves of the keys."""
    scores = INPUTS["Q"][0, 0].astype(float) @ INPUTS["K"][0].T / 8
    values, l, o = INPUTS["V"][0].astype(float), 0.0, 0.0
    for half in (slice(0, 32), slice(32, 64)):
        p = np.exp(scores[:, half] - scores[:, half].max(axis=1, keepdims=True))
        l, o = l + p.sum(axis=1, keepdims=True), o + p @ values[half]
    assert not is_fine("l", l[None, None], wanted)
    assert not is_fine("O", (o / l)[None, None], wanted)


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_keys_without_weight_allow_nothing(mask):
    """Full: every third key has a score of -10^5. Causal: only the last query sees the last key, and is 0."""
    problem = replace(problem_of(9, 31, 8), mask=mask)
    inputs = cases.minus_infinity(problem, 0)
    inputs["K"][:, ::3, 0] = -1e6 if mask == "full" else 0.0
    if mask == "causal":
        inputs["K"][:, -1], inputs["Q"][:, :, -1] = 1e6, 0.0
    e = expected_of(problem, inputs)["O"]
    assert e.tolerance < 1e-4
    assert not compare(rounded(e.exact, 7), e).is_fine


# ------------------------------------------------------------------------------------------------ what is right passes
def textbook(problem, x, orders, from_logarithm):
    """The formulas in fp32 with keys, queries, columns and heads of a group in another order.

    from_logarithm: the gradients' weights are exp(s - L), as the backward passes compute them.
    """
    n, kv, scale = problem.q_len, problem.kv_len, np.float32(1 / sqrt(problem.head_dim))
    of_q, of_k, of_d, of_g = orders
    out = {name: np.zeros(shape, np.float32) for name, shape in reference.shapes(problem).items() if name in OUTPUTS}
    sees = (of_k <= of_q[:, None] + kv - n) | (str(problem.band) == "full")
    for b, h, g in product(range(problem.batch), range(problem.kv_heads), of_g):
        rows, keys = b * n + of_q, b * kv + of_k
        q, do = (x[name][h, g][np.ix_(rows, of_d)] for name in ("Q", "dO"))
        k, v = (x[name][h][np.ix_(keys, of_d)] for name in ("K", "V"))
        s = np.where(sees, scale * (q @ k.T), np.float32(-inf))
        m = s.max(axis=1, keepdims=True)
        e = np.exp(s - np.where(m == -inf, np.float32(0), m))
        l = e.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            logarithm = m + np.log(l)
        inverse = 1 / np.where(l == 0, np.float32(1), l)
        o = (e @ v) * inverse
        p = np.exp(s - np.where(m == -inf, np.float32(0), logarithm)) if from_logarithm else e * inverse
        ds = p * (do @ v.T - (do * o).sum(axis=1, keepdims=True))
        columns = {"O": of_d, "dQ": of_d, "P": of_k}
        for name, a in {"O": o, "dQ": scale * (ds @ k), "P": p, "l": l, "m": m, "L": logarithm}.items():
            out[name][h, g][np.ix_(rows, columns.get(name, [0]))] = a
        for name, a in {"dV": p.T @ do, "dK": scale * (ds.T @ q)}.items():
            out[name][h][np.ix_(keys, of_d)] += a
    return out


def wrong(problem, inputs, orders, from_logarithm):
    got = textbook(problem, inputs, orders, from_logarithm)
    e = expected_of(problem, inputs, "flash2_no_atomics" if from_logarithm else "flash2")
    found = {name: compare(unpacked(problem, got[name]), e[name]) for name in OUTPUTS}
    return {name: difference for name, difference in found.items() if not difference.is_fine}


@settings(max_examples=300)
@given(
    data=st.data(), sizes=st.tuples(*(st.integers(1, most) for most in (12, 12, 8, 3, 2, 2))),
    mask=st.sampled_from(["full", "causal"]), seed=st.integers(0, 2**16),
    factor=st.sampled_from([0.01, 1.0, 5.0, 30.0]), cancels=st.booleans(), from_logarithm=st.booleans(),
)  # fmt: skip
def test_another_order_of_summation_passes(data, sizes, mask, seed, factor, cancels, from_logarithm):
    *ordered, kv_heads, batch = sizes
    *lengths, group = ordered
    problem = problem_of(*lengths, heads=kv_heads * group, kv_heads=kv_heads, batch=batch, mask=mask)
    inputs = scaled(problem, factor, seed)
    if cancels:  # all values are equal: dQ and dK are the rest of sums that vanish
        inputs["V"][...], inputs["dO"][...] = inputs["V"][:, :1], inputs["dO"][..., :1]
    orders = [np.array(data.draw(st.permutations(range(n)))) for n in ordered]
    assert wrong(problem, inputs, orders, from_logarithm) == {}


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_another_order_of_subnormals_passes(factor):
    """V and dO are tiny, Q is not: what is lost in dP and dS is as much of dK as of them."""
    problem = problem_of(1, 7, 8)
    for seed in range(700):
        inputs = scaled(problem, factor, seed)
        inputs["V"] *= np.float32(1e-39)
        inputs["dO"] *= np.float32(1e-3)
        assert wrong(problem, inputs, [np.arange(n)[::-1] for n in (1, 7, 8, 1)], from_logarithm=True) == {}, seed


@pytest.mark.parametrize(
    ("kernel", "q_len", "kv_len", "head_dim", "seed"),
    [
        ("flash2_backward", 1, 1, 8, 0),  # dQ = dK = 0 = sum(dO V) - sum(dO O), two sums of eight terms
        ("flash2", 1, 3, 8, 35760),  # L is near 0: the maximum and the logarithm cancel
        ("flash2_backward", 1, 5, 2, 44870),
        ("flash2_no_atomics", 4, 4, 1, 56145),  # dV: a rounded score of size s changes its weight by s u
    ],
)
def test_the_smallest_problems_pass(kernel, q_len, kv_len, head_dim, seed):
    problem = problem_of(q_len, kv_len, head_dim, direction=load(kernel).direction)
    assert verify(load(kernel), Case(problem), seed=seed).problems["values"] == []
