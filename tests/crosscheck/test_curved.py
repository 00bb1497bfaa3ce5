"""Curved networks of two inputs against a dense grid: both sides of the true minimum are decided, and decided right."""

import numpy as np
import pytest

from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.interval import IntervalBounder
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.verdict import Verdict
from formalgr.spec.query import Query
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify
from tests.curved_networks import CURVES, curved_network
from tests.zoo import below, box, network_of

GRID = 161
BOUNDERS = [IntervalBounder(), ForwardBounder(), CrownBounder()]
@pytest.mark.parametrize("name", CURVES)
def test_both_sides_of_the_minimum_are_decided(name):
    graph = curved_network(name)
    axis = np.linspace(-1.0, 1.0, GRID)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = graph.evaluate(points)[:, 0]
    least, gap = float(np.min(values)), 0.02 * float(np.ptp(values)) + 1e-3
    unit = box((-1, 1), (-1, 1))
    reached = verify(network_of(graph), Query(unit, below(1, bound=repr(least + gap))), budget=Budget(60.0))
    assert reached.verdict is Verdict.VIOLATED
    # bounds see values between -1 and 1 however small a box around a jump is; a solver does not
    options = VerifyOptions(solver="highs") if name == "Sign" else VerifyOptions()
    missed = verify(network_of(graph), Query(unit, below(1, bound=repr(least - gap))), options, Budget(60.0))
    assert missed.verdict is Verdict.HOLDS, missed


@pytest.mark.parametrize("bounder", BOUNDERS, ids=lambda bounder: type(bounder).__name__)
@pytest.mark.parametrize("name", CURVES)
def test_node_boxes_contain_samples(name, bounder):
    """Up to what float64 evaluation itself may err by."""
    graph = curved_network(name)
    random = np.random.default_rng(0)
    center = random.uniform(-1.0, 1.0, (4, 2))
    radius = np.array([0.0, 1e-6, 0.1, 0.4])[:, None]
    region = Box(center - radius, center + radius)
    bounds = bounder.node_bounds(graph, region)
    for _ in range(40):
        points = random.uniform(region.lower, region.upper)
        for found, value in zip(bounds.boxes, graph.values(points), strict=True):
            slack = 1e-13 * (1.0 + np.abs(value))
            assert np.all(found.lower - slack <= value) and np.all(value <= found.upper + slack)
