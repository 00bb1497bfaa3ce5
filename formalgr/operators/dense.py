"""Dense layers: Gemm and MatMul with a constant matrix.

In: ONNX nodes Gemm, MatMul. Out: Dense. Trust: sound.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Recipe, Shape
from formalgr.operators.bilinear import matmul_of_values
from formalgr.operators.combine import AddConstant, MultiplyConstant
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.reshape import Reshape, Transpose, count

FEW, MANY = 1.0 / 32.0, 1 << 14
"""Matrices with at most this share of nonzero weights, among so many at least, are multiplied as sparse ones."""


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

    @cached_property
    def _absolute(self):
        return namespace(self.weights).abs(self.weights)

    @cached_property
    def _nonzeros(self) -> int | None:
        """The number of nonzero weights, where they are so few that zeros are left out of products; else None."""
        weights = self.weights
        if not isinstance(weights, np.ndarray) or weights.dtype == object or weights.size < MANY:
            return None
        number = int(np.count_nonzero(weights))
        return number if number <= FEW * weights.size else None

    @cached_property
    def _sparse(self) -> tuple:
        """The weights, their absolute values and their transpose as sparse matrices."""
        from scipy.sparse import csr_array

        made = csr_array(self.weights)
        return made, abs(made), csr_array(self.weights.T)

    def multiply_adds(self, out: Shape) -> int:
        dense = super().multiply_adds(out)
        if self._nonzeros is None:
            return dense
        return count(out) + count(out) // out[-1] * self._nonzeros

    def out_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] != self.weights.shape[0]:
            raise ValueError(f"a matrix with {self.weights.shape[0]} rows meets values of shape {list(shape)}")
        return (*shape[:-1], int(self.weights.shape[1]))

    def _product(self, value, weights):
        xp = namespace(value)
        flat = xp.reshape(value, (-1, weights.shape[0]))
        made = xp.matmul(flat, weights) if isinstance(weights, type(flat)) else flat @ weights
        return xp.reshape(made, (*value.shape[:-1], weights.shape[1]))

    def apply(self, *values):
        return self._product(values[0], self.weights if self._nonzeros is None else self._sparse[0])

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
        return (self._product(cotangent, self.weights.T if self._nonzeros is None else self._sparse[2]),)

    def magnitude(self, *values):
        return self._product(values[0], self._absolute if self._nonzeros is None else self._sparse[1])

    def onnx(self) -> OnnxForm:
        if self.bias is None:
            return OnnxForm("MatMul", {}, (None, self.weights))
        return OnnxForm("Gemm", {}, (None, self.weights, self.bias))


def gemm(spec: NodeSpec) -> tuple[Operator, ...]:
    """Gemm with constant B and C: alpha * A B + beta * C, in this order where alpha is not 1."""
    spec.only("alpha", "beta", "transA", "transB", "broadcast")
    weights = spec.weights(1)
    if weights is None or weights.ndim != 2:
        raise spec.refuse("Gemm needs a constant 2-D matrix as its second input")
    weights = np.ascontiguousarray(weights.T if spec.attribute("transB", 0) else weights)
    alpha, bias = float(spec.attribute("alpha", 1.0)), _gemm_bias(spec, weights.shape[1])
    before = (Transpose((1, 0)),) if spec.attribute("transA", 0) else ()
    if alpha == 1.0:
        return (*before, Dense(weights, bias))
    after = () if bias is None else (AddConstant(bias),)
    return (*before, Dense(weights), MultiplyConstant(np.array(alpha, dtype=np.float64)), *after)


def _gemm_bias(spec: NodeSpec, outputs: int) -> np.ndarray | None:
    """beta * C, exact: products of float32 numbers are float64 numbers."""
    bias, beta = spec.weights(2), float(spec.attribute("beta", 1.0))
    if bias is None:
        return None
    if beta != 1.0 and not np.all(bias.astype(np.float32) == bias):
        raise spec.refuse("beta of Gemm with a float64 bias is not exact; multiply it into the bias")
    if bias.size not in (1, outputs) or bias.ndim > 2:
        raise spec.refuse(f"the bias of Gemm has shape {list(bias.shape)} for {outputs} outputs")
    return np.broadcast_to((beta * bias).reshape(-1), (outputs,)).copy()


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
