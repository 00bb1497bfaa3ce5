"""HiGHS as a backend, in process through highspy: exact doubles go in, the model status and the dual bound come out.

In: Program, Budget. Out: Answer. Trust: sound in reading the status; HiGHS itself works within tolerances 1e-9.

HiGHS ignores Ctrl-C until it ends: long calls belong into `solvers.child.InChild`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency
from formalgr.core.program import Program
from formalgr.core.rounding import INTEGRALITY, SMALL_MATRIX_VALUE, SOLVER_MARGIN
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.milp import Milp, has_empty_bounds, lower

_STOPPED = (Status.FEASIBLE, Status.UNDECIDED)
_MEANING = {
    ("kOptimal", True): Status.OPTIMAL,
    ("kInfeasible", False): Status.INFEASIBLE,
    **{
        (name, has_point): status
        for name in ("kTimeLimit", "kInterrupt", "kObjectiveTarget")
        for has_point, status in zip((True, False), _STOPPED, strict=True)
    },
}
"""(model status, whether HiGHS calls its point feasible) -> what is proven; a pair that is not here proves nothing."""


@dataclass(frozen=True, kw_only=True)
class HighsBackend(Backend):
    """Minimum within solver tolerances; `bound` is HiGHS's dual bound. Never INFEASIBLE because of a cutoff."""

    seed: int = 0
    name = "highs"
    package = "highspy"
    exact = False

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve; stops once a point is SOLVER_MARGIN below the cutoff, or the dual bound that far above."""
        if has_empty_bounds(program):
            return Answer(Status.INFEASIBLE, why="a variable has lower > upper")
        highspy = _highspy()
        milp = lower(program)
        solver = self.configured(highspy, program.cutoff, budget)
        if solver.passModel(_model(highspy, milp)) == highspy.HighsStatus.kError:
            return Answer(Status.UNDECIDED, why="HiGHS refused the model")
        if program.cutoff is not None and any(milp.integer):
            enough = float(program.cutoff) + SOLVER_MARGIN

            def stop_above(event) -> None:
                if event.data_out.mip_dual_bound > enough:
                    event.interrupt()

            solver.cbMipInterrupt += stop_above
        solver.run()
        return _read(highspy, solver, program, any(milp.integer))

    def configured(self, highspy: ModuleType, cutoff: float | Fraction | None, budget: Budget):
        """A Highs object with every option set; raises MissingDependency when this HiGHS refuses one."""
        options = {
            "output_flag": False,
            "threads": 1,
            "random_seed": self.seed,
            "time_limit": budget.remaining,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": 0.0,
            "mip_feasibility_tolerance": INTEGRALITY,
            "primal_feasibility_tolerance": INTEGRALITY,
            "dual_feasibility_tolerance": INTEGRALITY,
            "small_matrix_value": SMALL_MATRIX_VALUE,
        }
        if cutoff is not None:
            options["objective_target"] = float(cutoff) - SOLVER_MARGIN
        solver = highspy.Highs()
        for option, value in options.items():
            if solver.setOptionValue(option, value) != highspy.HighsStatus.kOk:
                raise MissingDependency(f"HiGHS {solver.version()} refuses option {option}={value}")
        return solver


class WarmLp:
    """A linear program whose limits change between solves; each solve starts from the basis of the one before."""

    def __init__(self, lp: Milp, seed: int):
        self._highspy = _highspy()
        self._solver = HighsBackend(seed=seed).configured(self._highspy, None, Budget())
        self._refused = self._solver.passModel(_model(self._highspy, lp)) == self._highspy.HighsStatus.kError
        self._columns = np.arange(len(lp.lower), dtype=np.int32)
        self._rows = np.arange(len(lp.rows), dtype=np.int32)

    def solve(self, columns: np.ndarray, rows: np.ndarray, budget: Budget) -> Answer:
        """The minimum within limits (2, columns) and (2, rows): OPTIMAL, INFEASIBLE, or UNDECIDED and why."""
        solver = self._solver
        if self._refused:
            return Answer(Status.UNDECIDED, why="HiGHS refused the model")
        solver.changeColsBounds(len(self._columns), self._columns, *columns)
        solver.changeRowsBounds(len(self._rows), self._rows, *rows)
        answer = self._run(budget)
        if answer.status is Status.UNDECIDED and not budget.expired:
            solver.clearSolver()  # the basis may be to blame: once more from scratch
            answer = self._run(budget)
        return answer

    def multipliers(self) -> np.ndarray:
        """The dual values of the rows at the last solution: >= 0 for lower limits, <= 0 for upper ones."""
        return np.array(self._solver.getSolution().row_dual, dtype=np.float64)

    def ray(self) -> np.ndarray | None:
        """Multipliers of the rows that shall prove the last limits infeasible, None where HiGHS has none."""
        _, known, values = self._solver.getDualRay()
        return np.array(values, dtype=np.float64) if known else None

    def _run(self, budget: Budget) -> Answer:
        solver = self._solver
        solver.setOptionValue("time_limit", solver.getRunTime() + budget.remaining)
        solver.run()
        status, info = solver.getModelStatus(), solver.getInfo()
        has_point = info.primal_solution_status == self._highspy.SolutionStatus.kSolutionStatusFeasible
        meaning = _MEANING.get((status.name, has_point), Status.UNDECIDED)
        why = f"HiGHS: {solver.modelStatusToString(status)}"
        if meaning is Status.OPTIMAL:
            point = tuple(solver.getSolution().col_value)
            return Answer(meaning, point, info.objective_function_value, why)
        return Answer(meaning if meaning is Status.INFEASIBLE else Status.UNDECIDED, why=why)


def _highspy() -> ModuleType:
    try:
        import highspy
    except ImportError as error:
        raise MissingDependency("the solver highs needs the package highspy: pip install highspy") from error
    return highspy


def _model(highspy: ModuleType, milp: Milp):
    """The HighsLp with the same columns, rows, integrality and objective; no number changes."""
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(milp.lower), len(milp.rows)
    cost = np.zeros(len(milp.lower), dtype=np.float64)
    if milp.objective is not None:
        cost[milp.objective] = 1.0
    model.col_cost_ = cost
    model.col_lower_ = np.array(milp.lower, dtype=np.float64)
    model.col_upper_ = np.array(milp.upper, dtype=np.float64)
    model.row_lower_ = np.array([row.lower for row in milp.rows], dtype=np.float64)
    model.row_upper_ = np.array([row.upper for row in milp.rows], dtype=np.float64)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(row.indices) for row in milp.rows)], dtype=np.int32)
    model.a_matrix_.index_ = np.array([index for row in milp.rows for index in row.indices], dtype=np.int32)
    model.a_matrix_.value_ = np.array([value for row in milp.rows for value in row.coefficients], dtype=np.float64)
    if any(milp.integer):
        kinds = highspy.HighsVarType
        model.integrality_ = [kinds.kInteger if integer else kinds.kContinuous for integer in milp.integer]
    return model


def _read(highspy: ModuleType, solver, program: Program, mixed: bool) -> Answer:
    """The answer that the model status, the solution status and the dual bound stand for."""
    model_status, info = solver.getModelStatus(), solver.getInfo()
    has_point = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    status = _MEANING.get((model_status.name, has_point), Status.UNDECIDED)
    why = f"HiGHS: {solver.modelStatusToString(model_status)}"
    point = None
    if status in (Status.OPTIMAL, Status.FEASIBLE):
        point = tuple(solver.getSolution().col_value[: len(program.variables)])
    if program.objective is None:
        return Answer(Status.FEASIBLE if status is Status.OPTIMAL else status, point, None, why)
    if mixed:
        bound = info.mip_dual_bound
    else:
        bound = info.objective_function_value if status is Status.OPTIMAL else -math.inf
    if status is Status.INFEASIBLE or not math.isfinite(bound):
        bound = None
    if status is Status.OPTIMAL and bound is None:
        status = Status.FEASIBLE
    return Answer(status, point, bound, why)
