"""The search over pairs: boxes of (x, d) are halved, and small ones finished by a tree of phases, until bounds suffice.

In: Graph, domain, delta, Aim. Out: an upper bound of the aim that only falls, pairs worth trying. Trust: sound (parts
that cover all pairs are dropped only by their bounds); what is done next is heuristic.

Boxes are halved until few units are left unstable, or, with very few inputs, until they are as small as a pair may be
apart; the rest is left to trees of phases. With many inputs one tree for every row takes the whole domain.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.search.aims import Aim
from formalgr.search.choose import FEW_INPUTS
from formalgr.search.pair_tree import PhaseTree
from formalgr.search.paired import FoldedPairs, PairBounds, PairBox, pair_relaxer
from formalgr.search.reduce import reduce
from formalgr.search.relax import State, join_states

FEWEST_INPUTS = 4
"""Up to so many inputs halving is faster than linear programs until boxes are as small as the distance of a pair; from
there on the hull of both points, and what is unstable over it, hardly shrinks."""

FEW_UNITS = 8
"""With no more unstable units a tree of phases is small whatever the box."""

TREE_UNITS, TREE_NODES = 30, 200
"""A box is left to a tree of phases from so few unstable units on, for so many nodes; then it is halved after all."""

MOST_UNITS = 400
"""More unstable units make no program: its rows are dense."""

NODES_AT_ONCE = 16
"""Nodes of one tree before another one may be the largest."""

BATCH = 256
"""Boxes that are bounded at once."""


@dataclass(frozen=True)
class _Part:
    """Boxes of pairs with bounds of the aim (batch,), and what they inherit."""

    pairs: PairBox
    bounds: np.ndarray
    state: State | None

    def __getitem__(self, index) -> "_Part":
        return _Part(self.pairs[index], self.bounds[index], None if self.state is None else self.state[index])


class PairSearch:
    """What is left of all pairs; `upper` bounds the aim over all of them at any time.

    Bounds up to `enough` are good enough: the caller sets it, and may raise it.
    """

    def __init__(self, graph: Graph, domain: Box, delta: float, aim: Aim, memory_bytes: int):
        self._graph, self._aim, self.bounded, self.solved = graph, aim, 0, 0
        self._relaxer, self._batch = pair_relaxer(graph, aim.matrix, memory_bytes, BATCH)
        reach = np.minimum(np.nextafter(domain.upper - domain.lower, np.inf), delta)
        pairs = PairBox(domain, Box(-reach, reach), domain).tightened()
        self._closed, self._made, self._held, self._room = -np.inf, 0, 0, memory_bytes // 2
        self._parts: list[tuple[float, int, _Part]] = []
        self._trees: list[tuple[float, int, PhaseTree]] = []
        self._push(_Part(pairs, np.full(1, np.inf), None))

    @property
    def upper(self) -> float:
        """No pair has a larger aim; inf before the first step."""
        return max(self._closed, *(-heap[0][0] for heap in (self._parts, self._trees) if heap), -np.inf)

    @property
    def open(self) -> bool:
        """Whether a part is left."""
        return bool(self._parts or self._trees)

    def step(self, enough: float, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
        """Work on what has the largest bound; pairs (x, d) worth trying, (number, inputs) each."""
        if self._trees and (not self._parts or self._trees[0][0] <= self._parts[0][0]):
            return self._grow(enough, budget)
        part = self._pop(enough)
        if part is None:
            return _none(self._graph.inputs)
        bounds, state = self._relaxer.bound(part.pairs, part.state)
        self.bounded += len(part.bounds)
        worst = np.minimum(self._aim.worst(bounds), part.bounds[:, None])
        found = _corners(part.pairs, bounds, worst)
        values = np.max(worst, axis=1)
        part = _Part(part.pairs, values, state)
        if state is not None and isinstance(self._relaxer, FoldedPairs):
            found += self._plant(part, worst, bounds, enough, budget)
        open_ = self._close(part.bounds, enough)
        if open_.size:
            self._halve(part[open_], bounds.scores[open_])
        return tuple(np.concatenate(both) for both in zip(*found, strict=True))

    def _push(self, part: _Part) -> None:
        """One more part; where memory is full it inherits nothing."""
        size = 0 if part.state is None else part.state.nbytes
        if self._held + size > self._room:
            part, size = _Part(part.pairs, part.bounds, None), 0
        self._held += size
        self._made += 1
        heapq.heappush(self._parts, (-float(np.max(part.bounds)), self._made, part))

    def _close(self, bounds: np.ndarray, enough: float) -> np.ndarray:
        """Settle the bounds that suffice; the indices of the others."""
        done = bounds <= enough
        self._closed = max(self._closed, float(np.max(bounds[done], initial=-np.inf)))
        return np.nonzero(~done)[0]

    def _pop(self, enough: float) -> _Part | None:
        """One batch of the parts with the largest bounds."""
        taken, size = [], 0
        while self._parts and size < self._batch:
            part = heapq.heappop(self._parts)[2]
            self._held -= 0 if part.state is None else part.state.nbytes
            left = self._close(part.bounds, enough)
            if not left.size or (taken and (part.state is None) != (taken[0].state is None)):
                if left.size:
                    self._push(part[left])
                    break
                continue
            left = left[np.argsort(-part.bounds[left], kind="stable")]
            room = self._batch - size
            if len(left) > room:
                self._push(part[left[room:]])
            taken.append(part[left[:room]])
            size += len(taken[-1].bounds)
        return _joined(taken) if taken else None

    def _halve(self, part: _Part, scores: np.ndarray) -> None:
        children = part.pairs.halved(np.argmax(scores, axis=1))
        parents = np.tile(np.arange(len(part.bounds)), 2)
        possible = np.nonzero(children.possible)[0]
        if possible.size:
            parents = parents[possible]
            state = None if part.state is None else part.state[parents]
            self._push(_Part(children[possible].tightened(), part.bounds[parents], state))

    def _plant(self, part: _Part, worst: np.ndarray, bounds: PairBounds, enough: float, budget: Budget) -> list:
        """Trees for the boxes that are ready for them: their bounds in `part` fall, in place; pairs worth trying."""
        inputs, found = self._graph.inputs, []
        many = inputs > FEW_INPUTS
        ready = bounds.units <= (MOST_UNITS if many else TREE_UNITS)
        if inputs <= FEWEST_INPUTS:
            ready &= _far_apart(part.pairs) | (bounds.units <= FEW_UNITS)
        for k in np.nonzero(ready & (part.bounds > enough))[0].tolist():
            rows, one = np.nonzero(worst[k] > enough)[0].tolist(), part.state[k : k + 1]
            one = State(*reduce(one.system, one.bounds), one.noisy)  # without the padding of its batch
            done = float(np.max(worst[k][worst[k] <= enough], initial=-np.inf))
            for row in rows:
                tree = PhaseTree(part.pairs[k : k + 1], one, self._aim, row, float(worst[k, row]))
                if many:
                    self._keep(tree)
                    continue
                found += self._run(tree, enough, TREE_NODES, budget)
                done = max(done, tree.upper)
                if done > enough:
                    break
            self._closed = max(self._closed, done) if many else self._closed
            part.bounds[k] = -np.inf if many else done if done <= enough else part.bounds[k]
        return found

    def _run(self, tree: PhaseTree, enough: float, nodes: int, budget: Budget) -> list:
        found = tree.run(enough, nodes, budget)
        self.solved += len(found)
        return [(first[None], moves[None]) for first, moves in found]

    def _keep(self, tree: PhaseTree) -> None:
        self._made += 1
        heapq.heappush(self._trees, (-tree.upper, self._made, tree))

    def _grow(self, enough: float, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
        """A few nodes of the tree with the largest bound."""
        tree = heapq.heappop(self._trees)[2]
        found = self._run(tree, enough, NODES_AT_ONCE, budget)
        if tree.open(enough):
            self._keep(tree)
        else:
            self._closed = max(self._closed, tree.upper)
        return tuple(np.concatenate(both) for both in zip(*found, strict=True)) if found else _none(self._graph.inputs)


def _none(inputs: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, inputs), dtype=np.float64), np.zeros((0, inputs), dtype=np.float64)


def _joined(parts: list[_Part]) -> _Part:
    """One part of several."""
    if len(parts) == 1:
        return parts[0]
    boxes = (
        Box(*(np.concatenate([getattr(getattr(p.pairs, name), end) for p in parts]) for end in ("lower", "upper")))
        for name in ("first", "moves")
    )
    pairs = PairBox(*boxes, parts[0].pairs.domain)
    return _Part(pairs, np.concatenate([p.bounds for p in parts]), join_states([p.state for p in parts]))


def _far_apart(pairs: PairBox) -> np.ndarray:
    """Boxes of x that are no wider than a pair may be apart, (batch,) bool."""
    most = np.maximum(np.abs(pairs.moves.lower), np.abs(pairs.moves.upper))
    return np.all(pairs.first.upper - pairs.first.lower <= most, axis=1)


def _corners(pairs: PairBox, bounds: PairBounds, worst: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The center of each box with the d that its worst row points to."""
    return [(pairs.first.center, bounds.best[np.arange(len(worst)), np.argmax(worst, axis=1)])]
