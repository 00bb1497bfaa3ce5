"""The monitor on the shipped digits: what the generators make passes, other pictures are flagged, proofs are proofs."""

import math
from fractions import Fraction

import numpy as np
import pytest

import formalgr as fg
from formalgr.attacks.inversion import Inversion
from formalgr.cli.shipped import digits
from formalgr.core.errors import InputError, UsageError
from formalgr.global_robustness.monitor import Flag, flag_counts
from formalgr.graph.network import own_outputs
from tests.studies import cube_study

LABELS = (3, 8)


@pytest.fixture(scope="module")
def frontier():
    """Two classes, few samples: enough to certify 0.02 at delta = 0.3."""
    study = fg.Study({c: digits() / f"g_{c}.onnx" for c in LABELS}, digits() / "c_128_64.onnx")
    return fg.frontier(study, max_epsilon="0.02", samples=50, tolerance="0.02").result


@pytest.fixture(scope="module")
def monitor(frontier):
    return fg.Monitor(frontier, fg.MonitorOptions(delta=0.3, tolerance=0.02))


def drawn(frontier, label: int, number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latents of the prior and what the generator makes of them."""
    latents = np.random.default_rng([seed, label]).standard_normal((number, 8))
    return latents, own_outputs(frontier.study.generator_network(label).graph, latents)


def test_the_radius_is_what_the_frontier_certifies(frontier, monitor):
    assert monitor.epsilon == Fraction(min(one.band.quantile(0.3).lower for one in frontier.classes)) > 0


@pytest.mark.parametrize("label", LABELS)
def test_what_generators_make_is_found_and_proven(frontier, monitor, label):
    latents, pictures = drawn(frontier, label, 24)
    seen = monitor.score(pictures)
    right = [one for one in seen if one.label == label]
    assert len(right) >= 22 and np.mean([one.distance < 1e-6 for one in right]) > 0.9
    assert np.mean([one.flagged for one in right]) < 0.15
    network = frontier.study.composed(label)
    for one in right[:6]:
        if Flag.UNCERTIFIED not in one.flags:
            outcome = fg.verify(network, fg.latent_ball(one.latent, monitor.epsilon), label=label)
            assert outcome.verdict is fg.Verdict.HOLDS and one.radius == monitor.epsilon


def test_other_pictures_are_flagged(frontier, monitor):
    noise = np.random.default_rng(1).uniform(0.0, 1.0, (30, 64))
    seen = monitor.score(np.concatenate([noise, np.zeros((1, 64)), 1.0 - drawn(frontier, 3, 10)[1]]))
    assert all(one.flagged for one in seen) and flag_counts(seen)[Flag.UNLIKE] + flag_counts(seen)[Flag.FOREIGN] == 41


def test_a_class_without_a_generator_is_foreign(frontier, monitor):
    other = fg.load(digits() / "g_0.onnx")
    pictures = own_outputs(other.graph, np.random.default_rng(0).standard_normal((5, 8)))
    seen = monitor.score(pictures)
    assert all(one.flags == {Flag.FOREIGN} and one.latent is None for one in seen if one.label == 0)
    assert any(one.label == 0 for one in seen)


def test_latents_far_out_are_rare(frontier, monitor):
    """P(|Z|^2 >= |z|^2): by the chi-squared law with 8 degrees, in closed form e^-s (1 + s + s^2/2 + s^3/6)."""
    far = np.full((1, 8), 2.5)
    (seen,) = monitor.score(own_outputs(frontier.study.generator_network(8).graph, far))
    if seen.label == 8 and seen.distance < 1e-6:
        s = 0.5 * float(seen.latent @ seen.latent)
        assert seen.tail == pytest.approx(math.exp(-s) * (1.0 + s + s**2 / 2.0 + s**3 / 6.0))
    assert Flag.RARE in seen.flags or seen.distance > 1e-6


def test_calibration_is_the_conformal_rank(frontier):
    """Of n + 1 exchangeable inputs at most a share `level` is flagged: the rank is exact, and seen on new ones."""
    random = np.random.default_rng(5)
    pictures = np.concatenate([drawn(frontier, label, 60, seed=2)[1] for label in LABELS])
    pictures = np.clip(pictures + random.normal(0.0, 0.1, pictures.shape), 0.0, 1.0)[random.permutation(120)]
    monitor = fg.Monitor(frontier, fg.MonitorOptions(delta=0.3, inputs=pictures[:59], level=0.1))
    distances = sorted(one.distance for one in monitor.score(pictures[:59]))
    assert monitor.tolerance == distances[math.ceil(60 * 0.9) - 1]
    assert flag_counts(monitor.score(pictures[59:]))[Flag.UNLIKE] <= 13  # of 61: 6.1 expected, 13 has chance 1 %
    with pytest.raises(UsageError, match="needs at least 9 inputs, got 5"):
        fg.Monitor(frontier, fg.MonitorOptions(delta=0.3, inputs=pictures[:5], level=0.1))


def test_one_input_scores_as_in_a_batch(frontier, monitor):
    _, pictures = drawn(frontier, 3, 3, seed=9)
    together = monitor.score(pictures)
    for picture, one in zip(pictures, together, strict=True):
        (alone,) = monitor.score(picture)
        assert (alone.label, alone.flags, alone.radius) == (one.label, one.flags, one.radius)
        assert np.allclose(alone.latent, one.latent, atol=1e-6)


def test_uniform_priors_have_an_edge(tmp_path):
    study = cube_study(tmp_path, labels=(1,), latent_prior="uniform:-1,1")
    monitor = fg.Monitor(
        fg.frontier(study, max_epsilon="0.5", samples=40, timeout_seconds=20).result,
        fg.MonitorOptions(delta=0.3, tolerance=1e-6),
    )
    inside, outside = monitor.score(np.array([[0.5, -0.9], [0.5, 1.2]]))
    assert not inside.flagged and outside.flags == {Flag.RARE} and outside.tail == 0.0


def test_what_makes_no_monitor(frontier, monitor):
    with pytest.raises(UsageError, match="either a tolerance, or inputs"):
        fg.MonitorOptions()
    with pytest.raises(UsageError, match="level must be in"):
        fg.MonitorOptions(tolerance=1.0, level=0.0)
    with pytest.raises(UsageError, match="at 0 it bounds F by"):
        fg.Monitor(frontier, fg.MonitorOptions(delta=0.001, tolerance=1.0))
    with pytest.raises(UsageError, match="StudyFrontier"):
        fg.Monitor(frontier.study, fg.MonitorOptions(tolerance=1.0))
    with pytest.raises(InputError, match="finite inputs"):
        monitor.score(np.full((1, 64), np.nan))
    with pytest.raises(InputError, match=r"\(batch, 64\)"):
        monitor.score(np.zeros((2, 63)))
    with pytest.raises(UsageError):
        Inversion(steps=0)


def test_inversion_solves_linear_generators_at_once():
    """For G(z) = A z the least squares solution is known."""
    random = np.random.default_rng(3)
    matrix, picture = random.normal(size=(6, 3)), random.normal(size=(2, 6))
    inversion = Inversion(starts=1, steps=20, damping=1e-6)
    latents, distances = inversion.nearest(lambda z: z @ matrix.T, picture, np.zeros((2, 1, 3)))
    best = np.linalg.lstsq(matrix, picture.T, rcond=None)[0].T
    assert np.allclose(latents, best, atol=1e-6)
    assert np.allclose(distances, np.sqrt(np.mean((best @ matrix.T - picture) ** 2, axis=1)))
