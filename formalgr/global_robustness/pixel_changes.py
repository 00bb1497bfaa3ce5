"""Global L0 robustness: the mean of d_m and the share of images that k changed pixels can flip, with confidence bounds.

In: L0Brackets of images drawn independently from one source. Out: L0Summary. Trust: sound at the stated confidence
(docs/statistics.md sections 2 and 3): what is not known counts against every claim.

With F(k) = P(d_m < k), E min(d_m, K) = sum over k = 1 .. K of 1 - F(k) (Anderson 1969), so bounds that hold for all k
at once bound the mean. K is fixed in advance; without it the few images that no sample speaks of would weigh without
limit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from formalgr.core.errors import UsageError
from formalgr.core.rounding import PROBABILITY_RELATIVE
from formalgr.global_robustness.band import simultaneous
from formalgr.global_robustness.frontier import Brackets, Frontier, Interval
from formalgr.verify.l0 import L0Bracket


@dataclass(frozen=True)
class L0Summary:
    """What brackets of `images` images say, `right` of which are classified right.

    mean: lower <= mean of min(d_m, cap) over the images that are right <= upper, no statistics (None: none is right);
    expected: bounds of its expectation over the source given that an image is right; flipped: (k, lower, upper) for
    k = 0 .. cap, bounds of the probability that an image is wrong or at most k changed pixels make it so. `expected`
    holds at confidence 1 - alpha, and so does all of `flipped` together.
    """

    images: int
    right: int
    exact: int
    cap: int
    alpha: float
    mean: Interval | None
    expected: Interval | None
    flipped: tuple[tuple[int, float, float], ...]


def summary(brackets: Sequence[L0Bracket], cap: int, alpha: float) -> L0Summary:
    """The numbers of one network. Raises UsageError without images or for a cap below 1."""
    if not brackets or cap < 1:
        raise UsageError(f"a summary needs images and a cap >= 1, got {len(brackets)} images and {cap}")
    right = [bracket for bracket in brackets if not bracket.misclassified]
    mean = expected = None
    if right:
        ends = [(min(max(b.lower, 0), cap), min(b.upper, cap)) for b in right]
        sums = [sum(end) for end in zip(*ends, strict=True)]
        # quotients of whole numbers: off by half an ulp
        mean = Interval(*(total / len(right) for total in sums))
        expected = _expected(_frontier(right, cap, alpha), cap)
    curve = _frontier(brackets, cap, alpha)
    flipped = tuple((k, curve.lower(k), curve.upper(k)) for k in range(cap + 1))
    exact = sum(bracket.exact for bracket in brackets)
    return L0Summary(len(brackets), len(right), exact, cap, alpha, mean, expected, flipped)


def _frontier(brackets: Sequence[L0Bracket], cap: int, alpha: float) -> Frontier:
    """Bounds of P(R <= k), R = d_m + 1 being the fewest changes that flip an image: 0 for one that is wrong."""
    pairs = [
        (-1, 0) if one.misclassified else (one.lower, None if one.witness is None else one.upper + 1)
        for one in brackets
    ]
    return Frontier(Brackets.of(pairs, cap), simultaneous(len(brackets), alpha / 2.0))


def _expected(frontier: Frontier, cap: int) -> Interval:
    """Bounds of E min(d_m, cap), rounded outward."""
    ends = [
        math.fsum(1.0 - bound(k) for k in range(1, cap + 1)) for bound in (frontier.upper, frontier.lower)
    ]
    return Interval(max(0.0, ends[0] * (1.0 - PROBABILITY_RELATIVE)), min(cap, ends[1] * (1.0 + PROBABILITY_RELATIVE)))
