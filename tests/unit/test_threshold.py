"""F(eps) from one margin: a probability that is known exactly, rounding, the command."""

import json
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.core.errors import UsageError
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.threshold import ThresholdOptions, failure_bound, least_margins, mass_outside
from formalgr.search.aims import margin_of
from formalgr.verify.twin import TwinOptions
from tests.instances import chain as write_chain
from tests.zoo import box, chain

LINE = chain(1, ([[1], [-1]], [0, 0]))
"""Label 0 for z > 0, margin 2 z: the ball of radius eps around z fails iff z <= eps."""


def test_the_bound_holds_and_is_near_the_truth():
    options = ThresholdOptions(samples=20_000, twin=TwinOptions(tolerance=0.001))
    found = failure_bound(LINE, 0, box((-4, 4)), "0.125", LatentPrior(1), options)
    truth = NormalDist().cdf(0.125)
    assert found.bracket.reason is None and found.bracket.upper <= Fraction(251, 1000)
    assert truth <= found.upper <= truth + 0.02
    assert 2 * NormalDist().cdf(-4.0) <= found.outside <= 2 * NormalDist().cdf(-4.0) * 1.01


def test_what_lies_outside_counts():
    """A box that holds a third of the mass: the rest counts as failing, whatever its margin."""
    options = ThresholdOptions(samples=2_000, twin=TwinOptions(tolerance=0.01))
    found = failure_bound(LINE, 0, box((0, 1)), "0.125", LatentPrior(1), options)
    normal = NormalDist()
    assert found.outside >= 1.0 - (normal.cdf(1.0) - 0.5) and found.upper > found.outside
    assert found.open <= 0.07 * 2_000


@pytest.mark.parametrize("interval", [None, (Fraction(-1), Fraction(1))])
def test_mass_outside_is_an_upper_bound(interval):
    prior = LatentPrior(2, interval)
    inside = (2 * NormalDist().cdf(0.5) - 1) ** 2 if interval is None else 0.25
    assert 1.0 - inside <= mass_outside(prior, box(("-0.5", "0.5"), ("-0.5", "0.5"))) <= 1.0 - inside + 1e-6
    assert mass_outside(prior, box((0, 0), (0, 1))) == 1.0


def test_margins_of_samples_are_lower_bounds():
    points = np.linspace(-1.0, 1.0, 9, dtype=np.float32)[:, None]
    found = least_margins(LINE, margin_of(0, 2).matrix, points)
    truth = 2.0 * points[:, 0].astype(np.float64)
    assert np.all(found <= truth) and np.all(found >= truth - 1e-12)


def test_bad_numbers_are_refused():
    for bad in ({"alpha": 0.0}, {"alpha": 1.0}, {"samples": 0}):
        with pytest.raises(UsageError):
            ThresholdOptions(**bad)


def test_the_command_bounds_failures(tmp_path, capsys):
    generator = str(write_chain(tmp_path / "g.onnx", [("MatMul", np.array([[1.0, -1.0]]))], 1, 2))
    classifier = str(write_chain(tmp_path / "c.onnx", [("MatMul", np.eye(2))], 2, 2))
    words = ["twin", "--generator", generator, "--classifier", classifier, "--domain=-4,4", "--delta", "0.125"]
    assert main([*words, "--margin", "0", "--samples", "2000", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert 0.55 <= document["failures"]["upper"] <= 0.63 and document["failures"]["samples"] == 2000
    assert main([*words, "--margin", "0", "--samples", "500"]) == 0
    assert "P(another label within 0.125) <= 0." in capsys.readouterr().out
    assert main([*words, "--samples", "500"]) == 2
    assert "give --generator and --margin too" in capsys.readouterr().err
