"""Bounds for all radii at once: against the Kolmogorov-Smirnov law, exact small cases, published values, simulation."""

import math

import numpy as np
import pytest
from scipy.stats import ksone

from formalgr.global_robustness.band import crossing_probability, local_alpha, pointwise, simultaneous


@pytest.mark.parametrize("samples", [1, 2, 5, 17, 100, 1000, 2500])
@pytest.mark.parametrize("distance", [0.3, 0.5, 1.0, 2.0, 3.5])
def test_the_linear_boundary_is_the_law_of_kolmogorov_and_smirnov(samples, distance):
    """P(U_(k) > (k - 1) / n + d for some k) is the one-sided law of scipy, absolutely to 1e-12 and digit by digit."""
    d = distance / math.sqrt(samples)
    value, radius = crossing_probability(np.minimum(1.0, np.arange(samples) / samples + d))
    assert value == pytest.approx(ksone.sf(d, samples), rel=1e-12, abs=1e-25)
    assert abs(value - ksone.sf(d, samples)) <= max(radius, 1e-25) <= 1e-10


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
    "samples, failures, single, together",
    [
        (1000, 0, ".00688", ".01109"),
        (1000, 50, ".07495", ".08495"),
        pytest.param(10000, 0, ".00069", ".00116", marks=pytest.mark.slow),
        pytest.param(10000, 100, ".01347", ".01497", marks=pytest.mark.slow),
        pytest.param(10000, 500, ".05709", ".05998", marks=pytest.mark.slow),
    ],
)
def test_upper_bounds_are_the_published_ones(samples, failures, single, together):
    """STATISTICS section 3, alpha = 1e-3."""
    assert f"{pointwise(samples, 1e-3).upper[failures]:.5f}"[1:] == single
    assert f"{simultaneous(samples, 1e-3).upper[failures]:.5f}"[1:] == together
