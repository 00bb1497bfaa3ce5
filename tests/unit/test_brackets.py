"""From brackets to the frontier: counts against their definitions, edges, quantiles and means known exactly."""

import math
from fractions import Fraction

import numpy as np
import pytest

from formalgr.core.errors import Refused, UsageError
from formalgr.global_robustness.band import Rule, pointwise, prefixed, simultaneous, tightest
from formalgr.global_robustness.frontier import Brackets, Frontier, Interval

F = Fraction
SAMPLE = Brackets.of(
    # wrong center; proven nowhere; proven to 1/10; exactly known; proven to the cap; a wide bracket
    [(-1, 0), (-1, None), (F(1, 10), F(1, 5)), (F(1, 4), F(3, 10)), (F(1, 2), None), (F(1, 10), F(2, 5))],
    cap=F(1, 2),
)


@pytest.fixture(scope="module")
def band():
    """1000 samples at alpha = 1e-3."""
    return simultaneous(1000, 1e-3)


@pytest.mark.parametrize(
    "epsilon, not_proven, violated",
    [
        (F(0), 2, 1),
        (F(1, 10), 2, 1),  # L = 1/10 is proven at 1/10: the ball is closed
        (F(1, 10) + F(1, 10**20), 4, 1),
        (F(1, 5) - F(1, 10**20), 4, 1),
        (F(1, 5), 4, 2),  # U = 1/5 fails at 1/5
        (F(1, 4), 4, 2),
        (F(3, 10), 5, 3),
        (F(1, 2), 5, 4),
    ],
)
def test_counts_at_the_ends_of_brackets(epsilon, not_proven, violated):
    """L_i < eps is not proven, U_i <= eps is violated, compared as rationals."""
    assert (SAMPLE.not_proven(epsilon), SAMPLE.violated(epsilon)) == (not_proven, violated)


def test_decimals_are_what_was_typed():
    """0.1 is 1/10, proven at L = 1/10, though the float lies above it."""
    frontier = Frontier(SAMPLE, pointwise(6, 0.05))
    assert frontier.upper(0.1) == frontier.upper("0.1") == frontier.upper(F(1, 10)) < frontier.upper("0.1000001")
    assert F(0.1) > F(1, 10)


def test_order_of_samples_does_not_matter():
    pairs = list(zip(SAMPLE.lower, SAMPLE.upper, strict=True))[::-1]
    assert Brackets.of(pairs, SAMPLE.cap).breakpoints() == SAMPLE.breakpoints()


@pytest.mark.parametrize("bounds", [pointwise(6, 0.05), simultaneous(6, 0.05), simultaneous(6, 0.05, 2)])
def test_steps_say_the_same_as_the_frontier(bounds):
    """Between two breakpoints the upper bound is that of the next one, the lower bound that of the last one."""
    frontier = Frontier(SAMPLE, bounds)
    steps = frontier.steps()
    assert [eps for eps, _, _ in steps] == [0, F(1, 10), F(1, 5), F(1, 4), F(3, 10), F(2, 5), F(1, 2)]
    for (start, low, _), (end, _, high) in zip(steps, steps[1:], strict=False):
        for share in (F(1, 10**9), F(1, 2), 1 - F(1, 10**9)):
            eps = start + share * (end - start)
            assert (frontier.lower(eps), frontier.upper(eps)) == (low, high)
        assert frontier.between(start, end) == (low, high)
    for (_, low, high), (_, next_low, next_high) in zip(steps, steps[1:], strict=False):
        assert low <= next_low and high <= next_high
    for eps, low, high in steps:
        assert 0.0 <= low <= high <= 1.0
        assert low == bounds.lower[sum(up <= eps for up in SAMPLE.upper)]
        assert high == bounds.upper[sum(down < eps for down in SAMPLE.lower)]


