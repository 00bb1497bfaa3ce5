"""The coefficients of a node over the symbols of a folded system: dense where they spread, windows where they do not.

In: linear maps, slopes, fresh symbols. Out: Columns. Trust: sound (sums of products and nothing else; whoever uses them
accounts for their roundings).

A unit of a convolutional layer reaches a small part of the next ones: windows cost 10 to 30 times less than the
whole nodes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import Array, namespace
from formalgr.core.local import Local
from formalgr.operators.base import Shape
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.pooling import MaxPool

PIECE_BYTES = 1 << 26
"""Windows that have to become whole nodes for an operator do so in pieces of this size."""

MERGE_BYTES = 1 << 22
"""Small neighbours are joined: a product of many columns costs less than many products."""

LOCAL_ELEMENTS = 512
"""Nodes of fewer elements are kept whole: there is nothing to gain."""

SPREAD = 0.5
"""Windows that cover this share of their node are kept as whole nodes."""


class Part(ABC):
    """Coefficients over the symbols start .. start + count - 1, for a batch of boxes."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        """The first symbol beyond."""
        return self.start + self.count

    @abstractmethod
    def linear(self, operator: LinearMap, shape: Shape) -> "Part":
        """After a linear map with one input, of the given shape."""

    @abstractmethod
    def scaled(self, slopes) -> "Part":
        """After multiplying every element with its slope, (batch, *node)."""

    @abstractmethod
    def gathered(self, pick: np.ndarray, operator: MaxPool, shape: Shape) -> "Part":
        """After taking the elements `pick` (batch, outputs) of a node of the given shape, each out of its window."""

    @abstractmethod
    def sums(self, center, weights, totals, sizes) -> None:
        """Adds sum_j center_j column_j to `totals` and sum_j weights_j |column_j| to `sizes`.

        center and weights (batch, k, symbols), totals and sizes (batch, k, elements), each k its own.
        """

    @abstractmethod
    def fill(self, rows, units) -> None:
        """Puts the coefficients of the elements `units` (batch, n) into rows (batch, n, symbols).

        The units of a box are distinct; -1 stands for none.
        """

    @abstractmethod
    def dense(self, node: Shape) -> "DensePart":
        """The same as whole nodes of the given shape."""


@dataclass(frozen=True)
class DensePart(Part):
    """Whole nodes: values (batch, count, *node)."""

    start: int
    values: Array

    @property
    def count(self) -> int:
        return self.values.shape[1]

    @property
    def flat(self):
        """The values as (batch, count, elements)."""
        return namespace(self.values).reshape(self.values, (*self.values.shape[:2], -1))

    def linear(self, operator: LinearMap, shape: Shape) -> Part:
        xp, (batch, count) = namespace(self.values), self.values.shape[:2]
        made = operator.apply(xp.reshape(self.values, (batch * count, *shape)))
        return DensePart(self.start, xp.reshape(made, (batch, count, *made.shape[1:])))

    def scaled(self, slopes) -> Part:
        return DensePart(self.start, slopes[:, None] * self.values)

    def gathered(self, pick: np.ndarray, operator: MaxPool, shape: Shape) -> Part:
        box, symbol = np.arange(len(pick))[:, None, None], np.arange(self.count)[None, :, None]
        taken = self.flat[box, symbol, pick[:, None, :]]
        out = operator.out_shape(shape)
        return DensePart(self.start, namespace(taken).reshape(taken, (*taken.shape[:2], *out)))

    def sums(self, center, weights, totals, sizes) -> None:
        xp, mine = namespace(self.values), slice(self.start, self.stop)
        totals += xp.matmul(center[:, :, mine], self.flat)
        sizes += xp.matmul(weights[:, :, mine], xp.abs(self.flat))

    def fill(self, rows, units) -> None:
        box, symbol = np.arange(len(rows))[:, None, None], np.arange(self.count)[None, None, :]
        rows[:, :, self.start : self.stop] = self.flat[box, symbol, units[:, :, None]]

    def dense(self, node: Shape) -> "DensePart":
        return self


@dataclass(frozen=True)
class LocalPart(Part):
    """Windows: `local` (entries), of the symbols start + slot (entries,) of the boxes `owner` (entries,)."""

    start: int
    batch: int
    count: int
    owner: np.ndarray
    slot: np.ndarray
    local: Local

    @property
    def places(self) -> np.ndarray:
        """Position of every window element in the flattened batch of nodes, (entries, volume)."""
        return self.owner[:, None] * self.local.elements + self.local.places

    def linear(self, operator: LinearMap, shape: Shape) -> Part:
        made = operator.apply_local(self.local, shape)
        if made is None:
            return self._in_pieces(operator, shape)
        part = replace(self, local=made)
        return part.dense(operator.out_shape(shape)) if made.volume > SPREAD * made.elements else part

    def _in_pieces(self, operator: LinearMap, shape: Shape) -> "DensePart":
        result = np.zeros((self.batch, self.count, *operator.out_shape(shape)), dtype=np.float64)
        step = max(1, PIECE_BYTES // (8 * self.local.elements))
        for first in range(0, len(self.local), step):
            piece = slice(first, first + step)
            whole = self.local[piece].dense().reshape(-1, *shape)
            result[self.owner[piece], self.slot[piece]] = operator.apply(whole)
        return DensePart(self.start, result)

    def scaled(self, slopes) -> Part:
        factors = np.reshape(slopes, -1)[self.places].reshape(self.local.values.shape)
        return replace(self, local=replace(self.local, values=self.local.values * factors))

    def gathered(self, pick: np.ndarray, operator: MaxPool, shape: Shape) -> Part:
        local = self.local.reshaped(shape)
        if local is None:
            return self.dense(shape).gathered(pick, operator, shape)
        (origin, window), out = operator.local_outputs(local), operator.out_shape(shape)
        empty = Local(np.zeros((len(local), *window), dtype=np.float64), origin, out)
        values = local.at(pick[self.owner[:, None], empty.places]).reshape(empty.values.shape)
        part = replace(self, local=replace(empty, values=values))
        return part.dense(out) if part.local.volume > SPREAD * part.local.elements else part

    def sums(self, center, weights, totals, sizes) -> None:
        places, symbol = self.places.reshape(-1), self.start + self.slot
        size = self.batch * self.local.elements
        for values, factors, results in (self.local.flat, center, totals), (np.abs(self.local.flat), weights, sizes):
            for k in range(factors.shape[1]):
                weighted = (values * factors[self.owner, k, symbol][:, None]).reshape(-1)
                results[:, k] += np.bincount(places, weighted, minlength=size).reshape(self.batch, -1)

    def fill(self, rows, units) -> None:
        table = np.full((self.batch, self.local.elements), -1, dtype=np.int64)
        box, row = np.nonzero(units >= 0)
        table[box, units[box, row]] = row
        row = table.reshape(-1)[self.places]
        entry, inside = np.nonzero(row >= 0)
        place = (self.owner[entry], row[entry, inside], self.start + self.slot[entry])
        rows[place] = self.local.flat[entry, inside]

    def dense(self, node: Shape) -> DensePart:
        values = np.zeros((self.batch, self.count, *node), dtype=np.float64)
        values[self.owner, self.slot] = self.local.dense().reshape(-1, *node)
        return DensePart(self.start, values)


@dataclass(frozen=True)
class Columns:
    """Coefficients (batch, symbols, *node) as the sum of parts with different symbols; symbols in no part have none."""

    node: Shape
    parts: tuple[Part, ...]

    def linear(self, operator: LinearMap) -> "Columns":
        """After a linear map with one input."""
        made = tuple(part.linear(operator, self.node) for part in self.parts)
        return Columns(operator.out_shape(self.node), made).merged()

    def merged(self) -> "Columns":
        """The same with small neighbouring whole nodes joined, and without parts that hold nothing."""
        parts: list[Part] = []
        for part in self.parts:
            if isinstance(part, LocalPart) and not len(part.local):
                continue
            last = parts[-1] if parts else None
            if isinstance(last, DensePart) and isinstance(part, DensePart) and last.stop == part.start:
                size = 8 * np.prod(part.values.shape) + 8 * np.prod(last.values.shape)
                if size <= MERGE_BYTES:
                    joined = namespace(part.values).concat([last.values, part.values], axis=1)
                    parts[-1] = DensePart(last.start, joined)
                    continue
            parts.append(part)
        return Columns(self.node, tuple(parts))

    def whole(self, symbols: int, like):
        """All coefficients, (batch, symbols, *node), in the namespace of `like` (batch, ...)."""
        result = arrays_of.zeros(like, (like.shape[0], symbols, *self.node))
        for part in self.parts:
            result[:, part.start : part.stop] = part.dense(self.node).values
        return result

    def scaled(self, slopes) -> "Columns":
        """After multiplying every element with its slope, (batch, *node)."""
        return Columns(self.node, tuple(part.scaled(slopes) for part in self.parts))

    def gathered(self, pick: np.ndarray, operator: MaxPool) -> "Columns":
        """After taking one element out of every window of the operator, `pick` (batch, outputs)."""
        parts = tuple(part.gathered(pick, operator, self.node) for part in self.parts)
        return Columns(operator.out_shape(self.node), parts).merged()

    def plus(self, part: Part) -> "Columns":
        """With the coefficients of further symbols."""
        return Columns(self.node, (*self.parts, part)).merged()

    def sums(self, center, weights) -> tuple:
        """sum_j center_j column_j and sum_j weights_j |column_j|, (batch, k, elements), from (batch, k, symbols)."""
        elements, batch = int(np.prod(self.node, dtype=np.int64)), center.shape[0]
        totals, sizes = (arrays_of.zeros(part, (batch, part.shape[1], elements)) for part in (center, weights))
        for part in self.parts:
            part.sums(center, weights, totals, sizes)
        return totals, sizes

    def rows(self, units: np.ndarray, like, symbols: int):
        """Coefficients of the elements `units` (batch, n), (batch, n, symbols); an element may be asked for twice."""
        windows = any(isinstance(part, LocalPart) for part in self.parts)
        asked, where = _distinct(units) if windows else (units, None)
        rows = arrays_of.zeros(like, (*asked.shape, symbols))
        for part in self.parts:
            part.fill(rows, asked)
        return rows if where is None else rows[np.arange(len(units))[:, None], where]


def _distinct(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct units per box, (batch, m), -1 where there are fewer, and where each given one is among them, (batch, n).
    """
    found = [np.unique(mine, return_inverse=True) for mine in units]
    distinct = np.full((len(units), max(len(mine) for mine, _ in found)), -1, dtype=np.int64)
    for box, (mine, _) in enumerate(found):
        distinct[box, : len(mine)] = mine
    return distinct, np.stack([where.reshape(-1) for _, where in found])


