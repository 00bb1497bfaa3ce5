"""Laws of whole-network bounds: boxes contain samples, forms lie below them, folding and reduction change nothing.

The yardstick is evaluation in exact rationals at sampled points, so that a missing rounding term shows.
"""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.base import Rows
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.bounds.folded import unit_bounds
from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.interval import IntervalBounder
from formalgr.core.arrays import RATIONAL, Arrays, to_numpy
from formalgr.core.box import Box
from formalgr.core.exact import fraction
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import Add
from formalgr.operators.dense import Dense
from formalgr.search.contract import contract
from formalgr.search.fold import FoldLimits, fold, foldable
from formalgr.search.reduce import reduce
from formalgr.search.relax import FoldedRelaxer, State, join_states
from formalgr.spec.robustness import wrong_label
from tests.zoo import ZOO, activation

BOUNDERS = [
    IntervalBounder(), ForwardBounder(), CrownBounder(), CrownBounder(operations=400.0), CrownBounder(bytes=1),
]
POINTS = 12


def _random_graph(seed: int, scale: float = 1.0):
    """3 inputs, skip connection, LeakyReLU, Clip with both ends in reach, ReLU; `scale` makes roundings large."""
    random = np.random.default_rng(seed)

    def dense(inputs, outputs):
        weights = (random.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32).astype(np.float64)
        return Dense(weights, scale * random.normal(size=outputs))

    builder = GraphBuilder((1, 3))
    first = builder.add("d0", dense(3, 6), 0)
    bent = builder.chain("a0", activation("LeakyRelu", (1, 6), alpha=0.1), first)
    second = builder.add("d1", dense(6, 6), bent)
    clipped = builder.add("a1", clip_table(-0.25, 0.5), second)
    joined = builder.add("skip", Add(), clipped, bent)
    third = builder.add("d2", dense(6, 5), joined)
    last = builder.chain("a2", activation("Relu", (1, 5)), third)
    builder.add("d3", dense(5, 3), last)
    return builder.build()


def _boxes(seed: int, number: int, inputs: int, radius: float) -> Box:
    center = np.random.default_rng(seed).normal(size=(number, inputs))
    return Box(center - radius, center + radius)


def _samples(box: Box, seed: int):
    """(which box, point) pairs: corners and random points."""
    random = np.random.default_rng(seed)
    for which in range(len(box)):
        yield which, box.lower[which]
        yield which, box.upper[which]
        for _ in range(POINTS):
            yield which, random.uniform(box.lower[which], box.upper[which])


def _exact_values(graph, point) -> list[list[Fraction]]:
    """Exact values of every node, flattened."""
    values = graph.to(RATIONAL).values(RATIONAL.asarray(np.array([point])))
    return [[fraction(x) for x in value.reshape(-1)] for value in values]


def _rows(graph) -> Rows:
    random = np.random.default_rng(1)
    return Rows(random.normal(size=(4, graph.outputs)), random.normal(size=4))


def _row_values(rows: Rows, output: list[Fraction]) -> list[Fraction]:
    matrix, bounds = rows.matrix.tolist(), rows.bounds.tolist()
    return [
        sum((Fraction(a) * y for a, y in zip(row, output, strict=True)), -Fraction(bound))
        for row, bound in zip(matrix, bounds, strict=True)
    ]


CASES = [(_random_graph(0), 0.3), (_random_graph(1), 1.5), (_random_graph(2, scale=1e6), 0.5), (_random_graph(3), 1e-9),
         (_random_graph(4), 1e-15)]


@pytest.mark.parametrize("bounder", BOUNDERS, ids=str)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_node_boxes_contain_and_forms_lie_below_exact_samples(bounder, case):
    graph, radius = CASES[case]
    box, rows = _boxes(case, 3, 3, radius), _rows(graph)
    bounds = bounder.node_bounds(graph, box)
    form = lower_forms(graph, bounds, rows)
    least = box.minimum(form)
    for which, point in _samples(box, case):
        values = _exact_values(graph, point)
        for node, exact in zip(bounds.boxes, values, strict=True):
            lower, upper = node.lower[which].reshape(-1).tolist(), node.upper[which].reshape(-1).tolist()
            assert all(Fraction(a) <= x <= Fraction(b) for a, x, b in zip(lower, exact, upper, strict=True))
        for k, value in enumerate(_row_values(rows, values[-1])):
            assert value >= _form_at(form, which, k, point)
            assert value >= Fraction(float(least[which, k]))


