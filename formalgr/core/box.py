"""Boxes of inputs: a batch of float boxes for computing, and one rational box that says what the query means.

In: bounds. Out: Box, RationalBox. Trust: sound (float boxes are rounded outward, points are pulled inward).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from formalgr.core.arrays import Array, Arrays, namespace, to_numpy
from formalgr.core.linear import AffineForm, Interval, LinearForm, check_bounds
from formalgr.core.region import Region
from formalgr.core.rounding import (
    NEGLIGIBLE,
    STEP_SLACK,
    dtype_name,
    gamma,
    nearest_down,
    nearest_up,
    underflow,
)


@dataclass(frozen=True)
class Box(Region):
    """Batch of closed boxes {x : lower <= x <= upper}; lower and upper (batch, inputs) in any float namespace.

    Raises ValueError on different shapes, NaN, infinite bounds or lower > upper.
    """

    lower: Array
    upper: Array

    def __post_init__(self):
        xp = namespace(self.lower)
        if self.lower.ndim != 2 or self.lower.shape != self.upper.shape:
            raise ValueError(f"box bounds must be (batch, inputs), got {self.lower.shape} and {self.upper.shape}")
        if not bool(xp.all(self.lower <= self.upper)):
            raise ValueError("a box has lower > upper or a NaN bound")
        if not bool(xp.all(xp.isfinite(self.lower) & xp.isfinite(self.upper))):
            raise ValueError("a box is unbounded")

    def __len__(self):
        return self.lower.shape[0]

    @property
    def inputs(self) -> int:
        """Number of input coordinates."""
        return self.lower.shape[1]

    @property
    def center(self):
        """A point of every box, (batch, inputs)."""
        xp = namespace(self.lower)
        return xp.minimum(xp.maximum(0.5 * self.lower + 0.5 * self.upper, self.lower), self.upper)

    @property
    def radius(self):
        """Upper bound of |x - center| over the box, (batch, inputs); zero exactly for a point."""
        xp = namespace(self.lower)
        center = self.center
        return xp.maximum(self.upper - center, center - self.lower) * (1.0 + gamma(2, dtype_name(self.lower)))

    def __getitem__(self, index) -> "Box":
        return Box(self.lower[index], self.upper[index])

    def to(self, arrays: Arrays) -> "Box":
        """The same boxes in another namespace; float32 bounds are rounded outward."""
        lower, upper = to_numpy(self.lower), to_numpy(self.upper)
        if arrays.dtype == "float32":
            low, high = lower.astype(np.float32), upper.astype(np.float32)
            lower = np.where(low > lower, np.nextafter(low, np.float32(-np.inf)), low)
            upper = np.where(high < upper, np.nextafter(high, np.float32(np.inf)), high)
        return Box(arrays.asarray(lower), arrays.asarray(upper))

    def interval(self, shape) -> Interval:
        """The box as an interval of the input node of the given shape."""
        return Interval(self.lower, self.upper).reshape(shape)

    def affine(self, shape) -> AffineForm:
        """The box as an affine form x = center + radius * t, t in [-1, 1]^inputs, over a node of the given shape."""
        xp = namespace(self.lower)
        batch, inputs = self.lower.shape
        eye = xp.asarray(np.eye(inputs, dtype=dtype_name(self.lower)))
        eye = eye if isinstance(self.lower, np.ndarray) else eye.to(self.lower.device)
        generators = self.radius[:, None, :] * eye[None, :, :]
        center = xp.reshape(self.center, (batch, *shape))
        return AffineForm(xp.reshape(generators, (batch, inputs, *shape)), center, 0.0 * center)

    def minimum(self, form: LinearForm):
        """Lower bound of every row over the box, (batch, rows): its value at the best corner, rounded down.

        Raises NumericalError when it is NaN or an overflow.
        """
        xp = namespace(self.lower)
        dtype = dtype_name(self.lower)
        coefficients = form.flat()
        absolute = xp.abs(coefficients)
        middle = xp.matmul(coefficients, self.center[:, :, None])[..., 0]
        reach = xp.matmul(absolute, self.radius[:, :, None])[..., 0]
        size = xp.abs(self.center) + NEGLIGIBLE[dtype]
        scale = xp.matmul(absolute, size[:, :, None])[..., 0] + reach + xp.abs(form.constant)
        terms = 2 * self.inputs + 8
        error = form.error * STEP_SLACK + gamma(terms, dtype) * scale + underflow(terms, dtype)
        least = middle - reach + form.constant - error
        check_bounds(least, error, "a linear form")
        return least

    def minimiser(self, form: LinearForm):
        """The corner of each box where each row is smallest, (batch, rows, inputs)."""
        xp = namespace(self.lower)
        return xp.where(form.flat() > 0, self.lower[:, None, :], self.upper[:, None, :])

    def split(self, axes) -> "Box":
        """First halves then second halves, (2 * batch, inputs): halved at the center of the given axes (batch,)."""
        xp = namespace(self.lower)
        chosen = xp.arange(self.inputs, device=getattr(self.lower, "device", None))[None, :] == axes[:, None]
        center = self.center
        lower = xp.concat([self.lower, xp.where(chosen, center, self.lower)], axis=0)
        upper = xp.concat([xp.where(chosen, center, self.upper), self.upper], axis=0)
        return Box(lower, upper)


@dataclass(frozen=True)
class RationalBox:
    """One closed box with exact rational bounds: what a query means, before any rounding.

    Raises ValueError on different lengths; an empty box (lower > upper somewhere) is allowed and says so.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self):
        if len(self.lower) != len(self.upper):
            raise ValueError(f"a box has {len(self.lower)} lower and {len(self.upper)} upper bounds")

    @property
    def inputs(self) -> int:
        """Number of input coordinates."""
        return len(self.lower)

    @cached_property
    def empty(self) -> bool:
        """Whether no point lies in the box."""
        return any(low > high for low, high in zip(self.lower, self.upper, strict=True))

    def within(self, lower: Sequence[float | Fraction], upper: Sequence[float | Fraction]) -> "RationalBox":
        """The points of the box that lie between lower and upper (inputs,) too; it may be empty."""
        return RationalBox(
            tuple(max(a, Fraction(b)) for a, b in zip(self.lower, lower, strict=True)),
            tuple(min(a, Fraction(b)) for a, b in zip(self.upper, upper, strict=True)),
        )

    def contains(self, point: Sequence[Fraction]) -> bool:
        """Whether the exact point lies in the closed box."""
        return all(low <= x <= high for low, x, high in zip(self.lower, point, self.upper, strict=True))

    def project(self, point: Sequence[float | Fraction]) -> tuple[Fraction, ...]:
        """The nearest exact point of the box; `point` itself, floats read as the rationals they are, when inside."""
        exact = (Fraction(x) for x in point)
        return tuple(min(max(x, low), high) for low, x, high in zip(self.lower, exact, self.upper, strict=True))


def outward(boxes: Sequence[RationalBox]) -> Box:
    """The smallest float64 boxes that contain the rational boxes, (len(boxes), inputs)."""
    lower = np.array([[nearest_down(x) for x in box.lower] for box in boxes], dtype=np.float64)
    upper = np.array([[nearest_up(x) for x in box.upper] for box in boxes], dtype=np.float64)
    return Box(lower, upper)


def inward_float32(boxes: Sequence[RationalBox]) -> Box:
    """The float32 numbers inside each rational box, as float64 arrays; where there are none, the nearest float64.

    Used to place candidate points (heuristic): membership is decided exactly by `RationalBox.contains`.
    """
    wide = outward(boxes)
    low, high = wide.lower.astype(np.float32), wide.upper.astype(np.float32)
    low = np.where(low < wide.lower, np.nextafter(low, np.float32(np.inf)), low).astype(np.float64)
    high = np.where(high > wide.upper, np.nextafter(high, np.float32(-np.inf)), high).astype(np.float64)
    exists = low <= high
    return Box(np.where(exists, low, wide.lower), np.where(exists, high, wide.upper))