def joined(operator: LinearMap, inputs: list[Columns], symbols: int, like) -> Columns:
    """After a linear map of several values; `like` (batch, ...)."""
    whole = [columns.whole(symbols, like) for columns in inputs]
    xp = namespace(whole[0])
    flat = [xp.reshape(values, (-1, *columns.node)) for values, columns in zip(whole, inputs, strict=True)]
    made = operator.apply(*flat)
    node = made.shape[1:]
    return Columns(node, (DensePart(0, xp.reshape(made, (-1, symbols, *node))),))


def at_units(start: int, units: np.ndarray, steps: np.ndarray, like, node: Shape) -> Part:
    """Symbols start .. with the coefficients steps (batch, count) at the elements `units` (batch, count) of a node."""
    batch, count = units.shape
    elements = int(np.prod(node, dtype=np.int64))
    if isinstance(like, np.ndarray) and elements >= LOCAL_ELEMENTS:
        owner, slot = np.nonzero(steps)
        points = Local(steps[owner, slot][:, None], units[owner, slot][:, None], (elements,))
        return LocalPart(start, batch, count, owner, slot, points.reshaped(tuple(node)))
    values = arrays_of.zeros(like, (batch, count, elements))
    xp = namespace(values)
    fresh = xp.asarray(np.array(steps), device=getattr(like, "device", None))
    values[np.arange(batch)[:, None], np.arange(count)[None, :], units] = fresh
    return DensePart(start, xp.reshape(values, (batch, count, *node)))


def identity(free: np.ndarray, like, node: Shape) -> Columns:
    """The network input: one symbol per input, without coefficients where it is not free, (batch, inputs) bool."""
    units = np.zeros(free.shape, dtype=np.int64) + np.arange(free.shape[1])
    return Columns(tuple(node), (at_units(0, units, free.astype(np.float64), like, node),)).merged()
