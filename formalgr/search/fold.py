"""Folding: a graph over a batch of boxes becomes a folded system per box; bounds and elimination go layer by layer.

In: Graph of linear maps and piecewise linear activations, boxes, output rows. Out: Folded. Trust: sound.

Every node is kept as an affine function of the inputs and of the unstable hinges met so far, with an error radius. At
an activation the pre-activations are bounded (cheaply, then backward through the system where that leaves them open),
stable pieces are applied exactly, and only the unstable hinges become new symbols.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.bounds.base import Rows
from formalgr.bounds.folded import Hinges, hinges, row_bounds
from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace
from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem, floor_of, size_of
from formalgr.core.linear import check_bounds
from formalgr.core.rounding import SLACK, dtype_name, gamma, is_exact_difference, underflow
from formalgr.graph.graph import Graph
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.piecewise import Piecewise
from formalgr.search.reduce import padded_indices


def foldable(graph: Graph) -> bool:
    """Whether every operator of the graph is a linear map or a piecewise linear activation."""
    return all(isinstance(node.operator, (LinearMap, Piecewise)) for node in graph.nodes)


@dataclass(frozen=True)
class Folded:
    """A folded system per box with the bounds of its units over that box, and their relaxations."""

    system: FoldedSystem
    bounds: list
    relaxed: list[Hinges]


@dataclass(frozen=True)
class _Value:
    """A node as columns over (z, y): columns (batch, symbols, *node), constant and radius (batch, *node)."""

    columns: object
    constant: object
    radius: object


class _Folder:
    """The state while one batch is folded."""

    def __init__(self, graph: Graph, box: Box):
        self.graph = graph
        self.box = box
        self.xp = namespace(box.lower)
        self.dtype = dtype_name(box.lower)
        self.batch = len(box)
        self.system = FoldedSystem(
            box.inputs, (), None, self.xp.maximum(self.xp.abs(box.lower), self.xp.abs(box.upper))
        )
        self.bounds: list = []
        self.relaxed: list[Hinges] = []

    @property
    def symbols(self) -> int:
        """Number of symbols so far, inputs included."""
        return self.system.inputs + self.system.units

    def input(self) -> _Value:
        """The network input: the identity over z."""
        shape = self.graph.input_shape
        eye = arrays_of.zeros(self.box.lower, (self.batch, self.box.inputs, self.box.inputs))
        index = np.arange(self.box.inputs)
        eye[:, index, index] = 1.0
        nothing = arrays_of.zeros(self.box.lower, (self.batch, *shape))
        return _Value(self.xp.reshape(eye, (self.batch, self.box.inputs, *shape)), nothing, nothing)

    def widened(self, value: _Value) -> _Value:
        """The value with zero columns for the symbols that came after it."""
        missing = self.symbols - value.columns.shape[1]
        if not missing:
            return value
        zeros = arrays_of.zeros(value.columns, (self.batch, missing, *value.columns.shape[2:]))
        return _Value(self.xp.concat([value.columns, zeros], axis=1), value.constant, value.radius)

    def linear(self, operator: LinearMap, values: list[_Value]) -> _Value:
        """A linear map applied to columns, constant and error radius."""
        xp, batch = self.xp, self.batch
        values = [self.widened(value) for value in values]
        flat = [xp.reshape(v.columns, (batch * self.symbols, *v.columns.shape[2:])) for v in values]
        columns = operator.apply(*flat)
        columns = xp.reshape(columns, (batch, self.symbols, *columns.shape[1:]))
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
        """Upper bound (up to SLACK) of |columns| . reach + |constant|, plus `floor`, (batch, *node)."""
        xp = self.xp
        flat = xp.reshape(xp.abs(value.columns), (self.batch, value.columns.shape[1], -1))
        total = xp.matmul(self.system.reach[:, None, : value.columns.shape[1]], flat)[:, 0]
        return xp.reshape(total, value.constant.shape) + xp.abs(value.constant) + self.floor(value.constant)

    def rows(self, value: _Value, units) -> Block:
        """The value's elements `units` (batch, count) as rows over the symbols."""
        xp, batch = self.xp, self.batch
        which = np.arange(batch)[:, None]
        columns = xp.reshape(value.columns, (batch, value.columns.shape[1], -1))
        flat_constant = xp.reshape(value.constant, (batch, -1))[which, units]
        flat_radius = xp.reshape(value.radius, (batch, -1))[which, units]
        picked = columns[np.arange(batch)[:, None, None], np.arange(columns.shape[1])[None, None, :], units[:, :, None]]
        return Block(picked, flat_constant, flat_radius)

    def cheap_bounds(self, value: _Value):
        """(lower, upper) of all elements from the ranges of z and y alone, (batch, elements)."""
        xp, batch = self.xp, self.batch
        flat = xp.reshape(value.columns, (batch, value.columns.shape[1], -1))
        center, radius = [self.box.center], [self.box.radius]
        for block, ends in zip(self.system.blocks, self.bounds, strict=True):
            low, high = (block.values(end) for end in ends)
            center.append(0.5 * low + 0.5 * high)
            radius.append((0.5 * high - 0.5 * low) * (1.0 + gamma(4, self.dtype)))
        center, radius = (xp.concat(parts, axis=1)[:, None, : flat.shape[1]] for parts in (center, radius))
        constant = xp.reshape(value.constant, (batch, -1))
        middle = xp.matmul(center, flat)[:, 0] + constant
        reach = xp.matmul(radius, xp.abs(flat))[:, 0]
        factor = gamma(2 * self.symbols + 16, self.dtype)
        error = xp.reshape(value.radius + factor * self.size(value), (batch, -1))
        reach = reach * SLACK + error * SLACK + underflow(4 * self.symbols + 16, self.dtype)
        lower, upper = middle - reach, middle + reach
        check_bounds(lower, upper, "a folded node")
        return lower, upper

    def activation(self, operator: Piecewise, value: _Value) -> _Value:
        """The activation applied: stable pieces exactly, unstable hinges as new symbols."""
        value = self.widened(value)
        lower, upper = self.cheap_bounds(value)
        tables = operator.spread(value.constant.shape[1:])
        lower, upper = self.refine(value, lower, upper, tables[0])
        value, lower, upper, moved = self.rounded_off(value, lower, upper, tables)
        made = self.eliminate(value, lower, upper, tables)
        return _Value(made.columns, made.constant, made.radius + moved)

    def refine(self, value: _Value, lower, upper, breakpoints):
        """Backward bounds of the elements whose cheap bounds leave a hinge unsettled."""
        if not self.system.blocks:
            return lower, upper
        open_ = _any_open(lower, upper, breakpoints)
        units, valid = padded_indices(open_)
        if not units.shape[1]:
            return lower, upper
        block = self.rows(value, units)
        low, high = row_bounds(self.system, self.relaxed, block, size_of(block, self.system.reach), self.box)
        which = np.nonzero(valid)
        lower, upper = arrays_of.copy(lower), arrays_of.copy(upper)
        target = (which[0], units[which])
        lower[target] = self.xp.maximum(lower[target], low[which])
        upper[target] = self.xp.maximum(lower[target], self.xp.minimum(upper[target], high[which]))
        return lower, upper

    def rounded_off(self, value: _Value, lower, upper, tables) -> tuple:
        """The value clamped to bounds that end at a kink where they pass it by rounding only; what f changes by that.

        A range that ends at a kink (a pixel after Relu, before Clip) would otherwise make a unit of it. The clamped
        value is off by at most `noise`, which goes into its radius, and f by at most the largest |slope| times that.
        """
        xp, shape = self.xp, value.constant.shape
        breakpoints, slopes, _ = tables
        noise = 4.0 * (value.radius + gamma(2 * self.symbols + 16, self.dtype) * self.size(value))
        noise = xp.reshape(noise, lower.shape)
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
        radius = value.radius + xp.reshape(noise, shape)
        return _Value(value.columns, value.constant, radius), lower, upper, xp.reshape(steepest * noise, shape)

    def eliminate(self, value: _Value, lower, upper, tables) -> _Value:
        """Replace each element by its stable piece plus new symbols for its unstable units."""
        xp, batch = self.xp, self.batch
        breakpoints, slopes, intercepts = tables
        device = getattr(lower, "device", None)
        low, high = (arrays_of.to_numpy(end) for end in (lower, upper))
        caps = _caps(breakpoints, slopes)
        piece, open_ = _pieces(low, high, breakpoints, caps)
        element = np.arange(low.shape[1])[None, :]
        shape = value.constant.shape
        slope = xp.reshape(xp.asarray(slopes[piece, element], device=device), shape)
        intercept = xp.reshape(xp.asarray(intercepts[piece, element], device=device), shape)
        plain = ((slope == 0.0) | (xp.abs(slope) == 1.0)) & (intercept == 0.0)
        size = xp.abs(slope) * self.size(value) + xp.abs(intercept)
        rounding = gamma(4, self.dtype) * (size + self.floor(size))
        radius = xp.abs(slope) * value.radius * (1.0 + gamma(4, self.dtype)) + xp.where(plain, 0.0 * slope, rounding)
        made = _Value(slope[:, None] * value.columns, slope * value.constant + intercept, radius)
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
        self.bounds.append((low, high))
        self.relaxed.append(hinges(low, high, cap))
        reach = xp.concat([self.system.reach, block.values(high)], axis=1)
        sizes = (*self.system.sizes, size_of(block, self.system.reach))
        self.system = FoldedSystem(self.system.inputs, (*self.system.blocks, block), None, reach, sizes)

    def _with_symbols(self, made: _Value, units, steps, exact: bool) -> _Value:
        """The value with step * y added to the elements `units`, y being the symbols of the newest block."""
        xp, batch = self.xp, self.batch
        count, elements = units.shape[1], int(np.prod(made.constant.shape[1:]))
        fresh = arrays_of.zeros(made.columns, (batch, count, elements))
        device = getattr(made.columns, "device", None)
        fresh[np.arange(batch)[:, None], np.arange(count)[None, :], units] = xp.asarray(steps, device=device)
        fresh = xp.reshape(fresh, (batch, count, *made.constant.shape[1:]))
        columns = xp.concat([made.columns, fresh], axis=1)
        if exact:
            return _Value(columns, made.constant, made.radius)
        size = xp.sum(xp.abs(fresh) * xp.reshape(
            self.system.reach[:, -count:], (batch, count, *(1,) * (fresh.ndim - 2))), axis=1)
        return _Value(columns, made.constant, made.radius + gamma(4, self.dtype) * (size + self.floor(size)))


