"""One (eps, delta), sample by sample, with as few local proofs as possible; and an interval valid at every moment.

In: which samples, in order of their index, are not proven robust and which are violated. Out: Decision, Interval.
Trust: sound at the stated confidence, whenever one stops; the rule is fixed before sampling (docs/statistics.md
section 4).

Only prefixes count: samples 0 .. t - 1, those without an answer yet among them, as not proven and not violated. A bound
that holds for all t at once stays valid when answers improve later: every t may decide, earlier ones included.
"""

import enum
import math
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.rounding import PROBABILITY_RELATIVE, UNIT_ROUNDOFF
from formalgr.global_robustness.binomial import check_alpha, check_delta
from formalgr.global_robustness.frontier import Interval
from formalgr.global_robustness.multiplicity import GlobalVerdict

NEVER = -1
"""Entry of certify_at: no number of failures certifies."""


class CertifyRule(enum.Enum):
    """Which rule may certify: fixed before sampling, for "whichever fires first" errs more often than either.

    SPENDING is the stronger one near delta, MIXTURE allows the largest number of samples to be raised later.
    """

    SPENDING = "alpha spending"
    MIXTURE = "beta mixture"


@dataclass(frozen=True)
class Gap:
    """What is missing: `missing` more answers of the right kind among the unknown ones of samples 0 .. at - 1."""

    at: int
    missing: int


@dataclass(frozen=True)
class Decision:
    """What the samples so far say about "F <= delta".

    `at` is the t that decided, else the number of samples seen, and `failures` the S_t that certified, the V_t that
    refuted, else S_t. `to_certify` and `to_refute`: the smallest gap that proofs, counterexamples, could still close
    without new samples; None where none could. `sampling_can_certify`: with robust samples alone S_t would get there;
    where it is False and `to_certify` is None and no answer is unknown, certifying is over for good.
    """

    verdict: GlobalVerdict
    at: int
    failures: int
    to_certify: Gap | None = None
    to_refute: Gap | None = None
    sampling_can_certify: bool = True


@dataclass(frozen=True, eq=False)
class SequentialTest:
    """Certify F <= delta at the first t with S_t <= certify_at[t], refute it at the first with V_t >= refute_at[t].

    S_t counts the samples among the first t that are not proven robust, V_t those that are violated. When F > delta it
    certifies with probability <= alpha, when F <= delta it refutes with probability <= refute_alpha; only one of the
    two can be wrong, so alpha is not split. Both boundaries are (most + 1,) integers and rise; refute_at is beyond t
    where nothing refutes. `spent` is the exact chance to certify at F = delta by spending, alpha for the mixture.
    """

    delta: float
    alpha: float
    refute_alpha: float
    rule: CertifyRule
    most: int
    certify_at: np.ndarray
    refute_at: np.ndarray
    spent: float

    def decide(self, not_proven: np.ndarray, violated: np.ndarray) -> Decision:
        """The decision from the first len(not_proven) samples in order of their index, (t,) bool each, 0 <= t <= most.

        Call it again whenever answers improve or samples are added; samples added later never change a decision.
        """
        unproven, failed = _counts(not_proven, violated)
        seen = unproven.size - 1
        if seen > self.most:
            raise UsageError(f"the test was set up for at most {self.most} samples, got {seen}")
        certify_at, refute_at = self.certify_at[: seen + 1], self.refute_at[: seen + 1]
        certified = np.nonzero(unproven <= certify_at)[0]
        refuted = np.nonzero(failed >= refute_at)[0]
        if certified.size and not (refuted.size and refuted[0] < certified[0]):
            return Decision(GlobalVerdict.CERTIFIED, int(certified[0]), int(unproven[certified[0]]))
        if refuted.size:
            return Decision(GlobalVerdict.REFUTED, int(refuted[0]), int(failed[refuted[0]]))
        return Decision(
            GlobalVerdict.UNDECIDED,
            seen,
            int(unproven[-1]),
            _smallest_gap(unproven - certify_at, failed <= certify_at),
            _smallest_gap(refute_at - failed, unproven >= refute_at),
            bool(unproven[-1] <= self.certify_at[-1]),
        )