def _form_at(form, which: int, row: int, point) -> Fraction:
    total = Fraction(float(form.constant[which, row])) - Fraction(float(form.error[which, row]))
    terms = zip(form.flat()[which, row].tolist(), point.tolist(), strict=True)
    return total + sum((Fraction(a) * Fraction(x) for a, x in terms), Fraction(0))


def _system_rows(system, which: int, point) -> list[tuple[Fraction, Fraction]]:
    """Exact intervals of the output rows of a folded system at a point: every radius is taken at its worst."""
    known = [(Fraction(x), Fraction(x)) for x in point.tolist()]
    for block in (*system.blocks, system.outputs):
        found = []
        for k in range(block.rows):
            low = high = Fraction(float(block.constant[which, k]))
            for weight, (a, b) in zip(block.weights[which, k].tolist(), known, strict=True):
                ends = (Fraction(weight) * a, Fraction(weight) * b)
                low, high = low + min(ends), high + max(ends)
            radius = Fraction(float(block.radius[which, k]))
            found.append((low - radius, high + radius))
        if block is system.outputs:
            return found
        caps = [float("inf")] * block.rows if block.cap is None else block.cap[which].tolist()
        known += [tuple(min(max(end, Fraction(0)), cap) for end in row) for row, cap in zip(found, caps, strict=True)]
    raise AssertionError("a system has output rows")


@pytest.mark.parametrize("case", range(len(CASES)))
def test_folding_and_reducing_keep_the_function(case):
    graph, radius = CASES[case]
    box, rows = _boxes(case, 3, 3, radius), _rows(graph)
    folded = fold(graph, box, rows)
    halves = box.split(np.zeros(3, dtype=np.int64))
    twice = np.array([0, 1, 2, 0, 1, 2])
    known = [(a[twice], b[twice]) for a, b in folded.bounds]
    inner, _, _ = unit_bounds(folded.system[twice], halves, known, "float32")
    smaller, kept = reduce(folded.system[twice], inner)
    assert smaller.units <= folded.system.units
    pairs = [(box, folded.system, folded.bounds), (halves, folded.system[twice], inner), (halves, smaller, kept)]
    for where, system, bounds in pairs:
        assert len(bounds) == len(system.blocks)
        for which, point in _samples(where, case):
            exact = _row_values(rows, _exact_values(graph, point)[-1])
            for value, (low, high) in zip(exact, _system_rows(system, which, point), strict=True):
                assert low <= value <= high
                assert high - low < 1e-6 * (1 + abs(value)) + Fraction(1, 10**6) * int(case == 2)


@pytest.mark.parametrize("units", [0, 3, 8])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_systems_with_few_units_contain_the_function(case, units):
    """Units beyond the limit are chords with an error radius, and the system says so."""
    graph, radius = CASES[case]
    box, rows = _boxes(case, 3, 3, radius), _rows(graph)
    whole = fold(graph, box, rows)
    folded = fold(graph, box, rows, limits=FoldLimits(units=units, bytes=1))
    assert folded.system.units <= max(units, whole.system.units)
    assert folded.loose == (whole.system.units > units)
    for which, point in _samples(box, case):
        exact = _row_values(rows, _exact_values(graph, point)[-1])
        for value, (low, high) in zip(exact, _system_rows(folded.system, which, point), strict=True):
            assert low <= value <= high


@pytest.mark.parametrize("case", range(len(CASES)))
def test_forms_of_systems_lie_below_exact_samples(case):
    graph, radius = CASES[case]
    box, rows = _boxes(case, 4, 3, radius), _rows(graph)
    relaxer = FoldedRelaxer(graph, rows)
    form, least, state = relaxer.bound(box, None)
    children = box.split(np.argmax(box.upper - box.lower, axis=1))
    twice = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    inherited = relaxer.descend(state)[twice]
    for where, (lower_form, lowest, _) in ((box, (form, least, state)), (children, relaxer.bound(children, inherited))):
        for which, point in _samples(where, case):
            for k, value in enumerate(_row_values(rows, _exact_values(graph, point)[-1])):
                assert value >= _form_at(lower_form, which, k, point)
                assert value >= Fraction(float(lowest[which, k]))


