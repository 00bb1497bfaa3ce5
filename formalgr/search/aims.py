"""What is maximised over pairs of inputs: the growth of a row of the outputs, or the margin of a pair that breaks it.

In: bounds of rows over boxes of pairs, outputs at both points. Out: bounds and values of the aim, the set of pairs that
reach a value. Trust: sound (`values` guides; what counts is `reached`, which a replay decides).

Growth: rows . (f(x + d) - f(x)), the largest of all rows. Both signs of a row are covered, since the points of a pair
may change places. Margin: x is not given the label, some row label - other being <= 0 there; the aim is the least such
row at x + d. What no pair of a domain exceeds is the margin beyond which all close inputs get the label as well.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.search.paired import PairBounds
from formalgr.spec.unsafe import Polytope, UnsafeSet


@dataclass(frozen=True)
class Aim(ABC):
    """matrix (rows, outputs): the rows, with entries 0, 1 and -1; `names` (rows,): the output that each is about."""

    matrix: np.ndarray
    names: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Outputs of one copy."""
        return self.matrix.shape[1]

    @abstractmethod
    def worst(self, bounds: PairBounds) -> np.ndarray:
        """Upper bounds of the aim by row (batch, rows); -inf where no pair counts."""

    @abstractmethod
    def values(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The aim at outputs (batch, outputs) of both points, -inf where they do not count, and its row, (batch,)."""

    @abstractmethod
    def reached(self, value: Fraction, row: int) -> Polytope:
        """Outputs of both copies (x, then x + d) that show an aim >= value by that row."""

    def reached_by(self, value: Fraction, rows: list[int]) -> UnsafeSet:
        """The same by any of the rows."""
        return UnsafeSet(tuple(self.reached(value, row) for row in rows), 2 * self.outputs)

    def _exact(self, row: int, sign: int) -> tuple[Fraction, ...]:
        return tuple(sign * Fraction(float(x)) for x in self.matrix[row])


class Growth(Aim):
    """The largest growth of a row from x to x + d."""

    def worst(self, bounds: PairBounds) -> np.ndarray:
        return bounds.growth

    def values(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grown = (second - first) @ self.matrix.T
        row = np.argmax(grown, axis=1)
        return grown[np.arange(len(row)), row], row

    def reached(self, value: Fraction, row: int) -> Polytope:
        return Polytope(((*self._exact(row, 1), *self._exact(row, -1)),), (-value,), (False,))


class Margin(Aim):
    """The least row at x + d where some row is <= 0 at x."""

    def worst(self, bounds: PairBounds) -> np.ndarray:
        most = np.nextafter(bounds.growth + np.minimum(bounds.first.upper, 0.0), np.inf)
        most = np.minimum(most, np.min(bounds.second.upper, axis=1)[:, None])
        return np.where(bounds.first.lower > 0.0, -np.inf, most)

    def values(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        broken = first @ self.matrix.T
        row = np.argmin(broken, axis=1)
        value = np.min(second @ self.matrix.T, axis=1)
        return np.where(broken[np.arange(len(row)), row] <= 0.0, value, -np.inf), row

    def reached(self, value: Fraction, row: int) -> Polytope:
        nothing = (Fraction(0),) * self.outputs
        rows = [(*self._exact(row, 1), *nothing)]
        rows += [(*nothing, *self._exact(other, -1)) for other in range(len(self.matrix))]
        return Polytope(tuple(rows), (Fraction(0), *(-value,) * len(self.matrix)), (False,) * len(rows))


def growth_of_outputs(outputs: int) -> Growth:
    """The change of any output."""
    return Growth(np.eye(outputs, dtype=np.float64), tuple(range(outputs)))


def margin_of(label: int, outputs: int, rule: str = "argmax") -> Margin:
    """The margin of a label: its output minus each other one, or the negative where the smallest is the label."""
    matrix = -np.eye(outputs, dtype=np.float64)
    matrix[:, label] += 1.0
    others = tuple(other for other in range(outputs) if other != label)
    return Margin(matrix[list(others)] * (1.0 if rule == "argmax" else -1.0), others)
