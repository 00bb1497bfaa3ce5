"""The choice of bounds by cost: how linear forms of a network are found, and how many boxes fit into memory at once.

In: Graph, Rows, a memory limit. Out: Choice. Trust: heuristic (every way is sound; the choice costs time, never truth).

Costs are estimates from shapes. An evaluation takes E multiply-adds. Forward bounds take about inputs * E; backward
bounds of every unit take, summed over layers, twice the units of the layer times what lies below it. A folded system
takes forward bounds with one more column for every unstable unit (a window, in a convolutional network) and backward
bounds on the unstable units alone, so it is taken wherever a graph can be folded.
"""

import math
from dataclasses import dataclass, replace

from formalgr.bounds.base import Rows
from formalgr.bounds.crown import CrownBounder
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.operators.linear_map import LinearMap
from formalgr.search.fold import FoldLimits, foldable
from formalgr.search.relax import FoldedRelaxer, GraphRelaxer, Relaxer

BACKWARD_OPERATIONS = 1 << 32
"""Multiply-adds per box that backward bounds of every unit may take: about 0.2 s on a core."""

LAYER_OPERATIONS = 1 << 30
"""The same for one layer of a network where every unit would take more."""

SYSTEM_COPIES = 128
"""Bytes per U^2 of a folded system of U units: 4 hold it, the others make, reduce and bound it."""

FEW_INPUTS = 32
"""Boxes of more inputs are not halved but split by phases of units, which only a whole system knows."""

LEAST_UNITS, FOLDINGS = 1024, 16
"""Halving a box of a system of U units takes about U^2 operations for each unit, folding that half afresh an evaluation
for each: beyond this many units, and U^2 beyond so many evaluations, afresh is cheaper."""

PIECES = 16
"""The share of the memory that one piece of work may take: several are alive at once."""


@dataclass(frozen=True)
class Choice:
    """A source of linear forms, how many boxes it takes at once, and why, in one line."""

    relaxer: Relaxer
    boxes: int
    why: str

    def until(self, budget: Budget) -> "Choice":
        """The same, giving up in the middle of a box when the budget is spent, where a box may take long."""
        if not isinstance(self.relaxer, FoldedRelaxer):
            return self
        return replace(self, relaxer=replace(self.relaxer, limits=replace(self.relaxer.limits, budget=budget)))

    def smaller(self) -> "Choice | None":
        """The same with a fraction of the memory; None when there is nothing left to save."""
        relaxer = self.relaxer
        if not isinstance(relaxer, FoldedRelaxer) or not relaxer.limits.units:
            return None
        limits = replace(relaxer.limits, units=relaxer.limits.units // 4, bytes=relaxer.limits.bytes // 4)
        why = f"{self.why}; fewer units where memory ran out"
        return Choice(replace(relaxer, limits=limits), 1, self.why if "ran out" in self.why else why)


def choose(graph: Graph, rows: Rows, memory_bytes: int, boxes: int = 32) -> Choice:
    """The cheapest bounds that are worth having on this graph, for up to `boxes` boxes at once."""
    whole = 48 * graph.widest * min(2 * graph.widest, 512)
    fitting = int(max(1, min(boxes, memory_bytes // PIECES // whole)))
    units, operations = zip(*_layers(graph), strict=True) if _layers(graph) else ((0,), (0,))
    size = f"{sum(units):,} units, {_about(sum(graph.multiply_adds))} multiply-adds an evaluation"
    rest = f"({size}; {fitting} {'box' if fitting == 1 else 'boxes'} at a time)"
    if foldable(graph):
        most = math.isqrt(memory_bytes // SYSTEM_COPIES)
        if graph.inputs <= FEW_INPUTS:
            most = min(most, max(LEAST_UNITS, math.isqrt(FOLDINGS * sum(graph.multiply_adds))))
        limits = FoldLimits(units=most, bytes=memory_bytes // PIECES)
        why = f"backward bounds on unstable units alone, up to {limits.units:,} of them {rest}"
        return Choice(FoldedRelaxer(graph, rows, limits), fitting, why)
    if sum(operations) <= BACKWARD_OPERATIONS:
        why = f"backward bounds of every unit, {_about(sum(operations))} multiply-adds a box {rest}"
    else:
        why = (
            f"forward bounds, backward ones for what {_about(LAYER_OPERATIONS)} multiply-adds a layer allow, since "
            f"those of every unit would take {_about(sum(operations))} a box {rest}"
        )
    return Choice(GraphRelaxer(graph, rows, bounder_of(graph, memory_bytes)), fitting, why)


def bounder_of(graph: Graph, memory_bytes: int) -> CrownBounder:
    """Backward bounds of every unit where they are affordable, else of as many of every layer as are."""
    cheap = sum(operations for _, operations in _layers(graph)) <= BACKWARD_OPERATIONS
    return CrownBounder(operations=math.inf if cheap else LAYER_OPERATIONS, bytes=memory_bytes // PIECES)


def _layers(graph: Graph) -> list[tuple[int, int]]:
    """Per nonlinear operator: the values that it reads, and the multiply-adds of backward bounds of all of them."""
    sizes = [graph.inputs, *(math.prod(node.shape) for node in graph.nodes)]
    found = []
    for node in graph.nodes:
        if not isinstance(node.operator, LinearMap):
            source = node.inputs[0]
            found.append((sizes[source], 2 * sizes[source] * sum(graph.multiply_adds[: source + 1])))
    return found


def _about(number: float) -> str:
    """A large number with two digits: 34 million."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.{0 if number >= 10 * size else 1}f} {name}"
    return f"{number:,.0f}"
