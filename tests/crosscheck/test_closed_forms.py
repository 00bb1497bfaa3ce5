"""Global robustness against closed forms (docs/statistics.md section 8): every local verdict, and the bounds on F(eps).

Networks are written as ONNX files and certified end to end. Whether a latent's ball holds a failure is decided here in
fractions from the formula; F(eps) is a sum of normal probabilities. Bounds hold with probability 1 - alpha each, and
seeds are fixed: what holds today holds tomorrow.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from formalgr.core.verdict import Guarantee, Verdict
from formalgr.global_robustness.certify import CertifyOptions, GlobalCertificate, GlobalVerdict, certify
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.samples import SampleRecord
from formalgr.global_robustness.study import Study
from tests.studies import cube_study, exact, identity, study, within_diamond
from tests.zoo import chain

ALPHA, SEED = 1e-3, 11
NEAR = Fraction(1, 10**6)
"""Latents whose distance to failing differs from eps by less may be UNKNOWN: no float proof exists on the edge."""

Excess = Callable[[list[Fraction]], Fraction]
"""Of an exact latent: > 0 iff its whole ball is right. Positive and negative alike count as far from 0."""


def certified(problem: Study, epsilon: str, samples: int = 150) -> GlobalCertificate:
    """The certificate, after checking what every certificate promises."""
    result = certify(problem, epsilon, 0.5, ALPHA, CertifyOptions(samples=samples, seed=SEED))
    for one in result.classes:
        assert 0.0 <= one.delta_lower <= one.delta_upper <= 1.0
        assert one.counts.samples == samples
    return result


def records_of(result: GlobalCertificate, label: int) -> list[SampleRecord]:
    records = [record for record in result.records if record.label == label]
    assert [record.index for record in records] == list(range(len(records)))
    return records


def check(result: GlobalCertificate, label: int, latent: int, excess: Excess, probability: float) -> None:
    """Every verdict equals the sign of the exact excess, every witness lies in its ball, and F is within the bounds."""
    records = records_of(result, label)
    latents = LatentPrior(latent).sample(SEED, label, 0, len(records))
    for record, z in zip(records, latents, strict=True):
        value = excess(exact(z))
        truth = Verdict.HOLDS if value > 0 else Verdict.VIOLATED
        allowed = (truth, Verdict.UNKNOWN) if abs(value) < NEAR else (truth,)
        assert record.verdict in allowed, (label, record.index, float(value), record)
        if record.verdict is Verdict.VIOLATED:
            distances = [abs(Fraction(a) - b) for a, b in zip(record.witness, exact(z), strict=True)]
            assert max(distances) <= result.epsilon
            assert record.guarantee >= Guarantee.FLOAT_SOUND
    (one,) = (one for one in result.classes if one.label == label)
    assert one.delta_lower <= probability <= one.delta_upper
    assert one.delta_upper - one.delta_lower < 0.35, "bounds of 0 and 1 would contain everything"


def eighths(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Random multiples of 1/8 in [-1, 1]."""
    return random.integers(-8, 9, size=shape).astype(np.float64) / 8.0


# ---- 1, 2: linear


@pytest.mark.parametrize("latent, pixels, epsilon", [(1, 3, "0.1"), (3, 4, "0.05"), (5, 12, "0"), (5, 12, "0.25")])
def test_linear_generator_and_binary_linear_classifier(tmp_path, latent, pixels, epsilon):
    """s(G(z)) = g.z + mu; the ball of z fails iff s - eps ||g||_1 <= 0: F = Phi((eps ||g||_1 - mu) / ||g||_2)."""
    random = np.random.default_rng(latent + pixels)
    a, b, w = eighths(random, pixels, latent), eighths(random, pixels), eighths(random, pixels)
    a[0, 0], w[0] = 1.0, 1.0  # so that g is not 0
    g, mu = a.T @ w, float(b @ w)
    generators = dict.fromkeys((0, 1), chain(latent, (a, b)))
    problem = study(tmp_path, generators, chain(pixels, ([-w, w], [0.0, 0.0])))
    result = certified(problem, epsilon)
    reach = Fraction(epsilon) * sum(abs(x) for x in exact(g))
    for label, sign in ((0, -1), (1, 1)):

        def excess(z: list[Fraction], sign: int = sign) -> Fraction:
            # logits (-s, s): the margin is 2 s
            return sign * (sum(x * y for x, y in zip(exact(g), z, strict=True)) + Fraction(mu)) - reach

        probability = norm.cdf((float(reach) - sign * mu) / np.linalg.norm(g))
        check(result, label, latent, excess, probability)


