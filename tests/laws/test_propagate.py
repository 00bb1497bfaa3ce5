"""Laws of propagation: every unsafe point stays, limits hold there, and verdicts are those of trying all corners."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from formalgr.attacks.gradient import PgdAttack
from formalgr.bounds.base import Rows
from formalgr.core.box import Box, RationalBox
from formalgr.core.rounding import nearest_up
from formalgr.core.verdict import Verdict
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.dense import Dense
from formalgr.search.propagate import FIXED, pressure, propagate
from formalgr.search.relax import FoldedRelaxer
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify
from tests.laws.test_bounds import _boxes, _exact_values, _form_at, _random_graph, _row_values
from tests.zoo import activation, network_of


def _counting(seed: int):
    """3 inputs, two hidden layers; the first output adds units up, which tells phases, the second subtracts them."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder((1, 3))
    first = builder.add("d0", Dense(random.normal(size=(3, 6)), random.normal(size=6)), 0)
    bent = builder.chain("a0", activation("Relu", (1, 6)), first)
    second = builder.add("d1", Dense(random.normal(size=(6, 5)), random.normal(size=5)), bent)
    last = builder.chain("a1", activation("Relu", (1, 5)), second)
    builder.add("d2", Dense(random.uniform(0.0, 1.0, size=(5, 2)) * [1.0, -1.0], None), last)
    return builder.build()


@pytest.mark.parametrize("make", [_random_graph, _counting])
@pytest.mark.parametrize("share, fixed", [(0.01, FIXED), (0.05, FIXED), (0.03, 0.3)])
def test_propagation_keeps_every_unsafe_point(make, share, fixed, monkeypatch):
    """Down three halvings: unsafe points stay in their boxes, limits are <= 0 there and forms below the exact rows.

    Whatever share of their range `fixed` units may have: it goes into the radius of those who use them.
    """
    monkeypatch.setattr("formalgr.search.propagate.FIXED", fixed)
    kept = narrowed = told = 0
    for seed in range(3):
        graph, boxes = make(seed), _boxes(seed, 2, 3, 1.0)
        random = np.random.default_rng(seed)
        points = random.uniform(boxes.lower[:, None], boxes.upper[:, None], size=(2, 400, 3))
        matrix = random.normal(size=(2, graph.outputs)) if make is _random_graph else np.eye(2)
        values = np.einsum("ro,bpo->bpr", matrix, graph.evaluate(points.reshape(-1, 3)).reshape(2, 400, -1))
        bounds = np.quantile(values, [share, 1.0 - share], axis=(0, 1)).diagonal() + 1e-6
        unsafe = np.all(values <= bounds, axis=2)
        relaxer = FoldedRelaxer(graph, Rows(matrix, bounds))
        box, parent = boxes, np.arange(2)
        state = relaxer.bound(box, None)[2]
        for _ in range(3):
            found = propagate(box, state, 2, True)
            narrowed += np.sum(found.box.upper - found.box.lower < 0.999 * (box.upper - box.lower))
            state = relaxer.descend(found.state)
            form, _, state = relaxer.bound(found.box, state)
            told += form.constant.shape[1] - 2
            assert pressure(found.box, state, 2).shape == box.lower.shape
            for k in range(len(box)):
                inside = np.all((box.lower[k] <= points[parent[k]]) & (points[parent[k]] <= box.upper[k]), axis=1)
                for point in points[parent[k]][inside & unsafe[parent[k]]][:6]:
                    exact = _row_values(Rows(matrix, bounds), _exact_values(graph, point)[-1])
                    if max(exact) > 0:
                        continue
                    kept += 1
                    assert not found.empty[k]
                    assert np.all((found.box.lower[k] <= point) & (point <= found.box.upper[k]))
                    assert all(_form_at(form, k, row, point) <= 0 for row in range(2, form.constant.shape[1]))
                    assert all(_form_at(form, k, row, point) <= value for row, value in enumerate(exact))
            box, parent = found.box.split(np.argmax(box.upper - box.lower, axis=1)), np.concatenate([parent, parent])
            state = relaxer.descend(state)[np.tile(np.arange(len(found.empty)), 2)]
    assert kept > 20 and narrowed > 0 and (told > 0 or make is _random_graph)


def test_what_an_eliminated_unit_may_still_be_stays_with_its_users(monkeypatch):
    """y = max(x, 0) <= 1/8 and y >= 1/16 with x in [-1, 1]: where y counts as 0, the second row must not exclude it."""
    monkeypatch.setattr("formalgr.search.propagate.FIXED", 0.3)
    builder = GraphBuilder((1, 1))
    builder.add("d0", Dense(np.eye(1), None), 0)
    bent = builder.chain("a0", activation("Relu", (1, 1)), 1)
    builder.add("d1", Dense(np.array([[1.0, -1.0]]), None), bent)
    relaxer = FoldedRelaxer(builder.build(), Rows(np.eye(2), np.array([0.125, -0.0625])))
    box = Box(-np.ones((1, 1)), np.ones((1, 1)))
    found = propagate(box, relaxer.bound(box, None)[2], 2, True)
    state = relaxer.descend(found.state)
    assert state.system.units == 0 and np.all(relaxer.bound(found.box, state)[1] <= 0.0)


