"""Several classes, curves or classifiers at once: which claims need a correction of alpha, and which.

In: verdicts, alpha, p-values. Out: verdicts, levels. Trust: sound (docs/statistics.md section 6).
"""

import enum
import math
from collections.abc import Sequence

from formalgr.core.errors import UsageError
from formalgr.global_robustness.binomial import check_alpha


class GlobalVerdict(enum.Enum):
    """CERTIFIED and REFUTED hold with probability >= 1 - alpha over the samples; else UNDECIDED."""

    CERTIFIED = "certified"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


def overall(verdicts: Sequence[GlobalVerdict]) -> GlobalVerdict:
    """CERTIFIED iff every class is (intersection-union test, Berger 1982: no correction); REFUTED iff one is.

    Each certificate is at alpha, each refutation at `union_alpha`.
    """
    if all(verdict is GlobalVerdict.CERTIFIED for verdict in verdicts):
        return GlobalVerdict.CERTIFIED
    if any(verdict is GlobalVerdict.REFUTED for verdict in verdicts):
        return GlobalVerdict.REFUTED
    return GlobalVerdict.UNDECIDED


def union_alpha(alpha: float, number: int, independent: bool = True) -> float:
    """The level of each of `number` bounds when ALL of them must hold at confidence 1 - alpha.

    For a refutation by any class, bounds reported per class, the curve max over c of F_c, several classifiers in one
    plot. Independent samples (classes are sampled independently): 1 - (1 - alpha)^(1 / number), without cancellation;
    shared latents (classifiers on the same samples): alpha / number (Bonferroni).
    """
    check_alpha(alpha)
    if number < 1:
        raise UsageError(f"the number of bounds must be >= 1, got {number}")
    return -math.expm1(math.log1p(-alpha) / number) if independent else alpha / number


def refutation_alpha(alpha: float, classes: int) -> float:
    """The level of each class when ONE refutation among independent classes decides."""
    return union_alpha(alpha, classes)


def holm(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected, none wrongly with probability >= 1 - alpha, whatever the dependence (Holm 1979).

    For a list of classes that pass (p-values of "F_c > delta"), and apart from it for a list of those that fail.
    """
    check_alpha(alpha)
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise UsageError(f"p-values must be in [0, 1], got {list(p_values)}")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)