def _counts(not_proven: np.ndarray, violated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S_t, V_t) for t = 0 .. number of samples."""
    unproven, failed = np.asarray(not_proven, dtype=bool), np.asarray(violated, dtype=bool)
    if unproven.shape != failed.shape or unproven.ndim != 1 or np.any(failed & ~unproven):
        raise ValueError("not_proven and violated must be (t,) each, and what is violated is not proven")
    return tuple(np.insert(np.cumsum(flags, dtype=np.int64), 0, 0) for flags in (unproven, failed))


def _smallest_gap(missing: np.ndarray, possible: np.ndarray) -> Gap | None:
    candidates = np.nonzero(possible)[0]
    if not candidates.size:
        return None
    at = int(candidates[np.argmin(missing[candidates])])
    return Gap(at, int(missing[at]))


def sequential_test(
    delta: float,
    alpha: float,
    most: int,
    rule: CertifyRule = CertifyRule.SPENDING,
    refute_alpha: float | None = None,
) -> SequentialTest:
    """The test of "F <= delta" with at most `most` samples. Raises UsageError on values outside their domain.

    delta = 0 is never certified, delta = 1 holds without a sample. `refute_alpha` (default alpha) is smaller where one
    refuted class among several decides (`multiplicity.union_alpha`).
    """
    refute_alpha = alpha if refute_alpha is None else refute_alpha
    check_delta(delta)
    check_alpha(alpha)
    check_alpha(refute_alpha)
    if most < 1:
        raise UsageError(f"the largest number of samples must be >= 1, got {most}")
    if delta == 1.0:
        certify_at, spent = np.arange(most + 1, dtype=np.int64), 0.0
    elif rule is CertifyRule.SPENDING:
        certify_at, spent = spending_boundary(delta, alpha, most)
    else:
        certify_at, spent = mixture_boundary(delta, alpha, most), alpha
    refute_at = refuting_boundary(delta, refute_alpha, most)
    return SequentialTest(delta, alpha, refute_alpha, rule, most, certify_at, refute_at, spent)


# ---- exact alpha spending


def spending_boundary(delta: float, alpha: float, most: int) -> tuple[np.ndarray, float]:
    """(k_t for t = 0 .. most, chance that S_t <= k_t for some t when F = delta), by exact recursion.

    At every t at most alpha sqrt(t / most) may have been spent (Lan & DeMets 1983): k_t is the largest k such that what
    was spent before and P(not stopped before t, S_t <= k) fit. The chance falls when F grows beyond delta.
    """
    boundary = np.full(most + 1, NEVER, dtype=np.int64)
    # chances[j] = P(not stopped, S_t = first + j); states from `width` on are left out, and no boundary goes there
    width = min(most, math.ceil(most * delta)) + 2
    chances, first, spent = np.ones(1, dtype=np.float64), 0, 0.0
    for t in range(1, most + 1):
        moved = np.append(chances * (1.0 - delta), 0.0)
        moved[1:] += chances * delta
        chances = moved[: width - first]
        allowance = alpha * math.sqrt(t / most) / (1.0 + PROBABILITY_RELATIVE)
        while first < min(t, width - 1) and spent + chances[0] <= allowance:
            spent += float(chances[0])
            chances, first = chances[1:], first + 1
        boundary[t] = first - 1
    return boundary, spent * (1.0 + PROBABILITY_RELATIVE)


# ---- mixtures


def log_mixture(failures: np.ndarray, samples: np.ndarray, delta: float, below: bool) -> np.ndarray:
    """log E_t: likelihood of the counts, averaged over p ~ Beta(1/2, 1/2) cut to one side of delta, over that at delta.

    below: p in [0, delta], a supermartingale when F >= delta; else p in [delta, 1], one when F <= delta. P(E_t >= 1 /
    alpha for some t) <= alpha (Ville 1939; Robbins 1970; Waudby-Smith & Ramdas 2024). Falls in `failures` when below,
    else rises. Needs 0 < delta < 1.
    """
    from scipy.special import betainc, betaincc, betaln, xlog1py, xlogy

    side = betainc if below else betaincc
    a, b = failures + 0.5, samples - failures + 0.5
    with np.errstate(divide="ignore"):
        mass = np.log(side(a, b, delta)) - math.log(side(0.5, 0.5, delta))
    null = xlogy(failures, delta) + xlog1py(samples - failures, -delta)
    return mass + betaln(a, b) - math.log(math.pi) - null  # B(1/2, 1/2) = pi


def _threshold(alpha: float) -> float:
    """log E_t at least this is surely E_t >= 1 / alpha."""
    return PROBABILITY_RELATIVE - math.log(alpha)


def mixture_boundary(delta: float, alpha: float, most: int) -> np.ndarray:
    """k_t for t = 0 .. most: the largest S with E_t >= 1 / alpha against "F > delta"; NEVER where there is none."""
    if delta == 0.0:
        return np.full(most + 1, NEVER, dtype=np.int64)
    times = np.arange(most + 1, dtype=np.int64)
    low, high = np.full(most + 1, NEVER, dtype=np.int64), times + 1  # E is large enough at low, not at high
    while np.any(high - low > 1):
        middle = (low + high) // 2
        enough = log_mixture(np.maximum(middle, 0), times, delta, True) >= _threshold(alpha)
        enough |= middle == NEVER
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return low


def refuting_boundary(delta: float, alpha: float, most: int) -> np.ndarray:
    """r_t for t = 0 .. most: the smallest V with E_t >= 1 / alpha against "F <= delta"; t + 1 where there is none."""
    times = np.arange(most + 1, dtype=np.int64)
    if delta == 1.0:
        return times + 1
    if delta == 0.0:  # one counterexample
        return np.ones(most + 1, dtype=np.int64)
    low, high = np.full(most + 1, NEVER, dtype=np.int64), times + 1  # E is not large enough at low
    while np.any(high - low > 1):
        middle = (low + high) // 2
        enough = (middle >= 0) & (log_mixture(np.maximum(middle, 0), times, delta, False) >= _threshold(alpha))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


# ---- an interval at every moment


def anytime_interval(not_proven: np.ndarray, violated: np.ndarray, alpha: float) -> Interval:
    """F lies inside at confidence 1 - alpha, whenever one looks or stops: both ends together, (t,) bool flags as above.

    The p at which a Beta(1/2, 1/2) mixture, not cut, stays below 1 / alpha for every prefix t (Robbins 1970). It only
    narrows when samples are added or answers improve: the upper end rises with S_t, the lower one with V_t.
    """
    check_alpha(alpha)
    unproven, failed = _counts(not_proven, violated)
    times = np.arange(unproven.size, dtype=np.float64)[1:]
    if not times.size:
        return Interval(0.0, 1.0)
    upper = float(np.min(_crossing(unproven[1:], times, alpha)))
    lower = 1.0 - float(np.min(_crossing(times - failed[1:], times, alpha))) - 2.0 * UNIT_ROUNDOFF["float64"]
    return Interval(max(0.0, lower), max(upper, lower))


def _crossing(failures: np.ndarray, samples: np.ndarray, alpha: float) -> np.ndarray:
    """The p > failures / samples where log E_t(p) = log(1 / alpha), from above; 1 where none is."""
    from scipy.special import betaln, xlog1py, xlogy

    level = betaln(failures + 0.5, samples - failures + 0.5) - math.log(math.pi) - _threshold(alpha)
    low, high = failures / samples, np.ones_like(samples)
    for _ in range(60):
        middle = 0.5 * (low + high)
        excluded = level >= xlogy(failures, middle) + xlog1py(samples - failures, -middle)
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    return high
