"""One pass through a network over a box: every value as forms, open units as new symbols.

In: Program, box, what phase splits say, slopes. Out: forms of the outputs, a smaller program. Trust: sound.
"""

from dataclasses import dataclass
from math import lcm

import numpy as np

from formalgr.verify.checker.claim import expect
from formalgr.verify.checker.forms import Space, Value
from formalgr.verify.checker.integers import Matrix, ceil, floor, integers, rational
from formalgr.verify.checker.steps import SLOPE_BITS, Bend, Product, Table, hull_slopes, offsets

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


class Walk:
    """The pass. allowed: which pieces (first, last) phase splits leave to units; slopes: those (below, above; over
    2^24) of units that do not take the usual ones. `output`: forms over the symbols of `space`; `arguments`: (value,
    table) of the units in `allowed`."""

    def __init__(self, program: Program, bits: int, box: tuple, allowed: dict[Name, tuple], slopes: dict[Name, tuple]):
        self.space, self.allowed, self._slopes, self._unit = Space(bits, *box), allowed, slopes, 1 << bits
        self.arguments: dict[Name, tuple] = {}
        self._opened: list[tuple[Bend, list[int], Value]] = []
        values = [self.space.units(1, program.inputs)]
        for step in program.steps:
            bent = isinstance(step, Bend)
            values.append(self._bend(step, values[step.source]) if bent else step.forms(values, self.space))
        self.output = values[-1]

    def _bend(self, step: Bend, value: Value) -> Value:
        """A line where a unit has one piece, a new symbol between two lines where it may have several."""
        tables, ends = [step.tables[k] for k in step.which], list(zip(*self.space.ranges(value), strict=True))
        pieces = [self._pieces(*unit) for unit in zip(step.names, tables, ends, strict=True)]
        open_ = [k for k, (first, last) in enumerate(pieces) if first < last]
        if self.space.blocks and open_:
            for k, least, most in zip(open_, *self.space.bounds(value[open_]), strict=True):
                low = max(ends[k][0], least)
                ends[k] = low, max(low, min(ends[k][1], most))
                pieces[k] = self._pieces(step.names[k], tables[k], ends[k])
            open_ = [k for k in open_ if pieces[k][0] < pieces[k][1]]
        for k in [k for k, name in enumerate(step.names) if name in self.allowed]:
            self.arguments[step.names[k]] = value[[k]], tables[k]
        first = [(table, piece) for table, (piece, _) in zip(tables, pieces, strict=True)]
        middles = [table.intercepts[piece] * self._unit for table, piece in first]
        made = self._line(value, [table.slopes[piece] for table, piece in first], middles, middles)
        if not open_:
            return made
        self._opened.append((step, open_, value[open_]))
        units = self._open([(step.names[k], tables[k], *pieces[k], *ends[k]) for k in open_], value[open_])
        rows, radius = made.over(self.space.symbols), made.radius
        rows[open_], radius[open_] = units.rows, units.radius
        return Value(rows, radius)

    def _pieces(self, name: Name, table: Table, ends: tuple[int, int]) -> tuple[int, int]:
        """(first, last) piece of a unit by its range and by phase splits. Where these contradict each other the split
        is believed: such a unit lies on the kink between, or nowhere."""
        first, last = table.pieces(*ends, self._unit)
        start, stop = self.allowed.get(name, (first, last))
        first = min(max(first, start), stop)
        return first, max(min(last, stop), first)

    def _open(self, units: list[tuple], value: Value) -> Value:
        """Units (name, table, first and last piece, range) as new symbols between two lines."""
        slopes, ends, ranges = [], [], []
        for name, table, first, last, low, high in units:
            if first > 0:
                low = max(low, floor(table.kinks[first - 1] * self._unit))
            if last < len(table.kinks):
                high = min(high, ceil(table.kinks[last] * self._unit))
            corners = table.corners(low, high, self._unit)
            pair = self._slopes.get(name) or hull_slopes(corners)
            steepest, flattest = (end(table.slopes) * (1 << SLOPE_BITS) for end in (max, min))
            fit = all(flattest - 1 <= slope <= steepest for slope in pair)
            expect(fit, f"slopes {pair} lie outside the slopes of unit {name}")
            slopes.append([rational(slope, 1 << SLOPE_BITS) for slope in pair])
            ends.append((offsets(corners, pair[0])[0], offsets(corners, pair[1])[1]))
            ranges.append((floor(min(y for _, y in corners)), ceil(max(y for _, y in corners))))
        below, above = (self._line(value, *([row[side] for row in part] for part in (slopes, ends, ends)))
                        for side in (0, 1))
        return self.space.open(below, above, ranges)

    def _line(self, value: Value, slopes: list, low: list, high: list) -> Value:
        """slope * x + something between low and high (in units), rationals all."""
        divisor = lcm(*(int(slope.denominator) for slope in slopes))
        factor = integers([floor(slope * divisor) for slope in slopes])
        start, stop = integers(list(map(floor, low))), integers(list(map(ceil, high)))
        middle, rows = start + stop >> 1, value.rows * factor[:, None]
        rows[:, 0] += middle * divisor
        return self.space.divided(rows, value.radius * np.abs(factor) + (stop - middle) * divisor, divisor)

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
        return Product(tuple(places), (Matrix(rows[:, 1:]),), rows[:, 0], self._unit, radius=value.radius)
