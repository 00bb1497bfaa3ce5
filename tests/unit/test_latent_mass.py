"""Proven latent mass: outward masses, unions of enlarged boxes, and F(eps) against closed forms on tiny networks."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused, UsageError
from formalgr.global_robustness.cover import cover, enlarged
from formalgr.global_robustness.latent_mass import LatentMass, MassOptions, latent_mass
from formalgr.global_robustness.mass import Measure, _normal, normal_tails
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.study import Study
from tests.studies import cube_study, identity, study, within_diamond
from tests.zoo import chain

NORMAL_PLANE = Measure(LatentPrior(2))
UNIFORM_PLANE = Measure(LatentPrior(2, (Fraction(-1, 3), Fraction(2))))


# ---- masses


def test_tails_are_enclosed_narrowly():
    points = np.array([0.0, 1e-300, 1e-5, 0.5, 1.0, 2.3, 5.0, 7.9, 10.0])
    lower, upper = normal_tails(points).T
    assert np.all(lower < upper) and np.all(upper <= lower * (1.0 + 1e-15))
    assert np.all(lower * (1.0 - 1e-13) <= norm.sf(points)) and np.all(norm.sf(points) <= upper * (1.0 + 1e-13))
    assert np.all(normal_tails(np.array([40.0])) == [0.0, 5e-324])


def test_masses_are_rounded_outward():
    """Against balls of 200 bits, intervals that touch 0, are tiny, or lie far out included."""
    flint = pytest.importorskip("flint")
    random = np.random.default_rng(0)
    ends = np.sort(random.choice([-7.5, -3.0, -1.0, -1e-9, 0.0, 0.3, 1.0, 2.0, 6.5, 8.0], (200, 2, 2)), axis=1)
    box = Box(ends[:, 0], ends[:, 1])
    found = NORMAL_PLANE.of(box)
    with flint.ctx.workprec(200):
        root = flint.arb(2).sqrt()
        share = [
            [((flint.arb(b) / root).erf() - (flint.arb(a) / root).erf()) / 2 for a, b in zip(*pair, strict=True)]
            for pair in zip(box.lower.tolist(), box.upper.tolist(), strict=True)
        ]
        for k, (first, second) in enumerate(share):
            assert flint.arb(found.lower[k]) <= first * second or found.lower[k] == 0.0
            assert first * second <= flint.arb(found.upper[k])
            assert found.upper[k] - found.lower[k] <= 1e-15


def test_products_of_axes_are_rounded_outward():
    ends = np.sort(np.random.default_rng(1).normal(size=(2, 200, 2)), axis=0)
    box = Box(ends[0], ends[1])
    found, (lower, upper) = NORMAL_PLANE.of(box), _normal(box)
    for k in range(len(box)):
        assert Fraction(found.lower[k]) <= Fraction(lower[k, 0]) * Fraction(lower[k, 1])
        assert Fraction(upper[k, 0]) * Fraction(upper[k, 1]) <= Fraction(found.upper[k])


@pytest.mark.parametrize("measure", [NORMAL_PLANE, UNIFORM_PLANE])
def test_masses_of_a_partition_add_up_to_one(measure):
    whole = measure.whole(Fraction(0))
    edges = np.concatenate([np.linspace(whole.lower[0, 0], whole.upper[0, 0], 80), [0.1, 0.3]])
    edges = np.unique(edges)
    lower, upper = (np.array(list(itertools.product(part, part))) for part in (edges[:-1], edges[1:]))
    total = measure.of(Box(lower, upper)).total()
    assert total.lower <= 1.0 <= total.upper + measure.outside(whole)
    assert total.upper - total.lower < 1e-12 and measure.outside(whole) < 1e-14
    about = np.sum(measure.about(Box(lower, upper)))
    assert math.isclose(about, 1.0, rel_tol=1e-12)


# ---- unions of enlarged boxes


@pytest.mark.parametrize("epsilon", [Fraction(1, 10), Fraction(1, 3), Fraction(1, 4), Fraction(1, 10**30)])
def test_boxes_are_enlarged_outward_and_inward(epsilon):
    ends = np.sort(np.random.default_rng(0).normal(size=(2, 200, 1)), axis=0)
    box = Box(np.concatenate([ends[0], [[0.5]]]), np.concatenate([ends[1], [[0.5]]]))  # one is a point
    outer, inner = enlarged(box, epsilon, outward=True), enlarged(box, epsilon, outward=False)
    for k in range(len(box)):
        low, high = Fraction(box.lower[k, 0]) - epsilon, Fraction(box.upper[k, 0]) + epsilon
        assert Fraction(outer.lower[k, 0]) <= low <= high <= Fraction(outer.upper[k, 0])
        assert outer.upper[k, 0] - outer.lower[k, 0] <= float(high - low) + 1e-14
    lows = {Fraction(x) - epsilon: Fraction(y) + epsilon for x, y in zip(box.lower[:, 0], box.upper[:, 0], strict=True)}
    assert len(inner) >= len(box) - 1
    for low, high in zip(inner.lower[:, 0].tolist(), inner.upper[:, 0].tolist(), strict=True):
        assert any(a <= low and high <= b for a, b in lows.items())


def _random_boxes(random: np.random.Generator, number: int, axes: int) -> Box:
    lower = random.integers(-24, 24, (number, axes)) / 8.0
    return Box(lower, lower + random.integers(0, 9, (number, axes)) / 8.0)


@pytest.mark.parametrize("axes, epsilon", [(1, "1/10"), (2, "0"), (2, "1/10"), (2, "1/4"), (3, "1/3")])
def test_cells_of_a_cover_are_what_they_are_called(axes, epsilon):
    """Every cell's center is judged in exact arithmetic; volumes add up, so that no part is missing or doubled."""
    random, eps = np.random.default_rng(axes), Fraction(epsilon)
    wrong, open_ = _random_boxes(random, 12, axes), _random_boxes(random, 9, axes)
    whole = Box(np.full((1, axes), -4.0), np.full((1, axes), 4.0))
    found = cover(whole, wrong, open_, eps)
    volume = 0.0

    def near(boxes: Box, point: list[Fraction]) -> bool:
        ends = zip(boxes.lower.tolist(), boxes.upper.tolist(), strict=True)
        return any(
            all(Fraction(a) - eps < x < Fraction(b) + eps for a, x, b in zip(low, point, high, strict=True))
            for low, high in ends
        )

    for name in ("failing", "robust", "open_"):
        cells = getattr(found, name)
        volume += np.sum(np.prod(cells.upper - cells.lower, axis=1))
        for center, width in zip(cells.center, np.min(cells.upper - cells.lower, axis=1), strict=True):
            if width > 1e-9:
                point = [Fraction(x) for x in center.tolist()]
                truth = "failing" if near(wrong, point) else "open_" if near(open_, point) else "robust"
                assert name == truth
    assert len(found.failing) and len(found.open_) and len(found.robust)
    assert math.isclose(volume, 8.0**axes, rel_tol=1e-12)


