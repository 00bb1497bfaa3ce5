"""Two classifiers on the same latents: which one fails less often, at one eps or on the whole frontier.

In: which samples each one is proven, violated on; Frontiers. Out: p-values, Interval. Trust: sound at the stated
confidence: an unknown answer counts against the claim, whichever it is (docs/statistics.md section 6).
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.rounding import PROBABILITY_RELATIVE
from formalgr.global_robustness.band import Rule
from formalgr.global_robustness.binomial import check_alpha, lower_bound, upper_bound
from formalgr.global_robustness.frontier import Frontier, Interval, Number


@dataclass(frozen=True, eq=False)
class Answers:
    """What is known of one classifier at one eps: `not_proven` and `violated` (n,) bool, in order of the latents.

    Raises ValueError when something is both violated and proven.
    """

    not_proven: np.ndarray
    violated: np.ndarray

    def __post_init__(self):
        if self.not_proven.shape != self.violated.shape or self.not_proven.ndim != 1:
            raise ValueError("not_proven and violated must be (n,) each")
        if np.any(self.violated & ~self.not_proven):
            raise ValueError("what is violated is not proven")


@dataclass(frozen=True)
class Discordant:
    """Samples on which the classifiers differ: `only_first` fails for the first alone, `only_second` for the second.

    `at_least` are those that surely differ so, `at_most` those that may.
    """

    samples: int
    only_first_at_least: int
    only_first_at_most: int
    only_second_at_least: int
    only_second_at_most: int


def discordant(first: Answers, second: Answers) -> Discordant:
    """The numbers of samples that only one of the two classifiers fails. Raises UsageError when latents differ."""
    if first.violated.size != second.violated.size:
        raise UsageError("a paired comparison needs both classifiers on the same latents")
    return Discordant(
        first.violated.size,
        int(np.sum(first.violated & ~second.not_proven)),
        int(np.sum(first.not_proven & ~second.violated)),
        int(np.sum(second.violated & ~first.not_proven)),
        int(np.sum(second.not_proven & ~first.violated)),
    )


def fails_less(pairs: Discordant) -> float:
    """p-value of "the first fails at least as often as the second": exact McNemar test, unknowns against the first.

    Of the samples that only one of the two fails, under the hypothesis at most half are the second's (McNemar 1947,
    exact). Answers move p in one direction, so the ones that are worst for the claim give a valid p. eps and n are
    fixed in advance. Who asks which one of the two fails less often asks twice, at alpha / 2 each: with equal
    probabilities both answers are wrong.
    """
    from scipy.stats import binom

    wins, losses = pairs.only_second_at_least, pairs.only_first_at_most
    return min(1.0, float(binom.sf(wins - 1, wins + losses, 0.5)) * (1.0 + PROBABILITY_RELATIVE))


def difference(pairs: Discordant, alpha: float) -> Interval:
    """F_first - F_second lies inside at confidence 1 - alpha, at one eps fixed in advance.

    The difference is P(only the first fails) - P(only the second fails); Clopper-Pearson at alpha / 4 for each side of
    each. Where the classifiers mostly fail on the same latents this is much narrower than two separate intervals.
    """
    check_alpha(alpha)
    n, level = pairs.samples, alpha / 4.0
    return Interval(
        lower_bound(pairs.only_first_at_least, n, level) - upper_bound(pairs.only_second_at_most, n, level),
        upper_bound(pairs.only_first_at_most, n, level) - lower_bound(pairs.only_second_at_least, n, level),
    )


@dataclass(frozen=True, eq=False)
class FrontierDifference:
    """Bounds of F_first(eps) - F_second(eps) for all eps at once; the samples may be shared or not.

    Four one-sided bands hold together (union bound): with alpha / 4 in each of them all differences, both bounds, hold
    at confidence 1 - alpha. Raises UsageError unless both frontiers are bands up to the same radius.
    """

    first: Frontier
    second: Frontier

    def __post_init__(self):
        if {self.first.bounds.rule, self.second.bounds.rule} != {Rule.BAND}:
            raise UsageError("a difference at all radii needs bounds that hold for all radii at once")
        if self.first.brackets.cap != self.second.brackets.cap:
            raise UsageError("frontiers are compared up to the same radius")

    @property
    def alpha(self) -> float:
        """All that this object states is right at confidence 1 - alpha."""
        return 2.0 * (self.first.bounds.alpha + self.second.bounds.alpha)

    def at(self, epsilon: Number | str) -> Interval:
        """Bounds of the difference at eps."""
        first, second = self.first, self.second
        return Interval(
            first.lower(epsilon) - second.upper(epsilon), first.upper(epsilon) - second.lower(epsilon)
        )

    def steps(self) -> tuple[tuple[Number, Number, Interval], ...]:
        """(start, end, bounds of the difference on the closed interval [start, end]), from 0 to the cap."""
        first, second = self.first, self.second
        ends = sorted({*first.brackets.breakpoints(), *second.brackets.breakpoints()})
        rows = []
        for start, end in zip(ends, ends[1:], strict=False):
            (low_a, high_a), (low_b, high_b) = first.between(start, end), second.between(start, end)
            rows.append((start, end, Interval(low_a - high_b, high_a - low_b)))
        return tuple(rows)

    def dominance(self) -> tuple[tuple[tuple[Number, Number], ...], tuple[tuple[Number, Number], ...]]:
        """Closed intervals of eps with F_first < F_second, and those with F_first > F_second, at that confidence."""
        found: tuple[list, list] = ([], [])
        for start, end, bounds in self.steps():
            for intervals, told in zip(found, (bounds.upper < 0.0, bounds.lower > 0.0), strict=True):
                if told and intervals and intervals[-1][1] == start:
                    intervals[-1] = (intervals[-1][0], end)
                elif told:
                    intervals.append((start, end))
        return tuple(found[0]), tuple(found[1])
