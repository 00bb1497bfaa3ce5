"""Reluplex on any piecewise linear program: a linear relaxation, split lazily where its point breaks a constraint.

In: Program, Budget. Out: Answer. Trust: as HiGHS, which solves the relaxations within tolerances 1e-9: level `solver`.

Katz et al. 2017 (Reluplex: An Efficient SMT Solver for Verifying Deep Neural Networks). A simplex solver ignores that
y = f(x) for every piecewise linear pair (x, y) and only knows y - s x to lie within what f allows. Where its point
breaks pairs, the one that is broken most is split: x on one side of a breakpoint, x on the other. Pairs that no point
breaks are never split. The paper repairs a pair by pivots a few times before it splits; here every relaxation is solved
to its optimum, from the basis of the one before, and split at once. A maximum is split the same way: an argument is the
largest, or it is not.
"""

import bisect
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.program import Maximum, Piecewise, Program, Variable
from formalgr.core.rounding import BROKEN_PAIR, SMALL_MATRIX_VALUE, SOLVER_MARGIN, nearest_down, nearest_up
from formalgr.core.verdict import Stage
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.highs_backend import WarmLp
from formalgr.solvers.milp import MilpBuilder, Piece, has_empty_bounds, pieces_within, undominated


class Limits:
    """Lower and upper limits of columns (2, columns) and rows (2, rows); they only ever become narrower."""

    def __init__(self, columns: np.ndarray, rows: np.ndarray):
        self.columns, self.rows = columns.copy(), rows.copy()

    def column(self, index: int, low: float, high: float) -> None:
        """Narrow a column."""
        self.columns[:, index] = max(self.columns[0, index], low), min(self.columns[1, index], high)

    def row(self, index: int, low: float, high: float) -> None:
        """Narrow a row."""
        self.rows[:, index] = max(self.rows[0, index], low), min(self.rows[1, index], high)

    @property
    def empty(self) -> bool:
        """Whether nothing lies within them."""
        return bool(np.any(self.columns[0] > self.columns[1]) or np.any(self.rows[0] > self.rows[1]))


class Lazy(ABC):
    """A constraint that holds when one of its `options` does; the relaxation knows only which are still allowed."""

    options: tuple

    @abstractmethod
    def restrict(self, limits: Limits, allowed: tuple) -> None:
        """Narrow the limits to what the allowed options admit together; one option alone is admitted exactly."""

    @abstractmethod
    def excess(self, point: tuple[float, ...]) -> float:
        """How far the point is from satisfying the constraint."""

    @abstractmethod
    def parts(self, point: tuple[float, ...], allowed: tuple) -> tuple[tuple, tuple]:
        """Two sets of options that together are the allowed ones (two or more), the more promising one first."""


class LazyPiecewise(Lazy):
    """y = f(x); an option is a piece of f. One row y - s x for each slope s of f and for its chord."""

    def __init__(self, build: MilpBuilder, row: Piecewise):
        self.x, self.y = row.argument, row.result
        self.options = pieces_within(row, build.variables[row.argument])
        self._breaks = [float(piece.lower) for piece in self.options[1:]]
        self._lines = [(float(piece.slope), float(piece.intercept)) for piece in self.options]
        first, last = self.options[0], self.options[-1]
        slopes = {_plain(piece.slope) for piece in self.options}
        if first.lower < last.upper:
            rise = last.at(last.upper) - first.at(first.lower)
            slopes.add(_plain(rise / (last.upper - first.lower)))
        self.rows = {}
        for slope in slopes:
            self.rows[len(build.rows)] = slope
            build.row((self.y, self.x), (1, -slope), -math.inf, math.inf)

    def restrict(self, limits: Limits, allowed: tuple[Piece, ...]) -> None:
        ends = [(x, piece.at(x)) for piece in allowed for x in (piece.lower, piece.upper)]
        limits.column(self.x, nearest_down(ends[0][0]), nearest_up(ends[-1][0]))
        for index, slope in self.rows.items():
            values = [y - Fraction(slope) * x for x, y in ends]
            limits.row(index, nearest_down(min(values)), nearest_up(max(values)))

    def excess(self, point: tuple[float, ...]) -> float:
        x = point[self.x]
        slope, intercept = self._lines[bisect.bisect_left(self._breaks, x)]
        return abs(point[self.y] - slope * x - intercept)

    def parts(self, point: tuple[float, ...], allowed: tuple[Piece, ...]) -> tuple[tuple, tuple]:
        x = point[self.x]
        cut = min(range(1, len(allowed)), key=lambda k: abs(float(allowed[k].lower) - x))
        below, above = allowed[:cut], allowed[cut:]
        return (below, above) if x <= allowed[cut].lower else (above, below)


class LazyMaximum(Lazy):
    """y = max of arguments; an option is the argument that is the largest. One row y - a for each argument a."""

    def __init__(self, build: MilpBuilder, row: Maximum):
        self.y = row.result
        self.options = undominated(row.arguments, build.variables)
        self.variables: tuple[Variable, ...] = build.variables
        self.rows = {}
        for argument in self.options:
            self.rows[argument] = len(build.rows)
            build.row((self.y, argument), (1, -1), 0, math.inf)

    def restrict(self, limits: Limits, allowed: tuple[int, ...]) -> None:
        limits.column(self.y, -math.inf, max(nearest_up(self.variables[k].upper) for k in allowed))
        if len(allowed) == 1:
            limits.row(self.rows[allowed[0]], 0.0, 0.0)

    def excess(self, point: tuple[float, ...]) -> float:
        return abs(point[self.y] - max(point[k] for k in self.options))

    def parts(self, point: tuple[float, ...], allowed: tuple[int, ...]) -> tuple[tuple, tuple]:
        largest = max(allowed, key=lambda k: point[k])
        return (largest,), tuple(k for k in allowed if k != largest)


