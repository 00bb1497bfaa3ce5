"""The default pipeline against exact enumeration on random tiny networks: verdicts must be true.

Thresholds lie at the exact minimum and one unit in the last place beside it, boxes have corners on kinks, weights are
near zero, biases cancel. Thousands of cases: python -m tests.crosscheck.fuzz_campaign.
"""

from collections.abc import Iterable

import pytest

from formalgr.core.verdict import Semantics
from tests.fuzz import judge, read_network
from tests.random_queries import draw_case

pytestmark = pytest.mark.filterwarnings(
    # weights at the ends of the range of float64: bounds overflow and are then errors, not verdicts
    "ignore:overflow encountered:RuntimeWarning",
    "ignore:invalid value encountered:RuntimeWarning",
)


def _decided(seed: int, indices: Iterable[int], semantics: Semantics) -> float:
    """The decided share of the questions of these cases; a wrong verdict fails."""
    decided = asked = 0
    for index in indices:
        case = draw_case(seed, index, semantics is Semantics.FLOAT32)
        network, _ = read_network(case.network)
        for place, finding in enumerate(judge(case, network, semantics)):
            assert finding.wrong is None, f"seed {seed}, case {index}, question {place}: {finding.wrong}"
            decided, asked = decided + finding.decided, asked + 1
    return decided / asked


def test_verdicts_are_true():
    # what stays open: ties in networks with an irrational BatchNormalization
    assert _decided(11, range(20), Semantics.REAL) > 0.9


def test_contraction_by_minima_of_unsafe_points_was_wrong():
    """A minimum that holds at unsafe points alone is no end from which a form rises."""
    assert _decided(20261122, [25, 30, 39], Semantics.REAL) > 0.9


def test_verdicts_are_true_in_float32():
    # thresholds within what float32 may err by are drawn on purpose
    assert _decided(12, range(6), Semantics.FLOAT32) > 0.3


@pytest.mark.slow
def test_verdicts_are_true_on_many_networks():
    assert _decided(13, range(300), Semantics.REAL) > 0.9
    assert _decided(14, range(100), Semantics.FLOAT32) > 0.3
