"""What the checker of certificates will find, in floats and for many boxes at once.

In: the checker's Program, boxes, phases. Out: forms below its outputs, their minima, open units. Trust: heuristic: a
certificate stands on the checker alone, this only tells where to split. Affine forms are (boxes, symbols, elements), so
that one matrix product takes all forms of a batch through a layer.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.search.reduce import padded_indices
from formalgr.verify.checker.steps import SLOPE_BITS, Bend, Blend, Product
from formalgr.verify.checker.walk import Program

TIE = 1e-6
"""A kink so near to the middle of a range, relative to its width, may lie on either side of it for the checker."""


@dataclass(frozen=True)
class Tables:
    """Kinks (k, n), slopes and intercepts (k + 1, n) of the units of a Bend, missing kinks at infinity."""

    kinks: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray


@dataclass(frozen=True)
class Block:
    """Open units `units` (boxes, count; padding where not valid) of activation `bend` as symbols from `start` on.

    They lie between forms of earlier symbols (boxes, start, count); `low`, `high`: ranges of their arguments; gap: how
    far the forms are apart in the middle.
    """

    start: int
    below: np.ndarray
    above: np.ndarray
    bend: int
    units: np.ndarray
    valid: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class Shadows:
    """Per box: forms (boxes, rows, 1 + inputs) below the rows, their minima (boxes, rows), open units (boxes,).

    parts: per block the coefficients (boxes, count, rows) with which its units were replaced. arguments: per activation
    the forms of its arguments; pieces: which (first, last) each unit may lie on, (boxes, units, 2). tied (boxes,):
    rounding decides which lines some unit is put between.
    """

    forms: np.ndarray
    minima: np.ndarray
    units: np.ndarray
    parts: list
    space: "_Space"
    arguments: list
    pieces: list
    tied: np.ndarray

    def lower_forms(self, box: int, rows: list[tuple[int, int, float, float]]) -> np.ndarray:
        """Forms of the inputs (rows, 1 + inputs) below sign * (argument - kink) for (activation, unit, sign, kink)."""
        made = np.zeros((1, self.space.low.shape[1], len(rows)), dtype=self.forms.dtype)
        for k, (bend, unit, sign, kink) in enumerate(rows):
            argument = self.arguments[bend][box, :, unit]
            made[0, : len(argument), k] = sign * argument
            made[0, 0, k] -= sign * kink
        return self.space.lower_forms(made, slice(box, box + 1))[0][0].T


class Shadow:
    """A program in floats; `bound` is one batched pass."""

    def __init__(self, program: Program, dtype=np.float64):
        self.inputs, self._dtype = program.inputs, dtype
        self._steps = [_float_step(step, dtype) for step in program.steps]
        self.bends = [step for step in program.steps if isinstance(step, Bend)]

    def bound(self, low: np.ndarray, high: np.ndarray, allowed: dict[int, np.ndarray] | None = None) -> Shadows:
        """low, high (boxes, inputs); allowed: number of a Bend -> first and last pieces (boxes, units, 2)."""
        space = _Space(low.astype(self._dtype), high.astype(self._dtype))
        boxes = len(low)
        identity = np.tile(np.eye(self.inputs + 1, self.inputs, -1, dtype=self._dtype), (boxes, 1, 1))
        values, arguments, pieces = [identity], [], []
        for step in self._steps:
            if isinstance(step, tuple):
                arguments.append(values[step[0].source])
                values.append(_bend(arguments[-1], step[1], space, pieces, allowed or {}))
            else:
                values.append(step(values))
        forms, parts = space.lower_forms(values[-1])
        units = sum((block.valid.sum(axis=1) for block in space.blocks), np.zeros(boxes, dtype=np.int64))
        rows = np.swapaxes(forms, 1, 2)
        return Shadows(rows, space.minima(forms), units, parts, space, arguments, pieces, space.tied)


def sizes(forms: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What forms (boxes, rows, 1 + inputs) sum up at most over boxes low, high (boxes, inputs), (boxes, rows)."""
    reach = np.maximum(np.abs(low), np.abs(high))
    return np.abs(forms[:, :, 0]) + np.matmul(np.abs(forms[:, :, 1:]), reach[:, :, None])[:, :, 0]


def floats(values, divisor: int) -> np.ndarray:
    """values / divisor, the largest float where that overflows."""
    whole = np.asarray(values, dtype=object)
    try:
        return whole.astype(np.float64) / float(divisor)
    except OverflowError:
        flat = [number(Fraction(int(value), divisor)) for value in whole.reshape(-1).tolist()]
        return np.array(flat, dtype=np.float64).reshape(whole.shape)


