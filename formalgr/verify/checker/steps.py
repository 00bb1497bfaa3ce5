"""The steps a network consists of, each with two meanings: at exact points and on affine forms.

In: rationals, forms. Out: the same. Trust: sound. Values are flat and numbered, 0 being the input; a step reads the
elements of its sources one after the other.
"""

from dataclasses import dataclass, field

import numpy as np

from formalgr.verify.checker.forms import Space, Value, joined
from formalgr.verify.checker.integers import Matrix, ceil, floor, rational

SLOPE_BITS = 24
"""Slopes of relaxations are integers over 2^24."""


@dataclass(frozen=True, eq=False)
class Blend:
    """(sum of factor * x[index] over the terms (index, factor) + shift) / divisor; factors may be off by slack."""

    sources: tuple[int, ...]
    terms: tuple[tuple[np.ndarray, np.ndarray | int], ...]
    shift: np.ndarray | int = 0
    divisor: int = 1
    slack: int = 0

    def at(self, values: list) -> np.ndarray:
        """The value at a point; only without slack."""
        x = np.concatenate([values[source] for source in self.sources])
        return (sum(x[index] * factor for index, factor in self.terms) + self.shift) * rational(1, self.divisor)

    def forms(self, values: list[Value], space: Space) -> Value:
        """The value as forms."""
        x = joined([values[source] for source in self.sources])
        rows = sum(x.rows[index] * np.reshape(factor, (-1, 1)) for index, factor in self.terms)
        radius = sum(x.radius[index] * np.abs(factor) for index, factor in self.terms)
        rows[:, 0] += self.shift << space.bits
        if self.slack:
            for index, _ in self.terms:
                least, most = space.ranges(x[index])
                radius = radius + np.maximum(-least, most) * self.slack
        return space.divided(rows, radius, self.divisor)


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

    def _columns(self, x: np.ndarray) -> list[np.ndarray]:
        """What the matrix of every group is multiplied with."""
        padded = np.concatenate([x, 0 * x[:1]])
        return [x] if self.gather is None else [padded[gather].reshape(len(gather), -1) for gather in self.gather]

    def at(self, values: list) -> np.ndarray:
        """The value at a point."""
        columns = self._columns(np.concatenate([values[source] for source in self.sources])[:, None])
        parts = [(matrix.entries @ part).reshape(-1) for matrix, part in zip(self.weights, columns, strict=True)]
        return (np.concatenate(parts) + self.shift) * rational(1, self.divisor)

    def forms(self, values: list[Value], space: Space) -> Value:
        """The value as forms."""
        x = joined([values[source] for source in self.sources])
        parts = zip(self.weights, self._columns(x.rows), self._columns(x.radius[:, None]), strict=True)
        made = [(m.times(rows).reshape(-1, x.rows.shape[1]), m.magnitude.times(r).reshape(-1)) for m, rows, r in parts]
        rows, radius = (np.concatenate(part) for part in zip(*made, strict=True))
        rows[:, 0] += self.shift << space.bits
        value = space.divided(rows, radius, self.divisor)
        return Value(value.rows, value.radius + self.radius)


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

    def pieces(self, low: int, high: int, unit: int) -> tuple[int, int]:
        """(first, last) piece that lies between low and high, which are whole numbers of 1 / unit."""
        first, last = sum(low >= kink * unit for kink in self.kinks), sum(high > kink * unit for kink in self.kinks)
        return first, max(first, last)

    def corners(self, low: int, high: int, unit: int) -> list[tuple]:
        """Points (x, f(x)) times unit, between low and high, between which the function is linear."""
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
