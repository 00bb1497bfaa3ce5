"""How far float32 evaluation of a network may be from its real values: a running error analysis over boxes.

In: Graph, boxes, rows over the outputs. Out: error radii of the rows. Trust: sound for the arithmetic below (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 3: |fl(x . y) - x . y| <= gamma_n |x| . |y| in any order).

Float32 arithmetic means: inputs and weights are float32 numbers; sums of products in any order, with or without fused
multiply-add or a wider accumulator; activations elementwise; subnormal numbers kept or flushed to zero; a linear map
may be merged with the one before it (core.rounding.FLOAT32_EXTRA). tanh and sigmoid err by at most
core.rounding.LIBM_ULPS units of 1 (onnxruntime 1.31 on x86-64, measured on 20 million points: 5.5 u = 2.8 units for
tanh, 3 u for sigmoid). It does not mean TF32, bfloat16, quantised networks, or convolutions by Winograd or FFT.

Every node adds its own roundings to the linear part of the errors of its inputs (core.linear.Drift). Pulling a row back
through these linear parts, |coefficients| . own roundings summed over all nodes bounds its error: signed products of
weights cancel where products of absolute values grow with every layer. What decides the linear part of an activation is
the error of its argument, so that bounds go layer by layer, as in CROWN.
"""

import math
from dataclasses import dataclass

import numpy as np

from formalgr.bounds.base import NodeBounds
from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.box import Box
from formalgr.core.errors import NumericalError
from formalgr.core.linear import Drift, Interval
from formalgr.core.rounding import LIBM_ULPS, SLACK, gamma
from formalgr.graph.graph import Graph
from formalgr.operators.base import Operator

VALUES_AT_ONCE = 1 << 24
"""Numbers of the widest node in one array: bounds the memory of a batch. A layer that exceeds it alone is bounded by
absolute values instead."""


def float32_errors(graph: Graph, box: Box, matrix: np.ndarray, dropped: bool = False) -> np.ndarray:
    """Bound of |matrix . (float32 outputs - outputs)| at float32 points of each box, (batch, rows), any evaluation.

    matrix (rows, outputs). Infinite where float32 may overflow. `dropped`: a Softmax or LogSoftmax follows; where two
    logits differ by more than the bound, the outputs behind it differ in the same direction.
    """
    widest = max([graph.inputs, *(math.prod(node.shape) for node in graph.nodes)])
    rows = max(1, VALUES_AT_ONCE // (widest * max(widest, graph.inputs + 2)))
    parts = [_row_errors(graph, box[start : start + rows], matrix, dropped) for start in range(0, len(box), rows)]
    return np.concatenate([np.zeros((0, len(matrix)), dtype=np.float64), *parts], axis=0)


def _row_errors(graph: Graph, box: Box, matrix: np.ndarray, dropped: bool) -> np.ndarray:
    widest = max([graph.inputs, *(math.prod(node.shape) for node in graph.nodes)])
    bounder = CrownBounder() if 2 * widest * widest <= VALUES_AT_ONCE else ForwardBounder()
    try:
        bounds = bounder.node_bounds(graph, box)
    except NumericalError:
        return np.full((len(box), len(matrix)), np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = _Errors(graph, bounds)
        found = errors.of_rows(matrix.reshape(1, len(matrix), *graph.output_shape), len(graph.nodes))
        if dropped:
            size = bounds.output.magnitude.reshape(len(box), -1)
            found = found + _hidden_by_softmax(size + errors.known[-1].reshape(size.shape)) @ np.abs(matrix).T
    return _no_nan(found * SLACK)


def _no_nan(errors: np.ndarray) -> np.ndarray:
    """NaN, from products of infinity and zero, is no bound: infinity."""
    return np.where(np.isnan(errors), np.inf, errors)


def _hidden_by_softmax(size: np.ndarray) -> np.ndarray:
    """Logits within the sum of their bounds may come out equal from (Log)Softmax; size: of |logit| (batch, outputs).

    With m the largest logit, Softmax divides exp(x - m) by one sum, LogSoftmax subtracts its logarithm: a few roundings
    of numbers up to 2 max |x| + log n, and exponentials off by LIBM ulps.
    """
    scale = 1.0 + 2.0 * np.max(size, axis=1, keepdims=True) + math.log(size.shape[1])
    return np.broadcast_to(gamma(2 * (LIBM_ULPS + 8), "float32") * scale, size.shape)


@dataclass
class _Errors:
    """Error bounds of all nodes: `known` the best, `loose` by absolute values of linear parts alone (batch, *node)."""

    graph: Graph
    bounds: NodeBounds

    def __post_init__(self):
        nothing = np.zeros_like(self.bounds.boxes[0].lower)
        self.known, self.loose = [nothing], [nothing]
        self.drifts: list[Drift] = []
        self.terms = 0
        refined = {0}
        for node in self.graph.nodes:
            for source in node.inputs:
                if source not in refined and self._bends(node.operator, source):
                    self.known[source] = self._refined(source)
                    refined.add(source)
            boxes = tuple(self.bounds.boxes[i] for i in node.inputs)
            drift = node.operator.drift(tuple(self.known[i] for i in node.inputs), boxes)
            self.drifts.append(drift)
            self.terms += drift.terms + 2
            self.known.append(_no_nan(drift.spread(tuple(self.known[i] for i in node.inputs)) * SLACK))
            self.loose.append(_no_nan(drift.spread(tuple(self.loose[i] for i in node.inputs)) * SLACK))
        self.known[-1] = np.minimum(self.known[-1], self.loose[-1])

    def _bends(self, operator: Operator, source: int) -> bool:
        """Whether the operator is not affine where the node and its float32 values lie."""
        box, error = self.bounds.boxes[source], self.known[source]
        curved = operator.curved(Interval(box.lower - error, box.upper + error))
        return curved is not None and bool(np.any(curved))

    def _refined(self, node: int) -> np.ndarray:
        """Errors of every element of a node, by pulling it back, where that is affordable."""
        known = np.minimum(self.known[node], self.loose[node])
        units = math.prod(known.shape[1:])
        if len(known) * units * max(math.prod(values.shape[1:]) for values in self.known[: node + 1]) > VALUES_AT_ONCE:
            return known
        found = self.of_rows(np.eye(units).reshape(1, units, *known.shape[1:]), node)
        return np.fmin(known, found.reshape(known.shape))

    def of_rows(self, coefficients: np.ndarray, node: int) -> np.ndarray:
        """Bound of |coefficients . error of the node|, (batch, rows); coefficients (1, rows, *node).

        Computed coefficients are off by gamma_n times what absolute values give: that share of `loose` is added.
        """
        batch = len(self.known[0])
        flat = np.abs(coefficients.reshape(coefficients.shape[1], -1))
        total = gamma(2 * self.terms + 8, "float64") * (self.loose[node].reshape(batch, -1) @ flat.T)
        pending = {node: np.broadcast_to(coefficients, (batch, *coefficients.shape[1:]))}
        for index in range(node, 0, -1):
            part = pending.pop(index, None)
            if part is None:
                continue
            drift = self.drifts[index - 1]
            rows = np.abs(part.reshape(*part.shape[:2], -1))
            total = total + (rows @ drift.own.reshape(batch, -1, 1))[..., 0]
            for source, pulled in zip(self.graph.nodes[index - 1].inputs, drift.pull(part), strict=True):
                pending[source] = pending[source] + pulled if source in pending else pulled
        return total * SLACK
