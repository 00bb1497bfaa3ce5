"""Two classifiers on the same latents: exact tests against scipy, brackets against the claim, all of the frontier."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from formalgr.core.errors import UsageError
from formalgr.global_robustness.band import CountBounds, pointwise, simultaneous
from formalgr.global_robustness.binomial import lower_bound, upper_bound
from formalgr.global_robustness.compare import (
    Answers,
    Discordant,
    FrontierDifference,
    difference,
    discordant,
    fails_less,
)
from formalgr.global_robustness.frontier import Brackets, Frontier


def answers(row: str) -> Answers:
    """r robust, v violated, u unknown."""
    return Answers(np.array([x != "r" for x in row], dtype=bool), np.array([x == "v" for x in row], dtype=bool))


def test_pairs_are_counted_by_what_may_be():
    """Every pair of answers once."""
    first, second = map("".join, zip(*itertools.product("rvu", repeat=2), strict=True))
    found = discordant(answers(first), answers(second))
    # v against r for sure; v or u against r or u perhaps
    assert found == Discordant(9, 1, 4, 1, 4)
    assert discordant(answers("vvr"), answers("rvv")) == Discordant(3, 1, 1, 1, 1)


@pytest.mark.parametrize("wins, losses", [(0, 0), (5, 0), (10, 2), (300, 250), (2, 10)])
def test_the_test_is_the_exact_one_of_mcnemar(wins, losses):
    expected = 1.0 if wins + losses == 0 else binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
    assert fails_less(Discordant(1000, losses, losses, wins, wins)) == pytest.approx(min(1.0, expected), rel=1e-8)


def test_unknowns_count_against_the_claim_whichever_it_is():
    """All ways to resolve the unknowns of both: no p-value is larger, no difference outside the interval."""
    rows = ("rrrrrrvuuv", "vvvvvvrvur")
    worst = discordant(*map(answers, rows))
    p, interval = fails_less(worst), difference(worst, 0.1)
    places = [(k, j) for k, row in enumerate(rows) for j, x in enumerate(row) if x == "u"]
    for truth in itertools.product("rv", repeat=len(places)):
        resolved = [list(row) for row in rows]
        for (k, j), answer in zip(places, truth, strict=True):
            resolved[k][j] = answer
        pairs = discordant(*(answers("".join(row)) for row in resolved))
        assert fails_less(pairs) <= p
        inner = difference(pairs, 0.1)
        assert interval.lower <= inner.lower <= inner.upper <= interval.upper


def test_pairing_narrows_the_difference():
    """Both fail on the same 20 % of 1000 latents and on 10 more: two separate intervals do not tell them apart."""
    pairs = Discordant(1000, 10, 10, 40, 40)
    paired = difference(pairs, 0.01)
    apart = upper_bound(210, 1000, 0.0025) - lower_bound(240, 1000, 0.0025)
    assert paired.upper < 0.0 < apart
    assert paired.upper == upper_bound(10, 1000, 0.0025) - lower_bound(40, 1000, 0.0025)
    assert paired.lower == lower_bound(10, 1000, 0.0025) - upper_bound(40, 1000, 0.0025)
    assert fails_less(pairs) < 1e-4


def test_other_latents_are_refused():
    with pytest.raises(UsageError, match="same latents"):
        discordant(answers("rr"), answers("r"))
    for proven, violated in [([False], [True]), ([True], [True, False])]:
        with pytest.raises(ValueError):
            Answers(np.array(proven), np.array(violated))


# ---- all of the frontier


def frontier_of(radii: np.ndarray, bounds: CountBounds) -> Frontier:
    """Brackets of a tenth of the radius."""
    return Frontier(Brackets.of([(Fraction(r) * Fraction(9, 10), Fraction(r)) for r in radii.tolist()], 1), bounds)


def test_the_difference_of_frontiers_covers_the_truth_at_every_radius():
    """R_1 uniform, R_2 = R_1^2, shared latents: F_1 - F_2 = eps - sqrt(eps). 15 runs at alpha = .2 (in truth less)."""
    random, band, missed = np.random.default_rng(0), simultaneous(60, 0.05), 0
    for _ in range(15):
        radii = random.random(60)
        both = FrontierDifference(frontier_of(radii, band), frontier_of(radii**2, band))
        assert both.alpha == pytest.approx(0.2)
        rows = [(float(eps), bounds) for start, end, bounds in both.steps() for eps in (start, end)]
        missed += not all(bounds.lower <= eps - eps**0.5 <= bounds.upper for eps, bounds in rows)
    assert missed <= 3


def test_steps_hold_what_single_radii_say():
    random = np.random.default_rng(1)
    first, second = (frontier_of(random.random(n), simultaneous(n, 0.05)) for n in (40, 30))
    both = FrontierDifference(first, second)
    for start, end, bounds in both.steps():
        for eps in (start, (start + end) / 2, end):
            inner = both.at(eps)
            assert bounds.lower <= inner.lower <= inner.upper <= bounds.upper
        middle = both.at((start + end) / 2)
        assert (bounds.lower, bounds.upper) == (middle.lower, middle.upper)


def test_a_clearly_better_classifier_is_told():
    """300 latents each: below 0 at the radii where only the second one fails."""
    radii, band = np.random.default_rng(2).random(300), simultaneous(300, 2.5e-4)
    both = FrontierDifference(frontier_of(0.5 + radii / 2, band), frontier_of(radii, band))
    assert both.at("0.4").upper < 0.0 and both.at("1").lower <= 0.0 <= both.at("1").upper
    (((start, end),), none) = both.dominance()
    assert none == () and FrontierDifference(both.second, both.first).dominance() == ((), ((start, end),))
    assert start < 0.2 and 0.5 < end < 0.95
    for share in (0, Fraction(1, 7), Fraction(1, 2), 1):
        assert both.at(start + share * (end - start)).upper < 0.0
    beside = [one for one in both.steps() if one[1] == start or one[0] == end]
    assert len(beside) == 2 and all(one.upper >= 0.0 for _, _, one in beside)


def test_differences_need_bands_up_to_the_same_radius():
    band, brackets = simultaneous(1, 0.05), Brackets.of([(0, 1)], 1)
    with pytest.raises(UsageError, match="all radii"):
        FrontierDifference(Frontier(brackets, band), Frontier(brackets, pointwise(1, 0.05)))
    with pytest.raises(UsageError, match="same radius"):
        FrontierDifference(Frontier(brackets, band), Frontier(Brackets.of([(0, 1)], 2), band))
