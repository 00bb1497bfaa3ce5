"""Folding: a graph over a batch of boxes becomes a folded system per box; bounds and elimination go layer by layer.

In: Graph of linear maps, piecewise linear activations and maxima, boxes, output rows. Out: Folded. Trust: sound.

Every node is kept as an affine function of the inputs and of the unstable hinges met so far, with an error radius. At
an activation the pre-activations are bounded (cheaply, then backward through the system where that leaves them open),
stable pieces are applied exactly, and only the unstable hinges become new symbols.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.bounds.base import Rows
from formalgr.bounds.folded import WIDE, Backward
from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import Array, namespace
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.folded import Block, FoldedSystem, floor_of, size_of
from formalgr.core.linear import Interval, check_bounds
from formalgr.core.rounding import SLACK, dtype_name, gamma, is_exact_difference, underflow
from formalgr.graph.graph import Graph
from formalgr.operators.base import Operator
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.piecewise import Piecewise
from formalgr.operators.pooling import MaxPool
from formalgr.search.columns import Columns, at_units, identity, joined
from formalgr.search.maximum import fold_maximum
from formalgr.search.pieces import any_open, beyond_room, caps_of, pieces
from formalgr.search.reduce import padded_indices

FIXED = 2.0**-40
"""An input whose radius is a smaller share of its magnitude is a constant: its range is rounding, not a question."""


def foldable(graph: Graph) -> bool:
    """Whether every operator of the graph is a linear map, a piecewise linear activation or a maximum."""
    return all(isinstance(node.operator, (LinearMap, Piecewise, MaxPool)) for node in graph.nodes)


def _most_blocks(operator: Operator) -> int:
    """At most so many blocks of units come from an operator."""
    if isinstance(operator, MaxPool):
        return operator.window.size - 1
    return int(isinstance(operator, Piecewise))


@dataclass(frozen=True, kw_only=True)
class FoldLimits:
    """At most `units` units of a system, and about `bytes` for what is made besides it in one piece.

    Where more units are unstable, those with the widest relaxation are kept; the others become their chords with an
    error radius, which no smaller box of the system makes smaller. Raises OutOfTime between pieces when the budget is
    spent.
    """

    units: int = 1 << 20
    bytes: int = 1 << 28
    budget: Budget = Budget()


ANY_SIZE = FoldLimits()


@dataclass(frozen=True)
class Folded:
    """A folded system per box with the bounds of its units over that box, and the pass that relaxes them.

    `loose`: the limit on units was met in some box, so that smaller boxes are worth being folded anew. `reads`:
    bounds/folded.py: unit_bounds; none at the root.
    """

    system: FoldedSystem
    bounds: list
    reads: list
    backward: Backward
    loose: bool = False


@dataclass(frozen=True)
class _Value:
    """A node as columns over (z, y); constant and radius (batch, *node).

    `size` (batch, *node): upper bound (up to SLACK) of |columns| . reach + |constant|, plus `floor`; None: not known.
    """

    columns: Columns
    constant: Array
    radius: Array
    size: Array = None


class _Folder:
    """The state while one batch is folded."""

    def __init__(self, graph: Graph, box: Box, narrow: str, limits: FoldLimits):
        self.graph = graph
        self.limits = limits
        self.loose = False
        self.box = box
        self.xp = namespace(box.lower)
        self.dtype = dtype_name(box.lower)
        self.batch = len(box)
        self.system = FoldedSystem(
            box.inputs, (), None, self.xp.maximum(self.xp.abs(box.lower), self.xp.abs(box.upper))
        )
        self.bounds: list = []
        layers = sum(_most_blocks(node.operator) for node in graph.nodes)
        self.backward = Backward(self.system.reach, layers, narrow)

    @property
    def symbols(self) -> int:
        """Number of symbols so far, inputs included."""
        return self.system.inputs + self.system.units

    def input(self) -> _Value:
        """The network input: the identity over z; inputs that hardly vary are constants with a radius."""
        xp, shape = self.xp, (self.batch, *self.graph.input_shape)
        free = arrays_of.to_numpy(self.box.radius > FIXED * (1.0 + xp.abs(self.box.center)))
        fixed = xp.asarray(~free, device=getattr(self.box.lower, "device", None))
        constant, radius = (xp.where(fixed, part, 0.0 * part) for part in (self.box.center, self.box.radius))
        columns = identity(free, self.box.lower, self.graph.input_shape)
        return _Value(columns, xp.reshape(constant, shape), xp.reshape(radius, shape))

    def linear(self, operator: LinearMap, values: list[_Value]) -> _Value:
        """A linear map applied to columns, constant and error radius."""
        if len(values) == 1:
            columns = values[0].columns.linear(operator)
        else:
            columns = joined(operator, [value.columns for value in values], self.symbols, values[0].constant)
        constant = operator.evaluate(*(value.constant for value in values))
        if operator.terms == 0:
            return _Value(columns, constant, operator.apply(*(value.radius for value in values)))
        factor = gamma(operator.terms + self.symbols + 8, self.dtype)
        reach = [v.radius * (1.0 + factor) + factor * self.size(v) for v in values]
        radius = operator.magnitude(*reach) * (1.0 + factor)
        radius = radius + factor * self.floor(radius)
        if operator.offset is not None:
            radius = radius + factor * operator.offset_size()
        return _Value(columns, constant, radius + underflow((2 * operator.terms + 8) * self.symbols, self.dtype))

    def floor(self, like):
        """core.folded.floor_of the symbols so far, laid out to be added to `like` (batch, *node)."""
        return self.xp.reshape(floor_of(self.system.reach), (self.batch, *(1,) * (like.ndim - 1)))

    def size(self, value: _Value):
        """The size of a value, (batch, *node)."""
        if value.size is not None:
            return value.size
        _, sizes = value.columns.sums(self.system.reach[:, None][:, :0], self.system.reach[:, None])
        return self.xp.reshape(sizes, value.constant.shape) + self.xp.abs(value.constant) + self.floor(value.constant)

    def rows(self, value: _Value, units) -> Block:
        """The value's elements `units` (batch, count) as rows over the symbols."""
        xp, batch = self.xp, self.batch
        which = np.arange(batch)[:, None]
        constant, radius = (xp.reshape(part, (batch, -1))[which, units] for part in (value.constant, value.radius))
        return Block(value.columns.rows(units, value.constant, self.symbols), constant, radius)

    def cheap_bounds(self, value: _Value) -> tuple:
        """(lower, upper) of all elements from the ranges of z and y alone, (batch, elements), and the sized value."""
        xp, batch = self.xp, self.batch
        center, radius = [self.box.center], [self.box.radius]
        for block, ends in zip(self.system.blocks, self.bounds, strict=True):
            low, high = (block.values(end) for end in ends)
            center.append(0.5 * low + 0.5 * high)
            radius.append((0.5 * high - 0.5 * low) * (1.0 + gamma(4, self.dtype)))
        center, radius = (xp.concat(parts, axis=1) for parts in (center, radius))
        middle, sizes = value.columns.sums(center[:, None], xp.stack([radius, self.system.reach], axis=1))
        size = xp.reshape(sizes[:, 1], value.constant.shape) + xp.abs(value.constant) + self.floor(value.constant)
        value = replace(value, size=size)
        middle = middle[:, 0] + xp.reshape(value.constant, (batch, -1))
        error = xp.reshape(value.radius + gamma(2 * self.symbols + 16, self.dtype) * size, (batch, -1))
        # `size` is at least |middle| + reach, so that gamma_n * size covers the roundings of both sums
        reach = sizes[:, 0] + error * SLACK + underflow(4 * self.symbols + 16, self.dtype)
        lower, upper = middle - reach, middle + reach
        check_bounds(lower, upper, "a folded node")
        return lower, upper, value

    def activation(self, operator: Piecewise, value: _Value) -> _Value:
        """The activation applied: stable pieces exactly, unstable hinges as new symbols."""
        lower, upper, value = self.cheap_bounds(value)
        tables = operator.spread(value.constant.shape[1:])
        lower, upper = self.refine(value, lower, upper, tables[0])
        value, lower, upper, moved = self.rounded_off(value, lower, upper, tables)
        made = self.eliminate(operator, value, (lower, upper), tables)
        return replace(made, radius=made.radius + moved)

    def refine(self, value: _Value, lower, upper, breakpoints):
        """Backward bounds of the elements whose cheap bounds leave a hinge unsettled."""
        if not self.system.blocks:
            return lower, upper
        open_ = any_open(lower, upper, breakpoints)
        units, valid = padded_indices(open_)
        lower, upper = arrays_of.copy(lower), arrays_of.copy(upper)
        at_once = max(1, self.limits.bytes // (96 * self.batch * self.symbols))
        for first in range(0, units.shape[1], at_once):
            self.limits.budget.check()
            piece = slice(first, first + at_once)
            block = self.rows(value, units[:, piece])
            low, high = self.backward.bounds(block, size_of(block, self.system.reach), self.box)
            which = np.nonzero(valid[:, piece])
            target = (which[0], units[:, piece][which])
            lower[target] = self.xp.maximum(lower[target], low[which])
            upper[target] = self.xp.maximum(lower[target], self.xp.minimum(upper[target], high[which]))
        return lower, upper

    def noise(self, value: _Value):
        """By how much bounds of a value may pass a kink that the value itself does not pass, (batch, *node)."""
        return 4.0 * (value.radius + gamma(2 * self.symbols + 16, self.dtype) * self.size(value))

    def rounded_off(self, value: _Value, lower, upper, tables) -> tuple:
        """The value clamped to bounds that end at a kink where they pass it by rounding only; what f changes by that.

        A range that ends at a kink (a pixel after Relu, before Clip) would otherwise make a unit of it. The clamped
        value is off by at most `noise`, which goes into its radius, and f by at most the largest |slope| times that.
        """
        xp, shape = self.xp, value.constant.shape
        breakpoints, slopes, _ = tables
        noise = xp.reshape(self.noise(value), lower.shape)
        clamped = lower > upper
        device = getattr(lower, "device", None)
        for kink in breakpoints.copy():
            kink = xp.asarray(kink, device=device) + 0.0 * lower
            start = (lower < kink) & (kink < upper) & (kink - lower <= noise)
            stop = (lower < kink) & (kink < upper) & (upper - kink <= noise) & ~start
            lower, upper = xp.where(start, kink, lower), xp.where(stop, kink, upper)
            clamped = clamped | start | stop
        noise = xp.where(clamped, noise * SLACK, 0.0 * noise)
        steepest = xp.asarray(np.max(np.abs(slopes), axis=0), device=device)
        moved = replace(value, radius=value.radius + xp.reshape(noise, shape))
        return moved, lower, upper, xp.reshape(steepest * noise, shape)

    def eliminate(self, operator: Piecewise, value: _Value, bounds: tuple, tables) -> _Value:
        """Replace each element by its stable piece plus new symbols for its unstable units."""
        xp, batch = self.xp, self.batch
        (lower, upper), (breakpoints, slopes, intercepts) = bounds, tables
        device = getattr(lower, "device", None)
        low, high = (arrays_of.to_numpy(end) for end in (lower, upper))
        caps = caps_of(breakpoints, slopes)
        piece, open_ = pieces(low, high, breakpoints, caps)
        element = np.arange(low.shape[1])[None, :]
        shape = value.constant.shape
        slope = xp.reshape(xp.asarray(slopes[piece, element], device=device), shape)
        intercept = xp.reshape(xp.asarray(intercepts[piece, element], device=device), shape)
        room = self.limits.units - self.system.units
        beyond, spread = beyond_room(open_, low, high, breakpoints, room), 0.0
        if beyond is not None:
            open_ &= ~beyond[:, None]
            self.loose = True
            mask = xp.reshape(xp.asarray(beyond, device=device), shape)
            line = self.chords(operator, Interval(xp.reshape(lower, shape), xp.reshape(upper, shape)))
            slope, intercept, spread = (
                xp.where(mask, *pair) for pair in zip(line, (slope, intercept, 0.0 * slope), strict=True)
            )
        plain = ((slope == 0.0) | (xp.abs(slope) == 1.0)) & (intercept == 0.0)
        size = xp.abs(slope) * self.size(value) + xp.abs(intercept)
        rounding = gamma(4, self.dtype) * (size + self.floor(size))
        radius = xp.abs(slope) * value.radius * (1.0 + gamma(4, self.dtype)) + xp.where(plain, 0.0 * slope, rounding)
        radius = radius + spread
        size = size + self.floor(size)
        made = _Value(value.columns.scaled(slope), slope * value.constant + intercept, radius, size)
        kinks, valid = padded_indices(open_.reshape(batch, -1))
        if not kinks.shape[1]:
            return made
        which, units = kinks // low.shape[1], kinks % low.shape[1]
        cap = np.where(valid, caps[which, units], np.inf)
        limit = xp.asarray(cap, device=device) if np.any(cap < np.inf) else None
        self._add_block(value, units, valid, breakpoints[which, units], (lower, upper), limit)
        after, before = slopes[which + 1, units], slopes[which, units]
        exact = bool(np.all(is_exact_difference(after, before)))
        return self._with_symbols(made, units, np.where(valid, after - before, 0.0), exact)

    def chords(self, operator: Piecewise, box: Interval) -> tuple:
        """Slope, intercept and error radius of a line around each element's function over its box, (batch, *node)."""
        slope = operator.candidates(box)[0]
        low, high = operator.offsets(slope, box)
        middle = 0.5 * low + 0.5 * high
        radius = self.xp.maximum(high - middle, middle - low) * (1.0 + gamma(4, self.dtype))
        return slope, middle, radius + underflow(4, self.dtype)

    def _add_block(self, value: _Value, units, valid, shift, bounds, cap) -> None:
        """New symbols min(max(x - shift, 0), cap) for the given elements (batch, count); invalid ones are padding."""
        xp, batch = self.xp, self.batch
        lower, upper = bounds
        device = getattr(lower, "device", None)
        mask = xp.asarray(valid, device=device)
        shift = xp.asarray(np.where(valid, shift, 0.0), device=device)
        block = self.rows(value, units)
        constant = xp.where(mask, block.constant - shift, -1.0 + 0.0 * shift)
        moved = gamma(2, self.dtype) * (xp.abs(block.constant) + xp.abs(shift))
        radius = xp.where(mask & (shift != 0.0), block.radius + moved, block.radius)
        block = Block(
            xp.where(mask[:, :, None], block.weights, 0.0 * block.weights),
            constant,
            xp.where(mask, radius, 0.0 * radius),
            cap,
        )
        rows = np.arange(batch)[:, None]
        factor = gamma(4, self.dtype)
        low, high = lower[rows, units] - shift, upper[rows, units] - shift
        low = xp.where(mask, low - factor * (xp.abs(low) + xp.abs(shift)), -1.0 + 0.0 * low)
        high = xp.where(mask, high + factor * (xp.abs(high) + xp.abs(shift)), -1.0 + 0.0 * high)
        self.grow(block, (low, high))

    def grow(self, block: Block, bounds: tuple) -> None:
        """The rows of `block` become units: bounds (lower, upper) of the rows."""
        xp = self.xp
        self.bounds.append(bounds)
        size, reach = size_of(block, self.system.reach), block.values(bounds[1])
        self.backward.add(block, size, bounds, reach)
        reach = xp.concat([self.system.reach, reach], axis=1)
        blocks, sizes = (*self.system.blocks, block), (*self.system.sizes, size)
        self.system = FoldedSystem(self.system.inputs, blocks, None, reach, sizes)

    def _with_symbols(self, made: _Value, units, steps, exact: bool) -> _Value:
        """The value with step * y added to the elements `units`, y being the symbols of the newest block."""
        batch, count = units.shape
        fresh = at_units(self.symbols - count, units, steps, made.constant, made.columns.node)
        sizes = arrays_of.zeros(made.size, (batch, 1, int(np.prod(made.columns.node))))
        fresh.sums(self.system.reach[:, None][:, :0], self.system.reach[:, None], sizes[:, :0], sizes)
        size = self.xp.reshape(sizes, made.size.shape)
        rounding = 0.0 if exact else gamma(4, self.dtype) * (size + self.floor(size))
        return _Value(made.columns.plus(fresh), made.constant, made.radius + rounding, made.size + size)


def fold(graph: Graph, box: Box, rows: Rows, narrow: str = WIDE, limits: FoldLimits = ANY_SIZE) -> Folded:
    """Folded systems of the quantities rows.matrix . output - rows.bounds over each box; see `foldable`.

    narrow: the arithmetic of backward bounds of units, float32 or float64. Raises NumericalError where they overflow.
    """
    folder = _Folder(graph, box, narrow, limits)
    values: list[_Value | None] = [folder.input()]
    for index, node in enumerate(graph.nodes, start=1):
        limits.budget.check()
        inputs = [values[i] for i in node.inputs]
        if isinstance(node.operator, LinearMap):
            values.append(folder.linear(node.operator, inputs))
        elif isinstance(node.operator, MaxPool):
            values.append(fold_maximum(folder, node.operator, inputs[0]))
        else:
            values.append(folder.activation(node.operator, inputs[0]))
        for source in node.inputs:
            if graph.last_use[source] == index:
                values[source] = None
    return Folded(_with_outputs(folder, values[-1], rows), folder.bounds, [], folder.backward, folder.loose)


def _with_outputs(folder: _Folder, output: _Value, rows: Rows) -> FoldedSystem:
    """The finished system with its output rows; the coefficients of `rows` are off by at most u relatively."""
    xp, batch = folder.xp, folder.batch
    columns = xp.reshape(output.columns.whole(folder.symbols, output.constant), (batch, folder.symbols, -1))
    weights = xp.matmul(rows.matrix, xp.permute_dims(columns, (0, 2, 1)))
    constant = xp.matmul(xp.reshape(output.constant, (batch, -1)), rows.matrix.T) - rows.bounds
    size = xp.reshape(folder.size(output), (batch, -1))
    factor = gamma(rows.matrix.shape[1] + folder.symbols + 16, folder.dtype)
    slack = xp.reshape(output.radius, (batch, -1)) * (1.0 + factor) + factor * size
    radius = xp.matmul(slack, xp.abs(rows.matrix).T) * (1.0 + factor)
    radius = radius + factor * (xp.abs(rows.bounds) + floor_of(folder.system.reach))
    block = Block(weights, constant, radius * SLACK + underflow(4 * folder.symbols, folder.dtype))
    system = folder.system
    return FoldedSystem(
        system.inputs, system.blocks, block, system.reach, (*system.sizes, size_of(block, system.reach))
    )
