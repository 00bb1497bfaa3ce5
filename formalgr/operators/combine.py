"""Sums of values, arithmetic with constants, Concat: Add, Sum, Mean, Sub, Neg, Concat, and parts of Mul and Div.

In: the ONNX nodes of those names. Out: linear maps. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.operators.base import NodeSpec, OnnxForm, Recipe, Shape, Steps
from formalgr.operators.linear_map import LinearMap, Rearrangement
from formalgr.operators.reshape import Expand, Pad, Reshape


def _fits(shape: Shape, constant) -> Shape:
    if np.broadcast_shapes(shape, tuple(constant.shape)) != tuple(shape):
        raise ValueError(f"a constant of shape {list(constant.shape)} does not fit values of shape {list(shape)}")
    return shape


@dataclass(frozen=True)
class AddConstant(LinearMap):
    """y = x + constant, the constant broadcast to x."""

    constant: np.ndarray

    @property
    def terms(self) -> int:
        return 1

    @property
    def offset(self):
        return self.constant

    def out_shape(self, *shapes: Shape) -> Shape:
        return _fits(shapes[0], self.constant)

    def apply(self, *values):
        return values[0]

    def apply_local(self, local: Local, shape: Shape) -> Local:
        return local

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (cotangent,)

    def magnitude(self, *values):
        return values[0]

    def onnx(self) -> OnnxForm:
        return OnnxForm("Add", {}, (None, self.constant))


@dataclass(frozen=True)
class MultiplyConstant(LinearMap):
    """y = x * factor, the factor broadcast to x."""

    factor: np.ndarray

    @property
    def terms(self) -> int:
        return 1

    def out_shape(self, *shapes: Shape) -> Shape:
        return _fits(shapes[0], self.factor)

    def apply(self, *values):
        return values[0] * self.factor

    def apply_local(self, local: Local, shape: Shape) -> Local:
        return local.times(np.broadcast_to(self.factor, shape))

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (cotangent * self.factor,)

    def magnitude(self, *values):
        return values[0] * namespace(values[0]).abs(self.factor)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Mul", {}, (None, self.factor))


@dataclass(frozen=True)
class DivideConstant(LinearMap):
    """y = x / divisor, the divisor broadcast to x and free of zeros."""

    divisor: np.ndarray
    dyadic = False

    @property
    def terms(self) -> int:
        return 1

    def out_shape(self, *shapes: Shape) -> Shape:
        return _fits(shapes[0], self.divisor)

    def apply(self, *values):
        return values[0] / self.divisor

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (cotangent / self.divisor,)

    def magnitude(self, *values):
        return values[0] / namespace(values[0]).abs(self.divisor)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Div", {}, (None, self.divisor))


@dataclass(frozen=True)
class Add(LinearMap):
    """y = x_1 + sign * x_2 for two values of one shape; sign +1 or -1."""

    sign: float = 1.0
    arity = 2

    @property
    def terms(self) -> int:
        return 1

    def out_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise ValueError(f"the sum of shapes {list(shapes[0])} and {list(shapes[1])} is not supported")
        return shapes[0]

    def apply(self, *values):
        return values[0] + values[1] if self.sign > 0 else values[0] - values[1]

    def adjoint(self, cotangent, *shapes) -> tuple:
        return cotangent, cotangent if self.sign > 0 else -cotangent

    def magnitude(self, *values):
        return values[0] + values[1]

    def onnx(self) -> OnnxForm:
        return OnnxForm("Add" if self.sign > 0 else "Sub", {}, (None, None))


@dataclass(frozen=True)
class Concat(Rearrangement):
    """Values joined along `axis` (an axis of the node, batch not counted)."""

    axis: int
    arity: int = 2

    def out_shape(self, *shapes: Shape) -> Shape:
        rests = {shape[: self.axis] + shape[self.axis + 1 :] for shape in shapes}
        if len(rests) != 1:
            raise ValueError(f"shapes {[list(s) for s in shapes]} cannot be joined along axis {self.axis}")
        total = sum(shape[self.axis] for shape in shapes)
        return (*shapes[0][: self.axis], total, *shapes[0][self.axis + 1 :])

    def apply(self, *values):
        return namespace(values[0]).concat(list(values), axis=self.axis + 1)

    def adjoint(self, cotangent, *shapes) -> tuple:
        parts, start = [], 0
        for shape in shapes:
            stop = start + shape[self.axis]
            parts.append(cotangent[(slice(None),) * (self.axis + 1) + (slice(start, stop),)])
            start = stop
        return tuple(parts)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Concat", {"axis": self.axis}, (None,) * self.arity)


def operands(spec: NodeSpec) -> tuple[Steps, list[int], list[np.ndarray]]:
    """Steps that broadcast the computed inputs to the common shape of all, where they then are, and the constants."""
    constants = [spec.weights(k) for k, value in enumerate(spec.constants) if value is not None]
    try:
        target = np.broadcast_shapes(*spec.shapes, *(constant.shape for constant in constants))
    except ValueError:
        shapes = [list(shape) for shape in (*spec.shapes, *(constant.shape for constant in constants))]
        raise spec.refuse(f"the shapes {' and '.join(map(str, shapes))} do not broadcast") from None
    spec.check_size(target)
    steps = Steps(len(spec.shapes))
    places = [
        place if tuple(shape) == target else steps.add(Expand(target), place) for place, shape in enumerate(spec.shapes)
    ]
    return steps, places, constants


def add(spec: NodeSpec) -> Recipe:
    """Add and Sum: of values and constants."""
    spec.only()
    steps, (total, *others), constants = operands(spec)
    for place in others:
        total = steps.add(Add(), total, place)
    for constant in constants:
        total = steps.add(AddConstant(constant), total)
    return steps.recipe if steps.recipe else (Reshape(spec.shapes[0]),)


def mean(spec: NodeSpec) -> Recipe:
    """Mean of values and constants."""
    return (*add(spec), DivideConstant(np.array(len(spec.present), dtype=np.float64)))


def sub(spec: NodeSpec) -> Recipe:
    """Sub: x - constant, constant - x, or of two values."""
    spec.only()
    steps, places, constants = operands(spec)
    if not constants:
        steps.add(Add(-1.0), *places)
    elif spec.constants[1] is not None:
        steps.add(AddConstant(np.asarray(-constants[0])), *places)
    else:
        steps.then((MultiplyConstant(np.array(-1.0, dtype=np.float64)), AddConstant(constants[0])), *places)
    return steps.recipe


def negate(spec: NodeSpec) -> Recipe:
    """Neg: -x."""
    spec.only()
    return (MultiplyConstant(np.array(-1.0, dtype=np.float64)),)


def concat(spec: NodeSpec) -> Recipe:
    """Concat of values, and of constants between them: then a sum of padded values."""
    spec.only("axis")
    rank = len(spec.shapes[0])
    axis = int(spec.attribute("axis", 1))
    if not -rank <= axis < rank:
        raise spec.refuse(f"Concat along axis {axis} of values with {rank} axes")
    axis %= rank
    if all(constant is None for constant in spec.constants):
        return (Concat(axis, len(spec.shapes)),)
    shapes = iter(spec.shapes)
    parts = [next(shapes) if value is None else value.shape for value in spec.constants]
    if len({(len(part), *part[:axis], *part[axis + 1 :]) for part in parts}) != 1:
        raise spec.refuse(f"shapes {[list(part) for part in parts]} cannot be joined along axis {axis}")
    target = (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])
    spec.check_size(target)
    steps, total, rest = Steps(len(spec.shapes)), None, np.zeros(target, dtype=np.float64)
    start = source = 0
    for index, part in enumerate(parts):
        stop = start + part[axis]
        if spec.constants[index] is not None:
            rest[(slice(None),) * axis + (slice(start, stop),)] = spec.weights(index)
        else:
            pads = tuple((start, target[axis] - stop) if k == axis else (0, 0) for k in range(rank))
            place = steps.add(Pad(pads, target), source)
            total = place if total is None else steps.add(Add(), total, place)
            source += 1
        start = stop
    steps.add(AddConstant(rest), total)
    return steps.recipe
