"""Exponentials and logarithms: Exp, Log, Softplus, and Elu, Selu, Celu by Exp of the negative part.

In: the ONNX nodes of those names. Out: Exponential, Logarithm, SoftPlus. Trust: sound, given that the library's exp,
log and log1p err by at most core.rounding.LIBM_ULPS relative to their result.

The logarithm has bounds only over a box above 0.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.errors import Unbounded
from formalgr.core.linear import Interval
from formalgr.core.rounding import LIBM_ULPS, dtype_name, gamma, underflow
from formalgr.operators.base import NodeSpec, OnnxForm, Recipe, Steps
from formalgr.operators.combine import Add, AddConstant, DivideConstant, MultiplyConstant
from formalgr.operators.extreme import limit_table
from formalgr.operators.rectifiers import relu_table
from formalgr.operators.smooth import Smooth, relative_float32

LARGEST_ARGUMENT = {"float32": 88.0, "float64": 709.0}
"""exp overflows above it."""


def _libm_error(image, terms: int = LIBM_ULPS + 8):
    """Error of a library function relative to its result."""
    return gamma(terms, dtype_name(image)) * namespace(image).abs(image) + underflow(4, dtype_name(image))


@dataclass(frozen=True)
class Exponential(Smooth):
    """e to the power of x."""

    rising = True
    limits = (0.0, float("inf"))

    def evaluate(self, *values):
        with np.errstate(over="ignore"):
            return namespace(values[0]).exp(values[0])

    def jet(self, value) -> tuple:
        image = self.evaluate(value)
        return image, image

    def inside(self, box: Interval) -> Interval:
        largest = LARGEST_ARGUMENT[dtype_name(box.upper)]
        if bool(namespace(box.upper).any(box.upper > largest)):
            raise Unbounded(f"the argument of Exp exceeds {largest:g} as far as its bounds tell: it overflows")
        return box

    def bends(self, box: Interval) -> tuple[list, list]:
        return [], [True]

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        rising = slope > 0.0
        return xp.where(rising, xp.log(xp.where(rising, slope, 1.0 + 0.0 * slope)), -float("inf") + 0.0 * slope)

    def image_error(self, image):
        return _libm_error(image)

    def steep_error(self, steep):
        return _libm_error(steep)

    def float32_rounding(self, lower, upper):
        return relative_float32(self, lower, upper, LIBM_ULPS + 8)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Exp", {}, (None,))


@dataclass(frozen=True)
class Logarithm(Smooth):
    """The natural logarithm; `extra` roundings of 1 are what a fused float32 implementation adds (LogSoftmax)."""

    extra: int = 0
    total = False

    def evaluate(self, *values):
        with np.errstate(divide="ignore", invalid="ignore"):
            return namespace(values[0]).log(values[0])

    def jet(self, value) -> tuple:
        return self.evaluate(value), 1.0 / value

    def inside(self, box: Interval) -> Interval:
        if bool(namespace(box.lower).any(box.lower <= 0.0)):
            raise Unbounded("the argument of Log may be 0 or less as far as its bounds tell: try a smaller box")
        return box

    def bends(self, box: Interval) -> tuple[list, list]:
        return [], [False]

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        rising = slope > 1e-300
        return xp.where(rising, 1.0 / xp.where(rising, slope, 1.0 + 0.0 * slope), float("inf") + 0.0 * slope)

    def image_error(self, image):
        return _libm_error(image)

    def steep_error(self, steep):
        return gamma(4, dtype_name(steep)) * steep + underflow(4, dtype_name(steep))

    def float32_rounding(self, lower, upper):
        xp = namespace(lower)
        size = xp.maximum(xp.abs(self.evaluate(lower)), xp.abs(self.evaluate(upper)))
        return gamma(LIBM_ULPS + 8 + self.extra, "float32") * (1.0 + size)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Log", {}, (None,))


@dataclass(frozen=True)
class SoftPlus(Smooth):
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)); its derivative is the sigmoid."""

    rising = True
    limits = (0.0, float("inf"))

    def evaluate(self, *values):
        xp = namespace(values[0])
        return xp.maximum(values[0], 0.0 * values[0]) + xp.log1p(xp.exp(-xp.abs(values[0])))

    def jet(self, value) -> tuple:
        return self.evaluate(value), 0.5 * namespace(value).tanh(0.5 * value) + 0.5

    def bends(self, box: Interval) -> tuple[list, list]:
        return [], [True]

    def touching(self, slope, piece: int, box: Interval):
        xp = namespace(slope)
        inner = xp.minimum(xp.maximum(slope, 0.0 * slope + 1e-12), 0.0 * slope + (1.0 - 1e-9))
        return xp.log(inner / (1.0 - inner))

    def image_error(self, image):
        return _libm_error(image, 2 * LIBM_ULPS + 16)

    def steep_error(self, steep):
        return gamma(LIBM_ULPS + 8, dtype_name(steep)) + 0.0 * steep

    def float32_rounding(self, lower, upper):
        return gamma(2 * LIBM_ULPS + 16, "float32") * (1.0 + self.evaluate(upper))

    def onnx(self) -> OnnxForm:
        return OnnxForm("Softplus", {}, (None,))


def exponential(spec: NodeSpec) -> Recipe:
    """Exp."""
    spec.only()
    return (Exponential(),)


def logarithm(spec: NodeSpec) -> Recipe:
    """Log over boxes above 0."""
    spec.only()
    return (Logarithm(),)


def soft_plus(spec: NodeSpec) -> Recipe:
    """Softplus."""
    spec.only()
    return (SoftPlus(),)


def exponential_unit(spec: NodeSpec) -> Recipe:
    """Elu, Selu, Celu: scale (max(x, 0) + alpha (exp(min(x, 0) / width) - 1))."""
    spec.only("alpha", *(("gamma",) if spec.op_type == "Selu" else ()))
    default = 1.67326319217681884765625 if spec.op_type == "Selu" else 1.0
    alpha = float(np.float32(spec.attribute("alpha", default)))
    scale = float(np.float32(spec.attribute("gamma", 1.05070102214813232421875))) if spec.op_type == "Selu" else 1.0

    def one(number: float) -> np.ndarray:
        return np.array(number, dtype=np.float64)

    steps = Steps(1)
    width = (DivideConstant(one(alpha)),) if spec.op_type == "Celu" else ()
    curve = (limit_table(one(0.0), largest=False), *width, Exponential(), AddConstant(one(-1.0)))
    total = steps.add(Add(), steps.add(relu_table(), 0), steps.then((*curve, MultiplyConstant(one(alpha))), 0))
    if scale != 1.0:
        steps.add(MultiplyConstant(one(scale)), total)
    return steps.recipe
