"""Encoding: a graph, sound bounds of its nodes and one polytope become a solver-neutral program.

In: Graph, NodeBounds of one box, Polytope. Out: Program that minimises the largest row of the polytope. Trust: sound:
the program admits every input of the box with its exact outputs, so minimum > 0 means that no output is unsafe.
"""

from fractions import Fraction

import numpy as np

from formalgr.bounds.base import NodeBounds
from formalgr.core.errors import NumericalError
from formalgr.core.linear import Interval
from formalgr.core.program import Linear, Maximum, Piecewise, Program, Sense, Variable
from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.graph.graph import Graph
from formalgr.operators.base import ProgramBuilder
from formalgr.spec.unsafe import Polytope


class Constraints(ProgramBuilder):
    """Collects variables and constraints."""

    def __init__(self):
        self.bounds: list[Variable] = []
        self.rows: list[Linear] = []
        self.pieces: list[Piecewise] = []
        self.maxima: list[Maximum] = []

    def variables(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        if lower.dtype != object and not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))):
            raise NumericalError("a bound of a node overflows float64: there is nothing to ask a solver")
        start = len(self.bounds)
        ends = zip(lower.reshape(-1).tolist(), upper.reshape(-1).tolist(), strict=True)
        self.bounds.extend(Variable(low, high) for low, high in ends)
        return np.arange(start, len(self.bounds), dtype=np.int64).reshape(lower.shape)

    def ranges(self, indices: np.ndarray) -> Interval:
        chosen = [self.bounds[index] for index in indices.reshape(-1).tolist()]
        lower = np.array([nearest_down(Fraction(variable.lower)) for variable in chosen], dtype=np.float64)
        upper = np.array([nearest_up(Fraction(variable.upper)) for variable in chosen], dtype=np.float64)
        return Interval(lower.reshape(indices.shape), upper.reshape(indices.shape))

    def linear(self, indices, coefficients, sense: Sense, right) -> None:
        self.rows.append(Linear(tuple(indices), tuple(coefficients), sense, right))

    def piecewise(self, argument: int, result: int, breakpoints, slopes, intercepts) -> None:
        self.pieces.append(Piecewise(argument, result, breakpoints, slopes, intercepts))

    def maximum(self, arguments, result: int) -> None:
        self.maxima.append(Maximum(tuple(arguments), result))

    def program(self, **rest) -> Program:
        """All of it as a Program; `rest`: inputs, objective, cutoff."""
        return Program(tuple(self.bounds), tuple(self.rows), tuple(self.pieces), tuple(self.maxima), **rest)


def encode(graph: Graph, bounds: NodeBounds, polytope: Polytope) -> Program:
    """Program over one box (bounds of batch 1): minimise t subject to row . output - bound <= t for every row.

    The inputs are variables 0 .. inputs - 1, as the outward-rounded box. Points with t <= 0 are the unsafe ones, up to
    the rounding of that box and strict rows: for float solvers (search/cell.py is for exact ones).
    """
    builder = Constraints()
    boxes = [Interval(box.lower[0], box.upper[0]) for box in bounds.boxes]
    places = [builder.variables(boxes[0].lower, boxes[0].upper)]
    for index, node in enumerate(graph.nodes, start=1):
        places.append(node.operator.encode(builder, tuple(places[i] for i in node.inputs), boxes[index]))
    outputs = places[-1].reshape(-1)
    low, high = _objective_range(boxes[-1], polytope)
    objective = int(builder.variables(np.array([low]), np.array([high]))[0])
    for row, bound in zip(polytope.coefficients, polytope.bounds, strict=True):
        used = [k for k, a in enumerate(row) if a]
        indices = [*(int(outputs[k]) for k in used), objective]
        builder.linear(indices, [*(row[k] for k in used), Fraction(-1)], Sense.LESS, bound)
    return builder.program(objective=objective, inputs=tuple(int(i) for i in places[0].reshape(-1)), cutoff=0)


def _objective_range(box: Interval, polytope: Polytope) -> tuple[float, float]:
    """A generous finite range of the largest row over the output box (a bound on a variable, never a proof)."""
    size = np.maximum(np.abs(box.lower), np.abs(box.upper)).reshape(-1)
    reach = 1.0
    for row, bound in zip(polytope.coefficients, polytope.bounds, strict=True):
        reach = max(reach, float(np.abs(np.array([float(a) for a in row])) @ size) + abs(float(bound)))
    return -2.0 * reach, 2.0 * reach
