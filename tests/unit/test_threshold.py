"""F(eps) from one margin: a probability that is known exactly, rounding, the command."""

import json
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.core.errors import UsageError
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Semantics, Verdict
from formalgr.global_robustness import samples
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.threshold import (
    FirstStage,
    ThresholdOptions,
    failure_bound,
    least_margins,
    mass_outside,
)
from formalgr.search.aims import margin_of
from formalgr.verify.options import VerifyOptions
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


FIRST = FirstStage(low=Fraction(-4), high=Fraction(4))


def study_of_lines() -> Study:
    """LINE after the identity: class 0 has the margin 2 z and fails within eps of z iff z <= eps."""
    return Study({0: chain(1, ([[1]], [0]))}, LINE, "none")


@pytest.mark.parametrize("low", ["-4", "0.0625"])
def test_as_a_first_stage_it_proves_samples_and_changes_no_count(low):
    """Truth and bound: F(1/8) = Phi(1/8), which samples alone estimate, and which holds at confidence 1 - alpha.

    Balls of latents at 1/16 reach beyond a box that begins there, to points of another label.
    """
    options = {"samples": 400, "seed": 3}
    plain = certify(study_of_lines(), "0.125", 0.6, 0.05, CertifyOptions(**options))
    stage = replace(FIRST, low=Fraction(low))
    first = certify(study_of_lines(), "0.125", 0.6, 0.05, CertifyOptions(**options, first=stage))
    assert first.classes[0].counts == plain.classes[0].counts
    assert [one.verdict for one in first.records] == [one.verdict for one in plain.records]
    assert [one.index for one in first.records] == list(range(400))
    truth = NormalDist().cdf(0.125)
    assert first.classes[0].delta_lower <= truth <= first.classes[0].delta_upper
    latents = study_of_lines().prior(0).sample(3, 0, 0, 400)[:, 0]
    failing = int(np.sum(latents <= 0.125))  # plain Monte Carlo: how often the nearest point of the ball is wrong
    assert first.classes[0].counts.violated == failing
    assert "margin above 0.2" in first.notes[-1] and np.any((latents > 0.0625) & (latents <= 0.125))


def test_only_what_the_threshold_leaves_is_checked(monkeypatch):
    """A margin of z > 1/8 proves the sample; the pipeline is asked about the others and those outside of the box."""
    asked = []
    real = samples.verify_batch
    monkeypatch.setattr(samples, "verify_batch", lambda *how: asked.extend(how[1]) or real(*how))
    options = CertifyOptions(samples=300, first=FirstStage(low=Fraction(-1), high=Fraction(1)))
    certify(study_of_lines(), "0.125", 0.6, 0.05, options)
    centers = [float(query.box.lower[0] + query.box.upper[0]) / 2 for query in asked]
    latents = study_of_lines().prior(0).sample(0, 0, 0, 300)[:, 0].astype(float)
    settled = int(np.sum((latents > 0.16) & (latents <= 1.0)))
    assert settled > 50 and len(asked) <= 300 - settled
    assert all(z <= 0.16 or z > 1.0 for z in centers)
    assert sum(z > 1.0 for z in centers) == int(np.sum(latents > 1.0))


def test_failures_that_random_points_show_are_found_behind_a_first_stage():
    """On a plane of digits: every latent that random points of its ball show to fail is counted as violated."""
    study = Study({3: "networks/digits/g_plane_3.onnx"}, "networks/digits/c_32_32.onnx", "none")
    options = CertifyOptions(samples=150, seed=1, first=FirstStage(low=Fraction(-2), high=Fraction(2), seconds=1.0))
    found = certify(study, "0.3", 0.5, 0.05, options)
    latents = study.prior(3).sample(1, 3, 0, 150).astype(np.float64)
    shifts = named_generator(0, "balls").uniform(-0.3, 0.3, size=(20, 1, 2))
    outputs = study.composed(3).graph.evaluate((latents + shifts).reshape(-1, 2)).reshape(20, 150, -1)
    failing = np.nonzero(np.any(np.argmax(outputs, axis=2) != 3, axis=0))[0]
    violated = {one.index for one in found.records if one.verdict is Verdict.VIOLATED}
    assert set(failing.tolist()) <= violated
    assert len(failing) / 150 <= found.classes[0].delta_upper


def test_a_first_stage_gives_no_stronger_proofs_than_asked_for():
    for local in ({"require": Guarantee.EXACT}, {"semantics": Semantics.FLOAT32}, {"solver": "z3"}):
        with pytest.raises(UsageError, match="a margin proves float-sound"):
            CertifyOptions(first=FIRST, local=VerifyOptions(**local))
    with pytest.raises(UsageError, match="low < high"):
        FirstStage(low=Fraction(1), high=Fraction(1))
    with pytest.raises(UsageError, match="> 0 seconds"):
        FirstStage(low=Fraction(0), high=Fraction(1), seconds=0.0)


def test_the_global_command_takes_a_first_stage(capsys):
    plane = ["--generator", "networks/digits/g_plane_{class}.onnx", "--classifier", "networks/digits/c_32_32.onnx"]
    words = ["global", *plane, "--class", "3", "--epsilon", "0.05", "--delta", "0.1", "-n", "60", "--quiet"]
    assert main([*words, "--between", "none", "--margin-box=-2,2", "--margin-seconds", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert any("keep their label" in note for note in document["notes"])
    for more, told in (
        (["--margin-box", "2"], "--margin-box takes LOW,HIGH"),
        (["--margin-box=-2,2", "--hybrid"], "goes with a claim from samples"),
    ):
        assert main([*words, *more]) == 2
        assert told in capsys.readouterr().err


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
