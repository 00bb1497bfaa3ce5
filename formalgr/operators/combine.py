"""Arithmetic with constants and sums of values: Add, Sub, Mul, Div, Concat, Sum.

In: the ONNX nodes of those names. Out: linear maps. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Shape
from formalgr.operators.linear_map import LinearMap, Rearrangement
from formalgr.operators.reshape import Expand


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


def _with_constant(spec: NodeSpec) -> tuple[np.ndarray, tuple[Operator, ...], bool]:
    """The constant operand, what broadcasts the other one to the common shape, and whether the constant is first."""
    first = spec.constants[0] is not None
    constant = np.atleast_1d(spec.weights(0 if first else 1))
    shape = spec.shapes[0]
    try:
        target = np.broadcast_shapes(shape, constant.shape)
    except ValueError:
        raise spec.refuse(f"shapes {list(shape)} and {list(constant.shape)} do not broadcast") from None
    return constant, () if target == tuple(shape) else (Expand(tuple(target)),), first


def add(spec: NodeSpec) -> tuple[Operator, ...]:
    """Add: of a constant, or of two values of the same shape."""
    spec.only()
    if len(spec.shapes) == 2:
        return (Add(),)
    constant, before, _ = _with_constant(spec)
    return (*before, AddConstant(constant))


def sub(spec: NodeSpec) -> tuple[Operator, ...]:
    """Sub: x - constant, constant - x, or of two values of the same shape."""
    spec.only()
    if len(spec.shapes) == 2:
        return (Add(-1.0),)
    constant, before, first = _with_constant(spec)
    if not first:
        return (*before, AddConstant(-constant))
    return (*before, MultiplyConstant(np.array([-1.0], dtype=np.float64)), AddConstant(constant))


def mul(spec: NodeSpec) -> tuple[Operator, ...]:
    """Mul by a constant."""
    spec.only()
    if len(spec.shapes) == 2:
        raise spec.refuse("Mul of two computed values is bilinear and not supported")
    constant, before, _ = _with_constant(spec)
    return (*before, MultiplyConstant(constant))


def div(spec: NodeSpec) -> tuple[Operator, ...]:
    """Div by a constant without zeros."""
    spec.only()
    if spec.constants[1] is None:
        raise spec.refuse("Div by a computed value is not supported")
    constant, before, _ = _with_constant(spec)
    if np.any(constant == 0.0):
        raise spec.refuse("Div by a constant that holds 0")
    return (*before, DivideConstant(constant))


def concat(spec: NodeSpec) -> tuple[Operator, ...]:
    """Concat of computed values."""
    spec.only("axis")
    if any(constant is not None for constant in spec.constants):
        raise spec.refuse("Concat with a constant part is not supported; use Pad")
    axis = int(spec.attribute("axis", 1))
    return (Concat(axis % len(spec.shapes[0]), len(spec.shapes)),)

