"""Linear maps: y = L(x_1, ..., x_k) + bias. The base class derives every bound AND its error radius.

In: apply, adjoint, magnitude of a concrete map. Out: all meanings. Trust: sound.

Error model: core/rounding.py. With m = |L| |x| + |bias| (magnitude), a computed L x + bias is off by gamma_n m.
"""

import math
from abc import abstractmethod

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace
from formalgr.core.exact import rational_array
from formalgr.core.linear import AffineForm, Drift, Interval, Pulled, Sums
from formalgr.core.local import Local
from formalgr.core.program import Sense
from formalgr.core.rounding import (
    FLOAT32_EXTRA,
    MOST_ROUNDINGS,
    NEGLIGIBLE,
    SLACK,
    SMALLEST_NORMAL,
    dtype_name,
    gamma,
    underflow,
)
from formalgr.operators.base import Operator, ProgramBuilder, Shape, in_float32_range


class LinearMap(Operator):
    """Linear operator with an offset. A concrete map gives `apply`, `adjoint`, `magnitude`, `terms`, `offset`."""

    dyadic: bool = True
    """Whether apply on a unit vector in float64 gives the exact weights (false where a division is involved)."""

    @property
    @abstractmethod
    def terms(self) -> int:
        """Largest number of roundings that one output collects (products, sums, inexact weights)."""

    @property
    def offset(self):
        """The bias, broadcastable to (*out), or None."""
        return None

    @abstractmethod
    def apply(self, *values):
        """The linear part: (batch, *in) -> (batch, *out)."""

    @abstractmethod
    def adjoint(self, cotangent, *shapes) -> tuple:
        """Transposed linear part: (batch, *out) -> one (batch, *in) per input; `shapes` of the inputs without batch."""

    @abstractmethod
    def magnitude(self, *values):
        """The linear part with the absolute values of all weights, applied to non-negative values."""

    def apply_local(self, local: Local, shape: Shape) -> Local | None:
        """The linear part of values that vanish outside windows of the input node of `shape`; None: use `apply`."""
        return None

    def multiply_adds(self, out: Shape) -> int:
        return self.terms * math.prod(out)

    def evaluate(self, *values):
        result = self.apply(*values)
        return result if self.offset is None else result + self.offset

    def pullback(self, cotangent, *values) -> tuple:
        return self.adjoint(cotangent, *(value.shape[1:] for value in values))

    def offset_size(self):
        """|bias| before any cancellation, or 0."""
        return 0.0 if self.offset is None else namespace(self.offset).abs(self.offset)

    def interval(self, *boxes: Interval) -> Interval:
        dtype = dtype_name(boxes[0].lower)
        factor = gamma(self.terms + 4, dtype)
        centers = [0.5 * box.lower + 0.5 * box.upper for box in boxes]
        reaches = []
        for box, center in zip(boxes, centers, strict=True):
            xp = namespace(center)
            radius = xp.maximum(box.upper - center, center - box.lower)
            reaches.append(radius * (1.0 + factor) + 2.0 * factor * (box.magnitude + NEGLIGIBLE[dtype]))
        middle = self.evaluate(*centers)
        reach = self.magnitude(*reaches) * (1.0 + factor) + factor * self.offset_size()
        reach = reach + underflow(2 * self.terms + 8, dtype)
        lower, upper = middle - reach, middle + reach
        step = gamma(2, dtype) * (namespace(middle).abs(middle) + reach)
        return Interval(lower - step, upper + step)

    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        dtype = dtype_name(forms[0].center)
        factor = gamma(self.terms + 4, dtype)
        batch, inputs = forms[0].generators.shape[:2]
        flat = []
        for form in forms:
            xp = namespace(form.center)
            flat.append(xp.reshape(form.generators, (batch * inputs, *form.generators.shape[2:])))
        generators = self.apply(*flat)
        xp = namespace(generators)
        generators = xp.reshape(generators, (batch, inputs, *generators.shape[1:]))
        center = self.evaluate(*(form.center for form in forms))
        sizes = [(form.spread + xp.abs(form.center) + NEGLIGIBLE[dtype]) * factor for form in forms]
        reach = [form.radius * (1.0 + factor) + size for form, size in zip(forms, sizes, strict=True)]
        radius = self.magnitude(*reach) * (1.0 + factor) + factor * self.offset_size()
        return AffineForm(generators, center, radius + underflow((2 * self.terms + 8) * (inputs + 1), dtype))

    def backward(self, coefficients, boxes: tuple[Interval, ...]) -> Pulled:
        xp = namespace(coefficients)
        batch, rows = coefficients.shape[:2]
        out = coefficients.shape[2:]
        shapes = [box.lower.shape[1:] for box in boxes]
        pulled = self.adjoint(xp.reshape(coefficients, (batch * rows, *out)), *shapes)
        pulled = tuple(xp.reshape(p, (batch, rows, *shape)) for p, shape in zip(pulled, shapes, strict=True))
        if self.terms == 0 and self.offset is None:
            return Pulled(pulled)
        flat = xp.reshape(coefficients, (batch, rows, -1))
        units = flat.shape[-1]
        if self.offset is None:
            weighted = arrays_of.zeros(coefficients, (batch, rows))
        else:
            bias = xp.reshape(xp.broadcast_to(self.offset, out), (units,))
            weighted = xp.matmul(flat, bias)
        size = self.magnitude(*(box.magnitude for box in boxes)) + self.offset_size()
        size = size + NEGLIGIBLE[dtype_name(coefficients)]
        magnitudes = xp.matmul(xp.abs(flat), xp.reshape(size, (batch, units, 1)))[..., 0]
        return Pulled(pulled, weighted, magnitudes, max(units, self.terms) + self.terms)

    def drift(self, errors: tuple, boxes: tuple[Interval, ...], sums: tuple[Sums, ...]) -> Drift:
        merged = self._merged(sums)
        own = self._float32_rounding(merged)

        def pull(coefficients) -> tuple:
            batch, rows = coefficients.shape[:2]
            shapes = [box.lower.shape[1:] for box in boxes]
            flat = namespace(coefficients).reshape(coefficients, (batch * rows, *coefficients.shape[2:]))
            pulled = self.adjoint(flat, *shapes)
            return tuple(namespace(p).reshape(p, (batch, rows, *s)) for p, s in zip(pulled, shapes, strict=True))

        terms = self.terms + int(np.prod(own.shape[1:]))
        return Drift(pull, own, lambda parts: self.magnitude(*parts) + own, terms, merged)

    def _merged(self, sums: tuple[Sums, ...]) -> Sums:
        """The sums of the output: this map merged with the linear maps before it."""
        xp = namespace(sums[0].size)
        ones = (arrays_of.full(part.size, (1, *part.size.shape[1:]), 1.0) for part in sums)
        gain = max(1.0, float(xp.max(self.magnitude(*ones))))
        shift = 0.0 if self.offset is None else float(xp.max(self.offset_size()))
        met = [part.roundings for part in sums]
        return Sums(
            self.magnitude(*(part.size for part in sums)) + self.offset_size(),
            self.terms + sum(met) if self.terms else max(met),
            gain * sum(part.peak for part in sums) + shift,
        )

    def _float32_rounding(self, merged: Sums):
        """Bound of what float32 evaluation rounds, (batch, *out): gamma_n of all summands, and what is flushed.

        An input, weight, product or partial sum that is flushed is worth eta times what it is multiplied with, at most
        the peak; there are fewer than n^2 of them in one output.
        """
        if self.terms == 0:
            return arrays_of.zeros(merged.size, merged.size.shape)
        roundings, eta = merged.roundings + FLOAT32_EXTRA, SMALLEST_NORMAL["float32"]
        if roundings > MOST_ROUNDINGS:
            return arrays_of.full(merged.size, merged.size.shape, float("inf"))
        peak = namespace(merged.size).reshape(merged.peak, (-1, *(1,) * (merged.size.ndim - 1)))
        own = gamma(roundings, "float32") * merged.size + float(roundings) ** 2 * eta * peak
        return in_float32_range(own * SLACK, peak)

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        results = builder.variables(box.lower, box.upper)
        indices = np.concatenate([argument.reshape(-1) for argument in arguments])
        matrix, bias = self._matrix([argument.shape for argument in arguments], results.shape)
        for column, result in enumerate(results.reshape(-1)):
            used = np.nonzero(matrix[:, column])[0]
            row = [*indices[used].tolist(), int(result)]
            builder.linear(row, [*matrix[used, column].tolist(), -1.0], Sense.EQUAL, -bias[column])
        return results

    def _matrix(self, shapes, out):
        """All weights (inputs, outputs) and the bias (outputs,), exact: rationals where float64 cannot hold them."""
        sizes = [int(np.prod(shape)) for shape in shapes]
        blocks, start, total = [], 0, sum(sizes)
        for shape, size in zip(shapes, sizes, strict=True):
            block = np.zeros((total, size), dtype=np.float64)
            block[start : start + size] = np.eye(size, dtype=np.float64)
            blocks.append(block.reshape(total, *shape))
            start += size
        if self.dyadic:
            matrix = self.apply(*blocks)
        else:
            matrix = self.to(arrays_of.RATIONAL).apply(*(rational_array(block) for block in blocks))
        bias = np.zeros(out, dtype=np.float64) if self.offset is None else np.broadcast_to(self.offset, out)
        return matrix.reshape(total, -1), bias.reshape(-1).tolist()


class Rearrangement(LinearMap):
    """A linear map whose outputs are single inputs or constants, each input used at most once: nothing is rounded."""

    @property
    def terms(self) -> int:
        return 0

    def magnitude(self, *values):
        return self.apply(*values)

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(
            self.evaluate(*(box.lower for box in boxes)), self.evaluate(*(box.upper for box in boxes))
        )

    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        batch, inputs = forms[0].generators.shape[:2]
        flat = []
        for form in forms:
            xp = namespace(form.center)
            flat.append(xp.reshape(form.generators, (batch * inputs, *form.generators.shape[2:])))
        generators = self.apply(*flat)
        generators = namespace(generators).reshape(generators, (batch, inputs, *generators.shape[1:]))
        center = self.evaluate(*(form.center for form in forms))
        return AffineForm(generators, center, self.apply(*(form.radius for form in forms)))

    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        # variables are only moved: indices + 1 travel through the map, 0 marks a constant
        moved = self.apply(*(argument[None].astype(np.float64) + 1.0 for argument in arguments))[0]
        results = np.rint(moved).astype(np.int64) - 1
        constant = results < 0
        if np.any(constant):
            results[constant] = builder.variables(box.lower[constant], box.upper[constant])
        return results
