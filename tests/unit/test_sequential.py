"""Sequential decisions: exact operating points against the published ones, errors, futility, the anytime interval."""

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import binom

from formalgr.core.errors import UsageError
from formalgr.global_robustness.frontier import Interval
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.sequential import (
    CertifyRule,
    Decision,
    Gap,
    anytime_interval,
    log_mixture,
    sequential_test,
)

CERTIFIED, REFUTED, UNDECIDED = GlobalVerdict
MOST, ALPHA = 10_000, 1e-3


def operating_point(certify_at: np.ndarray, rate: float) -> tuple[float, float]:
    """(expected number of samples, chance to stop) of the rule S_t <= certify_at[t], failures at `rate`, exactly."""
    alive, first, expected, stopped = np.ones(1), 0, 0.0, 0.0
    for bound in certify_at[1:].tolist():
        expected += 1.0 - stopped
        alive = np.append(alive * (1.0 - rate), 0.0) + np.append(0.0, alive * rate)
        cut = max(0, bound + 1 - first)
        stopped += alive[:cut].sum()
        alive, first = alive[cut:], first + cut
        alive = alive[: max(1, int(certify_at[-1]) + 2 - first)]  # who is above the last boundary never stops
    return expected, stopped


@pytest.fixture(scope="module")
def published():
    """Both rules at the deltas of STATISTICS section 4."""
    return {
        (delta, rule): sequential_test(delta, ALPHA, MOST, rule) for delta in (0.05, 0.01) for rule in CertifyRule
    }


EXPECTED = {
    (0.05, CertifyRule.SPENDING): {0.0: 175.0, 0.01: 345.3, 0.02: 686.4, 0.03: 1614.4},
    (0.01, CertifyRule.SPENDING): {0.0: 813.0, 0.001: 1153.1, 0.002: 1607.4, 0.004: 3193.5},
    (0.05, CertifyRule.MIXTURE): {0.0: 158, 0.01: 305, 0.02: 642, 0.03: 1689},
    (0.01, CertifyRule.MIXTURE): {0.0: 804, 0.001: 1117, 0.002: 1565, 0.004: 3314},
}


@pytest.mark.parametrize("delta, rule", EXPECTED)
def test_expected_numbers_of_samples_are_the_published_ones(published, delta, rule):
    """To the printed digits."""
    for rate, expected in EXPECTED[delta, rule].items():
        found = operating_point(published[delta, rule].certify_at, rate)[0]
        assert round(found, 1 if isinstance(expected, float) else 0) == expected


@pytest.mark.parametrize("delta, last, spent", [(0.05, 418, 0.000999339), (0.01, 64, 0.000998778)])
def test_spending_uses_alpha_up(published, delta, last, spent):
    """The largest numbers of failures and the exact errors."""
    test = published[delta, CertifyRule.SPENDING]
    error = operating_point(test.certify_at, delta)[1]
    assert test.certify_at[-1] == last
    assert round(error, 9) == spent and error <= test.spent <= ALPHA


def test_the_mixture_gives_way_near_delta(published):
    """Power at rate .04 within 10,000 samples: .88 by spending, .72 by the mixture."""
    power = {rule: operating_point(published[0.05, rule].certify_at, 0.04)[1] for rule in CertifyRule}
    assert round(power[CertifyRule.SPENDING], 2) == 0.88 and round(power[CertifyRule.MIXTURE], 2) == 0.72


def test_whichever_rule_fires_first_would_err_too_often(published):
    """Spending and mixture together err with .00138 at nominal .001: one of them is fixed beforehand."""
    either = np.maximum(*(published[0.05, rule].certify_at for rule in CertifyRule))
    assert round(operating_point(either, 0.05)[1], 5) == 0.00138


def test_refuting_takes_the_published_number_of_samples(published):
    """delta = .05 at rate .10: 467 samples are expected."""
    at_most_robust = np.arange(MOST + 1) - published[0.05, CertifyRule.SPENDING].refute_at
    assert round(operating_point(at_most_robust[:5001], 0.9)[0]) == 467


