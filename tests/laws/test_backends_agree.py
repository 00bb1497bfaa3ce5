"""Laws: all backends give a program the same minimum, that of enumerating all pieces; the lowering admits exactly the
values of the functions. Programs are small, random and seeded; the oracle solves one LP for each choice of pieces."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from formalgr.core.budget import Budget
from formalgr.core.program import Linear, Maximum, Piecewise, Program, Sense, Variable
from formalgr.core.seeds import named_generator
from formalgr.solvers.base import Status
from formalgr.solvers.milp import lower, pieces_within
from formalgr.solvers.registry import BACKENDS, backend

FLOAT_BACKENDS = [name for name, kind in BACKENDS.items() if kind.minimises]
EXACT_BACKENDS = [name for name, kind in BACKENDS.items() if kind.exact]
TOLERANCE = 1e-6  # CBC prints 8 digits


class Sketch:
    """A program under construction: random affine combinations with bounds that hold, then functions of them."""

    def __init__(self, seed: int):
        self.random = named_generator(seed, "agree")
        self.variables, self.linear, self.piecewise, self.maxima = [], [], [], []

    def number(self, denominator: int = 8) -> Fraction:
        return Fraction(int(self.random.integers(-16, 17)), denominator)

    def variable(self, low, high) -> int:
        self.variables.append(Variable(low, high))
        return len(self.variables) - 1

    def affine(self, sources: list[int]) -> int:
        weights = [self.number(int(self.random.choice([7, 8]))) for _ in sources]
        ends = [max(abs(self.variables[i].lower), abs(self.variables[i].upper)) for i in sources]
        reach = sum(abs(weight) * end for weight, end in zip(weights, ends, strict=True))
        shift = self.number()
        result = self.variable(shift - reach, shift + reach)
        self.linear.append(Linear((*sources, result), (*weights, -1), Sense.EQUAL, -shift))
        return result

    def function(self, source: int, breaks: int) -> int:
        points = sorted(self.number() for _ in range(breaks))
        slopes = [self.number() for _ in range(breaks + 1)]
        intercepts = [self.number()]
        for point, before, after in zip(points, slopes, slopes[1:], strict=False):
            intercepts.append(intercepts[-1] + (before - after) * point)
        result = self.variable(-1000, 1000)
        self.piecewise.append(Piecewise(source, result, tuple(points), tuple(slopes), tuple(intercepts)))
        return result

    def maximum(self, sources: list[int]) -> int:
        result = self.variable(-1000, 1000)
        self.maxima.append(Maximum(tuple(sources), result))
        return result

    def program(self, objective: int) -> Program:
        return Program(tuple(self.variables), tuple(self.linear), tuple(self.piecewise), tuple(self.maxima), objective)


def random_program(seed: int) -> Program:
    """Two inputs, two functions with one to three breakpoints one after the other, a maximum of three, an objective."""
    sketch = Sketch(seed)
    inputs = [sketch.variable(-1, 1), sketch.variable(Fraction(-1, 3), 2)]
    first = sketch.function(sketch.affine(inputs), 1 + seed % 3)
    second = sketch.function(sketch.affine([*inputs, first]), 1 + seed // 3 % 3)
    largest = sketch.maximum([first, second, sketch.affine(inputs)])
    return sketch.program(sketch.affine([largest, second, *inputs]))


def enumerated_minimum(program: Program) -> float:
    """The smallest of the LPs with one piece fixed for every function and one argument for every maximum."""
    width = len(program.variables)

    def row(indices, coefficients):
        result = np.zeros(width)
        for index, value in zip(indices, coefficients, strict=True):
            result[index] += float(value)
        return result

    fixed = [(row(r.indices, r.coefficients), float(r.right)) for r in program.linear]
    assert all(r.sense is Sense.EQUAL for r in program.linear)
    choices = [[(r, piece) for piece in pieces_within(r, program.variables[r.argument])] for r in program.piecewise]
    choices += [[(r, argument) for argument in r.arguments] for r in program.maxima]
    best = np.inf
    for choice in itertools.product(*choices):
        equal, less = list(fixed), []
        bounds = [[float(v.lower), float(v.upper)] for v in program.variables]
        for r, chosen in choice:
            if isinstance(r, Piecewise):
                equal.append((row((r.result, r.argument), (1, -chosen.slope)), float(chosen.intercept)))
                low, high = bounds[r.argument]
                bounds[r.argument] = [max(low, float(chosen.lower)), min(high, float(chosen.upper))]
            else:
                equal.append((row((r.result, chosen), (1, -1)), 0.0))
                less += [(row((argument, r.result), (1, -1)), 0.0) for argument in r.arguments if argument != chosen]
        if any(low > high for low, high in bounds):
            continue
        cost = np.zeros(width)
        cost[program.objective] = 1.0
        left, right = zip(*equal, strict=True)
        above, zero = zip(*less, strict=True) if less else (None, None)
        found = linprog(cost, A_eq=np.array(left), b_eq=right, A_ub=above, b_ub=zero, bounds=bounds)
        best = min(best, found.fun) if found.status == 0 else best
    return float(best)


def satisfies(program: Program, point: tuple[Fraction, ...]) -> bool:
    """Whether the exact point satisfies every constraint exactly."""
    if not all(v.lower <= x <= v.upper for v, x in zip(program.variables, point, strict=True)):
        return False
    for row in program.linear:
        total = sum(Fraction(c) * point[i] for i, c in zip(row.indices, row.coefficients, strict=True))
        right = Fraction(row.right)
        holds = {Sense.LESS: total <= right, Sense.EQUAL: total == right, Sense.GREATER: total >= right}
        if not {**holds, Sense.BELOW: total < right}[row.sense]:
            return False
    for row in program.piecewise:
        k = sum(point[row.argument] > b for b in row.breakpoints)
        if point[row.result] != Fraction(row.slopes[k]) * point[row.argument] + Fraction(row.intercepts[k]):
            return False
    return all(point[row.result] == max(point[i] for i in row.arguments) for row in program.maxima)


@pytest.mark.parametrize("seed", range(30))
def test_backends_agree(seed):
    program = random_program(seed)
    truth = enumerated_minimum(program)
    for name in FLOAT_BACKENDS:
        answer = backend(name).solve(program, Budget(20.0))
        assert answer.status is Status.OPTIMAL, answer
        assert answer.bound == pytest.approx(truth, abs=TOLERANCE, rel=TOLERANCE)
        assert answer.point[program.objective] == pytest.approx(truth, abs=TOLERANCE, rel=TOLERANCE)
        assert len(answer.point) == len(program.variables)
    for name in EXACT_BACKENDS:
        below = replace(program, cutoff=Fraction(truth) - Fraction(1, 10**6))
        assert backend(name).solve(below, Budget(20.0)).status is Status.INFEASIBLE
        above = replace(program, cutoff=Fraction(truth) + Fraction(1, 10**6))
        answer = backend(name).solve(above, Budget(20.0))
        assert answer.status is Status.FEASIBLE and satisfies(program, answer.point)
        assert answer.point[program.objective] <= above.cutoff


def test_enumeration_finds_a_planted_error():
    """The oracle is not blind: with one slope changed, minimum and enumeration differ."""
    program = random_program(0)
    row = program.piecewise[1]
    slopes = (row.slopes[0] + 1, *row.slopes[1:])
    wrong = replace(program, piecewise=(program.piecewise[0], replace(row, slopes=slopes)))
    assert abs(enumerated_minimum(program) - enumerated_minimum(wrong)) > TOLERANCE


def extremes(name: str, program: Program, result: int, fixed: dict[int, Fraction]) -> tuple[float, float]:
    """Smallest and largest x[result] with some variables fixed by rows (their bounds, and so the lowering, stay)."""
    rows = tuple(Linear((index,), (1,), Sense.EQUAL, value) for index, value in fixed.items())
    mirror = len(program.variables)
    flipped = Linear((mirror, result), (1, 1), Sense.EQUAL, 0)
    wide = replace(
        program, variables=(*program.variables, Variable(-1000, 1000)), linear=(*program.linear, *rows, flipped)
    )
    low = backend(name).solve(replace(wide, objective=result), Budget(20.0))
    high = backend(name).solve(replace(wide, objective=mirror), Budget(20.0))
    assert low.status is high.status is Status.OPTIMAL
    return low.bound, -high.bound


@pytest.mark.parametrize("breaks", [1, 2, 3])
def test_lowering_admits_exactly_the_function(breaks):
    for seed in range(4):
        sketch = Sketch(100 * breaks + seed)
        argument = sketch.variable(Fraction(-9, 8), Fraction(5, 4))
        result = sketch.function(argument, breaks)
        program, row = sketch.program(result), sketch.piecewise[0]
        inside = [b for b in row.breakpoints if Fraction(-9, 8) <= b <= Fraction(5, 4)]
        for value in (Fraction(-9, 8), Fraction(1, 5), Fraction(5, 4), *inside):
            k = sum(value > b for b in row.breakpoints)
            truth = float(row.slopes[k] * value + row.intercepts[k])
            assert extremes("highs", program, result, {argument: value}) == pytest.approx((truth, truth), abs=1e-7)


def test_lowering_admits_exactly_the_maximum():
    random = named_generator(5, "maximum")
    for _ in range(8):
        sketch = Sketch(7)
        ends = np.sort(random.integers(-8, 9, size=(3, 2)) / 8, axis=1)
        sources = [sketch.variable(float(low), float(high)) for low, high in ends]
        result = sketch.maximum([*sources, sources[0]])
        values = [Fraction(float(random.uniform(low, high))) for low, high in ends]
        truth = float(max(values))
        found = extremes("highs", sketch.program(result), result, dict(zip(sources, values, strict=True)))
        assert found == pytest.approx((truth, truth), abs=1e-7)


@pytest.mark.parametrize("slopes", [(0, 1), (-1, 1), (Fraction(1, 10), 1), (1, -2), (2, Fraction(1, 2))])
def test_two_pieces_relax_to_the_convex_hull(slopes):
    """Without integrality the one-binary formulation reaches from the function's chord to the function, no further."""
    low, high, middle = Fraction(-2), Fraction(1), Fraction(-1, 2)
    row = Piecewise(0, 1, (0,), slopes, (0, 0))
    milp = lower(Program((Variable(low, high), Variable(-10, 10)), piecewise=(row,)))
    assert sum(milp.integer) == 1

    def at(x):
        return (slopes[0] if x <= 0 else slopes[1]) * x

    chord = at(low) + (at(high) - at(low)) * (middle - low) / (high - low)
    dense = np.zeros((len(milp.rows), len(milp.lower)))
    for k, r in enumerate(milp.rows):
        dense[k, list(r.indices)] = r.coefficients
    bounds = [(-0.5, -0.5), *zip(milp.lower[1:], milp.upper[1:], strict=True)]
    ends = []
    for sign in (1.0, -1.0):
        cost = np.array([0.0, sign, 0.0])
        limits = np.minimum([*(r.upper for r in milp.rows), *(-r.lower for r in milp.rows)], 1e6)
        found = linprog(cost, A_ub=np.concatenate([dense, -dense]), b_ub=limits, bounds=bounds)
        ends.append(sign * found.fun)
    assert sorted(ends) == pytest.approx(sorted([float(chord), float(at(middle))]), abs=1e-9)
