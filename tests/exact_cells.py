"""Slow, obvious and exact: the linear cells of a piecewise linear network over a box, in rationals.

In: a PlainNetwork, a rational box with any number of inputs (1 to 3 in practice). Out: cells by their vertices with the
outputs there; least values; whether an unsafe set is reached, and where. Trust: sound; the yardstick for the engine.

A cell is a closed convex polytope kept as its vertices; the network is affine on it, so its values at the vertices say
everything. Every operator that bends cuts the cells by the hyperplanes where it bends (tests/onnx_meaning.py). Bounds,
float arithmetic and the engine's own operators play no part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.exact import fraction, rational_array
from formalgr.spec.unsafe import Polytope, UnsafeSet
from tests.onnx_meaning import PlainNetwork, X, bends, meaning

LARGEST = 400
"""Cells of one network; beyond this many enumeration takes too long."""


class TooManyCells(Exception):
    """The network has more than LARGEST cells over the box."""


Cell = dict[int, int]
"""Vertices of a polytope: the row that holds a vertex -> the half-spaces on whose edge it lies, as bits."""


@dataclass
class _Table:
    """Points (rows) with everything known there (columns); cells share rows, the values being continuous."""

    rows: np.ndarray
    half_spaces: int

    def add(self, columns: np.ndarray) -> None:
        """More columns (points, count)."""
        self.rows = np.concatenate([self.rows, columns], axis=1)

    def cut(self, cells: list[Cell], column: int, sides: tuple[bool, bool]) -> list[Cell]:
        """The parts of the cells where the column is <= 0 and, or where it is >= 0 (`sides`), both closed.

        With both sides, a cell in which the column does not change its sign stays as it is: its other part, if any, is
        a face of it.
        """
        bit, fresh = 1 << self.half_spaces, {}
        self.half_spaces += 1
        result = []
        for cell in cells:
            sign = {row: (self.rows[row, column] > 0) - (self.rows[row, column] < 0) for row in cell}
            if all(sides) and len({-1, 1} & set(sign.values())) < 2:
                result.append(cell)
                continue
            crossing = {}
            for a, b in _edges(cell, sign):
                if (a, b) not in fresh:
                    fresh[a, b] = len(self.rows) + len(fresh)
                crossing[fresh[a, b]] = cell[a] & cell[b] | bit
            for side, wanted in zip((-1, 1), sides, strict=True):
                part = {row: on | (0 if sign[row] else bit) for row, on in cell.items() if sign[row] * side >= 0}
                if wanted and (part or crossing):
                    result.append(part | crossing)
        if fresh:
            before, after = (self.rows[list(ends)] for ends in zip(*fresh, strict=True))
            share = before[:, column] / (before[:, column] - after[:, column])
            self.rows = np.concatenate([self.rows, before + share[:, None] * (after - before)], axis=0)
        return result


def _edges(cell: Cell, sign: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Edges of the cell from a negative to a positive vertex.

    Two vertices are joined by one where the smallest face that holds both, given by the half-spaces on whose edge both
    lie, holds no third.
    """
    for a, b in product((row for row in cell if sign[row] < 0), (row for row in cell if sign[row] > 0)):
        both = cell[a] & cell[b]
        if not any(on & both == both for row, on in cell.items() if row not in (a, b)):
            yield a, b


