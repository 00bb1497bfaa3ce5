"""Exact cells: a graph over one box as a program in rationals, with every stable unit eliminated exactly.

In: Graph, sound bounds of its nodes, rational box, polytope. Out: Program without an objective. Trust: sound: every
input of the box whose output lies in the polytope is a point of the program, and for a graph that is `exact` and
`rational` there are no other points (an irrational weight is its nearest float64 with its error as a variable).

Float bounds only say which piece of an activation a unit is on; the arithmetic is rational. What is left are the inputs
and two variables per unstable unit, so that an exact solver meets a problem of the size of the tie.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.bounds.base import NodeBounds
from formalgr.core.box import RationalBox
from formalgr.core.exact import RATIONAL_NAMESPACE, fraction, rational, rational_array
from formalgr.core.linear import Interval
from formalgr.core.program import Program, Sense
from formalgr.core.rounding import NEGLIGIBLE, gamma
from formalgr.graph.graph import Graph
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.piecewise import Piecewise
from formalgr.search.encoding import Constraints
from formalgr.spec.unsafe import Polytope


def cell_program(graph: Graph, bounds: NodeBounds, box: RationalBox, polytope: Polytope) -> Program:
    """The inputs of the box with an output in the polytope, strict rows included.

    graph: in rationals; bounds (batch 1): hold over the box.
    """
    cell = _Cell(box)
    values = [cell.input(graph.input_shape)]
    boxes = [Interval(part.lower[0], part.upper[0]) for part in bounds.boxes]
    for index, node in enumerate(graph.nodes, start=1):
        inputs = [values[i] for i in node.inputs]
        if isinstance(node.operator, LinearMap):
            values.append(cell.linear(node.operator, inputs, [boxes[i] for i in node.inputs]))
        elif isinstance(node.operator, Piecewise):
            values.append(cell.piecewise(node.operator, inputs[0], boxes[node.inputs[0]], boxes[index]))
        else:
            arguments = tuple(cell.variables(values[i], boxes[i]) for i in node.inputs)
            values.append(cell.symbols(node.operator.encode(cell.constraints, arguments, boxes[index])))
    cell.restrict(values[-1], polytope)
    return cell.constraints.program(inputs=tuple(range(box.inputs)))


@dataclass(frozen=True)
class _Value:
    """A node by the symbols so far: columns (symbols, *node) and constant (1, *node), object arrays of rationals."""

    columns: np.ndarray
    constant: np.ndarray


class _Cell:
    """The constraints so far; symbol k is variable `places[k]`, the inputs first."""

    def __init__(self, box: RationalBox):
        self.constraints = Constraints()
        ends = (np.array(end, dtype=object) for end in (box.lower, box.upper))
        self.places = self.constraints.variables(*ends).tolist()

    def input(self, shape) -> _Value:
        """The network input: the identity."""
        size = len(self.places)
        return _Value(
            rational_array(np.eye(size, dtype=np.int64)).reshape(size, *shape), RATIONAL_NAMESPACE.zeros((1, *shape))
        )

    def _widened(self, value: _Value) -> np.ndarray:
        """Columns over all symbols."""
        missing = RATIONAL_NAMESPACE.zeros((len(self.places) - len(value.columns), *value.columns.shape[1:]))
        return np.concatenate([value.columns, missing], axis=0)

    def linear(self, operator: LinearMap, values: list[_Value], boxes: list[Interval]) -> _Value:
        """A linear map of columns and constants; where its weights are rounded, with what that changes as a symbol."""
        columns = operator.apply(*(self._widened(value) for value in values))
        made = _Value(columns, operator.evaluate(*(value.constant for value in values)))
        return made if operator.rational else self._rounded(made, operator, boxes)

    def _rounded(self, value: _Value, operator: LinearMap, boxes: list[Interval]) -> _Value:
        """The value plus one new symbol per element: within the error of the operator's weights, gamma_n magnitude."""
        size = operator.magnitude(*(rational_array(box.magnitude)[None] for box in boxes)) + operator.offset_size()
        error = Fraction(gamma(operator.terms, "float64"))
        reach = [error * (fraction(x) + Fraction(NEGLIGIBLE["float64"])) for x in size.reshape(-1)]
        ends = np.array([[-x for x in reach], reach], dtype=object)
        symbols = self.symbols(self.constraints.variables(*ends))
        columns = self._widened(value) + symbols.columns.reshape(-1, *value.columns.shape[1:])
        return _Value(columns, value.constant)

    def variables(self, value: _Value, box: Interval, units: np.ndarray | None = None) -> np.ndarray:
        """Variables equal to elements of the value: all, in its shape, or the flat `units`, with bounds of `box`."""
        shape = box.lower.shape if units is None else units.shape
        chosen = np.arange(box.lower.size) if units is None else units
        lower, upper = (end.reshape(-1)[chosen].reshape(shape) for end in (box.lower, box.upper))
        made = self.constraints.variables(lower, upper)
        columns, constant = value.columns.reshape(len(value.columns), -1), value.constant.reshape(-1)
        for unit, place in zip(chosen.tolist(), made.reshape(-1).tolist(), strict=True):
            indices, coefficients = self._terms(columns[:, unit])
            self.constraints.linear(
                [*indices, place], [*coefficients, Fraction(-1)], Sense.EQUAL, -fraction(constant[unit])
            )
        return made

    def _terms(self, column) -> tuple[list[int], list[Fraction]]:
        used = [k for k, coefficient in enumerate(column) if coefficient]
        return [self.places[k] for k in used], [fraction(column[k]) for k in used]

    def symbols(self, made: np.ndarray) -> _Value:
        """The value whose elements are these variables, as new symbols."""
        before = len(self.places)
        self.places += made.reshape(-1).tolist()
        columns = RATIONAL_NAMESPACE.zeros((len(self.places), made.size))
        columns[np.arange(before, len(self.places)), np.arange(made.size)] = rational(1)
        return _Value(columns.reshape(-1, *made.shape), RATIONAL_NAMESPACE.zeros((1, *made.shape)))

    def piecewise(self, operator: Piecewise, value: _Value, box: Interval, out: Interval) -> _Value:
        """Stable elements by their piece, exactly; every other one by a new symbol."""
        breakpoints, slopes, intercepts = operator.spread(box.lower.shape)
        lower, upper = box.lower.reshape(-1), box.upper.reshape(-1)
        units = np.arange(lower.size)
        piece = np.sum(lower[None] >= breakpoints, axis=0)
        open_ = np.any((lower[None] < breakpoints) & (upper[None] > breakpoints), axis=0)
        bent = np.nonzero(open_)[0]
        slope, intercept = slopes[piece, units], intercepts[piece, units]
        slope[bent] = intercept[bent] = 0.0
        columns = value.columns.reshape(len(value.columns), -1) * rational_array(slope)
        constant = value.constant.reshape(-1) * rational_array(slope) + rational_array(intercept)
        made = _Value(columns.reshape(value.columns.shape), constant.reshape(value.constant.shape))
        if not bent.size:
            return made
        arguments = self.variables(value, box, bent)
        low, high = (end.reshape(-1)[bent] for end in (out.lower, out.upper))
        results = self.constraints.variables(low, high)
        for unit, argument, result in zip(bent.tolist(), arguments.tolist(), results.tolist(), strict=True):
            tables = (tuple(table[:, unit].tolist()) for table in (breakpoints, slopes, intercepts))
            self.constraints.piecewise(argument, result, *tables)
        before = len(self.places)
        self.places += results.tolist()
        columns = self._widened(made).reshape(len(self.places), -1)
        columns[np.arange(before, len(self.places)), bent] = rational(1)
        return _Value(columns.reshape(-1, *box.lower.shape), made.constant)

    def restrict(self, output: _Value, polytope: Polytope) -> None:
        """The rows of the polytope."""
        columns, constant = self._widened(output).reshape(len(self.places), -1), output.constant.reshape(-1)
        for row, bound, strict in zip(polytope.coefficients, polytope.bounds, polytope.strict, strict=True):
            exact = rational_array(np.array(row, dtype=object))
            indices, coefficients = self._terms(columns @ exact)
            right = bound - fraction(constant @ exact)
            self.constraints.linear(indices, coefficients, Sense.BELOW if strict else Sense.LESS, right)