def test_a_cover_made_in_pieces_is_the_same():
    random = np.random.default_rng(7)
    wrong, open_ = _random_boxes(random, 40, 2), _random_boxes(random, 40, 2)
    whole = Box(np.full((1, 2), -4.0), np.full((1, 2), 4.0))
    at_once, in_pieces = (cover(whole, wrong, open_, Fraction(1, 10), most) for most in (1 << 20, 30))
    for name in ("failing", "robust", "open_"):
        one, other = (
            np.unique(np.concatenate([getattr(found, name).lower, getattr(found, name).upper], axis=1), axis=0)
            for found in (at_once, in_pieces)
        )
        assert np.array_equal(one, other) and len(one)


# ---- closed forms (docs/statistics.md section 8)


def _check(found: LatentMass, label: int, probability: float, gap: float) -> None:
    (one,) = (one for one in found.classes if one.label == label)
    assert one.found.lower <= probability + 1e-12 and probability - 1e-12 <= one.found.upper
    assert one.found.gap <= gap
    parts = (one.found.failing, one.found.robust, one.found.open_)
    assert sum(part.lower for part in parts) <= 1.0 <= sum(part.upper for part in parts) + one.found.beyond


@pytest.mark.parametrize("epsilon", ["0", "0.25"])
def test_linear(tmp_path, epsilon):
    """s(G(z)) = g.z + mu > 0 is class 1: F = Phi((eps ||g||_1 - mu) / ||g||_2)."""
    a, w, mu = np.array([[1.0, 0.5], [-0.25, 1.0]]), np.array([1.0, -0.5]), 1.5
    g = a.T @ w
    problem = study(tmp_path, dict.fromkeys((0, 1), chain(2, (a, [0.0, 0.0]))), chain(2, ([-w, w], [-mu, mu])))
    found = latent_mass(problem, epsilon, MassOptions(gap=0.04))
    for label, sign in ((0, -1), (1, 1)):
        reach = float(epsilon) * np.sum(np.abs(g))
        _check(found, label, norm.cdf((reach - sign * mu) / np.linalg.norm(g)), 0.04)


