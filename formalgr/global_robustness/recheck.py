"""What statistics states, proven in ball arithmetic: tail inequalities, the level of a band, sequential stops.

In: counts, bounds, levels as stored in a certificate. Out: True where the inequality is proven. Trust: sound (exact
rationals and balls; nothing of the float code that made the numbers is used).

Every function returns False both for what is wrong and for what balls of this precision cannot prove.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from formalgr.core.exact import Balls, balls
from formalgr.global_robustness.band import CountBounds
from formalgr.global_robustness.sequential import NEVER

BITS = 128
"""Precision of the balls: sums of 10^5 positive terms keep more than 30 digits."""

BAND_BITS = 96
"""The same for bands, whose many steps want speed: 20 digits are left after 10^4 of them."""

FORGOTTEN = 1e-26
"""Increments this unlikely are left out of a band's recursion."""

Rational = int | float | Fraction


def _exact(value: Rational) -> Fraction:
    """The rational that a stored number stands for: a float is the decimal that was typed."""
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


# ---- one binomial tail


def upper_bound_holds(failures: int, samples: int, bound: Rational, alpha: Rational) -> bool:
    """P(Binomial(samples, bound) <= failures) <= alpha: F <= bound is a valid Clopper-Pearson statement."""
    if not 0 <= failures <= samples:
        return False
    return bound >= 1 or (bound > 0 and _tail_at_most(failures, samples, Fraction(bound), _exact(alpha)))


def lower_bound_holds(failures: int, samples: int, bound: Rational, alpha: Rational) -> bool:
    """P(Binomial(samples, bound) >= failures) <= alpha: F >= bound is a valid Clopper-Pearson statement."""
    if not 0 <= failures <= samples:
        return False
    # failures and successes change places
    return bound <= 0 or (bound < 1 and _tail_at_most(samples - failures, samples, 1 - Fraction(bound), _exact(alpha)))


def _tail_at_most(most: int, samples: int, p: Fraction, alpha: Fraction) -> bool:
    """Whether P(Binomial(samples, p) <= most) <= alpha is proven, 0 < p < 1."""
    if most == samples:
        return alpha >= 1
    with balls(BITS + 2 * samples.bit_length()) as make:
        odds = make.number((1 - p) / p)
        term = make.number(math.comb(samples, most)) * make.number(p) ** most * make.number(1 - p) ** (samples - most)
        total = term
        for k in range(most, 0, -1):
            term = term * k / (samples - k + 1) * odds
            total = total + term
            if k < (samples + 1) * p and k * term < total / 2**BITS:
                # below the mean terms fall: those that are left are no larger
                total = total + k * term
                break
        return bool(total <= make.number(alpha))


# ---- bands


def band_holds(bounds: CountBounds, alpha: Rational) -> bool:
    """Each side of the band fails with probability <= alpha: for all eps at once F <= upper[N], F >= lower[N]."""
    n = bounds.samples
    if not bounds.upper.shape == bounds.lower.shape == (n + 1,) or bounds.upper[n] < 1 or bounds.lower[0] > 0:
        return False
    upper = [Fraction(x) for x in bounds.upper[:n].tolist()]
    lower = [1 - Fraction(x) for x in bounds.lower[:0:-1].tolist()]
    # but for rounding the two are one boundary, unless only some order statistics are bounded
    if boundary_holds([min(pair) for pair in zip(upper, lower, strict=True)], alpha):
        return True
    return boundary_holds(upper, alpha) and boundary_holds(lower, alpha)


def boundary_holds(boundary: Sequence[Rational], alpha: Rational) -> bool:
    """P(U_(k) > boundary[k-1] for some k) <= alpha for the order statistics of len(boundary) uniforms.

    The recursion of `band.crossing_probability` for the chance to stay, n! / n^n * sum of products of powers: the
    factors exp(-rate) cancel. States far above are left out, which makes the chance smaller.
    """
    n, cuts = len(boundary), [Fraction(x) for x in boundary]
    if any(not 0 <= x <= 1 for x in cuts) or any(high < low for low, high in zip(cuts, cuts[1:], strict=False)):
        return False
    with balls(BAND_BITS) as make:
        alive, first, at = make.polynomial([make.number(1)]), 0, Fraction(0)
        for k in range(1, n + 1):
            if k < n and cuts[k] == cuts[k - 1]:
                continue
            rate, at = n * (cuts[k - 1] - at), cuts[k - 1]
            expected = float(n * at)
            highest = min(n, math.ceil(expected + 11.0 * math.sqrt(expected)) + 40)
            alive = (alive * _exponential(make, rate)).right_shift(k - first)
            alive, first = alive.truncate(max(0, highest - k + 1)), k
        rest, terms = n * (1 - at), alive.coeffs()
        chance = make.number(0)
        for j, mass in enumerate(terms):
            missing = n - first - j
            chance = chance + mass * make.number(rest) ** missing / math.factorial(missing)
        return bool(chance * math.factorial(n) / make.number(n) ** n >= 1 - make.number(_exact(alpha)))


