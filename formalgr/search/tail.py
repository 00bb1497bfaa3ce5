"""A rising activation at the end of a network, taken off: its values are bounded where its arguments are.

In: Graph, UnsafeSet. Out: both without it. Trust: sound: where an output is unsafe, what the activation reads is.

With f rising, f(t) <= v implies t <= s for every s with f(s) >= v, and f(t) >= v implies t >= s for every s with
f(s) <= v; such an s is checked by outward-rounded evaluation, whoever proposed it. What is left of a network that ends
in a Sigmoid can be folded.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from formalgr.core.linear import Interval
from formalgr.graph.graph import Graph
from formalgr.operators.reshape import Reshape
from formalgr.operators.smooth import Smooth
from formalgr.spec.unsafe import Polytope, UnsafeSet

FARTHEST = 700.0
"""Arguments beyond are not looked for."""

DOUBT = 1e-9
"""How far beyond the place that bisection finds arguments are taken, relative to 1 + their size."""


def without_tail(graph: Graph, unsafe: UnsafeSet) -> tuple[Graph, UnsafeSet]:
    """The graph before its last activation, and a set that its output lies in wherever the network's is unsafe.

    Both unchanged where the activation does not rise, a row is about several outputs, or a place cannot be told.
    """
    nodes = list(graph.nodes)
    while nodes and isinstance(nodes[-1].operator, Reshape) and nodes[-1].inputs == (len(nodes) - 1,):
        nodes.pop()
    if not nodes or nodes[-1].inputs != (len(nodes) - 1,):
        return graph, unsafe
    function = nodes.pop().operator
    if not nodes or not isinstance(function, Smooth) or not function.rising:
        return graph, unsafe
    polytopes = []
    for polytope in unsafe.polytopes:
        rows = _arguments(function, polytope)
        if rows is None:
            return graph, unsafe
        if rows is not False:
            polytopes.append(rows)
    if not polytopes:
        return graph, unsafe
    return replace(graph, nodes=tuple(nodes)), UnsafeSet(tuple(polytopes), unsafe.outputs)


def _arguments(function: Smooth, polytope: Polytope) -> Polytope | bool | None:
    """A polytope of arguments with values in the given one; False: there are none, None: it cannot be told."""
    rows, bounds = [], []
    for row, bound in zip(polytope.coefficients, polytope.bounds, strict=True):
        used = [k for k, coefficient in enumerate(row) if coefficient]
        if len(used) != 1:
            return None
        (place,) = used
        sign = 1 if row[place] > 0 else -1
        limit = _limit(function, bound / row[place], sign)
        if limit is None or limit is False:
            return limit
        if limit is not True:
            rows.append(tuple(Fraction(sign if k == place else 0) for k in range(len(row))))
            bounds.append(sign * limit)
    return Polytope(tuple(rows), tuple(bounds), (False,) * len(rows))


def _limit(function: Smooth, value: Fraction, sign: int) -> Fraction | bool | None:
    """s such that t <= s wherever f(t) <= value (sign 1), or t >= s wherever f(t) >= value (sign -1).

    False: there is no such t; True: every t is one; None: no s was found.
    """
    low, high = function.limits
    nothing, everything = (value < low, value >= high) if sign > 0 else (value > high, value <= low)
    if nothing or everything:
        return everything
    start, stop = -FARTHEST, FARTHEST
    for _ in range(80):
        middle = 0.5 * start + 0.5 * stop
        below = float(function.evaluate(np.array([middle]))[0]) < value
        start, stop = (middle, stop) if below else (start, middle)
    place = stop + DOUBT * (1.0 + abs(stop)) if sign > 0 else start - DOUBT * (1.0 + abs(start))
    point = np.array([[place]])
    found = function.interval(Interval(point, point))
    reached = found.lower[0, 0] >= value if sign > 0 else found.upper[0, 0] <= value
    return Fraction(place) if reached else None
