"""Rewrites of graphs that keep the function over the reals, exactly.

In: Graph. Out: a Graph of the same function. Trust: sound: tables are composed in rationals, and used only when every
number of the result is a float64.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.graph.graph import Graph, GraphBuilder, Node
from formalgr.operators.base import Operator
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import AddConstant, MultiplyConstant
from formalgr.operators.dense import Dense
from formalgr.operators.piecewise import Piecewise


@dataclass(frozen=True)
class _Table:
    """One continuous piecewise linear function of one variable in rationals: value = slopes[k] x + intercepts[k]."""

    breakpoints: tuple[Fraction, ...]
    slopes: tuple[Fraction, ...]
    intercepts: tuple[Fraction, ...]

    def after(self, inner: "_Table") -> "_Table":
        """self(inner(x)), without breakpoints between equal pieces."""
        points, slopes, intercepts = [], [], []
        for k, (slope, rest) in enumerate(zip(inner.slopes, inner.intercepts, strict=True)):
            low = inner.breakpoints[k - 1] if k else None
            high = inner.breakpoints[k] if k < len(inner.breakpoints) else None
            cuts = sorted((b - rest) / slope for b in self.breakpoints) if slope else []
            cuts = [x for x in cuts if (low is None or x > low) and (high is None or x < high)]
            for start, stop in zip([low, *cuts], [*cuts, high], strict=True):
                piece = self._piece(slope * _between(start, stop) + rest)
                line = (self.slopes[piece] * slope, self.slopes[piece] * rest + self.intercepts[piece])
                if slopes and line == (slopes[-1], intercepts[-1]):
                    continue
                if slopes:
                    points.append(start)
                slopes.append(line[0])
                intercepts.append(line[1])
        return _Table(tuple(points), tuple(slopes), tuple(intercepts))

    def _piece(self, value: Fraction) -> int:
        return sum(value > b for b in self.breakpoints)

    def as_clip(self) -> Piecewise | None:
        """The same function as a Clip, if it is one and float64 holds its limits."""
        if self.slopes not in ((0, 1, 0), (0, 1), (1, 0)) or any(r for s, r in self._lines() if s):
            return None
        low, high = (float(self.intercepts[k]) if not self.slopes[k] else None for k in (0, -1))
        if low is not None and Fraction(low) != self.intercepts[0]:
            return None
        if high is not None and Fraction(high) != self.intercepts[-1]:
            return None
        return clip_table(-np.inf if low is None else low, np.inf if high is None else high)

    def _lines(self):
        return zip(self.slopes, self.intercepts, strict=True)


def _between(start: Fraction | None, stop: Fraction | None) -> Fraction:
    """A number strictly between the two, None being infinite."""
    if start is None:
        return Fraction(0) if stop is None else stop - 1
    return start + 1 if stop is None else (start + stop) / 2


def _uniform(values) -> Fraction | None:
    """The one finite value of all entries."""
    flat = np.asarray(values).reshape(-1)
    same = flat.size > 0 and bool(np.all(flat == flat[0])) and bool(np.isfinite(flat[0]))
    return Fraction(float(flat[0])) if same else None


def _table_of(operator: Operator) -> _Table | None:
    """The operator as one function applied to every element."""
    line = None
    if isinstance(operator, Piecewise):
        tables = [[_uniform(entry) for entry in part] for part in
                  (operator.breakpoints, operator.slopes, operator.intercepts)]
        return None if any(x is None for part in tables for x in part) else _Table(*(tuple(part) for part in tables))
    if isinstance(operator, AddConstant):
        line = (Fraction(1), _uniform(operator.constant))
    elif isinstance(operator, MultiplyConstant):
        line = (_uniform(operator.factor), Fraction(0))
    elif isinstance(operator, Dense):
        weights = operator.weights
        diagonal = np.diagonal(weights)
        if weights.shape[0] == weights.shape[1] and np.count_nonzero(weights) == np.count_nonzero(diagonal):
            line = (_uniform(diagonal), Fraction(0) if operator.bias is None else _uniform(operator.bias))
    return None if line is None or None in line else _Table((), (line[0],), (line[1],))


def join_clips(graph: Graph) -> Graph:
    """The same function; chains of elementwise pieces that amount to a Clip become one.

    Generators limit their pixels by Relu and 1 - Relu(1 - x) where a tool knows no Clip: one unit instead of two, and a
    relaxation of both limits together.
    """
    readers = [0] * (len(graph.nodes) + 1)
    for node in graph.nodes:
        for source in node.inputs:
            readers[source] += 1
    builder, places, index = GraphBuilder(graph.input_shape), {0: 0}, 0
    while index < len(graph.nodes):
        node = graph.nodes[index]
        length, clip = _longest_clip(graph.nodes, readers, index)
        operator = node.operator if clip is None else clip
        index += length
        places[index] = builder.add(node.name, operator, *(places[i] for i in node.inputs))
    return builder.build()


def _longest_clip(nodes: tuple[Node, ...], readers: list[int], start: int) -> tuple[int, Operator | None]:
    """How many nodes from `start` on are one Clip, and that Clip; 1 and None where there is nothing to join."""
    chain: list[_Table] = []
    for offset, node in enumerate(nodes[start:]):
        own = _table_of(node.operator)
        if own is None or (offset and (node.inputs != (start + offset,) or readers[start + offset] != 1)):
            break
        if offset == 0 and not own.breakpoints:
            break
        chain.append(own)
    length, clip, bends = 1, None, 0
    if sum(bool(own.breakpoints) for own in chain) > 1:
        table = _Table((), (Fraction(1),), (Fraction(0),))
        for offset, own in enumerate(chain, start=1):
            table, bends = own.after(table), bends + bool(own.breakpoints)
            found = table.as_clip()
            if bends > 1 and found is not None:
                length, clip = offset, found
    return length, clip
