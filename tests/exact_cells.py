"""Slow, obvious and exact: the linear cells of a piecewise linear network over a rectangle, in fractions.

In: a chain network with two inputs, a rational box. Out: the cells as polygons with the affine outputs on each. Trust:
sound; the yardstick for the fast engine.
"""

from dataclasses import dataclass
from fractions import Fraction

from formalgr.core.box import RationalBox
from formalgr.graph.graph import Graph
from formalgr.operators.dense import Dense
from formalgr.operators.piecewise import Piecewise
from formalgr.spec.unsafe import UnsafeSet

Affine = tuple[Fraction, Fraction, Fraction]
"""a x + b y + c."""


@dataclass(frozen=True)
class Cell:
    """A convex polygon (vertices in order) and the values of the current layer as affine functions on it."""

    vertices: tuple[tuple[Fraction, Fraction], ...]
    values: tuple[Affine, ...]


def at(form: Affine, point) -> Fraction:
    """Value of the affine function."""
    return form[0] * point[0] + form[1] * point[1] + form[2]


def clipped(vertices, form: Affine):
    """The part of the polygon where form <= 0 (closed), by exact Sutherland-Hodgman; () when there is none."""
    result = []
    for here, there in zip(vertices, (*vertices[1:], vertices[0]), strict=True):
        a, b = at(form, here), at(form, there)
        if a <= 0:
            result.append(here)
        if (a < 0 < b) or (b < 0 < a):
            t = a / (a - b)
            result.append((here[0] + t * (there[0] - here[0]), here[1] + t * (there[1] - here[1])))
    return tuple(result)


def _dense(cell: Cell, operator: Dense) -> list[Cell]:
    values = []
    bias = operator.bias if operator.bias is not None else [0.0] * operator.weights.shape[1]
    for column, shift in zip(operator.weights.T.tolist(), list(bias), strict=True):
        parts = [[Fraction(w) * term for term in form] for w, form in zip(column, cell.values, strict=True)]
        total = [sum(terms, Fraction(0)) for terms in zip(*parts, strict=True)]
        total[2] += Fraction(float(shift))
        values.append(tuple(total))
    return [Cell(cell.vertices, tuple(values))]


def _bend(cell: Cell, operator: Piecewise) -> list[Cell]:
    breakpoints, slopes, intercepts = (table.tolist() for table in operator.spread((len(cell.values),)))
    cells = [cell]
    for unit in range(len(cell.values)):
        following = []
        for current in cells:
            form = current.values[unit]
            for piece in range(len(slopes)):
                vertices = current.vertices
                if piece > 0:  # x >= breakpoint
                    low = Fraction(breakpoints[piece - 1][unit])
                    vertices = vertices and clipped(vertices, (-form[0], -form[1], low - form[2]))
                if piece < len(breakpoints):
                    high = Fraction(breakpoints[piece][unit])
                    vertices = vertices and clipped(vertices, (form[0], form[1], form[2] - high))
                if vertices:
                    slope, rest = Fraction(slopes[piece][unit]), Fraction(intercepts[piece][unit])
                    bent = (slope * form[0], slope * form[1], slope * form[2] + rest)
                    values = (*current.values[:unit], bent, *current.values[unit + 1 :])
                    following.append(Cell(vertices, values))
        cells = following
    return cells


def cells_of(graph: Graph, box: RationalBox) -> list[Cell]:
    """All closed linear cells (degenerate ones included); together they cover the box."""
    (x0, y0), (x1, y1) = box.lower, box.upper
    start = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    zero, one = Fraction(0), Fraction(1)
    cells = [Cell(start, ((one, zero, zero), (zero, one, zero)))]
    for node in graph.nodes:
        step = {Dense: _dense, Piecewise: _bend}[type(node.operator)]
        cells = [new for cell in cells for new in step(cell, node.operator)]
    return cells


def minimum(cells: list[Cell], row: tuple[Fraction, ...]) -> Fraction:
    """Exact minimum of row . output: it lies at a vertex of a cell."""
    return min(
        sum((a * at(form, vertex) for a, form in zip(row, cell.values, strict=True)), Fraction(0))
        for cell in cells
        for vertex in cell.vertices
    )


def reaches(cells: list[Cell], unsafe: UnsafeSet) -> bool:
    """Whether some point of some cell has an unsafe output (non-strict rows only): exact clipping."""
    for polytope in unsafe.polytopes:
        assert not any(polytope.strict)
        for cell in cells:
            vertices = cell.vertices
            for row, bound in zip(polytope.coefficients, polytope.bounds, strict=True):
                parts = [[a * term for term in form] for a, form in zip(row, cell.values, strict=True)]
                total = [sum(terms, Fraction(0)) for terms in zip(*parts, strict=True)]
                total[2] -= bound
                vertices = vertices and clipped(vertices, tuple(total))
            if vertices:
                return True
    return False
