"""Continuous piecewise linear functions of one variable: a table of pieces gives every meaning.

In: breakpoints, slopes, intercepts. Out: Piecewise. Trust: sound and exact.

f(x) = slopes[k] x + intercepts[k] for breakpoints[k-1] <= x <= breakpoints[k]. Over a box the extremes of f(x) - s x
lie at the ends or at breakpoints, whatever the slope s; so every slope gives a sound line (Zhang et al. 2018, CROWN,
chooses slopes; here the offset is computed for the slope).
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations

import numpy as np

from formalgr.core.arrays import namespace, to_numpy, zeros
from formalgr.core.linear import Interval
from formalgr.core.rounding import NEGLIGIBLE, dtype_name, gamma, underflow
from formalgr.operators.activation import Activation
from formalgr.operators.base import OnnxForm, ProgramBuilder


@dataclass(frozen=True)
class Piecewise(Activation):
    """f from its table: breakpoints (k, ...), slopes and intercepts (k + 1, ...), trailing axes broadcast to the node.

    Raises ValueError when the table is not continuous or the breakpoints do not ascend.
    """

    form: OnnxForm
    breakpoints: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray

    def __post_init__(self):
        if not isinstance(self.slopes, np.ndarray) or self.slopes.dtype != np.float64:
            return
        if self.slopes.shape != self.intercepts.shape or len(self.slopes) != len(self.breakpoints) + 1:
            raise ValueError("a table of k breakpoints needs k + 1 slopes and intercepts")
        if np.any(np.diff(self.breakpoints, axis=0) < 0):
            raise ValueError("breakpoints must ascend")
        left = self.slopes[:-1] * self.breakpoints + self.intercepts[:-1]
        right = self.slopes[1:] * self.breakpoints + self.intercepts[1:]
        if np.any(left != right) or not self._joined():
            raise ValueError("the pieces do not meet at the breakpoints")

    def _joined(self) -> bool:
        """Whether the pieces meet in exact arithmetic too; at 0 they do when their intercepts are equal."""
        elsewhere = np.nonzero(self.breakpoints)
        tables = (self.slopes[:-1], self.intercepts[:-1], self.slopes[1:], self.intercepts[1:], self.breakpoints)
        columns = (np.broadcast_to(table, self.breakpoints.shape)[elsewhere].tolist() for table in tables)
        exact = (map(Fraction, column) for column in columns)
        return all(a * x + b == c * x + d for a, b, c, d, x in zip(*exact, strict=True))

    def _pick(self, value, table):
        """table[k] where value lies on piece k, (batch, *node)."""
        if isinstance(value, np.ndarray) and value.dtype != object and table.ndim == 1:
            piece = np.zeros(value.shape, dtype=np.min_scalar_type(len(table)))
            for limit in self.breakpoints:
                piece += value > limit
            return np.take(table, piece)  # several times as fast as the choices below
        xp = namespace(value)
        result = table[0] if len(self.breakpoints) else zeros(value, value.shape) + table[0]
        for k in range(self.breakpoints.shape[0]):
            result = xp.where(value > self.breakpoints[k], table[k + 1], result)
        return result

    @cached_property
    def _shifted(self) -> bool:
        """Whether any piece has an intercept."""
        return bool((self.intercepts != 0).any())

    def evaluate(self, *values):
        (value,) = values
        made = self._pick(value, self.slopes) * value
        return made + self._pick(value, self.intercepts) if self._shifted else made

    def derivative(self, value):
        return self._pick(value, self.slopes)

    def _points(self, box: Interval) -> list:
        xp = namespace(box.lower)
        inner = [
            xp.minimum(xp.maximum(zeros(box.lower, box.lower.shape) + b, box.lower), box.upper)
            for b in self.breakpoints
        ]
        return [box.lower, *inner, box.upper]

    def candidates(self, box: Interval) -> tuple:
        xp = namespace(box.lower)
        points = self._points(box)
        values = [self.evaluate(point) for point in points]
        pairs = sorted(combinations(range(len(points)), 2), key=lambda pair: pair[0] - pair[1])
        slopes = []
        for i, j in pairs:
            width = points[j] - points[i]
            wide = width > 0.0
            rise = (values[j] - values[i]) / xp.where(wide, width, 1.0 + 0.0 * width)
            slopes.append(xp.where(wide & xp.isfinite(rise), rise, 0.0 * width))
        single, slope, _ = self._single_piece(box)
        return tuple(xp.where(single, slope, candidate) for candidate in slopes)

    def _single_piece(self, box: Interval):
        """Where the box lies on one piece: mask, slope and intercept of it."""
        xp = namespace(box.lower)
        below = [box.upper <= b for b in self.breakpoints]
        above = [box.lower >= b for b in self.breakpoints]
        last = len(below)
        shape = zeros(box.lower, box.lower.shape)
        single, slope, intercept = shape > 1.0, shape, shape
        for k in range(last + 1):
            on = shape < 1.0
            on = on & above[k - 1] if k else on
            on = on & below[k] if k < last else on
            fresh = on & ~single
            slope = xp.where(fresh, self.slopes[k], slope)
            intercept = xp.where(fresh, self.intercepts[k], intercept)
            single = single | on
        return single, slope, intercept

    def curved(self, box: Interval):
        return ~self._single_piece(box)[0]

    def offsets(self, slope, box: Interval) -> tuple:
        xp = namespace(box.lower)
        dtype = dtype_name(box.lower)
        low = high = None
        for point in self._points(box):
            steep = self._pick(point, self.slopes)
            rest = self._pick(point, self.intercepts)
            value = (steep * point + rest) - slope * point
            size = (xp.abs(steep) + xp.abs(slope)) * (xp.abs(point) + NEGLIGIBLE[dtype]) + xp.abs(rest)
            plain = (slope == 0.0) & ((steep == 0.0) | ((xp.abs(steep) == 1.0) & (rest == 0.0)))
            error = xp.where(plain, 0.0 * size, gamma(6, dtype) * size + underflow(6, dtype))
            low = value - error if low is None else xp.minimum(low, value - error)
            high = value + error if high is None else xp.maximum(high, value + error)
        single, piece, intercept = self._single_piece(box)
        exact = single & (piece == slope)
        return xp.where(exact, intercept, low), xp.where(exact, intercept, high)

    def interval(self, *boxes: Interval) -> Interval:
        low, high = self.offsets(zeros(boxes[0].lower, boxes[0].lower.shape), boxes[0])
        return Interval(low, high)

    def _visited(self, lower, upper):
        """Per piece: whether [lower, upper] meets it (limits may have been rounded to float32), (batch, *node) bool."""
        xp, last = namespace(lower), self.breakpoints.shape[0]
        slack = [gamma(2, "float32") * xp.abs(b) for b in self.breakpoints]
        for k in range(last + 1):
            on = lower == lower
            on = on & (upper >= self.breakpoints[k - 1] - slack[k - 1]) if k else on
            yield on & (lower <= self.breakpoints[k] + slack[k]) if k < last else on

    def float32_slopes(self, lower, upper) -> tuple:
        xp = namespace(lower)
        least, largest = zeros(lower, lower.shape) + float("inf"), zeros(lower, lower.shape) - float("inf")
        for on, slope in zip(self._visited(lower, upper), self.slopes, strict=True):
            least = xp.where(on, xp.minimum(least, zeros(lower, lower.shape) + slope), least)
            largest = xp.where(on, xp.maximum(largest, zeros(lower, lower.shape) + slope), largest)
        return least, largest

    def float32_rounding(self, lower, upper):
        xp, nothing = namespace(lower), zeros(lower, lower.shape)
        reach, result = xp.maximum(-lower, upper), nothing
        for k, on in enumerate(self._visited(lower, upper)):
            slope, rest = (xp.abs(nothing + table[k]) for table in (self.slopes, self.intercepts))
            # max(x, 0), |x| and clipping at float32 limits are exact; other slopes and limits are rounded themselves
            plain = ((slope == 0.0) | ((slope == 1.0) & (rest == 0.0))) & (rest == _in_float32(rest))
            worst = gamma(8, "float32") * (slope * reach + rest)
            result = xp.maximum(result, xp.where(on & ~plain, worst, nothing))
        return result

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        results = builder.variables(box.lower, box.upper)
        tables = self.spread(results.shape)
        for k, (argument, result) in enumerate(zip(arguments[0].reshape(-1), results.reshape(-1), strict=True)):
            builder.piecewise(int(argument), int(result), *(tuple(table[:, k].tolist()) for table in tables))
        return results

    def spread(self, shape) -> list[np.ndarray]:
        """Breakpoints, slopes and intercepts of every element of a node, numpy, (k or k + 1, elements)."""
        tables = (to_numpy(table) for table in (self.breakpoints, self.slopes, self.intercepts))
        return [_spread(table, shape) for table in tables]

    def onnx(self) -> OnnxForm:
        return self.form


def _in_float32(value):
    """The value rounded to float32 and back."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32).astype(np.float64)
    return value.float().double()


def _spread(table: np.ndarray, shape) -> np.ndarray:
    """Table columns for every element of a node: (k, *trailing) -> (k, elements)."""
    missing = len(shape) - (table.ndim - 1)
    aligned = table.reshape(len(table), *(1,) * missing, *table.shape[1:])
    return np.broadcast_to(aligned, (len(table), *shape)).reshape(len(table), int(np.prod(shape)))
