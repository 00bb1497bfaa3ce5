"""Bounds of a whole distribution function at once, from the numbers of failures at every radius.

In: number of samples, alpha. Out: CountBounds: a bound for every number of failures. Trust: sound at the stated
confidence: crossing probabilities are rounded up, `recheck` repeats them in ball arithmetic.

The equal-local-level band (Berk & Jones 1979; Owen 1995; Aldor-Noiman et al. 2013), "simultaneous Clopper-Pearson":
with order statistics U_(1) <= .. <= U_(n) of uniforms and b_k = BetaInv(1 - alpha'; k, n - k + 1), alpha' is chosen so
that P(U_(k) <= b_k for all k) >= 1 - alpha. When k samples have R <= eps, then F(eps) <= b_{k+1}, for all eps at once.
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.rounding import UNIT_ROUNDOFF
from formalgr.global_robustness.binomial import (
    check_alpha,
    lower_bounds,
    upper_bounds,
    upper_quantiles,
)


class Rule(enum.Enum):
    """For which radii the bounds hold together: for one, for m fixed in advance, for all."""

    POINTWISE = "pointwise"
    PREFIXED = "prefixed"
    BAND = "band"


@dataclass(frozen=True, eq=False)
class CountBounds:
    """F(eps) <= upper[N_L(eps)] and F(eps) >= lower[N_U(eps)], each side at confidence 1 - alpha.

    Both sides together hold at confidence 1 - 2 alpha: give alpha / 2 to have both at 1 - alpha. `rule` says for which
    radii at once. upper and lower are (samples + 1,), rising. Each entry is a Clopper-Pearson bound at `local_alpha`.
    """

    rule: Rule
    samples: int
    alpha: float
    local_alpha: float
    upper: np.ndarray
    lower: np.ndarray


def pointwise(samples: int, alpha: float) -> CountBounds:
    """Bounds at one radius that was fixed in advance (Clopper & Pearson 1934)."""
    return _tabulate(Rule.POINTWISE, samples, alpha, alpha)


def prefixed(samples: int, alpha: float, radii: int) -> CountBounds:
    """Bounds at `radii` radii that were fixed in advance, all together: Clopper-Pearson at alpha / radii."""
    if radii < 1:
        raise UsageError(f"the number of radii must be >= 1, got {radii}")
    check_alpha(alpha)
    return _tabulate(Rule.PREFIXED, samples, alpha, alpha / radii)


def simultaneous(samples: int, alpha: float, most: int | None = None) -> CountBounds:
    """Bounds at all radii together. With `most`, fixed in advance: for at most that many failures.

    With more of them the upper bound is 1 and the lower one stays that of `most`; in return all others are tighter.
    """
    if most is not None and most < 0:
        raise UsageError(f"the largest number of failures must be >= 0, got {most}")
    ranks = samples if most is None else min(most + 1, samples)
    bounds = _tabulate(Rule.BAND, samples, alpha, local_alpha(samples, alpha, ranks))
    upper, lower = bounds.upper.copy(), bounds.lower.copy()
    upper[ranks:], lower[ranks:] = 1.0, lower[ranks]
    return replace(bounds, upper=upper, lower=lower)


def tightest(samples: int, alpha: float, radii: int) -> CountBounds:
    """The tighter one of `prefixed` and `simultaneous` at `radii` radii fixed in advance; neither looks at data."""
    local = local_alpha(samples, alpha)
    return prefixed(samples, alpha, radii) if radii * local < alpha else _tabulate(Rule.BAND, samples, alpha, local)


def _tabulate(rule: Rule, samples: int, alpha: float, local: float) -> CountBounds:
    return CountBounds(rule, samples, alpha, local, upper_bounds(samples, local), lower_bounds(samples, local))


# ---- the level


def local_alpha(samples: int, alpha: float, ranks: int | None = None) -> float:
    """The largest alpha' found whose band errs with probability <= alpha on each side: the safe end of the bracket.

    With `ranks` only that many of the smallest order statistics are bounded. alpha / ranks is safe by the union bound;
    crossing probabilities decide between it and alpha.
    """
    check_alpha(alpha)
    if samples < 0:
        raise UsageError(f"the number of samples must be >= 0, got {samples}")
    number = samples if ranks is None else min(ranks, samples)
    if number <= 1:
        return alpha

    def error(local: float) -> float:
        # U -> 1 - U turns one side into the other, but for the rounding of numbers near 1
        boundary = np.maximum(0.0, upper_quantiles(samples, local) - 4.0 * UNIT_ROUNDOFF["float64"])
        upper = np.append(boundary[:number], np.ones(samples - number))
        value, radius = crossing_probability(upper)
        if number == samples:
            return value + radius
        # U_(k) >= a_k for k <= number is 1 - U_(n+1-k) <= b_{n+1-k}, and only the last of those before it matters
        lower = np.maximum(boundary, boundary[samples - number])
        return max(value + radius, sum(crossing_probability(lower)))

    return _safe_end(error, alpha, alpha / number)


def _safe_end(error: Callable[[float], float], alpha: float, safe: float) -> float:
    """The largest x found with error(x) <= alpha, which holds at `safe`: secants in logarithms within a bracket."""
    unsafe, x, slope = alpha, alpha / (1.0 + math.log(alpha / safe) ** 2), 1.0
    before = None
    while unsafe > safe * (1.0 + 4.0 * AIM):
        if not safe < x < unsafe:
            x = math.sqrt(safe * unsafe)
        value = error(x)
        if value <= alpha:
            safe = x
            if value >= alpha * (1.0 - 4.0 * AIM):
                break
        else:
            unsafe = x
        if before is not None and value != before[1]:
            slope = math.log(x / before[0]) / math.log(value / before[1])
        before = (x, value)
        # aim a little beyond the root, so that both ends of the bracket move
        x *= (alpha / value) ** slope * (1.0 + AIM if value <= alpha else 1.0 - AIM)
    return float(safe)


AIM = 1e-9
"""Relative precision of alpha'; what is lost of alpha is less than 10^-8 of it."""