def test_better_brackets_only_tighten():
    """Each bracket closed in turn: bounds at every radius, quantiles and the mean move inward."""
    random = np.random.default_rng(0)
    truth = sorted(F(int(x * 1000), 1000) for x in random.random(40))
    wide = [(-1 if k % 3 else r / 2, None if k % 4 else r * 2) for k, r in enumerate(truth)]
    bounds, grid = simultaneous(40, 0.05), [F(k, 20) for k in range(21)]
    last = None
    for known in range(0, 41, 5):
        pairs = [(r * F(999, 1000), r) if k < known else wide[k] for k, r in enumerate(truth)]
        frontier = Frontier(Brackets.of([(low if low > 0 else -1, up) for low, up in pairs], 1), bounds)
        found = [(frontier.lower(eps), frontier.upper(eps)) for eps in grid]
        found += [(x.lower, math.inf if x.upper is None else x.upper) for x in map(frontier.quantile, (0.1, 0.5, 0.9))]
        # R_q and the mean bracket a number each; F is bounded the other way round
        found.append((frontier.mean().lower, frontier.mean().upper))
        assert last is None or all(a <= c and d <= b for (a, b), (c, d) in zip(last, found, strict=True))
        last = found


def test_quantiles_are_order_statistics(band):
    """1000 known radii k / 1000: R_q lies between the ones whose counts the bounds allow, closed as defined."""
    brackets = Brackets.of([(F(k, 1000) - F(1, 10**6), F(k, 1000)) for k in range(1, 1001)], 1)
    for bounds in (pointwise(1000, 1e-3), band):
        frontier = Frontier(brackets, bounds)
        for q in (0.01, 0.05, 0.5, 0.95):
            found = frontier.quantile(q)
            assert found.lower < q < found.upper
            # just below the lower end F < q, at the upper end F >= q, and one sample further in neither
            assert found.lower == 0.0 or frontier.upper(F(found.lower)) < q
            assert frontier.lower(F(found.upper)) >= q
            assert frontier.upper(F(found.lower) + F(2, 1000)) >= q
            assert frontier.lower(F(found.upper) - F(2, 1000)) < q


def test_a_quantile_at_a_bound_of_the_band(band):
    """F <= q does not exclude F = q: where the upper bound is q itself, R_q may begin."""
    brackets = Brackets.of([(F(k, 1000) - F(1, 10**6), F(k, 1000)) for k in range(1, 1001)], 1)
    found = Frontier(brackets, band).quantile(float(band.upper[3]))
    assert found.lower == pytest.approx(0.003, abs=1e-5)
    found = Frontier(brackets, band).quantile(float(band.lower[500]))
    assert found.upper == 0.5


def test_radii_proven_beyond_the_cap_count_up_to_it():
    """A frontier up to less than what was tried: the same as with brackets cut there."""
    wide = Brackets.of([(F(3, 4), None), (F(1, 2), F(3, 4)), (F(1, 8), F(1, 4))] * 20, F(1, 2))
    cut = Brackets.of([(F(1, 2), None), (F(1, 2), None), (F(1, 8), F(1, 4))] * 20, F(1, 2))
    one, other = (Frontier(brackets, simultaneous(60, 0.05)) for brackets in (wide, cut))
    assert one.steps() == other.steps() and one.mean() == other.mean()
    assert one.quantile(0.6).lower == other.quantile(0.6).lower == 0.5


def test_the_mean_is_the_integral_of_one_minus_the_band():
    """Against a sum over a fine grid, left and right Riemann sums around it."""
    frontier = Frontier(SAMPLE, simultaneous(6, 0.2))
    grid = np.linspace(0.0, 0.5, 5001)
    upper = np.array([frontier.upper(F(float(x))) for x in grid])
    lower = np.array([frontier.lower(F(float(x))) for x in grid])
    mean = frontier.mean()
    assert (1 - upper[1:]).sum() * 1e-4 <= mean.lower + 1e-9 <= (1 - upper[:-1]).sum() * 1e-4 + 2e-9
    assert (1 - lower[1:]).sum() * 1e-4 - 2e-9 <= mean.upper - 1e-9 <= (1 - lower[:-1]).sum() * 1e-4


def test_without_samples_nothing_is_known():
    frontier = Frontier(Brackets.of([], 1), simultaneous(0, 0.05))
    assert (frontier.lower(0.5), frontier.upper(0.5)) == (0.0, 1.0)
    assert frontier.quantile(0.5) == Interval(0.0, None)
    assert frontier.mean() == Interval(0.0, 1.0)
    assert frontier.steps() == ((0, 0.0, 1.0), (1, 0.0, 1.0))


