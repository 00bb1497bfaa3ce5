"""Branch and bound over input boxes, all queries of one network and one unsafe set in one shared queue.

In: Graph, boxes of queries, UnsafeSet. Out: per query proven, a candidate point, or why not. Trust: sound for PROVEN:
every part of the box was bounded away from the unsafe set or removed by a proven contraction.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from formalgr.bounds.base import Bounder, rows_of
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.arrays import NUMPY, Arrays, to_numpy
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.linear import LinearForm
from formalgr.core.verdict import Reason
from formalgr.graph.graph import Graph
from formalgr.search.branch import widest_influence
from formalgr.search.contract import contract
from formalgr.spec.unsafe import UnsafeSet


class State(enum.Enum):
    """State of one query in the search."""

    OPEN = "open"
    PROVEN = "proven"
    VIOLATED = "violated"
    GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True)
class BranchOptions:
    """Steering of the search: boxes per batch, limits per query, and the smallest box worth splitting.

    `batch_bytes` bounds the memory of one batch of backward bounds; `smallest_width` is relative to the magnitude of
    the box: below it the rounding error decides, not the network.
    """

    batch: int = 256
    batch_bytes: int = 1 << 28
    branches_per_query: int = 200_000
    seconds_per_query: float = float("inf")
    smallest_width: float = 1e-12


@dataclass
class SearchResult:
    """Per query: its state, why it was given up, the boxes bounded for it and the seconds charged to it."""

    states: np.ndarray
    reasons: list
    boxes: np.ndarray
    seconds: np.ndarray
    stages: dict = field(default_factory=dict)


Confirm = Callable[[int, np.ndarray], bool]
"""(query, point (inputs,)) -> whether the point was replayed as a counterexample of the query."""


class BranchAndBound:
    """The search on one graph and one unsafe set; `run` takes a batch of queries."""

    def __init__(self, graph: Graph, unsafe: UnsafeSet, options: BranchOptions, arrays: Arrays = NUMPY):
        self._graph = graph.to(arrays)
        self._arrays = arrays
        self._unsafe = unsafe
        self._options = options
        self._rows = rows_of(unsafe, arrays)
        widest = max((int(np.prod(node.shape)) for node in graph.nodes), default=graph.inputs)
        per_box = 8 * 6 * widest * min(2 * widest, 512)
        self._batch = int(max(1, min(options.batch, options.batch_bytes // per_box)))

    def bound(self, box: Box, bounder: Bounder) -> tuple[LinearForm, np.ndarray]:
        """Linear forms of all rows over numpy boxes and their minima (batch, rows), rounded down; numpy float64."""
        moved = box.to(self._arrays)
        form = lower_forms(self._graph, bounder.node_bounds(self._graph, moved), self._rows)
        lower = to_numpy(moved.minimum(form))
        return LinearForm(to_numpy(form.coefficients), to_numpy(form.constant), to_numpy(form.error)), lower

    def screen(self, box: Box, bounder: Bounder) -> np.ndarray:
        """Which boxes one round of bounds proves safe, (batch,) bool; in chunks of the batch size."""
        safe = np.zeros(len(box), dtype=bool)
        for start in range(0, len(box), self._batch):
            part = slice(start, start + self._batch)
            _, lower = self.bound(box[part], bounder)
            safe[part] = ~np.any(self._unsafe.open_polytopes(lower), axis=1)
        return safe

    def run(self, box: Box, confirm: Confirm, budget: Budget, report: Callable[[SearchResult], None]) -> SearchResult:
        """Decide every query (one box each); a query is PROVEN only when nothing of its box is left."""
        number = len(box)
        result = SearchResult(
            np.array([State.OPEN] * number, dtype=object),
            [None] * number,
            np.zeros(number, dtype=np.int64),
            np.zeros(number, dtype=np.float64),
        )
        queue, owner = box, np.arange(number, dtype=np.int64)
        waiting = np.ones(number, dtype=np.int64)
        while len(owner):
            if budget.expired:
                for query in np.unique(owner):
                    _give_up(result, int(query), Reason.TIMEOUT)
                break
            started = budget.elapsed
            size = min(self._batch, len(owner))
            part, mine = queue[-size:] if size < len(owner) else queue, owner[-size:]
            queue_rest, owner_rest = (queue[:-size], owner[:-size]) if size < len(owner) else (None, owner[:0])
            children, child_owner = self._step(part, mine, confirm, result)
            np.subtract.at(waiting, mine, 1)
            np.add.at(waiting, child_owner, 1)
            np.add.at(result.boxes, mine, 1)
            np.add.at(result.seconds, mine, (budget.elapsed - started) / size)
            self._close(result, np.unique(mine), waiting)
            queue, owner = _join(queue_rest, owner_rest, children, child_owner)
            alive = np.array([result.states[query] is State.OPEN for query in owner], dtype=bool)
            if not np.all(alive):
                np.subtract.at(waiting, owner[~alive], 1)
                queue, owner = (queue[alive] if np.any(alive) else None), owner[alive]
            report(result)
        return result

    def _close(self, result: SearchResult, queries: np.ndarray, waiting: np.ndarray) -> None:
        for query in queries.tolist():
            if result.states[query] is not State.OPEN:
                continue
            if waiting[query] == 0:
                result.states[query] = State.PROVEN
            elif result.boxes[query] >= self._options.branches_per_query:
                _give_up(result, query, Reason.BRANCH_LIMIT)
            elif result.seconds[query] >= self._options.seconds_per_query:
                _give_up(result, query, Reason.TIMEOUT)

    def _step(self, box: Box, owner: np.ndarray, confirm: Confirm, result: SearchResult):
        """Bound one batch; children of what stays open, with their queries."""
        form, lower = self.bound(box, ForwardBounder())
        still = self._unsafe.open_polytopes(lower)
        undecided = np.nonzero(np.any(still, axis=1))[0]
        if undecided.size == 0:
            return None, owner[:0]
        box, owner = box[undecided], owner[undecided]
        form, lower = self.bound(box, CrownBounder())
        still = self._unsafe.open_polytopes(lower)
        undecided = np.any(still, axis=1)
        self._try_points(box, owner, form, lower, undecided, confirm, result)
        undecided &= np.array([result.states[query] is State.OPEN for query in owner], dtype=bool)
        if not np.any(undecided):
            return None, owner[:0]
        box, owner, lower, still = box[undecided], owner[undecided], lower[undecided], still[undecided]
        form = LinearForm(form.coefficients[undecided], form.constant[undecided], form.error[undecided])
        box, closed = contract(box, form, lower, still, self._unsafe)
        tiny = np.max(box.upper - box.lower, axis=1) <= self._options.smallest_width * (
            1.0 + np.max(np.abs(box.upper), axis=1)
        )
        for query in owner[tiny & ~closed].tolist():
            _give_up(result, query, Reason.NUMERICS)
        keep = ~closed & ~tiny
        if not np.any(keep):
            return None, owner[:0]
        open_rows = still[:, self._unsafe.owners].astype(np.float64)[keep]
        box, owner = box[keep], owner[keep]
        form = LinearForm(form.coefficients[keep], form.constant[keep], form.error[keep])
        axes = widest_influence(box, form, open_rows)
        return box.split(axes), np.concatenate([owner, owner])

    def _try_points(self, box, owner, form, lower, undecided, confirm, result) -> None:
        """Look for violations at the center and at the corner that the worst row points to."""
        corner = box.minimiser(form)[np.arange(len(box)), np.argmin(lower, axis=1)]
        for points in (box.center, corner):
            excess = self._unsafe.excess(to_numpy(self._graph.evaluate(self._arrays.asarray(points))))
            for index in np.nonzero(undecided & (excess <= 0.0))[0].tolist():
                query = int(owner[index])
                if result.states[query] is State.OPEN and confirm(query, points[index]):
                    result.states[query] = State.VIOLATED


def _give_up(result: SearchResult, query: int, reason: Reason) -> None:
    if result.states[query] is State.OPEN:
        result.states[query] = State.GIVEN_UP
        result.reasons[query] = reason


def _join(queue, owner, children, child_owner):
    """The rest of the queue with the children on top."""
    if children is None:
        return queue, owner
    if queue is None:
        return children, child_owner
    joined = Box(np.concatenate([queue.lower, children.lower]), np.concatenate([queue.upper, children.upper]))
    return joined, np.concatenate([owner, child_owner])
