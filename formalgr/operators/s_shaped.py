"""Sigmoid and tanh: sound bounds, not exact.

In: the ONNX nodes Sigmoid, Tanh. Out: SShaped. Trust: sound, given that the library's tanh and exp err by at most
core.rounding.LIBM_ULPS.

Proof sketch. Both functions rise, are convex below 0 and concave above. Over a box the extremes of f(x) - s x lie at
the ends or where f'(x) = s: with t = f(x), tanh' = 1 - t^2 = s at t = +-sqrt(1 - s), sigmoid' = t (1 - t) = s at
t = (1 +- sqrt(1 - 4 s)) / 2. The offset is the extreme over ends and these points clipped to the box, so ANY slope s
gives a sound line. A computed stationary point is off by d; there f'(x) - s = 0 and |f''| <= 1, so the extreme is off
by at most d^2 (CRITICAL_ERROR covers d <= 1e-6). Slopes below SMALLEST_SLOPE, where d could be larger, become 0, where
the ends alone are extreme because f rises.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.errors import NumericalError
from formalgr.core.linear import Interval
from formalgr.core.rounding import LIBM_ULPS, dtype_name, gamma, underflow
from formalgr.operators.activation import Activation
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, ProgramBuilder

SMALLEST_SLOPE = 1e-7
"""Below this slope the stationary point is ill-conditioned: x = atanh(sqrt(1 - s)) errs by about u / s."""

CRITICAL_ERROR = 1e-11
"""Bound of the error of an extreme at a computed stationary point: d^2 with d <= u / SMALLEST_SLOPE * 16 < 2e-8."""


@dataclass(frozen=True)
class SShaped(Activation):
    """Tanh or Sigmoid, by `kind`."""

    kind: str
    exact = False
    rational = False

    def evaluate(self, *values):
        xp = namespace(values[0])
        if self.kind == "Tanh":
            return xp.tanh(values[0])
        return 0.5 * xp.tanh(0.5 * values[0]) + 0.5

    def derivative(self, value):
        image = self.evaluate(value)
        return 1.0 - image * image if self.kind == "Tanh" else image * (1.0 - image)

    def candidates(self, box: Interval) -> tuple:
        xp = namespace(box.lower)
        width = box.upper - box.lower
        wide = width > 1e-9
        rise = self.evaluate(box.upper) - self.evaluate(box.lower)
        middle = self.derivative(0.5 * box.lower + 0.5 * box.upper)
        chord = xp.where(wide, rise / xp.where(wide, width, 1.0 + 0.0 * width), middle)
        slopes = [chord, self.derivative(box.lower), self.derivative(box.upper), middle]
        for anchor, far in ((box.lower, box.upper), (box.upper, box.lower)):
            slopes.append(self.derivative(self._tangent_point(anchor, far)))
        return tuple(xp.where(slope < SMALLEST_SLOPE, 0.0 * slope, slope) for slope in slopes)

    def _tangent_point(self, anchor, far):
        """A point whose tangent nearly passes through (anchor, f(anchor)), by bisection towards `far`. Heuristic."""
        xp = namespace(anchor)
        near, end = 0.0 * anchor, far
        for _ in range(12):
            point = 0.5 * near + 0.5 * end
            gap = self.evaluate(point) + self.derivative(point) * (anchor - point) - self.evaluate(anchor)
            beyond = xp.where(far > anchor, gap > 0.0, gap < 0.0)
            near, end = xp.where(beyond, near, point), xp.where(beyond, point, end)
        return 0.5 * near + 0.5 * end

    def _stationary(self, slope) -> tuple:
        """The two points where f' = slope (of either sign), clipped into the finite range. Heuristic up to d."""
        xp = namespace(slope)
        safe = xp.minimum(xp.maximum(slope, 0.0 * slope + SMALLEST_SLOPE), 0.0 * slope + 1.0)
        if self.kind == "Tanh":
            point = xp.atanh(xp.minimum(xp.sqrt(1.0 - safe), 0.0 * safe + (1.0 - 1e-12)))
        else:
            root = xp.sqrt(xp.maximum(1.0 - 4.0 * safe, 0.0 * safe))
            point = 2.0 * xp.atanh(xp.minimum(root, 0.0 * safe + (1.0 - 1e-12)))
        return -point, point

    def curved(self, box: Interval):
        return box.upper > box.lower

    def offsets(self, slope, box: Interval) -> tuple:
        xp = namespace(box.lower)
        dtype = dtype_name(box.lower)
        if bool(xp.any((slope != 0.0) & (slope < SMALLEST_SLOPE))):
            raise NumericalError(f"a slope between 0 and {SMALLEST_SLOPE} reached {self.kind}")
        points = [box.lower, box.upper]
        points += [xp.minimum(xp.maximum(p, box.lower), box.upper) for p in self._stationary(slope)]
        low = high = None
        for point in points:
            image = self.evaluate(point)
            value = image - slope * point
            # 0.5 tanh(x / 2) + 0.5 is off by the library's ulps of 1 at most, like tanh itself
            error = gamma(LIBM_ULPS + 8, dtype) * (1.0 + xp.abs(slope * point)) + underflow(8, dtype)
            low = value - error if low is None else xp.minimum(low, value - error)
            high = value + error if high is None else xp.maximum(high, value + error)
        extra = xp.where(slope == 0.0, 0.0 * slope, 0.0 * slope + CRITICAL_ERROR)
        return low - extra, high + extra

    def float32_slopes(self, lower, upper) -> tuple:
        # f' falls on both sides of 0
        xp = namespace(lower)
        nearest = xp.maximum(lower, xp.minimum(upper, 0.0 * upper))
        error = gamma(4 * LIBM_ULPS, dtype_name(lower))
        least = xp.minimum(self.derivative(lower), self.derivative(upper))
        return least - error, self.derivative(nearest) + error

    def float32_rounding(self, lower, upper):
        return 0.0 * lower + gamma(LIBM_ULPS + 8, "float32")

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        # no exact encoding: the box of the output is all that a solver sees, a superset of the values
        return builder.variables(box.lower, box.upper)

    def onnx(self) -> OnnxForm:
        return OnnxForm(self.kind, {}, (None,))


def s_shaped(spec: NodeSpec) -> tuple[Operator, ...]:
    """Sigmoid or Tanh."""
    spec.only()
    return (SShaped(spec.op_type),)


