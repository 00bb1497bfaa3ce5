"""The yardstick itself: exact cells against grids, volumes, onnxruntime and planted lies.

What tests/exact_cells.py says decides whether the engine is wrong, so it is checked by other means than its own.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.spatial import ConvexHull, QhullError

from formalgr.core.box import RationalBox
from formalgr.core.exact import fraction, rational_array, to_float
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Stage, Verdict
from formalgr.graph.runtime import Session
from formalgr.operators.registry import REGISTRY
from formalgr.spec.unsafe import Polytope, UnsafeSet
from tests.exact_cells import cells_of, unsafe_points
from tests.fuzz import fault, read_network
from tests.onnx_meaning import BENT, PlainNetwork, Step
from tests.random_networks import random_network
from tests.random_queries import draw_case

CASES = [draw_case(7, index) for index in range(40)]


def _grid(box: RationalBox, each: int) -> np.ndarray:
    """Exact points of the box, corners included, (points, inputs)."""
    ends = zip(box.lower, box.upper, strict=True)
    axes = [[low + (high - low) * Fraction(k, each - 1) for k in range(each)] for low, high in ends]
    return rational_array(np.array(list(product(*axes)), dtype=object))


def _is_unsafe(network: PlainNetwork, point, unsafe: UnsafeSet) -> bool:
    return bool(unsafe_points(network.evaluate(rational_array(np.array([point], dtype=object))), unsafe)[0])


def test_values_at_vertices_are_the_networks_own():
    for case in CASES:
        for cells in {id(q.cells): q.cells for q in case.questions}.values():
            assert np.all(case.network.evaluate(cells.points) == cells.outputs)


def test_no_grid_point_contradicts_the_enumeration():
    """Exact values on a grid lie between the extremes, and an unsafe grid point means a witness."""
    unsafe = 0
    for case in CASES:
        for question in case.questions:
            box, cells = question.query.box, question.cells
            outputs = case.network.evaluate(_grid(box, 9 if box.inputs == 2 else 5))
            for place in range(outputs.shape[1]):
                row = tuple(Fraction(int(k == place)) for k in range(outputs.shape[1]))
                least, most = cells.extremes(row)
                assert least <= fraction(min(outputs[:, place])) and fraction(max(outputs[:, place])) <= most
            found = bool(np.any(unsafe_points(outputs, question.query.unsafe)))
            assert question.truth is Verdict.VIOLATED or not found
            unsafe += found
    assert unsafe > 20


def test_witnesses_are_unsafe_points_of_the_box():
    for case in CASES:
        for question in case.questions:
            if question.witness is not None:
                assert question.query.box.contains(question.witness)
                assert _is_unsafe(case.network, question.witness, question.query.unsafe)


def test_cells_cover_the_box():
    """Their volumes add up to that of the box (in floats, by another library's convex hulls)."""
    for case in CASES:
        box, cells = case.questions[0].query.box, case.questions[0].cells
        widths = np.array([float(b - a) for a, b in zip(box.lower, box.upper, strict=True)])
        if not np.all(widths > 1e-3):
            continue
        total = 0.0
        for vertices in cells.vertices():
            try:
                total += ConvexHull(to_float(vertices)).volume
            except QhullError:  # flat: no volume
                continue
        assert total == pytest.approx(np.prod(widths), rel=1e-6)


def test_known_cells():
    """max(|x|, |y|) on the square: 8 triangles; the minimum 0 is reached in one point, so strictly nowhere."""
    steps = (
        Step("Abs", ("x",), "a", {}), Step("ReduceMax", ("a",), "m", {"axes": [1], "keepdims": 1}),
    )
    box = RationalBox((Fraction(-1), Fraction(-1)), (Fraction(1), Fraction(1)))
    cells = cells_of(PlainNetwork((1, 2), steps, {}), box)
    assert len(cells.cells) == 8 and all(len(vertices) == 3 for vertices in cells.vertices())
    assert cells.extremes((Fraction(1),)) == (0, 1)
    at_zero = Polytope(((Fraction(1),),), (Fraction(0),), (False,))
    assert cells.witness(UnsafeSet((at_zero,), 1)) == (0, 0)
    assert cells.witness(UnsafeSet((replace(at_zero, strict=(True,)),), 1)) is None
    assert cells.minimum_within((Fraction(-1),), at_zero) == 0


def test_meanings_agree_with_onnxruntime():
    """The plain float32 evaluation of random networks is what onnxruntime computes, up to rounding."""
    random, seen = np.random.default_rng(5), set()
    for _ in range(250):
        network, tags = random_network(random, "float32")
        if tags & {"cancelling biases", "subnormal scales", "weights wide"}:
            continue  # float32 evaluations differ as they like
        points = random.normal(size=(4, network.inputs)).astype(np.float32)
        theirs = Session(network.onnx(), "random network").run(points)
        ours = network.evaluate(points)
        assert ours.dtype == np.float32
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * (1.0 + np.abs(theirs).max()))
        seen |= {step.kind for step in network.steps}
    assert seen >= set(BENT) and seen <= set(REGISTRY), set(BENT) - seen


def _violated(point) -> Outcome:
    made = Counterexample(point, np.array([float(x) for x in point]), np.zeros(1), Guarantee.EXACT)
    return Outcome(Verdict.VIOLATED, Guarantee.EXACT, Stage.ATTACK, counterexample=made)


def test_a_planted_lie_is_seen():
    """HOLDS where a point is unsafe, VIOLATED where it holds, points outside the box or with safe outputs."""
    lies = 0
    for case in CASES[:12]:
        network, _ = read_network(case.network)
        for question in case.questions:
            corner = question.query.box.lower
            if question.truth is Verdict.VIOLATED:
                told = [Outcome(Verdict.HOLDS, Guarantee.FLOAT_SOUND, Stage.BOUNDS)]
                points = [tuple(x - 1 for x in corner)]
                if not _is_unsafe(case.network, corner, question.query.unsafe):
                    points.append(corner)
            else:
                told, points = [], [corner]
            told += [_violated(point) for point in points]
            for outcome in told:
                assert fault(case, question, network, outcome) is not None
                lies += 1
    assert lies > 60
