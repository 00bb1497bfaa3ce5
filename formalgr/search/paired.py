"""Pairs of points of a box as a batch: how much rows of the outputs can grow from x to x + d, and what to halve.

In: Graph, rows, boxes of x, x + d and d, the state inherited from the parents. Out: PairBounds, the boxes' own state.
Trust: sound; what to halve is heuristic.

A network that folds is folded over the hull of both points and reduced with every split (search/relax.py); any other
one is bounded by CROWN afresh. A difference is bounded twice: by the moves of the units, which see d as one variable
(bounds/paired.py, bounds/difference.py), and by the forms of both copies, whose coefficients cancel where units are
stable. The smaller bound counts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from formalgr.bounds.base import Bounder, Rows
from formalgr.bounds.crown import lower_forms
from formalgr.bounds.difference import growth_forms
from formalgr.bounds.folded import WIDE, unit_bounds
from formalgr.bounds.paired import Moves, moves_of
from formalgr.core.box import Box
from formalgr.core.folded import FoldedSystem
from formalgr.core.linear import Interval, LinearForm
from formalgr.core.rounding import SLACK, gamma, underflow
from formalgr.graph.graph import Graph
from formalgr.search.choose import choose
from formalgr.search.fold import Folded, FoldLimits, fold
from formalgr.search.reduce import reduce
from formalgr.search.relax import FoldedRelaxer, State


@dataclass(frozen=True)
class PairBox:
    """Boxes of x and of d, both (batch, inputs); pairs are (x, x + d) with x + d in the domain (batch 1)."""

    first: Box
    moves: Box
    domain: Box

    def __len__(self):
        return len(self.first)

    def __getitem__(self, index) -> "PairBox":
        return PairBox(self.first[index], self.moves[index], self.domain)

    @property
    def possible(self) -> np.ndarray:
        """Boxes in which a pair may lie, (batch,) bool."""
        low, high = self.first.lower + self.moves.lower, self.first.upper + self.moves.upper
        outside = (np.nextafter(low, -np.inf) > self.domain.upper) | (np.nextafter(high, np.inf) < self.domain.lower)
        return ~np.any(outside, axis=1)

    @property
    def second(self) -> Box:
        """Where x + d may lie; every box must be possible."""
        low = np.nextafter(self.first.lower + self.moves.lower, -np.inf)
        high = np.nextafter(self.first.upper + self.moves.upper, np.inf)
        low = np.minimum(np.maximum(low, self.domain.lower), self.domain.upper)
        return Box(low, np.maximum(low, np.minimum(high, self.domain.upper)))

    def tightened(self) -> "PairBox":
        """The same pairs with d no larger than what leads from the box of x to that of x + d."""
        second = self.second
        low = np.maximum(self.moves.lower, np.nextafter(second.lower - self.first.upper, -np.inf))
        high = np.minimum(self.moves.upper, np.nextafter(second.upper - self.first.lower, np.inf))
        return PairBox(self.first, Box(low, np.maximum(low, high)), self.domain)

    @property
    def hull(self) -> Box:
        """Boxes that hold both points."""
        second = self.second
        return Box(np.minimum(self.first.lower, second.lower), np.maximum(self.first.upper, second.upper))

    @property
    def both(self) -> Box:
        """Boxes of (x, d), (batch, 2 inputs)."""
        lower = np.concatenate([self.first.lower, self.moves.lower], axis=1)
        return Box(lower, np.concatenate([self.first.upper, self.moves.upper], axis=1))

    def halved(self, axes: np.ndarray) -> "PairBox":
        """First halves, then second halves; axes (batch,) count through x and then d."""
        halves = self.both.split(axes)
        (first_low, low), (first_high, high) = (np.split(end, 2, axis=1) for end in (halves.lower, halves.upper))
        return PairBox(Box(first_low, first_high), Box(low, high), self.domain)


@dataclass(frozen=True)
class PairBounds:
    """Upper bounds of the growth of every row from x to x + d (batch, rows); boxes of the rows at x and at x + d.

    best (batch, rows, inputs): the d where each form is largest; scores (batch, 2 inputs): what halving each of x and d
    may gain; units (batch,): how many are unstable.
    """

    growth: np.ndarray
    first: Interval
    second: Interval
    best: np.ndarray
    scores: np.ndarray
    units: np.ndarray


class PairRelaxer(ABC):
    """Bounds for one network and rows of its outputs. Law: no pair of a box grows by more."""

    @abstractmethod
    def bound(self, pairs: PairBox, state: State | None) -> tuple[PairBounds, State | None]:
        """Bounds of the boxes, and their own state for their children (None: they are bounded anew)."""


def pair_relaxer(graph: Graph, matrix: np.ndarray, memory_bytes: int, boxes: int) -> tuple[PairRelaxer, int]:
    """The bounds that search/choose picks for matrix . outputs, (rows, outputs), and how many boxes go at once."""
    both = np.concatenate([-matrix, matrix])
    rows = Rows(both, np.zeros(len(both), dtype=np.float64))
    choice = choose(graph, rows, memory_bytes, boxes)
    if isinstance(choice.relaxer, FoldedRelaxer):
        return FoldedPairs(graph, rows, choice.relaxer.limits), choice.boxes
    return GraphPairs(graph, rows, choice.relaxer.bounder), choice.boxes


@dataclass(frozen=True)
class GraphPairs(PairRelaxer):
    """CROWN on the whole graph and on the graph of its differences."""

    graph: Graph
    rows: Rows
    bounder: Bounder

    def bound(self, pairs: PairBox, state: State | None) -> tuple[PairBounds, State | None]:
        number, hull = len(self.rows.bounds) // 2, pairs.hull
        nodes = self.bounder.node_bounds(self.graph, hull)
        form = lower_forms(self.graph, nodes, self.rows)
        lines = growth_forms(self.graph, nodes, pairs.moves, Rows(self.rows.matrix[:number], self.rows.bounds[:number]))
        both, none = pairs.both, np.zeros(len(pairs), dtype=np.int64)
        found = _bounds(pairs, form, lines, both.upper - both.lower, none)
        # the hull does not shrink below the distance of a pair: the boxes of both points do
        ends = [self._interval(box, number) for box in (pairs.first, pairs.second)]
        first, second = (a.intersect(b) for a, b in zip((found.first, found.second), ends, strict=True))
        growth = np.minimum(found.growth, np.nextafter(second.upper - first.lower, np.inf))
        return replace(found, growth=growth, first=first, second=second), None

    def _interval(self, box: Box, number: int) -> Interval:
        """Bounds of the rows over boxes of one point."""
        least = box.minimum(lower_forms(self.graph, self.bounder.node_bounds(self.graph, box), self.rows))
        return Interval(least[:, number:], -least[:, :number])


@dataclass(frozen=True)
class FoldedPairs(PairRelaxer):
    """A folded system for each box, reduced with every split."""

    graph: Graph
    rows: Rows
    limits: FoldLimits

    def bound(self, pairs: PairBox, state: State | None) -> tuple[PairBounds, State | None]:
        number, hull = len(self.rows.bounds) // 2, pairs.hull
        if state is None:
            found = fold(self.graph, hull, self.rows, WIDE, self.limits)
        else:
            found = Folded(state.system, *unit_bounds(state.system, hull, state.bounds, WIDE))
        system = found.system
        form, _ = found.backward.form(system.outputs, system.sizes[-1])
        moves = moves_of(system, found.bounds, pairs.moves)
        bounds = _bounds(pairs, form, _rows(moves.form, slice(0, number)), 0.0, _unstable(system, found.bounds))
        bounds = replace(bounds, scores=_scores(system, found.bounds, moves, bounds.growth, pairs))
        if found.loose:
            return bounds, None
        return bounds, State(*reduce(system, found.bounds), np.zeros(len(pairs), dtype=bool))


def _bounds(pairs: PairBox, form: LinearForm, lines: LinearForm, scores, units: np.ndarray) -> PairBounds:
    """From forms of -rows and rows over the hull, and of the growth of -rows over d."""
    number, moves = lines.constant.shape[1], pairs.moves
    here, there = pairs.first.minimum(form), pairs.second.minimum(form)
    first = Interval(here[:, number:], -here[:, :number])
    second = Interval(there[:, number:], -there[:, :number])
    growth = np.minimum(-moves.minimum(lines), -_apart(pairs, form, number))
    growth = np.minimum(growth, np.nextafter(second.upper - first.lower, np.inf))
    return PairBounds(growth, first, second, moves.minimiser(lines), scores, units)


def _rows(form: LinearForm, rows: slice) -> LinearForm:
    return LinearForm(form.flat()[:, rows], form.constant[:, rows], form.error[:, rows])


def _apart(pairs: PairBox, form: LinearForm, number: int) -> np.ndarray:
    """Lower bounds of row(x) - row(x + d): the forms of -row at x + d and of row at x as one form over (x, d)."""
    there, here = _rows(form, slice(0, number)), _rows(form, slice(number, 2 * number))
    total = there.coefficients + here.coefficients
    reach = np.maximum(np.abs(pairs.first.lower), np.abs(pairs.first.upper))
    size = np.matmul(np.abs(there.coefficients) + np.abs(here.coefficients), reach[:, :, None])[..., 0]
    size = size + np.abs(there.constant) + np.abs(here.constant)
    error = (there.error + here.error + gamma(4, WIDE) * size) * SLACK + underflow(2 * pairs.first.inputs + 8, WIDE)
    coefficients = np.concatenate([total, there.coefficients], axis=2)
    return pairs.both.minimum(LinearForm(coefficients, there.constant + here.constant, error))


def _unstable(system: FoldedSystem, bounds: list) -> np.ndarray:
    total = np.zeros(len(system.reach), dtype=np.int64)
    for block, ends in zip(system.blocks, bounds, strict=True):
        total += np.sum(block.unstable(ends), axis=1)
    return total


def _scores(system: FoldedSystem, bounds: list, moves: Moves, growth: np.ndarray, pairs: PairBox) -> np.ndarray:
    """How much halving each of x and d may gain for the worst row: what units lose between their lines, shared out.

    A unit whose row varies by a share s with an input loses about that share less over half of it: by x until it is
    stable, by d until its row moves one way.
    """
    worst, inputs = np.argmax(growth, axis=1), system.inputs
    first, second = (np.zeros((len(growth), inputs), dtype=np.float64) for _ in range(2))
    for k, (block, (lower, upper)) in enumerate(zip(system.blocks, bounds, strict=True)):
        (low, high), line = moves.rows[k], moves.lines[k]
        middle = 0.5 * low + 0.5 * high
        gap = (line.upper_slope - line.lower_slope) * middle + line.upper_offset - line.lower_offset
        weight = np.take_along_axis(np.abs(moves.pulled[k]), worst[:, None, None], axis=2)[..., 0] * gap
        weight = np.where(block.unstable((lower, upper)), weight, 0.0)
        slope = np.abs(block.weights[:, :, :inputs])
        by_x, by_d = (weight / np.where(wide > 0.0, wide, 1.0) for wide in (upper - lower, high - low))
        by_d = np.where((low < 0.0) & (high > 0.0), by_d, 0.0)
        first += np.matmul(by_x[:, None], slope)[:, 0]
        second += np.matmul(by_d[:, None], slope)[:, 0]
    width = pairs.both.upper - pairs.both.lower
    scores = np.concatenate([first, second], axis=1) * width
    floor = 1e-6 * np.max(scores, axis=1, keepdims=True) + 1e-200
    return scores + floor * width / np.max(width, axis=1, keepdims=True)
