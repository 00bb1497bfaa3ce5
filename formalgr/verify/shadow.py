"""What the checker of certificates will find, in floats and for many boxes at once.

In: the checker's Program, boxes, phases. Out: forms below its outputs, their minima, open units. Trust: heuristic: a
certificate stands on the checker alone, this only tells where to split.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.search.reduce import padded_indices
from formalgr.verify.checker.steps import SLOPE_BITS, Bend, Blend, Product
from formalgr.verify.checker.walk import Program


@dataclass(frozen=True)
class Tables:
    """Kinks (k, n), slopes and intercepts (k + 1, n) of the units of a Bend, missing kinks at infinity."""

    kinks: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray


@dataclass(frozen=True)
class Block:
    """Open units `units` (boxes, count; padding where not valid) of activation `bend` as symbols from `start` on.

    They lie between forms of earlier symbols; `low`, `high`: ranges of their arguments; gap: how far the forms are
    apart in the middle.
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

    parts: per block the coefficients (boxes, rows, count) with which its units were replaced. arguments: per activation
    the forms of its arguments; pieces: which (first, last) each unit may lie on, (boxes, units, 2).
    """

    forms: np.ndarray
    minima: np.ndarray
    units: np.ndarray
    parts: list
    space: "_Space"
    arguments: list
    pieces: list

    def lower_forms(self, box: int, rows: list[tuple[int, int, float, float]]) -> np.ndarray:
        """Forms of the inputs (rows, 1 + inputs) below sign * (argument - kink) for (activation, unit, sign, kink)."""
        made = np.zeros((1, len(rows), self.space.low.shape[1]), dtype=self.forms.dtype)
        for k, (bend, unit, sign, kink) in enumerate(rows):
            argument = self.arguments[bend][box, unit]
            made[0, k, : len(argument)] = sign * argument
            made[0, k, 0] -= sign * kink
        return self.space.lower_forms(made, slice(box, box + 1))[0][0]


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
        identity = np.zeros((boxes, self.inputs, self.inputs + 1), dtype=self._dtype)
        identity[:, np.arange(self.inputs), np.arange(1, self.inputs + 1)] = 1.0
        values, arguments, pieces = [identity], [], []
        for step in self._steps:
            if isinstance(step, tuple):
                arguments.append(values[step[0].source])
                values.append(_bend(arguments[-1], step[1], space, pieces, allowed or {}))
            else:
                values.append(step(values))
        forms, parts = space.lower_forms(values[-1])
        units = sum((block.valid.sum(axis=1) for block in space.blocks), np.zeros(boxes, dtype=np.int64))
        return Shadows(forms, space.minima(forms), units, parts, space, arguments, pieces)


def floats(values, divisor: int) -> np.ndarray:
    """values / divisor, the largest float where that overflows."""
    flat = [_ratio(int(value), divisor) for value in np.asarray(values, dtype=object).reshape(-1).tolist()]
    return np.array(flat, dtype=np.float64).reshape(np.shape(values))


def _joined(values: list[np.ndarray]) -> np.ndarray:
    if len(values) == 1:
        return values[0]
    width = max(value.shape[2] for value in values)
    return np.concatenate([_wide(value, width) for value in values], axis=1)


def _wide(rows: np.ndarray, width: int) -> np.ndarray:
    if rows.shape[2] == width:
        return rows
    return np.concatenate([rows, np.zeros((*rows.shape[:2], width - rows.shape[2]), dtype=rows.dtype)], axis=2)


def _float_step(step, dtype):
    """A function of the values so far, or a Bend and its numbers."""
    if isinstance(step, Bend):
        count = max(len(table.kinks) for table in step.tables)
        kinks = np.full((count, len(step.tables)), np.inf, dtype=np.float64)
        slopes, intercepts = np.zeros((2, count + 1, len(step.tables)), dtype=np.float64)
        for index, table in enumerate(step.tables):
            pad = count - len(table.kinks)
            kinks[: len(table.kinks), index] = [_number(x) for x in table.kinks]
            slopes[:, index] = [*map(_number, table.slopes), *[0.0] * pad]
            intercepts[:, index] = [*map(_number, table.intercepts), *[0.0] * pad]
        return step, Tables(*(part[:, step.which].astype(dtype) for part in (kinks, slopes, intercepts)))
    if isinstance(step, Blend):
        return _blend(step, dtype)
    return _product(step, dtype)


def _number(x) -> float:
    return _ratio(int(x.numerator), int(x.denominator))


def _ratio(top: int, bottom: int) -> float:
    """The quotient, or the largest float of its sign."""
    try:
        return top / bottom
    except OverflowError:
        return float(np.copysign(np.finfo(np.float64).max, 1 if top > 0 else -1))


def _blend(step: Blend, dtype):
    factor, shift = (floats(part, step.divisor).astype(dtype) for part in (step.factor, step.shift))

    def apply(values):
        rows = _joined([values[k] for k in step.sources])[:, step.index]
        made = _shifted(rows * np.reshape(factor, (-1, 1)), shift)
        if step.addend is None:
            return made
        addend = values[step.addend[0]][:, step.addend[1]]
        width = max(made.shape[2], addend.shape[2])
        return _wide(made, width) + _wide(addend, width)

    return apply


def _shifted(rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    rows[:, :, 0] += shift
    return rows


def _product(step: Product, dtype):
    matrices = np.stack([floats(matrix.entries, step.divisor).astype(dtype) for matrix in step.weights])
    shift, gather = floats(step.shift, step.divisor).astype(dtype), step.gather

    def apply(values):
        rows = _joined([values[k] for k in step.sources])
        if gather is None:
            return _shifted(np.matmul(matrices[0], rows), shift)
        padded = np.concatenate([rows, np.zeros_like(rows[:, :1])], axis=1)
        picked = padded[:, gather]  # (boxes, groups, terms, places, symbols)
        made = np.matmul(matrices[None], picked.reshape(*picked.shape[:3], -1))
        return _shifted(made.reshape(len(rows), -1, rows.shape[2]), shift)

    return apply


class _Space:
    """Ranges of symbols and the lines that enclose them, as checker/forms.Space."""

    def __init__(self, low: np.ndarray, high: np.ndarray):
        one = np.ones((len(low), 1), dtype=low.dtype)
        self.inputs = low.shape[1]
        self.low, self.high = np.concatenate([one, low], axis=1), np.concatenate([one, high], axis=1)
        self.blocks: list[Block] = []

    def ranges(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = rows.shape[2]
        low, high = self.low[:, :width], self.high[:, :width]
        middle = np.matmul(rows, (0.5 * (low + high))[:, :, None])[:, :, 0]
        reach = np.matmul(np.abs(rows), (0.5 * (high - low))[:, :, None])[:, :, 0]
        return middle - reach, middle + reach

    def open(self, block: Block, least: np.ndarray, most: np.ndarray) -> None:
        self.blocks.append(block)
        self.low = np.concatenate([self.low, least], axis=1)
        self.high = np.concatenate([self.high, most], axis=1)

    def lower_forms(self, rows: np.ndarray, boxes=slice(None)) -> tuple[np.ndarray, list]:
        rows, parts = _wide(rows, self.low.shape[1]), []
        for block in reversed(self.blocks):
            part, rows = rows[:, :, block.start :], rows[:, :, : block.start]
            rows = rows + np.matmul(np.maximum(part, 0.0), block.below[boxes])
            rows += np.matmul(np.minimum(part, 0.0), block.above[boxes])
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
        chosen = rows[boxes, units]
        least = space.minima(space.lower_forms(np.concatenate([chosen, -chosen], axis=1))[0])
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
    made = rows * slope[:, :, None]
    made[:, :, 0] += intercept
    units, valid = padded_indices(open_)
    if units.shape[1] == 0:
        return made
    chosen = rows[boxes, units] * valid[:, :, None]
    low, high = (np.where(valid, end[boxes, units], 0.0) for end in (low, high))
    tables = (part[:, units] for part in (data.kinks, data.slopes, data.intercepts))
    below, above, least, most = _lines(low, high, *tables)
    ends, middle = [], 0.5 * (low + high)
    for slope, offset in (below, above):
        line = chosen * slope[:, :, None]
        line[:, :, 0] += np.where(valid, offset, 0.0)
        ends.append(line)
    start = space.low.shape[1]
    gap = np.where(valid, (above[0] - below[0]) * middle + above[1] - below[1], 0.0)
    block = Block(start, *(_wide(line, start) for line in ends), number, units, valid, low, high, gap)
    space.open(block, np.where(valid, least, 0.0), np.where(valid, most, 0.0))
    made = _wide(made, space.low.shape[1])
    which, slot = np.nonzero(valid)
    made[which, units[which, slot]] = 0.0
    made[which, units[which, slot], start + slot] = 1.0
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


def _lines(low, high, kinks, slopes, intercepts) -> tuple:
    """(slope, offset) of the lines below and above, and the range of the function; all (boxes, units)."""
    xs = [low, *(np.clip(kink, low, high) for kink in kinks), high]
    ys = []
    for x in xs:
        piece = np.zeros(low.shape, dtype=np.int64)
        for kink in kinks:
            piece += x > kink
        ys.append(np.take_along_axis(slopes, piece[None], 0)[0] * x + np.take_along_axis(intercepts, piece[None], 0)[0])
    middle = 0.5 * (low + high)
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
    rest_low = np.min([y - slope_low * x for x, y in zip(xs, ys, strict=True)], axis=0)
    rest_high = np.max([y - slope_high * x for x, y in zip(xs, ys, strict=True)], axis=0)
    return (slope_low, rest_low), (slope_high, rest_high), np.min(ys, axis=0), np.max(ys, axis=0)
