"""Z3 as a backend: exact rationals go in and come out, so an answer needs no tolerance.

In: Program, Budget. Out: Answer. Trust: sound as far as z3 is; floats are taken as the rationals they are.

z3 decides whether a point exists; it does not minimise. With a cutoff the question is whether a point has an objective
<= cutoff: FEASIBLE holds such a point, INFEASIBLE means that the minimum is > cutoff. Without a cutoff the objective is
ignored. An arbiter for small or mostly fixed programs, not a workhorse.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType

from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency
from formalgr.core.program import Linear, Maximum, Number, Piecewise, Program, Sense
from formalgr.core.verdict import Stage
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.milp import has_empty_bounds, pieces_within, undominated

_LONGEST_MILLISECONDS = 2**32 - 2
"""z3 keeps its timeout in 32 bits, the largest value meaning none."""

_KEYBOARD = "interrupted from keyboard"
"""What z3 calls a Ctrl-C, which it catches itself."""


@dataclass(frozen=True, kw_only=True)
class Z3Backend(Backend):
    """Whether a point exists (below the cutoff, if any), in exact arithmetic; the point as Fractions."""

    seed: int = 0
    name = "z3"
    package = "z3"
    exact = True
    minimises = False
    stage = Stage.SMT

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve; raises KeyboardInterrupt when z3 was stopped by Ctrl-C."""
        if has_empty_bounds(program):
            return Answer(Status.INFEASIBLE, why="a variable has lower > upper")
        z3 = _z3()
        lowering = _Lowering(z3, program)
        milliseconds = math.ceil(min(1000.0 * budget.remaining, _LONGEST_MILLISECONDS))
        if milliseconds <= 0:
            return Answer(Status.UNDECIDED, why="no time is left")
        lowering.solver.set("random_seed", self.seed)
        lowering.solver.set("timeout", milliseconds)
        verdict = lowering.solver.check()
        if verdict == z3.sat:
            return Answer(Status.FEASIBLE, lowering.point(), None, "z3: sat")
        if verdict == z3.unsat:
            return Answer(Status.INFEASIBLE, why="z3: unsat")
        reason = lowering.solver.reason_unknown()
        if reason == _KEYBOARD:
            raise KeyboardInterrupt
        return Answer(Status.UNDECIDED, why=f"z3: {reason}")


def _z3() -> ModuleType:
    try:
        import z3
    except ImportError as error:
        raise MissingDependency("the solver z3 needs the package z3-solver: pip install z3-solver") from error
    return z3


class _Lowering:
    """A z3 solver that holds the program, in a context of its own: no query can change the next one's search."""

    def __init__(self, z3: ModuleType, program: Program):
        self.z3 = z3
        self.program = program
        self.context = z3.Context()
        self.solver = z3.SolverFor("QF_LRA", ctx=self.context)
        self.variables = [z3.Real(f"x{index}", self.context) for index in range(len(program.variables))]
        for symbol, variable in zip(self.variables, program.variables, strict=True):
            self.solver.add(self.number(variable.lower) <= symbol, symbol <= self.number(variable.upper))
        for row in program.linear:
            self.linear(row)
        for row in program.piecewise:
            self.piecewise(row)
        for row in program.maxima:
            self.maximum(row)
        if program.cutoff is not None:
            self.solver.add(self.variables[program.objective] <= self.number(program.cutoff))

    def number(self, value: Number):
        """The exact z3 rational; `RealVal(float)` would go through the decimal that Python prints."""
        exact = Fraction(value)
        return self.z3.RatVal(exact.numerator, exact.denominator, self.context)

    def linear(self, row: Linear) -> None:
        """A linear constraint."""
        terms = [
            self.number(value) * self.variables[index]
            for index, value in zip(row.indices, row.coefficients, strict=True)
        ]
        total, right = self.z3.Sum([self.number(0), *terms]), self.number(row.right)
        relation = {
            Sense.BELOW: total < right,
            Sense.LESS: total <= right,
            Sense.EQUAL: total == right,
            Sense.GREATER: total >= right,
        }
        self.solver.add(relation[row.sense])

    def piecewise(self, row: Piecewise) -> None:
        """A piecewise linear function as a chain of conditions over the pieces that the bounds leave alive."""
        argument = self.variables[row.argument]
        *others, last = pieces_within(row, self.program.variables[row.argument])
        value = self.number(last.slope) * argument + self.number(last.intercept)
        for piece in reversed(others):
            line = self.number(piece.slope) * argument + self.number(piece.intercept)
            value = self.z3.If(argument <= self.number(piece.upper), line, value)
        self.solver.add(self.variables[row.result] == value)

    def maximum(self, row: Maximum) -> None:
        """The result is at least every argument and equal to one of them."""
        result = self.variables[row.result]
        arguments = [self.variables[index] for index in undominated(row.arguments, self.program.variables)]
        self.solver.add(*(result >= argument for argument in arguments))
        self.solver.add(self.z3.Or([result == argument for argument in arguments]))

    def point(self) -> tuple[Fraction, ...]:
        """The exact values of all variables in the model that z3 found."""
        model = self.solver.model()
        values = (model.eval(symbol, model_completion=True) for symbol in self.variables)
        return tuple(Fraction(value.numerator_as_long(), value.denominator_as_long()) for value in values)
