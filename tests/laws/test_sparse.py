"""Laws of matrices with few nonzero weights: products are those of the whole matrix, in every namespace."""

import numpy as np
import pytest

from formalgr.core.arrays import RATIONAL, Arrays
from formalgr.core.box import Box
from formalgr.core.exact import fraction
from formalgr.core.linear import Interval
from formalgr.graph.graph import GraphBuilder
from formalgr.operators import dense
from formalgr.operators.dense import Dense
from formalgr.search.fold import fold
from formalgr.search.relax import FoldedRelaxer
from tests.laws.test_bounds import _exact_values, _form_at, _row_values, _rows
from tests.zoo import activation


def _sparse(random, inputs: int, outputs: int) -> np.ndarray:
    """About two nonzero weights a column."""
    return random.normal(size=(inputs, outputs)) * (random.uniform(size=(inputs, outputs)) < 2.0 / inputs)


@pytest.fixture
def any_size(monkeypatch):
    """Small matrices count as sparse ones."""
    monkeypatch.setattr(dense, "MANY", 1)
    monkeypatch.setattr(dense, "FEW", 0.75)


def test_products_are_those_of_the_whole_matrix(any_size):
    random = np.random.default_rng(0)
    weights, bias = _sparse(random, 40, 30), random.normal(size=30)
    operator = Dense(weights, bias)
    value, cotangent = random.normal(size=(3, 2, 40)), random.normal(size=(3, 2, 30))
    pairs = [
        (operator.evaluate(value), value @ weights + bias),
        (operator.adjoint(cotangent, (2, 40))[0], cotangent @ weights.T),
        (operator.magnitude(np.abs(value)), np.abs(value) @ np.abs(weights)),
        (operator.to(Arrays(kind="torch")).apply(Arrays(kind="torch").asarray(value)), value @ weights),
    ]
    for made, plain in pairs:
        assert np.allclose(np.asarray(made), plain, rtol=1e-14, atol=1e-14) and made.shape == plain.shape
    exact = operator.to(RATIONAL).apply(RATIONAL.asarray(value))
    assert np.allclose([float(fraction(x)) for x in exact.reshape(-1)], (value @ weights).reshape(-1))
    assert operator.multiply_adds((2, 30)) == 60 + 2 * np.count_nonzero(weights)
    box = operator.interval(Interval(value[:1] - 0.5, value[:1] + 0.5))
    assert np.all(box.lower <= value[:1] @ weights + bias) and np.all(value[:1] @ weights + bias <= box.upper)


def test_many_weights_are_a_whole_matrix():
    operator = Dense(np.ones((200, 200)), None)
    assert operator.multiply_adds((200,)) == 201 * 200


def test_forms_of_folded_sparse_networks_lie_below_exact_samples(any_size):
    random = np.random.default_rng(1)
    builder = GraphBuilder((1, 3))
    first = builder.chain("a0", activation("Relu", (1, 12)), builder.add("d0", Dense(_sparse(random, 3, 12)), 0))
    second = builder.add("d1", Dense(_sparse(random, 12, 8), random.normal(size=8)), first)
    builder.add("d2", Dense(random.normal(size=(8, 2))), builder.chain("a1", activation("Relu", (1, 8)), second))
    graph, box = builder.build(), Box(-np.ones((1, 3)), np.ones((1, 3)))
    rows = _rows(graph)
    assert fold(graph, box, rows).system.units > 0
    form = FoldedRelaxer(graph, rows).bound(box, None)[0]
    for point in random.uniform(-1.0, 1.0, size=(20, 3)):
        exact = _row_values(rows, _exact_values(graph, point)[-1])
        assert all(value >= _form_at(form, 0, k, point) for k, value in enumerate(exact))