def test_all_unknown_is_no_knowledge():
    frontier = Frontier(Brackets.of([(-1, None)] * 50, 1), simultaneous(50, 0.05))
    assert (frontier.lower(1), frontier.upper(0)) == (0.0, 1.0)
    assert frontier.mean() == Interval(0.0, 1.0)


def test_all_robust_up_to_the_cap(band):
    """U is infinite, L the cap: F(cap) is bounded by what no failure in n says; quantiles reach the cap."""
    frontier = Frontier(Brackets.of([(F(1, 2), None)] * 1000, F(1, 2)), band)
    assert f"{frontier.upper(F(1, 2)):.5f}" == "0.01109"
    assert frontier.quantile(0.5) == Interval(0.5, None)
    assert frontier.mean().lower == pytest.approx(0.5 * (1 - 0.01109), abs=1e-5) and frontier.mean().upper == 0.5


def test_all_wrong_at_the_center(band):
    frontier = Frontier(Brackets.of([(-1, 0)] * 1000, 1), band)
    assert frontier.lower(0) > 0.98 and frontier.upper(0) == 1.0
    assert frontier.quantile(0.5) == Interval(0.0, 0.0)


@pytest.mark.parametrize("epsilon", [F(1, 2) + F(1, 10**9), 0.6, -0.1, math.nan, math.inf])
def test_the_frontier_ends_at_the_cap(epsilon):
    frontier = Frontier(SAMPLE, pointwise(6, 0.05))
    with pytest.raises(UsageError):
        frontier.upper(epsilon)
    with pytest.raises(UsageError):
        frontier.lower(epsilon)


def test_contradictions_and_nonsense_are_refused():
    with pytest.raises(Refused, match="a bug"):
        Brackets.of([(F(1, 5), F(1, 5))], 1)
    for pair in [(-0.5, 1), (math.nan, 1), (0, math.nan), (math.inf, None), (-1, -1)]:
        with pytest.raises((ValueError, Refused)):
            Brackets.of([pair], 1)
    for cap in (-1, math.inf, math.nan):
        with pytest.raises(UsageError, match="largest radius"):
            Brackets.of([], cap)
    with pytest.raises(ValueError, match="6 brackets"):
        Frontier(SAMPLE, pointwise(7, 0.05))
    frontier = Frontier(SAMPLE, pointwise(6, 0.05))
    for level in (0.0, 1.0, math.nan):
        with pytest.raises(UsageError, match="quantile"):
            frontier.quantile(level)
    with pytest.raises(UsageError, match="all radii"):
        frontier.mean()


# ---- which bounds


@pytest.mark.parametrize("samples, alpha", [(150, 1e-3), (50, 0.05), (3, 0.05)])
def test_few_radii_fixed_in_advance_are_cheaper_one_by_one(samples, alpha):
    """m radii: Clopper-Pearson at alpha / m is the tighter one iff m < alpha / alpha'."""
    together = simultaneous(samples, alpha)
    enough = math.ceil(alpha / together.local_alpha)
    for radii in (1, enough - 1, enough, enough + 1):
        chosen = tightest(samples, alpha, radii)
        assert chosen.rule is (Rule.PREFIXED if radii < enough else Rule.BAND)
        for other in (prefixed(samples, alpha, radii), together):
            assert np.all(chosen.upper <= other.upper) and np.all(chosen.lower >= other.lower)


def test_bounds_rise_and_ask_for_sense():
    for bounds in (pointwise(30, 0.05), prefixed(30, 0.05, 4), simultaneous(30, 0.05)):
        assert np.all(np.diff(bounds.upper) >= 0) and np.all(np.diff(bounds.lower) >= 0)
        assert bounds.upper[-1] == 1.0 and bounds.lower[0] == 0.0
        assert np.all(bounds.lower <= np.arange(31) / 30) and np.all(bounds.upper >= np.arange(31) / 30)
    assert np.array_equal(prefixed(30, 0.05, 1).upper, pointwise(30, 0.05).upper)
    for call in (
        lambda: prefixed(10, 0.05, 0),
        lambda: simultaneous(10, 0.0),
        lambda: simultaneous(10, 1.0),
        lambda: simultaneous(-1, 0.05),
        lambda: simultaneous(10, 0.05, -1),
        lambda: pointwise(10, math.nan),
    ):
        with pytest.raises(UsageError):
            call()
