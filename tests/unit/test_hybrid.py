"""Proven regions and samples of what they leave open: bounds against closed forms, fixed regions, who draws what."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from formalgr.cli.main import main
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused, UsageError
from formalgr.core.verdict import Guarantee, Reason
from formalgr.global_robustness.hybrid import HybridOptions, OpenLatents, RegionChecker, hybrid_mass
from formalgr.global_robustness.latent_mass import MassOptions, latent_mass
from formalgr.global_robustness.mass import Measure
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.samples import Unit
from tests.studies import cube_study, identity, study, within_diamond

COARSE = MassOptions(gap=0.2)
"""Regions that leave much open, for samples to decide."""


@pytest.mark.parametrize("interval", [None, (Fraction(-1), Fraction(2))])
def test_latents_of_regions_follow_the_prior_within_them(interval):
    """Shares of sub-boxes against their masses: with 3000 draws none is off by five standard deviations."""
    measure, draws = Measure(LatentPrior(2, interval)), 3000
    boxes = Box(np.array([[-3.0, -1.0], [0.5, 0.0], [0.5, 2.0]]), np.array([[0.0, 1.0], [0.75, 2.0], [4.0, 4.0]]))
    latents = OpenLatents(measure, boxes).at(7, 1, range(draws))
    assert latents.dtype == np.float32
    total = measure.of(boxes).total().upper
    seen = 0
    for low, high in zip(boxes.lower, boxes.upper, strict=True):
        halves = [(low[k], 0.5 * (low[k] + high[k]), high[k]) for k in (0, 1)]
        for (a, b), (c, d) in itertools.product(*(itertools.pairwise(half) for half in halves)):
            share = measure.of(Box(np.array([[a, c]]), np.array([[b, d]]))).upper[0] / total
            inside = np.all((latents >= [a, c]) & (latents <= [b, d]), axis=1)
            assert abs(np.mean(inside) - share) <= 5.0 * math.sqrt(share / draws) + 1e-9
            seen += int(np.sum(inside))
    assert seen == draws


@pytest.mark.parametrize("interval", [None, (Fraction(-1), Fraction(1, 3))])
def test_the_exact_latent_is_proven_to_be_near(interval):
    """Inverse of the distribution function and rounding to float32 are enclosed, in wide, narrow and far boxes."""
    boxes = Box(np.array([[-3.0, -1.0], [0.2, 0.0], [0.1, 0.0], [5.0, 5.5]]),
                np.array([[0.0, 1.0], [0.25, 2.0], [0.1001, 7.0], [7.5, 6.0]]))
    latents = OpenLatents(Measure(LatentPrior(2, interval)), boxes[:3] if interval else boxes)
    assert latents.surely_near(7, 1, range(400)).all()
    box, shares = latents._drawn(7, 1, range(400))
    points = latents.at(7, 1, range(400)).astype(np.float64)
    assert not latents.measure.surely_within(box, shares, points, 1e-10).all()
    assert not latents.measure.surely_within(box, shares, points + 3e-6, float(latents.move)).any()
    if interval:
        for k in range(0, 400, 40):
            for axis in (0, 1):
                ends = Fraction(box.lower[k, axis]), Fraction(box.upper[k, axis])
                start, stop = (max(interval[0], min(interval[1], end)) for end in ends)
                exact = start + Fraction(shares[k, axis]) * (stop - start)
                assert abs(exact - Fraction(points[k, axis])) <= latents.move


def test_how_boxes_are_drawn_is_compared_with_what_they_weigh():
    edges = np.linspace(-4.0, 4.0, 2001)
    boxes = Box(edges[:-1, None], edges[1:, None])
    assert OpenLatents(Measure(LatentPrior(1)), boxes).imbalance() < 1e-11

    class Crooked(Measure):
        def about(self, box):
            return super().about(box) * np.where(box.lower[:, 0] < 0.0, 1.0, 1.1)

    assert OpenLatents(Crooked(LatentPrior(1)), boxes).imbalance() > 0.02


@pytest.mark.parametrize(
    "step, verdict", [(-2, "HOLDS"), (Fraction(-1, 2), "UNKNOWN"), (Fraction(1, 2), "UNKNOWN"), (2, "VIOLATED")]
)
def test_what_rounding_a_latent_could_change_is_unknown(tmp_path, step, verdict):
    """The radius of a latent, give or take half and twice what it may have been moved."""
    square, boxes = cube_study(tmp_path, 2, 2.0, labels=(1,)), Box(np.array([[0.5, 0.5]]), np.array([[1.0, 1.0]]))
    latents = OpenLatents(Measure(LatentPrior(2)), boxes)
    radius = 2 - Fraction(float(np.max(np.abs(latents.at(0, 1, [3])))))
    checker = RegionChecker(square, {1: latents}, radius + step * latents.move, HybridOptions())
    (record,) = checker(Unit(1, (3,)))
    assert record.verdict.name == verdict
    assert (record.reason is Reason.NUMERICS) == (verdict == "UNKNOWN")


def test_at_radius_0_a_latent_has_to_be_wrong_all_around(tmp_path):
    """Within the cube, outside of it, and on a wall that no float32 number resolves."""
    square, wall = cube_study(tmp_path, 1, 2.0, labels=(1,)), 2.0
    for low, high, verdict in ((1.0, 1.5, "HOLDS"), (2.5, 3.0, "VIOLATED"), (wall - 1e-9, wall + 1e-9, "UNKNOWN")):
        latents = OpenLatents(Measure(LatentPrior(1)), Box(np.array([[low]]), np.array([[high]])))
        records = RegionChecker(square, {1: latents}, Fraction(0), HybridOptions())(Unit(1, (0, 1, 2)))
        assert {record.verdict.name for record in records} == {verdict}


def test_a_latent_depends_on_its_index_alone():
    latents = OpenLatents(Measure(LatentPrior(2)), Box(np.array([[1.0, -1.0]]), np.array([[2.0, 1.0]])))
    many = latents.at(3, 1, range(20))
    assert np.array_equal(latents.at(3, 1, [17, 4]), many[[17, 4]])
    assert not np.array_equal(latents.at(3, 2, range(20)), many)
    assert not np.array_equal(latents.at(4, 1, range(20)), many)


@pytest.mark.parametrize("latent, tau, epsilon", [(2, 2.0, "0.1"), (5, 2.5, "0.1")])
def test_bounds_of_a_cube_hold(tmp_path, latent, tau, epsilon):
    """F = 1 - (2 Phi(tau - eps) - 1)^p; p = 5 is beyond proven mass alone."""
    options = HybridOptions(regions=COARSE, region_seconds=1.0, samples=150, seed=5)
    found = hybrid_mass(cube_study(tmp_path, latent, tau, labels=(1,)), epsilon, options)
    (one,) = found.classes
    truth = 1.0 - (2 * norm.cdf(tau - float(epsilon)) - 1) ** latent
    assert one.lower <= truth <= one.upper
    assert one.upper - one.lower < one.found.gap, "samples narrow what regions leave"
    assert one.found.lower <= one.lower and one.upper <= one.found.upper
    assert one.drawn.counts.samples == 150 and one.drawn.counts.unknown == 0
    assert found.alpha == 1e-3 and found.guarantee is Guarantee.FLOAT_SOUND and found.verdict is None


def test_both_bounds_by_hand(tmp_path):
    """m_F + u * Clopper-Pearson, from the masses and the counts of the result."""
    found = hybrid_mass(
        study(tmp_path, {1: identity(2)}, within_diamond(2.0)), "0.1", HybridOptions(regions=COARSE, samples=100)
    )
    (one,) = found.classes
    failing, open_, counts = one.found.failing, one.found.open_, one.drawn.counts
    assert one.upper == pytest.approx(failing.upper + open_.upper * counts.delta_upper(1e-3), abs=1e-9)
    assert one.lower == pytest.approx(failing.lower + open_.lower * counts.delta_lower(1e-3), abs=1e-9)
    assert one.upper > failing.upper + open_.upper * counts.delta_upper(1e-3)
    assert one.lower < failing.lower + open_.lower * counts.delta_lower(1e-3)


def test_regions_that_leave_nothing_open_need_no_sample(tmp_path):
    problem = study(tmp_path, {1: identity(2)}, within_diamond(40.0))
    (one,) = hybrid_mass(problem, "0.1", HybridOptions(samples=10)).classes
    assert one.drawn.counts.samples == 0 and one.upper <= 1e-12


def test_samples_not_reached_count_against_the_claim(tmp_path):
    options = HybridOptions(regions=MassOptions(delta=0.5), samples=400)
    (one,) = hybrid_mass(cube_study(tmp_path, 2, 2.0, labels=(1,)), "0.1", options, Budget(0.0)).classes
    assert one.drawn.counts.unknown == one.drawn.counts.samples == 400
    assert one.lower == 0.0 and one.upper == 1.0 and one.verdict is GlobalVerdict.UNDECIDED


def test_sampled_regions_stay_fixed(tmp_path):
    """The partition may be refined later; the same call finds the same regions, other settings are refused."""
    problem = cube_study(tmp_path / "nets", 2, 2.0, labels=(1,))
    kept = MassOptions(gap=0.2, directory=tmp_path / "run")
    first = hybrid_mass(problem, "0.1", HybridOptions(regions=kept, samples=50))
    finer = latent_mass(problem, "0.1", MassOptions(gap=0.05, directory=tmp_path / "run"))
    assert finer.classes[0].found.gap < first.classes[0].found.gap
    again = hybrid_mass(problem, "0.1", HybridOptions(regions=kept, samples=50))
    assert again.classes[0].drawn == first.classes[0].drawn
    assert (again.classes[0].lower, again.classes[0].upper) == (first.classes[0].lower, first.classes[0].upper)
    for change in ({"samples": 60}, {"seed": 1}, {"alpha": 0.01}):
        with pytest.raises(Refused, match=next(iter(change))):
            hybrid_mass(problem, "0.1", HybridOptions(**{"regions": kept, "samples": 50, **change}))
    with pytest.raises(Refused, match="epsilon = 1/10"):
        hybrid_mass(problem, "0.2", HybridOptions(regions=kept, samples=50))


def test_bad_values_are_refused():
    for change in ({"samples": 0}, {"jobs": 0}, {"seed": -1}, {"alpha": 1.0}, {"region_seconds": -1.0}):
        with pytest.raises(UsageError):
            HybridOptions(**change)


# ---- the command line


@pytest.fixture
def words(tmp_path):
    cube_study(tmp_path / "nets", 2, 2.0, labels=(1,))
    nets = tmp_path / "nets"
    model = ["--generator", str(nets / "g_1.onnx"), "--classifier", str(nets / "c.onnx"), "--class", "1"]
    return ["global", *model, "--epsilon", "0.1", "--quiet"]


def test_mass_on_the_command_line(words, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*words, "--mass", "--gap", "0.02", "--json", "--out", str(out), "--max-epsilon", "0.2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "formalgr.global/1" and document["mode"] == "mass"
    assert document["verdict"] is document["alpha"] is document["confidence"] is None
    assert document["guarantee"] == "float-sound"
    (row,) = document["classes"]
    assert row["delta_lower"] <= 1.0 - (2 * norm.cdf(1.9) - 1) ** 2 <= row["delta_upper"]
    assert row["gap"] <= 0.02 and row["samples"] == 0
    assert row["failing_mass"] + row["robust_mass"] + row["open_mass"] == pytest.approx(1.0, abs=1e-9)
    (curve,) = document["frontier"]
    assert len(curve["epsilon"]) == 21 == len(curve["lower"]) == len(curve["upper"]) and curve["epsilon"][-1] == 0.2
    assert (out / "proven_frontier.svg").read_bytes().startswith(b"<?xml")
    assert json.loads((out / "result.json").read_text()) == document
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (out / f"latent_plane_1.{kind}").read_bytes().startswith(start)


def test_a_decided_claim_on_the_command_line(words, capsys):
    assert main([*words, "--mass", "--delta", "0.2", "--exit-code"]) == 0
    text = capsys.readouterr().out
    assert "CERTIFIED without sampling" in text and "no confidence level" in text
    assert main([*words, "--mass", "--delta", "0.02", "--exit-code"]) == 10
    assert "REFUTED without sampling" in capsys.readouterr().out


def test_hybrid_on_the_command_line(words, tmp_path, capsys):
    assert main([*words, "--hybrid", "--gap", "0.2", "-n", "60", "--delta", "0.3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["mode"] == "hybrid" and document["confidence"] == 0.999
    assert document["verdict"] == GlobalVerdict.CERTIFIED.value
    (row,) = document["classes"]
    assert row["samples"] == 60 == row["robust"] + row["violated"] + row["unknown"]
    told = []
    for _ in range(2):  # the second time from what the first one kept
        more = ["--gap", "0.2", "-n", "60", "--delta", "0.11", "--max-epsilon", "0.2", "--out", str(tmp_path / "run")]
        assert main([*words, "--hybrid", *more]) == 0
        told.append(capsys.readouterr().out)
        assert "UNDECIDED at confidence 99.9%" in told[-1] and "open mass alone" in told[-1]
    assert told[0].splitlines()[:8] == told[1].splitlines()[:8]


@pytest.mark.parametrize(
    "more, told",
    [
        (["--mass", "--hybrid"], "give one of them"),
        (["--hybrid", "--frontier"], "--frontier draws a curve"),
        (["--mass", "--semantics", "float32"], "--semantics float32"),
        (["--mass", "--require", "exact"], "--require exact"),
        (["--mass", "--epsilon", "9"], "epsilon must be below 8"),
        (["--mass", "--gap", "2"], "--gap"),
    ],
)
def test_bad_words_are_refused(words, more, told, capsys):
    assert main([*words, *more]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and not captured.out and captured.err.count("\n") == 1
