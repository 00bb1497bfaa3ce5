"""Values as affine forms of symbols in fixed point: integers in units of 2^-bits, every rounding counted in a radius.

In: forms, ranges of symbols. Out: forms, bounds. Trust: sound.

A value v is known as |v - rows . s| <= radius over the symbols s = (1, inputs, open units). The symbol of an open unit
lies between two forms of earlier symbols.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.verify.checker.integers import Matrix, integers


@dataclass(frozen=True)
class Value:
    """rows (elements, symbols so far) and radius (elements,), integers in units of 2^-bits."""

    rows: np.ndarray
    radius: np.ndarray

    def __getitem__(self, index) -> "Value":
        return Value(self.rows[index], self.radius[index])

    def over(self, symbols: int) -> np.ndarray:
        """A copy of the rows, with zeros for symbols that came later."""
        missing = integers(np.zeros((len(self.rows), symbols - self.rows.shape[1]), dtype=np.int64))
        return np.concatenate([self.rows, missing], axis=1)


def joined(values: list[Value]) -> Value:
    """The elements of several values, one after the other."""
    width = max(value.rows.shape[1] for value in values)
    return Value(*(np.concatenate(p) for p in ([v.over(width) for v in values], [v.radius for v in values])))


class Space:
    """The symbols so far and their ranges; symbol 0 is the constant 1."""

    def __init__(self, bits: int, low, high):
        self.bits, self.inputs = bits, len(low)
        self.low, self.high = [1 << bits, *low], [1 << bits, *high]
        self.blocks: list[tuple[int, Matrix]] = []  # first symbol, forms below and then forms above the symbols

    @property
    def symbols(self) -> int:
        """Number of symbols."""
        return len(self.low)

    def units(self, start: int, count: int) -> Value:
        """The symbols from `start` on as forms of themselves."""
        rows = integers(np.eye(count, start + count, start, dtype=np.int64)) << self.bits
        return Value(rows, integers(np.zeros(count, dtype=np.int64)))

    def reach(self, symbols: int) -> int:
        """What an error of less than one unit in each coefficient of so many symbols can change, in units."""
        ends = zip(self.low[:symbols], self.high[:symbols], strict=True)
        return -(-sum(max(abs(low), abs(high)) for low, high in ends) >> self.bits)

    def divided(self, rows: np.ndarray, radius: np.ndarray, divisor: int) -> Value:
        """The value rows / divisor: coefficients rounded down, the radius up by what that changes where it does."""
        if divisor == 1:
            return Value(rows, radius)
        lost = self.reach(rows.shape[1]) * np.any(rows % divisor != 0, axis=1).astype(object)
        return Value(rows // divisor, -(-radius // divisor) + lost)

    def ranges(self, value: Value) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) of every element from the ranges of the symbols alone."""
        low, high = (np.array(end[: value.rows.shape[1]], dtype=object)[:, None] for end in (self.low, self.high))
        middle = Matrix(value.rows).times(low + high)[:, 0]
        reach = Matrix(np.abs(value.rows)).times(high - low)[:, 0]
        shift = self.bits + 1
        return (middle - reach >> shift) - value.radius, -(-middle - reach >> shift) + value.radius

    def open(self, below: Value, above: Value, ranges: list[tuple[int, int]]) -> Value:
        """New symbols between two values, each within its range; returns them as a value."""
        start = self.symbols
        low, high = below.over(start), above.over(start)
        low[:, 0] -= below.radius
        high[:, 0] += above.radius
        self.blocks.append((start, Matrix(np.concatenate([low, high]))))
        self.low += [least for least, _ in ranges]
        self.high += [most for _, most in ranges]
        return self.units(start, len(ranges))

    def lower_forms(self, value: Value) -> np.ndarray:
        """Forms of the inputs alone (elements, 1 + inputs) that lie below the elements wherever the symbols may be."""
        rows, lost = value.over(self.symbols), value.radius
        for start, ends in reversed(self.blocks):
            part, rows = rows[:, start:], rows[:, :start]
            signs = Matrix(np.concatenate([np.maximum(part, 0), np.minimum(part, 0)], axis=1))
            rows = rows + (signs.times(ends.entries) >> self.bits)
            lost = lost + self.reach(start)
        rows = rows.copy()
        rows[:, 0] -= lost
        return rows

    def minima(self, forms: np.ndarray, low=None, high=None) -> np.ndarray:
        """The least value of forms of the inputs over a box, by default the space's own, (elements,)."""
        low = self.low[1 : self.inputs + 1] if low is None else low
        high = self.high[1 : self.inputs + 1] if high is None else high
        ends = (np.array(end, dtype=object)[:, None] for end in (low, high))
        signs = np.maximum(forms[:, 1:], 0), np.minimum(forms[:, 1:], 0)
        least = sum(Matrix(part).times(end)[:, 0] for part, end in zip(signs, ends, strict=True))
        return forms[:, 0] + (least >> self.bits)

    def bounds(self, value: Value) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) of every element, with open units replaced by what encloses them."""
        both = Value(np.concatenate([value.rows, -value.rows]), np.concatenate([value.radius, value.radius]))
        least = self.minima(self.lower_forms(both))
        return least[: len(value.rows)], -least[len(value.rows) :]