def test_joined_states_give_the_same_bounds():
    graph, rows = _random_graph(5), _rows(_random_graph(5))
    relaxer = FoldedRelaxer(graph, rows)
    boxes = [_boxes(7, 2, 3, 1.0), _boxes(8, 3, 3, 0.05), _boxes(9, 1, 3, 1e-6)]
    states, lows = [], []
    for box in boxes:
        state = relaxer.descend(relaxer.bound(box, None)[2])
        states.append(state)
        lows.append(relaxer.bound(box, state)[1])
    whole = Box(*(np.concatenate([getattr(box, end) for box in boxes]) for end in ("lower", "upper")))
    joined = relaxer.bound(whole, join_states(states))[1]
    assert np.allclose(joined, np.concatenate(lows), rtol=1e-9, atol=1e-9)


def test_a_state_without_units_joins():
    graph, rows = _random_graph(6), _rows(_random_graph(6))
    relaxer = FoldedRelaxer(graph, rows)
    point = relaxer.descend(relaxer.bound(_boxes(1, 2, 3, 0.0), None)[2])
    wide = relaxer.descend(relaxer.bound(_boxes(2, 2, 3, 2.0), None)[2])
    assert point.system.units == 0 < wide.system.units
    joined = join_states([point, wide])
    assert isinstance(joined, State) and joined.system.units == wide.system.units


def test_contraction_keeps_every_unsafe_point():
    graph = _random_graph(4)
    unsafe = wrong_label(0, 3)
    rows = Rows(unsafe.matrix, unsafe.bounds)
    box = _boxes(3, 40, 3, 0.2)
    form, lower, _ = FoldedRelaxer(graph, rows).bound(box, None)
    smaller, closed = contract(box, form, lower, unsafe.open_polytopes(lower), unsafe)
    points = np.random.default_rng(0).uniform(box.lower, box.upper, size=(200, *box.lower.shape))
    excess = np.stack([unsafe.excess(graph.evaluate(part)) for part in points])
    inside = np.all((points >= smaller.lower) & (points <= smaller.upper), axis=2) & ~closed
    assert np.all(inside[excess <= -1e-9])
    assert np.any(~inside), "something is cut away, else the test shows nothing"


@pytest.mark.parametrize("row", [row for row in ZOO if foldable(row.network.graph)], ids=lambda row: row.name)
def test_systems_of_the_zoo_agree_in_torch(row):
    """One code for every namespace: torch float64 gives the numpy bounds."""
    if row.query.box.empty or not row.query.unsafe.rows:
        return
    pytest.importorskip("torch")
    low = np.array([[float(x) for x in row.query.box.lower]])
    high = np.array([[float(x) for x in row.query.box.upper]])
    results = []
    for arrays in (Arrays(), Arrays(kind="torch")):
        rows = Rows(arrays.asarray(row.query.unsafe.matrix), arrays.asarray(row.query.unsafe.bounds))
        folded = fold(row.network.graph.to(arrays), Box(low, high).to(arrays), rows)
        form, _ = folded.backward.form(folded.system.outputs, folded.system.sizes[-1])
        results.append(to_numpy(Box(low, high).to(arrays).minimum(form)))
    assert np.allclose(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("radius", [1.0, 1e-3, 1e-6, 1e-9])
def test_float32_bounds_give_way_to_float64_where_their_radius_would_decide(radius):
    """The radius of float32 does not shrink with the box: what it costs must stay small beside what the rows vary."""
    graph, rows, box = _random_graph(11), _rows(_random_graph(11)), _boxes(12, 40, 3, radius)
    # one box around a kink of the first layer, where units stay unstable however small it is
    weights, bias = graph.nodes[0].operator.weights, graph.nodes[0].operator.bias
    kink = np.linalg.lstsq(weights.T[:3], -bias[:3], rcond=None)[0]
    box = Box(np.concatenate([box.lower, kink[None] - radius]), np.concatenate([box.upper, kink[None] + radius]))
    form, least, state = FoldedRelaxer(graph, rows).bound(box, None)
    folded = fold(graph, box, rows, "float64")
    reference = box.minimum(folded.backward.form(folded.system.outputs, folded.system.sizes[-1])[0])
    varies = np.sum(np.abs(form.flat()), axis=2) * 2.0 * radius
    assert np.all(reference - least <= 0.1 * varies + 1e-12)
    assert state.noisy[-1] == (radius <= 1e-6)
