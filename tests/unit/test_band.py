"""Bounds for all radii at once: against the Kolmogorov-Smirnov law, exact small cases, published values, simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom, ksone

from formalgr.core.exact import balls
from formalgr.global_robustness.band import crossing_probability, local_alpha, pointwise, poisson, simultaneous
from formalgr.global_robustness.recheck import boundary_holds


@pytest.mark.parametrize("samples", [1, 2, 5, 17, 100, 1000, 2500])
@pytest.mark.parametrize("distance", [0.3, 0.5, 1.0, 2.0, 3.5])
def test_the_linear_boundary_is_the_law_of_kolmogorov_and_smirnov(samples, distance):
    """P(U_(k) > (k - 1) / n + d for some k) is the one-sided law of scipy, absolutely to 1e-12 and digit by digit."""
    d = distance / math.sqrt(samples)
    value, radius = crossing_probability(np.minimum(1.0, np.arange(samples) / samples + d))
    assert value == pytest.approx(ksone.sf(d, samples), rel=1e-12, abs=1e-25)
    assert abs(value - ksone.sf(d, samples)) <= max(radius, 1e-25) <= 1e-10


def exact_crossing(boundary: list[Fraction]) -> Fraction:
    """P(U_(k) > boundary[k-1] for some k) by binomial steps: of the points beyond b_{k-1} each is below b_k alike."""
    n, alive, at = len(boundary), {0: Fraction(1)}, Fraction(0)
    for k, now in enumerate(boundary, start=1):
        share = (now - at) / (1 - at) if at < 1 else Fraction(0)
        moved: dict[int, Fraction] = {}
        for j, mass in alive.items():
            for more in range(n - j + 1):
                if j + more >= k:
                    chance = math.comb(n - j, more) * share**more * (1 - share) ** (n - j - more)
                    moved[j + more] = moved.get(j + more, Fraction(0)) + mass * chance
        alive, at = moved, now
    return 1 - sum(alive.values())


def test_any_boundary_of_few_points_in_fractions():
    """Random rising boundaries, with equal values, zeros and ones among them, of up to 9 points."""
    random = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 9):
        for _ in range(25):
            boundary = sorted(Fraction(int(x), 16) for x in random.integers(0 if n < 5 else 4, 17, size=n))
            expected = exact_crossing(boundary)
            value, radius = crossing_probability(np.array([float(x) for x in boundary]))
            assert value == pytest.approx(float(expected), rel=1e-13, abs=1e-24)
            assert abs(Fraction(value) - expected) <= radius + 1e-24
            assert boundary_holds(boundary, expected + Fraction(1, 10**15))
            assert expected == 0 or not boundary_holds(boundary, expected - Fraction(1, 10**15))


def test_large_gaps_lose_no_digits():
    """One constraint only, U_(k) <= b: a binomial tail, with thousands of points expected in one step."""
    for n, k, b in ((5000, 4000, 0.79), (5000, 1, 0.001), (3000, 3000, 0.9995), (2000, 1000, 0.5)):
        boundary = np.concatenate([np.full(k, b), np.ones(n - k)])
        assert crossing_probability(boundary)[0] == pytest.approx(binom.cdf(k - 1, n, b), rel=1e-10)


def test_poisson_probabilities_against_ball_arithmetic():
    """Counts and rates up to 10^4, near and far from each other: relatively to 2e-12, down to 1e-300."""
    for count in (0, 1, 15, 16, 17, 100, 9999, 10000):
        for rate in (1e-3, 0.5, 10.0, 99.5, 1e4, 10123.0):
            with balls(300) as make:
                value = make.number(rate) ** count / math.factorial(count) * (-make.number(rate)).exp()
                expected = float(value)
            found = float(poisson(np.array([float(count)]), np.array([rate]))[0])
            assert found == pytest.approx(expected, rel=2e-12, abs=1e-300)


LOCAL = [
    # n, alpha, alpha' as published: STATISTICS section 3
    (1000, 1e-3, "1.43162e-05"),
    (5000, 1e-3, "9.98251e-06"),
    (10000, 1e-3, "8.78981e-06"),
    (1000, 0.05, "1.21695e-03"),
    (5000, 0.05, "8.6414e-04"),
    (10000, 0.05, "7.6376e-04"),
    (1000, 5e-4, "6.7351e-06"),
    (1000, 0.025, "5.3292e-04"),
    (10000, 5e-4, "4.1185e-06"),
    (10000, 0.025, "3.3321e-04"),
]


@pytest.mark.parametrize(
    "samples, alpha, printed",
    [pytest.param(*row, marks=pytest.mark.slow if row[0] > 1000 else ()) for row in LOCAL],
)
def test_local_levels_are_the_published_ones(samples, alpha, printed):
    digits = len(printed.split("e")[0]) - 2
    assert f"{local_alpha(samples, alpha):.{digits}e}" == printed


@pytest.mark.parametrize(
    "samples, printed",
    [
        (1000, {0: (".00688", ".01109"), 50: (".07495", ".08495")}),
        pytest.param(
            10000,
            {0: (".00069", ".00116"), 100: (".01347", ".01497"), 500: (".05709", ".05998")},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_upper_bounds_are_the_published_ones(samples, printed):
    """STATISTICS section 3, alpha = 1e-3: number of failures -> one radius, all radii."""
    single, together = pointwise(samples, 1e-3), simultaneous(samples, 1e-3)
    for failures, expected in printed.items():
        assert tuple(f"{bounds.upper[failures]:.5f}"[1:] for bounds in (single, together)) == expected
