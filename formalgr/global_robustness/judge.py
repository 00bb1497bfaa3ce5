"""Boxes of latents that are classified right everywhere, or wrong everywhere.

In: Graph, wrong labels, boxes. Out: Judged. Trust: sound: right where linear bounds exclude every wrong label, wrong
where they (or exact values at the corners) exclude the right one; wrong points are evaluated with outward rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from formalgr.bounds.base import Rows
from formalgr.core.arrays import NUMPY, RATIONAL
from formalgr.core.box import Box
from formalgr.core.exact import fraction
from formalgr.core.linear import LinearForm
from formalgr.graph.graph import Graph
from formalgr.graph.rewrite import join_clips
from formalgr.search.bab import BranchOptions
from formalgr.search.choose import choose
from formalgr.search.combine import excluded
from formalgr.search.relax import State
from formalgr.spec.unsafe import UnsafeSet

MOST_CORNERS = 4
"""Latents up to which all corners of a box are looked at."""


@dataclass(frozen=True)
class Judged:
    """Of every box whether it is right or wrong everywhere, a wrong point where one is known (else NaN), (batch, p).

    form and lower: of the rows of the wrong labels, as search/branch.py takes them; state: what children inherit from.
    """

    right: np.ndarray
    wrong: np.ndarray
    points: np.ndarray
    form: LinearForm
    lower: np.ndarray
    state: State | None


def _some(form: LinearForm, boxes, rows: slice = slice(None)) -> LinearForm:
    return LinearForm(*(part[boxes][:, rows] for part in (form.coefficients, form.constant, form.error)))


class BoxJudge:
    """Judges batches of boxes; raises ValueError unless each wrong label is one closed half-space of the outputs."""

    def __init__(self, graph: Graph, unsafe: UnsafeSet, options: BranchOptions):
        if any(polytope.rows != 1 or any(polytope.strict) for polytope in unsafe.polytopes):
            raise ValueError("boxes are judged by wrong labels: one closed half-space each")
        self.graph, self._unsafe = join_clips(graph).to(NUMPY), unsafe
        both = np.concatenate([unsafe.matrix, -unsafe.matrix]), np.concatenate([unsafe.bounds, -unsafe.bounds])
        self.choice = choose(self.graph, Rows(*both), options.memory_bytes, options.batch)

    def judge(self, box: Box, points: np.ndarray, state: State | None) -> Judged:
        """The boxes with what they inherited; raises MemoryError or NumericalError where that fails for some box."""
        form, lower, state = self.choice.relaxer.bound(box, state)
        own = self._unsafe.rows
        right = np.all(lower[:, :own] > 0.0, axis=1)
        wrong = np.any(lower[:, own:] >= 0.0, axis=1)
        points = self._wrong_points(box, points, ~right & ~wrong)
        some = np.nonzero(~right & ~wrong & ~np.isnan(points[:, 0]))[0]
        if some.size:
            # where each of several wrong labels wins somewhere, no single row excludes the right one
            rows, one = _some(form, some, slice(own, None)), np.ones((some.size, 1), dtype=bool)
            wrong[some] = excluded(box[some], rows, np.zeros(own, dtype=np.int64), one)[:, 0]
        left = np.nonzero(~right & ~wrong)[0]
        if left.size and state is not None:
            rows, inherited = _some(form, left, slice(own, None)), state[left]
            wrong[left] = self._ties(box[left], rows, lambda: self.choice.relaxer.unstable(box[left], inherited))
        wrong[wrong] = self._defined(box[wrong])
        return Judged(right, wrong, points, _some(form, slice(None), slice(own)), lower[:, :own], state)

    def _wrong_points(self, box: Box, points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The points that are known, and the centers of other wanted boxes where those are surely wrong."""
        points, center = points.copy(), box.center
        places = np.nonzero(wanted & np.isnan(points[:, 0]))[0]
        if places.size:
            places = places[self._unsafe.excess(self.graph.evaluate(center[places])) <= 0.0]
        if places.size:
            here = Box(center[places], center[places])
            outputs = self.graph.intervals(here.interval(self.graph.input_shape))[-1]
            sure = self._unsafe.surely_contains(outputs.reshape((self.graph.outputs,))) & self._defined(here)
            points[places[sure]] = center[places[sure]]
        return points

    def _ties(self, box: Box, rows: LinearForm, unstable: Callable[[], np.ndarray]) -> np.ndarray:
        """Boxes on which the right class at best ties with another one, (batch,) bool.

        The bounds of a row that is 0 everywhere are nothing but rounding. Where no unit is unstable the outputs are
        affine: what holds at the corners, in rationals, holds between them.
        """
        varies = np.sum(np.abs(rows.flat()) * (box.upper - box.lower)[:, None, :], axis=2)
        suspects = np.any((np.abs(rows.constant) + varies <= rows.error), axis=1)
        result = np.zeros(len(box), dtype=bool)
        if not np.any(suspects) or not self.graph.rational or box.inputs > MOST_CORNERS:
            return result
        for k in np.nonzero(suspects & (unstable() == 0))[0].tolist():
            ends = np.stack([box.lower[k], box.upper[k]])
            corners = np.array([ends[list(choice), range(box.inputs)] for choice in product((0, 1), repeat=box.inputs)])
            exact = [tuple(map(fraction, row)) for row in self._rational.evaluate(RATIONAL.asarray(corners))]
            result[k] = any(all(map(polytope.contains, exact)) for polytope in self._unsafe.polytopes)
        return result

    @cached_property
    def _rational(self) -> Graph:
        return self.graph.to(RATIONAL)

    def _defined(self, box: Box) -> np.ndarray:
        """Boxes on all of which the network surely has a value, (batch,) bool."""
        if self.graph.total or not len(box):
            return np.ones(len(box), dtype=bool)
        pieces = [box[k : k + 1].interval(self.graph.input_shape) for k in range(len(box))]
        return np.array([self.graph.defined(self.graph.intervals(piece)) for piece in pieces], dtype=bool)
