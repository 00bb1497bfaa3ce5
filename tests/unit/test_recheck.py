"""Ball arithmetic proves what the statistics state, and refuses what is a little too good."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from formalgr.core import exact
from formalgr.core.errors import MissingDependency
from formalgr.global_robustness.band import local_alpha, pointwise, simultaneous
from formalgr.global_robustness.recheck import (
    anytime_bound_holds,
    anytime_excludes,
    band_holds,
    boundary_holds,
    lower_bound_holds,
    mixture_stop_holds,
    spending_holds,
    upper_bound_holds,
)
from formalgr.global_robustness.sequential import CertifyRule, anytime_interval, sequential_test

ALPHA = 1e-3


@pytest.mark.parametrize("samples", [1, 2, 30, 1000, 10000])
@pytest.mark.parametrize("alpha", [1e-9, 1e-3, 0.05, 0.5])
def test_clopper_pearson_bounds_are_proven_and_sharp(samples, alpha):
    bounds = pointwise(samples, alpha)
    for k in sorted({0, 1, samples // 20, samples // 2, samples - 1, samples}):
        upper, lower = bounds.upper[k], bounds.lower[k]
        assert upper_bound_holds(k, samples, upper, alpha) and lower_bound_holds(k, samples, lower, alpha)
        assert not upper_bound_holds(k, samples, upper - 1e-7 * min(upper, 1.0 - upper) - 1e-15, alpha)
        assert k == 0 or not lower_bound_holds(k, samples, lower + 1e-7 * min(lower, 1.0 - lower) + 1e-15, alpha)


def test_tails_are_exact_fractions():
    """P(Binomial(3, 1/2) <= 1) = 1/2 and P(Binomial(4, 1/4) >= 4) = 1/256, reached and missed by 1e-30."""
    tiny = Fraction(1, 10**30)
    assert upper_bound_holds(1, 3, Fraction(1, 2) + tiny, Fraction(1, 2))
    assert not upper_bound_holds(1, 3, Fraction(1, 2) - tiny, Fraction(1, 2))
    assert lower_bound_holds(4, 4, Fraction(1, 4) - tiny, Fraction(1, 256))
    assert not lower_bound_holds(4, 4, Fraction(1, 4) + tiny, Fraction(1, 256))


@pytest.mark.parametrize("failures, samples", [(-1, 10), (11, 10)])
def test_impossible_counts_prove_nothing(failures, samples):
    assert not upper_bound_holds(failures, samples, 1, ALPHA) and not lower_bound_holds(failures, samples, 0, ALPHA)
    assert not mixture_stop_holds(failures, samples, 0.05, 1.0, True)
    assert not anytime_excludes(failures, samples, 0.9, 1.0)


@pytest.mark.parametrize("samples, most", [(1, None), (2, None), (40, None), (400, None), (400, 20)])
def test_bands_are_proven_and_sharp(samples, most):
    band = simultaneous(samples, ALPHA, most)
    assert band_holds(band, ALPHA)
    assert not band_holds(band, ALPHA * (1 - 1e-6))
    local = band.local_alpha * (1 + 1e-6)
    larger = pointwise(samples, local)
    if most is None:
        assert not band_holds(larger, ALPHA)


@pytest.mark.slow
def test_a_band_of_10000_samples_is_proven():
    """By the published alpha' rounded down; its last digit up is no longer valid."""
    assert band_holds(replace(pointwise(10000, 8.7898e-6), alpha=ALPHA), ALPHA)


def test_one_changed_bound_is_seen():
    band = simultaneous(60, ALPHA)
    for side in ("upper", "lower"):
        for k in (1, 30, 59):
            values = getattr(band, side).copy()
            values[k] = values[k - 1] + 0.05 * (values[k] - values[k - 1]) if side == "upper" else values[k + 1]
            assert not band_holds(replace(band, **{side: values}), ALPHA)
    # the ends of the tables, and tables of another number of samples
    assert not band_holds(replace(band, upper=np.minimum(band.upper, 0.999999)), ALPHA)
    assert not band_holds(replace(band, lower=np.maximum(band.lower, 1e-9)), ALPHA)
    assert not band_holds(replace(simultaneous(10, ALPHA), samples=60), ALPHA)
    weaker = band.upper.copy()
    weaker[3] = 1.0
    assert band_holds(replace(band, upper=weaker), ALPHA)


