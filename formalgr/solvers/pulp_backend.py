"""CBC as a backend through PuLP: PuLP holds the model, starts its bundled CBC and reads the solution file.

In: Program, Budget. Out: Answer. Trust: sound in reading the status; CBC itself works within tolerances 1e-9.

What PuLP 3.3.2 and CBC 2.10.3 would get wrong, each measured, and what is done here:
PuLP's MPS files keep 13 digits, which is another network: the model gets a writer with 17.
PuLP says "Optimal" after a time limit: a status counts only together with CBC's own result line.
CBC ignores an option that it does not know: its log is checked.
CBC's preprocessing calls FEASIBLE networks infeasible when the time limit falls into it, and can return a point that
is not the optimum it claims; CBC's presolve drops matrix entries <= 1e-9: both are off (which costs next to nothing),
and an optimum counts only when log and point agree on its value.
CBC prints 8 digits: points are candidates to be replayed, and the bound is lowered by that much.
`-threads 1` makes CBC use its slower threaded mode: the option is left out, and CBC runs on one thread.
A cutoff changes nothing: CBC solves to the end. A point found before the time limit comes without a bound.
A Ctrl-C may leave CBC running for its time limit: long calls belong into `solvers.child.InChild`, which kills it too.
"""

import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency
from formalgr.core.program import Program
from formalgr.core.rounding import INTEGRALITY
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.milp import INFINITY, Milp, has_empty_bounds, lower

_PRINTED = 1e-7
"""CBC prints 8 significant digits, so a printed number is off by at most 5e-8 times itself; doubled."""

_AGREEMENT = 1e-6
"""Relative difference within which CBC's log and its point must agree on the optimum: ten times what printing costs."""

_LONGEST_SECONDS = 1e9
"""Stands for no limit: CBC cannot read `inf`."""

_SENSES = {-1: "L", 0: "E", 1: "G"}
"""PuLP's senses of a constraint -> rows of an MPS file."""

_MEANING = {
    ("Optimal", "Optimal Solution Found", "Optimal solution found"): Status.OPTIMAL,
    ("Optimal", "Optimal Solution Found", "Optimal objective"): Status.OPTIMAL,
    ("Optimal", "Solution Found", "Stopped on time limit"): Status.FEASIBLE,
    ("Infeasible", "No Solution Found", "Problem proven infeasible"): Status.INFEASIBLE,
    ("Infeasible", "No Solution Exists", "Linear relaxation infeasible"): Status.INFEASIBLE,
    ("Infeasible", "No Solution Exists", "Problem is infeasible"): Status.INFEASIBLE,
}
"""(PuLP's status, PuLP's solution status, CBC's own words) -> what is proven; a triple not listed proves nothing."""


@dataclass(frozen=True, kw_only=True)
class CbcBackend(Backend):
    """Minimum within solver tolerances; `bound` is CBC's proven minimum. Never INFEASIBLE because of a cutoff."""

    seed: int = 0
    name = "cbc"
    package = "pulp"
    exact = False

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve; CBC's files live in a temporary directory that is removed afterwards."""
        if has_empty_bounds(program):
            return Answer(Status.INFEASIBLE, why="a variable has lower > upper")
        pulp = _pulp()
        problem, columns = _problem(pulp, lower(program))
        with tempfile.TemporaryDirectory(prefix="formalgr-cbc-") as directory:
            log = Path(directory, "log")
            solver = pulp.COIN_CMD(
                path=pulp.PULP_CBC_CMD.pulp_cbc_path,
                msg=False,
                gapRel=0.0,
                gapAbs=0.0,
                timeLimit=min(budget.remaining, _LONGEST_SECONDS),
                logPath=str(log),
                options=[f"{option} {value}" for option, value in self._options().items()],
            )
            if not solver.available():
                raise MissingDependency(f"PuLP {pulp.__version__} brings no CBC that runs here: pip install 'pulp<4'")
            solver.tmpDir = directory
            try:
                problem.solve(solver)
            except pulp.PulpSolverError as error:
                return Answer(Status.UNDECIDED, why=f"CBC failed: {error}")
            words = log.read_text(errors="replace")
        if "No match for" in words:
            raise MissingDependency(f"CBC does not know an option: {words[words.index('No match for') :][:60]}")
        return _read(pulp, problem, columns[: len(program.variables)], program.objective, words)

    def _options(self) -> dict[str, float | str]:
        return {
            "preprocess": "off",
            "presolve": "off",
            "primalTolerance": INTEGRALITY,
            "dualTolerance": INTEGRALITY,
            "integerTolerance": INTEGRALITY,
            "increment": INTEGRALITY,
            "randomSeed": 1 + self.seed,
            "randomCbcSeed": 1 + self.seed,
        }