def _exponential(make: Balls, rate: Fraction):
    """sum of (rate x)^i / i! over all i that matter; what is left out only makes chances smaller."""
    terms, value, guess = [make.number(1)], make.number(rate), 1.0
    while guess > FORGOTTEN or len(terms) < 2.0 * rate:
        terms.append(terms[-1] * value / len(terms))
        guess = float(terms[-1])
    return make.polynomial(terms)


# ---- sequential stops


def spending_holds(certify_at: np.ndarray, delta: Rational, alpha: Rational) -> bool:
    """P(S_t <= certify_at[t] for some t) <= alpha when failures have probability delta (or more): the rule is valid."""
    rule, p = [int(k) for k in certify_at], _exact(delta)
    if rule[0] != NEVER or any(high < low for low, high in zip(rule, rule[1:], strict=False)) or not 0 <= p <= 1:
        return False
    with balls(BITS) as make:
        step = make.polynomial([make.number(1 - p), make.number(p)])
        alive, stopped, first, at = make.polynomial([make.number(1)]), make.number(0), 0, 0
        for t in range(1, len(rule)):
            if rule[t] < first:
                continue  # who was above the last boundary is still above
            alive, at = (alive * step ** (t - at)).truncate(rule[-1] + 1 - first), t
            cut = rule[t] + 1 - first
            stopped = sum(alive.coeffs()[:cut], stopped)
            alive, first = alive.right_shift(cut), first + cut
        return bool(stopped <= make.number(_exact(alpha)))


def mixture_stop_holds(failures: int, samples: int, delta: Rational, alpha: Rational, below: bool) -> bool:
    """E_t >= 1 / alpha for the mixture over p < delta (below: certify) or p > delta (refute): `log_mixture`, proven."""
    p = _exact(delta)
    if not (0 <= failures <= samples and 0 < p < 1):
        return False
    with balls(2 * BITS + samples.bit_length()) as make:
        half, threshold = Fraction(1, 2), make.number(p)
        a, b = make.number(failures + half), make.number(samples - failures + half)
        mass, prior = threshold.beta_lower(a, b, 1), threshold.beta_lower(make.number(half), make.number(half), 1)
        if not below:
            mass, prior = 1 - mass, 1 - prior
        likelihood = threshold**failures * make.number(1 - p) ** (samples - failures)
        return bool(mass * _beta(make, a, b) * make.number(_exact(alpha)) >= prior * likelihood)


def anytime_excludes(failures: int, samples: int, p: Rational, alpha: Rational) -> bool:
    """E_t(p) >= 1 / alpha for the mixture over all of [0, 1]: p lies outside `anytime_interval`."""
    p = Fraction(p)
    if not (0 <= failures <= samples and 0 <= p <= 1):
        return False
    with balls(BITS + samples.bit_length()) as make:
        half = Fraction(1, 2)
        mass = _beta(make, make.number(failures + half), make.number(samples - failures + half))
        likelihood = make.number(p) ** failures * make.number(1 - p) ** (samples - failures)
        return bool(mass * make.number(_exact(alpha)) >= likelihood)


def anytime_bound_holds(failures: np.ndarray, bound: Rational, alpha: Rational) -> bool:
    """F <= bound, of the anytime kind: some prefix of samples, with failures[t - 1] among the first t, excludes `bound`
    and all above it. Floats choose the prefix; what it excludes is proven.
    """
    from scipy.special import betaln, xlog1py, xlogy

    counts, p = np.asarray(failures, dtype=np.int64), float(bound)
    times = np.arange(1, counts.size + 1)
    if not counts.size or not 0.0 < p < 1.0:
        return False
    evidence = betaln(counts + 0.5, times - counts + 0.5) - xlogy(counts, p) - xlog1py(times - counts, -p)
    best = int(np.argmax(np.where(counts < p * times, evidence, -np.inf)))
    below = counts[best] <= Fraction(bound) * (best + 1)  # the likelihood at p falls from there on
    return bool(below) and anytime_excludes(int(counts[best]), best + 1, bound, alpha)


def _beta(make: Balls, a, b):
    """B(a, b) / B(1/2, 1/2)."""
    return a.gamma() * b.gamma() / (a + b).gamma() / make.pi()
