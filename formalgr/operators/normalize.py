"""BatchNormalization at inference: scale * (x - mean) / sqrt(var + epsilon) + shift.

In: the ONNX node of that name. Out: BatchNorm. Trust: sound.

The square root is irrational in general: the factor is computed in float64 and `terms` counts its relative error, so
that the bounds hold for the real function; exact rational evaluation does not exist (`rational` is false).
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.core.rounding import SMALLEST_NORMAL
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Shape
from formalgr.operators.linear_map import LinearMap


@dataclass(frozen=True)
class BatchNorm(LinearMap):
    """y = factor * (x - mean) + shift per channel (axis 1 of the node); all (channels, 1, ...)."""

    form: OnnxForm
    factor: np.ndarray
    mean: np.ndarray
    shift: np.ndarray
    rational = False

    @property
    def terms(self) -> int:
        return 8

    @property
    def offset(self):
        return self.shift - self.factor * self.mean

    def offset_size(self):
        xp = namespace(self.shift)
        return xp.abs(self.shift) + xp.abs(self.factor * self.mean)

    def out_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) < 2 or shapes[0][1] != self.factor.shape[0]:
            raise ValueError(f"{self.factor.shape[0]} channels of statistics meet shape {list(shapes[0])}")
        return shapes[0]

    def apply(self, *values):
        return values[0] * self.factor

    def apply_local(self, local: Local, shape: Shape) -> Local:
        return local.times(np.broadcast_to(self.factor, shape))

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (cotangent * self.factor,)

    def magnitude(self, *values):
        return values[0] * namespace(values[0]).abs(self.factor)

    def onnx(self) -> OnnxForm:
        return self.form


def batch_normalization(spec: NodeSpec) -> tuple[Operator, ...]:
    """BatchNormalization with constant statistics; training mode is refused."""
    spec.only("epsilon", "momentum", "training_mode", "spatial", "is_test")
    if spec.attribute("training_mode", 0) or not spec.attribute("spatial", 1):
        raise spec.refuse("BatchNormalization in training mode or with spatial=0 is not supported")
    scale, shift, mean, variance = (spec.weights(k) for k in (1, 2, 3, 4))
    epsilon = float(np.float32(spec.attribute("epsilon", 1e-5)))
    shape = (-1, *(1,) * (len(spec.shapes[0]) - 2))
    if np.any(variance + epsilon < SMALLEST_NORMAL["float32"]):
        raise spec.refuse("BatchNormalization with variance + epsilon <= 0, or so small that float32 may take it for 0")
    factor = scale / np.sqrt(variance + epsilon)
    form = OnnxForm("BatchNormalization", {"epsilon": epsilon}, (None, scale, shift, mean, variance))
    return (BatchNorm(form, factor.reshape(shape), mean.reshape(shape), shift.reshape(shape)),)
