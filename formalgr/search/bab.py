"""Branch and bound over input boxes, all queries of one network and one unsafe set in one shared queue.

In: Graph, boxes of queries, UnsafeSet. Out: per query proven, a candidate point, or why not. Trust: sound for PROVEN:
every part of the box was bounded away from the unsafe set or removed by a proven contraction.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from formalgr.bounds.base import rows_of
from formalgr.core.arrays import NUMPY, Arrays, to_numpy
from formalgr.core.box import Box
from formalgr.core.budget import Budget, OutOfTime
from formalgr.core.linear import LinearForm
from formalgr.core.verdict import Reason
from formalgr.graph.graph import Graph
from formalgr.graph.rewrite import join_clips
from formalgr.search.branch import branch
from formalgr.search.choose import FEW_INPUTS, PIECES, choose
from formalgr.search.chunk import Chunk, forget, joined, scale
from formalgr.search.clip import Cuts, clips
from formalgr.search.combine import combined, excluded
from formalgr.search.contract import contract
from formalgr.search.implied import Implications
from formalgr.search.leaf import solve_leaf
from formalgr.search.phases import gains, sensitivity, split_phases
from formalgr.search.relax import State as Inherited
from formalgr.spec.unsafe import UnsafeSet


class State(enum.IntEnum):
    """State of one query in the search."""

    OPEN = 0
    PROVEN = 1
    VIOLATED = 2
    GIVEN_UP = 3


@dataclass(frozen=True, kw_only=True)
class BranchOptions:
    """Steering of the search: boxes per batch, limits per query, and the smallest box worth splitting.

    A batch holds `batch` whole networks at the root; below it as many reduced systems as fit into `cache_bytes` (200
    units, eps .5: a quarter of it takes 1.15 times as long, twice as much no less), at least 8 and at most 64 *
    batch. `memory_bytes` bounds the memory of the search: batches become smaller, and when reduced systems take half
    of it, boxes forget theirs and start from the whole network again. Where memory runs out nevertheless, batches are
    halved. Every `breadth`-th batch takes the oldest boxes instead of the newest. What roots leave open is attacked,
    and again whenever the search took `attack_every` times as long as the last attack did: with twice the points, up
    to `attack_doublings` times.

    Exact arithmetic is asked about a box where the rounding error decides, not the network, once at most `exact_units`
    units are unstable in it, and about every box below `smallest_width` (relative to the magnitude of the box); about
    the whole query after `patience` boxes, since a tie along a face of a linear region has more small boxes around it
    than anyone can count.
    """

    batch: int = 32
    cache_bytes: int = 1 << 24
    memory_bytes: int = 1 << 32
    breadth: int = 2
    attack_every: float = 16.0
    attack_doublings: int = 3
    exact_units: int = 16
    patience: int = 2000
    phase_units: int = 0
    phase_inputs: int = FEW_INPUTS
    branches_per_query: int = 2_000_000
    seconds_per_query: float = float("inf")
    smallest_width: float = 1e-12


@dataclass
class SearchResult:
    """Per query: its state, why it was given up, the boxes bounded for it and the seconds charged to it."""

    states: np.ndarray
    reasons: list
    boxes: np.ndarray
    seconds: np.ndarray

    def give_up(self, query: int, reason: Reason) -> None:
        """Leave an open query undecided, with the reason."""
        if self.states[query] == State.OPEN:
            self.states[query] = State.GIVEN_UP
            self.reasons[query] = reason


@dataclass(frozen=True)
class Helpers:
    """What the search asks of its caller.

    confirm(query, point) replays a point: whether it is a counterexample. attack(queries, doublings) looks for
    counterexamples of open queries with 2^doublings times the usual points: which it found, (queries,) bool.
    exact(query, box) decides a box of a query (None: all of it) in exact arithmetic: PROVEN, VIOLATED, or OPEN when it
    cannot. report(result) is told of progress.
    """

    confirm: Callable[[int, np.ndarray], bool]
    exact: Callable[[int, Box | None], State]
    attack: Callable[[np.ndarray, int], np.ndarray]
    report: Callable[[SearchResult], None]


class BranchAndBound:
    """The search on one graph and one unsafe set; `run` takes a batch of queries."""

    def __init__(self, graph: Graph, unsafe: UnsafeSet, options: BranchOptions, arrays: Arrays = NUMPY):
        self._graph = join_clips(graph).to(arrays)
        self._arrays = arrays
        self._unsafe = unsafe
        self._options = options
        self._rows = rows_of(unsafe, arrays)
        self._choice = choose(self._graph, self._rows, options.memory_bytes, options.batch)
        self._most = 64 * options.batch
        self._implied = Implications(unsafe, arrays)
        self._clips = clips(unsafe) and self._graph.inputs <= FEW_INPUTS and arrays == NUMPY

    @property
    def why(self) -> str:
        """How boxes are bounded, and why so."""
        return self._choice.why

    def run(self, box: Box, helpers: Helpers, budget: Budget) -> SearchResult:
        """Decide every query (one box each); a query is PROVEN only when nothing of its box is left."""
        number, self._choice = len(box), self._choice.until(budget)
        result = SearchResult(
            np.zeros(number, dtype=np.int64),
            [None] * number,
            np.zeros(number, dtype=np.int64),
            np.zeros(number, dtype=np.float64),
        )
        waiting = np.ones(number, dtype=np.int64)
        stack: list[Chunk] = []
        roots = Chunk(box, np.arange(number, dtype=np.int64), None)
        start = 0
        while start < number and not budget.expired:
            part = roots[start : start + self._limit(None)]
            start += len(part.owner)
            self._advance(part, stack, waiting, result, helpers, budget)
        rounds, attacks, due = 0, 0, 0.0
        while stack and not budget.expired:
            if budget.elapsed >= due:
                started = budget.elapsed
                self._attack(helpers, result, attacks)
                due = budget.elapsed + self._options.attack_every * (budget.elapsed - started)
                attacks += 1
            rounds += 1
            if rounds % self._options.breadth == 0:
                # now and then the largest boxes: depth alone may dig where nothing is to be found
                stack.append(stack.pop(0))
            chunk = self._pop(stack, result, waiting)
            if chunk is not None:
                self._advance(chunk, stack, waiting, result, helpers, budget)
        for query in np.nonzero(result.states == State.OPEN)[0].tolist():
            result.give_up(query, Reason.TIMEOUT)
        return result

    def _attack(self, helpers: Helpers, result: SearchResult, attacks: int) -> None:
        """Attack what is open, harder every time."""
        left = np.nonzero(result.states == State.OPEN)[0]
        if left.size:
            result.states[left[helpers.attack(left, min(attacks, self._options.attack_doublings))]] = State.VIOLATED

    def _advance(self, chunk: Chunk, stack: list[Chunk], waiting, result: SearchResult, helpers, budget) -> None:
        """Bound one batch, put its children on the stack and settle its queries."""
        started = budget.elapsed
        try:
            children, cells = self._step(chunk, helpers, result)
        except OutOfTime:
            return
        except MemoryError:
            children = cells = None
        if cells is None:
            self._retreat(chunk, stack, waiting, result)
            return
        np.subtract.at(waiting, chunk.owner, 1)
        np.add.at(result.boxes, chunk.owner, 1)
        for part in children:
            np.add.at(waiting, part.owner, 1)
            stack.append(part)
        forget(stack, self._options.memory_bytes // 2)
        np.add.at(result.seconds, chunk.owner, (budget.elapsed - started) / len(chunk.owner))
        for query, cell in cells:
            self._settle(query, cell, helpers, result)
        self._close(result, chunk.owner, waiting, helpers)
        helpers.report(result)

    def _retreat(self, chunk: Chunk, stack: list[Chunk], waiting: np.ndarray, result: SearchResult) -> None:
        """Memory ran out over a batch: smaller batches, then cheaper bounds of a box, then no answer for its query."""
        forget(stack, 0)
        self._most = max(1, min(self._most, len(chunk.owner)) // 2)
        smaller = self._choice.smaller()
        if len(chunk.owner) > 1:
            stack += [chunk[: self._most], chunk[self._most :]]
        elif chunk.state is not None:
            stack.append(Chunk(chunk.box, chunk.owner, None))
        elif smaller is not None:
            self._choice = smaller
            stack.append(chunk)
        else:
            waiting[chunk.owner] -= 1
            result.give_up(int(chunk.owner[0]), Reason.MEMORY)

    def _pop(self, stack: list[Chunk], result: SearchResult, waiting: np.ndarray) -> Chunk | None:
        """One batch from the top of the stack, of boxes alike, without those of queries that are decided by now."""
        parts, size, limit, index = [], 0, 1, len(stack)
        while index > 0 and size < limit:
            index -= 1
            if parts and not stack[index].alike(parts[0]):
                continue
            top = stack.pop(index)
            alive = result.states[top.owner] == State.OPEN
            if not np.all(alive):
                np.subtract.at(waiting, top.owner[~alive], 1)
                if not np.any(alive):
                    continue
                top = top[alive]
            limit = limit if parts else self._limit(top.inherited)
            room = limit - size
            if len(top.owner) > room:
                stack.insert(index, top[:-room])
                top = top[-room:]
            parts.append(top)
            size += len(top.owner)
        return joined(parts) if parts else None

    def _limit(self, state: Inherited | None) -> int:
        """How many boxes make a batch."""
        if state is None:
            return min(self._choice.boxes, self._most)
        units = state.system.units
        size = 8 * (units + 1) * (units + state.system.inputs)
        fitting = max(1, self._options.memory_bytes // (4 * PIECES * size))
        return int(min(max(self._options.cache_bytes // size, 8), fitting, self._most))

    def _settle(self, query: int, box: Box, helpers: Helpers, result: SearchResult) -> None:
        """A box too small for floats: exact arithmetic closes it or finds a point, or the query is given up."""
        if result.states[query] != State.OPEN:
            return
        state = helpers.exact(query, box)
        if state is State.VIOLATED:
            result.states[query] = state
        elif state is State.OPEN:
            result.give_up(query, Reason.NUMERICS)

    def _close(self, result: SearchResult, owner: np.ndarray, waiting: np.ndarray, helpers: Helpers) -> None:
        """Settle the queries of a batch that are proven, or have used up the patience with them or their limits."""
        for query, fresh in zip(*(part.tolist() for part in np.unique(owner, return_counts=True)), strict=True):
            if result.states[query] != State.OPEN:
                continue
            if waiting[query] == 0:
                result.states[query] = State.PROVEN
                continue
            if result.boxes[query] - fresh < self._options.patience <= result.boxes[query]:
                result.states[query] = helpers.exact(query, None)
            if result.boxes[query] >= self._options.branches_per_query:
                result.give_up(query, Reason.BRANCH_LIMIT)
            elif result.seconds[query] >= self._options.seconds_per_query:
                result.give_up(query, Reason.TIMEOUT)

    def _step(self, chunk: Chunk, helpers: Helpers, result: SearchResult) -> tuple[list[Chunk], list]:
        """Bound one batch; the children of what stays open, and (query, box) of boxes too small to split."""
        root, chunk = chunk.state is None, self._implied.left(chunk)
        if not len(chunk.owner):
            return [], []
        form, lower, state = self._choice.relaxer.bound(chunk.box.to(self._arrays), chunk.state)
        lower = to_numpy(lower)
        still = self._open(lower)
        left = np.nonzero(np.any(still, axis=1))[0]
        if left.size == 0:
            return [], []
        form = LinearForm(*(to_numpy(part)[left] for part in (form.coefficients, form.constant, form.error)))
        box, owner, lower, still = chunk.box[left], chunk.owner[left], lower[left], still[left]
        if lower.shape[1] > self._unsafe.rows:
            still &= ~excluded(box, form, self._unsafe.owners, still)
            self._leaves(Chunk(box, owner, state[left]), form, still, helpers, result)
        self._try_points(box, owner, form, lower, helpers, result)
        # a box that contraction cut is bounded once more: over a tiny one the bounds are as good as the values
        smallest = self._options.smallest_width * (1.0 + np.max(np.abs(box.upper), axis=1))
        width = box.upper - box.lower
        exact = np.max(width, axis=1) <= smallest
        # not `lower`, which may hold at unsafe points alone: from there the form may fall
        box, closed = contract(box, form, box.minimum(form), still, self._unsafe)
        cut = np.any((box.upper - box.lower < 0.5 * width) & (width > smallest[:, None]), axis=1)
        blurred = np.nonzero(~exact & ~closed & ~cut & self._within_rounding(form, lower, still))[0]
        if blurred.size:
            units = self._choice.relaxer.unstable(box[blurred], None if state is None else state[left[blurred]])
            exact[blurred] = units <= (0 if self._implied.limited(state) else self._options.exact_units)
        cells = [(int(owner[k]), box[k : k + 1]) for k in np.nonzero(exact & ~closed)[0].tolist()]
        keep = np.nonzero(~closed & ~exact & (result.states[owner] == State.OPEN))[0]
        if keep.size == 0:
            return [], cells
        form = LinearForm(form.coefficients[keep], form.constant[keep], form.error[keep])
        rows = still[keep][:, self._unsafe.owners].astype(np.float64)
        part = Chunk(box[keep], owner[keep], state, left[keep])
        part = self._with_cuts(part, form, still[keep])
        part, again = self._implied.narrowed(part, root, cut[keep])
        return self._children(part, form, lower[keep], rows, again), cells

    def _with_cuts(self, chunk: Chunk, form: LinearForm, still: np.ndarray) -> Chunk:
        """The boxes with what their rows say about their unsafe points, where that helps to bound their children."""
        if chunk.inherited is None or not self._clips or form.constant.shape[1] > self._unsafe.rows:
            return chunk
        return Chunk(chunk.box, chunk.owner, replace(chunk.state, cuts=Cuts(form, self._unsafe.owners, still)))

    def _leaves(self, chunk: Chunk, form: LinearForm, still: np.ndarray, helpers: Helpers, result) -> None:
        """Close polytopes of boxes without unstable units, in place in `still`, or confirm the points they leave."""
        units = self._choice.relaxer.unstable(chunk.box, chunk.state)
        limits = np.ones(form.constant.shape[1] - self._unsafe.rows, dtype=bool)
        for k, index in np.argwhere(still & (units == 0)[:, None]).tolist():
            query, mine = int(chunk.owner[k]), np.nonzero(np.concatenate([self._unsafe.owners == index, limits]))[0]
            if result.states[query] != State.OPEN:
                continue
            parts = (form.coefficients, form.constant, form.error)
            rows = LinearForm(*(part[k : k + 1, mine] for part in parts))
            weights, point = solve_leaf(chunk.box[k : k + 1], rows)
            if combined(chunk.box[k : k + 1], rows, weights[None])[0] > 0.0:
                still[k, index] = False
            elif helpers.confirm(query, point):
                result.states[query] = State.VIOLATED

    def _children(self, chunk: Chunk, form: LinearForm, lower: np.ndarray, rows: np.ndarray, again) -> list[Chunk]:
        """Children that cover the boxes: by phases of units where that promises more than by halves of the box.

        again (batch,): boxes that are their own only child.
        """
        favour = self._implied.pressure(chunk)
        units = self._phases(chunk, rows, favour)
        by_phase, by_input = np.nonzero((units >= 0) & ~again)[0], np.nonzero((units < 0) & ~again)[0]
        parts = []
        if np.any(again):
            same = chunk[np.nonzero(again)[0]]
            parts.append(Chunk(same.box, same.owner, self._choice.relaxer.descend(same.state)))
        if by_phase.size:
            twice = np.concatenate([by_phase, by_phase])
            split = split_phases(chunk.state[by_phase], units[by_phase])
            parts.append(Chunk(chunk.box[twice], chunk.owner[twice], self._choice.relaxer.descend(split)))
        for part in self._alike(chunk, by_input):
            own = rows.shape[1]
            forms = LinearForm(*(values[part, :own] for values in (form.coefficients, form.constant, form.error)))
            some = chunk[part]
            influence = None if some.state is None else sensitivity(some.state, rows[part])
            favoured = None if favour is None else favour[part]
            children, parents = branch(some.box, forms, lower[part, :own], rows[part], influence, favoured)
            parts.append(Chunk(children, some.owner[parents], self._choice.relaxer.descend(some.state), parents))
        return parts

    def _alike(self, chunk: Chunk, which: np.ndarray) -> list[np.ndarray]:
        """Boxes of a chunk in groups with about as many unstable units."""
        if chunk.inherited is None or not which.size:
            return [which] if which.size else []
        kinds = scale(chunk.unstable[which])
        return [which[kinds == kind] for kind in np.unique(kinds)[::-1]]

    def _phases(self, chunk: Chunk, rows: np.ndarray, favour: np.ndarray | None) -> np.ndarray:
        """The unit of every box whose phase is to be split, counted through all blocks; -1: split the box instead."""
        none = np.full(len(chunk.owner), -1)
        if chunk.inherited is None:
            return none
        few = (chunk.unstable > 0) & (chunk.unstable <= self._options.phase_units)
        if chunk.box.inputs > self._options.phase_inputs:
            few[:] = True
        return np.where(few, gains(chunk.state, rows, favour)[0], -1) if np.any(few) else none

    def _open(self, lower: np.ndarray) -> np.ndarray:
        """Polytopes that the minima of all rows leave open, (batch, polytopes); limits are beyond the unsafe rows."""
        own = self._unsafe.rows
        return self._unsafe.open_polytopes(lower[:, :own]) & ~np.any(lower[:, own:] > 0.0, axis=1)[:, None]

    def _within_rounding(self, form: LinearForm, lower: np.ndarray, still: np.ndarray) -> np.ndarray:
        """Boxes that would be safe but for twice the rounding error, where exact arithmetic can help, (batch,) bool."""
        if not (self._graph.exact or self._graph.rational):
            return np.zeros(len(lower), dtype=bool)
        return ~np.any(self._open(lower + 2.0 * form.error) & still, axis=1)

    def _try_points(self, box: Box, owner: np.ndarray, form: LinearForm, lower: np.ndarray, helpers, result) -> None:
        """Look for violations at centers and at the corners that the worst row points to, where limits are known those
        of all rows together; one replay per query."""
        own, every = self._unsafe.rows, np.arange(len(box))
        points = [box.center, box.minimiser(form)[every, np.argmin(lower[:, :own], axis=1)]]
        if lower.shape[1] > own:
            slope = np.sum(form.flat()[:, :own], axis=1)
            points.append(np.where(slope > 0.0, box.lower, box.upper))
        points = np.concatenate(points)
        excess = self._unsafe.excess(to_numpy(self._graph.evaluate(self._arrays.asarray(points))))
        tried = set()
        for index in np.argsort(excess).tolist():
            query = int(owner[index % len(owner)])
            if excess[index] > 0.0:
                return
            if query not in tried and result.states[query] == State.OPEN:
                tried.add(query)
                if helpers.confirm(query, points[index]):
                    result.states[query] = State.VIOLATED
