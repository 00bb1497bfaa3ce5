"""One pass through a network over a box: every value as forms, open units as new symbols.

In: Program, box, what phase splits say, slopes. Out: forms of the outputs, a smaller program. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.verify.checker.claim import Rejected
from formalgr.verify.checker.forms import Space, Value
from formalgr.verify.checker.integers import Matrix, ceil, floor, integers
from formalgr.verify.checker.steps import SLOPE_BITS, Bend, Product, hull_slopes, offsets

Name = tuple[int, int]
"""A unit: the number of its activation in the file, counted from 0, and its flat element."""


@dataclass(frozen=True)
class Program:
    """Steps in order; value 0 is the input, value k the result of step k - 1, the last one the output."""

    inputs: int
    steps: tuple

    def at(self, point: list) -> np.ndarray:
        """The exact output at a rational point."""
        values = [np.array(point, dtype=object)]
        for step in self.steps:
            values.append(step.at(values))
        return values[-1]


@dataclass(frozen=True)
class Guide:
    """How units are relaxed: which pieces phase splits leave (first, last) to units, and slopes (below, above; over
    2^24) of units that do not take the usual ones."""

    allowed: dict[Name, tuple[int, int]]
    slopes: dict[Name, tuple[int, int]]


class Walk:
    """The pass. `output`: forms over the symbols of `space`; `arguments`: (value, table) of units in `allowed`."""

    def __init__(self, program: Program, bits: int, box: tuple, guide: Guide):
        self.space, self.guide = Space(bits, *box), guide
        self.arguments: dict[Name, tuple] = {}
        self._opened: list[tuple[Bend, np.ndarray, Value]] = []
        values = [self.space.units(1, program.inputs)]
        for step in program.steps:
            values.append(self._bend(step, values) if isinstance(step, Bend) else step.forms(values, self.space))
        self.output = values[-1]

    def _bend(self, step: Bend, values: list[Value]) -> Value:
        value, bits = values[step.source], self.space.bits
        allowed = {k: self.guide.allowed[name] for k, name in enumerate(step.names) if name in self.guide.allowed}
        low, high = self.space.ranges(value)
        first, last = _within(step, allowed, low, high, bits)
        open_ = np.nonzero(first < last)[0]
        if self.space.blocks and open_.size:
            below, above = self.space.bounds(value[open_])
            low[open_] = np.maximum(low[open_], below)
            high[open_] = np.maximum(low[open_], np.minimum(high[open_], above))
            first, last = _within(step, allowed, low, high, bits)
            open_ = np.nonzero(first < last)[0]
        for k in allowed:
            table = step.tables[step.which[k]]
            self.arguments[step.names[k]] = value[[k]], table
            if first[k] > 0:
                low[k] = max(low[k], floor(table.kinks[first[k] - 1] * (1 << bits)))
            if last[k] < len(table.kinks):
                high[k] = min(high[k], ceil(table.kinks[last[k]] * (1 << bits)))
        made = self._line(value, *step.lines(first, bits))
        if not open_.size:
            return made
        units = self._open(step, value[open_], open_, low[open_], high[open_])
        rows, radius = made.over(self.space.symbols), made.radius
        rows[open_], radius[open_] = units.rows, units.radius
        return Value(rows, radius)

    def _open(self, step: Bend, value: Value, open_: np.ndarray, low: np.ndarray, high: np.ndarray) -> Value:
        """Open units as new symbols between two lines."""
        slopes, ends, ranges = [], [], []
        for k, *interval in zip(open_.tolist(), low, high, strict=True):
            table = step.tables[step.which[k]]
            corners = table.corners(*interval, self.space.bits)
            pair = self.guide.slopes.get(step.names[k]) or hull_slopes(corners)
            steepest, flattest = (end(table.slopes) * (1 << SLOPE_BITS) for end in (max, min))
            if not all(flattest - 1 <= slope <= steepest for slope in pair):
                raise Rejected(f"slopes {pair} lie outside the slopes of unit {step.names[k]}")
            slopes.append(pair)
            ends.append((offsets(corners, pair[0])[0], offsets(corners, pair[1])[1]))
            ranges.append((floor(min(y for _, y in corners)), ceil(max(y for _, y in corners))))
        slopes, ends = integers(slopes), integers(ends)
        lines = (self._line(value, slopes[:, side], ends[:, [side, side]], 1 << SLOPE_BITS) for side in (0, 1))
        self._opened.append((step, open_, value))
        return self.space.open(*lines, ranges)

    def _line(self, value: Value, factor: np.ndarray, offset: np.ndarray, divisor: int) -> Value:
        """factor / divisor * x + something between offset[:, 0] and offset[:, 1] (units of 2^-bits)."""
        middle = offset[:, 0] + offset[:, 1] >> 1
        rows = value.rows * factor[:, None]
        rows[:, 0] += middle * divisor
        return self.space.divided(rows, value.radius * np.abs(factor) + (offset[:, 1] - middle) * divisor, divisor)

    def program(self) -> Program:
        """A smaller program with the same output wherever this pass is valid: open units over inputs and each other."""
        places, steps, symbols = [0], [], 1 + self.space.inputs
        for step, open_, value in self._opened:
            steps.append(self._rows(places, value, symbols))
            steps.append(Bend(len(steps), step.tables, step.which[open_], tuple(step.names[k] for k in open_)))
            places, symbols = [*places, len(steps)], symbols + len(open_)
        return Program(self.space.inputs, (*steps, self._rows(places, self.output, symbols)))

    def _rows(self, places: list[int], value: Value, symbols: int) -> Product:
        """Forms of inputs and open units as a step."""
        rows = value.over(symbols)
        return Product(tuple(places), (Matrix(rows[:, 1:]),), rows[:, 0], 1 << self.space.bits, radius=value.radius)


def _within(step: Bend, allowed: dict[int, tuple[int, int]], low, high, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(first, last) piece of every element by its range and by phase splits. Where these contradict each other the
    split is believed: such a unit lies on the kink between, or nowhere."""
    first, last = step.pieces(low, high, bits)
    for k, (start, stop) in allowed.items():
        first[k] = min(max(first[k], start), stop)
        last[k] = max(min(last[k], stop), first[k])
    return first, last
