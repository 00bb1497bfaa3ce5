"""Sign: -1, 0 or 1.

In: the ONNX node of that name. Out: Sign. Trust: sound. Solvers see the values -1, 0 and 1 alone, but at x = 0 all
three of them, because a jump has no closed graph; bounds see everything between. Rational evaluation is exact.

Over a box the extremes of sign(x) - s x lie at its ends or next to 0, where they approach -1 and 1.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import is_rational, namespace
from formalgr.core.exact import rational_array
from formalgr.core.linear import Interval
from formalgr.core.rounding import dtype_name, gamma, nearest_down, nearest_up, underflow
from formalgr.operators.activation import Activation
from formalgr.operators.base import NodeSpec, OnnxForm, ProgramBuilder, Recipe


@dataclass(frozen=True)
class Sign(Activation):
    """The sign of x, 0 at 0."""

    exact = False

    def evaluate(self, *values):
        (value,) = values
        if is_rational(value):
            return rational_array((value > 0).astype(np.int64) - (value < 0).astype(np.int64))
        return namespace(value).sign(value)

    def derivative(self, value):
        return 0.0 * value

    def curved(self, box: Interval):
        return self.evaluate(box.lower) != self.evaluate(box.upper)

    def candidates(self, box: Interval) -> tuple:
        # flat, and the lines from the jump to an end of the box
        xp, flat = namespace(box.lower), 0.0 * box.lower
        jump = (box.lower < 0.0) & (box.upper > 0.0)
        right = xp.where(jump, 2.0 / xp.where(jump, box.upper, 1.0 + flat), flat)
        left = xp.where(jump, -2.0 / xp.where(jump, box.lower, 1.0 + flat), flat)
        return tuple(xp.where(xp.isfinite(slope), slope, flat) for slope in (flat, right, left))

    def offsets(self, slope, box: Interval) -> tuple:
        xp = namespace(box.lower)
        low = high = None
        for point in (box.lower, box.upper):
            drop = slope * point
            value = self.evaluate(point) - drop
            error = xp.where(slope == 0.0, 0.0 * drop, gamma(4, dtype_name(drop)) * (1.0 + xp.abs(drop)))
            error = error + xp.where(slope == 0.0, 0.0 * drop, 0.0 * drop + underflow(4, dtype_name(drop)))
            low = value - error if low is None else xp.minimum(low, value - error)
            high = value + error if high is None else xp.maximum(high, value + error)
        jump = (box.lower <= 0.0) & (box.upper >= 0.0)
        below, above = jump & (box.lower < 0.0), jump & (box.upper > 0.0)
        low = xp.where(jump, xp.minimum(low, xp.where(below, -1.0 + 0.0 * low, 0.0 * low)), low)
        high = xp.where(jump, xp.maximum(high, xp.where(above, 1.0 + 0.0 * high, 0.0 * high)), high)
        return low, high

    def float32_slopes(self, lower, upper) -> tuple:
        return 0.0 * lower, 0.0 * lower

    def float32_rounding(self, lower, upper):
        return self.evaluate(upper) - self.evaluate(lower)

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        # along the filled graph: w <= -1 left of 0, -1 <= w <= 1 up the line at 0, w >= 1 right of it; and of the line
        # only -1, 0 and 1, where a zigzag of the result is 0
        results = builder.variables(box.lower, box.upper)
        part = builder.ranges(arguments[0])
        for index in np.nonzero(self.curved(part).reshape(-1))[0].tolist():
            low, high = float(part.lower.reshape(-1)[index]), float(part.upper.reshape(-1)[index])
            ends = np.array([nearest_down(Fraction(low) - 1)]), np.array([nearest_up(Fraction(high) + 1)])
            way = int(builder.variables(*ends)[0])
            builder.piecewise(way, int(arguments[0].reshape(-1)[index]), (-1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.0, -1.0))
            result, zero = int(results.reshape(-1)[index]), int(builder.variables(np.zeros(1), np.zeros(1))[0])
            builder.piecewise(way, result, (-1.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 1.0))
            builder.piecewise(result, zero, (-0.5, 0.0, 0.5), (1.0, -1.0, 1.0, -1.0), (1.0, 0.0, 0.0, 1.0))
        return results

    def onnx(self) -> OnnxForm:
        return OnnxForm("Sign", {}, (None,))


def sign(spec: NodeSpec) -> Recipe:
    """Sign; 0 at 0."""
    spec.only()
    return (Sign(),)
