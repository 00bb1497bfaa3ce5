"""How far outputs can change when inputs move by d: bounds of f(x + d) - f(x) that see the difference as one variable.

In: Graph, boxes of its nodes that hold at x and at x + d, box of d. Out: Graph of differences, bounds. Trust: sound.

Through a linear map the difference of two values is its linear part, without bias. Through an activation it lies in a
sector: between least * t and largest * t, t being the difference of the arguments and least and largest the extreme
slopes of the activation between any two points of its range (for a ReLU 0 and 1, or one of them where it is stable). So
the difference of two copies is itself a network over d, whose activations are known up to a sector, and every bound of
networks applies to it. Nothing cancels between the copies: their common part never enters.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.bounds.base import NodeBounds, Rows
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.core.arrays import namespace
from formalgr.core.box import Box
from formalgr.core.errors import ModelError, UnsupportedOperator
from formalgr.core.linear import Interval, LinearForm
from formalgr.core.rounding import NEGLIGIBLE, dtype_name, gamma, underflow
from formalgr.graph.graph import Graph, Node
from formalgr.operators.activation import Activation
from formalgr.operators.base import OnnxForm, Shape
from formalgr.operators.linear_map import LinearMap


@dataclass(frozen=True)
class LinearPart(LinearMap):
    """A linear map without its offset."""

    of: LinearMap

    @property
    def terms(self) -> int:
        return self.of.terms

    @property
    def arity(self) -> int:
        return self.of.arity

    def out_shape(self, *shapes: Shape) -> Shape:
        return self.of.out_shape(*shapes)

    def apply(self, *values):
        return self.of.apply(*values)

    def adjoint(self, cotangent, *shapes) -> tuple:
        return self.of.adjoint(cotangent, *shapes)

    def magnitude(self, *values):
        return self.of.magnitude(*values)

    def onnx(self) -> OnnxForm:
        raise UnsupportedOperator("the linear part of an operator is a step of bounds, no operator of a file")


@dataclass(frozen=True)
class Sector(Activation):
    """Anything between least * t and largest * t for the argument t; both (batch, *node), least <= largest."""

    least: np.ndarray
    largest: np.ndarray
    exact = False
    rational = False

    def _ends(self, point) -> tuple:
        """Least and largest value at a point."""
        xp = namespace(point)
        first, second = self.least * point, self.largest * point
        return xp.minimum(first, second), xp.maximum(first, second)

    def evaluate(self, *values):
        return (0.5 * self.least + 0.5 * self.largest) * values[0]

    def derivative(self, value):
        return 0.5 * self.least + 0.5 * self.largest + 0.0 * value

    def curved(self, box: Interval):
        return (self.least < self.largest) & (box.lower < box.upper)

    def offsets(self, slope, box: Interval) -> tuple:
        # the lower limit is concave and the upper one convex: what is left of them beside a line is extreme at the ends
        xp = namespace(box.lower)
        dtype = dtype_name(box.lower)
        low = high = None
        for point in (box.lower, box.upper):
            least, most = self._ends(point)
            size = (xp.maximum(xp.abs(self.least), xp.abs(self.largest)) + xp.abs(slope)) * (
                xp.abs(point) + NEGLIGIBLE[dtype]
            )
            error = gamma(4, dtype) * size + underflow(4, dtype)
            below, above = least - slope * point - error, most - slope * point + error
            low = below if low is None else xp.minimum(low, below)
            high = above if high is None else xp.maximum(high, above)
        line = (self.least == self.largest) & (slope == self.least)
        return xp.where(line, 0.0 * low, low), xp.where(line, 0.0 * high, high)

    def candidates(self, box: Interval) -> tuple:
        xp = namespace(box.lower)
        width = box.upper - box.lower
        wide = width > 0.0
        divisor, nothing, chords = xp.where(wide, width, 1.0), 0.0 * width, []
        for start, stop in zip(self._ends(box.lower), self._ends(box.upper), strict=True):
            chords.append(xp.where(wide, (stop - start) / divisor, self.largest))
        return (*chords, self.least + nothing, self.largest + nothing)

    def float32_slopes(self, lower, upper) -> tuple:
        raise UnsupportedOperator("a sector is a bound, no function that float32 evaluates")

    def float32_rounding(self, lower, upper):
        raise UnsupportedOperator("a sector is a bound, no function that float32 evaluates")

    def encode(self, builder, arguments, box: Interval) -> np.ndarray:
        raise UnsupportedOperator("a sector is a bound, solvers get the network itself")

    def onnx(self) -> OnnxForm:
        raise UnsupportedOperator("a sector is a bound, no operator of a file")


def difference_graph(graph: Graph, bounds: NodeBounds) -> Graph:
    """The network of differences, for the batch of boxes where `bounds` hold for both copies.

    Raises ModelError for an operator that is neither linear nor an activation: its difference is no sector.
    """
    nodes = []
    for node in graph.nodes:
        operator = node.operator
        if isinstance(operator, LinearMap):
            operator = LinearPart(operator)
        elif isinstance(operator, Activation):
            box = bounds.boxes[node.inputs[0]]
            least, largest = operator.float32_slopes(box.lower, box.upper)
            operator = Sector(least, np.maximum(least, largest))
        else:
            kind = type(operator).__name__
            raise ModelError(
                f"{kind} (node {node.name}) is neither linear nor an activation: changes are bounded for networks of "
                "linear layers and activations only"
            )
        nodes.append(Node(node.name, operator, node.inputs, node.shape))
    return Graph(graph.input_shape, tuple(nodes))


def growth_forms(graph: Graph, bounds: NodeBounds, moves: Box, rows: Rows) -> LinearForm:
    """Linear lower bounds over d of rows.matrix . (f(x + d) - f(x)) for d in the boxes `moves`, (batch, rows, inputs).

    rows.bounds must be 0; `bounds` hold at x and at x + d.
    """
    differences = difference_graph(graph, bounds)
    return lower_forms(differences, CrownBounder().node_bounds(differences, moves), rows)
