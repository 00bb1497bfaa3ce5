"""Laws of clipped units min(max(x, 0), cap) in folded systems, and of the rewrite that makes Clips of ReLU chains."""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.base import Rows
from formalgr.bounds.folded import hinges
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box
from formalgr.core.exact import fraction
from formalgr.graph.graph import GraphBuilder
from formalgr.graph.rewrite import join_clips
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import Add, AddConstant, MultiplyConstant
from formalgr.operators.dense import Dense
from formalgr.search.fold import fold
from tests.zoo import activation


def test_relaxation_of_clipped_units_holds_exactly_and_touches():
    """Lines in exact arithmetic at ends, kinks and between; where the unit is linear they are the unit itself."""
    random = np.random.default_rng(0)
    scale = 10.0 ** random.integers(-30, 30, size=2000)
    lower = random.normal(size=2000) * scale
    upper = lower + np.abs(random.normal(size=2000)) * scale * random.choice([0.0, 1e-9, 1.0], size=2000)
    cap = np.where(random.random(2000) < 0.2, np.inf, np.abs(random.normal(size=2000)) * scale)
    cap[:50], cap[50:100] = upper[:50], lower[50:100]
    cap = np.where(cap > 0.0, cap, 1.0)
    made = hinges(lower[None], upper[None], cap[None])
    tables = (made.lower_slope, made.lower_offset, made.upper_slope, made.upper_offset)
    for low, high, limit, *lines in zip(*(part.tolist() for part in (lower, upper, cap, *(t[0] for t in tables))),
                                        strict=True):
        below, under, above, over = map(Fraction, lines)
        points = {Fraction(low), Fraction(high), (Fraction(low) + Fraction(high)) / 2}
        points |= {Fraction(x) for x in (0.0, limit) if low < x < high}
        for x in points:
            value = min(max(x, Fraction(0)), limit)
            assert below * x + under <= value <= above * x + over
        if not (low < 0.0 < high or low < limit < high):
            assert (below, under) == (above, over)


def test_both_limits_together_are_tighter_than_two_hinges():
    """The area between the lines never exceeds that of max(x, 0) - max(x - cap, 0) bounded term by term."""
    random = np.random.default_rng(1)
    lower, cap = random.normal(size=(1, 5000)), np.abs(random.normal(size=(1, 5000))) + 1e-3
    upper = lower + np.abs(random.normal(size=(1, 5000)))
    middle = 0.5 * (lower + upper)
    joint, first, second = hinges(lower, upper, cap), hinges(lower, upper), hinges(lower - cap, upper - cap)
    gap = (joint.upper_slope - joint.lower_slope) * middle + joint.upper_offset - joint.lower_offset
    pairs = ((first, middle), (second, middle - cap))
    apart = sum((hinge.upper_slope - hinge.lower_slope) * x + hinge.upper_offset for hinge, x in pairs)
    assert np.all(gap <= apart + 1e-6) and gap.sum() < 0.8 * apart.sum()


def _limited(tail=()):
    """Two dense layers, then min(max(x, 0), 1) written as 1 - relu(1 - relu(x)), then `tail`."""
    random = np.random.default_rng(2)
    builder = GraphBuilder((1, 3))
    last = builder.add("d0", Dense(random.normal(size=(3, 5)), random.normal(size=5)), 0)
    for name in ("r0", "r1"):
        last = builder.chain(name, activation("Relu", (1, 5)), last)
        last = builder.add(f"flip {name}", Dense(-np.eye(5), np.ones(5)), last)
    for position, operator in enumerate(tail):
        last = builder.add(f"tail {position}", operator, last)
    builder.add("d1", Dense(random.normal(size=(5, 2)), None), last)
    return builder.build()


def _exact(graph, point):
    return [fraction(x) for x in graph.to(RATIONAL).values(RATIONAL.asarray(point[None]))[-1].reshape(-1)]


@pytest.mark.parametrize(
    "tail, nodes",
    [
        ((), 3),
        ((clip_table(0.0, 1.0),), 3),
        ((clip_table(0.25, 2.0),), 3),
        ((MultiplyConstant(np.array([2.0])), AddConstant(np.array([-1.0]))), 5),
        ((MultiplyConstant(np.array([2.0])), clip_table(0.0, 1.0)), 5),
    ],
)
def test_relu_chains_become_clips_and_the_function_stays(tail, nodes):
    """Exactly, at points on all pieces; what is no plain Clip (slope 2) stays outside it."""
    graph = _limited(tail)
    joined = join_clips(graph)
    assert len(joined.nodes) == nodes
    for point in np.random.default_rng(3).normal(size=(60, 3)) * 2.0:
        assert _exact(joined, point) == _exact(graph, point)


def test_a_value_read_twice_is_not_joined_away():
    builder = GraphBuilder((1, 2))
    first = builder.chain("r0", activation("Relu", (1, 2)), 0)
    flip = builder.add("flip", Dense(-np.eye(2), np.ones(2)), first)
    second = builder.chain("r1", activation("Relu", (1, 2)), flip)
    builder.add("sum", Add(), second, flip)
    graph = builder.build()
    assert join_clips(graph).nodes == graph.nodes


def test_ranges_that_end_at_a_kink_make_no_units():
    """Relu(x) lies in [0, 1] for x <= 1, up to rounding: a Clip to [0, 1] behind it is linear there."""
    random = np.random.default_rng(4)
    builder = GraphBuilder((1, 3))
    weights = random.normal(size=(3, 5)) / 3.0
    last = builder.add("d0", Dense(weights, np.zeros(5)), 0)
    last = builder.chain("r0", activation("Relu", (1, 5)), last)
    last = builder.add("mix", Dense(np.full((5, 4), 0.1), None), last)
    builder.add("clip", clip_table(0.0, 1.0), last)
    graph = builder.build()
    box = Box(np.full((1, 3), -0.1), np.full((1, 3), 0.1))
    folded = fold(graph, box, Rows(np.eye(4), np.zeros(4)))
    assert len(folded.system.blocks) == 1
