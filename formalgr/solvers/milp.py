"""Lowering of a Program to a plain mixed-integer linear program, shared by the floating-point MILP backends.

In: Program. Out: Milp (columns with bounds, ranged rows), and the pieces and arguments that bounds leave alive.
Trust: sound up to the rounding of coefficients to the nearest float64 (bounds of variables are rounded outward, and a
coefficient too small for the solvers becomes slack of its row instead of being dropped).

Formulations: two pieces, Anderson et al. 2020 (Strong mixed-integer programming formulations for trained neural
networks), section 2.2: one binary, and its relaxation is the convex hull. More pieces: the disjunctive formulation
(Balas 1998), also the hull. Maximum: Tjeng et al. 2019 (Evaluating robustness of neural networks with MIP), eq. 8.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from formalgr.core.errors import NumericalError
from formalgr.core.program import Linear, Maximum, Number, Piecewise, Program, Sense, Variable
from formalgr.core.rounding import SMALL_MATRIX_VALUE, nearest_down, nearest_up

INFINITY = math.inf


@dataclass(frozen=True)
class Piece:
    """result = slope * argument + intercept for lower <= argument <= upper; everything exact."""

    lower: Fraction
    upper: Fraction
    slope: Fraction
    intercept: Fraction

    def at(self, argument: Fraction) -> Fraction:
        """Exact value of the piece's line."""
        return self.slope * argument + self.intercept


@dataclass(frozen=True)
class Row:
    """lower <= sum(coefficients[k] * x[indices[k]]) <= upper; indices are distinct, bounds may be infinite."""

    indices: tuple[int, ...]
    coefficients: tuple[float, ...]
    lower: float
    upper: float


@dataclass(frozen=True)
class Milp:
    """Minimise x[objective] subject to rows, column bounds and integrality; the program's variables come first."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    integer: tuple[bool, ...]
    rows: tuple[Row, ...]
    objective: int | None


def pieces_within(row: Piecewise, argument: Variable) -> tuple[Piece, ...]:
    """The pieces that cover the argument's bounds, clipped to them, neighbours on one line joined; never empty."""
    low, high = Fraction(argument.lower), Fraction(argument.upper)
    starts = (low, *(Fraction(point) for point in row.breakpoints))
    ends = (*starts[1:], high)
    kept: list[Piece] = []
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        start, end = max(start, low), min(end, high)
        if start < end or (start == end and low == high and not kept):
            slope, intercept = Fraction(row.slopes[index]), Fraction(row.intercepts[index])
            if kept and (kept[-1].slope, kept[-1].intercept) == (slope, intercept):
                start = kept.pop().lower
            kept.append(Piece(start, end, slope, intercept))
    return tuple(kept)


def undominated(arguments: Iterable[int], variables: Sequence[Variable]) -> tuple[int, ...]:
    """The distinct arguments that can be the maximum; those below the largest lower bound are left out."""
    distinct = tuple(dict.fromkeys(arguments))
    leader = max(distinct, key=lambda index: variables[index].lower)
    floor = variables[leader].lower
    return tuple(index for index in distinct if index == leader or variables[index].upper > floor)


def has_empty_bounds(program: Program) -> bool:
    """Whether some variable has lower > upper, so that the program has no point."""
    return any(variable.lower > variable.upper for variable in program.variables)


def lower(program: Program) -> Milp:
    """The MILP whose points, restricted to the program's variables, are exactly the program's points.

    Raises NumericalError on a NaN or infinite number; the program must not have empty bounds.
    """
    build = MilpBuilder(program.variables)
    for row in program.linear:
        build.linear(row)
    for row in program.piecewise:
        build.piecewise(row)
    for row in program.maxima:
        build.maximum(row)
    return build.milp(program.objective)


