"""Powers: Pow with a constant exponent, Sqrt, Reciprocal.

In: the ONNX nodes of those names. Out: Power, Root, Inverse. Trust: sound: products, quotients and square roots are
rounded correctly, and the library's pow errs by at most core.rounding.LIBM_ULPS.

The square root has no value below 0: its lines hold for the part of a box that has one, and where an argument may be
negative no counterexample is confirmed (`defined`). The reciprocal has bounds only over a box on one side of 0.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.errors import Unbounded
from formalgr.core.linear import Interval
from formalgr.core.rounding import LIBM_ULPS, SMALLEST_NORMAL, dtype_name, gamma, underflow
from formalgr.operators.base import NodeSpec, OnnxForm, Recipe
from formalgr.operators.reshape import Expand, Reshape
from formalgr.operators.smooth import Smooth, clipped, relative_float32

LARGEST_EXPONENT = 64
"""Of the powers that are read; higher ones overflow float32 for values of 4."""


@dataclass(frozen=True)
class Power(Smooth):
    """x to the power of a whole number >= 2."""

    exponent: int
    rational = True

    @property
    def rising(self) -> bool:
        return bool(self.exponent % 2)

    @property
    def limits(self) -> tuple[float, float]:
        return (-float("inf") if self.exponent % 2 else 0.0, float("inf"))

    def evaluate(self, *values):
        return values[0] ** self.exponent

    def jet(self, value) -> tuple:
        rest = value ** (self.exponent - 1)
        return rest * value, self.exponent * rest

    def bends(self, box: Interval) -> tuple[list, list]:
        return ([clipped(0.0 * box.lower, box)], [False, True]) if self.exponent % 2 else ([], [True])

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        point = (xp.abs(slope) / self.exponent) ** (1.0 / (self.exponent - 1))
        if self.exponent % 2:
            return point if piece else -point
        return xp.where(slope < 0.0, -point, point)

    def image_error(self, image):
        terms = LIBM_ULPS + self.exponent
        return gamma(terms, dtype_name(image)) * namespace(image).abs(image) + underflow(terms, dtype_name(image))

    def steep_error(self, steep):
        return self.image_error(steep) * (1.0 + self.exponent)

    def float32_rounding(self, lower, upper):
        return relative_float32(self, lower, upper, LIBM_ULPS + self.exponent + 8)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Pow", {}, (None, np.array(float(self.exponent), dtype=np.float64)))


@dataclass(frozen=True)
class Root(Smooth):
    """The square root."""

    total = False
    limits = (0.0, float("inf"))

    def evaluate(self, *values):
        with np.errstate(invalid="ignore"):
            return namespace(values[0]).sqrt(values[0])

    def jet(self, value) -> tuple:
        image = self.evaluate(value)
        return image, 0.5 / namespace(value).maximum(image, 0.0 * image + self._least(image))

    @staticmethod
    def _least(like) -> float:
        """Roots below this are taken for it in the derivative: the tangent at 0 misses the graph by less."""
        return SMALLEST_NORMAL[dtype_name(like)] ** 0.5

    def bend_error(self, box: Interval):
        return self._least(box.lower)

    def inside(self, box: Interval) -> Interval:
        xp = namespace(box.lower)
        return Interval(xp.maximum(box.lower, 0.0 * box.lower), xp.maximum(box.upper, 0.0 * box.upper))

    def defined(self, *boxes: Interval) -> bool:
        return bool(namespace(boxes[0].lower).all(boxes[0].lower >= 0.0))

    def bends(self, box: Interval) -> tuple[list, list]:
        return [], [False]

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        rising = slope > 1e-100
        return xp.where(rising, (0.5 / xp.where(rising, slope, 1.0 + 0.0 * slope)) ** 2, float("inf") + 0.0 * slope)

    def image_error(self, image):
        return gamma(4, dtype_name(image)) * image + underflow(4, dtype_name(image))

    def steep_error(self, steep):
        return gamma(4, dtype_name(steep)) * steep

    def float32_rounding(self, lower, upper):
        box = self.inside(Interval(lower, upper))
        error = relative_float32(self, box.lower, box.upper, 8)
        return namespace(error).where(lower >= 0.0, error, float("inf") + 0.0 * error)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Sqrt", {}, (None,))


@dataclass(frozen=True)
class Inverse(Smooth):
    """1 / x; `extra` roundings of 1 are what a fused float32 implementation adds (Softmax)."""

    extra: int = 0
    total = False
    rational = True

    def evaluate(self, *values):
        with np.errstate(divide="ignore"):
            return 1 / values[0]

    def jet(self, value) -> tuple:
        image = self.evaluate(value)
        return image, -image * image

    def inside(self, box: Interval) -> Interval:
        xp = namespace(box.lower)
        if bool(xp.any((box.lower <= 0.0) & (box.upper >= 0.0))):
            raise Unbounded("a divisor may be 0 as far as its bounds tell: try a smaller box")
        return box

    def bends(self, box: Interval) -> tuple[list, list]:
        return [], [box.lower > 0.0]

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        falling = slope < -1e-100
        far = float("inf") + 0.0 * slope
        point = xp.where(falling, 1.0 / xp.sqrt(xp.where(falling, -slope, 1.0 + 0.0 * slope)), far)
        return xp.where(box.lower > 0.0, point, -point)

    def image_error(self, image):
        return gamma(4, dtype_name(image)) * namespace(image).abs(image) + underflow(4, dtype_name(image))

    def steep_error(self, steep):
        return gamma(8, dtype_name(steep)) * namespace(steep).abs(steep) + underflow(8, dtype_name(steep))

    def float32_rounding(self, lower, upper):
        return relative_float32(self, lower, upper, LIBM_ULPS + 8) + gamma(self.extra, "float32")

    def onnx(self) -> OnnxForm:
        return OnnxForm("Reciprocal", {}, (None,))


def power(spec: NodeSpec) -> Recipe:
    """Pow with one constant exponent: a whole number from -64 to 64 other than 0, or 0.5."""
    spec.only()
    given = None if spec.constants[1] is None else np.unique(np.asarray(spec.constants[1], dtype=np.float64))
    if given is None or spec.constants[0] is not None or given.size != 1:
        raise spec.refuse("Pow needs computed values and one constant exponent")
    exponent, target = float(given[0]), np.broadcast_shapes(spec.shapes[0], np.shape(spec.constants[1]))
    spread = () if target == tuple(spec.shapes[0]) else (Expand(target),)
    if exponent == 0.5:
        return (*spread, Root())
    if exponent != int(exponent) or not 1 <= abs(exponent) <= LARGEST_EXPONENT:
        raise spec.refuse(f"Pow by {exponent:g} is not supported: only whole numbers up to {LARGEST_EXPONENT} and 0.5")
    raised = (Power(int(abs(exponent))),) if abs(exponent) > 1 else (Reshape(target),)
    return (*spread, *raised, *((Inverse(),) if exponent < 0 else ()))


def root(spec: NodeSpec) -> Recipe:
    """Sqrt."""
    spec.only()
    return (Root(),)


def reciprocal(spec: NodeSpec) -> Recipe:
    """Reciprocal: 1 / x over boxes on one side of 0."""
    spec.only()
    return (Inverse(),)