# ---- the crossing probability

TERMS = 30.0
"""Increments have at most this many expected points, so that exp(-rate) is far from underflow."""

FORGOTTEN = 1e-25
"""Probabilities below this are dropped, and counted as crossings."""


def crossing_probability(boundary: np.ndarray) -> tuple[float, float]:
    """(P(U_(k) > boundary[k-1] for some k), radius of its error), U_(1) <= .. <= U_(n) uniform order statistics.

    `boundary` (n,) rises within [0, 1]. A Poisson process of rate n must have >= k points in [0, b_k] for all k; given
    that n fall into [0, 1], they are uniform (Moscovich & Nadler 2017). The state is the number of points; states below
    k are cut at b_k, and what is cut is summed: only nonnegative terms, so small probabilities keep their digits.
    """
    n = len(boundary)
    last = np.append(np.diff(boundary) > 0.0, True)  # of equal values only the one of the largest k binds
    alive, first, at, roundings, dropped = np.ones(1, dtype=np.float64), 0, 0.0, 3000.0, 0.0
    cut_mass, cut_missing, cut_rate = [], [], []
    for k in (np.nonzero(last)[0] + 1).tolist():
        now = float(boundary[k - 1])
        rate, at = n * (now - at), now
        parts = max(1, math.ceil(rate / TERMS))
        weights = _poisson_weights(rate / parts)
        for _ in range(parts):
            alive = np.convolve(alive, weights)[: n + 1 - first]
            small = np.nonzero(alive >= FORGOTTEN)[0]
            kept = int(small[-1]) + 1 if small.size else 0
            dropped += float(np.sum(alive[kept:])) + FORGOTTEN
            alive = alive[:kept]
            roundings += 3.0 * len(weights) + 10.0
        cut = alive[: max(0, k - first)]
        if cut.size:
            cut_mass.append(cut)
            cut_missing.append(n - first - np.arange(cut.size, dtype=np.float64))
            cut_rate.append(np.full(cut.size, n * (1.0 - now), dtype=np.float64))
            alive, first = alive[cut.size :], k
        if not alive.size:
            break
    if not cut_mass:
        return 0.0, 0.0
    missing, rates = np.concatenate(cut_missing), np.concatenate(cut_rate)
    roundings += 4.0 * float(np.max(np.abs(missing - rates)))  # of the exponents in what follows
    total = poisson(np.array([float(n)]), np.array([float(n)]))[0]
    value = float(np.concatenate(cut_mass) @ poisson(missing, rates)) / total
    return value, value * roundings * UNIT_ROUNDOFF["float64"] + dropped / total


def _poisson_weights(rate: float) -> np.ndarray:
    """P(Poisson(rate) = 0), P(= 1), .. until what is left is below FORGOTTEN / 10; rate <= TERMS."""
    steps = rate / np.arange(1, math.ceil(rate + 12.0 * math.sqrt(rate)) + 31, dtype=np.float64)
    weights = np.append(1.0, np.cumprod(steps)) * math.exp(-rate)
    return weights[: int(np.nonzero(weights >= FORGOTTEN / 100.0)[0][-1]) + 1]


def poisson(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """P(Poisson(rate) = count), elementwise, without cancellation.

    Through the logarithm of the factorial four digits are lost at 10^4; the saddle point form of Loader (2000) with
    Stirling's series keeps them: exp(-stirling(m) - m (r - log(1 + r))) / sqrt(2 pi m), r = rate / m - 1.
    """
    small = counts < 16.0
    m = np.where(small, 16.0, counts)
    stirling = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / m**2) / m**2) / m**2) / m**2) / m
    excess = (rates - m) / m
    with np.errstate(divide="ignore"):
        logarithm = np.where(np.abs(excess) < 0.5, np.log1p(np.maximum(excess, -0.5)), np.log(rates / m))
        large = np.exp(-stirling - m * (excess - logarithm)) / np.sqrt(2.0 * math.pi * m)
    powers = np.where(small, counts, 0.0)
    factorials = np.array([math.factorial(k) for k in range(16)], dtype=np.float64)[powers.astype(np.int64)]
    return np.where(small, np.power(rates, powers) * np.exp(-rates) / factorials, large)
