"""Forward bounds of what a few neighbouring inputs change: deviations from a point, kept where they can reach.

In: Graph, a point with the values there, L0 balls of one pixel each. Out: intervals of the outputs. Trust: sound.

A value is v0 + d with v0 its value at the point; d = middle + generators . t + e, |e| <= radius, vanishes outside a
window, which grows from layer to layer until it is the whole node. Linear maps act on d alone, so that their cost is
that of the window: 1.5 ms instead of 30 for one pixel of a network of 50,960 ReLUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from formalgr.bounds.crown import pull_back
from formalgr.core.l0_ball import L0Ball
from formalgr.core.linear import Interval, LinearForm, check_bounds
from formalgr.core.local import Local
from formalgr.core.rounding import NEGLIGIBLE, SLACK, gamma, underflow
from formalgr.graph.graph import Graph
from formalgr.operators.combine import AddConstant
from formalgr.operators.convolution import Convolution
from formalgr.operators.dense import Dense
from formalgr.operators.linear_map import LinearMap, Rearrangement
from formalgr.operators.piecewise import Piecewise
from formalgr.operators.pooling import MaxPool

WIDE = "float64"

LARGE_SHARE = 4
"""Windows of more than this part of a node are multiplied as whole nodes in fully connected layers."""

TAIL_OPERATIONS, ELEMENTWISE = 5 << 19, 64
"""Multiply-adds of backward bounds of all outputs at the end of a network that are worth their tightness: half of what
forward bounds take there, and what one element of an activation counts for."""


@dataclass(frozen=True)
class _Deviation:
    """middle, generators (one each) and radius as windows of one shape at the same places."""

    middle: Local
    generators: tuple[Local, ...]
    radius: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Upper bound (up to relative SLACK) of |middle| + |generators . t|, in the windows."""
        return np.abs(self.middle.values) + sum(np.abs(part.values) for part in self.generators)

    @property
    def reach(self) -> np.ndarray:
        """Upper bound of |d - middle|, in the windows."""
        total = sum((np.abs(part.values) for part in self.generators), self.radius)
        return total * (1.0 + gamma(len(self.generators) + 4, WIDE)) * SLACK + underflow(4, WIDE)

    def local(self, values: np.ndarray) -> Local:
        """Values in the same windows."""
        return Local(values, self.middle.origin, self.middle.shape)


def windowed(graph: Graph) -> bool:
    """Whether `deviations` knows every operator: a chain of linear maps, activations alike for all units, MaxPool."""
    chain = all(node.inputs == (index,) for index, node in enumerate(graph.nodes))
    return chain and all(
        isinstance(node.operator, (LinearMap, MaxPool))
        or (isinstance(node.operator, Piecewise) and node.operator.breakpoints.ndim == 1)
        for node in graph.nodes
    )


def lower_bounds(graph: Graph, point: np.ndarray, around: Sequence[Interval], ball: L0Ball) -> np.ndarray | None:
    """Lower bounds of the outputs, (batch, outputs); None where the free inputs of a ball are no small window.

    around: intervals of all nodes at the point (inputs,), batch 1. The balls need not contain the point. What is cheap
    at the end of the network is bounded backward, on the deviation of the node before it.
    """
    found = _start(graph, point, ball)
    if found is None:
        return None
    tail = _tail(graph)
    boxes, kept = [_box(found, around[0])] + [None] * len(graph.nodes), found
    for index, node in enumerate(graph.nodes):
        operator, here = node.operator, around[index]
        if isinstance(operator, LinearMap):
            found = _linear(operator, found, graph.nodes[index - 1].shape if index else graph.input_shape)
        elif isinstance(operator, MaxPool):
            found = _pooled(operator, found, here, around[index + 1])
        else:
            found = _bent(operator, found, here)
        if index + 1 >= tail:
            boxes[index + 1] = _box(found, around[index + 1])
            kept = found if index + 1 == tail else kept
    outputs, batch = graph.outputs, len(ball)
    unit = np.eye(outputs, dtype=np.float64).reshape(1, outputs, *graph.output_shape)
    rows = np.broadcast_to(unit, (batch, *unit.shape[1:]))
    nothing = np.zeros((batch, outputs), dtype=np.float64)
    form = pull_back(graph, boxes, len(graph.nodes), LinearForm(rows, nothing, nothing), tail)
    return np.maximum(_least(form, kept, around[tail]), boxes[-1].lower.reshape(batch, -1))