def test_linear_with_three_classes(tmp_path):
    """Two margins at once: F is one minus a bivariate normal orthant probability."""
    random = np.random.default_rng(5)
    a, w = eighths(random, 6, 3), eighths(random, 3, 6)
    bias = np.array([1.0, 0.25, -0.5])
    problem = study(tmp_path, dict.fromkeys(range(3), chain(3, (a, np.zeros(6)))), chain(6, (w, bias)))
    epsilon = Fraction(1, 20)
    result = certified(problem, "0.05")
    for label in range(3):
        others = [other for other in range(3) if other != label]
        rows = [(w[label] - w[other]) @ a for other in others]
        shifts = [Fraction(float(bias[label] - bias[other])) for other in others]
        reaches = [epsilon * sum(abs(x) for x in exact(row)) for row in rows]

        def excess(z: list[Fraction], rows=rows, shifts=shifts, reaches=reaches) -> Fraction:
            dots = [sum(x * y for x, y in zip(exact(row), z, strict=True)) for row in rows]
            return min(dot + c - r for dot, c, r in zip(dots, shifts, reaches, strict=True))

        means = [float(c - r) for c, r in zip(shifts, reaches, strict=True)]
        law = multivariate_normal(means, np.array(rows) @ np.array(rows).T)
        # P(both > 0) of N(m, S) is P(both < 0) of N(-m, S)
        right = multivariate_normal([-m for m in means], law.cov).cdf([0.0, 0.0])
        check(result, label, 3, excess, 1.0 - right)


# ---- 3, 4: a cube and a diamond


@pytest.mark.parametrize("latent, tau, epsilon", [(2, 2.0, "0.1"), (3, 1.5, "0.2"), (4, 2.5, "0.3"), (2, 1.0, "0")])
def test_a_cube(tmp_path, latent, tau, epsilon):
    """Class 1 iff max |z_j| < tau: R = max(0, tau - ||z||_inf), F = 1 - max(0, 2 Phi(tau - eps) - 1)^p.

    Class 0 fails where the maximum is <= tau: R = max(0, ||z||_inf - tau), F = (2 Phi(tau + eps) - 1)^p. Latents that
    are wrong themselves are counted as misclassified, exactly.
    """
    result = certified(cube_study(tmp_path, latent, tau), epsilon)
    eps, edge = Fraction(epsilon), Fraction(tau)
    inside = max(0.0, 2 * norm.cdf(tau - float(eps)) - 1) ** latent
    check(result, 1, latent, lambda z: edge - max(map(abs, z)) - eps, 1.0 - inside)
    reached = (2 * norm.cdf(tau + float(eps)) - 1) ** latent
    check(result, 0, latent, lambda z: max(map(abs, z)) - edge - eps, reached)
    for label, wrong in ((0, lambda largest: largest <= edge), (1, lambda largest: largest >= edge)):
        latents = LatentPrior(latent).sample(SEED, label, 0, 150)
        expected = [wrong(max(map(abs, exact(z)))) for z in latents]
        assert [record.misclassified for record in records_of(result, label)] == expected
        assert result.classes[label].counts.misclassified == sum(expected)


