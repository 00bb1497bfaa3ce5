"""The frontier against closed forms (docs/statistics.md section 8): radii bracketed by the engine, F known exactly.

Every bracket holds the exact radius, and the band, the quantiles and the mean radius of the sample hold those of the
distribution: each at 99.9 %, seeds are fixed.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from formalgr.global_robustness.band import CountBounds, pointwise, simultaneous
from formalgr.global_robustness.frontier import Brackets, Frontier
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.network import Network
from formalgr.spec.robustness import wrong_label
from formalgr.verify.bracket import RadiusOptions
from formalgr.verify.radius import radius_brackets
from tests.crosscheck.test_closed_forms import FAR, _failures, _mass, _of_one_latent
from tests.studies import exact, within_cube, within_diamond
from tests.zoo import chain

SAMPLES, SEED, CAP = 120, 5, Fraction(1)
Radius = Callable[[list[Fraction]], Fraction]
"""Of an exact latent: the distance to failing, <= 0 where it fails itself."""


@pytest.fixture(scope="module")
def bounds() -> dict[str, CountBounds]:
    """Both sides together at 99.9 %."""
    return {"band": simultaneous(SAMPLES, 5e-4), "single": pointwise(SAMPLES, 5e-4)}


def check(network: Network, label: int, radius: Radius, failure: Callable[[float], float], bounds) -> None:
    """Brackets against `radius`, everything that a Frontier states against F = `failure`."""
    latent = network.graph.inputs
    latents = LatentPrior(latent).sample(SEED, label, 0, SAMPLES)
    options = RadiusOptions(max_epsilon=CAP, tolerance="0.02")
    found = radius_brackets(network, latents, wrong_label(label, network.graph.outputs), options)
    for z, one in zip(latents, found, strict=True):
        truth = max(radius(exact(z)), Fraction(0))
        assert one.lower < truth or (one.lower == truth == CAP), (one, float(truth))
        assert truth <= one.upper if one.upper is not None else truth > one.lower
        assert one.reason is None
    brackets = Brackets.of([(one.lower, one.upper) for one in found], CAP)
    band, single = (Frontier(brackets, bounds[name]) for name in ("band", "single"))
    for (start, low, _), (end, _, high) in zip(band.steps(), band.steps()[1:], strict=False):
        # F rises: what holds at the ends holds between them
        assert low <= failure(float(start)) + 1e-9 and failure(float(end)) <= high + 1e-9
    for eps in ("0", "0.1", "0.35", "1"):
        assert single.lower(eps) <= failure(float(eps)) <= single.upper(eps)
    points = [float(eps) for eps in np.linspace(0.0, 1.0, 11)]
    mean = sum(quad(lambda eps: 1.0 - failure(eps), a, b)[0] for a, b in zip(points, points[1:], strict=False))
    assert band.mean().lower <= mean <= band.mean().upper
    for level in (0.25, 0.5):
        if failure(0.0) < level < failure(1.0):
            quantile = brentq(lambda eps, level=level: failure(eps) - level, 0.0, 1.0)
            found_quantile = single.quantile(level)
            assert found_quantile.lower <= quantile
            assert found_quantile.upper is None or quantile <= found_quantile.upper


def test_linear_with_two_classes(bounds):
    """R = s(z) / ||g||_1, F(eps) = Phi((eps ||g||_1 - mu) / ||g||_2)."""
    g, mu = np.array([0.75, -1.25, 0.5]), 1.5
    network = chain(3, ([-g, g], [-mu, mu]))
    slope = sum(abs(x) for x in exact(g))
    check(
        network,
        1,
        lambda z: (sum(a * b for a, b in zip(exact(g), z, strict=True)) + Fraction(mu)) / slope,
        lambda eps: float(norm.cdf((eps * float(slope) - mu) / np.linalg.norm(g))),
        bounds,
    )


def test_linear_with_three_classes(bounds):
    """Two margins: F is one minus the probability that both stay positive, a bivariate normal."""
    w, bias = np.array([[0.5, 0.25], [-0.75, 0.5], [0.25, -1.0]]), np.array([1.0, 0.0, 0.0])
    rows = [exact(w[0] - w[k]) for k in (1, 2)]
    slopes = [sum(map(abs, row)) for row in rows]
    law = np.array([[float(a) for a in row] for row in rows])
    cover = multivariate_normal([0.0, 0.0], law @ law.T)

    def radius(z: list[Fraction]) -> Fraction:
        margins = [sum(a * b for a, b in zip(row, z, strict=True)) + 1 for row in rows]
        return min(margin / slope for margin, slope in zip(margins, slopes, strict=True))

    check(
        chain(2, (w, bias)),
        0,
        radius,
        lambda eps: 1.0 - float(cover.cdf([1.0 - eps * float(slope) for slope in slopes])),
        bounds,
    )


@pytest.mark.parametrize("latent, tau", [(2, 1.5), (3, 2.0)])
def test_a_cube(bounds, latent, tau):
    """R = max(0, tau - ||z||_inf), F(eps) = 1 - max(0, 2 Phi(tau - eps) - 1)^p."""
    check(
        within_cube(latent, tau),
        1,
        lambda z: Fraction(tau) - max(map(abs, z)),
        lambda eps: 1.0 - max(0.0, 2.0 * float(norm.cdf(tau - eps)) - 1.0) ** latent,
        bounds,
    )


def test_a_diamond(bounds):
    """R = max(0, (tau - ||z||_1) / 2), F(eps) = 1 - max(0, 2 Phi((tau - 2 eps) / sqrt 2) - 1)^2."""
    tau = 3.0
    check(
        within_diamond(tau),
        1,
        lambda z: (Fraction(tau) - abs(z[0]) - abs(z[1])) / 2,
        lambda eps: 1.0 - max(0.0, 2.0 * float(norm.cdf((tau - 2.0 * eps) / 2**0.5)) - 1.0) ** 2,
        bounds,
    )


@pytest.mark.parametrize("seed", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_any_relu_networks_of_one_latent(bounds, seed):
    """R is the distance to the nearest failure interval, F the normal mass of the dilated intervals."""
    generator, classifier, pieces = _of_one_latent(seed)
    (a, b), (c, d) = generator[1], classifier[0]
    network = chain(1, generator[0], "Relu", (c @ a, c @ b + d), "Relu", classifier[1])
    for label in range(3):
        intervals = _failures(pieces, label)
        check(
            network,
            label,
            lambda z, ends=intervals: min((max(a - z[0], z[0] - b, Fraction(0)) for a, b in ends), default=FAR),
            lambda eps, ends=intervals: _mass(ends, Fraction(eps)),
            bounds,
        )


@pytest.mark.parametrize("logits, robust", [((0.5, 0.25), True), ((0.5, 0.5), False), ((0.25, 0.5), False)])
def test_constants(bounds, logits, robust):
    """One atom at infinity with a positive margin; a tie or another class: one at 0."""
    network = chain(2, (np.zeros((2, 2)), logits))
    radius = CAP * 2 if robust else Fraction(0)
    check(network, 0, lambda z: radius, lambda eps: 0.0 if robust else 1.0, bounds)
    found = radius_brackets(network, np.zeros((3, 2)), wrong_label(0, 2), RadiusOptions(max_epsilon=CAP))
    assert [(one.lower, one.upper) for one in found] == [(CAP, None) if robust else (-1, 0)] * 3


def test_pixels_of_a_linear_classifier(bounds):
    """L0 balls: R_0 = min {k : the k largest decreases add up to s}: F over finitely many points jumps at integers."""
    random = np.random.default_rng(3)
    points, w = random.integers(0, 9, size=(40, 6)) / 8.0, np.array([1.0, -0.5, 0.75, 2.0, -1.0, 0.25])
    scores = points @ w - 0.5
    # the largest decrease of s by one input of [0, 1] is where it goes to the end that w points away from
    decreases = np.sort(np.where(w > 0, w * points, -w * (1.0 - points)), axis=1)[:, ::-1]
    reach = np.concatenate([np.zeros((40, 1)), np.cumsum(decreases, axis=1)], axis=1) >= scores[:, None]
    radii = np.where(reach.any(axis=1), np.argmax(reach, axis=1), 100)
    drawn = radii[random.integers(0, 40, size=SAMPLES)].tolist()
    frontier = Frontier(Brackets.of([(r - 1, r) if r <= 6 else (6, None) for r in drawn], 6), bounds["band"])
    assert len(set(radii.tolist())) >= 4
    for k in range(7):
        assert frontier.lower(k) <= np.mean(radii <= k) <= frontier.upper(k)
