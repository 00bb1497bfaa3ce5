"""The solver protocol: a Program goes in, an Answer comes out; what an answer proves is said by its status.

In: Program, Budget. Out: Answer. Trust: sound in the reading of statuses; the numbers are the solver's.
"""

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

from formalgr.core.budget import Budget
from formalgr.core.program import Program
from formalgr.core.verdict import Stage


class Status(enum.Enum):
    """OPTIMAL: `bound` is the proven minimum; FEASIBLE: `point` satisfies all constraints, nothing more is proven than
    `bound` (if any); INFEASIBLE: no point exists; UNDECIDED: nothing is proven beyond `bound` (if any)."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Answer:
    """What a backend says: values of all variables (Fractions from z3, floats from the others), dual bound, why."""

    status: Status
    point: tuple[float | Fraction, ...] | None = None
    bound: float | Fraction | None = None
    why: str = ""


class Backend(ABC):
    """A solver. Laws: `solve` never claims more than the solver proved; an unlisted status is UNDECIDED."""

    name: str
    package: str
    """The Python package behind the solver; its import happens only when something is solved."""
    exact: bool
    """Whether the arithmetic is rational, so that an answer needs no tolerance."""
    minimises: bool = True
    """Whether it looks for the minimum; else only whether a point exists below the cutoff (if any)."""
    stage: Stage = Stage.MILP
    """What its verdicts are counted under."""

    @abstractmethod
    def solve(self, program: Program, budget: Budget) -> Answer:
        """Minimise or find a point within the budget. Raises MissingDependency when the solver is not installed.

        Without an objective the answer is never OPTIMAL. With a `cutoff` an exact backend may answer INFEASIBLE when no
        point has objective <= cutoff; a float backend only stops early (a point well below the cutoff, or a dual bound
        well above it) and leaves the comparison of `bound` with the cutoff, and its tolerance, to the caller.
        """
