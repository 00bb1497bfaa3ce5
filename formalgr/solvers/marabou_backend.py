"""Marabou 2.0 as a backend, and on the files of an instance as its own readers understand them: a peer.

In: Program, Budget; unpacked files, a budget. Out: Answer; its word, its verdict and its point. Trust: the backend as
far as Marabou is (level `solver`), the peer heuristic. The only module that imports `maraboupy`.

Marabou decides whether a point exists, within absolute tolerances. Version 2.0.0 answers wrongly where coefficients are
near zero or values large: coefficients up to LEAST_COEFFICIENT become slack of their row, a program with numbers
above LARGEST_NUMBER is not asked, and that no point exists counts only with a margin that grows with the values.
"""

import contextlib
import math
import tempfile
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType

from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency
from formalgr.core.program import Maximum, Number, Piecewise, Program
from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.core.verdict import Stage, Verdict
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.milp import MilpBuilder, Row, has_empty_bounds, pieces_within, undominated

VERDICTS = {"sat": Verdict.VIOLATED, "unsat": Verdict.HOLDS}
"""Its decisive words; any other decides nothing."""

LEAST_COEFFICIENT, LARGEST_NUMBER = 1e-4, 1e3
"""Above the one, up to the other: coefficients, and the largest number also for values."""

MARGIN = 1e-3
"""The least margin of a proof, as a share of the largest value that a variable may have (or of 1): with 1e-4 it denied
points of well-scaled networks of a dozen units (tests/random_queries, case 45 of seed 15)."""


