"""Looks at many boxes at once in float32: most whole regions close by far, and this sees it.

In: Program, boxes. Out: rows that are surely positive. Trust: heuristic: where they are far above 0 the checker, whose
bounds are tighter, closes the part.

The first look costs a quarter of the shadow. Forward, a value is an affine form of the inputs and a radius, which gives
the ranges of all units. Backward, rows are substituted between the two lines of each unit, as the checker does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from formalgr.verify.checker.network import Affine, Program, Relu
from formalgr.verify.shadow import Shadow, Taken, floats, lines_around, made_by, sizes

LARGEST = 1 << 20
"""Entries of a matrix beyond which this look is not taken: windows are written out here."""

Pass = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Affine:
    """matrix (elements of the sources one after the other, made), its absolute values, shift (made,)."""

    sources: tuple[int, ...]
    starts: np.ndarray
    matrix: np.ndarray
    magnitude: np.ndarray
    shift: np.ndarray

    def cast(self, dtype) -> "_Affine":
        parts = (part.astype(dtype) for part in (self.matrix, self.magnitude, self.shift))
        return _Affine(self.sources, self.starts, *parts)


@dataclass(frozen=True)
class _Bent:
    """Relus of all elements of a value."""

    source: int

    def cast(self, dtype) -> "_Bent":
        return self


def _written_out(program: Program) -> list[_Affine | _Bent] | None:
    """The steps, None where matrices would be too large. Affine maps of affine maps are one: only arguments of relus
    and the outputs are computed, from the inputs and relus before."""
    inputs = np.eye(program.inputs, dtype=np.float64)
    ends, steps, known = [program.inputs], [], [({0: inputs}, np.zeros(program.inputs, dtype=np.float64))]
    for step in program.steps:
        taken = Taken.by(step.gather, ends)
        if taken.starts[-1] * made_by(step) > LARGEST:
            return None
        matrix, shift = _matrix(step, taken)
        made: dict[int, np.ndarray] = {}
        for place, part in zip(taken.places, np.split(matrix, taken.starts[1:-1]), strict=True):
            if np.any(part):
                for source, before in known[place][0].items():
                    made[source] = made.get(source, 0.0) + before @ part
                shift = shift + known[place][1] @ part
        made = made or {0: np.zeros((program.inputs, len(shift)), dtype=np.float64)}
        if sum(map(len, made.values())) * len(shift) > LARGEST:
            return None
        known.append((made, shift))
        if isinstance(step, Relu):
            steps += [_affine(made, shift), _Bent(len(steps) + 1)]
            known[-1] = {len(steps): np.eye(len(shift), dtype=np.float64)}, np.zeros(len(shift), dtype=np.float64)
        ends.append(ends[-1] + len(shift))
    return [*steps, _affine(*known[-1])]


def _affine(parts: dict[int, np.ndarray], shift: np.ndarray) -> _Affine:
    """The sum of values times matrices, and a shift."""
    starts, matrix = np.cumsum([0, *map(len, parts.values())]), np.concatenate(list(parts.values()))
    return _Affine(tuple(parts), starts, matrix, np.abs(matrix), shift)


def _matrix(step: Affine | Relu, taken: Taken) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (elements taken, made) and shift of the step; those of a Relu pick its arguments."""
    if isinstance(step, Relu):
        weights, shift, index = np.ones((1, 1, 1), dtype=np.float64), 0.0 * step.gather, taken.index[None, None]
    else:
        weights, shift = floats(step.weights.entries, step.divisor), floats(step.shift, step.divisor)
        index = taken.index
    matrix = np.zeros((taken.starts[-1] + 1, made_by(step)), dtype=np.float64)  # the last row is what -1 means
    if taken.whole:
        matrix[:-1] = np.eye(len(shift), dtype=np.float64) if isinstance(step, Relu) else weights[0].T
    else:
        columns = np.arange(made_by(step)).reshape(*weights.shape[:2], -1)
        np.add.at(matrix, (index[:, None], columns[:, :, None]), weights[..., None])
    return matrix[:-1], shift


