"""Confidence statements hold as often as they say, and the rules that look alike but are wrong are seen to fail.

Seeds are fixed. Where an error is a finite sum it is computed; else at least 50,000 runs are simulated, and the lower
Clopper-Pearson limit of the observed coverage is judged.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.special import betainc, betaincc
from scipy.stats import binomtest, multinomial

from formalgr.global_robustness.band import CountBounds, pointwise, simultaneous
from formalgr.global_robustness.binomial import upper_bound, upper_bounds
from formalgr.global_robustness.compare import Discordant, difference, fails_less
from formalgr.global_robustness.sequential import CertifyRule, anytime_interval, log_mixture, sequential_test

RUNS, SAMPLES, ALPHA = 50_000, 400, 0.05
MARGIN = 0.005
"""How far the lower limit of an observed coverage may lie below the nominal one."""


def limits(hits: int, runs: int = RUNS) -> tuple[float, float]:
    """Two-sided 99.9 % interval of a probability of which `hits` of `runs` were observed."""
    interval = binomtest(hits, runs).proportion_ci(0.999, method="exact")
    return interval.low, interval.high


# ---- bands


def sorted_uniforms(random: np.random.Generator) -> Iterator[np.ndarray]:
    """RUNS rows of SAMPLES ordered uniforms, in blocks: partial sums of exponentials over their total."""
    for _ in range(10):
        sums = np.cumsum(random.standard_exponential((RUNS // 10, SAMPLES + 1)), axis=1)
        yield sums[:, :-1] / sums[:, -1:]


def covered(band: CountBounds, proven: np.ndarray, failed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In which rows F(eps) = eps lies below the upper, above the lower bound, for all eps of [0, 1].

    Both are sorted. The upper bound upper[N_L] is lowest, compared with eps, at the next L, the lower one at a U.
    """
    return np.all(proven <= band.upper[:-1], axis=1), np.all(failed >= band.lower[1:], axis=1)


def exact_radii(random, radii):
    """L = U = R: the limit of ever finer brackets."""
    return radii, radii


def random_brackets(random, radii):
    """A third of the samples have a lower end anywhere below R, a third an upper end anywhere above, a tenth none."""
    low, high, lost = (random.random(radii.shape, dtype=np.float32) for _ in range(3))
    proven = np.where(low < 1 / 3, radii * low * 3, radii)
    failed = np.where(high < 1 / 3, radii + high, radii)
    return sort(np.where(lost < 0.1, -1.0, proven)), sort(np.where(lost < 0.1, np.inf, failed))


def dependent_brackets(random, radii):
    """The harder, the wider: radii in the middle have no bracket at all, large ones are proven only to one half."""
    middle, large = abs(radii - 0.3) < 0.1, radii > 0.6
    proven = np.where(middle, -1.0, np.where(large, 0.5, radii))
    return sort(proven), sort(np.where(middle, np.inf, np.minimum(1.0, radii * 1.1)))


def sort(rows):
    return np.sort(rows, axis=1)


WIDER = [random_brackets, dependent_brackets]


@pytest.mark.parametrize("brackets", [exact_radii, *(pytest.param(f, marks=pytest.mark.slow) for f in WIDER)])
def test_bands_cover_the_whole_distribution(brackets):
    """Each side at .95; with exact radii that is what is observed, brackets only add to it.

    With `most`, the same for the bounds of up to that many failures, which are tighter; both sides at alpha / 2 hold
    together. What the band is for: Clopper-Pearson read off at all radii holds in under half of the runs.
    """
    random, exact = np.random.default_rng(1), brackets is exact_radii
    full, part = simultaneous(SAMPLES, ALPHA), simultaneous(SAMPLES, ALPHA, 40)
    half, single = simultaneous(SAMPLES, ALPHA / 2), pointwise(SAMPLES, ALPHA)
    hits = Counter()
    for radii in sorted_uniforms(random):
        ends = brackets(random, radii)
        for name, bounds in (("full", full), ("part", part), ("half", half), ("single", single)):
            above, below = covered(bounds, *ends)
            found = {"upper": above, "lower": below, "both": above & below}
            hits.update({(name, side): int(rows.sum()) for side, rows in found.items()})
    for name, side in [("full", "upper"), ("full", "lower"), ("part", "upper"), ("part", "lower"), ("half", "both")]:
        low, high = limits(hits[name, side])
        assert low > 1.0 - ALPHA - MARGIN and high > 1.0 - ALPHA, (name, side)
        assert not exact or name == "part" or low < 1.0 - ALPHA, "a band that is this wide wastes samples"
    assert not exact or all(limits(hits["single", side])[1] < 0.5 for side in ("upper", "lower"))
    assert np.all(part.upper[:41] < full.upper[:41]) and np.all(part.lower[1:41] > full.lower[1:41])
    assert np.all(part.upper[41:] == 1.0) and np.all(part.lower[41:] == part.lower[41])