def _tail(graph: Graph) -> int:
    """The node from which on backward bounds of the outputs are cheap."""
    index, spent = len(graph.nodes), 0
    while index > 0:
        node = graph.nodes[index - 1]
        linear = isinstance(node.operator, LinearMap)
        spent += graph.outputs * (graph.multiply_adds[index] if linear else ELEMENTWISE * int(np.prod(node.shape)))
        if spent > TAIL_OPERATIONS:
            break
        index -= 1
    return index


def _box(found: _Deviation, here: Interval) -> Interval:
    """Sound box around the whole node."""
    shape = (-1, *here.lower.shape[1:])
    reach, middle = (part.reshape(shape) for part in (_dense(found, found.reach), found.middle.dense()))
    slack = gamma(4, WIDE) * (here.magnitude + np.abs(middle) + reach) + underflow(4, WIDE)
    lower, upper = here.lower + (middle - reach) - slack, here.upper + (middle + reach) + slack
    return Interval(lower, upper).checked("a deviation")


def _least(form: LinearForm, found: _Deviation, here: Interval) -> np.ndarray:
    """Lower bound of linear forms of a node whose values are those at the point plus the deviation, (batch, rows)."""
    batch = len(found.middle)
    low, high = here.lower.reshape(1, -1), here.upper.reshape(1, -1)
    center = 0.5 * low + 0.5 * high
    middle, radius = (part.reshape(batch, -1) for part in (found.middle.dense(), _dense(found, found.radius)))
    generators = np.stack([part.dense().reshape(batch, -1) for part in found.generators], axis=2)
    rest = radius + np.maximum(high - center, center - low)
    reach = np.sum(np.abs(form.coefficients @ generators), axis=2)
    size = np.abs(middle) + np.abs(center) + np.sum(np.abs(generators), axis=2) + rest + NEGLIGIBLE[WIDE]
    absolute = np.abs(form.coefficients)
    terms = 2 * form.coefficients.shape[2] + len(found.generators) + 16
    error = (absolute @ rest[:, :, None])[..., 0] + gamma(terms, WIDE) * (absolute @ size[:, :, None])[..., 0]
    error = (error + form.error + gamma(terms, WIDE) * np.abs(form.constant)) * SLACK + underflow(terms, WIDE)
    least = (form.coefficients @ (center + middle)[:, :, None])[..., 0] + form.constant - reach - error
    check_bounds(least, error, "a deviation")
    return least


def _start(graph: Graph, point: np.ndarray, ball: L0Ball) -> _Deviation | None:
    """The input's deviation: one generator for every free input."""
    pixels = np.sum(ball.parts >= 0, axis=1)
    if not np.all(pixels == 1):
        return None
    inputs = ball.coordinates[np.argmax(ball.parts, axis=1)]
    places = np.stack(np.unravel_index(inputs, graph.input_shape), axis=2)
    origin, extent = places.min(axis=1), np.ptp(places, axis=1) + 1
    if not np.all(extent == extent[0]):
        return None
    batch, count = inputs.shape
    rows = np.arange(batch)
    inside = tuple(np.moveaxis(places - origin[:, None], 2, 0))
    center, radius = ball.hull.center[rows[:, None], inputs], ball.hull.radius[rows[:, None], inputs]
    shift = center - point[inputs]
    values = np.zeros((count + 2, batch, *extent[0].tolist()), dtype=np.float64)
    for k in range(count):
        where = (rows, *(axis[:, k] for axis in inside))
        values[0][where] = shift[:, k]
        values[1][where] = gamma(2, WIDE) * np.abs(shift[:, k])
        values[2 + k][where] = radius[:, k]
    parts = [Local(part, origin, graph.input_shape) for part in values]
    return _Deviation(parts[0], tuple(parts[2:]), values[1])


