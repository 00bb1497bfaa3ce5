"""Elementwise activations: bounds of a function of one variable, from sound offsets of lines around it.

In: `offsets` of a concrete activation. Out: all bound meanings. Trust: sound; slopes are chosen by heuristics, the
offsets of the chosen slopes are what is proven.
"""

from abc import abstractmethod
from dataclasses import dataclass

from formalgr.core.arrays import Array, namespace
from formalgr.core.linear import AffineForm, Drift, Interval, Pulled, Sums
from formalgr.core.rounding import NEGLIGIBLE, SLACK, SMALLEST_NORMAL, dtype_name, gamma, underflow
from formalgr.operators.base import Operator, Shape, in_float32_range


@dataclass(frozen=True)
class Lines:
    """lower_slope x + lower_offset <= f(x) <= upper_slope x + upper_offset over a box; all (batch, *node)."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


class Activation(Operator):
    """f applied to every element. A concrete activation gives `evaluate`, `derivative`, `offsets`, `candidates`."""

    def out_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    @abstractmethod
    def derivative(self, value):
        """A (sub)derivative of f at `value`. Heuristic."""

    @abstractmethod
    def offsets(self, slope, box: Interval) -> tuple:
        """Sound (low, high) with low <= f(x) - slope x <= high over the box, rounded outward."""

    @abstractmethod
    def candidates(self, box: Interval) -> tuple:
        """Slopes worth trying over the box; the first is the chord. Heuristic."""

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(*self.offsets(0.0 * boxes[0].lower, boxes[0]))

    def pullback(self, cotangent, *values) -> tuple:
        return (cotangent * self.derivative(values[0]),)

    def lines(self, box: Interval) -> Lines:
        """The candidate lines that are tightest at the middle of the box (least area between line and function)."""
        xp = namespace(box.lower)
        middle = 0.5 * box.lower + 0.5 * box.upper
        best = None
        for slope in self.candidates(box):
            low, high = self.offsets(slope, box)
            below, above = slope * middle + low, slope * middle + high
            if best is None:
                best, at_lower, at_upper = Lines(slope, low, slope, high), below, above
                continue
            better, worse = below > at_lower, above < at_upper
            best = Lines(
                xp.where(better, slope, best.lower_slope),
                xp.where(better, low, best.lower_offset),
                xp.where(worse, slope, best.upper_slope),
                xp.where(worse, high, best.upper_offset),
            )
            at_lower, at_upper = xp.maximum(at_lower, below), xp.minimum(at_upper, above)
        return best

    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        (form,), (box,) = forms, boxes
        xp = namespace(form.center)
        dtype = dtype_name(form.center)
        slope = self.candidates(box)[0]
        low, high = self.offsets(slope, box)
        shift = 0.5 * low + 0.5 * high
        reach = xp.maximum(high - shift, shift - low)
        size = xp.abs(slope)
        factor = gamma(form.generators.shape[1] + 8, dtype)
        rounding = factor * (size * (form.spread + xp.abs(form.center)) + xp.abs(shift))
        radius = (size * form.radius + reach) * (1.0 + factor) + rounding
        constant = (slope == 0.0) & (radius == 0.0)
        tiny = xp.where(constant, 0.0, 1.0) * underflow(4 * form.generators.shape[1] + 8, dtype)
        return AffineForm(slope[:, None] * form.generators, slope * form.center + shift, radius + tiny)

    @abstractmethod
    def float32_slopes(self, lower, upper) -> tuple:
        """(least, largest) slope of f between any two points of [lower, upper], rounded outward, (batch, *node)."""

    @abstractmethod
    def float32_rounding(self, lower, upper):
        """Bound of |float32 value of f(x) - f(x)| over x in [lower, upper], (batch, *node)."""

    def drift(self, errors: tuple, boxes: tuple[Interval, ...], sums: tuple[Sums, ...]) -> Drift:
        # f(x + d) - f(x) = m d with m between the least and the largest slope: middle slope * d is the linear part
        (error,), (box,) = errors, boxes
        xp = namespace(error)
        # a subnormal input may be taken for 0
        error = error + SMALLEST_NORMAL["float32"]
        lower, upper = box.lower - error, box.upper + error
        reach = xp.maximum(-lower, upper)
        least, largest = self.float32_slopes(lower, upper)
        slope = 0.5 * least + 0.5 * largest
        wide = xp.maximum(largest - slope, slope - least)
        steep = xp.abs(slope)
        # so may a slope, an intercept and a product
        flushed = (steep + wide + reach + 2.0) * SMALLEST_NORMAL["float32"]
        own = (self.float32_rounding(lower, upper) + wide * error + flushed) * SLACK
        own = in_float32_range(own, reach)
        return Drift(lambda rows: (rows * slope[:, None],), own, lambda parts: steep * parts[0] + own, 2)

    def backward(self, coefficients, boxes: tuple[Interval, ...]) -> Pulled:
        (box,) = boxes
        xp = namespace(coefficients)
        batch, rows = coefficients.shape[:2]
        lines = self.lines(box)
        flat = xp.reshape(coefficients, (batch, rows, -1))
        units = flat.shape[-1]
        positive = xp.maximum(flat, 0.0 * flat)
        negative = flat - positive

        def column(values):
            return xp.reshape(values, (batch, units, 1))

        weighted = xp.matmul(positive, column(lines.lower_offset)) + xp.matmul(negative, column(lines.upper_offset))
        slope = xp.maximum(xp.abs(lines.lower_slope), xp.abs(lines.upper_slope))
        offset = xp.maximum(xp.abs(lines.lower_offset), xp.abs(lines.upper_offset))
        size = column(slope * box.magnitude + offset + NEGLIGIBLE[dtype_name(coefficients)])
        magnitudes = xp.matmul(positive - negative, size)[..., 0]
        row = (batch, 1, units)
        pulled = positive * xp.reshape(lines.lower_slope, row) + negative * xp.reshape(lines.upper_slope, row)
        return Pulled((xp.reshape(pulled, coefficients.shape),), weighted[..., 0], magnitudes, 2 * units)
