"""Reductions over axes: ReduceSum, ReduceMean (linear), ReduceMax, ReduceMin (by MaxPool).

In: the ONNX nodes of those names. Out: SumOver and what surrounds it. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Recipe, Shape
from formalgr.operators.combine import DivideConstant, MultiplyConstant
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.pooling import whole_maximum
from formalgr.operators.reshape import Reshape, Transpose, count


@dataclass(frozen=True)
class SumOver(LinearMap):
    """Sums over `axes` (ascending axes of the node), which stay as axes of size 1; `number` values in each sum."""

    axes: tuple[int, ...]
    number: int

    @property
    def terms(self) -> int:
        return self.number

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis + 1 for axis in self.axes)

    def out_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not all(axis < len(shape) for axis in self.axes):
            raise ValueError(f"a sum over axes {list(self.axes)} meets shape {list(shape)}")
        if count(tuple(shape[axis] for axis in self.axes)) != self.number:
            raise ValueError(f"sums of {self.number} values meet shape {list(shape)}")
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))

    def apply(self, *values):
        return namespace(values[0]).sum(values[0], axis=self._axes, keepdims=True)

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (namespace(cotangent).broadcast_to(cotangent, (cotangent.shape[0], *shapes[0])),)

    def magnitude(self, *values):
        return self.apply(*values)

    def onnx(self) -> OnnxForm:
        return OnnxForm("ReduceSum", {"keepdims": 1}, (None, np.array(self.axes, dtype=np.int64)))


def _axes(spec: NodeSpec) -> tuple[int, ...]:
    """The axes that are reduced, ascending: an attribute in old opsets, an input in new ones; none said means all."""
    spec.only("axes", "keepdims", "noop_with_empty_axes")
    rank = len(spec.shapes[0])
    axes = spec.attribute("axes")
    axes = np.asarray(spec.constant(1, np.zeros(0, dtype=np.int64)) if axes is None else axes).reshape(-1)
    if not axes.size:
        return () if spec.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    if np.any((axes < -rank) | (axes >= rank)):
        raise spec.refuse(f"{spec.op_type} over axes {axes.tolist()} of values with {rank} axes")
    return tuple(sorted({int(axis) % rank for axis in axes}))


def _dropped(spec: NodeSpec, axes: tuple[int, ...]) -> tuple[Operator, ...]:
    """What removes the reduced axes, unless they are kept."""
    if spec.attribute("keepdims", 1):
        return ()
    return (Reshape(tuple(size for axis, size in enumerate(spec.shapes[0]) if axis not in axes)),)


def reduce_sum(spec: NodeSpec) -> Recipe:
    """ReduceSum and ReduceMean."""
    axes, shape = _axes(spec), spec.shapes[0]
    number = count(tuple(shape[axis] for axis in axes))
    if not axes:
        return (Reshape(shape),)
    mean = (DivideConstant(np.array(number, dtype=np.float64)),) if spec.op_type == "ReduceMean" else ()
    return (SumOver(axes, number), *mean, *_dropped(spec, axes))


def reduce_max(spec: NodeSpec) -> Recipe:
    """ReduceMax and ReduceMin: the reduced axes become the last one, over which a MaxPool goes."""
    axes, shape = _axes(spec), spec.shapes[0]
    if not axes:
        return (Reshape(shape),)
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    outer, inner = (count(tuple(shape[axis] for axis in some)) for some in (kept, axes))
    sign = (MultiplyConstant(np.array(-1.0, dtype=np.float64)),) if spec.op_type == "ReduceMin" else ()
    small = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    maximum = (Transpose((*kept, *axes)), Reshape((1, outer, inner)), whole_maximum((inner,)), Reshape(small))
    return (*sign, *maximum, *sign, *_dropped(spec, axes))