def _pulp() -> ModuleType:
    try:
        import pulp
    except ImportError as error:
        raise MissingDependency("the solver cbc needs the package pulp: pip install 'pulp>=3.3.1,<4'") from error
    return pulp


def _problem(pulp: ModuleType, milp: Milp):
    """The PuLP model of a Milp and its variables in column order; a ranged row becomes two constraints."""
    problem = pulp.LpProblem("formalgr", pulp.LpMinimize)
    kinds = {True: pulp.LpInteger, False: pulp.LpContinuous}
    columns = [
        problem.add_variable(f"x{index}", low, high, kinds[integer])
        for index, (low, high, integer) in enumerate(zip(milp.lower, milp.upper, milp.integer, strict=True))
    ]
    cost = pulp.LpAffineExpression([(column, 0.0) for column in columns])  # PuLP forgets a variable that it never sees
    if milp.objective is not None:
        cost[columns[milp.objective]] = 1.0
    problem.setObjective(cost)
    for row in milp.rows:
        terms = pulp.LpAffineExpression(
            [(columns[index], value) for index, value in zip(row.indices, row.coefficients, strict=True)]
        )
        if row.lower == row.upper:
            problem.addConstraint(terms == row.lower)
            continue
        if row.lower > -INFINITY:
            problem.addConstraint(terms >= row.lower)
        if row.upper < INFINITY:
            problem.addConstraint(terms <= row.upper)
    problem.writeMPS = lambda path, rename=0: _write_mps(problem, columns, path)
    return problem, columns


def _write_mps(problem, columns: list, path: str):
    """Write the model with 17 digits a number; returns what PuLP's own writeMPS returns."""
    names = {name: f"c{index}" for index, name in enumerate(problem._constraints)}
    entries = defaultdict(list)
    rows, right = [], []
    for name, constraint in problem._constraints.items():
        rows.append(f" {_SENSES[constraint.sense]} {names[name]}")
        right.append(f" RHS {names[name]} {-constraint.constant!r}")
        for column, value in constraint.items():
            entries[column.name].append(f" {column.name} {names[name]} {value!r}")
    lines, bounds = [], []
    for column in columns:
        cost = [f" {column.name} OBJ {problem.objective[column]!r}"]
        marks = ("'INTORG'", "'INTEND'") if column.cat == "Integer" else ()
        lines += [f" MARK 'MARKER' {mark}" for mark in marks[:1]] + cost + entries[column.name]
        lines += [f" MARK 'MARKER' {mark}" for mark in marks[1:]]
        bounds += [f" LO BND {column.name} {column.lowBound!r}", f" UP BND {column.name} {column.upBound!r}"]
    parts = ["NAME formalgr", "OBJSENSE", " MIN", "ROWS", " N OBJ", *rows, "COLUMNS", *lines, "RHS", *right]
    Path(path).write_text("\n".join([*parts, "BOUNDS", *bounds, "ENDATA", ""]))
    return columns, {column.name: column.name for column in columns}, names, "OBJ"


def _result(log: str) -> str:
    """CBC's own words for how it ended; empty when they are none that the table of meanings knows."""
    found = re.search(r"^Result - (.*)$", log, re.MULTILINE)
    if found:
        return found.group(1).strip()
    return next((words for *_, words in _MEANING if words in log), "")


def _agree(log: str, value: float) -> bool:
    """Whether the optimum that CBC's log claims is that of the point."""
    claims = re.findall(r"^(?:Objective value:|Optimal objective) +(\S+)", log, re.MULTILINE)
    return bool(claims) and abs(float(claims[-1]) - value) <= _AGREEMENT * max(1.0, abs(value))


def _read(pulp: ModuleType, problem, columns: list, objective: int | None, log: str) -> Answer:
    """The answer that PuLP's two statuses and CBC's log stand for together."""
    key = pulp.LpStatus[problem.status], pulp.LpSolution[problem.sol_status], _result(log)
    status = _MEANING.get(key, Status.UNDECIDED)
    why = f"CBC: {key[2] or 'ended without a known result'} (PuLP: {key[0]}, {key[1]})"
    if status not in (Status.OPTIMAL, Status.FEASIBLE):
        return Answer(status, why=why)
    point = tuple(float(column.varValue) for column in columns)
    if objective is None or status is Status.FEASIBLE:
        return Answer(Status.FEASIBLE, point, None, why)
    value = point[objective]
    if not _agree(log, value):
        return Answer(Status.UNDECIDED, why=f"{why}, but its point has another value")
    return Answer(status, point, value - _PRINTED * abs(value), why)
