"""Bounds carried to other latents: against distributions for which both failure probabilities are known."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from formalgr.core.errors import UsageError
from formalgr.global_robustness.shift import Shift, float32_normal, float32_uniform

MU, WEIGHTS = 1.5, np.array([0.6, -1.3, 0.4])
NORM1, NORM2 = float(np.abs(WEIGHTS).sum()), float(np.linalg.norm(WEIGHTS))


def failure(epsilon: float, mean: np.ndarray, scale: float = 1.0) -> float:
    """F(eps) of "class iff w.z + mu > 0" under N(mean, scale^2 I)."""
    return float(norm.cdf((epsilon * NORM1 - MU - WEIGHTS @ mean) / (scale * NORM2)))


@pytest.mark.parametrize("epsilon", ["0", "0.1", "0.7"])
def test_a_moved_normal(epsilon):
    """Q = N(m, I) is P moved by ||m||_inf; the bound is reached when m points against the weights."""
    against, any_way = -0.2 * np.sign(WEIGHTS), np.array([0.2, -0.05, 0.1])
    shift = Shift(distance="0.2")
    bound = shift.upper(failure(float(shift.needs(epsilon)), np.zeros(3)))
    assert bound == pytest.approx(failure(float(epsilon), against), rel=1e-8)
    assert failure(float(epsilon), any_way) <= bound


def test_a_mixture_with_anything():
    """Q = .97 P + .03 (all fail): total variation .03."""
    bound = Shift(probability=0.03).upper(failure(0.1, np.zeros(3)))
    assert 0.97 * failure(0.1, np.zeros(3)) + 0.03 <= bound


def test_a_narrower_normal_is_a_reweighting():
    """dQ/dP of N(0, s^2 I) against N(0, I) is at most s^-p for s < 1."""
    scale = 0.9
    bound = Shift(ratio=scale**-3).upper(failure(0.1, np.zeros(3)))
    assert failure(0.1, np.zeros(3), scale) <= bound <= 1.4 * failure(0.1, np.zeros(3))


def test_all_three_together():
    """Reweighted, then moved, then a part replaced: Q = .9 N(m, s^2 I) + .1 (all fail)."""
    scale, moved = 0.95, np.array([0.1, 0.1, -0.1])
    shift = Shift(distance=0.1, probability=0.1, ratio=scale**-3)
    bound = shift.upper(failure(float(shift.needs("0.3")), np.zeros(3)))
    assert 0.9 * failure(0.3, moved, scale) + 0.1 <= bound < 1.0


def test_radii_are_rationals():
    shift = Shift(distance=0.1)
    assert shift.needs("0.2") == Fraction(3, 10) and shift.keeps("0.2") == Fraction(1, 10)
    assert shift.keeps("0.1") == 0 and shift.keeps("0.05") is None
    assert Shift(ratio=2.0, probability=0.1).upper(0.2) == pytest.approx(0.5)
    assert Shift().upper(0.25) == pytest.approx(0.25) and Shift(ratio=9.0).upper(0.5) == 1.0


def test_one_shift_after_another():
    """N(m, s^2 I) of a mixture: the bounds of both shifts, one after the other, are those of their chain."""
    first = Shift(distance="0.1", probability=0.02, ratio=1.2)
    second = Shift(distance="0.05", probability=0.01, ratio=1.5)
    both, bound = first.then(second), failure(0.35, np.zeros(3))
    assert both.needs("0.2") == Fraction(35, 100)
    assert both.upper(bound) == pytest.approx(second.upper(first.upper(bound)), rel=1e-9)
    assert both.upper(bound) >= second.ratio * (first.ratio * bound + first.probability) + second.probability


@pytest.mark.parametrize(
    "values", [{"distance": -1}, {"probability": 1.5}, {"probability": -0.1}, {"ratio": 0.5}, {"ratio": np.inf}]
)
def test_impossible_shifts_are_refused(values):
    with pytest.raises(UsageError):
        Shift(**values)


def test_rounding_latents_to_float32_moves_them_no_farther():
    """A million normal numbers, and the worst ones: just halfway between two floats."""
    shift = float32_normal(3, half_width=6.0)
    wide = np.random.default_rng(0).standard_normal(10**6)
    halfway = np.nextafter(np.float32(4.0), np.float32(8.0), dtype=np.float32).astype(np.float64) / 2 + 2.0
    for values in (wide[np.abs(wide) <= 6.0], np.array([halfway, 1e-45, 1e-40, 6.0])):
        assert np.max(np.abs(values.astype(np.float32).astype(np.float64) - values)) <= float(shift.distance)
    assert float(shift.distance) < 4e-7
    assert shift.probability == pytest.approx(3 * 2 * norm.sf(6.0))
    assert float32_uniform(1.0).probability == 0.0 and float(float32_uniform(1.0).distance) < 6.1e-8
