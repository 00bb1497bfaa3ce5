"""Bounds on the failure probability: against scipy, against exact binomial sums, and wrong rules seen to fail.

Probabilities are computed, not sampled: a coverage is a finite sum over what the counts can be.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from formalgr.core.errors import UsageError
from formalgr.global_robustness.binomial import check_alpha, check_delta, lower_bound, upper_bound
from formalgr.global_robustness.certify import CertifyOptions, certify, certify_class
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.multiplicity import GlobalVerdict, overall, refutation_alpha
from formalgr.global_robustness.study import Study

CERTIFIED, REFUTED, UNDECIDED = GlobalVerdict
NAN, INFINITY = float("nan"), float("inf")


def counts(robust: int, violated: int, unknown: int) -> Counts:
    return Counts(robust + violated + unknown, robust, violated, unknown, 0)


def most_failures(samples: int, delta: float, alpha: float, start: int = -1) -> int:
    """The largest number of failures that still certifies delta; -1: none does. `start` is known to certify."""
    while start + 1 <= samples and upper_bound(start + 1, samples, alpha) <= delta:
        start += 1
    return start


# ---- the bounds themselves


@pytest.mark.parametrize("samples", [1, 7, 100, 1000, 10000])
@pytest.mark.parametrize("alpha", [1e-9, 1e-3, 0.05, 0.5, 0.95])
def test_bounds_are_those_of_scipy(samples, alpha):
    """An independent implementation (root finding in binomtest, the beta quantile here)."""
    for failures in sorted({0, 1, samples // 10, samples // 2, samples - 1, samples}):
        for alternative, ours in (("less", upper_bound), ("greater", lower_bound)):
            test = binomtest(failures, samples, alternative=alternative)
            interval = test.proportion_ci(1 - alpha, method="exact")
            theirs = interval.high if alternative == "less" else interval.low
            assert ours(failures, samples, alpha) == pytest.approx(theirs, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(
    "samples, failures, expected",
    [(1000, 0, 0.00688), (1000, 50, 0.07495), (10000, 0, 0.00069), (10000, 100, 0.01347), (10000, 500, 0.05709)],
)
def test_bounds_are_the_published_values(samples, failures, expected):
    """docs/statistics.md section 3, pointwise column, alpha = 1e-3."""
    assert upper_bound(failures, samples, 1e-3) == pytest.approx(expected, abs=5.1e-6)


def _at_most(failures: int, samples: int, p: Fraction) -> Fraction:
    """P(Binomial(samples, p) <= failures), exactly."""
    return sum(
        (math.comb(samples, k) * p**k * (1 - p) ** (samples - k) for k in range(failures + 1)), Fraction(0)
    )


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 0.05])
@pytest.mark.parametrize("samples", [1, 2, 13, 60])
def test_the_bound_is_where_the_exact_tail_is_alpha(samples, alpha):
    """The definition (Clopper & Pearson 1934), in rational arithmetic: P_upper(X <= k) = alpha = P_lower(X >= k).

    Bounds are rounded outward, so that neither tail is larger than alpha, by what float64 resolves near 1 at most.
    """
    least = Fraction(alpha) * (1 - Fraction(1, 10**9)) - samples * Fraction(1, 10**14)
    for failures in range(samples + 1):
        upper, lower = upper_bound(failures, samples, alpha), lower_bound(failures, samples, alpha)
        if failures < samples:
            assert least <= _at_most(failures, samples, Fraction(upper)) <= Fraction(alpha)
        if failures > 0:
            assert least <= 1 - _at_most(failures - 1, samples, Fraction(lower)) <= Fraction(alpha)
        assert 0.0 <= lower <= failures / samples <= upper <= 1.0
        assert lower == pytest.approx(1.0 - upper_bound(samples - failures, samples, alpha), rel=1e-9)


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.3])
@pytest.mark.parametrize("samples", [1, 5, 40, 300])
def test_coverage_is_at_least_nominal_everywhere(samples, alpha):
    """P(upper >= p) and P(lower <= p) summed over the counts, on a grid of p and just beside every bound, the worst."""
    uppers = np.array([upper_bound(k, samples, alpha) for k in range(samples + 1)])
    lowers = np.array([lower_bound(k, samples, alpha) for k in range(samples + 1)])
    beside = np.concatenate([uppers[:-1] * (1 + 1e-9), lowers[1:] * (1 - 1e-9)])
    for p in [*np.linspace(0.0, 1.0, 101), *beside]:
        chances = binom.pmf(np.arange(samples + 1), samples, p)
        assert chances[uppers >= p].sum() >= 1 - alpha - 1e-7
        assert chances[lowers <= p].sum() >= 1 - alpha - 1e-7


# ---- unknowns


def test_brackets_only_widen():
    """The bracket lemma on every split of 12 samples: whatever the unknowns really are, their bounds lie inside."""
    for violated, unknown in itertools.product(range(13), repeat=2):
        if violated + unknown > 12:
            continue
        seen = counts(12 - violated - unknown, violated, unknown)
        lower, upper = seen.delta_lower(0.01), seen.delta_upper(0.01)
        assert seen.not_proven == violated + unknown
        for really in range(violated, violated + unknown + 1):
            assert lower <= lower_bound(really, 12, 0.01) <= upper_bound(really, 12, 0.01) <= upper


def test_unknowns_count_against_both_claims():
    """Once in the upper bound, never in the lower one."""
    seen = counts(80, 5, 15)
    assert seen.delta_upper(0.01) == upper_bound(20, 100, 0.01)
    assert seen.delta_lower(0.01) == lower_bound(5, 100, 0.01)
    assert certify_class(counts(0, 0, 100), 0.5, 0.01, 0.01) == (0.0, 1.0, UNDECIDED)


@pytest.mark.parametrize("lost", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.4), (0.5, 0.5)])
def test_coverage_survives_unknowns_that_depend_on_the_truth(lost):
    """Failing and robust samples become unknown with other chances: still valid, by a sum over all three counts."""
    samples, alpha = 30, 0.05
    for p in (0.01, 0.05, 0.1, 0.5, 0.93):
        failing, robust = p * (1 - lost[0]), (1 - p) * (1 - lost[1])
        above = below = 0.0
        for violated in range(samples + 1):
            chance = binom.pmf(violated, samples, failing)
            rest = samples - violated
            chances = chance * binom.pmf(np.arange(rest + 1), rest, robust / (1 - failing))
            uppers = [upper_bound(samples - k, samples, alpha) for k in range(rest + 1)]
            above += chances[np.array(uppers) >= p].sum()
            below += chance * (lower_bound(violated, samples, alpha) <= p)
        assert above >= 1 - alpha and below >= 1 - alpha


def test_dropping_unknowns_would_certify_what_is_false():
    """docs/statistics.md section 7.1: F = .0501 certified as <= .05 in 25 % of runs at nominal 5 %; counted: none.

    20 % of the failing and 5 % of the robust samples are unknown, n = 1000.
    """
    truth, delta, alpha, samples = 0.0501, 0.05, 0.05, 1000
    failing, robust = 0.8 * truth, 0.95 * (1 - truth)
    dropping, limit = 0.0, -1
    for decided in range(850, 1001):  # 21 standard deviations
        limit = most_failures(decided, delta, alpha, limit)
        allowed = binom.cdf(limit, decided, failing / (failing + robust))
        dropping += binom.pmf(decided, samples, failing + robust) * allowed
    assert dropping == pytest.approx(0.25, abs=0.005)
    assert dropping > 4 * alpha
    limit = most_failures(samples, delta, alpha)
    assert binom.cdf(limit, samples, 1 - robust) < 1e-6
    assert certify_class(counts(samples - limit, 0, limit), delta, alpha, alpha)[2] is CERTIFIED
    assert certify_class(counts(samples - limit - 1, 0, limit + 1), delta, alpha, alpha)[2] is UNDECIDED


def test_looking_after_every_sample_would_certify_what_is_false():
    """docs/statistics.md section 7.3: stopping at the first n <= 2000 that certifies errs in 27.4 % at nominal 5 %.

    Exact recursion at F = delta = .05. This is why a ledger does not let the number of samples change.
    """
    delta, alpha = 0.05, 0.05
    alive, wrong, limit = np.ones(1), 0.0, -1
    for looked in range(1, 2001):
        alive = np.append(alive * (1 - delta), 0.0) + np.append(0.0, alive * delta)
        limit = most_failures(looked, delta, alpha, limit)
        wrong += alive[: limit + 1].sum()
        alive[: limit + 1] = 0.0
    assert wrong == pytest.approx(0.274, abs=0.0005)
    assert binom.cdf(limit, 2000, delta) <= alpha


# ---- edges


def test_counts_that_do_not_add_up_are_refused():
    for parts in [(10, 5, 4, 0, 0), (10, 11, -1, 0, 0), (10, 5, 5, 0, 6), (10, 5, 5, 0, -1), (-1, 0, -1, 0, 0)]:
        with pytest.raises(ValueError, match="add up"):
            Counts(*parts)


@pytest.mark.parametrize("failures, samples", [(-1, 10), (11, 10), (1, 0), (NAN, 10)])
def test_impossible_numbers_of_failures_are_refused(failures, samples):
    """They gave NaN or a bound of 0 or 1: a plausible number from nonsense."""
    for bound in (upper_bound, lower_bound):
        with pytest.raises(ValueError, match="failures"):
            bound(failures, samples, 0.01)


def test_nothing_sampled_means_nothing_known():
    assert (lower_bound(0, 0, 0.01), upper_bound(0, 0, 0.01)) == (0.0, 1.0)
    assert certify_class(counts(0, 0, 0), 0.5, 0.01, 0.01)[2] is UNDECIDED


def test_all_failures_and_no_failure():
    assert upper_bound(50, 50, 0.01) == 1.0 and lower_bound(50, 50, 0.01) == pytest.approx(0.01 ** (1 / 50))
    assert lower_bound(0, 50, 0.01) == 0.0 and upper_bound(0, 50, 0.01) == pytest.approx(1 - 0.01 ** (1 / 50))


@pytest.mark.parametrize("samples", [1, 10**3, 10**9, 10**15])
def test_delta_zero_is_never_certified_by_sampling(samples):
    """No number of samples without a failure shows that none exists; one failure shows that F > 0."""
    for alpha in (1e-300, 1e-3, 0.999999):
        assert certify_class(counts(samples, 0, 0), 0.0, alpha, alpha)[2] is UNDECIDED
    assert certify_class(counts(samples - 1, 1, 0), 0.0, 1e-3, 1e-3)[2] is REFUTED


def test_delta_one_holds_whatever_was_seen():
    """F <= 1 is no claim; and nothing refutes it."""
    for seen in (counts(0, 100, 0), counts(0, 0, 100), counts(100, 0, 0), counts(0, 0, 0)):
        assert certify_class(seen, 1.0, 1e-3, 1e-3)[2] is CERTIFIED


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.1, NAN, INFINITY, -INFINITY, "0.1", None])
def test_alpha_outside_its_domain_is_refused(alpha):
    for call in (check_alpha, lambda a: upper_bound(1, 10, a), lambda a: lower_bound(1, 10, a)):
        with pytest.raises(UsageError, match=r"alpha must be in \(0, 1\)"):
            call(alpha)
    with pytest.raises(UsageError, match="alpha"):
        certify(Study({0: "absent.onnx"}, "absent.onnx"), 0.1, 0.1, alpha)


@pytest.mark.parametrize("delta", [-0.01, 1.01, NAN, INFINITY, "0.1", None])
def test_delta_outside_its_domain_is_refused(delta):
    """Before any file is opened."""
    with pytest.raises(UsageError, match=r"delta must be in \[0, 1\]"):
        check_delta(delta)
    with pytest.raises(UsageError, match="delta"):
        certify(Study({0: "absent.onnx"}, "absent.onnx"), 0.1, delta)


@pytest.mark.parametrize("epsilon", [-0.1, NAN, INFINITY, "one", "1/0", None])
def test_epsilon_outside_its_domain_is_refused(epsilon):
    with pytest.raises(UsageError, match="epsilon"):
        certify(Study({0: "absent.onnx"}, "absent.onnx"), epsilon, 0.1)


@pytest.mark.parametrize(
    "options", [{"samples": 0}, {"samples": -1}, {"jobs": 0}, {"seed": -1}, {"seed": 2**63}, {"samples": 1.5}]
)
def test_run_options_outside_their_domain_are_refused(options):
    with pytest.raises(UsageError):
        CertifyOptions(**options)


# ---- several classes


def test_the_overall_verdict_over_every_combination():
    """Certified: all classes; refuted: at least one, whatever the others are; else undecided."""
    for number in (1, 2, 3):
        for verdicts in itertools.product(GlobalVerdict, repeat=number):
            expected = REFUTED if REFUTED in verdicts else UNDECIDED if UNDECIDED in verdicts else CERTIFIED
            assert overall(verdicts) is expected


def test_certifying_every_class_needs_no_correction():
    """Intersection-union (Berger 1982): one class at F = delta, the others perfect: the error is below alpha."""
    samples, delta, alpha = 400, 0.05, 0.05
    limit = most_failures(samples, delta, alpha)
    wrong = binom.cdf(limit, samples, delta)
    assert 0.5 * alpha < wrong <= alpha, "the level is used: a correction would waste samples"


def test_refuting_some_class_needs_one():
    """A union: ten classes at F = delta are refuted in more than alpha of the runs unless they share the level."""
    samples, delta, alpha, classes = 400, 0.05, 0.05, 10

    def wrong(level: float) -> float:
        numbers = range(samples + 1)
        least = next(k for k in numbers if certify_class(counts(samples - k, k, 0), delta, alpha, level)[2] is REFUTED)
        return 1 - binom.cdf(least - 1, samples, delta) ** classes

    assert wrong(alpha) > 4 * alpha
    assert wrong(refutation_alpha(alpha, classes)) <= alpha


@pytest.mark.parametrize("alpha", [1e-300, 1e-18, 1e-9, 1e-3, 0.5])
@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_the_shared_level_is_accurate(alpha, classes):
    """1 - (1 - alpha)^(1/K) in plain floats is 0 for alpha < 1e-16, and above the true level for some larger ones."""
    level = refutation_alpha(alpha, classes)
    assert 0.0 < level <= alpha
    if classes == 1:
        assert level == pytest.approx(alpha, rel=1e-14)
    if alpha <= 1e-9:
        assert level == pytest.approx(alpha / classes, rel=1e-8)
    else:
        assert 1 - (1 - level) ** classes == pytest.approx(alpha, rel=1e-10)
