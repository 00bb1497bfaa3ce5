"""Sigmoid and Tanh: rising, convex below 0 and concave above.

In: the ONNX nodes of those names. Out: SShaped. Trust: sound, given that the library's tanh errs by at most
core.rounding.LIBM_ULPS.
"""

from dataclasses import dataclass

from formalgr.core.arrays import namespace
from formalgr.core.linear import Interval
from formalgr.core.rounding import LIBM_ULPS, dtype_name, gamma
from formalgr.operators.base import NodeSpec, OnnxForm, Recipe
from formalgr.operators.smooth import Smooth, clipped

FARTHEST = 20.0
"""Where lines of a slope near 0 are taken to touch: the derivative is below 1e-8 from there on."""


@dataclass(frozen=True)
class SShaped(Smooth):
    """Tanh or Sigmoid, by `kind`."""

    kind: str
    rising = True

    @property
    def limits(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.kind == "Tanh" else (0.0, 1.0)

    def evaluate(self, *values):
        xp = namespace(values[0])
        if self.kind == "Tanh":
            return xp.tanh(values[0])
        return 0.5 * xp.tanh(0.5 * values[0]) + 0.5

    def jet(self, value) -> tuple:
        image = self.evaluate(value)
        return image, (1.0 - image * image if self.kind == "Tanh" else image * (1.0 - image))

    def bends(self, box: Interval) -> tuple[list, list]:
        return [clipped(0.0 * box.lower, box)], [True, False]

    def touching(self, slope, piece: int, box: Interval):
        # tanh' = 1 - t^2, sigmoid' = t (1 - t) with sigmoid(x) = (1 + tanh(x / 2)) / 2
        xp = namespace(slope)
        steep = slope if self.kind == "Tanh" else 4.0 * slope
        image = xp.sqrt(xp.minimum(xp.maximum(1.0 - steep, 0.0 * slope), 0.0 * slope + (1.0 - 1e-9)))
        point = xp.where(steep > 0.0, xp.atanh(image), 0.0 * slope + FARTHEST)
        point = point if self.kind == "Tanh" else 2.0 * point
        return point if piece else -point

    def image_error(self, image):
        # 0.5 tanh(x / 2) + 0.5 is off by the library's ulps of 1 at most, like tanh itself
        return gamma(LIBM_ULPS + 8, dtype_name(image)) + 0.0 * image

    def steep_error(self, steep):
        return gamma(2 * LIBM_ULPS + 16, dtype_name(steep)) + 0.0 * steep

    def float32_rounding(self, lower, upper):
        return 0.0 * lower + gamma(LIBM_ULPS + 8, "float32")

    def onnx(self) -> OnnxForm:
        return OnnxForm(self.kind, {}, (None,))


def s_shaped(spec: NodeSpec) -> Recipe:
    """Sigmoid or Tanh."""
    spec.only()
    return (SShaped(spec.op_type),)
