"""What the checker of certificates will find, in floats and for many boxes at once.

In: the checker's Program, boxes, phases. Out: forms below its outputs, their minima, open units. Trust: heuristic: a
certificate stands on the checker alone, this only tells where to split. Affine forms are (boxes, symbols, elements), so
that one matrix product takes all forms of a batch through a layer.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.search.reduce import padded_indices
from formalgr.verify.checker.network import Affine, Program, Relu
from formalgr.verify.checker.walk import ONE

OPEN = -1
"""The phase of a unit that may be on or off."""

TIE = 1e-6
"""When 0 is so near to the middle of a range, relative to its width, the checker may see it on either side."""


@dataclass(frozen=True)
class Block:
    """Open units `units` (boxes, count; padding where not valid) of activation `relu` as symbols from `start` on.

    They lie between forms of earlier symbols (boxes, start, count); gap: how far these are apart in the middle.
    """

    start: int
    below: np.ndarray
    above: np.ndarray
    relu: int
    units: np.ndarray
    valid: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class Shadows:
    """Per box: forms (boxes, rows, 1 + inputs) below the rows, their minima (boxes, rows), open units (boxes,).

    parts: per block the coefficients (boxes, count, rows) with which its units were replaced. arguments: per activation
    the forms of its arguments; phases: of its units, (boxes, units), 1 for on, 0 for off, OPEN. tied (boxes,): rounding
    decides which lines some unit is put between.
    """

    forms: np.ndarray
    minima: np.ndarray
    units: np.ndarray
    parts: list
    space: "_Space"
    arguments: list
    phases: list
    tied: np.ndarray

    def lower_forms(self, box: int, rows: list[tuple[int, int, float]]) -> np.ndarray:
        """Forms of the inputs (rows, 1 + inputs) below sign * argument for (activation, unit, sign)."""
        made = np.zeros((1, self.space.low.shape[1], len(rows)), dtype=self.forms.dtype)
        for k, (relu, unit, sign) in enumerate(rows):
            argument = self.arguments[relu][box, :, unit]
            made[0, : len(argument), k] = sign * argument
        return self.space.lower_forms(made, slice(box, box + 1))[0][0].T


@dataclass(frozen=True)
class Taken:
    """Where a step finds its elements: `index` into the values `places`, one after the other and then a zero for -1.

    starts: where these values start among their elements, and end; whole: all of them are taken, in order.
    """

    places: range
    index: np.ndarray
    starts: np.ndarray
    whole: bool

    @staticmethod
    def by(gather: np.ndarray, ends: list[int]) -> "Taken":
        """How elements are found where value k ends before element ends[k]."""
        starts = np.array([0, *ends])
        used = np.min(gather[gather >= 0], initial=ends[-1] - 1), np.max(gather, initial=0)
        first, last = sorted(np.searchsorted(starts, used, side="right") - 1)  # of all values where none is used
        index = np.where(gather < 0, -1, gather - starts[first])
        starts = starts[first : last + 2] - starts[first]
        plain = index.ndim == 1 or index.shape[::2] == (1, 1)
        whole = plain and np.array_equal(index.reshape(-1), np.arange(starts[-1]))
        return Taken(range(first, last + 1), index, starts, whole)

    def of(self, values: list[np.ndarray]) -> np.ndarray:
        """The values in which the elements lie, (boxes, symbols, elements)."""
        parts, padded = [values[k] for k in self.places], int(np.any(self.index < 0))
        if len(parts) == 1 and not padded:
            return parts[0]
        width = max(part.shape[1] for part in parts)
        zero = np.zeros((len(parts[0]), width, padded), dtype=parts[0].dtype)
        return np.concatenate([*(_wide(part, width) for part in parts), zero], axis=2)


class Shadow:
    """A program in floats; `bound` is one batched pass."""

    def __init__(self, program: Program, dtype=np.float64):
        self.inputs, self._dtype = program.inputs, dtype
        ends, self._steps = [program.inputs], []
        for step in program.steps:
            taken = Taken.by(step.gather, ends)
            self._steps.append(taken if isinstance(step, Relu) else _affine(step, taken, dtype))
            ends.append(ends[-1] + made_by(step))

    def bound(self, low: np.ndarray, high: np.ndarray, known: dict[int, np.ndarray] | None = None) -> Shadows:
        """low, high (boxes, inputs); known: number of a Relu -> phases (boxes, units)."""
        space = _Space(low.astype(self._dtype), high.astype(self._dtype))
        boxes = len(low)
        identity = np.tile(np.eye(self.inputs + 1, self.inputs, -1, dtype=self._dtype), (boxes, 1, 1))
        values, arguments, phases = [identity], [], []
        for step in self._steps:
            if isinstance(step, Taken):
                rows = step.of(values)
                arguments.append(rows if step.whole else rows[:, :, step.index])
                values.append(_relu(arguments[-1], space, phases, known or {}))
            else:
                values.append(step(values))
        forms, parts = space.lower_forms(values[-1])  # the last step makes the outputs
        units = sum((block.valid.sum(axis=1) for block in space.blocks), np.zeros(boxes, dtype=np.int64))
        rows = np.swapaxes(forms, 1, 2)
        return Shadows(rows, space.minima(forms), units, parts, space, arguments, phases, space.tied)


def made_by(step: Affine | Relu) -> int:
    """How many elements a step makes."""
    return len(step.gather if isinstance(step, Relu) else step.shift)


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


def lines_around(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of relus between low < 0 and high > 0: slopes of the lines through 0 below them, slopes and offsets of the lines
    above them."""
    scale = low.dtype.type(ONE)
    above = np.floor(high / (high - low) * scale) / scale
    return (high > -low).astype(low.dtype), above, np.maximum(-above * low, (1 - above) * high)


