"""Levels of several claims at once, by exact probabilities."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from formalgr.core.errors import UsageError
from formalgr.global_robustness.binomial import certify_p_value, lower_bound, refute_p_value, upper_bound
from formalgr.global_robustness.multiplicity import holm, union_alpha


@pytest.mark.parametrize("number", [1, 2, 10])
def test_unions_have_the_level_they_say(number):
    """Independent bounds all hold with probability 1 - alpha; whatever the dependence, alpha / number is enough."""
    for alpha in (1e-12, 1e-3, 0.05, 0.9):
        single = union_alpha(alpha, number)
        assert -np.expm1(number * np.log1p(-single)) == pytest.approx(alpha, rel=1e-12)
        assert union_alpha(alpha, number, independent=False) == alpha / number <= single <= alpha


def test_bad_numbers_are_refused():
    for call in (
        lambda: union_alpha(0.05, 0),
        lambda: union_alpha(0.0, 3),
        lambda: holm([0.5, 1.5], 0.05),
        lambda: holm([0.5], 1.0),
        lambda: certify_p_value(1, 10, 1.1),
        lambda: refute_p_value(1, 10, -0.1),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.6])
def test_p_values_are_the_tails_behind_the_bounds(delta):
    """p <= alpha iff the Clopper-Pearson bound at alpha decides delta."""
    for failures, alpha in itertools.product(range(0, 61, 3), (1e-3, 0.05, 0.5)):
        certify, refute = certify_p_value(failures, 60, delta), refute_p_value(failures, 60, delta)
        assert (certify <= alpha) == (upper_bound(failures, 60, alpha) <= delta)
        assert (refute <= alpha) == (lower_bound(failures, 60, alpha) >= delta)
        assert 0.0 <= certify <= 1.0 and 0.0 <= refute <= 1.0


@pytest.mark.parametrize(
    "p_values, rejected",
    [
        ([], ()),
        ([0.04], (True,)),
        ([0.01, 0.04, 0.03, 0.005], (True, False, False, True)),
        ([0.012, 0.012, 0.012], (True, True, True)),
        ([0.02, 0.001], (True, True)),
        ([0.03, 0.03], (False, False)),
        ([0.04, 0.001], (True, True)),
        ([0.0126, 0.5, 0.01, 0.6], (True, False, True, False)),
    ],
)
def test_holm_steps_down(p_values, rejected):
    """Smallest first against alpha / number left; the first that is too large ends it. alpha = .05."""
    assert holm(p_values, 0.05) == rejected


def test_holm_lists_a_wrong_class_with_probability_at_most_alpha():
    """Three classes, two of them at F = delta: every pair of counts, weighted by its exact probability."""
    delta, n, alpha = 0.1, 400, 0.05
    chances = binom.pmf(np.arange(60), n, delta)
    p_values = [certify_p_value(k, n, delta) for k in range(60)]
    wrong = union = 0.0
    for a, b in itertools.product(range(60), repeat=2):
        listed = holm([p_values[a], p_values[b], 0.0], alpha)
        wrong += chances[a] * chances[b] * (listed[0] or listed[1])
        union += chances[a] * chances[b] * (p_values[a] <= alpha or p_values[b] <= alpha)
    assert wrong + (1.0 - chances.sum() ** 2) <= alpha < union