class MilpBuilder:
    """Columns and rows of a Milp under construction; coefficients up to `smallest` become slack of their row."""

    def __init__(self, variables: tuple[Variable, ...], smallest: float = SMALL_MATRIX_VALUE):
        for index, variable in enumerate(variables):
            if not (math.isfinite(variable.lower) and math.isfinite(variable.upper)):
                raise NumericalError(f"variable {index} has bounds {variable.lower} and {variable.upper}")
        self.variables = variables
        self.lower = [nearest_down(variable.lower) for variable in variables]
        self.upper = [nearest_up(variable.upper) for variable in variables]
        self.integer = [False] * len(variables)
        self.rows: list[Row] = []
        self.smallest = smallest

    def milp(self, objective: int | None) -> Milp:
        """What was built."""
        return Milp(tuple(self.lower), tuple(self.upper), tuple(self.integer), tuple(self.rows), objective)

    def column(self, low: float, high: float, integer: bool = False) -> int:
        """A new column; returns its index."""
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(integer)
        return len(self.lower) - 1

    def row(self, indices: Sequence[int], coefficients: Sequence[Number], low: Number, high: Number) -> None:
        """A new row low <= sum <= high: indices merged, numbers rounded to nearest, tiny coefficients made slack."""
        if len(set(indices)) < len(indices):
            merged: dict[int, Fraction] = {}
            for index, value in zip(indices, coefficients, strict=True):
                merged[index] = merged.get(index, Fraction(0)) + Fraction(value)
            indices, coefficients = tuple(merged), tuple(merged.values())
        numbers = tuple(map(float, coefficients))
        low, high = float(low), float(high)
        if not all(map(math.isfinite, numbers)) or math.isnan(low) or math.isnan(high):
            raise NumericalError(f"a constraint holds a number that is not finite: {numbers}, {low}, {high}")
        tiny = [k for k, value in enumerate(numbers) if abs(value) <= self.smallest]
        for k in tiny:
            ends = numbers[k] * self.lower[indices[k]], numbers[k] * self.upper[indices[k]]
            low, high = low - max(ends), high - min(ends)
        if tiny:
            indices = [index for k, index in enumerate(indices) if abs(numbers[k]) > self.smallest]
            numbers = [value for value in numbers if abs(value) > self.smallest]
        self.rows.append(Row(tuple(indices), tuple(numbers), low, high))

    def linear(self, row: Linear) -> None:
        """A linear constraint as one row."""
        low = -INFINITY if row.sense in (Sense.LESS, Sense.BELOW) else row.right
        high = INFINITY if row.sense is Sense.GREATER else row.right
        self.row(row.indices, row.coefficients, low, high)

    def piecewise(self, row: Piecewise) -> None:
        """A piecewise linear function on its argument's bounds: an equality, one binary, or one binary a piece."""
        pieces = pieces_within(row, self.variables[row.argument])
        if len(pieces) == 1:
            self.row((row.result, row.argument), (1, -pieces[0].slope), pieces[0].intercept, pieces[0].intercept)
        elif len(pieces) == 2 and _meet(*pieces):
            self._two_pieces(row, *pieces)
        else:
            self._disjunction(row, pieces)

    def _two_pieces(self, row: Piecewise, left: Piece, right: Piece) -> None:
        """result = max (or min) of two lines: two rows bound it by both, two rows pin it to the line chosen by d."""
        chosen = self.column(0.0, 1.0, integer=True)
        sign = 1 if right.slope > left.slope else -1
        for piece in (left, right):
            low, high = (piece.intercept, INFINITY) if sign > 0 else (-INFINITY, piece.intercept)
            self.row((row.result, row.argument), (1, -piece.slope), low, high)
        reach = nearest_up(sign * (right.at(right.upper) - left.at(right.upper)))
        drop = nearest_up(sign * (left.at(left.lower) - right.at(left.lower)))
        # d = 0 chooses left: sign * (y - left(x)) <= reach * d;  d = 1 chooses right: ... <= drop * (1 - d)
        for piece, slope, right_side in ((left, -reach, 0), (right, drop, drop)):
            self.row(
                (row.result, row.argument, chosen),
                (sign, -sign * piece.slope, slope),
                -INFINITY,
                nearest_up(Fraction(right_side) + sign * piece.intercept),
            )

    def _disjunction(self, row: Piecewise, pieces: tuple[Piece, ...]) -> None:
        """One binary and one copy of the argument a piece; copies of pieces not chosen are zero."""
        chosen = [self.column(0.0, 1.0, integer=True) for _ in pieces]
        ends = [(nearest_down(piece.lower), nearest_up(piece.upper)) for piece in pieces]
        copies = [self.column(min(0.0, low), max(0.0, high)) for low, high in ends]
        self.row(chosen, [1] * len(pieces), 1, 1)
        self.row((row.argument, *copies), [1] + [-1] * len(pieces), 0, 0)
        for (low, high), binary, copy in zip(ends, chosen, copies, strict=True):
            self.row((copy, binary), (1, -low), 0, INFINITY)
            self.row((copy, binary), (1, -high), -INFINITY, 0)
        slopes, intercepts = [-piece.slope for piece in pieces], [-piece.intercept for piece in pieces]
        self.row((row.result, *copies, *chosen), (1, *slopes, *intercepts), 0, 0)

    def maximum(self, row: Maximum) -> None:
        """result >= every argument and <= the chosen one; one binary an argument that can be the maximum."""
        arguments = undominated(row.arguments, self.variables)
        if len(arguments) == 1:
            self.row((row.result, arguments[0]), (1, -1), 0, 0)
            return
        chosen = [self.column(0.0, 1.0, integer=True) for _ in arguments]
        self.row(chosen, [1] * len(arguments), 1, 1)
        for argument, binary in zip(arguments, chosen, strict=True):
            others = max(Fraction(self.variables[other].upper) for other in arguments if other != argument)
            reach = nearest_up(others - Fraction(self.variables[argument].lower))
            self.row((row.result, argument), (1, -1), 0, INFINITY)
            self.row((row.result, argument, binary), (1, -1, reach), -INFINITY, reach)


def _meet(left: Piece, right: Piece) -> bool:
    """Whether the lines cross where the pieces meet (a float intercept may miss it), so that max or min joins them."""
    return left.slope != right.slope and left.at(left.upper) == right.at(left.upper)