def test_boundaries_are_exact_for_two_points():
    """P(U_(1) <= a, U_(2) <= b) = 2ab - a^2."""
    a, b = Fraction(1, 4), Fraction(3, 4)
    missed = 1 - (2 * a * b - a * a)
    assert boundary_holds([a, b], missed + Fraction(1, 10**20))
    assert not boundary_holds([a, b], missed - Fraction(1, 10**20))
    assert boundary_holds([Fraction(1), Fraction(1)], Fraction(0))
    assert not boundary_holds([b, a], Fraction(1)) and not boundary_holds([a, Fraction(2)], Fraction(1))


@pytest.mark.parametrize("alpha", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("delta", [0.001, 0.05, 0.5, 0.999])
def test_spending_of_large_alpha_is_proven(delta, alpha):
    """Where boundaries come near the mean of the failures, or beyond."""
    for most in (1, 2, 30, 500):
        test = sequential_test(delta, alpha, most)
        assert spending_holds(test.certify_at, delta, alpha)


@pytest.mark.parametrize("delta, most", [(0.05, 2000), (0.01, 3000), (0.5, 60)])
def test_spending_is_proven(delta, most):
    test = sequential_test(delta, ALPHA, most)
    assert spending_holds(test.certify_at, delta, ALPHA)
    assert spending_holds(test.certify_at, delta, test.spent)
    assert not spending_holds(test.certify_at, delta, test.spent * (1 - 1e-8))
    assert not spending_holds(test.certify_at, delta * 0.99, ALPHA)
    more = test.certify_at.copy()
    more[most // 2 :] += 1
    assert not spending_holds(more, delta, ALPHA)
    assert not spending_holds(test.certify_at[::-1], delta, ALPHA)


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("alpha", [1e-3, 0.05])
def test_mixture_stops_are_proven(delta, alpha):
    """At every t that is looked at: the boundary holds, one failure beyond it does not."""
    test = sequential_test(delta, alpha, 3000, CertifyRule.MIXTURE)
    for t in (20, 200, 900, 3000):
        k, r = int(test.certify_at[t]), int(test.refute_at[t])
        assert k < 0 or mixture_stop_holds(k, t, delta, alpha, True)
        assert not mixture_stop_holds(k + 1, t, delta, alpha, True)
        assert r > t or mixture_stop_holds(r, t, delta, alpha, False)
        assert not mixture_stop_holds(r - 1, t, delta, alpha, False)


def test_the_ends_of_the_anytime_interval_are_proven():
    flags = np.random.default_rng(3).random(500) < 0.1
    interval = anytime_interval(flags, flags, ALPHA)
    failures = np.cumsum(flags)
    tries = [(int(failures[t - 1]), t) for t in range(1, 501)]
    for end, beyond in ((interval.lower, -1e-9), (interval.upper, 1e-9)):
        assert any(anytime_excludes(k, t, end, ALPHA) for k, t in tries)
        assert not any(anytime_excludes(k, t, end - beyond, ALPHA) for k, t in tries)


def test_anytime_bounds_hold_wherever_they_were_computed():
    """Both ends, and whatever lies outward of them; nothing inward, and nothing below the share of failures."""
    for seed, rate in ((3, 0.1), (4, 0.0), (5, 0.9)):
        flags = np.random.default_rng(seed).random(300) < rate
        interval, failures, successes = anytime_interval(flags, flags, ALPHA), np.cumsum(flags), np.cumsum(~flags)
        for counts, end in ((failures, Fraction(interval.upper)), (successes, 1 - Fraction(interval.lower))):
            for outward in (Fraction(0), Fraction(1, 10**13), Fraction(1, 1000)):
                assert end + outward >= 1 or anytime_bound_holds(counts, end + outward, ALPHA)
            assert not anytime_bound_holds(counts, end - Fraction(1, 10**9), ALPHA)
            assert not anytime_bound_holds(counts, Fraction(int(counts[-1]), 2 * counts.size), ALPHA)
    assert not anytime_bound_holds(np.zeros(0), 0.5, ALPHA)


def test_without_flint_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(exact, "flint", None)
    with pytest.raises(MissingDependency, match="python-flint"):
        upper_bound_holds(1, 10, 0.5, ALPHA)


def test_local_levels_never_exceed_what_is_proven():
    """Many sizes and levels: what bisection returns is proven, though it is the largest to nine digits."""
    for samples in (2, 3, 7, 50, 150):
        for alpha in (1e-9, 0.05, 0.9):
            band = simultaneous(samples, alpha)
            assert band.local_alpha == local_alpha(samples, alpha)
            assert band_holds(band, alpha), (samples, alpha)
