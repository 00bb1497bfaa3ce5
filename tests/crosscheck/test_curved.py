"""Curved networks of two inputs against a dense grid: both sides of the true minimum are decided, and decided right."""

import numpy as np
import pytest

from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.interval import IntervalBounder
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.verdict import Verdict
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.base import NodeSpec
from formalgr.operators.dense import Dense
from formalgr.operators.registry import build
from formalgr.spec.query import Query
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify
from tests.zoo import below, box, network_of

GRID = 161
BOUNDERS = [IntervalBounder(), ForwardBounder(), CrownBounder()]
CURVES = ("Sigmoid", "Tanh", "Exp", "Sin", "Cos", "Softplus", "Sqrt", "Log", "Reciprocal", "Sign", "Softmax", "Elu",
          "Square", "Cube", "Mul", "Div", "MatMul", "Max", "ReduceMax", "LogSoftmax")


def _dense(random, inputs: int, outputs: int) -> Dense:
    weights = (random.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32).astype(np.float64)
    return Dense(weights, 0.3 * random.normal(size=outputs))


def _node(builder: GraphBuilder, op_type: str, *sources: int, constants=(), **attributes) -> int:
    """One ONNX node of computed values, then constants."""
    values = (*(None for _ in sources), *constants)
    shapes = tuple(builder.shape(source) for source in sources)
    spec = NodeSpec(op_type, 17, attributes, values, (True,) * len(values), shapes, op_type,
                    sources=tuple(map(str, sources)))
    return builder.chain(f"{op_type}{builder.last}", build(spec), *sources)


def _network(name: str, seed: int) -> Graph:
    """2 inputs, a dense layer of 4, the curve, a dense layer of 3, ReLU, one output."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder((1, 2))
    hidden, other = (builder.add(f"d{k}", _dense(random, 2, 4), 0) for k in range(2))
    above = _node(builder, "Add", _node(builder, "Abs", hidden), constants=(np.array([0.4]),))
    if name in ("Sqrt", "Log", "Reciprocal"):
        curve = _node(builder, name, above)
    elif name in ("Square", "Cube"):
        curve = _node(builder, "Pow", hidden, constants=(np.array(2.0 if name == "Square" else 3.0),))
    elif name in ("Mul", "Max"):
        curve = _node(builder, name, hidden, other)
    elif name == "Div":
        curve = _node(builder, name, other, above)
    elif name == "MatMul":
        square = [_node(builder, "Reshape", part, constants=(np.array([2, 2]),)) for part in (hidden, other)]
        curve = _node(builder, "Reshape", _node(builder, name, *square), constants=(np.array([1, 4]),))
    elif name == "ReduceMax":
        curve = _node(builder, "Sub", hidden, _node(builder, name, other, axes=[1]))
    else:
        curve = _node(builder, name, hidden)
    bent = _node(builder, "Relu", builder.add("e", _dense(random, 4, 3), curve))
    builder.add("f", _dense(random, 3, 1), bent)
    return builder.build()


@pytest.mark.parametrize("name", CURVES)
def test_both_sides_of_the_minimum_are_decided(name):
    graph = _network(name, CURVES.index(name))
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
    graph = _network(name, CURVES.index(name))
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
