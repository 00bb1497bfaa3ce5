"""Laws of phase splits: children cover the box, limits hold where they should, combinations exclude only the empty."""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.base import Rows
from formalgr.core.box import Box, RationalBox
from formalgr.core.linear import LinearForm
from formalgr.core.verdict import Verdict
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.dense import Dense
from formalgr.search.bab import BranchOptions
from formalgr.search.branch import branch
from formalgr.search.combine import excluded
from formalgr.search.phases import gains, sensitivity, split_phases
from formalgr.search.relax import FoldedRelaxer
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from tests.laws.test_bounds import _boxes, _exact_values, _form_at, _random_graph, _row_values, _rows, _samples
from tests.zoo import activation, network_of


@pytest.mark.parametrize("seed", range(4))
def test_some_child_of_phase_splits_bounds_every_point(seed):
    """At every sampled point some child, down to three splits, has limits <= 0 and forms below the exact rows."""
    graph, boxes = _random_graph(seed), _boxes(seed, 3, 3, 1.0)
    rows = _rows(graph)
    relaxer = FoldedRelaxer(graph, rows)
    box, state = boxes, relaxer.bound(boxes, None)[2]
    for depth in range(3):
        units, cost = gains(state, np.ones((len(box), 4), dtype=np.float64))
        assert np.all((units >= 0) == (cost > 0.0)) and np.any(units >= 0)
        box = Box(np.concatenate([box.lower] * 2), np.concatenate([box.upper] * 2))
        form, _, state = relaxer.bound(box, relaxer.descend(split_phases(state, np.maximum(units, 0))))
        assert form.constant.shape[1] == 4 + depth + 1
        for which, point in _samples(boxes, seed):
            exact = _row_values(rows, _exact_values(graph, point)[-1])
            children = range(which, len(box), len(boxes))
            assert any(
                all(_form_at(form, child, k, point) <= 0 for k in range(4, 4 + depth + 1))
                and all(value >= _form_at(form, child, k, point) for k, value in enumerate(exact))
                for child in children
            )


def test_combinations_exclude_only_what_no_point_satisfies():
    random = np.random.default_rng(0)
    owners = np.array([0, 0, 1])
    found = 0
    for _ in range(300):
        box = Box(-np.ones((1, 3)), np.ones((1, 3)))
        slope, point = random.normal(size=(1, 6, 3)), random.uniform(-1.0, 1.0, size=3)
        constant = random.normal(size=(1, 6))
        form = LinearForm(slope, constant, np.full((1, 6), 1e-9))
        out = excluded(box, form, owners, np.array([[True, True]]))[0]
        found += int(out.sum())
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 3), axis=-1).reshape(-1, 3)
        values = np.concatenate([grid, point[None]]) @ slope[0].T + constant[0] - 1e-9
        for polytope, mine in ((0, [0, 1, 3, 4, 5]), (1, [2, 3, 4, 5])):
            if out[polytope]:
                assert not np.any(np.all(values[:, mine] <= 0.0, axis=1))
    assert found > 50


def _many_inputs(seed: int):
    """40 inputs of which phases decide, one hidden layer of 12: small enough to know, large enough for phase splits."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder((1, 40))
    weights = (random.normal(size=(40, 12)) / 6.0).astype(np.float32).astype(np.float64)
    last = builder.add("d0", Dense(weights, np.zeros(12)), 0)
    last = builder.chain("r0", activation("Relu", (1, 12)), last)
    builder.add("d1", Dense(random.normal(size=(12, 1)), None), last)
    return builder.build()


def _least(graph) -> float:
    """The minimum over [-1, 1]^40 by a linear program for every phase pattern."""
    from scipy.optimize import linprog

    weights, out = graph.nodes[0].operator.weights, graph.nodes[2].operator.weights[:, 0]
    best = np.inf
    for pattern in range(1 << 12):
        active = np.array([(pattern >> k) & 1 for k in range(12)], dtype=bool)
        signs = np.where(active, -1.0, 1.0)
        answer = linprog(weights[:, active] @ out[active], A_ub=signs[:, None] * weights.T, b_ub=np.zeros(12),
                         bounds=[(-1.0, 1.0)] * 40, method="highs")
        best = min(best, answer.fun) if answer.status == 0 else best
    return best


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_phase_splits_agree_with_all_phase_patterns(seed):
    graph = _many_inputs(seed)
    least = _least(graph)
    row = (Fraction(1),)
    box = RationalBox((Fraction(-1),) * 40, (Fraction(1),) * 40)
    bounds = (Fraction(least - 0.02), Fraction(least + 0.02))
    queries = [Query(box, UnsafeSet((Polytope((row,), (bound,), (False,)),), 1)) for bound in bounds]
    options = VerifyOptions(branch=BranchOptions(phase_inputs=8), seconds_per_query=60.0)
    verdicts = [outcome.verdict for outcome in verify_batch(network_of(graph), queries, options)]
    assert verdicts == [Verdict.HOLDS, Verdict.VIOLATED]


def test_sensitivity_names_the_input_that_bends_units():
    """|x_0| + 10 x_1 - 1: x_1 moves the value most, but halving it makes no relaxation tighter, and x_0 is halved."""
    builder = GraphBuilder((1, 2))
    last = builder.add("in", Dense(np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 10.0]]), np.array([0.0, 0.0, 20.0])), 0)
    last = builder.chain("bend", activation("Relu", (1, 3)), last)
    builder.add("out", Dense(np.ones((3, 1)), np.array([-21.0])), last)
    relaxer = FoldedRelaxer(builder.build(), Rows(np.ones((1, 1)), np.zeros(1)))
    box, open_rows = Box(-np.ones((1, 2)), np.ones((1, 2))), np.ones((1, 1))
    form, lower, root = relaxer.bound(box, None)
    assert sensitivity(root, open_rows) is None
    form, lower, state = relaxer.bound(box, relaxer.descend(root))
    found = sensitivity(state, open_rows)
    assert found[0, 0] > 0.0 and found[0, 1] == 0.0
    halved = [branch(box, form, lower, open_rows, given)[0].upper[0].tolist() for given in (None, found)]
    assert halved == [[1.0, 0.0], [0.0, 1.0]]
