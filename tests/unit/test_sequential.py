"""Sequential decisions: exact operating points against the published ones, errors, futility, the anytime interval."""

import numpy as np
import pytest

from formalgr.global_robustness.sequential import CertifyRule, sequential_test

MOST, ALPHA = 10_000, 1e-3


def operating_point(certify_at: np.ndarray, rate: float) -> tuple[float, float]:
    """(expected number of samples, chance to stop) of the rule S_t <= certify_at[t], failures at `rate`, exactly."""
    alive, first, expected, stopped = np.ones(1), 0, 0.0, 0.0
    for bound in certify_at[1:].tolist():
        expected += alive.sum()
        alive = np.append(alive * (1.0 - rate), 0.0) + np.append(0.0, alive * rate)
        cut = max(0, bound + 1 - first)
        stopped += alive[:cut].sum()
        alive, first = alive[cut:], first + cut
    return expected, stopped


@pytest.fixture(scope="module", params=[0.05, 0.01])
def tests_of(request):
    delta = request.param
    return {rule: sequential_test(delta, ALPHA, MOST, rule) for rule in CertifyRule}


EXPECTED = {
    (0.05, CertifyRule.SPENDING): {0.0: 175.0, 0.01: 345.3, 0.02: 686.4, 0.03: 1614.4},
    (0.01, CertifyRule.SPENDING): {0.0: 813.0, 0.001: 1153.1, 0.002: 1607.4, 0.004: 3193.5},
    (0.05, CertifyRule.MIXTURE): {0.0: 158, 0.01: 305, 0.02: 642, 0.03: 1689},
    (0.01, CertifyRule.MIXTURE): {0.0: 804, 0.001: 1117, 0.002: 1565, 0.004: 3314},
}


@pytest.mark.parametrize("rule", CertifyRule)
def test_expected_numbers_of_samples_are_the_published_ones(tests_of, rule):
    """STATISTICS section 4: to the printed digits."""
    test = tests_of[rule]
    for rate, expected in EXPECTED[test.delta, rule].items():
        assert round(operating_point(test.certify_at, rate)[0], 1 if isinstance(expected, float) else 0) == expected


def test_spending_uses_alpha_up(tests_of):
    """The largest numbers of failures and the exact errors of STATISTICS section 4."""
    test = tests_of[CertifyRule.SPENDING]
    error = operating_point(test.certify_at, test.delta)[1]
    last, spent = {0.05: (418, 0.000999339), 0.01: (64, 0.000998778)}[test.delta]
    assert test.certify_at[-1] == last
    assert round(error, 9) == spent and error <= test.spent <= ALPHA
