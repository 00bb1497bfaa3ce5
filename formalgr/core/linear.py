"""Bounds as values: intervals, affine forms of the inputs, and linear lower bounds, each with its error radius.

In: arrays of one namespace. Out: Interval, AffineForm, LinearForm. Trust: sound.
"""

from collections.abc import Callable
from dataclasses import dataclass

from formalgr.core.arrays import Array, namespace
from formalgr.core.errors import NumericalError
from formalgr.core.rounding import NEGLIGIBLE, STEP_SLACK, dtype_name, gamma, underflow


@dataclass(frozen=True)
class Interval:
    """Sound box around the values of a node: lower <= value <= upper, both (batch, *node)."""

    lower: Array
    upper: Array

    @property
    def magnitude(self):
        """Largest absolute value in the box, (batch, *node)."""
        xp = namespace(self.lower)
        return xp.maximum(-self.lower, self.upper)

    def reshape(self, shape) -> "Interval":
        """The same box with nodes laid out as `shape` (without the batch axis)."""
        full = (self.lower.shape[0], *shape)
        xp = namespace(self.lower)
        return Interval(xp.reshape(self.lower, full), xp.reshape(self.upper, full))

    def intersect(self, other: "Interval") -> "Interval":
        """Sound box around values that lie in both boxes; lower may not exceed upper when both are sound."""
        xp = namespace(self.lower)
        lower = xp.maximum(self.lower, other.lower)
        return Interval(lower, xp.maximum(lower, xp.minimum(self.upper, other.upper)))

    def __getitem__(self, index) -> "Interval":
        return Interval(self.lower[index], self.upper[index])

    def checked(self, what: str) -> "Interval":
        """The same box; raises NumericalError when a bound is NaN or on the wrong side of everything finite."""
        check_bounds(self.lower, self.upper, what)
        return self

    @property
    def total(self):
        """Sum of the magnitudes of all elements, (batch, 1)."""
        xp = namespace(self.lower)
        return xp.sum(xp.reshape(self.magnitude, (self.lower.shape[0], -1)), axis=1)[:, None]


def check_bounds(lower, upper, what: str) -> None:
    """Raises NumericalError unless lower < inf and upper > -inf: an overflow or NaN may never prove anything."""
    xp = namespace(lower)
    if not (bool(xp.all(lower < float("inf"))) and bool(xp.all(upper > -float("inf")))):
        raise NumericalError(f"the bounds of {what} are NaN or overflow")


@dataclass(frozen=True)
class AffineForm:
    """value = generators . t + center + e with t in [-1, 1]^p and |e| <= radius; error of every rounding included.

    generators (batch, p, *node), center and radius (batch, *node).
    """

    generators: Array
    center: Array
    radius: Array

    @property
    def spread(self):
        """Upper bound (up to relative SLACK) of |generators . t|, (batch, *node)."""
        xp = namespace(self.center)
        return xp.sum(xp.abs(self.generators), axis=1)

    def interval(self) -> Interval:
        """Sound box around the values of the form."""
        dtype = dtype_name(self.center)
        terms = self.generators.shape[1] + 4
        xp = namespace(self.center)
        reach = self.spread + self.radius
        reach = reach * (1.0 + gamma(terms, dtype)) + xp.abs(self.center) * gamma(2, dtype) + underflow(terms, dtype)
        return Interval(self.center - reach, self.center + reach)


@dataclass(frozen=True)
class Pulled:
    """One backward step: the coefficients over each input of an operator, and what the step adds to the constant.

    coefficients: one array (batch, rows, *input) per input. weighted (batch, rows): sum of coefficient * offset.
    magnitudes (batch, rows): upper bound (up to relative SLACK) of the sum of |coefficient| * |value| over everything
    that the step rounded, with at most `terms` products per sum. None, None, 0: the step is exact.
    """

    coefficients: tuple
    weighted: Array = None
    magnitudes: Array = None
    terms: int = 0


@dataclass(frozen=True)
class Sums:
    """What a node sums up along the linear maps in a row that end in it, which may be merged into one before they run.

    size (batch, *node): all summands in absolute value, so that nothing cancels; roundings: how many one of them may
    meet, in any order; peak (batch,): bound of every number met, factors below 1 left out. A node that no linear map
    makes is one summand.
    """

    size: Array
    roundings: int
    peak: Array


@dataclass(frozen=True)
class Drift:
    """How far an operator's output is off when its inputs are: output error = linear part of the input errors + rest.

    pull: coefficients (batch, rows, *out) of output errors -> one array (batch, rows, *input) per input, exactly the
    transposed linear part up to `terms` roundings. own (batch, *out): bound of |rest|. spread (batch, *out): |linear
    part| applied to bounds of the input errors, plus own. sums: of the output of a linear map, else None.
    """

    pull: Callable
    own: Array
    spread: Callable
    terms: int
    sums: Sums | None = None


@dataclass(frozen=True)
class LinearForm:
    """Linear lower bounds: quantity >= coefficients . node + constant - error for every input of the region.

    coefficients (batch, rows, *node), constant and error (batch, rows); error >= 0.
    """

    coefficients: Array
    constant: Array
    error: Array

    def flat(self):
        """Coefficients as (batch, rows, units)."""
        xp = namespace(self.coefficients)
        batch, rows = self.coefficients.shape[:2]
        return xp.reshape(self.coefficients, (batch, rows, -1))


def absorb(constant, error, pulled: Pulled, total):
    """Constant and error radius (batch, rows) after a backward step: each of its roundings is in the error.

    total (batch, 1): sum of |value| over the inputs of the step, which an underflow in a coefficient multiplies.
    """
    if pulled.weighted is None:
        return constant, error
    xp = namespace(constant)
    dtype = dtype_name(constant)
    constant = constant + pulled.weighted
    lost = NEGLIGIBLE[dtype] * (1.0 + total)
    rounding = gamma(pulled.terms + 4, dtype) * (pulled.magnitudes + lost) + gamma(1, dtype) * xp.abs(constant)
    return constant, (error + rounding + underflow(2 * pulled.terms + 8, dtype)) * STEP_SLACK
