"""Replay: the ONLY maker of a Counterexample. A point becomes one when its output is unsafe beyond any rounding.

In: Network, Query, candidate points. Out: Counterexample or None. Trust: sound.

Order: the point is pulled into the closed rational box exactly; its output is bounded by
outward-rounded interval evaluation; where that does not decide and the network is rational, exact evaluation does.
onnxruntime on the original files is asked too and its answer stored.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import RATIONAL, to_numpy
from formalgr.core.box import RationalBox, outward
from formalgr.core.exact import fraction
from formalgr.core.verdict import Counterexample, Guarantee
from formalgr.graph.graph import Graph
from formalgr.graph.network import Network
from formalgr.spec.query import Query


class Replayer:
    """Replays points on one network; keeps its rational copy once made."""

    def __init__(self, network: Network):
        self._network = network
        self._rational: Graph | None = None

    @property
    def rational(self) -> Graph:
        """The network's graph with its weights as exact rationals (irrational ones: their nearest float64)."""
        if self._rational is None:
            self._rational = self._network.graph.to(RATIONAL)
        return self._rational

    def replay(self, query: Query, point: Sequence[float | Fraction]) -> Counterexample | None:
        """A Counterexample when the exact point of the closed box nearest to `point` is rigorously unsafe."""
        if query.box.empty:
            return None
        exact = query.box.project(point)
        proven = self._prove(query, exact)
        if proven is None:
            return None
        guarantee, outputs = proven
        inputs = np.array([float(x) for x in exact], dtype=np.float64)
        confirmed, rounded, answer = self._ask_runtime(query, exact, inputs)
        return Counterexample(exact, inputs, outputs, guarantee, confirmed, rounded, answer)

    def _prove(self, query: Query, exact: tuple[Fraction, ...]) -> tuple[Guarantee, np.ndarray] | None:
        graph = self._network.graph
        box = outward([RationalBox(exact, exact)])
        bounds = graph.intervals(box.interval(graph.input_shape))[-1].reshape((graph.outputs,))
        if query.unsafe.surely_contains(bounds)[0]:
            return Guarantee.FLOAT_SOUND, (0.5 * bounds.lower + 0.5 * bounds.upper)[0]
        if not graph.rational:
            return None
        outputs = self.rational.evaluate(RATIONAL.asarray(np.array([exact], dtype=object)))
        if query.unsafe.contains(tuple(fraction(y) for y in outputs[0])):
            return Guarantee.EXACT, to_numpy(outputs)[0]
        return None

    def _ask_runtime(self, query: Query, exact: tuple[Fraction, ...], inputs: np.ndarray):
        """What onnxruntime says at the nearest float32 point: (unsafe, point was rounded, outputs)."""
        if self._network.oracle is None:
            return None, False, None
        nearest = inputs.astype(np.float32)
        rounded = any(Fraction(float(a)) != b for a, b in zip(nearest, exact, strict=True))
        outputs = np.asarray(self._network.oracle.run(nearest[None, :]), dtype=np.float64)[0]
        if not np.all(np.isfinite(outputs)):
            return False, rounded, outputs
        return query.unsafe.contains(tuple(Fraction(float(y)) for y in outputs)), rounded, outputs