@pytest.mark.parametrize("delta", [0.01, 0.3])
@pytest.mark.parametrize("below", [True, False])
def test_the_mixture_is_a_fair_bet_at_delta(delta, below):
    """E under F = delta is exactly 1 at every t; on the other side of delta it is less than 1."""
    worse = delta * 1.2 if below else delta * 0.8
    for t in (1, 5, 60, 400):
        counts = np.arange(t + 1)
        wealth = log_mixture(counts, np.full(t + 1, t), delta, below)
        assert np.exp(wealth + binom.logpmf(counts, t, delta)).sum() == pytest.approx(1.0, rel=1e-9)
        assert np.exp(wealth + binom.logpmf(counts, t, worse)).sum() < 1.0
        rises = wealth[1:] >= wealth[:-1]
        assert not np.any(rises & np.isfinite(wealth[1:])) if below else np.all(rises)


@pytest.mark.parametrize("delta, alpha", [(0.05, 1e-3), (0.3, 0.05)])
def test_boundaries_are_where_the_mixture_reaches_its_level(delta, alpha):
    test = sequential_test(delta, alpha, 700, CertifyRule.MIXTURE)
    times = np.arange(701)
    for at, step, below in ((test.certify_at, 1, True), (test.refute_at, -1, False)):
        reached = (at >= 0) & (at <= times)
        assert reached.any() and not reached.all()
        wealth = log_mixture(at[reached], times[reached], delta, below)
        assert np.all(wealth >= -np.log(alpha))
        beyond = (at + step >= 0) & (at + step <= times)
        assert np.all(log_mixture((at + step)[beyond], times[beyond], delta, below) < -np.log(alpha) + 1e-8)
        assert np.all(np.diff(at) >= 0)


def flags(*samples: str) -> tuple[np.ndarray, np.ndarray]:
    """(not proven, violated) of a row of letters: r robust, v violated, u unknown."""
    row = "".join(samples)
    return np.array([x != "r" for x in row], dtype=bool), np.array([x == "v" for x in row], dtype=bool)


@pytest.fixture(scope="module")
def small():
    """delta = .2 at alpha = .05: 0 failures certify from 20 samples on."""
    return sequential_test(0.2, 0.05, 60)


def test_certify_refute_and_neither(small):
    first = int(np.argmax(small.certify_at >= 0))
    assert small.decide(*flags("r" * 60)) == Decision(CERTIFIED, first, 0)
    refuting = int(np.argmax(small.refute_at <= np.arange(61)))
    assert small.decide(*flags("v" * 60)) == Decision(REFUTED, refuting, refuting)
    assert small.decide(*flags("u" * 60)).verdict is UNDECIDED
    assert small.decide(*flags("")) == Decision(UNDECIDED, 0, 0)


def test_an_earlier_prefix_decides_when_answers_come_late(small):
    """Sample 3 was unknown until sample 40: the first t whose count fits decides, not the last."""
    first = int(np.argmax(small.certify_at >= 0))
    late = "rrr" + "u" + "r" * (first - 4) + "v" * 12
    waiting = small.decide(*flags(late))
    assert waiting.verdict is UNDECIDED and waiting.to_certify == Gap(first, 1)
    assert small.decide(*flags(late.replace("u", "r"))) == Decision(CERTIFIED, first, 0)


def test_gaps_are_what_is_missing(small):
    """Every row of 26 random answers against the definition, prefix by prefix."""
    random = np.random.default_rng(1)
    for _ in range(300):
        row = "".join(random.choice(list("rrrrruv"), size=26))
        found = small.decide(*flags(row))
        if found.verdict is not UNDECIDED:
            continue
        certify, refute = [], []
        for t in range(27):
            unknown, failed = row[:t].count("u"), row[:t].count("v")
            missing = failed + unknown - int(small.certify_at[t])
            certify += [(missing, t)] if missing <= unknown else []
            missing = int(small.refute_at[t]) - failed
            refute += [(missing, t)] if missing <= unknown else []
        for gap, all_gaps in ((found.to_certify, certify), (found.to_refute, refute)):
            assert gap == (Gap(*min(all_gaps)[::-1]) if all_gaps else None)
        assert found.sampling_can_certify == (26 - row.count("r") <= small.certify_at[-1])


