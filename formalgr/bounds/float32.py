"""How far float32 evaluation of a network may be from its real values: a running error analysis over boxes.

In: Graph, boxes, rows over the outputs. Out: error radii of the rows. Trust: sound for the arithmetic below.

Float32 arithmetic means:
* inputs and weights are float32 numbers; every operation rounds to nearest, subnormal numbers kept or flushed to zero;
* sums of products in ANY order, with or without fused multiply-add or a wider accumulator: each summand meets at most
  n roundings, so that |fl(x . y) - x . y| <= gamma_n |x| . |y| (Higham, Accuracy and Stability of Numerical Algorithms,
  2nd ed., ch. 3);
* linear maps in a row may be merged into one before they run, as onnxruntime does with MatMul and Add, or Conv and
  BatchNormalization: a summand of one then meets the roundings of all (a constant that is added last may be what a
  sum of n products starts from). So gamma_n counts the roundings of the whole row, and its magnitudes are those of all
  maps of the row without cancellation (core.linear.Sums);
* activations elementwise; tanh and sigmoid err by at most core.rounding.LIBM_ULPS units of 1, other library functions
  by as many of their result or of 1 (docs/soundness.md says what onnxruntime was measured to err by).
It does not mean TF32, bfloat16, quantised networks, or convolutions by Winograd or FFT.

Every node adds its own roundings to the linear part of the errors of its inputs (core.linear.Drift). Pulling a row back
through these linear parts, |coefficients| . own roundings summed over all nodes bounds its error: signed products of
weights cancel where products of absolute values grow with every layer. What decides the linear part of an activation is
the error of its argument, so that bounds go layer by layer, as in CROWN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formalgr.bounds.base import Bounder, NodeBounds
from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.box import Box
from formalgr.core.errors import NumericalError
from formalgr.core.linear import Drift, Interval, Sums
from formalgr.core.rounding import FLOAT32_LARGEST, SLACK, gamma
from formalgr.graph.graph import Graph, Node

VALUES_AT_ONCE = 1 << 24
"""Numbers of the widest node in one array: bounds the memory of a batch. A layer that exceeds it alone is bounded by
absolute values instead."""

BOXES_AT_ONCE = 64
"""More boxes in one batch gain nothing, and their arrays leave the processor's cache."""


@dataclass(frozen=True)
class RowErrors:
    """Bounds at float32 points of each box: `rows` (batch, rows) of |matrix . (float32 outputs - outputs)|, and
    `outputs` (batch, outputs) of |float32 output|. Infinite where float32 may overflow.
    """

    rows: np.ndarray
    outputs: np.ndarray


def bounders(graph: Graph) -> tuple[Bounder, ...]:
    """What can bound the values of the network, from the cheapest to the tightest that is affordable."""
    return (ForwardBounder(), CrownBounder()) if 2 * _widest(graph) ** 2 <= VALUES_AT_ONCE else (ForwardBounder(),)