def test_three_classes(tmp_path):
    """Two margins at once, g_j . z + c_j: F is one minus the probability that both exceed eps ||g_j||_1."""
    w, bias, eps = np.array([[1.0, 0.5], [-0.5, 1.0], [-0.75, -1.0]]), np.array([0.5, 0.25, -0.25]), 0.125
    problem = study(tmp_path, dict.fromkeys(range(3), identity(2)), chain(2, (w, bias)))
    found = latent_mass(problem, "0.125", MassOptions(gap=0.06))
    for label in range(3):
        others = [other for other in range(3) if other != label]
        g, c = w[label] - w[others], bias[label] - bias[others]
        mean = c - eps * np.sum(np.abs(g), axis=1)
        right = multivariate_normal(-mean, g @ g.T).cdf([0.0, 0.0])  # P(both > 0) of N(m, S) is P(both < 0) of N(-m, S)
        _check(found, label, 1.0 - right, 0.06)


@pytest.mark.parametrize(
    "latent, tau, epsilon, gap", [(1, 1.5, "0.1", 1e-6), (2, 2.0, "0.1", 0.02), (3, 1.5, "0.2", 0.3)]
)
def test_a_cube(tmp_path, latent, tau, epsilon, gap):
    """Class 1 iff max |z_j| < tau: F_1 = 1 - max(0, 2 Phi(tau - eps) - 1)^p and F_0 = (2 Phi(tau + eps) - 1)^p."""
    found = latent_mass(cube_study(tmp_path, latent, tau), epsilon, MassOptions(gap=gap))
    eps = float(epsilon)
    _check(found, 1, 1.0 - max(0.0, 2 * norm.cdf(tau - eps) - 1) ** latent, gap)
    _check(found, 0, (2 * norm.cdf(tau + eps) - 1) ** latent, gap)


def test_a_diamond(tmp_path):
    """Class 1 iff |z_1| + |z_2| < tau: F = 1 - max(0, 2 Phi((tau - 2 eps) / sqrt 2) - 1)^2."""
    found = latent_mass(study(tmp_path, {1: identity(2)}, within_diamond(2.0)), "0.1", MassOptions(gap=0.04))
    _check(found, 1, 1.0 - (2 * norm.cdf((2.0 - 0.2) / math.sqrt(2)) - 1) ** 2, 0.04)


def test_a_uniform_prior_s_balls_reach_beyond_its_box(tmp_path):
    """U(-1, 1)^2 in the cube of half-width .9, eps .05: F = 1 - .85^2; with half-width 1.02 only the rim fails."""
    for tau, expected in ((0.875, 1.0 - 0.825**2), (1.0 + 1 / 64, 1.0 - (1.0 + 1 / 64 - 0.05) ** 2)):
        problem = cube_study(tmp_path / str(tau), 2, tau, labels=(1,), latent_prior="uniform:-1,1")
        _check(latent_mass(problem, "0.05", MassOptions(gap=0.02)), 1, expected, 0.02)


@pytest.mark.parametrize("margin, expected", [(1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)])
def test_a_constant_classifier(tmp_path, margin, expected):
    problem = study(tmp_path, {0: identity(2)}, chain(2, (np.zeros((2, 2)), [margin, 0.0])))
    for epsilon in ("0", "0.5"):
        _check(latent_mass(problem, epsilon), 0, expected, 1e-12)


def test_balls_that_leave_the_partition_prove_nothing(tmp_path):
    """Nothing is known of latents beyond 8: with eps 7 only those within 1 of the origin count as robust."""
    problem = study(tmp_path, {0: identity(2)}, chain(2, (np.zeros((2, 2)), [1.0, 0.0])))
    (one,) = latent_mass(problem, "7").classes
    assert one.lower == 0.0 and one.upper == pytest.approx(1.0 - (2 * norm.cdf(1.0) - 1) ** 2, abs=1e-9)


def test_a_constant_generator(tmp_path):
    problem = study(tmp_path, {1: chain(2, (np.zeros((2, 2)), [0.5, 0.5]))}, within_diamond(2.0))
    _check(latent_mass(problem, "0.5"), 1, 0.0, 1e-12)