def test_only_counterexamples_make_futility_final(small):
    """As few failures as avoid certifying at every t: if they are unknown a proof helps, if violated nothing does."""
    row = ""
    for bound in small.certify_at[1:].tolist():
        row += "f" if row.count("f") <= bound else "r"
    soft, hard = (small.decide(*flags(row.replace("f", kind))) for kind in "uv")
    assert soft.verdict is hard.verdict is UNDECIDED
    assert not soft.sampling_can_certify and soft.to_certify.missing == 1
    assert not hard.sampling_can_certify and hard.to_certify is None


@pytest.mark.parametrize("rule", CertifyRule)
def test_the_ends_of_delta(rule):
    """delta = 0 is never certified and falls with one counterexample; delta = 1 holds without a sample."""
    nothing = sequential_test(0.0, 0.05, 300, rule)
    assert nothing.decide(*flags("r" * 300)).verdict is UNDECIDED
    assert nothing.decide(*flags("r" * 9, "u")).verdict is UNDECIDED
    assert nothing.decide(*flags("r" * 9, "v")) == Decision(REFUTED, 10, 1)
    everything = sequential_test(1.0, 0.05, 300, rule)
    assert everything.decide(*flags("")) == Decision(CERTIFIED, 0, 0)
    assert everything.decide(*flags("v" * 300)).verdict is CERTIFIED


def test_bad_values_are_refused():
    for call in (
        lambda: sequential_test(-0.1, 0.05, 10),
        lambda: sequential_test(0.1, 0.0, 10),
        lambda: sequential_test(0.1, 1.0, 10),
        lambda: sequential_test(0.1, 0.05, 0),
        lambda: sequential_test(0.1, 0.05, 10, refute_alpha=2.0),
        lambda: sequential_test(0.1, 0.05, 10).decide(*flags("r" * 11)),
        lambda: anytime_interval(*flags("r"), 0.0),
    ):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(ValueError, match="not proven"):
        sequential_test(0.1, 0.05, 10).decide(np.zeros(3, dtype=bool), np.ones(3, dtype=bool))


# ---- the anytime interval


def test_the_interval_holds_nothing_at_first():
    assert anytime_interval(*flags(""), 0.05) == Interval(0.0, 1.0)
    assert anytime_interval(*flags("u" * 50), 0.05) == Interval(0.0, 1.0)


@pytest.mark.parametrize("alpha", [1e-3, 0.05])
def test_the_interval_only_narrows(alpha):
    """With more samples, and with every answer that comes in."""
    random = np.random.default_rng(2)
    row = list("".join(random.choice(list("rrrrrrrv"), size=120)))
    unknown = random.permutation(120)[:40]
    hidden = [("u" if k in set(unknown.tolist()) else letter) for k, letter in enumerate(row)]
    last = Interval(0.0, 1.0)
    for shown in [hidden[:30], hidden[:80], hidden] + [
        ["u" if k in set(unknown[done:].tolist()) else letter for k, letter in enumerate(row)] for done in range(41)
    ]:
        found = anytime_interval(*flags(*shown), alpha)
        assert last.lower <= found.lower <= found.upper <= last.upper
        last = found
    assert 0.0 < last.lower and last.upper < 1.0


def test_the_interval_is_where_the_mixture_is_small():
    """One prefix only: inside, the wealth against p is below 1 / alpha; at the ends it is reached."""
    not_proven, violated = flags("r" * 99, "v")
    found = anytime_interval(not_proven, violated, 0.01)
    for p, inside in [(found.upper, False), (found.upper * 0.999, True), (found.lower * 1.001, True)]:
        t = np.arange(1, 101)
        s = np.cumsum(violated)
        wealth = betaln(s + 0.5, t - s + 0.5) - np.log(np.pi) - s * np.log(p) - (t - s) * np.log1p(-p)
        assert np.all(wealth < -np.log(0.01)) == inside