@dataclass(frozen=True)
class Cells:
    """All closed cells of a network over a box (they cover it): points (rows, inputs), outputs (rows, outputs)."""

    network: PlainNetwork
    cells: list[Cell]
    points: np.ndarray
    outputs: np.ndarray
    half_spaces: int

    def vertices(self) -> Iterator[np.ndarray]:
        """The vertices of every cell, (vertices, inputs)."""
        return (self.points[list(cell)] for cell in self.cells)

    def clipped(self, polytope: Polytope) -> tuple[_Table, list[Cell]]:
        """The parts of the cells with outputs in the closed polytope; columns: the point, then row - bound."""
        table = _Table(np.concatenate([self.points, _slack(polytope, self.outputs)], axis=1), self.half_spaces)
        cells = self.cells
        for row in range(polytope.rows):
            cells = table.cut(cells, self.points.shape[1] + row, (True, False))
        return table, cells

    def extremes(self, row: tuple[Fraction, ...]) -> tuple[Fraction, Fraction]:
        """Exact minimum and maximum of row . output over the box: they lie at vertices of cells."""
        used = sorted({place for cell in self.cells for place in cell})
        values = self.outputs[used] @ rational_array(np.array(row, dtype=object))
        return fraction(min(values)), fraction(max(values))

    def minimum_within(self, row: tuple[Fraction, ...], polytope: Polytope) -> Fraction | None:
        """Exact minimum of row . output over the closed polytope; None where no output lies in it."""
        both = Polytope((*polytope.coefficients, row), (*polytope.bounds, Fraction(0)), (False,) * (polytope.rows + 1))
        table, cells = self.clipped(polytope)
        if not cells:
            return None
        used = sorted({place for cell in cells for place in cell})
        outputs = self.network.evaluate(table.rows[used, : self.points.shape[1]])
        return fraction(min(_slack(both, outputs)[:, -1]))

    def witness(self, unsafe: UnsafeSet) -> tuple[Fraction, ...] | None:
        """A point whose output is unsafe, or None: then there is none.

        Each strict row must be < somewhere in the clipped cell; the mean of its vertices then is < in all of them.
        """
        for polytope in unsafe.polytopes:
            table, cells = self.clipped(polytope)
            for cell in cells:
                rows = table.rows[list(cell)]
                slack = rows[:, self.points.shape[1] :]
                if all(not strict or min(slack[:, k]) < 0 for k, strict in enumerate(polytope.strict)):
                    return tuple(fraction(x) for x in sum(rows[:, : self.points.shape[1]]) / len(rows))
        return None


def unsafe_points(outputs: np.ndarray, unsafe: UnsafeSet) -> np.ndarray:
    """Which exact outputs (points, outputs) are unsafe, (points,) bool."""
    found = np.zeros(len(outputs), dtype=bool)
    for polytope in unsafe.polytopes:
        slack = _slack(polytope, outputs)
        inside = [slack[:, k] < 0 if strict else slack[:, k] <= 0 for k, strict in enumerate(polytope.strict)]
        found |= np.all(np.stack([np.ones(len(outputs), dtype=bool), *inside]), axis=0)
    return found


def _slack(polytope: Polytope, outputs: np.ndarray) -> np.ndarray:
    """row . output - bound for all rows, (points, rows)."""
    if not polytope.rows:
        return outputs[:, :0]
    matrix = rational_array(np.array(polytope.coefficients, dtype=object))
    return outputs @ matrix.T - rational_array(np.array(polytope.bounds, dtype=object))


def cells_of(network: PlainNetwork, box: RationalBox) -> Cells:
    """All cells of the network over a box that is not empty. Raises TooManyCells."""
    corners: dict[tuple, int] = {}
    for ends in product((0, 1), repeat=box.inputs):
        point = tuple((box.lower, box.upper)[end][axis] for axis, end in enumerate(ends))
        on = sum(1 << (2 * axis + end) for axis, end in enumerate(ends))
        corners[point] = corners.get(point, 0) | on
    table = _Table(rational_array(np.array(list(corners), dtype=object)), 2 * box.inputs)
    cells: list[Cell] = [dict(enumerate(corners.values()))]
    places = {X: (slice(0, box.inputs), network.shape)}
    for step in network.steps:
        kinks = bends(step, *_arguments(network, step, table, places))
        if kinks is not None:
            width = table.rows.shape[1]
            table.add(kinks)
            for column in range(width, width + kinks.shape[1]):
                cells = table.cut(cells, column, (True, True))
                if len(cells) > LARGEST:
                    raise TooManyCells(f"more than {LARGEST} cells")
            table.rows = table.rows[:, :width]
        values = meaning(step, *_arguments(network, step, table, places))
        flat = values.reshape(len(values), -1)
        places[step.output] = (slice(table.rows.shape[1], table.rows.shape[1] + flat.shape[1]), values.shape[1:])
        table.add(flat)
    last = places[network.steps[-1].output][0]
    return Cells(network, cells, table.rows[:, : box.inputs], table.rows[:, last], table.half_spaces)


def _arguments(network: PlainNetwork, step, table: _Table, places) -> list:
    """What the step reads at all points of the table."""
    values = {n: table.rows[:, where].reshape(-1, *shape) for n, (where, shape) in places.items()}
    return network.arguments(step, values)
