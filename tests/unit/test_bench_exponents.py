"""Exponents, their intervals, and crossings: on powers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from ioaware_kernels.bench.exponents import Estimate, crossing, estimate, exponent, medians, slopes

X = [256, 512, 1024, 4096]


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.5, 2.0])
def test_a_power_is_found_exactly(power):
    assert slopes(X, np.array([[3.0 * x**power] for x in X])) == pytest.approx([power])
    found = exponent(X, of_samples([[3.0 * x**power] * 5 for x in X], seed=0))
    assert (found.value, found.low, found.high) == pytest.approx((power,) * 3)


def of_samples(samples, seed):
    return np.stack([medians(s, seed + n) for n, s in enumerate(samples)])


def noisy(power, spread, seed, count=15):
    rng = np.random.default_rng(seed)
    return [list(x**power * np.exp(spread * rng.standard_normal(count))) for x in X]


def test_noise_widens_the_interval_and_it_covers_the_truth():
    """Of 95 % intervals about 95 % hold the truth: of 100 runs at least 85 do, and not all intervals are wide."""
    found = [exponent(X, of_samples(noisy(2.0, 0.05, seed), seed)) for seed in range(100)]
    assert sum(e.low <= 2.0 <= e.high for e in found) >= 85
    assert np.median([e.high - e.low for e in found]) < 0.1
    wider = [exponent(X, of_samples(noisy(2.0, 0.5, seed), seed)) for seed in range(10)]
    assert np.median([e.high - e.low for e in wider]) > 0.2


def test_the_same_seed_gives_the_same_interval():
    samples = noisy(2.0, 0.1, 7)
    found = [estimate(slopes(X, of_samples(samples, seed))) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_points_off_the_line_widen_the_interval():
    """x + x^2 / 1000 is no power; the interval is the textbook's: slope, residuals, Student's t with 4 - 2 degrees."""
    y = np.array([[x + x**2 / 1000] for x in X])
    found = exponent(X, np.repeat(y, 3, axis=1))
    u, v = np.log(X), np.log(y[:, 0])
    slope, intercept = np.polyfit(u, v, 1)
    error = np.sqrt(((v - intercept - slope * u) ** 2).sum() / 2 / ((u - u.mean()) ** 2).sum())
    assert found.value == pytest.approx(slope)
    assert (found.low, found.high) == pytest.approx((slope - 4.303 * error, slope + 4.303 * error))
    assert 1 < found.low < found.high < 2


def test_the_first_of_the_medians_is_that_of_the_samples():
    found = medians([5.0, 1.0, 2.0], seed=0)
    assert found[0] == 2.0
    assert set(found) == {1.0, 2.0, 5.0}


def test_a_crossing_lies_between_the_points():
    """8 x against x^2: they meet at 8."""
    x = [1, 4, 16]
    slow, fast = np.array([[v**2.0] for v in x]), np.array([[8.0 * v] for v in x])
    assert crossing(x, slow, fast) == pytest.approx([8.0])
    assert crossing(x, fast, slow) == pytest.approx([np.inf])
    assert crossing(x, 2 * fast, fast) == pytest.approx([0.0])


def test_the_last_crossing_counts():
    slow, fast = np.array([[3.0], [1.0], [4.0]]), np.array([[2.0], [2.0], [2.0]])
    assert 2 < crossing([1, 2, 4], slow, fast)[0] < 4


def test_infinite_draws_have_an_interval():
    found = estimate(np.array([1.0, *([np.inf] * 50), *([0.0] * 50)]))
    assert (found.low, found.high) == (0.0, np.inf)


def test_overlap():
    assert Estimate(1, 0, 2).overlaps(Estimate(3, 2, 4))
    assert not Estimate(1, 0, 2).overlaps(Estimate(3, 2.1, 4))
    assert not Estimate(3, 2.1, 4).overlaps(Estimate(1, 0, 2))
