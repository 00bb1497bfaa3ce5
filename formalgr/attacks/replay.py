"""Replay: the ONLY maker of a Counterexample. A point becomes one when its output is unsafe beyond any rounding.

In: Network, Query, candidate points. Out: Counterexample or None. Trust: sound.

Order: the point is pulled into the closed rational box exactly; its output is bounded by
outward-rounded interval evaluation; where that does not decide and the network is rational, exact evaluation does.
A point where an operator has no value (the root of a negative number, a quotient by 0) is no counterexample.
onnxruntime on the original files is asked too and its answer stored. Judged, a point must stand before onnxruntime as
well, as before the judge of a competition.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import RATIONAL, to_numpy
from formalgr.core.box import Box, RationalBox, inward_float32, outward
from formalgr.core.errors import NumericalError
from formalgr.core.exact import fraction
from formalgr.core.verdict import Counterexample, Guarantee
from formalgr.graph.graph import Graph
from formalgr.graph.network import Network
from formalgr.graph.wiring import Wiring
from formalgr.spec.query import Query

PULLS = (0.0, 2.0**-20, 2.0**-16, 2.0**-12, 2.0**-8, 2.0**-4)
"""How far towards the center of the box a point is pulled, step by step, until rounding its inputs keeps it inside."""


def in_inputs(found: Counterexample, wiring: Wiring, outputs: int) -> Counterexample:
    """The same counterexample told in the inputs and `outputs` outputs of the networks that a wiring joins."""
    point = wiring.inputs_at(found.point)
    answer = found.float32_outputs
    return replace(
        found,
        point=point,
        inputs=np.array([float(x) for x in point], dtype=np.float64),
        outputs=found.outputs[:outputs],
        float32_outputs=None if answer is None else answer[:outputs],
    )


class Replayer:
    """Replays points on one network; keeps its rational copy once made.

    `judged`: a point is moved to the nearest float32 point of the box first (where float32 holds none of the numbers
    between two bounds, that coordinate stays as it is and is rounded to the nearest), and counts only when onnxruntime
    finds it unsafe there with its optimisations and without; `refused` counts the points that failed by that alone.
    """

    def __init__(self, network: Network, judged: bool = False):
        self._network = network
        self._judged = judged
        self._rational: Graph | None = None
        self._inside: tuple[Query, Box] | None = None
        self._oracles = () if network.oracle is None else (network.oracle,)
        if judged and network.oracle is not None:
            self._oracles += (network.oracle.plain(),)
        self.refused = 0

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
        exact = query.box.project(self._moved(query, point) if self._judged else point)
        proven = self._prove(query, exact)
        if proven is None:
            return None
        guarantee, outputs = proven
        inputs = np.array([float(x) for x in exact], dtype=np.float64)
        confirmed, rounded, answer = self._ask_runtime(query, exact)
        if self._judged and not confirmed:
            self.refused += 1
            return None
        return Counterexample(exact, inputs, outputs, guarantee, confirmed, rounded, answer)

    def held(self, query: Query, point: Sequence[float | Fraction]) -> tuple[Fraction, ...] | None:
        """A point of the box near the given one at which the files get float32 numbers; None where none is found."""
        inside = inward_float32([query.box])
        values = np.clip(np.array([float(x) for x in point], dtype=np.float64), inside.lower[0], inside.upper[0])
        for pull in PULLS if self._network.wiring is not None else PULLS[:1]:
            pulled = values + pull * (inside.center[0] - values)
            near = self._network.nearest(query.box.project(pulled.tolist()))
            if query.box.contains(near):
                return near
        return None

    def _moved(self, query: Query, point: Sequence[float | Fraction]) -> Sequence[float | Fraction]:
        """The float32 point of the box nearest to the given one, where the box has one in every coordinate."""
        if self._network.wiring is not None:
            return self.held(query, point) or point
        values = np.array([float(x) for x in point], dtype=np.float64)
        if self._network.element != "float32":
            return values.tolist()
        if self._inside is None or self._inside[0] is not query:
            self._inside = query, inward_float32([query.box])
        inside = self._inside[1]
        with np.errstate(over="ignore"):  # beyond float32 lies infinity, which is clipped again
            nearest = np.clip(values, inside.lower[0], inside.upper[0]).astype(np.float32).astype(np.float64)
        return np.clip(nearest, inside.lower[0], inside.upper[0]).tolist()

    def _prove(self, query: Query, exact: tuple[Fraction, ...]) -> tuple[Guarantee, np.ndarray] | None:
        graph = self._network.graph
        box = outward([RationalBox(exact, exact)])
        try:
            boxes = graph.intervals(box.interval(graph.input_shape))
        except NumericalError:
            boxes = None
        if boxes is not None and graph.defined(boxes):
            bounds = boxes[-1].reshape((graph.outputs,))
            if query.unsafe.surely_contains(bounds)[0]:
                return Guarantee.FLOAT_SOUND, (0.5 * bounds.lower + 0.5 * bounds.upper)[0]
        if not graph.rational:
            return None
        try:
            outputs = self.rational.evaluate(RATIONAL.asarray(np.array([exact], dtype=object)))
        except ZeroDivisionError:
            return None
        if query.unsafe.contains(tuple(fraction(y) for y in outputs[0])):
            return Guarantee.EXACT, to_numpy(outputs)[0]
        return None

    def _ask_runtime(self, query: Query, exact: tuple[Fraction, ...]):
        """What onnxruntime says at the nearest point of the file's type: (unsafe, point was rounded, outputs)."""
        if not self._oracles:
            return None, False, None
        nearest = self._network.nearest(exact)
        given = np.array([[float(x) for x in nearest]], dtype=np.float64)
        answers = [np.asarray(oracle.run(given), dtype=np.float64)[0] for oracle in self._oracles]
        return all(_unsafe(query, outputs) for outputs in answers), nearest != exact, answers[0]


def _unsafe(query: Query, outputs: np.ndarray) -> bool:
    """Whether the outputs, read as exact numbers, are unsafe; NaN and infinity are not."""
    finite = bool(np.all(np.isfinite(outputs)))
    return finite and query.unsafe.contains(tuple(Fraction(float(y)) for y in outputs))
