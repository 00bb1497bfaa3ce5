"""From brackets to bounds on the failure probability: exact, finite-sample, unknowns counted against the claim.

In: counts. Out: Clopper-Pearson bounds. Trust: sound at the stated confidence (docs/statistics.md section 2).

Clopper & Pearson 1934. With y_i <= yhat_i for every sample the upper bound from the yhat is valid for the y, however
the yhat came about: a timeout costs width, never validity.
"""

import math
from dataclasses import dataclass

from formalgr.core.errors import UsageError


def check_alpha(alpha: float) -> None:
    """Raises UsageError unless 0 < alpha < 1."""
    if not (isinstance(alpha, (int, float)) and 0.0 < alpha < 1.0):
        raise UsageError(f"alpha must be in (0, 1), got {alpha}")


def check_delta(delta: float) -> None:
    """Raises UsageError unless 0 <= delta <= 1."""
    if not (isinstance(delta, (int, float)) and math.isfinite(delta) and 0.0 <= delta <= 1.0):
        raise UsageError(f"delta must be in [0, 1], got {delta}")


def refutation_alpha(alpha: float, classes: int) -> float:
    """1 - (1 - alpha)^(1 / classes): the level of each class when ONE refutation among independent classes decides.

    Without cancellation, so that it stays positive and accurate for the smallest alpha.
    """
    check_alpha(alpha)
    return -math.expm1(math.log1p(-alpha) / classes)


def _check_counts(failures: int, samples: int) -> None:
    if not 0 <= failures <= samples:
        raise ValueError(f"failures must be in [0, {samples}], the number of samples, got {failures}")


def upper_bound(failures: int, samples: int, alpha: float) -> float:
    """p with P(failure) <= p at confidence 1 - alpha (one-sided Clopper-Pearson); 1 when nothing was sampled."""
    check_alpha(alpha)
    _check_counts(failures, samples)
    if failures == samples:
        return 1.0
    from scipy.stats import beta

    return float(beta.isf(alpha, failures + 1, samples - failures))


def lower_bound(failures: int, samples: int, alpha: float) -> float:
    """p with P(failure) >= p at confidence 1 - alpha (one-sided Clopper-Pearson); 0 without a failure."""
    check_alpha(alpha)
    _check_counts(failures, samples)
    if failures == 0:
        return 0.0
    from scipy.stats import beta

    return float(beta.ppf(alpha, failures, samples - failures + 1))


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
