"""From brackets of robust radii to the frontier: bounds of F(eps) for all eps of [0, cap], quantiles, the mean radius.

In: brackets L_i < R_i <= U_i, CountBounds. Out: Frontier, Interval. Trust: sound at the confidence of the CountBounds
(docs/statistics.md sections 2 and 3): what is not known counts against every claim.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from formalgr.core.errors import Refused, UsageError
from formalgr.core.rounding import PROBABILITY_RELATIVE, nearest_down, nearest_up
from formalgr.global_robustness.band import CountBounds, Rule
from formalgr.global_robustness.binomial import lower_bound, upper_bound
from formalgr.spec.robustness import radius_of

Number = int | float | Fraction


@dataclass(frozen=True)
class Counts:
    """What the local checks of one class said; robust + violated + unknown = samples, misclassified are violated.

    Raises ValueError when the parts do not add up.
    """

    samples: int
    robust: int
    violated: int
    unknown: int
    misclassified: int

    def __post_init__(self):
        parts = (self.robust, self.violated, self.unknown)
        if min(parts) < 0 or sum(parts) != self.samples or not 0 <= self.misclassified <= self.violated:
            raise ValueError(f"counts do not add up: {self}")

    @property
    def not_proven(self) -> int:
        """N_L: samples that are not proven robust, unknowns included."""
        return self.violated + self.unknown

    def delta_upper(self, alpha: float) -> float:
        """Upper confidence bound of the failure probability: unknowns count as failures."""
        return upper_bound(self.not_proven, self.samples, alpha)

    def delta_lower(self, alpha: float) -> float:
        """Lower confidence bound of the failure probability: unknowns count as robust."""
        return lower_bound(self.violated, self.samples, alpha)


@dataclass(frozen=True)
class Brackets:
    """L_i < R_i <= U_i of all samples that were started, in any order, and the cap up to which radii were tried.

    `lower`: the largest radius whose closed ball is proven, -1 where the center is not; `upper`: the smallest distance
    of a replayed counterexample, infinity where there is none. Numbers are compared exactly, as the rationals they are.
    Raises Refused when a proof and a counterexample contradict each other.
    """

    lower: tuple[Number, ...]
    upper: tuple[Number, ...]
    cap: Number

    def __post_init__(self):
        if not (self.cap >= 0 and math.isfinite(self.cap)):
            raise UsageError(f"the largest radius must be finite and >= 0, got {self.cap}")
        for low, high in zip(self.lower, self.upper, strict=True):
            if not ((low == -1 or 0 <= low < math.inf) and high >= 0):
                raise ValueError(f"L must be -1 or a radius and U a radius or infinity, got {low} and {high}")
            if low >= high:
                raise Refused(f"radius {low} was proven and a counterexample lies at distance {high}: a bug")

    @classmethod
    def of(cls, pairs: Iterable[tuple[Number, Number | None]], cap: Number) -> "Brackets":
        """From (L_i, U_i), where U_i is None without a counterexample."""
        both = tuple(pairs)
        return cls(tuple(low for low, _ in both), tuple(math.inf if up is None else up for _, up in both), cap)

    @property
    def samples(self) -> int:
        """Their number, n."""
        return len(self.lower)

    @cached_property
    def _sorted(self) -> tuple[list[Number], list[Number]]:
        return sorted(self.lower), sorted(self.upper)

    def not_proven(self, epsilon: Number) -> int:
        """N_L(eps): samples whose closed ball of radius eps is not proven, i.e. L_i < eps."""
        return bisect_left(self._sorted[0], epsilon)

    def violated(self, epsilon: Number) -> int:
        """N_U(eps): samples with a counterexample at distance <= eps."""
        return bisect_right(self._sorted[1], epsilon)

    def proven_at(self, rank: int) -> Number:
        """The rank-th smallest L_i, rank = 1 .. n, between 0 and the cap."""
        return min(max(self._sorted[0][rank - 1], 0), self.cap)

    def violated_at(self, rank: int) -> Number:
        """The rank-th smallest U_i, rank = 1 .. n; infinity where there is none."""
        return self._sorted[1][rank - 1]

    def breakpoints(self) -> tuple[Number, ...]:
        """0, the cap, and all L_i and U_i between them, ascending: where counts change."""
        inside = {x for values in self._sorted for x in values if 0 <= x <= self.cap}
        return tuple(sorted({0, self.cap} | inside))


@dataclass(frozen=True)
class Interval:
    """lower <= the quantity <= upper; upper is None where nothing bounds it from above."""

    lower: float
    upper: float | None


@dataclass(frozen=True, eq=False)
class Frontier:
    """Bounds of F(eps) = P(R <= eps) for eps in [0, cap], from brackets and what counts say about F.

    With CountBounds of Rule.BAND everything that a Frontier states holds at once; with Rule.POINTWISE one number of it,
    chosen in advance. `upper` and `lower` each at confidence 1 - alpha of the CountBounds.
    """

    brackets: Brackets
    bounds: CountBounds

    def __post_init__(self):
        if self.brackets.samples != self.bounds.samples:
            raise ValueError(f"{self.brackets.samples} brackets, but bounds for {self.bounds.samples} samples")

    def upper(self, epsilon: Number | str) -> float:
        """F(eps) <= this: left-continuous, constant between a breakpoint (excluded) and the next (included)."""
        return self._upper(self._checked(epsilon))

    def lower(self, epsilon: Number | str) -> float:
        """F(eps) >= this: right-continuous, constant between a breakpoint (included) and the next (excluded)."""
        return self._lower(self._checked(epsilon))

    def _checked(self, epsilon: Number | str) -> Fraction:
        radius = radius_of(epsilon)
        if radius > self.brackets.cap:
            raise UsageError(f"the frontier is known up to eps = {self.brackets.cap}, got {epsilon}")
        return radius

    def _upper(self, epsilon: Number) -> float:
        return float(self.bounds.upper[self.brackets.not_proven(epsilon)])

    def _lower(self, epsilon: Number) -> float:
        return float(self.bounds.lower[self.brackets.violated(epsilon)])

    def between(self, start: Number, end: Number) -> tuple[float, float]:
        """Bounds of F on the closed interval [start, end] within [0, cap]."""
        return self._lower(start), self._upper(end)

    def steps(self) -> tuple[tuple[Number, float, float], ...]:
        """(eps, lower, upper) at every breakpoint; draw lower as steps after, upper as steps before each of them."""
        return tuple((eps, self._lower(eps), self._upper(eps)) for eps in self.brackets.breakpoints())

    def quantile(self, level: float) -> Interval:
        """Bounds of R_q = inf {r : F(r) >= q}, 0 < q < 1: with probability 1 - q a latent is robust below R_q.

        F(eps) < q for all eps up to the lower end, F >= q at the upper one. A lower end of cap means that or more.
        """
        if not 0.0 < level < 1.0:
            raise UsageError(f"the level of a quantile must be in (0, 1), got {level}")
        least = int(np.searchsorted(self.bounds.upper, level))
        enough = int(np.searchsorted(self.bounds.lower, level))
        lower = self.brackets.proven_at(least) if least else 0
        upper = self.brackets.violated_at(enough) if enough <= self.brackets.samples else math.inf
        return Interval(nearest_down(lower), None if upper == math.inf else nearest_up(upper))

    def mean(self) -> Interval:
        """Bounds of E min(R, cap), the integral of 1 - F over [0, cap] (Anderson 1969); needs Rule.BAND."""
        if self.bounds.rule is not Rule.BAND:
            raise UsageError("bounds of the mean radius need bounds that hold for all radii at once")
        ranks, cap = range(1, self.brackets.samples + 1), self.brackets.cap
        proven = [nearest_down(x) for x in (0, *map(self.brackets.proven_at, ranks), cap)]
        failed = [nearest_up(min(x, cap)) for x in (0, *map(self.brackets.violated_at, ranks), cap)]
        return Interval(
            _integral(1.0 - self.bounds.upper, proven) * (1.0 - PROBABILITY_RELATIVE),
            min(nearest_up(cap), _integral(1.0 - self.bounds.lower, failed) * (1.0 + PROBABILITY_RELATIVE)),
        )


def _integral(values: np.ndarray, ends: Sequence[float]) -> float:
    """Sum of values[k] * (ends[k + 1] - ends[k]): it rises with every end where the values fall."""
    return math.fsum((values * np.diff(np.array(ends, dtype=np.float64))).tolist())
