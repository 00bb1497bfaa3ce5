"""Unsafe sets: a disjunction of polytopes over the outputs; a query is violated when an output lies in one of them.

In: exact rational coefficients. Out: Polytope, UnsafeSet. Trust: sound (membership is decided in exact arithmetic or
by an outward-rounded interval; the float arrays are only derived from the rationals).
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from formalgr.core.linear import Interval
from formalgr.core.rounding import NEGLIGIBLE, gamma, nearest, underflow


@dataclass(frozen=True)
class Polytope:
    """{y : coefficients[r] . y <= bounds[r] for every row r}, with < instead of <= where strict[r].

    coefficients (rows, outputs), bounds and strict (rows,). No rows: all of space. Raises ValueError on other shapes.
    """

    coefficients: tuple[tuple[Fraction, ...], ...]
    bounds: tuple[Fraction, ...]
    strict: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.coefficients) == len(self.bounds) == len(self.strict):
            raise ValueError("a polytope needs one bound and one strictness per row")
        if len({len(row) for row in self.coefficients}) > 1:
            raise ValueError("the rows of a polytope have different lengths")

    @property
    def rows(self) -> int:
        """Number of inequalities."""
        return len(self.bounds)

    def contains(self, outputs: tuple[Fraction, ...]) -> bool:
        """Whether the exact outputs lie in the polytope."""
        for row, bound, strict in zip(self.coefficients, self.bounds, self.strict, strict=True):
            value = sum((a * y for a, y in zip(row, outputs, strict=True) if a), Fraction(0)) - bound
            if value > 0 or (strict and value == 0):
                return False
        return True


@dataclass(frozen=True)
class UnsafeSet:
    """Union of polytopes over `outputs` network outputs; empty when there is none."""

    polytopes: tuple[Polytope, ...]
    outputs: int

    def __post_init__(self) -> None:
        for polytope in self.polytopes:
            if polytope.rows and len(polytope.coefficients[0]) != self.outputs:
                raise ValueError(
                    f"a polytope over {len(polytope.coefficients[0])} outputs in a set over {self.outputs}"
                )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Queries are grouped by their sets, and a set is hundreds of rationals: hashed once."""
        return hash((self.polytopes, self.outputs))

    @property
    def rows(self) -> int:
        """Number of inequalities of all polytopes together."""
        return sum(polytope.rows for polytope in self.polytopes)

    @cached_property
    def owners(self) -> np.ndarray:
        """Index of the polytope that every row belongs to, (rows,) int64."""
        counts = [polytope.rows for polytope in self.polytopes]
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    @cached_property
    def matrix(self) -> np.ndarray:
        """Nearest float64 coefficients of all rows, (rows, outputs): off by at most u relatively, or ETA."""
        rows = [[nearest(a) for a in row] for polytope in self.polytopes for row in polytope.coefficients]
        return np.array(rows, dtype=np.float64).reshape(self.rows, self.outputs)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Nearest float64 right-hand sides of all rows, (rows,)."""
        return np.array([nearest(b) for polytope in self.polytopes for b in polytope.bounds], dtype=np.float64)

    @cached_property
    def strict(self) -> np.ndarray:
        """Strictness of all rows, (rows,) bool."""
        return np.array([s for polytope in self.polytopes for s in polytope.strict], dtype=bool)

    def contains(self, outputs: tuple[Fraction, ...]) -> bool:
        """Whether the exact outputs are unsafe."""
        return any(polytope.contains(outputs) for polytope in self.polytopes)

    def open_polytopes(self, lower: np.ndarray) -> np.ndarray:
        """Which polytopes lower bounds of (row . y - bound) over a box, (batch, rows), leave open: (batch, polytopes).

        A polytope is excluded by one row that is positive everywhere (or not negative, when the row is strict).
        """
        excludes = np.where(self.strict[None, :], lower >= 0.0, lower > 0.0)
        result = np.ones((lower.shape[0], len(self.polytopes)), dtype=bool)
        for index in range(len(self.polytopes)):
            result[:, index] = ~np.any(excludes[:, self.owners == index], axis=1)
        return result

    def excess(self, values: np.ndarray) -> np.ndarray:
        """How far outputs (batch, outputs) are from unsafe: min over polytopes of max over rows of row . y - bound.

        Heuristic (plain floats): negative or zero suggests a violation. Infinite when there is no polytope.
        """
        slack = values @ self.matrix.T - self.bounds
        result = np.full(values.shape[0], np.inf, dtype=np.float64)
        for index, polytope in enumerate(self.polytopes):
            worst = np.max(slack[:, self.owners == index], axis=1) if polytope.rows else -np.inf
            result = np.minimum(result, worst)
        return result

    def surely_contains(self, outputs: Interval) -> np.ndarray:
        """Whether every output in the box (batch, outputs) is unsafe, decided by outward-rounded floats, (batch,)."""
        terms = 2 * self.outputs + 8
        positive, negative = np.maximum(self.matrix, 0.0), np.minimum(self.matrix, 0.0)
        largest = outputs.upper @ positive.T + outputs.lower @ negative.T - self.bounds
        scale = (outputs.magnitude + NEGLIGIBLE["float64"]) @ np.abs(self.matrix).T + np.abs(self.bounds)
        scale = scale + NEGLIGIBLE["float64"] * outputs.total
        largest = largest + gamma(terms, "float64") * scale + underflow(terms, "float64")
        inside = np.where(self.strict[None, :], largest < 0.0, largest <= 0.0)
        result = np.zeros(largest.shape[0], dtype=bool)
        for index in range(len(self.polytopes)):
            result |= np.all(inside[:, self.owners == index], axis=1)
        return result