def float32_errors(graph: Graph, box: Box, matrix: np.ndarray, bounder: Bounder) -> RowErrors:
    """What any float32 evaluation may change in matrix (rows, outputs) . outputs over each box."""
    widest = _widest(graph)
    rows = min(max(1, VALUES_AT_ONCE // (widest * max(widest, graph.inputs + 2))), BOXES_AT_ONCE)
    starts = range(0, max(len(box), 1), rows)
    return _joined([_row_errors(graph, box[start : start + rows], matrix, bounder) for start in starts])


def _widest(graph: Graph) -> int:
    return max([graph.inputs, *(math.prod(node.shape) for node in graph.nodes)])


def _row_errors(graph: Graph, box: Box, matrix: np.ndarray, bounder: Bounder) -> RowErrors:
    """The errors of some boxes; where one of them is unbounded, one by one."""
    shape = (len(box), len(matrix), *graph.output_shape)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            bounds = bounder.node_bounds(graph, box)
            errors = _Errors(graph, bounds)
            found = errors.of_rows(np.broadcast_to(matrix.reshape(shape[1:]), shape), len(graph.nodes))
            outputs = bounds.output.magnitude + errors.known[-1]
    except NumericalError:
        if len(box) > 1:
            return _joined([_row_errors(graph, box[k : k + 1], matrix, bounder) for k in range(len(box))])
        return RowErrors(np.full(shape[:2], np.inf), np.full((len(box), graph.outputs), np.inf))
    return RowErrors(_no_nan(found * SLACK), _no_nan(outputs.reshape(len(box), -1) * SLACK))


def _joined(parts: Sequence[RowErrors]) -> RowErrors:
    return RowErrors(*(np.concatenate([getattr(p, name) for p in parts], axis=0) for name in ("rows", "outputs")))


def _no_nan(errors: np.ndarray) -> np.ndarray:
    """NaN, from products of infinity and zero, is no bound: infinity."""
    return np.where(np.isnan(errors), np.inf, errors)


@dataclass
class _Errors:
    """Error bounds of all nodes: `known` the best, `loose` by absolute values of linear parts alone (batch, *node)."""

    graph: Graph
    bounds: NodeBounds

    def __post_init__(self):
        inputs = self.bounds.boxes[0].magnitude
        nothing = np.where(inputs < FLOAT32_LARGEST, 0.0, np.inf)
        self.known, self.loose = [nothing], [nothing]
        self.sums = [_single(inputs)]
        self.drifts: list[Drift] = []
        self.terms = 0
        for node in self.graph.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        for source in filter(None, node.inputs):
            self._refine(source, self._bent(node, source))
        known = tuple(self.known[i] for i in node.inputs)
        boxes = tuple(self.bounds.boxes[i] for i in node.inputs)
        drift = node.operator.drift(known, boxes, tuple(self.sums[i] for i in node.inputs))
        self.drifts.append(drift)
        self.terms += drift.terms + 2
        self.loose.append(_no_nan(drift.spread(tuple(self.loose[i] for i in node.inputs)) * SLACK))
        self.known.append(np.fmin(_no_nan(drift.spread(known) * SLACK), self.loose[-1]))
        values = self.bounds.boxes[len(self.drifts)].magnitude + self.known[-1]
        self.sums.append(_single(values) if drift.sums is None else drift.sums)

    def _bent(self, node: Node, source: int) -> np.ndarray | None:
        """Where the operator is not affine between the float32 values of its input, (batch, *in); None: affine."""
        box, error = self.bounds.boxes[source], self.known[source]
        return node.operator.curved(Interval(box.lower - error, box.upper + error))

    def _refine(self, node: int, bent: np.ndarray | None) -> None:
        """Pull the bent elements of a node back, where that is affordable: their errors decide slopes.

        There is nothing to pull through where the node's inputs have no errors. Every box pulls as many elements as the
        one that has most; the others add some that are not bent.
        """
        if bent is None or not any(np.any(self.known[i]) for i in self.graph.nodes[node - 1].inputs):
            return
        known = self.known[node]
        batch, size = len(known), math.prod(known.shape[1:])
        bent = bent.reshape(batch, size)
        most = int(np.max(np.sum(bent, axis=1), initial=0))
        if not most or batch * most * max(math.prod(one.shape[1:]) for one in self.known) > VALUES_AT_ONCE:
            return
        chosen = np.argsort(~bent, axis=1, kind="stable")[:, :most]
        rows = np.zeros((batch, most, size), dtype=np.float64)
        np.put_along_axis(rows, chosen[:, :, None], 1.0, axis=2)
        flat = known.reshape(batch, size).copy()
        found = self.of_rows(rows.reshape(batch, most, *known.shape[1:]), node)
        np.put_along_axis(flat, chosen, np.fmin(np.take_along_axis(flat, chosen, axis=1), found), axis=1)
        self.known[node] = flat.reshape(known.shape)

    def of_rows(self, coefficients: np.ndarray, node: int) -> np.ndarray:
        """Bound of |coefficients . error of the node|, (batch, rows); coefficients (batch, rows, *node).

        Computed coefficients, and those given, are off by gamma_n times what absolute values give: that share of
        `loose` is added.
        """
        share = gamma(2 * self.terms + 8, "float64")
        total = share * _sizes(coefficients, self.loose[node])
        pending = {node: coefficients}
        for index in range(node, 0, -1):
            part = pending.pop(index, None)
            if part is None:
                continue
            drift = self.drifts[index - 1]
            total = total + _sizes(part, drift.own)
            for source, pulled in zip(self.graph.nodes[index - 1].inputs, drift.pull(part), strict=True):
                pending[source] = pending[source] + pulled if source in pending else pulled
        return total * SLACK


def _sizes(coefficients: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """|coefficients| . errors, (batch, rows)."""
    rows = np.abs(coefficients.reshape(*coefficients.shape[:2], -1))
    return (rows @ errors.reshape(len(errors), -1, 1))[..., 0]


def _single(size: np.ndarray) -> Sums:
    """A value of at most this size as one summand."""
    return Sums(size, 0, np.maximum(np.max(size.reshape(len(size), -1), axis=1), 1.0))
