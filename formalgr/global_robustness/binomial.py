"""Clopper-Pearson bounds of a probability from a number of failures, one at a time or for every number at once.

In: failures, samples, alpha. Out: bounds, p-values. Trust: sound at the stated confidence: quantiles are rounded
outward, and `recheck` proves the inequalities that they stand for.

Clopper & Pearson 1934: the upper bound is the p where P(Binomial(n, p) <= k) = alpha, a quantile of Beta(k+1, n-k).
"""


import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.rounding import BETA_QUANTILE_RELATIVE, PROBABILITY_RELATIVE, UNIT_ROUNDOFF

LARGEST_SAMPLE = 10**6
"""Samples per class of one run: a record each, also of those that time did not allow."""


def check_alpha(alpha: float) -> None:
    """Raises UsageError unless 0 < alpha < 1."""
    if not (isinstance(alpha, (int, float)) and 0.0 < alpha < 1.0):
        raise UsageError(f"alpha must be in (0, 1), got {alpha}")


def check_delta(delta: float) -> None:
    """Raises UsageError unless 0 <= delta <= 1."""
    if not (isinstance(delta, (int, float)) and 0.0 <= delta <= 1.0):
        raise UsageError(f"delta must be in [0, 1], got {delta}")


def check_samples(samples: int) -> None:
    """Raises UsageError for more samples per class than one run can hold the records of."""
    if samples > LARGEST_SAMPLE:
        raise UsageError(f"samples must be at most {LARGEST_SAMPLE} per class, got {samples}")


def _check_counts(failures: int, samples: int) -> None:
    if not 0 <= failures <= samples:
        raise ValueError(f"failures must be in [0, {samples}], the number of samples, got {failures}")


def _up(quantile: np.ndarray) -> np.ndarray:
    return np.minimum(1.0, quantile + _margin(quantile))


def _down(quantile: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, quantile - _margin(quantile))


def _margin(quantile: np.ndarray) -> np.ndarray:
    """What covers the error of a quantile; near 1 its distance to 1 counts, down to what float64 resolves."""
    return BETA_QUANTILE_RELATIVE * np.minimum(quantile, 1.0 - quantile) + 8.0 * UNIT_ROUNDOFF["float64"] * quantile


def upper_quantiles(samples: int, alpha: float) -> np.ndarray:
    """BetaInv(1 - alpha; k, samples - k + 1) for k = 1 .. samples, (samples,), to nearest."""
    check_alpha(alpha)
    from scipy.special import betainccinv

    k = np.arange(1, samples + 1, dtype=np.float64)
    return betainccinv(k, samples - k + 1.0, alpha)


def upper_bounds(samples: int, alpha: float) -> np.ndarray:
    """Entry k: P(failure) <= p at confidence 1 - alpha when k of `samples` failed.

    (samples + 1,), rising, ends in 1.
    """
    return np.append(_up(upper_quantiles(samples, alpha)), 1.0)


def lower_bounds(samples: int, alpha: float) -> np.ndarray:
    """Entry k: P(failure) >= p at confidence 1 - alpha when k of `samples` failed.

    (samples + 1,), rising, begins at 0.
    """
    check_alpha(alpha)
    from scipy.special import betaincinv

    k = np.arange(1, samples + 1, dtype=np.float64)
    return np.insert(_down(betaincinv(k, samples - k + 1.0, alpha)), 0, 0.0)


def upper_bound(failures: int, samples: int, alpha: float) -> float:
    """p with P(failure) <= p at confidence 1 - alpha (one-sided Clopper-Pearson); 1 when nothing was sampled."""
    check_alpha(alpha)
    _check_counts(failures, samples)
    if failures == samples:
        return 1.0
    from scipy.special import betainccinv

    return float(_up(betainccinv(failures + 1, samples - failures, alpha)))


def lower_bound(failures: int, samples: int, alpha: float) -> float:
    """p with P(failure) >= p at confidence 1 - alpha (one-sided Clopper-Pearson); 0 without a failure."""
    check_alpha(alpha)
    _check_counts(failures, samples)
    if failures == 0:
        return 0.0
    from scipy.special import betaincinv

    return float(_down(betaincinv(failures, samples - failures + 1, alpha)))


def certify_p_value(not_proven: int, samples: int, delta: float) -> float:
    """p-value of "F > delta" given N_L failures: P(Binomial(samples, delta) <= N_L), rounded up."""
    check_delta(delta)
    _check_counts(not_proven, samples)
    from scipy.stats import binom

    return min(1.0, float(binom.cdf(not_proven, samples, delta)) * (1.0 + PROBABILITY_RELATIVE))


def refute_p_value(violated: int, samples: int, delta: float) -> float:
    """p-value of "F <= delta" given N_U failures: P(Binomial(samples, delta) >= N_U), rounded up."""
    check_delta(delta)
    _check_counts(violated, samples)
    from scipy.stats import binom

    return min(1.0, float(binom.sf(violated - 1, samples, delta)) * (1.0 + PROBABILITY_RELATIVE))