def tables_of(step: Bend, dtype) -> Tables:
    """The functions of all units of an activation."""
    count = max(len(table.kinks) for table in step.tables)
    kinks = np.full((count, len(step.tables)), np.inf, dtype=np.float64)
    slopes, intercepts = np.zeros((2, count + 1, len(step.tables)), dtype=np.float64)
    for index, table in enumerate(step.tables):
        pad = count - len(table.kinks)
        kinks[: len(table.kinks), index] = [number(x) for x in table.kinks]
        slopes[:, index] = [*map(number, table.slopes), *[0.0] * pad]
        intercepts[:, index] = [*map(number, table.intercepts), *[0.0] * pad]
    return Tables(*(part[:, step.which].astype(dtype) for part in (kinks, slopes, intercepts)))


def values_at(low: np.ndarray, high: np.ndarray, tables: Tables) -> tuple[list, list]:
    """Points x and f(x) of all units, (boxes, units) each: both ends of the ranges and the kinks between, in order."""
    xs, ys = [low, *(np.clip(kink, low, high) for kink in tables.kinks), high], []
    for x in xs:
        y = tables.slopes[0] * x + tables.intercepts[0]
        for kink, slope, intercept in zip(tables.kinks, tables.slopes[1:], tables.intercepts[1:], strict=True):
            y = np.where(x > kink, slope * x + intercept, y)
        ys.append(y)
    return xs, ys


def lines_around(xs: list, ys: list) -> tuple:
    """(slope, offset) of the lines below and above the points: those of the hull edges over the middle of the range."""
    low, middle = xs[0], 0.5 * (xs[0] + xs[-1])
    best_low, best_high = (np.full(low.shape, end, dtype=low.dtype) for end in (np.inf, -np.inf))
    slope_low, slope_high = np.zeros((2, *low.shape), dtype=low.dtype)
    for k in range(len(xs)):
        for j in range(k + 1, len(xs)):
            width = xs[j] - xs[k]
            spans = (xs[k] <= middle) & (middle <= xs[j]) & (width > 0.0)
            slope = (ys[j] - ys[k]) / np.where(width > 0.0, width, 1.0)
            at = ys[k] + slope * (middle - xs[k])
            below, above = spans & (at < best_low), spans & (at > best_high)
            best_low, slope_low = np.where(below, at, best_low), np.where(below, slope, slope_low)
            best_high, slope_high = np.where(above, at, best_high), np.where(above, slope, slope_high)
    scale = float(1 << SLOPE_BITS)
    slope_low, slope_high = np.floor(slope_low * scale) / scale, np.floor(slope_high * scale) / scale
    rest_low = np.minimum.reduce([y - slope_low * x for x, y in zip(xs, ys, strict=True)])
    rest_high = np.maximum.reduce([y - slope_high * x for x, y in zip(xs, ys, strict=True)])
    return (slope_low, rest_low), (slope_high, rest_high)


def _joined(values: list[np.ndarray]) -> np.ndarray:
    if len(values) == 1:
        return values[0]
    width = max(value.shape[1] for value in values)
    return np.concatenate([_wide(value, width) for value in values], axis=2)


def _wide(rows: np.ndarray, width: int) -> np.ndarray:
    """The forms with zeros for symbols that came later."""
    boxes, symbols, elements = rows.shape
    if symbols == width:
        return rows
    made = np.zeros((boxes, width, elements), dtype=rows.dtype)
    made[:, :symbols] = rows
    return made


def _float_step(step, dtype):
    """A function of the values so far, or a Bend and its numbers."""
    if isinstance(step, Bend):
        return step, tables_of(step, dtype)
    if isinstance(step, Blend):
        return _blend(step, dtype)
    return _product(step, dtype)


def number(x) -> float:
    """A rational as the nearest float, the largest one where that overflows."""
    try:
        return int(x.numerator) / int(x.denominator)
    except OverflowError:
        return float(np.copysign(np.finfo(np.float64).max, 1 if x > 0 else -1))


def _blend(step: Blend, dtype):
    terms = [(index, floats(factor, step.divisor).astype(dtype)) for index, factor in step.terms]
    shift = floats(step.shift, step.divisor).astype(dtype)

    def apply(values):
        rows = _joined([values[k] for k in step.sources])
        return _shifted(sum(rows[:, :, index] * factor for index, factor in terms), shift)

    return apply