@pytest.mark.parametrize("tau, epsilon", [(2.0, "0.1"), (3.0, "0.4"), (0.75, "0.5")])
def test_a_diamond(tmp_path, tau, epsilon):
    """Class 1 iff |z1| + |z2| < tau: R = max(0, (tau - ||z||_1) / 2), the two rotated coordinates are independent."""
    problem = study(tmp_path, {1: identity(2)}, within_diamond(tau))
    result = certified(problem, epsilon, samples=250)
    eps = Fraction(epsilon)
    inside = max(0.0, 2 * norm.cdf((tau - 2 * float(eps)) / np.sqrt(2)) - 1) ** 2
    check(result, 1, 2, lambda z: Fraction(tau) - abs(z[0]) - abs(z[1]) - 2 * eps, 1.0 - inside)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_ball_that_touches_the_edge_of_the_cube(tmp_path, beyond):
    """R = eps exactly for sample 0, and the next float64 to either side: the closed ball fails iff tau <= |z| + eps."""
    (z,) = LatentPrior(2).sample(SEED, 1, 0, 1)
    edge = float(np.max(np.abs(z))) + 0.125
    assert Fraction(edge) == max(map(abs, exact(z))) + Fraction(1, 8)
    tau = edge if not beyond else float(np.nextafter(edge, beyond * np.inf))
    result = certified(cube_study(tmp_path, 2, tau, labels=(1,)), "0.125", samples=1)
    assert result.records[0].verdict in (Verdict.HOLDS if beyond > 0 else Verdict.VIOLATED, Verdict.UNKNOWN)


# ---- 5: one latent dimension, any ReLU network

FAR = Fraction(40)
"""No standard normal number lies beyond, as far as float64 can tell."""

Line = tuple[Fraction, Fraction]
"""slope, intercept"""


def _pieces(layers: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[Fraction, Fraction, list[Line]]]:
    """(start, end, outputs as lines) of a network of dense layers with ReLUs between, on [-FAR, FAR]."""
    pieces = [(-FAR, FAR, [(Fraction(1), Fraction(0))])]
    for number, (rows, bias) in enumerate(layers):
        dense = []
        for start, end, lines in pieces:
            values = []
            for row, shift in zip(rows, bias, strict=True):
                slope = sum((w * line[0] for w, line in zip(exact(row), lines, strict=True)), Fraction(0))
                level = sum((w * line[1] for w, line in zip(exact(row), lines, strict=True)), Fraction(float(shift)))
                values.append((slope, level))
            dense.append((start, end, values))
        last = number == len(layers) - 1
        pieces = dense if last else [part for piece in dense for part in _rectified(*piece)]
    return pieces


def _rectified(start: Fraction, end: Fraction, lines: list[Line]) -> list[tuple[Fraction, Fraction, list[Line]]]:
    zeros = {-level / slope for slope, level in lines if slope}
    cuts = [start, *sorted(zero for zero in zeros if start < zero < end), end]
    parts = []
    for low, high in zip(cuts, cuts[1:], strict=False):
        middle = (low + high) / 2
        kept = [(a, b) if a * middle + b > 0 else (Fraction(0), Fraction(0)) for a, b in lines]
        parts.append((low, high, kept))
    return parts


def _failures(pieces, label: int) -> list[tuple[Fraction, Fraction]]:
    """Closed intervals where some other output is >= that of the label."""
    found = []
    for start, end, lines in pieces:
        for other in range(len(lines)):
            slope, level = (a - b for a, b in zip(lines[label], lines[other], strict=True))
            if other == label:
                continue
            low, high = start, end
            if slope > 0:
                high = min(high, -level / slope)
            elif slope < 0:
                low = max(low, -level / slope)
            elif level > 0:
                continue
            if low <= high:
                found.append((low, high))
    return sorted(found)


def _mass(intervals: list[tuple[Fraction, Fraction]], epsilon: Fraction) -> float:
    """Normal probability of the intervals, dilated and merged."""
    merged: list[list[Fraction]] = []
    for low, high in intervals:
        if merged and low - epsilon <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high + epsilon)
        else:
            merged.append([low - epsilon, high + epsilon])
    return float(sum(norm.cdf(float(high)) - norm.cdf(float(low)) for low, high in merged))