def test_atoms_cost_nothing():
    """R is 0, 1/4, 1/2 or infinite (as with L0 radii): F jumps, and stays inside the band at its jumps and between."""
    random, band = np.random.default_rng(4), simultaneous(SAMPLES, ALPHA)
    jumps = np.array([0.02, 0.05, 0.35])
    counts = np.cumsum(random.multinomial(SAMPLES, [0.02, 0.03, 0.3, 0.65], size=RUNS)[:, :3], axis=1)
    # between two jumps the counts are those of the last one; before the first there is none
    assert limits(int(np.all(band.upper[counts] >= jumps, axis=1).sum()))[0] > 1.0 - ALPHA
    assert limits(int(np.all(band.lower[counts] <= jumps, axis=1).sum()))[0] > 1.0 - ALPHA


# ---- runs stopped by the clock (section 7.2)

WORKERS, SECONDS, RATE, DELTA = 16, 60.0, 0.06, 0.05


def by_the_clock(slow: float, runs: int = 2500) -> tuple[float, float]:
    """How often "F <= .05" is certified although F = .06: (using what finished, counting all that was started).

    16 workers take the next sample as soon as they are free, for 60 s; a robust sample takes 1 s on average, a failing
    one `slow` times as long, both exponentially distributed.
    """
    random, rows = np.random.default_rng(6), np.arange(runs)
    free = np.zeros((runs, WORKERS))
    started, finished, failed = (np.zeros(runs, dtype=np.int64) for _ in range(3))
    while True:
        worker = np.argmin(free, axis=1)
        running = free[rows, worker] < SECONDS
        if not running.any():
            break
        fails = random.random(runs) < RATE
        end = free[rows, worker] + random.standard_exponential(runs) * np.where(fails, slow, 1.0)
        started += running
        finished += running & (end <= SECONDS)
        failed += running & (end <= SECONDS) & fails
        free[rows, worker] = np.where(running, end, free[rows, worker])
    allowed = np.array([np.searchsorted(upper_bounds(n, ALPHA), DELTA, "right") for n in range(started.max() + 1)])
    return float(np.mean(failed < allowed[finished])), float(np.mean(failed + started - finished < allowed[started]))


@pytest.mark.parametrize("slow, wrong", [(30.0, 0.25), (60.0, 0.61)])
def test_using_what_finished_in_time_would_certify_what_is_false(slow, wrong):
    """At nominal 5 %; with the samples that were started and did not finish as failures, none of the runs errs."""
    finished, all_started = by_the_clock(slow)
    assert finished == pytest.approx(wrong, abs=0.03) and finished > 4 * ALPHA
    assert all_started < 0.001


# ---- sequential


def stops(certify_at: np.ndarray, rate: float) -> np.ndarray:
    """Chance to stop at t with S_t = k_t or fewer, (most + 1,), failures at `rate`: exact recursion."""
    alive, first, chances = np.ones(1), 0, np.zeros(certify_at.size)
    for t, bound in enumerate(certify_at[1:].tolist(), start=1):
        alive = np.append(alive * (1.0 - rate), 0.0) + np.append(0.0, alive * rate)
        cut = max(0, bound + 1 - first)
        chances[t] = alive[:cut].sum()
        alive, first = alive[cut:], first + cut
        alive = alive[: max(1, int(certify_at[-1]) + 2 - first)]  # who is above the last boundary never stops
    return chances


@pytest.mark.parametrize("rule", CertifyRule)
@pytest.mark.parametrize("delta, alpha", [(0.05, 0.05), (0.2, 1e-3), (0.5, 0.3), (0.01, 0.05)])
def test_sequential_errors_stay_below_alpha(rule, delta, alpha):
    """Certifying at F = delta, where the error is largest, and refuting there."""
    test = sequential_test(delta, alpha, 1500, rule)
    error = stops(test.certify_at, delta).sum()
    assert error <= test.spent <= alpha
    assert rule is CertifyRule.MIXTURE or error > 0.95 * alpha
    assert stops(test.certify_at, delta * 1.1).sum() < error
    # V_t >= r_t is: at most t - r_t robust samples
    robust_at = np.arange(test.most + 1) - test.refute_at
    assert stops(robust_at, 1.0 - delta).sum() <= alpha