class Look:
    """A pass in float32 whose rows count only where it agrees with the same pass in float64.

    Both take boxes low, high (boxes, inputs) and return what lies below the rows and what their forms sum up at most.
    """

    def __init__(self, narrow: Pass, wide: Pass):
        self._narrow, self._wide = narrow, wide
        self._faithful: bool | None = None

    def sure(self, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
        """Which rows are above 0 by more than this share of what they sum up, (boxes, rows); none of them where the two
        passes differ by a tenth of that over the first box ever asked."""
        least, size = self._narrow(low.astype(np.float32), high.astype(np.float32))
        if self._faithful is None:
            first, _ = self._wide(low[:1], high[:1])
            self._faithful = bool(np.all(np.abs(first[0] - least[0]) <= 0.1 * margin * size[0]))
        return (least > margin * size) & self._faithful


def looks_at(program: Program) -> list[Look]:
    """Ever closer looks at a program."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows closes nothing
        steps = _written_out(program)
        shadows = (partial(_shadowed, Shadow(program, dtype)) for dtype in (np.float32, np.float64))
        glances = (partial(_minima, [step.cast(dtype) for step in steps or []]) for dtype in (np.float32, np.float64))
        return [Look(*shadows)] if steps is None else [Look(*glances), Look(*shadows)]


def _shadowed(shadow: Shadow, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = shadow.bound(low, high)
    return found.minima, sizes(found.forms, low, high)


def _minima(steps: list, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What lies below the rows over boxes, and what they sum up at most, (boxes, rows) each."""
    middle, reach = 0.5 * (high + low), 0.5 * (high - low)
    constant, slopes = _backward(steps, _forward(steps, middle, reach))
    most = np.abs(slopes)
    centre = constant + np.matmul(slopes, middle[:, :, None])[:, :, 0]
    around = np.matmul(most, reach[:, :, None])[:, :, 0]
    return centre - around, np.abs(constant) + np.matmul(most, np.abs(middle)[:, :, None])[:, :, 0] + around


def _forward(steps: list, middle: np.ndarray, reach: np.ndarray) -> list:
    """The lines (below, above) of the units of every activation, None for other steps."""
    boxes, inputs = middle.shape
    first = np.concatenate([middle[:, None], reach[:, None] * np.eye(inputs, dtype=middle.dtype)], axis=1)
    values, lines = [(first, np.zeros_like(middle))], []
    for step in steps:
        found = None
        if isinstance(step, _Affine):
            forms, radius = (_joined([values[k][part] for k in step.sources]) for part in (0, 1))
            made = (forms.reshape(-1, forms.shape[2]) @ step.matrix).reshape(*forms.shape[:2], -1)
            made[:, 0] += step.shift
            value = made, radius @ step.magnitude
        else:
            value, found = _bent(*values[step.source])
        values.append(value)
        lines.append(found)
    return lines


def _backward(steps: list, lines: list) -> tuple[np.ndarray, np.ndarray]:
    """Forms of the inputs below the rows: constants (boxes, rows) and slopes (boxes, rows, inputs)."""
    rows: dict[int, np.ndarray] = {len(steps): np.eye(len(steps[-1].shift), dtype=steps[-1].shift.dtype)[None]}
    constant = np.zeros((1, 1), dtype=steps[-1].shift.dtype)
    for place in range(len(steps), 0, -1):
        step, found, mine = steps[place - 1], lines[place - 1], rows.pop(place, None)
        if mine is None:
            continue
        if found is None:
            constant = constant + mine @ step.shift
            back = (mine.reshape(-1, mine.shape[2]) @ step.matrix.T).reshape(*mine.shape[:2], -1)
            parts = zip(step.sources, np.split(back, step.starts[1:-1], axis=2), strict=True)
        else:
            below, above, offset = found
            up, down = np.maximum(mine, 0.0), np.minimum(mine, 0.0)
            constant = constant + np.matmul(down, offset[:, :, None])[:, :, 0]
            parts = [(step.source, up * below[:, None] + down * above[:, None])]
        for source, part in parts:
            rows[source] = rows[source] + part if source in rows else part
    return constant, rows[0]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _bent(forms: np.ndarray, radius: np.ndarray) -> tuple:
    """After relus: (forms, radius) with the slope between the ends of each range; and the lines of the units, slopes
    below and above and the offset above."""
    ones = np.ones((1, forms.shape[1] - 1), dtype=forms.dtype)
    reach = np.matmul(ones, np.abs(forms[:, 1:]))[:, 0] + radius
    low, high = forms[:, 0] - reach, forms[:, 0] + reach
    open_ = np.flatnonzero((low < 0) & (high > 0))
    low, high = low.reshape(-1), high.reshape(-1)
    below, above, offset = lines_around(low[open_], high[open_])
    on, none = (low >= 0).astype(forms.dtype).reshape(radius.shape), np.zeros_like(radius)
    chord = high[open_] / (high[open_] - low[open_])
    slope, half = _with(on, open_, chord), _with(none, open_, -0.5 * chord * low[open_])
    made, radius = forms * slope[:, None], radius * slope + half
    made[:, 0] += half
    return (made, radius), (_with(on, open_, below), _with(on, open_, above), _with(none, open_, offset))


def _with(whole: np.ndarray, places: np.ndarray, part: np.ndarray) -> np.ndarray:
    """A copy with other values at some flat places."""
    made = np.array(whole, order="C")
    made.reshape(-1)[places] = part
    return made
