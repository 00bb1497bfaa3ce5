"""Products of computed values: Mul, Div and MatMul of two of them.

In: the ONNX nodes of those names. Out: Product and recipes of it. Trust: sound, not exact (bounds and solvers see a
relaxation; rational evaluation is exact).

Over a box the extremes of x y - a x - b y lie at its corners, since it is linear in each variable: so every plane gives
sound offsets. Planes that touch at a corner (McCormick 1976) and the one half-way between are all equally tight at the
middle; of these the one whose worst value over the box is best is taken.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import Array, namespace
from formalgr.core.linear import AffineForm, Drift, Interval, Pulled, Sums
from formalgr.core.program import Sense
from formalgr.core.rounding import (
    FLOAT32_EXTRA,
    NEGLIGIBLE,
    SLACK,
    SMALLEST_NORMAL,
    dtype_name,
    gamma,
    underflow,
)
from formalgr.operators.base import (
    Fed,
    NodeSpec,
    OnnxForm,
    Operator,
    ProgramBuilder,
    Recipe,
    Shape,
    Steps,
    in_float32_range,
)
from formalgr.operators.combine import DivideConstant, MultiplyConstant, operands
from formalgr.operators.powers import Inverse, Power
from formalgr.operators.reduction import SumOver
from formalgr.operators.reshape import Expand, Reshape


@dataclass(frozen=True)
class Plane:
    """left x + right y + offset, a bound of x y over a box from one side; all (batch, *node)."""

    left: Array
    right: Array
    offset: Array

    def chosen(self, other: "Plane", mask) -> "Plane":
        """The other plane where the mask says so."""
        xp = namespace(self.left)
        return Plane(*(xp.where(mask, b, a) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Product(Operator):
    """x y for two values of one shape."""

    arity = 2
    exact = False

    def out_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise ValueError(f"the product of shapes {list(shapes[0])} and {list(shapes[1])} is not supported")
        return shapes[0]

    def evaluate(self, *values):
        return values[0] * values[1]

    def pullback(self, cotangent, *values) -> tuple:
        return cotangent * values[1], cotangent * values[0]

    def curved(self, box: Interval):
        return box.upper > box.lower

    def interval(self, *boxes: Interval) -> Interval:
        nothing = 0.0 * boxes[0].lower
        return Interval(*self._offsets(nothing, nothing, *boxes))

    @staticmethod
    def _offsets(left, right, x: Interval, y: Interval) -> tuple:
        """Sound (low, high) with low <= x y - left x - right y <= high over the box, rounded outward."""
        xp, dtype = namespace(left), dtype_name(left)
        low = high = None
        for one in (x.lower, x.upper):
            for other in (y.lower, y.upper):
                parts = one * other, left * one, right * other
                value = parts[0] - parts[1] - parts[2]
                size = xp.abs(parts[0]) + xp.abs(parts[1]) + xp.abs(parts[2])
                error = gamma(8, dtype) * size + underflow(8, dtype)
                low = value - error if low is None else xp.minimum(low, value - error)
                high = value + error if high is None else xp.maximum(high, value + error)
        return low, high

    def planes(self, x: Interval, y: Interval) -> tuple[Plane, Plane]:
        """The plane below and the plane above."""
        xp = namespace(x.lower)
        x_middle, y_middle = (0.5 * box.lower + 0.5 * box.upper for box in (x, y))
        low, high = self._offsets(y_middle, x_middle, x, y)
        below, above = Plane(y_middle, x_middle, low), Plane(y_middle, x_middle, high)
        worst_below, worst_above = self._worst(below, x, y, -1.0), self._worst(above, x, y, 1.0)
        for at_x, at_y in ((x.lower, y.lower), (x.upper, y.upper)):
            plane = Plane(at_y, at_x, self._offsets(at_y, at_x, x, y)[0])
            worst = self._worst(plane, x, y, -1.0)
            below, worst_below = below.chosen(plane, worst > worst_below), xp.maximum(worst, worst_below)
        for at_x, at_y in ((x.lower, y.upper), (x.upper, y.lower)):
            plane = Plane(at_y, at_x, self._offsets(at_y, at_x, x, y)[1])
            worst = self._worst(plane, x, y, 1.0)
            above, worst_above = above.chosen(plane, worst < worst_above), xp.minimum(worst, worst_above)
        return below, above

    @staticmethod
    def _worst(plane: Plane, x: Interval, y: Interval, sign: float):
        """The least (sign -1) or largest (sign 1) value of a plane over the box. Heuristic."""
        xp, total = namespace(plane.left), plane.offset
        for slope, box in ((plane.left, x), (plane.right, y)):
            middle = 0.5 * box.lower + 0.5 * box.upper
            total = total + slope * middle + sign * xp.abs(slope) * (box.upper - middle)
        return total

    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        x, y = forms
        xp, dtype = namespace(x.center), dtype_name(x.center)
        left, right = (0.5 * box.lower + 0.5 * box.upper for box in reversed(boxes))
        low, high = self._offsets(left, right, *boxes)
        shift = 0.5 * low + 0.5 * high
        reach = xp.maximum(high - shift, shift - low)
        size = sum(
            xp.abs(slope) * (form.spread + xp.abs(form.center) + NEGLIGIBLE[dtype])
            for slope, form in ((left, x), (right, y))
        )
        inputs = x.generators.shape[1]
        factor = gamma(inputs + 16, dtype)
        radius = (xp.abs(left) * x.radius + xp.abs(right) * y.radius + reach) * (1.0 + factor)
        radius = radius + factor * (size + xp.abs(shift)) + underflow(8 * inputs + 16, dtype)
        generators = left[:, None] * x.generators + right[:, None] * y.generators
        return AffineForm(generators, left * x.center + right * y.center + shift, radius)

    def backward(self, coefficients, boxes: tuple[Interval, ...]) -> Pulled:
        xp = namespace(coefficients)
        batch, rows = coefficients.shape[:2]
        below, above = self.planes(*boxes)
        positive = xp.maximum(coefficients, 0.0 * coefficients)
        negative = coefficients - positive
        size = NEGLIGIBLE[dtype_name(coefficients)]
        for plane in (below, above):
            parts = xp.abs(plane.left) * boxes[0].magnitude, xp.abs(plane.right) * boxes[1].magnitude
            size = size + parts[0] + parts[1] + xp.abs(plane.offset)

        def total(rows_, values):
            flat = xp.reshape(rows_, (batch, rows, -1))
            return xp.matmul(flat, xp.reshape(values, (batch, flat.shape[-1], 1)))[..., 0]

        weighted = total(positive, below.offset) + total(negative, above.offset)
        pulled = tuple(
            positive * low[:, None] + negative * high[:, None]
            for low, high in ((below.left, above.left), (below.right, above.right))
        )
        units = int(np.prod(coefficients.shape[2:], dtype=np.int64))
        return Pulled(pulled, weighted, total(positive - negative, size), 3 * units + 8)

    def drift(self, errors: tuple, boxes: tuple[Interval, ...], sums: tuple[Sums, ...]) -> Drift:
        xp, eta = namespace(errors[0]), SMALLEST_NORMAL["float32"]
        errors = tuple(error + eta for error in errors)
        left, right = (0.5 * box.lower + 0.5 * box.upper for box in reversed(boxes))
        size, far = boxes[0].magnitude + errors[0], boxes[1].magnitude + errors[1]
        # (x + e)(y + f) - x y = left e + right f + (y - left) e + (x - right) f + e f
        wide = (xp.maximum(boxes[1].upper - left, left - boxes[1].lower) * errors[0]
                + xp.maximum(boxes[0].upper - right, right - boxes[0].lower) * errors[1] + errors[0] * errors[1])
        # factors of x and y may be moved behind their product, and behind the sum of it (the scale of an attention)
        merged = Sums(size * far, 1, sums[0].peak * sums[1].peak)
        peak = xp.reshape(merged.peak, (-1, *(1,) * (size.ndim - 1)))
        own = (wide + gamma(1 + FLOAT32_EXTRA, "float32") * merged.size + float(FLOAT32_EXTRA) * eta * peak) * SLACK
        own = in_float32_range(own, peak)
        return Drift(
            lambda rows: (rows * left[:, None], rows * right[:, None]), own,
            lambda parts: xp.abs(left) * parts[0] + xp.abs(right) * parts[1] + own, 4, merged,
        )

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        results = builder.variables(box.lower, box.upper)
        ends = [
            [[Fraction(end) for end in part.reshape(-1).tolist()] for part in vars(builder.ranges(argument)).values()]
            for argument in arguments
        ]
        for k, (x, y, result) in enumerate(zip(*(p.reshape(-1).tolist() for p in (*arguments, results)), strict=True)):
            for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)):
                # (x - x_i)(y - y_j) is at least 0 at the same ends and at most 0 at opposite ones
                at_x, at_y = ends[0][i][k], ends[1][j][k]
                sense = Sense.GREATER if i == j else Sense.LESS
                row, slopes = ([result, x, y], [1, -at_y, -at_x]) if x != y else ([result, x], [1, -at_y - at_x])
                builder.linear(row, slopes, sense, -at_x * at_y)
        return results

    def onnx(self) -> OnnxForm:
        return OnnxForm("Mul", {}, (None, None))


def mul(spec: NodeSpec) -> Recipe:
    """Mul by a constant (exact), of a value with itself, or of two values."""
    spec.only()
    if len(spec.sources) == 2 and len(set(spec.sources)) == 1:
        return (Fed(Power(2), (0,)),)
    steps, places, constants = operands(spec)
    steps.add(Product() if len(places) == 2 else MultiplyConstant(constants[0]), *places)
    return steps.recipe


def div(spec: NodeSpec) -> Recipe:
    """Div by a constant without zeros (exact), or by a value whose bounds stay on one side of 0."""
    spec.only()
    steps, places, constants = operands(spec)
    if spec.constants[1] is not None:
        if np.any(constants[0] == 0.0):
            raise spec.refuse("Div by a constant that holds 0")
        steps.add(DivideConstant(constants[0]), *places)
    else:
        inverse = steps.add(Inverse(), places[-1])
        steps.add(*((Product(), places[0], inverse) if len(places) == 2 else (MultiplyConstant(constants[0]), inverse)))
    return steps.recipe


def matmul_of_values(spec: NodeSpec) -> Recipe:
    """MatMul of two computed values: all products of entries, and their sums."""
    first, second = spec.shapes
    if min(len(first), len(second)) < 2 or first[-1] != second[-2]:
        raise spec.refuse(f"MatMul of computed values of shapes {list(first)} and {list(second)} is not supported")
    leading = np.broadcast_shapes(first[:-2], second[:-2])
    rows, inner, columns = first[-2], first[-1], second[-1]
    steps = Steps(2)
    whole = Expand((*leading, rows, inner, columns))
    left = steps.then((Reshape((*first, 1)), whole), 0)
    right = steps.then((Reshape((*second[:-2], 1, inner, columns)), whole), 1)
    total = SumOver((len(leading) + 1,), inner)
    steps.then((total, Reshape((*leading, rows, columns))), steps.add(Product(), left, right))
    return steps.recipe
