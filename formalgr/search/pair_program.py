"""An aim at pairs of points d apart as a linear program over a folded system, and what its multipliers prove.

In: folded system of one box with bounds and moves of its units, the phases of both copies. Out: PairSolution. Trust:
sound: `bound` is what the multipliers prove when every rounding is counted; the solver only proposes them.

The difference encoding: variables x and d, per unit its row r, its value h, and how far both move, dr and dh. The
copies are r, h and r + dr, h + dh; rows of moves see the shared weights once, so that nothing cancels between copies.
A unit's phase in a copy (its piece) turns into bounds. Any multipliers y of A v in [low, high] prove

    c v >= sum_i min(y_i low_i, y_i high_i) + sum_j min over v_j of (c - A'y)_j v_j

(Neumaier & Shcherbina 2004, Safe bounds in linear and mixed-integer linear programming).
"""

import enum
from dataclasses import dataclass

import numpy as np

from formalgr.bounds.folded import WIDE, hinges
from formalgr.bounds.paired import moves_of
from formalgr.core.budget import Budget
from formalgr.core.folded import FoldedSystem
from formalgr.core.rounding import SLACK, gamma, underflow
from formalgr.search.aims import Aim, Margin
from formalgr.search.paired import PairBox
from formalgr.solvers.highs_backend import WarmLp
from formalgr.solvers.milp import Milp, Row

LEAST_LOSS = 1e-3
"""Every unit counts at least this share of the one that counts most: a coefficient of 0 may be that of a flat line."""


class Phase(enum.IntEnum):
    """The piece of a unit min(max(r, 0), cap) in one copy."""

    FREE = 0
    OFF = 1
    ON = 2
    FULL = 3


@dataclass(frozen=True)
class PairSolution:
    """bound: no pair with these phases grows by more; -inf: there is none. The solver's pair (x, d), None when it has
    none; per unit and copy by how much the solver's point breaks it, (2, units)."""

    bound: float
    first: np.ndarray | None
    moves: np.ndarray | None
    broken: np.ndarray | None


@dataclass(frozen=True)
class _Layout:
    """Where the variables are: x, d, then r, dr, h, dh of all units, then the objective."""

    inputs: int
    units: int

    @property
    def columns(self) -> int:
        return 2 * self.inputs + 4 * self.units + 1

    def at(self, kind: int) -> np.ndarray:
        """Places of r, dr, h or dh (0 .. 3) of all units."""
        return 2 * self.inputs + kind * self.units + np.arange(self.units)

    def symbols(self, count: int, moving: bool) -> np.ndarray:
        """Places of the first `count` symbols (inputs, then values of units), or of their moves."""
        inputs = np.arange(self.inputs) + (self.inputs if moving else 0)
        return np.concatenate([inputs, self.at(3 if moving else 2)])[:count]