def _of_one_latent(seed: int) -> tuple[list, list, list]:
    """Layers of G and of C, and the pieces of C after G; all three outputs are equal at one random latent."""
    random = np.random.default_rng(seed)
    generator = [(eighths(random, 4, 1), eighths(random, 4)), (eighths(random, 3, 4), eighths(random, 3))]
    classifier = [(eighths(random, 4, 3), eighths(random, 4)), (eighths(random, 3, 4), np.zeros(3))]
    (a, b), (c, d) = generator[1], classifier[0]
    middle = (c @ a, c @ b + d)  # the generator's last layer meets the classifier's first without a ReLU
    meeting = exact(eighths(random))[0]
    pieces = _pieces([generator[0], middle, classifier[1]])
    lines = next(lines for start, end, lines in pieces if start <= meeting <= end)
    classifier[1] = (classifier[1][0], np.array([-float(slope * meeting + level) for slope, level in lines]))
    return generator, classifier, _pieces([generator[0], middle, classifier[1]])


@pytest.mark.parametrize("seed", range(6))
def test_any_relu_networks_of_one_latent(tmp_path, seed):
    """Breakpoints in fractions give the failure intervals; dilated by eps and merged, F is a sum of Phi differences."""
    generator, classifier, pieces = _of_one_latent(seed)
    networks = [chain(len(first[0][0]), first, "Relu", last) for first, last in (generator, classifier)]
    result = certified(study(tmp_path, dict.fromkeys(range(3), networks[0]), networks[1]), "0.125", samples=100)
    eps = Fraction(1, 8)
    for label in range(3):
        intervals = _failures(pieces, label)

        def excess(z: list[Fraction], intervals=intervals) -> Fraction:
            distances = [max(low - z[0], z[0] - high, Fraction(0)) for low, high in intervals]
            return min(distances, default=FAR) - eps

        check(result, label, 1, excess, _mass(intervals, eps))


def test_the_networks_of_one_latent_are_not_trivial():
    """The test above meets failure probabilities strictly between 0 and 1."""
    seen = [
        _mass(_failures(pieces, label), Fraction(1, 8))
        for *_, pieces in (_of_one_latent(seed) for seed in range(6))
        for label in range(3)
    ]
    assert sum(0.02 < mass < 0.98 for mass in seen) >= 6, seen


# ---- 7: constants


@pytest.mark.parametrize("logits, robust", [((0.5, 0.25), True), ((0.5, 0.5), False), ((0.25, 0.5), False)])
def test_a_constant_classifier(tmp_path, logits, robust):
    """F is 0 with a positive margin, 1 with a negative one, and 1 for a tie: every latent is wrong itself."""
    constant = chain(3, (np.zeros((2, 3)), logits))
    result = certified(study(tmp_path, {0: identity(3)}, constant), "0.5", samples=120)
    (one,) = result.classes
    if robust:
        assert (one.counts.robust, one.delta_lower) == (120, 0.0)
        assert result.verdict is GlobalVerdict.CERTIFIED
    else:
        assert (one.counts.violated, one.counts.misclassified, one.delta_upper) == (120, 120, 1.0)
        assert result.verdict is GlobalVerdict.REFUTED


@pytest.mark.parametrize("level, robust", [(0.25, True), (0.0, False), (-0.25, False)])
def test_a_constant_generator(tmp_path, level, robust):
    """One atom: R is +inf or 0, whatever the latent and the radius; at level 0 the classifier ties."""
    generator = chain(2, (np.zeros((2, 2)), [level, 0.0]))
    classifier = chain(2, ([[1, 0], [-1, 0]], [0.0, 0.0]))
    result = certified(study(tmp_path, {0: generator}, classifier), "3", samples=120)
    counts = result.classes[0].counts
    expected = (120, 0, 0) if robust else (0, 120, 120)
    assert (counts.robust, counts.violated, counts.misclassified) == expected
