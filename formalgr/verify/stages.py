"""The stages of a local check on one network and one unsafe set: attack, bounds, branch and bound, solvers.

In: Network, UnsafeSet, boxes. Out: verdict pieces for the pipeline. Trust: sound: stages only report proofs and
replayed points.
"""

import math
from dataclasses import dataclass

import numpy as np

from formalgr.attacks.base import Attack
from formalgr.attacks.replay import Replayer
from formalgr.bounds.base import NodeBounds, rows_of
from formalgr.bounds.crown import lower_forms
from formalgr.core.arrays import NUMPY
from formalgr.core.box import inward_float32, outward
from formalgr.core.budget import Budget
from formalgr.core.rounding import SOLVER_MARGIN
from formalgr.core.verdict import Counterexample, Guarantee, Reason
from formalgr.graph.graph import Graph
from formalgr.graph.network import Network
from formalgr.operators.linear_map import LinearMap
from formalgr.search.cell import cell_program
from formalgr.search.choose import bounder_of
from formalgr.search.encoding import encode
from formalgr.solvers.base import Backend, Status
from formalgr.spec.query import Query

SOLVER_WEIGHTS = 1 << 23
"""Products of a weight with a value in a network beyond which no solver is asked: a MILP with one nonzero for each does
not end in useful time, and rational arithmetic takes about a microsecond for each."""


@dataclass(frozen=True)
class SolverFinding:
    """What a solver stage found out about one query: a proof with its guarantee, a point, or why neither."""

    proven: Guarantee | None = None
    counterexample: Counterexample | None = None
    reason: Reason | None = None
    note: str = ""


@dataclass(frozen=True)
class Context:
    """What every stage of a batch shares: the replayer, the random generator of attacks, the budget."""

    replayer: Replayer
    random: np.random.Generator
    budget: Budget


def attack(network: Network, queries: list[Query], method: Attack, context: Context) -> dict[int, Counterexample]:
    """Replayed counterexamples by position in `queries`; all queries share one unsafe set."""
    box = inward_float32([query.box for query in queries])
    result = method.run(network.graph, box, queries[0].unsafe, context.random, context.budget)
    found: dict[int, Counterexample] = {}
    for position in np.nonzero(result.excess <= 0.0)[0].tolist():
        counterexample = context.replayer.replay(queries[position], result.points[position].tolist())
        if counterexample is not None:
            found[position] = counterexample
    return found


def solvable(graph: Graph) -> bool:
    """Whether a solver has a chance with the whole network written out, zeros included."""
    linear = (node for node in graph.nodes if isinstance(node.operator, LinearMap))
    return sum(node.operator.terms * math.prod(node.shape) for node in linear) <= SOLVER_WEIGHTS


def solve(
    network: Network, query: Query, backend: Backend, budget: Budget, replayer: Replayer, memory_bytes: int
) -> SolverFinding:
    """Decide one query by a solver: every polytope must be excluded; a feasible point is replayed before it counts."""
    graph = network.graph
    if not solvable(graph):
        return SolverFinding(reason=Reason.SOLVER, note=f"{backend.name}: not asked, the network is too large for it")
    box = outward([query.box])
    bounds = bounder_of(graph, memory_bytes).node_bounds(graph, box)
    lower = box.minimum(lower_forms(graph, bounds, rows_of(query.unsafe, NUMPY)))
    still = query.unsafe.open_polytopes(lower)[0]
    weakest = Guarantee.FLOAT_SOUND
    for index in np.nonzero(still)[0].tolist():
        finding = _solve_polytope(graph, bounds, query, index, backend, budget, replayer)
        if finding.proven is None:
            return finding
        weakest = min(weakest, finding.proven)
    return SolverFinding(proven=weakest)


def _solve_polytope(
    graph, bounds: NodeBounds, query: Query, index: int, backend: Backend, budget: Budget, replayer: Replayer
) -> SolverFinding:
    if budget.expired:
        return SolverFinding(reason=Reason.TIMEOUT)
    polytope = query.unsafe.polytopes[index]
    if backend.exact:
        program = cell_program(replayer.rational, bounds, query.box, polytope)
    else:
        program = encode(graph, bounds, polytope)
    answer = backend.solve(program, budget)
    if answer.point is not None:
        counterexample = replayer.replay(query, [answer.point[k] for k in program.inputs])
        if counterexample is not None:
            return SolverFinding(counterexample=counterexample)
    if backend.exact and answer.status is Status.INFEASIBLE:
        return SolverFinding(proven=Guarantee.FLOAT_SOUND)
    if not backend.exact and answer.status is not Status.INFEASIBLE:
        if answer.bound is not None and float(answer.bound) > SOLVER_MARGIN:
            return SolverFinding(proven=Guarantee.SOLVER)
    if not graph.exact and answer.status in (Status.OPTIMAL, Status.FEASIBLE):
        return SolverFinding(reason=Reason.RELAXATION, note=f"{backend.name}: the relaxation has a point")
    if answer.status is Status.OPTIMAL:
        return SolverFinding(reason=Reason.NUMERICS, note=f"{backend.name}: minimum {float(answer.bound or 0.0):.3g}")
    if backend.exact and answer.status is Status.FEASIBLE:
        return SolverFinding(reason=Reason.NUMERICS, note=f"{backend.name}: a point within the errors of the weights")
    reason = Reason.TIMEOUT if budget.expired else Reason.SOLVER
    return SolverFinding(reason=reason, note=f"{backend.name}: {answer.status.value} {answer.why}".strip())