def _any_open(lower, upper, breakpoints) -> np.ndarray:
    """Elements with a breakpoint strictly inside their bounds, (batch, elements) bool."""
    low, high = (arrays_of.to_numpy(end) for end in (lower, upper))
    return ((low[:, None, :] < breakpoints[None]) & (high[:, None, :] > breakpoints[None])).any(axis=1)


def _caps(breakpoints: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Caps of the units that start at each breakpoint, (k, elements): infinite where no clipped unit does.

    A clipped unit joins two neighbouring breakpoints with opposite steps, where the distance is exact in float64.
    """
    caps = np.full(breakpoints.shape, np.inf)
    for k in range(len(breakpoints) - 1):
        distance = breakpoints[k + 1] - breakpoints[k]
        free = np.isinf(caps[k - 1]) if k else True
        joined = free & (slopes[k] == slopes[k + 2]) & (slopes[k] != slopes[k + 1]) & (distance > 0.0)
        joined = joined & is_exact_difference(breakpoints[k + 1], breakpoints[k])
        caps[k] = np.where(joined, distance, np.inf)
    return caps


def _pieces(low: np.ndarray, high: np.ndarray, breakpoints: np.ndarray, caps: np.ndarray) -> tuple:
    """The piece that each element is written with, (batch, elements), and where units start, (batch, k, elements).

    A clipped unit whose end alone lies in the bounds is written from the piece before its start.
    """
    piece = (low[:, None, :] >= breakpoints[None]).sum(axis=1)
    open_ = (low[:, None, :] < breakpoints[None]) & (high[:, None, :] > breakpoints[None])
    for k in range(len(breakpoints) - 1):
        ends = open_[:, k + 1] & np.isfinite(caps[k])
        piece = np.where(ends & (piece == k + 1), k, piece)
        open_[:, k] |= ends
        open_[:, k + 1] &= ~ends
    return piece, open_


def fold(graph: Graph, box: Box, rows: Rows) -> Folded:
    """Folded systems of the quantities rows.matrix . output - rows.bounds over each box; see `foldable`."""
    folder = _Folder(graph, box)
    values: list[_Value | None] = [folder.input()]
    for index, node in enumerate(graph.nodes, start=1):
        inputs = [values[i] for i in node.inputs]
        if isinstance(node.operator, LinearMap):
            values.append(folder.linear(node.operator, inputs))
        else:
            values.append(folder.activation(node.operator, inputs[0]))
        for source in node.inputs:
            if graph.last_use[source] == index:
                values[source] = None
    return Folded(_with_outputs(folder, values[-1], rows), folder.bounds, folder.relaxed)


def _with_outputs(folder: _Folder, output: _Value, rows: Rows) -> FoldedSystem:
    """The finished system with its output rows; the coefficients of `rows` are off by at most u relatively."""
    xp, batch = folder.xp, folder.batch
    output = folder.widened(output)
    columns = xp.reshape(output.columns, (batch, folder.symbols, -1))
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