@pytest.mark.parametrize("units", [0, 5])
def test_a_corner_where_rows_are_least_stays(units):
    """Only one corner is unsafe, by less than the roundings of the rows that are tightened."""
    random = np.random.default_rng(units)
    for _ in range(60):
        builder = GraphBuilder((1, 4))
        low, width = random.normal(size=4), random.uniform(0.0, 1.0, size=4)
        away = random.choice([-1.0, 1.0], size=4)
        corner = np.where(away > 0.0, low, low + width)
        if units:
            # rows that grow away from the corner, where they are 0 up to rounding
            weights = away[:, None] * random.uniform(0.0, 1.0, size=(4, units))
            first = builder.add("d0", Dense(weights, -corner @ weights), 0)
            bent = builder.chain("a0", activation("Relu", (1, units)), first)
            builder.add("d1", Dense(random.uniform(0.0, 1.0, size=(units, 1)), None), bent)
        else:
            builder.add("d0", Dense(away[:, None] * random.uniform(0.0, 1.0, size=(4, 1)), random.normal(size=1)), 0)
        graph = builder.build()
        rows = Rows(np.eye(1), np.array([nearest_up(_exact_values(graph, corner)[-1][0])]))
        relaxer, box = FoldedRelaxer(graph, rows), Box(low[None], (low + width)[None])
        found = propagate(box, relaxer.bound(box, None)[2], 1, True)
        form, _, _ = relaxer.bound(found.box, relaxer.descend(found.state))
        assert not found.empty[0]
        assert np.all((found.box.lower[0] <= corner) & (corner <= found.box.upper[0]))
        assert np.all(found.box.upper - found.box.lower < 1e-6)
        assert all(_form_at(form, 0, row, corner) <= 0 for row in range(form.constant.shape[1]))


LOW, WIDTH = (0.0, -0.5, 1.0, 2.0, -4.0, 0.25, 8.0), (1.0, 2.0, 0.5, 4.0, 1.0, 0.125, 8.0)
"""Ends of the inputs of a formula: powers of two, so that both are exact."""


def _formula(random, clauses: int) -> np.ndarray:
    """Rows of -1, 0 and 1, (clauses, 7): the literals of clauses of three variables."""
    rows = np.zeros((clauses, 7), dtype=np.int64)
    for row in rows:
        row[random.choice(7, size=3, replace=False)] = random.choice([-1, 1], size=3)
    return rows


def _network(random, formula: np.ndarray):
    """Two sums of units, both 0 only at corners of the box that satisfy the formula, and its negation in the second.

    A clause adds max(1 - the number of its true literals, 0) times a weight; an input adds its distance from its ends.
    """
    low, width = np.array(LOW), np.array(WIDTH)
    positive, negative = formula > 0, formula < 0
    # true literals: sum of t over positive ones plus sum of 1 - t over negative ones, t = (x - low) / width
    clause = -formula / width
    shift = 1.0 - np.sum(negative, axis=1) + (formula / width) @ low
    assert np.all(positive.sum(axis=1) + negative.sum(axis=1) == 3)
    weights = np.concatenate([clause, np.diag(1.0 / width), np.diag(2.0 / width)])
    bias = np.concatenate([shift, -low / width, -2.0 * low / width - 1.0])
    last = np.zeros((len(weights), 2))
    last[: len(formula), 0] = random.choice([0.5, 1.0, 2.0], size=len(formula))
    last[len(formula) :, 1] = np.repeat([1.0, -1.0], 7)
    builder = GraphBuilder((1, 7))
    first = builder.add("d0", Dense(weights.T, bias), 0)
    bent = builder.chain("a0", activation("Relu", (1, len(bias))), first)
    builder.add("d1", Dense(last, None), bent)
    return builder.build()


def test_networks_that_count_violated_clauses_have_the_verdicts_of_their_formulas():
    random, found = np.random.default_rng(3), set()
    box = RationalBox(tuple(map(Fraction, LOW)), tuple(Fraction(a + b) for a, b in zip(LOW, WIDTH, strict=True)))
    rows = ((Fraction(1), Fraction(0)), (Fraction(0), Fraction(1)))
    query = Query(box, UnsafeSet((Polytope(rows, (Fraction(0),) * 2, (False,) * 2),), 2))
    options = VerifyOptions(pgd=PgdAttack(steps=1, restarts=1, points=1, zooms=()))
    for clauses in (28, 30, 32, 34) * 3:
        formula = _formula(random, clauses)
        true = any(
            all(np.any((row != 0) & ((row > 0) == corner)) for row in formula)
            for corner in (np.array(bits) for bits in product((False, True), repeat=7))
        )
        outcome = verify(network_of(_network(random, formula)), query, options)
        assert outcome.verdict is (Verdict.VIOLATED if true else Verdict.HOLDS)
        found.add(outcome.verdict)
    assert len(found) == 2
