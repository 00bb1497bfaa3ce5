"""Radius brackets against exact enumeration of linear cells: at L the least margin is > 0, at U it is <= 0."""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.core.budget import Budget
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify.bracket import RadiusOptions
from formalgr.verify.ladder import Ladder
from formalgr.verify.options import VerifyOptions
from formalgr.verify.radius import radius_brackets
from tests.exact_cells import cells_of
from tests.fuzz import read_network
from tests.onnx_meaning import PlainNetwork
from tests.random_networks import random_network

TOLERANCE = Fraction(1, 200)


def _least_margin(network: PlainNetwork, center: np.ndarray, radius: Fraction, label: int) -> Fraction:
    """Exact minimum over the closed ball of the margin of `label` over the other one of two outputs."""
    row = (Fraction(1), Fraction(-1)) if label == 0 else (Fraction(-1), Fraction(1))
    return cells_of(network, latent_ball(center, radius)).extremes(row)[0]


def _check(seed: int, local: VerifyOptions) -> tuple[int, int]:
    """One network, four latents: (brackets as narrow as asked, brackets). A false end fails at once."""
    random = np.random.default_rng(seed)
    plain, _ = random_network(random, "float32", outputs=2)
    network, _ = read_network(plain)
    size = (4, plain.inputs)
    latents = random.integers(-16, 17, size=size) / 8.0 if seed % 2 else random.normal(size=size)
    label = int(np.argmax(plain.evaluate(latents[:1])))
    options = RadiusOptions(max_epsilon=1, tolerance=TOLERANCE, local=local)
    unsafe = wrong_label(label, 2)
    found = radius_brackets(network, latents, unsafe, options, Budget(60.0))
    right = [k for k, bracket in enumerate(found) if bracket.lower >= 0]
    ladder = Ladder(network.graph, unsafe, options.step, local.branch)
    climbed = ladder.climb(latents[right], [Fraction(1)] * len(right), Budget()) if right else []
    for k, (radius, _) in zip(right, climbed, strict=True):
        assert _least_margin(plain, latents[k], radius, label) > 0, f"seed {seed}, latent {k}: ladder {radius}"
    for k, bracket in enumerate(found):
        where = f"seed {seed}, latent {k}: {bracket.lower} .. {bracket.upper}"
        if bracket.lower >= 0:
            assert _least_margin(plain, latents[k], bracket.lower, label) > 0, where
        if bracket.upper is not None:
            assert _least_margin(plain, latents[k], bracket.upper, label) <= 0, where
            assert bracket.reason is not None or bracket.misclassified or bracket.upper - bracket.lower <= TOLERANCE
    return sum(bracket.reason is None for bracket in found), len(found)


@pytest.mark.parametrize("limit", [float("inf"), 30.0])
def test_brackets_hold_the_exact_radius(limit):
    """With and without a time limit: radii are chosen in different ways, and nearly all brackets are closed."""
    total = np.sum([_check(seed, VerifyOptions(seconds_per_query=limit)) for seed in range(20)], axis=0)
    assert total[0] >= 0.97 * total[1], f"closed {total[0]} of {total[1]}"


@pytest.mark.slow
def test_brackets_hold_the_exact_radius_on_many_networks():
    for seed in range(2000, 2400):
        _check(seed, VerifyOptions())