def _wide(rows: np.ndarray, width: int) -> np.ndarray:
    """The forms with zeros for symbols that came later."""
    boxes, symbols, elements = rows.shape
    if symbols == width:
        return rows
    made = np.zeros((boxes, width, elements), dtype=rows.dtype)
    made[:, :symbols] = rows
    return made


def number(x) -> float:
    """A rational as the nearest float, the largest one where that overflows."""
    try:
        return int(x.numerator) / int(x.denominator)
    except OverflowError:
        return float(np.copysign(np.finfo(np.float64).max, 1 if x > 0 else -1))


def _shifted(rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    rows[:, 0] += shift
    return rows


def _affine(step: Affine, taken: "Taken", dtype):
    """A function of the values so far."""
    weights = floats(step.weights.entries, step.divisor).astype(dtype)
    shift, made = floats(step.shift, step.divisor).astype(dtype), made_by(step)

    def apply(values):
        rows = taken.of(values)  # (boxes, symbols, elements)
        if taken.whole:
            return _shifted(_times(rows, weights[0].T), shift)
        picked = rows[:, :, taken.index]  # (boxes, symbols, groups, terms, places)
        if weights.shape[1] == 1:
            return _shifted((picked * weights[:, 0, :, None]).sum(axis=3).reshape(*rows.shape[:2], made), shift)
        return _shifted(np.matmul(weights, picked).reshape(*rows.shape[:2], made), shift)

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


def _relu(rows: np.ndarray, space: _Space, found: list, splits: dict) -> np.ndarray:
    number = len(found)
    low, high = space.ranges(rows)
    phases = _phases(low, high, splits.get(number))
    if space.blocks and np.any(phases == OPEN):
        units, valid = padded_indices(phases == OPEN)
        chosen = np.take_along_axis(rows, units[:, None], 2)
        least = space.minima(space.lower_forms(np.concatenate([chosen, -chosen], axis=2))[0])
        count = units.shape[1]
        which = np.nonzero(valid)
        place = which[0], units[which]
        low[place] = np.maximum(low[place], least[:, :count][which])
        high[place] = np.minimum(high[place], -least[:, count:][which])
        phases = _phases(low, high, splits.get(number))
    found.append(phases)
    made = rows * (phases == 1)[:, None]
    units, valid = padded_indices(phases == OPEN)
    if units.shape[1] == 0:
        return made
    chosen = np.take_along_axis(rows, units[:, None], 2) * valid[:, None]
    low, high = (np.where(valid, np.take_along_axis(end, units, 1), other) for end, other in ((low, -1.0), (high, 1.0)))
    below, above, offset = lines_around(low, high)
    space.tied |= np.any((np.abs(low + high) <= 2.0 * TIE * (high - low)) & valid, axis=1)
    offset, start = np.where(valid, offset, 0.0), space.low.shape[1]
    lines = (_wide(line, start) for line in (chosen * below[:, None], _shifted(chosen * above[:, None], offset)))
    gap = np.where(valid, (above - below) * 0.5 * (low + high) + offset, 0.0)
    block = Block(start, *lines, number, units, valid, gap)
    space.open(block, 0.0 * high, np.where(valid, high, 0.0))
    made = _wide(made, space.low.shape[1])
    which, slot = np.nonzero(valid)
    made[which, :, units[which, slot]] = 0.0
    made[which, start + slot, units[which, slot]] = 1.0
    return made


def _phases(low: np.ndarray, high: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Of units with arguments in these ranges, unless they are known."""
    phases = np.where(low >= 0, 1, np.where(high <= 0, 0, OPEN))
    return phases if known is None else np.where(known == OPEN, phases, known)
