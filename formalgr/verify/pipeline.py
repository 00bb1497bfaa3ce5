"""The local check: cheapest stage first, all queries of a batch together, every verdict a proof or a replayed point.

In: Network, queries. Out: one Outcome per query. Trust: sound.

points in plain sight -> backward bounds at the root -> gradient attacks on what is left -> branch and bound -> MILP ->
SMT; what no stage decides is UNKNOWN with the reason of the last one.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.bounds.base import rows_of
from formalgr.core.arrays import NUMPY
from formalgr.core.box import Box, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, Unbounded
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Reason, Semantics, Stage, Verdict
from formalgr.graph.network import Network
from formalgr.search.bab import BranchAndBound, Helpers, SearchResult, State
from formalgr.search.choose import choose
from formalgr.search.tail import without_tail
from formalgr.solvers.child import InChild, warm_child
from formalgr.spec.query import Query
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.certificate import exactly
from formalgr.verify.float32 import verify_float32
from formalgr.verify.options import VerifyOptions
from formalgr.verify.stages import Context, SolverFinding, attack, solvable, solve


class _Tools(ExitStack):
    """What all batches of one call share: the replayer, and a warm child process per solver."""

    def __init__(self, network: Network, judged: bool):
        super().__init__()
        self.replayer = Replayer(network, judged)
        self._children: dict[str, InChild] = {}

    def solver(self, name: str) -> InChild:
        """The child process of a solver, taken when it is first asked something and left to others after the call."""
        if name not in self._children:
            self._children[name] = self.enter_context(warm_child(name))
        return self._children[name]


class _Batch:
    """Queries that share one unsafe set, and their outcomes as they are found."""

    def __init__(self, network: Network, queries: list[Query], options: VerifyOptions, budget, report, tools: _Tools):
        self.network = network
        self.queries = queries
        self.options = options
        self.budget = budget
        self.unsafe = queries[0].unsafe
        self.solver = tools.solver
        self.context = Context(tools.replayer, named_generator(options.seed, "attack"), budget)
        self.outcomes: list[Outcome | None] = [None] * len(queries)
        self.reasons: list[Reason] = [Reason.TIMEOUT] * len(queries)
        self.notes: list[tuple[str, ...]] = [()] * len(queries)
        self.did = ""
        self.spent = {stage: np.zeros(len(queries), dtype=np.float64) for stage in Stage}
        self._report = report

    @property
    def waiting(self) -> list[int]:
        """Positions of the undecided queries."""
        return [k for k, outcome in enumerate(self.outcomes) if outcome is None]

    def holds(self, position: int, guarantee: Guarantee, stage: Stage) -> None:
        """Record a proof, or UNKNOWN when it is weaker than required."""
        if guarantee < self.options.require:
            self.reasons[position] = Reason.TOO_WEAK
            return
        self.outcomes[position] = Outcome(Verdict.HOLDS, guarantee, stage, **self.told(position))

    def violated(self, position: int, counterexample: Counterexample, stage: Stage) -> None:
        """Record a replayed point."""
        self.outcomes[position] = Outcome(
            Verdict.VIOLATED,
            counterexample.guarantee,
            stage,
            counterexample=counterexample,
            **self.told(position),
        )

    def unknown(self, position: int) -> None:
        """Record that no stage decided, with the last reason."""
        refused = self.context.replayer.refused
        judge = (f"points unsafe over the reals that onnxruntime does not confirm: {refused}",) if refused else ()
        self.notes[position] = (*self.notes[position], *judge)
        self.outcomes[position] = Outcome(Verdict.UNKNOWN, reason=self.reasons[position], **self.told(position))

    def told(self, position: int) -> dict:
        """What every outcome says of how it was found."""
        return {"stage_seconds": self.clock(position), "notes": self.notes[position], "did": self.did}

    def solve(self, query: Query, child: InChild, budget: Budget) -> SolverFinding:
        """What a solver finds out about one query."""
        return solve(self.network, query, child, budget, self.context.replayer, self.options.branch.memory_bytes)

    def clock(self, position: int) -> tuple[tuple[Stage, float], ...]:
        """Seconds charged to a query so far, by stage."""
        return tuple((stage, float(spent[position])) for stage, spent in self.spent.items() if spent[position] > 0.0)

    def left(self, position: int) -> float:
        """Seconds that a query may still use."""
        return self.options.seconds_per_query - sum(seconds for _, seconds in self.clock(position))

    def charge(self, stage: Stage, positions: list[int], since: float) -> None:
        """Share the time since `since` among queries."""
        if positions:
            self.spent[stage][positions] += (self.budget.elapsed - since) / len(positions)

    def tick(self, note: str, extra: SearchResult | None = None) -> None:
        """Tell the progress callback where the batch stands."""
        decided = [outcome.verdict for outcome in self.outcomes if outcome is not None]
        holds, violated = decided.count(Verdict.HOLDS), decided.count(Verdict.VIOLATED)
        if extra is not None:
            holds += int(np.sum(extra.states == State.PROVEN))
            violated += int(np.sum(extra.states == State.VIOLATED))
        self._report(Tick("checks", len(self.queries), holds, violated, 0, note))


def verify_batch(
    network: Network,
    queries: Sequence[Query],
    options: VerifyOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> list[Outcome]:
    """One Outcome per query: HOLDS is a proof over the whole closed box, VIOLATED a replayed point of it.

    Both in the arithmetic of options.semantics. Queries may have different unsafe sets; those that share one share the
    work. Raises ModelError when a query does not fit the network.
    """
    options, budget = options or VerifyOptions(), budget or Budget()
    for query in queries:
        _check_fit(network, query)
    _check_dropped(network, queries)

    def decide(asked: Sequence[Query], spent: float) -> list[Outcome]:
        limit = options.seconds_per_query - spent
        if limit <= 0.0:
            return [Outcome(Verdict.UNKNOWN, reason=Reason.TIMEOUT) for _ in asked]
        return _verify_real(network, asked, replace(options, seconds_per_query=limit), budget, progress)

    if options.semantics is Semantics.FLOAT32:
        return verify_float32(network, queries, decide, budget)
    if options.require is Guarantee.EXACT:
        loose = verify_batch(network, queries, replace(options, require=Guarantee.NONE), budget, progress)
        return [outcome for outcome, _ in exactly(network, queries, loose, budget)]
    return decide(queries, 0.0)


def _verify_real(
    network: Network, queries: Sequence[Query], options: VerifyOptions, budget: Budget, progress: Progress
) -> list[Outcome]:
    """The check over the reals."""
    groups: dict[UnsafeSet, list[int]] = {}
    for position, query in enumerate(queries):
        groups.setdefault(query.unsafe, []).append(position)
    outcomes: list[Outcome | None] = [None] * len(queries)
    with _Tools(network, options.judged) as tools:
        for positions in groups.values():
            batch = _Batch(network, [queries[k] for k in positions], options, budget, progress, tools)
            try:
                _decide(batch)
            except Unbounded as error:
                _give_up(batch, str(error))
            for position, outcome in zip(positions, batch.outcomes, strict=True):
                outcomes[position] = outcome
    return outcomes


def verify(
    network: Network, query: Query, options: VerifyOptions | None = None, budget: Budget | None = None
) -> Outcome:
    """The Outcome of one query; see verify_batch."""
    return verify_batch(network, [query], options, budget)[0]


def _check_fit(network: Network, query: Query) -> None:
    if query.box.inputs != network.graph.inputs:
        raise ModelError(f"the query bounds {query.box.inputs} inputs, the network takes {network.graph.inputs}")
    if query.unsafe.outputs != network.graph.outputs:
        raise ModelError(f"the query speaks of {query.unsafe.outputs} outputs, the network has {network.graph.outputs}")


def compares_outputs(unsafe: UnsafeSet) -> bool:
    """Whether every row is a comparison of two outputs: then a Softmax behind them changes nothing."""
    for polytope in unsafe.polytopes:
        for row, bound in zip(polytope.coefficients, polytope.bounds, strict=True):
            terms = [coefficient for coefficient in row if coefficient]
            if bound or len(terms) != 2 or sum(terms):
                return False
    return True


def _check_dropped(network: Network, queries: Sequence[Query]) -> None:
    """Raises ModelError when a query speaks of the values of a Softmax that was dropped: only their order is known."""
    if network.dropped is None:
        return
    for unsafe in {id(query.unsafe): query.unsafe for query in queries}.values():
        if not compares_outputs(unsafe):
            raise ModelError(
                f"the network ends in {network.dropped}, which is dropped, and the query speaks of the values of its "
                "outputs: load the network with keep_softmax=True, or state the query on the logits"
            )


def _decide(batch: _Batch) -> None:
    """Run the stages in order of cost; fill every outcome."""
    _trivial(batch)
    if batch.options.solver == "auto":
        for stage in (_centers, _branch, _solvers) if batch.options.complete else (_centers, _branch):
            if batch.waiting and not batch.budget.expired:
                try:
                    stage(batch)
                except MemoryError:
                    for position in batch.waiting:
                        batch.reasons[position] = Reason.MEMORY
    else:
        _forced(batch)
    for position in batch.waiting:
        batch.unknown(position)
    batch.tick("done")


def _give_up(batch: _Batch, why: str) -> None:
    """Without finite bounds, what is undecided is unknown."""
    for position in batch.waiting:
        batch.reasons[position] = Reason.UNBOUNDED
        batch.notes[position] = (*batch.notes[position], why)
        batch.unknown(position)


def _trivial(batch: _Batch) -> None:
    for position, query in enumerate(batch.queries):
        if query.box.empty or not query.unsafe.polytopes:
            what = "the input region is empty" if query.box.empty else "the unsafe set is empty"
            batch.notes[position] = (f"holds trivially: {what}",)
            batch.holds(position, Guarantee.FLOAT_SOUND, Stage.BOUNDS)
        elif any(polytope.rows == 0 for polytope in query.unsafe.polytopes):
            # every output is unsafe, so any point will do
            counterexample = batch.context.replayer.replay(query, query.box.lower)
            batch.violated(position, counterexample, Stage.ATTACK)


def _centers(batch: _Batch) -> None:
    """The center and a few points of each box: what is wrong in plain sight costs no bounds."""
    started, positions = batch.budget.elapsed, batch.waiting
    found = attack(batch.network, [batch.queries[k] for k in positions], batch.options.random, batch.context)
    batch.charge(Stage.ATTACK, positions, started)
    for index, counterexample in found.items():
        batch.violated(positions[index], counterexample, Stage.ATTACK)
    batch.tick("attack")


def _branch(batch: _Batch) -> None:
    """Backward bounds at the root, gradient attacks on what they leave open, branch and bound below."""
    search = _Search(batch)
    limits = replace(batch.options.branch, seconds_per_query=batch.options.seconds_per_query)
    engine = BranchAndBound(*without_tail(batch.network.graph, batch.unsafe), limits, batch.options.arrays)
    box = outward([batch.queries[k].box for k in search.positions])
    result = engine.run(box, Helpers(search.confirm, search.exact, search.attack, search.report), batch.budget)
    batch.did = engine.why
    for index, position in enumerate(search.positions):
        stage = Stage.BRANCH if result.boxes[index] > 1 else Stage.BOUNDS
        batch.spent[Stage.ATTACK][position] += search.attacked[index]
        batch.spent[stage][position] += result.seconds[index]
        batch.spent[Stage.SMT][position] += search.asked[index]
        if search.cells[index]:
            note = f"boxes settled in exact arithmetic, where rounding errors would decide: {search.cells[index]}"
            batch.notes[position] = (*batch.notes[position], note)
        stage = search.decider.get(index, stage)
        if result.states[index] == State.PROVEN:
            batch.holds(position, Guarantee.FLOAT_SOUND, stage)
        elif result.states[index] == State.VIOLATED:
            batch.violated(position, search.found[index], stage)
        else:
            batch.reasons[position] = result.reasons[index] or Reason.TIMEOUT


class _Search:
    """What branch and bound asks back, for the undecided queries of a batch."""

    def __init__(self, batch: _Batch):
        self.batch = batch
        self.positions = batch.waiting
        self.found: dict[int, Counterexample] = {}
        self.decider: dict[int, Stage] = {}
        self.attacked, self.asked = np.zeros((2, len(self.positions)), dtype=np.float64)
        self.cells = np.zeros(len(self.positions), dtype=np.int64)

    def confirm(self, query: int, point: np.ndarray) -> bool:
        """Replay one point."""
        asked = self.batch.queries[self.positions[query]]
        counterexample = self.batch.context.replayer.replay(asked, point.tolist())
        if counterexample is not None:
            self.found[query] = counterexample
        return counterexample is not None

    def attack(self, queries: np.ndarray, doublings: int) -> np.ndarray:
        """Gradient descent on the queries, which ones are violated: quickly at first, then from 2^doublings times the
        starts and with a closer look at the best points."""
        batch, started = self.batch, self.batch.budget.elapsed
        chosen = [batch.queries[self.positions[query]] for query in queries.tolist()]
        pgd = batch.options.pgd
        method = replace(pgd, points=pgd.points << doublings, operations=pgd.operations << doublings)
        if not doublings:  # most of what roots leave open is proven a moment later
            method = replace(pgd, points=max(1, pgd.points // 4), restarts=1, zooms=())
        found = attack(batch.network, chosen, method, batch.context)
        for index, counterexample in found.items():
            self.found[int(queries[index])] = counterexample
            self.decider[int(queries[index])] = Stage.ATTACK
        self.attacked[queries] += (batch.budget.elapsed - started) / len(queries)
        return np.isin(np.arange(len(queries)), list(found))

    def exact(self, query: int, box: Box | None) -> State:
        """Ask z3 about a box of a query, or all of it, when it can be exact and few units are unstable there."""
        batch, position = self.batch, self.positions[query]
        left = min(batch.left(position), batch.options.solver_seconds, batch.options.exact_seconds)
        graph = batch.network.graph
        asking = (graph.exact or graph.rational) and solvable(graph)
        if not asking or self.cells[query] >= batch.options.exact_cells or left <= 0.0:
            return State.OPEN
        asked = batch.queries[position]
        if box is not None:
            asked = Query(asked.box.within(box.lower[0].tolist(), box.upper[0].tolist()), asked.unsafe)
            if asked.box.empty:
                return State.PROVEN
        if _unstable_units(batch, asked) > batch.options.smt_units:
            return State.OPEN
        started, child = batch.budget.elapsed, batch.solver("z3")
        finding = batch.solve(asked, child, batch.budget.within(left))
        self.asked[query] += batch.budget.elapsed - started
        if finding.proven is None and finding.counterexample is None:
            return State.OPEN
        if finding.counterexample is not None:
            self.found[query] = finding.counterexample
        if finding.counterexample is not None or box is None:
            self.decider[query] = Stage.SMT
        else:
            self.cells[query] += 1
        return State.PROVEN if finding.counterexample is None else State.VIOLATED

    def report(self, result: SearchResult) -> None:
        """Tell where the search stands."""
        self.batch.tick("branch and bound", result)


def _solvers(batch: _Batch) -> None:
    """MILP, then SMT where few units are unstable; MILP has tolerances, so that it is no help where floats fail."""
    for position in batch.waiting:
        if batch.reasons[position] in (Reason.TOO_WEAK, Reason.MEMORY) or not solvable(batch.network.graph):
            continue
        if batch.reasons[position] is not Reason.NUMERICS:
            _ask(batch, position, "highs")
        if batch.outcomes[position] is None:
            if _unstable_units(batch, batch.queries[position]) <= batch.options.smt_units:
                _ask(batch, position, "z3")


def _unstable_units(batch: _Batch, query: Query) -> int:
    """How many units are unstable over the box of a query: the size of its exact problem."""
    box, memory_bytes = outward([query.box]), batch.options.branch.memory_bytes
    relaxer = choose(batch.network.graph, rows_of(query.unsafe, NUMPY), memory_bytes).relaxer
    return int(relaxer.unstable(box, relaxer.bound(box, None)[2])[0])


def _forced(batch: _Batch) -> None:
    for position in batch.waiting:
        _ask(batch, position, batch.options.solver)
        batch.tick(batch.options.solver)


def _ask(batch: _Batch, position: int, name: str) -> None:
    """One query to one solver, in a killable child process."""
    left = batch.left(position)
    if left <= 0.0 or batch.budget.expired:
        return
    started = batch.budget.elapsed
    child = batch.solver(name)
    budget = batch.budget.within(min(left, batch.options.solver_seconds))
    finding = batch.solve(batch.queries[position], child, budget)
    stage = child.stage
    batch.charge(stage, [position], started)
    if finding.counterexample is not None:
        batch.violated(position, finding.counterexample, stage)
    elif finding.proven is not None:
        batch.holds(position, finding.proven, stage)
    else:
        batch.reasons[position] = finding.reason
        batch.notes[position] = (*batch.notes[position], finding.note) if finding.note else batch.notes[position]