def _shifted(rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    rows[:, 0] += shift
    return rows


def _product(step: Product, dtype):
    matrices = np.stack([floats(matrix.entries, step.divisor).astype(dtype) for matrix in step.weights])
    shift, gather = floats(step.shift, step.divisor).astype(dtype), step.gather

    def apply(values):
        rows = _joined([values[k] for k in step.sources])
        if gather is None:
            return _shifted(_times(rows, matrices[0].T), shift)
        padded = np.concatenate([rows, np.zeros_like(rows[:, :, :1])], axis=2)
        picked = padded[:, :, gather]  # (boxes, symbols, groups, terms, places)
        return _shifted(np.matmul(matrices, picked).reshape(*rows.shape[:2], -1), shift)

    return apply


def _times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Forms times a matrix (elements, made), as one product."""
    return (rows.reshape(-1, rows.shape[2]) @ matrix).reshape(*rows.shape[:2], -1)


class _Space:
    """Ranges of symbols and the lines that enclose them, as checker/forms.Space."""

    def __init__(self, low: np.ndarray, high: np.ndarray):
        one = np.ones((len(low), 1), dtype=low.dtype)
        self.inputs = low.shape[1]
        self.low, self.high = np.concatenate([one, low], axis=1), np.concatenate([one, high], axis=1)
        self.blocks: list[Block] = []
        self.tied = np.zeros(len(low), dtype=bool)

    def ranges(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = rows.shape[1]
        low, high = self.low[:, None, :width], self.high[:, None, :width]
        middle = np.matmul(0.5 * (low + high), rows)[:, 0]
        reach = np.matmul(0.5 * (high - low), np.abs(rows))[:, 0]
        return middle - reach, middle + reach

    def open(self, block: Block, least: np.ndarray, most: np.ndarray) -> None:
        self.blocks.append(block)
        self.low = np.concatenate([self.low, least], axis=1)
        self.high = np.concatenate([self.high, most], axis=1)

    def lower_forms(self, rows: np.ndarray, boxes=slice(None)) -> tuple[np.ndarray, list]:
        rows, parts = _wide(rows, self.low.shape[1]), []
        for block in reversed(self.blocks):
            part, rows = rows[:, block.start :], rows[:, : block.start]
            rows = rows + np.matmul(block.below[boxes], np.maximum(part, 0.0))
            rows += np.matmul(block.above[boxes], np.minimum(part, 0.0))
            parts.append(part)
        return rows, parts[::-1]

    def minima(self, forms: np.ndarray) -> np.ndarray:
        return self.ranges(forms)[0]


def _bend(rows: np.ndarray, data: Tables, space: _Space, found: list, splits: dict) -> np.ndarray:
    number = len(found)
    allowed = splits.get(number)
    low, high = space.ranges(rows)
    first, last = _pieces(data, low, high, allowed)
    boxes = np.arange(len(rows))[:, None]
    if space.blocks and np.any(first < last):
        units, valid = padded_indices(first < last)
        chosen = np.take_along_axis(rows, units[:, None], 2)
        least = space.minima(space.lower_forms(np.concatenate([chosen, -chosen], axis=2))[0])
        count = units.shape[1]
        which = np.nonzero(valid)
        place = which[0], units[which]
        low[place] = np.maximum(low[place], least[:, :count][which])
        high[place] = np.maximum(low[place], np.minimum(high[place], -least[:, count:][which]))
        first, last = _pieces(data, low, high, allowed)
    if allowed is not None:
        element = np.arange(low.shape[1])[None]
        kinks = np.concatenate([0 * low[:1] - np.inf, data.kinks, 0 * low[:1] + np.inf])
        low, high = np.maximum(low, kinks[first, element]), np.minimum(high, kinks[last + 1, element])
        high = np.maximum(low, high)
    open_ = first < last
    found.append(np.stack([first, last], axis=2))
    element = np.arange(low.shape[1])[None]
    slope, intercept = data.slopes[first, element], data.intercepts[first, element]
    made = _shifted(rows * slope[:, None], intercept)
    units, valid = padded_indices(open_)
    if units.shape[1] == 0:
        return made
    chosen = np.take_along_axis(rows, units[:, None], 2) * valid[:, None]
    low, high = (np.where(valid, end[boxes, units], 0.0) for end in (low, high))
    chosen_tables = Tables(*(part[:, units] for part in (data.kinks, data.slopes, data.intercepts)))
    xs, ys = values_at(low, high, chosen_tables)
    below, above = lines_around(xs, ys)
    ends, middle = [], 0.5 * (low + high)
    near = np.abs(chosen_tables.kinks - middle) <= TIE * (high - low)
    space.tied |= np.any(near & valid, axis=(0, 2))
    for slope, offset in (below, above):
        ends.append(_shifted(chosen * slope[:, None], np.where(valid, offset, 0.0)))
    start = space.low.shape[1]
    gap = np.where(valid, (above[0] - below[0]) * middle + above[1] - below[1], 0.0)
    block = Block(start, *(_wide(line, start) for line in ends), number, units, valid, low, high, gap)
    space.open(block, *(np.where(valid, end.reduce(ys), 0.0) for end in (np.minimum, np.maximum)))
    made = _wide(made, space.low.shape[1])
    which, slot = np.nonzero(valid)
    made[which, :, units[which, slot]] = 0.0
    made[which, start + slot, units[which, slot]] = 1.0
    return made


def _pieces(data: Tables, low, high, allowed) -> tuple[np.ndarray, np.ndarray]:
    first = np.zeros(low.shape, dtype=np.int64)
    last = np.zeros(low.shape, dtype=np.int64)
    for kink in data.kinks:
        first += low >= kink
        last += high > kink
    last = np.maximum(first, last)
    if allowed is not None:
        first = np.minimum(np.maximum(first, allowed[:, :, 0]), allowed[:, :, 1])
        last = np.maximum(np.minimum(last, allowed[:, :, 1]), first)
    return first, last