def _plain(slope: Fraction) -> float:
    """The nearest float, 0 where HiGHS would drop the entry: limits of a row are right for any slope."""
    nearest = float(slope)
    return nearest if abs(nearest) > SMALL_MATRIX_VALUE else 0.0


@dataclass(frozen=True)
class Node:
    """A relaxation still to be solved: its limits, the options that it allows, and its parent's minimum."""

    limits: Limits
    allowed: tuple[tuple, ...]
    bound: float


@dataclass(frozen=True, kw_only=True)
class ReluplexBackend(Backend):
    """The minimum within the tolerances of linear programs; `bound` is the least minimum of the relaxations left."""

    seed: int = 0
    name = "reluplex"
    package = "highspy"
    exact = False
    stage = Stage.SMT

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve; stops once a point is SOLVER_MARGIN below the cutoff, or every bound that far above."""
        if has_empty_bounds(program):
            return Answer(Status.INFEASIBLE, why="a variable has lower > upper")
        build = MilpBuilder(program.variables)
        for row in program.linear:
            build.linear(row)
        pairs = [LazyPiecewise(build, row) for row in program.piecewise]
        pairs += [LazyMaximum(build, row) for row in program.maxima]
        lp = build.milp(program.objective)
        columns = np.array([lp.lower, lp.upper], dtype=np.float64)
        rows = np.array([[row.lower for row in lp.rows], [row.upper for row in lp.rows]], dtype=np.float64)
        limits = Limits(columns, rows)
        for pair in pairs:
            pair.restrict(limits, pair.options)
        root = Node(limits, tuple(pair.options for pair in pairs), -math.inf)
        return _Search(WarmLp(lp, self.seed), pairs, program).run(root, budget)


class _Search:
    """Depth first, so that each relaxation resembles the one before it; what is closed leaves its minimum behind."""

    def __init__(self, lp: WarmLp, pairs: list[Lazy], program: Program):
        self.lp = lp
        self.pairs = pairs
        self.program = program
        cutoff = math.inf if program.cutoff is None else float(program.cutoff)
        self.enough, self.target = cutoff + SOLVER_MARGIN, cutoff - SOLVER_MARGIN
        self.point: tuple[float, ...] | None = None
        self.value = math.inf
        self.closed = math.inf
        self.solved = 0

    def run(self, root: Node, budget: Budget) -> Answer:
        """The answer of the tree below the root."""
        stack = [root]
        while stack:
            if self.point is not None and (self.program.objective is None or self.value <= self.target < math.inf):
                return self.answer(Status.FEASIBLE, stack, "stopped at a point")
            node = stack.pop()
            if node.limits.empty or self.beaten(node.bound):
                continue
            if budget.expired:
                return self.answer(Status.UNDECIDED, [*stack, node], "the time limit was reached")
            found = self.lp.solve(node.limits.columns, node.limits.rows, budget)
            self.solved += 1
            if found.status is Status.UNDECIDED:
                return self.answer(Status.UNDECIDED, [*stack, node], found.why)
            if found.status is Status.OPTIMAL and not self.beaten(found.bound):
                stack += self.children(node, found)
        return self.answer(Status.OPTIMAL, [], "every relaxation is closed")

    def beaten(self, bound: float) -> bool:
        """Whether nothing better than the best point, or nothing near the cutoff, lies above such a bound."""
        if bound >= self.value or bound > self.enough:
            self.closed = min(self.closed, bound)
            return True
        return False

    def children(self, node: Node, found: Answer) -> list[Node]:
        """The two parts of the node, the more promising one last; none where its point breaks no pair."""
        broken = [
            (pair.excess(found.point), place)
            for place, pair in enumerate(self.pairs)
            if len(node.allowed[place]) > 1
        ]
        worst, place = max(broken, default=(0.0, 0))
        if worst <= BROKEN_PAIR:
            self.point, self.value = found.point, found.bound
            self.closed = min(self.closed, found.bound)
            return []
        parts = self.pairs[place].parts(found.point, node.allowed[place])
        return [self.part(node, place, options, found.bound) for options in reversed(parts)]

    def part(self, node: Node, place: int, options: tuple, bound: float) -> Node:
        """The node with fewer options at one place."""
        limits = Limits(node.limits.columns, node.limits.rows)
        self.pairs[place].restrict(limits, options)
        allowed = (*node.allowed[:place], options, *node.allowed[place + 1 :])
        return Node(limits, allowed, bound)

    def answer(self, status: Status, left: list[Node], why: str) -> Answer:
        """What the closed relaxations and those that are left prove together."""
        why = f"Reluplex: {why} after {self.solved} relaxations"
        bound = min([self.closed, *(node.bound for node in left)])
        if status is Status.OPTIMAL and self.point is None and math.isinf(self.closed):
            return Answer(Status.INFEASIBLE, why=why)
        if self.program.objective is None or not math.isfinite(bound):
            bound = None
        if self.point is None:
            return Answer(Status.UNDECIDED, None, bound, why)
        proven = status is Status.OPTIMAL and bound is not None and bound >= self.value
        return Answer(Status.OPTIMAL if proven else Status.FEASIBLE, self.point, bound, why)