@dataclass(frozen=True, kw_only=True)
class MarabouBackend(Backend):
    """Whether a point exists with an objective at most a margin above the cutoff (if any).

    Where Marabou finds none, `bound` is that limit: no point within the margin is no point below the cutoff.
    """

    name = "marabou"
    package = "maraboupy"
    exact = False
    minimises = False
    stage = Stage.SMT

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve."""
        if has_empty_bounds(program):
            return Answer(Status.INFEASIBLE, why="a variable has lower > upper")
        if budget.expired:
            return Answer(Status.UNDECIDED, why="no time is left")
        marabou = _marabou()
        build = _Builder(program)
        ends = (*build.lower, *build.upper)
        size = max((abs(end) for k, end in enumerate(ends) if k % len(build.lower) != program.objective), default=0.0)
        largest = max((abs(value) for row in build.rows for value in row.coefficients), default=0.0)
        if max(size, largest) > LARGEST_NUMBER:
            return Answer(Status.UNDECIDED, why=f"Marabou is not asked about numbers as large as {LARGEST_NUMBER:g}")
        limit = None
        if program.cutoff is not None:
            limit = nearest_up(program.cutoff) + MARGIN * max(1.0, size)
            build.upper[program.objective] = min(build.upper[program.objective], limit)
            if build.lower[program.objective] > limit:
                return Answer(Status.UNDECIDED, bound=build.lower[program.objective], why="the bounds of the objective")
        query, options = build.query(marabou.MarabouCore), _options(marabou, budget)
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):  # where it fails it leaves a file
            try:
                word, values, _ = marabou.MarabouCore.solve(query, options, "")
            except Exception as error:  # its own assertions, in many types
                return Answer(Status.UNDECIDED, why=f"Marabou: {type(error).__name__}: {error}")
        if VERDICTS.get(word) is Verdict.VIOLATED:
            point = tuple(values[index] for index in range(len(program.variables)))
            return Answer(Status.FEASIBLE, point, None, "Marabou: sat")
        if VERDICTS.get(word) is Verdict.HOLDS:
            return Answer(Status.INFEASIBLE if limit is None else Status.UNDECIDED, None, limit, "Marabou: unsat")
        return Answer(Status.UNDECIDED, why=f"Marabou: {word}")


class _Builder(MilpBuilder):
    """The rows of a program, with ReLUs in place of binaries."""

    def __init__(self, program: Program):
        super().__init__(program.variables, LEAST_COEFFICIENT)
        self.inputs = program.inputs
        self.rectified: list[tuple[int, int]] = []
        for row in program.linear:
            self.linear(row)
        for row in program.piecewise:
            self.hinges(row)
        for row in program.maxima:
            self.maximum(row)

    def hinges(self, row: Piecewise) -> None:
        """result = first line + sum of (step of the slope) * relu(argument - breakpoint)."""
        first, *others = pieces_within(row, self.variables[row.argument])
        symbols, steps, slope = [], [], first.slope
        for piece in others:
            low, high = (Fraction(ends[row.argument]) - piece.lower for ends in (self.lower, self.upper))
            symbols.append(self.rectify(low, high, (row.argument,), (1,), piece.lower))
            steps.append(slope - piece.slope)
            slope = piece.slope
        terms = (row.result, row.argument, *symbols), (1, -first.slope, *steps)
        self.row(*terms, first.intercept, first.intercept)

    def maximum(self, row: Maximum) -> None:
        """result = a + relu(b - a) + relu(c - max(a, b)) + ...: its own maxima have been seen to lose points."""
        first, *others = undominated(row.arguments, self.variables)
        terms, (low, high) = [first], (Fraction(ends[first]) for ends in (self.lower, self.upper))
        for other in others:
            least, most = Fraction(self.lower[other]), Fraction(self.upper[other])
            terms.append(self.rectify(least - high, most - low, (other, *terms), (1, *[-1] * len(terms)), 0))
            low, high = max(low, least), max(high, most)
        self.row((row.result, *terms), (1, *[-1] * len(terms)), 0, 0)

    def rectify(self, low: Fraction, high: Fraction, indices: tuple, coefficients: tuple, shift: Number) -> int:
        """A column that is relu(sum of terms - shift); low and high bound what is rectified."""
        argument = self.column(nearest_down(low), nearest_up(high))
        self.row((*indices, argument), (*coefficients, -1), shift, shift)
        result = self.column(0.0, max(0.0, nearest_up(high)))
        self.rectified.append((argument, result))
        return result

    def query(self, core: ModuleType):
        """All of it as an InputQuery."""
        query = core.InputQuery()
        query.setNumberOfVariables(len(self.lower))
        for index, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            query.setLowerBound(index, low)
            query.setUpperBound(index, high)
        for number, index in enumerate(self.inputs):
            query.markInputVariable(index, number)
        for row in self.rows:
            kinds = core.Equation.EquationType
            if row.lower == row.upper:
                _add(core, query, row, kinds.EQ, row.lower)
                continue
            if row.lower > -math.inf:
                _add(core, query, row, kinds.GE, row.lower)
            if row.upper < math.inf:
                _add(core, query, row, kinds.LE, row.upper)
        for argument, result in self.rectified:
            core.addReluConstraint(query, argument, result)
        return query


def _add(core: ModuleType, query, row: Row, kind, right: float) -> None:
    """One side of a row."""
    equation = core.Equation(kind)
    for index, value in zip(row.indices, row.coefficients, strict=True):
        equation.addAddend(value, index)
    equation.setScalar(right)
    query.addEquation(equation)


def _marabou() -> ModuleType:
    try:
        with warnings.catch_warnings():  # it tells that its reader of TensorFlow files lacks TensorFlow
            warnings.simplefilter("ignore", UserWarning)
            from maraboupy import Marabou
    except ImportError as error:
        raise MissingDependency("the solver marabou needs maraboupy: pip install 'formalgr[marabou]'") from error
    return Marabou


def _options(marabou: ModuleType, budget: Budget):
    """One worker, silent, within the budget; its limit is in whole seconds, 0 meaning none."""
    limit = 0 if math.isinf(budget.remaining) else max(1, math.ceil(budget.remaining))
    return marabou.createOptions(numWorkers=1, verbosity=0, timeoutInSeconds=limit)


@dataclass(frozen=True)
class PeerAnswer:
    """What a peer said: its word, the verdict that it means (or None), the inputs of its point (or None)."""

    word: str
    verdict: Verdict | None
    point: tuple[float, ...] | None


def solve_files(network: Path, property_: Path, budget: Budget) -> PeerAnswer:
    """Marabou's answer, with one worker. Raises whatever its readers raise."""
    marabou = _marabou()
    read = marabou.read_onnx(str(network))
    query = read.getInputQuery()
    marabou.MarabouCore.loadProperty(query, str(property_))
    word, values, _ = marabou.MarabouCore.solve(query, _options(marabou, budget), "")
    inputs = [variable for array in read.inputVars for variable in array.ravel().tolist()]
    point = tuple(values[variable] for variable in inputs) if values else None
    return PeerAnswer(word, VERDICTS.get(word), point)