def _linear(operator: LinearMap, found: _Deviation, shape) -> _Deviation:
    """The deviation of L x: L acts on every part, its roundings and |L| on the radius."""
    factor = gamma(operator.terms + 4, WIDE)
    radius = found.radius * (1.0 + factor) + factor * (found.size + NEGLIGIBLE[WIDE]) * SLACK
    absolute, parts = _absolute(operator), [found.middle, *found.generators]
    wide = isinstance(operator, Dense) and found.middle.volume * LARGE_SHARE > found.middle.elements
    applied = [None] if absolute is None or wide else [operator.apply_local(part, shape) for part in parts]
    if any(part is None for part in applied):
        applied = [_whole(operator.apply(part.dense().reshape(-1, *shape))) for part in parts]
        reach = _whole(operator.magnitude(_dense(found, radius).reshape(-1, *shape)))
    else:
        reach = absolute.apply_local(found.local(radius), shape)
    lost = underflow(2 * operator.terms + 8, WIDE) * (len(parts) + 1)
    return _Deviation(applied[0], tuple(applied[1:]), reach.values * (1.0 + factor) * SLACK + lost)


def _absolute(operator: LinearMap) -> LinearMap | None:
    """The map with the absolute values of its weights, on windows; None where windows are of no use to it."""
    if isinstance(operator, (Convolution, Dense)):
        return replace(operator, weights=np.abs(operator.weights))
    return operator if isinstance(operator, (Rearrangement, AddConstant)) else None


def _bent(operator: Piecewise, found: _Deviation, here: Interval) -> _Deviation:
    """f(v0 + d) - f(v0) by the chord over the range of v0 + d."""
    low, high = (_taken(end, found.middle) for end in (here.lower, here.upper))
    reach, middle = found.reach, found.middle.values
    slack = gamma(4, WIDE) * (np.maximum(np.abs(low), np.abs(high)) + np.abs(middle) + reach) + underflow(4, WIDE)
    box = Interval(low + (middle - reach) - slack, high + (middle + reach) + slack)
    slope, below, above = _chord(operator, box)
    before = operator.interval(Interval(low, high))
    ends = slope * low, slope * high
    least = np.minimum(*ends) + (below - before.upper)
    most = np.maximum(*ends) + (above - before.lower)
    scale = np.maximum(np.abs(ends[0]), np.abs(ends[1])) + np.maximum(np.abs(below), np.abs(above)) + before.magnitude
    shift = 0.5 * least + 0.5 * most
    radius = np.maximum(most - shift, shift - least) + np.abs(slope) * found.radius
    size = scale + np.abs(before.lower) + np.abs(slope) * found.size + np.abs(shift) + radius
    radius = radius * SLACK + gamma(len(found.generators) + 12, WIDE) * size + underflow(16, WIDE)
    generators = tuple(found.local(slope * part.values) for part in found.generators)
    return _Deviation(found.local(slope * middle + shift), generators, radius)


def _chord(operator: Piecewise, box: Interval) -> tuple:
    """(slope, low, high) with low <= f(x) - slope x <= high over the box; a slope of one piece where it lies on one.

    The same as `candidates` and `offsets` say, in a fraction of the passes, for functions of two pieces.
    """
    if len(operator.breakpoints) != 1:
        slope = operator.candidates(box)[0]
        return slope, *operator.offsets(slope, box)
    (kink,), (left, right), (first, second) = operator.breakpoints, operator.slopes, operator.intercepts
    below, above = box.upper <= kink, box.lower >= kink
    ends = left * box.lower + first, right * box.upper + second
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = (ends[1] - ends[0]) / (box.upper - box.lower)
    slope = np.where(below, left, np.where(above, right, np.where(np.isfinite(rise), rise, 0.0)))
    at_kink = (left * kink + first) - slope * kink
    low, high = ends[0] - slope * box.lower, ends[1] - slope * box.upper
    size = (abs(left) + abs(right) + np.abs(slope)) * (box.magnitude + abs(kink)) + abs(first) + abs(second)
    error = gamma(8, WIDE) * (size + NEGLIGIBLE[WIDE]) + underflow(8, WIDE)
    least = np.minimum(np.minimum(low, high), at_kink) - error
    most = np.maximum(np.maximum(low, high), at_kink) + error
    least, most = (np.where(below, first, np.where(above, second, end)) for end in (least, most))
    return slope, least, most


