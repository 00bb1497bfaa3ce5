"""Rectifiers: Relu, LeakyRelu, PRelu, Abs.

In: the ONNX nodes of those names. Out: piecewise tables. Trust: sound and exact.
"""

import numpy as np

from formalgr.operators.base import NodeSpec, OnnxForm, Recipe
from formalgr.operators.piecewise import Piecewise


def _kink_at_zero(form: OnnxForm, left: np.ndarray) -> Piecewise:
    """left * x below zero and x above; `left` (*trailing) broadcasts to the node."""
    left = np.asarray(left, dtype=np.float64)
    zero = np.zeros((1, *left.shape), dtype=np.float64)
    return Piecewise(form, zero, np.stack([left, np.ones_like(left)]), np.concatenate([zero, zero]))


def relu_table() -> Piecewise:
    """max(x, 0)."""
    return _kink_at_zero(OnnxForm("Relu", {}, (None,)), np.float64(0.0))


def relu(spec: NodeSpec) -> Recipe:
    """max(x, 0)."""
    spec.only()
    return (relu_table(),)


def leaky_relu(spec: NodeSpec) -> Recipe:
    """x where x >= 0, alpha x below; alpha (float32, default 0.01) in [0, 1]."""
    spec.only("alpha")
    alpha = float(np.float32(spec.attribute("alpha", 0.01)))
    if not 0.0 <= alpha <= 1.0:
        raise spec.refuse(f"LeakyRelu alpha must be in [0, 1], got {alpha:g}")
    return (_kink_at_zero(OnnxForm("LeakyRelu", {"alpha": alpha}, (None,)), np.float64(alpha)),)


def prelu(spec: NodeSpec) -> Recipe:
    """x where x >= 0, slope x below; a constant slope of any sign, broadcast to x from the right."""
    spec.only()
    slope = spec.weights(1)
    shape = spec.shapes[0]
    if slope is None or np.broadcast_shapes(shape, slope.shape) != tuple(shape):
        raise spec.refuse("PRelu needs a constant slope that broadcasts to its input")
    return (_kink_at_zero(OnnxForm("PRelu", {}, (None, slope)), slope),)


def absolute(spec: NodeSpec) -> Recipe:
    """|x|."""
    spec.only()
    return (_kink_at_zero(OnnxForm("Abs", {}, (None,)), np.float64(-1.0)),)
