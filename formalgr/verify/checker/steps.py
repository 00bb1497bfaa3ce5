"""The steps a network consists of, each with two meanings: at exact points and on affine forms.

In: rationals, forms. Out: the same. Trust: sound. Values are flat and numbered, 0 being the input; a step reads the
elements of its sources one after the other.
"""

from dataclasses import dataclass, field
from math import lcm

import numpy as np

from formalgr.verify.checker.forms import Space, Value, joined
from formalgr.verify.checker.integers import Matrix, ceil, floor, integers, rational

SLOPE_BITS = 24
"""Slopes of relaxations are integers over 2^24."""


@dataclass(frozen=True, eq=False)
class Blend:
    """(factor * x[index] + shift) / divisor, plus addend[index] if there is one; the factor may be off by slack."""

    sources: tuple[int, ...]
    index: np.ndarray
    factor: np.ndarray | int = 1
    shift: np.ndarray | int = 0
    divisor: int = 1
    slack: int = 0
    addend: tuple[int, np.ndarray] | None = None

    def at(self, values: list) -> np.ndarray:
        """The value at a point; only without slack."""
        x = np.concatenate([values[source] for source in self.sources])[self.index]
        made = (x * self.factor + self.shift) * rational(1, self.divisor)
        return made if self.addend is None else made + values[self.addend[0]][self.addend[1]]

    def forms(self, values: list[Value], space: Space) -> Value:
        """The value as forms."""
        x = joined([values[source] for source in self.sources])[self.index]
        rows, radius = x.rows * np.reshape(self.factor, (-1, 1)), x.radius * np.abs(self.factor)
        rows[:, 0] += self.shift << space.bits
        if self.slack:
            least, most = space.ranges(x)
            radius = radius + np.maximum(-least, most) * self.slack
        made = space.divided(rows, radius, self.divisor)
        if self.addend is None:
            return made
        y = values[self.addend[0]][self.addend[1]]
        width = max(y.rows.shape[1], made.rows.shape[1])
        return Value(made.over(width) + y.over(width), made.radius + y.radius)


@dataclass(frozen=True, eq=False)
class Product:
    """(weights . x + shift) / divisor, off by at most `radius` units of 2^-bits.

    One matrix (outputs, terms) per group; gather (groups, terms, places) says which elements its columns meet at each
    place, -1 being 0; None: one group, one place, all elements. Outputs are ordered by group, row, place.
    """

    sources: tuple[int, ...]
    weights: tuple[Matrix, ...]
    shift: np.ndarray
    divisor: int
    gather: np.ndarray | None = None
    radius: np.ndarray | int = 0

    def _apply(self, x: np.ndarray, matrices) -> np.ndarray:
        if self.gather is None:
            return matrices[0].times(x)
        padded, width = np.concatenate([x, 0 * x[:1]]), x.shape[1]
        pairs = zip(matrices, self.gather, strict=True)
        parts = [m.times(padded[gather].reshape(len(gather), -1)).reshape(-1, width) for m, gather in pairs]
        return np.concatenate(parts)

    def at(self, values: list) -> np.ndarray:
        """The value at a point."""
        point = np.concatenate([values[source] for source in self.sources])
        common = lcm(*(int(x.denominator) for x in point))
        scaled = integers([floor(x * common) for x in point])
        product = self._apply(scaled[:, None], self.weights)[:, 0] + self.shift * common
        return np.array([rational(x, common * self.divisor) for x in product], dtype=object)

    def forms(self, values: list[Value], space: Space) -> Value:
        """The value as forms."""
        x = joined([values[source] for source in self.sources])
        rows = self._apply(x.rows, self.weights)
        rows[:, 0] += self.shift << space.bits
        radius = self._apply(x.radius[:, None], [matrix.magnitude for matrix in self.weights])[:, 0]
        made = space.divided(rows, radius, self.divisor)
        return Value(made.rows, made.radius + self.radius)


@dataclass(frozen=True)
class Table:
    """A continuous piecewise linear function: pieces slope * x + intercept between rational kinks."""

    kinks: tuple
    slopes: tuple
    intercepts: tuple

    def value(self, x):
        """The function at a rational."""
        piece = sum(x > kink for kink in self.kinks)
        return self.slopes[piece] * x + self.intercepts[piece]

    def corners(self, low: int, high: int, bits: int) -> list[tuple]:
        """Points (x, f(x)) in units of 2^-bits, between low and high, between which the function is linear."""
        unit = 1 << bits
        inner = (kink * unit for kink in self.kinks)
        xs = [rational(low), *(kink for kink in inner if low < kink < high), rational(high)]
        return [(x, self.value(x / unit) * unit) for x in xs]


@dataclass(frozen=True, eq=False)
class Bend:
    """A piecewise linear function of each element: tables[which[k]] of element k; `names` are the units' names."""

    source: int
    tables: tuple[Table, ...]
    which: np.ndarray
    names: tuple[tuple[int, int], ...] = field(repr=False)

    def at(self, values: list) -> np.ndarray:
        """The value at a point."""
        pairs = zip(self.which, values[self.source], strict=True)
        return np.array([self.tables[table].value(x) for table, x in pairs], dtype=object)

    def pieces(self, low: np.ndarray, high: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """(first, last) piece that each element may lie on, given its range in units of 2^-bits."""
        first, last = np.zeros((2, len(low)), dtype=np.int64)
        for index, table in enumerate(self.tables):
            mine = self.which == index
            for kink in table.kinks:
                first[mine] += low[mine] >= ceil(kink * (1 << bits))
                last[mine] += high[mine] > floor(kink * (1 << bits))
        return first, np.maximum(first, last)

    def lines(self, piece: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Slope of the given piece of each element over a divisor, its intercept between two integers, the divisor."""
        divisor = lcm(*(int(slope.denominator) for table in self.tables for slope in table.slopes))
        found = {}
        for index, k in set(zip(self.which.tolist(), piece.tolist(), strict=True)):
            intercept = self.tables[index].intercepts[k] * (1 << bits)
            found[index, k] = floor(self.tables[index].slopes[k] * divisor), floor(intercept), ceil(intercept)
        rows = integers([found[pair] for pair in zip(self.which.tolist(), piece.tolist(), strict=True)]).reshape(-1, 3)
        return rows[:, 0], rows[:, 1:], divisor


def hull_slopes(corners: list[tuple]) -> tuple[int, int]:
    """Slopes of the edges of the lower and the upper hull over the middle of the range, over 2^24, rounded down."""
    middle, edges = (corners[0][0] + corners[-1][0]) / 2, []
    for k, (x, y) in enumerate(corners):
        for a, b in corners[k + 1 :]:
            if x <= middle <= a and x < a:
                slope = (b - y) / (a - x)
                edges.append((y + slope * (middle - x), slope))
    ends = (end(edges, key=lambda edge: edge[0])[1] for end in (min, max))
    return tuple(floor(slope * (1 << SLOPE_BITS)) for slope in ends)


def offsets(corners: list[tuple], slope: int) -> tuple[int, int]:
    """(lowest, highest) of f(x) - slope * x in units, rounded outward: right for any slope."""
    rest = [y - x * rational(slope, 1 << SLOPE_BITS) for x, y in corners]
    return floor(min(rest)), ceil(max(rest))
