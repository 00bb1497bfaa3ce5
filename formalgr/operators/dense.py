"""Dense layers: Gemm and MatMul with a constant matrix.

In: ONNX nodes Gemm, MatMul. Out: Dense. Trust: sound.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Recipe, Shape
from formalgr.operators.bilinear import matmul_of_values
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.reshape import Reshape, Transpose, count


@dataclass(frozen=True)
class Dense(LinearMap):
    """y = x W + bias over the last axis: x (..., rows), weights (rows, out), bias (out,) or None."""

    weights: np.ndarray
    bias: np.ndarray | None = None

    @property
    def terms(self) -> int:
        return int(self.weights.shape[0]) + 1

    @property
    def offset(self):
        return self.bias

    def out_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] != self.weights.shape[0]:
            raise ValueError(f"a matrix with {self.weights.shape[0]} rows meets values of shape {list(shape)}")
        return (*shape[:-1], int(self.weights.shape[1]))

    def _product(self, value, weights):
        xp = namespace(value)
        flat = xp.reshape(value, (-1, weights.shape[0]))
        return xp.reshape(xp.matmul(flat, weights), (*value.shape[:-1], weights.shape[1]))

    def apply(self, *values):
        return self._product(values[0], self.weights)

    def apply_local(self, local: Local, shape: Shape) -> Local | None:
        """One output row per window: a sparse product, which reads the weights of nonzero elements only."""
        if count(shape) != shape[-1]:
            return None
        from scipy.sparse import csr_array

        flat, places = local.flat, local.places
        used = flat != 0.0
        ends = np.concatenate([[0], np.cumsum(np.sum(used, axis=1))])
        made = csr_array((flat[used], places[used], ends), shape=(len(local), local.elements)) @ self.weights
        out = self.out_shape(shape)
        return Local(np.reshape(made, (len(local), *out)), np.zeros((len(local), len(out)), dtype=np.int64), out)

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (self._product(cotangent, self.weights.T),)

    def magnitude(self, *values):
        return self._product(values[0], namespace(values[0]).abs(self.weights))

    def onnx(self) -> OnnxForm:
        if self.bias is None:
            return OnnxForm("MatMul", {}, (None, self.weights))
        return OnnxForm("Gemm", {}, (None, self.weights, self.bias))


def _exact_product(spec: NodeSpec, array: np.ndarray, factor: float) -> np.ndarray:
    product = array * factor
    fits = np.all(array.astype(np.float32) == array) and np.float32(factor) == factor
    if factor != 1.0 and not fits:
        raise spec.refuse("alpha or beta of Gemm with float64 weights is not exact; multiply it into the weights")
    return product


def gemm(spec: NodeSpec) -> tuple[Operator, ...]:
    """Gemm with constant B and C: alpha * A B + beta * C (float32 products are exact in float64)."""
    spec.only("alpha", "beta", "transA", "transB", "broadcast")
    weights = spec.weights(1)
    if weights is None or weights.ndim != 2:
        raise spec.refuse("Gemm needs a constant 2-D matrix as its second input")
    weights = weights.T if spec.attribute("transB", 0) else weights
    weights = _exact_product(spec, np.ascontiguousarray(weights), float(spec.attribute("alpha", 1.0)))
    bias = spec.weights(2)
    if bias is not None:
        bias = _exact_product(spec, bias, float(spec.attribute("beta", 1.0)))
        if bias.size not in (1, weights.shape[1]) or bias.ndim > 2:
            raise spec.refuse(f"the bias of Gemm has shape {list(bias.shape)} for {weights.shape[1]} outputs")
        bias = np.broadcast_to(bias.reshape(-1), (weights.shape[1],)).copy()
    dense = Dense(weights, bias)
    return (Transpose((1, 0)), dense) if spec.attribute("transA", 0) else (dense,)


def matmul(spec: NodeSpec) -> Recipe:
    """MatMul by a constant matrix, from the right or from the left (exact), or of two values."""
    spec.only()
    if spec.constants[1] is not None:
        weights = spec.weights(1)
        if weights.ndim == 1:
            shape = spec.shapes[0]
            return Dense(weights[:, None]), Reshape(shape[:-1])
        weights = _squeezed(spec, weights)
        return (Dense(np.ascontiguousarray(weights)),)
    if spec.constants[0] is None:
        return matmul_of_values(spec)
    left, shape = _squeezed(spec, spec.weights(0)), spec.shapes[0]
    dense = Dense(np.ascontiguousarray(left.T))
    if len(shape) == 1:
        return (dense,)
    swap = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    return Transpose(swap), dense, Transpose(swap)


def _squeezed(spec: NodeSpec, weights: np.ndarray) -> np.ndarray:
    if weights.ndim < 2 or any(size != 1 for size in weights.shape[:-2]):
        raise spec.refuse(f"MatMul with a constant of shape {list(weights.shape)} is not supported")
    return weights.reshape(weights.shape[-2:])