def _pooled(operator: MaxPool, found: _Deviation, here: Interval, after: Interval) -> _Deviation:
    """max(v0 + d) - max(v0): entries one after the other, max(a, b) = a + max(b - a, 0) by its chord."""
    origin, window = operator.local_outputs(found.middle)
    target = Local(np.zeros((len(origin), *window), dtype=np.float64), origin, after.lower.shape[1:])
    entries = operator.places(here.lower.shape[1:])[:, target.places]
    forms, radius, best = (found.middle, *found.generators), found.local(found.radius), None
    known = np.zeros(target.places.shape, dtype=bool)
    for element in entries:
        inside = element >= 0
        place = np.where(inside, element, 0)
        low, high = (np.reshape(end, -1)[place] for end in (here.lower, here.upper))
        center = 0.5 * low + 0.5 * high
        spread = np.maximum(high - center, center - low)
        parts = [part.at(place) for part in forms]
        size = np.abs(center) + sum(np.abs(part) for part in parts)
        entry = [center + parts[0], *parts[1:]], radius.at(place) + spread + gamma(4, WIDE) * size
        best = entry if best is None else _larger(best, entry, inside, known)
        known = known | inside
    (middle, *generators), reach = best
    low, high = (np.reshape(end, -1)[target.places] for end in (after.lower, after.upper))
    center = 0.5 * low + 0.5 * high
    reach = reach + np.maximum(high - center, center - low)
    reach = reach * SLACK + gamma(8, WIDE) * (np.abs(middle) + np.abs(center)) + underflow(16, WIDE)

    def placed(values: np.ndarray) -> Local:
        return Local(values.reshape(target.values.shape), target.origin, target.shape)

    return _Deviation(placed(middle - center), tuple(map(placed, generators)), reach.reshape(target.values.shape))


def _larger(left: tuple, right: tuple, inside: np.ndarray, known: np.ndarray) -> tuple:
    """max of two forms (parts, radius), elementwise; `right` counts where `inside`, `left` where `known`."""
    (a, radius_a), (b, radius_b) = left, right
    step = [y - x for x, y in zip(a, b, strict=True)]
    size = sum(np.abs(x) + np.abs(y) for x, y in zip(a, b, strict=True)) + radius_a + radius_b
    noise = gamma(len(a) + 12, WIDE) * size + underflow(16, WIDE)
    reach = sum((np.abs(part) for part in step[1:]), radius_a + radius_b) * SLACK + noise
    low, high = step[0] - reach, step[0] + reach
    crossing = (low < 0.0) & (high > 0.0)
    share = np.where(crossing, high / np.where(crossing, high - low, 1.0), np.where(low >= 0.0, 1.0, 0.0))
    share = np.where(inside, np.where(known, share, 1.0), 0.0)
    # max(t, 0) - share t lies in [0, top] over [low, high] for any share in [0, 1]
    top = np.where(crossing & inside & known, np.maximum(-share * low, (1.0 - share) * high) * SLACK, 0.0)
    parts = [x + share * y for x, y in zip(a, step, strict=True)]
    parts[0] = parts[0] + 0.5 * top
    return parts, ((1.0 - share) * radius_a + share * radius_b) * SLACK + 0.5 * top * SLACK + 2.0 * noise


def _taken(values: np.ndarray, windows: Local) -> np.ndarray:
    """What a node of batch 1 holds in the windows."""
    return np.reshape(values, -1)[windows.places].reshape(windows.values.shape)


def _dense(found: _Deviation, values: np.ndarray) -> np.ndarray:
    """Values in the windows of a deviation as whole nodes."""
    return found.local(values).dense()


def _whole(values: np.ndarray) -> Local:
    """A whole node as one window."""
    return Local(values, np.zeros((len(values), values.ndim - 1), dtype=np.int64), values.shape[1:])
