"""Taking a rising activation off the end: no unsafe output is lost, and nothing is taken off that must stay."""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.core.verdict import Verdict
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.dense import Dense
from formalgr.operators.powers import Power
from formalgr.operators.reshape import Reshape
from formalgr.search.tail import without_tail
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.pipeline import verify
from tests.zoo import activation, below, both, box, chain

ENDS = {"Sigmoid": (0, 1), "Tanh": (-1, 1), "Exp": (0, None), "Softplus": (0, None)}


def tailed(name: str):
    return chain(1, ([[1], [-1]], [0, 0]), name).graph


@pytest.mark.parametrize("name", ENDS)
def test_arguments_of_unsafe_values_are_unsafe(name):
    graph = tailed(name)
    random = np.random.default_rng(0)
    for value in random.uniform(-1.1, 1.1, 60).tolist():
        for sign in (1, -1):
            scale = Fraction(random.integers(1, 9).item(), 3)
            unsafe = below(sign * scale, 0, bound=sign * scale * Fraction(value))
            bare, moved = without_tail(graph, unsafe)
            inputs = np.concatenate([random.normal(size=200) * 3.0, [-600.0, 600.0]])[:, None]
            outputs = graph.evaluate(inputs)[:, 0]
            lost = (sign * outputs <= sign * value) & (moved.excess(bare.evaluate(inputs)) > 0.0)
            assert bare is graph or not np.any(lost)
            if abs(value) < 0.9 * (ENDS[name][1] or 1) and value > ENDS[name][0] + 0.1:
                assert bare is not graph
                near = np.abs(outputs - value) > 1e-6
                kept = moved.excess(bare.evaluate(inputs)) <= 0.0
                assert np.all(kept[near] == (sign * outputs <= sign * value)[near]), "looser than 1e-6"


def test_limits_that_are_never_or_always_met():
    graph = tailed("Sigmoid")
    never, always = Polytope(((Fraction(1), Fraction(0)),), (Fraction(0) - 1,), (False,)), below(1, 0, bound=2)
    half = below(1, 0, bound="0.5").polytopes[0]
    _, moved = without_tail(graph, UnsafeSet((never, half), 2))
    assert len(moved.polytopes) == 1 and abs(moved.polytopes[0].bounds[0]) < Fraction(1, 10**8)
    _, moved = without_tail(graph, always)
    assert moved.polytopes[0].rows == 0, "a row that always holds says nothing"
    assert without_tail(graph, UnsafeSet((never,), 2))[0] is graph


@pytest.mark.parametrize("value", [Fraction(1) - Fraction(1, 10**18), Fraction(1, 10**30)])
def test_values_too_close_to_an_end_stay(value):
    """No float64 argument has a Sigmoid that is surely that close to 1: the activation stays where it is."""
    graph, unsafe = tailed("Sigmoid"), below(1, 0, bound=value)
    bare, moved = without_tail(graph, unsafe)
    assert (bare is graph) == (moved is unsafe)
    assert bare is graph or moved.polytopes[0].bounds[0] >= -80


def test_what_stays():
    graph = tailed("Sigmoid")
    assert without_tail(graph, below(1, -1))[0] is graph, "a row about two outputs"
    assert without_tail(chain(1, Power(2)).graph, below(1))[0].nodes, "a square falls"
    builder = GraphBuilder((1, 2))
    first = builder.add("d", Dense(np.eye(2)), 0)
    builder.chain("s", activation("Sigmoid", (1, 2)), 0)
    assert first and without_tail(builder.build(), below(1, 0, bound="0.5"))[0].nodes[-1].name == "s"
    builder = GraphBuilder((1, 2))
    last = builder.chain("s", activation("Tanh", (1, 2)), builder.add("d", Dense(np.eye(2)), 0))
    builder.add("flat", Reshape((2,)), last)
    assert len(without_tail(builder.build(), below(1, 0, bound="0.5"))[0].nodes) == 1, "a Reshape behind it goes too"


def test_verdicts_with_a_tail():
    net = chain(2, ([[1, 1], [1, -1]], [0, 0]), "Relu", ([[1, -2]], ["0.1"]), "Sigmoid")
    unit = box((-1, 1), (-1, 1))  # the argument lies in [-3.9, 2.1]; sigmoid(2.1) = .8909, sigmoid(-3.9) = .0198
    assert verify(net, Query(unit, below(-1, bound="-0.891"))).verdict is Verdict.HOLDS
    assert verify(net, Query(unit, below(-1, bound="-0.8908"))).verdict is Verdict.VIOLATED
    assert verify(net, Query(unit, both(((1,), "0.0197")))).verdict is Verdict.HOLDS
    assert verify(net, Query(unit, below(1, bound="0.02"))).verdict is Verdict.VIOLATED
    assert verify(net, Query(unit, below(1, bound=-1))).verdict is Verdict.HOLDS