def test_clopper_pearson_after_a_sequential_stop_would_not_cover():
    """F = .045: the bound at n = t lies below F in 12.9 % of the runs at nominal 5 %; the anytime interval does not."""
    rate, test = 0.045, sequential_test(0.05, ALPHA, 2000)
    chances = stops(test.certify_at, rate)
    stopping = [(t, int(test.certify_at[t])) for t in np.nonzero(chances)[0].tolist()]
    wrong = sum(chances[t] for t, k in stopping if upper_bound(k, t, ALPHA) < rate)
    assert wrong == pytest.approx(0.129, abs=0.0005)


def outside(truth: float, alpha: float, most: int) -> float:
    """Chance that the mixture over [0, 1] excludes F = truth at some t <= most, by exact recursion."""
    alive, excluded = np.ones(1), 0.0
    for t in range(1, most + 1):
        alive = np.append(alive * (1.0 - truth), 0.0) + np.append(0.0, alive * truth)
        s = np.arange(t + 1)
        # both cut mixtures, weighted by their prior masses, add up to the whole one
        parts = [
            log_mixture(s, np.full(t + 1, t), truth, below) + np.log(side(0.5, 0.5, truth))
            for below, side in ((True, betainc), (False, betaincc))
        ]
        gone = np.logaddexp(*parts) >= -np.log(alpha)
        excluded += alive[gone].sum()
        alive[gone] = 0.0
    return excluded


@pytest.mark.parametrize("truth", [0.02, 0.5])
def test_the_anytime_interval_errs_less_than_alpha_over_all_times(truth):
    assert 0.1 * ALPHA < outside(truth, ALPHA, 300) <= ALPHA


def test_the_anytime_interval_covers_with_brackets():
    """100 runs through the function itself, many answers unknown: outside in fewer than 5 % of them."""
    random, missed = np.random.default_rng(7), 0
    for _ in range(100):
        fails = random.random(150) < 0.1
        unknown = random.random(150) < np.where(fails, 0.3, 0.02)
        interval = anytime_interval(fails | unknown, fails & ~unknown, ALPHA)
        missed += not interval.lower <= 0.1 <= interval.upper
    assert missed <= 5


def test_unknowns_and_later_answers_do_not_certify_more_often():
    """50,000 runs at F = delta: unknowns that depend on the truth, a part of them resolved afterwards, all t reread."""
    random, test = np.random.default_rng(8), sequential_test(0.05, ALPHA, SAMPLES)
    wrong = 0
    for _ in range(10):
        fails = random.random((RUNS // 10, SAMPLES), dtype=np.float32) < 0.05
        unknown = random.random(fails.shape, dtype=np.float32) < np.where(fails, 0.5, 0.02)
        resolved = random.random(fails.shape, dtype=np.float32) < np.where(fails, 0.2, 0.9)
        not_proven = np.cumsum(fails | (unknown & ~resolved), axis=1, dtype=np.int32)
        wrong += int(np.sum(np.any(not_proven <= test.certify_at[1:], axis=1)))
    assert limits(wrong)[0] < stops(test.certify_at, 0.05).sum() and limits(wrong)[1] <= ALPHA


# ---- comparisons


@pytest.mark.parametrize("only, samples", [(0.03, 150), (0.3, 40)])
def test_paired_comparisons_err_less_than_alpha(only, samples):
    """Equal failure probabilities: "fails less often", and 0 outside the interval of the difference, by exact sums.

    Unknowns against the claim only add to p and to the interval.
    """
    most = int(multinomial.mean(samples, [only, 1 - only])[0] * 1.5) + 14
    chances = multinomial(samples, [only, only, 1 - 2 * only])
    claims = either = halved = outside = total = 0.0
    for a in range(most):
        for b in range(min(most, samples - a + 1)):
            chance, pair = chances.pmf([a, b, samples - a - b]), Discordant(samples, a, a, b, b)
            interval = difference(pair, ALPHA)
            total += chance
            p_first, p_second = fails_less(pair), fails_less(Discordant(samples, b, b, a, a))
            claims += chance * (p_first <= ALPHA)
            either += chance * (min(p_first, p_second) <= ALPHA)
            halved += chance * (min(p_first, p_second) <= ALPHA / 2)
            outside += chance * (not interval.lower <= 0.0 <= interval.upper)
    assert total > 1 - 1e-4
    assert claims + 1 - total <= ALPHA and outside + 1 - total <= ALPHA
    assert claims > 0.2 * ALPHA
    assert halved + 1 - total <= ALPHA and either == pytest.approx(2 * claims)
    assert only < 0.1 or either > ALPHA, "asking both ways at alpha is too often"