class PairProgram:
    """All rows of the relaxation of one box, and the changes that phases make; `solve` starts from the last basis."""

    def __init__(self, system: FoldedSystem, bounds: list, pairs: PairBox, aim: Aim, row: int):
        self._pairs, self._system, self._aim = pairs, system, aim
        self._layout = _Layout(system.inputs, system.units)
        self._ends = tuple(np.concatenate([ends[k][0] for ends in bounds] or [np.zeros(0)]) for k in (0, 1))
        caps = [np.full(b.rows, np.inf) if b.cap is None else b.cap[0] for b in system.blocks]
        self.caps = np.concatenate(caps or [np.zeros(0)])
        self.loss = np.zeros(system.units, dtype=np.float64)
        self._matrix: list[np.ndarray] = []
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._columns = np.zeros((2, self._layout.columns), dtype=np.float64)
        self._build(bounds, row)
        self._lp = WarmLp(self._milp(), 0)

    def _add(self, matrix: np.ndarray, low, high) -> int:
        """Rows; the index of the first."""
        start = sum(map(len, self._matrix))
        self._matrix.append(matrix)
        self._low.append(np.zeros(len(matrix)) + low)
        self._high.append(np.zeros(len(matrix)) + high)
        return start

    def _sparse(self, *terms: tuple) -> np.ndarray:
        """One row a unit, of (places, coefficients)."""
        rows = np.zeros((self._layout.units, self._layout.columns), dtype=np.float64)
        for places, coefficients in terms:
            rows[np.arange(self._layout.units), places] += coefficients
        return rows

    def _build(self, bounds: list, row: int) -> None:
        layout, pairs, system = self._layout, self._pairs, self._system
        moves = moves_of(system, bounds, pairs.moves)
        (lower, upper), columns = self._ends, self._columns
        for kind, box in enumerate((pairs.first, pairs.moves)):
            place = slice(kind * layout.inputs, (kind + 1) * layout.inputs)
            columns[:, place] = box.lower[0], box.upper[0]
        r, dr, h, dh = map(layout.at, range(4))
        value_low, value_high = (np.minimum(np.maximum(end, 0.0), self.caps) for end in (lower, upper))
        most = value_high - value_low
        columns[:, r], columns[:, h] = (lower, upper), (value_low, value_high)
        columns[:, dh] = np.nextafter(-most, -np.inf), np.nextafter(most, np.inf)
        if layout.units:
            columns[:, dr] = [np.concatenate([ends[k][0] for ends in moves.rows]) for k in (0, 1)]
            self.loss = np.concatenate([np.abs(part[0, :, row]) for part in moves.pulled])
            self.loss += LEAST_LOSS * np.max(self.loss) + np.finfo(np.float64).tiny
        self._rows_of_units(system)
        self._relaxations(bounds, moves.lines)
        self._rows_of_copies()
        self._domain()
        self._objective(row)

    def _rows_of_units(self, system: FoldedSystem) -> None:
        """r = w . (x, h) + c + e and dr = w . (d, dh) + e - e', |e| <= radius."""
        layout, start = self._layout, 0
        for block in system.blocks:
            units = slice(start, start + block.rows)
            for moving, constant, radius in ((False, block.constant[0], 1.0), (True, 0.0, 2.0)):
                matrix = np.zeros((block.rows, layout.columns), dtype=np.float64)
                matrix[np.arange(block.rows), layout.at(1 if moving else 0)[units]] = 1.0
                matrix[:, layout.symbols(block.weights.shape[2], moving)] -= block.weights[0]
                reach = radius * block.radius[0] * SLACK
                self._add(matrix, np.nextafter(constant - reach, -np.inf), np.nextafter(constant + reach, np.inf))
            start += block.rows

    def _relaxations(self, bounds: list, lines: list) -> None:
        """Hull edges of both copies, and the lines of the sector around the move."""
        r, dr, h, dh = map(self._layout.at, range(4))
        for name, slope in (("upper", "upper_slope"), ("lower", "lower_slope")):
            around = [hinges(*ends, block.cap) for ends, block in zip(bounds, self._system.blocks, strict=True)]
            if not around:
                return
            for kind, part in (("copy", around), ("move", lines)):
                slopes = np.concatenate([getattr(line, slope)[0] for line in part])
                ends = [getattr(line, f"{name}_offset") for line in part]
                offset = np.concatenate(
                    [np.zeros(s.lower_slope.shape[1]) if e is None else e[0] for e, s in zip(ends, part, strict=True)]
                )
                low, high = (-np.inf, offset) if name == "upper" else (offset, np.inf)
                if kind == "copy":
                    self._add(self._sparse((h, 1.0), (r, -slopes)), low, high)
                    self._add(self._sparse((h, 1.0), (r, -slopes), (dh, 1.0), (dr, -slopes)), low, high)
                else:
                    self._add(self._sparse((dh, 1.0), (dr, -slopes)), low, high)

    def _rows_of_copies(self) -> None:
        """The rows that phases change: h - r of both copies, r + dr and h + dh of the second one."""
        r, dr, h, dh = map(self._layout.at, range(4))
        (lower, upper), caps = self._ends, self.caps
        self._gaps = np.minimum(caps - upper, 0.0), np.maximum(-lower, 0.0)
        self._values = self._columns[:, h]
        low, high = np.nextafter(self._gaps[0], -np.inf), np.nextafter(self._gaps[1], np.inf)
        self._places = (
            self._add(self._sparse((h, 1.0), (r, -1.0)), low, high),
            self._add(self._sparse((h, 1.0), (r, -1.0), (dh, 1.0), (dr, -1.0)), low, high),
            self._add(self._sparse((r, 1.0), (dr, 1.0)), lower, upper),
            self._add(self._sparse((h, 1.0), (dh, 1.0)), *self._values),
        )

    def _domain(self) -> None:
        """x + d within the domain, where that is no consequence."""
        inputs, second = np.arange(self._layout.inputs), self._pairs.second
        free = (np.nextafter(self._pairs.first.lower + self._pairs.moves.lower, -np.inf) >= second.lower)[0]
        free &= (np.nextafter(self._pairs.first.upper + self._pairs.moves.upper, np.inf) <= second.upper)[0]
        chosen = inputs[~free]
        matrix = np.zeros((len(chosen), self._layout.columns), dtype=np.float64)
        matrix[np.arange(len(chosen)), chosen] = 1.0
        matrix[np.arange(len(chosen)), chosen + self._layout.inputs] = 1.0
        self._add(matrix, second.lower[0][chosen], second.upper[0][chosen])

    def _objective(self, row: int) -> None:
        """The least t that may be minus the aim; output rows stand for minus the rows of the aim."""
        layout, outputs = self._layout, self._system.outputs
        number = len(self._aim.matrix)
        radius = outputs.radius[0, :number] * SLACK
        values, moves = (np.zeros((number, layout.columns), dtype=np.float64) for _ in range(2))
        for matrix, moving in ((values, False), (moves, True)):
            matrix[:, layout.symbols(outputs.weights.shape[2], moving)] = outputs.weights[0, :number]
        constant = outputs.constant[0, :number]
        if isinstance(self._aim, Margin):
            self._add(values[[row]], np.nextafter(-constant[[row]] - radius[[row]], -np.inf), np.inf)
            lower, matrix = np.nextafter(constant - radius, -np.inf), -values - moves
        else:
            lower, matrix = -2.0 * radius[[row]], -moves[[row]]
        size = np.abs(matrix) @ np.maximum(*np.abs(self._columns)) + np.abs(lower)
        matrix[:, -1] = 1.0
        self._add(matrix, lower, np.inf)
        self._columns[:, -1] = -2.0 * np.max(size) - 1.0, 2.0 * np.max(size) + 1.0

    def _milp(self) -> Milp:
        matrix = self._a = np.concatenate(self._matrix)
        low, high = self._limits = np.concatenate(self._low), np.concatenate(self._high)
        used = [np.nonzero(row)[0] for row in matrix]
        rows = tuple(
            Row(tuple(index.tolist()), tuple(row[index].tolist()), *ends)
            for row, index, *ends in zip(matrix, used, low.tolist(), high.tolist(), strict=True)
        )
        columns = (tuple(end) for end in self._columns.tolist())
        integer = (False,) * self._layout.columns
        return Milp(*columns, integer, rows, self._layout.columns - 1)

    def _with(self, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Limits of columns and of rows (2, ...) for phases (2, units)."""
        columns, rows = self._columns.copy(), np.stack(self._limits)
        units, (first, second, sums, values) = self._layout.units, self._places
        places = ((columns, self._layout.at(0), columns, self._layout.at(2), first),
                  (rows, sums + np.arange(units), rows, values + np.arange(units), second))  # fmt: skip
        for phase, (row, at_row, value, at_value, gap) in zip(phases, places, strict=True):
            off, on, full = (np.nonzero(phase == kind)[0] for kind in (Phase.OFF, Phase.ON, Phase.FULL))
            row[1, at_row[off]] = np.minimum(row[1, at_row[off]], 0.0)
            value[1, at_value[off]] = 0.0
            row[0, at_row[on]] = np.maximum(row[0, at_row[on]], 0.0)
            row[1, at_row[on]] = np.minimum(row[1, at_row[on]], self.caps[on])
            rows[:, gap + on] = 0.0
            row[0, at_row[full]] = np.maximum(row[0, at_row[full]], self.caps[full])
            value[0, at_value[full]] = self.caps[full]
        return columns, rows

    def solve(self, phases: np.ndarray, budget: Budget) -> PairSolution:
        """What the relaxation with these phases (2, units) proves; inf where the solver failed."""
        columns, rows = self._with(phases)
        if np.any(columns[0] > columns[1]) or np.any(rows[0] > rows[1]):
            return PairSolution(-np.inf, None, None, None)
        answer = self._lp.solve(columns, rows, budget)
        cost = np.zeros(self._layout.columns, dtype=np.float64)
        if answer.point is None:
            ray = self._lp.ray()
            empty = ray is not None and self._proven(cost, ray, columns, rows) > 0.0
            return PairSolution(-np.inf if empty else np.inf, None, None, None)
        cost[-1] = 1.0
        point, inputs = np.array(answer.point, dtype=np.float64), self._layout.inputs
        bound = -self._proven(cost, self._lp.multipliers(), columns, rows)
        return PairSolution(bound, point[:inputs], point[inputs : 2 * inputs], self._broken(point))

    def _proven(self, cost: np.ndarray, weights: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> float:
        """Lower bound of cost . v that the multipliers prove, rounded down."""
        weights = np.where(np.isfinite(np.where(weights > 0.0, rows[0], rows[1])), weights, 0.0)
        used = np.where(weights > 0.0, rows[0], np.where(weights < 0.0, rows[1], 0.0))
        rest = cost - weights @ self._a
        size = np.abs(cost) + np.abs(weights) @ np.abs(self._a)
        reach = np.maximum(*np.abs(columns))
        terms = len(weights) + len(cost) + 16
        least = np.sum(weights * used) + np.sum(np.minimum(rest * columns[0], rest * columns[1]))
        error = gamma(terms, WIDE) * (np.sum(np.abs(weights * used)) + 2.0 * np.sum(size * reach))
        least = least - error * SLACK - underflow(terms * terms, WIDE)
        return float(least) if np.isfinite(least) else -np.inf

    def _broken(self, point: np.ndarray) -> np.ndarray:
        """By how much both copies of the point miss their units, weighed by what a unit is worth."""
        r, dr, h, dh = (point[self._layout.at(kind)] for kind in range(4))
        missed = [np.abs(np.clip(row, 0.0, self.caps) - value) for row, value in ((r, h), (r + dr, h + dh))]
        return np.stack(missed) * self.loss

