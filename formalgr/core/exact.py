"""Rational and ball arithmetic: object arrays of exact rationals, numbers with a radius; the one door of python-flint.

In: float64 arrays, decimals. Out: object arrays of fmpq (or Fraction where flint is missing), Fractions, balls. Trust:
sound (a ball holds the number it stands for; Johansson 2017, Arb).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np

from formalgr.core.errors import MissingDependency

try:
    import flint
except ImportError:  # the slower path: same values, no second code beside it
    flint = None


def rational(value):
    """The exact rational equal to a float, an int, a Fraction or a flint rational."""
    if flint is None:
        return Fraction(value)
    if isinstance(value, flint.fmpq):
        return value
    fraction = Fraction(value)
    return flint.fmpq(fraction.numerator, fraction.denominator)


def fraction(value) -> Fraction:
    """The Fraction equal to an exact rational of either kind."""
    if isinstance(value, (int, float, Fraction)):
        return Fraction(value)
    return Fraction(int(value.p), int(value.q))


def rational_array(values) -> np.ndarray:
    """Object array of rationals exactly equal to `values` (any shape, floats or Fractions)."""
    source = np.asarray(values)
    result = np.empty(source.shape, dtype=object)
    flat = result.reshape(-1)
    for index, value in enumerate(source.reshape(-1).tolist()):
        flat[index] = rational(value)
    return result


def to_float(values: np.ndarray) -> np.ndarray:
    """Nearest float64 of every rational in an object array."""
    flat = [float(fraction(value)) for value in values.reshape(-1)]
    return np.array(flat, dtype=np.float64).reshape(values.shape)


def _matrix_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows, columns = left.shape[0], right.shape[1]
    if flint is None or 0 in (*left.shape, *right.shape):
        return np.matmul(left, right)
    product = flint.fmpq_mat(*left.shape, left.reshape(-1).tolist()) * flint.fmpq_mat(
        *right.shape, right.reshape(-1).tolist()
    )
    result = np.empty(rows * columns, dtype=object)
    result[:] = product.entries()
    return result.reshape(rows, columns)


class RationalNamespace:
    """Array namespace over object arrays of rationals: the functions that operators call, without any rounding."""

    float64 = object
    float32 = object

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def zeros(shape, dtype=None, device=None):
        """Array of exact zeros; dtype and device are accepted for the common signature."""
        return RationalNamespace.full(shape, 0)

    @staticmethod
    def full(shape, value, dtype=None, device=None):
        """Array filled with the exact rational of `value`."""
        result = np.empty(shape, dtype=object)
        result.fill(rational(value))
        return result

    @staticmethod
    def matmul(left, right):
        """Exact matrix product with numpy's broadcasting of leading axes."""
        if right.ndim == 2:
            flat = _matrix_product(left.reshape(-1, left.shape[-1]), right)
            return flat.reshape(*left.shape[:-1], right.shape[-1])
        leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left = np.broadcast_to(left, (*leading, *left.shape[-2:])).reshape(-1, *left.shape[-2:])
        right = np.broadcast_to(right, (*leading, *right.shape[-2:])).reshape(-1, *right.shape[-2:])
        result = np.empty((left.shape[0], left.shape[1], right.shape[2]), dtype=object)
        for index in range(left.shape[0]):
            result[index] = _matrix_product(left[index], right[index])
        return result.reshape(*leading, left.shape[1], right.shape[2])

    @staticmethod
    def concat(arrays, axis=0):
        """Arrays joined along `axis`."""
        return np.concatenate(arrays, axis=axis)

    @staticmethod
    def permute_dims(array, axes):
        """Array with its axes permuted."""
        return np.transpose(array, axes)


RATIONAL_NAMESPACE = RationalNamespace()


class Balls:
    """Makes balls and polynomials with balls as coefficients; their operators round outward."""

    @staticmethod
    def number(value):
        """A ball around the rational `value` (a float, an int, a Fraction)."""
        return flint.arb(rational(value))

    @staticmethod
    def polynomial(coefficients: Sequence):
        """The polynomial with these balls as coefficients, the constant one first."""
        return flint.arb_poly(list(coefficients))

    @staticmethod
    def pi():
        """A ball around pi."""
        return flint.arb.pi()


@contextmanager
def balls(bits: int) -> Iterator[Balls]:
    """Ball arithmetic of `bits` bits inside the block. Comparisons of balls are True only where they are proven.

    Raises MissingDependency without python-flint.
    """
    if flint is None:
        raise MissingDependency("ball arithmetic needs python-flint: pip install python-flint")
    with flint.ctx.workprec(bits):
        yield Balls()