# ---- the run


def test_a_claim_ends_the_run_as_soon_as_it_is_decided(tmp_path):
    problem = cube_study(tmp_path, 2, 2.0, labels=(1,))  # F(.1) = 0.1116
    for delta, verdict in ((0.2, GlobalVerdict.CERTIFIED), (0.05, GlobalVerdict.REFUTED)):
        found = latent_mass(problem, "0.1", MassOptions(delta=delta))
        assert found.verdict is found.classes[0].verdict is verdict
        assert found.classes[0].found.gap > 1e-3
    assert latent_mass(problem, "0.1").verdict is None


def test_a_spent_budget_leaves_bounds_that_hold(tmp_path):
    ticks = iter(range(10**9))
    problem = cube_study(tmp_path, 2, 2.0)
    for seconds in (0.0, 40.0):
        found = latent_mass(problem, "0.1", budget=Budget(seconds, clock=lambda: float(next(ticks))))
        _check(found, 1, 1.0 - (2 * norm.cdf(1.9) - 1) ** 2, 1.0)
        _check(found, 0, (2 * norm.cdf(2.1) - 1) ** 2, 1.0)


def test_a_run_goes_on_from_its_ledger_at_any_epsilon(tmp_path):
    problem = study(tmp_path / "nets", {1: identity(2)}, within_diamond(2.0))
    first = latent_mass(problem, "0.1", MassOptions(gap=0.06, directory=tmp_path / "run"))
    again = latent_mass(problem, "0.1", MassOptions(gap=0.06, directory=tmp_path / "run"))
    assert again.classes[0].bounded == 0 < first.classes[0].bounded
    assert again.classes[0].found.gap <= first.classes[0].found.gap * (1 + 1e-9)
    other = latent_mass(problem, "0.2", MassOptions(gap=0.1, directory=tmp_path / "run"))
    _check(other, 1, 1.0 - (2 * norm.cdf(1.6 / math.sqrt(2)) - 1) ** 2, 0.1)
    with pytest.raises(Refused, match="networks"):
        latent_mass(cube_study(tmp_path / "else", labels=(1,)), "0.1", MassOptions(directory=tmp_path / "run"))


def test_one_partition_bounds_every_radius(tmp_path):
    """Proven bounds at several radii contain F and rise; those between follow from them."""
    options = MassOptions(gap=0.1, radii=("0.4", "0", "0.1", "0.2"))
    (one,) = latent_mass(study(tmp_path, {1: identity(2)}, within_diamond(2.0)), "0.1", options).classes
    radii, lower, upper = zip(*one.curve, strict=True)
    assert radii == tuple(map(Fraction, ("0", "0.1", "0.2", "0.4")))
    for eps, low, high in one.curve:
        truth = 1.0 - (2 * norm.cdf((2.0 - 2 * float(eps)) / math.sqrt(2)) - 1) ** 2
        assert low <= truth <= high and high - low < 0.2
    assert list(lower) == sorted(lower) and list(upper) == sorted(upper)
    with pytest.raises(UsageError, match="epsilon must be below 8"):
        MassOptions(radii=("9",))


def test_what_is_interrupted_is_kept(tmp_path):
    problem = study(tmp_path / "nets", {1: identity(2)}, within_diamond(2.0))
    notes = []

    def interrupt(tick):
        notes.append(tick.note)
        if len(notes) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latent_mass(problem, "0.1", MassOptions(directory=tmp_path / "run"), progress=interrupt)
    found = latent_mass(problem, "0.1", MassOptions(gap=0.9, directory=tmp_path / "run"))
    assert found.classes[0].bounded == 0 and found.classes[0].found.gap < 0.5


def test_bad_values_are_refused(tmp_path):
    problem = cube_study(tmp_path / "five", 5, 2.0, labels=(1,))
    with pytest.raises(UsageError, match="5 latents.*--hybrid"):
        latent_mass(problem, "0.1")
    for epsilon in ("-1", "8", "nan"):
        with pytest.raises(UsageError, match="epsilon"):
            latent_mass(cube_study(tmp_path / "two", labels=(1,)), epsilon)
    with pytest.raises(UsageError, match="gap"):
        MassOptions(gap=-1.0)
    with pytest.raises(UsageError, match="delta"):
        MassOptions(delta=1.5)
    with pytest.raises(UsageError):
        Study({}, "c.onnx")
