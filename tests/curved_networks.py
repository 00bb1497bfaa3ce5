"""Small networks of two inputs around one curved operator each."""

import numpy as np

from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.base import NodeSpec
from formalgr.operators.dense import Dense
from formalgr.operators.registry import build

CURVES = ("Sigmoid", "Tanh", "Exp", "Sin", "Cos", "Softplus", "Sqrt", "Log", "Reciprocal", "Sign", "Softmax", "Elu",
          "Square", "Cube", "Mul", "Div", "MatMul", "Max", "ReduceMax", "LogSoftmax")


def _dense(random, inputs: int, outputs: int) -> Dense:
    weights = (random.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32).astype(np.float64)
    return Dense(weights, (0.3 * random.normal(size=outputs)).astype(np.float32).astype(np.float64))


def _node(builder: GraphBuilder, op_type: str, *sources: int, constants=(), **attributes) -> int:
    """One ONNX node of computed values, then constants."""
    values = (*(None for _ in sources), *constants)
    shapes = tuple(builder.shape(source) for source in sources)
    spec = NodeSpec(op_type, 17, attributes, values, (True,) * len(values), shapes, op_type,
                    sources=tuple(map(str, sources)))
    return builder.chain(f"{op_type}{builder.last}", build(spec), *sources)


def curved_network(name: str) -> Graph:
    """2 inputs, dense layers of 4, the curve, a dense layer of 3, ReLU, one output; float32 weights."""
    random = np.random.default_rng(CURVES.index(name))
    builder = GraphBuilder((1, 2))
    hidden, other = (builder.add(f"d{k}", _dense(random, 2, 4), 0) for k in range(2))
    above = _node(builder, "Add", _node(builder, "Abs", hidden), constants=(np.array([0.5]),))
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
